"""The cluster as the hub sees it: a watch that outlives outages, and how pods and nodes are read. No decision is made here."""

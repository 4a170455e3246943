"""What a person may start: profiles, their sizes, who sees them, and what somebody chose."""

"""Dask on demand: what clusters there are to choose from, their rules, and the gateway that runs them under the quota."""

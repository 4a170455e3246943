"""Spawners whose every start is decided by the quota."""

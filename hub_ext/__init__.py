"""Hangang Hub: a JupyterHub that shares a GPU centre fairly."""

"""Dask clusters on Kubernetes, one and hundreds: `python -m bench.kube_clusters --help`."""

"""The cluster of the tests marked `cluster`, and what they need in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, find_cluster
from tests.support.deployed import DeployedHub


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    found = find_cluster()
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail("CI has no cluster, though `.ci/run` brings one up: its tests must run there")
    pytest.skip("no cluster: `make cluster` makes one")


@pytest.fixture(scope="module")
def hub(cluster: Cluster) -> DeployedHub:
    """The hub as `make deploy` brings it into the cluster."""
    deployed = DeployedHub(cluster)
    deployed.deploy("local")
    return deployed


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace as people's pods have it, for one test."""
    with cluster.namespace(**{"pod-security.kubernetes.io/enforce": "restricted"}) as name:
        yield name


@pytest.fixture(scope="session")
def tools(cluster: Cluster) -> str:
    """An image of one static program, `/busybox`, that is a shell and many small tools."""
    if not cluster.ours:
        pytest.skip("only the cluster that `make cluster` makes can be given this image")
    busybox = shutil.which("busybox")
    if busybox is None:
        if os.environ.get("CI"):
            pytest.fail("CI has no busybox, though `.ci/run` installs it")
        pytest.skip("no busybox: on Debian and Ubuntu, apt install busybox-static")
    cluster.program("load-program", "hangang/tools:dev", busybox)
    return "hangang/tools:dev"

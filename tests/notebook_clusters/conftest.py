"""What the tests of clusters in a notebook share: a real gateway, a stand-in for the desk, and a notebook told of both."""

from __future__ import annotations

from collections.abc import Iterator

import dask
import pytest
from dask_gateway import GatewayCluster

from tests.support.clusters_desk import TOKEN, ClustersDesk, clusters_desk
from tests.support.gateway import RealGateway, real_gateway
from tests.support.hub import wait_for


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealGateway]:
    with real_gateway(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture
def desk() -> Iterator[ClustersDesk]:
    with clusters_desk() as found:
        yield found


@pytest.fixture
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANGANG_LANGUAGE", "en")


@pytest.fixture
def notebook(
    gateway: RealGateway, desk: ClustersDesk, english: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RealGateway]:
    """As in a notebook; in the end no cluster may be left, at the gateway or here."""
    monkeypatch.setenv("HANGANG_DESK_URL", desk.url)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", TOKEN)
    monkeypatch.setenv("HANGANG_SERVER", "work")
    # As whom the gateway's simple authenticator knows us.
    monkeypatch.setenv("LOGNAME", "tester")
    with dask.config.set(gateway.settings):
        yield gateway
        try:
            wait_for(lambda: not gateway.running(), "the end of every cluster", 20)
            assert not [one for one in GatewayCluster._instances if one.status == "running"]
        finally:
            # For the tests that follow.
            for one in list(GatewayCluster._instances):
                one.close()
            for name in gateway.running():
                gateway.stop(name)

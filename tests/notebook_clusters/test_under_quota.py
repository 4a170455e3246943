"""`start` against this project's own gateway: the quota's words, its leases, its ends."""

from __future__ import annotations

from collections.abc import Iterator

import dask
import pytest

from hub_ext.notebook import clusters
from tests.support.cluster_site import ClusterSite, cluster_site
from tests.support.hub import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSite]:
    with cluster_site(tmp_path_factory.mktemp("quota") / "site") as site:
        yield site


@pytest.fixture
def site(whole_site: ClusterSite, english: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterSite]:
    """As in a notebook of a student; in the end nothing runs and nobody holds a lease."""
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "student-token")
    for name in ("HANGANG_DESK_URL", "HANGANG_SERVER", "JUPYTERHUB_SERVER_NAME"):
        monkeypatch.delenv(name, raising=False)
    told = {
        "gateway.address": whole_site.url,
        "gateway.proxy-address": f"gateway://127.0.0.1:{whole_site.factory.secrets.dask_tcp_port}",
        "gateway.public-address": "/services/desk",
        "gateway.auth.type": "jupyterhub",
    }
    with dask.config.set(told):
        yield whole_site
    wait_for(lambda: not whole_site.leases() and not whole_site.running(), "nothing is left")


def test_it_starts_computes_and_gives_everything_back(site: ClusterSite) -> None:
    client = clusters.start(2, minutes=60, idle_minutes=30)
    name = client.cluster.name
    assert client.submit(sum, [1, 2]).result(60) == 3
    assert client.cluster.dashboard_link == f"/services/desk/clusters/{name}/status"
    wait_for(lambda: len(site.workers(name)) == 2, "two leases of workers")
    assert "scheduler" in client.cluster.logs()
    client.shutdown()


def test_more_than_there_may_be_is_said_in_the_persons_language(
    site: ClusterSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANGANG_LANGUAGE", "ko")
    cluster = clusters.start(1).cluster
    try:
        with pytest.warns(clusters.FewerWorkers, match="[가-힣]"):
            cluster.scale(500)
    finally:
        cluster.close()


def test_what_cannot_be_is_refused_in_words_and_leaves_nothing(site: ClusterSite) -> None:
    with pytest.raises(clusters.ClusterRefused, match="no-such-size"):
        clusters.start(1, "no-such-size")
    with pytest.raises(clusters.ClusterRefused):
        clusters.start(1, environment={"LD_PRELOAD": "/home/evil.so"})
    assert not site.leases()

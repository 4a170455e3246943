"""The whole way of a Dask cluster on a real hub: from a person's server to the ledger, with all that may come between."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import dask.config
import dask.dataframe as dd
import pandas as pd
import psutil
import pytest
from dask_gateway import Gateway, GatewayWarning
from dask_gateway.auth import JupyterHubAuth

from hub_ext.spawners.processes import LocalWorld
from tests.support.hub import ROOT, EmbeddedHub, Visitor, wait_for

POLICY = """
version: 1
timezone: Asia/Seoul
gpu_classes:
  h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}
  h200-1g: {resource: nvidia.com/mig-1g.18gb, hours: "0.143", memory: 18Gi}
pools:
  seoul: {session: {min: 1m, max: 12h, protected: 0s, notice: 66s, grace: 1m}}
  univ:
    parent: seoul
    quota: {cpu: {nominal: 5}, memory: {nominal: 64Gi}}
  lab:
    parent: seoul
    quota: {cpu: {nominal: 4}, memory: {nominal: 64Gi}}
"""
IDENTITY = """
people:
  student: {pools: [univ], roles: [student]}
  lead: {pools: [lab], roles: [lead]}
"""
KERNEL = """
import dask, json
from dask_gateway import Gateway
with Gateway() as gateway:
    print(json.dumps([report.name for report in gateway.list_clusters()]))
"""


@pytest.fixture
def hub(make_hub: Callable[..., EmbeddedHub], tmp_path: Path) -> EmbeddedHub:
    for folder, name in (("spawner_profiles", "cpu-small.yaml"), ("cluster_profiles", "cpu.yaml")):
        (tmp_path / folder).mkdir()
        shutil.copyfile(ROOT / folder / name, tmp_path / folder / name)
    return make_hub(
        settings={
            "profiles": str(tmp_path / "spawner_profiles"),
            "cluster_profiles": str(tmp_path / "cluster_profiles"),
        },
        documents={"pools.yaml": POLICY, "identity.yaml": IDENTITY},
    )


@pytest.fixture
def as_in_a_server() -> Iterator[None]:
    with dask.config.set({"gateway.cluster.options": {}}):
        yield


def environment_of(hub: EmbeddedHub, lease: str) -> dict[str, str]:
    """What the processes of a person's server, its kernels among them, have in their environment."""
    handle = next(one.handle for one in LocalWorld(hub.state).running() if one.lease == lease and one.main)
    return dict(psutil.Process(int(handle.partition("@")[0])).environ())


def of_cluster(hub: EmbeddedHub, name: str, kind: str = "dask-worker") -> list[dict[str, Any]]:
    return [lease for lease in hub.leases() if lease["server"] == name and lease["kind"] == kind]


def one_to_one(hub: EmbeddedHub) -> bool:
    leases = {lease["id"]: lease["handle"] for lease in hub.leases()}
    return leases == {one.lease: one.handle for one in LocalWorld(hub.state).running() if one.main}


@pytest.mark.usefixtures("as_in_a_server")
def test_a_cluster_is_clamped_grows_gives_way_and_is_metered(hub: EmbeddedHub) -> None:
    # 1. Two people have a server: of nine CPUs five are left.
    student, lead = Visitor(hub, "student"), Visitor(hub, "lead")
    for visitor in (student, lead):
        assert visitor.start({"profile": "cpu-small"}).status_code in (201, 202)
    for visitor in (student, lead):
        visitor.wait_until_ready()
    (server,) = [lease for lease in hub.leases() if lease["person"] == "student"]
    inside = environment_of(hub, server["id"])
    assert inside["HANGANG_SERVER"] == ""
    assert inside["DASK_GATEWAY__PUBLIC_ADDRESS"] == "/services/desk"
    # 2. In a kernel `Gateway()` just works.
    asked = subprocess.run(
        [sys.executable, "-c", KERNEL], env=inside, capture_output=True, text=True, timeout=60
    )
    assert (asked.returncode, asked.stdout.strip()) == (0, "[]"), asked.stderr
    auth = JupyterHubAuth(api_token=inside["JUPYTERHUB_API_TOKEN"])
    gateway = Gateway(
        inside["DASK_GATEWAY__ADDRESS"], proxy_address=inside["DASK_GATEWAY__PROXY_ADDRESS"], auth=auth
    )
    began = time.time()
    with gateway, gateway.new_cluster(profile="cpu", shutdown_on_close=False) as cluster:
        # 3. More workers than there is room for: what fits, and why not more.
        with pytest.warns(GatewayWarning, match=r"2 of 3 workers can run now\. .+ start by themselves"):
            cluster.scale(3)
        with cluster.get_client() as client:
            client.wait_for_workers(2, timeout=60)
            table = dd.from_pandas(pd.DataFrame({"line": [1, 2] * 500, "people": range(1000)}), npartitions=8)
            kept = client.persist(table)
            assert kept.groupby("line").people.sum().compute().to_dict() == {1: 249_500, 2: 250_000}
            # 4. Somebody stops: the third worker comes by itself.
            lead.stop()
            client.wait_for_workers(3, timeout=30)
            workers = of_cluster(hub, cluster.name)
            freed = max(_at(one, "released_at") for one in hub.all_leases() if one["person"] == "lead")
            third = max(workers, key=lambda one: _at(one, "booked_at"))
            assert 0 <= _at(third, "started_at") - freed <= 5
            wait_for(lambda: one_to_one(hub), "leases and processes are one to one")
            assert len([lease for lease in workers if not lease["guaranteed"]]) == 2
            # 5. They come back for what is theirs: a borrowed worker hands over its data and goes, long before the
            #    notice is over, and the server starts by itself.
            waits = lead.start({"profile": "cpu-small"})
            assert waits.status_code == 409, waits.text
            lead.wait_until_ready(seconds=60)
            assert len(of_cluster(hub, cluster.name)) == 2
            assert kept.groupby("line").people.sum().compute().to_dict() == {1: 249_500, 2: 250_000}
            # 6. Only its owner sees the dashboard.
            page = f"/services/desk/clusters/{cluster.name}/status"
            assert student.http.get(page).status_code == 200
            assert lead.http.get(page).status_code == 404
        # 7. The gateway is killed: nothing changes.
        before = {one.lease: one.handle for one in LocalWorld(hub.state).running() if one.main}
        child = gateway_process(hub)
        child.kill()
        wait_for(lambda: gateway_process(hub).pid != child.pid, "it is started again")
        wait_for(lambda: list_clusters(gateway) == [cluster.name], "it knows the cluster")
        assert {one.lease: one.handle for one in LocalWorld(hub.state).running() if one.main} == before
        # 8. Its end, and what the ledger says of it.
        cluster.shutdown()
        wait_for(
            lambda: not [one for one in hub.leases() if one["server"] == cluster.name], "all is given back"
        )
        ended = time.time()
    over = [lease for lease in hub.all_leases() if lease["server"] == cluster.name]
    assert sorted(lease["reason"] for lease in over) == ["stopped", "stopped", "stopped", "taken-back"]
    seconds = [_seconds(lease) for lease in over]
    assert all(0 < ran <= ended - began for ran in seconds)
    usage = hub.command("usage", "--by", "lease", "--format", "csv")
    assert usage.count("dask-worker") == 3
    student.stop()
    lead.stop()


def list_clusters(gateway: Gateway) -> list[str]:
    try:
        return [report.name for report in gateway.list_clusters()]
    except OSError:
        return []


def gateway_process(hub: EmbeddedHub) -> psutil.Process:
    assert hub.process is not None

    def find() -> psutil.Process | None:
        for process in psutil.Process(hub.process.pid).children():  # type: ignore[union-attr]
            with suppress(psutil.Error):  # one that was killed is a zombie until the supervisor looks
                if process.is_running() and process.cmdline()[-1:] == ["gateway"]:
                    return process
        return None

    found: psutil.Process = wait_for(find, "the gateway runs")
    return found


def _seconds(lease: dict[str, Any]) -> float:
    return _at(lease, "released_at") - _at(lease, "started_at")


def _at(lease: dict[str, Any], what: str) -> float:
    return datetime.fromisoformat(lease[what]).timestamp()


def test_the_proxy_before_the_schedulers_may_be_killed_alone(hub: EmbeddedHub) -> None:
    assert hub.process is not None

    def proxy() -> psutil.Process | None:
        for process in psutil.Process(hub.process.pid).children():  # type: ignore[union-attr]
            with suppress(psutil.Error, OSError):  # as above
                if "dask-gateway-proxy" in Path(process.exe()).name:
                    return process
        return None

    first = wait_for(proxy, "the proxy runs")
    others = {one.pid for one in psutil.Process(hub.process.pid).children()} - {first.pid}
    first.kill()
    wait_for(lambda: (again := proxy()) is not None and again.pid != first.pid, "it is started again")
    assert others <= {one.pid for one in psutil.Process(hub.process.pid).children()}

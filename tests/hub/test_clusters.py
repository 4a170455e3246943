"""The whole way of a Dask cluster on a real hub: from a person's server to the ledger, with all that may come between."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.config
import psutil
import pytest
from dask_gateway import Gateway, GatewayWarning
from dask_gateway.auth import JupyterHubAuth

from hub_ext.spawners.processes import LocalWorld
from tests.support.cluster_story import BORROWER, OWNER, nine_cpus, of_cluster, story
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
    quota: {cpu: {nominal: 6}, memory: {nominal: 64Gi}}
"""
IDENTITY = """
people:
  student: {pools: [univ], roles: [student]}
  lead: {pools: [univ], roles: [lead]}
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


def one_to_one(hub: EmbeddedHub) -> bool:
    leases = {lease["id"]: lease["handle"] for lease in hub.leases()}
    return leases == {one.lease: one.handle for one in LocalWorld(hub.state).running() if one.main}


async def test_from_a_kernel_beyond_the_quota_and_back_by_notice(
    make_hub: Callable[..., EmbeddedHub],
) -> None:
    profiles = {"cluster_profiles": str(ROOT / "cluster_profiles")}
    hub = make_hub(settings=profiles, documents={"pools.yaml": nine_cpus()})
    borrower, owner = Visitor(hub, BORROWER), Visitor(hub, OWNER)
    for visitor in (borrower, owner):
        await asyncio.to_thread(a_server_of, visitor)

    def running() -> dict[str, float]:
        return {
            one.lease: psutil.Process(int(one.handle.partition("@")[0])).create_time()
            for one in LocalWorld(hub.state).running()
            if one.main
        }

    await story(hub, borrower, owner, running, slack=2)
    assert one_to_one(hub)


@pytest.mark.usefixtures("as_in_a_server")
def test_gateway_just_works_in_a_kernel_and_a_killed_gateway_changes_nothing(hub: EmbeddedHub) -> None:
    student, lead = Visitor(hub, "student"), Visitor(hub, "lead")
    a_server_of(student)
    (server,) = hub.leases()
    inside = environment_of(hub, server["id"])
    assert inside["HANGANG_SERVER"] == ""
    assert inside["DASK_GATEWAY__PUBLIC_ADDRESS"] == "/services/desk"
    # 1. In a kernel `Gateway()` just works.
    asked = subprocess.run(
        [sys.executable, "-c", KERNEL], env=inside, capture_output=True, text=True, timeout=60
    )
    assert (asked.returncode, asked.stdout.strip()) == (0, "[]"), asked.stderr
    auth = JupyterHubAuth(api_token=inside["JUPYTERHUB_API_TOKEN"])
    gateway = Gateway(
        inside["DASK_GATEWAY__ADDRESS"], proxy_address=inside["DASK_GATEWAY__PROXY_ADDRESS"], auth=auth
    )
    with gateway, gateway.new_cluster(profile="cpu", shutdown_on_close=False) as cluster:
        # 2. As with dask-gateway anywhere, more workers than there is room for are a warning.
        with pytest.warns(GatewayWarning, match=r"1 of 2 workers can run now\. .+ start by themselves"):
            cluster.scale(2)
        wait_for(lambda: len(workers_of(hub, cluster.name)) == 1, "the one worker runs")
        # 3. Only its owner sees the dashboard.
        page = f"/services/desk/clusters/{cluster.name}/status"
        assert student.http.get(page).status_code == 200
        assert lead.http.get(page).status_code == 404
        # 4. The gateway is killed: nothing changes.
        wait_for(lambda: one_to_one(hub), "leases and processes are one to one")
        before = {one.lease: one.handle for one in LocalWorld(hub.state).running() if one.main}
        child = gateway_process(hub)
        child.kill()
        wait_for(lambda: gateway_process(hub).pid != child.pid, "it is started again")
        wait_for(lambda: list_clusters(gateway) == [cluster.name], "it knows the cluster")
        assert {one.lease: one.handle for one in LocalWorld(hub.state).running() if one.main} == before
        # 5. Its end.
        cluster.shutdown()
        wait_for(
            lambda: not [one for one in hub.leases() if one["server"] == cluster.name], "all is given back"
        )
    student.stop()


def a_server_of(visitor: Visitor) -> None:
    assert visitor.start({"profile": "cpu-small"}).status_code in (201, 202)
    visitor.wait_until_ready()
    # From then on its cookies are this visitor's, and kernels may be asked for.
    assert visitor.http.get(f"/user/{visitor.name}/lab").status_code == 200


def workers_of(hub: EmbeddedHub, name: str) -> list[dict[str, Any]]:
    return [one for one in of_cluster(hub, name) if one["state"] == "running"]


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

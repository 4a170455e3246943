"""Each way a start and a server can end, on a real cluster: what the person is told, and what the ledger keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml
from jupyterhub.spawner import SpawnException
from kubernetes_asyncio.client import Configuration
from kubernetes_asyncio.config import load_kube_config

from hub_ext.kube.pods import Waiting
from hub_ext.quota.model import LeaseState
from hub_ext.spawners.kube import GatedKubeSpawner
from tests.support.cluster import Cluster
from tests.support.kube_hub import NOTEBOOK_IMAGE
from tests.support.pod_spawners import Site, a_site, start, stop

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

GOLDEN = Path(__file__).parents[1] / "data" / "pods"
SERVES = ["python3", "-m", "http.server", "8888"]
"""In place of JupyterLab, which would ask its hub first."""
EATS_MEMORY = """
import http.server
class Eats(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.eaten = bytearray(1 << 30)
http.server.HTTPServer(("", 8888), Eats).serve_forever()
"""
TINY = "title: {en: Tiny}\ndescription: {en: Tiny}\nresources: {cpu: 1, memory: 128Mi}\nminutes: {choices: [60], default: 60}\n"
GPU = "title: {en: GPU}\ndescription: {en: GPU}\nresources: {gpu.h200: 1, cpu: 1, memory: 128Mi}\nminutes: {choices: [60], default: 60}\n"
SECONDS = 60

MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(
    cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeSite]:
    """A site with the profiles `tiny` and `tiny-gpu` and the person `kim`; `kubernetes` goes over its settings."""
    before = Configuration._default
    asyncio.run(load_kube_config(str(cluster.kubeconfig)))
    # It is kept from the first time on, which may have been another cluster.
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "tiny.yaml").write_text(TINY)
    (profiles / "tiny-gpu.yaml").write_text(GPU)
    made: list[AbstractContextManager[Site]] = []

    def make(**kubernetes: Any) -> Site:
        settings = {
            "namespace": namespace,
            "image": NOTEBOOK_IMAGE,
            "command": SERVES,
            "home": {"size": "1Gi"},
            "scratch": None,
            "priority_class": None,
            "requests": {"cpu": "10m", "memory": "32Mi"},
        }
        manager = a_site(tmp_path, settings | kubernetes, profiles=profiles)
        made.append(manager)
        site = manager.__enter__()
        site.person("kim", "hangang-univ")
        return site

    yield make
    for manager in made:
        manager.__exit__(None, None, None)
    Configuration.set_default(before)


@pytest.fixture(autouse=True)
async def _nothing_is_left_watching() -> AsyncIterator[None]:
    yield
    await GatedKubeSpawner._stop_all_reflectors()
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = {Waiting.NODE: 1, Waiting.IMAGE_MISSING: 1, Waiting.CRASHING: 1}
    monkeypatch.setattr(GatedKubeSpawner, "patience", patience)


async def failed_start(spawner: GatedKubeSpawner) -> tuple[SpawnException, str]:
    """What the person is told, and the lease that was booked for it."""
    booked: list[str] = []
    admit = spawner.admit

    async def remember(chosen: Any) -> None:
        await admit(chosen)
        booked.append(spawner.lease_id)

    spawner.admit = remember
    with pytest.raises(SpawnException) as caught:
        await asyncio.wait_for(start(spawner), SECONDS)
    (lease,) = booked
    return caught.value, lease


async def ended(spawner: GatedKubeSpawner) -> None:
    """Returns when the spawner finds its server ended, as the hub's own looks do."""
    async with asyncio.timeout(SECONDS):
        while await spawner.poll() is None:
            await spawner.pod_reflector.changed(spawner._key, 2)


# -- a start that works -------------------------------------------------------------------------------------------------


async def test_a_server_starts_with_its_lease_and_gives_it_back(
    make_site: MakeSite, cluster: Cluster, namespace: str
) -> None:
    site = make_site()
    spawner = site.spawner("kim", profile="tiny")
    url = await asyncio.wait_for(start(spawner), SECONDS)
    pod = cluster.get("pod", spawner.pod_name, namespace)
    assert pod is not None
    assert url == f"http://{pod['status']['podIP']}:8888"
    lease = site.lease(spawner.lease_id)
    assert lease.state is LeaseState.RUNNING
    assert lease.handle == f"{namespace}/{spawner.pod_name}@{pod['metadata']['uid']}"
    assert lease.node == pod["spec"]["nodeName"]
    assert pod["metadata"]["labels"]["hangang-hub/lease"] == lease.id
    assert await spawner.poll() is None
    await asyncio.wait_for(stop(spawner), SECONDS)
    assert cluster.get("pod", spawner.pod_name, namespace) is None
    released = site.lease(lease.id)
    assert (released.state, released.reason) == (LeaseState.RELEASED, "stopped")
    assert spawner.lease_id == ""


async def test_progress_is_told_in_words_and_ends_with_the_start(make_site: MakeSite) -> None:
    spawner = make_site().spawner("kim", profile="tiny")
    running = asyncio.create_task(start(spawner))
    await asyncio.sleep(0)

    async def told() -> list[dict[str, Any]]:
        return [one async for one in spawner.progress()]

    found = await asyncio.wait_for(told(), SECONDS)
    await running
    assert found
    assert len({one["message"] for one in found}) == len(found)
    assert all(one["message"] and 0 < one["progress"] < 100 for one in found)
    await asyncio.wait_for(stop(spawner), SECONDS)


async def test_servers_of_one_person_share_a_home_that_outlives_each_of_them(
    make_site: MakeSite, cluster: Cluster, namespace: str
) -> None:
    site = make_site()
    first, second = site.spawner("kim", profile="tiny"), site.spawner("kim", "second", profile="tiny")
    await asyncio.wait_for(asyncio.gather(start(first), start(second)), SECONDS)
    write = [
        "exec",
        first.pod_name,
        f"--namespace={namespace}",
        "--",
        "sh",
        "-c",
        "echo kept > /home/jovyan/note",
    ]
    cluster.kubectl(*write)
    read = ["exec", second.pod_name, f"--namespace={namespace}", "--", "cat", "/home/jovyan/note"]
    assert cluster.kubectl(*read) == "kept\n"
    await asyncio.wait_for(stop(second), SECONDS)
    await second.delete_forever()
    claims = [claim["metadata"]["name"] for claim in cluster.list("persistentvolumeclaims", namespace)]
    assert claims == ["home-kim"]
    assert cluster.kubectl(*write[:4], "cat", "/home/jovyan/note") == "kept\n"
    await asyncio.wait_for(stop(first), SECONDS)


# -- a start that does not ------------------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[dict[str, Any], str, int, str, str]] = {
    "its image is missing": (
        {"image": "hangang/there-is-none:dev"},
        "tiny",
        503,
        "image-missing",
        "its software could not be loaded",
    ),
    "no node has room": (
        {"node_seconds": 10, "gpu_nodes": {"h200": {"node_selector": {"example.com/there-is": "none"}}}},
        "tiny-gpu",
        409,
        "no-room",
        "no machine has room for it right now",
    ),
    "its program fails": (
        {"command": ["python3", "-c", "raise SystemExit(3)"]},
        "tiny",
        503,
        "crashed",
        "ended with an error",
    ),
    "its program does not exist": (
        {"command": ["/there-is-none"]},
        "tiny",
        503,
        "crashed",
        "ended with an error",
    ),
    "its program is over at once": ({"command": ["true"]}, "tiny", 503, "exited", "shut down from inside"),
    "its volume never comes": (
        {"home": {"size": "1Gi", "storage_class": "there-is-none"}},
        "tiny",
        503,
        "start-failed",
        "could not be started",
    ),
}


@pytest.mark.parametrize(
    ("kubernetes", "profile", "status", "reason", "words"), FAILURES.values(), ids=FAILURES
)
async def test_a_start_that_fails_says_why_and_gives_all_back(
    kubernetes: dict[str, Any],
    profile: str,
    status: int,
    reason: str,
    words: str,
    make_site: MakeSite,
    cluster: Cluster,
    namespace: str,
    impatient: None,
) -> None:
    site = make_site(**kubernetes)
    spawner = site.spawner("kim", profile=profile)
    if reason == "start-failed":
        spawner.start_timeout = 12
    error, lease_id = await failed_start(spawner)
    assert (error.status_code, error.reason) == (status, reason)
    assert words in error.jupyterhub_message
    lease = site.lease(lease_id)
    assert (lease.state, lease.reason) == (LeaseState.RELEASED, reason)
    assert cluster.get("pod", spawner.pod_name, namespace) is None


def more_gpus(spawner: Any, pod: Any) -> Any:
    pod.spec.containers[0].resources.limits["nvidia.com/gpu"] = "2"
    pod.spec.containers[0].resources.requests["nvidia.com/gpu"] = "2"
    return pod


def folder_of_the_node(spawner: Any, pod: Any) -> Any:
    pod.spec.volumes.append({"name": "dev", "hostPath": {"path": "/dev"}})
    return pod


async def forged_label(spawner: Any, pod: Any) -> Any:
    pod.metadata.labels["hangang-hub/pool"] = "city-traffic"
    return pod


@pytest.mark.parametrize("hook", [more_gpus, folder_of_the_node, forged_label])
async def test_a_hook_that_goes_beyond_the_lease_makes_no_pod(
    hook: Any, make_site: MakeSite, cluster: Cluster, namespace: str
) -> None:
    site = make_site()
    site.config.KubeSpawner.modify_pod_hook = hook
    spawner = site.spawner("kim", profile="tiny")
    error, lease_id = await failed_start(spawner)
    assert (error.status_code, error.reason) == (503, "start-failed")
    lease = site.lease(lease_id)
    assert (lease.state, lease.reason, lease.started_at) == (LeaseState.RELEASED, "start-failed", None)
    events = cluster.list("events", namespace)
    assert not [event for event in events if event["involvedObject"]["kind"] == "Pod"]
    assert cluster.list("pods", namespace) == []


async def test_a_pod_whose_making_was_not_answered_is_kept(
    make_site: MakeSite, cluster: Cluster, namespace: str
) -> None:
    site = make_site()
    spawner = site.spawner("kim", profile="tiny")
    await spawner._start_watching_pods()
    create, uids = spawner.api.create_namespaced_pod, []

    async def unanswered(*arguments: Any, **more: Any) -> Any:
        made = await create(*arguments, **more)
        uids.append(made.metadata.uid)
        raise TimeoutError

    spawner.api.create_namespaced_pod = unanswered
    try:
        await asyncio.wait_for(start(spawner), SECONDS)
    finally:
        spawner.api.create_namespaced_pod = create
    pod = cluster.get("pod", spawner.pod_name, namespace)
    assert pod is not None
    assert [pod["metadata"]["uid"]] == uids
    await asyncio.wait_for(stop(spawner), SECONDS)


async def test_a_pod_of_a_former_start_makes_room_for_the_new_one(
    make_site: MakeSite, cluster: Cluster, namespace: str
) -> None:
    site = make_site()
    former = site.spawner("kim", profile="tiny")
    await asyncio.wait_for(start(former), SECONDS)
    old = cluster.get("pod", former.pod_name, namespace)
    # Another hub, which knows nothing of it.
    spawner = Site(site.settings, site.config).spawner("kim", profile="tiny")
    await asyncio.wait_for(start(spawner), SECONDS)
    new = cluster.get("pod", spawner.pod_name, namespace)
    assert old is not None
    assert new is not None
    assert old["metadata"]["uid"] != new["metadata"]["uid"]
    assert new["metadata"]["labels"]["hangang-hub/lease"] == spawner.lease_id
    await asyncio.wait_for(stop(spawner), SECONDS)


# -- a server that ends ---------------------------------------------------------------------------------------------------


async def test_a_server_that_needs_too_much_memory_ends_as_that(make_site: MakeSite) -> None:
    site = make_site(command=["python3", "-c", EATS_MEMORY])
    spawner = site.spawner("kim", profile="tiny")
    url = await asyncio.wait_for(start(spawner), SECONDS)
    lease_id = spawner.lease_id
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    await writer.drain()
    await ended(spawner)
    writer.close()
    # What the hub does when it finds a server ended.
    await spawner.run_post_stop_hook()
    lease = site.lease(lease_id)
    assert (lease.state, lease.reason) == (LeaseState.RELEASED, "out-of-memory")


async def test_a_server_whose_pod_was_deleted_by_hand_ends_as_that(
    make_site: MakeSite, cluster: Cluster, namespace: str
) -> None:
    site = make_site()
    spawner = site.spawner("kim", profile="tiny")
    await asyncio.wait_for(start(spawner), SECONDS)
    lease_id = spawner.lease_id
    cluster.kubectl("delete", "pod", spawner.pod_name, f"--namespace={namespace}", "--grace-period=1")
    await ended(spawner)
    await spawner.run_post_stop_hook()
    lease = site.lease(lease_id)
    assert (lease.state, lease.reason) == (LeaseState.RELEASED, "deleted")


# -- what the cluster thinks of the golden files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.yaml")))
def test_pod_security_restricted_takes_each_golden_pod(name: str, cluster: Cluster, namespace: str) -> None:
    golden = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8"))
    # Its class may not be there; that is another affair.
    golden["pod"]["spec"].pop("priorityClassName", None)
    for one in golden.values():
        cluster.kubectl(
            "apply", f"--namespace={namespace}", "--dry-run=server", "--filename=-", given=yaml.safe_dump(one)
        )

"""`start` and `astart` against a real gateway with real schedulers and workers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import warnings
from typing import Any

import dask
import pytest
from distributed import Client, default_client

from hub_ext.notebook import clusters
from hub_ext.notebook.clusters import starting
from hub_ext.notebook.clusters.starting import Wish
from hub_ext.notebook.clusters.words import speaker
from tests.support.clusters_desk import NO_ROOM, ClustersDesk
from tests.support.gateway import RealGateway
from tests.support.hub import wait_for

pytestmark = pytest.mark.slow

SAY = speaker("en")


def test_a_cluster_is_started_computes_scales_and_leaves_nothing(notebook: RealGateway) -> None:
    told: list[str] = []
    client = clusters.start(
        1, "cpu", idle_minutes=30, minutes=60, pool="city", environment={"TOWN": "Seoul"}, tell=told.append
    )
    assert isinstance(client, Client)
    assert default_client() is client
    assert client.submit(lambda: __import__("os").environ["TOWN"]).result(40) == "Seoul"
    cluster = client.cluster
    assert cluster.dashboard_link == f"/services/desk/clusters/{cluster.name}/status"
    assert notebook.asked()[-1] == {
        "profile": "cpu",
        "pool": "city",
        "server": "work",
        "minutes": 60,
        "idle_minutes": 30,
        "environment": {"TOWN": "Seoul"},
    }
    assert told[0] == "Starting the cluster …"
    cluster.scale(2)
    client.wait_for_workers(2, timeout=60)
    cluster.close()
    assert cluster.status == "closed"
    assert not notebook.running()


def test_the_state_comes_from_the_desk_and_says_when_it_does_not(
    notebook: RealGateway, desk: ClustersDesk
) -> None:
    cluster = clusters.start(0).cluster
    try:
        state = cluster.state()
        assert (state.name, state.live, state.running) == (cluster.name, 2, 2)
        assert cluster.logs() == {"scheduler": "No module named 'of_mine'"}
        desk.fails = "failing"
        with pytest.raises(clusters.ClusterError, match="desk does not answer"):
            cluster.state()
        desk.fails = "refusing"
        with pytest.raises(clusters.ClusterRefused, match="Your limit is 1 GPU"):
            cluster.state()
    finally:
        cluster.close()


def test_a_refusal_is_the_gateways_sentence_and_leaves_nothing(notebook: RealGateway) -> None:
    with pytest.raises(clusters.ClusterRefused) as refused:
        clusters.start(2, "refused")
    assert str(refused.value) == "Your limit is 2 GPUs; start 2 workers or fewer."


def test_options_that_do_not_exist_are_told(notebook: RealGateway) -> None:
    with pytest.raises(clusters.ClusterRefused, match="idle_minutes"):
        clusters.start(2, idle_minutes="soon")  # type: ignore[arg-type]


def test_a_scheduler_that_does_not_come_up_is_told(notebook: RealGateway) -> None:
    with pytest.raises(clusters.ClusterError, match="did not start, or was stopped") as failed:
        clusters.start(1, "no-scheduler")
    assert failed.value.__notes__ == ["scheduler: No module named 'of_mine'"]


def test_an_adaptive_cluster_grows_with_the_work_and_without_work_waits_for_nobody(
    notebook: RealGateway,
) -> None:
    client = clusters.start(adapt=(0, 2))
    try:
        assert client.submit(sum, [1, 2]).result(40) == 3
        assert 1 <= len(client.scheduler_info()["workers"]) <= 2
    finally:
        client.cluster.close()


def test_shutdown_of_the_client_ends_the_cluster(notebook: RealGateway) -> None:
    """Upstream this waits for itself for ever."""
    client = clusters.start(0)
    ending = threading.Thread(target=client.shutdown, daemon=True)
    ending.start()
    ending.join(60)
    assert not ending.is_alive()
    assert not notebook.running()


def test_while_no_worker_has_room_it_says_why_and_an_interrupt_leaves_nothing(
    notebook: RealGateway, desk: ClustersDesk
) -> None:
    desk.facts = {
        "workers": {"live": 0, "running": 0, "guaranteed": 0, "borrowed": 0, "wanted": 2},
        "waiting": {
            "code": "",
            "facts": {},
            "message": NO_ROOM["en"],
            "place": 3,
            "eta": {"at": "2026-11-26T14:20:00+09:00", "kind": "expected", "sentence": "expected 14:20"},
        },
    }
    told: list[str] = []

    def interrupt_when_told() -> None:
        wait_for(lambda: any("Place in line" in one for one in told), "the reason", 90)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_told, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        clusters.start(2, "without-room", tell=told.append)
    assert told[-1] == (
        f"No worker yet. {NO_ROOM['en']} Place in line: 3. Expected 14:20. It goes on by itself; interrupt to give up."
    )
    assert len(told) == len(set(told)), "each sentence once"


def test_an_interrupt_while_the_order_is_on_its_way_leaves_nothing(
    notebook: RealGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = starting.Order.name

    async def interrupted(order: starting.Order) -> str:
        # Sent, and not answered yet.
        os.kill(os.getpid(), signal.SIGINT)
        return await name(order)

    before = len(notebook.asked())
    monkeypatch.setattr(starting.Order, "name", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clusters.start(1)
    assert len(notebook.asked()) == before + 1, "it was ordered"
    assert not notebook.running(), "and taken back before the call returned"


def test_a_cluster_that_is_stopped_while_it_is_waited_for_is_told(notebook: RealGateway) -> None:
    def stop_when_it_waits(sentence: str) -> None:
        if "waiting for the first" in sentence:
            for name in notebook.running():
                notebook.stop(name)

    with pytest.raises(clusters.ClusterError, match="did not start, or was stopped"):
        clusters.start(2, "without-room", tell=stop_when_it_waits)


def test_without_a_gateway_it_says_what_to_do(english: None) -> None:
    with (
        dask.config.set({"gateway.address": None}),
        pytest.raises(clusters.ClusterError, match=r"clusters\.local\(\)"),
    ):
        clusters.start()


def test_a_gateway_that_is_away_is_told(english: None) -> None:
    with (
        dask.config.set({"gateway.address": "http://127.0.0.1:9", "gateway.auth.type": "basic"}),
        pytest.raises(clusters.ClusterError, match="does not answer"),
    ):
        clusters.start()


def test_a_server_without_a_token_is_told(english: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)
    with (
        dask.config.set({"gateway.address": "http://127.0.0.1:9", "gateway.auth.type": "jupyterhub"}),
        pytest.raises(clusters.ClusterError, match="JUPYTERHUB_API_TOKEN"),
    ):
        clusters.start()


async def test_the_same_for_code_that_awaits(notebook: RealGateway) -> None:
    client = await clusters.astart(1)
    try:
        assert await client.submit(sum, [1, 2]) == 3
        assert (await client.cluster.state()).live == 2
    finally:
        await client.close()
        await client.cluster.close()
    with pytest.raises(clusters.ClusterRefused, match="Your limit is 2 GPUs"):
        await clusters.astart(1, "refused")


async def test_a_cancelled_astart_leaves_nothing(notebook: RealGateway) -> None:
    told, waits = [], asyncio.Event()

    def tell(sentence: str) -> None:
        told.append(sentence)
        if len(told) == 2:
            waits.set()

    starting_it = asyncio.create_task(clusters.astart(2, "without-room", tell=tell))
    await asyncio.wait_for(waits.wait(), 60)
    starting_it.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting_it


def test_a_cluster_that_runs_already_is_connected_to_and_goes_on(notebook: RealGateway) -> None:
    with pytest.raises(clusters.ClusterError, match="No cluster of yours"):
        clusters.connect()
    cluster = clusters.start(1).cluster
    try:
        again = clusters.connect()
        assert again.cluster.name == cluster.name
        assert again.submit(sum, [1, 2]).result(60) == 3
        again.cluster.close()
        assert list(notebook.running()) == [cluster.name]
        with pytest.raises(clusters.ClusterError, match="No cluster of yours"):
            clusters.connect("another")
    finally:
        cluster.close()


def test_another_version_of_dask_is_warned_of(notebook: RealGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = Client.get_versions

    def older_here(client: Client, **options: Any) -> Any:
        found: Any = versions(client, **options)
        found["client"]["packages"]["dask"] = "2025.1.0"
        return found

    monkeypatch.setattr(Client, "get_versions", older_here)
    with pytest.warns(
        clusters.DaskVersionWarning, match="dask 2025.1.0 here, dask 2026.7.1 in the cluster"
    ) as seen:
        client = clusters.start(0)
    client.cluster.close()
    assert "%pip install dask==2026.7.1" in str(seen[0].message)
    assert seen[0].filename == __file__, "it points at the person's own line"


def test_the_same_version_is_not_warned_of(notebook: RealGateway) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", clusters.DaskVersionWarning)
        clusters.start(0).cluster.close()


KERNEL = """
from hub_ext.notebook import clusters
client = clusters.start(1)
print(client.cluster.name, flush=True)
"""


def test_the_end_of_the_kernel_ends_its_cluster(notebook: RealGateway, desk: ClustersDesk) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KERNEL],
        env={**os.environ, **notebook.environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 32
    assert "Traceback" not in done.stderr
    assert not notebook.running()


@pytest.mark.parametrize(
    ("workers", "adapt", "want"),
    [
        pytest.param(4, None, Wish(4, 4), id="a number"),
        pytest.param(0, None, Wish(0, 0), id="none"),
        pytest.param(4, (1, 8), Wish(1, 8, adapts=True), id="from, to"),
        pytest.param("many", [0, 2], Wish(0, 2, adapts=True), id="a list, the number does not count"),
    ],
)
def test_a_wish_for_workers(workers: object, adapt: object, want: Wish) -> None:
    assert Wish.of(workers, adapt, SAY) == want


@pytest.mark.parametrize(
    ("workers", "adapt", "words"),
    [
        pytest.param(-1, None, "workers is -1; write a whole number", id="negative"),
        pytest.param("4", None, "workers is '4'", id="a text"),
        pytest.param(True, None, "workers is True", id="a truth value"),
        pytest.param(1e3, None, "workers is 1000.0", id="a fraction"),
        pytest.param(10**9, None, "from 0 to 10000", id="too many"),
        pytest.param(4, 8, r"adapt is 8; write the least and the most workers, as \(0, 8\)", id="no pair"),
        pytest.param(4, (1, 2, 3), "adapt is", id="three"),
        pytest.param(4, (8, 1), "the least comes first", id="the wrong way round"),
        pytest.param(4, (0, None), "adapt is None", id="no end"),
    ],
)
def test_what_is_no_wish_is_told_before_anything_is_ordered(
    workers: object, adapt: object, words: str
) -> None:
    with pytest.raises(clusters.ClusterError, match=words):
        Wish.of(workers, adapt, SAY)

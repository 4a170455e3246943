"""A real scheduler with our preload, real workers, and a gateway that hears heartbeats and gives orders."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from dask_gateway import scheduler_preload as upstream
from distributed import Client, Event, Scheduler, wait, worker_client

from hub_ext.notebook import scheduler_preload
from tests.support.dask_parts import TOKEN, Cluster, StandInGateway, scheduler, stand_in_gateway
from tests.support.hub import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gateway() -> Iterator[StandInGateway]:
    with stand_in_gateway() as found:
        yield found


@pytest.fixture(scope="module")
def cluster(gateway: StandInGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers, `kept` and one more for each test that takes one away."""
    folder = tmp_path_factory.mktemp("cluster")
    # The period is so long that what is seen here comes from events.
    with scheduler(gateway, folder, "--dg-heartbeat-period", "120") as found:
        found.order({"op": "scale", "count": 2})
        found.add("kept")
        yield found


@pytest.fixture(autouse=True)
def room_for_one_more(cluster: Cluster) -> None:
    """Two are wished for, and `kept` alone is there."""
    cluster.order({"op": "scale", "count": 2})
    if cluster.gateway.last["active_workers"] != ["kept"]:
        if "kept" not in cluster.gateway.last["active_workers"]:
            cluster.add("kept")
        cluster.order({"op": "retire", "names": [*cluster.workers.keys() - {"kept"}]})
        cluster.gateway.until(lambda one: one["active_workers"] == ["kept"], "kept alone")


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.address, timeout="30s") as found:
        yield found


def workers(client: Client) -> set[str]:
    return {worker["name"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}


def address(client: Client, name: str) -> str:
    info = client.scheduler_info(n_workers=-1)["workers"]
    return next(where for where, worker in info.items() if worker["name"] == name)


def beat(cluster: Cluster) -> dict[str, Any]:
    """A heartbeat that was made after this call."""
    seen, count = len(cluster.gateway.heartbeats), cluster.gateway.last["count"]
    for wish in (count + 1, count):
        cluster.order({"op": "scale", "count": wish})
        cluster.gateway.until(lambda one, wish=wish: one["count"] == wish, f"the wish for {wish}")
    wait_for(lambda: len(cluster.gateway.heartbeats) >= seen + 2, "two heartbeats")
    return cluster.gateway.last


def test_it_takes_the_options_that_the_gateway_gives() -> None:
    ours = {option.name: option.default for option in scheduler_preload.dask_setup.params}
    assert ours == {option.name: option.default for option in upstream.dask_setup.params}
    assert {"dg_heartbeat_period", "dg_adaptive_period", "dg_idle_timeout", "dg_api_address"} == set(ours)


def test_a_heartbeat_says_what_the_gateway_wants_to_know_and_more(
    cluster: Cluster, gateway: StandInGateway
) -> None:
    found = beat(cluster)
    assert gateway.tokens == {f"token {TOKEN}"}
    assert set(found) == {
        *("scheduler_address", "dashboard_address", "api_address", "count"),
        *("active_workers", "closing_workers", "closed_workers", "idle_seconds", "clients", "memory"),
    }
    assert found["active_workers"] == ["kept"]
    assert found["dashboard_address"].startswith("http://127.0.0.1:")
    assert found["memory"]["limit"] == 400_000_000
    assert 0 < found["memory"]["process"] < 400_000_000


def test_clients_are_counted_while_they_are_connected(cluster: Cluster, gateway: StandInGateway) -> None:
    assert beat(cluster)["clients"] == 0

    def asks_from_inside() -> int:
        with worker_client() as client:
            Event("inside", client=client).set()
            Event("go", client=client).wait(20)
            return int(client.submit(lambda: 2, pure=False).result())

    with Client(cluster.address) as one:
        assert beat(cluster)["clients"] == 1
        # A task that has a client of its own is nobody who waits.
        inside, go = Event("inside", client=one), Event("go", client=one)
        asking = one.submit(asks_from_inside, pure=False)
        inside.wait(20)
        assert beat(cluster)["clients"] == 1
        go.set()
        assert asking.result(20) == 2
    assert beat(cluster)["clients"] == 0


def test_idle_seconds_run_from_the_end_of_the_last_task(cluster: Cluster, client: Client) -> None:
    go = Event("idle", client=client)
    busy = client.submit(lambda: Event("idle").wait(60), pure=False)
    wait_for(lambda: client.processing() and any(client.processing().values()), "a task that runs")
    assert beat(cluster)["idle_seconds"] == 0
    go.set()
    busy.result(20)
    first = beat(cluster)["idle_seconds"]
    later = wait_for(lambda: (found := beat(cluster)["idle_seconds"]) > first + 0.5 and found, "time to pass")
    assert 0 <= first < later < 60


def test_a_task_that_no_worker_can_run_is_no_idleness(cluster: Cluster, client: Client) -> None:
    homeless = client.submit(lambda: 1, resources={"none-has-this": 1}, pure=False)
    wait_for(lambda: beat(cluster)["idle_seconds"] == 0, "no idleness")
    homeless.cancel()


def test_a_retired_worker_loses_no_data_and_the_wish_stays(
    cluster: Cluster, client: Client, gateway: StandInGateway
) -> None:
    cluster.add("retired")
    held = client.submit(lambda: list(range(1000)), workers=[address(client, "retired")], pure=False)
    wait(held, 20)
    before = gateway.last["count"]
    status, answer = cluster.order({"op": "retire", "names": ["retired", "nobody-by-this-name"]})
    assert (status, answer) == (200, {"retiring": ["retired"]})
    gateway.until(lambda one: "retired" in one["closing_workers"], "the announcement")
    gone = gateway.until(lambda one: "retired" in one["closed_workers"], "the end")
    assert gone["active_workers"] == ["kept"]
    assert gone["closing_workers"] == []
    assert gone["count"] == before
    assert workers(client) == {"kept"}
    assert held.result(20) == list(range(1000))
    assert cluster.workers["retired"].wait(20) == 0
    announced = next(n for n, one in enumerate(gateway.heartbeats) if "retired" in one["closing_workers"])
    closed = next(n for n, one in enumerate(gateway.heartbeats) if "retired" in one["closed_workers"])
    assert announced < closed, "a worker is announced before it closes"


def test_what_a_retired_worker_computes_is_computed_elsewhere(
    cluster: Cluster, client: Client, gateway: StandInGateway
) -> None:
    cluster.add("computing")
    go = Event("computing", client=client)
    running = client.submit(
        lambda: Event("computing").wait(60) and 42,
        workers=[address(client, "computing")],
        allow_other_workers=True,
        pure=False,
    )
    wait_for(lambda: client.processing().get(address(client, "computing")), "the task to run")
    assert cluster.order({"op": "retire", "names": ["computing"]})[0] == 200
    gateway.until(lambda one: "computing" in one["closed_workers"], "the end")
    go.set()
    assert running.result(20) == 42


def test_the_last_worker_stays_with_its_data_and_is_active_again(
    cluster: Cluster, client: Client, gateway: StandInGateway
) -> None:
    held = client.submit(lambda: "all there is", pure=False)
    wait(held, 20)
    assert cluster.order({"op": "retire", "names": ["kept"]})[0] == 200
    gateway.until(lambda one: one["closing_workers"] == ["kept"], "the announcement")
    gateway.until(lambda one: one["active_workers"] == ["kept"] and not one["closing_workers"], "its return")
    assert held.result(20) == "all there is"
    assert client.submit(lambda: 1, pure=False).result(20) == 1, "it works again"


def test_fewer_wished_for_go_politely_and_one_that_leaves_already_is_not_counted_twice(
    cluster: Cluster, client: Client, gateway: StandInGateway
) -> None:
    cluster.order({"op": "scale", "count": 3})
    cluster.add("first", "second")
    held = client.submit(lambda: b"x" * 1000, workers=[address(client, "first")], pure=False)
    wait(held, 20)
    # 1. `first` leaves; before it is gone one fewer is wished for: that is the one.
    cluster.order({"op": "retire", "names": ["first"]})
    cluster.order({"op": "scale", "count": 2})
    gateway.until(lambda one: "first" in one["closed_workers"], "the end of the first")
    assert sorted(beat(cluster)["active_workers"]) == ["kept", "second"]
    # 2. Another fewer: one of the two goes, and its data stays.
    cluster.order({"op": "scale", "count": 1})
    gateway.until(lambda one: len(one["active_workers"]) == 1 and not one["closing_workers"], "one worker")
    assert held.result(20) == b"x" * 1000


async def test_a_wish_for_a_number_ends_adapting_also_while_that_takes_effect(
    gateway: StandInGateway,
) -> None:
    # In dask-gateway's own service the loop that adapts loses its cancellation, and `scale` waits for it for ever.
    async with Scheduler(dashboard=False, port=0) as found:
        service = scheduler_preload.Service(found, gateway=upstream.GatewayClient("any", TOKEN, gateway.url))
        service.listen(("127.0.0.1", 0))
        try:
            for count in range(1, 20):
                await service.scale(count)
                await service.adapt(minimum=0, maximum=count)
                for _ in range(count % 4):
                    await asyncio.sleep(0)  # so far the loop gets
                done, _ = await asyncio.wait([asyncio.create_task(service.scale(count + 1))], timeout=20)
                assert done, "the wish is taken"
                assert (service.count, service.adapt_task) == (count + 1, None)
        finally:
            service.stop()


def test_a_worker_that_dies_is_told_within_seconds(cluster: Cluster, gateway: StandInGateway) -> None:
    cluster.add("killed")
    cluster.workers["killed"].kill()
    found = gateway.until(lambda one: "killed" in one["closed_workers"], "the news", 15)
    assert "killed" not in found["active_workers"] + found["closing_workers"]


@pytest.mark.parametrize(
    ("body", "want"),
    [
        pytest.param({"op": "retire", "names": "kept"}, 422, id="names are one text"),
        pytest.param({"op": "retire"}, 422, id="no names"),
        pytest.param({"op": "retire", "names": [1]}, 422, id="a name that is a number"),
        pytest.param({"op": "retire", "names": ["x"] * 10_001}, 422, id="too many names"),
        pytest.param(["retire"], 422, id="no object"),
        pytest.param({"op": "explode"}, 422, id="an unknown order"),
        pytest.param({"op": "retire", "names": []}, 200, id="nobody"),
    ],
)
def test_orders_of_any_shape_are_answered(cluster: Cluster, body: object, want: int) -> None:
    assert cluster.order(body)[0] == want


def test_an_order_without_the_token_is_refused(cluster: Cluster, client: Client) -> None:
    assert cluster.order({"op": "retire", "names": ["kept"]}, token="another")[0] == 403
    assert "kept" in workers(client)


def test_a_gateway_that_is_away_keeps_nobody_from_leaving_and_hears_of_it_later(
    cluster: Cluster, client: Client, gateway: StandInGateway
) -> None:
    cluster.add("unheard")
    gateway.fails = True
    try:
        assert cluster.order({"op": "retire", "names": ["unheard"]})[0] == 200
        wait_for(lambda: workers(client) == {"kept"}, "the end of the worker")
    finally:
        gateway.fails = False
    gateway.until(lambda one: "unheard" in one["closed_workers"], "the news", 30)


async def test_an_interruption_while_nobody_waits_is_not_lost() -> None:
    waiter = scheduler_preload.Waiter()
    await waiter.interrupt()
    await asyncio.wait_for(waiter.wait(60), 1)
    waiting = asyncio.create_task(waiter.wait(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiter.interrupt_soon()
    await asyncio.wait_for(waiting, 5)

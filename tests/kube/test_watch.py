"""A watch over a real connection to an API server that goes away, forgets, refuses and breaks off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from hub_ext.kube.watch import EventWatch, NodeWatch, PodWatch, Watch
from tests.support.api_server import FakeApiServer

SECONDS = 10


def pod(name: str, uid: str = "1", **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "labels": labels}}


async def until(condition: Callable[[], object], what: str) -> None:
    """Looks again after each turn of the loop; bounded."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110  what is looked at is in another thread
            await asyncio.sleep(0.005)
    assert condition(), what


async def quiet(condition: Callable[[], object], server: FakeApiServer, what: str) -> None:
    """Still holds after the watch was seen to be at work three times more."""
    begun = len(server.asked)
    await until(lambda: len(server.asked) > begun + 3, "the watch is at work")
    assert condition(), what


@pytest.fixture
async def watches(api_server: FakeApiServer) -> AsyncIterator[Callable[..., Any]]:
    made: list[Watch] = []

    async def make(kind: type[Watch] = PodWatch, **more: Any) -> Watch:
        watch = kind(**({"namespace": "hangang-users"} | more))
        made.append(watch)
        await watch.start()
        return watch

    yield make
    for watch in made:
        await watch.stop()
    # As a hub does at its end: the client of this loop is closed by its own task.
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def names(watch: Watch) -> set[str]:
    return {key.rpartition("/")[2] for key in watch.resources}


# -- as long as all is well -------------------------------------------------------------------------------------------


async def test_it_lists_once_and_then_hears_of_every_change(api_server: FakeApiServer, watches: Any) -> None:
    api_server.put("pods", pod("a"))
    watch = await watches()
    await watch.seen()
    assert names(watch) == {"a"}
    api_server.put("pods", pod("b"))
    api_server.put("pods", pod("a", changed="yes"))
    await until(lambda: names(watch) == {"a", "b"}, "b is seen")
    api_server.remove("pods", "a")
    await until(lambda: names(watch) == {"b"}, "a is gone")
    assert watch.gone["hangang-users/a"]["metadata"]["labels"] == {"changed": "yes"}
    assert api_server.asked == ["list pods", "watch pods"]


async def test_a_start_waits_for_nobody(api_server: FakeApiServer, watches: Any) -> None:
    with api_server.away():
        watch = await watches()
        await asyncio.wait_for(watch.first_load_future, SECONDS)
        assert not watch.in_sight
        assert watch.resources == {}
    await asyncio.wait_for(watch.seen(), SECONDS)


async def test_it_cannot_be_started_twice(watches: Any) -> None:
    watch = await watches()
    with pytest.raises(RuntimeError, match="already running"):
        await watch.start()


async def test_pods_of_other_namespaces_are_seen_only_where_all_are_wanted(
    api_server: FakeApiServer, watches: Any
) -> None:
    api_server.put("pods", {"metadata": {"name": "x", "namespace": "other", "uid": "2"}})
    api_server.put("pods", pod("a"))
    ours, all_pods = await watches(), await watches(omit_namespace=True)
    await asyncio.gather(ours.seen(), all_pods.seen())
    assert (set(ours.resources), set(all_pods.resources)) == (
        {"hangang-users/a"},
        {"hangang-users/a", "other/x"},
    )


async def test_nodes_have_no_namespace(api_server: FakeApiServer, watches: Any) -> None:
    api_server.put("nodes", {"metadata": {"name": "n1"}})
    watch = await watches(NodeWatch)
    await watch.seen()
    assert set(watch.resources) == {"/n1"}


async def test_events_about_an_object_come_oldest_first(api_server: FakeApiServer, watches: Any) -> None:
    for name, about, at in (("e1", "a", "3"), ("e2", "a", "1"), ("e3", "b", "2"), ("e4", "a", None)):
        event = {"metadata": {"name": name}, "involvedObject": {"name": about}, "lastTimestamp": at}
        api_server.put("events", event | {"eventTime": "2"})
    watch = await watches(EventWatch)
    await watch.seen()
    assert [event["metadata"]["name"] for event in watch.about("a")] == ["e2", "e4", "e1"]


# -- going on ---------------------------------------------------------------------------------------------------------


async def test_a_watch_that_ends_goes_on_where_it_was(api_server: FakeApiServer, watches: Any) -> None:
    watch = await watches()
    await watch.seen()
    await until(lambda: api_server.count("watch pods") == 1, "it watches")
    api_server.end_watches()
    api_server.put("pods", pod("a"))
    await until(lambda: names(watch) == {"a"}, "a is seen")
    assert api_server.count("list pods") == 1
    assert watch.in_sight


async def test_a_bookmark_spares_a_new_list_though_all_before_it_is_forgotten(
    api_server: FakeApiServer, watches: Any
) -> None:
    watch = await watches()
    await watch.seen()
    await until(lambda: api_server.count("watch pods") == 1, "it watches")
    # Nodes change all the while; pods do not, and a watch of pods would be left behind without bookmarks.
    for number in range(5):
        api_server.put("nodes", {"metadata": {"name": f"n{number}"}})
    api_server.bookmark()
    api_server.put("pods", pod("seen-after-the-bookmark"))
    await until(lambda: names(watch), "the bookmark and what followed arrived")
    api_server.remove("pods", "seen-after-the-bookmark")
    await until(lambda: not names(watch), "all of it arrived")
    api_server.bookmark()
    api_server.put("pods", pod("last"))
    await until(lambda: names(watch) == {"last"}, "the last bookmark arrived")
    api_server.forget()
    api_server.end_watches()
    api_server.put("pods", pod("a"))
    await until(lambda: "a" in names(watch), "a is seen")
    assert api_server.count("list pods") == 1


async def test_what_is_too_old_to_go_on_from_is_listed_anew(api_server: FakeApiServer, watches: Any) -> None:
    api_server.put("pods", pod("a"))
    watch = await watches()
    await watch.seen()
    await until(lambda: api_server.count("watch pods") == 1, "it watches")
    with api_server.broken_watches(410):
        api_server.put("pods", pod("b"))
        api_server.remove("pods", "a")
        await until(lambda: names(watch) == {"b"}, "all is listed anew")
        assert watch.in_sight
    assert watch.gone.keys() == {"hangang-users/a"}


async def test_what_is_forgotten_is_listed_anew(api_server: FakeApiServer, watches: Any) -> None:
    watch = await watches()
    await watch.seen()
    await until(lambda: api_server.count("watch pods") == 1, "it watches")
    # Far on, without a word to the watch of pods.
    for number in range(3):
        api_server.put("nodes", {"metadata": {"name": f"n{number}"}})
    api_server.forget()
    api_server.end_watches()
    await until(lambda: api_server.count("list pods") == 2, "it lists anew")
    api_server.put("pods", pod("a"))
    await until(lambda: names(watch) == {"a"}, "a is seen")
    assert watch.in_sight


# -- outages ----------------------------------------------------------------------------------------------------------


async def test_an_outage_is_known_as_one_and_what_it_hid_is_found_out(
    api_server: FakeApiServer, watches: Any
) -> None:
    for name in ("kept", "deleted", "made-anew"):
        api_server.put("pods", pod(name))
    watch = await watches()
    await watch.seen()
    with api_server.away():
        await until(lambda: not watch.in_sight, "the outage is noticed")
        # What was known stays known, as what it is: old.
        assert names(watch) == {"kept", "deleted", "made-anew"}
        api_server.remove("pods", "deleted")
        api_server.put("pods", pod("made-anew", uid="2"))
        api_server.put("pods", pod("new"))
    await asyncio.wait_for(watch.seen(), SECONDS)
    assert names(watch) == {"kept", "made-anew", "new"}
    assert watch.gone.keys() == {"hangang-users/deleted", "hangang-users/made-anew"}
    assert watch.gone["hangang-users/made-anew"]["metadata"]["uid"] == "1"


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_an_api_server_that_refuses_is_unseen_said_once_and_asked_again(
    status: int, api_server: FakeApiServer, watches: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    logging.getLogger("traitlets").propagate = True
    with api_server.answering(status):
        watch = await watches()
        watch.log = logging.getLogger("watch")
        await quiet(lambda: not watch.in_sight, api_server, "it is unseen")
        said = [record.getMessage() for record in caplog.records if "cannot be seen" in record.getMessage()]
        assert said == [f"pods cannot be seen for the moment: the API server answers {status} made to fail"]
    await asyncio.wait_for(watch.seen(), SECONDS)
    assert any("are seen again" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("status", [403, 502, 503])
async def test_watches_that_get_no_answer_are_no_sight(
    status: int, api_server: FakeApiServer, watches: Any
) -> None:
    watch = await watches()
    await watch.seen()
    with api_server.broken_watches(status):
        await until(lambda: not watch.in_sight, "it is known that nothing is seen")
        api_server.put("pods", pod("a"))
        await until(lambda: names(watch) == {"a"}, "it helps itself by listing")
    await asyncio.wait_for(watch.seen(), SECONDS)


async def test_an_outage_is_followed_by_as_few_requests_as_before(
    api_server: FakeApiServer, watches: Any
) -> None:
    watch = await watches()
    for _ in range(3):
        await asyncio.wait_for(watch.seen(), SECONDS)
        with api_server.away():
            await until(lambda: not watch.in_sight, "the outage is noticed")
    await asyncio.wait_for(watch.seen(), SECONDS)
    await until(lambda: api_server.asked[-1] == "watch pods", "it watches")
    asked = len(api_server.asked)
    for number in range(20):
        api_server.put("pods", pod(f"p{number}"))
    await until(lambda: len(names(watch)) == 20, "all are seen")
    assert len(api_server.asked) == asked


async def test_it_stops_when_it_is_told_to(api_server: FakeApiServer, watches: Any) -> None:
    late = await watches()
    await late.seen()
    with api_server.away():
        early = await watches()
        tasks = [early.watch_task, late.watch_task]
        await asyncio.wait_for(asyncio.gather(early.stop(), late.stop()), SECONDS)
        assert all(task.done() for task in tasks)


# -- waking -----------------------------------------------------------------------------------------------------------


async def test_a_change_wakes_who_waits_for_it_and_nobody_else(
    api_server: FakeApiServer, watches: Any
) -> None:
    watch = await watches()
    await watch.seen()
    waits = asyncio.create_task(watch.changed("hangang-users/a", SECONDS))
    both = asyncio.create_task(watch.changed("hangang-users/a", SECONDS))
    other = asyncio.create_task(watch.changed("hangang-users/b", SECONDS))
    await asyncio.sleep(0)
    api_server.put("pods", pod("a"))
    assert await waits
    assert await both
    assert not other.done()
    api_server.put("pods", pod("b"))
    assert await other


async def test_a_deletion_wakes(api_server: FakeApiServer, watches: Any) -> None:
    api_server.put("pods", pod("a"))
    watch = await watches()
    await watch.seen()
    waits = asyncio.create_task(watch.changed("hangang-users/a", SECONDS))
    await asyncio.sleep(0)
    api_server.remove("pods", "a")
    assert await waits
    assert watch.resources == {}


async def test_the_end_of_an_outage_wakes_all(api_server: FakeApiServer, watches: Any) -> None:
    watch = await watches()
    await watch.seen()
    with api_server.away():
        await until(lambda: not watch.in_sight, "the outage is noticed")
        waits = asyncio.create_task(watch.changed("hangang-users/a", SECONDS))
        await asyncio.sleep(0)
    assert await waits


async def test_no_change_is_no_change(watches: Any) -> None:
    watch = await watches()
    await watch.seen()
    assert not await watch.changed("hangang-users/a", 0.01)
    assert watch._waiting == {}


async def test_only_so_many_that_are_gone_are_remembered(
    api_server: FakeApiServer, watches: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_ext.kube.watch.MOST_GONE", 2)
    watch = await watches()
    await watch.seen()
    for name in ("a", "b", "c"):
        api_server.put("pods", pod(name))
        api_server.remove("pods", name)
    await until(lambda: "hangang-users/c" in watch.gone, "the last is gone")
    assert list(watch.gone) == ["hangang-users/b", "hangang-users/c"]

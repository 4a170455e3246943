"""What is over is stopped: through the hub, and without it when that has been in vain for two minutes."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from hub_ext.desk.stops import HUB_SILENT
from hub_ext.quota.model import Ask, LeaseState
from tests.services.desk.centre import HOUR, MINUTE, STUDENT, Centre
from tests.support.fakes import FailingHub, ForgetfulHub, LazyHub, ObedientHub, SilentHub, UndyingWorld

BOOKED, RUNNING, ENDING, RELEASED = (
    LeaseState.BOOKED,
    LeaseState.RUNNING,
    LeaseState.ENDING,
    LeaseState.RELEASED,
)


def with_hub(centre: Centre, hub: type[ObedientHub]) -> ObedientHub:
    """The same servers, known by a hub that behaves otherwise."""
    made = hub(centre.world)
    made.known, made.leases = centre.hub.known, centre.hub.leases
    centre.clockwork.servers = centre.hub = made
    return made


def over(centre: Centre) -> None:
    """A server whose time is over."""
    centre.clock.at = centre.start(minutes=15).ends_at


def test_what_is_over_is_stopped_through_the_hub_and_released_when_it_is_gone(centre_on_each: Centre) -> None:
    centre = centre_on_each
    lease = centre.start(minutes=15)
    centre.clock.at = lease.ends_at - 1
    centre.tick()
    assert (centre.lease().state, centre.hub.asked) == (RUNNING, [])
    centre.tick(1)
    assert (centre.lease().state, centre.hub.asked, centre.world.stopped) == (ENDING, [("student", "l1")], [])
    centre.tick(2)
    assert (centre.lease().state, centre.lease().reason) == (RELEASED, "ended")
    assert centre.seconds_charged() == 15 * MINUTE + 2


def test_an_operators_release_stops_the_server_and_keeps_the_operators_reason(centre: Centre) -> None:
    centre.start()
    centre.order_end(why="maintenance", who="operator")
    centre.tick(2)
    assert centre.hub.asked == [("student", "l1")]
    centre.tick(2)
    assert (centre.lease().state, centre.lease().reason) == (RELEASED, "maintenance")


def test_a_lease_released_by_an_operator_while_it_was_starting_is_stopped_once_it_runs(
    centre: Centre,
) -> None:
    """The process came up between the operator's word and the hub's `running`, which then changes nothing."""
    centre.book()
    centre.order_end(why="maintenance", who="operator")
    centre.world.start("l1", centre.clock.at)
    centre.hub.known["student", "l1"] = None
    centre.tick(2)
    assert centre.hub.asked == [("student", "l1")]
    centre.tick(2)
    assert (centre.lease().state, centre.lease().reason, centre.world.processes) == (
        RELEASED,
        "maintenance",
        [],
    )


def test_a_server_that_the_hub_does_not_know_is_ended_without_it(centre: Centre) -> None:
    with_hub(centre, ForgetfulHub)
    over(centre)
    centre.tick()
    assert centre.world.stopped == ["l1"]
    centre.tick(2)
    assert (centre.lease().state, centre.lease().reason) == (RELEASED, "ended")


def test_a_hub_that_takes_the_order_is_asked_once_a_minute_and_after_two_done_without(centre: Centre) -> None:
    hub = with_hub(centre, LazyHub)
    over(centre)
    centre.tick()
    for _ in range(29):
        centre.tick(2)
    assert len(hub.asked) == 1
    centre.tick(2)
    assert (len(hub.asked), centre.world.stopped) == (2, [])
    centre.tick(MINUTE)
    assert (len(hub.asked), centre.world.stopped) == (2, ["l1"])
    centre.tick(2)
    assert centre.lease().state is RELEASED


def test_a_hub_that_fails_to_stop_it_is_asked_at_each_tick_and_after_two_minutes_done_without(
    centre: Centre,
) -> None:
    hub = with_hub(centre, FailingHub)
    over(centre)
    with capture_logs() as logs:
        centre.tick()
        for _ in range(HUB_SILENT // 10 - 1):
            centre.tick(10)
    assert (len(hub.asked), centre.world.stopped) == (12, [])
    told = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert told == ["a server that is over cannot be stopped yet: the hub answered 500"]
    centre.tick(10)
    assert centre.world.stopped == ["l1"]


def test_a_hub_that_was_silent_for_two_minutes_is_done_without(centre: Centre) -> None:
    lease = centre.start(minutes=15)
    hub = with_hub(centre, SilentHub)
    centre.clock.at = lease.ends_at
    centre.tick()
    centre.tick(HUB_SILENT - 1)
    assert (centre.lease().state, centre.world.stopped) == (ENDING, [])
    centre.tick(1)
    assert centre.world.stopped == ["l1"]
    assert hub.asked == [], "who does not answer is not asked to stop each server in turn"
    centre.tick(1)
    assert (centre.lease().state, centre.lease().reason) == (RELEASED, "ended")


def test_a_hub_that_fell_silent_long_before_is_done_without_at_once(centre: Centre) -> None:
    lease = centre.start(minutes=15)
    with_hub(centre, SilentHub)
    centre.clock.at = lease.ends_at - HUB_SILENT
    centre.tick()
    centre.tick(HUB_SILENT)
    assert centre.world.stopped == ["l1"]


def test_a_hub_that_answers_again_in_between_is_given_its_two_minutes_anew(centre: Centre) -> None:
    lease = centre.start(minutes=15)
    answering, silent = centre.hub, SilentHub(centre.world)
    for at, hub in (
        (-300, silent),
        (-200, silent),
        (-100, answering),
        (-50, silent),
        (0, silent),
        (69, silent),
    ):
        centre.clockwork.servers = hub
        centre.clock.at = lease.ends_at + at
        centre.tick()
    assert centre.world.stopped == []
    centre.tick(1)
    assert centre.world.stopped == ["l1"]


def test_the_silence_of_a_time_without_servers_does_not_count(centre: Centre) -> None:
    centre.start("l1", minutes=15)
    answering, silent = centre.hub, SilentHub(centre.world)
    centre.clockwork.servers = silent
    centre.tick()
    centre.order_end()
    centre.world.kill("l1")
    centre.tick(2)
    centre.tick(HOUR)
    assert centre.lease().state is RELEASED
    centre.hub = answering
    centre.clock.at = centre.start("l2", minutes=15).ends_at
    centre.tick()
    assert centre.world.stopped == []


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param("far ahead", id="released by an operator, its own end far ahead"),
        pytest.param("long ago", id="its end long ago"),
    ],
)
def test_a_clock_that_starts_while_the_hub_is_silent_waits_two_minutes_as_well(
    centre: Centre, ends: str
) -> None:
    lease = centre.start()
    if ends == "far ahead":
        centre.order_end(why="maintenance", who="operator")
    else:
        centre.clock.at = lease.ends_at + HOUR
    clockwork = centre.another_clock("started again", servers=SilentHub(centre.world))
    clockwork.tick()
    centre.clock.at += HUB_SILENT - 1
    clockwork.tick()
    assert centre.world.stopped == []
    centre.clock.at += 1
    clockwork.tick()
    assert centre.world.stopped == ["l1"]


def test_what_cannot_be_ended_holds_its_gpu_and_is_tried_again_each_minute(centre: Centre) -> None:
    undying = UndyingWorld()
    centre.clockwork.world = centre.world = centre.hub.world = undying
    with_hub(centre, SilentHub)
    over(centre)
    centre.tick()
    centre.tick(HUB_SILENT)
    for _ in range(9):
        centre.tick(10)
    assert undying.stopped == ["l1", "l1"]
    assert centre.lease().state is ENDING


# -- between the look and the deed ------------------------------------------------------------------------------------------


def test_a_server_started_anew_in_the_meantime_is_not_stopped_for_its_former_lease(centre: Centre) -> None:
    """Stopping takes time; whoever restarts theirs while others are stopped keeps the new one."""
    centre.start("l1", minutes=15)
    former = centre.start("l2", minutes=15)

    def restart() -> None:
        centre.hub.when_asked = lambda: None
        centre.world.kill("l2")
        ask = Ask("l3", "student", "univ", {"gpu.h200": 1000}, server="l2")
        assert centre.admission.admit_now(STUDENT, ask).lease is not None

    centre.order_end("l1")
    centre.order_end("l2")
    centre.hub.when_asked = restart
    centre.clock.at = former.ends_at
    centre.tick()
    assert centre.hub.asked == [("student", "l1")]
    assert (centre.lease("l2").state, centre.lease("l3").state) == (RELEASED, BOOKED)


def test_a_lease_that_is_given_more_time_in_the_meantime_goes_on(centre: Centre) -> None:
    centre.start("l1", minutes=15)
    lease = centre.start("l2", minutes=15)

    def extend() -> None:
        centre.admission.change(
            "l2", lambda ledger, lease, now: ledger.extend(lease, lease.ends_at + HOUR, now)
        )

    centre.hub.when_asked = extend
    centre.clock.at = lease.ends_at
    centre.tick()
    assert centre.hub.asked == [("student", "l1")]
    assert centre.lease("l2").state is RUNNING


def test_a_lease_that_the_hub_released_in_the_meantime_is_left_alone(centre: Centre) -> None:
    centre.start("l1", minutes=15)
    lease = centre.start("l2", minutes=15)
    centre.hub.when_asked = lambda: centre.admission.release_now("l2", "student", "stopped")
    centre.clock.at = lease.ends_at
    centre.tick()
    assert (centre.lease("l2").reason, centre.hub.asked) == ("stopped", [("student", "l1")])

"""One clock leads, the others wait; and what fails in one step keeps no other step from being done."""

from __future__ import annotations

import threading

import pytest
from structlog.testing import capture_logs

from hub_ext.desk.leading import LEADER_SECONDS, LeadsNoMore
from hub_ext.desk.stops import HUB_SILENT
from hub_ext.quota.document import parse_policy
from hub_ext.quota.model import Ask, LeaseState
from hub_ext.quota.store import SqlStore
from tests.services.desk.centre import GPU_SECOND, HOUR, STUDENT, Centre
from tests.support.databases import held_by_another
from tests.support.fakes import BrokenWorld, ObedientWorld, SilentHub, UnseenWorld


def test_of_two_clocks_one_ticks_and_the_other_does_nothing(centre_on_each: Centre) -> None:
    centre = centre_on_each
    other = centre.another_clock()
    centre.start()
    assert centre.tick()
    centre.world.kill("l1")
    before = centre.everything()
    looks = centre.hub.looks
    assert not other.tick()
    assert not other.tick()
    assert (centre.everything(), centre.hub.looks) == (before, looks)


def test_when_the_leader_is_killed_another_takes_over_once_its_lease_is_over(centre_on_each: Centre) -> None:
    other = centre_on_each.another_clock()
    centre_on_each.tick()
    centre_on_each.clock.at += LEADER_SECONDS - 1
    assert not other.tick()
    centre_on_each.clock.at += 1
    assert other.tick()
    assert not centre_on_each.tick(), "the former leader finds that it was replaced"


def test_a_clock_that_is_stopped_hands_on_at_once(centre: Centre) -> None:
    stop = threading.Event()
    centre.hub.when_asked = stop.set
    lease = centre.start(minutes=15)
    centre.clock.at = lease.ends_at
    centre.clockwork.run(stop, seconds=0)
    assert centre.another_clock().tick()


def test_a_clock_that_is_stopped_while_the_database_is_busy_ends_all_the_same(centre: Centre) -> None:
    stop = threading.Event()
    stop.set()
    impatient = SqlStore(centre.database.engine(wait=0.01), load_policy=parse_policy)
    centre.admission.store = impatient
    with held_by_another(centre.database), capture_logs() as logs:
        centre.clockwork.run(stop, seconds=0)
    assert [entry["event"] for entry in logs] == ["leadership was not handed on"]
    impatient.close()


def test_a_leader_whose_clock_is_set_back_stays_the_leader_and_charges_nothing_twice(centre: Centre) -> None:
    centre.start()
    other = centre.another_clock()
    centre.tick(90)
    charged = centre.units_charged()
    assert charged == 90 * GPU_SECOND
    centre.clock.at -= HOUR
    for _ in range(3):
        assert centre.tick(2)
        assert not other.tick()
    assert centre.units_charged() == charged
    assert centre.lease().state is LeaseState.RUNNING


def test_a_tick_that_outlasts_its_lease_stops_where_another_clock_took_over(centre: Centre) -> None:
    """The hub took long to answer; meanwhile another clock leads, and may have seen something else."""
    other = centre.another_clock(world=ObedientWorld(), servers=SilentHub(centre.world))
    centre.book()
    centre.forget("l1")

    def long() -> None:
        centre.world.when_looked_at = lambda: None
        centre.clock.at += LEADER_SECONDS
        assert other.tick()

    centre.world.when_looked_at = long
    assert not centre.tick()
    assert centre.lease().state is LeaseState.BOOKED, "the first clock released nothing any more"
    assert not centre.tick()


def test_a_tick_of_many_slow_stops_renews_its_lease_so_that_no_other_clock_acts(centre: Centre) -> None:
    other = centre.another_clock()
    for number in range(3):
        centre.world.start(f"left over {number}", centre.clock.at)

    def slow() -> None:
        assert not other.tick()

    stop = centre.world.stop

    def stop_slowly(running: object) -> None:
        centre.clock.at += LEADER_SECONDS - 1
        assert not other.tick()
        stop(running)  # type: ignore[arg-type]

    centre.world.stop = stop_slowly  # type: ignore[method-assign]
    assert centre.tick()
    assert len(centre.world.stopped) == 3


def test_a_clock_that_is_held_up_right_before_it_writes_writes_nothing_after_another_took_over(
    centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre.admission.put_person(STUDENT)
    centre.start(gpus=3, minutes=60)
    waits = Ask("t1", "student", "univ", {"gpu.h200": 1000}, server="second")
    assert centre.admission.admit_now(STUDENT, waits).ticket is not None
    assert centre.tick()
    centre.admission.release_now("l1")
    other, before = centre.another_clock(), centre.everything()

    def held_up() -> bool:
        centre.clock.at += LEADER_SECONDS
        assert other._still_leads()
        return True

    monkeypatch.setattr(centre.clockwork, "_still_leads", held_up)
    with pytest.raises(LeadsNoMore):
        centre.clockwork.serve_the_line()
    after = centre.everything()
    assert {name for name in after if after[name] != before[name]} == {"leaders"}
    other.serve_the_line()
    assert centre.lease("t1").state is LeaseState.BOOKED


def test_how_long_the_hub_was_silent_counts_only_while_this_clock_leads(centre: Centre) -> None:
    """A clock that led long ago knows nothing of what the hub did since."""
    lease = centre.start(minutes=15)
    silent, other = SilentHub(centre.world), centre.another_clock()
    centre.clockwork.servers = silent
    centre.tick()
    centre.clock.at = lease.ends_at - LEADER_SECONDS
    assert other.tick()
    centre.tick()
    assert centre.tick(LEADER_SECONDS)
    assert centre.world.stopped == [], "the hub may be starting: it has its two minutes"
    centre.tick(HUB_SILENT)
    assert centre.world.stopped == ["l1"]


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(UnseenWorld, id="the world cannot be seen"),
        pytest.param(BrokenWorld, id="looking at the world meets a mistake of ours"),
    ],
)
def test_a_step_that_fails_keeps_no_other_from_being_done(centre: Centre, world: type[ObedientWorld]) -> None:
    lease = centre.start(minutes=15)
    centre.tick(90)
    charged = centre.units_charged()
    centre.clockwork.world = world()
    centre.clock.at = lease.ends_at
    assert centre.tick()
    assert centre.hub.asked == [("student", "l1")], "what is over is stopped"
    assert centre.lease().state is LeaseState.ENDING
    assert centre.units_charged() == charged, "and nothing unseen is charged"


def test_what_goes_on_failing_is_told_once_and_again_when_it_comes_back(centre: Centre) -> None:
    centre.start()

    def told(*worlds: ObedientWorld) -> list[str]:
        with capture_logs() as logs:
            for world in worlds:
                centre.clockwork.world = world
                centre.tick(2)
        return [entry["event"] for entry in logs]

    sentence = "reconcile: what runs cannot be seen"
    assert told(UnseenWorld(), UnseenWorld(), UnseenWorld()) == [sentence]
    assert told(centre.world, centre.world) == []
    assert told(UnseenWorld(), UnseenWorld()) == [sentence]
    assert told(BrokenWorld(), BrokenWorld()) == [
        "reconcile: ZeroDivisionError('a mistake')",
        "this is a mistake in the program",
    ]

"""Laws of the line (QUOTA.md §11), looked at in every plan that random what-if files lead to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_ext.core.decision import Admit, Code
from hub_ext.quota import played_line
from hub_ext.quota.counting import is_guaranteed
from hub_ext.quota.document import mapping_document
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import Ask, LeaseState
from hub_ext.quota.plan import Plan, Scene, plan
from hub_ext.quota.policy import Snapshot
from hub_ext.quota.queue import ROOM
from hub_ext.quota.reclaim import may_be_taken, reclaim_set
from hub_ext.quota.scenario import scenario_of
from hub_ext.quota.simulate import play
from hub_ext.quota.stage import Room, Stage
from hub_ext.quota.sums import Sums
from tests.support.cities import crowded

MANY = settings(max_examples=80)


def look_at_plans(data: dict[str, Any], look: Callable[[Scene, Plan, int], None]) -> None:
    """Play the file, with a look at each plan that is made on the way."""
    with pytest.MonkeyPatch.context() as patch:

        def watched(scene: Scene, now: int, **told: Any) -> Plan:
            look(scene, plan(scene, now), now)
            return plan(scene, now, **told)

        patch.setattr(played_line, "plan", watched)
        play(scenario_of(mapping_document(data, "scenario"), Path()))


def after(scene: Scene, found: Plan, now: int) -> Scene:
    """The scene once everything that the plan says is done."""
    snapshot = scene.snapshot
    ledger = Ledger(snapshot.policy, snapshot.sums.copy(), snapshot.grants)
    leases = {lease.id: lease for lease in scene.leases}
    for lease in found.withdrawn:
        leases[lease.id] = ledger.withdraw(leases[lease.id], now)
    for turn in found.turns:
        leases[turn.ask.id] = ledger.run(ledger.book(turn.ask, turn.decision, now), now)
    for notice in found.notices:
        taken = ledger.take_back(leases[notice.lease.id], notice.ends_at, notice.ticket, now)
        leases[notice.lease.id] = taken
    served = [turn.ticket.id for turn in found.turns]
    tickets = [
        replace(
            ticket,
            outlook=found.outlooks[ticket.id],
            wanted=ticket.wanted - served.count(ticket.id),
            booked=ticket.booked + served.count(ticket.id),
        )
        for ticket in scene.tickets
        if ticket.id in found.outlooks
    ]
    changed = replace(snapshot, sums=ledger.sums)
    return Scene(changed, tuple(leases.values()), tickets, scene.recent)


@MANY
@given(data=crowded())
def test_planning_changes_nothing_and_everybody_gets_an_answer(data: dict[str, Any]) -> None:
    def look(scene: Scene, found: Plan, now: int) -> None:
        before = Sums(dict(scene.snapshot.sums.items()))
        again = plan(scene, now)
        assert scene.snapshot.sums == before
        assert again == found, "the same scene, the same plan"
        turns = {turn.ticket.id for turn in found.turns}
        dropped = {one.ticket.id for one in found.dropped}
        assert {ticket.id for ticket in scene.tickets} == turns | dropped | found.outlooks.keys()
        assert not dropped & found.outlooks.keys()

    look_at_plans(data, look)


@MANY
@given(data=crowded())
def test_done_once_is_done(data: dict[str, Any]) -> None:
    """After what a plan says, the next plan has nothing to say but of those for whom it made a difference.

    Whoever stood behind a hold may go, or take back, now that others have chosen their machines. What began just now, or
    is needed no more by whoever it was taken back for, may be asked back for somebody else with a guarantee. And whoever
    got a server may have reached their cap, and needs nothing taken back any more.
    """

    def look(scene: Scene, found: Plan, now: int) -> None:
        then = plan(after(scene, found, now), now)
        assert then.dropped == ()
        behind = {name for name, outlook in found.outlooks.items() if outlook.code == Code.OTHERS_WAITING}
        assert {turn.ticket.id for turn in then.turns} <= behind
        free_again = {turn.ask.id for turn in found.turns} | {lease.id for lease in found.withdrawn}
        for notice in then.notices:
            assert notice.lease.id in free_again or notice.ticket in behind
        served = {turn.ask.person for turn in found.turns}
        people = {ticket.id: ticket.ask.person for ticket in scene.tickets}
        for lease in then.withdrawn:
            assert people[str(lease.noticed_for)] in served

    look_at_plans(data, look)


@MANY
@given(data=crowded())
def test_only_borrowed_leases_are_taken_back_and_only_for_a_guarantee(data: dict[str, Any]) -> None:
    def look(scene: Scene, found: Plan, now: int) -> None:
        snapshot = scene.snapshot
        asks = {ticket.id: ticket.ask for ticket in scene.tickets}
        for notice in found.notices:
            session = (
                snapshot.policy.session(notice.lease.pool)
                if notice.lease.pool in snapshot.policy.pools
                else None
            )
            assert not notice.lease.guaranteed
            assert notice.lease.noticed_for is None
            assert is_guaranteed(snapshot.tree, snapshot.sums, asks[notice.ticket])
            assert found.outlooks[notice.ticket].code in ROOM
            assert notice.ends_at <= notice.lease.ends_at
            if session is not None and notice.ends_at < notice.lease.ends_at:
                assert notice.ends_at >= now + session.notice
                assert notice.ends_at >= (notice.lease.started_at or 0) + session.protected
        assert len({notice.lease.id for notice in found.notices}) == len(found.notices)

    look_at_plans(data, look)


@MANY
@given(data=crowded())
def test_no_ping_pong(data: dict[str, Any]) -> None:
    """Who was displaced never has notice given to whoever displaced them."""

    def look(scene: Scene, found: Plan, now: int) -> None:
        displaced_by = {ticket.id: ticket.displaced_by for ticket in scene.tickets}
        for notice in found.notices:
            assert notice.lease.id != displaced_by[notice.ticket]

    look_at_plans(data, look)


@MANY
@given(data=crowded())
def test_nobody_starts_beyond_the_quota(data: dict[str, Any]) -> None:
    def look(scene: Scene, found: Plan, now: int) -> None:
        snapshot = scene.snapshot
        stage = Stage.of(snapshot, scene.leases)
        for turn in found.turns:
            assert stage.has_room(turn.ask)
            assert isinstance(stage.decide(turn.ask, now), Admit)
            stage.book(turn.ask, turn.decision, now)

    look_at_plans(data, look)


@MANY
@given(data=crowded())
def test_places_count_up_and_what_is_promised_comes_first(data: dict[str, Any]) -> None:
    def look(scene: Scene, found: Plan, now: int) -> None:
        policy = scene.snapshot.policy
        by_tree: dict[str, list[int]] = {}
        for ticket in scene.tickets:
            if ticket.id in found.outlooks:
                place = found.outlooks[ticket.id].place
                assert place is not None
                by_tree.setdefault(policy.root(ticket.ask.pool), []).append(place)
        for places in by_tree.values():
            assert sorted(places) == list(range(1, len(places) + 1))
        for outlook in found.outlooks.values():
            assert outlook.eta is None or outlook.eta.at >= now
            assert not outlook.reclaims or (outlook.eta is not None and outlook.eta.kind == "latest")

    look_at_plans(data, look)


@MANY
@given(
    data=crowded(),
    amounts=st.dictionaries(st.sampled_from(["gpu.a", "cpu"]), st.integers(1, 3000)),
)
def test_a_set_that_is_taken_back_makes_room_and_none_of_it_could_stay(
    data: dict[str, Any], amounts: dict[str, int]
) -> None:
    def look(scene: Scene, found: Plan, now: int) -> None:
        snapshot = scene.snapshot
        for pool in snapshot.policy.pools:
            wish = Ask("wish", "", pool, amounts)
            room = Stage.of(snapshot, scene.leases)
            candidates = [lease for lease in scene.leases if may_be_taken(lease)]
            picked = reclaim_set(room, wish, candidates)
            if picked is None:
                everything = freed(room, candidates)
                assert not everything.has_room(wish)
                continue
            assert freed(room, picked).has_room(wish)
            for index in range(len(picked)):
                assert not freed(room, picked[:index] + picked[index + 1 :]).has_room(wish)

    look_at_plans(data, look)


def freed(room: Room, leases: list[Any]) -> Room:
    room = room.copy_room()
    for lease in leases:
        room.remove(lease)
    return room


@MANY
@given(
    data=crowded(meddling=False),
    amounts=st.dictionaries(st.sampled_from(["gpu.a"]), st.integers(1, 3000)),
)
def test_with_all_that_is_borrowed_gone_a_guarantee_always_fits(
    data: dict[str, Any], amounts: dict[str, int]
) -> None:
    """Nobody states leases or changes the policy: every lease was admitted as the quota has it."""

    def look(scene: Scene, found: Plan, now: int) -> None:
        snapshot: Snapshot = scene.snapshot
        room = freed(
            Stage.of(snapshot, scene.leases), [lease for lease in scene.leases if not lease.guaranteed]
        )
        for pool in snapshot.policy.pools:
            wish = Ask("wish", "", pool, amounts)
            if room.guaranteed(wish):
                assert not room.lacking(wish)

    look_at_plans(data, look)


@MANY
@given(data=crowded())
def test_a_place_in_a_pools_own_line_follows_use_and_time(data: dict[str, Any]) -> None:
    """Of two servers of one pool and size, none of them put back or promised: less use first, then who came first."""

    def look(scene: Scene, found: Plan, now: int) -> None:
        ordinary = [
            ticket
            for ticket in scene.tickets
            if ticket.id in found.outlooks
            and not (ticket.put_back or ticket.elastic)
            and found.outlooks[ticket.id].code in ROOM
            and (found.outlooks[ticket.id].eta is None or found.outlooks[ticket.id].eta.kind == "expected")  # type: ignore[union-attr]
        ]
        by_pool: dict[tuple[str, str], list[Any]] = {}
        for ticket in ordinary:
            key = (ticket.ask.pool, str(sorted(ticket.ask.amounts.items())))
            use = scene.recent.get((ticket.ask.pool, ticket.ask.person), 0)
            by_pool.setdefault(key, []).append((use, ticket.made_at, ticket.id))
        for waiting in by_pool.values():
            for one, other in pairwise(sorted(waiting)):
                assert (found.outlooks[one[2]].place or 0) < (found.outlooks[other[2]].place or 0)

    look_at_plans(data, look)


@MANY
@given(data=crowded())
def test_what_is_ending_is_never_taken_back(data: dict[str, Any]) -> None:
    def look(scene: Scene, found: Plan, now: int) -> None:
        ending = tuple(replace(lease, state=LeaseState.ENDING) for lease in scene.leases)
        then = plan(replace(scene, leases=ending), now)
        assert then.notices == then.withdrawn == ()

    look_at_plans(data, look)

"""The laws of reservations (QUOTA.md §8, §11), on cities and lives drawn at random."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hub_ext.core.decision import Admit, Wait
from hub_ext.quota.calendar import Amber, Green, Red, decide_reservation
from hub_ext.quota.ledger import EntryKind
from hub_ext.quota.model import Lease, Policy, Reservation
from hub_ext.quota.reclaim import taken_at
from hub_ext.quota.sums import Sums
from hub_ext.quota.windows import cancel, has_begun, holds, is_inside, reserve, turn_windows, unused
from tests.laws.test_quota_laws import law, pairs
from tests.support.builders import a_policy
from tests.support.calendars import (
    CalendarLife,
    crowds,
    late_windows,
    lending_policies,
    lived,
    meddled_reserving_lives,
    reserving_lives,
    windows,
)
from tests.support.cities import asks
from tests.support.naive import NaiveTree

quiet = {"budgets": False, "caps": False}


def own_at(life: CalendarLife, when: int | None) -> dict[tuple[str, str], int]:
    """What counts at each pool now (None) or at a start to come, from the definitions alone."""
    own: dict[tuple[str, str], int] = defaultdict(int)
    inside: dict[tuple[str, str], int] = defaultdict(int)
    sums = life.ledger.sums
    begun = [one for one in life.reservations.values() if has_begun(sums, one)]
    for lease in life.living():
        pool = next((name for name in lease.path if name in life.policy.pools), None)
        if pool is None or (when is not None and lease.ends_at <= when):
            continue
        window = next((one for one in begun if is_inside(life.policy, lease, one)), None)
        for resource, amount in lease.amounts.items():
            if window is not None and window.amounts.get(resource) and (when is None or when < window.end):
                inside[window.id, resource] += amount
            else:
                own[pool, resource] += amount
    for one in life.reservations.values():
        if one.pool not in life.policy.pools:
            continue
        if (when is None and one in begun) or (when is not None and one.start <= when < one.end):
            for resource, amount in holds(one).items():
                more = inside[one.id, resource] if when is None else 0
                own[one.pool, resource] += max(amount, more)
    return own


def starts(life: CalendarLife) -> set[int]:
    return {one.start for one in life.reservations.values() if not has_begun(life.ledger.sums, one)}


@law(policy=lending_policies(budgets=False), steps=meddled_reserving_lives)
def test_use_now_and_at_every_start_to_come_is_that_of_the_definitions(policy: Policy, steps: Any) -> None:
    life = lived(policy, steps)
    tree, sums = life.ledger.tree, life.ledger.sums
    for when in [None, *starts(life)]:
        naive = NaiveTree(life.policy, own_at(life, when))
        text = "" if when is None else str(when)
        for name, resource in pairs(life.policy):
            root = life.policy.root(name)
            if when is None or when in sums.starts(root):
                assert tree.used(sums, name, resource, text) == naive.used(name, resource)
                assert tree.fits(sums, name, resource, 700, text) == naive.fits(name, resource, 700)


@law(policy=lending_policies(), steps=meddled_reserving_lives)
def test_the_sums_are_those_of_a_refold_with_reservations(policy: Policy, steps: Any) -> None:
    life = lived(policy, steps)
    assert life.ledger.sums == life.refolded()


@law(policy=lending_policies(**quiet), steps=reserving_lives)
def test_no_pool_ever_has_more_than_it_may_now_or_at_any_start(policy: Policy, steps: Any) -> None:
    """What was admitted and what was reserved fit beside each other, at every instant to come."""
    life = CalendarLife(policy)
    for step in steps:
        life.live([step])
        tree, sums = life.ledger.tree, life.ledger.sums
        for name, resource in pairs(policy):
            quota = policy.pools[name].quota.get(resource)
            for when in ("", *(str(start) for start in sums.starts(policy.root(name)))):
                used, subtree = tree.used(sums, name, resource, when), tree.subtree(name, resource)
                if policy.pools[name].parent is None:
                    assert used <= subtree
                elif quota is not None and quota.borrow is not None:
                    assert used <= subtree + quota.borrow
                assert used <= tree.potential(name, resource)


@law(policy=lending_policies(**quiet), steps=reserving_lives)
def test_no_guaranteed_lease_ends_for_a_reservation_and_each_that_does_has_its_notice(
    policy: Policy, steps: Any
) -> None:
    life = CalendarLife(policy)
    for step in steps:
        before = {lease.id: lease for lease in life.living()}
        told = len(life.ledger.entries)
        life.live([step])
        for entry in life.ledger.entries[told:]:
            if entry.kind is EntryKind.NOTICED and entry.facts.get("for"):
                lease = before[str(entry.lease)]
                assert not lease.guaranteed
                wanted, _, _ = life.answers[-1]
                assert entry.facts["ends_at"] >= wanted.start >= taken_at(policy, lease, entry.at)


@law(policy=lending_policies(**quiet), steps=crowds, window=late_windows)
def test_a_reservation_takes_back_only_what_it_cannot_do_without(
    policy: Policy, steps: Any, window: Reservation
) -> None:
    life = lived(policy, steps)
    wanted = life.planned(window)
    answer = decide_reservation(life.picture(), wanted, life.now)
    assume(not isinstance(answer, Red) and answer.endings)
    assert not isinstance(answer, Red)
    kept = {ending.lease.id for ending in answer.endings}
    for spared in kept:
        own: dict[tuple[str, str], int] = defaultdict(int)
        short = False
        for time in {wanted.start, *(s for s in starts(life) if wanted.start < s < wanted.end)}:
            own = own_at(life, time)
            for lease in life.living():
                if lease.id in kept - {spared} and lease.ends_at > time:
                    for resource, amount in lease.amounts.items():
                        own[lease.pool, resource] -= amount
            naive = NaiveTree(policy, own)
            stated = policy.stated(wanted.pool)
            short = short or any(
                not naive.fits(wanted.pool, r, amount) for r, amount in wanted.amounts.items() if r in stated
            )
        assert short


@law(policy=lending_policies(**quiet), steps=reserving_lives, window=windows)
def test_the_nearest_times_fit_and_no_nearer_candidate_does(
    policy: Policy, steps: Any, window: Reservation
) -> None:
    life = lived(policy, steps)
    wanted = life.planned(window)
    answer = decide_reservation(life.picture(), wanted, life.now)
    length = wanted.end - wanted.start

    def fits(start: int) -> bool:
        moved = replace(wanted, start=start, end=start + length)
        return not isinstance(decide_reservation(life.picture(), moved, life.now), Red)

    if not isinstance(answer, Red):
        assert fits(wanted.start)
        return
    others = [one for one in life.reservations.values() if policy.root(one.pool) == policy.root(wanted.pool)]
    candidates = {one.end for one in others} | {one.start - length for one in others}
    for found in (answer.before, answer.after):
        assert found is None or fits(found)
    before = [start for start in candidates if start < wanted.start and fits(start)]
    after = [start for start in candidates if start > wanted.start and fits(start)]
    assert answer.before == max(before, default=None)
    if after:
        assert answer.after == min(after)


@law(policy=lending_policies(**quiet), steps=reserving_lives, window=windows)
def test_green_is_within_the_guarantee_and_amber_within_the_approvers_quota(
    policy: Policy, steps: Any, window: Reservation
) -> None:
    life = lived(policy, steps)
    wanted = life.planned(window)
    answer = decide_reservation(life.picture(), wanted, life.now)
    naive = NaiveTree(policy, {})
    for resource, amount in wanted.amounts.items():
        home = naive.home(wanted.pool, resource)
        if isinstance(answer, Green) and home is not None:
            assert amount <= naive.nominal(home, resource)
    if isinstance(answer, Amber):
        beyond = [
            r for r, amount in wanted.amounts.items() if naive.home(wanted.pool, r) is not None and amount
        ]
        assert answer.approver in policy.path(wanted.pool)
        root = naive.parent(answer.approver) is None
        assert root or any(wanted.amounts[r] <= naive.subtree(answer.approver, r) for r in beyond)


@law(policy=lending_policies(), steps=meddled_reserving_lives, window=windows)
def test_reserving_and_cancelling_restores_every_sum(policy: Policy, steps: Any, window: Reservation) -> None:
    life = lived(policy, steps)
    wanted = life.planned(window)
    before = life.ledger.sums.copy()
    reserve(life.ledger, wanted, life.living(), life.reservations.values(), life.now)
    if wanted.start <= life.now:
        turn_windows(life.ledger, [*life.reservations.values(), wanted], life.living(), life.now)
        assert has_begun(life.ledger.sums, wanted)
    cancel(life.ledger, wanted, life.living(), life.now)
    assert life.ledger.sums == before


@law(
    policy=lending_policies(),
    steps=crowds,
    ahead=st.lists(late_windows, min_size=1, max_size=3),
    moves=st.lists(
        st.tuples(
            st.sampled_from(["extend", "notice", "take_back", "withdraw"]),
            st.integers(0, 9),
            st.sampled_from([0, 1799, 1800, 1801, 3600, 7200, 50_000]),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_a_lease_is_counted_at_the_starts_before_its_end_wherever_that_moves(
    policy: Policy, steps: Any, ahead: list[Reservation], moves: list[tuple[str, int, int]]
) -> None:
    life = lived(policy, steps)
    assume(life.leases)
    for number, window in enumerate(ahead):
        wanted = replace(life.planned(window), id=f"ahead{number}")
        reserve(life.ledger, wanted, life.living(), life.reservations.values(), life.now)
        life.reservations[wanted.id] = wanted
    for kind, which, after in moves:
        lease = list(life.leases.values())[which % len(life.leases)]
        end = life.now + after
        match kind:
            case "extend":
                moved = life.ledger.extend(lease, max(end, lease.ends_at), life.now)
            case "notice":
                moved = life.ledger.notice(lease, end, life.now)
            case "take_back":
                moved = life.ledger.take_back(lease, end, "ticket", life.now)
            case _:
                moved = life.ledger.withdraw(lease, life.now)
        life.leases[lease.id] = moved
        assert life.ledger.sums == life.refolded()
        for start in starts(life):
            naive = NaiveTree(policy, own_at(life, start))
            for name, resource in pairs(policy):
                used = life.ledger.tree.used(life.ledger.sums, name, resource, str(start))
                assert used == naive.used(name, resource)


@law(policy=lending_policies(), steps=meddled_reserving_lives)
def test_windows_that_turned_once_do_not_turn_again(policy: Policy, steps: Any) -> None:
    life = lived(policy, steps)
    before, told = life.ledger.sums.copy(), len(life.ledger.entries)
    assert turn_windows(life.ledger, life.reservations.values(), life.living(), life.now) == []
    assert (life.ledger.sums, len(life.ledger.entries)) == (before, told)


@law(policy=lending_policies(), steps=meddled_reserving_lives, away=st.sampled_from([1, 1300, 5000, 200_000]))
def test_a_clock_that_was_away_turns_all_windows_when_it_is_back(
    policy: Policy, steps: Any, away: int
) -> None:
    life = lived(policy, steps)
    life.now += away
    life._turn()
    assert life.ledger.sums == life.refolded()
    for root in {life.policy.root(name) for name in life.policy.pools}:
        assert all(start > life.now for start in life.ledger.sums.starts(root))


@law(policy=lending_policies(**quiet), steps=reserving_lives, wish=asks)
def test_an_end_is_cut_at_the_first_start_where_the_quota_would_not_hold(
    policy: Policy, steps: Any, wish: Any
) -> None:
    """Once more from the definitions; an ask that is not cut fits at every start before its end."""
    life = lived(policy, steps)
    wish = life.wish(wish)
    decision = life.decided(wish)
    assume(isinstance(decision, Admit) or decision.code.value == "reserved-soon")

    def fits(start: int) -> bool:
        naive = NaiveTree(policy, own_at(life, start))
        stated = naive.stated_below(naive.root(wish.pool))
        return all(naive.fits(wish.pool, r, amount) for r, amount in wish.amounts.items() if r in stated)

    ahead = sorted(s for s in starts(life) if s in life.ledger.sums.starts(policy.root(wish.pool)))
    session = policy.session(wish.pool)
    asked = life.now + (
        session.max if wish.minutes is None else max(session.min, min(session.max, 60 * wish.minutes))
    )
    first = next((start for start in ahead if start < asked and not fits(start)), asked)
    if isinstance(decision, Admit):
        assert decision.ends_at == first
    else:
        assert isinstance(decision, Wait)
        assert first - life.now < session.min


# -- what nobody used --------------------------------------------------------------------------------------------------


@given(
    runs=st.lists(
        st.tuples(st.integers(0, 60), st.none() | st.integers(0, 60), st.integers(1, 3)), max_size=4
    ),
    shrunk=st.none() | st.integers(0, 3),
    since=st.integers(0, 50),
    upto=st.integers(0, 50),
)
@settings(max_examples=80)
def test_what_is_not_in_use_is_charged_minute_by_minute(
    runs: list[tuple[int, int | None, int]], shrunk: int | None, since: int, upto: int
) -> None:
    policy = a_policy({"p": {"quota": {"gpu.h200": {"nominal": 4}}}}, rates={"reservation": "0.5"})
    start = 1_800_000_000
    window = Reservation(
        "w",
        "p",
        {"gpu.h200": 3000},
        start,
        start + 3600,
        shrunk_to=None if shrunk is None else {"gpu.h200": 1000 * shrunk},
    )
    leases = [_inside(f"l{i}", start, *run) for i, run in enumerate(runs)]
    since, upto = min(since, upto), max(since, upto)
    pieces = list(unused(policy, window, leases, start + 60 * since, start + 60 * upto))
    charged = sum((end - begin) * cost for begin, end, cost in pieces)
    wanted = 0
    for minute in range(since, upto):
        held = 3 if minute < 20 or shrunk is None else shrunk
        used = sum(
            count for begin, ran, count in runs if begin <= minute and (ran is None or minute < begin + ran)
        )
        wanted += 60 * 1000 * 500 * max(0, held - used)
    assert charged == wanted


def _inside(name: str, start: int, begin: int, ran: int | None, count: int) -> Lease:
    at = start + 60 * begin
    return Lease(
        id=name,
        person="a",
        pool="p",
        path=("p",),
        amounts={"gpu.h200": 1000 * count},
        kind="server",
        guaranteed=True,
        lender=None,
        cost=1,
        booked_at=at,
        ends_at=at + 7200,
        charged_until=at,
        started_at=at,
        released_at=None if ran is None else at + 60 * ran,
        reservation="w",
    )


def test_a_ledger_without_reservations_has_no_starts() -> None:
    assert Sums().starts("seoul") == ()

"""The laws of QUOTA.md §11, on cities and lives drawn at random (those on notices and ping-pong come with reclaims)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hub_ext.core.decision import Admit, Refuse
from hub_ext.quota.budget import (
    BudgetOf,
    Budgets,
    BudgetState,
    Window,
    binding,
    local_date,
    window_at,
    windows_between,
)
from hub_ext.quota.fairshare import share
from hub_ext.quota.ledger import Ledger, fold
from hub_ext.quota.model import Ask, Budget, Lease, Period, Policy, Quota
from hub_ext.quota.policy import decide
from hub_ext.quota.sums import SumKey, Sums
from tests.support.builders import a_policy
from tests.support.cities import (
    LIVING,
    NODES,
    PEOPLE,
    RESOURCES,
    START,
    Life,
    asks,
    meddling,
    policies,
)
from tests.support.naive import NaiveTree, own_amounts

lives = st.lists(LIVING, max_size=14)
meddled_lives = st.lists(meddling(), max_size=12)
quiet = {"budgets": False, "caps": False}


def law(*arguments: Any, **drawn: Any) -> Callable[[Any], Any]:
    """Half of hypothesis' usual number of examples: there are many laws."""
    return lambda test: settings(max_examples=50)(given(*arguments, **drawn)(test))


def pairs(policy: Policy) -> list[tuple[str, str]]:
    return [(name, resource) for name in policy.pools for resource in policy.stated(name)]


# -- the tree ---------------------------------------------------------------------------------------------------------------


@law(policy=policies(budgets=False), steps=meddled_lives, amount=st.integers(0, 9000))
def test_the_sums_give_the_same_numbers_as_the_definitions(policy: Policy, steps: Any, amount: int) -> None:
    life = Life(policy).live(steps)
    tree, sums, policy = life.ledger.tree, life.ledger.sums, life.policy
    naive = NaiveTree(policy, own_amounts(policy, life.leases.values()))
    for name, resource in pairs(policy):
        for number in ("subtree", "local", "potential"):
            assert getattr(tree, number)(name, resource) == getattr(naive, number)(name, resource), (
                number,
                name,
                resource,
            )
        for number in ("used", "available"):
            assert getattr(tree, number)(sums, name, resource) == getattr(naive, number)(name, resource), (
                number,
                name,
                resource,
            )
        assert tree.fits(sums, name, resource, amount) == naive.fits(name, resource, amount)
        assert policy.home(name, resource) == naive.home(name, resource)
    for name in policy.pools:
        its_share = share(tree, sums, name)
        assert (its_share.shown, its_share.dominant) == naive.share(name)


@law(policy=policies(budgets=False), steps=meddled_lives)
def test_guarantees_are_the_sums_of_guaranteed_leases(policy: Policy, steps: Any) -> None:
    life = Life(policy).live(steps)
    wanted: dict[tuple[str, str], int] = {}
    naive = NaiveTree(life.policy, {})
    for lease in life.living():
        pool = next((name for name in lease.path if name in life.policy.pools), None)
        for resource, amount in lease.amounts.items():
            home = naive.home(pool, resource) if pool is not None and lease.guaranteed else None
            if home is not None:
                wanted[home, resource] = wanted.get((home, resource), 0) + amount
    for name, resource in pairs(life.policy):
        assert life.ledger.tree.guaranteed(life.ledger.sums, name, resource) == wanted.get(
            (name, resource), 0
        )


@law(policy=policies(budgets=False), steps=meddled_lives)
def test_use_is_never_negative(policy: Policy, steps: Any) -> None:
    life = Life(policy, NODES).live(steps)
    for kind in ("used", "guaranteed", "held", "taken", "starting", "drawn"):
        assert all(value >= 0 for _, value in life.ledger.sums.of_kind(kind))


@law(policy=policies(**quiet), steps=lives)
def test_admissions_stay_within_subtree_and_borrow_at_every_pool(policy: Policy, steps: Any) -> None:
    life = Life(policy).live(steps)
    tree, sums = life.ledger.tree, life.ledger.sums
    for name, resource in pairs(policy):
        used, subtree = tree.used(sums, name, resource), tree.subtree(name, resource)
        quota = policy.pools[name].quota.get(resource)
        if policy.pools[name].parent is None:
            assert used <= subtree
        elif quota is not None and quota.borrow is not None:
            assert used <= subtree + quota.borrow
        assert used <= tree.potential(name, resource)


@law(policy=policies(**quiet), steps=meddled_lives, wish=asks)
def test_an_admission_stays_within_them_even_where_others_are_beyond(
    policy: Policy, steps: Any, wish: Any
) -> None:
    life = Life(policy).live(steps)
    before = life.ledger.sums.copy()
    life.live([("ask", wish)])
    tree, after = life.ledger.tree, life.ledger.sums
    for name, resource in pairs(life.policy):
        used = tree.used(after, name, resource)
        if used > tree.used(before, name, resource):
            quota = life.policy.pools[name].quota.get(resource)
            root = life.policy.pools[name].parent is None
            if root or (quota is not None and quota.borrow is not None):
                kept = max(0, tree.local(name, resource) - tree.used(before, name, resource))
                within = used - tree.used(before, name, resource) <= kept
                most = tree.subtree(name, resource) + (quota.borrow or 0 if quota and not root else 0)
                assert within or used <= most


@law(policy=policies(**quiet), steps=meddled_lives)
def test_lending_never_cuts_what_was_never_lent(policy: Policy, steps: Any) -> None:
    life = Life(policy).live(steps)
    tree, sums = life.ledger.tree, life.ledger.sums
    for name, resource in pairs(life.policy):
        kept = max(0, tree.local(name, resource) - tree.used(sums, name, resource))
        assert not kept or tree.fits(sums, name, resource, kept)


@law(policy=policies(**quiet), steps=lives, wish=asks)
def test_what_would_be_guaranteed_fits_once_all_that_is_borrowed_is_gone(
    policy: Policy, steps: Any, wish: Any
) -> None:
    life = Life(policy).live(steps)
    for lease in life.living():
        if not lease.guaranteed:
            life.leases[lease.id] = life.ledger.release(lease, life.now)
    wish = life.wish(wish)
    assume(life.ledger.would_be_guaranteed(wish))
    tree, sums = life.ledger.tree, life.ledger.sums
    assert all(tree.fits(sums, wish.pool, resource, amount) for resource, amount in wish.amounts.items())


@law(policy=policies(**quiet), steps=lives, wish=asks, data=st.data())
def test_raising_a_quota_never_turns_an_admission_into_a_refusal(
    policy: Policy, steps: Any, wish: Any, data: st.DataObject
) -> None:
    life = Life(policy).live(steps)
    wish = life.wish(wish)
    decision = life.decided(wish)
    assume(isinstance(decision, Admit))
    stated = [(name, resource) for name, pool in policy.pools.items() for resource in pool.quota]
    assume(stated)
    name, resource = data.draw(st.sampled_from(stated))
    quota = policy.pools[name].quota[resource]
    more = Quota(quota.nominal + data.draw(st.sampled_from([1, 500, 4000])), quota.borrow, quota.lend)
    pool = replace(policy.pools[name], quota={**policy.pools[name].quota, resource: more})
    raised = replace(policy, pools={**policy.pools, name: pool})
    life.live([("policy", raised)])
    after = life.decided(wish)
    assert not isinstance(after, Refuse)
    assert isinstance(after, Admit)  # more than the law asks for: it need not even wait


@law(policy=policies(**quiet), steps=meddled_lives, wishes=st.lists(asks, min_size=4, max_size=8))
def test_the_lender_is_the_nearest_that_stays_within_its_quota(
    policy: Policy, steps: Any, wishes: Any
) -> None:
    life = Life(policy).live(steps)
    own = own_amounts(life.policy, life.leases.values())
    for wish in map(life.wish, wishes):
        decision = life.decided(wish)
        if isinstance(decision, Admit):
            assert decision.lender == (None if decision.guaranteed else _lender(life, own, wish))


def _lender(life: Life, own: dict[tuple[str, str], int], wish: Ask) -> str:
    """From the definition: only the resources that go beyond their home's guarantee are borrowed."""
    before = NaiveTree(life.policy, own)
    borrowed = [
        resource
        for resource, amount in wish.amounts.items()
        if amount and (home := before.home(wish.pool, resource)) is not None
        if life.ledger.tree.guaranteed(life.ledger.sums, home, resource) + amount
        > before.nominal(home, resource)
    ]
    assert borrowed
    more = {(wish.pool, r): own.get((wish.pool, r), 0) + wish.amounts[r] for r in borrowed}
    after = NaiveTree(life.policy, own | more)
    at: str | None = wish.pool
    while at is not None and not all(after.used(at, r) <= after.subtree(at, r) for r in borrowed):
        at = before.parent(at)
    return at or before.root(wish.pool)


@law(
    policy=policies(budgets=False),
    steps=st.lists(meddling(budgets=False), max_size=8),
    wish=asks,
    nodes=st.sampled_from([None, (), NODES]),
)
def test_the_first_check_that_objects_wins(policy: Policy, steps: Any, wish: Any, nodes: Any) -> None:
    """Every check once more, from the definitions alone; hours are left out (no policy here has any)."""
    life = Life(policy, nodes).live(steps)
    policy, wish = life.policy, life.wish(wish)
    naive = NaiveTree(policy, own_amounts(policy, life.leases.values()))
    held = [lease for lease in life.living() if lease.person == wish.person]
    counted = {key: amount for key, amount in wish.amounts.items() if amount}
    counted[{"server": "servers", "dask-worker": "dask-workers"}[wish.kind]] = 1
    stated = naive.stated_below(naive.root(wish.pool))

    def cap(key: str) -> tuple[str, int] | None:
        at: str | None = wish.pool
        while at is not None:
            if key in policy.pools[at].person:
                return at, policy.pools[at].person[key]
            at = naive.parent(at)
        return None

    def holds(pool: str, key: str) -> int:
        kinds = {"servers": "server", "dask-workers": "dask-worker"}
        inside = [lease for lease in held if _charged(policy, lease) in naive.below(pool)]
        if key in kinds:
            return sum(lease.kind == kinds[key] for lease in inside)
        return sum(lease.amounts.get(key, 0) for lease in inside)

    def room(name: str, resource: str) -> int:
        used = sum(lease.amounts.get(resource, 0) for lease in life.living() if lease.node == name)
        return next(node.capacity.get(resource, 0) for node in nodes if node.name == name) - used

    caps = [(key, amount, found) for key, amount in counted.items() if (found := cap(key))]
    asked = {resource: amount for resource, amount in wish.amounts.items() if amount}
    wanted = None
    if any(amount > naive.potential(wish.pool, r) for r, amount in asked.items() if r in stated):
        wanted = "too-big-for-pool"
    elif any(amount > most for _, amount, (_, most) in caps):
        wanted = "too-big-for-person"
    elif nodes is not None and not any(
        all(node.capacity.get(r, 0) >= a for r, a in asked.items()) for node in nodes
    ):
        wanted = "too-big-for-any-node"
    elif any(holds(pool, key) + amount > most for key, amount, (pool, most) in caps):
        wanted = "person-at-cap"
    elif any(not naive.fits(wish.pool, r, amount) for r, amount in asked.items() if r in stated):
        wanted = "pool-full"
    elif nodes is not None and not any(
        all(room(node.name, r) >= a for r, a in asked.items()) for node in nodes
    ):
        wanted = "no-node-free"
    elif (
        wish.kind == "server"
        and sum(one.state == "booked" and one.kind == "server" for one in life.living()) >= 64
    ):
        wanted = "starts-busy"
    decision = life.decided(wish)
    assert (None if isinstance(decision, Admit) else decision.code.value) == wanted
    assert isinstance(decision, Refuse) == (wanted is not None and wanted.startswith("too-big"))


def _charged(policy: Policy, lease: Lease) -> str | None:
    return next((name for name in lease.path if name in policy.pools), None)


# -- the ledger -------------------------------------------------------------------------------------------------------------


@law(policy=policies(), steps=meddled_lives)
def test_the_sums_are_those_of_a_refold(policy: Policy, steps: Any) -> None:
    life = Life(policy, NODES).live(steps)
    assert life.ledger.sums == life.refolded()


@law(policy=policies(), steps=meddled_lives)
def test_a_policy_loaded_again_changes_nothing(policy: Policy, steps: Any) -> None:
    life = Life(policy, NODES).live(steps)
    before = life.ledger.sums.copy()
    assert life.refolded(life.policy, since=life.now) == before


@law(policy=policies(), steps=meddled_lives, cut=st.integers(0, 60))
def test_folding_in_two_parts_is_folding_at_once(policy: Policy, steps: Any, cut: int) -> None:
    life = Life(policy).live(steps)
    entries = life.history + life.ledger.entries
    at_once = fold({}, entries)
    assert fold(fold({}, entries[:cut]), entries[cut:]) == at_once
    assert at_once == life.leases


@law(policy=policies(), steps=meddled_lives, wish=asks, runs=st.sampled_from(["booked", "running", "ending"]))
def test_booking_and_releasing_restores_every_sum(policy: Policy, steps: Any, wish: Any, runs: str) -> None:
    life = Life(policy, NODES).live(steps)
    before = life.ledger.sums.copy()
    decision = life.decided(wish := life.wish(wish))
    assume(isinstance(decision, Admit))
    assert isinstance(decision, Admit)
    lease = life.ledger.book(wish, decision, life.now)
    if runs != "booked":
        lease = life.ledger.run(lease, life.now)
    if runs == "ending":
        lease = life.ledger.end(lease, life.now)
    life.ledger.release(lease, life.now)
    assert life.ledger.sums == before


@law(policy=policies(), steps=meddled_lives, wish=asks, ran=st.integers(0, 90_000))
def test_what_was_used_is_all_that_stays_of_a_lease(policy: Policy, steps: Any, wish: Any, ran: int) -> None:
    life = Life(policy, NODES).live(steps)
    before = life.ledger.sums.copy()
    decision = life.decided(wish := life.wish(wish))
    assume(isinstance(decision, Admit))
    assert isinstance(decision, Admit)
    lease = life.ledger.run(life.ledger.book(wish, decision, life.now), life.now + 3)
    released = life.ledger.release(lease, life.now + 3 + ran)
    assert not released.live
    changed = {key for key in {*before, *life.ledger.sums} if before[key] != life.ledger.sums[key]}
    assert {key.kind for key in changed} <= {"spent", "drawn"}
    for of in binding(life.policy, lease.path, lease.person):
        spent = sum(
            life.ledger.sums[of.key("spent", window)] - before[of.key("spent", window)]
            for window in windows_between(of.budget, life.now, life.now + ran + 86_400, life.policy.timezone)
        )
        if of.budget.period in tuple(Period):
            assert spent == lease.cost * ran


@law(policy=policies(), steps=meddled_lives, wish=asks)
def test_deciding_changes_nothing(policy: Policy, steps: Any, wish: Any) -> None:
    life = Life(policy, NODES).live(steps)
    snapshot = life.snapshot(wish.person)
    frozen = [
        copy.deepcopy(part)
        for part in (
            dict(snapshot.sums.items()),
            list(snapshot.grants),
            snapshot.people,
            snapshot.own,
            snapshot.nodes,
        )
    ]
    wish = life.wish(wish)
    asked = copy.deepcopy(wish)
    first = decide(snapshot, wish, life.now)
    assert [
        dict(snapshot.sums.items()),
        list(snapshot.grants),
        snapshot.people,
        snapshot.own,
        snapshot.nodes,
    ] == frozen
    assert wish == asked
    # What the menu shows is what is answered on the same snapshot.
    assert decide(snapshot, wish, life.now) == first


@law(policy=policies(), steps=meddled_lives)
def test_what_is_set_aside_is_what_leases_may_still_cost(policy: Policy, steps: Any) -> None:
    life = Life(policy).live(steps)
    zone = life.policy.timezone
    wanted: dict[SumKey, int] = {}
    for lease in life.living():
        for of in binding(life.policy, lease.path, lease.person):
            for window in windows_between(
                of.budget, lease.charged_until, max(lease.charged_until, lease.ends_at), zone
            ):
                seconds = min(lease.ends_at, window.end) - max(lease.charged_until, window.start)
                key = of.key("committed", window)
                wanted[key] = wanted.get(key, 0) + lease.cost * seconds
    assert dict(life.ledger.sums.of_kind("committed")) == {
        key: value for key, value in wanted.items() if value
    }


@law(policy=policies(), steps=meddled_lives)
def test_persons_hold_what_their_leases_hold(policy: Policy, steps: Any) -> None:
    life = Life(policy).live(steps)
    wanted: dict[SumKey, int] = {}
    for lease in life.living():
        counted = {**lease.amounts, {"server": "servers", "dask-worker": "dask-workers"}[lease.kind]: 1}
        charged = next((name for name in lease.path if name in life.policy.pools), None)
        for name in life.policy.path(charged) if charged else ():
            for key, amount in counted.items():
                if key in life.policy.pools[name].person and amount:
                    sum_key = SumKey("held", name, key, lease.person)
                    wanted[sum_key] = wanted.get(sum_key, 0) + amount
    assert dict(life.ledger.sums.of_kind("held")) == wanted


@law(policy=policies(budgets=False), steps=lives)
def test_no_person_ever_holds_more_than_the_nearest_cap(policy: Policy, steps: Any) -> None:
    life = Life(policy).live(steps)
    for name, pool in policy.pools.items():
        bound = all(
            key not in policy.pools[below].person
            for below in policy.subtree(name)
            if below != name
            for key in pool.person
        )
        for key, cap in pool.person.items():
            if bound:
                for person in PEOPLE:
                    assert life.ledger.sums[SumKey("held", name, key, person)] <= cap


@law(policy=policies(**quiet), steps=st.lists(LIVING, max_size=20))
def test_no_machine_is_given_more_than_it_has(policy: Policy, steps: Any) -> None:
    life = Life(policy, NODES).live(steps)
    for node in NODES:
        for resource in RESOURCES:
            assert life.ledger.sums[SumKey("taken", "", resource, node.name)] <= node.capacity.get(
                resource, 0
            )


# -- budgets ----------------------------------------------------------------------------------------------------------------


@law(policy=policies(), steps=lives)
def test_nothing_is_admitted_beyond_what_is_left_of_a_period(policy: Policy, steps: Any) -> None:
    """As long as nobody meddles, no lease overdraws the period it starts in."""
    life = Life(policy)
    for step in steps:
        before = life.ledger.sums.copy()
        admitted = len(life.log)
        life.live([step])
        for _, decision in life.log[admitted:]:
            if not isinstance(decision, Admit):
                continue
            for of in (of for name in policy.pools for of in binding(policy, [name], life.log[-1][0].person)):
                state = life.ledger.budgets.state(of, life.now)
                old = Budgets(policy, before, life.ledger.grants).state(of, life.now)
                if state is not None and old is not None and state.committed > old.committed:
                    assert state.left >= 0


@st.composite
def histories(draw: st.DrawFn) -> tuple[Budget, list[int]]:
    """A budget, and how many hours were used in each of its periods."""
    hours, carry = draw(st.integers(0, 10)), draw(st.integers(0, 25))
    period = draw(st.sampled_from([Period.DAY, Period.WEEK, Period.MONTH]))
    return Budget(Decimal(hours), period, carry=Decimal(carry)), draw(
        st.lists(st.integers(0, 14), max_size=12)
    )


@law(histories())
def test_what_is_carried_over_is_what_was_left_up_to_the_cap(drawn: tuple[Budget, list[int]]) -> None:
    """Forwards, period after period, comes to the same as the walk back from the last one."""
    budget, history = drawn
    policy = a_policy({"p": {}})
    zone = policy.timezone
    sums, of = Sums(), BudgetOf("p", budget)
    budgets = Budgets(policy, sums)
    window = window_at(budget, START, zone)
    assert window is not None
    sums[SumKey("opened", "p", budget.name)] = window.start
    carried = 0
    for used in history:
        state = budgets.state_in(of, window, window.start)
        assert state.limit == (int(budget.hours) + carried) * 3600 * 10**6
        sums.add(of.key("spent", window), used * 3600 * 10**6)
        left = int(budget.hours) + carried - used
        carried = max(0, min(left, int(budget.carry or 0)))
        window = window_at(budget, window.end, zone)
        assert window is not None
    assert budgets.state_in(of, window, window.start).limit == (int(budget.hours) + carried) * 3600 * 10**6


@law(
    base=st.integers(0, 40),
    grants=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 30)), max_size=4),
    cost=st.integers(1, 4),
)
def test_a_lease_lasts_as_long_as_its_hours_second_by_second(
    base: int, grants: list[tuple[int, int]], cost: int
) -> None:
    """Alone on its budget: the period's hours first, then the grants, the earliest to run out first."""
    pots = sorted(grants)
    of = BudgetOf("p", Budget(Decimal(1), Period.DAY))
    state = BudgetState(
        of, Window(0, 10**6, ""), base + sum(units for _, units in pots), 0, 0, base, tuple(pots)
    )
    left, rest, second = base, [list(pot) for pot in pots], 0
    while True:
        usable = left + sum(units for until, units in rest if second < until)
        if usable < cost:
            break
        owed = cost
        for pot in [[10**6, left], *rest]:
            if second < pot[0]:
                paid = min(owed, pot[1])
                pot[1] -= paid
                owed -= paid
        left = max(0, left - cost)
        second += 1
    lasts = state.lasts_until(cost, 0)
    assert lasts == second


@law(policy=policies(), steps=st.lists(LIVING, max_size=10))
def test_a_lease_is_charged_the_same_however_often(policy: Policy, steps: Any) -> None:
    """In one piece or in many, in any order of leases."""
    life = Life(policy).live(steps)
    running = [lease for lease in life.living() if lease.started_at is not None]
    until = life.now + 100_000
    once, often = (Ledger(policy, life.ledger.sums.copy(), longest_slice=longest) for longest in (10**6, 300))
    for lease in running:
        once.accrue(lease, until)
    for lease in reversed(running):
        partly = often.accrue(lease, lease.charged_until + 12_345)
        often.accrue(partly, until)
    assert once.sums == often.sums
    for ledger in (once, often):
        for charge in ledger.charges:
            assert charge.units == charge.seconds * life.leases[charge.lease].cost
    days = [{(charge.lease, charge.day): 0 for charge in ledger.charges} for ledger in (once, often)]
    for totals, ledger in zip(days, (once, often), strict=True):
        for charge in ledger.charges:
            totals[charge.lease, charge.day] += charge.seconds
    assert days[0] == days[1]
    for (name, day), total in days[0].items():
        lease: Lease = life.leases[name]
        assert local_date(lease.charged_until, policy.timezone) <= day
        assert total <= timedelta(hours=25).total_seconds()

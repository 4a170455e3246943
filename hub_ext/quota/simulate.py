"""Plays a scenario through time with the same ledger and decisions as the running hub (QUOTA.md §10).

Due changes happen at their exact instant: ends, notices, period edges, then the file's events, and due changes
again after each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from hub_ext.core.amounts import gpu_seconds
from hub_ext.core.clock import DAY, Instant
from hub_ext.core.decision import Admit, Code, Decision, verdict
from hub_ext.core.people import Person
from hub_ext.quota.budget import BudgetOf, BudgetState
from hub_ext.quota.fairshare import share
from hub_ext.quota.ledger import Ledger, find_budget, refold
from hub_ext.quota.model import Ask, Grant, Lease, Policy
from hub_ext.quota.overrun import overrun_cuts, overrun_due
from hub_ext.quota.policy import Snapshot, cost_of, decide, decide_extension, first_end, pick_node
from hub_ext.quota.scenario import (
    AskEvent,
    CancelEvent,
    ExtendEvent,
    GrantEvent,
    LeaseFact,
    PolicyEvent,
    ReleaseEvent,
    Scenario,
    TickEvent,
)
from hub_ext.quota.sums import Sums


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario, as JSON values (times in ISO with the policy's offset)."""

    decisions: list[dict[str, Any]]
    pools: dict[str, dict[str, Any]]
    budgets: list[dict[str, Any]]


def play(scenario: Scenario) -> Outcome:
    """Play the whole file. Raises FaultyDocument for what only playing it shows."""
    run = _Run(scenario)
    run.begin()
    run.settle()
    order = sorted(range(len(scenario.events)), key=lambda index: (scenario.events[index][0], index))
    for index in order:
        at, event = scenario.events[index]
        run.advance(at)
        try:
            run.handle(event)
        except ValueError as error:
            raise scenario.fault("events", index, str(error)) from error
        run.settle()
    return run.outcome()


@dataclass
class _Run:
    scenario: Scenario
    now: Instant = 0
    leases: dict[str, Lease] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, Decision] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    """The leases of an ask that wanted several."""
    cuts: dict[str, Any] = field(default_factory=dict)

    def begin(self) -> None:
        self.now = self.scenario.now
        self.ledger = Ledger(self.scenario.policy, Sums(), longest_slice=DAY)
        self.ledger.budgets.open(self.now)
        for index, used in enumerate(self.scenario.used_hours):
            try:
                self.ledger.correct(find_budget(self.policy, used.pool, used.period, used.person), used.units, self.now)
            except ValueError as error:
                raise self.scenario.fault("used_hours", index, str(error)) from error
        nodes = {node.name for node in self.scenario.nodes or ()}
        for index, fact in enumerate(self.scenario.leases):
            if fact.node is not None and fact.node not in nodes:
                raise self.scenario.fault("leases", index, f"there is no node {fact.node!r}")
            if fact.pool not in self.policy.pools:
                raise self.scenario.fault("leases", index, f"there is no pool {fact.pool!r} yet")
            self.leases[fact.id] = self._record(fact)

    # -- time --------------------------------------------------------------------------------------------------

    def advance(self, to: Instant) -> None:
        while (due := self._next_due(to)) is not None:
            self.now = due
            self._accrue()
            self.settle()
        self.now = to
        self._accrue()

    def settle(self) -> None:
        """Everything that is due now: ends, notices of budgets that ran out, and what each of them causes."""
        changed = True
        while changed:
            changed = self._stop_ended() or self._notice_overruns()

    def _next_due(self, to: Instant) -> Instant | None:
        dues = [lease.ends_at for lease in self._live()]
        dues += overrun_due(self.ledger.budgets, self._live(), self.now)
        return min((due for due in dues if self.now < due < to), default=None)

    def _accrue(self) -> None:
        for lease in self._live():
            if lease.cost:
                self.leases[lease.id] = self.ledger.accrue(lease, self.now)

    def _stop_ended(self) -> bool:
        ended = sorted((x for x in self._live() if x.ends_at <= self.now), key=lambda x: (x.ends_at, x.id))
        for lease in ended:
            code = Code.BUDGET_SPENT.value if lease.noticed_at is not None or self._cut_by_budget(lease) else None
            self._change(lease, "stopped", code, {"cut_by": self.cuts.get(lease.id)})
            self._release(lease, "ended")
        return bool(ended)

    def _cut_by_budget(self, lease: Lease) -> bool:
        cut = self.cuts.get(lease.id)
        return cut is not None and cut.get("kind") == "budget"

    def _notice_overruns(self) -> bool:
        cuts = overrun_cuts(self.ledger.budgets, self._live(), self.now)
        for lease, ends_at, facts in cuts:
            noticed = self.ledger.notice(lease, ends_at, self.now, why=Code.BUDGET_SPENT.value)
            self.leases[lease.id] = noticed
            self.cuts[lease.id] = facts
            self._change(noticed, "noticed", Code.BUDGET_SPENT.value, facts)
        return bool(cuts)

    # -- events --------------------------------------------------------------------------------------------------

    def handle(self, event: Any) -> None:
        """Raises ValueError with a sentence for an event that makes no sense at this time."""
        match event:
            case AskEvent(ask, count):
                self._ask(ask, count)
            case ReleaseEvent(lease_id) | CancelEvent(lease_id):
                for lease in self._named(lease_id):
                    self._release(lease, "released")
            case ExtendEvent(lease_id, minutes):
                for lease in self._named(lease_id):
                    self._extend(lease, minutes)
            case GrantEvent():
                self._grant(event)
            case PolicyEvent(policy):
                self._load(policy)
            case TickEvent():
                pass

    def _ask(self, ask: Ask, count: int) -> None:
        if ask.id in self.answers or ask.id in self.leases:
            self._answer(ask.id, self.answers.get(ask.id) or self._as_answer(self.leases[ask.id]))
            return
        if count == 1:
            decision = self._decide_and_book(ask)
        else:
            decision = self._ask_many(ask, count)
        if isinstance(decision, Admit):
            self.answers[ask.id] = decision
            self.cuts[ask.id] = decision.facts.get("cut_by")
        self._answer(ask.id, decision)

    def _ask_many(self, ask: Ask, count: int) -> Decision:
        """Admit as many as fit at once; guaranteed ones come first because guarantees only shrink."""
        admitted: list[Admit] = []
        rest: Decision | None = None
        while len(admitted) < count and rest is None:
            one = replace(ask, id=f"{ask.id}/{len(admitted) + 1}", server=f"{ask.server}/{len(admitted) + 1}")
            decision = self._decide_and_book(one)
            if isinstance(decision, Admit):
                admitted.append(decision)
                self.parts.setdefault(ask.id, []).append(one.id)
                self.cuts[one.id] = decision.facts.get("cut_by")
            else:
                rest = decision
        if not admitted:
            assert rest is not None
            return rest
        facts = dict(admitted[0].facts) | {"admitted": len(admitted), "wanted": count}
        if rest is not None and not isinstance(rest, Admit):
            facts |= {"rest": rest.code.value, "rest_facts": dict(rest.facts)}
        return Admit(
            guaranteed=all(one.guaranteed for one in admitted),
            lender=admitted[-1].lender,
            ends_at=min(one.ends_at for one in admitted),
            cost=sum(one.cost for one in admitted),
            facts=facts,
        )

    def _decide_and_book(self, ask: Ask) -> Decision:
        snapshot = self._snapshot(ask.person)
        decision = decide(snapshot, ask, self.now)
        if isinstance(decision, Admit):
            lease = self.ledger.book(ask, decision, self.now)
            self.leases[ask.id] = self.ledger.run(lease, self.now)
        return first_end(decision, self._live(), self.policy)

    def _extend(self, lease: Lease, minutes: int) -> None:
        if not lease.live:
            self._change(lease, "extended", "lease-over", {})
            return
        end = decide_extension(self._snapshot(lease.person), lease, minutes, self.now)
        if isinstance(end, Decision):
            assert not isinstance(end, Admit)
            self._change(lease, "extended", end.code.value, dict(end.facts))
            return
        if end.at > lease.ends_at:
            lease = self.ledger.extend(lease, end.at, self.now)
            self.leases[lease.id] = lease
            self.cuts[lease.id] = end.cut_by
        self._change(lease, "extended", None, {"cut_by": end.cut_by})

    def _grant(self, event: GrantEvent) -> None:
        of = find_budget(self.policy, event.pool, event.period, event.person)
        grant = Grant(
            id=f"grant-{len(self.ledger.grants) + 1}",
            pool=event.pool,
            budget=of.budget.name,
            person=of.person,
            units=event.units,
            until=event.until,
            why=event.why,
            made_at=self.now,
        )
        if grant.until <= self.now:
            raise ValueError("the grant has run out before it is made; give a later `until`")
        self.ledger.grant(grant)

    def _load(self, policy: Policy) -> None:
        charges = [(self.leases[charge.lease], charge.day, charge.units) for charge in self.ledger.charges]
        sums = refold(policy, self._live(), charges, self.ledger.sums, self.ledger.grants, since=self.now)
        old = self.ledger
        self.ledger = Ledger(policy, sums, old.grants, longest_slice=DAY)
        self.ledger.charges = old.charges
        self._promote()

    # -- parts -------------------------------------------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        return self.ledger.policy

    def _live(self) -> list[Lease]:
        return [lease for lease in self.leases.values() if lease.live]

    def _named(self, lease_id: str) -> Iterator[Lease]:
        for one in self.parts.get(lease_id, [lease_id]):
            if one in self.leases:
                yield self.leases[one]

    def _snapshot(self, person: str) -> Snapshot:
        people = self.scenario.people
        if people is None:
            people = {person: Person(person, any_pool=True)}
        own = [lease for lease in self._live() if lease.person == person]
        return Snapshot(self.ledger.tree, self.ledger.sums, self.scenario.nodes, self.ledger.grants, people, own)

    def _record(self, fact: LeaseFact) -> Lease:
        snapshot = self._snapshot(fact.person)
        ask = Ask(fact.id, fact.person, fact.pool, fact.amounts, kind=fact.kind, server=fact.id)
        guaranteed = self.ledger.would_be_guaranteed(ask) if fact.borrowed is None else not fact.borrowed
        ends = fact.ends if fact.ends is not None else max(self.now, fact.started + self.policy.session(fact.pool).max)
        return self.ledger.adopt(
            ask,
            self.now,
            started_at=fact.started,
            ends_at=ends,
            cost=cost_of(self.policy, ask, guaranteed=guaranteed),
            node=fact.node or pick_node(snapshot, ask),
            guaranteed=guaranteed,
        )

    def _release(self, lease: Lease, why: str) -> None:
        if lease.live:
            self.leases[lease.id] = self.ledger.release(lease, self.now, why=why)
            self._promote()

    def _promote(self) -> None:
        borrowed = [lease for lease in self._live() if not lease.guaranteed]
        for lease in self.ledger.promote(borrowed, self.now):
            self.leases[lease.id] = lease
            self._change(lease, "promoted", None, {})

    # -- what is told ------------------------------------------------------------------------------------------

    def _answer(self, ask_id: str, decision: Decision) -> None:
        admit = decision if isinstance(decision, Admit) else None
        self.decisions.append(
            {
                "id": ask_id,
                "at": self._iso(self.now),
                "verdict": verdict(decision),
                "code": None if isinstance(decision, Admit) else decision.code.value,
                "facts": plain(decision.facts),
                "guaranteed": admit.guaranteed if admit else None,
                "lender": admit.lender if admit else None,
                "ends_at": self._iso(admit.ends_at) if admit else None,
                "position": None,
                "eta": None,
                "reclaims": [],
            }
        )

    def _as_answer(self, lease: Lease) -> Admit:
        return Admit(lease.guaranteed, lease.lender, lease.ends_at, lease.cost, lease.node)

    def _change(self, lease: Lease, change: str, code: str | None, facts: Mapping[str, Any]) -> None:
        self.decisions.append(
            {
                "id": lease.id,
                "at": self._iso(self.now),
                "change": change,
                "code": code,
                "facts": plain(facts),
                "ends_at": self._iso(lease.ends_at),
            }
        )

    def _iso(self, instant: Instant) -> str:
        return self.policy.local(instant).isoformat()

    def outcome(self) -> Outcome:
        return Outcome(
            decisions=self.decisions,
            pools={name: pool_numbers(self.ledger, name) for name in self.policy.pools},
            budgets=budget_numbers(self.ledger, self.now),
        )


def pool_numbers(ledger: Ledger, pool: str) -> dict[str, Any]:
    """The pool's share and, for every resource stated in its tree, all numbers in base units."""
    tree, sums, policy = ledger.tree, ledger.sums, ledger.policy
    numbers = {}
    for resource in policy.stated(pool):
        used, subtree = tree.used(sums, pool, resource), tree.subtree(pool, resource)
        numbers[resource] = {
            "nominal": policy.nominal(pool, resource),
            "subtree": subtree,
            "local": tree.local(pool, resource),
            "used": used,
            "g": tree.guaranteed(sums, pool, resource),
            "available": tree.available(sums, pool, resource),
            "potential": tree.potential(pool, resource),
            "over": max(0, used - subtree),
        }
    its_share = share(tree, sums, pool)
    return {"share": its_share.shown, "dominant": its_share.dominant, "resources": numbers}


def budget_states(ledger: Ledger, now: Instant) -> Iterator[BudgetState]:
    """Every running period of a pool's budget, and of each person's that was ever touched."""
    people: dict[tuple[str, str], set[str]] = {}
    for key in ledger.sums:
        if key.kind in ("spent", "committed", "corrected") and key.person:
            people.setdefault((key.pool, key.item), set()).add(key.person)
    for grant in ledger.grants:
        if grant.person:
            people.setdefault((grant.pool, grant.budget), set()).add(grant.person)
    for pool in ledger.policy.pools.values():
        for budget in pool.budgets:
            names = sorted(people.get((pool.name, budget.name), ())) if budget.each_person else [""]
            for name in names:
                state = ledger.budgets.state(BudgetOf(pool.name, budget, name), now)
                if state is not None:
                    yield state


def budget_numbers(ledger: Ledger, now: Instant) -> list[dict[str, Any]]:
    """The budgets in GPU-seconds."""
    return [
        {
            "pool": state.of.pool,
            "person": state.of.person or None,
            "period": str(state.of.budget.period),
            "limit": gpu_seconds(state.limit),
            "used": gpu_seconds(state.used),
            "committed": gpu_seconds(state.committed),
            "left": gpu_seconds(state.left),
        }
        for state in budget_states(ledger, now)
    ]


def plain(value: Any) -> Any:
    """Facts as JSON values: times become ISO text."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


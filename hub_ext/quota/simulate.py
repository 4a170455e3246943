"""Plays a scenario through time with the same ledger and decisions as the running hub (QUOTA.md §10).

Due changes happen at their exact instant: ends, notices, period edges, the turns of those who wait, then the file's
events, and due changes again after each of them.

Thousands of leases and events are played in seconds, because nothing is done for every lease at every event.

`played_state` is the centre, `played_windows` its reservations, `played_line` those who wait; here is time, and what the
file says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hub_ext.core.amounts import is_gpu
from hub_ext.core.clock import DAY, Instant
from hub_ext.core.decision import Code
from hub_ext.quota.eta import renewal
from hub_ext.quota.ledger import TAKEN_BACK, Ledger, find_budget, refold
from hub_ext.quota.model import Ask, Grant, Lease, Policy
from hub_ext.quota.numbers import budget_numbers, pool_numbers
from hub_ext.quota.overrun import overrun_cuts, overrun_due
from hub_ext.quota.played_line import PlayedLine
from hub_ext.quota.policy import End, Snapshot, cost_of, decide_extension, pick_node
from hub_ext.quota.queue import others_waiting_for, put_back
from hub_ext.quota.scenario import (
    AskEvent,
    CancelEvent,
    Event,
    ExtendEvent,
    GrantEvent,
    LeaseFact,
    PolicyEvent,
    ReleaseEvent,
    ReserveEvent,
    Scenario,
    TickEvent,
)
from hub_ext.quota.sums import Sums
from hub_ext.quota.transcript import Transcript
from hub_ext.quota.windows import next_edge

FOREVER: Instant = 1 << 62


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


class _Run(PlayedLine):
    def __init__(self, scenario: Scenario) -> None:
        super().__init__(
            Ledger(scenario.policy, Sums(), longest_slice=DAY),
            Transcript(scenario.policy, scenario.now),
            scenario.now,
            scenario.nodes,
            scenario.people,
            look_at=scenario.now,
        )
        self.scenario = scenario

    def begin(self) -> None:
        self.recent.units = {(*key, self.now): units for key, units in self.scenario.recent.items()}
        self.ledger.budgets.open(self.now)
        for index, used in enumerate(self.scenario.used_hours):
            try:
                self.ledger.correct(
                    find_budget(self.policy, used.pool, used.period, used.person), used.units, self.now
                )
            except ValueError as error:
                raise self.scenario.fault("used_hours", index, str(error)) from error
        for reservation in self.scenario.reservations:
            if reservation.end > self.now and reservation.pool in self.policy.pools:
                self._count_reservation(reservation)
        for index, fact in enumerate(self.scenario.leases):
            missing = self._missing(fact)
            if missing:
                raise self.scenario.fault("leases", index, f"there is no {missing}")
            self._put(self._record(fact))

    def _missing(self, fact: LeaseFact) -> str:
        """What the fact speaks of that is not there at the start."""
        if fact.node is not None and fact.node not in {node.name for node in self.nodes or ()}:
            return f"node {fact.node!r}"
        if fact.pool not in self.policy.pools:
            return f"pool {fact.pool!r} yet"
        classes = (resource.removeprefix("gpu.") for resource in fact.amounts if is_gpu(resource))
        return next(
            (f"GPU class {name!r} yet" for name in classes if name not in self.policy.gpu_classes), ""
        )

    def _record(self, fact: LeaseFact) -> Lease:
        snapshot = Snapshot(self.ledger.tree, self.ledger.sums, self.nodes)
        ask = Ask(
            fact.id,
            fact.person,
            fact.pool,
            fact.amounts,
            kind=fact.kind,
            reservation=fact.reservation,
            server=fact.id,
        )
        guaranteed = self._starts_guaranteed(ask) if fact.borrowed is None else not fact.borrowed
        ends = (
            fact.ends
            if fact.ends is not None
            else max(self.now, fact.started + self.policy.session(fact.pool).max)
        )
        return self.ledger.adopt(
            ask,
            self.now,
            started_at=fact.started,
            ends_at=ends,
            cost=cost_of(self.policy, ask, guaranteed=guaranteed),
            node=fact.node or pick_node(snapshot, ask),
            guaranteed=guaranteed,
        )

    def _starts_guaranteed(self, ask: Ask) -> bool:
        """What runs inside a reservation is guaranteed; anything else by what is free."""
        own = self.reservations.get(ask.reservation or "")
        return (own is not None and own.start <= self.now) or self.ledger.would_be_guaranteed(ask)

    # -- time --------------------------------------------------------------------------------------------------

    def advance(self, to: Instant) -> None:
        """Let time pass, with everything that is due on the way and at `to` itself."""
        while (due := self._next_due()) < to:
            self.transcript.now = due
            self.plan_is_due = True
            self.settle()
        self.transcript.now = to
        self.settle()

    def settle(self) -> None:
        """Everything that is due now: ends, notices of budgets that ran out, turns, and what each of them causes."""
        changed = True
        while changed:
            changed = (
                self._stop_ended()
                or self._give_up_unclaimed()
                or self._look_at_budgets()
                or self._turn_windows()
                or self._take_turns()
            )

    def _next_due(self) -> Instant:
        ends = (lease.ends_at for lease in self.live.values())
        renewals = (at for ticket in self.tickets.values() if (at := renewal(ticket.outlook)) is not None)
        edge = next_edge(self.reservations.values(), self.now)
        edges = [] if edge is None else [edge]
        renewed = (at for at in renewals if at > self.now)
        return min([self.look_at, *ends, *self.unclaimed.values(), *edges, *renewed])

    def _stop_ended(self) -> bool:
        ended = sorted(
            (x for x in self.live.values() if x.ends_at <= self.now), key=lambda x: (x.ends_at, x.id)
        )
        for lease in ended:
            self.transcript.change(
                lease, "stopped", self._why_stopped(lease), {"cut_by": self.cuts.get(lease.id)}
            )
        self._release(ended, "ended")
        for lease in ended:
            ticket = put_back(self.policy, lease, lease.id, self.now)
            if ticket is not None:
                self._wait(ticket)
        return bool(ended)

    def _why_stopped(self, lease: Lease) -> str | None:
        if lease.ends_unless_taken is not None and lease.ends_unless_taken > lease.ends_at:
            return TAKEN_BACK
        spent = (lease.noticed_at is not None and lease.noticed_for is None) or self._cut_by_budget(lease)
        return Code.BUDGET_SPENT.value if spent else None

    def _cut_by_budget(self, lease: Lease) -> bool:
        cut = self.cuts.get(lease.id)
        return cut is not None and cut.get("kind") == "budget"

    def _look_at_budgets(self) -> bool:
        """Charge everything, give notice where hours are used up, and work out when to look again."""
        if self.now < self.look_at:
            return False
        self.plan_is_due = True
        self._accrue()
        budgets = self.ledger.budgets
        cuts = overrun_cuts(budgets, list(self.live.values()), self.now)
        for lease, ends_at, facts in cuts:
            noticed = self.ledger.notice(lease, ends_at, self.now, why=Code.BUDGET_SPENT.value)
            self._put(noticed)
            self.cuts[lease.id] = facts
            self.transcript.change(noticed, "noticed", Code.BUDGET_SPENT.value, facts)
        due = overrun_due(budgets, list(self.live.values()), self.now)
        self.look_at = min([*due, *self._unused_due()], default=FOREVER)
        return bool(cuts)

    # -- events --------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Raises ValueError with a sentence for an event that makes no sense at this time."""
        self.plan_is_due = True
        match event:
            case AskEvent(ask, count, shows_up):
                self._ask(ask, count, shows_up)
            case ReleaseEvent(lease_id) | CancelEvent(lease_id):
                self.tickets.pop(lease_id, None)
                if lease_id in self.reservations:
                    self._cancel(lease_id)
                self._release([lease for lease in self._named(lease_id) if lease.live], "released")
            case ExtendEvent(lease_id, minutes):
                for lease in self._named(lease_id):
                    self._extend(lease, minutes)
            case GrantEvent():
                self._grant(event)
            case ReserveEvent(reservation):
                self._reserve(reservation)
            case PolicyEvent(policy):
                self._load(policy)
            case TickEvent():
                pass

    def _extend(self, lease: Lease, minutes: int) -> None:
        if not lease.live:
            self.transcript.change(lease, "extended", "lease-over", {})
            return
        end = others_waiting_for(self.policy, lease, self.tickets.values()) or decide_extension(
            self._snapshot(lease.person, lease.pool), lease, minutes, self.now
        )
        if not isinstance(end, End):
            self.transcript.change(lease, "extended", end.code.value, dict(end.facts))
            return
        if end.at > lease.ends_at:
            lease = self.ledger.extend(lease, end.at, self.now)
            self._put(lease)
            self.cuts[lease.id] = end.cut_by
        self.transcript.change(lease, "extended", None, {"cut_by": end.cut_by})

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
        self._accrue()  # what has run until now is not for this grant to pay
        self.ledger.grant(grant)
        self.look_at = self.now

    def _load(self, policy: Policy) -> None:
        self._accrue()
        charges = [(self.leases[charge.lease], charge.day, charge.units) for charge in self.ledger.charges]
        self.reservations = {name: one for name, one in self.reservations.items() if one.pool in policy.pools}
        sums = refold(
            policy,
            self.live.values(),
            charges,
            self.ledger.sums,
            self.ledger.grants,
            since=self.now,
            reservations=tuple(self.reservations.values()),
        )
        old = self.ledger
        self.ledger = Ledger(policy, sums, old.grants, longest_slice=DAY)
        self.ledger.charges = old.charges
        self.transcript.policy = policy
        self.look_at = self.now
        self._promote([lease for lease in self.live.values() if not lease.guaranteed])

    def _named(self, lease_id: str) -> Iterator[Lease]:
        for one in self.parts.get(lease_id, [lease_id]):
            if one in self.leases:
                yield self.leases[one]

    def outcome(self) -> Outcome:
        self._accrue()
        return Outcome(
            decisions=self.transcript.decisions,
            pools={name: pool_numbers(self.ledger, name) for name in self.policy.pools},
            budgets=budget_numbers(self.ledger, self.now),
        )

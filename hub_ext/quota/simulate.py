"""Plays a scenario through time with the same ledger and decisions as the running hub (QUOTA.md §10).

Due changes happen at their exact instant: ends, notices, period edges, the turns of those who wait, then the file's
events, and due changes again after each of them.

Thousands of leases and events are played in seconds, because nothing is done for every lease at every event. Leases
are charged where that can change anything: when they end, at the edges of periods and grants, and when a budget is
used up; in between, a decision looks at sums to which is added what has accrued since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from hub_ext.core.amounts import gpu_seconds, is_gpu
from hub_ext.core.clock import DAY, Instant, Seconds
from hub_ext.core.decision import Admit, Code, Refuse, Wait, verdict
from hub_ext.core.people import Person
from hub_ext.quota.budget import (
    LONGEST_SLICE,
    BudgetOf,
    Budgets,
    BudgetState,
    binding,
    first_instant,
    window_at,
)
from hub_ext.quota.calendar import Amber, Picture, Red, decide_reservation
from hub_ext.quota.codes import Ended
from hub_ext.quota.counting import charged_pool
from hub_ext.quota.eta import renewal
from hub_ext.quota.fairshare import share
from hub_ext.quota.ledger import TAKEN_BACK, Charge, Ledger, find_budget, refold
from hub_ext.quota.model import Ask, Grant, Lease, Outlook, Policy, Reservation, Ticket
from hub_ext.quota.overrun import overrun_cuts, overrun_due
from hub_ext.quota.plan import Dropped, Plan, Scene, Turn, plan
from hub_ext.quota.policy import End, Snapshot, cost_of, decide, decide_extension, pick_node
from hub_ext.quota.queue import Recent, decayed, others_waiting_for, put_back
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
from hub_ext.quota.windows import account_id, accrue_unused, cancel, next_edge, reserve, turn_windows

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


@dataclass
class _Run:
    scenario: Scenario
    now: Instant = 0
    leases: dict[str, Lease] = field(default_factory=dict)
    live: dict[str, Lease] = field(default_factory=dict)
    """Those of them that are not released."""
    decisions: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, Admit] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    """The leases of an ask that wanted several."""
    cuts: dict[str, Any] = field(default_factory=dict)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    shows_up: dict[str, Seconds | None] = field(default_factory=dict)
    """By ask: how long after its turn has come the person comes; None: never."""
    unclaimed: dict[str, Instant] = field(default_factory=dict)
    """By lease: when it is given up because nobody came."""
    reservations: dict[str, Reservation] = field(default_factory=dict)
    """Those that count and are not over."""
    inside: dict[str, dict[str, Lease]] = field(default_factory=dict)
    """By reservation: every lease that ever ran inside it."""
    turned_at: Instant = -1
    """When windows were looked at last."""
    recent: RecentUse = field(default_factory=lambda: RecentUse())
    plan_is_due: bool = False
    """Something happened since those who wait were last looked at."""
    look_at: Instant = 0
    """When budgets have to be looked at next: until then none can be overdrawn that is not now."""

    def begin(self) -> None:
        self.now = self.look_at = self.scenario.now
        self.ledger = Ledger(self.scenario.policy, Sums(), longest_slice=DAY)
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
        if fact.node is not None and fact.node not in {node.name for node in self.scenario.nodes or ()}:
            return f"node {fact.node!r}"
        if fact.pool not in self.policy.pools:
            return f"pool {fact.pool!r} yet"
        classes = (resource.removeprefix("gpu.") for resource in fact.amounts if is_gpu(resource))
        return next(
            (f"GPU class {name!r} yet" for name in classes if name not in self.policy.gpu_classes), ""
        )

    # -- time --------------------------------------------------------------------------------------------------

    def advance(self, to: Instant) -> None:
        """Let time pass, with everything that is due on the way and at `to` itself."""
        while (due := self._next_due()) < to:
            self.now = due
            self.plan_is_due = True
            self.settle()
        self.now = to
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
            self._change(lease, "stopped", self._why_stopped(lease), {"cut_by": self.cuts.get(lease.id)})
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

    def _give_up_unclaimed(self) -> bool:
        """Servers that were started for somebody who waited, and did not come."""
        given_up = [name for name, at in self.unclaimed.items() if at <= self.now]
        for name in given_up:
            del self.unclaimed[name]
            if name in self.live:
                self._change(self.live[name], "expired", Ended.UNCLAIMED.value, {})
                self._release([self.live[name]], Ended.UNCLAIMED.value)
        return bool(given_up)

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
            self._change(noticed, "noticed", Code.BUDGET_SPENT.value, facts)
        due = overrun_due(budgets, list(self.live.values()), self.now)
        self.look_at = min([*due, *self._unused_due()], default=FOREVER)
        return bool(cuts)

    def _accrue(self) -> None:
        for lease in list(self.live.values()):
            self._put(self.ledger.accrue(lease, self.now))
        self._accrue_unused()

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
                    self._accrue_unused()
                    cancel(self.ledger, self.reservations.pop(lease_id), list(self.live.values()), self.now)
                    self._promote([lease for lease in self.live.values() if not lease.guaranteed])
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

    def _ask(self, ask: Ask, count: int, shows_up: Seconds | None) -> None:
        ticket = self.tickets.get(ask.id)
        if ticket is not None and (ask.id not in self.answers or ticket.put_back):
            self._answer_waiting(ask.id)
            return
        if ask.id in self.answers or ask.id in self.leases:
            self._answer(ask.id, self.answers.get(ask.id) or self._as_answer(self.leases[ask.id]))
            return
        self.shows_up[ask.id] = shows_up
        if not self.tickets and count == 1:
            # Nobody is before it: what it is answered alone is what it is answered in line.
            decision = decide(self._snapshot(ask.person, ask.pool), ask, self.now)
            if not isinstance(decision, Wait):
                if isinstance(decision, Admit):
                    self._book(ask, ask.id, decision)
                self._answer(ask.id, decision)
                return
        self._join(Ticket(ask, self.now, Outlook(""), wanted=count))

    def _join(self, ticket: Ticket) -> None:
        """A new ask is decided in the order of all who wait."""
        self._wait(ticket)
        found = self._plan()
        turns = [turn for turn in found.turns if turn.ticket.id == ticket.id]
        for turn in turns:
            self._book(turn.ask, ticket.id, turn.decision)
        self._note_turns(turns)
        outlook = found.outlooks.get(ticket.id)
        if turns:
            decision = self._admitted(ticket, [turn.decision for turn in turns], outlook)
            self.answers[ticket.id] = decision
            self._answer(ticket.id, decision)
        elif outlook is not None:
            self.tickets[ticket.id] = replace(ticket, outlook=outlook)
            self._answer_waiting(ticket.id)
        else:
            self.tickets.pop(ticket.id)
            refusal = next(one.decision for one in found.dropped if one.ticket.id == ticket.id)
            self._answer(ticket.id, refusal)
        self._enact(found, besides=ticket.id)

    def _admitted(self, ticket: Ticket, admitted: Sequence[Admit], rest: Outlook | None) -> Admit:
        """The one answer to an ask for several: when the first of them ends, and what became of the rest."""
        if ticket.wanted == 1:
            return admitted[0]
        first_to_end = min(admitted, key=lambda one: one.ends_at)
        cost = sum(one.cost for one in admitted)
        facts = dict(first_to_end.facts) | {
            "cost": gpu_seconds(cost),
            "admitted": len(admitted),
            "wanted": ticket.wanted,
        }
        if rest is not None:
            facts |= {"rest": rest.code, "rest_facts": dict(rest.facts)}
        return Admit(
            guaranteed=all(one.guaranteed for one in admitted),
            lender=admitted[-1].lender,
            ends_at=first_to_end.ends_at,
            cost=cost,
            facts=facts,
        )

    def _book(self, ask: Ask, asked_as: str, decision: Admit) -> Lease:
        lease = self.ledger.run(self.ledger.book(ask, decision, self.now), self.now)
        self._put(lease)
        if ask.id == asked_as:
            self.answers[asked_as] = decision
        else:
            self.parts.setdefault(asked_as, []).append(ask.id)
        self.cuts[ask.id] = decision.facts.get("cut_by")
        # It cannot overdraw what it was admitted to, but what runs now may outlive its periods and grants.
        self.look_at = min([self.look_at, *overrun_due(self.ledger.budgets, [lease], self.now)])
        return lease

    def _extend(self, lease: Lease, minutes: int) -> None:
        if not lease.live:
            self._change(lease, "extended", "lease-over", {})
            return
        end = others_waiting_for(self.policy, lease, self.tickets.values()) or decide_extension(
            self._snapshot(lease.person, lease.pool), lease, minutes, self.now
        )
        if not isinstance(end, End):
            self._change(lease, "extended", end.code.value, dict(end.facts))
            return
        if end.at > lease.ends_at:
            lease = self.ledger.extend(lease, end.at, self.now)
            self._put(lease)
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
        self.look_at = self.now
        self._promote([lease for lease in self.live.values() if not lease.guaranteed])

    # -- reservations --------------------------------------------------------------------------------------------

    def _reserve(self, wanted: Reservation) -> None:
        """Count it where it fits within the guarantee of its pool, or was approved; take back what is in its way."""
        if wanted.id in self.reservations:
            raise ValueError(f"there is a reservation {wanted.id!r} already; give it another id")
        picture = Picture(self.policy, tuple(self.live.values()), tuple(self.reservations.values()))
        answer = decide_reservation(picture, wanted, self.now)
        if isinstance(answer, Red):
            times = {"before": answer.before, "after": answer.after}
            nearest = {key: None if at is None else self.policy.local(at) for key, at in times.items()}
            self._tell(wanted.id, "refuse", "red", {"pool": wanted.pool, **nearest})
            return
        facts: dict[str, Any] = {"pool": wanted.pool}
        ends = {"ends_at": self._iso(wanted.end), "reclaims": [one.lease.id for one in answer.endings]}
        if isinstance(answer, Amber):
            facts["approver"] = answer.approver
        if isinstance(answer, Amber) and not wanted.approved:
            self._tell(wanted.id, "wait", "amber", facts, **ends)
            return
        self._tell(wanted.id, "admit", None, facts, guaranteed=True, **ends)
        for one in answer.endings:
            taken = self.ledger.take_back(self.live[one.lease.id], one.ends_at, wanted.id, self.now)
            self._put(taken)
            self._change(taken, "noticed", TAKEN_BACK, {"reservation": wanted.id})
        self._count_reservation(replace(wanted, approved=True))

    def _count_reservation(self, reservation: Reservation) -> None:
        others = tuple(self.reservations.values())
        reserve(self.ledger, reservation, self.live.values(), others, self.now)
        self.reservations[reservation.id] = reservation
        self.turned_at = -1

    def _turn_windows(self) -> bool:
        """Windows that begin, shrink to what is in use, or are over."""
        edge = next_edge(self.reservations.values(), self.turned_at)
        if edge is None or edge > self.now:
            return False
        self.turned_at = self.now
        self._accrue_unused()
        charged = len(self.ledger.entries)
        for shrunk in turn_windows(
            self.ledger, self.reservations.values(), list(self.live.values()), self.now
        ):
            self.reservations[shrunk.id] = shrunk
        self.reservations = {name: one for name, one in self.reservations.items() if one.end > self.now}
        if charged == len(self.ledger.entries):
            return False
        self.plan_is_due = True
        self.look_at = self.now
        self._promote([lease for lease in self.live.values() if not lease.guaranteed])
        return True

    def _accrue_unused(self) -> None:
        """Charge what is held and not in use to the pools it is held for."""
        for reservation in self.reservations.values():
            account = self.leases.get(account_id(reservation))
            inside = [
                lease
                for lease in self.inside.get(reservation.id, {}).values()
                if account is None or lease.id != account.id
            ]
            account = accrue_unused(
                self.ledger,
                reservation,
                account,
                inside,
                self.now,
                since=self.scenario.now,
            )
            if account is not None:
                self._put(account)

    def _unused_due(self) -> list[Instant]:
        """What nobody uses draws on budgets, too: look at them after every slice of it."""
        bound = (
            one
            for one in self.reservations.values()
            if one.start <= self.now < one.end and binding(self.policy, self.policy.path(one.pool), "")
        )
        return [self.now + LONGEST_SLICE] if any(True for _ in bound) else []

    # -- those who wait ------------------------------------------------------------------------------------------

    def _wait(self, ticket: Ticket) -> None:
        self.tickets[ticket.id] = ticket
        self.plan_is_due = True

    def _take_turns(self) -> bool:
        """Look at all who wait, where anything happened since the last look."""
        if not self.plan_is_due:
            return False
        self.plan_is_due = False
        if not self.tickets and not any(lease.noticed_for for lease in self.live.values()):
            return False
        # Looked at until nothing more follows: whoever starts may take a machine that another had stood in the way of.
        self.plan_is_due = self._enact(self._plan())
        return self.plan_is_due

    def _plan(self) -> Plan:
        self._accrue()
        self.recent.count(self.ledger.charges, self.leases, self.policy, self.now)
        people = self.scenario.people
        if people is None:
            names = {ticket.ask.person for ticket in self.tickets.values()}
            people = {name: Person(name, any_pool=True) for name in names}
        snapshot = Snapshot(
            self.ledger.tree,
            self.ledger.sums,
            self.scenario.nodes,
            self.ledger.grants,
            people,
            reservations=tuple(self.reservations.values()),
        )
        tickets = tuple(self.tickets.values())
        recent = self.recent.of(tickets, self.policy.queue.half_life, self.now)
        scene = Scene(snapshot, tuple(self.live.values()), tickets, recent, snapshot.reservations)
        return plan(scene, self.now)

    def _enact(self, found: Plan, besides: str | None = None) -> bool:
        """Do what a plan says, but for one ticket's turns, which were taken. Whether anything happened."""
        turns = [turn for turn in found.turns if turn.ticket.id != besides]
        for lease in found.withdrawn:
            back = self.ledger.withdraw(self.live[lease.id], self.now)
            self._put(back)
            self._change(back, "withdrawn", None, {})
        for turn in turns:
            lease = self._book(turn.ask, turn.ticket.id, turn.decision)
            facts = {**turn.decision.facts, "guaranteed": lease.guaranteed, "lender": lease.lender}
            self._change(lease, "admitted", None, facts)
            self._expect_to_come(lease, turn.ticket)
        self._note_turns(turns)
        for dropped in found.dropped:
            if dropped.ticket.id != besides:
                self._drop(dropped)
        for notice in found.notices:
            taken = self.ledger.take_back(self.live[notice.lease.id], notice.ends_at, notice.ticket, self.now)
            self._put(taken)
            self._change(taken, "noticed", TAKEN_BACK, {"ticket": notice.ticket})
        for ticket_id, outlook in found.outlooks.items():
            self.tickets[ticket_id] = replace(self.tickets[ticket_id], outlook=outlook)
        return bool(turns or found.withdrawn or found.notices or found.dropped)

    def _expect_to_come(self, lease: Lease, ticket: Ticket) -> None:
        comes_after = self.shows_up.get(ticket.id, 0)
        claim = self.policy.queue.claim
        if not ticket.elastic and (comes_after is None or comes_after >= claim):
            self.unclaimed[lease.id] = self.now + claim

    def _note_turns(self, turns: Sequence[Turn]) -> None:
        """Whoever has all that they want waits no more."""
        for turn in turns:
            ticket = self.tickets[turn.ticket.id]
            if ticket.wanted == 1:
                del self.tickets[ticket.id]
            else:
                left = replace(ticket, wanted=ticket.wanted - 1, booked=ticket.booked + 1)
                self.tickets[ticket.id] = left

    def _drop(self, dropped: Dropped) -> None:
        ticket = self.tickets.pop(dropped.ticket.id)
        self.decisions.append(
            {
                "id": ticket.id,
                "at": self._iso(self.now),
                "change": "expired",
                "code": dropped.decision.code.value,
                "facts": plain(dropped.decision.facts),
                "ends_at": None,
            }
        )

    # -- parts -------------------------------------------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        return self.ledger.policy

    def _put(self, lease: Lease) -> None:
        self.leases[lease.id] = lease
        if lease.live:
            self.live[lease.id] = lease
        else:
            self.live.pop(lease.id, None)
        if lease.reservation is not None:
            self.inside.setdefault(lease.reservation, {})[lease.id] = lease

    def _named(self, lease_id: str) -> Iterator[Lease]:
        for one in self.parts.get(lease_id, [lease_id]):
            if one in self.leases:
                yield self.leases[one]

    def _snapshot(self, person: str, pool: str) -> Snapshot:
        people = self.scenario.people
        if people is None:
            people = {person: Person(person, any_pool=True)}
        own = [lease for lease in self.live.values() if lease.person == person]
        sums = self._with_accrued(person, pool) if pool in self.policy.pools else self.ledger.sums
        reservations = tuple(self.reservations.values())
        return Snapshot(
            self.ledger.tree, sums, self.scenario.nodes, self.ledger.grants, people, own, reservations
        )

    def _with_accrued(self, person: str, pool: str) -> Sums:
        """The sums as if every lease had been charged just now, in the budgets that bind this person in this pool."""
        refs = binding(self.policy, self.policy.path(pool), person)
        sums = self.ledger.sums.copy() if refs else self.ledger.sums
        budgets = Budgets(self.policy, sums, self.ledger.grants)
        for of in refs:
            window = window_at(of.budget, self.now, self.policy.timezone)
            accrued = sum(
                lease.cost * (self.now - max(lease.charged_until, window.start if window else self.now))
                for lease in self.live.values()
                if lease.cost and of.pool in lease.path and of.person in ("", lease.person)
            )
            if window is not None and accrued:
                # Since everything was charged last, no period or grant has ended: what accrued can go in at once.
                budgets.charge(of, self.now - 1, accrued)
                sums.add(of.key("committed", window), -accrued)
        return sums

    def _record(self, fact: LeaseFact) -> Lease:
        snapshot = Snapshot(self.ledger.tree, self.ledger.sums, self.scenario.nodes)
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

    def _release(self, leases: Sequence[Lease], why: str) -> None:
        """All of them, and only then what that causes: none is promoted that ends now as well."""
        freed: set[tuple[str, str]] = set()
        self.plan_is_due = self.plan_is_due or bool(leases)
        for lease in leases:
            self._put(self.ledger.release(lease, self.now, why=why))
            freed |= self._homes(lease)
        if freed:
            borrowed = (lease for lease in self.live.values() if not lease.guaranteed)
            self._promote([lease for lease in borrowed if not freed.isdisjoint(self._homes(lease))])

    def _homes(self, lease: Lease) -> set[tuple[str, str]]:
        """The guarantees that the lease draws on, or would if it were not borrowed."""
        pool = charged_pool(self.policy, lease)
        homes = ((self.policy.home(pool, resource) if pool else None, resource) for resource in lease.amounts)
        return {(home, resource) for home, resource in homes if home is not None and lease.amounts[resource]}

    def _promote(self, borrowed: Sequence[Lease]) -> None:
        for lease in self.ledger.promote(borrowed, self.now):
            self._put(lease)
            self._change(lease, "promoted", None, {})

    # -- what is told ------------------------------------------------------------------------------------------

    def _answer(self, ask_id: str, decision: Admit | Refuse) -> None:
        admit = decision if isinstance(decision, Admit) else None
        code = None if isinstance(decision, Admit) else decision.code.value
        self._tell(
            ask_id,
            verdict(decision),
            code,
            decision.facts,
            guaranteed=admit.guaranteed if admit else None,
            lender=admit.lender if admit else None,
            ends_at=self._iso(admit.ends_at) if admit else None,
        )

    def _answer_waiting(self, ask_id: str) -> None:
        outlook = self.tickets[ask_id].outlook
        eta = None if outlook.eta is None else {"at": self._iso(outlook.eta.at), "kind": outlook.eta.kind}
        self._tell(
            ask_id,
            "wait",
            outlook.code,
            outlook.facts,
            position=outlook.place,
            eta=eta,
            reclaims=list(outlook.reclaims),
        )

    def _tell(
        self, ask_id: str, verdict: str, code: str | None, facts: Mapping[str, Any], **more: object
    ) -> None:
        nothing: dict[str, object] = {
            "guaranteed": None,
            "lender": None,
            "ends_at": None,
            "position": None,
            "eta": None,
            "reclaims": [],
        }
        entry = {
            "id": ask_id,
            "at": self._iso(self.now),
            "verdict": verdict,
            "code": code,
            "facts": plain(facts),
        }
        self.decisions.append(entry | nothing | more)

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
        self._accrue()
        return Outcome(
            decisions=self.decisions,
            pools={name: pool_numbers(self.ledger, name) for name in self.policy.pools},
            budgets=budget_numbers(self.ledger, self.now),
        )


@dataclass
class RecentUse:
    """What people used lately, by pool and local date: a date's use counts from its end."""

    units: dict[tuple[str, str, Instant], int] = field(default_factory=dict)
    counted: int = 0
    """So many of the ledger's charges are in it."""

    def count(
        self, charges: Sequence[Charge], leases: Mapping[str, Lease], policy: Policy, now: Instant
    ) -> None:
        for charge in charges[self.counted :]:
            lease = leases[charge.lease]
            ended = first_instant(charge.day + timedelta(days=1), policy.timezone)
            key = (lease.pool, lease.person, ended)
            self.units[key] = self.units.get(key, 0) + charge.units
        self.counted = len(charges)

    def of(self, tickets: Sequence[Ticket], half_life: Seconds, now: Instant) -> Recent:
        asking = {(ticket.ask.pool, ticket.ask.person) for ticket in tickets}
        charges = (
            (pool, person, at, units)
            for (pool, person, at), units in self.units.items()
            if (pool, person) in asking
        )
        return decayed(charges, now, half_life)


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

"""Those who wait while a scenario is played: they join, are planned for, start, come or do not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from hub_ext.core.amounts import gpu_seconds
from hub_ext.core.clock import Instant, Seconds
from hub_ext.core.decision import Admit, Wait
from hub_ext.core.people import Person
from hub_ext.quota.budget import first_instant
from hub_ext.quota.codes import Ended
from hub_ext.quota.ledger import TAKEN_BACK, Charge
from hub_ext.quota.model import Ask, Lease, Outlook, Policy, Ticket
from hub_ext.quota.overrun import overrun_due
from hub_ext.quota.plan import Plan, Scene, Turn, plan
from hub_ext.quota.played_windows import PlayedWindows
from hub_ext.quota.policy import Snapshot, decide
from hub_ext.quota.queue import Recent, decayed


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


@dataclass
class PlayedLine(PlayedWindows):
    answers: dict[str, Admit] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    """The leases of an ask that wanted several."""
    tickets: dict[str, Ticket] = field(default_factory=dict)
    shows_up: dict[str, Seconds | None] = field(default_factory=dict)
    """By ask: how long after its turn has come the person comes; None: never."""
    unclaimed: dict[str, Instant] = field(default_factory=dict)
    """By lease: when it is given up because nobody came."""
    recent: RecentUse = field(default_factory=RecentUse)

    def _ask(self, ask: Ask, count: int, shows_up: Seconds | None) -> None:
        ticket = self.tickets.get(ask.id)
        if ticket is not None and (ask.id not in self.answers or ticket.put_back):
            self.transcript.answer_waiting(ask.id, self._plan(ask.id).outlooks.get(ask.id, ticket.outlook))
            return
        if ask.id in self.answers or ask.id in self.leases:
            self.transcript.answer(ask.id, self.answers.get(ask.id) or self._as_answer(self.leases[ask.id]))
            return
        self.shows_up[ask.id] = shows_up
        if not self.tickets and count == 1:
            # Nobody is before it: what it is answered alone is what it is answered in line.
            decision = decide(self._snapshot(ask.person, ask.pool), ask, self.now)
            if not isinstance(decision, Wait):
                if isinstance(decision, Admit):
                    self._book(ask, ask.id, decision)
                self.transcript.answer(ask.id, decision)
                return
        self._join(Ticket(ask, self.now, Outlook(""), wanted=count))

    def _join(self, ticket: Ticket) -> None:
        """A new ask is decided in the order of all who wait."""
        self._wait(ticket)
        found = self._plan(ticket.id)
        turns = [turn for turn in found.turns if turn.ticket.id == ticket.id]
        for turn in turns:
            self._book(turn.ask, ticket.id, turn.decision)
        self._note_turns(turns)
        outlook = found.outlooks.get(ticket.id)
        if turns:
            decision = self._admitted(ticket, [turn.decision for turn in turns], outlook)
            self.answers[ticket.id] = decision
            self.transcript.answer(ticket.id, decision)
        elif outlook is not None:
            self.tickets[ticket.id] = replace(ticket, outlook=outlook)
            self.transcript.answer_waiting(ticket.id, outlook)
        else:
            self.tickets.pop(ticket.id)
            refusal = next(one.decision for one in found.dropped if one.ticket.id == ticket.id)
            self.transcript.answer(ticket.id, refusal)
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

    def _as_answer(self, lease: Lease) -> Admit:
        return Admit(lease.guaranteed, lease.lender, lease.ends_at, lease.cost, lease.node)

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

    def _plan(self, *times_of: str) -> Plan:
        """`times_of`: the asks whose expected times are told."""
        self._accrue()
        self.recent.count(self.ledger.charges, self.leases, self.policy, self.now)
        people = self.people
        if people is None:
            names = {ticket.ask.person for ticket in self.tickets.values()}
            people = {name: Person(name, any_pool=True) for name in names}
        snapshot = Snapshot(
            self.ledger.tree,
            self.ledger.sums,
            self.nodes,
            self.ledger.grants,
            people,
            reservations=tuple(self.reservations.values()),
        )
        tickets = tuple(self.tickets.values())
        recent = self.recent.of(tickets, self.policy.queue.half_life, self.now)
        scene = Scene(snapshot, tuple(self.live.values()), tickets, recent, snapshot.reservations)
        return plan(scene, self.now, times_of=times_of)

    def _enact(self, found: Plan, besides: str | None = None) -> bool:
        """Do what a plan says, but for one ticket's turns, which were taken. Whether anything happened."""
        turns = [turn for turn in found.turns if turn.ticket.id != besides]
        for lease in found.withdrawn:
            back = self.ledger.withdraw(self.live[lease.id], self.now)
            self._put(back)
            self.transcript.change(back, "withdrawn", None, {})
        for turn in turns:
            lease = self._book(turn.ask, turn.ticket.id, turn.decision)
            facts = {**turn.decision.facts, "guaranteed": lease.guaranteed, "lender": lease.lender}
            self.transcript.change(lease, "admitted", None, facts)
            self._expect_to_come(lease, turn.ticket)
        self._note_turns(turns)
        for dropped in found.dropped:
            if dropped.ticket.id != besides:
                self.transcript.expired(self.tickets.pop(dropped.ticket.id), dropped.decision)
        for notice in found.notices:
            taken = self.ledger.take_back(self.live[notice.lease.id], notice.ends_at, notice.ticket, self.now)
            self._put(taken)
            self.transcript.change(taken, "noticed", TAKEN_BACK, {"ticket": notice.ticket})
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

    def _give_up_unclaimed(self) -> bool:
        """Servers that were started for somebody who waited, and did not come."""
        given_up = [name for name, at in self.unclaimed.items() if at <= self.now]
        for name in given_up:
            del self.unclaimed[name]
            if name in self.live:
                self.transcript.change(self.live[name], "expired", Ended.UNCLAIMED.value, {})
                self._release([self.live[name]], Ended.UNCLAIMED.value)
        return bool(given_up)

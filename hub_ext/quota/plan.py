"""What has to happen now with those who wait: the clock's function (QUOTA.md §4 to §6). Pure.

`plan(scene, now)` takes the tickets in their order. Each starts, is passed over, holds what it needs against those behind
it, or has what others borrowed taken back for it. Doing what a plan says and planning again changes nothing more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hub_ext.core.clock import Instant
from hub_ext.core.decision import Admit, Code, Refuse, Wait
from hub_ext.quota.cluster import of_a_cluster, schedulers_of, within_cluster
from hub_ext.quota.eta import first_fit, turns_to_come
from hub_ext.quota.hold import Hold
from hub_ext.quota.model import Ask, Eta, Lease, LeaseState, Outlook, Policy, Reservation, Ticket
from hub_ext.quota.policy import Snapshot, first_end
from hub_ext.quota.queue import ROOM, Line, Recent
from hub_ext.quota.reclaim import may_be_taken, needed, reclaim_set, taken_at
from hub_ext.quota.reserved import End, before_windows
from hub_ext.quota.stage import Room, Shape, Stage, shape_of


@dataclass(frozen=True)
class Scene:
    """All that a plan looks at, and changes nothing of.

    `leases` are all live ones, `recent` the decayed use that a pool's own line is ordered by.
    """

    snapshot: Snapshot
    leases: Sequence[Lease]
    tickets: Sequence[Ticket]
    recent: Recent = field(default_factory=dict)
    reservations: Sequence[Reservation] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """The ticket's turn has come: `ask` is to be booked (one of several, where the ticket wants more than one)."""

    ticket: Ticket
    decision: Admit
    ask: Ask


@dataclass(frozen=True, slots=True)
class Dropped:
    """Waiting cannot cure it any more."""

    ticket: Ticket
    decision: Refuse


@dataclass(frozen=True, slots=True)
class Notice:
    """The lease is taken back for the ticket, and ends at `ends_at`."""

    lease: Lease
    ends_at: Instant
    ticket: str


@dataclass(frozen=True)
class Plan:
    """`withdrawn`: leases whose notice nobody needs any more. `outlooks`: of every ticket that goes on waiting."""

    turns: tuple[Turn, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    notices: tuple[Notice, ...] = ()
    withdrawn: tuple[Lease, ...] = ()
    outlooks: Mapping[str, Outlook] = field(default_factory=dict)


def plan(scene: Scene, now: Instant, *, brief: bool = False, times_of: Collection[str] | None = None) -> Plan:
    """What to do now with every ticket; nothing at all where nobody waits and nothing is being taken back.

    `brief`, for long lines between two whole looks: the same happens, but only those have a time whose turn is promised,
    and whoever waited for room behind somebody of the same pool and size is not asked anew for what else they wait.
    `times_of`: whose expected times are wanted; None: of all.
    """
    run = _Planning(scene, now, brief=brief)
    # 1. What is being taken back for somebody stays theirs, and whoever was patient holds what they need.
    run.resume()
    run.find_patient()
    # 2. One after another, in the order that what was booked so far makes.
    while (ticket := run.line.pop()) is not None:
        run.look_at(ticket)
    # 3. Notices for those who have started, left, or need it no more.
    run.withdraw()
    # 4. Places, and when the others may expect their turn.
    run.number()
    if not brief:
        run.expect(times_of)
    return run.result()


class _Planning:
    def __init__(self, scene: Scene, now: Instant, *, brief: bool) -> None:
        self.scene = scene
        self.now = now
        self.brief = brief
        self.full: set[Shape] = set()
        """For these there is no room, whoever asks."""
        self.policy: Policy = scene.snapshot.policy
        self.stage = Stage.of(scene.snapshot, scene.leases)
        known = [ticket for ticket in scene.tickets if ticket.ask.pool in self.policy.pools]
        self.line = Line.of(self.stage, known, scene.recent)
        self.schedulers = schedulers_of(scene.leases) if any(of_a_cluster(one.ask) for one in known) else {}
        self.holds: dict[str, Hold] = {}
        """By ticket, in the order in which they were made."""
        self.patient: set[str] = set()
        """The tickets that hold by patience, one of each tree at most."""
        self.taken: dict[str, tuple[str, Instant]] = {}
        """By lease: for which ticket it is taken back, and when it ends. Notices given before, and those given now."""
        for lease in scene.leases:
            if lease.noticed_for is not None and not _is_ending(lease):
                self.taken[lease.id] = (lease.noticed_for, lease.ends_at)
        self.turns: list[Turn] = []
        self.dropped = [
            Dropped(ticket, _gone_pool(ticket.ask))
            for ticket in scene.tickets
            if ticket.ask.pool not in self.policy.pools
        ]
        self.notices: list[Notice] = []
        self.first_ends: dict[object, dict[str, object]] = {}
        self.withdrawn: list[Lease] = []
        self.outlooks: dict[str, Outlook] = {}
        self.waiting: list[Ticket] = []
        self._all_ends: list[tuple[Instant, Lease]] | None = None
        """What ends when, until something is booked."""

    # -- 1 ---------------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """The holds of tickets for which leases have had notice, also when those have ended by now."""
        eta: dict[str, Instant] = {}
        for ticket_id, ends_at in self.taken.values():
            eta[ticket_id] = max(eta.get(ticket_id, self.now), ends_at)
        for ticket in sorted(self.scene.tickets, key=lambda ticket: (ticket.made_at, ticket.id)):
            holds = ticket.id in eta or ticket.outlook.reclaims
            if holds and ticket.ask.pool in self.policy.pools:
                self._hold(ticket, eta.get(ticket.id, self.now))

    def find_patient(self) -> None:
        """In each tree, the first in line that waits for room, and has waited long enough, holds what it needs."""
        since = self.now - self.policy.queue.patience
        waited = [
            ticket
            for ticket in self.scene.tickets
            if ticket.made_at <= since and not ticket.elastic and ticket.ask.pool in self.policy.pools
        ]
        line = Line.of(self.stage, waited, self.scene.recent)
        trees = {self.policy.root(ticket.ask.pool) for ticket in waited}
        full: set[Shape] = set()
        """Nothing that is known ever makes room for these."""
        while trees and (ticket := line.pop()) is not None:
            root, shape = self.policy.root(ticket.ask.pool), shape_of(ticket.ask)
            if root not in trees or ticket.id in self.holds or shape in full:
                continue
            if self._waits_for_room(ticket.ask):
                if self._hold_by_patience(ticket):
                    trees.discard(root)
                    self.patient.add(ticket.id)
                else:
                    full.add(shape)

    def _waits_for_room(self, ask: Ask) -> bool:
        if self.stage.has_room(ask):
            return False
        decision = self.stage.decide(ask, self.now)
        return isinstance(decision, Wait) and decision.code.value in ROOM

    def _hold_by_patience(self, ticket: Ticket) -> bool:
        """False where nothing that is known makes room for it."""
        fit = first_fit(self._promised(besides=ticket), ticket.ask, self._ends())
        if fit is None:
            return False
        eta, room = fit
        if not self._is_free_of_windows(room, ticket.ask, eta):
            return False
        self.holds[ticket.id] = Hold(ticket, eta, firm=False, after=room)
        return True

    # -- 2 ---------------------------------------------------------------------------------------------------------

    def look_at(self, ticket: Ticket) -> None:
        """Start it, drop it, pass it over, or see that it gets what it needs."""
        had_hold = self._let_go(ticket)
        ask = _next_of(ticket)
        if self.brief and self._waits_as_before(ticket, ask):
            self.waiting.append(ticket)
            self.outlooks[ticket.id] = Outlook(ticket.outlook.code, ticket.outlook.facts)
            return
        decision = self.stage.decide(ask, self.now)
        if isinstance(decision, Refuse):
            self.dropped.append(Dropped(ticket, decision))
            return
        if isinstance(decision, Admit):
            decision = within_cluster(decision, self.schedulers.get(ask.server))
            # Of two whose turn is promised, who came first goes first.
            older = [h for h in self.holds.values() if not had_hold or h.came_before(ticket)]
            blocker = next((hold for hold in older if not hold.lets_pass(ticket, decision)), None)
            if blocker is None:
                self._start(ticket, ask, decision, had_hold=had_hold)
                return
            decision = self._behind(blocker, ask)
        self.waiting.append(ticket)
        self._look(ticket, decision)
        if decision.code is Code.OTHERS_WAITING and had_hold:
            self._keep(ticket, self._noticed_for(ticket), ticket.outlook.reclaims)
        elif decision.code.value in ROOM:
            self.full.add(shape_of(ask))
            self._secure(ticket, ask)

    def _waits_as_before(self, ticket: Ticket, ask: Ask) -> bool:
        """Whether it cannot go, and nothing could be done for it. What starts only ever takes room."""
        return (
            shape_of(ask) in self.full
            and ticket.outlook.code in ROOM
            and ticket.id not in self.patient
            and not self.stage.guaranteed(ask)
        )

    def _start(self, ticket: Ticket, ask: Ask, decision: Admit, *, had_hold: bool) -> None:
        self.turns.append(Turn(ticket, decision, ask))
        lease = self.stage.book(ask, decision, self.now)
        self._all_ends = None
        for hold in self.holds.values():
            if lease.ends_at > hold.eta:
                hold.after.add(lease)
        self.line.changed()
        if ticket.wanted > 1:
            rest = replace(ticket, wanted=ticket.wanted - 1, booked=ticket.booked + 1)
            if had_hold and self._count_guaranteed(rest):
                # What was taken back for the others stays theirs until they are looked at.
                self._hold(rest, max([self.now, *(self.taken[one.id][1] for one in self._noticed_for(rest))]))
            self.line.put(rest)

    def _secure(self, ticket: Ticket, ask: Ask) -> None:
        """See that its turn comes: by taking back what others borrowed, or by a hold where it has been patient."""
        if self.stage.guaranteed(ask) and self._take_back(ticket, ask):
            return
        if ticket.id in self.patient and self._hold_by_patience(ticket):
            self._promise_turn(ticket, self.holds[ticket.id].eta)

    def _take_back(self, ticket: Ticket, ask: Ask) -> bool:
        """Whether the end of what others borrowed makes room; they have had notice then, or get it now."""
        most = max(1, self._count_guaranteed(ticket))
        before = [lease for lease in self._noticed_for(ticket) if not lease.guaranteed]
        if before and (still := self._still_enough(ticket, ask, before, most)) is not None:
            self._keep(ticket, still)
            return True
        room = self._promised(besides=ticket)
        for lease in before:
            room.remove(lease)
        candidates = (lease for lease in self.scene.leases if may_be_taken(lease, never=ticket.displaced_by))
        picked = reclaim_set(room, ask, [lease for lease in candidates if lease.id not in self.taken], most)
        if picked is None:
            return False
        notices = [Notice(lease, taken_at(self.policy, lease, self.now), ticket.id) for lease in picked]
        ends = [self.taken[lease.id][1] for lease in before] + [notice.ends_at for notice in notices]
        if not self._is_free_of_windows(room, ask, max([self.now, *ends])):
            return False
        self.notices += notices
        self.taken |= {notice.lease.id: (ticket.id, notice.ends_at) for notice in notices}
        self._keep(ticket, [*before, *picked])
        return True

    def _count_guaranteed(self, ticket: Ticket) -> int:
        """How many of those that it wants would be guaranteed."""
        if ticket.wanted == 1:
            return int(self.stage.guaranteed(ticket.ask))
        return self.stage.count_guaranteed(ticket.ask, ticket.wanted, self.now)

    def _still_enough(
        self, ticket: Ticket, ask: Ask, before: Sequence[Lease], most: int
    ) -> Sequence[Lease] | None:
        """Those of the leases that had notice that the ticket still needs; None where they are not enough any more."""
        # With what is there already, besides what is promised to others, some may be left in peace.
        room = self._promised(besides=ticket, with_victims=False)
        for lease in before:
            room.remove(lease)
        if room.count_fitting(ask, most) == most:
            return needed(room, ask, before, most)
        room = self._promised(besides=ticket)
        for lease in before:
            room.remove(lease)
        # Whoever passed meanwhile is over by then.
        due = max(self.taken[lease.id][1] for lease in before)
        for ends_at, lease in self._ends():
            if ends_at <= due:
                room.remove(lease)
        return before if room.count_fitting(ask, most) == most else None

    def _is_free_of_windows(self, room: Room, ask: Ask, since: Instant) -> bool:
        """Whether no reserved window begins so soon after `since` that the ask could not start then."""
        session, reservations = self.policy.session(ask.pool), self.scene.snapshot.reservations
        end = End(since + session.max)
        cut = before_windows(room.tree, room.sums, reservations, ask, end, since, session.min)
        return isinstance(cut, End)

    def _keep(self, ticket: Ticket, leases: Sequence[Lease], ended: Sequence[str] = ()) -> None:
        """What these leases free, and what those that have ended have freed, is the ticket's; others that had notice for
        it go on.
        """
        kept = {lease.id for lease in leases}
        for lease in self._noticed_for(ticket):
            if lease.id not in kept:
                del self.taken[lease.id]
        eta = max([self.now, *(self.taken[name][1] for name in kept)])
        self._hold(ticket, eta)
        ending = (x for x in self.scene.leases if _is_ending(x) and x.noticed_for == ticket.id)
        reclaims = [*ended, *(lease.id for lease in (*ending, *leases))]
        self._promise_turn(ticket, eta, tuple(dict.fromkeys(reclaims)))

    def _hold(self, ticket: Ticket, eta: Instant) -> None:
        """From here on nobody takes what is taken back for the ticket, and what it needs beside that at `eta`."""
        after = self._promised(besides=ticket)
        for ends_at, lease in self._ends():
            if ends_at > eta:
                break
            after.remove(lease)
        for name, (taken_for, ends_at) in self.taken.items():
            if taken_for == ticket.id and ends_at <= eta and name in self.stage.leases:
                after.remove(self.stage.leases[name])
        # Of several that it wants: as many as there is room for then.
        count = 1 if ticket.wanted == 1 else after.count_fitting(ticket.ask, self._count_guaranteed(ticket))
        hold = self.holds[ticket.id] = Hold(ticket, eta, firm=True, after=after, count=max(1, count))
        self.stage.promise(ticket.ask, hold.count)
        self.line.promised.add(ticket.id)
        self.line.changed()

    def _let_go(self, ticket: Ticket) -> bool:
        """Its own hold is not in its way. Whether it had one."""
        hold = self.holds.pop(ticket.id, None)
        if hold is not None and hold.firm:
            self.stage.promise(ticket.ask, -hold.count)
            self.line.promised.discard(ticket.id)
            self.line.changed()
        return hold is not None

    def _promised(self, besides: Ticket, *, with_victims: bool = True) -> Room:
        """The room once what is ending is over, and everybody besides this ticket whose turn is promised has it.

        `with_victims`: what is taken back for them has ended.
        """
        room = self.stage.copy_room()
        for lease in self.stage.leases.values():
            taken_for = self.taken.get(lease.id, ("", 0))[0]
            is_victim = with_victims and taken_for in self.holds and taken_for != besides.id
            if _is_ending(lease) or is_victim:
                room.remove(lease)
        for hold in self.holds.values():
            if hold.firm and hold.ticket.id != besides.id:
                room.promise(hold.ticket.ask, -hold.count)
                for _ in range(hold.count):
                    room.keep(hold.ticket.ask)
        return room

    def _ends(self) -> list[tuple[Instant, Lease]]:
        """What ends when, the first first; without what is ending, or is taken back for somebody."""
        if self._all_ends is None:
            ends = [(lease.ends_at, lease) for lease in self.stage.leases.values() if not _is_ending(lease)]
            self._all_ends = sorted(ends, key=lambda end: (end[0], end[1].id))
        return [end for end in self._all_ends if end[1].id not in self.taken]

    def _noticed_for(self, ticket: Ticket) -> list[Lease]:
        return [
            self.stage.leases[name]
            for name, (taken_for, _) in self.taken.items()
            if taken_for == ticket.id and name in self.stage.leases
        ]

    # -- 3 ---------------------------------------------------------------------------------------------------------

    def withdraw(self) -> None:
        """Whose notice is for nobody any more goes on as if it had had none."""
        reserved = {reservation.id for reservation in self.scene.reservations}
        for lease in self.scene.leases:
            for_whom = lease.noticed_for
            if for_whom is None or for_whom in reserved or _is_ending(lease) or lease.ends_at <= self.now:
                continue
            if self.taken.get(lease.id, ("", 0))[0] != for_whom or for_whom not in self.holds:
                self.withdrawn.append(lease)

    # -- 4 ---------------------------------------------------------------------------------------------------------

    def number(self) -> None:
        """Places, by tree: whoever's turn is promised comes before the others."""
        counted: dict[str, int] = {}
        for ticket in sorted(self.waiting, key=lambda ticket: ticket.id not in self.holds):
            root = self.policy.root(ticket.ask.pool)
            place = counted[root] = counted.get(root, 0) + 1
            self.outlooks[ticket.id] = replace(self.outlooks[ticket.id], place=place)

    def expect(self, times_of: Collection[str] | None) -> None:
        wanted = {
            name
            for name, outlook in self.outlooks.items()
            if outlook.eta is None and (times_of is None or name in times_of)
        }
        if not wanted:
            return
        ends = [
            (self.taken[lease.id][1] if lease.id in self.taken else lease.ends_at, lease)
            for lease in self.stage.leases.values()
        ]
        ends.sort(key=lambda end: (end[0], end[1].id))
        holds = self.holds.values()
        turns = turns_to_come(self.stage, self.waiting, self.outlooks, holds, ends, self.scene.recent, wanted)
        for ticket_id, at in turns.items():
            if ticket_id in wanted:
                self.outlooks[ticket_id] = replace(self.outlooks[ticket_id], eta=Eta(at, "expected"))

    # -- outlooks --------------------------------------------------------------------------------------------------

    def _look(self, ticket: Ticket, decision: Wait) -> None:
        self.outlooks[ticket.id] = Outlook(decision.code.value, self._with_first_end(ticket, decision).facts)

    def _with_first_end(self, ticket: Ticket, decision: Wait) -> Wait:
        """Of many who wait for the same, it is looked for once."""
        ask = ticket.ask
        wanted = frozenset(name for name, amount in ask.amounts.items() if amount)
        key = (decision.code, decision.facts.get("resource"), self.policy.root(ask.pool), wanted)
        if key not in self.first_ends:
            told = first_end(decision, self.scene.leases, self.policy)
            self.first_ends[key] = {} if told is decision else {"first_end": told.facts["first_end"]}
        return replace(decision, facts={**decision.facts, **self.first_ends[key]})

    def _promise_turn(self, ticket: Ticket, eta: Instant, reclaims: tuple[str, ...] = ()) -> None:
        self.outlooks[ticket.id] = replace(
            self.outlooks[ticket.id], eta=Eta(eta, "latest"), reclaims=reclaims
        )

    def _behind(self, hold: Hold, ask: Ask) -> Wait:
        return Wait(Code.OTHERS_WAITING, {"pool": ask.pool, "until": self.policy.local(hold.eta)})

    def result(self) -> Plan:
        return Plan(
            tuple(self.turns), tuple(self.dropped), tuple(self.notices), tuple(self.withdrawn), self.outlooks
        )


def _next_of(ticket: Ticket) -> Ask:
    """What is booked when its turn comes: the ask, or the next of the several that it wants."""
    ask = ticket.ask
    number = ticket.booked + 1
    if of_a_cluster(ask):
        return replace(ask, id=f"{ask.id}.{number}")
    if ticket.wanted + ticket.booked == 1:
        return ask
    return replace(ask, id=f"{ask.id}/{number}", server=f"{ask.server}/{number}")


def _is_ending(lease: Lease) -> bool:
    return lease.state is LeaseState.ENDING


def _gone_pool(ask: Ask) -> Refuse:
    return Refuse(Code.NOT_A_MEMBER, {"person": ask.person, "pool": ask.pool, "pools": []})

"""When those who wait may expect their turn: known ends, notices and the tickets ahead, played forward. Pure.

Never a guess: whoever's turn follows from nothing that is known has no time.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Final

from hub_ext.core.clock import Instant, instant_of
from hub_ext.core.decision import Admit
from hub_ext.quota.hold import Hold
from hub_ext.quota.model import Ask, Lease, Outlook, Ticket
from hub_ext.quota.queue import Line, Recent
from hub_ext.quota.stage import Room, Shape, Stage, shape_of

MOST_TICKETS: Final = 50
"""So many of each line are played forward; those further behind have their place, and a time when they come nearer."""
MOST_MOMENTS: Final = 200

Ends = Sequence[tuple[Instant, Lease]]
"""Live leases by when they end, the first to end first."""


def first_fit(room: Room, ask: Ask, ends: Ends) -> tuple[Instant, Room] | None:
    """When the known ends alone have made room for the ask, and the room then; None where they never do."""
    room = room.copy_room()
    machine = room.has_machine(ask)
    for index, (at, lease) in enumerate(ends):
        room.remove(lease)
        # What ends only ever makes room, and only on its own machine.
        machine = machine or (lease.node is not None and room.fits_on(lease.node, ask))
        is_last_then = index + 1 == len(ends) or ends[index + 1][0] > at
        if machine and is_last_then and not room.lacking(ask):
            return at, room
    return None


def turns_to_come(
    stage: Stage,
    waiting: Iterable[Ticket],
    outlooks: Mapping[str, Outlook],
    holds: Iterable[Hold],
    ends: Ends,
    recent: Recent,
    wanted: Collection[str],
) -> dict[str, Instant]:
    """By ticket, when its turn comes if nobody else asks and everything ends when it has to.

    Played until those that are `wanted` are known; others that were found on the way are told as well.
    """
    return _Replay(stage, waiting, outlooks, holds, ends, recent).play(wanted)


class _Replay:
    def __init__(
        self,
        stage: Stage,
        waiting: Iterable[Ticket],
        outlooks: Mapping[str, Outlook],
        holds: Iterable[Hold],
        ends: Ends,
        recent: Recent,
    ) -> None:
        self.stage = stage.copy()
        self.stage.count_all_as_started()
        self.recent = recent
        self.left = _first_of_each_tree(stage, waiting)
        self.holds = {hold.ticket.id: hold.copy() for hold in holds}
        # A number beside the time, since leases have no order.
        self.numbers = count()
        self.ends = [(at, next(self.numbers), lease) for at, lease in ends]
        renewals = {at for ticket in self.left.values() if (at := renewal(outlooks[ticket.id])) is not None}
        self.moments = sorted(renewals | {hold.eta for hold in self.holds.values()}, reverse=True)
        self.found: dict[str, Instant] = {}
        self.blocked: set[str] = set()
        """Those who stand behind a hold: what starts only ever takes room, so that they do until it is over."""

    def play(self, wanted: Collection[str]) -> dict[str, Instant]:
        for _ in range(MOST_MOMENTS):
            moment = self._next_moment()
            if moment is None or self.left.keys().isdisjoint(wanted):
                break
            self._start_all(moment)
        return self.found

    def _next_moment(self) -> Instant | None:
        """The next time at which anything changes, with everything that ends then released."""
        candidates = ([self.ends[0][0]] if self.ends else []) + self.moments[-1:]
        if not candidates:
            return None
        moment = min(candidates)
        while self.moments and self.moments[-1] <= moment:
            self.moments.pop()
        while self.ends and self.ends[0][0] <= moment:
            _, _, lease = heapq.heappop(self.ends)
            self.stage.release(lease, moment)
        return moment

    def _start_all(self, now: Instant) -> None:
        trying = [
            ticket
            for ticket in self.left.values()
            if ticket.id not in self.blocked
            and (ticket.id not in self.holds or now >= self.holds[ticket.id].eta)
        ]
        asks = {shape_of(ticket.ask): ticket.ask for ticket in trying}
        full: set[Shape] = {shape for shape, ask in asks.items() if not self.stage.has_room(ask)}
        if len(full) == len(asks):
            return
        line = Line.of(self.stage, trying, self.recent)
        while (ticket := line.pop()) is not None:
            shape = shape_of(ticket.ask)
            if shape in full:
                continue
            if not self.stage.has_room(ticket.ask):
                full.add(shape)
                continue
            decision = self.stage.decide(ticket.ask, now)
            if not isinstance(decision, Admit):
                continue
            if self._may_pass(ticket, decision):
                self._start(ticket, decision, now)
                line.changed()
            else:
                self.blocked.add(ticket.id)

    def _may_pass(self, ticket: Ticket, decision: Admit) -> bool:
        return all(hold.lets_pass(ticket, decision) for hold in self.holds.values())

    def _start(self, ticket: Ticket, decision: Admit, now: Instant) -> None:
        lease = self.stage.book(ticket.ask, decision, now, running=True)
        self.found[ticket.id] = now
        del self.left[ticket.id]
        if self.holds.pop(ticket.id, None) is not None:
            self.blocked.clear()
        for hold in self.holds.values():
            if lease.ends_at > hold.eta:
                hold.after.add(lease)
        heapq.heappush(self.ends, (lease.ends_at, next(self.numbers), lease))


def _first_of_each_tree(stage: Stage, waiting: Iterable[Ticket]) -> dict[str, Ticket]:
    counted: dict[str, int] = {}
    first = {}
    for ticket in waiting:
        root = stage.policy.root(ticket.ask.pool)
        counted[root] = counted.get(root, 0) + 1
        if counted[root] <= MOST_TICKETS:
            first[ticket.id] = ticket
    return first


def renewal(outlook: Outlook) -> Instant | None:
    """When what it waits for comes by itself: a budget's next period, or the end of a window."""
    for name in ("renews", "ends"):
        at = outlook.facts.get(name)
        if isinstance(at, datetime):
            return instant_of(at)
    return None

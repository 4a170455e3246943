"""Makes leases agree with what runs: looks at the ledger, the world and the hub, and does what `reconcile` says.

Leases booked while it looks are left alone, and each instruction is looked at again before it is carried out.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic

import structlog

from hub_ext.core.clock import Instant
from hub_ext.core.errors import BadInput, HubError
from hub_ext.desk.adoption import adoptable
from hub_ext.desk.leading import LEADER, LEADER_SECONDS, Leading
from hub_ext.desk.starts import Starts
from hub_ext.quota.booking import options_of
from hub_ext.quota.model import Lease, LeaseState
from hub_ext.quota.policy import cost_of
from hub_ext.quota.ports import Running
from hub_ext.quota.reconcile import (
    Adopt,
    Instruction,
    Release,
    Seen,
    SetRunning,
    StartAgain,
    StopRunning,
    reconcile,
)
from hub_ext.quota.service import end, run

log = structlog.get_logger("hub_ext.clock")

START_AGAIN_AFTER = 6
"""A hub that still lives and gave a start up writes that down within so many seconds."""
MOST_TRIES = 3
AT_ONCE = 0.25
"""A hub that needs longer to say which servers there are has much to do."""
REST = 20
"""It answers for one part of the time, and has so many for the starts that it is asked about."""
LONGEST_REST = 6.0
SEEN_AFTER = 20
"""How old what is written of when a server was last seen may get; the clock itself knows it to the tick."""
ORPHAN, START_LOST = "orphan", "start-lost"


@dataclass
class CutOff:
    """A start that a hub was cut off in: since when that is seen, and how often the hub did not take it."""

    since: Instant
    refusals: int = 0


@dataclass
class Reconciling(Leading):
    _gone: dict[str, Instant] = field(default_factory=dict)
    """Since when what a lease ran is seen gone, while it is not released yet."""
    _cut_off: dict[str, CutOff] = field(default_factory=dict)
    _ready: dict[str, Instant] = field(default_factory=dict)
    """By lease, since when a server that nobody has come to yet was seen ready."""
    _written_seen: dict[str, Instant] = field(default_factory=dict)
    _hub_silent_since: Instant | None = None
    _hub_rests_until: float = 0.0
    """By the monotonic clock: a hub that has much to do is not asked again at once."""

    def reconcile(self) -> None:
        """Read leases, then look at the world, then ask the hub: what is in none of them was started meanwhile."""
        if monotonic() < self._hub_rests_until:
            return
        self._refresh(machines=True)
        now = self.admission.clock.now()
        live_now = list(self.picture.leases.values())
        world = self.world.running()
        there = {running.lease for running in world}
        leases = [lease if lease.id in there else self.picture.with_seen(lease) for lease in live_now]
        if not leases and not world:
            self._gone, self._cut_off, self._ready, self._hub_silent_since = {}, {}, {}, None
            return
        known = self._known_servers(now)
        self._look_for_claims(leases, known, now)
        live = {lease.id for lease in leases}
        with self.admission.store.reading() as txn:
            others = {
                running.lease: txn.lease(running.lease) for running in world if running.lease not in live
            }
        released = frozenset(name for name, lease in others.items() if lease is not None and not lease.live)
        started_meanwhile = {name for name, lease in others.items() if lease is not None and lease.live}
        looked_at = [running for running in world if running.lease not in started_meanwhile]
        instructions = reconcile(leases, released, looked_at, known, now, self.world.ended())
        ended = {one.running.lease for one in instructions if isinstance(one, StopRunning)}
        gone = {one.lease.id for one in instructions if isinstance(one, Release)}
        self._gone = {lease: since for lease, since in self._gone.items() if lease in gone}
        self._mark_seen([one.lease for one in instructions if isinstance(one, Seen)], now)
        self._start_again([one.lease for one in instructions if isinstance(one, StartAgain)], now)
        # What is slow comes last, and after it is written down why.
        for instruction in sorted(instructions, key=lambda one: isinstance(one, StopRunning)):
            if not self._still_leads():
                return
            self._enact(instruction, ended)

    def _forget(self) -> None:
        super()._forget()
        self._gone, self._cut_off, self._ready, self._hub_silent_since = {}, {}, {}, None
        self._written_seen = {}

    # -- the look ------------------------------------------------------------------------------------------------------

    def _known_servers(self, now: Instant) -> dict[tuple[str, str], str | None] | None:
        asked = monotonic()
        try:
            known = self.servers.active()
        except HubError as error:
            self._say_once("hub", f"the hub cannot be asked: {error}")
            if self._hub_silent_since is None:
                self._hub_silent_since = now
            return None
        answered = monotonic()
        if answered - asked > AT_ONCE:
            self._hub_rests_until = answered + min(LONGEST_REST, REST * (answered - asked))
        self._said.pop("hub", None)
        self._hub_silent_since = None
        return known

    def _mark_seen(self, leases: Sequence[Lease], now: Instant) -> None:
        """Known here to the tick; written down now and then, which is enough for a clock that takes over."""
        self.picture.saw([lease.id for lease in leases], now)
        written = {lease.id: self._written_seen.get(lease.id, 0) for lease in leases}
        due = [lease_id for lease_id, at in written.items() if not 0 <= now - at < SEEN_AFTER]
        self._written_seen = written | dict.fromkeys(due, now)
        if due:
            with self._writing() as txn:
                txn.seen(due, now)

    def _look_for_claims(
        self, leases: Sequence[Lease], known: dict[tuple[str, str], str | None] | None, now: Instant
    ) -> None:
        """Since when the servers that nobody came to yet have been ready."""
        if known is None:
            return
        ready = [
            lease.id
            for lease in leases
            if lease.unclaimed
            and lease.state is LeaseState.RUNNING
            and known.get((lease.person, lease.server), "unknown") is None
        ]
        self._ready = {lease_id: self._ready.get(lease_id, now) for lease_id in ready}

    # -- what it says --------------------------------------------------------------------------------------------------

    def _enact(self, instruction: Instruction, ended: Container[str]) -> None:
        """`ended`: the leases of which something is ended by the instructions of this look."""
        match instruction:
            case SetRunning(lease, running, at):
                self.metrics.corrected("running")
                change = run(running.handle, at=at, who=LEADER)
                self.admission.change(lease.id, change, expected=LeaseState.BOOKED)
            case Release(lease, at, why):
                self._release(lease, at, why, something_left=lease.id in ended)
            case StopRunning(running):
                self.metrics.corrected("left-over")
                log.info("ended what no lease stands for", lease=running.lease, handle=running.handle)
                self.world.stop(running)
            case Adopt(running):
                self._adopt(running)
            case Seen() | StartAgain():
                pass  # done for all of them at once

    def _release(self, lease: Lease, at: Instant, why: str, *, something_left: bool) -> None:
        """What a lease ran is gone, or was told to end right now: what is left still holds its devices."""
        if self._current(lease) is None:
            return
        if why == ORPHAN and something_left:
            self.admission.change(lease.id, end(LEADER, why), expected=lease.state)
            return
        first = lease.id not in self._gone
        since = self._gone.setdefault(lease.id, at)
        # The hub that stopped a server writes down why right after: let it.
        if something_left or (first and lease.state is LeaseState.RUNNING):
            return
        self.metrics.corrected(why)
        log.info("released", lease=lease.id, person=lease.person, server=lease.server, why=why)
        self.admission.release_now(lease.id, LEADER, why, since)

    def _adopt(self, running: Running) -> None:
        """Book what runs with our labels and is in no ledger as it stands, also above quota."""
        with self._writing() as txn:
            if txn.lease(running.lease) is not None:
                return
            policy = txn.policy
            now = max(self.admission.clock.now(), txn.latest())
            try:
                found = adoptable(running, policy, now)
            except BadInput as error:
                self._say_once(running.lease, f"lease {running.lease} runs and cannot be adopted: {error}")
                return
            ledger = txn.ledger(policy.path(found.ask.pool), [found.ask.person])
            lease = ledger.adopt(
                found.ask,
                now,
                started_at=now if running.started_at is None else min(now, running.started_at),
                ends_at=found.ends_at,
                cost=cost_of(policy, found.ask, guaranteed=ledger.would_be_guaranteed(found.ask)),
                handle=running.handle,
                node=running.node,
                devices=found.devices,
            )
            txn.save(ledger, [lease])
        self.metrics.corrected("adopted")
        log.warning("adopted a server that the ledger did not know", lease=lease.id, person=lease.person)

    # -- starts that were cut off, and those that were ordered -----------------------------------------------------------

    @cached_property
    def _starts(self) -> Starts:
        return Starts(self.servers, self._may_start)

    def _start_again(self, leases: Sequence[Lease], now: Instant) -> None:
        """Through the hub: each start takes the lease that was booked for it."""
        self._note_starts()
        self._cut_off = {
            lease.id: self._cut_off.get(lease.id, CutOff(now))
            for lease in leases
            if not self._starts.is_under_way(lease.id)
        }
        due = [
            lease
            for lease in leases
            if lease.id in self._cut_off and now - self._cut_off[lease.id].since >= START_AGAIN_AFTER
        ]
        for lease in due:
            with self.admission.store.reading() as txn:
                options = options_of(txn, lease.id)
            self._starts.order(lease, options)
        if due:
            self._starts.settle(self.starts_seconds)
            self._note_starts()

    def _may_start(self, lease: Lease) -> bool:
        return self._leads_for(LEADER_SECONDS) and self._current(lease) is not None

    def _note_starts(self) -> None:
        """What came of the starts that were ordered. One that the hub keeps refusing is given up."""
        for ordered in self._starts.finished():
            lease, refusal = ordered.lease, ordered.refusal
            if refusal is None:
                log.info("started", lease=lease.id, person=lease.person, server=lease.server)
                continue
            cut_off = self._cut_off.setdefault(lease.id, CutOff(self.admission.clock.now()))
            cut_off.refusals += 1
            if cut_off.refusals >= MOST_TRIES and self._current(lease) is not None:
                log.warning("a start that was cut off is given up", lease=lease.id, why=refusal)
                self.admission.release_now(lease.id, LEADER, START_LOST)

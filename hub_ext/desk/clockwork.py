"""The clock: makes leases agree with what runs, charges what ran, gives notice, and stops what is over.

One process at a time does it (a leadership row in the database). Each tick is a list of independent steps; a step
that fails is logged and done again at the next tick, and every step done twice changes nothing.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.decision import Code
from hub_ext.core.errors import BadInput, FaultyDocument, HubError
from hub_ext.desk.adoption import adoptable
from hub_ext.quota.ledger import Entry, EntryKind, Ledger, charged_pool
from hub_ext.quota.model import Lease, LeaseState
from hub_ext.quota.overrun import overrun_cuts
from hub_ext.quota.policy import cost_of
from hub_ext.quota.ports import Running, Servers, Transaction, World
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
from hub_ext.quota.service import Admission, Change, end, run

log = structlog.get_logger("hub_ext.clock")

TICK_SECONDS = 2
CHARGE_AFTER = MINUTE
"""Running leases are charged about this often; the ledger's slices are never longer than five minutes."""
LEADER = "clock"
LEADER_SECONDS = 10
HUB_SILENT = 2 * MINUTE
"""What should have ended is ended without the hub once it has been silent, or has not managed it, for so long."""
START_AGAIN_AFTER = 6
"""A hub that still lives and gave a start up writes that down within so many seconds."""
MOST_TRIES = 3
STARTS_AT_ONCE = 16
ENDED, ENDS_SOON, ORPHAN, START_LOST = "ended", "ends-soon", "orphan", "start-lost"
MOVES_END = (EntryKind.NOTICED, EntryKind.EXTENDED, EntryKind.WITHDRAWN)


@dataclass
class Order:
    """A stop that was ordered: since when, and when it was last given to somebody who took it."""

    since: Instant
    taken: Instant | None = None


@dataclass
class CutOff:
    """A start that a hub was cut off in: since when that is seen, and how often the hub did not take it."""

    since: Instant
    refusals: int = 0


@dataclass
class Clockwork:
    """`reload` loads a policy file that changed; it raises FaultyDocument and leaves the old one in force.
    `count_nodes` writes down which machines there are; it raises HubError while that cannot be seen.
    """

    admission: Admission
    world: World
    servers: Servers
    reload: Callable[[], bool] = lambda: False
    count_nodes: Callable[[], None] = lambda: None
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    _leads_since: Instant | None = None
    """When leadership was last taken or renewed; None while another clock leads."""
    _orders: dict[str, Order] = field(default_factory=dict)
    _gone: dict[str, Instant] = field(default_factory=dict)
    """Since when what a lease ran is seen gone, while it is not released yet."""
    _cut_off: dict[str, CutOff] = field(default_factory=dict)
    _hub_silent_since: Instant | None = None
    _said: dict[str, str] = field(default_factory=dict)
    """What was complained of last, by what it is about, while it goes on."""

    def run(self, stop: threading.Event, *, seconds: float = TICK_SECONDS) -> None:
        """Tick until `stop` is set."""
        while not stop.is_set():
            self.tick()
            stop.wait(seconds)
        try:
            with self.admission.store.booking() as txn:
                txn.leave_leadership(LEADER, self.holder)
        except HubError as error:
            log.warning("leadership was not handed on", error=str(error))

    def tick(self) -> bool:
        """All steps once; False while another clock leads, or the database is away."""
        if not self._lead():
            return False
        for step in (
            self.reload_policy,
            self.look_at_nodes,
            self.reconcile,
            self.keep_accounts,
            self.stop_ended,
        ):
            if not self._still_leads():
                return False
            self._do(step)
        return True

    def _do(self, step: Callable[[], None]) -> None:
        """A step that fails keeps no other one from being done."""
        name = step.__name__
        try:
            step()
        except FaultyDocument as error:
            self._say_once(name, f"the policy stays as it was: {error}")
        except HubError as error:
            self._say_once(name, f"{name}: {error}")
        except Exception as error:  # a mistake of ours, in one step only
            if self._say_once(name, f"{name}: {error!r}"):
                log.exception("this is a mistake in the program")
        else:
            self._said.pop(name, None)

    def _lead(self) -> bool:
        now = self.admission.clock.now()
        try:
            with self.admission.store.booking() as txn:
                leads = txn.take_leadership(LEADER, self.holder, now, LEADER_SECONDS)
        except HubError as error:
            self._say_once(LEADER, f"the clock stands still: {error}")
            return False
        self._said.pop(LEADER, None)
        if leads and self._leads_since is None:
            # What was seen before another clock led is no longer true.
            self._orders, self._gone, self._cut_off, self._hub_silent_since = {}, {}, {}, None
        self._leads_since = now if leads else None
        return leads

    def _still_leads(self) -> bool:
        """Renews the leadership before a long tick outlasts it: two clocks never act at once."""
        now = self.admission.clock.now()
        fresh = self._leads_since is not None and 0 <= now - self._leads_since < LEADER_SECONDS // 2
        return fresh or self._lead()

    def _say_once(self, about: str, text: str) -> bool:
        """Whether it is news."""
        if self._said.get(about) == text:
            return False
        self._said[about] = text
        log.warning(text)
        return True

    # -- 1. the policy ------------------------------------------------------------------------------------------

    def reload_policy(self) -> None:
        if self.reload():
            log.info("a new policy is in force")

    # -- 2. machines, leases and world --------------------------------------------------------------------------------------

    def look_at_nodes(self) -> None:
        self.count_nodes()

    def reconcile(self) -> None:
        """Read leases, then look at the world, then ask the hub: what is in none of them was started meanwhile."""
        now = self.admission.clock.now()
        with self.admission.store.reading() as txn:
            leases = txn.live_leases()
        world = self.world.running()
        if not leases and not world:
            self._gone, self._cut_off, self._hub_silent_since = {}, {}, None
            return
        known = self._known_servers(now)
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

    def _known_servers(self, now: Instant) -> dict[tuple[str, str], str | None] | None:
        try:
            known = self.servers.active()
        except HubError as error:
            self._say_once("hub", f"the hub cannot be asked: {error}")
            if self._hub_silent_since is None:
                self._hub_silent_since = now
            return None
        self._said.pop("hub", None)
        self._hub_silent_since = None
        return known

    def _mark_seen(self, leases: Sequence[Lease], now: Instant) -> None:
        if leases:
            with self.admission.store.booking() as txn:
                txn.seen([lease.id for lease in leases], now)

    def _enact(self, instruction: Instruction, ended: Container[str]) -> None:
        """`ended`: the leases of which something is ended by the instructions of this look."""
        match instruction:
            case SetRunning(lease, running, at):
                change = run(running.handle, at=at, who=LEADER)
                self.admission.change(lease.id, change, expected=LeaseState.BOOKED)
            case Release(lease, at, why):
                self._release(lease, at, why, something_left=lease.id in ended)
            case StopRunning(running):
                log.info("ended what no lease stands for", lease=running.lease, handle=running.handle)
                self.world.stop(running)
            case Adopt(running):
                self._adopt(running)
            case Seen() | StartAgain():
                pass  # done for all of them at once

    def _start_again(self, leases: Sequence[Lease], now: Instant) -> None:
        """Through the hub, many at once: each start takes over the lease that was booked for it."""
        self._cut_off = {lease.id: self._cut_off.get(lease.id, CutOff(now)) for lease in leases}
        due = [lease for lease in leases if now - self._cut_off[lease.id].since >= START_AGAIN_AFTER]
        if not due:
            return
        with ThreadPoolExecutor(max_workers=STARTS_AT_ONCE, thread_name_prefix="starts") as threads:
            for first in range(0, len(due), STARTS_AT_ONCE):
                # A batch takes some seconds where the hub takes its time.
                if not self._still_leads():
                    return
                batch = due[first : first + STARTS_AT_ONCE]
                self._note_starts(batch, list(threads.map(self._start_one, batch)))

    def _note_starts(self, leases: Sequence[Lease], refusals: Sequence[str | None]) -> None:
        for lease, refusal in zip(leases, refusals, strict=True):
            cut_off = self._cut_off[lease.id]
            if refusal is None:
                log.info("started again", lease=lease.id, person=lease.person, server=lease.server)
                continue
            cut_off.refusals += 1
            if cut_off.refusals >= MOST_TRIES and self._current(lease) is not None:
                log.warning("a start that was cut off is given up", lease=lease.id, why=refusal)
                self.admission.release_now(lease.id, LEADER, START_LOST)

    def _start_one(self, lease: Lease) -> str | None:
        """Why it was not taken; None where it is under way."""
        try:
            if self._current(lease) is not None:
                self.servers.start(lease.person, lease.server)
        except HubError as error:
            return str(error)
        return None

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
        log.info("released", lease=lease.id, person=lease.person, server=lease.server, why=why)
        self.admission.release_now(lease.id, LEADER, why, since)

    def _current(self, lease: Lease) -> Lease | None:
        """The lease, unless it changed since it was looked at: then the next tick looks again."""
        with self.admission.store.reading() as txn:
            current = txn.lease(lease.id)
        same = current is not None and (current.state, current.handle) == (lease.state, lease.handle)
        return current if same else None

    def _adopt(self, running: Running) -> None:
        """Book what runs with our labels and is in no ledger as it stands, also above quota."""
        with self.admission.store.booking() as txn:
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
        log.warning("adopted a server that the ledger did not know", lease=lease.id, person=lease.person)

    # -- 3. hours and notices, in one transaction ------------------------------------------------------------------

    def keep_accounts(self) -> None:
        """Charge what was seen alive; give notice to what must end earlier, or ends soon."""
        with self.admission.store.booking() as txn:
            leases = {lease.id: lease for lease in txn.live_leases() if lease.started_at is not None}
            if not leases:
                return
            now = max(self.admission.clock.now(), txn.latest())
            ledger = txn.ledger(None)
            changed = {
                **(charged := _charge(ledger, leases.values())),
                **(cut := _cut_overruns(ledger, (leases | charged).values(), now)),
                **_remind(ledger, (leases | charged | cut).values(), now),
            }
            if changed:
                txn.save(ledger, changed.values())
        for lease in cut.values():
            log.info("its hours are used up", lease=lease.id, person=lease.person, ends_at=lease.ends_at)

    # -- 4. ends ---------------------------------------------------------------------------------------------------

    def stop_ended(self) -> None:
        """Stop what is over through the hub; without it, when that has been in vain for long."""
        now = self.admission.clock.now()
        with self.admission.store.reading() as txn:
            leases = txn.live_leases()
        ending = {lease.id for lease in leases if lease.state is LeaseState.ENDING}
        for over in self._orders.keys() - ending:
            del self._orders[over]
            self._said.pop(over, None)
        for lease in leases:
            if not self._still_leads():
                return
            if lease.state is LeaseState.RUNNING and lease.ends_at <= now:
                ended = self.admission.change(
                    lease.id, _end_what_is_over(self._why(lease)), LeaseState.RUNNING
                )
                if ended is not None and ended.state is LeaseState.ENDING:
                    self._order_stop(ended, now)
            elif lease.state is LeaseState.ENDING:
                self._order_stop(lease, now)

    def _why(self, lease: Lease) -> str:
        """What last moved its end: hours that ran out, or nothing but time."""
        with self.admission.store.reading() as txn:
            moves = [entry.why for entry in _entries(txn, lease) if entry.kind in MOVES_END]
        return Code.BUDGET_SPENT.value if moves and moves[-1] == Code.BUDGET_SPENT.value else ENDED

    def _order_stop(self, lease: Lease, now: Instant) -> None:
        order = self._orders.setdefault(lease.id, Order(now))
        if order.taken is not None and now - order.taken < MINUTE:
            return
        # Between the look and now its server may have been started anew, under another lease.
        if self._current(lease) is None:
            return
        silent = self._hub_silent_since
        patient = now - (order.since if silent is None else min(order.since, silent)) < HUB_SILENT
        # A hub that is silent is not asked once more for each lease: every answer would be waited for in vain.
        if patient and (silent is not None or self._hub_took(lease, order, now)):
            return
        self._stop_without_hub(lease)
        order.taken = now

    def _hub_took(self, lease: Lease, order: Order, now: Instant) -> bool:
        """False where the hub knows of no such server; an order that it could not take stays for the next tick."""
        try:
            if not self.servers.stop(lease.person, lease.server):
                return False
            order.taken = now
        except HubError as error:
            self._say_once(lease.id, f"a server that is over cannot be stopped yet: {error}")
        return True

    def _stop_without_hub(self, lease: Lease) -> None:
        for running in self.world.running():
            if running.lease == lease.id:
                log.info("ended without the hub", lease=lease.id, person=lease.person, handle=running.handle)
                self.world.stop(running)
                return


def _end_what_is_over(why: str) -> Change:
    """The end may have moved since it was looked at."""

    def change(ledger: Ledger, lease: Lease, now: Instant) -> Lease:
        return end(LEADER, why)(ledger, lease, now) if lease.ends_at <= now else lease

    return change


def _entries(txn: Transaction, lease: Lease) -> Iterator[Entry]:
    after = 0
    while page := txn.entries(after=after, lease=lease.id):
        yield from (entry for _, entry in page)
        after = page[-1][0]


def _charge(ledger: Ledger, leases: Iterable[Lease]) -> dict[str, Lease]:
    """Each lease is charged up to when it was last seen."""
    return {
        lease.id: ledger.accrue(lease, lease.seen_at)
        for lease in leases
        if lease.seen_at is not None and lease.seen_at - lease.charged_until >= CHARGE_AFTER
    }


def _cut_overruns(ledger: Ledger, leases: Iterable[Lease], now: Instant) -> dict[str, Lease]:
    running = [lease for lease in leases if lease.state is LeaseState.RUNNING]
    return {
        lease.id: ledger.notice(lease, ends_at, now, who=LEADER, why=Code.BUDGET_SPENT.value)
        for lease, ends_at, _facts in overrun_cuts(ledger.budgets, running, now)
    }


def _remind(ledger: Ledger, leases: Iterable[Lease], now: Instant) -> dict[str, Lease]:
    """Once for each lease: its end is near. The end itself does not move."""
    policy, reminded = ledger.policy, {}
    for lease in leases:
        pool = charged_pool(policy, lease)
        notice = policy.session(pool).notice if pool else 0
        due = (
            lease.state is LeaseState.RUNNING
            and lease.noticed_at is None
            and now < lease.ends_at <= now + notice
        )
        if due:
            reminded[lease.id] = ledger.notice(lease, lease.ends_at, now, who=LEADER, why=ENDS_SOON)
    return reminded

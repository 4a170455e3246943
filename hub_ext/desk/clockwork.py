"""The clock: makes leases agree with what runs, serves the line, charges what ran, gives notice, and stops what is over.

One process at a time does it (a leadership row in the database). Each tick is a list of independent steps; a step
that fails is logged and done again at the next tick, and every step done twice changes nothing. Between ticks the clock
looks whether anything was written, so that whoever waits starts as soon as there is room.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import structlog

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.decision import Code
from hub_ext.core.errors import BadInput, FaultyDocument, HubError
from hub_ext.desk import accounts
from hub_ext.desk.accounts import ENDS_SOON as ENDS_SOON
from hub_ext.desk.adoption import adoptable
from hub_ext.desk.executor import Enacted, anything_to_do, enact, with_former_times
from hub_ext.desk.metrics import Metrics
from hub_ext.desk.picture import Picture
from hub_ext.desk.starts import Starts
from hub_ext.desk.stops import HUB_SILENT as HUB_SILENT
from hub_ext.desk.stops import Stops
from hub_ext.desk.windows import keep_windows
from hub_ext.quota.booking import options_of
from hub_ext.quota.ledger import TAKEN_BACK, Entry, EntryKind, Ledger
from hub_ext.quota.model import Lease, LeaseState, Policy
from hub_ext.quota.plan import plan
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
from hub_ext.quota.windows import next_edge

log = structlog.get_logger("hub_ext.clock")

TICK_SECONDS = 2.0
LOOK_SECONDS = 0.25
"""How often the clock looks between ticks whether anything was written."""
LEADER = "clock"
LEADER_SECONDS = 10
START_AGAIN_AFTER = 6
"""A hub that still lives and gave a start up writes that down within so many seconds."""
MOST_TRIES = 3
SEEN_AFTER = 20
"""How old what is written of when a server was last seen may get; the clock itself knows it to the tick."""
BUDGETS_AFTER = 10
"""How often it is looked whether a budget was overdrawn: its leases have their grace then anyway."""
PLAN_AFTER = 10
"""Time alone (patience, windows, new hours) is looked at so often; whatever is written, at once."""
FEW = 200
"""With so many tickets expected times are worked out in every plan; with more, and the places behind, only so often."""
STARTS_SECONDS = 0.1
"""How long a tick waits for the starts it ordered: most are under way then."""
ENDED, ORPHAN, START_LOST, UNCLAIMED = "ended", "orphan", "start-lost", "unclaimed"
MOVES_END = (EntryKind.NOTICED, EntryKind.EXTENDED, EntryKind.WITHDRAWN)


@dataclass
class CutOff:
    """A start that a hub was cut off in: since when that is seen, and how often the hub did not take it."""

    since: Instant
    refusals: int = 0


@dataclass
class Clockwork:
    """`reload` loads a policy file that changed; it raises FaultyDocument and leaves the old one in force.
    `count_nodes` writes down which machines there are; it raises HubError while that cannot be seen.
    `starts_seconds` is how long a tick waits for the starts it ordered (None: until they are all taken).
    """

    admission: Admission
    world: World
    servers: Servers
    reload: Callable[[], bool] = lambda: False
    count_nodes: Callable[[], None] = lambda: None
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    starts_seconds: float | None = STARTS_SECONDS
    metrics: Metrics = field(default_factory=Metrics)
    picture: Picture = field(default_factory=Picture)
    _leads_since: Instant | None = None
    """When leadership was last taken or renewed; None while another clock leads."""
    _gone: dict[str, Instant] = field(default_factory=dict)
    """Since when what a lease ran is seen gone, while it is not released yet."""
    _cut_off: dict[str, CutOff] = field(default_factory=dict)
    _ready: dict[str, Instant] = field(default_factory=dict)
    """By lease, since when a server that nobody has come to yet was seen ready."""
    _written_seen: dict[str, Instant] = field(default_factory=dict)
    _budgets_seen: Policy | None = None
    _budgets_at: Instant = 0
    _planned: tuple[int | None, Instant] = (None, 0)
    """What the last plan had seen, and when it was made."""
    _timed_at: Instant = 0
    """When it was last looked when those who wait may expect their turn."""
    _next_window: Instant = 0
    _windows: object = None
    _hub_silent_since: Instant | None = None
    _said: dict[str, str] = field(default_factory=dict)
    """What was complained of last, by what it is about, while it goes on."""

    def run(self, stop: threading.Event, *, seconds: float = TICK_SECONDS) -> None:
        """Tick until `stop` is set; in between, serve the line as soon as anything was written."""
        next_tick = 0.0
        while not stop.is_set():
            began = time.monotonic()
            if began >= next_tick:
                self.tick()
                next_tick = began + seconds
            elif self._leads_since is not None:
                self._do(self.serve_if_anything_is_new)
            took = time.monotonic() - began
            # Never more than half of the time: the pages are served by the same process.
            stop.wait(max(LOOK_SECONDS, took))
        self._starts.close()
        try:
            with self.admission.store.booking() as txn:
                txn.leave_leadership(LEADER, self.holder)
        except HubError as error:
            log.warning("leadership was not handed on", error=str(error))

    def tick(self) -> bool:
        """All steps once; False while another clock leads, or the database is away."""
        began = time.monotonic()
        if not self._lead():
            return False
        for step in (
            self.reload_policy,
            self.look_at_nodes,
            self.reconcile,
            self.keep_accounts,
            self.keep_windows,
            self.stop_ended,
            self.serve_the_line,
            self.show,
        ):
            if not self._still_leads():
                return False
            self._do(step)
        self.metrics.ticked(time.monotonic() - began, self.admission.clock.now())
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
            self.picture.forget()
            self._planned = (None, 0)
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
            self._leads_since = None
            return False
        self._said.pop(LEADER, None)
        if leads and self._leads_since is None:
            # What was seen before another clock led is no longer true.
            self._gone, self._cut_off, self._ready, self._hub_silent_since = {}, {}, {}, None
            self._budgets_seen, self._written_seen, self._next_window, self._planned = None, {}, 0, (None, 0)
            self._timed_at = 0
            self._stops.forget()
            self.picture.forget()
        if not leads:
            self.metrics.follows()
        self._leads_since = now if leads else None
        return leads

    def _still_leads(self) -> bool:
        """Renews the leadership before a long tick outlasts it: two clocks never act at once."""
        return self._leads_for(LEADER_SECONDS // 2) or self._lead()

    def _leads_for(self, seconds: int) -> bool:
        """Whether the leadership was renewed within so many seconds."""
        now = self.admission.clock.now()
        return self._leads_since is not None and 0 <= now - self._leads_since < seconds

    def _say_once(self, about: str, text: str) -> bool:
        """Whether it is news."""
        if self._said.get(about) == text:
            return False
        self._said[about] = text
        log.warning(text)
        return True

    def _refresh(self, *, machines: bool = False) -> Instant:
        """The picture as of now, and that moment."""
        with self.admission.store.reading() as txn:
            now = max(self.admission.clock.now(), txn.latest())
            self.metrics.count(self.picture.refresh(txn, now, machines=machines))
        return now

    @cached_property
    def _starts(self) -> Starts:
        return Starts(self.servers, self._may_start)

    @cached_property
    def _stops(self) -> Stops:
        return Stops(
            self.world,
            self.servers,
            lambda lease: self._current(lease) is not None,
            self._say_once,
            lambda about: self._said.pop(about, None),
        )

    # -- 1. the policy ------------------------------------------------------------------------------------------

    def reload_policy(self) -> None:
        if self.reload():
            log.info("a new policy is in force")

    # -- 2. machines, leases and world --------------------------------------------------------------------------------------

    def look_at_nodes(self) -> None:
        self.count_nodes()

    def reconcile(self) -> None:
        """Read leases, then look at the world, then ask the hub: what is in none of them was started meanwhile."""
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
        """Known here to the tick; written down now and then, which is enough for a clock that takes over."""
        self.picture.saw([lease.id for lease in leases], now)
        written = {lease.id: self._written_seen.get(lease.id, 0) for lease in leases}
        due = [lease_id for lease_id, at in written.items() if not 0 <= now - at < SEEN_AFTER]
        self._written_seen = written | dict.fromkeys(due, now)
        if due:
            with self.admission.store.booking() as txn:
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
        self.metrics.corrected("adopted")
        log.warning("adopted a server that the ledger did not know", lease=lease.id, person=lease.person)

    # -- 3. hours and notices ----------------------------------------------------------------------------------------

    def keep_accounts(self) -> None:
        """Charge what was seen alive; then give notice to what must end earlier, or ends soon."""
        store = self.admission.store
        if due := accounts.due_for_charge(self.picture):
            with store.booking() as txn:
                accounts.charge(txn, due)
        now = self._refresh()
        cut: list[Lease] = []
        due_now = accounts.ending_soon(self.picture, now)
        if self._budgets_seen is not self.picture.policy or not 0 <= now - self._budgets_at < BUDGETS_AFTER:
            self._budgets_seen, self._budgets_at = self.picture.policy, now
            due_now += accounts.used_up(self.picture, now)
        if due_now:
            with store.booking() as txn:
                now = max(self.admission.clock.now(), txn.latest())
                cut = accounts.give_notice(txn, due_now, now, LEADER)
        for lease in cut:
            log.info("its hours are used up", lease=lease.id, person=lease.person, ends_at=lease.ends_at)

    # -- 4. windows of reservations ------------------------------------------------------------------------------------

    def keep_windows(self) -> None:
        """What begins, shrinks or is over, and what of it nobody uses."""
        now, reservations = self.admission.clock.now(), self.picture.reservations
        if reservations == self._windows and now < self._next_window:
            return
        if reservations or self._windows or self._windows is None:  # the first look: what was over meanwhile
            with self.admission.store.booking() as txn:
                now = max(now, txn.latest())
                keep_windows(txn, now)
        edge = next_edge(reservations, now)
        self._next_window = min(now + MINUTE, now + MINUTE if edge is None else edge)
        self._windows = reservations

    # -- 5. ends -------------------------------------------------------------------------------------------------------

    def stop_ended(self) -> None:
        """Stop what is over through the hub; without it, when that has been in vain for long."""
        self._refresh()
        now = self.admission.clock.now()
        leases = list(self.picture.leases.values())
        self._stops.keep(lease.id for lease in leases if lease.state is LeaseState.ENDING)
        for lease in leases:
            ends = lease.state is LeaseState.RUNNING and (
                lease.ends_at <= now or self._nobody_came(lease, now)
            )
            if not ends and lease.state is not LeaseState.ENDING:
                continue
            if not self._still_leads():
                return
            if ends:
                change = _end_what_is_over(self._why(lease), unclaimed=lease.ends_at > now)
                ended = self.admission.change(lease.id, change, LeaseState.RUNNING)
                if ended is None or ended.state is not LeaseState.ENDING:
                    continue
                lease = ended
            self._stops.order(lease, now, self._hub_silent_since)

    def _nobody_came(self, lease: Lease, now: Instant) -> bool:
        """Whether a server that was started for somebody has been ready for as long as it waits for them."""
        assert self.picture.policy is not None
        since = self._ready.get(lease.id)
        return lease.unclaimed and since is not None and now - since >= self.picture.policy.queue.claim

    def _why(self, lease: Lease) -> str:
        """What last moved its end: somebody it was taken back for, hours that ran out, or nothing but time."""
        unless = lease.ends_unless_taken
        if lease.noticed_for is not None and unless is not None and lease.ends_at < unless:
            return TAKEN_BACK
        with self.admission.store.reading() as txn:
            moves = [entry.why for entry in _entries(txn, lease) if entry.kind in MOVES_END]
        return Code.BUDGET_SPENT.value if moves and moves[-1] == Code.BUDGET_SPENT.value else ENDED

    # -- 6. the line ---------------------------------------------------------------------------------------------------

    def serve_if_anything_is_new(self) -> None:
        """Between two ticks. Reads one number where nothing was written."""
        with self.admission.store.reading() as txn:
            newest = txn.newest_entry()
        if newest != self.picture.newest and self._still_leads():
            self.serve_the_line()

    def serve_the_line(self) -> None:
        """Plan, write down what the plan says, and only then start those whose turn has come."""
        now = self._refresh()
        picture = self.picture
        if not picture.tickets and not any(lease.noticed_for for lease in picture.leases.values()):
            return
        newest, at = self._planned
        if newest == picture.newest and 0 <= now - at < PLAN_AFTER:
            return
        looked_at = (picture.newest, now)
        times = len(picture.tickets) <= FEW or not 0 <= now - self._timed_at < PLAN_AFTER
        found = plan(picture.scene(), now, brief=not times)
        if not times:
            found = with_former_times(found, picture.tickets, near=FEW)
        done = Enacted()
        if anything_to_do(found, picture.tickets):
            if not self._still_leads():
                return
            with self.admission.store.booking() as txn:
                now = max(self.admission.clock.now(), txn.latest())
                done = enact(txn, found, picture.tickets, now, LEADER)
        # Not before it is written: what a database did not take is planned anew at the next look.
        self._planned = looked_at
        self._timed_at = looked_at[1] if times else self._timed_at
        picture.look(done.outlooks)
        for lease in done.noticed:
            log.info("taken back", lease=lease.id, person=lease.person, ends_at=lease.ends_at)
        for lease, options in done.starts:
            log.info("its turn has come", lease=lease.id, person=lease.person, server=lease.server)
            self._starts.order(lease, options)
        if done.starts:
            self._starts.settle(self.starts_seconds)
            self._note_starts()

    # -- 7. what is shown ----------------------------------------------------------------------------------------------

    def show(self) -> None:
        self.metrics.show(self.picture, self.admission.clock.now())


def _end_what_is_over(why: str, *, unclaimed: bool) -> Change:
    """The end may have moved since it was looked at, or the person have come."""

    def change(ledger: Ledger, lease: Lease, now: Instant) -> Lease:
        if unclaimed:
            return end(LEADER, UNCLAIMED)(ledger, lease, now) if lease.unclaimed else lease
        return end(LEADER, why)(ledger, lease, now) if lease.ends_at <= now else lease

    return change


def _entries(txn: Transaction, lease: Lease) -> Iterator[Entry]:
    after = 0
    while page := txn.entries(after=after, lease=lease.id):
        yield from (entry for _, entry in page)
        after = page[-1][0]

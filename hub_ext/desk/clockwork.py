"""The clock: makes leases agree with what runs, serves the line, charges what ran, gives notice, and stops what is over.

One process at a time does it (a leadership row in the database). Each tick is a list of independent steps; a step
that fails is logged and done again at the next tick, and every step done twice changes nothing. Between ticks the clock
looks whether anything was written, so that whoever waits starts as soon as there is room.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import structlog

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.decision import Code
from hub_ext.core.errors import FaultyDocument, HubError
from hub_ext.desk import accounts, keeping_clusters
from hub_ext.desk.executor import Enacted, anything_to_do, enact, with_former_times
from hub_ext.desk.leading import LEADER
from hub_ext.desk.reconciling import Reconciling
from hub_ext.desk.stops import Stops
from hub_ext.desk.windows import keep_windows
from hub_ext.quota.cluster import is_part
from hub_ext.quota.ledger import TAKEN_BACK, Entry, EntryKind, Ledger
from hub_ext.quota.model import SCHEDULER, Lease, LeaseState, Policy
from hub_ext.quota.plan import plan
from hub_ext.quota.ports import Transaction
from hub_ext.quota.service import Change, end
from hub_ext.quota.windows import next_edge

log = structlog.get_logger("hub_ext.clock")

TICK_SECONDS = 2.0
LOOK_SECONDS = 0.25
"""How often the clock looks between ticks whether anything was written."""
BUDGETS_AFTER = 10
"""How often it is looked whether a budget was overdrawn: its leases have their grace then anyway."""
PLAN_AFTER = 10
"""Time alone (patience, windows, new hours) is looked at so often; whatever is written, at once."""
FEW = 200
"""With so many tickets expected times are worked out in every plan; with more, and the places behind, only so often."""
ENDED, UNCLAIMED = "ended", "unclaimed"
MOVES_END = (EntryKind.NOTICED, EntryKind.EXTENDED, EntryKind.WITHDRAWN)


@dataclass
class Clockwork(Reconciling):
    _budgets_seen: Policy | None = None
    _budgets_at: Instant = 0
    _planned: tuple[int | None, Instant] = (None, 0)
    """What the last plan had seen, and when it was made."""
    _timed_at: Instant = 0
    """When it was last looked when those who wait may expect their turn."""
    _next_window: Instant = 0
    _windows: object = None

    def run(self, stop: threading.Event, *, seconds: float = TICK_SECONDS) -> None:
        """Tick until `stop` is set; in between, serve the line as soon as anything was written."""
        next_tick = 0.0
        while not stop.is_set():
            began, worked = time.monotonic(), time.thread_time()
            if began >= next_tick:
                self.tick()
                next_tick = began + seconds
            elif self._leads_since is not None:
                self._do(self.serve_if_anything_is_new)
            # Never more than half of a processor: the pages are served by the same process. What was only waited for
            # (a busy hub, the database) is no reason to let those in line wait as well.
            stop.wait(max(LOOK_SECONDS, time.thread_time() - worked))
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
            self.keep_clusters,
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

    def _forget(self) -> None:
        super()._forget()
        self._budgets_seen, self._next_window, self._planned, self._timed_at = None, 0, (None, 0), 0
        self._stops.forget()

    @cached_property
    def _stops(self) -> Stops:
        return Stops(
            self.world,
            self.servers,
            lambda lease: self._current(lease) is not None,
            self._say_once,
            lambda about: self._said.pop(about, None),
        )

    # -- 1, 2. the policy, machines; then leases and world (`reconciling`) ----------------------------------------------

    def reload_policy(self) -> None:
        if self.reload():
            log.info("a new policy is in force")

    def look_at_nodes(self) -> None:
        self.count_nodes()

    # -- 3. hours and notices ----------------------------------------------------------------------------------------

    def keep_accounts(self) -> None:
        """Charge what was seen alive; then give notice to what must end earlier, or ends soon."""
        if due := accounts.due_for_charge(self.picture):
            with self._writing() as txn:
                accounts.charge(txn, due)
        now = self._refresh()
        cut: list[Lease] = []
        due_now = accounts.ending_soon(self.picture, now)
        if self._budgets_seen is not self.picture.policy or not 0 <= now - self._budgets_at < BUDGETS_AFTER:
            self._budgets_seen, self._budgets_at = self.picture.policy, now
            due_now += accounts.used_up(self.picture, now)
        if due_now:
            with self._writing() as txn:
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
            with self._writing() as txn:
                now = max(now, txn.latest())
                keep_windows(txn, now)
        edge = next_edge(reservations, now)
        self._next_window = min(now + MINUTE, now + MINUTE if edge is None else edge)
        self._windows = reservations

    # -- 5. clusters ---------------------------------------------------------------------------------------------------

    def keep_clusters(self) -> None:
        """What is left of clusters whose scheduler is over ends, and no worker outlives its scheduler."""
        self._refresh()
        names = keeping_clusters.due(self.picture.leases.values(), self.picture.tickets.values())
        if not names:
            return
        with self._writing() as txn:
            now = max(self.admission.clock.now(), txn.latest())
            ended = keeping_clusters.settle(txn, names, now, LEADER)
        for lease in ended:
            log.info("ends with its cluster", lease=lease.id, person=lease.person, cluster=lease.server)

    # -- 6. ends -------------------------------------------------------------------------------------------------------

    def stop_ended(self) -> None:
        """Stop what is over through the hub; without it, when that has been in vain for long.

        Of clusters also what never ran: the gateway may hold it for a worker that waits for a machine.
        """
        self._refresh()
        now = self.admission.clock.now()
        leases = list(self.picture.leases.values())
        self._stops.keep(lease.id for lease in leases if lease.state is LeaseState.ENDING)
        for lease in leases:
            may_end = lease.state is LeaseState.RUNNING or (
                is_part(lease) and lease.state is LeaseState.BOOKED
            )
            ends = may_end and (lease.ends_at <= now or self._nobody_came(lease, now))
            if not ends and lease.state is not LeaseState.ENDING:
                continue
            if not self._still_leads():
                return
            if ends:
                change = _end_what_is_over(self._why(lease), unclaimed=lease.ends_at > now)
                ended = self.admission.change(lease.id, change, lease.state)
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

    # -- 7. the line ---------------------------------------------------------------------------------------------------

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
            with self._writing() as txn:
                now = max(self.admission.clock.now(), txn.latest())
                done = enact(txn, found, picture.tickets, now, LEADER)
        # Not before it is written: what a database did not take is planned anew at the next look.
        self._planned = looked_at
        self._timed_at = looked_at[1] if times else self._timed_at
        picture.look(done.outlooks)
        for lease in done.noticed:
            log.info("taken back", lease=lease.id, person=lease.person, ends_at=lease.ends_at)
        if any(lease.kind == SCHEDULER for lease in done.noticed):
            self.keep_clusters()
        for lease, options in done.starts:
            log.info("its turn has come", lease=lease.id, person=lease.person, server=lease.server)
            self._starts.order(lease, options)
        if done.starts:
            self._starts.settle(self.starts_seconds)
            self._note_starts()

    # -- 8. what is shown ----------------------------------------------------------------------------------------------

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

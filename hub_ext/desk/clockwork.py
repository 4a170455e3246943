"""The clock: makes leases agree with what runs, charges what ran, gives notice, and stops what is over.

One process at a time does it (a leadership row in the database). Each tick is a list of independent steps; a step
that fails is logged and done again at the next tick, and every step done twice changes nothing.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.decision import Code
from hub_ext.core.errors import FaultyDocument, HubError
from hub_ext.quota.ledger import EntryKind, Ledger, charged_pool
from hub_ext.quota.model import SERVER, Ask, Lease, LeaseState
from hub_ext.quota.overrun import overrun_cuts
from hub_ext.quota.policy import cost_of
from hub_ext.quota.ports import Running, Servers, World
from hub_ext.quota.reconcile import Adopt, Instruction, Release, Seen, SetRunning, StopRunning, reconcile
from hub_ext.quota.service import Admission, end, run

log = structlog.get_logger("hub_ext.clock")

TICK_SECONDS = 2
CHARGE_AFTER = MINUTE
"""Running leases are charged about this often; the ledger's slices are never longer than five minutes."""
LEADER = "clock"
LEADER_SECONDS = 10
HUB_SILENT = 2 * MINUTE
"""What should have ended is ended without the hub once it has been silent for so long."""
ENDED, ENDS_SOON = "ended", "ends-soon"


@dataclass
class Clockwork:
    """`reload` loads a policy file that changed; it raises FaultyDocument and leaves the old one in force."""

    admission: Admission
    world: World
    servers: Servers
    reload: Callable[[], bool] = lambda: False
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    _asked_to_stop: dict[str, Instant] = field(default_factory=dict)
    _hub_seen: Instant | None = None
    _said: str = ""

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
        for step in (self.reload_policy, self.reconcile, self.keep_accounts, self.stop_ended):
            try:
                step()
            except FaultyDocument as error:
                self._say_once(f"the policy stays as it was: {error}")
            except HubError as error:
                self._say_once(f"{step.__name__}: {error}")
        return True

    def _lead(self) -> bool:
        try:
            with self.admission.store.booking() as txn:
                return txn.take_leadership(LEADER, self.holder, self.admission.clock.now(), LEADER_SECONDS)
        except HubError as error:
            self._say_once(f"the clock stands still: {error}")
            return False

    def _say_once(self, text: str) -> None:
        if text != self._said:
            log.warning(text)
        self._said = text

    # -- 1. the policy ------------------------------------------------------------------------------------------

    def reload_policy(self) -> None:
        if self.reload():
            log.info("a new policy is in force")

    # -- 2. leases and world --------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Read leases, then look at the world, then ask the hub: what is in none of them was started meanwhile."""
        now = self.admission.clock.now()
        with self.admission.store.reading() as txn:
            leases = txn.live_leases()
        world = self.world.running()
        known = self._known_servers(now) if leases or world else {}
        live = {lease.id for lease in leases}
        with self.admission.store.reading() as txn:
            others = {running.lease: txn.lease(running.lease) for running in world if running.lease not in live}
        released = frozenset(name for name, lease in others.items() if lease is not None and not lease.live)
        started_meanwhile = {name for name, lease in others.items() if lease is not None and lease.live}
        looked_at = [running for running in world if running.lease not in started_meanwhile]
        instructions = reconcile(leases, released, looked_at, known, now)
        self._mark_seen([one.lease for one in instructions if isinstance(one, Seen)], now)
        for instruction in instructions:
            self._enact(instruction)

    def _known_servers(self, now: Instant) -> dict[tuple[str, str], str | None] | None:
        try:
            known = self.servers.active()
        except HubError:
            return None
        self._hub_seen = now
        return known

    def _mark_seen(self, leases: Sequence[Lease], now: Instant) -> None:
        if leases:
            with self.admission.store.booking() as txn:
                txn.seen([lease.id for lease in leases], now)

    def _enact(self, instruction: Instruction) -> None:
        match instruction:
            case SetRunning(lease, running, at):
                change = run(running.handle, at=at, who=LEADER)
                self.admission.change(lease.id, change, expected=LeaseState.BOOKED)
            case Release(lease, at, why):
                current = self._current(lease)
                if current is not None:
                    log.info("released", lease=lease.id, person=lease.person, server=lease.server, why=why)
                    self.admission.release_now(lease.id, LEADER, why, at)
            case StopRunning(running):
                log.info("ended what no lease stands for", lease=running.lease, handle=running.handle)
                self.world.stop(running)
            case Adopt(running):
                self._adopt(running)
            case Seen():
                pass

    def _current(self, lease: Lease) -> Lease | None:
        """The lease, unless it changed since it was looked at: then the next tick looks again."""
        with self.admission.store.reading() as txn:
            current = txn.lease(lease.id)
        same = current is not None and (current.state, current.handle) == (lease.state, lease.handle)
        return current if same else None

    def _adopt(self, running: Running) -> None:
        """Book what runs with our labels and is in no ledger as it stands, also above quota."""
        facts = dict(running.labels or {})
        with self.admission.store.booking() as txn:
            policy = txn.policy
            pool, person = str(facts.get("pool", "")), str(facts.get("person", ""))
            if pool not in policy.pools:
                log.warning("cannot adopt: its pool is not in the policy", lease=running.lease, pool=pool)
                return
            amounts = {str(name): int(amount) for name, amount in (facts.get("amounts") or {}).items()}
            now = max(self.admission.clock.now(), txn.latest())
            ask = Ask(running.lease, person, pool, amounts, SERVER, facts.get("profile"), server=str(facts.get("server", "")))
            ledger = txn.ledger(policy.path(pool), [person])
            lease = ledger.adopt(
                ask,
                now,
                started_at=min(now, running.started_at),
                ends_at=int(facts.get("ends_at") or now + policy.session(pool).max),
                cost=cost_of(policy, ask, guaranteed=ledger.would_be_guaranteed(ask)),
                handle=running.handle,
                node=running.node,
                devices=tuple(facts.get("devices") or ()),
            )
            txn.save(ledger, [lease])
        log.warning("adopted a server that the ledger did not know", lease=lease.id, person=person)

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
        """Stop what is over through the hub; without it, when it has been silent for long."""
        now = self.admission.clock.now()
        with self.admission.store.reading() as txn:
            started = [lease for lease in txn.live_leases() if lease.started_at is not None]
        for lease in started:
            if lease.state is LeaseState.RUNNING and lease.ends_at <= now:
                why = Code.BUDGET_SPENT.value if self._ran_out(lease) else ENDED
                self.admission.change(lease.id, end(LEADER, why), expected=LeaseState.RUNNING)
                self._order_stop(lease, now)
            elif lease.state is LeaseState.ENDING:
                self._order_stop(lease, now)

    def _ran_out(self, lease: Lease) -> bool:
        with self.admission.store.reading() as txn:
            entries = [entry for _, entry in txn.entries(lease=lease.id)]
        return any(entry.kind is EntryKind.NOTICED and entry.why == Code.BUDGET_SPENT.value for entry in entries)

    def _order_stop(self, lease: Lease, now: Instant) -> None:
        asked = self._asked_to_stop.get(lease.id)
        if asked is not None and now - asked < MINUTE:
            return
        try:
            if self.servers.stop(lease.person, lease.server):
                self._asked_to_stop[lease.id] = now
                return
        except HubError as error:
            silent = now - (self._hub_seen if self._hub_seen is not None else lease.ends_at)
            if silent < HUB_SILENT:
                self._say_once(f"a server that is over cannot be stopped yet: {error}")
                return
        for running in self.world.running():
            if running.lease == lease.id:
                self.world.stop(running)
                return


def _charge(ledger: Ledger, leases: Iterable[Lease]) -> dict[str, Lease]:
    """Each lease is charged up to when it was last seen."""
    return {
        lease.id: ledger.accrue(lease, lease.seen_at)
        for lease in leases
        if lease.seen_at is not None and lease.seen_at - lease.charged_until >= CHARGE_AFTER
    }


def _cut_overruns(ledger: Ledger, leases: Iterable[Lease], now: Instant) -> dict[str, Lease]:
    return {
        lease.id: ledger.notice(lease, ends_at, now, who=LEADER, why=Code.BUDGET_SPENT.value)
        for lease, ends_at, _facts in overrun_cuts(ledger.budgets, list(leases), now)
    }


def _remind(ledger: Ledger, leases: Iterable[Lease], now: Instant) -> dict[str, Lease]:
    """Once for each lease: its end is near. The end itself does not move."""
    policy, reminded = ledger.policy, {}
    for lease in leases:
        pool = charged_pool(policy, lease)
        notice = policy.session(pool).notice if pool else 0
        due = lease.state is LeaseState.RUNNING and lease.noticed_at is None and now < lease.ends_at <= now + notice
        if due:
            reminded[lease.id] = ledger.notice(lease, lease.ends_at, now, who=LEADER, why=ENDS_SOON)
    return reminded

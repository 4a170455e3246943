"""The quota's use cases: admit, preview, and the life of a lease, each one short transaction.

Everything that touches the database runs in a thread: no query blocks an event loop. `Admission` is what the
spawners, the clock, the pages and the command line call.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

from hub_ext.core.clock import Clock, Instant
from hub_ext.core.decision import Admit, Code, Decision, Wait
from hub_ext.core.errors import BadInput, NameTaken
from hub_ext.core.people import Person
from hub_ext.quota.budget import BudgetState, binding
from hub_ext.quota.devices import choose_devices
from hub_ext.quota.ledger import Entry, EntryKind, Ledger, find_budget, refold
from hub_ext.quota.model import SERVER, Ask, Grant, Lease, LeaseState, Node, Policy
from hub_ext.quota.policy import Snapshot, decide, first_end
from hub_ext.quota.ports import Store, Transaction
from hub_ext.quota.simulate import plain
from hub_ext.quota.sums import Sums

ResultT = TypeVar("ResultT")
Change = Callable[[Ledger, Lease, Instant], Lease]
"""One change of a lease through the ledger, at an instant."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision, and the lease if it admitted."""

    decision: Decision
    policy: Policy
    at: Instant
    lease: Lease | None = None


@dataclass(frozen=True)
class Preview:
    """What each ask would be answered now, all from one snapshot."""

    at: Instant
    policy: Policy
    decisions: dict[str, Decision] = field(default_factory=dict)
    budgets: list[BudgetState] = field(default_factory=list)
    """Every budget that binds the person in the pools they belong to."""
    own: list[Lease] = field(default_factory=list)
    nodes: tuple[Node, ...] | None = None


def new_lease_id() -> str:
    return uuid.uuid4().hex


class Admission:
    """Books, ends and shows leases. One object per process; its methods may be called from any task or thread."""

    def __init__(self, store: Store, clock: Clock, *, threads: int = 4) -> None:
        self.store = store
        self.clock = clock
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="quota")

    async def in_thread(self, work: Callable[..., ResultT], *args: object) -> ResultT:
        """Run a blocking use case without blocking the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    # -- the way of one click -------------------------------------------------------------------------------

    async def admit(self, person: Person, ask: Ask) -> Answer:
        """Decide and, if admitted, book, in one transaction. Raises StoreUnavailable with nothing booked."""
        return await self.in_thread(self.admit_now, person, ask)

    def admit_now(self, person: Person, ask: Ask) -> Answer:
        with self.store.booking() as txn:
            now = self._now(txn)
            # 1. Asking twice is asking once.
            existing = txn.lease(ask.id)
            if existing is not None and not existing.live:
                raise BadInput(f"Ask {ask.id} was admitted before and is over; ask anew, with another id")
            if existing is not None:
                return Answer(_as_decision(existing), txn.policy, now, existing)
            # 2. A new start of a server takes over what that server still holds.
            own = txn.live_leases(person=ask.person)
            if ask.kind == SERVER:
                former = [held for held in own if (held.kind, held.server) == (SERVER, ask.server)]
                for held in former:
                    self._release(txn, held, _last_alive(held, now), why="taken-over")
                own = [held for held in own if held not in former]
            # 3. Decide on a snapshot.
            ledger = txn.ledger(_path(txn.policy, ask.pool), [ask.person])
            nodes = txn.nodes()
            snapshot = Snapshot(ledger.tree, ledger.sums, nodes, ledger.grants, {person.name: person}, own)
            live = cache(txn.live_leases)  # not read where nobody asks
            decision, devices = _with_devices(decide(snapshot, ask, now), ask, nodes, live)
            # 4. Book, with devices where this machine's are handed out here.
            lease: Lease | None = None
            if isinstance(decision, Admit):
                lease = ledger.book(ask, decision, now, devices=devices)
            # 5. A wait or refusal is written down as well: people ask later why.
            else:
                decision = _first_end(decision, live, txn.policy)
                ledger.entries.append(_decided(ask, decision, now))
            txn.save(ledger, [lease] if lease else [])
            return Answer(decision, txn.policy, now, lease)

    async def preview(self, person: Person, asks: Sequence[Ask]) -> Preview:
        """What each ask would be answered, and the person's budgets, from one snapshot; nothing is booked."""
        return await self.in_thread(self.preview_now, person, asks)

    def preview_now(self, person: Person, asks: Sequence[Ask]) -> Preview:
        with self.store.reading() as txn:
            now = self._now(txn)
            policy = txn.policy
            pools = {
                name for pool in {*person.pools, *(ask.pool for ask in asks)} for name in _path(policy, pool)
            }
            ledger = txn.ledger(pools, [person.name])
            own = txn.live_leases(person=person.name)
            nodes = txn.nodes()
            snapshot = Snapshot(ledger.tree, ledger.sums, nodes, ledger.grants, {person.name: person}, own)
            live = cache(txn.live_leases)
            decisions = {}
            for ask in asks:
                decision, _ = _with_devices(decide(snapshot, ask, now), ask, nodes, live)
                decisions[ask.id] = _first_end(decision, live, policy)
            return Preview(now, policy, decisions, self._budgets_of(ledger, person, now), own, nodes)

    def _budgets_of(self, ledger: Ledger, person: Person, now: Instant) -> list[BudgetState]:
        seen = {}
        for pool in person.pools:
            for of in binding(ledger.policy, _path(ledger.policy, pool), person.name):
                state = ledger.budgets.state(of, now)
                if state is not None:
                    seen[(of.pool, of.budget.name)] = state
        return list(seen.values())

    # -- the life of a lease -----------------------------------------------------------------------------------

    async def running(self, lease_id: str, handle: str, node: str | None = None) -> Lease | None:
        """What the lease pays for runs since now."""
        return await self.in_thread(self.change, lease_id, run(handle, node))

    async def ending(self, lease_id: str, who: str, why: str) -> Lease | None:
        """A stop was ordered; the lease counts until what ran is seen gone."""
        return await self.in_thread(self.change, lease_id, end(who, why))

    async def release(self, lease_id: str, *, who: str = "", why: str = "") -> Lease | None:
        """What the lease ran is gone now, or never ran."""
        return await self.in_thread(self.release_now, lease_id, who, why)

    def release_now(
        self, lease_id: str, who: str = "", why: str = "", at: Instant | None = None
    ) -> Lease | None:
        with self.store.booking() as txn:
            lease = txn.lease(lease_id)
            if lease is None or not lease.live:
                return lease
            return self._release(txn, lease, self._now(txn) if at is None else at, who=who, why=why)

    def change(self, lease_id: str, change: Change, expected: LeaseState | None = None) -> Lease | None:
        """Put one change through the ledger; None where there is no such live lease (in the expected state)."""
        with self.store.booking() as txn:
            lease = txn.lease(lease_id)
            if lease is None or not lease.live or (expected is not None and lease.state is not expected):
                return None
            ledger = txn.ledger(_loaded(txn.policy, [lease]), [lease.person])
            changed = change(ledger, lease, self._now(txn))
            txn.save(ledger, [changed])
            return changed

    def _release(self, txn: Transaction, lease: Lease, at: Instant, *, who: str = "", why: str = "") -> Lease:
        """Release, and promote the borrowed leases that now fit a guarantee."""
        candidates = txn.borrowed_leases(_sharing_guarantee(txn.policy, lease))
        ledger = txn.ledger(
            _loaded(txn.policy, [lease, *candidates]), {lease.person, *(c.person for c in candidates)}
        )
        released = ledger.release(lease, at, who=who, why=why)
        promoted = ledger.promote([c for c in candidates if c.id != lease.id], max(at, self._now(txn)))
        txn.save(ledger, [released, *promoted])
        return released

    async def find(self, lease_id: str) -> Lease | None:
        """The lease as it stands, also one that was released; None where there never was one."""
        return await self.in_thread(self.find_now, lease_id)

    def find_now(self, lease_id: str) -> Lease | None:
        with self.store.reading() as txn:
            return txn.lease(lease_id)

    # -- operators -----------------------------------------------------------------------------------------------

    def load_policy(self, text: str, policy: Policy, *, who: str) -> list[Lease]:
        """Put a policy in force: refold every sum under it. Returns the leases that became guaranteed."""
        with self.store.booking() as txn:
            now = self._now(txn)
            kept = txn.ledger(None).sums if txn.policy_digest else Sums()
            sums = refold(policy, txn.live_leases(), txn.charges(), kept, txn.grants(), since=now)
            txn.put_policy(text, policy, sums, now=now, who=who)
            ledger = txn.ledger(None)
            promoted = ledger.promote(txn.borrowed_leases(policy.pools), now)
            txn.save(ledger, promoted)
            return promoted

    def grant(
        self,
        pool: str,
        units: int,
        until: Instant,
        *,
        why: str,
        who: str,
        period: str | None,
        person: str | None,
    ) -> Grant:
        """Put a pot of hours beside one budget. Raises BadInput where it is not clear which, or has run out."""
        with self.store.booking() as txn:
            now = self._now(txn)
            try:
                of = find_budget(txn.policy, pool, period, person)
            except ValueError as error:
                raise BadInput(str(error)) from error
            if until <= now:
                raise BadInput("The grant would have run out already; give a later date with --until")
            ledger = txn.ledger(_path(txn.policy, pool), [person or ""])
            grant = Grant(new_lease_id(), pool, of.budget.name, of.person, units, until, why, now, who)
            ledger.grant(grant)
            txn.save(ledger, [])
            return grant

    def put_person(self, person: Person, *, issuer: str = "", subject: str = "") -> None:
        with self.store.booking() as txn:
            txn.put_person(person, issuer=issuer, subject=subject, now=self._now(txn))

    def sign_in(self, person: Person, issuer: str, subject: str) -> None:
        """Write down somebody whom a provider signed in. Raises NameTaken for a name that belongs to another.

        A name that no provider's person has had yet becomes this one's: also a demo person's.
        """
        with self.store.booking() as txn:
            if txn.holder(person.name) not in (None, ("", ""), (issuer, subject)):
                raise NameTaken(f"The user name {person.name} belongs to somebody else.")
            txn.put_person(person, issuer=issuer, subject=subject, now=self._now(txn))

    def name_of(self, issuer: str, subject: str) -> str | None:
        with self.store.reading() as txn:
            return txn.name_of(issuer, subject)

    def person(self, name: str) -> Person | None:
        with self.store.reading() as txn:
            return txn.person(name)

    def put_nodes(self, nodes: Sequence[Node]) -> None:
        with self.store.booking() as txn:
            txn.put_nodes(nodes)

    def _now(self, txn: Transaction) -> Instant:
        """Never before the newest entry: a clock that was set back charges nothing twice."""
        return max(self.clock.now(), txn.latest())


def run(handle: str, node: str | None = None, *, at: Instant | None = None, who: str = "") -> Change:
    """What the lease pays for runs, since `at` or now."""

    def change(ledger: Ledger, lease: Lease, now: Instant) -> Lease:
        return ledger.run(lease, now if at is None else at, handle=handle, node=node, who=who)

    return change


def end(who: str, why: str) -> Change:
    """A stop was ordered."""

    def change(ledger: Ledger, lease: Lease, now: Instant) -> Lease:
        return ledger.end(lease, now, who=who, why=why)

    return change


def _path(policy: Policy, pool: str) -> tuple[str, ...]:
    return policy.path(pool) if pool in policy.pools else ()


def _loaded(policy: Policy, leases: Iterable[Lease]) -> set[str]:
    """The pools whose sums a change of these leases reads or writes: where they were booked, and where they count."""
    pools: set[str] = set()
    for lease in leases:
        pools |= set(lease.path)
        for name in lease.path:
            pools |= set(_path(policy, name))
    return pools


def _sharing_guarantee(policy: Policy, lease: Lease) -> set[str]:
    """The pools whose asks draw on a guarantee that this lease may free."""
    pool = next((name for name in lease.path if name in policy.pools), None)
    if pool is None or not lease.guaranteed:
        return set()
    homes = {policy.home(pool, resource) for resource in lease.amounts}
    return {name for home in homes if home is not None for name in policy.subtree(home)}


def _last_alive(lease: Lease, now: Instant) -> Instant:
    return now if lease.started_at is None else max(lease.seen_at or 0, lease.charged_until)


def _with_devices(
    decision: Decision, ask: Ask, nodes: Sequence[Node] | None, live: Callable[[], Sequence[Lease]]
) -> tuple[Decision, tuple[str, ...]]:
    """The devices of an admitted ask; a wait where the machine has room by its numbers, but no device left."""
    admitted = decision.node if isinstance(decision, Admit) else None
    node = next((node for node in nodes or () if node.name == admitted), None)
    if node is None or not node.devices:
        return decision, ()
    taken = {device for lease in live() if lease.node == node.name for device in lease.devices}
    devices = choose_devices(node, ask.amounts, taken)
    if devices is None:
        return Wait(Code.NO_NODE_FREE, {"pool": ask.pool, "asked": dict(ask.amounts), "nodes": 1}), ()
    return decision, devices


def _first_end(decision: Decision, live: Callable[[], Sequence[Lease]], policy: Policy) -> Decision:
    return first_end(decision, live(), policy) if isinstance(decision, Wait) else decision


def _as_decision(lease: Lease) -> Admit:
    return Admit(lease.guaranteed, lease.lender, lease.ends_at, lease.cost, lease.node)


def _decided(ask: Ask, decision: Decision, now: Instant) -> Entry:
    assert not isinstance(decision, Admit)
    facts = {"ask": ask.id, "profile": ask.profile, "server": ask.server, "facts": plain(decision.facts)}
    return Entry(
        EntryKind.DECIDED,
        now,
        pool=ask.pool,
        person=ask.person,
        who=ask.person,
        why=decision.code.value,
        facts=facts,
    )

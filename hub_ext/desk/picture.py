"""What the clock knows of the ledger: read whole once, and from then on kept in step by the ledger's entries.

Every lease, sum and ticket that is made, changed or ended has an entry that names it, its pool and its person. So
between two looks only what the new entries name is read again, whatever the number of leases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.people import Person
from hub_ext.quota.booking import people_of, recent_use
from hub_ext.quota.ledger import Entry
from hub_ext.quota.model import Grant, Lease, Node, Outlook, Policy, Reservation, Ticket
from hub_ext.quota.plan import Scene
from hub_ext.quota.policy import Snapshot
from hub_ext.quota.ports import Transaction
from hub_ext.quota.queue import Recent
from hub_ext.quota.sums import SumKey, Sums
from hub_ext.quota.tree import tree_of

MOST_ENTRIES: Final = 2000
"""After more new entries than this, all is read anew."""
USE_AGAIN_AFTER: Final = MINUTE
"""What people used lately is added up again after so long."""


@dataclass
class Picture:
    policy: Policy | None = None
    leases: dict[str, Lease] = field(default_factory=dict)
    """The live ones by id."""
    seen: dict[str, Instant] = field(default_factory=dict)
    """By lease, when what it runs was last seen alive by this clock, which is written down less often."""
    tickets: dict[str, Ticket] = field(default_factory=dict)
    reservations: Sequence[Reservation] = ()
    nodes: tuple[Node, ...] | None = None
    grants: Sequence[Grant] = ()
    people: dict[str, Person] = field(default_factory=dict)
    """Those who wait."""
    recent: Recent = field(default_factory=dict)
    newest: int | None = None
    """The number of the last entry that was taken in; None before the first look."""
    _digest: str = ""
    _sums: dict[SumKey, int] = field(default_factory=dict)
    _keys: dict[str, set[SumKey]] = field(default_factory=dict)
    """By person ("" for the pools' own): the keys of their sums."""
    _used_at: Instant | None = None
    _looked_up: set[str] = field(default_factory=set)

    def forget(self) -> None:
        """Another clock may have led meanwhile: what was seen of the world no longer counts."""
        self.newest = None
        self.seen = {}

    def refresh(self, txn: Transaction, now: Instant, *, machines: bool = True) -> list[Entry]:
        """Take in what is new (without `machines`, of the ledger alone).

        Returns the entries that tell of it; none at the first look, and not the last of very many.
        """
        entries: list[Entry] = []
        newest = txn.newest_entry()
        self.policy = txn.policy
        if self.newest is not None and newest != self.newest:
            entries = [entry for _, entry in txn.entries(after=self.newest, limit=MOST_ENTRIES + 1)]
        if self.newest is None or self._digest != txn.policy_digest or len(entries) > MOST_ENTRIES:
            self._read_all(txn)
        elif entries:
            self._read_again(txn, entries)
        self.newest, self._digest = newest, txn.policy_digest
        if machines or self.nodes is None:
            self.nodes = txn.nodes()
        self.reservations = txn.reservations(now)
        if self.tickets:
            self._read_people(txn, now)
        return entries

    def scene(self) -> Scene:
        """What a plan looks at."""
        assert self.policy is not None
        snapshot = Snapshot(
            tree_of(self.policy),
            self.sums(),
            self.nodes,
            self.grants,
            self.people,
            reservations=self.reservations,
        )
        leases = list(self.leases.values())
        return Scene(snapshot, leases, list(self.tickets.values()), self.recent, self.reservations)

    def sums(self) -> Sums:
        return Sums(self._sums)

    def saw(self, lease_ids: Iterable[str], now: Instant) -> None:
        """What these leases run was alive at `now`."""
        self.seen = {lease_id: at for lease_id, at in self.seen.items() if lease_id in self.leases}
        self.seen |= dict.fromkeys(lease_ids, now)

    def seen_at(self, lease: Lease) -> Instant | None:
        return max(lease.seen_at or 0, self.seen.get(lease.id, 0)) or None

    def with_seen(self, lease: Lease) -> Lease:
        return replace(lease, seen_at=self.seen_at(lease))

    def look(self, outlooks: dict[str, Outlook]) -> None:
        """How these tickets were written down to stand."""
        for ticket_id, outlook in outlooks.items():
            if ticket_id in self.tickets:
                self.tickets[ticket_id] = replace(self.tickets[ticket_id], outlook=outlook)

    # -- reading ----------------------------------------------------------------------------------------------------

    def _read_all(self, txn: Transaction) -> None:
        self.leases = {lease.id: lease for lease in txn.live_leases()}
        self.tickets = {ticket.id: ticket for ticket in txn.tickets()}
        ledger = txn.ledger(None)
        self.grants = list(ledger.grants)
        self._sums, self._keys, self._used_at = {}, {}, None
        self._put_sums(ledger.sums)

    def _read_again(self, txn: Transaction, entries: Sequence[Entry]) -> None:
        named = {entry.lease for entry in entries if entry.lease is not None}
        for lease_id in named:
            self.leases.pop(lease_id, None)
        self.leases |= {lease.id: lease for lease in txn.leases_by_id(named) if lease.live}
        waits = named | {str(entry.facts["ticket"]) for entry in entries if entry.facts.get("ticket")}
        for ticket_id in waits:
            self.tickets.pop(ticket_id, None)
        self.tickets |= {ticket.id: ticket for ticket in txn.tickets_by_id(waits)}
        self._read_sums(txn, {entry.person for entry in entries if entry.person})

    def _read_sums(self, txn: Transaction, people: set[str]) -> None:
        assert self.policy is not None
        pools = set(self.policy.pools) | {key.pool for key in self._keys.get("", ())}
        ledger = txn.ledger(pools | {pool for lease in self.leases.values() for pool in lease.path}, people)
        self.grants = list(ledger.grants)
        # What grants paid is kept under their ids, where other sums have the person.
        for person in {"", *people, *(grant.id for grant in ledger.grants)}:
            for key in self._keys.pop(person, ()):
                del self._sums[key]
        self._put_sums(ledger.sums)

    def _put_sums(self, sums: Sums) -> None:
        for key, value in sums.items():
            self._sums[key] = value
            self._keys.setdefault(_owner(key), set()).add(key)

    def _read_people(self, txn: Transaction, now: Instant) -> None:
        wanted = {ticket.ask.person for ticket in self.tickets.values()}
        due = self._used_at is None or not 0 <= now - self._used_at < USE_AGAIN_AFTER
        if due or not wanted <= self._looked_up:
            self.people, self._looked_up = people_of(txn, self.tickets.values()), wanted
        if due:
            self.recent, self._used_at = recent_use(txn, now), now


def _owner(key: SumKey) -> str:
    """Nodes' sums stand under the node's name, and are always read with the pools' own."""
    return "" if key.kind in ("taken", "starting") else key.person

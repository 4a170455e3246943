"""What the quota's services need of a store, and of the world in which servers run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

from hub_ext.core.clock import Instant
from hub_ext.core.people import Person
from hub_ext.quota.ledger import Entry, Ledger
from hub_ext.quota.model import Grant, Lease, Node, Outlook, Policy, Reservation, Ticket
from hub_ext.quota.ports_hours import HoursRecords
from hub_ext.quota.sums import Sums


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one lease accrued on one local date, with what a report groups by."""

    day: date
    lease: Lease
    units: int
    seconds: int


class Transaction(HoursRecords, Protocol):
    """One consistent view of the database; with `Store.booking()` nobody else books until it ends.

    Everything is written when the block ends, or nothing where it raises.
    """

    @property
    def policy(self) -> Policy:
        """The policy in force in the database. Raises BadInput where there never was one."""

    @property
    def policy_digest(self) -> str:
        """Tells one text of a policy from another; empty where there never was one."""

    def latest(self) -> Instant:
        """The instant of the newest entry (0 for none): "now" is never before it."""

    def ledger(self, pools: Iterable[str] | None, people: Iterable[str] = ()) -> Ledger:
        """A ledger with the sums and grants of these pools (None: all pools, all people) and people loaded.

        Sums of nodes and of starts are always there. Whoever changes a lease loads its whole path and person.
        """

    def save(self, ledger: Ledger, leases: Iterable[Lease]) -> None:
        """Append the ledger's new entries and charges, write its changed sums and new grants, and these leases."""

    def lease(self, lease_id: str) -> Lease | None: ...

    def live_leases(self, *, person: str | None = None, pools: Iterable[str] | None = None) -> list[Lease]:
        """Leases that are not released, oldest booking first."""

    def live_by_end(self, after: tuple[Instant, str] | None = None, limit: int | None = None) -> list[Lease]:
        """The next leases that are not released behind this (end, id), the first to end first: without a limit a few at
        first, and then more at a time.
        """

    def all_leases(self) -> list[Lease]:
        """Every lease ever booked, oldest booking first."""

    def borrowed_leases(self, pools: Iterable[str]) -> list[Lease]:
        """Live leases of these pools that are not guaranteed."""

    def seen(self, lease_ids: Iterable[str], now: Instant) -> None:
        """What these leases run was alive at `now` (no entry: a heartbeat)."""

    def nodes(self) -> tuple[Node, ...] | None:
        """The known machines; None where none was ever reported, so that nodes limit nothing."""

    def put_nodes(self, nodes: Sequence[Node]) -> None:
        """Replace the known machines."""

    def person(self, name: str) -> Person | None: ...

    def people(self) -> list[Person]: ...

    def put_person(self, person: Person, *, issuer: str = "", subject: str = "", now: Instant = 0) -> None:
        """Insert or replace by name."""

    def holder(self, name: str) -> tuple[str, str] | None:
        """Issuer and subject of who has this name; empty where no provider named them, None where nobody has it."""

    def name_of(self, issuer: str, subject: str) -> str | None:
        """The name that this issuer and subject have had since they first came."""

    def put_policy(self, text: str, policy: Policy, sums: Sums, *, now: Instant, who: str) -> None:
        """Make this policy document the one in force, with all sums refolded under it."""

    def charges(self) -> list[tuple[Lease, date, int]]:
        """What every lease ever accrued, by local date: what `refold` needs."""

    def usage(self, first: date, last: date) -> list[UsageRow]:
        """What accrued on local dates first..last, both included."""

    def grants(self) -> list[Grant]: ...

    def entries(
        self, *, after: int = 0, limit: int = 1000, lease: str | None = None
    ) -> list[tuple[int, Entry]]:
        """The ledger's entries in order, each with its number."""

    def newest_entry(self) -> int:
        """The number of the newest entry: while it stays, no lease, sum or ticket was made, changed or ended."""

    def ticket(self, ticket_id: str) -> Ticket | None: ...

    def tickets(
        self,
        *,
        person: str | None = None,
        pools: Iterable[str] | None = None,
        codes: Iterable[str] | None = None,
    ) -> list[Ticket]:
        """Asks that wait (of one person, of these pools, for these codes), the longest waiting first."""

    def tickets_by_id(self, ticket_ids: Iterable[str]) -> list[Ticket]: ...

    def leases_by_id(self, lease_ids: Iterable[str]) -> list[Lease]:
        """Also those that are released."""

    def leases_in(self, reservation: str) -> list[Lease]:
        """People's leases inside a reservation, those that are over included."""

    def live_leases_of(self, people: Iterable[str]) -> list[Lease]: ...

    def live_in_clusters(self, names: Iterable[str] | None = None) -> list[Lease]:
        """The live leases of (these) Dask clusters, schedulers and workers, oldest booking first."""

    def cluster_tickets(self, names: Iterable[str] | None = None) -> list[Ticket]:
        """The tickets by which (these) Dask clusters wait for more workers."""

    def displaced_last(self, person: str, cluster: str) -> str | None:
        """For which ticket the last worker of this person's cluster was taken back that is gone."""

    def devices_taken(self, node: str) -> set[str]:
        """The devices of a machine that live leases hold."""

    def put_tickets(self, tickets: Iterable[Ticket]) -> None:
        """Insert or replace by id. Whoever makes or ends one writes an entry that tells of it."""

    def put_outlooks(self, outlooks: Mapping[str, Outlook]) -> None:
        """How these tickets stand now, by id; one that is not there any more is left out."""

    def drop_tickets(self, ticket_ids: Iterable[str]) -> None: ...

    def reservations(self, now: Instant) -> list[Reservation]:
        """Those that are not over, the first to start first."""

    def put_reservations(self, reservations: Iterable[Reservation]) -> None:
        """Insert or replace by id."""

    def drop_reservations(self, ids: Iterable[str]) -> None: ...

    def used_since(self, first: date) -> list[tuple[str, str, date, int]]:
        """(pool, person, local date, cost units) of what accrued on and after that date."""

    def take_leadership(self, name: str, holder: str, now: Instant, seconds: int) -> bool:
        """Become or stay the one holder of `name` until now + seconds; False while somebody else is."""

    def leads(self, name: str, holder: str) -> bool:
        """Whether nobody else has become the holder of `name` since this one did."""

    def leave_leadership(self, name: str, holder: str) -> None: ...


class Store(Protocol):
    """Where the ledger lives. Every method raises StoreUnavailable when the database does not take part."""

    def booking(self) -> AbstractContextManager[Transaction]:
        """A transaction that excludes every other booking: read sums, decide, book."""

    def reading(self) -> AbstractContextManager[Transaction]:
        """A consistent view that blocks nobody and writes nothing."""

    def check_schema(self) -> None:
        """Raises SchemaMismatch unless the database has this program's schema version."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Running:
    """Something that runs with our labels: a server's process or pod.

    `started_at` None: it is made, and has no node to run on yet.
    """

    lease: str
    handle: str
    started_at: Instant | None
    main: bool = True
    """False for what a server left behind (a kernel whose server is gone)."""
    node: str | None = None
    labels: Mapping[str, Any] | None = None


class World(Protocol):
    """What really runs. Raises HubError while it cannot be seen: unseen is never taken for empty."""

    def running(self) -> list[Running]: ...

    def ended(self) -> Mapping[str, str]:
        """By lease, why what it ran was seen to end lately, where that can be told."""

    def stop(self, running: Running) -> None:
        """End it; returns when it is gone or cannot be ended."""


class Servers(Protocol):
    """The hub's own view of a person's servers, by its API."""

    def active(self) -> dict[tuple[str, str], str | None]:
        """(person, server name) of every server the hub holds for running, with what is pending on it
        (`spawn`, `stop`, `check` or None). Raises HubError while the hub does not answer.
        """

    def stop(self, person: str, server: str) -> bool:
        """Ask the hub to stop a server; False when it knows of none. Raises HubError as above."""

    def start(self, person: str, server: str, options: Mapping[str, Any] | None = None) -> None:
        """Ask the hub to start a server with these options (None: as it was asked for last); returns once it is under
        way. Raises HubError where the hub does not take it.
        """

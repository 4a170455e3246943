"""What requests for hours and reports of use need of a store, beside `ports.py` (pure)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol

from hub_ext.core.clock import Instant
from hub_ext.quota.model import HoursRequest, Lease, RequestState

Place = tuple[Instant, str]
"""Where a list goes on: the instant and id of the last row that was read."""
DayPlace = tuple[date, str, str]
"""Where a list by day goes on: day, pool and person of the last row that was read."""


@dataclass(frozen=True, slots=True)
class UsageScope:
    """Which use is meant: what leases accrued on local dates first..last, both included.

    `person` and `pool` narrow it: whose leases, and those charged to that pool or a pool below it. `seen_by` and
    `led` say what the reader may see: their own, and what was charged to the pools they lead; `seen_by` None is
    everything. A pool is one of those above the lease when that was booked: hours stay where they were charged.

    With `ended`, the leases are meant that ran and ended in [start, end), whichever days they accrued on.
    """

    first: date
    last: date
    person: str | None = None
    pool: str | None = None
    seen_by: str | None = None
    led: tuple[str, ...] = ()
    ended: tuple[Instant, Instant] | None = None


@dataclass(frozen=True, slots=True)
class LeaseUsage:
    """One lease with what it accrued, in cost units and seconds: on the days that are meant, and ever.

    `number` is the number of its booking in the ledger: whole, and never used again.
    """

    lease: Lease
    number: int
    units: int
    seconds: int
    all_units: int
    all_seconds: int


@dataclass(frozen=True, slots=True)
class DayUsage:
    """What the leases of one person in one pool accrued on one local date. It never changes once that day is over."""

    day: date
    pool: str
    person: str
    units: int
    seconds: int
    leases: int


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What all leases accrued that have the same day, person or path; `key` is that, a path as its pools, nearest first."""

    key: tuple[str, ...]
    units: int
    seconds: int
    leases: int


class HoursRecords(Protocol):
    """Part of a transaction (`ports.Transaction`)."""

    def request(self, request_id: str) -> HoursRequest | None: ...

    def requests(
        self,
        *,
        pools: Collection[str] | None = None,
        made_by: str | None = None,
        states: Collection[RequestState] | None = None,
        before: Place | None = None,
        limit: int = 1000,
    ) -> list[HoursRequest]:
        """The newest first. `pools` and `made_by` are alternatives where both are given: of these pools, or made
        by, or about the hours of, this person.
        """

    def put_request(self, request: HoursRequest) -> None:
        """Insert or replace by id."""

    def lease_usage(
        self, scope: UsageScope, *, after: Place | None = None, limit: int = 1000
    ) -> list[LeaseUsage]:
        """One row per lease that accrued on these days, by booking, then id."""

    def day_usage(
        self, scope: UsageScope, *, after: DayPlace | None = None, limit: int = 1000
    ) -> list[DayUsage]:
        """One row per day, pool and person, in that order."""

    def usage_sums(self, scope: UsageScope, by: Literal["day", "person", "path"]) -> list[UsageSum]:
        """What accrued, by ISO date, by person, or by the pools that it was charged to; by key."""

    def units_by_day_and_person(self, scope: UsageScope) -> tuple[dict[date, int], dict[str, int]]:
        """Cost units by local date, and by person, at one look."""

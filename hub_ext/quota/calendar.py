"""Whether a window of time can be reserved for a pool, and if not, when it could (QUOTA.md §8). Pure.

A reservation is accepted where, at every start inside its window, the tree holds all reservations and the guaranteed
leases that still run then. Those are the only instants at which use can rise. What others borrow beyond that is taken
back in time for the window's start, with the notice that they are owed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

from hub_ext.core.clock import Instant
from hub_ext.quota.counting import active, charged_pool, holds
from hub_ext.quota.fairshare import own_share, share
from hub_ext.quota.model import Lease, LeaseState, Policy, Reservation
from hub_ext.quota.reclaim import taken_at
from hub_ext.quota.sums import Sums
from hub_ext.quota.tree import Tree, tree_of


@dataclass(frozen=True)
class Picture:
    """What a reservation is decided on: all live leases, and all reservations that may count and are not over."""

    policy: Policy
    leases: Sequence[Lease] = ()
    reservations: Sequence[Reservation] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """A borrowed lease that is in the way, and when it has to end: never before its window's start."""

    lease: Lease
    ends_at: Instant


@dataclass(frozen=True, slots=True)
class Green:
    """Within the guarantee of its home: it counts as soon as it is made."""

    endings: tuple[Ending, ...] = ()


@dataclass(frozen=True, slots=True)
class Amber:
    """It needs what others have a right to: a lead of `approver`, the lowest pool whose quota covers it, has to agree."""

    approver: str
    endings: tuple[Ending, ...] = ()


@dataclass(frozen=True, slots=True)
class Red:
    """It does not fit; `before` and `after` are the nearest starts at which a window of this length would."""

    before: Instant | None
    after: Instant | None


Answer = Green | Amber | Red


def decide_reservation(picture: Picture, wanted: Reservation, now: Instant) -> Answer:
    """Green, amber or red.

    Raises ValueError with a sentence for a window without length, nothing to hold, or a pool the policy lacks.
    """
    if wanted.end <= wanted.start:
        raise ValueError("a reservation has to end after its start")
    if not any(wanted.amounts.values()):
        raise ValueError("a reservation has to hold something")
    if wanted.pool not in picture.policy.pools:
        raise ValueError(f"there is no pool {wanted.pool!r} to reserve for")
    days = _Days(picture, wanted, now)
    answer = days.check(wanted)
    return answer if answer is not None else days.nearest(wanted)


@dataclass(frozen=True, slots=True)
class _Load:
    """What one lease or reservation counts as at its pool, in [start, end)."""

    pool: str
    amounts: Mapping[str, int]
    start: Instant
    end: Instant
    lease: Lease | None = None

    def at(self, time: Instant) -> bool:
        return self.start <= time < self.end


@dataclass
class _Days:
    """The days ahead of one tree, without the reservation that is asked for."""

    picture: Picture
    wanted: Reservation
    now: Instant
    kept: list[_Load] = field(default_factory=list)
    """Reservations, guaranteed leases, and what is ending but not yet seen gone."""
    borrowed: list[_Load] = field(default_factory=list)
    starts: list[Instant] = field(default_factory=list)

    def __post_init__(self) -> None:
        for other in self.others:
            self.kept.append(_Load(other.pool, holds(other), other.start, other.end))
            self.starts.append(other.start)
        for lease in self.picture.leases:
            pool = charged_pool(self.policy, lease)
            if pool is None or self.policy.root(pool) != self.root or not lease.live:
                continue
            loads = self.kept if lease.guaranteed or lease.state is LeaseState.ENDING else self.borrowed
            loads.extend(self._loads(lease, pool))

    @property
    def policy(self) -> Policy:
        return self.picture.policy

    @cached_property
    def tree(self) -> Tree:
        return tree_of(self.policy)

    @cached_property
    def root(self) -> str:
        return self.policy.root(self.wanted.pool)

    @cached_property
    def others(self) -> list[Reservation]:
        return [
            other
            for other in self.picture.reservations
            if other.id != self.wanted.id
            and other.approved
            and other.end > self.now
            and other.pool in self.policy.pools
            and self.policy.root(other.pool) == self.root
        ]

    def _loads(self, lease: Lease, pool: str) -> Iterator[_Load]:
        """What a lease is inside of counts for it, until that is over."""
        own = next((one for one in self.others if one.id == lease.reservation), None)
        if own is None or own.pool not in self.policy.path(pool) or not active(own, self.now):
            yield _Load(pool, lease.amounts, self.now, lease.ends_at, lease)
            return
        inside = {resource: amount for resource, amount in lease.amounts.items() if own.amounts.get(resource)}
        outside = {resource: amount for resource, amount in lease.amounts.items() if resource not in inside}
        yield _Load(pool, outside, self.now, lease.ends_at, lease)
        yield _Load(pool, inside, own.end, lease.ends_at, lease)

    # -- one window ------------------------------------------------------------------------------------------------

    def check(self, wanted: Reservation) -> Green | Amber | None:
        """None where it does not fit, or where a notice that it needs would end after its start."""
        if wanted.start < self.now:
            return None
        approver: str | None = None
        times = sorted({wanted.start, *(start for start in self.starts if wanted.start < start < wanted.end)})
        for time in times:
            sums = self._sums(time, self.kept)
            if not self._fits(sums, wanted):
                return None
            if beyond := self._beyond_guarantee(sums, time, wanted):
                approver = self._higher(approver, self.tree.lender(sums, wanted.pool, beyond))
        endings = self._endings(wanted, times)
        if endings is None:
            return None
        return Green(endings) if approver is None else Amber(approver, endings)

    def _beyond_guarantee(self, sums: Sums, time: Instant, wanted: Reservation) -> dict[str, int]:
        """The resources for which the home's guarantee is not enough beside what draws on it already."""
        beyond = {}
        for resource, amount in wanted.amounts.items():
            home = self.policy.home(wanted.pool, resource)
            if home is None or not amount:
                continue
            drawn = sum(
                load.amounts.get(resource, 0)
                for load in self.kept
                if load.at(time) and self.policy.home(load.pool, resource) == home
                if load.lease is None or load.lease.guaranteed
            )
            if drawn + amount > self.policy.nominal(home, resource):
                beyond[resource] = amount
        return beyond

    def _higher(self, one: str | None, other: str) -> str:
        path = self.policy.path(self.wanted.pool)
        return other if one is None or path.index(other) > path.index(one) else one

    def _fits(self, sums: Sums, wanted: Reservation) -> bool:
        return all(
            self.tree.fits(sums, wanted.pool, resource, amount)
            for resource, amount in wanted.amounts.items()
            if amount
        )

    def _own(
        self, time: Instant, loads: Iterable[_Load], without: Iterable[str] = ()
    ) -> Mapping[str, Mapping[str, int]]:
        """What each pool's own loads use at that time; `without` are leases left out."""
        left_out = set(without)
        own: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for load in loads:
            if load.at(time) and not (load.lease is not None and load.lease.id in left_out):
                for resource, amount in load.amounts.items():
                    own[load.pool][resource] += amount
        return own

    def _sums(self, time: Instant, loads: Iterable[_Load], without: Iterable[str] = ()) -> Sums:
        sums = Sums()
        for pool, amounts in self._own(time, loads, without).items():
            self.tree.add(sums, pool, amounts)
        return sums

    # -- what is taken back ----------------------------------------------------------------------------------------

    def _endings(self, wanted: Reservation, times: Sequence[Instant]) -> tuple[Ending, ...] | None:
        """The fewest borrowed leases without which it fits, each with its end; None where they cannot end in time."""
        ends: dict[str, Ending] = {}
        for time in times:
            while not self._fits(sums := self._sums(time, self._all, ends), wanted):
                victim = self._next(sums, wanted, time, ends)
                if victim is None:
                    return None
                ends[victim.id] = Ending(victim, time)
        for name in list(ends):
            fewer = ends.keys() - {name}
            if all(self._fits(self._sums(time, self._all, fewer), wanted) for time in times):
                del ends[name]
        return tuple(ends.values())

    @property
    def _all(self) -> list[_Load]:
        return [*self.kept, *self.borrowed]

    def _next(
        self, sums: Sums, wanted: Reservation, time: Instant, taken: Mapping[str, Ending]
    ) -> Lease | None:
        """Other pools before its own, then down the tree by highest share, then the latest start, then by id."""
        short = {
            resource
            for resource, amount in wanted.amounts.items()
            if amount and not self.tree.fits(sums, wanted.pool, resource, amount)
        }
        found = [
            load
            for load in self.borrowed
            if load.lease is not None
            and load.lease.id not in taken
            and load.lease.noticed_for is None
            and load.at(time)
            and any(load.amounts.get(resource) for resource in short)
            and taken_at(self.policy, load.lease, self.now) <= wanted.start
        ]
        found = [load for load in found if load.pool != wanted.pool] or found
        own = self._own(time, self._all, taken)

        def order(load: _Load) -> tuple[list[tuple[bool, Fraction]], Instant]:
            shares = [share(self.tree, sums, name).order for name in reversed(self.policy.path(load.pool))]
            shares.append(own_share(self.tree, load.pool, own.get(load.pool, {})).order)
            return shares, load.lease.age_order[0] if load.lease is not None else self.now

        by_id = sorted(found, key=lambda load: load.lease.id if load.lease is not None else "")
        return max(by_id, key=order).lease if by_id else None

    # -- when else -------------------------------------------------------------------------------------------------

    def nearest(self, wanted: Reservation) -> Red:
        """Among the ends of windows, and their starts less the length; where none of these comes after, also the
        first end of a lease or a notice that is in the way.
        """
        length = wanted.end - wanted.start
        starts = {other.end for other in self.others} | {other.start - length for other in self.others}
        before = self._first_fit(wanted, sorted((s for s in starts if s < wanted.start), reverse=True))
        after = self._first_fit(wanted, sorted(s for s in starts if s > wanted.start))
        if after is None:
            ends = {load.end for load in self._all if load.lease is not None}
            notices = {
                taken_at(self.policy, load.lease, self.now)
                for load in self.borrowed
                if load.lease is not None
            }
            later = sorted(s for s in ends | notices | {self.now} if s > wanted.start)
            after = self._first_fit(wanted, later)
        return Red(before, after)

    def _first_fit(self, wanted: Reservation, starts: Iterable[Instant]) -> Instant | None:
        length = wanted.end - wanted.start
        moved = (replace(wanted, start=start, end=start + length) for start in starts)
        return next((one.start for one in moved if self.check(one) is not None), None)

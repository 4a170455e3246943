"""GPU-hours per period: windows, limits with carry and grants, what is left and how long it lasts (QUOTA.md §7).

Everything is counted in cost units (millionths of a GPU-second). Periods are half-open intervals between the
first instants of local dates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

from hub_ext.core.amounts import hours_to_cost_units
from hub_ext.core.clock import MINUTE, Instant, at
from hub_ext.quota.model import Budget, Grant, Period, Policy, Term
from hub_ext.quota.sums import SumKey, Sums

LONGEST_SLICE = 5 * MINUTE


@dataclass(frozen=True, slots=True)
class Window:
    """[start, end) of one period; `label` is its first local date."""

    start: Instant
    end: Instant
    label: str


@dataclass(frozen=True, slots=True)
class BudgetOf:
    """One budget as it binds one lease: of a pool (`person` ""), or of one person in the pool's subtree."""

    pool: str
    budget: Budget
    person: str = ""

    def key(self, kind: str, window: Window) -> SumKey:
        return SumKey(kind, self.pool, self.budget.name, self.person, window.label)


@lru_cache(maxsize=4096)
def first_instant(day: date, zone: ZoneInfo) -> Instant:
    """The first instant of a local date, also where midnight is skipped."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC).timestamp())


def local_date(instant: Instant, zone: ZoneInfo) -> date:
    """The date whose first instant was the last to pass: where clocks go back over midnight, the later one stays."""
    day = at(instant, zone).date()
    while first_instant(day + timedelta(days=1), zone) <= instant:
        day += timedelta(days=1)
    return day


def _period_dates(period: Period, day: date) -> tuple[date, date]:
    """The first date of the period that holds `day`, and the first date after it."""
    match period:
        case Period.DAY:
            return day, day + timedelta(days=1)
        case Period.WEEK:
            first = day - timedelta(days=day.weekday())
            return first, first + timedelta(days=7)
        case Period.MONTH:
            first, months = day.replace(day=1), 1
        case Period.QUARTER:
            first, months = day.replace(month=day.month - (day.month - 1) % 3, day=1), 3
        case Period.YEAR:
            first, months = day.replace(month=1, day=1), 12
    years, month = divmod(first.month - 1 + months, 12)
    return first, first.replace(year=first.year + years, month=month + 1)


def window_at(budget: Budget, instant: Instant, zone: ZoneInfo) -> Window | None:
    """The budget's period that holds the instant; None outside a term."""
    if isinstance(budget.period, Term):
        first, after = budget.period.first, budget.period.last + timedelta(days=1)
    else:
        first, after = _period_dates(budget.period, local_date(instant, zone))
    window = Window(first_instant(first, zone), first_instant(after, zone), first.isoformat())
    return window if window.start <= instant < window.end else None


def windows_between(budget: Budget, start: Instant, end: Instant, zone: ZoneInfo) -> Iterator[Window]:
    """The budget's periods that overlap [start, end), in order."""
    if isinstance(budget.period, Term):
        window = Window(
            first_instant(budget.period.first, zone),
            first_instant(budget.period.last + timedelta(days=1), zone),
            budget.period.first.isoformat(),
        )
        if max(start, window.start) < min(end, window.end):
            yield window
        return
    while start < end:
        periodic = window_at(budget, start, zone)
        assert periodic is not None
        yield periodic
        start = periodic.end


def binding(policy: Policy, path: Sequence[str], person: str) -> list[BudgetOf]:
    """Every budget on the path, nearest pool first; pools that no longer exist bind nothing."""
    return [
        BudgetOf(name, budget, person if budget.each_person else "")
        for name in path
        if name in policy.pools
        for budget in policy.pools[name].budgets
        if person or not budget.each_person
    ]


def slices(
    policy: Policy, start: Instant, end: Instant, edges: Sequence[Instant] = (), longest: int = LONGEST_SLICE
) -> Iterator[tuple[Instant, Instant]]:
    """[start, end) in pieces of at most `longest` seconds, cut at local midnights and at `edges`."""
    while start < end:
        midnight = first_instant(local_date(start, policy.timezone) + timedelta(days=1), policy.timezone)
        stop = min([end, start + longest, midnight, *(edge for edge in edges if edge > start)])
        yield start, stop
        start = stop


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget at one instant, in cost units.

    `limit` holds the period's hours, what was carried in and the usable grants; `used` what has accrued;
    `committed` what running leases may still accrue in the period. `pots` are the grants still to be drawn,
    earliest expiry first.
    """

    of: BudgetOf
    window: Window
    limit: int
    used: int
    committed: int
    base_left: int
    """Limit less grants, less what was used and not drawn from a grant."""
    pots: tuple[tuple[Instant, int], ...] = ()

    @property
    def left(self) -> int:
        return self.limit - self.used - self.committed

    @property
    def soft_reached(self) -> bool:
        soft = self.of.budget.soft
        return soft is not None and Decimal(self.used) >= soft * self.limit

    def lasts_until(self, cost: int, now: Instant, *, beside_commitments: bool = True) -> Instant:
        """Until when a lease of this cost may run on what is left; the window's end or later: not bounded.

        A grant only helps until it expires, and is drawn after the period's own hours. What costs nothing is not
        bounded.
        """
        if not cost:
            return self.window.end
        pot = self.base_left - (self.committed if beside_commitments else 0)
        lasts = now + max(0, pot) // cost
        for until, units in self.pots:
            if lasts < until:
                pot = min(pot + units, (until - now) * cost)
                lasts = now + max(0, pot) // cost
        return lasts


States = dict[tuple[str, str, str, Instant], BudgetState | None]
"""By pool, budget, person and instant: what `Budgets.state` found while nothing changed."""


class Budgets:
    """Budget arithmetic over the sums of one policy.

    `states` keeps what was found, for whoever asks many times while the sums stay the same, and empties it when not.
    """

    def __init__(
        self, policy: Policy, sums: Sums, grants: Sequence[Grant] = (), states: States | None = None
    ) -> None:
        self.policy = policy
        self.sums = sums
        self.grants = grants
        self._states = states

    def state(self, of: BudgetOf, now: Instant) -> BudgetState | None:
        """The budget now; None for a term that is not running."""
        key = (of.pool, of.budget.name, of.person, now)
        if self._states is not None and key in self._states:
            return self._states[key]
        window = window_at(of.budget, now, self.policy.timezone)
        state = None if window is None else self.state_in(of, window, now)
        if self._states is not None:
            self._states[key] = state
        return state

    def state_in(self, of: BudgetOf, window: Window, now: Instant) -> BudgetState:
        base = self._base_limit(of, window)
        used = self._used(of, window)
        granted, drawn_here, pots = 0, 0, []
        for grant in self.grants_of(of):
            in_period = self.sums[self._drawn_key(grant, window)]
            drawn_here += in_period
            if now < grant.until:
                earlier = self.drawn(grant) - in_period
                granted += grant.units - earlier
                pots.append((grant.until, grant.units - earlier - in_period))
            else:
                granted += in_period
        return BudgetState(
            of=of,
            window=window,
            limit=base + granted,
            used=used,
            committed=self.sums[of.key("committed", window)],
            base_left=base - (used - drawn_here),
            pots=tuple(pots),
        )

    def grants_of(self, of: BudgetOf) -> list[Grant]:
        """The grants beside this budget, earliest expiry first."""
        return sorted(
            (g for g in self.grants if (g.pool, g.budget, g.person) == (of.pool, of.budget.name, of.person)),
            key=lambda grant: (grant.until, grant.id),
        )

    def drawn(self, grant: Grant) -> int:
        """What the grant has paid in all periods."""
        return self.sums[self._drawn_key(grant)]

    def charge(self, of: BudgetOf, start: Instant, units: int) -> None:
        """Add what accrued in a slice that begins at `start`, and draw grants where the period's hours are used up."""
        window = window_at(of.budget, start, self.policy.timezone)
        if window is None:
            return
        state = self.state_in(of, window, start)
        self.sums.add(of.key("spent", window), units)
        beyond = units - max(0, state.base_left)
        for grant in self.grants_of(of):
            if beyond <= 0:
                return
            if start < grant.until:
                draw = min(beyond, grant.units - self.drawn(grant))
                for key in (self._drawn_key(grant), self._drawn_key(grant, window)):
                    self.sums.add(key, draw)
                beyond -= draw

    def commit(self, of: BudgetOf, cost: int, start: Instant, end: Instant, sign: int = 1) -> None:
        """Set aside (or, with sign -1, free) what [start, end) will cost, in each period it touches."""
        for window in windows_between(of.budget, start, end, self.policy.timezone):
            seconds = min(end, window.end) - max(start, window.start)
            self.sums.add(of.key("committed", window), sign * cost * seconds)

    def open(self, now: Instant, before: Sums | None = None) -> None:
        """Remember what carrying over depends on: the first period of every budget, before which nothing can have
        been left, and the hours and the cap in force.

        `before` are the sums under the policy before: where that had other hours or another cap, what the running
        period carried in stays as it was. Raising a budget would else bring back what was spent long ago.
        """
        for pool in self.policy.pools.values():
            for budget in pool.budgets:
                window = window_at(budget, now, self.policy.timezone)
                key = SumKey("opened", pool.name, budget.name)
                if not self.sums[key]:
                    self.sums[key] = window.start if window else now
                if before is not None and window is not None:
                    self._keep_carried(pool.name, budget, window, before)
                for name, hours in (("hours", budget.hours), ("carry", budget.carry or Decimal(0))):
                    self.sums[key._replace(period=name)] = hours_to_cost_units(hours) + 1

    def _keep_carried(self, pool: str, budget: Budget, window: Window, before: Sums) -> None:
        opened = SumKey("opened", pool, budget.name)
        hours, carry = (before[opened._replace(period=name)] - 1 for name in ("hours", "carry"))
        rule = hours_to_cost_units(budget.hours), hours_to_cost_units(budget.carry or Decimal(0))
        if isinstance(budget.period, Term) or hours < 0 or (hours, carry) == rule:
            return
        old = Budgets(self.policy, before, self.grants)
        used = (key for kind in ("spent", "corrected", "committed") for key, _ in before.of_kind(kind))
        people = {key.person for key in used if (key.pool, key.item) == (pool, budget.name)}
        for person in sorted(
            people | {""}
        ):  # in a budget of each person, "" stands for all who never used any
            of = BudgetOf(pool, budget, person)
            self.sums[of.key("carried", window)] = old._carried(of, window, hours, carry) + 1

    def _used(self, of: BudgetOf, window: Window) -> int:
        return self.sums[of.key("spent", window)] + self.sums[of.key("corrected", window)]

    def _drawn_key(self, grant: Grant, window: Window | None = None) -> SumKey:
        return SumKey("drawn", grant.pool, grant.budget, grant.id, window.label if window else "")

    def _base_limit(self, of: BudgetOf, window: Window) -> int:
        return hours_to_cost_units(of.budget.hours) + self._carried_into(of, window)

    def _carried_into(self, of: BudgetOf, window: Window) -> int:
        if isinstance(of.budget.period, Term):
            return 0
        cap = hours_to_cost_units(of.budget.carry or Decimal(0))
        return self._carried(of, window, hours_to_cost_units(of.budget.hours), cap)

    def _carried(self, of: BudgetOf, window: Window, hours: int, cap: int) -> int:
        """min(unused, cap), grants excluded: never more than what was left of the period before.

        The period before may itself have been carried into, so that each period's share is that of the one before
        plus what was left of its hours, held between 0 and the cap. The walk back sums what was left (`rest`) with
        the bounds in which the result lies, until it is known or the bounds meet.
        """
        if (known := self._known_carried(of, window)) is not None:
            return known
        least, most, rest = 0, cap, 0

        def held(carried: int) -> int:
            return max(least, min(most, carried + rest))

        while held(0) < held(cap):
            before = window_at(of.budget, window.start - 1, self.policy.timezone)
            assert before is not None
            window, least, most = before, held(0), held(cap)
            drawn = sum(self.sums[self._drawn_key(grant, window)] for grant in self.grants_of(of))
            rest += hours - (self._used(of, window) - drawn + self.sums[of.key("committed", window)])
            if (known := self._known_carried(of, window)) is not None:
                return held(known)
        return held(0)

    def _known_carried(self, of: BudgetOf, window: Window) -> int | None:
        """What the period carried in, where that was written down or it is the first."""
        key = of.key("carried", window)
        for person in (of.person, ""):
            if kept := self.sums[key._replace(person=person)]:
                return kept - 1
        return 0 if window.start <= self.sums[SumKey("opened", of.pool, of.budget.name)] else None


def states_that_bind(
    budgets: Budgets, policy: Policy, paths: Iterable[Sequence[str]], person: str, now: Instant
) -> list[BudgetState]:
    """How every budget stands that binds this person on any of these paths, each once, the nearest pools first."""
    found = {}
    for path in paths:
        for of in binding(policy, path, person):
            if of not in found and (state := budgets.state(of, now)) is not None:
                found[of] = state
    return list(found.values())

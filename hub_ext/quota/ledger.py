"""The ledger: append-only entries, the leases they add up to, and the sums kept beside them (QUOTA.md §9).

Every change of a lease is one entry put through `apply`, so that the current leases are the fold of all
entries by construction. `Ledger` also keeps the sums in step; `refold` computes them afresh from the leases and
what they accrued, which is what a policy load does and what tests compare with.

Nothing here reads a clock or a store: the store loads the sums and leases a change needs, and writes back what
changed in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from enum import StrEnum
from typing import Any, Final

from hub_ext.core.clock import Instant
from hub_ext.core.decision import Admit
from hub_ext.quota.budget import (
    LONGEST_SLICE,
    BudgetOf,
    Budgets,
    binding,
    first_instant,
    local_date,
    slices,
    window_at,
)
from hub_ext.quota.counting import (
    add_to_sums,
    count_guaranteed,
    count_on_node,
    count_start,
    is_guaranteed,
    lay_out,
    lender_of,
    move_end,
    remove_from_sums,
)
from hub_ext.quota.model import Ask, Grant, Lease, LeaseState, Policy, Reservation
from hub_ext.quota.reserved import End, before_windows
from hub_ext.quota.sums import KEPT_BY_REFOLD, Sums
from hub_ext.quota.tree import tree_of

TAKEN_BACK: Final = "taken-back"
"""Why a borrowed lease ends that somebody with a guarantee needs."""


class EntryKind(StrEnum):
    BOOKED = "booked"
    RUNNING = "running"
    EXTENDED = "extended"
    NOTICED = "noticed"
    WITHDRAWN = "withdrawn"
    CLAIMED = "claimed"
    PROMOTED = "promoted"
    ENDING = "ending"
    RELEASED = "released"
    ACCRUED = "accrued"
    GRANTED = "granted"
    REQUESTED = "requested"
    ANSWERED = "answered"
    CORRECTED = "corrected"
    RESERVED = "reserved"
    DECIDED = "decided"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger: what, to which lease (or pool), when, by whom, why."""

    kind: EntryKind
    at: Instant
    lease: str | None = None
    pool: str | None = None
    person: str | None = None
    who: str = ""
    why: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON values only."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Cost units that a lease accrued on one local date, over so many seconds."""

    lease: str
    day: date
    units: int
    seconds: int


def lease_facts(lease: Lease) -> dict[str, Any]:
    """The lease as JSON values; `lease_of` reads them back."""
    facts = asdict(lease)
    facts["amounts"] = dict(lease.amounts)
    facts["state"] = lease.state.value
    return facts


def lease_of(facts: Mapping[str, Any]) -> Lease:
    values = dict(facts)
    values.pop("options", None)  # what its server was started with, beside it in the entry
    values["state"] = LeaseState(values["state"])
    values["path"] = tuple(values["path"])
    values["devices"] = tuple(values["devices"])
    return Lease(**values)


def apply(lease: Lease | None, entry: Entry) -> Lease:
    """The lease after the entry; the only place where a lease's state changes."""
    if entry.kind is EntryKind.BOOKED:
        return lease_of(entry.facts)
    if lease is None:
        raise ValueError(f"entry {entry.kind} names lease {entry.lease}, which was never booked")
    facts = entry.facts
    match entry.kind:
        case EntryKind.RUNNING:
            return replace(
                lease,
                state=LeaseState.RUNNING,
                started_at=entry.at,
                charged_until=entry.at,
                handle=facts.get("handle", lease.handle),
                node=facts.get("node", lease.node),
                seen_at=entry.at,
            )
        case EntryKind.EXTENDED:
            return replace(lease, ends_at=facts["ends_at"], noticed_at=None)
        case EntryKind.NOTICED:
            return replace(
                lease,
                ends_at=facts["ends_at"],
                noticed_at=entry.at,
                noticed_for=facts.get("for", lease.noticed_for),
                ends_unless_taken=facts.get("unless", lease.ends_unless_taken),
            )
        case EntryKind.WITHDRAWN:
            return replace(
                lease, ends_at=facts["ends_at"], noticed_at=None, noticed_for=None, ends_unless_taken=None
            )
        case EntryKind.CLAIMED:
            return replace(lease, unclaimed=False)
        case EntryKind.PROMOTED:
            return replace(lease, guaranteed=True, lender=None)
        case EntryKind.ENDING:
            return replace(lease, state=LeaseState.ENDING, reason=lease.reason or entry.why or None)
        case EntryKind.RELEASED:
            reason = lease.reason or entry.why or None
            return replace(lease, state=LeaseState.RELEASED, released_at=entry.at, reason=reason)
        case EntryKind.ACCRUED:
            return replace(lease, charged_until=facts["until"])
        case (
            EntryKind.GRANTED
            | EntryKind.REQUESTED
            | EntryKind.ANSWERED
            | EntryKind.CORRECTED
            | EntryKind.RESERVED
            | EntryKind.DECIDED
        ):
            return lease


def fold(leases: Mapping[str, Lease], entries: Iterable[Entry]) -> dict[str, Lease]:
    """The leases after all entries, in order."""
    result = dict(leases)
    for entry in entries:
        if entry.lease is not None and entry.kind is not EntryKind.DECIDED:
            result[entry.lease] = apply(result.get(entry.lease), entry)
    return result


class Ledger:
    """Changes leases, writes the entries, and keeps the sums in step with both.

    `entries` and `charges` collect what the store has to append.
    """

    def __init__(
        self, policy: Policy, sums: Sums, grants: Sequence[Grant] = (), *, longest_slice: int = LONGEST_SLICE
    ) -> None:
        self.policy = policy
        self.tree = tree_of(policy)
        self.longest_slice = longest_slice
        self.sums = sums
        self.grants = list(grants)
        self.budgets = Budgets(policy, sums, self.grants)
        self.entries: list[Entry] = []
        self.charges: list[Charge] = []

    # -- the life of a lease ------------------------------------------------------------------------------

    def book(
        self,
        ask: Ask,
        decision: Admit,
        now: Instant,
        *,
        who: str = "",
        devices: Sequence[str] = (),
        unclaimed: bool = False,
    ) -> Lease:
        """Make the lease of an admitted ask; `unclaimed` where its turn came while nobody was looking."""
        lease = Lease(
            id=ask.id,
            person=ask.person,
            pool=ask.pool,
            path=self.policy.path(ask.pool),
            amounts=dict(ask.amounts),
            kind=ask.kind,
            guaranteed=decision.guaranteed,
            lender=decision.lender,
            cost=decision.cost,
            booked_at=now,
            ends_at=decision.ends_at,
            charged_until=now,
            profile=ask.profile,
            server=ask.server,
            node=decision.node,
            devices=tuple(devices),
            reservation=decision.facts.get("reservation"),
            unclaimed=unclaimed,
        )
        return self.record(lease, now, who=who or ask.person)

    def record(self, lease: Lease, now: Instant, *, who: str = "", why: str = "") -> Lease:
        """Book a lease as it stands, also above quota: a fact, not a decision."""
        self.write(None, Entry(EntryKind.BOOKED, now, who=who, why=why, facts=lease_facts(lease)), lease)
        add_to_sums(self.tree, self.sums, lease)
        self._commit(lease, lease.charged_until, lease.ends_at)
        return lease

    def would_be_guaranteed(self, ask: Ask) -> bool:
        return is_guaranteed(self.tree, self.sums, ask)

    def adopt(
        self,
        ask: Ask,
        now: Instant,
        *,
        started_at: Instant,
        ends_at: Instant,
        cost: int,
        handle: str | None = None,
        node: str | None = None,
        devices: Sequence[str] = (),
        guaranteed: bool | None = None,
    ) -> Lease:
        """Book what runs already, whether or not it fits; it accrues from now. Labelled by what is free, unless said."""
        if guaranteed is None:
            guaranteed = self.would_be_guaranteed(ask)
        lender = None if guaranteed else lender_of(self.tree, self.sums, ask)
        lease = Lease(
            id=ask.id,
            person=ask.person,
            pool=ask.pool,
            path=self.policy.path(ask.pool),
            amounts=dict(ask.amounts),
            kind=ask.kind,
            guaranteed=guaranteed,
            lender=lender,
            cost=cost,
            booked_at=started_at,
            started_at=started_at,
            ends_at=ends_at,
            charged_until=now,
            seen_at=now,
            state=LeaseState.RUNNING,
            profile=ask.profile,
            server=ask.server,
            node=node,
            devices=tuple(devices),
            handle=handle,
            reservation=ask.reservation,
        )
        return self.record(lease, now, why="adopted")

    def run(
        self, lease: Lease, now: Instant, *, handle: str | None = None, node: str | None = None, who: str = ""
    ) -> Lease:
        """The process was started or the pod bound: hours accrue from now on."""
        if lease.state is not LeaseState.BOOKED:
            return lease
        self._commit(lease, lease.charged_until, min(now, lease.ends_at), sign=-1)
        moved = node is not None and node != lease.node
        if moved:
            count_on_node(self.sums, lease, sign=-1)
        facts = {key: value for key, value in (("handle", handle), ("node", node)) if value is not None}
        running = self.write(lease, Entry(EntryKind.RUNNING, now, who=who, facts=facts))
        if moved:
            count_on_node(self.sums, running)
        count_start(self.sums, lease, sign=-1)
        return running

    def accrue(self, lease: Lease, until: Instant) -> Lease:
        """Charge a running lease up to `until`, to the person and every pool above, in slices."""
        if lease.state not in (LeaseState.RUNNING, LeaseState.ENDING) or lease.started_at is None:
            return lease
        refs = binding(self.policy, lease.path, lease.person)
        edges = (
            sorted({grant.until for ref in refs for grant in self.budgets.grants_of(ref)})
            if lease.cost
            else []
        )
        for start, stop in slices(self.policy, lease.charged_until, until, edges, self.longest_slice):
            units = lease.cost * (stop - start)
            if units:
                self._commit(lease, start, min(stop, lease.ends_at), sign=-1)
                for ref in refs:
                    self.budgets.charge(ref, start, units)
            self.charges.append(
                Charge(lease.id, local_date(start, self.policy.timezone), units, stop - start)
            )
            lease = self.write(lease, Entry(EntryKind.ACCRUED, stop, facts={"until": stop, "units": units}))
        return lease

    def extend(self, lease: Lease, ends_at: Instant, now: Instant, *, who: str = "", why: str = "") -> Lease:
        return self._move_end(lease, EntryKind.EXTENDED, ends_at, now, who=who, why=why)

    def notice(self, lease: Lease, ends_at: Instant, now: Instant, *, who: str = "", why: str = "") -> Lease:
        """Tell the person that the lease ends at `ends_at`, which is never later than it was."""
        ends_at = min(ends_at, lease.ends_at)
        unless = lease.ends_unless_taken
        facts = {} if unless is None else {"unless": min(unless, ends_at)}
        return self._move_end(lease, EntryKind.NOTICED, ends_at, now, who=who, why=why, facts=facts)

    def take_back(
        self, lease: Lease, ends_at: Instant, taken_for: str, now: Instant, *, who: str = ""
    ) -> Lease:
        """Tell the person that what was borrowed goes back at `ends_at`, for a ticket or a reservation."""
        facts = {"for": taken_for, "unless": lease.ends_at}
        ends_at = min(ends_at, lease.ends_at)
        return self._move_end(lease, EntryKind.NOTICED, ends_at, now, who=who, why=TAKEN_BACK, facts=facts)

    def withdraw(self, lease: Lease, now: Instant, *, who: str = "") -> Lease:
        """What it was to be taken back for is not needed any more: it ends when it would have ended.

        Or at the start of a window that was reserved meanwhile, if the room is needed there.
        """
        if lease.noticed_for is None or lease.ends_unless_taken is None:
            return lease
        ends_at = lease.ends_unless_taken
        if lease.pool in self.policy.pools:
            end = before_windows(self.tree, self.sums, (), lease, End(ends_at), lease.ends_at, least=0)
            ends_at = end.at if isinstance(end, End) else lease.ends_at
        return self._move_end(lease, EntryKind.WITHDRAWN, ends_at, now, who=who, why="")

    def claim(self, lease: Lease, now: Instant, *, who: str = "") -> Lease:
        """The person came to the server that was started for them."""
        return self.write(lease, Entry(EntryKind.CLAIMED, now, who=who)) if lease.unclaimed else lease

    def end(self, lease: Lease, now: Instant, *, who: str = "", why: str = "") -> Lease:
        """A stop was ordered; the lease still counts as used until what ran is seen gone."""
        if lease.state in (LeaseState.ENDING, LeaseState.RELEASED):
            return lease
        count_start(self.sums, lease, sign=-1)
        return self.write(lease, Entry(EntryKind.ENDING, now, who=who, why=why))

    def release(self, lease: Lease, at: Instant, *, who: str = "", why: str = "") -> Lease:
        """What ran is gone since `at` (never before what was already charged): charge the rest, free the amounts."""
        if not lease.live:
            return lease
        at = max(at, lease.charged_until)
        lease = self.accrue(lease, at)
        self._commit(lease, lease.charged_until, lease.ends_at, sign=-1)
        count_start(self.sums, lease, sign=-1)
        remove_from_sums(self.tree, self.sums, lease)
        # Why it was told to end stays the reason, whatever whoever saw it gone says.
        return self.write(lease, Entry(EntryKind.RELEASED, at, who=who, why=lease.reason or why))

    def promote(self, borrowed: Iterable[Lease], now: Instant) -> list[Lease]:
        """Turn borrowed leases into guaranteed ones, oldest first, while they fit; the rate stays as booked.

        One that does not fit is passed over: a younger, smaller one behind it may still become guaranteed.
        """
        promoted = []
        for lease in sorted(borrowed, key=lambda lease: lease.age_order):
            if (
                not lease.guaranteed
                and lease.pool in self.policy.pools
                and is_guaranteed(self.tree, self.sums, lease)
            ):
                count_guaranteed(self.tree, self.sums, lease)
                promoted.append(self.write(lease, Entry(EntryKind.PROMOTED, now)))
        return promoted

    # -- budgets ------------------------------------------------------------------------------------------

    def grant(self, grant: Grant) -> None:
        """Put a pot of hours beside one budget."""
        self.grants.append(grant)
        facts = {"id": grant.id, "budget": grant.budget, "units": grant.units, "until": grant.until}
        self.entries.append(
            Entry(
                EntryKind.GRANTED,
                grant.made_at,
                pool=grant.pool,
                person=grant.person or None,
                who=grant.made_by,
                why=grant.why,
                facts=facts,
            )
        )

    def correct(self, of: BudgetOf, units: int, now: Instant, *, who: str = "", why: str = "") -> None:
        """Add (or, negative, take away) used hours of one budget's period by hand."""
        window = window_at(of.budget, now, self.policy.timezone)
        if window is None:
            raise ValueError(f"{of.pool} has no running period of budget {of.budget.name}")
        self.sums.add(of.key("corrected", window), units)
        facts = {"budget": of.budget.name, "period": window.label, "units": units}
        entry = Entry(
            EntryKind.CORRECTED, now, pool=of.pool, person=of.person or None, who=who, why=why, facts=facts
        )
        self.entries.append(entry)

    def write(self, lease: Lease | None, entry: Entry, subject: Lease | None = None) -> Lease:
        """Append the entry, completed with whose it is; the lease (`subject` where it is booked) after it."""
        subject = subject or lease
        assert subject is not None
        entry = replace(entry, lease=subject.id, pool=subject.pool, person=subject.person)
        self.entries.append(entry)
        return apply(lease, entry)

    # -- inside -------------------------------------------------------------------------------------------

    def _move_end(
        self,
        lease: Lease,
        kind: EntryKind,
        ends_at: Instant,
        now: Instant,
        *,
        who: str,
        why: str,
        facts: Mapping[str, Any] | None = None,
    ) -> Lease:
        self._commit(lease, lease.charged_until, lease.ends_at, sign=-1)
        move_end(self.tree, self.sums, lease, ends_at)
        facts = {"ends_at": ends_at, **(facts or {})}
        lease = self.write(lease, Entry(kind, now, who=who, why=why, facts=facts))
        self._commit(lease, lease.charged_until, lease.ends_at)
        return lease

    def _commit(self, lease: Lease, start: Instant, end: Instant, sign: int = 1) -> None:
        if lease.cost and start < end:
            for ref in binding(self.policy, lease.path, lease.person):
                self.budgets.commit(ref, lease.cost, start, end, sign)


def refold(
    policy: Policy,
    leases: Iterable[Lease],
    charges: Iterable[tuple[Lease, date, int]],
    kept: Sums,
    grants: Sequence[Grant] = (),
    since: Instant | None = None,
    reservations: Sequence[Reservation] = (),
) -> Sums:
    """All sums afresh: from the live leases, and from what all leases accrued per local date.

    `charges` holds (lease, local date, cost units); `kept` are the sums until now, of which those stay that stand
    for themselves (corrections, what grants paid, when budgets began). With `since`, budgets the policy did not
    have before begin in the period of that instant. `reservations` are those that are not over.
    """
    sums = Sums({key: value for key, value in kept.items() if key.kind in KEPT_BY_REFOLD})
    tree = tree_of(policy)
    budgets = Budgets(policy, sums, grants)
    lay_out(tree, sums, reservations, kept)
    for lease in leases:
        if lease.live:
            add_to_sums(tree, sums, lease)
            if lease.cost:
                for ref in binding(policy, lease.path, lease.person):
                    budgets.commit(ref, lease.cost, lease.charged_until, lease.ends_at)
    for lease, day, units in charges:
        if not units:
            continue
        for ref in binding(policy, lease.path, lease.person):
            window = window_at(ref.budget, first_instant(day, policy.timezone), policy.timezone)
            if window is not None:
                sums.add(ref.key("spent", window), units)
    if since is not None:
        budgets.open(since, kept)
    return sums


def find_budget(policy: Policy, pool: str, period: str | None, person: str | None) -> BudgetOf:
    """The one budget of a pool that is meant; raises ValueError with what to add where several stand.

    `period` is `day` ... `year`, or `term`, or FROM/TO of a term.
    """
    if pool not in policy.pools:
        raise ValueError(f"there is no pool {pool!r}; the policy has {', '.join(policy.pools)}")
    found = [
        budget
        for budget in policy.pools[pool].budgets
        if budget.each_person == bool(person)
        and (
            period is None or str(budget.period) == period or (period == "term" and "/" in str(budget.period))
        )
    ]
    if len(found) == 1:
        return BudgetOf(pool, found[0], person or "")
    have = ", ".join(
        f"{b.period} (each person)" if b.each_person else str(b.period) for b in policy.pools[pool].budgets
    )
    if not have:
        raise ValueError(f"pool {pool!r} has no budget")
    say = "name one by its period" if found else "no budget of it matches that period and person"
    raise ValueError(
        f"pool {pool!r} has the budgets {have}; {say} (and give the person where it is each person's)"
    )

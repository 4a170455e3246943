"""The page *mine* as data: a person's servers, places in line, clusters, hours and limits. Pure.

Every number comes from one snapshot. All texts are in one language already; the template only escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR, MILLI
from hub_ext.core.clock import MINUTE, Instant, Seconds
from hub_ext.core.decision import Code, Refuse, Wait
from hub_ext.core.people import Person
from hub_ext.desk.charts import WHOLE, Bar, BarChart, Series, number, share_of
from hub_ext.desk.clusters import ClusterFacts, is_of_cluster
from hub_ext.desk.records import DayOfUse, Waiting
from hub_ext.desk.tables_csv import Cell
from hub_ext.desk.views_clusters import ClusterLine, cluster_line
from hub_ext.desk.views_parts import (
    BudgetLine,
    Chip,
    Extension,
    Longer,
    budget_line,
    in_line,
    longer_by,
    short_name,
    waiting_chip,
)
from hub_ext.language import Speaker
from hub_ext.quota.budget import BudgetState
from hub_ext.quota.explain import Explanation, Titles, explain, explain_borrowed
from hub_ext.quota.model import COUNTED_KINDS, SERVER, Lease, LeaseState, Policy
from hub_ext.quota.policy import End

SPANS: Final = (14, 30)
"""So many days the hours can be looked at over; the first is what is shown."""
EXTENSIONS: Final = (30, 60, 120, 240, 480)
"""Minutes that an extension is offered for."""
SOON: Final[Seconds] = 15 * MINUTE
"""A server that ends within this time says so before all else."""


# -- what the page is made from ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cap:
    """How much of a cap the person holds, in base units or a count."""

    pool: str
    key: str
    held: int
    limit: int


@dataclass(frozen=True)
class MineFacts:
    person: Person
    policy: Policy
    as_of: Instant
    now: Instant
    leases: Sequence[Lease] = ()
    """Theirs, live, oldest first."""
    extensions: Mapping[str, Sequence[tuple[int, Extension]]] = field(default_factory=dict)
    """By lease: what an extension by so many minutes would come to."""
    notices: Mapping[str, str] = field(default_factory=dict)
    """By lease: why it was told to end, where it was not taken back."""
    tickets: Sequence[Waiting] = ()
    clusters: Sequence[ClusterFacts] = ()
    budgets: Sequence[BudgetState] = ()
    caps: Sequence[Cap] = ()
    days: Mapping[date, DayOfUse] = field(default_factory=dict)
    first: date = date.min
    last: date = date.min
    titles: Titles = field(default_factory=dict)
    """Of pools and profiles, by name."""


# -- what the page is -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServerLine:
    lease: str
    server: str
    title: str
    what: str
    where: str
    chip: Chip
    until: str
    until_exact: str
    gone: int
    """Thousandths of its time that are over."""
    price: str
    hint: str = ""
    notice: str = ""
    soon: bool = False
    """The notice is about the next minutes."""
    longer: tuple[Longer, ...] = ()
    why_not_longer: str = ""
    openable: bool = False
    unclaimed: bool = False
    """It was started while they were away: opening it says that they have come."""
    stoppable: bool = True


@dataclass(frozen=True, slots=True)
class TicketLine:
    ticket: str
    title: str
    what: str
    where: str
    chip: Chip
    since: str
    since_exact: str
    told: Explanation | None
    put_back: str = ""


@dataclass(frozen=True, slots=True)
class CapLine:
    title: str
    where: str
    text: str
    held: int
    full: bool


@dataclass(frozen=True, slots=True)
class MinePage:
    servers: tuple[ServerLine, ...]
    tickets: tuple[TicketLine, ...]
    clusters: tuple[ClusterLine, ...]
    budgets: tuple[BudgetLine, ...]
    caps: tuple[CapLine, ...]
    chart: BarChart
    summary: str
    span: int
    age: Seconds


def mine_page(facts: MineFacts, say: Speaker) -> MinePage:
    servers = [_server(facts, lease, say) for lease in facts.leases if lease.kind == SERVER]
    return MinePage(
        servers=tuple(sorted(servers, key=lambda line: not line.soon)),
        tickets=tuple(_ticket(facts, ticket, say) for ticket in _told_alone(facts)),
        clusters=tuple(cluster_line(cluster, say, soon=SOON) for cluster in facts.clusters),
        budgets=tuple(_budgets(facts, say)),
        caps=tuple(_cap(facts, cap, say) for cap in facts.caps),
        chart=hours_chart(facts, say),
        summary=_summary(facts, servers, say),
        span=(facts.last - facts.first).days + 1,
        age=max(0, facts.now - facts.as_of),
    )


# -- servers ----------------------------------------------------------------------------------------------------------


def _server(facts: MineFacts, lease: Lease, say: Speaker) -> ServerLine:
    running = lease.state is LeaseState.RUNNING
    notice = _notice(facts, lease, say)
    longer, why_not = _longer(facts, lease, say)
    return ServerLine(
        lease=lease.id,
        server=lease.server,
        title=lease.server or say("Your server"),
        what=say.amounts(lease.amounts),
        where=_title(facts, lease.pool, say),
        chip=_chip(lease, say),
        until=say.until(lease.ends_at, facts.now),
        until_exact=say.exact(lease.ends_at),
        gone=_gone(lease, facts.now),
        price=say.price(lease.cost),
        hint="" if lease.guaranteed or notice else _borrowed(facts, lease, say),
        notice=notice,
        soon=bool(notice) and lease.ends_at - facts.now <= SOON,
        longer=longer if running else (),
        why_not_longer=why_not if running else "",
        openable=running,
        unclaimed=lease.unclaimed,
        stoppable=lease.state is not LeaseState.ENDING,
    )


def _chip(lease: Lease, say: Speaker) -> Chip:
    match lease.state:
        case LeaseState.BOOKED:
            return Chip("wait", say("Starting"))
        case LeaseState.RUNNING:
            if lease.noticed_at is not None:
                return Chip("borrowed", say("Ends soon"))
            return (
                Chip("now", say("Running"))
                if lease.guaranteed
                else Chip("borrowed", say("Running, borrowed"))
            )
        case LeaseState.ENDING | LeaseState.RELEASED:
            return Chip("refused", say("Stopping"))


def _notice(facts: MineFacts, lease: Lease, say: Speaker) -> str:
    """Why it ends earlier than was agreed, and what to do."""
    if lease.state is LeaseState.ENDING:
        return ""
    if lease.unclaimed and lease.state is LeaseState.RUNNING:
        return say("Its turn came and it was started for you. Open it, or it is given to the next in line.")
    if lease.noticed_at is None:
        return ""
    time = say.moment(lease.ends_at, facts.now)
    if lease.noticed_for is not None:
        return say(
            "Ends at {time}: it is borrowed, and whoever it belongs to needs it back. Save your work; you are "
            "first in line for the next.",
            time=time,
        )
    if facts.notices.get(lease.id) == Code.BUDGET_SPENT.value and not _much_longer(facts, lease):
        return say(
            "Ends at {time}: its GPU-hours are used up then. Save your work, or ask for more hours.",
            time=time,
        )
    return say("Ends at {time}. Save your work, or let it run longer.", time=time)


def _much_longer(facts: MineFacts, lease: Lease) -> bool:
    """Whether hours were granted since it was told that they are used up."""
    least = facts.policy.session(lease.pool).min if lease.pool in facts.policy.pools else 0
    ends = [outcome.at for _, outcome in facts.extensions.get(lease.id, ()) if isinstance(outcome, End)]
    return max(ends, default=0) > lease.ends_at + least


def _borrowed(facts: MineFacts, lease: Lease, say: Speaker) -> str:
    notice = facts.policy.session(lease.pool).notice if lease.pool in facts.policy.pools else None
    return explain_borrowed(lease.lender, say, notice=notice, titles=facts.titles)


def _gone(lease: Lease, now: Instant) -> int:
    since = lease.started_at if lease.started_at is not None else lease.booked_at
    return share_of(max(0, now - since), lease.ends_at - since) if lease.ends_at > since else WHOLE


def _longer(facts: MineFacts, lease: Lease, say: Speaker) -> tuple[tuple[Longer, ...], str]:
    """The extensions that are possible and worth it, each end once; where there are none, why."""
    if lease.noticed_for is not None:
        return (), say("Somebody whose share it is waits for it.")
    extensions = facts.extensions.get(lease.id, ())
    choices, objection = longer_by(extensions, lease.ends_at, say, titles=facts.titles, now=facts.now)
    if choices or lease.id not in facts.extensions:
        return choices, ""
    return (), objection or say("It ends as late as a server here may run. Later it can be extended again.")


# -- tickets ---------------------------------------------------------------------------------------------------------


def _told_alone(facts: MineFacts) -> list[Waiting]:
    """Those that are not told with the cluster that waits."""
    clusters = {cluster.name for cluster in facts.clusters}
    return [one for one in facts.tickets if not (is_of_cluster(one.kind) and one.server in clusters)]


def _ticket(facts: MineFacts, ticket: Waiting, say: Speaker) -> TicketLine:
    return TicketLine(
        ticket=ticket.id,
        title=_title_of(ticket, say),
        what=say.amounts(ticket.amounts),
        where=_title(facts, ticket.pool, say),
        chip=waiting_chip(ticket, facts.now, say),
        since=say(
            "in line since {time}, place {place}",
            time=say.moment(ticket.made_at, facts.now),
            place=ticket.place,
        )
        if ticket.place is not None
        else say("in line since {time}", time=say.moment(ticket.made_at, facts.now)),
        since_exact=say.exact(ticket.made_at),
        told=in_line(ticket.code, ticket.facts, say, titles=facts.titles, now=facts.now),
        put_back=say("It was taken back from you, so you are first again.") if ticket.put_back else "",
    )


def _title_of(ticket: Waiting, say: Speaker) -> str:
    if ticket.kind == SERVER:
        return ticket.server or say("Your server")
    return (
        say("Dask cluster {name}", name=short_name(ticket.server)) if ticket.server else say("Dask cluster")
    )


# -- hours and limits -------------------------------------------------------------------------------------------------


def _budgets(facts: MineFacts, say: Speaker) -> list[BudgetLine]:
    """The person's own first, then those of their pools upwards."""
    ordered = sorted(facts.budgets, key=lambda state: not state.of.person)
    return [budget_line(state, facts.titles, facts.now, say) for state in ordered]


def _cap(facts: MineFacts, cap: Cap, say: Speaker) -> CapLine:
    if cap.key == "memory":
        held, limit = say.amount(cap.key, cap.held), say.amount(cap.key, cap.limit)
    else:
        unit = 1 if cap.key in COUNTED_KINDS.values() else MILLI
        held, limit = (number(Decimal(amount) / unit) for amount in (cap.held, cap.limit))
    return CapLine(
        title=say.resource(cap.key),
        where=_title(facts, cap.pool, say),
        text=say("{held} of {limit}", held=held, limit=limit),
        held=share_of(cap.held, cap.limit),
        full=cap.held >= cap.limit,
    )


def hours_chart(facts: MineFacts, say: Speaker) -> BarChart:
    """GPU-hours by day over the span, days without any included."""
    bars, total = [], 0
    day = facts.first
    while day <= facts.last:
        use = facts.days.get(day, DayOfUse(day))
        total += use.units
        bars.append(
            Bar(
                label=say.date(day, facts.last),
                values=(_hours(use.guaranteed), _hours(use.borrowed)),
                short=f"{day.month}/{day.day}",
                told=say(
                    "{day}: {hours} GPU-h, {borrowed} of them borrowed",
                    day=say.date(day, facts.last),
                    hours=say.hours(use.units),
                    borrowed=say.hours(use.borrowed),
                ),
            )
        )
        day += timedelta(days=1)
    return BarChart(
        name="hours",
        title=say("GPU-hours by day"),
        summary=say("{hours} GPU-h in the last {count} days", hours=say.hours(total), count=len(bars)),
        series=(Series("used", say("Guaranteed")), Series("borrowed", say("Borrowed"))),
        bars=tuple(bars),
        unit=say("GPU-h"),
        table=say("As a table"),
        first=say("Day"),
    )


def _hours(units: int) -> Decimal:
    return Decimal(units) / COST_UNITS_PER_GPU_HOUR


# -- the first answer -------------------------------------------------------------------------------------------------


def _summary(facts: MineFacts, servers: Sequence[ServerLine], say: Speaker) -> str:
    """What there is, in one line."""
    parts = []
    if servers:
        parts.append(say.ngettext("{count} server", "{count} servers", len(servers), count=len(servers)))
    if facts.clusters:
        count = len(facts.clusters)
        parts.append(say.ngettext("{count} cluster", "{count} clusters", count, count=count))
    waiting = len(_told_alone(facts))
    if waiting:
        parts.append(say.ngettext("{count} in line", "{count} in line", waiting, count=waiting))
    taking = sum(lease.cost for lease in facts.leases if lease.state is LeaseState.RUNNING)
    if taking:
        parts.append(say.price(taking))
    return " · ".join(parts)


def _title(facts: MineFacts, pool: str, say: Speaker) -> str:
    return say.text(facts.titles.get(pool, {}), pool)


def why_not(facts: MineFacts, objection: Wait | Refuse, say: Speaker) -> str:
    """Why an extension was not given, in words."""
    return str(explain(objection.code, objection.facts, say, titles=facts.titles, now=facts.now))


def hours_table(facts: MineFacts) -> tuple[list[str], list[list[Cell]]]:
    """The hours by day as a table of numbers, the first day first."""
    rows: list[list[Cell]] = []
    day = facts.first
    while day <= facts.last:
        use = facts.days.get(day, DayOfUse(day))
        rows.append([day.isoformat(), *(round(_hours(units), 4) for units in (use.guaranteed, use.borrowed))])
        day += timedelta(days=1)
    return ["day", "guaranteed_gpu_hours", "borrowed_gpu_hours"], rows

"""The page *pool* as data: a lead's pools, their use against what is guaranteed, their people, hours and grants. Pure.

Every number comes from one snapshot. All texts are in one language already; the template only escapes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR, MILLI, is_gpu
from hub_ext.desk.charts import Bar, BarChart, Series, number, share_of
from hub_ext.desk.pool_facts import PoolFacts, PotLeft, ResourceUse
from hub_ext.desk.records_pool import Holding
from hub_ext.desk.tables_csv import Cell
from hub_ext.desk.usage import gpu_hours
from hub_ext.desk.views_hours import titles_of_pools, whose
from hub_ext.desk.views_parts import BudgetLine, budget_line
from hub_ext.desk.words_hours import hours_number, last_day
from hub_ext.language import Speaker
from hub_ext.quota.explain import Titles
from hub_ext.quota.model import SCHEDULER, SERVER, WORKER, HoursRequest

PEOPLE_SHOWN: Final = 50
"""On one page of the table of people."""
GRANT_FIELDS: Final = (
    "id",
    "pool",
    "budget",
    "person",
    "hours",
    "left",
    "until",
    "why",
    "made_at",
    "made_by",
)


@dataclass(frozen=True, slots=True)
class PoolChoice:
    name: str
    label: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class UseLine:
    """One resource of one pool: `parts` of its bar in thousandths, and the same in words."""

    resource: str
    text: str
    detail: str
    parts: tuple[tuple[str, int], ...]
    mark: int | None
    """Where the quota ends, when more than it is used."""


@dataclass(frozen=True, slots=True)
class TreeLine:
    name: str
    title: str
    depth: int
    uses: tuple[UseLine, ...]


@dataclass(frozen=True, slots=True)
class PersonLine:
    name: str
    running: str
    what: str
    borrowed: str
    next_end: str
    next_end_exact: str
    hours: str
    share: int
    """Of the hours of the person with the most, in thousandths."""


@dataclass(frozen=True, slots=True)
class GrantLine:
    title: str
    text: str
    detail: str
    until: str
    why: str
    by: str
    used: int
    """Thousandths."""


@dataclass(frozen=True, slots=True)
class AskedLine:
    title: str
    text: str
    by: str


@dataclass(frozen=True, slots=True)
class PoolPage:
    pool: str
    title: str
    choices: tuple[PoolChoice, ...]
    summary: str
    tree: tuple[TreeLine, ...]
    people: tuple[PersonLine, ...]
    people_count: int
    page: int
    pages: int
    budgets: tuple[BudgetLine, ...]
    chart: BarChart
    grants: tuple[GrantLine, ...]
    requests: tuple[AskedLine, ...]
    span: int
    first: str
    last: str


def pool_page(facts: PoolFacts, say: Speaker, page: int = 1) -> PoolPage:
    titles = titles_of_pools(facts.policy)
    names = _people(facts)
    pages = max(1, -(-len(names) // PEOPLE_SHOWN))
    page = min(max(1, page), pages)
    shown = names[(page - 1) * PEOPLE_SHOWN : page * PEOPLE_SHOWN]
    return PoolPage(
        pool=facts.pool,
        title=say.text(titles[facts.pool], facts.pool),
        choices=tuple(_choice(facts, name, titles, say) for name in facts.led),
        summary=_summary(facts, say),
        tree=tuple(
            TreeLine(
                line.pool,
                say.text(titles[line.pool], line.pool),
                line.depth,
                tuple(_use(one, titles, say) for one in _gpus_first(line.resources)),
            )
            for line in facts.tree
        ),
        people=tuple(_lines_of(shown, facts, say)),
        people_count=len(names),
        page=page,
        pages=pages,
        budgets=tuple(budget_line(state, titles, facts.now, say) for state in facts.budgets),
        chart=_chart(facts, say),
        grants=tuple(_grant(pot, titles, facts, say) for pot in facts.pots),
        requests=tuple(_asked(one, titles, facts, say) for one in facts.requests),
        span=(facts.last - facts.first).days + 1,
        first=facts.first.isoformat(),
        last=facts.last.isoformat(),
    )


def _choice(facts: PoolFacts, name: str, titles: Titles, say: Speaker) -> PoolChoice:
    led_above = sum(above in facts.led for above in facts.policy.path(name)[1:])
    label = "\u2003" * led_above + say.text(titles[name], name)
    return PoolChoice(name, label, name == facts.pool)


def _summary(facts: PoolFacts, say: Speaker) -> str:
    people = {one.person for one in facts.holdings}
    if not people:
        return say("Nobody runs anything here now.")
    servers = sum(one.count for one in facts.holdings if one.kind == SERVER)
    running = say.ngettext("{count} server", "{count} servers", servers, count=servers)
    workers = _workers(facts.holdings)
    who = say.ngettext("{count} person", "{count} people", len(people), count=len(people))
    held = _added(facts.holdings)
    gpus = {resource: amount for resource, amount in held.items() if is_gpu(resource)}
    of_dask = say.amount("dask-workers", workers) if workers else ""
    return " · ".join(part for part in (who, running, of_dask, say.amounts(gpus)) if part)


def _workers(held: Sequence[Holding]) -> int:
    return sum(one.count for one in held if one.kind == WORKER)


# -- use against the guarantee ----------------------------------------------------------------------------------------


def _gpus_first(uses: Sequence[ResourceUse]) -> list[ResourceUse]:
    return sorted(uses, key=lambda one: (not is_gpu(one.resource), one.resource))


def _use(one: ResourceUse, titles: Titles, say: Speaker) -> UseLine:
    """What is used of the quota, what is borrowed beyond it, what others have of the idle rest."""
    detail = say("{amount} more could be started now", amount=_count(one, max(0, one.available), say))
    if one.quota is None:
        home = say.text(titles.get(one.home or "", {}), one.home or "")
        text = say("{amount} in use, of {pool}", amount=_count(one, one.used, say), pool=home)
        return UseLine(say.resource(one.resource), text, detail, (), None)
    whole = max(one.quota, one.used, 1)
    own = one.used - one.borrowed
    told = [say("{used} of {quota} in use", used=_count(one, own, say), quota=_count(one, one.quota, say))]
    if one.borrowed:
        told.append(say("{amount} borrowed", amount=_count(one, one.borrowed, say)))
    if one.lent:
        told.append(say("{amount} lent", amount=_count(one, one.lent, say)))
    return UseLine(
        resource=say.resource(one.resource),
        text=" · ".join(told),
        detail=detail,
        parts=(
            ("used", share_of(own, whole)),
            ("borrowed", share_of(one.borrowed, whole)),
            ("lent", share_of(one.lent, whole)),
        ),
        mark=share_of(one.quota, whole) if one.borrowed else None,
    )


def _count(one: ResourceUse, amount: int, say: Speaker) -> str:
    if one.resource == "memory":
        return say.amount("memory", amount)
    return number(Decimal(amount) / MILLI)


# -- people -----------------------------------------------------------------------------------------------------------


def _people(facts: PoolFacts) -> list[str]:
    """Whoever runs something or used hours in the span: the most hours first."""
    running = {one.person for one in facts.holdings}
    return sorted({*facts.people, *running}, key=lambda name: (-facts.people.get(name, 0), name))


def _lines_of(names: Sequence[str], facts: PoolFacts, say: Speaker) -> list[PersonLine]:
    held: dict[str, list[Holding]] = {name: [] for name in names}
    for one in facts.holdings:
        if one.person in held:
            held[one.person].append(one)
    most = max(facts.people.values(), default=0)
    return [_person(name, held[name], facts.people.get(name, 0), most, facts, say) for name in names]


def _person(
    name: str, held: Sequence[Holding], units: int, most: int, facts: PoolFacts, say: Speaker
) -> PersonLine:
    servers = sum(one.count for one in held if one.kind == SERVER)
    workers = _workers(held)
    clusters = sum(one.count for one in held if one.kind == SCHEDULER)
    running = [say.ngettext("{count} server", "{count} servers", servers, count=servers)] if servers else []
    if clusters:
        running.append(say.ngettext("{count} cluster", "{count} clusters", clusters, count=clusters))
    if workers:
        running.append(say.amount("dask-workers", workers))
    borrowed = {
        resource: amount
        for resource, amount in _added([one for one in held if not one.guaranteed]).items()
        if is_gpu(resource)
    }
    ends = min((one.next_end for one in held), default=None)
    return PersonLine(
        name=name,
        running=" · ".join(running),
        what=say.amounts(_added(held)),
        borrowed=say("{amount} borrowed", amount=say.amounts(borrowed)) if any(borrowed.values()) else "",
        next_end="" if ends is None else say.moment(ends, facts.now),
        next_end_exact="" if ends is None else say.exact(ends),
        hours=say.hours(units),
        share=share_of(units, most),
    )


def _added(held: Sequence[Holding]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in held:
        for resource, amount in one.amounts.items():
            total[resource] = total.get(resource, 0) + amount * one.count
    return total


# -- hours and grants -------------------------------------------------------------------------------------------------


def _chart(facts: PoolFacts, say: Speaker) -> BarChart:
    """GPU-hours by day over the span, days without any included."""
    days = [facts.first + timedelta(days=step) for step in range((facts.last - facts.first).days + 1)]
    bars = []
    for day in days:
        units = facts.days.get(day, 0)
        told = say("{day}: {hours} GPU-h", day=say.date(day, facts.last), hours=say.hours(units))
        bars.append(
            Bar(
                label=say.date(day, facts.last),
                values=(Decimal(units) / COST_UNITS_PER_GPU_HOUR,),
                short=f"{day.month}/{day.day}",
                told=told,
            )
        )
    return BarChart(
        name="pool-hours",
        title=say("GPU-hours by day"),
        summary=say(
            "{hours} GPU-h in the last {count} days",
            hours=say.hours(sum(facts.days.values())),
            count=len(days),
        ),
        series=(Series("used", say("GPU-hours")),),
        bars=tuple(bars),
        unit=say("GPU-h"),
        table=say("As a table"),
        first=say("Day"),
    )


def _grant(pot: PotLeft, titles: Titles, facts: PoolFacts, say: Speaker) -> GrantLine:
    grant = pot.grant
    left = say("{left} of {hours} GPU-h left", left=say.hours(pot.left), hours=hours_number(grant.units))
    return GrantLine(
        title=whose(grant.pool, grant.person, "", titles, say),
        text=left,
        detail=left,
        until=last_day(grant.until, say),
        why=grant.why,
        by=say("granted by {who}, {time}", who=grant.made_by, time=say.moment(grant.made_at, facts.now)),
        used=share_of(grant.units - pot.left, grant.units),
    )


def grant_rows(facts: PoolFacts) -> list[dict[str, Cell]]:
    """The grants as a table of numbers."""
    local = facts.policy.local
    return [
        {
            "id": pot.grant.id,
            "pool": pot.grant.pool,
            "budget": pot.grant.budget,
            "person": pot.grant.person,
            "hours": gpu_hours(pot.grant.units),
            "left": gpu_hours(pot.left),
            "until": local(pot.grant.until).isoformat(),
            "why": pot.grant.why,
            "made_at": local(pot.grant.made_at).isoformat(),
            "made_by": pot.grant.made_by,
        }
        for pot in facts.pots
    ]


def _asked(request: HoursRequest, titles: Titles, facts: PoolFacts, say: Speaker) -> AskedLine:
    what = say(
        "{hours} GPU-hours until {date}",
        hours=hours_number(request.units),
        date=last_day(request.until, say),
    )
    by = say("asked by {who}, {time}", who=request.made_by, time=say.moment(request.made_at, facts.now))
    return AskedLine(whose(request.pool, request.person, "", titles, say), what, by)

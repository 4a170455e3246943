"""Dask clusters in words: how one stands, why it has no more workers, what ends when; and what could be started. Pure.

All texts are in one language already; templates and programs take them as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hub_ext.core.amounts import Amounts
from hub_ext.core.clock import Instant
from hub_ext.core.decision import Code
from hub_ext.desk.charts import WHOLE, share_of
from hub_ext.desk.clusters import ClusterExtension, ClusterFacts
from hub_ext.desk.front_rules import page_of
from hub_ext.desk.views_parts import Chip, Longer, in_line, longer_by, short_name
from hub_ext.desk.views_waiting import when
from hub_ext.language import Speaker
from hub_ext.quota.explain import Explanation, Titles, explain
from hub_ext.quota.model import Lease, LeaseState

State = Literal["starting", "running", "ending"]
Why = Literal["taken-back", "budget-spent", "ends-soon"]


@dataclass(frozen=True, slots=True)
class Workers:
    """How many there are. `live` hold a lease, `wanted` are missing and wait in line; `ending` are among the live."""

    live: int = 0
    running: int = 0
    starting: int = 0
    ending: int = 0
    guaranteed: int = 0
    borrowed: int = 0
    wanted: int = 0


@dataclass(frozen=True, slots=True)
class ClusterNotice:
    """So many workers end at `ends_at`, told at `at`; `whole`: the cluster itself does."""

    why: Why
    at: Instant
    ends_at: Instant
    workers: int
    whole: bool
    message: str


@dataclass(frozen=True, slots=True)
class ClusterLine:
    """A cluster's card."""

    name: str
    short: str
    title: str
    what: str
    where: str
    chip: Chip
    workers: str
    parts: tuple[tuple[str, int], ...]
    """Of the bar of its workers: guaranteed and borrowed ones that run, those that start; the rest waits."""
    notice: str
    soon: bool
    waits: str
    told: Explanation | None
    until: str
    until_exact: str
    gone: int
    price: str
    dashboard: str
    longer: tuple[Longer, ...] = ()
    why_not_longer: str = ""
    stoppable: bool = True


def counted(facts: ClusterFacts) -> Workers:
    workers, ticket = facts.leases.workers, facts.leases.ticket
    states = Counter(lease.state for lease in workers)
    guaranteed = sum(lease.guaranteed for lease in workers)
    return Workers(
        live=len(workers),
        running=states[LeaseState.RUNNING],
        starting=states[LeaseState.BOOKED],
        ending=states[LeaseState.ENDING],
        guaranteed=guaranteed,
        borrowed=len(workers) - guaranteed,
        wanted=0 if ticket is None else ticket.wanted,
    )


def state_of(facts: ClusterFacts) -> State:
    """`starting`, `running` or `ending`, as its scheduler does."""
    scheduler = facts.leases.scheduler
    if scheduler is None or scheduler.state is LeaseState.ENDING:
        return "ending"
    return "starting" if scheduler.state is LeaseState.BOOKED else "running"


def ends_at(facts: ClusterFacts) -> Instant:
    scheduler = facts.leases.scheduler
    return (
        scheduler.ends_at
        if scheduler is not None
        else max((one.ends_at for one in facts.all), default=facts.now)
    )


def cost(facts: ClusterFacts) -> int:
    """Cost units per second of all its leases."""
    return sum(lease.cost for lease in facts.all)


def dashboard(facts: ClusterFacts) -> str:
    """Its address; empty before there is one."""
    return page_of(facts.name) if state_of(facts) == "running" else ""


# -- what ends --------------------------------------------------------------------------------------------------------


def notice_of(facts: ClusterFacts, say: Speaker) -> ClusterNotice | None:
    """What ends first of all that was told to end; the cluster itself before its workers."""
    if state_of(facts) == "ending":
        return None
    scheduler = facts.leases.scheduler
    going = [one for one in facts.leases.workers if one.state is not LeaseState.ENDING]
    if scheduler is not None and scheduler.noticed_at is not None:
        time = say.moment(scheduler.ends_at, facts.now)
        message = say("The cluster ends at {time}. Save its results, or let it run longer.", time=time)
        return ClusterNotice("ends-soon", scheduler.noticed_at, scheduler.ends_at, len(going), True, message)
    taken = [one for one in going if one.noticed_for is not None]
    told = taken or [one for one in going if one.noticed_at is not None]
    if not told:
        return None
    end = min(one.ends_at for one in told)
    same = [one for one in told if one.ends_at == end]
    why: Why = "taken-back" if taken else _why(facts, same)
    at = max(one.noticed_at or 0 for one in same)
    return ClusterNotice(why, at, end, len(same), False, _message(why, len(same), end, facts, say))


def _why(facts: ClusterFacts, leases: Sequence[Lease]) -> Why:
    spent = any(facts.whys.get(one.id) == Code.BUDGET_SPENT.value for one in leases)
    return "budget-spent" if spent else "ends-soon"


def _message(why: Why, count: int, end: Instant, facts: ClusterFacts, say: Speaker) -> str:
    time = say.moment(end, facts.now)
    if why == "taken-back":
        return say.ngettext(
            "{count} worker ends at {time}: it is borrowed, and whoever it belongs to needs it back. Its data moves to "
            "the other workers before; the cluster goes on.",
            "{count} workers end at {time}: they are borrowed, and whoever they belong to needs them back. Their data "
            "moves to the other workers before; the cluster goes on.",
            count,
            count=count,
            time=time,
        )
    if why == "budget-spent":
        return say.ngettext(
            "{count} worker ends at {time}: the GPU-hours are used up then. Save your results, or ask for more hours.",
            "{count} workers end at {time}: the GPU-hours are used up then. Save your results, or ask for more hours.",
            count,
            count=count,
            time=time,
        )
    return say.ngettext(
        "{count} worker ends at {time}. Save your results, or let the cluster run longer.",
        "{count} workers end at {time}. Save your results, or let the cluster run longer.",
        count,
        count=count,
        time=time,
    )


# -- its card ---------------------------------------------------------------------------------------------------------


def cluster_line(facts: ClusterFacts, say: Speaker, *, soon: int) -> ClusterLine:
    """`soon`: within so many seconds the cluster's end is an alarm."""
    _, pool, profile = facts.of
    workers, notice, ticket = counted(facts), notice_of(facts, say), facts.leases.ticket
    end = ends_at(facts)
    running = state_of(facts) == "running"
    longer, why_not = _longer(facts, say) if running else ((), "")
    return ClusterLine(
        name=facts.name,
        short=short_name(facts.name),
        title=say.text(facts.titles.get(profile or "", {}), say("Dask cluster")),
        what=f"{say.amount('dask-workers', workers.live)} · {say.amounts(_added(facts.all))}",
        where=say.text(facts.titles.get(pool, {}), pool),
        chip=_chip(facts, notice, say),
        workers=_counts(workers, say),
        parts=_parts(facts, workers),
        notice="" if notice is None else notice.message,
        soon=notice is not None and notice.whole and notice.ends_at - facts.now <= soon,
        waits="" if ticket is None else _waits(facts, workers.wanted, say),
        told=None
        if ticket is None
        else in_line(ticket.outlook.code, ticket.outlook.facts, say, titles=facts.titles, now=facts.now),
        until=say.until(end, facts.now),
        until_exact=say.exact(end),
        gone=_gone(facts, end),
        price=say.price(cost(facts)),
        dashboard=dashboard(facts),
        longer=longer,
        why_not_longer=why_not,
        stoppable=state_of(facts) != "ending",
    )


def _chip(facts: ClusterFacts, notice: ClusterNotice | None, say: Speaker) -> Chip:
    match state_of(facts):
        case "starting":
            return Chip("wait", say("Starting"))
        case "ending":
            return Chip("refused", say("Stopping"))
        case _:
            pass
    if notice is not None and notice.whole:
        return Chip("borrowed", say("Ends soon"))
    workers = facts.leases.workers
    if any(not one.guaranteed for one in workers):
        return Chip("borrowed", say("Running, borrowed"))
    return Chip("now", say("Running"))


def _counts(workers: Workers, say: Speaker) -> str:
    """`3 running · 1 starting · 2 borrowed`."""
    told = (
        (workers.running, say("{count} running", count=workers.running)),
        (workers.starting, say("{count} starting", count=workers.starting)),
        (workers.ending, say("{count} being ended", count=workers.ending)),
        (workers.borrowed, say("{count} borrowed", count=workers.borrowed)),
    )
    return " · ".join(words for count, words in told if count) or say("No worker yet")


def _parts(facts: ClusterFacts, workers: Workers) -> tuple[tuple[str, int], ...]:
    whole = max(1, workers.live + workers.wanted)
    running = [one for one in facts.leases.workers if one.state is LeaseState.RUNNING]
    guaranteed = sum(one.guaranteed for one in running)
    return (
        ("used", share_of(guaranteed, whole)),
        ("borrowed", share_of(len(running) - guaranteed, whole)),
        ("lent", share_of(workers.starting, whole)),
    )


def _waits(facts: ClusterFacts, wanted: int, say: Speaker) -> str:
    """`4 more in line, place 2, expected 14:20`."""
    ticket = facts.leases.ticket
    assert ticket is not None
    place, eta = ticket.outlook.place, ticket.outlook.eta
    parts = [
        say.ngettext(
            "{count} more worker waits in line", "{count} more workers wait in line", wanted, count=wanted
        )
    ]
    if place is not None:
        parts.append(say("place {place}", place=place))
    if eta is not None:
        parts.append(when(ticket, say, facts.now))
    return ", ".join(parts)


def _gone(facts: ClusterFacts, end: Instant) -> int:
    first = facts.all[0] if facts.all else None
    since = (
        facts.now
        if first is None
        else (first.started_at if first.started_at is not None else first.booked_at)
    )
    return share_of(max(0, facts.now - since), end - since) if end > since else WHOLE


def _longer(facts: ClusterFacts, say: Speaker) -> tuple[tuple[Longer, ...], str]:
    """The extensions that are possible and worth it, each end once; where there are none, why."""
    end = ends_at(facts)
    choices, objection = longer_by(facts.extensions, end, say, titles=facts.titles, now=facts.now)
    if choices or not facts.extensions:
        return choices, ""
    return (), objection or say("It ends as late as a cluster here may run. Later it can be extended again.")


def _added(leases: Sequence[Lease]) -> Amounts:
    amounts: dict[str, int] = {}
    for lease in leases:
        for resource, amount in lease.amounts.items():
            amounts[resource] = amounts.get(resource, 0) + amount
    return amounts


def why_shorter(extension: ClusterExtension, say: Speaker, *, titles: Titles, now: Instant) -> str:
    """What is said where a cluster, or some of its workers, got no more time."""
    objection = extension.objection
    if objection is None:
        return ""
    told = str(explain(objection.code, objection.facts, say, titles=titles, now=now))
    if not extension.longer:
        return told
    return say.ngettext(
        "The cluster runs longer; {count} of its workers does not. {why}",
        "The cluster runs longer; {count} of its workers do not. {why}",
        extension.shorter,
        count=extension.shorter,
        why=told,
    )

"""Clusters and their sizes as the API gives them: facts for programs, each with the sentence a person would read. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from hub_ext.clusters.policy import IDLE_MINUTES
from hub_ext.clusters.service import ClusterOffer
from hub_ext.core.amounts import COST_UNITS_PER_GPU_SECOND
from hub_ext.core.clock import Instant
from hub_ext.core.decision import Refuse, Wait, plain
from hub_ext.desk.clusters import ClusterFacts
from hub_ext.desk.views_clusters import cost, counted, dashboard, ends_at, notice_of, state_of
from hub_ext.desk.views_lease import EtaBody, HoursLeft, Shaped, hours_left
from hub_ext.desk.views_parts import explained
from hub_ext.desk.views_waiting import when
from hub_ext.language import Speaker
from hub_ext.quota.budget import BudgetState
from hub_ext.quota.explain import Titles, explain, explain_borrowed

# -- clusters ---------------------------------------------------------------------------------------------------------


class WorkersBody(Shaped):
    live: int = Field(description="They hold a lease: those that start, run or are being ended")
    running: int
    guaranteed: int = Field(description="Of the live ones")
    borrowed: int = Field(description="Of the live ones")
    wanted: int = Field(description="So many more are wished for and wait in line")


class ClusterNoticeBody(Shaped):
    """`workers` of it end at `ends_at`, and why: `taken-back`, `budget-spent` or `ends-soon`."""

    why: Literal["taken-back", "budget-spent", "ends-soon"]
    at: datetime = Field(description="When it was told")
    ends_at: datetime
    workers: int
    whole: bool = Field(description="The cluster itself ends then")
    message: str


class ClusterWaitingBody(Shaped):
    """Why it has not all the workers that it wishes for."""

    code: str
    facts: dict[str, Any]
    message: str
    place: int | None
    eta: EtaBody | None


class ClusterBody(Shaped):
    name: str
    person: str
    pool: str
    profile: str | None
    state: Literal["starting", "running", "ending"]
    started_at: datetime | None
    ends_at: datetime
    workers: WorkersBody
    notice: ClusterNoticeBody | None
    waiting: ClusterWaitingBody | None
    cost_per_hour: float = Field(description="GPU-hours that it takes in an hour as it is")
    dashboard: str | None = Field(description="For a person: its owner, or an operator")


def cluster_body(facts: ClusterFacts, say: Speaker) -> ClusterBody:
    person, pool, profile = facts.of
    scheduler, workers = facts.leases.scheduler, counted(facts)
    started = None if scheduler is None else scheduler.started_at
    return ClusterBody(
        name=facts.name,
        person=person,
        pool=pool,
        profile=profile,
        state=state_of(facts),
        started_at=None if started is None else say.local(started),
        ends_at=say.local(ends_at(facts)),
        workers=WorkersBody(
            live=workers.live,
            running=workers.running,
            guaranteed=workers.guaranteed,
            borrowed=workers.borrowed,
            wanted=workers.wanted,
        ),
        notice=_notice(facts, say),
        waiting=_waiting(facts, say),
        cost_per_hour=_hours(cost(facts)),
        dashboard=dashboard(facts) or None,
    )


def _notice(facts: ClusterFacts, say: Speaker) -> ClusterNoticeBody | None:
    found = notice_of(facts, say)
    if found is None:
        return None
    return ClusterNoticeBody(
        why=found.why,
        at=say.local(found.at),
        ends_at=say.local(found.ends_at),
        workers=found.workers,
        whole=found.whole,
        message=found.message,
    )


def _waiting(facts: ClusterFacts, say: Speaker) -> ClusterWaitingBody | None:
    ticket = facts.leases.ticket
    if ticket is None:
        return None
    outlook = ticket.outlook
    told = explained(outlook.code, outlook.facts, say, titles=facts.titles, now=facts.now)
    eta = outlook.eta
    return ClusterWaitingBody(
        code=outlook.code,
        facts=dict(outlook.facts),
        message="" if told is None else str(told),
        place=outlook.place,
        eta=None
        if eta is None
        else EtaBody(at=say.local(eta.at), kind=eta.kind, sentence=when(ticket, say, facts.now)),
    )


# -- sizes ------------------------------------------------------------------------------------------------------------


class WorkerSizeBody(Shaped):
    amounts: dict[str, int]
    words: str


class RoomBody(Shaped):
    """How many workers could start at once; the guaranteed ones come first."""

    guaranteed: int
    borrowed: int


class RatesBody(Shaped):
    """GPU-hours that one worker takes in an hour."""

    guaranteed: float
    borrowed: float


class OfferBody(Shaped):
    """One size of worker in one pool. `state`: `now`, `borrowed` (all of them), `wait` or `no`.

    `code`, `facts` and `message` say why there are not more of them now; null and empty where as many as one cluster may
    have could start.
    """

    profile: str
    title: str
    description: str
    pool: str
    pool_title: str
    worker: WorkerSizeBody
    scheduler: WorkerSizeBody
    now: RoomBody
    state: Literal["now", "borrowed", "wait", "no"]
    code: str | None
    facts: dict[str, Any]
    message: str
    cost_per_hour: RatesBody
    most_workers: int
    minutes: list[int]
    default_minutes: int | None
    idle_minutes: list[int]
    ends_at: datetime | None = Field(
        description="When a cluster of this size that starts now would have to end"
    )


class BudgetLeft(HoursLeft):
    whose: str = Field(description="The person's own hours in a pool, or those of all of it")


class OffersBody(Shaped):
    items: list[OfferBody]
    budgets: list[BudgetLeft] = Field(
        description="What is left of each budget that binds; the nearest to its end first"
    )


def offers_body(offers: list[ClusterOffer], say: Speaker, titles: Titles) -> OffersBody:
    budgets = {
        (state.of.pool, state.of.person, str(state.of.budget.period)): state
        for offer in offers
        for state in offer.preview.budgets
    }
    ordered = sorted(budgets.values(), key=lambda state: state.limit - state.used - state.committed)
    return OffersBody(
        items=[_offer(offer, say, titles) for offer in offers],
        budgets=[_budget(state, say, titles) for state in ordered],
    )


def _budget(state: BudgetState, say: Speaker, titles: Titles) -> BudgetLeft:
    pool = say.text(titles.get(state.of.pool, {}), state.of.pool)
    whose = say("Your hours: {pool}", pool=pool) if state.of.person else pool
    return BudgetLeft(**hours_left(state, say).model_dump(), whose=whose)


def _offer(offer: ClusterOffer, say: Speaker, titles: Titles) -> OfferBody:
    profile, preview = offer.profile, offer.preview
    objection = preview.objection
    return OfferBody(
        profile=profile.slug,
        title=say.text(profile.title, profile.slug),
        description=say.text(profile.description),
        pool=offer.pool,
        pool_title=say.text(titles.get(offer.pool, {}), offer.pool),
        worker=WorkerSizeBody(amounts=dict(profile.worker), words=say.amounts(profile.worker)),
        scheduler=WorkerSizeBody(amounts=dict(profile.scheduler), words=say.amounts(profile.scheduler)),
        now=RoomBody(guaranteed=preview.guaranteed, borrowed=preview.borrowed),
        state=_state(offer),
        code=None if objection is None else objection.code.value,
        facts={} if objection is None else plain(objection.facts),
        message=_message(offer, say, titles),
        cost_per_hour=RatesBody(
            guaranteed=_hours(preview.cost_guaranteed), borrowed=_hours(preview.cost_borrowed)
        ),
        most_workers=profile.most_workers,
        minutes=list(profile.minutes),
        default_minutes=profile.default_minutes,
        idle_minutes=list(IDLE_MINUTES),
        ends_at=None if preview.ends_at is None else say.local(preview.ends_at),
    )


def _state(offer: ClusterOffer) -> Literal["now", "borrowed", "wait", "no"]:
    """What the first worker would be; a cluster whose scheduler cannot start waits for nothing by itself."""
    preview = offer.preview
    if preview.guaranteed:
        return "now"
    if preview.borrowed:
        return "borrowed"
    return "no" if isinstance(preview.objection, Refuse) or preview.objection is None else "wait"


def _message(offer: ClusterOffer, say: Speaker, titles: Titles) -> str:
    preview = offer.preview
    if preview.objection is not None:
        return _told(preview.objection, say, titles, preview.at)
    if preview.borrowed:
        pools = preview.policy.pools
        notice = preview.policy.session(offer.pool).notice if offer.pool in pools else None
        return explain_borrowed(None, say, notice=notice, titles=titles)
    return ""


def _told(objection: Wait | Refuse, say: Speaker, titles: Titles, now: Instant) -> str:
    return str(explain(objection.code, objection.facts, say, titles=titles, now=now))


def _hours(units: int) -> float:
    """Cost units per second as GPU-hours in an hour."""
    return units / COST_UNITS_PER_GPU_SECOND

"""A lease and a ticket as the API gives them: facts for programs, each with the sentence a person would read. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hub_ext.core.amounts import COST_UNITS_PER_GPU_SECOND
from hub_ext.core.clock import Instant
from hub_ext.core.decision import Refuse, Wait
from hub_ext.desk.views_waiting import in_line, when
from hub_ext.language import Speaker
from hub_ext.quota.budget import BudgetState
from hub_ext.quota.explain import Titles, explain, explain_borrowed
from hub_ext.quota.model import Lease, Policy, Ticket


class Shaped(BaseModel):
    """Times are ISO with the centre's offset, amounts in base units (milli-GPU, milli-cores, MiB)."""

    model_config = ConfigDict(populate_by_name=True)


class Notice(Shaped):
    """The lease ends at `at`, and why: `taken-back`, `budget-spent` or `ends-soon`."""

    why: str
    at: datetime
    pool: str | None = Field(None, serialization_alias="for", description="The pool that needs it back")
    sentence: str


class Extend(Shaped):
    """Whether it may run longer, until when at most, or why not."""

    possible: bool
    until: datetime | None = None
    code: str | None = None
    sentence: str


class Cost(Shaped):
    units_per_second: int = Field(description="Millionths of a GPU-second per second")
    sentence: str


class HoursLeft(Shaped):
    """Of the budget that is nearest to its end, in GPU-seconds."""

    pool: str
    period: str
    limit: float
    left: float
    soft_reached: bool
    sentence: str


class LeaseBody(Shaped):
    id: str
    server: str
    kind: str
    pool: str
    profile: str | None
    amounts: dict[str, int]
    state: str
    booked_at: datetime
    started_at: datetime | None
    ends_at: datetime
    guaranteed: bool
    lender: str | None
    borrowed: str = Field(description="What borrowing means, in words; empty where it is guaranteed")
    unclaimed: bool = Field(description="It was started for somebody who waited and has not come yet")
    notice: Notice | None
    extend: Extend | None
    cost: Cost
    hours: HoursLeft | None


class EtaBody(Shaped):
    at: datetime
    kind: Literal["latest", "expected"]
    sentence: str


class TicketBody(Shaped):
    """`waiting`: it has a place in line; `turn`: a lease of the same id was booked; `over`: neither."""

    id: str
    state: Literal["waiting", "turn", "over"]
    server: str
    pool: str
    profile: str | None
    amounts: dict[str, int]
    made_at: datetime | None = None
    place: int | None = None
    eta: EtaBody | None = None
    code: str | None = None
    facts: dict[str, Any] = {}
    sentence: str = ""
    reclaims: int = Field(0, description="Borrowed servers that were told to end for it")
    put_back: bool = False
    lease: str | None = None
    why: str | None = Field(None, description="Why it is over")
    successor: str | None = Field(None, description="The ticket under which the person waits again")
    page: str = Field(description="The waiting room, for a person")


@dataclass(frozen=True)
class LeaseFacts:
    """What is told about one lease. `longest` is its end if it were extended as far as it may."""

    lease: Lease
    policy: Policy
    now: Instant
    titles: Titles
    notice_why: str | None = None
    notice_pool: str | None = None
    longest: Instant | None = None
    objection: Wait | Refuse | None = None
    budgets: tuple[BudgetState, ...] = ()


def lease_body(facts: LeaseFacts, say: Speaker) -> LeaseBody:
    lease = facts.lease
    session = facts.policy.session(lease.pool) if lease.pool in facts.policy.pools else None
    return LeaseBody(
        id=lease.id,
        server=lease.server,
        kind=lease.kind,
        pool=lease.pool,
        profile=lease.profile,
        amounts=dict(lease.amounts),
        state=lease.state.value,
        booked_at=say.local(lease.booked_at),
        started_at=None if lease.started_at is None else say.local(lease.started_at),
        ends_at=say.local(lease.ends_at),
        guaranteed=lease.guaranteed,
        lender=lease.lender,
        borrowed=""
        if lease.guaranteed
        else explain_borrowed(
            lease.lender, say, notice=session.notice if session is not None else None, titles=facts.titles
        ),
        unclaimed=lease.unclaimed,
        notice=_notice(facts, say),
        extend=_extend(facts, say),
        cost=Cost(units_per_second=lease.cost, sentence=say.price(lease.cost)),
        hours=_hours(facts, say),
    )


def _notice(facts: LeaseFacts, say: Speaker) -> Notice | None:
    lease = facts.lease
    if lease.noticed_at is None or not lease.live:
        return None
    time = say.moment(lease.ends_at, facts.now)
    at = say.local(lease.ends_at)
    if lease.noticed_for is not None:
        return Notice(
            why="taken-back",
            at=at,
            pool=facts.notice_pool,
            sentence=say(
                "Ends at {time}: it is borrowed, and whoever it belongs to needs it back. Save your work; you are "
                "first in line for the next.",
                time=time,
            ),
        )
    if facts.notice_why == "budget-spent" and not _much_longer(facts):
        words = say(
            "Ends at {time}: its GPU-hours are used up then. Save your work, or ask for more hours.",
            time=time,
        )
        return Notice(why="budget-spent", at=at, sentence=words)
    return Notice(
        why="ends-soon",
        at=at,
        sentence=say("Ends at {time}. Save your work, or let it run longer.", time=time),
    )


def _much_longer(facts: LeaseFacts) -> bool:
    """Whether hours were granted since it was told that they are used up."""
    lease, pools = facts.lease, facts.policy.pools
    least = facts.policy.session(lease.pool).min if lease.pool in pools else 0
    return facts.longest is not None and facts.longest > lease.ends_at + least


def _extend(facts: LeaseFacts, say: Speaker) -> Extend | None:
    if facts.objection is not None:
        told = explain(facts.objection.code, facts.objection.facts, say, titles=facts.titles, now=facts.now)
        return Extend(possible=False, code=facts.objection.code.value, sentence=str(told))
    if facts.longest is None:
        return None
    if facts.longest <= facts.lease.ends_at:
        words = say("It ends as late as a server here may run. Later it can be extended again.")
        return Extend(possible=False, until=say.local(facts.lease.ends_at), sentence=words)
    until = say("It can run until {time}.", time=say.moment(facts.longest, facts.now))
    return Extend(possible=True, until=say.local(facts.longest), sentence=until)


def _hours(facts: LeaseFacts, say: Speaker) -> HoursLeft | None:
    """Nothing for a server that takes none."""
    if not facts.lease.cost or not facts.budgets:
        return None
    return hours_left(min(facts.budgets, key=lambda state: state.limit - state.used - state.committed), say)


def hours_left(state: BudgetState, say: Speaker) -> HoursLeft:
    """What is left of one budget."""
    left, period = state.limit - state.used - state.committed, str(state.of.budget.period)
    return HoursLeft(
        pool=state.of.pool,
        period=period,
        limit=state.limit / COST_UNITS_PER_GPU_SECOND,
        left=left / COST_UNITS_PER_GPU_SECOND,
        soft_reached=state.soft_reached,
        sentence=say.left_of(left, state.limit, period),
    )


def ticket_body(ticket: Ticket, say: Speaker, *, titles: Titles, now: Instant, page: str) -> TicketBody:
    line = in_line(ticket, say, titles=titles, now=now)
    eta = ticket.outlook.eta
    return TicketBody(
        id=ticket.id,
        state="waiting",
        server=ticket.ask.server,
        pool=ticket.ask.pool,
        profile=ticket.ask.profile,
        amounts=dict(ticket.ask.amounts),
        made_at=say.local(ticket.made_at),
        place=ticket.outlook.place,
        eta=None
        if eta is None
        else EtaBody(at=say.local(eta.at), kind=eta.kind, sentence=when(ticket, say, now)),
        code=ticket.outlook.code or None,
        facts=dict(ticket.outlook.facts),
        sentence=line.sentence,
        reclaims=len(ticket.outlook.reclaims),
        put_back=ticket.put_back,
        page=page,
    )

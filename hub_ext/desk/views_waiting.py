"""The waiting room in words: the place in line, the reason, the time, and who holds what is waited for. Pure.

All texts are in one language already; the template and the page's script only put them in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hub_ext.core.amounts import Amounts, is_gpu
from hub_ext.core.clock import Instant
from hub_ext.core.decision import Admit, Code, Decision
from hub_ext.language import Speaker
from hub_ext.profiles.footprint import footprint
from hub_ext.profiles.model import Profile, Selection
from hub_ext.quota.codes import TicketEnd
from hub_ext.quota.explain import (
    Explanation,
    Titles,
    explain,
    explain_borrowed,
    explain_release,
    explain_ticket_end,
)
from hub_ext.quota.ledger import Entry
from hub_ext.quota.model import Lease, Policy, Ticket

MOST_INSTEAD: Final = 3
WHOLE: Final = 1000
CURED_BY_THE_PERSON: Final = (Code.PERSON_AT_CAP, Code.BUDGET_SPENT, Code.BUDGET_SHORT)
"""What somebody in line can do something about themselves."""


# -- what it is made from ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holder:
    person: str
    amount: int
    ends_at: Instant
    guaranteed: bool


@dataclass(frozen=True, slots=True)
class Around:
    """Who holds one resource: in the ticket's pool by person (soonest end first), elsewhere in sum. Base units."""

    resource: str
    holders: tuple[Holder, ...] = ()
    own: int = 0
    unnamed: int = 0
    """Leases of the own pool that are not among the holders."""
    elsewhere: int = 0
    next_elsewhere: Instant | None = None


Decisions = Mapping[tuple[str, str, tuple[str, ...]], Decision]
"""By profile, pool and combination of choices."""


# -- what it is -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InLine:
    """How a ticket stands; what changes while the page is open."""

    heading: str
    when: str
    when_exact: str
    sentence: str
    next_step: str
    taken_back: str
    progress: int | None
    """Thousandths of the time from the ticket's beginning to its turn that are over; None where no time is known."""


@dataclass(frozen=True, slots=True)
class HolderLine:
    who: str
    what: str
    until: str
    until_exact: str
    borrowed: str


@dataclass(frozen=True, slots=True)
class AroundLines:
    own_title: str
    own: str
    holders: tuple[HolderLine, ...]
    unnamed: str
    elsewhere: str


@dataclass(frozen=True, slots=True)
class Instead:
    """Something that would start now: what it is, and the fields that choose it."""

    title: str
    what: str
    price: str
    hint: str
    kind: str
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OverPage:
    """A ticket that is over: what happened, and where to go on."""

    heading: str
    told: Explanation


def in_line(ticket: Ticket, say: Speaker, *, titles: Titles, now: Instant) -> InLine:
    outlook, eta = ticket.outlook, ticket.outlook.eta
    code = next((known for known in Code if known.value == outlook.code), None)
    told = Explanation("") if code is None else explain(code, outlook.facts, say, titles=titles, now=now)
    return InLine(
        heading=heading(ticket, say),
        when=when(ticket, say, now),
        when_exact=say.exact(eta.at) if eta is not None else "",
        sentence=told.sentence,
        next_step=told.next_step if code in CURED_BY_THE_PERSON else "",
        taken_back=say.ngettext(
            "{count} server that borrowed what is meant for you was told to end, and makes room for you.",
            "{count} servers that borrowed what is meant for you were told to end, and make room for you.",
            len(outlook.reclaims),
            count=len(outlook.reclaims),
        )
        if outlook.reclaims
        else "",
        progress=_progress(ticket, now),
    )


def heading(ticket: Ticket, say: Speaker) -> str:
    what = say.amounts(asked(ticket.ask.amounts))
    if ticket.outlook.place is None:
        return say("You wait for: {what}", what=what)
    return say("You are number {place} in line for: {what}", place=ticket.outlook.place, what=what)


def when(ticket: Ticket, say: Speaker, now: Instant) -> str:
    """`at the latest 14:20` is a promise, `expected 14:20` follows from ends that are known."""
    eta = ticket.outlook.eta
    if eta is None:
        return say("no time is known yet")
    time = say.moment(eta.at, now)
    return (
        say("at the latest {time}", time=time) if eta.kind == "latest" else say("expected {time}", time=time)
    )


def asked(amounts: Amounts) -> Amounts:
    """What an ask is called by: its GPUs; all of it where it has none."""
    gpus = {resource: amount for resource, amount in amounts.items() if is_gpu(resource) and amount}
    return gpus or amounts


def around_lines(around: Around, pool: str, say: Speaker, *, titles: Titles, now: Instant) -> AroundLines:
    title = say.text(titles.get(pool, {}), pool)
    here = say.amount(around.resource, around.own)
    first = around.holders[0].ends_at if around.holders else None
    elsewhere = say.amount(around.resource, around.elsewhere)
    return AroundLines(
        own_title=say("Who holds it in {pool}", pool=title),
        own=_held(here, first, around.own, say, now),
        holders=tuple(
            HolderLine(
                who=one.person,
                what=say.amount(around.resource, one.amount),
                until=say.until(one.ends_at, now),
                until_exact=say.exact(one.ends_at),
                borrowed="" if one.guaranteed else say("borrowed"),
            )
            for one in around.holders
        ),
        unnamed=say.ngettext("and {count} more", "and {count} more", around.unnamed, count=around.unnamed)
        if around.unnamed
        else "",
        elsewhere=_held(elsewhere, around.next_elsewhere, around.elsewhere, say, now),
    )


def _held(what: str, first: Instant | None, amount: int, say: Speaker, now: Instant) -> str:
    if not amount or first is None:
        return say("none")
    return say("{what} in use, the next ends {time}", what=what, time=say.moment(first, now))


def _progress(ticket: Ticket, now: Instant) -> int | None:
    eta = ticket.outlook.eta
    if eta is None or eta.at <= ticket.made_at:
        return None
    return min(WHOLE, max(0, (now - ticket.made_at) * WHOLE // (eta.at - ticket.made_at)))


# -- what would start now ---------------------------------------------------------------------------------------------


def instead_of(
    ticket: Ticket, profiles: Sequence[Profile], decisions: Decisions, policy: Policy, say: Speaker
) -> tuple[Instead, ...]:
    """What the person could start now: the same from another pool, the largest GPU that is no larger, a CPU server."""
    titles = {name: pool.title for name, pool in policy.pools.items()}
    size = _weight(ticket.ask.amounts, say)
    open_now = []
    for profile in profiles:
        for (slug, pool, combination), decision in decisions.items():
            if slug == profile.slug and isinstance(decision, Admit):
                amounts = _amounts(profile, combination)
                open_now.append((profile, pool, combination, amounts, decision))
    same = [one for one in open_now if one[3] == ticket.ask.amounts and one[1] != ticket.ask.pool]
    smaller = [one for one in open_now if _has_gpu(one[3]) and _weight(one[3], say) < size]
    smaller.sort(key=lambda one: (_weight(one[3], say), one[1] == ticket.ask.pool), reverse=True)
    # Of those without a GPU the largest that is no larger than what is waited for; the smallest where all are larger.
    plain = [one for one in open_now if not _has_gpu(one[3]) and one[3] != ticket.ask.amounts]
    plain.sort(key=lambda one: (_weight(one[3], say)[1], one[1] != ticket.ask.pool))
    fitting = [one for one in plain if _weight(one[3], say)[1] <= size[1]]
    chosen = [*same[:1], *smaller[:1], *(fitting[-1:] or plain[:1])][:MOST_INSTEAD]
    return tuple(
        Instead(
            title=say.text(profile.title, profile.slug)
            if pool == ticket.ask.pool
            else say(
                "{profile}, share of {pool}",
                profile=say.text(profile.title, profile.slug),
                pool=say.text(titles.get(pool, {}), pool),
            ),
            what=say.sizes(amounts),
            price=say.price(decision.cost),
            hint=""
            if decision.guaranteed
            else explain_borrowed(decision.lender, say, notice=policy.session(pool).notice, titles=titles),
            kind="now" if decision.guaranteed else "borrowed",
            fields=_fields(profile, pool, combination, ticket.ask.minutes),
        )
        for profile, pool, combination, amounts, decision in chosen
    )


def _fields(profile: Profile, pool: str, combination: Sequence[str], minutes: int | None) -> dict[str, str]:
    chosen = {option.name: choice for option, choice in zip(profile.options, combination, strict=True)}
    fields = {"profile": profile.slug, "pool": pool, **chosen}
    length = minutes if minutes in profile.minutes else profile.default_minutes
    return fields if length is None else fields | {"minutes": str(length)}


def _amounts(profile: Profile, combination: Sequence[str]) -> Amounts:
    names = (option.name for option in profile.options)
    return footprint(profile, Selection(profile.slug, dict(zip(names, combination, strict=True)))).amounts


def _has_gpu(amounts: Amounts) -> bool:
    return any(is_gpu(resource) and amount for resource, amount in amounts.items())


def _weight(amounts: Amounts, say: Speaker) -> tuple[int, int]:
    """To compare sizes: GPU memory first, then cores."""
    memory = 0
    for resource, amount in amounts.items():
        if is_gpu(resource):
            gpu = say.gpus.get(resource.removeprefix("gpu."))
            memory += amount * (gpu.memory if gpu is not None and gpu.memory else 1)
    return memory, amounts.get("cpu", 0)


# -- afterwards -------------------------------------------------------------------------------------------------------


def over_page(
    over: Entry | None, lease: Lease | None, say: Speaker, *, titles: Titles, now: Instant
) -> OverPage:
    """Why somebody waits no more, without a server."""
    if lease is not None:
        return OverPage(say("This server has ended"), explain_release(lease.reason, say))
    why = over.why if over is not None else ""
    headings: Mapping[str, str] = {
        TicketEnd.LEFT: say("You left the line"),
        TicketEnd.REPLACED: say("You asked for something else instead"),
    }
    heading = headings.get(why, say("This cannot be started any more"))
    code = next((known for known in Code if known.value == why), None)
    if why == TicketEnd.LEFT:  # which the heading says already
        return OverPage(heading, Explanation(explain_ticket_end(why, say).next_step))
    if code is None or over is None:
        return OverPage(heading, explain_ticket_end(why, say))
    return OverPage(heading, explain(code, over.facts.get("facts", {}), say, titles=titles, now=now))

"""What several pages show alike: a chip, a ticket's turn, why something waits, a budget with its bar. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.decision import Code, Refuse, Wait
from hub_ext.desk.charts import WHOLE, share_of
from hub_ext.desk.records import Waiting
from hub_ext.desk.views_waiting import CURED_BY_THE_PERSON
from hub_ext.language import Speaker
from hub_ext.quota.budget import BudgetState
from hub_ext.quota.explain import Explanation, Titles, explain
from hub_ext.quota.model import SERVER
from hub_ext.quota.policy import End


@dataclass(frozen=True, slots=True)
class Chip:
    """A state as icon and word; `kind` picks both colour and icon."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Longer:
    """One extension that is possible: what to send, and what it comes to."""

    minutes: int
    label: str


Extension = End | Wait | Refuse


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """Thousandths used and set aside; `soft` is where the warning begins."""

    title: str
    text: str
    detail: str
    used: int
    committed: int
    soft: int | None
    warning: str
    renews: str


def short_name(cluster: str) -> str:
    """So much of its name tells a cluster apart for people."""
    return cluster[:8]


def of_cluster(amounts: str, kind: str, server: str, say: Speaker) -> str:
    """What a lease holds; a part of a cluster says of which."""
    if kind == SERVER or not server:
        return amounts
    return f"{amounts} · {say('Dask cluster {name}', name=short_name(server))}"


def waiting_chip(ticket: Waiting, now: Instant, say: Speaker) -> Chip:
    """`Wait, by 14:20`, `Wait, expected 14:20`, `Wait (place 3)`, `Wait`."""
    if ticket.eta_at is not None:
        time = say.moment(ticket.eta_at, now)
        text = (
            say("Wait, by {time}", time=time)
            if ticket.eta_kind == "latest"
            else say("Wait, expected {time}", time=time)
        )
        return Chip("wait", text)
    if ticket.place is not None:
        return Chip("wait", say("Wait (place {place})", place=ticket.place))
    return Chip("wait", say("Wait"))


def explained(
    code: str, of: Mapping[str, object], say: Speaker, *, titles: Titles, now: Instant
) -> Explanation | None:
    """None for a ticket that was not looked at yet, and for facts that another version wrote: a page shows the rest."""
    known = next((known for known in Code if known.value == code), None)
    try:
        return None if known is None else explain(known, of, say, titles=titles, now=now)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def in_line(
    code: str, of: Mapping[str, object], say: Speaker, *, titles: Titles, now: Instant
) -> Explanation | None:
    """For somebody who waits already: what to do next is only said where they can do something about it."""
    told = explained(code, of, say, titles=titles, now=now)
    return told if told is None or code in CURED_BY_THE_PERSON else replace(told, next_step="")


def longer_by(
    extensions: Sequence[tuple[int, Extension]],
    ends_at: Instant,
    say: Speaker,
    *,
    titles: Titles,
    now: Instant,
) -> tuple[tuple[Longer, ...], str]:
    """Of extensions by so many minutes those that are worth it, each end once; where there are none, why (or "")."""
    choices: dict[Instant, Longer] = {}
    objection = ""
    for minutes, outcome in extensions:
        if not isinstance(outcome, End):
            told = explain(outcome.code, outcome.facts, say, titles=titles, now=now)
            objection = objection or str(told)
        elif outcome.at < ends_at + MINUTE:
            if outcome.cut_by is not None and outcome.cut_by.get("kind") == "budget":
                objection = objection or say("Its GPU-hours are used up then.")
        elif outcome.at not in choices:
            label = say(
                "until {time} (+{longer})",
                time=say.moment(outcome.at, now),
                longer=say.duration(outcome.at - ends_at),
            )
            choices[outcome.at] = Longer(minutes, label)
    return tuple(choices.values()), "" if choices else objection


def budget_line(state: BudgetState, titles: Titles, now: Instant, say: Speaker) -> BudgetLine:
    """A budget with its thin bar."""
    title = say.text(titles.get(state.of.pool, {}), state.of.pool)
    used = share_of(state.used, state.limit)
    soft = state.of.budget.soft
    warning = ""
    if state.left <= 0:
        warning = say("Used up") if state.limit <= state.used else say("All set aside")
    elif state.soft_reached:
        warning = say("Nearly used up")
    return BudgetLine(
        title=say("Your hours: {pool}", pool=title) if state.of.person else title,
        text=say.left_of(state.left, state.limit, str(state.of.budget.period)),
        detail=say(
            "used {used}, set aside for running servers {committed}, left {left}",
            used=say.hours(state.used),
            committed=say.hours(state.committed),
            left=say.hours(max(0, state.left)),
        ),
        used=used,
        committed=min(WHOLE - used, share_of(state.committed, state.limit)),
        soft=None if soft is None else int(soft * WHOLE),
        warning=warning,
        renews=say("New hours come from {time} on.", time=say.moment(state.window.end, now)),
    )

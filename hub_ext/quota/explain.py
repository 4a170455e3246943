"""Turns codes and facts into sentences, Korean and English: what happened, to what, and what to do next.

This is the only place where the quota speaks. Edit the words here; the decision and its facts come from
`policy.py`, and the table of both is in `codes.py`. Pure: the speaker (one language, see `hub_ext/language.py`) is
passed in.

A name or amount is put into a sentence so that no Korean particle depends on it: after a colon, in brackets, or
before a particle that has one form only (에, 의, 에서, 부터).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Protocol

from hub_ext.core.amounts import COST_UNITS_PER_GPU_SECOND, Amounts
from hub_ext.core.clock import Instant, Seconds
from hub_ext.core.decision import Code, Facts
from hub_ext.quota.codes import Ended, TicketEnd

_CLUSTER: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
"""How the gateway calls clusters."""
Titles = Mapping[str, Mapping[str, str]]
"""The titles of pools (or profiles) by name, each by language; a name without a title stands for itself."""


class Speech(Protocol):
    """One language: its words, and amounts and times as people say them."""

    def __call__(self, message: str, /, **values: object) -> str: ...
    def text(self, words: Mapping[str, str], otherwise: str = "") -> str: ...
    def amount(self, resource: str, amount: int) -> str: ...
    def amounts(self, amounts: Amounts) -> str: ...
    def resource(self, resource: str) -> str: ...
    def moment(self, when: Instant | datetime | str, now: Instant | None = None) -> str: ...
    def duration(self, seconds: Seconds) -> str: ...
    def hours(self, units: int) -> str: ...
    def period(self, period: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened, and what the person can do next."""

    sentence: str
    next_step: str = ""

    def __str__(self) -> str:
        return f"{self.sentence} {self.next_step}".strip()


def explain(
    code: Code, facts: Facts, say: Speech, *, titles: Titles | None = None, now: Instant | None = None
) -> Explanation:
    """The sentence for a wait or refusal; with `now`, times of today come without their date."""
    told = _Told(facts, say, titles or {}, now)
    sentence, *steps = _SENTENCES[code](told)
    return Explanation(
        sentence or say("This cannot be started now."), " ".join(step for step in steps if step)
    )


def explain_cut(
    cut_by: Mapping[str, Any],
    ends_at: Instant,
    say: Speech,
    *,
    titles: Titles | None = None,
    now: Instant | None = None,
) -> str:
    """Why a lease ends earlier than was asked for: `cut_by` as in the facts of an admission."""
    told = _Told(cut_by, say, titles or {}, now)
    time = say.moment(ends_at, now)
    if cut_by.get("kind") == "session":
        told_by = told.sentence("Until {time}: a server of {pool} may run no longer at a time.", time=time)
    elif cut_by.get("kind") == "reservation" and cut_by.get("inside"):
        told_by = told.sentence("Until {time}: the reservation of {pool} ends then.", time=time)
    elif cut_by.get("kind") == "reservation":
        told_by = say("Until {time}: from then on this place is reserved.", time=time)
    elif told.mine:
        told_by = told.sentence(
            "Until {time}, because your GPU-hours in {pool} for {period} are used up then.", time=time
        )
    else:
        told_by = told.sentence(
            "Until {time}, because the GPU-hours of {pool} for {period} are used up then.", time=time
        )
    return told_by or say("Until {time}, earlier than was asked for.", time=time)


def explain_borrowed(
    lender: str | None, say: Speech, *, notice: Seconds | None = None, titles: Titles | None = None
) -> str:
    """What borrowing means, before the start."""
    whose = _title(lender, say, titles or {})
    if whose is None or notice is None:
        return say("Borrowed from what others leave idle: it may be taken back, after a notice.")
    return say(
        "Borrowed from {pool}: it may be taken back, {notice} after a notice.",
        pool=whose,
        notice=say.duration(notice),
    )


# -- how a lease ended --------------------------------------------------------------------------------------------


def explain_release(reason: str | None, say: Speech, *, why: str = "") -> Explanation:
    """How a server ended; `why` is what an operator gave as a reason. An unknown reason is told as it stands."""
    kept = say("Your files are kept; start again whenever you like.")
    anew = say("What you wrote to files is kept; start another cluster whenever you like.")
    match reason:
        case Ended.TIME:
            return Explanation(say("The server ended at its time."), kept)
        case Ended.PERSON:
            return Explanation(say("You stopped the server."), kept)
        case Ended.OPERATOR:
            stopped = say("An operator stopped the server.")
            given = say("Reason given: {why}", why=why) if why else ""
            return Explanation(f"{stopped} {given}".strip(), kept)
        case Ended.HOURS:
            more = say("Your files are kept. For more hours, ask the lead of your institution.")
            return Explanation(say("The server ended because its GPU-hours were used up."), more)
        case Ended.DIED:
            again = say(
                "Your files are kept. Start again; if it happens again, choose a larger size or ask an operator."
            )
            return Explanation(say("The server stopped by itself; it may have run out of memory."), again)
        case Ended.START_FAILED | Ended.START_LOST:
            again = say("No GPU-hours were taken for it. Try again; if it fails again, ask an operator.")
            return Explanation(say("The server could not be started."), again)
        case Ended.LOST | Ended.ORPHAN:
            return Explanation(say("The hub lost sight of the server and gave up its place."), kept)
        case Ended.OUT_OF_MEMORY:
            larger = say("Your files are kept. Start again with more memory, or read less at a time.")
            return Explanation(say("The server ended because it needed more memory than it has."), larger)
        case Ended.EVICTED:
            return Explanation(say("The server ended because its machine ran short of room."), kept)
        case Ended.PREEMPTED:
            return Explanation(
                say("The server ended because its place was needed for something more urgent."), kept
            )
        case Ended.NODE_LOST:
            return Explanation(say("The server ended because its machine failed or was taken away."), kept)
        case Ended.DELETED:
            return Explanation(
                say("The server was removed from the cluster by an operator or by the cluster itself."), kept
            )
        case Ended.CRASHED:
            again = say("Your files are kept. Start again; if it happens again, ask an operator.")
            return Explanation(say("The server ended with an error."), again)
        case Ended.EXITED:
            return Explanation(say("The server was shut down from inside."), kept)
        case Ended.IMAGE_MISSING:
            told = say("Tell an operator: the image of this size is missing or cannot be loaded.")
            return Explanation(
                say("The server could not be started: its software could not be loaded."), told
            )
        case Ended.NO_ROOM:
            later = say("No GPU-hours were taken for it. Try again in some minutes, or choose another size.")
            return Explanation(
                say("The server could not be started: no machine has room for it right now."), later
            )
        case Ended.CLUSTER_AWAY:
            later = say(
                "No GPU-hours were taken for it. Try again in a minute; if it stays so, tell the operators."
            )
            return Explanation(say("The server could not be started: the cluster does not answer."), later)
        case Ended.TAKEN_BACK:
            first = say("Your files are kept. You are first in line again, and the server starts by itself.")
            return Explanation(
                say("The server ended because what it had borrowed was needed by those it belongs to."), first
            )
        case Ended.UNCLAIMED:
            return Explanation(
                say("The server had been started when your turn came, and ended because nobody came to it."),
                say("Start again whenever you like; you will wait anew where others wait."),
            )
        case Ended.CLUSTER_OVER:
            return Explanation(say("The worker ended with its cluster."), kept)
        case Ended.CLUSTER_IDLE:
            return Explanation(say("The cluster ended because it had done nothing for a while."), anew)
        case Ended.CLUSTER_NO_CLIENT:
            return Explanation(
                say("The cluster ended because nobody was connected to it and it did nothing."), anew
            )
        case Ended.CLUSTER_OWNER_GONE:
            return Explanation(
                say("The cluster ended because the server it was started from had ended."), anew
            )
        case Ended.NOT_NEEDED:
            return Explanation(say("The cluster wished for fewer workers before this one ran."))
        case Ended.TAKEN_OVER:
            return Explanation(say("A new start of the same server took its place."))
        case None | "":
            return Explanation(say("The server has ended."), kept)
        case _:
            return Explanation(say("The server has ended. Reason given: {why}", why=why or reason), kept)


def explain_in_line(told: Explanation, say: Speech) -> Explanation:
    """Why a start waits, for whoever has a ticket for it: instead of trying again there is nothing to do."""
    return Explanation(
        told.sentence,
        say(
            "You are in line. The server starts by itself when your turn comes; your place is kept when you leave."
        ),
    )


def explain_ticket_end(why: str, say: Speech) -> Explanation:
    """How waiting ended, where no code of a refusal says it."""
    again = say("Ask again whenever you like.")
    match why:
        case TicketEnd.LEFT:
            return Explanation(say("You left the line."), again)
        case TicketEnd.REPLACED:
            return Explanation(say("You asked for something else instead, and this place was given up."))
        case TicketEnd.AGAIN:
            return Explanation(say("What was started for you ended early; you are first in line again."))
        case TicketEnd.TURN:
            return Explanation(say("Your turn has come: the server starts."))
        case TicketEnd.NOT_NEEDED:
            return Explanation(say("The cluster has all the workers that it wishes for."))
        case TicketEnd.CLUSTER_OVER:
            return Explanation(say("The cluster that wished for more workers has ended."))
        case _:
            return Explanation(say("This place in line is over."), again)


def explain_waiting(what: str, say: Speech) -> str:
    """What a start waits for in the cluster (`hub_ext.kube.pods.Waiting`); progress is told, not decided."""
    match what:
        case "place":
            return say("A machine is chosen for the server")
        case "node":
            return say("No machine has room at this moment; waiting for one")
        case "volume":
            return say("The volume with your files is prepared")
        case "image":
            return say("The software is loaded onto the machine; the first time takes some minutes")
        case "image-missing":
            return say("The software cannot be loaded; trying again")
        case "container":
            return say("The server's container is made")
        case "crashing":
            return say("The server does not come up; trying again")
        case "answer":
            return say("The server has started; waiting for its first answer")
        case _:
            return say("The server starts")


# -- the sentences --------------------------------------------------------------------------------------------------


def _title(name: str | None, say: Speech, titles: Titles) -> str | None:
    return say.text(titles.get(name, {}), name) if name else None


class _Told:
    """Facts, read in one language. What is missing is None, and a sentence that needs it is not said."""

    def __init__(self, facts: Facts, say: Speech, titles: Titles, now: Instant | None) -> None:
        self.facts, self.say, self.titles, self.now = facts, say, titles, now

    def sentence(self, message: str, **values: str | None) -> str:
        """The message with its values (pool, period and resource by themselves); empty where one is missing."""
        for name, read in (("pool", self.pool), ("period", self.period), ("resource", self.resource)):
            if f"{{{name}}}" in message:
                values[name] = read()
        return "" if None in values.values() else self.say(message, **values)

    @property
    def mine(self) -> bool:
        return bool(self.facts.get("budget_person"))

    def pool(self, key: str = "pool") -> str | None:
        return _title(self.facts.get(key), self.say, self.titles)

    def names(self, key: str, unnamed: str = "") -> str | None:
        names = dict.fromkeys(
            self._cluster(name) or _title(name, self.say, self.titles) or unnamed
            for name in self.facts.get(key) or ()
        )
        return ", ".join(name for name in names if name) or None

    def _cluster(self, name: str) -> str | None:
        """A Dask cluster, by as much of its name as people are shown; None for the name of anything else."""
        if _CLUSTER.fullmatch(name) is None:
            return None
        return self.say("Dask cluster {name}", name=name[:8])

    def amount(self, key: str, of: str = "resource") -> str | None:
        resource, amount = self.facts.get(of), self.facts.get(key)
        return None if not resource or amount is None else self.say.amount(resource, max(0, int(amount)))

    def amounts(self, key: str) -> str | None:
        return self.say.amounts(self.facts.get(key) or {}) or None

    def resource(self) -> str | None:
        resource = self.facts.get("resource")
        return self.say.resource(resource) if resource else None

    def time(self, key: str) -> str | None:
        when = self.facts.get(key)
        return None if when is None else self.say.moment(when, self.now)

    def hours(self, key: str) -> str | None:
        seconds = self.facts.get(key)
        units = None if seconds is None else int(Decimal(str(seconds)) * COST_UNITS_PER_GPU_SECOND)
        return None if units is None else self.say.hours(units)

    def period(self) -> str | None:
        period = self.facts.get("period")
        return self.say.period(period) if period else None


_Words = tuple[str, ...]
"""A sentence and the steps that follow it, each empty where its facts are missing."""


def _not_a_member(told: _Told) -> _Words:
    return (
        told.sentence("You are not a member of {pool}."),
        told.sentence("Choose one of your own: {pools}.", pools=told.names("pools"))
        or told.sentence("Ask the lead of {pool} to add you. If that was just done, sign out and in again."),
    )


def _profile_not_allowed(told: _Told) -> _Words:
    return (
        told.sentence("This server is not offered to you: {profile}.", profile=told.pool("profile"))
        or told.sentence("This server is not offered to you."),
        told.sentence("Choose another server, or ask the lead of {pool} for access."),
    )


def _too_big_for_pool(told: _Told) -> _Words:
    asked, most = told.amount("asked"), told.amount("potential")
    step = told.sentence("Choose a smaller size, or ask the lead of {pool} for a larger share.")
    if told.facts.get("potential") == 0:
        return told.sentence("{pool} has no share of this: {resource}."), step
    much = told.sentence(
        "{pool} can never have that much at once (needed: {asked}, at most: {most}).",
        asked=asked,
        most=most,
    )
    return much, step


def _too_big_for_person(told: _Told) -> _Words:
    cap, asked = told.amount("cap", "key"), told.amount("asked", "key")
    return (
        told.sentence("Your limit in {pool} is {cap}; this needs {asked}.", cap=cap, asked=asked),
        told.sentence("Choose a smaller size, or ask the lead of {pool} to raise your limit."),
    )


def _too_big_for_any_node(told: _Told) -> _Words:
    resource = told.facts.get("resource")
    most = (told.facts.get("largest") or {}).get(resource)
    if resource is None:
        sentence = told.sentence(
            "No single machine here has all of this at once: {asked}.", asked=told.amounts("asked")
        )
    elif not most:
        sentence = told.sentence("No machine here has this: {resource}.")
    else:
        asked = (told.facts.get("asked") or {}).get(resource)
        sentence = told.sentence(
            "No single machine here is that large (needed: {asked}, at most: {most}).",
            asked=None if asked is None else told.say.amount(resource, asked),
            most=told.say.amount(resource, most),
        )
    return sentence, told.sentence("Choose a smaller size.")


def _person_at_cap(told: _Told) -> _Words:
    if not told.facts.get("held"):  # of nothing that runs: so many at once would be too many
        return (
            told.sentence(
                "Your limit in {pool} is {cap}; this needs {asked}.",
                cap=told.amount("cap", "key"),
                asked=told.amount("asked", "key"),
            ),
        )
    sentence = told.sentence(
        "Your limit in {pool} is {cap}; you already use {held}, and this needs {asked}.",
        cap=told.amount("cap", "key"),
        held=told.amount("held", "key"),
        asked=told.amount("asked", "key"),
    )
    if told.facts.get("key") == "dask-workers":
        return sentence, told.sentence("Make one of your Dask clusters smaller first.")
    default = told.say("your default server")
    return (
        sentence,
        told.sentence("Stop one of your own first: {servers}.", servers=told.names("servers", default))
        or told.sentence("Stop one of your servers first."),
        told.sentence("The first of them ends: {time}.", time=told.time("first_end")),
    )


def _budget_spent(told: _Told) -> _Words:
    used, limit, renews = told.hours("used"), told.hours("limit"), told.time("renews")
    if told.facts.get("until") is None and not told.facts.get("limit"):
        if renews:
            sentence = told.sentence(
                "{pool} has GPU-hours in its terms only, and the next one has not begun."
            )
        else:
            sentence = told.sentence("{pool} has GPU-hours in its terms only, and the last one is over.")
    elif told.mine:
        sentence = told.sentence(
            "Your GPU-hours in {pool} for {period} are used up ({used} of {limit}).", used=used, limit=limit
        )
    else:
        sentence = told.sentence(
            "The GPU-hours of {pool} for {period} are used up ({used} of {limit}).", used=used, limit=limit
        )
    return (
        sentence,
        told.sentence("New hours come from {time} on.", time=renews),
        told.sentence("For more hours, ask the lead of {pool}. A server without a GPU takes none."),
    )


def _budget_short(told: _Told) -> _Words:
    if told.mine:
        sentence = told.sentence(
            "What is left of your GPU-hours in {pool} for {period} is set aside for servers you run now."
        )
        step = told.sentence("Stop one that you do not need: what it has not used is free at once.")
    else:
        sentence = told.sentence(
            "What is left of the GPU-hours of {pool} for {period} is set aside for servers that run now."
        )
        step = told.sentence("Try again when one of them has ended.")
    return sentence, step, told.sentence("New hours come from {time} on.", time=told.time("renews"))


def _reserved_soon(told: _Told) -> _Words:
    if told.facts.get("inside"):
        sentence = told.sentence(
            "{pool} has this reserved from {starts} until {ends}; your place in it is for that time.",
            pool=told.pool("reserved_for"),
            starts=told.time("starts"),
            ends=told.time("ends"),
        )
        if sentence:
            return sentence, told.sentence("Outside it, start a server without the reservation.")
    return (
        told.sentence(
            "This place is reserved from {time} on, too soon to start before it.", time=told.time("starts")
        )
        or told.sentence("This place is reserved soon, too soon to start before it."),
        told.sentence("It is free again from {time} on.", time=told.time("ends")),
        told.sentence("Choose a smaller size, or try again later."),
    )


def _pool_full(told: _Told) -> _Words:
    place, asked, available = (
        told.pool("short_at") or told.pool(),
        told.amount("asked"),
        told.amount("available"),
    )
    if (told.facts.get("available") or 0) > 0:
        sentence = told.sentence(
            "Not enough is free at {place} now (needed: {asked}, free for {pool}: {available}).",
            place=place,
            asked=asked,
            available=available,
        )
    else:
        sentence = told.sentence("Nothing of this is free at {place} now: {resource}.", place=place)
    return sentence, *_when_room_comes(told)


def _no_node_free(told: _Told) -> _Words:
    asked = told.amounts("asked")
    return (
        told.sentence(
            "Within the quota, but no single machine has this much free now: {asked}.", asked=asked
        ),
        *_when_room_comes(told),
    )


def _when_room_comes(told: _Told) -> _Words:
    return (
        told.sentence("The first server that uses it ends: {time}.", time=told.time("first_end")),
        told.sentence("Choose a smaller size, or try again later."),
    )


def _starts_busy(told: _Told) -> _Words:
    starts = str(told.facts["starts"]) if "starts" in told.facts else None
    return (
        told.sentence(
            "Many servers are being started now ({starts}), as many as may be at one time.", starts=starts
        ),
        told.sentence("Try again in a minute."),
    )


def _others_waiting(told: _Told) -> _Words:
    return (
        told.sentence("Others who came first are waiting for this."),
        told.sentence("Choose a smaller size, or try again later."),
    )


def _cluster_over(told: _Told) -> _Words:
    return (
        told.sentence("The cluster has ended, or is being ended: it gets no more workers."),
        told.sentence("Start a new one."),
    )


_SENTENCES: Final = {
    Code.NOT_A_MEMBER: _not_a_member,
    Code.PROFILE_NOT_ALLOWED: _profile_not_allowed,
    Code.TOO_BIG_FOR_POOL: _too_big_for_pool,
    Code.TOO_BIG_FOR_PERSON: _too_big_for_person,
    Code.TOO_BIG_FOR_ANY_NODE: _too_big_for_any_node,
    Code.PERSON_AT_CAP: _person_at_cap,
    Code.BUDGET_SPENT: _budget_spent,
    Code.BUDGET_SHORT: _budget_short,
    Code.RESERVED_SOON: _reserved_soon,
    Code.POOL_FULL: _pool_full,
    Code.NO_NODE_FREE: _no_node_free,
    Code.STARTS_BUSY: _starts_busy,
    Code.OTHERS_WAITING: _others_waiting,
    Code.CLUSTER_OVER: _cluster_over,
}

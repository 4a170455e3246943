"""How the gate speaks on pages and over REST: decisions and foreseen faults, in the language of the request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hub_ext.core.clock import Instant, Seconds, SystemClock
from hub_ext.core.decision import Admit, Refuse, Wait
from hub_ext.core.errors import HubError
from hub_ext.language import DEFAULT, Language, Speaker, gpu_names, translator
from hub_ext.pages import GoesOn, request_language
from hub_ext.profiles.render import render_refusal, render_start, render_waiting
from hub_ext.profiles.selection import BadSelection
from hub_ext.profiles.service import Chosen, Menu, Profiles
from hub_ext.profiles.start import start_page
from hub_ext.profiles.view import Hours, PoolChoice, StartFacts, StartPage
from hub_ext.quota.codes import Ended
from hub_ext.quota.explain import (
    Explanation,
    Titles,
    explain,
    explain_borrowed,
    explain_cut,
    explain_in_line,
    explain_release,
    explain_waiting,
)
from hub_ext.quota.model import Policy
from hub_ext.quota.service import Answer

MOST_ENDS = 20_000


class PageWords:
    """Remembers each person's last language: JupyterHub draws the form anew after a refusal without a request."""

    def __init__(self, profiles: Profiles, *, limits_enforced: bool) -> None:
        self.profiles = profiles
        self.limits_enforced = limits_enforced
        self._languages: dict[str, Language] = {}
        self._ends: OrderedDict[tuple[str, str], str] = OrderedDict()
        """Why the servers that ended last did, by person and server."""

    def language(self, spawner: Any) -> Language:
        if spawner.handler is not None:
            self._languages[spawner.user.name] = request_language(spawner.handler)
        return self._languages.get(spawner.user.name, DEFAULT)

    async def form(self, spawner: Any) -> str:
        """The start page; where the database is away, the sentence that says so."""
        language = self.language(spawner)
        try:
            menu = await self.profiles.menu(spawner.user.name)
        except HubError as error:
            return self.trouble(error, language)[1]
        return render_start(self._page(menu, language, server=spawner.name), language)

    async def decision(self, answer: Answer, chosen: Chosen, language: Language) -> tuple[str, str]:
        decision = answer.decision
        assert not isinstance(decision, Admit)
        told = self._explains(answer.policy, speaker(answer.policy, language), answer.at).decision(decision)
        try:
            page = self._page(await self.profiles.menu(chosen.person.name), language)
        except HubError:
            return str(told), render_refusal(told, (), language)
        card = next((card for card in page.cards if card.slug == chosen.selection.profile), None)
        instead = [card.instead] if card is not None and card.instead is not None else []
        return str(told), render_refusal(told, instead, language)

    def in_line(self, answer: Answer, ticket_url: str, language: Language) -> tuple[str, str]:
        decision = answer.decision
        assert isinstance(decision, Wait)
        told = self._explains(answer.policy, speaker(answer.policy, language), answer.at).decision(decision)
        waits = explain_in_line(told, translator(language))
        return str(waits), render_waiting(waits, ticket_url, language)

    def trouble(self, error: HubError, language: Language) -> tuple[str, str]:
        say = translator(language)
        if isinstance(error, BadSelection):
            told = _unknown_choice(error, language)
        else:
            told = Explanation(
                say("Starting is not possible at this moment: the hub's records cannot be reached."),
                say("Nothing was booked. Try again in a minute; if it stays so, tell the operators."),
            )
        return str(told), render_refusal(told, (), language)

    def ended(self, why: str, language: Language) -> tuple[str, str]:
        told = explain_release(why, translator(language))
        return str(told), render_refusal(told, (), language)

    def over(self, person: str, server: str, why: str) -> None:
        self._ends[person, server] = why
        self._ends.move_to_end((person, server))
        while len(self._ends) > MOST_ENDS:
            self._ends.popitem(last=False)

    def ended_line(self, person: str, server: str, language: Language) -> str:
        """Why this person's server ended; empty where that is not known."""
        why = self._ends.get((person, server))
        return "" if why is None else str(explain_release(why, translator(language)))

    def goes_on(self, person: str, server: str) -> GoesOn:
        """Where at the desk it goes on after this person's server ended: in line again, or by asking for hours."""
        match self._ends.get((person, server)):
            case Ended.TAKEN_BACK:
                return "line"
            case Ended.HOURS:
                return "hours"
            case _:
                return ""

    def waiting(self, what: str, language: Language) -> str:
        return explain_waiting(what, translator(language))

    def _page(self, menu: Menu, language: Language, server: str = "") -> StartPage:
        preview, policy = menu.preview, menu.preview.policy
        say = speaker(policy, language)
        facts = StartFacts(
            pools=[_pool_choice(policy, pool) for pool in menu.person.pools if pool in policy.pools],
            profiles=menu.profiles,
            hidden=menu.hidden,
            decisions=menu.decisions,
            as_of=preview.at,
            now=max(preview.at, self.profiles.admission.clock.now()),
            hours=_hours(menu),
            server=server,
            limits_enforced=self.limits_enforced,
        )
        return start_page(facts, say, self._explains(policy, say, preview.at))

    def _explains(self, policy: Policy, say: Speaker, now: Instant) -> Explains:
        titles = {profile.slug: profile.title for profile in self.profiles.catalogue}
        titles |= {name: pool.title for name, pool in policy.pools.items()}
        return Explains(say, titles, now)

    @staticmethod
    def server_line(spawner: Any, language: Language, policy: Policy) -> str:
        """What a server is and until when it runs."""
        lease = getattr(spawner, "lease", None)
        if lease is None:
            return ""
        say = speaker(policy, language)
        return f"{say.sizes(lease.amounts)} · {say.until(lease.ends_at, SystemClock().now())}"


@dataclass(frozen=True)
class Explains:
    """Codes and facts in words, in one language, at one moment; pools and profiles by their titles."""

    say: Speaker
    titles: Titles
    now: Instant

    def decision(self, decision: Wait | Refuse) -> Explanation:
        return explain(decision.code, decision.facts, self.say, titles=self.titles, now=self.now)

    def cut(self, cut_by: Mapping[str, Any], ends_at: Instant) -> str:
        return explain_cut(cut_by, ends_at, self.say, titles=self.titles, now=self.now)

    def borrowed(self, lender: str | None, notice: Seconds) -> str:
        return explain_borrowed(lender, self.say, notice=notice, titles=self.titles)


def speaker(policy: Policy, language: Language) -> Speaker:
    """One language with the centre's time zone and the names of its GPUs."""
    return replace(translator(language), zone=policy.timezone, gpus=gpu_names(policy.gpu_classes))


def _unknown_choice(error: BadSelection, language: Language) -> Explanation:
    """The error's own sentence is English."""
    say = translator(language)
    if language == DEFAULT:
        return Explanation(str(error))
    known = ", ".join(error.known)
    return Explanation(
        say("What was chosen does not exist or is not open to you ({field}).", field=error.field or "-"),
        say("There is: {names}.", names=known) if known else "",
    )


def _pool_choice(policy: Policy, pool: str) -> PoolChoice:
    session = policy.session(pool)
    return PoolChoice(pool, policy.pools[pool].title, session.min, session.max, session.notice)


def _hours(menu: Menu) -> list[Hours]:
    policy = menu.preview.policy
    return [
        Hours(
            title=policy.pools[state.of.pool].title,
            pool=state.of.pool,
            period=str(state.of.budget.period),
            limit=state.limit,
            used=state.used,
            committed=state.committed,
            mine=bool(state.of.person),
            near=state.of.pool in menu.person.pools,
            soft_reached=state.soft_reached,
        )
        for state in menu.preview.budgets
    ]

"""Makes the start page from one snapshot. Pure.

Each size is one of: now; now, borrowed; not now; not possible. The words of a state come from outside (`Explains`),
so that the sentence on a card is the one that a refused start would bring.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hub_ext.core.amounts import Amounts, is_gpu
from hub_ext.core.clock import MINUTE
from hub_ext.core.decision import Admit, Decision, Refuse, Wait
from hub_ext.language import Speaker
from hub_ext.profiles.footprint import footprint
from hub_ext.profiles.model import Option, Profile, Selection
from hub_ext.profiles.selection import MINUTES, POOL, field_name
from hub_ext.profiles.view import (
    Card,
    Choice,
    Combination,
    Explains,
    Hours,
    HoursLine,
    Instead,
    Kind,
    PoolChoice,
    Select,
    StartFacts,
    StartPage,
    State,
)


def start_page(facts: StartFacts, say: Speaker, explains: Explains) -> StartPage:
    """The page in the speaker's language. Every profile needs a decision for each pool it is offered in."""
    cards = [_card(facts, profile, say, explains) for profile in facts.profiles if _pools(facts, profile)]
    cards = [replace(card, instead=_instead(card, cards, facts, say)) for card in cards]
    return StartPage(
        heading=say("Start the server {name}", name=facts.server) if facts.server else say("Start a server"),
        summary=_summary(cards, say),
        cards=tuple(cards),
        hidden=tuple(
            (say.text(profile.title, profile.slug), _why_hidden(profile, say)) for profile in facts.hidden
        ),
        hours=tuple(
            _hours_line(hours, facts, say) for hours in sorted(facts.hours, key=lambda hours: not hours.mine)
        ),
        notes=()
        if facts.limits_enforced
        else (say("CPU and memory are counted here, but not held to what was chosen."),),
        age=max(0, facts.now - facts.as_of),
        empty=None if cards else _empty(facts, say),
    )


# -- a card -----------------------------------------------------------------------------------------------------------


def _pools(facts: StartFacts, profile: Profile) -> list[PoolChoice]:
    first = tuple(option.default.name for option in profile.options)
    return [pool for pool in facts.pools if (profile.slug, pool.name, first) in facts.decisions]


def _combinations(profile: Profile) -> Iterator[Combination]:
    """Every combination, the defaults first."""
    return itertools.product(
        *(
            [option.default.name, *(choice.name for choice in option.choices if choice is not option.default)]
            for option in profile.options
        )
    )


def _card(facts: StartFacts, profile: Profile, say: Speaker, explains: Explains) -> Card:
    pools, lengths = _pools(facts, profile), _lengths(profile)
    combinations = list(_combinations(profile))
    states = {
        (pool.name, *combination, _value(minutes)): _state(
            facts, pool, facts.decisions[profile.slug, pool.name, combination], minutes, say, explains
        )
        for pool in pools
        for combination in combinations
        for minutes in lengths
    }
    # The first view: the default choices, in the pool where they stand best.
    length = _value(profile.default_minutes if profile.default_minutes in lengths else lengths[0])
    order = list(Kind)
    pool = min(pools, key=lambda pool: order.index(states[pool.name, *combinations[0], length].kind))
    chosen = (pool.name, *combinations[0], length)
    return Card(
        slug=profile.slug,
        title=say.text(profile.title, profile.slug),
        description=say.text(profile.description),
        sizes=say.sizes(_amounts(profile, combinations[0])),
        state=states[chosen],
        selects=_selects(profile, pools, lengths, states, chosen, say),
        states=states,
        all_sizes={combination: say.sizes(_amounts(profile, combination)) for combination in combinations},
        startable=any(state.kind.startable for state in states.values()),
    )


def _selects(
    profile: Profile,
    pools: Sequence[PoolChoice],
    lengths: Sequence[int | None],
    states: Mapping[tuple[str, ...], State],
    chosen: tuple[str, ...],
    say: Speaker,
) -> tuple[Select, ...]:
    def choices(place: int, labels: Mapping[str, str]) -> tuple[Choice, ...]:
        """Each with the state it would lead to, all else as chosen."""
        led_to = {value: states[*chosen[:place], value, *chosen[place + 1 :]] for value in labels}
        differ = any(state.kind.startable for state in led_to.values())
        return tuple(
            Choice(value, label, led_to[value].button if differ and not led_to[value].kind.startable else "")
            for value, label in labels.items()
        )

    def option_select(place: int, option: Option) -> Select:
        labels = {choice.name: say.text(choice.title, choice.name) for choice in option.choices}
        return Select(
            field_name(profile.slug, option.name),
            say.text(option.title, option.name),
            choices(place, labels),
            chosen[place],
        )

    titles = {pool.name: say.text(pool.title, pool.name) for pool in pools}
    times = {
        _value(m): say.duration(m * MINUTE) if m is not None else say("as long as allowed") for m in lengths
    }
    return (
        Select(field_name(profile.slug, POOL), say("Share of"), choices(0, titles), chosen[0]),
        *(option_select(place, option) for place, option in enumerate(profile.options, start=1)),
        Select(field_name(profile.slug, MINUTES), say("For"), choices(len(chosen) - 1, times), chosen[-1]),
    )


def _value(minutes: int | None) -> str:
    return "" if minutes is None else str(minutes)


def _lengths(profile: Profile) -> tuple[int | None, ...]:
    if profile.default_minutes is None:
        return (None, *profile.minutes)
    return profile.minutes or (profile.default_minutes,)


def _amounts(profile: Profile, combination: Combination) -> Amounts:
    names = (option.name for option in profile.options)
    return footprint(profile, Selection(profile.slug, dict(zip(names, combination, strict=True)))).amounts


# -- a state ----------------------------------------------------------------------------------------------------------


def _state(
    facts: StartFacts,
    pool: PoolChoice,
    decision: Decision,
    minutes: int | None,
    say: Speaker,
    explains: Explains,
) -> State:
    match decision:
        case Admit():
            return _startable(facts, pool, decision, minutes, say, explains)
        case Wait():
            said = explains.decision(decision)
            when = next(
                (time for key in ("first_end", "renews", "ends") if (time := decision.facts.get(key))), None
            )
            chip = say("Not now")
            if decision.facts.get("first_end") is not None:
                chip = say(
                    "Not now, first end {time}", time=say.moment(decision.facts["first_end"], facts.now)
                )
            elif when is not None:
                chip = say("Not now, again from {time}", time=say.moment(when, facts.now))
            return State(
                Kind.WAIT,
                chip,
                say("Not now"),
                ask=say("Wait in line"),
                hint=say("In line, your place is kept and the server starts by itself when its turn comes."),
                sentence=said.sentence,
                next_step=said.next_step,
            )
        case Refuse():
            said = explains.decision(decision)
            words = say("Not possible")
            return State(Kind.REFUSED, words, words, sentence=said.sentence, next_step=said.next_step)


def _startable(
    facts: StartFacts,
    pool: PoolChoice,
    decision: Admit,
    minutes: int | None,
    say: Speaker,
    explains: Explains,
) -> State:
    """The end is the asked one, or what cut the decided length; only an undecided longer one may still be cut."""
    seconds = pool.longest if minutes is None else max(pool.shortest, min(pool.longest, minutes * MINUTE))
    wish, cut_by = facts.as_of + seconds, decision.facts.get("cut_by")
    ends_at = min(wish, decision.ends_at) if cut_by else wish
    until = say("until {time}", time=say.moment(ends_at, facts.now))
    if not cut_by and wish > decision.ends_at:
        until = say("until {time} at the latest", time=say.moment(ends_at, facts.now))
    return State(
        kind=Kind.NOW if decision.guaranteed else Kind.BORROWED,
        chip=say("Now") if decision.guaranteed else say("Now, borrowed"),
        button=say("Start"),
        ask=say("Start"),
        hint="" if decision.guaranteed else explains.borrowed(decision.lender, pool.notice),
        price=say.price(decision.cost),
        until=until,
        until_exact=say.exact(ends_at),
        cut=explains.cut(cut_by, ends_at) if cut_by and ends_at < wish else "",
    )


# -- beside the cards -------------------------------------------------------------------------------------------------


def _instead(card: Card, cards: Sequence[Card], facts: StartFacts, say: Speaker) -> Instead | None:
    """What to start now in place of this card: itself with other choices, the largest that is no larger, the smallest."""
    if card.state.kind.startable:
        return None
    same_length = {key: state for key, state in card.states.items() if key[-1] == card.selects[-1].chosen}
    here = next((key for key, state in same_length.items() if state.kind.startable), None)
    if here is not None:
        others_chosen = [
            f"{select.label}: {choice.label}"
            for select, value in zip(card.selects, here, strict=True)
            for choice in select.choices
            if choice.value == value != select.chosen
        ]
        return Instead("", ", ".join(others_chosen))
    size = {profile.slug: _weight(profile.amounts, say) for profile in facts.profiles}
    others = [other for other in cards if other.state.kind.startable]
    if not others:
        return None
    smaller = [other for other in others if size[other.slug] <= size[card.slug]]
    best = max(smaller, key=lambda o: size[o.slug]) if smaller else min(others, key=lambda o: size[o.slug])
    return Instead(best.slug, best.title)


def _weight(amounts: Amounts, say: Speaker) -> tuple[int, int]:
    """To compare sizes: GPU memory first, then cores."""
    memory = 0
    for resource, amount in amounts.items():
        if is_gpu(resource):
            gpu = say.gpus.get(resource.removeprefix("gpu."))
            memory += amount * (gpu.memory if gpu is not None and gpu.memory else 1)
    return memory, amounts.get("cpu", 0)


def _why_hidden(profile: Profile, say: Speaker) -> str:
    return say("no course is open now") if profile.teaching else say("for other roles or institutions")


def _summary(cards: Sequence[Card], say: Speaker) -> str:
    count = sum(card.startable for card in cards)
    if not cards:
        return ""
    if count == len(cards):
        return say("All of these can be started now.") if count > 1 else ""
    if not count:
        return say("None of these can be started now; each says why, and when.")
    return say("{count} of these {all} can be started now.", count=count, all=len(cards))


def _empty(facts: StartFacts, say: Speaker) -> tuple[str, str]:
    if not facts.pools:
        return (
            say("You do not belong to an institution yet."),
            say("Ask the lead of your institution to add you; then sign out and in again."),
        )
    return say("Nothing is offered to you here yet."), say(
        "Ask the lead of your institution which servers are meant for you."
    )


def _hours_line(hours: Hours, facts: StartFacts, say: Speaker) -> HoursLine:
    limit = max(1, hours.limit)
    used = min(1000, max(0, hours.used * 1000 // limit))
    title = say.text(hours.title, hours.pool)
    if hours.mine:
        only = len({other.pool for other in facts.hours if other.mine}) == 1
        title = say("Your hours") if only else say("Your hours: {pool}", pool=title)
    return HoursLine(
        title=title,
        text=say.left_of(hours.left, hours.limit, hours.period),
        detail=say(
            "used {used}, set aside for running servers {committed}, left {left}",
            used=say.hours(hours.used),
            committed=say.hours(hours.committed),
            left=say.hours(max(0, hours.left)),
        ),
        used=used,
        committed=min(1000 - used, max(0, hours.committed * 1000 // limit)),
        mine=hours.mine,
        near=hours.near,
        warning=say("Nearly used up") if hours.soft_reached else "",
    )

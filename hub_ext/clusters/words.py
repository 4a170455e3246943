"""What the gateway says to people, in the language of their request: why not more, and what happens next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from hub_ext.clusters.model import ClusterCatalogue
from hub_ext.core.clock import Instant
from hub_ext.core.decision import Refuse, Wait
from hub_ext.language import Speaker, gpu_names, pick_language, translator
from hub_ext.quota.explain import Explanation, Titles, explain
from hub_ext.quota.model import Policy

Say = Callable[[Wait | Refuse, Policy, Instant, str], Explanation]
"""Why something is not given now; the last is the request's `Accept-Language`."""
ENGLISH: Final = "en"


def saying(catalogue: ClusterCatalogue) -> Say:
    """Speaks of pools and of these profiles by their titles."""
    profiles: Titles = {profile.slug: profile.title for profile in catalogue}

    def say_why(decision: Wait | Refuse, policy: Policy, at: Instant, language: str) -> Explanation:
        titles = {**profiles, **{name: pool.title for name, pool in policy.pools.items()}}
        say = speaker(policy, language)
        return explain(decision.code, decision.facts, say, titles=titles, now=at)

    return say_why


def fewer_now(
    now: int, wished: int, why: str, *, comes: bool, policy: Policy | None = None, language: str = ENGLISH
) -> str:
    """That fewer workers run than were asked for; `comes`: the others wait in line and come by themselves."""
    say = speaker(policy, language)
    told = [say("{now} of {wished} workers can run now.", now=now, wished=wished), why]
    if comes:
        told.append(say("The others start by themselves as soon as there is room."))
    return one_line(" ".join(told))


def at_most(most: int, policy: Policy | None = None, language: str = ENGLISH) -> str:
    """The profile's own limit."""
    say = speaker(policy, language)
    return say("A cluster of this size has at most {most} workers.", most=most)


def speaker(policy: Policy | None, language: str) -> Speaker:
    """The language that a request asks for; with a policy, the centre's time zone and the names of its GPUs."""
    say = translator(pick_language(language))
    return say if policy is None else replace(say, zone=policy.timezone, gpus=gpu_names(policy.gpu_classes))


def one_line(text: str) -> str:
    """As the answer to a request can carry it."""
    return " ".join(text.split())

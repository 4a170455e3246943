"""What somebody reads who is not let in: what was claimed, why that is not enough, and whom to ask. Edit words here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hub_ext.auth.claims import Condition, Contains, Equals, Identity, Matches, Present, Value
from hub_ext.auth.policy import (
    CLAIMS_UNUSABLE,
    NAME_TAKEN,
    NO_POOL,
    NO_ROLE,
    NO_USER_NAME,
    OTHER_ISSUER,
    REFUSED,
    NotKnown,
    dotted,
)


class Speech(Protocol):
    """One language."""

    def __call__(self, message: str, /, **values: object) -> str: ...
    def text(self, words: Mapping[str, str], otherwise: str = "") -> str: ...


def explain(refused: NotKnown, identity: Identity, say: Speech) -> str:
    """Sentences for the person who is refused."""
    sentences = [_why(refused.code, refused.facts, say)]
    said = _said(refused.facts, say)
    if said:
        sentences.append(said)
    whom = say.text(identity.ask)
    sentences.append(say("Ask: {whom}", whom=whom) if whom else say("Ask the operators of this centre."))
    return " ".join(sentences)


def _why(code: str, facts: Mapping[str, Any], say: Speech) -> str:
    if code == REFUSED:
        told = say.text(facts["told"])
        return told or say("A rule of this centre keeps you out: {rule}.", rule=facts["rule"])
    if code == NO_POOL:
        return say(
            "You signed in as {name}, and no rule of this centre gives you a pool.", name=facts["name"]
        )
    if code == NO_ROLE:
        return say(
            "You signed in as {name}, and no rule of this centre gives you a role.", name=facts["name"]
        )
    if code == NAME_TAKEN:
        return say("The user name {name} belongs to somebody else here.", name=facts["name"])
    if code == NO_USER_NAME:
        return say("The sign-in service named no user name that can be used here.")
    if code == OTHER_ISSUER:
        return say(
            "Your sign-in came from a service that this centre does not use: {issuer}", issuer=facts["issuer"]
        )
    assert code == CLAIMS_UNUSABLE
    return say("What the sign-in service says about you cannot be used.")


def _said(facts: Mapping[str, Any], say: Speech) -> str:
    nothing = say("(nothing)")
    said = ", ".join(f"{claim}={shown or nothing}" for claim, shown in facts.get("said", {}).items())
    return say("What it says about you: {said}.", said=said) if said else ""


# -- for operators -----------------------------------------------------------------------------------------------------------


def condition_in_words(condition: Condition) -> str:
    """A condition as `hub-ext whois` tells it."""
    claim = dotted(condition.claim)
    match condition.test:
        case Equals(value):
            return f"{claim} equals {_value(value)}"
        case Contains(values):
            return f"{claim} contains {' or '.join(_value(value) for value in values)}"
        case Matches(pattern):
            return f"{claim} matches {pattern.text}"
        case Present(wanted):
            return f"{claim} is {'present' if wanted else 'absent'}"


def _value(value: Value) -> str:
    return value if isinstance(value, str) else str(value).lower()

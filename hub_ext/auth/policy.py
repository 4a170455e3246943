"""Who is let in, and as whom. Edit this file to change how it is decided; whom it lets in is in the identity document.

All rules that hold count, and what they give adds up: a person is a member of an institution *and* of a course *and*
an instructor, for three reasons that three rules state apart. (Were the first one to decide alone, every combination
would need a rule of its own, and their order would hide mistakes.) A rule that refuses counts wherever it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

from hub_ext.auth.claims import (
    ClaimPath,
    Claims,
    Condition,
    Contains,
    Entry,
    Equals,
    Given,
    Identity,
    Lookup,
    Matches,
    Present,
    Rule,
    UnusableClaims,
    Value,
    Words,
    is_user_name,
    read_claims,
)
from hub_ext.auth.roles import OPERATOR
from hub_ext.core.people import Person

CLAIMS_UNUSABLE: Final = "sign-in-claims-unusable"
OTHER_ISSUER: Final = "sign-in-other-issuer"
NO_USER_NAME: Final = "sign-in-no-user-name"
NAME_TAKEN: Final = "sign-in-name-taken"
REFUSED: Final = "sign-in-refused"
NO_POOL: Final = "sign-in-no-pool"
NO_ROLE: Final = "sign-in-no-role"

LONGEST_SHOWN: Final = 60
MOST_SHOWN: Final = 5
LARGEST_NUMBER: Final = 10**15
"""No code of a course or office is larger."""


# -- people named by hand ---------------------------------------------------------------------------------------------------


def person_of(identity: Identity, name: str) -> Person | None:
    """The person with this user name, with their pools and roles; None for somebody the document does not name."""
    entry = identity.people.get(name)
    return None if entry is None else _person(entry, entry.name)


def is_administrator(person: Person) -> bool:
    """Whether the hub lets the person administer it: everybody's servers, all users."""
    return OPERATOR in person.roles


def names(identity: Identity) -> frozenset[str]:
    """Who may sign in to the demo."""
    return frozenset(identity.people)


def administrators(identity: Identity) -> frozenset[str]:
    """Whom the hub lets administer it."""
    return frozenset(
        name for name in identity.people if (p := person_of(identity, name)) and is_administrator(p)
    )


def _person(entry: Entry, name: str) -> Person:
    return Person(name, pools=entry.pools, roles=entry.roles)


# -- people by what a provider claims -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tried:
    """How one rule went: what it gave, or the first condition that did not hold."""

    rule: str
    holds: bool
    failed: Condition | None = None
    pools: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    without_entry: tuple[str, ...] = ()
    """What was looked up in a table that has no entry for it."""


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody who is let in. `entry`: by an entry named by hand, and not by rules."""

    person: Person
    issuer: str
    subject: str
    title: Words = field(default_factory=dict)
    tried: tuple[Tried, ...] = ()
    entry: str = ""


@dataclass(frozen=True, slots=True)
class NotKnown:
    """Somebody who is not let in: a code (above), the facts that its sentence needs, and how the rules went."""

    code: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    tried: tuple[Tried, ...] = ()


def decide(identity: Identity, data: object, known_as: str | None = None) -> Known | NotKnown:
    """Who somebody with these claims is. Never raises, whatever is claimed.

    `known_as` is the name that this issuer and subject have had since they first came: it stays theirs, so that a
    changed name at the provider costs nobody their files and gives nobody a second budget.
    """
    # 1. Claims that can be used, of an issuer that counts.
    try:
        claims = read_claims(data)
    except UnusableClaims as error:
        return NotKnown(CLAIMS_UNUSABLE, {"why": str(error)})
    if identity.issuers and claims.issuer not in identity.issuers:
        return NotKnown(OTHER_ISSUER, {"issuer": claims.issuer})
    # 2. Somebody the document names by hand, with the provider's own name of them.
    entry = next((one for one in identity.people.values() if one.subject == claims.subject), None)
    # 3. The name: what it was, what the document says, or what is claimed.
    name = known_as or (entry.name if entry else user_name(identity, claims))
    if name is None:
        return NotKnown(NO_USER_NAME, _said(identity, claims))
    if name in identity.people and identity.people[name] is not entry:
        return NotKnown(NAME_TAKEN, {"name": name})
    if entry is not None:
        person = _person(entry, name)
        return Known(person, claims.issuer, claims.subject, entry.title or _title(claims), (), entry.name)
    # 4. What all rules give together, in their order.
    tried = tuple(_try(rule, claims) for rule in identity.rules)
    facts = {"name": name, **_said(identity, claims)}
    for rule, one in zip(identity.rules, tried, strict=True):
        if one.holds and rule.refuses is not None:
            return NotKnown(REFUSED, {**facts, "rule": rule.name, "told": dict(rule.refuses)}, tried)
    pools = _once(pool for one in tried for pool in one.pools)
    roles = _once(role for one in tried for role in one.roles)
    if not pools:
        return NotKnown(NO_POOL, facts, tried)
    if not roles:
        return NotKnown(NO_ROLE, {**facts, "pools": list(pools)}, tried)
    person = Person(name, pools=pools, roles=frozenset(roles))
    return Known(person, claims.issuer, claims.subject, _title(claims), tried)


def user_name(identity: Identity, claims: Claims) -> str | None:
    """The hub's name for somebody by what is claimed: one text, in small letters; None where there is no usable one.

    Only ASCII is made small: of other letters several become the same one, and so would two people.
    """
    rule = identity.user_name
    values = claims.values(rule.claim)
    if len(values) != 1 or not isinstance(values[0], str) or not values[0].isascii():
        return None
    text = values[0].strip().lower()
    if rule.pattern is not None:
        kept = rule.pattern.fit(text)
        text = next(iter(kept.values()), "") if kept else ""
    return text if is_user_name(text) else None


def _try(rule: Rule, claims: Claims) -> Tried:
    kept: dict[str, str] = {}
    for condition in rule.when:
        words = _holds(condition, claims)
        if words is None:
            return Tried(rule.name, False, failed=condition)
        kept.update(words)
    pools, missed_pools = _given(rule.pools, claims, kept)
    roles, missed_roles = _given(rule.roles, claims, kept)
    return Tried(rule.name, True, None, pools, roles, _once(missed_pools + missed_roles))


def _holds(condition: Condition, claims: Claims) -> Mapping[str, str] | None:
    """The words that the condition keeps where it holds, None where it does not."""
    values = claims.values(condition.claim)
    match condition.test:
        case Equals(value):
            holds = len(values) == 1 and _same(values[0], value)
        case Contains(wanted):
            holds = any(_same(one, value) for one in values for value in wanted)
        case Present(wanted=present):
            holds = bool(values) is present
        case Matches(pattern):
            fits = (pattern.fit(one) for one in values if isinstance(one, str))
            return next((kept for kept in fits if kept is not None), None)
        case _:
            assert_never(condition.test)
    return {} if holds else None


def _same(claimed: Value, wanted: Value) -> bool:
    """True is not 1, and "true" is neither."""
    if isinstance(claimed, bool) or isinstance(wanted, bool):
        return claimed is wanted
    return claimed == wanted


def _given(given: Given, claims: Claims, kept: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that a rule gives, and what its tables have no entry for. In the order of the document, always."""
    found: list[str] = []
    missed: list[str] = []
    for one in given:
        if isinstance(one, str):
            found.append(one)
            continue
        asked = _asked(one, claims, kept)
        found += [name for text, names in one.table.entries.items() if text in asked for name in names]
        missed += sorted(asked - one.table.entries.keys())
    return _once(found), tuple(_short(text) for text in missed[:MOST_SHOWN])


def _asked(lookup: Lookup, claims: Claims, kept: Mapping[str, str]) -> frozenset[str]:
    if isinstance(lookup.of, str):
        return frozenset({kept[lookup.of]}) if lookup.of in kept else frozenset()
    values = claims.values(lookup.of)
    return frozenset(
        one if isinstance(one, str) else str(one)
        for one in values
        if isinstance(one, str)
        or (isinstance(one, int) and not isinstance(one, bool) and abs(one) < LARGEST_NUMBER)
    )


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _title(claims: Claims) -> Words:
    """What pages call them."""
    text = claims.data.get("name")
    fits = isinstance(text, str) and text.strip() and len(text) <= 80 and text.isprintable()
    return {"en": text.strip()} if fits and isinstance(text, str) else {}


# -- what is told about claims --------------------------------------------------------------------------------------------------


def dotted(path: ClaimPath) -> str:
    return ".".join(path)


def _said(identity: Identity, claims: Claims) -> dict[str, Any]:
    """What was claimed, as far as the document asks for it: never the whole of it, it may be private."""
    asked = [identity.user_name.claim]
    for rule in identity.rules:
        asked += [condition.claim for condition in rule.when]
        asked += [
            one.of
            for one in (*rule.pools, *rule.roles)
            if isinstance(one, Lookup) and not isinstance(one.of, str)
        ]
    said = {dotted(path): _shown(claims.values(path)) for path in dict.fromkeys(asked)}
    return {"issuer": claims.issuer, "said": said}


def _shown(values: tuple[Value, ...]) -> str:
    shown = [_short(_text(one)) for one in values[:MOST_SHOWN]]
    return ", ".join(shown) + (", …" if len(values) > MOST_SHOWN else "")


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    # The digits of a huge number are more than Python is willing to write.
    return "(a number)" if isinstance(value, int) and abs(value) >= LARGEST_NUMBER else str(value).lower()


def _short(text: str) -> str:
    plain = "".join(c if c.isprintable() else "?" for c in text[: LONGEST_SHOWN + 1])
    return plain if len(plain) <= LONGEST_SHOWN else f"{plain[: LONGEST_SHOWN - 1]}…"

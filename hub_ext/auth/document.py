"""Reads the identity document (`policy/identity.yaml`): who is known, by name or by rule, in which pools and roles.

Every fault is named with its line and what to write instead; a document with a fault changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from hub_ext.auth.claims import (
    LONGEST_IDENTIFIER,
    ClaimPath,
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
    Table,
    UserName,
    Value,
    is_user_name,
)
from hub_ext.auth.patterns import Pattern, parse_pattern
from hub_ext.auth.roles import ROLES
from hub_ext.core.errors import Fault, FaultyDocument
from hub_ext.documents import Document, Place, parse_document, read_document, validate

TESTS = ("equals", "contains", "in", "matches", "present")
MOST_RULES = 1000

# -- values ----------------------------------------------------------------------------------------------------------------


def _name(text: str) -> str:
    if not is_user_name(text):
        shown = repr(text) if len(text) <= 40 else f"{text[:40]!r}…"
        raise ValueError(
            f"{shown} is no user name; use at most 63 small letters, digits and . _ - inside, as in kim.minji"
        )
    return text


def _words(text: str) -> str:
    if not text.strip() or not text.strip().isprintable():
        raise ValueError("the text is empty or has control characters; write one line of plain text")
    return text.strip()


def _claim(value: object) -> ClaimPath:
    path = value.split(".") if isinstance(value, str) else value
    steps = [step for step in path if isinstance(step, str) and step] if isinstance(path, list) else []
    if not steps or not isinstance(path, list) or len(steps) != len(path):
        raise ValueError(
            f"{_short(value)} names no claim; write realm_access.roles, or a list where a name has dots itself"
        )
    return tuple(steps)


def _value(value: object) -> Value:
    if isinstance(value, bool | int | float) or (isinstance(value, str) and value.strip()):
        return value
    raise ValueError(
        f"{_short(value)} is no value of a claim; write a text (in quotes), a number, true or false"
    )


def _pattern(value: object) -> Pattern:
    if not isinstance(value, str):
        raise ValueError(f"{_short(value)} is no pattern; write for example '*@hangang.ac.kr'")
    return parse_pattern(value)


def _names(value: object) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        raise ValueError(f"{_short(value)} is no name; write one name or a list of them")
    return tuple(names)


def _of(value: object) -> ClaimPath | str:
    """`{word}` is what a condition kept; anything else a claim."""
    if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
        return value[1:-1]
    return _claim(value)


def _given(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError(f"{_short(value)} gives nothing; write a name, or {{table: …, of: …}}")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


_UserName = Annotated[str, AfterValidator(_name)]
_Words = Annotated[str, Field(max_length=80), AfterValidator(_words)]
_Sentence = Annotated[str, Field(max_length=300), AfterValidator(_words)]
_Texts = dict[Literal["en", "ko"], _Words]
_Sentences = dict[Literal["en", "ko"], _Sentence]
_Claim = Annotated[Any, BeforeValidator(_claim)]
_Value = Annotated[Any, BeforeValidator(_value)]
_Pattern = Annotated[Any, BeforeValidator(_pattern)]
_Names = Annotated[Any, BeforeValidator(_names)]

# -- the document's shape ------------------------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _PersonDoc(_Strict):
    """One person."""

    title: _Texts = Field(default_factory=dict)
    subject: Annotated[str, Field(min_length=1, max_length=LONGEST_IDENTIFIER)] | None = None
    pools: list[str]
    roles: list[str]


class _ConditionDoc(_Strict):
    """A claim and one test of it."""

    claim: _Claim
    equals: _Value = None
    contains: _Value = None
    one_of: list[_Value] | None = Field(default=None, alias="in")
    matches: _Pattern = None
    present: bool | None = None


class _LookupDoc(_Strict):
    """What a table has for a claim or a kept word."""

    table: str
    of: Annotated[Any, BeforeValidator(_of)]


_GivenDoc = Annotated[Any, BeforeValidator(_given)]


class _GivesDoc(_Strict):
    """What a rule gives."""

    pools: list[_GivenDoc] = Field(default_factory=list)
    roles: list[_GivenDoc] = Field(default_factory=list)


class _RuleDoc(_Strict):
    """One rule."""

    name: _Words
    when: list[_ConditionDoc]
    gives: _GivesDoc | None = None
    refuses: _Sentences | None = None


class _UserNameDoc(_Strict):
    """Which claim names a person."""

    claim: _Claim = ("preferred_username",)
    matches: _Pattern = None


class _IdentityDoc(_Strict):
    """The people of a centre: by user name, by rules about what a provider claims, or both."""

    version: Literal[1] = 1
    people: dict[_UserName, _PersonDoc] | None = None
    issuers: list[str] = Field(default_factory=list)
    user_name: _UserNameDoc = Field(default_factory=_UserNameDoc)
    ask: _Sentences = Field(default_factory=dict)
    tables: dict[str, dict[str, _Names]] = Field(default_factory=dict)
    rules: Annotated[list[_RuleDoc], Field(max_length=MOST_RULES)] | None = None


# -- reading -----------------------------------------------------------------------------------------------------------------------


def load_identity(path: Path, pools: Collection[str] | None) -> Identity:
    """Read an identity file. Raises FaultyDocument with every fault.

    `pools` are the policy's; None accepts any, for a check without the policy at hand.
    """
    return identity_of(read_document(path), pools)


def parse_identity(text: str, pools: Collection[str] | None, file: str = "identity") -> Identity:
    """Read an identity document from text. Raises FaultyDocument with every fault."""
    return identity_of(parse_document(text, file), pools)


def identity_of(document: Document, pools: Collection[str] | None) -> Identity:
    """The identity of a parsed document. Raises FaultyDocument with every fault."""
    if document.data is None:
        raise FaultyDocument(
            [document.fault((), "the file is empty", "Write people: with at least one person, or rules:.")]
        )
    doc = validate(_IdentityDoc, document)
    reader = _Reader(document, doc, pools)
    identity = reader.identity()
    if reader.faults:
        raise FaultyDocument(reader.faults)
    return identity


class _Reader:
    """Turns a document of the right shape into an identity, and notes every fault on the way."""

    def __init__(self, document: Document, doc: _IdentityDoc, pools: Collection[str] | None) -> None:
        self.document, self.doc, self.pools = document, doc, pools
        self.faults: list[Fault] = []
        self.used: dict[str, str] = {}
        """What each table holds (`pool` or `role`), by the first rule that uses it."""

    def identity(self) -> Identity:
        doc = self.doc
        if not doc.people and not doc.rules:
            place = ("people",) if doc.people is not None else ("rules",) if doc.rules is not None else ()
            instead = "Name at least one person under people, or write rules."
            self._fault(place, "nobody could sign in", instead)
        people = self._people()
        user_name = self._user_name()
        rules = tuple(self._rule(index, rule) for index, rule in enumerate(doc.rules or []))
        self._rule_names()
        self._tables()
        return Identity(people, rules, user_name, tuple(doc.issuers), {str(k): v for k, v in doc.ask.items()})

    def _people(self) -> dict[str, Entry]:
        people = {}
        subjects: dict[str, str] = {}
        for name, person in (self.doc.people or {}).items():
            place = ("people", name)
            self._list((*place, "pools"), "pool", person.pools)
            self._list((*place, "roles"), "role", person.roles)
            if person.subject is not None and person.subject in subjects:
                what = f"is the subject of {subjects[person.subject]!r} already"
                self._fault((*place, "subject"), what, "Give each person one entry.")
            subjects.setdefault(person.subject or "", name)
            title = {str(k): v for k, v in person.title.items()}
            people[name] = Entry(
                name, tuple(person.pools), frozenset(person.roles), title, person.subject or ""
            )
        return people

    def _user_name(self) -> UserName:
        doc = self.doc.user_name
        if doc.matches is not None and len(doc.matches.words) != 1:
            instead = "Keep the part that is the name, as in '{name}@hangang.ac.kr'."
            self._fault(("user_name", "matches"), "the pattern keeps not exactly one word", instead)
        return UserName(doc.claim, doc.matches)

    def _rule(self, index: int, doc: _RuleDoc) -> Rule:
        place = ("rules", index)
        if not doc.when:
            instead = "Name at least one condition; {claim: sub, present: true} holds for everybody."
            self._fault((*place, "when"), "the list is empty", instead)
        conditions = [
            self._condition((*place, "when", number), condition) for number, condition in enumerate(doc.when)
        ]
        words = {word for _, pattern in conditions if pattern is not None for word in pattern.words}
        self._words_once(place, conditions)
        when = tuple(condition for condition, _ in conditions if condition is not None)
        if (doc.gives is None) == (doc.refuses is None):
            instead = "Write one of them: gives: {pools: […], roles: […]}, or refuses: {en: …, ko: …}."
            self._fault(place, "a rule gives something or refuses, one of both", instead)
        if doc.gives is None:
            return Rule(doc.name, when, refuses={str(k): v for k, v in (doc.refuses or {}).items()})
        if not doc.gives.pools and not doc.gives.roles:
            self._fault((*place, "gives"), "nothing is given", "Name pools, roles or both.")
        pools = self._given((*place, "gives", "pools"), "pool", doc.gives.pools, words)
        roles = self._given((*place, "gives", "roles"), "role", doc.gives.roles, words)
        return Rule(doc.name, when, pools, roles)

    def _condition(self, place: Place, doc: _ConditionDoc) -> tuple[Condition | None, Pattern | None]:
        given = [test for test in TESTS if getattr(doc, "one_of" if test == "in" else test) is not None]
        if len(given) != 1:
            what = "there is no test" if not given else f"there are several tests: {', '.join(given)}"
            self._fault(
                place, what, f"Give a condition one of {', '.join(TESTS)}; write several conditions for more."
            )
            return None, None
        if doc.equals is not None:
            return Condition(doc.claim, Equals(doc.equals)), None
        if doc.contains is not None:
            return Condition(doc.claim, Contains((doc.contains,))), None
        if doc.one_of is not None:
            if not doc.one_of:
                self._fault((*place, "in"), "the list is empty", "Name at least one value.")
            return Condition(doc.claim, Contains(tuple(doc.one_of))), None
        if doc.matches is not None:
            return Condition(doc.claim, Matches(doc.matches)), doc.matches
        return Condition(doc.claim, Present(bool(doc.present))), None

    def _words_once(
        self, place: Place, conditions: Iterable[tuple[Condition | None, Pattern | None]]
    ) -> None:
        seen: set[str] = set()
        for number, (_, pattern) in enumerate(conditions):
            words = pattern.words if pattern is not None else frozenset()
            for word in sorted(words & seen):
                what = f"{{{word}}} is kept twice in this rule"
                self._fault((*place, "when", number, "matches"), what, "Give the second another word.")
            seen |= words

    def _given(self, place: Place, kind: str, docs: list[Any], words: Collection[str]) -> Given:
        given: list[str | Lookup] = []
        for index, one in enumerate(docs):
            here = (*place, index)
            if isinstance(one, str):
                self._known(here, kind, one)
                given.append(one)
            elif (lookup := self._lookup(here, kind, one, words)) is not None:
                given.append(lookup)
        return tuple(given)

    def _lookup(self, place: Place, kind: str, raw: object, words: Collection[str]) -> Lookup | None:
        part = self.document.part(place)
        try:
            doc = validate(_LookupDoc, part)
        except FaultyDocument as error:
            self.faults += error.faults
            return None
        if isinstance(doc.of, str) and doc.of not in words:
            known = ", ".join(f"{{{word}}}" for word in sorted(words))
            instead = f"Kept are: {known}." if known else "Keep one with matches, as in '*@{domain}'."
            self._fault((*place, "of"), f"no condition of this rule keeps {{{doc.of}}}", instead)
        if doc.table not in self.doc.tables:
            known = ", ".join(self.doc.tables)
            instead = f"Use one of: {known}." if known else "Write it under tables."
            self._fault((*place, "table"), f"there is no table {doc.table!r}", instead)
            return None
        if self.used.setdefault(doc.table, kind) != kind:
            what = f"the table {doc.table!r} is used for pools and for roles"
            self._fault((*place, "table"), what, "Write two tables.")
        return Lookup(Table(doc.table, self.doc.tables[doc.table]), doc.of)

    def _rule_names(self) -> None:
        seen: set[str] = set()
        for index, rule in enumerate(self.doc.rules or []):
            if rule.name in seen:
                what = f"there is another rule {rule.name!r}"
                self._fault(("rules", index, "name"), what, "Give each rule its own name.")
            seen.add(rule.name)

    def _tables(self) -> None:
        for name, entries in self.doc.tables.items():
            place = ("tables", name)
            if name not in self.used:
                self._fault(place, f"no rule uses the table {name!r}", "Use it, or remove it.")
                continue
            if not entries:
                self._fault(place, "the table is empty", "Name at least one entry.")
            for text, names in entries.items():
                for one in names:
                    self._known((*place, text), self.used[name], one)

    def _list(self, place: Place, kind: str, names: Iterable[str]) -> None:
        seen: set[str] = set()
        for index, name in enumerate(names):
            self._known((*place, index), kind, name, _dotted(place))
            if name in seen:
                self._fault(
                    (*place, index), f"{name!r} stands here twice", "Keep one of the two.", _dotted(place)
                )
            seen.add(name)
        if not seen:
            self._fault(place, "the list is empty", f"Name at least one {kind}.")

    def _known(self, place: Place, kind: str, name: str, told: str = "") -> None:
        known = ROLES if kind == "role" else self.pools
        if known is not None and name not in known:
            what = f"there is no {kind} {name!r}"
            self._fault(place, what, f"Use one of: {', '.join(sorted(known))}.", told)

    def _fault(self, place: Place, what: str, instead: str, told: str = "") -> None:
        where = told or _dotted(place)
        self.faults.append(self.document.fault(place, f"{where}: {what}" if where else what, instead))


def _dotted(place: Place) -> str:
    return ".".join(str(step) for step in place)

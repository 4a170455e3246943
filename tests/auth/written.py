"""An identity written as the document that reads back as the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hub_ext.auth.claims import (
    Condition,
    Contains,
    Equals,
    Given,
    Identity,
    Lookup,
    Matches,
    Present,
    Rule,
    Table,
)


def dump_identity(identity: Identity) -> dict[str, Any]:
    """The identity as plain data that `identity_of` reads back as the same."""
    dumped: dict[str, Any] = {"version": 1}
    if identity.people:
        dumped["people"] = {
            name: {"title": dict(entry.title), "pools": list(entry.pools), "roles": sorted(entry.roles)}
            | ({"subject": entry.subject} if entry.subject else {})
            for name, entry in identity.people.items()
        }
    if identity.rules:
        dumped["tables"] = {
            table.name: {text: list(names) for text, names in table.entries.items()}
            for table in _tables_of(identity.rules)
        }
        dumped["rules"] = [_dump_rule(rule) for rule in identity.rules]
    if identity.issuers:
        dumped["issuers"] = list(identity.issuers)
    if identity.ask:
        dumped["ask"] = dict(identity.ask)
    named = identity.user_name
    dumped["user_name"] = {"claim": list(named.claim)} | (
        {"matches": named.pattern.text} if named.pattern else {}
    )
    return dumped


def _tables_of(rules: Iterable[Rule]) -> Iterator[Table]:
    for rule in rules:
        for one in (*rule.pools, *rule.roles):
            if isinstance(one, Lookup):
                yield one.table


def _dump_rule(rule: Rule) -> dict[str, Any]:
    dumped: dict[str, Any] = {"name": rule.name, "when": [_dump_condition(one) for one in rule.when]}
    if rule.refuses is not None:
        return dumped | {"refuses": dict(rule.refuses)}
    return dumped | {"gives": {"pools": _dump_given(rule.pools), "roles": _dump_given(rule.roles)}}


def _dump_condition(condition: Condition) -> Mapping[str, Any]:
    claim = {"claim": list(condition.claim)}
    match condition.test:
        case Equals(value):
            return claim | {"equals": value}
        case Contains(values):
            return claim | {"in": list(values)}
        case Matches(pattern):
            return claim | {"matches": pattern.text}
        case Present(wanted):
            return claim | {"present": wanted}


def _dump_given(given: Given) -> list[Any]:
    return [
        one
        if isinstance(one, str)
        else {
            "table": one.table.name,
            "of": f"{{{one.of}}}" if isinstance(one.of, str) else list(one.of),
        }
        for one in given
    ]

"""The policy in force as data: its text with line numbers, former versions, and what changed between two. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from hub_ext.core.clock import Instant
from hub_ext.desk.records import Version
from hub_ext.language import Speaker

VERSIONS: Final = 50
CONTEXT: Final = 3
LONGEST_DIFF: Final = 5000
"""Texts of more lines than this are not compared: that would take long."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a text, or of a comparison: `kind` is same, added, removed or gap."""

    text: str
    number: int | None = None
    before: int | None = None
    kind: str = "same"


@dataclass(frozen=True, slots=True)
class VersionLine:
    number: int
    when: str
    when_exact: str
    who: str
    current: bool
    shown: bool


@dataclass(frozen=True, slots=True)
class PolicyPage:
    number: int
    in_force: bool
    heading: str
    lines: tuple[Line, ...]
    changes: tuple[Line, ...]
    added: int
    removed: int
    before: int | None
    comparable: bool
    versions: tuple[VersionLine, ...]


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    versions: Sequence[Version]
    """The newest first."""
    shown: Version
    text: str
    before: int | None
    former: str | None
    """The text of the version before the one that is shown."""
    now: Instant


def policy_page(facts: PolicyFacts, say: Speaker) -> PolicyPage:
    newest = facts.versions[0].number if facts.versions else facts.shown.number
    lines = facts.text.splitlines()
    former = None if facts.former is None else facts.former.splitlines()
    comparable = former is not None and max(len(lines), len(former)) <= LONGEST_DIFF
    changes = tuple(compare(former, lines)) if former is not None and comparable else ()
    when = say.moment(facts.shown.at, facts.now)
    return PolicyPage(
        number=facts.shown.number,
        in_force=facts.shown.number == newest,
        heading=say("In force since {time}, put there by {who}", time=when, who=facts.shown.who or "–")
        if facts.shown.number == newest
        else say("A former version, from {time}, put there by {who}", time=when, who=facts.shown.who or "–"),
        lines=tuple(Line(text, number) for number, text in enumerate(lines, start=1)),
        changes=changes,
        added=sum(line.kind == "added" for line in changes),
        removed=sum(line.kind == "removed" for line in changes),
        before=facts.before,
        comparable=comparable,
        versions=tuple(
            VersionLine(
                number=version.number,
                when=say.moment(version.at, facts.now),
                when_exact=say.exact(version.at),
                who=version.who,
                current=version.number == newest,
                shown=version.number == facts.shown.number,
            )
            for version in facts.versions
        ),
    )


def compare(before: Sequence[str], after: Sequence[str]) -> Iterator[Line]:
    """What changed, with some lines around each change; a gap stands for what is the same between."""
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for place, group in enumerate(matcher.get_grouped_opcodes(CONTEXT)):
        if place:
            yield Line("", kind="gap")
        for tag, first, last, new_first, new_last in group:
            if tag == "equal":
                for step, text in enumerate(before[first:last]):
                    yield Line(text, new_first + step + 1, first + step + 1)
                continue
            for step, text in enumerate(before[first:last]):
                yield Line(text, None, first + step + 1, "removed")
            for step, text in enumerate(after[new_first:new_last]):
                yield Line(text, new_first + step + 1, None, "added")

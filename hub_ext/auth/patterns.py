"""Patterns of the identity document's rules: `*@hangang.ac.kr`, `/course/{course}/students`.

`*` stands for any run of characters, also none; `{word}` for at least one, which is kept under that word. Everything
else stands for itself, and the whole text must fit. There is nothing else, on purpose: what an identity provider
claims may be hostile, and such a pattern is tried in time proportional to the text, whatever stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_WILD: Final = re.compile(r"\*|\{([^{}]*)\}", re.ASCII)
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
LONGEST_PATTERN: Final = 200


@dataclass(frozen=True, slots=True)
class Pattern:
    """`literals` stand around the wild cards: one more than there are of those. A wild card without a word is ""."""

    text: str
    literals: tuple[str, ...]
    wild: tuple[str, ...]

    @property
    def words(self) -> frozenset[str]:
        return frozenset(filter(None, self.wild))

    def fit(self, text: str) -> Mapping[str, str] | None:
        """What each word stands for where the whole text fits; None where it does not.

        Every wild card takes as little as possible, from the left. That finds a fit wherever there is one: the
        earlier a literal is met, the more is left for those behind it.
        """
        first, *rest = self.literals
        if not rest:
            return {} if text == first else None
        if not text.startswith(first):
            return None
        kept: dict[str, str] = {}
        position = len(first)
        for index, (word, literal) in enumerate(zip(self.wild, rest, strict=True)):
            earliest = position + (1 if word else 0)
            if index == len(rest) - 1:
                found = len(text) - len(literal)
                if found < earliest or not text.endswith(literal):
                    return None
            else:
                found = text.find(literal, earliest)
                if found < 0:
                    return None
            if word:
                kept[word] = text[position:found]
            position = found + len(literal)
        return kept


def parse_pattern(text: str) -> Pattern:
    """Read a pattern. Raises ValueError (what is wrong; what to write) for one that cannot be understood."""
    if not text or len(text) > LONGEST_PATTERN:
        raise ValueError(
            f"a pattern has 1 to {LONGEST_PATTERN} characters; write for example '*@hangang.ac.kr'"
        )
    literals: list[str] = []
    wild: list[str] = []
    position = 0
    for found in _WILD.finditer(text):
        literal, word = text[position : found.start()], found[1]
        if found[0] != "*" and not _WORD.fullmatch(word):
            raise ValueError(
                f"{found[0]!r} is no word to keep; use small letters, digits and _ in the braces, as in {{domain}}"
            )
        if wild and not literal:
            raise ValueError("two wild cards touch; put a character between them, or leave one out")
        if word and word in wild:
            raise ValueError(f"{found[0]!r} stands here twice; give the second another word")
        literals.append(literal)
        wild.append(word or "")
        position = found.end()
    literals.append(text[position:])
    if any("{" in literal or "}" in literal for literal in literals):
        raise ValueError("a brace is open; write {word} for a part to keep")
    return Pattern(text, tuple(literals), tuple(wild))

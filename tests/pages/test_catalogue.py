"""One catalogue, complete: every message that is said has its Korean, and nothing else is in it."""

from __future__ import annotations

import re
from string import Formatter

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po

from hub_ext.language import LOCALE
from tests.pages.extraction import used_messages

CATALOGUE = LOCALE / "ko" / "LC_MESSAGES" / "hub_ext.po"
TWO_FORMS = ("은", "는", "이", "가", "을", "를", "과", "와", "로", "으로", "이나", "나", "이라", "라")
"""Particles whose form depends on the sound before them."""


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    with CATALOGUE.open("rb") as file:
        return read_po(file, locale="ko", abort_invalid=True)


def messages(catalogue: Catalog) -> list[Message]:
    return [message for message in catalogue if message.id]


def strings(message: Message) -> list[str]:
    return [message.string] if isinstance(message.string, str) else list(message.string)


def ids(message: Message) -> list[str]:
    return [message.id] if isinstance(message.id, str) else list(message.id)


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_every_message_that_is_said_has_its_korean(catalogue: Catalog) -> None:
    there = {ids(message)[0] for message in messages(catalogue) if all(strings(message))}
    missing = {
        message: places
        for message, places in used_messages().items()
        if (message if isinstance(message, str) else message[0]) not in there
    }
    assert not missing, "add these to hub_ext/locale/ko/LC_MESSAGES/hub_ext.po"


def test_plural_messages_are_plural_in_the_catalogue(catalogue: Catalog) -> None:
    plural = {message for message in used_messages() if not isinstance(message, str)}
    assert plural
    assert plural <= {tuple(ids(message)) for message in messages(catalogue)}


def test_nothing_in_the_catalogue_is_fuzzy_obsolete_or_unused(catalogue: Catalog) -> None:
    used = {message if isinstance(message, str) else message[0] for message in used_messages()}
    assert not [message.id for message in messages(catalogue) if message.fuzzy]
    assert not catalogue.obsolete
    assert not [message.id for message in messages(catalogue) if ids(message)[0] not in used]


def test_korean_says_every_value_and_no_other(catalogue: Catalog) -> None:
    for message in messages(catalogue):
        for text in strings(message):
            assert placeholders(text) == placeholders(ids(message)[0]), message.id


def test_no_particle_depends_on_what_is_put_in(catalogue: Catalog) -> None:
    """A name may end in a vowel or not, a number may be read in two ways: no two-form particle may follow a value."""
    wrong = re.compile(r"\}(" + "|".join(sorted(TWO_FORMS, key=len, reverse=True)) + r")(?![가-힣])")
    found = [text for message in messages(catalogue) for text in strings(message) if wrong.search(text)]
    assert not found


def test_korean_has_no_english_sentence_left_in_it(catalogue: Catalog) -> None:
    words = re.compile(r"\b(?!GPU|CPU|Dask|JavaScript|https|scope)[A-Za-z]{3,}\b")
    for message in messages(catalogue):
        for text in strings(message):
            assert not words.search(re.sub(r"\{\w+\}", "", text)), text

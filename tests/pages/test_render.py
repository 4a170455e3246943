"""The start page and a refusal as HTML: everything escaped, no script or style in it, and the table that follows it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from hub_ext.language import LANGUAGES, Language
from hub_ext.profiles.model import Choice, Option
from hub_ext.profiles.render import render_refusal, render_start
from hub_ext.profiles.selection import from_form
from hub_ext.profiles.view import Instead, PoolChoice
from hub_ext.quota.explain import Explanation
from tests.pages.made_up import (
    CPU,
    FREE_OF_CHARGE,
    FULL,
    HOSTILE,
    NOW,
    NOW_BORROWED,
    NOW_GUARANTEED,
    POOLS,
    SEVERAL,
    SLICE,
    TEACHING,
    TOO_BIG,
    WHOLE,
    hours,
    page,
    profile,
)


class Reader(HTMLParser):
    """Elements, attributes and texts, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._in = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data
        else:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def table_of(html: str) -> dict[str, Any]:
    (text,) = Reader(html).scripts
    return dict(json.loads(text))


def everything(language: Language = "en") -> str:
    decisions = [
        (SLICE, NOW_GUARANTEED),
        (WHOLE, NOW_BORROWED),
        (
            SEVERAL,
            {
                (pool.name, (n,)): TOO_BIG if n == "four" else NOW_BORROWED
                for pool in POOLS
                for n in ("four", "two")
            },
        ),
        (CPU, FREE_OF_CHARGE),
        (profile("full"), FULL),
        (profile("never"), TOO_BIG),
    ]
    shown = page(
        decisions, language, pools=POOLS, hidden=[TEACHING], hours=[hours(), hours(mine=False, near=False)]
    )
    return render_start(shown, language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_script_no_style_and_nothing_from_elsewhere_stands_in_it(language: Language) -> None:
    read = Reader(everything(language))
    assert [attributes.get("type") for attributes in read.named("script")] == ["application/json"]
    assert not read.named("style")
    for _, attributes in read.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert not re.match(
            r"(https?:)?//|javascript:", attributes.get("href") or attributes.get("src") or ""
        )


def test_hostile_names_stay_text_wherever_they_stand() -> None:
    words = {"en": HOSTILE, "ko": HOSTILE}
    evil = profile(
        HOSTILE,
        title=words,
        description=words,
        options=(Option(HOSTILE, words, (Choice(HOSTILE, words, default=True), Choice("other", words))),),
    )
    pools = (PoolChoice(HOSTILE, words), PoolChoice("fine", words))
    decisions = [
        (evil, {(pool.name, (c,)): TOO_BIG for pool in pools for c in (HOSTILE, "other")}),
        (SLICE, NOW_GUARANTEED),
    ]
    shown = page(
        decisions, pools=pools, hidden=[evil], server=HOSTILE, hours=[hours(title=words, pool=HOSTILE)]
    )
    html = render_start(shown, "en")
    read = Reader(html)
    assert len(read.named("script")) == 1, "only our own table"
    assert "</script" not in read.scripts[0].lower()
    assert HOSTILE in read.text, "shown as it is"
    assert "alert('x')</script>" not in html
    button = next(b for b in read.named("button") if b["value"] == HOSTILE)
    assert button["name"] == "profile"
    assert table_of(html)["cards"][HOSTILE]["fields"][1] == f"profile-option-{HOSTILE}--{HOSTILE}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_refusal_is_escaped_and_names_what_is_possible(language: Language) -> None:
    html = render_refusal(
        Explanation(HOSTILE, HOSTILE), [Instead("slice", HOSTILE)], language, start_url="/hub/spawn"
    )
    read = Reader(html)
    assert not read.named("script")
    assert read.text.count(HOSTILE) == 3
    assert [a["href"] for a in read.named("a")] == ["/hub/spawn#card-slice"]
    assert read.named("div")[0]["class"].startswith("hg-refusal")  # type: ignore[union-attr]
    same_card = Reader(render_refusal(Explanation("No."), [Instead("", "GPUs: two")], language))
    assert not same_card.named("a")
    assert "GPUs: two" in same_card.text
    plain = Reader(render_refusal(Explanation("No."), [], language))
    assert plain.text.split() == ["No."]


def test_the_browser_sends_what_the_selection_reads() -> None:
    """Without script: every field of the form as it first stands, and the button that was pressed."""
    read = Reader(everything())
    fields: dict[str, list[str]] = {
        a["name"]: [a["value"] or ""] for a in read.named("input") if a.get("name")
    }  # type: ignore[misc]
    name = ""
    for tag, attributes in read.elements:
        if tag == "select":
            name = attributes["name"] or ""
        elif tag == "option" and "selected" in attributes:
            fields[name] = [attributes["value"] or ""]
    sent = from_form({"profile": ["several"], **fields})
    assert sent == {"profile": "several", "pool": "hangang-univ", "count": "four", "minutes": "120"}


def test_only_what_cannot_be_started_at_all_is_switched_off_without_script() -> None:
    read = Reader(everything())
    switched_off = {b["value"] for b in read.named("button") if "disabled" in b}
    assert switched_off == {"never"}, (
        "several GPUs may be started with another choice, the full one waited for"
    )
    assert re.search(r'value="full"[^>]*>Wait in line<', everything())


def test_the_table_knows_every_choice_and_says_each_state_once() -> None:
    table = table_of(everything())
    card = table["cards"]["several"]
    assert len(card["states"]) == 2 * 2 * 3
    state = table["states"][card["states"]['["hangang-vision","two","480"]']]
    assert (state["kind"], state["startable"], state["chip"]) == ("borrowed", True, "Now, borrowed")
    assert card["sizes"] == {'["four"]': "564 GB GPU", '["two"]': "282 GB GPU"}
    texts = [json.dumps(state, sort_keys=True) for state in table["states"]]
    assert len(set(texts)) == len(texts)


def test_states_are_a_sign_and_a_word_never_colour_alone() -> None:
    html = everything()
    for kind, word in (
        ("now", "Now"),
        ("borrowed", "Now, borrowed"),
        ("wait", "Not now"),
        ("refused", "Not possible"),
    ):
        chip = re.search(rf'<span class="hg-chip hg-chip--{kind}".*?</span></span>', html, re.DOTALL)
        assert chip is not None
        assert "<path" in chip[0]
        assert word in chip[0]


def test_the_age_is_said_only_when_the_numbers_are_old() -> None:
    fresh = Reader(render_start(page([(SLICE, NOW_GUARANTEED)], as_of=NOW - 5), "en"))
    old = Reader(render_start(page([(SLICE, NOW_GUARANTEED)], as_of=NOW - 42), "en"))
    older = Reader(render_start(page([(SLICE, NOW_GUARANTEED)], as_of=NOW - 120), "ko"))
    assert "hidden" in next(a for a in fresh.named("p") if a.get("id") == "hg-age")
    assert "hidden" not in next(a for a in old.named("p") if a.get("id") == "hg-age")
    assert "These numbers are 42 s old." in old.text
    assert "2분 전의 숫자입니다." in older.text


def test_every_field_has_a_label_and_every_card_a_name() -> None:
    read = Reader(everything())
    ids = {attributes.get("id") for _, attributes in read.elements}
    for card in read.named("section"):
        assert card["role"] == "group"
        assert card["aria-labelledby"] in ids
    for button in read.named("button"):
        assert set((button["aria-describedby"] or "").split()) <= ids
    assert everything().count("<label") == len(read.named("select"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_empty_page_teaches(language: Language) -> None:
    read = Reader(render_start(page([], language, pools=()), language))
    assert not read.named("button")
    assert ("sign out and in again" in read.text) == (language == "en")

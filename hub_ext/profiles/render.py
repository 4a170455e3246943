"""The start page and a refusal as HTML. Everything that comes in is escaped; there is no script and no style in it.

The fragment goes into JupyterHub's own form (`spawn.html`), so its fields are named as KubeSpawner names them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hub_ext.language import Language, translator
from hub_ext.profiles.view import FRESH, Explained, Instead, StartPage

TEMPLATES = Path(__file__).parent.parent / "pages" / "templates"


def render_start(page: StartPage, language: Language) -> str:
    """The start page's form, without the `<form>` around it."""
    say = translator(language)
    age = {
        "seconds": say("These numbers are {count} s old."),
        "minutes": say("These numbers are {count} min old."),
    }
    return (
        _environment()
        .get_template("hangang/start.html")
        .render(
            _=say,
            language=language,
            page=page,
            fresh=FRESH,
            age=age,
            table=_json(_table(page, age)),
            icons=ICONS,
        )
    )


def render_refusal(
    explanation: Explained, alternatives: Sequence[Instead], language: Language, *, start_url: str = ""
) -> str:
    """What a start that cannot be shows: for `message_html` of the exception that JupyterHub puts on its pages.

    `start_url` leads back to the start page from pages that do not hold it.
    """
    return (
        _environment()
        .get_template("hangang/refusal.html")
        .render(
            _=translator(language),
            language=language,
            told=explanation,
            alternatives=alternatives,
            start_url=start_url,
        )
    )


def render_waiting(explanation: Explained, ticket_url: str, language: Language) -> str:
    """What a start that has to wait shows until the browser is on the waiting page, or where it does not go there."""
    return (
        _environment()
        .get_template("hangang/in_line.html")
        .render(_=translator(language), language=language, told=explanation, url=ticket_url)
    )


ICONS = {
    "now": "M3 8.5 6.5 12 13 4.5",
    "borrowed": "M2.5 6h9L8.5 3M13.5 10h-9l3 3",
    "wait": "M8 4v4.5l3 1.7M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13Z",
    "refused": "M3.6 3.6l8.8 8.8M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13Z",
}
"""The sign of each state, as a path on 16 × 16: a tick, two arrows, a clock, a bar."""


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _table(page: StartPage, age: dict[str, str]) -> dict[str, object]:
    """What `start.js` needs to follow a change: each distinct state once, and which one every choice leads to."""
    states: list[dict[str, str | bool]] = []
    places: dict[str, int] = {}
    cards: dict[str, object] = {}
    for card in page.cards:
        by_choice: dict[str, int] = {}
        for chosen, state in card.states.items():
            entry: dict[str, str | bool] = {
                "kind": state.kind.value,
                "startable": state.kind.startable,
                "chip": state.chip,
                "button": state.button,
                "ask": state.ask,
                "hint": state.hint,
                "sentence": state.sentence,
                "next": state.next_step,
                "price": state.price,
                "until": state.until,
                "exact": state.until_exact,
                "cut": state.cut,
            }
            place = places.setdefault(json.dumps(entry), len(states))
            if place == len(states):
                states.append(entry)
            by_choice[_key(chosen)] = place
        cards[card.slug] = {
            "fields": [select.field for select in card.selects],
            "states": by_choice,
            "sizes": {_key(combination): text for combination, text in card.all_sizes.items()},
        }
    return {"states": states, "cards": cards, "age": age, "fresh": FRESH, "icons": ICONS}


def _key(values: Sequence[str]) -> str:
    """As `JSON.stringify` writes a list of texts."""
    return json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))


def _json(value: object) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # escaped above, for where it stands

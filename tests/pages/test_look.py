"""The sheet of tokens: enough contrast in light and dark, and nothing that loads from elsewhere."""

from __future__ import annotations

import re

import pytest

from hub_ext.pages import HERE

SHEET = (HERE / "static" / "hangang.css").read_text(encoding="utf-8")
CHIPS = ("now", "borrowed", "wait", "refused", "danger")
TEXT = [
    ("ink", "page"),
    ("ink", "surface"),
    ("ink", "refused-back"),
    ("muted", "page"),
    ("muted", "surface"),
    ("muted", "refused-back"),
    ("accent", "page"),
    ("accent", "surface"),
    ("accent-strong", "surface"),
    ("accent-strong", "wait-back"),
    ("on-accent", "accent"),
    ("on-accent", "accent-strong"),
    ("borrowed", "page"),
    ("danger", "surface"),
    *((chip, f"{chip}-back") for chip in CHIPS),
]
SIGNS = [
    ("line-strong", "surface"),
    ("line-strong", "page"),
    ("focus", "page"),
    ("focus", "surface"),
    ("accent", "line"),
]


def tokens(scheme: str) -> dict[str, str]:
    light = re.search(r":root \{(.*?)\n\}", SHEET, re.DOTALL)
    dark = re.search(r'\[data-bs-theme="dark"\] \{(.*?)\n\}', SHEET, re.DOTALL)
    assert light is not None
    assert dark is not None
    found = light[1] if scheme == "light" else light[1] + dark[1]
    return dict(re.findall(r"--hg-([\w-]+): (#[0-9a-f]{6});", found))


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("front", "back"), TEXT)
def test_text_is_readable(scheme: str, front: str, back: str) -> None:
    colours = tokens(scheme)
    assert contrast(colours[front], colours[back]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("front", "back"), SIGNS)
def test_borders_of_fields_focus_and_bars_are_seen(scheme: str, front: str, back: str) -> None:
    colours = tokens(scheme)
    assert contrast(colours[front], colours[back]) >= 3


def test_the_dark_sheet_names_every_colour_anew() -> None:
    named = set(
        re.findall(r"--hg-([\w-]+): #", SHEET.partition('[data-bs-theme="dark"]')[2].partition("}")[0])
    )
    assert named == set(tokens("light"))


def test_every_token_that_is_used_is_there() -> None:
    assert set(re.findall(r"var\(--(hg-[\w-]+)", SHEET)) <= set(re.findall(r"--(hg-[\w-]+):", SHEET))


@pytest.mark.parametrize("path", sorted((HERE / "static").iterdir()), ids=lambda path: path.name)
def test_no_static_file_loads_from_elsewhere(path: object) -> None:
    text = path.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    addresses = set(re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]{2,}", text))
    assert addresses <= {"http://www.w3.org"}, "the name of SVG is no address"
    assert "@import" not in text
    assert "eval(" not in text


def test_every_class_of_the_pages_own_is_in_the_sheet() -> None:
    used: set[str] = set()
    for path in [*(HERE / "templates").rglob("*.html"), *(HERE / "static").glob("*.js")]:
        text = re.sub(r"\{[{%#].*?[}%#]\}", " ", path.read_text(encoding="utf-8"))
        for names in re.findall(r'class="([^"]*)"', text):
            used |= {name for name in names.split() if re.fullmatch(r"hg-[a-z_-]*[a-z]", name)}
    known = set(re.findall(r"\.(hg-[\w-]+)", SHEET)) | {"hg-refusal", "hg-start", "hg-error", "hg-empty"}
    assert used <= known

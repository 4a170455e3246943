"""Charts: scales, heights, words beside the drawing, and nothing that comes in is taken for markup."""

from __future__ import annotations

from decimal import Decimal
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.desk.charts import WHOLE, Bar, BarChart, Series, bar_chart, number, share_of, thin_bar, top_of

TWO = (Series("used", "Guaranteed"), Series("borrowed", "Borrowed"))


def a_chart(*values: tuple[str, str], **more: str) -> BarChart:
    bars = tuple(
        Bar(
            f"Day {place}",
            (Decimal(one), Decimal(two)),
            short=f"{place}",
            told=f"Day {place}: {one} and {two}",
        )
        for place, (one, two) in enumerate(values, start=1)
    )
    words = {
        "title": "Hours by day",
        "summary": "Two days",
        "unit": "GPU-h",
        "table": "As a table",
        "first": "Day",
    }
    return BarChart(name="days", series=TWO, bars=bars, **words | more)


def parsed(markup: str) -> ElementTree.Element:
    """The figure as a tree: also the proof that every element is closed."""
    return ElementTree.fromstring(markup)


@pytest.mark.parametrize(
    ("values", "want_top"),
    [
        pytest.param([], "1", id="no bar at all has an axis"),
        pytest.param(["0", "0"], "1", id="only zeros have an axis"),
        pytest.param(["1"], "1", id="a value that is a step is the top"),
        pytest.param(["1.01"], "2", id="just above a step is the next"),
        pytest.param(["4"], "5", id="five"),
        pytest.param(["7"], "10", id="ten"),
        pytest.param(["0.03", "0.041"], "0.05", id="small values"),
        pytest.param(["12345"], "20000", id="large values"),
    ],
)
def test_the_axis_ends_at_a_round_number(values: list[str], want_top: str) -> None:
    assert top_of([Decimal(value) for value in values]) == Decimal(want_top)


@given(st.lists(st.decimals("0.0001", "1e9", places=4), min_size=1))
def test_no_bar_is_higher_than_its_axis_nor_tiny_beneath_it(values: list[Decimal]) -> None:
    top = top_of(values)
    assert max(values) <= top <= max(values) * Decimal("2.5")


@given(st.lists(st.tuples(st.decimals("0", "1e6", places=3), st.decimals("0", "1e6", places=3)), max_size=40))
def test_parts_of_a_bar_stand_on_each_other_inside_the_drawing(values: list[tuple[Decimal, Decimal]]) -> None:
    figure = parsed(bar_chart(a_chart(*((str(one), str(two)) for one, two in values))))
    for slot in figure.iter("g"):
        parts = [rect for rect in slot.iter("rect") if rect.get("class", "").startswith("hd-fill")]
        bottom = WHOLE
        for part in parts:
            y, height = int(part.attrib["y"]), int(part.attrib["height"])
            assert y >= 0
            assert abs(y + height - bottom) <= 6  # rounding, and what is too low to be seen is drawn 4 high
            bottom = y


def test_every_bar_is_named_and_stands_in_the_table() -> None:
    figure = parsed(bar_chart(a_chart(("1.5", "0"), ("3", "0.25"))))
    assert [title.text for title in figure.iter("title")] == [
        "Hours by day",
        "Day 1: 1.5 and 0",
        "Day 2: 3 and 0.25",
    ]
    rows = [[cell.text for cell in row] for row in figure.iter("tr")]
    assert rows == [
        ["Day", "Guaranteed (GPU-h)", "Borrowed (GPU-h)"],
        ["Day 1", "1.5", "0"],
        ["Day 2", "3", "0.25"],
    ]


def test_the_drawing_has_a_name_and_says_what_there_is_to_see() -> None:
    figure = parsed(bar_chart(a_chart(("1", "1"))))
    (drawing,) = [svg for svg in figure.iter("svg") if svg.get("role") == "img"]
    said = {element.get("id"): element.text for element in drawing}
    assert [said[name] for name in drawing.attrib["aria-labelledby"].split()] == ["Hours by day", "Two days"]


def test_heights_follow_the_values() -> None:
    figure = parsed(bar_chart(a_chart(("1", "0"), ("2", "2"))))
    first, second = figure.iter("g")
    heights = [
        [
            (r.attrib["class"], int(r.attrib["y"]), int(r.attrib["height"]))
            for r in list(slot.iter("rect"))[1:]
        ]
        for slot in (first, second)
    ]
    assert heights == [
        [("hd-fill--used", 800, 200)],
        [("hd-fill--used", 600, 400), ("hd-fill--borrowed", 200, 400)],
    ]


def test_what_is_put_in_is_never_markup() -> None:
    text = bar_chart(a_chart(("1", "1"), title="<script>alert(1)</script>", summary='"><b>'))
    assert "<script" not in text
    assert "<b>" not in text
    assert [h.text for h in parsed(text).iter("h3")] == ["<script>alert(1)</script>"]


@pytest.mark.parametrize(
    ("count", "want"),
    [
        (0, []),
        (1, [("1", "50.00%")]),
        (3, [("1", "16.67%"), ("2", "50.00%"), ("3", "83.33%")]),
        (14, [("2", "10.71%"), ("5", "32.14%"), ("8", "53.57%"), ("11", "75.00%"), ("14", "100.00%")]),
    ],
)
def test_labels_stand_under_the_bars_that_they_name(count: int, want: list[tuple[str, str]]) -> None:
    figure = parsed(bar_chart(a_chart(*[("1", "0")] * count)))
    assert [(text.text, text.attrib["x"]) for text in figure.iter("text")] == want


@given(st.integers(1, 400))
def test_a_phone_has_room_for_the_labels(count: int) -> None:
    figure = parsed(bar_chart(a_chart(*[("1", "0")] * count)))
    labels = [text.text for text in figure.iter("text")]
    assert len(labels) <= 6
    assert labels[-1] == str(count)


@pytest.mark.parametrize(
    ("parts", "want_widths"),
    [
        pytest.param([("used", 300), ("committed", 200)], [300, 200], id="side by side"),
        pytest.param([("used", 900), ("committed", 400)], [900, 100], id="cut at the end"),
        pytest.param([("used", 1500), ("committed", 5)], [1000, 0], id="more than all is all"),
        pytest.param([("used", -5)], [0], id="less than nothing is nothing"),
    ],
)
def test_a_thin_bar_never_leaves_its_line(parts: list[tuple[str, int]], want_widths: list[int]) -> None:
    bar = parsed(thin_bar(parts, "told", mark=5000))
    rects = list(bar.iter("rect"))
    assert [int(r.attrib["width"]) for r in rects[1:-1]] == want_widths
    assert int(rects[-1].attrib["x"]) == WHOLE - 4
    assert bar.attrib["aria-label"] == "told"


@pytest.mark.parametrize(
    ("part", "whole", "want"),
    [(0, 10, 0), (1, 10_000, 1), (5, 10, 500), (11, 10, 1000), (3, 0, 0), (-1, 5, 0)],
)
def test_something_is_never_drawn_as_nothing(part: int, whole: int, want: int) -> None:
    assert share_of(part, whole) == want


@pytest.mark.parametrize(
    ("value", "want"),
    [("0", "0"), ("12.50", "12.5"), ("1234.567", "1,234.57"), ("0.004", "0"), ("100", "100")],
)
def test_numbers_as_people_read_them(value: str, want: str) -> None:
    assert number(Decimal(value)) == want

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.auth.patterns import LONGEST_PATTERN, Pattern, parse_pattern


@pytest.mark.parametrize(
    ("pattern", "text", "want"),
    [
        pytest.param("abc", "abc", {}, id="a text stands for itself"),
        pytest.param("abc", "abcd", None, id="the whole text must fit"),
        pytest.param("a.c", "abc", None, id="a dot is a dot"),
        pytest.param("*", "", {}, id="a star also takes nothing"),
        pytest.param("*@univ.example", "kim@univ.example", {}, id="a domain"),
        pytest.param("*@univ.example", "kim@univ.example.evil", None, id="more behind the domain"),
        pytest.param("*@univ.example", "kim@univ.example\n", None, id="a line break behind it"),
        pytest.param("*@{domain}", "kim@univ.example", {"domain": "univ.example"}, id="a part is kept"),
        pytest.param("*@{domain}", "kim@", None, id="a kept part has at least one character"),
        pytest.param("*@{domain}", "a@b@c", {"domain": "b@c"}, id="as little as possible from the left"),
        pytest.param("/course/{course}/*", "/course/ai/101/students", {"course": "ai"}, id="a group's path"),
        pytest.param("{a}-{b}", "x-y-z", {"a": "x", "b": "y-z"}, id="two parts"),
        pytest.param("{a}-{b}", "-y-z", {"a": "-y", "b": "z"}, id="no part is empty, even if that reaches further"),
        pytest.param("a*a", "a", None, id="no character counts twice"),
        pytest.param("/과목/{과}/*".replace("과}", "c}"), "/과목/인공지능/1", {"c": "인공지능"}, id="Korean"),
    ],
)  # fmt: skip
def test_what_fits(pattern: str, text: str, want: dict[str, str] | None) -> None:
    assert parse_pattern(pattern).fit(text) == want


@pytest.mark.parametrize(
    ("pattern", "want"),
    [
        pytest.param("", "1 to 200 characters", id="nothing"),
        pytest.param("x" * (LONGEST_PATTERN + 1), "1 to 200 characters", id="too long"),
        pytest.param("**", "two wild cards touch", id="two stars"),
        pytest.param("{a}{b}", "two wild cards touch", id="two words"),
        pytest.param("{a}-{a}", "'{a}' stands here twice", id="a word twice"),
        pytest.param("{A}", "'{A}' is no word to keep", id="a capital letter"),
        pytest.param("{}", "'{}' is no word to keep", id="no word"),
        pytest.param("{a", "a brace is open", id="an open brace"),
        pytest.param("a}", "a brace is open", id="a closing brace alone"),
    ],
)
def test_what_is_no_pattern(pattern: str, want: str) -> None:
    with pytest.raises(ValueError, match=re.escape(want)):
        parse_pattern(pattern)


PARTS = st.lists(st.sampled_from(["*", "{a}", "{b}", "x", "y", "xy", "@"]), min_size=1, max_size=7).map(
    "".join
)


@given(PARTS, st.text(alphabet="xy@", max_size=12))
def test_it_fits_exactly_where_the_same_regular_expression_does(pattern: str, text: str) -> None:
    try:
        ours: Pattern = parse_pattern(pattern)
    except ValueError:
        return
    pieces = [re.escape(ours.literals[0])]
    for word, literal in zip(ours.wild, ours.literals[1:], strict=True):
        pieces += [f"(?P<{word}>.+?)" if word else ".*?", re.escape(literal)]
    theirs = re.compile("".join(pieces), re.DOTALL).fullmatch(text)
    assert ours.fit(text) == (None if theirs is None else theirs.groupdict())


def test_a_hostile_text_takes_no_longer_than_a_friendly_one() -> None:
    # With a backtracking regular expression of this shape the test would not end.
    pattern = parse_pattern("*a".join(["*x"] * 20).replace("**", "*"))
    assert pattern.fit("xa" * 100_000 + "!") is None


@given(st.text(), st.text())
def test_any_text_is_a_pattern_or_a_fault_that_says_what_to_write(pattern: str, text: str) -> None:
    told = "; "
    try:
        parse_pattern(pattern).fit(text)
    except ValueError as error:
        told = str(error)
    assert "; " in told

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.profiles.footprint import footprint
from hub_ext.profiles.model import Selection
from hub_ext.profiles.selection import (
    LONGEST_ECHO,
    BadSelection,
    field_name,
    from_form,
    parse_selection,
    selection_to_options,
)
from tests.profiles.examples import ALL, CATALOGUE

CPU_DEFAULTS = {"memory": "64gb", "stack": "rapids"}


@pytest.mark.parametrize(
    ("options", "want"),
    [
        pytest.param(
            {"profile": "cpu"}, Selection("cpu", CPU_DEFAULTS), id="a profile alone takes every default"
        ),
        pytest.param(
            {"profile": "cpu", "memory": "128gb", "stack": "plain", "minutes": 60, "pool": "hangang-univ"},
            Selection("cpu", {"memory": "128gb", "stack": "plain"}, "hangang-univ", 60),
            id="all that can be chosen",
        ),
        pytest.param(
            {"profile": "cpu", "minutes": "240"},
            Selection("cpu", CPU_DEFAULTS, minutes=240),
            id="minutes as the form sends them",
        ),
        pytest.param(
            {"profile": "cpu", "minutes": 7},
            Selection("cpu", CPU_DEFAULTS, minutes=7),
            id="less than the shortest length offered",
        ),
        pytest.param(
            {"profile": "cpu", "minutes": "00060"},
            Selection("cpu", CPU_DEFAULTS, minutes=60),
            id="minutes with zeros before them",
        ),
        pytest.param(
            {"profile": "h200", "minutes": 99999},
            Selection("h200", {"stack": "rapids"}, minutes=99999),
            id="any length where none is offered",
        ),
        pytest.param(
            {"profile": "cpu", "memory": None, "minutes": None, "pool": None},
            Selection("cpu", CPU_DEFAULTS),
            id="null counts as not sent",
        ),
    ],
)
def test_what_can_be_chosen(options: object, want: Selection) -> None:
    assert parse_selection(options, CATALOGUE, ALL) == want


@pytest.mark.parametrize(
    ("options", "want_field", "want_known", "want_sentence"),
    [
        pytest.param(None, "profile", ALL, "No profile was chosen; choose one of: cpu, h200, h200-4.", id="nothing at all"),
        pytest.param({}, "profile", ALL, "No profile was chosen; choose one of: cpu, h200, h200-4.", id="no profile among several"),
        pytest.param([], "", (), "The choices came as a list; send an object", id="a list"),
        pytest.param("cpu", "", (), "The choices came as a text; send an object", id="a text"),
        pytest.param(math.nan, "", (), "The choices came as a number; send an object", id="NaN"),
        pytest.param(True, "", (), "The choices came as true or false; send an object", id="a boolean"),
        pytest.param({"profile": "cpu", 3: "x"}, "", (), "The choices hold a number as a name", id="a name that is no text"),
        pytest.param({"profile": "gpu"}, "profile", ALL, "There is no profile 'gpu' for you; choose one of", id="an unknown profile"),
        pytest.param({"profile": "cpu\n"}, "profile", ALL, "There is no profile 'cpu?' for you", id="a profile with a line break after it"),
        pytest.param({"profile": ["cpu"]}, "profile", ALL, "The profile came as a list; choose one of", id="a profile in a list"),
        pytest.param({"profile": {"cpu": 1}}, "profile", ALL, "The profile came as an object", id="a profile in an object"),
        pytest.param({"profile": 1}, "profile", ALL, "The profile came as a number", id="a profile as a number"),
        pytest.param({"profile": "cpu", "memory": "1tb"}, "memory", ("64gb", "128gb"), "'1tb' is no choice for memory; choose one of: 64gb, 128gb.", id="an unknown choice"),
        pytest.param({"profile": "cpu", "memory": ["64gb"]}, "memory", ("64gb", "128gb"), "A list is no choice for memory", id="a choice in a list"),
        pytest.param({"profile": "cpu", "memory": ""}, "memory", ("64gb", "128gb"), "'' is no choice for memory", id="an empty choice"),
        pytest.param({"profile": "h200", "memory": "64gb"}, "memory", ("stack", "minutes", "pool"), "'memory' is nothing that can be chosen for h200", id="an option of another profile"),
        pytest.param({"profile": "cpu", "image": "evil"}, "image", ("memory", "stack", "minutes", "pool"), "'image' is nothing that can be chosen for cpu", id="an unknown option"),
        pytest.param({"profile": "cpu", "memory--unlisted-choice": "1"}, "memory--unlisted-choice", ("memory", "stack", "minutes", "pool"), "is nothing that can be chosen", id="kubespawner's free choice"),
        pytest.param({"profile": "cpu", "minutes": 0}, "minutes", ("60", "120", "240"), "0 is no length in whole minutes; choose one of: 60, 120, 240.", id="no minutes"),
        pytest.param({"profile": "cpu", "minutes": -60}, "minutes", ("60", "120", "240"), "no length in whole minutes", id="minutes below zero"),
        pytest.param({"profile": "cpu", "minutes": 60.0}, "minutes", ("60", "120", "240"), "no length in whole minutes", id="minutes with a point"),
        pytest.param({"profile": "cpu", "minutes": math.nan}, "minutes", ("60", "120", "240"), "no length in whole minutes", id="minutes that are NaN"),
        pytest.param({"profile": "cpu", "minutes": True}, "minutes", ("60", "120", "240"), "True or false is no length", id="minutes that are true"),
        pytest.param({"profile": "cpu", "minutes": "60\n"}, "minutes", ("60", "120", "240"), "'60?' is no length", id="minutes with a line break"),
        pytest.param({"profile": "cpu", "minutes": "+60"}, "minutes", ("60", "120", "240"), "'?60' is no length", id="minutes with a sign"),
        pytest.param({"profile": "cpu", "minutes": "６０"}, "minutes", ("60", "120", "240"), "no length", id="minutes in other digits"),
        pytest.param({"profile": "cpu", "minutes": "100000"}, "minutes", ("60", "120", "240"), "no length", id="six digits"),
        pytest.param({"profile": "h200", "minutes": 10**5000}, "minutes", (), "write whole minutes from 1 to 99999", id="a number of five thousand digits"),
        pytest.param({"profile": "cpu", "minutes": 241}, "minutes", ("60", "120", "240"), "241 minutes are more than cpu offers; choose one of: 60, 120, 240.", id="more than the longest length offered"),
        pytest.param({"profile": "cpu", "pool": ""}, "pool", (), "'' is no name of a pool", id="an empty pool"),
        pytest.param({"profile": "cpu", "pool": "a" * 64}, "pool", (), "is no name of a pool", id="a pool too long"),
        pytest.param({"profile": "cpu", "pool": "univ\n"}, "pool", (), "'univ?' is no name of a pool", id="a pool with a line break"),
        pytest.param({"profile": "cpu", "pool": "../x"}, "pool", (), "is no name of a pool", id="a pool that is a path"),
        pytest.param({"profile": "cpu", "pool": {}}, "pool", (), "An object is no name of a pool", id="a pool that is an object"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_refused_with_what_can(
    options: object, want_field: str, want_known: tuple[str, ...], want_sentence: str
) -> None:
    with pytest.raises(BadSelection) as caught:
        parse_selection(options, CATALOGUE, ALL)
    assert (caught.value.field, caught.value.known) == (want_field, want_known)
    assert want_sentence in str(caught.value)


def test_with_one_visible_profile_none_needs_to_be_named() -> None:
    assert parse_selection({"minutes": 60}, CATALOGUE, {"cpu"}) == Selection("cpu", CPU_DEFAULTS, minutes=60)
    assert parse_selection(None, CATALOGUE, ["h200", "gone"]).profile == "h200"


def test_what_is_not_visible_is_refused_in_the_words_for_what_does_not_exist() -> None:
    for name in ("h200", "h2oo"):
        with pytest.raises(BadSelection) as caught:
            parse_selection({"profile": name}, CATALOGUE, ["cpu", "h200-4"])
        assert str(caught.value) == f"There is no profile '{name}' for you; choose one of: cpu, h200-4."


def test_without_any_visible_profile_the_person_is_told_whom_to_ask() -> None:
    with pytest.raises(BadSelection, match="No profile is open to you; ask the lead of your institution"):
        parse_selection({"profile": "cpu"}, CATALOGUE, [])


def test_parsing_leaves_what_was_sent_as_it_was() -> None:
    sent = {"profile": "cpu", "minutes": "60", "memory": None}
    parse_selection(sent, CATALOGUE, ALL)
    assert sent == {"profile": "cpu", "minutes": "60", "memory": None}


# -- whatever comes in --------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.sampled_from(
    ["profile", "memory", "stack", "minutes", "pool", "", "profile ", "memory--unlisted-choice"]
)
VALUES = (
    st.sampled_from(["cpu", "h200", "h200-4", "64gb", "128gb", "plain", "rapids", "60", "univ", 60, 120])
    | JSON
)
LIKELY = st.dictionaries(NAMES, VALUES, max_size=6)
HOSTILE = JSON | LIKELY | st.dictionaries(st.integers() | st.none() | st.text(), VALUES) | st.binary()


@given(HOSTILE, st.sets(st.sampled_from([*ALL, "gone"])))
def test_any_json_is_a_selection_of_things_that_exist_or_a_bad_selection(
    options: object, seen: set[str]
) -> None:
    refused = None
    try:
        selection = parse_selection(options, CATALOGUE, seen)
    except BadSelection as bad:
        refused = bad
    if refused:
        assert str(refused).isprintable()
        assert len(refused.field) <= LONGEST_ECHO
        return
    profile = CATALOGUE.get(selection.profile)
    assert profile is not None
    assert profile.slug in seen
    assert [option.name for option in profile.options] == list(selection.choices)
    for option in profile.options:
        assert selection.choices[option.name] in [choice.name for choice in option.choices]
    assert selection.minutes is None or 1 <= selection.minutes <= 99999
    footprint(profile, selection)


MARK = "ж"


@given(
    st.integers(1, 5000).map(lambda count: MARK * count),
    st.sampled_from(["<script>", '"onload="', "'", "\x00\r\n", "\u202e", "{}%s", ""]),
    st.sampled_from(["profile", "memory", "minutes", "pool", None]),
)
def test_at_most_sixty_characters_come_back_and_none_that_a_page_or_a_log_acts_on(
    text: str, evil: str, field: str | None
) -> None:
    sent: dict[str, Any] = {"profile": "cpu", evil + text if field is None else field: evil + text}
    with pytest.raises(BadSelection) as caught:
        parse_selection(sent, CATALOGUE, ALL)
    said = str(caught.value)
    assert said.count(MARK) <= LONGEST_ECHO
    assert said.isprintable()
    assert not set(said) & set('<>&"%{}\\')
    assert caught.value.field.count(MARK) <= LONGEST_ECHO


# -- there and back -----------------------------------------------------------------------------------------------


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    profile = draw(st.sampled_from(CATALOGUE.profiles))
    return Selection(
        profile=profile.slug,
        choices={
            o.name: draw(st.sampled_from([choice.name for choice in o.choices])) for o in profile.options
        },
        pool=draw(st.none() | st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)),
        minutes=draw(st.none() | st.integers(1, max(profile.minutes, default=99999))),
    )


@given(selections())
def test_a_selection_saved_and_read_back_is_the_same(selection: Selection) -> None:
    saved = json.loads(json.dumps(selection_to_options(selection)))
    assert parse_selection(saved, CATALOGUE, ALL) == selection


@given(selections(), selections())
def test_a_selection_sent_by_the_form_is_the_same_whatever_the_other_cards_send(
    chosen: Selection, other: Selection
) -> None:
    form = {"_xsrf": ["x"], "profile": [chosen.profile]}
    for selection in (other, chosen):
        fields: Mapping[str, str | int] = {"minutes": "", "pool": "", **selection_to_options(selection)}
        form |= {field_name(selection.profile, k): [str(v)] for k, v in fields.items() if k != "profile"}
    assert parse_selection(from_form(form), CATALOGUE, ALL) == chosen


@pytest.mark.parametrize(
    ("form", "want"),
    [
        pytest.param({}, {}, id="an empty form"),
        pytest.param({"profile": []}, {}, id="a profile without a value"),
        pytest.param({"profile": [""], "profile-option---x": ["y"]}, {}, id="an empty profile"),
        pytest.param({"profile": ["cpu", "h200"]}, {"profile": "cpu"}, id="two profiles: the first, as kubespawner does"),
        pytest.param(
            {"profile": ["h200"], "profile-option-h200-4--minutes": ["60"], "profile-option-h200--stack": ["plain"]},
            {"profile": "h200", "stack": "plain"},
            id="fields of a profile whose name begins the same are left out",
        ),
        pytest.param(
            {"profile": ["cpu"], "profile-option-cpu--minutes": [""], "profile-option-cpu--pool": ["univ"]},
            {"profile": "cpu", "pool": "univ"},
            id="an empty field counts as not sent",
        ),
        pytest.param(
            {"profile": ["cpu"], "profile-option-cpu--profile": ["h200-4"]},
            {"profile": "cpu", "profile-option-cpu--profile": "h200-4"},
            id="an option named profile does not change the profile",
        ),
        pytest.param(
            {"profile": ["cpu"], "profile-option-cpu--memory_file": [{"filename": "x", "body": b""}]},
            {"profile": "cpu"},
            id="an uploaded file is nothing",
        ),
    ],
)  # fmt: skip
def test_the_forms_fields(form: Any, want: dict[str, object]) -> None:
    assert from_form(form) == want

from __future__ import annotations

import pytest

from hub_ext.core.errors import BadInput
from hub_ext.profiles.footprint import Footprint, footprint
from hub_ext.profiles.model import Choice, Option, Selection
from tests.profiles.examples import CATALOGUE, MEMORY, STACK, profile

CPU = profile(
    "cpu",
    options=(MEMORY, STACK),
    minutes=(60, 120),
    default_minutes=120,
    environment={"STACK": "none", "A": "1"},
)


@pytest.mark.parametrize(
    ("selection", "want"),
    [
        pytest.param(
            Selection("cpu"),
            Footprint({"cpu": 2000, "memory": 65536}, {"STACK": "rapids", "A": "1"}, 120),
            id="without choices the defaults count, and the profile's length",
        ),
        pytest.param(
            Selection("cpu", {"memory": "128gb"}),
            Footprint({"cpu": 2000, "memory": 131072}, {"STACK": "rapids", "A": "1", "BIG": "yes"}, 120),
            id="a choice replaces the resource it names and nothing else",
        ),
        pytest.param(
            Selection("cpu", {"stack": "plain", "memory": "64gb"}, minutes=45),
            Footprint({"cpu": 2000, "memory": 65536}, {"STACK": "none", "A": "1"}, 45),
            id="a chosen length is kept",
        ),
    ],
)
def test_what_a_selection_takes(selection: Selection, want: Footprint) -> None:
    assert footprint(CPU, selection) == want


def test_a_profile_without_lengths_runs_as_long_as_the_pool_allows() -> None:
    assert footprint(profile("cpu"), Selection("cpu")).minutes is None


def test_a_resource_that_a_choice_sets_to_nothing_is_not_asked_for() -> None:
    none = Option("gpu", {"en": "GPU"}, (Choice("none", {"en": "None"}, {"gpu.h200": 0}, default=True),))
    asked = footprint(
        profile("x", amounts={"cpu": 1000, "memory": 1, "gpu.h200": 1000}, options=(none,)), Selection("x")
    )
    assert asked.amounts == {"cpu": 1000, "memory": 1}


def test_computing_a_footprint_changes_neither_the_profile_nor_the_selection() -> None:
    amounts, choices = dict(CPU.amounts), {"memory": "128gb"}
    footprint(CPU, Selection("cpu", choices))
    assert CPU.amounts == amounts
    assert choices == {"memory": "128gb"}


@pytest.mark.parametrize(
    ("selection", "want"),
    [
        pytest.param(Selection("h200"), "not of 'cpu'", id="of another profile"),
        pytest.param(
            Selection("cpu", {"colour": "red"}),
            "no longer has the option 'colour'",
            id="an option that is gone",
        ),
        pytest.param(
            Selection("cpu", {"memory": "1tb"}), "no longer has '1tb' for memory", id="a choice that is gone"
        ),
    ],
)
def test_a_selection_saved_before_the_profiles_changed_is_refused(selection: Selection, want: str) -> None:
    with pytest.raises(BadInput, match=want):
        footprint(CPU, selection)


def test_every_profile_of_the_examples_has_a_footprint() -> None:
    for one in CATALOGUE:
        assert footprint(one, Selection(one.slug)).amounts

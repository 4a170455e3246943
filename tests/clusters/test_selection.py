from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.clusters.model import ClusterSelection
from hub_ext.clusters.policy import IDLE_MINUTES, LONGEST_VALUE, MOST_VARIABLES, may_set
from hub_ext.clusters.selection import FIELDS, BadSelection, parse_selection, selection_to_options
from hub_ext.core.untrusted import LONGEST_ECHO
from hub_ext.language import translator
from tests.clusters.examples import ALL, CATALOGUE


@pytest.mark.parametrize(
    ("options", "want"),
    [
        pytest.param(None, ClusterSelection("cpu"), id="nothing: the first that they see"),
        pytest.param({}, ClusterSelection("cpu"), id="an empty object"),
        pytest.param({"profile": "gpu"}, ClusterSelection("gpu"), id="a profile alone"),
        pytest.param(
            {"profile": "slice", "pool": "univ", "minutes": 60, "idle_minutes": 10, "image": "rapids", "environment": {"A_1": "x y"}, "server": "second"},
            ClusterSelection("slice", "univ", 60, 10, "rapids", {"A_1": "x y"}, "second"),
            id="all that can be chosen",
        ),
        pytest.param({"server": ""}, ClusterSelection("cpu", server=""), id="the default server is one"),
        pytest.param({"server": "내 서버"}, ClusterSelection("cpu", server="내 서버"), id="a server of any name"),
        pytest.param({"image": ""}, ClusterSelection("cpu"), id="no image is the notebook's own"),
        pytest.param({"idle_minutes": "30", "minutes": "60"}, ClusterSelection("cpu", minutes=60, idle_minutes=30), id="numbers as a form sends them"),
        pytest.param(dict.fromkeys(FIELDS), ClusterSelection("cpu"), id="null counts as not sent"),
        pytest.param({"profile": "gpu", "minutes": 99999}, ClusterSelection("gpu", minutes=99999), id="any length where none is offered"),
        pytest.param({"environment": {"LANG": "값"}}, ClusterSelection("cpu", environment={"LANG": "값"}), id="a value in Korean"),
    ],
)  # fmt: skip
def test_what_can_be_chosen(options: object, want: ClusterSelection) -> None:
    assert parse_selection(options, CATALOGUE, ALL) == want


@pytest.mark.parametrize(
    ("options", "want_field", "want_sentence"),
    [
        pytest.param([], "", "The choices must be an object whose names are texts. Send for example {", id="a list"),
        pytest.param(math.nan, "", "The choices must be an object", id="NaN"),
        pytest.param({3: "x"}, "", "The choices must be an object whose names are texts.", id="a name that is no text"),
        pytest.param({"workers": 500}, "workers", "'workers' is nothing that can be chosen for a cluster. Choose one of: profile, pool, minutes, idle_minutes, image, environment, server.", id="workers"),
        pytest.param({"worker_cores": 64}, "worker_cores", "is nothing that can be chosen", id="a size of their own"),
        pytest.param({"profile": "h200"}, "profile", "There is no cluster 'h200' for you. Choose one of: cpu, slice, gpu.", id="an unknown profile"),
        pytest.param({"profile": "cpu\n"}, "profile", "There is no cluster 'cpu?' for you", id="a profile with a line break"),
        pytest.param({"profile": ["cpu"]}, "profile", "There is no cluster […] for you", id="a profile in a list"),
        pytest.param({"pool": "../x"}, "pool", "'../x' is no name of a pool", id="a pool that is a path"),
        pytest.param({"minutes": 0}, "minutes", "0 is no length in whole minutes. Choose one of: 60, 120, 240.", id="no minutes"),
        pytest.param({"minutes": 241}, "minutes", "241 minutes are more than cpu offers", id="more than the longest length"),
        pytest.param({"minutes": True}, "minutes", "true is no length", id="minutes that are true"),
        pytest.param({"profile": "gpu", "minutes": 10**5000}, "minutes", "… is no length in whole minutes. Write whole minutes from 1 to 99999", id="a number of five thousand digits"),
        pytest.param({"idle_minutes": 0}, "idle_minutes", "0 is no choice of minutes that a cluster may idle. Choose one of: 10, 20, 30, 60.", id="never stopped"),
        pytest.param({"idle_minutes": 61}, "idle_minutes", "61 is no choice", id="longer than offered"),
        pytest.param({"idle_minutes": math.inf}, "idle_minutes", "inf is no choice", id="for ever"),
        pytest.param({"idle_minutes": -20}, "idle_minutes", "is no choice", id="below zero"),
        pytest.param({"image": "rapids"}, "image", "'rapids' is no image for cpu. Leave it out", id="an image of another profile"),
        pytest.param({"profile": "slice", "image": "evil/image:latest"}, "image", "'evil/image:latest' is no image for slice. Choose one of: rapids, nightly.", id="an image that is not in the catalogue"),
        pytest.param({"profile": "slice", "image": {"name": "rapids"}}, "image", "{…} is no image for slice", id="an image that is an object"),
        pytest.param({"environment": [["A", "1"]]}, "environment", "The environment must be an object. Send for example {", id="an environment that is a list"),
        pytest.param({"environment": {"PATH": "/evil"}}, "environment", "The variable 'PATH' cannot be set", id="PATH"),
        pytest.param({"environment": {"A": "1\nB=2"}}, "environment", "The value of A cannot be used. Write one line", id="a value with a line break"),
        pytest.param({"environment": {"A": "1\x00"}}, "environment", "The value of A cannot be used", id="a value with a zero byte"),
        pytest.param({"environment": {"A": "\ud800"}}, "environment", "The value of A cannot be used", id="half a character"),
        pytest.param({"environment": {"A": 1}}, "environment", "The value of A cannot be used", id="a value that is a number"),
        pytest.param({"environment": {"A": "x" * (LONGEST_VALUE + 1)}}, "environment", "Write one line of at most 1024 characters", id="a value too long"),
        pytest.param({"environment": {"A": "x" * 10_000_000}}, "environment", "The value of A cannot be used", id="a value of ten megabytes"),
        pytest.param({"environment": {f"A{i}": "" for i in range(MOST_VARIABLES + 1)}}, "environment", "33 variables are too many. Set at most 32.", id="too many variables"),
        pytest.param({"environment": {"A=B": "1"}}, "environment", "The variable 'A?B' cannot be set", id="a name with an equals sign"),
        pytest.param({"server": "a/b"}, "server", "'a/b' is no name of a server", id="a server that is a path"),
        pytest.param({"server": "a" * 256}, "server", "is no name of a server", id="a server's name too long"),
        pytest.param({"server": 1}, "server", "1 is no name of a server", id="a server that is a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_refused_with_what_can(
    options: object, want_field: str, want_sentence: str
) -> None:
    with pytest.raises(BadSelection) as caught:
        parse_selection(options, CATALOGUE, ALL)
    assert caught.value.field == want_field
    assert want_sentence in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV"),
        *("DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "DASK_GATEWAY_API_URL", "CUDA_VISIBLE_DEVICES"),
        *("NVIDIA_VISIBLE_DEVICES", "KUBERNETES_SERVICE_HOST", "HUB_EXT_LEASE", "HUB_EXT_STATE"),
        *("JUPYTERHUB_API_TOKEN", "HANGANG_DESK_URL", "MEM_LIMIT", "CUDF_SPILL", "path", "Ld_Preload"),
        *("", "1A", "A-B", "A B", "A\n", "Ａ", "A" * 65),
    ],
)
def test_what_holds_a_cluster_together_nobody_sets(name: str) -> None:
    assert not may_set(name)


@pytest.mark.parametrize(
    "name", ["LANG", "OMP_NUM_THREADS", "AWS_REGION", "_X", "a", "A" * 64, "CUDF_SPILL_STATS"]
)
def test_other_variables_are_theirs(name: str) -> None:
    assert may_set(name)


def test_what_is_not_visible_is_refused_in_the_words_for_what_does_not_exist() -> None:
    for name in ("gpu", "gpo"):
        with pytest.raises(BadSelection) as caught:
            parse_selection({"profile": name}, CATALOGUE, ["cpu"])
        assert str(caught.value) == f"There is no cluster '{name}' for you. Choose one of: cpu."


def test_without_any_visible_profile_the_person_is_told_whom_to_ask() -> None:
    with pytest.raises(BadSelection, match=r"No cluster is open to you\. Ask the lead of your institution"):
        parse_selection({"profile": "cpu"}, CATALOGUE, [])


def test_on_one_machine_there_are_no_images_to_choose() -> None:
    with pytest.raises(BadSelection, match=r"is no image for slice\. Leave it out"):
        parse_selection({"profile": "slice", "image": "rapids"}, CATALOGUE.without_images(), ALL)


def test_a_refusal_speaks_the_persons_language() -> None:
    with pytest.raises(BadSelection) as caught:
        parse_selection({"idle_minutes": 0}, CATALOGUE, ALL, translator("ko"))
    assert (
        str(caught.value)
        == "클러스터가 쉴 수 있는 시간(분)으로 고를 수 없는 값입니다: 0. 다음 중에서 고르세요: 10, 20, 30, 60."
    )


# -- whatever comes in --------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=10,
)
LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "profile": st.sampled_from([*ALL, "h200", ""]) | JSON,
        "pool": st.sampled_from(["univ", "a/b"]) | JSON,
        "minutes": st.integers(-1, 300) | st.just("60") | JSON,
        "idle_minutes": st.sampled_from([0, *IDLE_MINUTES, "20", True]) | JSON,
        "image": st.sampled_from(["rapids", "nightly", "evil:latest"]) | JSON,
        "environment": st.dictionaries(
            st.sampled_from(["A", "LANG", "PATH", "DASK_X", "HUB_X"]) | st.text(max_size=9),
            st.text(max_size=9) | JSON,
        )
        | JSON,
        "server": st.text(max_size=9) | JSON,
        "workers": st.integers() | JSON,
    },
)
HOSTILE = (
    JSON
    | LIKELY
    | st.dictionaries(st.integers() | st.none() | st.binary() | st.text(), JSON)
    | st.binary()
    | st.integers(1, 400).map(lambda deep: json.loads('{"profile":' * deep + "1" + "}" * deep))
)


@given(HOSTILE, st.sets(st.sampled_from([*ALL, "gone"])))
def test_anything_is_a_selection_of_things_that_exist_or_a_bad_selection(
    options: object, seen: set[str]
) -> None:
    refused = None
    try:
        selection = parse_selection(options, CATALOGUE, seen)
    except BadSelection as bad:
        refused = bad
    if refused:
        assert str(refused).isprintable()
        assert len(str(refused)) < 500
        assert len(refused.field) <= LONGEST_ECHO
        return
    profile = CATALOGUE.get(selection.profile)
    assert profile is not None
    assert profile.slug in seen
    assert selection.image in [None, *(image.name for image in profile.images)]
    assert selection.minutes is None or 1 <= selection.minutes <= 99999
    assert selection.idle_minutes in IDLE_MINUTES
    assert all(may_set(name) for name in selection.environment)
    assert all(value.isprintable() for value in selection.environment.values())


MARK = "ж"


@given(
    st.integers(1, 5000).map(lambda count: MARK * count),
    st.sampled_from(["<script>", '"onload="', "'", "\x00\r\n", "\u202e", "{}%s", ""]),
    st.sampled_from([*(field for field in FIELDS if field not in ("environment", "server")), None]),
)
def test_at_most_sixty_characters_come_back_and_none_that_a_page_or_a_log_acts_on(
    text: str, evil: str, field: str | None
) -> None:
    sent: dict[str, Any] = {evil + text if field is None else field: evil + text}
    with pytest.raises(BadSelection) as caught:
        parse_selection(sent, CATALOGUE, ALL)
    said = str(caught.value)
    assert said.count(MARK) <= LONGEST_ECHO
    assert said.isprintable()
    assert not set(said) & set('<>&"%{}\\')


# -- there and back -----------------------------------------------------------------------------------------------

VALID = st.builds(
    ClusterSelection,
    profile=st.just("slice"),
    pool=st.none() | st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True),
    minutes=st.none() | st.integers(1, 99999),
    idle_minutes=st.sampled_from(IDLE_MINUTES),
    image=st.sampled_from([None, "rapids", "nightly"]),
    environment=st.dictionaries(
        st.from_regex(r"[A-Z_][A-Z0-9_]{0,10}", fullmatch=True).filter(may_set),
        st.text(max_size=20).filter(str.isprintable),
        max_size=4,
    ),
    server=st.none() | st.sampled_from(["", "second", "내 서버"]),
)


@given(VALID)
def test_a_selection_saved_and_read_back_is_the_same(selection: ClusterSelection) -> None:
    saved = json.loads(json.dumps(selection_to_options(selection)))
    assert parse_selection(saved, CATALOGUE, ALL) == selection

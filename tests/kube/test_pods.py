"""How pods are read: real ones, kept as a cluster's API server gave them (`tests/data/pods/`), and made-up ones."""

from __future__ import annotations

import json
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.core.errors import BadInput
from hub_ext.kube import pods
from hub_ext.kube.pods import (
    LEASE,
    End,
    Wait,
    Waiting,
    answers,
    bound_at,
    exit_code,
    facts_of,
    handle_of,
    is_leaving,
    is_over,
    key_of,
    lease_of,
    node_of,
    sizes_of,
    why_ended,
    why_waiting,
)
from hub_ext.language import LANGUAGES, translator
from hub_ext.quota.codes import Ended
from hub_ext.quota.explain import explain_release, explain_waiting

DATA = Path(__file__).parents[1] / "data" / "pods"


def real(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return found


def changed(name: str, **status: Any) -> dict[str, Any]:
    """A real pod with another status."""
    found = real(name)
    found["status"] |= status
    return found


def disrupted(reason: str, status: str = "True") -> dict[str, Any]:
    return {"type": "DisruptionTarget", "status": status, "reason": reason}


def leaving(found: dict[str, Any]) -> dict[str, Any]:
    found["metadata"]["deletionTimestamp"] = "2027-03-02T00:00:00Z"
    return found


# -- why it ended -----------------------------------------------------------------------------------------------------

ENDS: dict[str, tuple[dict[str, Any] | None, End | None]] = {
    "it runs": (real("running"), None),
    "it waits for a node": (real("unschedulable"), None),
    "its image is missing": (real("no-image"), None),
    "it needed more memory than it has": (real("out-of-memory"), End.OUT_OF_MEMORY),
    "it filled its scratch space": (real("evicted"), End.EVICTED),
    "its program ended with an error": (real("crashed"), End.CRASHED),
    "its program does not exist": (real("no-command"), End.CRASHED),
    "its program ended": (real("completed"), End.EXITED),
    "somebody deleted it, and it takes its time": (real("leaving"), None),
    "somebody deleted it, and it ended": (real("deleted"), End.DELETED),
    "its node is being emptied": (real("drained"), End.EVICTED),
    "something more urgent took its place": (
        changed("running", conditions=[disrupted("PreemptionByScheduler")]),
        End.PREEMPTED,
    ),
    "its node was taken away": (
        changed("running", phase="Failed", conditions=[disrupted("DeletionByPodGC")]),
        End.NODE_LOST,
    ),
    "its node was silent for too long": (
        changed("running", conditions=[disrupted("DeletionByTaintManager")]),
        End.NODE_LOST,
    ),
    "its node shuts down": (
        changed("running", phase="Failed", reason="Terminated", containerStatuses=None),
        End.NODE_LOST,
    ),
    "a disruption was called off": (
        changed("running", conditions=[disrupted("PreemptionByScheduler", "False")]),
        None,
    ),
    "a disruption that nobody knows yet": (changed("crashed", conditions=[disrupted("Meteor")]), End.CRASHED),
    "memory ran out while it was being deleted": (leaving(real("out-of-memory")), End.OUT_OF_MEMORY),
    "it failed without a container": (changed("unschedulable", phase="Failed"), End.CRASHED),
    "there is none": (None, None),
}


@pytest.mark.parametrize(("pod", "want"), ENDS.values(), ids=ENDS)
def test_why_a_pod_ended(pod: dict[str, Any] | None, want: End | None) -> None:
    assert why_ended(pod) is want


GONE: dict[str, tuple[dict[str, Any] | None, End]] = {
    "nobody ever saw it": (None, End.DELETED),
    "it ran": (real("running"), End.DELETED),
    "it was on its way out": (real("leaving"), End.DELETED),
    "it was deleted and ended": (real("deleted"), End.DELETED),
    "it was deleted without the time to end": (real("deleted-quickly"), End.DELETED),
    "its node was being emptied": (real("drained"), End.EVICTED),
    "it had ended by itself": (real("crashed"), End.CRASHED),
    "it had no memory left": (real("out-of-memory"), End.OUT_OF_MEMORY),
    "it never had a node": (real("unschedulable"), End.DELETED),
}


@pytest.mark.parametrize(("pod", "want"), GONE.values(), ids=GONE)
def test_why_a_pod_that_no_longer_exists_ended(pod: dict[str, Any] | None, want: End) -> None:
    assert why_ended(pod, gone=True) is want


def test_every_end_is_a_reason_of_the_ledger_with_words_of_its_own() -> None:
    assert {end.value for end in End} <= {ended.value for ended in Ended}
    for language in LANGUAGES:
        said = {str(explain_release(end.value, translator(language))) for end in End}
        assert len(said) == len(End)
        unknown = str(explain_release(None, translator(language)))
        assert unknown not in said


@pytest.mark.parametrize(
    ("name", "want"),
    [("crashed", 3), ("completed", 0), ("out-of-memory", 137), ("deleted", 137), ("running", 1)],
)
def test_the_exit_code_is_that_of_the_servers_container(name: str, want: int) -> None:
    assert exit_code(real(name)) == want


def test_another_containers_end_is_not_the_servers() -> None:
    beside = {"name": "beside", "state": {"terminated": {"exitCode": 7, "reason": "OOMKilled"}}}
    pod = real("running")
    pod["status"]["containerStatuses"].insert(0, beside)
    assert not is_over(pod)
    assert why_ended(pod) is None


# -- whether it answers, is over, is leaving ----------------------------------------------------------------------------

STATES: dict[str, tuple[dict[str, Any], bool, bool, bool]] = {
    "it runs": (real("running"), True, False, False),
    "its container is not ready": (
        changed(
            "running", containerStatuses=[{"name": "notebook", "ready": False, "state": {"running": {}}}]
        ),
        False,
        False,
        False,
    ),
    "one of two containers is not ready": (
        changed(
            "running", containerStatuses=[{"name": "notebook", "ready": True}, {"name": "b", "ready": False}]
        ),
        False,
        False,
        False,
    ),
    "it has no address yet": (changed("running", podIP=""), False, False, False),
    "nothing is known of its containers": (changed("running", containerStatuses=[]), False, False, False),
    "it waits for a node": (real("unschedulable"), False, False, False),
    "its image is missing": (real("no-image"), False, False, False),
    "it is on its way out": (real("leaving"), False, False, True),
    "it was deleted and ended": (real("deleted"), False, True, True),
    "its program ended": (real("completed"), False, True, False),
    "its program ended with an error": (real("crashed"), False, True, False),
    "its memory ran out": (real("out-of-memory"), False, True, False),
    "its server ended, and another container runs on": (
        changed(
            "running", containerStatuses=[{"name": "notebook", "state": {"terminated": {"exitCode": 0}}}]
        ),
        False,
        True,
        False,
    ),
}


@pytest.mark.parametrize(("pod", "want_answers", "want_over", "want_leaving"), STATES.values(), ids=STATES)
def test_how_a_pod_stands(
    pod: dict[str, Any], want_answers: bool, want_over: bool, want_leaving: bool
) -> None:
    assert (answers(pod), is_over(pod), is_leaving(pod)) == (want_answers, want_over, want_leaving)


def test_a_pod_that_is_not_there_does_not_answer() -> None:
    assert not answers(None)


# -- what it waits for --------------------------------------------------------------------------------------------------

MAKING = changed(
    "no-image",
    containerStatuses=[{"name": "notebook", "state": {"waiting": {"reason": "ContainerCreating"}}}],
)


def told(reason: str, message: str = "") -> dict[str, Any]:
    return {"reason": reason, "message": message}


def starting(state: dict[str, Any], *, before: bool = False) -> dict[str, Any]:
    """A pod with a node, whose server's container, or one that runs before it, is in this state."""
    statuses = [{"name": "notebook", "state": {"waiting": {"reason": "PodInitializing"}}}]
    if before:
        return changed(
            "no-image", containerStatuses=statuses, initContainerStatuses=[{"name": "before", "state": state}]
        )
    return changed("no-image", containerStatuses=[{"name": "notebook", "state": state}])


WAITS: dict[str, tuple[dict[str, Any] | None, list[dict[str, Any]], Waiting]] = {
    "there is no pod yet": (None, [], Waiting.PLACE),
    "the scheduler has not looked at it": (changed("unschedulable", conditions=[]), [], Waiting.PLACE),
    "no node has room": (real("unschedulable"), [], Waiting.NODE),
    "its volume is not made": (real("no-volume"), [], Waiting.VOLUME),
    "its volume does not exist": (real("missing-claim"), [], Waiting.VOLUME),
    "its image is missing": (real("no-image"), [], Waiting.IMAGE_MISSING),
    "its image is missing, and it was never tried again": (
        starting({"waiting": {"reason": "ErrImagePull"}}),
        [],
        Waiting.IMAGE_MISSING,
    ),
    "its image has no name": (
        starting({"waiting": {"reason": "InvalidImageName"}}),
        [],
        Waiting.IMAGE_MISSING,
    ),
    "the image of what runs before is missing": (
        starting({"waiting": {"reason": "ImagePullBackOff"}}, before=True),
        [],
        Waiting.IMAGE_MISSING,
    ),
    "its container is made": (MAKING, [], Waiting.CONTAINER),
    "what it mounts is not there": (
        real("no-secret"),
        [told("Scheduled"), told("FailedMount", 'secret "absent" not found')],
        Waiting.VOLUME,
    ),
    "its image is loaded": (MAKING, [told("Scheduled"), told("Pulling", "Pulling image")], Waiting.IMAGE),
    "its image was loaded": (MAKING, [told("Pulling"), told("Pulled")], Waiting.CONTAINER),
    "a mount failed before its image was loaded": (
        MAKING,
        [told("FailedMount"), told("Pulling")],
        Waiting.IMAGE,
    ),
    "its container falls over and over": (
        starting({"waiting": {"reason": "CrashLoopBackOff"}}),
        [],
        Waiting.CRASHING,
    ),
    "its container cannot be made": (
        starting({"waiting": {"reason": "CreateContainerConfigError"}}),
        [],
        Waiting.CRASHING,
    ),
    "something runs before it": (starting({"running": {}}, before=True), [], Waiting.CONTAINER),
    "it runs and does not answer": (starting({"running": {"startedAt": "x"}}), [], Waiting.ANSWER),
    "it runs, and nothing more is known": (starting({"running": {}}), [], Waiting.ANSWER),
}


@pytest.mark.parametrize(("pod", "events", "want"), WAITS.values(), ids=WAITS)
def test_what_a_pod_waits_for(
    pod: dict[str, Any] | None, events: list[dict[str, Any]], want: Waiting
) -> None:
    assert why_waiting(pod, events).what is want


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        pytest.param(why_waiting(real("unschedulable")), "Insufficient nvidia.com/gpu", id="no node"),
        pytest.param(why_waiting(real("no-image")), "hangang/there-is-none:dev", id="no image"),
        pytest.param(why_waiting(real("no-volume")), "unbound", id="no volume"),
        pytest.param(
            why_waiting(starting({"waiting": {"reason": "ErrImagePull"}}), [told("Failed", "no such image")]),
            "no such image",
            id="by the event alone",
        ),
    ],
)
def test_operators_read_the_clusters_own_words(wait: Wait, words: str) -> None:
    assert words in wait.detail


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_wait_has_words_of_its_own(language: Any) -> None:
    say = translator(language)
    said = {explain_waiting(one.value, say) for one in Waiting}
    assert len(said) == len(Waiting)
    assert explain_waiting("something else", say) not in said


def test_no_wait_is_said_in_english_to_people_who_read_korean() -> None:
    english, korean = (
        {one: explain_waiting(one.value, translator(language)) for one in Waiting} for language in LANGUAGES
    )
    assert all(english[one] != korean[one] for one in Waiting)


# -- where, whose, since when -------------------------------------------------------------------------------------------


def test_a_pod_is_bound_when_the_scheduler_found_its_node() -> None:
    pod = real("running")
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2027-03-02T00:00:10Z"}
    ]
    assert bound_at(pod) == 1_803_945_610
    pod["status"]["conditions"] = []
    pod["metadata"]["creationTimestamp"] = "2027-03-02T09:00:00+09:00"
    assert bound_at(pod) == 1_803_945_600
    pod["metadata"]["creationTimestamp"] = "some day"
    assert bound_at(pod) is None


def test_a_pod_without_a_node_is_bound_to_none() -> None:
    assert node_of(real("unschedulable")) is None
    assert bound_at(real("unschedulable")) is None
    assert node_of(real("running")) == "hangang-node"


def test_a_pod_is_named_for_good_by_its_uid() -> None:
    pod = {"metadata": {"namespace": "hangang-users", "name": "jupyter-kim", "uid": "1-2"}}
    assert handle_of(pod) == "hangang-users/jupyter-kim@1-2"
    assert key_of(pod) == "hangang-users/jupyter-kim"


@pytest.mark.parametrize(
    ("annotation", "want"),
    [
        pytest.param('{"person":"kim"}', {"person": "kim"}, id="facts"),
        pytest.param("[1]", {}, id="no object"),
        pytest.param("{", {}, id="no JSON"),
        pytest.param("[" * 100_000, {}, id="so deep that nobody can read it"),
        pytest.param(None, {}, id="nothing"),
    ],
)
def test_facts_that_cannot_be_read_are_none(annotation: Any, want: dict[str, Any]) -> None:
    assert facts_of({"metadata": {"annotations": {LEASE: annotation}}}) == want


def test_a_pod_that_is_not_ours_has_no_lease() -> None:
    assert lease_of({"metadata": {"labels": {"app": "other"}}}) == ""
    assert lease_of(real("running")) == "0" * 31 + "1"


# -- how much -----------------------------------------------------------------------------------------------------------

NAMES = {"cpu": "cpu", "memory": "memory", "nvidia.com/gpu": "gpu.h200"}


def container(*, stays: bool = False, requests: Any = None, **limits: str) -> dict[str, Any]:
    quantities = {"nvidia.com/gpu" if name == "gpu" else name: one for name, one in limits.items()}
    more = {"restartPolicy": "Always"} if stays else {}
    return {"resources": {"limits": quantities, **({"requests": requests} if requests else {})}, **more}


SIZES: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "nothing is asked": ({"containers": [{"name": "notebook"}]}, {}),
    "containers are summed": (
        {"containers": [container(cpu="500m", gpu="1"), container(cpu="1", memory="1Gi")]},
        {"cpu": 1500, "gpu.h200": 1000, "memory": 1024},
    ),
    "the largest of those before counts where it is more": (
        {"containers": [container(cpu="1")], "initContainers": [container(cpu="3"), container(cpu="2")]},
        {"cpu": 3000},
    ),
    "those before do not add up with those after": (
        {"containers": [container(cpu="2")], "initContainers": [container(cpu="1"), container(cpu="1")]},
        {"cpu": 2000},
    ),
    "one that starts before and stays does": (
        {"containers": [container(gpu="1")], "initContainers": [container(gpu="1", stays=True)]},
        {"gpu.h200": 2000},
    ),
    "one that stays is there while the next one runs before": (
        {
            "containers": [container(cpu="1")],
            "initContainers": [container(cpu="1", stays=True), container(cpu="5")],
        },
        {"cpu": 6000},
    ),
    "one that stays is not there before its turn": (
        {
            "containers": [container(cpu="1")],
            "initContainers": [container(cpu="5"), container(cpu="1", stays=True)],
        },
        {"cpu": 5000},
    ),
    "what the whole pod states goes before": (
        {"containers": [container(cpu="1", gpu="1")], "resources": {"limits": {"cpu": "4"}}},
        {"cpu": 4000, "gpu.h200": 1000},
    ),
    "its runtime's overhead comes on top": (
        {"containers": [container(cpu="1")], "overhead": {"cpu": "250m", "memory": "64Mi"}},
        {"cpu": 1250, "memory": 64},
    ),
    "requests go before limits": (
        {"containers": [container(cpu="4", memory="1Gi", requests={"cpu": "1"})]},
        {"cpu": 1000, "memory": 1024},
    ),
    "other resources are not looked at": (
        {"containers": [{"resources": {"limits": {"example.com/thing": "what", "cpu": "1"}}}]},
        {"cpu": 1000},
    ),
    "a part of a unit is a whole one": ({"containers": [container(memory="1")]}, {"memory": 1}),
}


@pytest.mark.parametrize(("spec", "want"), SIZES.values(), ids=SIZES)
def test_sizes_are_what_the_scheduler_counts(spec: dict[str, Any], want: dict[str, int]) -> None:
    assert sizes_of({"spec": spec}, NAMES, "limits", "requests") == want


def test_a_quantity_that_is_none_is_said() -> None:
    with pytest.raises(BadInput, match="'much' is not an amount"):
        sizes_of({"spec": {"containers": [container(cpu="much")]}}, NAMES, "limits")


# -- whatever they say ----------------------------------------------------------------------------------------------------

READERS = [lease_of, facts_of, handle_of, key_of, node_of, bound_at, is_over, is_leaving, answers, why_ended]
READERS += [why_waiting, exit_code]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def places(found: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value inside."""
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


@given(st.sampled_from(sorted(path.stem for path in DATA.glob("*.json"))), st.data(), JSON)
def test_no_value_anywhere_in_a_pod_makes_it_unreadable(name: str, data: st.DataObject, odd: Any) -> None:
    pod = deepcopy(real(name))
    way = data.draw(st.sampled_from([place for place in places(pod) if place]))
    inner = pod
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] = odd
    for reader in READERS:
        reader(pod)
    why_ended(pod, gone=True)
    with suppress(BadInput):
        sizes_of(pod, NAMES, "limits", "requests")


@given(JSON.filter(lambda found: isinstance(found, dict)))
def test_nothing_at_all_is_a_pod_of_nobody_that_waits(odd: dict[str, Any]) -> None:
    assert lease_of(odd) == ""
    assert not answers(odd)
    assert why_ended(odd) is None
    assert why_waiting(odd) == pods.Wait(Waiting.PLACE)

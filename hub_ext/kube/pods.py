"""How a pod is read: whose lease it carries, whether it is placed, why it waits, why it ended.

Pods and events are the API's JSON as plain dictionaries; whatever is missing is taken for not there yet.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from hub_ext.core.amounts import parse_amount
from hub_ext.core.clock import Instant

Pod = Mapping[str, Any]
Event = Mapping[str, Any]

PREFIX: Final = "hangang-hub/"
LEASE: Final = f"{PREFIX}lease"
"""As a label the lease's id, as an annotation what an adoption needs to know of it."""
POOL: Final = f"{PREFIX}pool"
SECTOR: Final = f"{PREFIX}sector"
KIND: Final = f"{PREFIX}kind"
PERSON: Final = f"{PREFIX}person"
ENDS_AT: Final = f"{PREFIX}ends-at"
GPU_RESOURCE: Final = f"{PREFIX}gpu-resource"
GPU_COUNT: Final = f"{PREFIX}gpu-count"

NOTEBOOK: Final = "notebook"
"""The container that is the server."""


class End(StrEnum):
    """Why what a pod ran, or its start, is over; the ledger keeps it as the reason of the release (`hub_ext.quota.codes.Ended`)."""

    OUT_OF_MEMORY = "out-of-memory"
    EVICTED = "evicted"
    PREEMPTED = "preempted"
    NODE_LOST = "node-lost"
    DELETED = "deleted"
    CRASHED = "crashed"
    EXITED = "exited"
    DIED = "died"
    START_FAILED = "start-failed"
    IMAGE_MISSING = "image-missing"
    NO_ROOM = "no-room"
    CLUSTER_AWAY = "cluster-away"


class Waiting(StrEnum):
    """What a pod that does not run yet waits for."""

    PLACE = "place"
    NODE = "node"
    VOLUME = "volume"
    IMAGE = "image"
    IMAGE_MISSING = "image-missing"
    CONTAINER = "container"
    CRASHING = "crashing"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Wait:
    """`detail` is the cluster's own words, for operators."""

    what: Waiting
    detail: str = ""


_DISRUPTIONS: Final = {
    "PreemptionByScheduler": End.PREEMPTED,
    "DeletionByPodGC": End.NODE_LOST,
    "DeletionByTaintManager": End.NODE_LOST,
    "TerminationByKubelet": End.EVICTED,
    "EvictionByEvictionAPI": End.EVICTED,
}
"""Reasons of the condition `DisruptionTarget`."""
_REASONS: Final = {
    "Evicted": End.EVICTED,
    "Preempting": End.PREEMPTED,
    "NodeLost": End.NODE_LOST,
    "NodeShutdown": End.NODE_LOST,
    "Terminated": End.NODE_LOST,
}
"""Reasons of a pod's status."""


# -- whose ------------------------------------------------------------------------------------------------------------


def lease_of(pod: Pod) -> str:
    """The lease's id by the label; empty for a pod that is not ours."""
    return _text(_meta(pod).get("labels"), LEASE)


def facts_of(pod: Pod) -> dict[str, Any]:
    """What the annotation says of the lease; empty when it cannot be read."""
    try:
        facts = json.loads(_text(_meta(pod).get("annotations"), LEASE) or "{}")
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def handle_of(pod: Pod) -> str:
    """Names one pod for good: names are used again, uids are not."""
    meta = _meta(pod)
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}@{meta.get('uid', '')}"


def key_of(pod: Pod) -> str:
    meta = _meta(pod)
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}"


# -- where ------------------------------------------------------------------------------------------------------------


def node_of(pod: Pod) -> str | None:
    """The node it was bound to; None while it has none."""
    node = _mapping(pod.get("spec")).get("nodeName")
    return node if isinstance(node, str) and node else None


def bound_at(pod: Pod) -> Instant | None:
    """When it got its node: from then on hours accrue."""
    if node_of(pod) is None:
        return None
    scheduled = _condition(pod, "PodScheduled").get("lastTransitionTime")
    return _instant(scheduled) or _instant(_meta(pod).get("creationTimestamp"))


def is_over(pod: Pod) -> bool:
    """Whether nothing of it runs any more, or it will not come back."""
    return _phase(pod) in ("Succeeded", "Failed") or bool(_ended_state(pod))


def is_leaving(pod: Pod) -> bool:
    """Whether it was told to go."""
    return bool(_meta(pod).get("deletionTimestamp"))


def answers(pod: Pod | None) -> bool:
    """Whether all its containers are ready and it has an address."""
    if pod is None or is_leaving(pod) or _phase(pod) != "Running":
        return False
    status = _mapping(pod.get("status"))
    containers = _mappings(status.get("containerStatuses"))
    return bool(status.get("podIP")) and bool(containers) and all(one.get("ready") for one in containers)


# -- how much ---------------------------------------------------------------------------------------------------------


def sizes_of(pod: Pod, names: Mapping[str, str], *fields: str) -> dict[str, int]:
    """What the scheduler counts for a pod, in base units.

    The sum of its containers and of the init containers that stay beside them (`restartPolicy: Always`), or the
    most that is there while an init container runs; what the pod states as a whole goes before both, and its
    runtime's overhead comes on top (`k8s.io/component-helpers/resource` `PodRequests`). `names` gives our name of
    each Kubernetes resource that counts; of `fields` (`limits`, `requests`) the later replaces the earlier.
    Raises BadInput for a quantity that is none.
    """
    spec = _mapping(pod.get("spec"))
    beside: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for container in _mappings(spec.get("initContainers")):
        amounts = _sizes(container, names, fields)
        if container.get("restartPolicy") == "Always":
            beside.update(amounts)
            most |= beside
        else:
            most |= beside + Counter(amounts)
    for container in _mappings(spec.get("containers")):
        beside.update(_sizes(container, names, fields))
    whole = dict(most | beside) | _sizes(spec, names, fields)
    for resource, amount in _sizes({"resources": {"all": spec.get("overhead")}}, names, ("all",)).items():
        whole[resource] = whole.get(resource, 0) + amount
    return whole


def _sizes(container: Mapping[str, Any], names: Mapping[str, str], fields: Iterable[str]) -> dict[str, int]:
    asked = _mapping(container.get("resources"))
    quantities = {name: value for field in fields for name, value in _mapping(asked.get(field)).items()}
    return {
        names[name]: parse_amount(names[name], value, rounding="up")
        for name, value in quantities.items()
        if name in names
    }


# -- why --------------------------------------------------------------------------------------------------------------


def why_ended(pod: Pod | None, *, gone: bool = False) -> End | None:
    """Why it is over; None while it is not. `gone`: the pod no longer exists, and this is how it was seen last."""
    if pod is None:
        return End.DELETED if gone else None
    status = _mapping(pod.get("status"))
    # What was done to the pod says more than how its processes took it.
    disruption = _condition(pod, "DisruptionTarget")
    if disruption.get("status") == "True" and _text(disruption, "reason") in _DISRUPTIONS:
        return _DISRUPTIONS[_text(disruption, "reason")]
    if _text(status, "reason") in _REASONS:
        return _REASONS[_text(status, "reason")]
    ended = _ended_state(pod)
    if ended.get("reason") == "OOMKilled":
        return End.OUT_OF_MEMORY
    # A pod that somebody deleted ends its processes as well.
    if is_leaving(pod):
        return End.DELETED if gone or is_over(pod) else None
    if ended or _phase(pod) in ("Succeeded", "Failed"):
        return End.CRASHED if ended.get("exitCode") or _phase(pod) == "Failed" else End.EXITED
    return End.DELETED if gone else None


def exit_code(pod: Pod) -> int:
    """Of the server's container; 1 where it left none."""
    code = _ended_state(pod).get("exitCode")
    return code if isinstance(code, int) else 1


def why_waiting(pod: Pod | None, events: Iterable[Event] = ()) -> Wait:
    """What stands between a pod and its running, by its conditions; the events say only more about volumes and images."""
    if pod is None:
        return Wait(Waiting.PLACE)
    told = {str(event.get("reason")): str(event.get("message") or "") for event in events}
    if node_of(pod) is None:
        scheduled = _condition(pod, "PodScheduled")
        if scheduled.get("reason") == "Unschedulable":
            message = str(scheduled.get("message") or "")
            if "unbound immediate PersistentVolumeClaims" in message or "persistentvolumeclaim" in message:
                return Wait(Waiting.VOLUME, message)
            return Wait(Waiting.NODE, message)
        return Wait(Waiting.PLACE)
    reasons = [
        (str(waiting.get("reason") or ""), str(waiting.get("message") or ""))
        for waiting in (_mapping(_mapping(one.get("state")).get("waiting")) for one in _containers(pod))
        if waiting
    ]
    for reason, message in reasons:
        if reason in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"):
            return Wait(Waiting.IMAGE_MISSING, message or told.get("Failed", ""))
        if reason in (
            "CrashLoopBackOff",
            "CreateContainerError",
            "CreateContainerConfigError",
            "RunContainerError",
        ):
            return Wait(Waiting.CRASHING, message)
    containers = _mappings(_mapping(pod.get("status")).get("containerStatuses"))
    if any(_mapping(one.get("state")).get("running") is not None for one in containers):
        return Wait(Waiting.ANSWER)
    for reason in ("FailedMount", "FailedAttachVolume"):
        if reason in told and "Pulling" not in told and "Started" not in told:
            return Wait(Waiting.VOLUME, told[reason])
    if "Pulling" in told and "Pulled" not in told:
        return Wait(Waiting.IMAGE, told["Pulling"])
    return Wait(Waiting.CONTAINER)


# -- parts ------------------------------------------------------------------------------------------------------------


def _meta(pod: Pod) -> Mapping[str, Any]:
    return _mapping(pod.get("metadata"))


def _phase(pod: Pod) -> str:
    return str(_mapping(pod.get("status")).get("phase") or "")


def _containers(pod: Pod) -> list[Mapping[str, Any]]:
    status = _mapping(pod.get("status"))
    return [*_mappings(status.get("initContainerStatuses")), *_mappings(status.get("containerStatuses"))]


def _ended_state(pod: Pod) -> Mapping[str, Any]:
    """How the server's container terminated; empty while it has not, or will be started again."""
    for one in _mappings(_mapping(pod.get("status")).get("containerStatuses")):
        if one.get("name") == NOTEBOOK:
            return _mapping(_mapping(one.get("state")).get("terminated"))
    return {}


def _condition(pod: Pod, name: str) -> Mapping[str, Any]:
    for one in _mappings(_mapping(pod.get("status")).get("conditions")):
        if one.get("type") == name:
            return one
    return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []


def _text(values: object, name: str) -> str:
    value = _mapping(values).get(name)
    return value if isinstance(value, str) else ""


def _instant(text: object) -> Instant | None:
    """Of the API's `2027-03-02T00:00:00Z`."""
    try:
        return int(datetime.fromisoformat(str(text)).timestamp())
    except (ValueError, OverflowError):
        return None

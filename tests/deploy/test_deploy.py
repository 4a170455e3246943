"""What `make deploy` understands of the cluster's answers."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.deploy import (
    IMAGE_ANNOTATION,
    address_of,
    mark_images,
    people_of,
    policy_digest,
    rolled_out,
    why_waiting,
)
from tests.support.manifests import built, only


def deployment(*, generation: int = 3, seen: int = 3, **counts: int) -> dict[str, Any]:
    return {
        "metadata": {"generation": generation},
        "spec": {"replicas": 1},
        "status": {"observedGeneration": seen, **counts},
    }


@pytest.mark.parametrize(
    ("found", "want"),
    [
        pytest.param(None, False, id="it is not there"),
        pytest.param(
            deployment(replicas=1, updatedReplicas=1, readyReplicas=1),
            True,
            id="its one pod is new and ready",
        ),
        pytest.param(
            deployment(seen=2, replicas=1, updatedReplicas=1, readyReplicas=1),
            False,
            id="its controller has not seen the change yet",
        ),
        pytest.param(deployment(replicas=1, updatedReplicas=1), False, id="its new pod is not ready"),
        pytest.param(
            deployment(replicas=2, updatedReplicas=1, readyReplicas=2), False, id="an old pod is still there"
        ),
        pytest.param(deployment(), False, id="no pod yet"),
    ],
)
def test_a_rollout_is_over_when_only_new_pods_run_and_all_are_ready(
    found: dict[str, Any] | None, want: bool
) -> None:
    assert rolled_out(found) is want


def pod(*, made: str = "2027-03-02T09:00:00Z", **status: Any) -> dict[str, Any]:
    return {"metadata": {"creationTimestamp": made}, "status": status}


def container(name: str = "hub", *, ready: bool = False, **state: Any) -> dict[str, Any]:
    return {"name": name, "image": f"hangang/{name}:dev", "ready": ready, "state": state}


ENDING = pod()
ENDING["metadata"]["deletionTimestamp"] = "2027-03-02T09:01:00Z"


@pytest.mark.parametrize(
    ("pods", "want"),
    [
        pytest.param([], "no pod yet", id="nothing is there"),
        pytest.param([ENDING], "the pod before is ending", id="the old one ends first"),
        pytest.param([pod()], "its pod is being made", id="it has no status yet"),
        pytest.param(
            [pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are free"}])],
            "no node takes its pod: 0/1 nodes are free",
            id="no node has room",
        ),
        pytest.param(
            [
                pod(
                    initContainerStatuses=[container("upgrade", waiting={"reason": "CrashLoopBackOff"})],
                    containerStatuses=[container(waiting={"reason": "PodInitializing"})],
                )
            ],
            "container upgrade waits: CrashLoopBackOff",
            id="what runs first fails",
        ),
        pytest.param(
            [pod(containerStatuses=[container("hub", waiting={"reason": "ImagePullBackOff"})])],
            "its node cannot get the image hangang/hub:dev",
            id="its image is missing",
        ),
        pytest.param(
            [pod(containerStatuses=[container(waiting={"reason": "ContainerCreating"})])],
            "its pod is being made",
            id="its container is being made",
        ),
        pytest.param(
            [pod(containerStatuses=[container(running={})])],
            "container hub runs and is not ready yet",
            id="it starts",
        ),
        pytest.param(
            [
                pod(
                    made="2027-03-02T08:00:00Z",
                    containerStatuses=[container(waiting={"reason": "ErrImagePull"})],
                ),
                pod(containerStatuses=[container(running={})]),
            ],
            "container hub runs and is not ready yet",
            id="the newest pod counts",
        ),
    ],
)
def test_what_a_rollout_waits_for_is_said_in_words(pods: list[dict[str, Any]], want: str) -> None:
    assert why_waiting(pods) == want


def test_a_new_image_under_an_old_name_changes_the_pods_that_use_it_and_no_others() -> None:
    objects = built("local")
    mark_images(objects, {"hangang/hub:dev": "sha256:aa"})
    for name in ("hub", "desk"):
        template = only(objects, "Deployment", name)["spec"]["template"]
        assert template["metadata"]["annotations"] == {IMAGE_ANNOTATION: "sha256:aa"}
    for kind, name in (("Deployment", "proxy"), ("StatefulSet", "postgres")):
        assert "annotations" not in only(objects, kind, name)["spec"]["template"]["metadata"]


def test_a_changed_policy_has_another_digest() -> None:
    objects = built("local")
    before = policy_digest(objects)
    only(objects, "ConfigMap", "hub-policy")["data"]["pools.yaml"] += "\n# changed\n"
    assert before
    assert policy_digest(objects) not in (before, None)


def test_the_people_who_may_sign_in_are_those_of_the_document() -> None:
    assert "student" in people_of(built("local"))


def test_with_an_ingress_people_come_in_there() -> None:
    def never_asked(*_: str) -> None:
        raise AssertionError("the address stands in the manifest")

    assert address_of(never_asked, built("production")) == "https://hub.example.org"  # type: ignore[arg-type]

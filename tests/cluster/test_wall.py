"""The wall around people's pods and the rights of our service accounts, tried with their own tokens on a real API server."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.manifests import Object
from tests.support.wall import (
    DENIED,
    LEASE,
    SYSTEM,
    USERS,
    Account,
    administrator,
    container,
    is_there,
    marked,
    pod,
    put_up,
    service_account,
    take_down,
    wall_off,
)

pytestmark = pytest.mark.cluster

ACCOUNTS = {"hub": SYSTEM, "desk": SYSTEM, "gateway": SYSTEM, "default": USERS}
"""Service accounts and their namespaces; `default` is the one that people's pods run as."""


@pytest.fixture(scope="module")
def admin(cluster: Cluster) -> Iterator[Account]:
    """The administrator, with namespaces, rights and wall in place; what was there before stays."""
    account = administrator(cluster.kubeconfig)
    was_there = is_there(account)
    put_up(account)
    yield account
    if not was_there:
        take_down(account)


@pytest.fixture(scope="module")
def accounts(admin: Account, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Account]:
    folder: Path = tmp_path_factory.mktemp("accounts")
    found = {name: service_account(admin, name, folder, where) for name, where in ACCOUNTS.items()}
    return {"administrator": admin, **found}


@pytest.fixture
def hub(accounts: dict[str, Account]) -> Account:
    return accounts["hub"]


# -- what the hub may make -----------------------------------------------------------------------------------------


def with_init_container(limits: dict[str, str]) -> Object:
    return pod(limits=[{"cpu": "1"}], initContainers=[container("first", limits)])


NO_GPUS = {"gpu_resource": None, "gpu_count": "0"}


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(pod(), id="one GPU, as its lease says"),
        pytest.param(
            marked(pod(limits=[{"nvidia.com/gpu": "4"}]), "annotations", gpu_count="4"), id="four GPUs"
        ),
        pytest.param(
            marked(pod(limits=[{"nvidia.com/gpu": "1"}] * 2), "annotations", gpu_count="2"),
            id="two containers with one GPU each",
        ),
        pytest.param(with_init_container({"nvidia.com/gpu": "1"}), id="its GPU in an init container"),
        pytest.param(
            marked(
                pod(limits=[{"nvidia.com/mig-1g.18gb": "1"}]),
                "annotations",
                gpu_resource="nvidia.com/mig-1g.18gb",
            ),
            id="a slice",
        ),
        pytest.param(
            marked(pod(limits=[{"cpu": "2", "memory": "1Gi"}]), "annotations", **NO_GPUS), id="no GPU"
        ),
        pytest.param(
            marked(pod(limits=[{}]), "annotations", gpu_resource="", gpu_count="0"), id="no limits at all"
        ),
    ],
)
def test_the_hub_makes_what_a_lease_allows(hub: Account, made: Object) -> None:
    assert hub.refusal(made) == ""


@pytest.mark.parametrize(
    ("made", "want"),
    [
        pytest.param(
            pod(limits=[{"nvidia.com/gpu": "2"}]),
            "ask for 2 GPUs in all, and its lease has 1",
            id="more than its lease",
        ),
        pytest.param(
            pod(limits=[{"nvidia.com/gpu": "1"}] * 2),
            "ask for 2 GPUs in all, and its lease has 1",
            id="more in two containers together",
        ),
        pytest.param(
            pod(initContainers=[container("first", {"nvidia.com/gpu": "1"})]),
            "ask for 2 GPUs in all, and its lease has 1",
            id="one more in an init container",
        ),
        pytest.param(
            pod(limits=[{"cpu": "1"}]),
            "ask for 0 GPUs in all, and its lease has 1",
            id="fewer than its lease, which would stay paid for and unused",
        ),
        pytest.param(
            marked(pod(), "annotations", gpu_count="0"),
            "ask for 1 GPUs in all, and its lease has 0",
            id="a GPU without one in its lease",
        ),
        pytest.param(
            pod(limits=[{"nvidia.com/gpu": "1", "nvidia.com/mig-1g.18gb": "1"}]),
            "the pod's lease has nvidia.com/gpu (annotation hangang-hub/gpu-resource), and its containers ask for another",
            id="a slice beside its GPU",
        ),
        pytest.param(
            pod(limits=[{"nvidia.com/mig-1g.18gb": "1"}]),
            "its containers ask for another resource",
            id="another class than its lease",
        ),
        pytest.param(
            pod(limits=[{"amd.com/gpu": "1"}]),
            "its containers ask for another resource",
            id="another maker's device",
        ),
        pytest.param(
            marked(pod(), "annotations", gpu_resource=None),
            "the pod's lease has no GPUs",
            id="a GPU without the name of its resource",
        ),
        pytest.param(
            marked(pod(), "annotations", gpu_count=None),
            "annotation hangang-hub/gpu-count must say how many GPUs",
            id="no count of GPUs",
        ),
        pytest.param(
            marked(pod(), "annotations", gpu_count="one"),
            "annotation hangang-hub/gpu-count must say how many GPUs",
            id="a count in words",
        ),
        pytest.param(
            marked(pod(), "labels", lease=None),
            "label hangang-hub/lease must hold the id of the pod's lease",
            id="no lease",
        ),
        pytest.param(
            marked(pod(), "labels", lease="mine"),
            "label hangang-hub/lease must hold the id of the pod's lease",
            id="a lease that cannot be one",
        ),
        pytest.param(
            marked(pod(), "labels", pool=None), "label hangang-hub/pool must name the pool", id="no pool"
        ),
        pytest.param(
            marked(pod(), "labels", person=None),
            "label hangang-hub/person must name the person",
            id="no person",
        ),
        pytest.param(
            marked(pod(), "labels", kind=None), "label hangang-hub/kind must be server", id="no kind"
        ),
        pytest.param(
            marked(pod(), "labels", kind="dask-worker"),
            "label hangang-hub/kind must be server",
            id="a kind that others make",
        ),
        pytest.param(
            pod(automountServiceAccountToken=True),
            "hold no token of the API server",
            id="with a token of the API server",
        ),
        pytest.param(
            pod(resourceClaims=[{"name": "gpu", "resourceClaimName": "any"}]),
            "takes no devices by resource claims",
            id="a device by another way",
        ),
    ],
)
def test_the_wall_refuses_the_hub_itself_what_no_lease_allows(hub: Account, made: Object, want: str) -> None:
    said = hub.refusal(made)
    assert DENIED in said
    assert want in said


@pytest.mark.parametrize(
    ("made", "want"),
    [
        pytest.param(pod(hostNetwork=True), "hostNetwork=true", id="the node's network"),
        pytest.param(
            pod(volumes=[{"name": "node", "hostPath": {"path": "/"}}]), "hostPath", id="the node's files"
        ),
        pytest.param(
            pod(securityContext={"seccompProfile": {"type": "RuntimeDefault"}}),
            "runAsNonRoot != true",
            id="root",
        ),
    ],
)
def test_pod_security_refuses_what_reaches_for_the_node(hub: Account, made: Object, want: str) -> None:
    said = hub.refusal(made)
    assert 'violates PodSecurity "restricted' in said
    assert want in said


@pytest.mark.parametrize("kind", ["dask-scheduler", "dask-worker"])
def test_the_gateway_makes_the_pods_of_clusters(accounts: dict[str, Account], kind: str) -> None:
    made = marked(pod(), "labels", kind=kind)
    assert accounts["gateway"].refusal(made) == ""
    later = marked(made, "labels", lease=f"{LEASE}.12")
    assert accounts["gateway"].refusal(later) == ""


@pytest.mark.parametrize(
    ("account", "made", "want"),
    [
        pytest.param(
            "gateway", pod(), "must be dask-scheduler or dask-worker", id="a server, by the gateway"
        ),
        pytest.param(
            "hub", marked(pod(), "labels", kind="dask-worker"), "must be server", id="a worker, by the hub"
        ),
        pytest.param(
            "gateway",
            marked(pod(limits=[{"nvidia.com/gpu": "2"}]), "labels", kind="dask-worker"),
            "2 GPUs in all",
            id="two GPUs with a lease for one",
        ),
        pytest.param(
            "gateway",
            marked(marked(pod(), "labels", kind="dask-worker"), "labels", lease=f"{LEASE}.0"),
            "32 hexadecimal digits",
            id="no lease",
        ),
    ],
)
def test_the_wall_refuses_the_gateway_what_is_not_its_business(
    accounts: dict[str, Account], account: str, made: Object, want: str
) -> None:
    said = accounts[account].refusal(made)
    assert DENIED in said
    assert want in said


def test_people_run_as_the_account_without_rights(admin: Account, hub: Account) -> None:
    admin.do("create", "serviceaccount", "another", f"--namespace={USERS}")
    try:
        assert "run as the service account" in hub.refusal(pod(serviceAccountName="another"))
    finally:
        admin.do("delete", "serviceaccount", "another", f"--namespace={USERS}")


def test_nobody_else_makes_pods_there_not_even_an_administrator(admin: Account) -> None:
    said = admin.refusal(pod())
    assert DENIED in said
    assert "only the hub and the gateway make pods in this namespace" in said
    assert "Start a server on the hub's page" in said


def test_with_the_wall_off_an_administrator_makes_pods_and_with_it_on_again_not(admin: Account) -> None:
    with wall_off(admin):
        assert admin.refusal(pod()) == ""
    assert DENIED in admin.refusal(pod())


# -- what becomes of a pod ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def no_desk(admin: Account) -> Iterator[None]:
    """Where a hub is deployed its desk is away: it would soon end a pod whose lease it does not know."""
    desk = ("deployment/desk", f"--namespace={SYSTEM}")
    replicas = admin.do("get", *desk, "--ignore-not-found", "--output=jsonpath={.spec.replicas}").strip()
    if replicas:
        admin.do("scale", *desk, "--replicas=0")
        pods = ("pods", f"--namespace={SYSTEM}", "--selector=app.kubernetes.io/name=desk")
        admin.do("wait", "--for=delete", *pods, "--timeout=50s")
    yield
    if replicas:
        admin.do("scale", *desk, f"--replicas={replicas}")


@pytest.fixture
def real_pod(admin: Account, hub: Account, no_desk: None) -> Iterator[str]:
    """Really made by the hub's account; no node takes it, so nothing runs."""
    name = f"wall-test-{secrets.token_hex(3)}"
    hub.do("create", "--filename=-", given=json.dumps(pod(name)))
    yield name
    admin.do(
        "delete", "pod", name, f"--namespace={USERS}", "--ignore-not-found", "--grace-period=0", "--force"
    )


@pytest.mark.parametrize("label", ["lease", "pool", "sector", "kind", "person"])
@pytest.mark.parametrize("value", ["=another", "-"], ids=["changed", "removed"])
def test_what_a_pod_is_charged_to_stays_with_it(
    admin: Account, real_pod: str, label: str, value: str
) -> None:
    done = admin.attempt(
        "label", "pod", real_pod, f"hangang-hub/{label}{value}", f"--namespace={USERS}", "--overwrite"
    )
    assert done.returncode != 0
    assert "labels of lease, kind, pool, sector and person stay as they were made" in done.stderr


@pytest.mark.parametrize("annotation", ["gpu-resource", "gpu-count"])
@pytest.mark.parametrize("value", ["=9", "-"], ids=["changed", "removed"])
def test_what_a_pod_holds_stays_with_it(admin: Account, real_pod: str, annotation: str, value: str) -> None:
    done = admin.attempt(
        "annotate",
        "pod",
        real_pod,
        f"hangang-hub/{annotation}{value}",
        f"--namespace={USERS}",
        "--overwrite",
    )
    assert done.returncode != 0
    assert "annotations of its lease and its GPUs stay as they were made" in done.stderr


def test_other_marks_of_a_pod_may_change(admin: Account, real_pod: str) -> None:
    where = f"--namespace={USERS}"
    admin.do("annotate", "pod", real_pod, "hangang-hub/ends-at=2027-03-02T12:00:00+09:00", where)
    admin.do("label", "pod", real_pod, "seen-by=operator", where)


def test_the_desk_ends_what_the_hub_made_and_makes_nothing(
    accounts: dict[str, Account], real_pod: str
) -> None:
    desk = accounts["desk"]
    assert 'cannot create resource "pods"' in desk.refusal(pod("by-the-desk"))
    desk.do("delete", "pod", real_pod, f"--namespace={USERS}", "--grace-period=0", "--force")
    assert desk.do("get", "pod", real_pod, f"--namespace={USERS}", "--ignore-not-found") == ""


# -- who may do what ---------------------------------------------------------------------------------------------


READ = ["get", "list", "watch"]
POD_WORK = [*READ, "create", "delete"]
NAMESPACES = (USERS, SYSTEM, "default", "kube-system")
MAY = {
    "hub": {
        *((verb, "pods", USERS) for verb in POD_WORK),
        *((verb, "persistentvolumeclaims", USERS) for verb in ("get", "list", "create")),
        *((verb, "events", USERS) for verb in ("get", "list", "watch")),
    },
    "desk": {
        ("delete", "pods", USERS),
        # What is not ours takes room on the nodes as well.
        *((verb, "pods", namespace) for verb in READ for namespace in NAMESPACES),
        *((verb, "nodes", "") for verb in READ),
    },
    "gateway": {
        *((verb, "pods", USERS) for verb in POD_WORK),
        # The certificate of each cluster: it is never read again.
        *((verb, "secrets", USERS) for verb in ("create", "delete")),
    },
    "default": set(),
}
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
ASKED = [
    *((verb, resource, namespace) for verb in VERBS for resource in ("pods", "secrets") for namespace in NAMESPACES),
    *((verb, "persistentvolumeclaims", USERS) for verb in VERBS),
    *((verb, "events", USERS) for verb in VERBS),
    *((verb, "nodes", "") for verb in VERBS),
    *(("create", f"pods/{what}", USERS) for what in ("exec", "attach", "portforward", "ephemeralcontainers", "eviction", "binding")),
    *(("patch", f"pods/{what}", USERS) for what in ("ephemeralcontainers", "status", "resize")),
    ("get", "pods/log", USERS),
    ("create", "serviceaccounts/token", SYSTEM),
    ("create", "deployments.apps", USERS),
    ("create", "jobs.batch", USERS),
    ("create", "rolebindings.rbac.authorization.k8s.io", USERS),
    ("get", "configmaps", SYSTEM),
    ("patch", "namespaces", ""),
    ("delete", "validatingadmissionpolicybindings.admissionregistration.k8s.io", ""),
    ("impersonate", "users", ""),
]  # fmt: skip


@pytest.mark.parametrize("name", ACCOUNTS)
def test_each_account_may_do_what_it_needs_and_nothing_else(accounts: dict[str, Account], name: str) -> None:
    assert accounts[name].allowed(ASKED) == MAY[name]


@pytest.mark.parametrize("name", ACCOUNTS)
def test_what_is_forbidden_is_really_refused(accounts: dict[str, Account], name: str) -> None:
    account = accounts[name]
    elsewhere = pod()
    elsewhere["metadata"]["namespace"] = "default"
    assert "cannot create resource" in account.refusal(elsewhere)
    assert (
        'cannot list resource "secrets"' in account.attempt("get", "secrets", f"--namespace={USERS}").stderr
    )
    if name != "desk":
        assert 'cannot list resource "pods"' in account.attempt("get", "pods", f"--namespace={SYSTEM}").stderr

"""`make deploy`: brings an overlay into a cluster, and ends when the hub answers at the address that it prints.

It may be run again at any time: what is there already stays, and what changed is rolled out. The Secrets are made once,
from fresh random values, and never written again.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).resolve().parents[1]
OVERLAYS = ROOT / "deploy" / "overlays"
SYSTEM, USERS = "hangang-system", "hangang-users"
PART = "app.kubernetes.io/part-of=hangang-hub"
DATABASE_USER = "hangang"
ROLLOUT_SECONDS = 600
IMAGE_SECONDS = 60
ANSWER_SECONDS = 120
LOOK_EVERY = 1.0
IMAGE_ANNOTATION = "hangang-hub/image-digest"
POLICY_ANNOTATION = "hangang-hub/policy-digest"
READY, NO_IMAGE = "ready", "its node cannot get the image"
CLUSTER_KINDS = (
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
KINDS = ("Role", "RoleBinding", "NetworkPolicy", "ConfigMap")
FORMER = ("deployment/clock", "serviceaccount/clock")
"""What earlier versions ran in hangang-system and this one does not: the clock runs in the desk."""

Object = dict[str, Any]


class CannotDeploy(Exception):
    """What happened, and what to do; told without a stack trace."""


# -- the cluster ---------------------------------------------------------------------------------------------------


@dataclass
class Kubectl:
    """kubectl against the cluster that KUBECONFIG names, or else the one that `make cluster` made."""

    program: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, given: str | None = None) -> str:
        done = self.attempt(*arguments, given=given)
        if done.returncode:
            raise CannotDeploy(f"kubectl {' '.join(arguments)} failed:\n{done.stderr.strip()}")
        return done.stdout

    def attempt(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *arguments],
            env={**os.environ, **self.environment},
            input=given if given is not None else "",
            capture_output=True,
            text=True,
        )

    def get(self, *arguments: str) -> Object | None:
        """None where there is no such object. Other failures are raised."""
        text = self("get", *arguments, "--ignore-not-found", "--output=json")
        return json.loads(text) if text.strip() else None


def find_kubectl() -> Kubectl:
    """Raises CannotDeploy where there is no cluster to talk to."""
    ours = ROOT / ".cluster"
    if os.environ.get("KUBECONFIG"):
        environment = {}
    elif (ours / "kubeconfig").exists():
        environment = {"KUBECONFIG": str(ours / "kubeconfig")}
    else:
        raise CannotDeploy("There is no cluster: `make cluster` makes one here, or set KUBECONFIG to yours.")
    program = next(
        (str(path) for path in (ours / "bin" / "kubectl",) if path.exists()), shutil.which("kubectl")
    )
    if program is None:
        raise CannotDeploy("There is no kubectl here. Install it, or let `make cluster` bring its own.")
    return Kubectl(program, environment)


# -- what is applied -----------------------------------------------------------------------------------------------


def build(kubectl: Kubectl, overlay: str) -> list[Object]:
    """The overlay's objects, as kustomize makes them."""
    folder = OVERLAYS / overlay
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in OVERLAYS.iterdir()))
        raise CannotDeploy(f"There is no overlay {overlay!r}; there are: {known}")
    text = kubectl("kustomize", "--load-restrictor", "LoadRestrictionsNone", str(folder))
    return [document for document in yaml.safe_load_all(text) if document]


def mark_images(objects: list[Object], digests: Mapping[str, str]) -> None:
    """Write into each pod template which images it means, so that a new image under an old name is rolled out too."""
    for one in objects:
        template = one.get("spec", {}).get("template")
        if template is None:
            continue
        spec = template["spec"]
        used = {container["image"] for container in [*spec["containers"], *spec.get("initContainers", [])]}
        known = sorted(digests[image] for image in used if image in digests)
        if known:
            template["metadata"].setdefault("annotations", {})[IMAGE_ANNOTATION] = ",".join(known)


def built_images() -> dict[str, str]:
    """The digest of each image that `make images` built here, by name; none where it built none."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "images" / "build.py"), "--digests"], capture_output=True, text=True
    )
    if done.returncode:
        raise CannotDeploy(f"images/build.py --digests failed: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def policy_digest(objects: list[Object]) -> str | None:
    for one in objects:
        if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "hub-policy":
            return hashlib.sha256(json.dumps(one["data"], sort_keys=True).encode()).hexdigest()[:12]
    return None


# -- secrets -------------------------------------------------------------------------------------------------------


def make_secrets(kubectl: Kubectl, *, with_database: bool) -> None:
    """Make those that are missing. One that exists is left alone: it may be a site's own."""
    if with_database and not kubectl.get("secret", "postgres", f"--namespace={SYSTEM}"):
        _create_secret(kubectl, "postgres", {"password": secrets.token_urlsafe(24)})
        say("secret postgres: made")
    if kubectl.get("secret", "hub", f"--namespace={SYSTEM}"):
        return
    if not with_database:
        raise CannotDeploy(
            f"The Secret `hub` is missing in {SYSTEM}, and only you know the database that it names. "
            "docs/operate/kubernetes.md says how to make it."
        )
    fresh = subprocess.run(
        [sys.executable, "-m", "hub_ext", "secrets"], cwd=ROOT, capture_output=True, text=True
    )
    if fresh.returncode:
        raise CannotDeploy(f"`hub-ext secrets` failed: {fresh.stderr.strip()}")
    password = secret_values(kubectl, "postgres")["password"]
    values = {
        "secrets.json": fresh.stdout,
        "proxy-token": str(json.loads(fresh.stdout)["proxy_token"]),
        "database-url": f"postgresql://{DATABASE_USER}:{password}@postgres:5432/{DATABASE_USER}",
    }
    _create_secret(kubectl, "hub", values)
    say("secret hub: made")


def secret_values(kubectl: Kubectl, name: str) -> dict[str, str]:
    found = kubectl.get("secret", name, f"--namespace={SYSTEM}")
    if found is None:
        raise CannotDeploy(f"The Secret {name!r} is missing in {SYSTEM}.")
    return {key: base64.b64decode(value).decode() for key, value in found.get("data", {}).items()}


def _create_secret(kubectl: Kubectl, name: str, values: Mapping[str, str]) -> None:
    labels = dict([PART.split("=")])
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": SYSTEM, "labels": labels},
        "stringData": dict(values),
    }
    # By standard input: arguments can be seen by everybody on this machine.
    kubectl("create", "--filename=-", given=json.dumps(secret))


# -- waiting, with words -------------------------------------------------------------------------------------------


def wait_for_rollouts(kubectl: Kubectl, objects: list[Object]) -> None:
    """Until each Deployment and StatefulSet runs as it was applied. Tells what each one waits for."""
    waiting = [
        (one["kind"], one["metadata"]["name"])
        for one in objects
        if one["kind"] in ("Deployment", "StatefulSet")
    ]
    told: dict[str, str] = {}
    began = time.monotonic()
    while waiting:
        words = {one: _progress(kubectl, one) for one in waiting}
        for (_, name), now in words.items():
            if told.get(name) != now:
                say(f"{name}: {now}")
                told[name] = now
        waiting = [one for one in waiting if words[one] != READY]
        waited = time.monotonic() - began
        missing = [name for (_, name), now in words.items() if now.startswith(NO_IMAGE)]
        if missing and waited > IMAGE_SECONDS:
            raise CannotDeploy(f"{missing[0]}: {told[missing[0]]}. For a cluster made here: make images")
        if waiting and waited > ROLLOUT_SECONDS:
            raise CannotDeploy(_why_in_vain(kubectl, waiting[0]))
        if waiting:
            time.sleep(LOOK_EVERY)


def _progress(kubectl: Kubectl, which: tuple[str, str]) -> str:
    kind, name = which
    try:
        found = kubectl.get(kind, name, f"--namespace={SYSTEM}")
        if rolled_out(found):
            return READY
        pods = kubectl.get("pods", f"--namespace={SYSTEM}", f"--selector=app.kubernetes.io/name={name}")
    except CannotDeploy:
        return "the API server does not answer"
    return why_waiting((pods or {}).get("items", []))


def rolled_out(found: Object | None) -> bool:
    """Whether all replicas are of the newest template and ready, and none of an older one is left."""
    if found is None:
        return False
    status, wanted = found.get("status", {}), found["spec"].get("replicas", 1)
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")]
    seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
    return seen and counts == [wanted] * 3


def why_waiting(pods: list[Object]) -> str:
    """What the newest of these pods waits for."""
    ending = [pod for pod in pods if "deletionTimestamp" in pod["metadata"]]
    alive = [pod for pod in pods if pod not in ending]
    if not alive:
        return "the pod before is ending" if ending else "no pod yet"
    pod = max(alive, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    status = pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"no node takes its pod: {condition.get('message', 'not yet known why')}"
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        state = container["state"]
        reason = state.get("waiting", {}).get("reason", "PodInitializing")
        if reason in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"):
            return f"{NO_IMAGE} {container['image']}"
        if reason not in ("PodInitializing", "ContainerCreating"):
            return f"container {container['name']} waits: {reason}"
        if "running" in state and not container["ready"]:
            return f"container {container['name']} runs and is not ready yet"
    return "its pod is being made"


def _why_in_vain(kubectl: Kubectl, which: tuple[str, str]) -> str:
    kind, name = which
    log = kubectl.attempt(
        "logs", f"{kind}/{name}", f"--namespace={SYSTEM}", "--all-containers", "--tail=20", "--prefix"
    )
    return (
        f"{name} did not become ready within {ROLLOUT_SECONDS} s. Its last words:\n"
        f"{(log.stdout or log.stderr).strip()}\n"
        f"More: kubectl --namespace {SYSTEM} describe pods -l app.kubernetes.io/name={name}"
    )


def wait_for_answer(address: str) -> None:
    """Raises CannotDeploy when the hub does not answer through the proxy."""
    seen = ""

    def answers() -> bool:
        nonlocal seen
        try:
            response = httpx.get(f"{address}/hub/health", timeout=5, trust_env=False)
        except httpx.HTTPError as error:
            seen = type(error).__name__
            return False
        seen = f"status {response.status_code}"
        return response.status_code == 200

    if not wait_until(answers, ANSWER_SECONDS):
        raise CannotDeploy(
            f"Everything runs, and {address} does not answer from here ({seen}). "
            f"Where this machine cannot reach the nodes: kubectl --namespace {SYSTEM} port-forward service/proxy-public 8000:80"
        )


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True


# -- after the rollout ---------------------------------------------------------------------------------------------


def renew_policy(kubectl: Callable[..., str], digest: str | None) -> None:
    """Touch the pods that mount the policy: the kubelet then renews the file at once, and not at its next round."""
    if digest is not None:
        for name in ("desk", "hub"):
            kubectl(
                "annotate",
                "pods",
                f"--selector=app.kubernetes.io/name={name}",
                f"--namespace={SYSTEM}",
                f"{POLICY_ANNOTATION}={digest}",
                "--overwrite",
            )


def remove_what_is_no_more(kubectl: Kubectl, objects: list[Object]) -> None:
    """Rights and rules that earlier versions had, and ConfigMaps that no pod mounts any more: `apply` leaves them.

    Claims and Secrets are never removed here, and of what runs only what is known to be of an earlier version.
    """
    for name in FORMER:
        if removed := kubectl("delete", name, f"--namespace={SYSTEM}", "--ignore-not-found"):
            say(removed.strip())
    wanted = {(one["kind"], one["metadata"]["name"]) for one in objects}
    for kinds, where in ((CLUSTER_KINDS, None), (KINDS, SYSTEM), (KINDS, USERS)):
        place = [f"--namespace={where}"] if where else []
        found = kubectl.get(",".join(kinds), *place, f"--selector={PART}") or {"items": []}
        for one in found["items"]:
            kind, name = one["kind"], one["metadata"]["name"]
            if (kind, name) not in wanted:
                kubectl("delete", kind, name, *place)
                say(f"removed {kind} {name}, which is no more a part of this")


def address_of(kubectl: Kubectl, objects: list[Object]) -> str:
    """Where people open the hub: the ingress, or else a node's own address."""
    for one in objects:
        if one["kind"] == "Ingress":
            return f"https://{one['spec']['rules'][0]['host']}"
    service = kubectl.get("service", "proxy-public", f"--namespace={SYSTEM}") or {}
    port = service["spec"]["ports"][0].get("nodePort")
    address = next(_node_addresses(kubectl), None)
    if port is None or address is None:
        raise CannotDeploy("The service proxy-public has no port on a node, so there is no address to open.")
    return f"http://{address}:{port}"


def _node_addresses(kubectl: Kubectl) -> Iterator[str]:
    """Of real nodes: those that kwok pretends have no address that answers."""
    for node in (kubectl.get("nodes") or {"items": []})["items"]:
        if node["metadata"].get("annotations", {}).get("kwok.x-k8s.io/node"):
            continue
        for address in node["status"].get("addresses", []):
            if address["type"] == "InternalIP":
                yield address["address"]


def people_of(objects: list[Object]) -> list[str]:
    """The demo's people, as the deployed document names them."""
    for one in objects:
        if one["kind"] == "ConfigMap" and one["metadata"]["name"].startswith("hub-identity"):
            return list((yaml.safe_load(one["data"]["identity.yaml"]) or {}).get("people") or {})
    return []


def say(text: str) -> None:
    print(text, flush=True)


# -- the whole -----------------------------------------------------------------------------------------------------


def deploy(kubectl: Kubectl, overlay: str, digests: Mapping[str, str]) -> None:
    """Steps that each may be done again."""
    # 1. What is to be there.
    objects = build(kubectl, overlay)
    mark_images(objects, digests)
    with_database = any(one["metadata"]["name"] == "postgres" for one in objects)
    # 2. Namespaces first: the Secrets need them, and the pods need the Secrets.
    _apply(kubectl, [one for one in objects if one["kind"] == "Namespace"])
    make_secrets(kubectl, with_database=with_database)
    # 3. All of it.
    _apply(kubectl, objects)
    say(f"applied {len(objects)} objects")
    # 4. Until it runs.
    wait_for_rollouts(kubectl, objects)
    renew_policy(kubectl, policy_digest(objects))
    remove_what_is_no_more(kubectl, objects)
    # 5. Until it answers.
    address = address_of(kubectl, objects)
    wait_for_answer(address)
    say(f"\nHangang Hub is ready:  {address}\n")
    if with_database:
        kept = json.loads(secret_values(kubectl, "hub")["secrets.json"])
        say(f"  Sign in as   {', '.join(people_of(objects))}")
        say(f"  Password     {kept['demo_password']}")
        say(
            "  This is a trial: demo people, one database without backups. docs/operate/kubernetes.md goes on.\n"
        )


def _apply(kubectl: Kubectl, objects: list[Object]) -> None:
    kubectl("apply", "--filename=-", given=yaml.safe_dump_all(objects, sort_keys=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overlay", nargs="?", default="local", help="a folder of deploy/overlays")
    arguments = parser.parse_args()
    try:
        deploy(find_kubectl(), arguments.overlay, built_images())
    except CannotDeploy as error:
        sys.exit(f"Not deployed. {error}")


if __name__ == "__main__":
    main()

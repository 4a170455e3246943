"""The two namespaces with their rights and their wall in a real cluster, and accounts that try what they may do there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.hub import wait_for
from tests.support.manifests import Object, built, find_kubectl, of_kind

SYSTEM, USERS = "hangang-system", "hangang-users"
KINDS = (
    "Namespace",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "PriorityClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
LEASE = "0123456789abcdef0123456789abcdef"
DENIED = "denied request: "


Right = tuple[str, str, str]
"""A verb, a resource (`pods`, `pods/exec`, `jobs.batch`), and a namespace; "" for what has none."""


@dataclass
class Account:
    """Somebody who talks to the API server with what a kubeconfig gives them."""

    name: str
    kubeconfig: Path

    def attempt(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [*find_kubectl(), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)

    def do(self, *arguments: str, given: str = "") -> str:
        done = self.attempt(*arguments, given=given)
        assert done.returncode == 0, f"{self.name}: kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def allowed(self, asked: Sequence[Right]) -> set[Right]:
        """Which of these it may, by the API server's own word (SelfSubjectAccessReview)."""
        reviews = yaml.safe_dump_all([_review(*one) for one in asked])
        words = self.do(
            "create",
            "--validate=false",
            "--filename=-",
            r"--output=jsonpath={.status.allowed}{'\n'}",
            given=reviews,
        )
        answers = words.split()
        assert len(answers) == len(asked), words
        return {one for one, answer in zip(asked, answers, strict=True) if answer == "true"}

    def refusal(self, pod: Object) -> str:
        """What the API server says to this pod, without making it; empty where it would be made."""
        done = self.attempt("create", "--dry-run=server", "--filename=-", given=json.dumps(pod))
        return done.stderr.strip() if done.returncode else ""


def _review(verb: str, resource: str, namespace: str) -> Object:
    name, _, subresource = resource.partition("/")
    name, _, group = name.partition(".")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": name,
        "subresource": subresource,
        "namespace": namespace,
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }


def administrator(kubeconfig: Path) -> Account:
    return Account("administrator", kubeconfig)


def service_account(admin: Account, name: str, folder: Path, namespace: str = SYSTEM) -> Account:
    """Somebody with nothing but the account's own token."""
    token = admin.do("create", "token", name, f"--namespace={namespace}", "--duration=1h").strip()
    config = json.loads(admin.do("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    # The administrator's certificate must go: the API server would believe it before any token.
    config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
    path = folder / f"{name}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return Account(name, path)


# -- putting it there ----------------------------------------------------------------------------------------------


def put_up(admin: Account) -> None:
    """Namespaces, rights and wall as every overlay has them; what is there already stays as it is."""
    wanted = of_kind(built("local"), *KINDS)
    for one in wanted:
        if one["kind"] == "Namespace":
            admin.do("apply", "--filename=-", given=json.dumps(one))
    admin.do("apply", "--filename=-", given=yaml.safe_dump_all(wanted))
    _wait_until(admin, stands=True)


def take_down(admin: Account) -> None:
    wanted = of_kind(built("local"), *KINDS)
    admin.do("delete", "--ignore-not-found", "--filename=-", given=yaml.safe_dump_all(wanted))


def is_there(admin: Account) -> bool:
    return bool(admin.do("get", "namespace", USERS, "--ignore-not-found", "--output=name").strip())


@contextmanager
def wall_off(admin: Account) -> Iterator[None]:
    """For a while anybody with rights makes pods there, as on a cluster whose operator forgot the wall."""
    bindings = yaml.safe_dump_all(of_kind(built("local"), "ValidatingAdmissionPolicyBinding"))
    admin.do("delete", "--ignore-not-found", "--filename=-", given=bindings)
    try:
        _wait_until(admin, stands=False)
        yield
    finally:
        admin.do("apply", "--filename=-", given=bindings)
        _wait_until(admin, stands=True)


def _wait_until(admin: Account, *, stands: bool) -> None:
    """The API server puts policies in force a moment after they are written."""
    what = "the wall stands" if stands else "the wall is gone"
    wait_for(lambda: (DENIED in admin.refusal(pod())) is stands, what, seconds=30)


# -- pods ----------------------------------------------------------------------------------------------------------


def pod(
    name: str = "tried", *, limits: Sequence[dict[str, str]] = ({"nvidia.com/gpu": "1"},), **spec: Any
) -> Object:
    """A pod as the hub makes them, with one container for each of `limits`. No node ever takes it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": USERS,
            "labels": {
                "hangang-hub/lease": LEASE,
                "hangang-hub/pool": "hangang-univ",
                "hangang-hub/sector": "public-interest",
                "hangang-hub/kind": "server",
                "hangang-hub/person": "student",
            },
            "annotations": {"hangang-hub/gpu-resource": "nvidia.com/gpu", "hangang-hub/gpu-count": "1"},
        },
        "spec": {
            "schedulerName": "nobody",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container(f"c{number}", one) for number, one in enumerate(limits)],
            **spec,
        },
    }


def container(name: str, limits: dict[str, str]) -> Object:
    return {
        "name": name,
        "image": "hangang/pause:dev",
        "resources": {"limits": limits},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def marked(changed: Object, part: str, **values: str | None) -> Object:
    """With other labels or annotations of ours: `marked(pod(), "labels", person=None)`; None removes one."""
    for name, value in values.items():
        key = f"hangang-hub/{name.replace('_', '-')}"
        if value is None:
            del changed["metadata"][part][key]
        else:
            changed["metadata"][part][key] = value
    return changed

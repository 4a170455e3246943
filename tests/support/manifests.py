"""The overlays of `deploy/` as kustomize makes them, read back as plain objects."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ROOT / "deploy" / "overlays"
OVERLAY_NAMES = ("local", "production")
BUILT = Path.home() / ".cache" / "hangang-cluster"

Object = dict[str, Any]


def find_kubectl() -> list[str]:
    """A kubectl that knows kustomize. Skips the test outside CI where there is none, as before the first `make cluster`."""
    candidates = [[str(ROOT / ".cluster" / "bin" / "kubectl")]]
    candidates += [[str(program), "kubectl"] for program in sorted(BUILT.glob("kubernetes-*/kubernetes"))]
    candidates += [[found] for found in [os.environ.get("KUBECTL") or shutil.which("kubectl")] if found]
    for command in candidates:
        if Path(command[0]).exists() and _knows_kustomize(tuple(command)):
            return command
    pytest.skip("no kubectl with kustomize: `make cluster` builds one")


@cache
def _knows_kustomize(command: tuple[str, ...]) -> bool:
    done = subprocess.run([*command, "kustomize", "--help"], capture_output=True, text=True)
    return done.returncode == 0 and "--load-restrictor" in done.stdout


@cache
def built_text(overlay: str) -> str:
    folder = OVERLAYS / overlay
    done = subprocess.run(
        [*find_kubectl(), "kustomize", "--load-restrictor", "LoadRestrictionsNone", str(folder)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(overlay: str) -> list[Object]:
    return [one for one in yaml.safe_load_all(built_text(overlay)) if one]


def only(objects: list[Object], kind: str, name: str, namespace: str | None = None) -> Object:
    """The one object of this kind and name."""
    found = [
        one
        for one in objects
        if one["kind"] == kind
        and one["metadata"]["name"] == name
        and (namespace is None or one["metadata"].get("namespace") == namespace)
    ]
    assert len(found) == 1, f"{len(found)} objects are {kind} {name}"
    return found[0]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]

"""Whether notebook and cluster speak the same Dask, said in words before it fails in a way nobody understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hub_ext.language import Speaker

__all__ = ["DaskVersionWarning", "versions_differ"]

MUST_AGREE: Final = ("dask", "distributed")


class DaskVersionWarning(UserWarning):
    """Notebook and cluster have different versions of Dask; the text says which, and what to do."""


def versions_differ(found: Mapping[str, Any], say: Speaker) -> str:
    """What to say about the versions that `Client.get_versions` found; "" where they agree.

    Python counts with its minor version: what a notebook pickles, a worker of another one may not read.
    """
    here, there = _parts(found.get("client")), _parts(found.get("scheduler"))
    differing = [
        name
        for name in (*MUST_AGREE, "python")
        if here.get(name) and there.get(name) and here[name] != there[name]
    ]
    if not differing:
        return ""
    notebook = ", ".join(f"{name} {here[name]}" for name in differing)
    cluster = ", ".join(f"{name} {there[name]}" for name in differing)
    told = say(
        "This notebook and its cluster differ: {notebook} here, {cluster} in the cluster. Computations may fail or stop without a clear error.",
        notebook=notebook,
        cluster=cluster,
    )
    wanted = [f"{name}=={there[name]}" for name in MUST_AGREE if name in differing]
    if wanted:
        command = f"%pip install {' '.join(wanted)}"
        cure = say("Install the cluster's versions and restart the kernel: {command}", command=command)
    else:
        cure = say("Use a notebook image with the same Python as the cluster.")
    return f"{told} {cure}"


def _parts(found: object) -> dict[str, str]:
    if not isinstance(found, Mapping):
        return {}
    packages, host = found.get("packages"), found.get("host")
    known = (
        {name: str(version) for name, version in packages.items() if version}
        if isinstance(packages, Mapping)
        else {}
    )
    python = host.get("python") if isinstance(host, Mapping) else None
    if python:
        known["python"] = ".".join(str(python).split(".")[:2])
    return known

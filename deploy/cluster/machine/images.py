"""Images in the cluster's containerd. No registry is asked: what pods are to run is loaded from files."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

from machine.places import CONTAINERD_SOCKET, PAUSE_IMAGE, PROGRAMS, STATE, Problem

# containerd keeps images apart by namespace; the kubelet's are in this one.
NAMESPACE = "k8s.io"


def load(*archives: Path) -> str:
    """Import OCI or docker archives; what containerd said. Raises Problem."""
    said = []
    for archive in archives:
        if not archive.is_file():
            raise Problem(f"There is no file {archive}.")
        said.append(_ctr("images", "import", "--digests=false", str(archive)))
    return "".join(said)


def names() -> list[str]:
    """The images that pods may name. Raises Problem."""
    return sorted(
        name for name in _ctr("images", "list", "--quiet").split() if not name.startswith("sha256:")
    )


def load_pause() -> None:
    """Make and load the image that holds each pod's namespaces, unless it is there."""
    if PAUSE_IMAGE not in names():
        load_program(PAUSE_IMAGE, PROGRAMS / "pause")


def load_program(name: str, program: Path) -> None:
    """Make an image of one static program, which lies at its root, and load it. Raises Problem."""
    if not program.is_file():
        raise Problem(f"There is no file {program}.")
    with tempfile.TemporaryDirectory(dir=STATE) as folder:
        archive = Path(folder) / "image.tar"
        _write_image(archive, _full(name), program)
        load(archive)


def _ctr(*arguments: str) -> str:
    command = [
        str(PROGRAMS / "ctr"),
        "--address",
        str(CONTAINERD_SOCKET),
        "--namespace",
        NAMESPACE,
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Problem(f"containerd refused `{' '.join(arguments)}`: {done.stderr.strip()}")
    return done.stdout


def _full(name: str) -> str:
    """As containerd knows it: with the registry that short names stand for."""
    return name if "." in name.partition("/")[0] else f"docker.io/{name}"


def _write_image(archive: Path, name: str, program: Path) -> None:
    """A docker archive of one static program, which the image's one layer holds."""
    layer = _tar({program.name: (program.read_bytes(), 0o755)})
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535", "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    archive.write_bytes(
        _tar({config_name: (config, 0o644), "layer.tar": (layer, 0o644), "manifest.json": (manifest, 0o644)})
    )


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """The same files give the same bytes: without times and owners."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()

"""Resolves what the images install into their locks, `images/*/requirements.txt`: part of `make lock`.

    images/lock.py                   keep the versions that still fit
    images/lock.py --upgrade         the newest of all
    images/lock.py --check           change nothing; say which lock is not what its sources resolve to

Images are of one platform, and only ready wheels are taken, so that building an image needs no compiler. Nothing is
installed: RAPIDS resolves on a machine without a GPU. Needed: uv, beside the Python that runs this or on the path.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLATFORM = ("--python-version=3.13", "--python-platform=x86_64-manylinux_2_28", "--only-binary=:all:")


@dataclass(frozen=True)
class Lock:
    """What one image installs: where it is asked for, and whose versions it shares."""

    image: str
    sources: tuple[str, ...]
    versions_of: str | None = None

    @property
    def file(self) -> Path:
        return ROOT / "images" / self.image / "requirements.txt"


# In the order of resolving. A notebook image holds what RAPIDS allows, so that a notebook moves between the two
# unchanged.
LOCKS = (
    Lock("hub", ("pyproject.toml", "images/hub/requirements.in"), "requirements/hub.txt"),
    Lock("node", ("images/node/requirements.in",), "requirements/hub.txt"),
    Lock("notebook-rapids", ("images/notebook/requirements.in", "images/notebook-rapids/requirements.in")),
    Lock("notebook", ("images/notebook/requirements.in",), "images/notebook-rapids/requirements.txt"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Resolve what the images install.")
    parser.add_argument("--upgrade", action="store_true", help="the newest versions that fit")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a lock would change")
    asked = parser.parse_args(arguments)
    if asked.check:
        changed = [lock.image for lock in LOCKS if resolved(lock) != lock.file.read_text()]
        for image in changed:
            print(
                f"images/{image}/requirements.txt is not what its sources resolve to; run: make lock",
                file=sys.stderr,
            )
        return 1 if changed else 0
    for lock in LOCKS:
        lock.file.write_text(resolved(lock, upgrade=asked.upgrade))
    return 0


def resolved(lock: Lock, *, upgrade: bool = False) -> str:
    """The lock's text as its sources resolve now: with hashes, without the address that the packages come from.

    Versions that stand in the lock are kept where they still fit. Raises CalledProcessError when nothing fits.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "requirements.txt")
        if lock.file.exists() and not upgrade:
            shutil.copy(lock.file, output)
        subprocess.run(
            [
                *(uv(), "pip", "compile", "--quiet", "--native-tls", *PLATFORM),
                *("--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate"),
                *([f"--constraint={lock.versions_of}"] if lock.versions_of else []),
                *(f"--output-file={output}", *lock.sources),
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return output.read_text()


def uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        sys.exit("images/lock.py: there is no uv; `make lock` brings it")
    return found


if __name__ == "__main__":
    sys.exit(main())

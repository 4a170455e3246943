"""Puts the sample notebooks into a person's home, and newer ones over those the person left as they were.

The rule is one sentence: *a file is ours only while its content is what we last put there*. What is ours stands in
`<home>/.hangang/samples.json`, path below `sample_notebooks/` to sha256. The person's processes may change the home while this
runs, perhaps as root: so every step goes through open folders and never follows a link (`O_NOFOLLOW`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

__all__ = ["copy_samples"]

FOLDER = "sample_notebooks"
STATE_FOLDER = ".hangang"
MANIFEST = "samples.json"
_MANIFEST_LIMIT = 1_000_000  # bytes; ours is a few kB
_NOT_SAMPLES = {"__pycache__"}

_log = logging.getLogger(__name__)


class _Step(Enum):
    """What to do with one sample."""

    WRITE = "write"
    RECORD = "record"
    LEAVE = "leave"


def copy_samples(source: Path, home: Path) -> list[Path]:
    """Copy the samples below `source` to `<home>/sample_notebooks`; return what was written, as paths below `home`.

    - A file the person made or changed stays, also where a newer sample has the same name.
    - An unchanged older sample is replaced by the newer one; a sample the person deleted stays deleted.
    - A link or a file in place of a folder: the samples below it are left out. Where no manifest can be kept nothing is copied.
    - An unreadable manifest counts as empty: what is there stays, and a deleted sample may come back once.

    Raises OSError when `source` or `home` cannot be read or the disk is full; no half file is left then, and what
    was written before stands in the manifest.
    """
    written: list[Path] = []
    with contextlib.ExitStack() as folders:
        # 1. Open the home and the two folders in it, following no link.
        home_fd = folders.enter_context(_closing(os.open(home, os.O_RDONLY | os.O_DIRECTORY)))
        try:
            state_fd = folders.enter_context(_folder(home_fd, STATE_FOLDER))
            samples_fd = folders.enter_context(_folder(home_fd, FOLDER))
        except _NotAFolder as problem:
            _log.warning("no sample notebooks copied to %s: %s is not a folder of its own", home, problem)
            return written
        # 2. Read what is ours.
        manifest = _read_manifest(state_fd)
        # 3. Each sample by itself; what is done is recorded at once.
        for relative in _samples(source):
            content = (source / relative).read_bytes()
            with contextlib.suppress(_NotAFolder), _parent(samples_fd, relative) as parent_fd:
                step = _place(parent_fd, relative.name, content, manifest.get(relative.as_posix()))
                if step is _Step.LEAVE:
                    continue
                if step is _Step.WRITE:
                    written.append(home / FOLDER / relative)
                manifest[relative.as_posix()] = _digest(content)
                _write(
                    state_fd,
                    MANIFEST,
                    json.dumps({"version": 1, "files": manifest}, indent=1, sort_keys=True).encode(),
                )
    return written


def _decide(ours: str | None, there: str | None, sample: str) -> _Step:
    """The rule. `ours`: digest last put there; `there`: digest found ("" for what is no plain file, None for nothing)."""
    if there is None:
        return _Step.LEAVE if ours is not None else _Step.WRITE
    if there == sample:
        return _Step.RECORD if ours != sample else _Step.LEAVE
    return _Step.WRITE if there == ours else _Step.LEAVE


def _place(parent_fd: int, name: str, content: bytes, ours: str | None) -> _Step:
    """Decide and, where it is ours to write, write."""
    step = _decide(ours, _found(parent_fd, name), _digest(content))
    if step is not _Step.WRITE:
        return step
    with _temporary(parent_fd, name, content) as temporary:
        # The person may have saved meanwhile: look again as late as can be.
        if _decide(ours, _found(parent_fd, name), _digest(content)) is not _Step.WRITE:
            return _Step.LEAVE
        os.replace(temporary, name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
    return step


def _samples(source: Path) -> list[Path]:
    """The sample files, relative to `source`; no links, nothing hidden."""
    found: list[Path] = []
    for folder, folders, files in os.walk(source, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _NOT_SAMPLES)
        for name in files:
            path = Path(folder, name)
            if not name.startswith(".") and stat.S_ISREG(path.lstat().st_mode):
                found.append(path.relative_to(source))
    return sorted(found)


def _raise(problem: OSError) -> None:
    raise problem


class _NotAFolder(Exception):
    """A link or a file stands where a folder should be; the text is its name."""


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _folder(parent_fd: int, name: str) -> Iterator[int]:
    """The folder `name` in an open folder, made where it is missing."""
    made = False
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent_fd)
        made = True
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
    except OSError as problem:
        if problem.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _NotAFolder(name) from None
        raise
    with _closing(descriptor):
        if made:
            _give_to_owner(parent_fd, descriptor)
        yield descriptor


@contextmanager
def _parent(samples_fd: int, relative: Path) -> Iterator[int]:
    """The folder that the sample lies in."""
    with contextlib.ExitStack() as folders:
        descriptor = samples_fd
        for name in relative.parts[:-1]:
            descriptor = folders.enter_context(_folder(descriptor, name))
        yield descriptor


def _give_to_owner(parent_fd: int, descriptor: int) -> None:
    """What root makes in a person's home belongs to the person, as the folder around it does."""
    if os.geteuid() == 0:
        parent = os.fstat(parent_fd)
        os.fchown(descriptor, parent.st_uid, parent.st_gid)


def _open_plain(folder_fd: int, name: str) -> int | None:
    """The plain file, opened to read; None for a link, folder, pipe or socket. FileNotFoundError when nothing is there."""
    try:
        # O_NONBLOCK: opening a pipe would wait for its writer.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder_fd)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _found(folder_fd: int, name: str) -> str | None:
    try:
        descriptor = _open_plain(folder_fd, name)
    except FileNotFoundError:
        return None
    if descriptor is None:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_manifest(state_fd: int) -> dict[str, str]:
    """What is ours; empty when there is none or it cannot be read."""
    try:
        descriptor = _open_plain(state_fd, MANIFEST)
        if descriptor is None:
            return {}
        with os.fdopen(descriptor, "rb") as file:
            files = json.loads(file.read(_MANIFEST_LIMIT))["files"]
        return {path: digest for path, digest in files.items() if isinstance(digest, str)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        _log.warning("the list of copied sample notebooks cannot be read and is started anew: %s", problem)
        return {}


def _write(folder_fd: int, name: str, content: bytes) -> None:
    """The whole content under `name`, or nothing of it."""
    with _temporary(folder_fd, name, content) as temporary:
        os.replace(temporary, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)


@contextmanager
def _temporary(folder_fd: int, name: str, content: bytes) -> Iterator[str]:
    """A hidden file with the content beside `name`; gone afterwards unless it was moved."""
    temporary = f".{name[:100]}.{secrets.token_hex(6)}.part"
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder_fd
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            _give_to_owner(folder_fd, file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder_fd)

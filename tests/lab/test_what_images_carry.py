"""The images carry a part of the package: the extension runs on that part alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTAINERFILE = (ROOT / "images/notebook/Containerfile").read_text()
PROGRAM = """
import hub_ext, pathlib
from hub_ext.language import translator
from hub_ext.notebook.lab import server
from hub_ext.notebook.lab.policy import view
from hub_ext.notebook.lab.model import Lease
assert pathlib.Path(hub_ext.__file__).is_relative_to(pathlib.Path.cwd()), hub_ext.__file__
shown = view(Lease("l1", 600, "09:10"), 0, 0, away=False, links=(), say=translator("ko"))
print(shown.sentence)
"""


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    for source in re.findall(r"^COPY (hub_ext\S*) ", CONTAINERFILE, re.MULTILINE):
        target = tmp_path / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    return tmp_path


def test_the_extension_runs_on_what_the_image_carries(carried: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=carried,
        env={"PYTHONPATH": str(carried), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "저장해 주세요" in done.stdout


def test_clusters_are_started_from_what_the_image_carries(carried: Path) -> None:
    program = """
import hub_ext, pathlib
from hub_ext.notebook import clusters, scheduler_preload
from hub_ext.notebook.clusters import labextension, widgets
assert pathlib.Path(hub_ext.__file__).is_relative_to(pathlib.Path.cwd()), hub_ext.__file__
panel = clusters.panel(language="ko")
print(panel._start.description)
panel.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=carried,
        env={"PYTHONPATH": str(carried), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "시작" in done.stdout
    folder = re.findall(r"DASK_ROOT_CONFIG=\S*/site-packages/(\S+)", CONTAINERFILE)[0]
    assert "hub_ext.notebook.clusters" in (carried / folder / "hangang.yaml").read_text()


def test_jupyter_finds_it_there(carried: Path) -> None:
    paths = dict(re.findall(r"(JUPYTER_\w*PATH)=\S*/site-packages/(\S+)", CONTAINERFILE))
    config = json.loads(
        (carried / paths["JUPYTER_CONFIG_PATH"] / "jupyter_server_config.d/hangang.json").read_text()
    )
    assert config["ServerApp"]["jpserver_extensions"] == {"hub_ext.notebook.lab": True}
    extension = carried / paths["JUPYTER_PATH"] / "labextensions/hangang-lease"
    package = json.loads((extension / "package.json").read_text())
    assert (extension / package["jupyterlab"]["_build"]["load"]).is_file()

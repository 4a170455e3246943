"""`hub-ext check` and the clusters on offer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.state import ROOT, Files, example_files

PLACE = "clusters"


@pytest.fixture
def offering(tmp_path: Path) -> Path:
    """The folder of clusters of the hub that `run` asks."""
    example_files(tmp_path, cluster_profiles=PLACE)
    folder = tmp_path / PLACE
    shutil.copytree(ROOT / "cluster_profiles", folder)
    return folder


def test_check_shows_what_each_worker_and_scheduler_counts(offering: Path, run: Run) -> None:
    said = run("check").output
    assert "6 profiles, 3 cluster profiles, 5 people." in said
    rows = [" ".join(line.split()) for line in said.splitlines()]
    assert "slice cpu=4 h200-1g=1 memory=32Gi 30Gi cpu=1 memory=4Gi 8 workers" in rows
    assert "cpu cpu=2 memory=8Gi 7680Mi cpu=1 memory=2Gi 16 workers" in rows


def test_check_tells_the_faults_of_clusters_beside_all_others(offering: Path, run: Run) -> None:
    faulty = offering / "gpu.yaml"
    faulty.write_text(faulty.read_text().replace("gpu.h200: 1", "gpu.h200: 4"))
    (offering / "images.yaml").write_text("rapids: {title: {en: R}, image: 'rapids:latest'}\n")
    (offering.parent / "profiles" / "h200.yaml").write_text("title: {en: T}\n")
    told = run("check", code=1).stderr
    assert "gpu.yaml:7: worker.gpu.h200: a worker is one process with one device. Write 1" in told
    assert "images.yaml:1: rapids.image: the image is not the same tomorrow" in told
    assert "h200.yaml:1: description is missing" in told


def test_a_faulty_image_list_alone_is_told(offering: Path, run: Run) -> None:
    (offering / "images.yaml").write_text("[")
    assert "images.yaml:1: this is not YAML" in run("check", code=1).stderr


def test_without_clusters_check_says_nothing_of_them(example: Files, run: Run) -> None:
    assert "cluster" not in run("check").output

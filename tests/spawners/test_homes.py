"""Where homes lie, and what a local server's environment says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from hub_ext.spawners.local import GatedLocalSpawner

HOMES = {
    "a plain name": ("student", "student"),
    "a name with a slash stays one folder": ("a/b", "a%2Fb"),
    "a name that climbs does not": ("../etc", "%2E.%2Fetc"),
    "the folder itself is nobody's": (".", "%2E"),
    "the folder above is nobody's": ("..", "%2E."),
    "a Korean name": ("한강", "%ED%95%9C%EA%B0%95"),
}


@pytest.mark.parametrize(("name", "folder"), HOMES.values(), ids=HOMES.keys())
def test_every_home_lies_in_the_folder_of_homes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, folder: str
) -> None:
    monkeypatch.setattr(GatedLocalSpawner, "homes", tmp_path)
    spawner = GatedLocalSpawner()
    spawner.user = SimpleNamespace(name=name, url="/user", escaped_name="user")
    assert Path(spawner.home_dir) == tmp_path / folder

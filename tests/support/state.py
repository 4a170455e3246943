"""The files of a hub of a test's own: settings, documents and a state folder, nothing of which runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hub_ext.db.upgrade import upgrade
from hub_ext.factory import Factory
from hub_ext.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]

IDENTITY = """
people:
  student: {pools: [univ], roles: [student]}
  lead: {pools: [univ, lab], roles: [lead]}
"""
PROFILE = """
title: {en: One GPU, ko: GPU 하나}
description: {en: A whole GPU., ko: GPU 하나입니다.}
resources: {gpu.h200: 1, cpu: 8, memory: 64Gi}
minutes: {choices: [60, 120], default: 60}
"""


@dataclass
class Files:
    """`hub.yaml` and what it names, in one folder."""

    folder: Path

    @property
    def settings_file(self) -> Path:
        return self.folder / "hub.yaml"

    @property
    def policy(self) -> Path:
        return self.folder / "pools.yaml"

    @property
    def identity(self) -> Path:
        return self.folder / "identity.yaml"

    @property
    def profiles(self) -> Path:
        return self.folder / "profiles"

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to find them."""
        return {"HUB_SETTINGS": str(self.settings_file)}

    def settings(self) -> Settings:
        return load_settings(self.settings_file, {})

    def upgraded(self) -> Factory:
        """The database made, the documents in force."""
        factory = Factory(self.settings())
        factory.settings.state_dir.mkdir(parents=True, exist_ok=True)
        (factory.settings.state_dir / "ledger.sqlite").write_bytes(_empty_ledger())
        factory.put_in_force(factory.documents, who="test")
        return factory


@cache
def _empty_ledger() -> bytes:
    """What `hub-ext db upgrade` makes, made once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        upgrade(f"sqlite:///{path}")
        return path.read_bytes()


def new_files(folder: Path, policy: str, *, identity: str = IDENTITY, **settings: Any) -> Files:
    """A hub of the folder with a centre of its own."""
    files = Files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.policy.write_text(policy)
    files.identity.write_text(identity)
    files.profiles.mkdir()
    (files.profiles / "gpu.yaml").write_text(PROFILE)
    _write(files, {"policy": "pools.yaml", "identity": "identity.yaml", "profiles": "profiles"} | settings)
    return files


def example_files(folder: Path, **settings: Any) -> Files:
    """A hub with the documents that come with the project, which a test may change."""
    files = Files(folder)
    for name in ("pools.yaml", "identity.yaml"):
        shutil.copyfile(ROOT / "policy" / name, folder / name)
    shutil.copytree(ROOT / "spawner_profiles", files.profiles)
    example = yaml.safe_load((ROOT / "hub.yaml").read_text())
    _write(
        files,
        example | {"policy": "pools.yaml", "identity": "identity.yaml", "profiles": "profiles"} | settings,
    )
    return files


def _write(files: Files, settings: Mapping[str, Any]) -> None:
    files.settings_file.write_text(yaml.safe_dump({"state": "state", **settings}, sort_keys=False))

"""Typed settings: one file (`hub.yaml`), overridden by the environment (`HUB_PORT`, `HUB_STATE`, …).

Paths are relative to the folder of the settings file. Secrets and chosen ports live under the state folder, so that
two hubs can run side by side and a restart finds what it left.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hub_ext.core.errors import BadInput, FaultyDocument
from hub_ext.documents import Document, read_document, validate

SETTINGS_FILE = "hub.yaml"
LEAST_PASSWORD = 8
FROM_ENVIRONMENT = ("port", "state", "database_url", "demo_password", "log_level")


class Settings(BaseModel):
    """Everything that can be set. Environment variables are `HUB_` and the name in capitals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path = Path()
    """The folder of the settings file; the paths below are relative to it."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    state: Path = Path(".hub")
    database_url: str | None = None
    """Where the ledger lives; by default SQLite under `state`."""
    policy: Path = Path("policy/pools.yaml")
    identity: Path = Path("policy/identity.yaml")
    profiles: Path = Path("spawner_profiles")
    sample_notebooks: Path = Path("sample_notebooks")
    data: Path | None = None
    """A folder of city data for the sample notebooks; servers see it as HANGANG_DATA."""
    demo_password: str | None = None
    """Of the demo people; by default one is made up, kept under `state` and shown at the start."""
    simulated_gpus: dict[str, Annotated[int, Field(ge=0, le=1024)]] = Field(default_factory=dict)
    """GPUs to pretend beside what this machine has, by class: `{h200: 2}`."""
    simulated_node: dict[str, int | float | str] | None = None
    """Replaces this machine's sizes for all decisions: `{gpu.h200: 8, cpu: 128, memory: 2Ti}`."""
    log_level: str = "INFO"

    @property
    def state_dir(self) -> Path:
        return (self.root / self.state).absolute()

    @property
    def policy_file(self) -> Path:
        return self.root / self.policy

    @property
    def identity_file(self) -> Path:
        return self.root / self.identity

    @property
    def profiles_dir(self) -> Path:
        return self.root / self.profiles

    @property
    def samples_dir(self) -> Path:
        return (self.root / self.sample_notebooks).absolute()

    @property
    def homes_dir(self) -> Path:
        return self.state_dir / "homes"

    @property
    def ledger_url(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir / 'ledger.sqlite'}"

    @property
    def simulated(self) -> bool:
        return self.simulated_node is not None or any(self.simulated_gpus.values())


def load_settings(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in force. Raises FaultyDocument for a fault in the file, BadInput for one in the environment."""
    named = file or (Path(environment["HUB_SETTINGS"]) if environment.get("HUB_SETTINGS") else None)
    path = named or Path(SETTINGS_FILE)
    # The default file may be missing; one that somebody named may not.
    document = read_document(path) if named or path.exists() else Document(str(path), {})
    values = _values(document)
    for name in FROM_ENVIRONMENT:
        given = environment.get(f"HUB_{name.upper()}")
        if given:
            values[name] = given
    if environment.get("HANGANG_DATA"):
        values["data"] = str(Path(environment["HANGANG_DATA"]).absolute())
    try:
        return Settings.model_validate({**values, "root": path.parent.absolute()})
    except ValidationError as error:
        # Not the value: it may be a password.
        told = "; ".join(f"HUB_{str(one['loc'][0]).upper()}: {one['msg']}" for one in error.errors())
        raise BadInput(f"The environment cannot be used as it is. {told}.") from error


def _values(document: Document) -> dict[str, Any]:
    """What the file says. Raises FaultyDocument with the line of every fault."""
    values = {} if document.data is None else document.data
    settings = validate(Settings, Document(document.file, values, document.lines))
    if "root" in settings.model_fields_set:
        raise FaultyDocument(
            [document.fault(("root",), "root is always the folder of this file", "Remove it.")]
        )
    return dict(values)


@dataclass(frozen=True)
class Secrets:
    """Made once and kept in the state folder, readable by its owner only."""

    cookie_secret: bytes
    proxy_token: str
    clock_token: str
    desk_token: str
    demo_password: str
    hub_port: int
    proxy_api_port: int


def load_secrets(settings: Settings) -> Secrets:
    """The state folder's secrets; those that are missing are made. Safe when two processes come at once."""
    folder = settings.state_dir
    path = folder / "secrets.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if not path.exists():
            _make_secrets(path)
    except OSError as error:
        raise BadInput(
            f"The state folder {folder} cannot be used ({error.strerror}); give HUB_STATE one that you may write to"
        ) from error
    try:
        kept = _secrets_of(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} cannot be read; move it away and a new one is made (everybody signs in again)"
        ) from error
    password = settings.demo_password or kept.demo_password
    if len(password) < LEAST_PASSWORD:
        raise BadInput(
            f"The demo password is too short: give HUB_DEMO_PASSWORD at least {LEAST_PASSWORD} characters."
        )
    return replace(kept, demo_password=password)


def _make_secrets(path: Path) -> None:
    """Written whole under another name first: nobody ever reads half of it."""
    descriptor, made = tempfile.mkstemp(prefix=".secrets.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(_new_secrets(), file)
        with suppress(FileExistsError):  # another process was first: its secrets count
            os.link(made, path)
    finally:
        Path(made).unlink()


def _secrets_of(kept: dict[str, Any]) -> Secrets:
    """Raises for anything that `_new_secrets` would not make."""
    if not all(isinstance(value, int if name.endswith("_port") else str) for name, value in kept.items()):
        raise TypeError("a number where a text was, or the other way round")
    return Secrets(**{**kept, "cookie_secret": bytes.fromhex(kept["cookie_secret"])})


def _new_secrets() -> dict[str, Any]:
    first, second = _free_ports(2)
    return {
        "cookie_secret": secrets.token_hex(32),
        "proxy_token": secrets.token_hex(32),
        "clock_token": secrets.token_hex(32),
        "desk_token": secrets.token_hex(32),
        "demo_password": secrets.token_urlsafe(9),
        "hub_port": first,
        "proxy_api_port": second,
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()

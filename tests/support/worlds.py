"""Worlds and hubs to reconcile with, named by how they fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hub_ext.core.errors import HubError
from hub_ext.quota.ports import Running


@dataclass
class ObedientWorld:
    """Ends what it is told to end, with everything of that lease."""

    processes: list[Running] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """The handles it was told to end."""

    def running(self) -> list[Running]:
        return list(self.processes)

    def stop(self, running: Running) -> None:
        self.told.append(running.handle)
        self.processes = [one for one in self.processes if one.lease != running.lease]


class WorldThatEndsNothing(ObedientWorld):
    """Processes that ignore every signal."""

    def stop(self, running: Running) -> None:
        self.told.append(running.handle)


class WorldUnseen(ObedientWorld):
    """Looking at it fails."""

    def running(self) -> list[Running]:
        raise HubError("the world cannot be seen")


@dataclass
class AnsweringHub:
    """(person, server) of every server, with what is pending on it."""

    servers: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def active(self) -> dict[tuple[str, str], str | None]:
        return dict(self.servers)

    def stop(self, person: str, server: str) -> bool:
        return self.servers.pop((person, server), "none") != "none"

    def start(self, person: str, server: str, options: Mapping[str, Any] | None = None) -> None:
        self.servers[person, server] = "spawn"


class SilentHub(AnsweringHub):
    """Does not answer."""

    def active(self) -> dict[tuple[str, str], str | None]:
        raise HubError("the hub does not answer")

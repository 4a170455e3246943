"""One spawner as a hub makes it, of a real configuration, ledger and JupyterHub database, without the hub around it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyterhub import orm
from jupyterhub.objects import Hub
from jupyterhub.user import User
from jupyterhub.utils import maybe_future
from traitlets.config import Config

from hub_ext.bootstrap import extend
from hub_ext.core.people import Person
from hub_ext.db.upgrade import upgrade
from hub_ext.quota.model import Lease
from hub_ext.settings import Settings
from hub_ext.spawners.kube import GatedKubeSpawner
from tests.support.hub import ROOT


@dataclass
class Site:
    """A site's settings and configuration; `spawner` makes what its hub would have for one server."""

    settings: Settings
    config: Config = field(default_factory=Config)
    hub: Hub = field(default_factory=lambda: Hub(ip="127.0.0.1", port=8081))
    db: Any = field(default_factory=lambda: orm.new_session_factory("sqlite:///:memory:")())

    def spawner(self, person: str, server: str = "", **options: str) -> GatedKubeSpawner:
        user = orm.User.find(self.db, person) or orm.User(name=person)
        self.db.add(user)
        self.db.add(orm.Spawner(name=server, user=user))
        self.db.commit()
        made = User(user, {"spawner_class": GatedKubeSpawner, "config": self.config, "hub": self.hub})
        spawner: GatedKubeSpawner = made.spawners[server]
        spawner.api_token, spawner.user_options = "token", options
        return spawner

    def person(self, name: str, *pools: str, roles: tuple[str, ...] = ("researcher",)) -> None:
        assert GatedKubeSpawner.gate is not None
        GatedKubeSpawner.gate.admission.put_person(Person(name, pools, frozenset(roles)))

    def lease(self, lease_id: str) -> Lease:
        assert GatedKubeSpawner.gate is not None
        with GatedKubeSpawner.gate.admission.store.reading() as txn:
            found = txn.lease(lease_id)
        assert found is not None
        return found


@contextmanager
def a_site(
    folder: Path, kubernetes: Mapping[str, Any], *, authenticator: Any = None, **settings: Any
) -> Iterator[Site]:
    """As `hub_ext.bootstrap.extend` sets it up, with the project's documents; nothing of it is left afterwards.

    `authenticator`: the site's own, as its configuration names it.
    """
    (folder / "state").mkdir(exist_ok=True)
    given = Settings(
        root=ROOT,
        run_on="kubernetes",
        state=folder / "state",
        kubernetes=dict(kubernetes),
        **settings,
    )
    upgrade(given.ledger_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GatedKubeSpawner, "gate", None)
        site = Site(given)
        if authenticator is not None:
            site.config.JupyterHub.authenticator_class = authenticator
        extend(site.config, given)
        yield site


async def start(spawner: GatedKubeSpawner) -> str:
    """As JupyterHub does it; where it fails, what JupyterHub does then was done before the error comes out."""
    spawner.clear_state()
    spawner._spawn_future = asyncio.ensure_future(maybe_future(spawner.start()))
    try:
        return str(await spawner._spawn_future)
    except Exception:
        # From `User.spawn`: `User.stop`, with the future of the start not yet done.
        spawner._spawn_future = asyncio.get_running_loop().create_future()
        await stop(spawner)
        raise
    finally:
        spawner._spawn_future = None


async def stop(spawner: GatedKubeSpawner) -> None:
    """From `User.stop`."""
    if await spawner.poll() is None:
        await spawner.stop()
    await spawner.run_post_stop_hook()
    spawner.clear_state()

"""The handlers that decide a start before it is prepared: where they stand, also beside a site's own sign-in."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyterhub.app import JupyterHub
from jupyterhub.auth import Authenticator, DummyAuthenticator
from jupyterhub.handlers.pages import HomeHandler
from jupyterhub.spawner import SpawnException
from traitlets import List, Unicode
from traitlets.config import Config

from hub_ext.core.errors import StoreUnavailable
from hub_ext.desk.clockwork import Clockwork
from hub_ext.quota.model import LeaseState
from hub_ext.spawners import gate
from hub_ext.spawners.handlers import DecidingServerAPIHandler, DecidingSpawnHandler, deciding_first
from hub_ext.spawners.kube import GatedKubeSpawner
from tests.support.fakes import ObedientHub, ObedientWorld
from tests.support.pod_spawners import Site, a_site


class SitesSignIn(Authenticator):  # type: ignore[misc]  # jupyterhub has no types
    """As a site has its own."""

    scope = List(Unicode(), ["openid"]).tag(config=True)

    def get_handlers(self, app: Any) -> list[tuple[str, type[Any]]]:
        return [("/sites-own", HomeHandler)]


def handler_of(app: JupyterHub, path: str) -> type[Any]:
    """Whom a request comes to: the first that matches."""
    found: type[Any] = next(route[1] for route in app.handlers if re.fullmatch(route[0], path))
    return found


def hub_with(authenticator: type[Authenticator]) -> JupyterHub:
    app = JupyterHub()
    app.authenticator = authenticator()
    app.init_handlers()
    return app


@pytest.mark.parametrize("sign_in", [SitesSignIn, DummyAuthenticator])
def test_every_start_comes_to_us_and_all_else_to_whom_it_came(sign_in: type[Authenticator]) -> None:
    ours, plain = hub_with(deciding_first(sign_in)), hub_with(sign_in)
    starts = ["/hub/spawn", "/hub/spawn/kim", "/hub/spawn/kim/second"]
    servers = ["/hub/api/users/kim/server", "/hub/api/users/kim/servers/second"]
    assert {handler_of(ours, path) for path in starts} == {DecidingSpawnHandler}
    assert {handler_of(ours, path) for path in servers} == {DecidingServerAPIHandler}
    others = [
        "/hub/spawn-pending/kim",
        "/hub/home",
        "/hub/api/users/kim",
        "/hub/api/users/kim/server/progress",
    ]
    for path in [*others, *(["/hub/sites-own"] if sign_in is SitesSignIn else [])]:
        assert handler_of(ours, path) is handler_of(plain, path)


def test_a_sites_configuration_of_its_sign_in_holds_on() -> None:
    c = Config()
    c.SitesSignIn.scope.append("groups")
    c.Authenticator.admin_users = {"kim"}
    made = deciding_first(SitesSignIn)(config=c)
    assert made.scope == ["openid", "groups"]
    assert made.admin_users == {"kim"}
    assert isinstance(made, SitesSignIn)


@pytest.mark.parametrize("named", ["dummy", "jupyterhub.auth.DummyAuthenticator", DummyAuthenticator])
def test_a_site_may_name_its_sign_in_in_every_way_that_jupyterhub_knows(tmp_path: Path, named: Any) -> None:
    with a_site(tmp_path, {}, authenticator=named) as site:
        assert issubclass(site.config.JupyterHub.authenticator_class, DummyAuthenticator)
        assert site.config.JupyterHub.authenticator_class is not DummyAuthenticator


@pytest.mark.parametrize("named", ["no-such-sign-in", None])
def test_a_sign_in_that_is_not_there_is_left_as_it_is(tmp_path: Path, named: str | None) -> None:
    with a_site(tmp_path, {}, authenticator=named) as site:
        assert site.config.JupyterHub.get("authenticator_class") == named


# -- what is decided before a start ------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **options: None)
    with a_site(tmp_path, {}) as one:
        one.person("student", "hangang-univ", roles=("student",))
        yield one


SLICE = {"profile": "h200-slice", "minutes": "60"}


def live(site: Site) -> list[Any]:
    assert GatedKubeSpawner.gate is not None
    with GatedKubeSpawner.gate.admission.store.reading() as txn:
        return txn.live_leases()


def decisions(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fills with whom the quota is asked for."""
    assert GatedKubeSpawner.gate is not None
    admission, asked = GatedKubeSpawner.gate.admission, []
    admit = admission.admit_now

    def listening(person: Any, ask: Any, options: Any = None) -> Any:
        asked.append(person.name)
        return admit(person, ask, options)

    monkeypatch.setattr(admission, "admit_now", listening)
    return asked


async def test_a_start_takes_what_was_decided_before_it_and_asks_nobody_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = decisions(site, monkeypatch)
    spawner = site.spawner("student")
    await spawner.decide_first(SLICE)
    lease_id = spawner.lease_id
    assert spawner.orm_spawner.user_options == SLICE
    await spawner.load_user_options()
    assert (spawner.lease_id, asked) == (lease_id, ["student"])
    assert spawner.lease is not None
    assert spawner.policy is not None
    assert [lease.id for lease in live(site)] == [lease_id]
    # Once: the next start is decided anew.
    await spawner.load_user_options()
    assert asked == ["student", "student"]


@pytest.mark.parametrize("what", ["other options", "a lease that is over"])
async def test_the_gate_of_a_start_decides_anew_where_something_changed_meanwhile(
    site: Site, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    spawner = site.spawner("student")
    await spawner.decide_first(SLICE)
    before = spawner.lease_id
    if what == "other options":
        spawner.user_options = {"profile": "cpu-small", "minutes": "60"}  # a site's hook
    else:
        await spawner._gate().admission.release(before)
    await spawner.load_user_options()
    (lease,) = live(site)
    assert lease.id == spawner.lease_id != before
    assert lease.profile == ("cpu-small" if what == "other options" else "h200-slice")


async def test_a_start_that_fails_before_it_begins_gives_its_lease_back(site: Site) -> None:
    spawner = site.spawner("student")
    await spawner.decide_first(SLICE)
    lease_id = spawner.lease_id
    await spawner.give_back_unused()
    assert (site.lease(lease_id).state, site.lease(lease_id).reason) == (LeaseState.RELEASED, "start-failed")
    assert (spawner.lease_id, spawner.orm_spawner.server, spawner.orm_spawner.started) == ("", None, None)


async def test_it_is_given_back_once_the_records_are_there_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawner = site.spawner("student")
    await spawner.decide_first(SLICE)
    lease_id, admission = spawner.lease_id, spawner._gate().admission
    release, away = admission.release_now, 2

    def release_later(*args: Any, **kwargs: Any) -> Any:
        nonlocal away
        away -= 1
        if away >= 0:
            raise StoreUnavailable("The database is away. Nothing was booked. Try again.")
        return release(*args, **kwargs)

    monkeypatch.setattr(admission, "release_now", release_later)
    monkeypatch.setattr(gate, "AGAIN_SECONDS", 0.001)
    await spawner.give_back_unused()
    await asyncio.gather(*gate._LATER)
    assert away < 0
    assert site.lease(lease_id).reason == "start-failed"


async def test_what_a_start_took_is_not_given_back_as_unused(site: Site) -> None:
    spawner = site.spawner("student")
    await spawner.decide_first(SLICE)
    await spawner.load_user_options()
    await spawner.give_back_unused()
    assert [lease.id for lease in live(site)] == [spawner.lease_id]


async def test_who_is_turned_away_leaves_no_trace_but_what_was_chosen(site: Site) -> None:
    spawner = site.spawner("student")
    with pytest.raises(SpawnException) as refused:
        await spawner.decide_first({"profile": "h200-4"})
    assert refused.value.status_code == 403
    row = spawner.orm_spawner
    assert (row.server, row.started, row.user_options) == (None, None, {"profile": "h200-4"})
    assert live(site) == []


async def test_a_lease_whose_hub_was_killed_before_it_began_the_start_is_started_by_the_clock(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawner = site.spawner("student")
    await spawner.decide_first(SLICE)
    world = ObedientWorld()
    hub = ObedientHub(world)
    admission = spawner._gate().admission
    clock = Clockwork(admission, world, hub, starts_seconds=None)
    monkeypatch.setattr("hub_ext.desk.reconciling.START_AGAIN_AFTER", 0)
    await admission.in_thread(clock.tick)
    assert hub.started == [("student", "")]
    assert hub.options[0]["profile"] == "h200-slice"


async def test_what_a_hub_was_asked_before_it_was_killed_is_seen_by_the_next_one(site: Site) -> None:
    before = site.spawner("student")
    before._write_down_what_is_asked(SLICE)
    # As JupyterHub makes it after a restart, for every row with a server.
    assert before.orm_spawner.server is not None
    spawner = type(before)(
        user=before.user, orm_spawner=before.orm_spawner, hub=before.hub, config=site.config
    )
    spawner.user_options = before.orm_spawner.user_options
    spawner._check_pending = True
    assert spawner._asked_before_the_restart()
    # Checked, and told to end: `User.stop` asks once more whether it runs.
    spawner._undecided |= spawner._asked_before_the_restart()
    spawner._check_pending = False
    spawner._undecided |= spawner._asked_before_the_restart()
    await spawner.run_post_stop_hook()
    (lease,) = live(site)
    assert (lease.person, lease.profile, lease.state) == ("student", "h200-slice", LeaseState.BOOKED)

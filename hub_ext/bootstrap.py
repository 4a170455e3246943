"""The only writer of traitlets: turns the settings into JupyterHub's configuration."""

from __future__ import annotations

import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hub_ext import notebook
from hub_ext.auth.authenticator import DemoAuthenticator
from hub_ext.core.errors import HubError
from hub_ext.core.people import Person
from hub_ext.factory import Documents, Factory
from hub_ext.notebook.samples import copy_samples
from hub_ext.pages import (
    DemoPerson,
    PageSettings,
    PersonLine,
    content_security_policy,
    extra_handlers,
    template_paths,
    template_vars,
)
from hub_ext.pages.words import PageWords
from hub_ext.settings import Settings
from hub_ext.spawners.gate import Gate
from hub_ext.spawners.local import GatedLocalSpawner

START_SECONDS = 60
POLL_SECONDS = 5
ROUTES_SECONDS = 5


def configure(c: Any, settings: Settings) -> None:
    """Configure an embedded hub. Ends the process with one sentence where the settings or documents have a fault."""
    _needs_jupyterhub_6()
    factory = Factory(settings)
    try:
        documents = factory.documents
        factory.put_in_force(documents, who="hub")
        secrets = factory.secrets
        simulated = factory.node(documents.policy).simulated
    except HubError as error:
        sys.exit(f"The hub does not start.\n{error}")
    _hub(c, settings, factory)
    _spawner(c, settings, factory, simulated=simulated)
    _sign_in(c, factory)
    c.JupyterHub.template_paths = template_paths()
    c.JupyterHub.template_vars = template_vars(_page_settings(documents, simulated=simulated))
    c.JupyterHub.tornado_settings = {"headers": {"Content-Security-Policy": content_security_policy()}}
    c.JupyterHub.extra_handlers = extra_handlers()
    c.DemoAuthenticator.password = secrets.demo_password


def _hub(c: Any, settings: Settings, factory: Factory) -> None:
    secrets = factory.secrets
    hub = c.JupyterHub
    # Loopback only: nothing separates the people of an embedded hub from one another.
    hub.bind_url = f"http://127.0.0.1:{settings.port}"
    hub.hub_bind_url = f"http://127.0.0.1:{secrets.hub_port}"
    hub.db_url = f"sqlite:///{settings.state_dir / 'jupyterhub.sqlite'}"
    hub.cookie_secret = secrets.cookie_secret
    hub.log_level = settings.log_level
    # Hub, proxy and clock are siblings: each may be restarted alone, and servers outlive them all.
    hub.cleanup_servers = False
    hub.cleanup_proxy = False
    c.ConfigurableHTTPProxy.should_start = False
    # How soon a proxy that was started again knows the running servers.
    hub.last_activity_interval = ROUTES_SECONDS
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{secrets.proxy_api_port}"
    c.ConfigurableHTTPProxy.auth_token = secrets.proxy_token
    # Ours is `starts-busy`, which says why and when; the hub's 429 would come before any gate.
    hub.concurrent_spawn_limit = 0
    hub.active_server_limit = 0
    hub.allow_named_servers = True
    hub.services = [
        {"name": "clock", "api_token": secrets.clock_token},
    ]
    hub.load_roles = [
        {
            "name": "clock",
            "description": "Sees which servers are active, and stops those that are over",
            "services": ["clock"],
            "scopes": ["list:users", "read:servers", "delete:servers"],
        },
    ]


def _spawner(c: Any, settings: Settings, factory: Factory, *, simulated: bool) -> None:
    words = PageWords(factory.profiles, limits_enforced=factory.limits.applied)
    GatedLocalSpawner.gate = Gate(factory.admission, factory.profiles, words)
    GatedLocalSpawner.world = factory.world
    GatedLocalSpawner.limits = factory.limits
    GatedLocalSpawner.homes = settings.homes_dir
    if settings.samples_dir.is_dir():
        GatedLocalSpawner.furnish = partial(copy_samples, settings.samples_dir)
    GatedLocalSpawner.shared_environment = _shared_environment(settings, simulated=simulated)
    c.JupyterHub.spawner_class = GatedLocalSpawner
    c.Spawner.cmd = [str(Path(sys.executable).parent / "jupyterhub-singleuser")]
    c.Spawner.default_url = "/lab"
    c.Spawner.start_timeout = START_SECONDS
    c.Spawner.http_timeout = START_SECONDS
    c.Spawner.poll_interval = POLL_SECONDS
    # Every foreseen refusal is a SpawnException, which does not count; five real failures in a row still end the hub.
    c.LocalProcessSpawner.interrupt_timeout = 10
    c.LocalProcessSpawner.term_timeout = 5


def _page_settings(documents: Documents, *, simulated: bool) -> PageSettings:
    lines = {name: _person_line(documents, name) for name in documents.identity.people}
    return PageSettings(
        simulated=simulated,
        embedded=True,
        demo_people=[DemoPerson(name, line) for name, line in lines.items()],
        person_line=lines.get,
        server_line=lambda spawner, language: PageWords.server_line(spawner, language, documents.policy),
    )


def _person_line(documents: Documents, name: str) -> PersonLine:
    entry, policy = documents.identity.people[name], documents.policy
    path = policy.path(entry.pools[0])
    by_kind = {policy.pools[pool].kind: policy.pools[pool].title for pool in reversed(path)}
    institution = by_kind.get("institution") or policy.pools[path[0]].title
    return PersonLine(entry.title, institution, by_kind.get("sector", {}))


def _shared_environment(settings: Settings, *, simulated: bool) -> dict[str, str]:
    # JupyterLab asks nobody outside for news or updates.
    environment = {"JUPYTER_CONFIG_PATH": str(Path(notebook.__file__).parent / "config")}
    if settings.data is not None:
        environment["HANGANG_DATA"] = str((settings.root / settings.data).absolute())
    if simulated:
        environment["HANGANG_GPUS"] = "simulated"
    return environment


def _sign_in(c: Any, factory: Factory) -> None:
    async def write_down(person: Person) -> None:
        await factory.admission.in_thread(factory.admission.put_person, person)

    c.JupyterHub.authenticator_class = DemoAuthenticator
    c.DemoAuthenticator.identity = factory.documents.identity
    c.DemoAuthenticator.on_sign_in = write_down


def _needs_jupyterhub_6() -> None:
    found = version("jupyterhub")
    if int(found.partition(".")[0]) < 6:
        sys.exit(
            f"hub_ext needs JupyterHub 6 or newer, and this is {found}: refusals would count as failures there."
        )

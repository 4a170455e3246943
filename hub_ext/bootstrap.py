"""The only writer of traitlets: turns the settings into JupyterHub's configuration."""

from __future__ import annotations

import hmac
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from jupyterhub.app import JupyterHub
from traitlets import TraitError

from hub_ext import notebook
from hub_ext.auth.authenticator import DemoAuthenticator
from hub_ext.auth.oidc import OidcAuthenticator
from hub_ext.auth.provider import ProviderAway, discover
from hub_ext.auth.site import writing_down
from hub_ext.clusters.commands import MEND
from hub_ext.clusters.settings import SERVICE as GATEWAY
from hub_ext.clusters.settings import GatewaySettings
from hub_ext.core.errors import BadInput, HubError
from hub_ext.core.people import Person
from hub_ext.db.engine import beside
from hub_ext.desk.access import READ, SCOPES, included_scopes
from hub_ext.desk.auth import CALLBACK, SERVICE
from hub_ext.factory import CLIENT_ID, Documents, Factory, pod_rules
from hub_ext.kube.pods import Waiting
from hub_ext.kube.site import HOME, PERSON_GID, PERSON_UID, SCRATCH, SHARED
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
from hub_ext.profiles.kube import PodRules, profile_list
from hub_ext.quota.model import Policy
from hub_ext.settings import HUB_SCHEMA, KubernetesSettings, OidcSettings, Settings
from hub_ext.spawners.gate import Gate
from hub_ext.spawners.handlers import deciding_first
from hub_ext.spawners.kube import MARGIN_SECONDS, GatedKubeSpawner
from hub_ext.spawners.local import GatedLocalSpawner

START_SECONDS = 60
POLL_SECONDS = 5
ROUTES_SECONDS = 5
PODS_POLL_SECONDS = 10
PODS_ROUTES_SECONDS = 30
RETRY_SECONDS = 150
"""How long a request to the API server is tried again: an outage of minutes costs nobody a start."""


def configure(c: Any, settings: Settings) -> None:
    """Configure a hub. Ends the process with one sentence where the settings or documents have a fault."""
    factory = Factory(settings)
    try:
        documents = factory.documents
        factory.put_in_force(documents, who="hub")
        secrets = factory.secrets
        if settings.on_kubernetes:
            simulated = settings.simulated_node is not None
            rules = pod_rules(settings.kubernetes, documents.policy)
        else:
            simulated = factory.node(documents.policy).simulated
    except HubError as error:
        sys.exit(f"The hub does not start.\n{error}")
    _hub(c, settings, factory)
    # In a cluster the kubelet enforces what a pod was given.
    words = PageWords(factory.profiles, limits_enforced=settings.on_kubernetes or factory.limits.applied)
    if settings.on_kubernetes:
        _hub_in_the_cluster(c, settings, factory)
        _pods(c, settings, factory, words, rules, simulated=simulated)
    else:
        _hub_on_this_machine(c, settings, factory)
        _spawner(c, settings, factory, words, simulated=simulated)
    if settings.oidc is None:
        _sign_in(c, factory)
    else:
        _sign_in_by_provider(c, settings, settings.oidc, factory)
    c.JupyterHub.template_paths = template_paths()
    c.JupyterHub.template_vars = template_vars(
        _page_settings(
            documents, settings.oidc, words, simulated=simulated, embedded=not settings.on_kubernetes
        )
    )
    c.JupyterHub.tornado_settings = {"headers": {"Content-Security-Policy": content_security_policy()}}
    c.JupyterHub.extra_handlers = extra_handlers()
    c.DemoAuthenticator.password = secrets.demo_password


def extend(c: Any, settings: Settings) -> None:
    """Only the spawner with its quota, for a hub whose sign-in, proxy and database are the site's own business.

    Ends the process with one sentence where the settings or documents have a fault.
    """
    factory = Factory(settings)
    try:
        factory.put_in_force(factory.documents, who="hub")
        rules = pod_rules(settings.kubernetes, factory.documents.policy)
    except HubError as error:
        sys.exit(f"The hub does not start.\n{error}")
    _decides_alone(c)
    words = PageWords(factory.profiles, limits_enforced=True)
    _pods(c, settings, factory, words, rules, simulated=settings.simulated_node is not None, desk=False)
    _write_down_people(c, factory)
    _decides_first(c)


def _decides_first(c: Any) -> None:
    """With the sign-in that the site has chosen by now. With one that it sets later, and with JupyterHub's default, each
    start is decided where it begins, which costs a hub more in a rush and nobody their place.
    """
    authenticator = c.JupyterHub.get("authenticator_class")
    if authenticator is not None:
        with suppress(TraitError):  # JupyterHub says of a name that nobody has what is wrong with it
            found = JupyterHub.authenticator_class.validate(None, authenticator)
            c.JupyterHub.authenticator_class = deciding_first(found)


def _write_down_people(c: Any, factory: Factory) -> None:
    """Beside the site's sign-in: the quota knows whoever came in through it."""

    async def write_down(person: Person) -> None:
        await factory.admission.in_thread(factory.admission.put_person, person)

    def pools_in_force() -> Collection[str]:
        with factory.store.reading() as txn:
            return txn.policy.pools

    async def pools() -> Collection[str]:
        return await factory.admission.in_thread(pools_in_force)

    before = c.Authenticator.get("post_auth_hook")
    c.Authenticator.post_auth_hook = writing_down(factory.documents.identity, pools, write_down, before)


def _hub(c: Any, settings: Settings, factory: Factory) -> None:
    secrets = factory.secrets
    hub = c.JupyterHub
    hub.cookie_secret = secrets.cookie_secret
    hub.log_level = settings.log_level
    # Hub, proxy and desk are siblings: each may be restarted alone, and servers outlive them all.
    hub.cleanup_servers = False
    hub.cleanup_proxy = False
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.auth_token = secrets.proxy_token
    if settings.public_url:
        hub.public_url = settings.public_url
    _decides_alone(c)
    hub.allow_named_servers = True
    hub.services = [
        {"name": "clock", "api_token": secrets.clock_token},
        {
            "name": SERVICE,
            "api_token": secrets.desk_token,
            "url": factory.desk_url,
            "oauth_client_id": CLIENT_ID,
            "oauth_redirect_uri": CALLBACK,
            # It is part of the hub: nobody is asked whether they trust it.
            "oauth_no_confirm": True,
            "oauth_client_allowed_scopes": list(SCOPES),
            # The pages' own menu leads there.
            "display": False,
        },
        # It has no page and no token: whoever asks it shows their own, and it asks the hub whose that is.
        {"name": GATEWAY, "display": False},
    ]
    hub.custom_scopes = {
        scope: {"description": description, "subscopes": list(included_scopes(scope))}
        for scope, description in SCOPES.items()
    }
    hub.load_roles = [
        {
            "name": "clock",
            "description": "Sees which servers are active, stops those that are over, and starts again what was cut off",
            "services": ["clock"],
            "scopes": ["list:users", "read:servers", "servers"],
        },
        {
            "name": SERVICE,
            "description": "Keeps the clock, and starts and stops servers for the people who ask for it at the desk",
            "services": [SERVICE],
            "scopes": ["list:users", "read:servers", "servers"],
        },
        {
            "name": "user",
            "description": "Everybody: their own servers, and the desk. What a lead or operator may there is theirs by "
            "their role among the people; a scope alone opens nothing.",
            "scopes": [
                "self",
                f"access:services!service={SERVICE}",
                f"access:services!service={GATEWAY}",
                *SCOPES,
            ],
        },
        {
            "name": "server",
            "description": "A person's server: tells of its use, asks the desk how long it may run, and starts clusters",
            "scopes": [
                "users:activity!user",
                "access:servers!server",
                f"access:services!service={SERVICE}",
                f"access:services!service={GATEWAY}",
                READ,
            ],
        },
    ]


def _decides_alone(c: Any) -> None:
    """Ours is `starts-busy`, which says why and when; the hub's 429 would come before any gate."""
    c.JupyterHub.concurrent_spawn_limit = 0
    c.JupyterHub.active_server_limit = 0
    # The gate reads what was chosen; the hub would warn at every start that nobody does.
    c.Spawner.apply_user_options = lambda spawner, options: None


def _hub_on_this_machine(c: Any, settings: Settings, factory: Factory) -> None:
    secrets = factory.secrets
    hub = c.JupyterHub
    # Loopback only: nothing separates the people of an embedded hub from one another.
    hub.bind_url = f"http://127.0.0.1:{settings.port}"
    hub.hub_bind_url = f"http://127.0.0.1:{secrets.hub_port}"
    hub.db_url = f"sqlite:///{settings.state_dir / 'jupyterhub.sqlite'}"
    # How soon a proxy that was started again knows the running servers.
    hub.last_activity_interval = ROUTES_SECONDS
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{secrets.proxy_api_port}"


def _hub_in_the_cluster(c: Any, settings: Settings, factory: Factory) -> None:
    kubernetes, hub = settings.kubernetes, c.JupyterHub
    hub.bind_url = f"http://0.0.0.0:{settings.port}"
    hub.hub_bind_url = f"http://0.0.0.0:{kubernetes.hub_port}"
    hub.hub_connect_url = kubernetes.hub_url
    hub.db_url = hub_database_url(settings)
    hub.upgrade_db = True
    hub.last_activity_interval = PODS_ROUTES_SECONDS
    c.ConfigurableHTTPProxy.api_url = kubernetes.proxy_api_url


def _pods(
    c: Any,
    settings: Settings,
    factory: Factory,
    words: PageWords,
    rules: PodRules,
    *,
    simulated: bool,
    desk: bool = True,
) -> None:
    kubernetes, spawner = settings.kubernetes, c.KubeSpawner
    GatedKubeSpawner.gate = Gate(factory.admission, factory.profiles, words, desk=desk)
    GatedKubeSpawner.patience = {
        **GatedKubeSpawner.patience,
        Waiting.NODE: kubernetes.node_seconds,
    }
    c.JupyterHub.spawner_class = GatedKubeSpawner
    c.Spawner.default_url = "/lab"
    c.Spawner.start_timeout = kubernetes.start_seconds + MARGIN_SECONDS
    c.Spawner.http_timeout = START_SECONDS
    c.Spawner.poll_interval = PODS_POLL_SECONDS
    spawner.namespace = kubernetes.namespace
    spawner.profile_list = profile_list(factory.documents.catalogue, rules)
    spawner.image = kubernetes.image
    spawner.image_pull_policy = "IfNotPresent"
    spawner.image_pull_secrets = kubernetes.image_pull_secrets
    spawner.cmd = kubernetes.command
    spawner.working_dir = HOME
    spawner.k8s_api_request_retry_timeout = RETRY_SECONDS
    if kubernetes.priority_class:
        spawner.priority_class_name = kubernetes.priority_class
    # What Pod Security `restricted` asks for; the cluster's own wall looks at it again.
    spawner.uid, spawner.gid, spawner.fs_gid = PERSON_UID, PERSON_GID, PERSON_GID
    spawner.allow_privilege_escalation = False
    spawner.automount_service_account_token = False
    spawner.container_security_context = {"capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    spawner.pod_security_context = {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        # Else every start would walk through all files of a home, to give them to the group that has them already.
        "fsGroupChangePolicy": "OnRootMismatch",
    }
    # A server that ended is over and says why; one that came back by itself would have lost its kernels unseen.
    spawner.extra_pod_config = {"restartPolicy": "Never"}
    _storage(spawner, kubernetes)
    environment = {}
    if desk:
        environment["HANGANG_DESK_URL"] = f"{kubernetes.desk_url.rstrip('/')}/services/desk"
        environment |= gateway_environment(factory.gateway_settings())
    if simulated:
        environment["HANGANG_GPUS"] = "simulated"
    if kubernetes.shared_claim:
        environment["HANGANG_DATA"] = SHARED
    spawner.environment = environment


def _storage(spawner: Any, kubernetes: KubernetesSettings) -> None:
    """One home for all servers of a person, which outlives them; scratch space, which does not; the centre's data."""
    home = kubernetes.home
    spawner.storage_pvc_ensure = True
    # By person, not by server: deleting a named server must not delete what it shares with the others.
    spawner.pvc_name_template = "home-{username}"
    spawner.delete_pvc = False
    if home.storage_class is not None:
        spawner.storage_class = home.storage_class
    spawner.storage_capacity = str(home.size)
    spawner.storage_access_modes = home.access_modes
    volumes: dict[str, Any] = {"home": {"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}}}
    mounts: dict[str, Any] = {"home": {"name": "home", "mountPath": HOME, "subPath": "home"}}
    if kubernetes.scratch is not None:
        volumes["scratch"] = {"name": "scratch", "emptyDir": {"sizeLimit": str(kubernetes.scratch)}}
        mounts["scratch"] = {"name": "scratch", "mountPath": SCRATCH}
    if kubernetes.shared_claim:
        claim = {"claimName": kubernetes.shared_claim, "readOnly": True}
        volumes["shared"] = {"name": "shared", "persistentVolumeClaim": claim}
        mounts["shared"] = {"name": "shared", "mountPath": SHARED, "readOnly": True}
    spawner.volumes, spawner.volume_mounts = volumes, mounts


def hub_database_url(settings: Settings) -> str:
    """Of JupyterHub's own tables: beside the ledger, in a schema of their own."""
    if settings.database_url is None:
        return f"sqlite:///{settings.state_dir / 'jupyterhub.sqlite'}"
    return beside(settings.database_url, HUB_SCHEMA)


def _spawner(c: Any, settings: Settings, factory: Factory, words: PageWords, *, simulated: bool) -> None:
    GatedLocalSpawner.gate = Gate(factory.admission, factory.profiles, words)
    GatedLocalSpawner.world = factory.world
    GatedLocalSpawner.limits = factory.limits
    GatedLocalSpawner.homes = settings.homes_dir
    if settings.samples_dir.is_dir():
        GatedLocalSpawner.furnish = partial(copy_samples, settings.samples_dir)
    GatedLocalSpawner.shared_environment = {
        **_shared_environment(settings, simulated=simulated),
        **gateway_environment(factory.gateway_settings()),
    }
    c.JupyterHub.spawner_class = GatedLocalSpawner
    c.Spawner.cmd = [str(Path(sys.executable).parent / "jupyterhub-singleuser")]
    c.Spawner.default_url = "/lab"
    c.Spawner.start_timeout = START_SECONDS
    c.Spawner.http_timeout = START_SECONDS
    c.Spawner.poll_interval = POLL_SECONDS
    # Every foreseen refusal is a SpawnException, which does not count; five real failures in a row still end the hub.
    c.LocalProcessSpawner.interrupt_timeout = 10
    c.LocalProcessSpawner.term_timeout = 5


def _page_settings(
    documents: Documents, oidc: OidcSettings | None, words: PageWords, *, simulated: bool, embedded: bool
) -> PageSettings:
    people = {
        name: _person_line(documents.policy, entry.title, entry.pools)
        for name, entry in documents.identity.people.items()
    }

    def line_of(name: str) -> PersonLine | None:
        found = OidcAuthenticator.known.get(name)
        return None if found is None else _person_line(documents.policy, found.title, found.person.pools)

    return PageSettings(
        simulated=simulated,
        embedded=embedded,
        demo_people=[DemoPerson(name, line) for name, line in people.items()] if oidc is None else [],
        provider={} if oidc is None else {str(key): text for key, text in oidc.title.items()},
        person_line=people.get if oidc is None else line_of,
        server_line=lambda spawner, language: PageWords.server_line(spawner, language, documents.policy),
        # No bound method: traitlets copies what is configured, with the object it is bound to.
        ended_line=lambda person, server, language: words.ended_line(person, server, language),
        goes_on=lambda person, server: words.goes_on(person, server),
    )


def _person_line(policy: Policy, title: Mapping[str, str], pools: Sequence[str]) -> PersonLine:
    path = policy.path(pools[0])
    by_kind = {policy.pools[pool].kind: policy.pools[pool].title for pool in reversed(path)}
    institution = by_kind.get("institution") or policy.pools[path[0]].title
    return PersonLine(title, institution, by_kind.get("sector", {}))


def _shared_environment(settings: Settings, *, simulated: bool) -> dict[str, str]:
    # JupyterLab asks nobody outside for news or updates, says how long its server runs, and makes Dask clusters of ours.
    inside = Path(notebook.__file__).parent
    environment = {
        "JUPYTER_CONFIG_PATH": str(inside / "config"),
        "JUPYTER_PATH": str(inside / "lab"),
        "DASK_ROOT_CONFIG": str(inside / "config" / "dask"),
        "HANGANG_DESK_URL": f"http://127.0.0.1:{settings.port}/services/desk",
    }
    if settings.data is not None:
        environment["HANGANG_DATA"] = str((settings.root / settings.data).absolute())
    if simulated:
        environment["HANGANG_GPUS"] = "simulated"
    return environment


def gateway_environment(settings: GatewaySettings) -> dict[str, str]:
    """With these `dask_gateway.Gateway()` just works in a server, and links to dashboards lead through the desk."""
    return {
        "DASK_GATEWAY__ADDRESS": settings.client_url,
        "DASK_GATEWAY__PROXY_ADDRESS": settings.client_tcp,
        "DASK_GATEWAY__PUBLIC_ADDRESS": f"/services/{SERVICE}",
        "DASK_GATEWAY__AUTH__TYPE": "jupyterhub",
        "DASK_DISTRIBUTED__CLIENT__PRELOAD": MEND,
    }


def _sign_in(c: Any, factory: Factory) -> None:
    async def write_down(person: Person) -> None:
        await factory.admission.in_thread(factory.admission.put_person, person)

    c.JupyterHub.authenticator_class = deciding_first(DemoAuthenticator)
    c.DemoAuthenticator.identity = factory.documents.identity
    c.DemoAuthenticator.on_sign_in = write_down


def _sign_in_by_provider(c: Any, settings: Settings, oidc: OidcSettings, factory: Factory) -> None:
    """Ends the process with one sentence where the settings must change; a provider that is away is asked again later."""
    identity = factory.documents.identity
    ca_file = settings.root / oidc.ca_file if oidc.ca_file else None
    try:
        secret = oidc.secret(settings.root)
        if not identity.knows_claims:
            raise BadInput(
                f"{settings.identity_file} lets nobody in through a provider; write rules, or give people a subject"
            )
        try:
            found = discover(oidc.issuer, ca_file=ca_file, allow_http=oidc.allow_http)
        except ProviderAway:
            found = None
    except HubError as error:
        sys.exit(f"The hub does not start.\n{error}")

    async def name_of(issuer: str, subject: str) -> str | None:
        return await factory.admission.in_thread(factory.admission.name_of, issuer, subject)

    async def write_down(person: Person, issuer: str, subject: str) -> None:
        await factory.admission.in_thread(factory.admission.sign_in, person, issuer, subject)

    c.JupyterHub.authenticator_class = deciding_first(OidcAuthenticator)
    provider = c.OidcAuthenticator
    provider.identity = identity
    provider.issuer = oidc.issuer
    provider.found = found
    provider.client_id = oidc.client_id
    provider.client_secret = secret
    provider.scope = list(oidc.scopes)
    provider.claims_from = oidc.claims_from
    provider.ca_file = str(ca_file or "")
    provider.allow_http = oidc.allow_http
    provider.grace = oidc.grace
    provider.auth_refresh_age = oidc.refresh
    provider.login_service = next(iter(oidc.title.values()), oidc.issuer)
    provider.name_of = name_of
    provider.on_sign_in = write_down
    if settings.public_url:
        provider.oauth_callback_url = f"{settings.public_url.rstrip('/')}/hub/oauth_callback"
    # What is kept of each sign-in is encrypted; who loses the cookie secret signs in anew either way.
    c.CryptKeeper.keys = [hmac.digest(factory.secrets.cookie_secret, b"kept sign-ins", "sha256")]

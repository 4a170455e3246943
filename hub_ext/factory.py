"""The composition root: what hub, desk, clock and command line are made of, from the same settings."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from hub_ext.auth.claims import Identity
from hub_ext.auth.document import load_identity
from hub_ext.auth.roles import ROLES
from hub_ext.clusters.loader import load_cluster_profiles
from hub_ext.clusters.model import ClusterCatalogue
from hub_ext.clusters.service import Clusters
from hub_ext.clusters.settings import GatewaySettings
from hub_ext.clusters.words import saying
from hub_ext.core.amounts import parse_amount
from hub_ext.core.clock import SystemClock
from hub_ext.core.errors import BadInput, Fault, FaultyDocument
from hub_ext.db.engine import beside, make_engine
from hub_ext.desk.auth import CALLBACK
from hub_ext.desk.clockwork import Clockwork
from hub_ext.desk.desk import Desk, Site
from hub_ext.desk.hub_api import HubServers
from hub_ext.desk.hub_login import HubLogin
from hub_ext.kube.site import Nodes, PodRules
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.profiles.loader import Known, load_profiles
from hub_ext.profiles.model import Profile
from hub_ext.profiles.service import Profiles
from hub_ext.quota.document import load_policy, parse_policy
from hub_ext.quota.model import Node, Policy
from hub_ext.quota.service import Admission
from hub_ext.quota.store import SqlStore
from hub_ext.settings import GATEWAY_SCHEMA, KubernetesSettings, Secrets, Settings, load_secrets
from hub_ext.spawners.cluster import Cluster
from hub_ext.spawners.homes import home_of
from hub_ext.spawners.inventory import this_machine
from hub_ext.spawners.limits import Limits, find_limits
from hub_ext.spawners.processes import LocalWorld

if TYPE_CHECKING:
    # dask-gateway's server costs every process that imports it a second, and changes how traitlets logs.
    from hub_ext.clusters.backend import QuotaBackend
    from hub_ext.clusters.backend_kube import GatedKubeBackend
    from hub_ext.clusters.backend_local import GatedLocalBackend
    from hub_ext.clusters.gateway import Gateway

log = structlog.get_logger("hub_ext.clock")
CLIENT_ID = "service-desk"
"""What the hub calls the desk where people sign in."""
MOST_NAMED = 10
"""So many pods are named in one line of the log."""

DocumentT = TypeVar("DocumentT")


@dataclass
class Documents:
    """The operator's documents, all without a fault."""

    policy: Policy
    policy_text: str
    identity: Identity
    catalogue: Catalogue
    clusters: ClusterCatalogue = field(default_factory=ClusterCatalogue)


def load_documents(settings: Settings) -> Documents:
    """Read policy, profiles and identity. Raises FaultyDocument with the faults of all of them."""
    faults: list[Fault] = []
    policy = _read(faults, lambda: load_policy(settings.policy_file))
    pools = set(policy.pools) if policy else None
    known = Known(tuple(policy.gpu_classes) if policy else None, tuple(ROLES), pools)
    identity = _read(faults, lambda: load_identity(settings.identity_file, pools))
    profiles = _read(faults, lambda: load_profiles(settings.profiles_dir, known))
    memory = {name: gpu.memory for name, gpu in policy.gpu_classes.items()} if policy else {}
    clusters = _read(faults, lambda: _load_clusters(settings, known, memory, profiles or ()))
    if policy is None or identity is None or profiles is None or clusters is None:
        raise FaultyDocument(faults)
    return Documents(
        policy, settings.policy_file.read_text(encoding="utf-8"), identity, Catalogue.of(profiles), clusters
    )


def _load_clusters(
    settings: Settings, known: Known, memory: Mapping[str, int], profiles: Iterable[Profile]
) -> ClusterCatalogue:
    folder = settings.cluster_profiles_dir
    if folder is None:
        return ClusterCatalogue()
    clusters = ClusterCatalogue.of(load_cluster_profiles(folder, known, memory))
    # A lease names its profile, and says nothing of which folder that is in.
    twice = [profile.slug for profile in profiles if clusters.get(profile.slug) is not None]
    if twice:
        raise FaultyDocument(
            [
                Fault(
                    str(folder / f"{slug}.yaml"), 1, "a profile of servers has this name", "Choose another."
                )
                for slug in twice
            ]
        )
    return clusters


def _read(faults: list[Fault], read: Callable[[], DocumentT]) -> DocumentT | None:
    try:
        return read()
    except FaultyDocument as error:
        faults += error.faults
        return None


class Factory:
    """Makes each part once, when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._strangers: set[str] = set()

    @cached_property
    def secrets(self) -> Secrets:
        return load_secrets(self.settings)

    @cached_property
    def documents(self) -> Documents:
        return load_documents(self.settings)

    @cached_property
    def store(self) -> SqlStore:
        store = SqlStore(make_engine(self.settings.ledger_url), load_policy=parse_policy)
        store.check_schema()
        return store

    @cached_property
    def admission(self) -> Admission:
        return Admission(self.store, SystemClock())

    @cached_property
    def profiles(self) -> Profiles:
        return Profiles(self.admission, self.documents.catalogue)

    @cached_property
    def clusters(self) -> Clusters:
        """On one machine there are no images: a cluster runs what the notebook runs."""
        catalogue = self.documents.clusters
        if not self.settings.on_kubernetes:
            return Clusters(self.admission, catalogue.without_images())
        return Clusters(self.admission, catalogue, self._image_of)

    def _image_of(self, profile: str | None) -> str:
        """What servers of this profile run, in a cluster."""
        found = self.documents.catalogue.get(profile) if profile else None
        return (found.image if found is not None else None) or self.settings.kubernetes.image

    @cached_property
    def world(self) -> LocalWorld:
        return LocalWorld(self.settings.state_dir)

    @cached_property
    def cluster(self) -> Cluster:
        """The world of pods."""
        kubernetes, simulated = self.settings.kubernetes, self.settings.simulated_node or {}
        of_gpus = [toleration for nodes in kubernetes.gpu_nodes.values() for toleration in nodes.tolerations]
        instead = {name: parse_amount(name, size, rounding="down") for name, size in simulated.items()}
        return Cluster(kubernetes.namespace, kubernetes.tolerations, instead, of_gpus)

    @cached_property
    def limits(self) -> Limits:
        """None are set where the node is simulated: its sizes are not this machine's."""
        return Limits() if self.settings.simulated_node is not None else find_limits(self.settings.state_dir)

    def node(self, policy: Policy) -> Node:
        settings = self.settings
        return this_machine(
            policy.gpu_classes, simulated_gpus=settings.simulated_gpus, simulated_node=settings.simulated_node
        )

    def servers(self, token: str) -> HubServers:
        """The hub's servers, as the service whose token that is may see and change them."""
        return HubServers(self.hub_api_url, token)

    @property
    def hub_api_url(self) -> str:
        if self.settings.on_kubernetes:
            return f"{self.settings.kubernetes.hub_url.rstrip('/')}/hub/api"
        return f"http://127.0.0.1:{self.secrets.hub_port}/hub/api"

    @property
    def desk_url(self) -> str:
        """How the proxy reaches the desk."""
        if self.settings.on_kubernetes:
            return self.settings.kubernetes.desk_url
        return f"http://127.0.0.1:{self.secrets.desk_port}"

    def desk_address(self) -> tuple[str, int]:
        """Where the desk listens. On one machine on loopback only, as the hub does."""
        if self.settings.on_kubernetes:
            return "0.0.0.0", self.settings.kubernetes.desk_port
        return "127.0.0.1", self.secrets.desk_port

    def desk(self) -> Desk:
        """What the desk's pages and API work with."""
        settings, secrets = self.settings, self.secrets
        simulated = (
            settings.simulated_node is not None
            if settings.on_kubernetes
            else self.node(self.documents.policy).simulated
        )
        people = self.documents.identity.people
        return Desk(
            admission=self.admission,
            profiles=self.profiles,
            servers=self.servers(secrets.desk_token),
            login=HubLogin(self.hub_api_url, CLIENT_ID, secrets.desk_token, CALLBACK),
            key=hmac.digest(secrets.cookie_secret, b"desk", "sha256"),
            site=Site(
                simulated=simulated,
                embedded=not settings.on_kubernetes,
                titles={name: entry.title for name, entry in people.items()},
            ),
            clusters=self.clusters,
            dask_proxy_url=self.dask_proxy_url,
        )

    # -- Dask clusters -------------------------------------------------------------------------------------------

    @property
    def dask_proxy_url(self) -> str:
        """Where the proxy before all schedulers serves their dashboards, to whoever comes: only the desk does."""
        if self.settings.on_kubernetes:
            return self.settings.kubernetes.dask_proxy_url
        return f"http://127.0.0.1:{self.secrets.dask_http_port}"

    def gateway_settings(self) -> GatewaySettings:
        settings, secrets, kubernetes = self.settings, self.secrets, self.settings.kubernetes
        inside = settings.on_kubernetes
        host = "0.0.0.0" if inside else "127.0.0.1"
        port = kubernetes.gateway_port if inside else secrets.gateway_port
        http = kubernetes.dask_proxy_port if inside else secrets.dask_http_port
        tcp = kubernetes.dask_port if inside else secrets.dask_tcp_port
        url = kubernetes.gateway_url.rstrip("/") if inside else f"http://{host}:{port}"
        return GatewaySettings(
            address=f"{host}:{port}",
            api_url=f"{url}/api",
            proxy_http=f"{host}:{http}",
            proxy_tcp=f"{host}:{tcp}",
            # Secrets that a site made before there was a gateway hold none.
            proxy_token=secrets.dask_proxy_token
            or hmac.digest(secrets.cookie_secret, b"dask proxy", "sha256").hex(),
            hub_api_url=self.hub_api_url,
            database_url=f"sqlite:///{settings.state_dir / 'gateway.sqlite'}"
            if settings.database_url is None or not inside
            else beside(settings.database_url, GATEWAY_SCHEMA),
            encryption_key=hmac.digest(secrets.cookie_secret, b"gateway", "sha256"),
            client_url=url,
            client_tcp=kubernetes.dask_address if inside else f"gateway://{host}:{tcp}",
            log_level=settings.log_level,
        )

    def gateway(self) -> Gateway:
        """The gateway of Dask clusters, ready to start."""
        from hub_ext.clusters.gateway import gateway
        from hub_ext.clusters.holding import Quota

        quota = Quota(self.admission, self.clusters, saying(self.documents.clusters))
        backend, prepare = self._pods_of_clusters() if self.settings.on_kubernetes else self._processes()
        return gateway(self.gateway_settings(), quota, backend, prepare)

    def _processes(self) -> tuple[type[QuotaBackend], Callable[[Any], None]]:
        from hub_ext.clusters.backend_local import GatedLocalBackend, Place

        settings = self.settings
        data = (
            {} if settings.data is None else {"HANGANG_DATA": str((settings.root / settings.data).absolute())}
        )
        place = Place(
            self.world,
            settings.state_dir / "clusters",
            partial(home_of, settings.homes_dir),
            self.limits,
            data,
        )

        def prepare(backend: GatedLocalBackend) -> None:
            backend.place = place

        return GatedLocalBackend, prepare

    def _pods_of_clusters(self) -> tuple[type[QuotaBackend], Callable[[Any], None]]:
        from kubespawner.slugs import safe_slug

        from hub_ext.clusters.backend_kube import GatedKubeBackend, KubePlace
        from hub_ext.clusters.manifests import ClusterSite

        kubernetes = self.settings.kubernetes
        site = ClusterSite(
            kubernetes.namespace,
            pod_rules(kubernetes, self.documents.policy),
            self.gateway_settings().api_url,
            home="ReadWriteMany" in kubernetes.home.access_modes,
            shared_claim=kubernetes.shared_claim,
            scratch=None if kubernetes.scratch is None else str(kubernetes.scratch),
            priority_class=kubernetes.priority_class,
            image_pull_secrets=kubernetes.image_pull_secrets,
        )

        def prepare(backend: GatedKubeBackend) -> None:
            backend.place = KubePlace(site, safe_slug)

        return GatedKubeBackend, prepare

    def clockwork(self, token: str | None = None) -> Clockwork:
        """The clock, which speaks to the hub as the service whose token that is: as its own, or the desk's."""
        token = token or self.secrets.clock_token
        watcher = PolicyFile(self.settings, self.admission, self)
        if self.settings.on_kubernetes:
            return Clockwork(
                self.admission,
                self.cluster,
                self.servers(token),
                reload=watcher.reload,
                count_nodes=self.count_nodes,
            )
        return Clockwork(self.admission, self.world, self.servers(token), reload=watcher.reload)

    def count_nodes(self) -> None:
        """Write down which nodes the cluster has. Raises ClusterUnseen, and leaves what was known.

        Tells of pods among people's that the hub did not make.
        """
        with self.admission.store.reading() as txn:
            policy, known = txn.policy, txn.nodes()
        found = self.cluster.nodes(policy)
        if known != tuple(found):
            self.admission.put_nodes(found)
        strangers = set(self.cluster.strangers())
        if new := sorted(strangers - self._strangers):
            log.warning(
                "pods that the hub did not make run among people's, and take room on their nodes",
                pods=", ".join(new[:MOST_NAMED]),
                more=max(0, len(new) - MOST_NAMED),
            )
        self._strangers = strangers

    def put_in_force(self, documents: Documents, *, who: str) -> None:
        """Make these documents the ones in force: policy, people and this machine's sizes."""
        self.load(documents.policy_text, documents.policy, who=who)

    def load(self, text: str, policy: Policy, *, who: str) -> bool:
        """Put a policy in force where it is not yet; whether it was new. On one machine, with its sizes."""
        with self.admission.store.reading() as txn:
            new = txn.policy_digest != digest(text)
        if new:
            self.admission.load_policy(text, policy, who=who)
        if not self.settings.on_kubernetes:
            self.admission.put_nodes([self.node(policy)])
        return new


class PolicyFile:
    """Watches the policy file; a version with a fault changes nothing and is told once."""

    def __init__(self, settings: Settings, admission: Admission, factory: Factory) -> None:
        self.path = settings.policy_file
        self.admission = admission
        self.factory = factory
        self._seen: bytes | None = None

    def reload(self) -> bool:
        """Whether a changed policy was put in force. Raises FaultyDocument, once for each text with a fault."""
        try:
            raw = self.path.read_bytes()
        except OSError:
            raw = b""
        if raw == self._seen:
            return False
        text = raw.decode("utf-8", "replace")
        try:
            # The very text that was read; a file that cannot be read is told by its own fault.
            policy = parse_policy(text, str(self.path)) if raw else load_policy(self.path)
        except FaultyDocument:
            self._seen = raw
            raise
        changed = self.factory.load(text, policy, who="policy file")
        self._seen = raw  # not before all of it counts: a database that is away is tried again
        return changed


def pod_rules(kubernetes: KubernetesSettings, policy: Policy) -> PodRules:
    """What the site says about pods, in the policy's terms. Raises BadInput for a GPU class it does not have."""
    for name in kubernetes.gpu_nodes:
        if name not in policy.gpu_classes:
            known = ", ".join(policy.gpu_classes) or "none"
            raise BadInput(f"kubernetes.gpu_nodes names the GPU class {name!r}; the policy has: {known}")
    resources = [gpu.resource for gpu in policy.gpu_classes.values()]
    if twice := next((resource for resource in resources if resources.count(resource) > 1), None):
        raise BadInput(
            f"Two GPU classes of the policy have the Kubernetes resource {twice}, by which a cluster tells them apart; "
            "give each its own (the device plugin can rename resources)"
        )
    requests = kubernetes.requests
    return PodRules(
        image=kubernetes.image,
        gpu_resources={name: gpu.resource for name, gpu in policy.gpu_classes.items()},
        gpu_nodes={
            name: Nodes(nodes.node_selector, nodes.tolerations)
            for name, nodes in kubernetes.gpu_nodes.items()
        },
        tolerations=kubernetes.tolerations,
        disk=None
        if kubernetes.disk is None
        else sum(
            parse_amount("memory", size, rounding="up") for size in (kubernetes.disk, kubernetes.scratch or 0)
        ),
        requests={}
        if requests is None
        else {
            name: parse_amount(name, size, rounding="up")
            for name, size in (("cpu", requests.cpu), ("memory", requests.memory))
        },
    )


def digest(text: str) -> str:
    """How the store names a policy's text."""
    return sha256(text.encode("utf-8")).hexdigest()

"""Typed settings: one file (`hub.yaml`), overridden by the environment (`HUB_PORT`, `HUB_STATE`, …).

Paths are relative to the folder of the settings file. Secrets and chosen ports live under the state folder, so that
two hubs can run side by side and a restart finds what it left.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from hub_ext.core.amounts import parse_quantity
from hub_ext.core.clock import parse_duration
from hub_ext.core.errors import BadInput, FaultyDocument
from hub_ext.documents import Document, read_document, validate

SETTINGS_FILE = "hub.yaml"
LEAST_PASSWORD = 8
LEDGER_SCHEMA, HUB_SCHEMA, GATEWAY_SCHEMA = "hub_ext", "jupyterhub", "dask_gateway"
SINCE_THE_DESK = frozenset({"desk_port"})
SINCE_THE_GATEWAY = frozenset({"gateway_port", "dask_http_port", "dask_tcp_port", "dask_proxy_token"})
ADDED_LATER = SINCE_THE_DESK | SINCE_THE_GATEWAY
"""What secrets made by an earlier version do not hold. Of ports a cluster has no use."""
FROM_ENVIRONMENT = (
    "port",
    "state",
    "database_url",
    "demo_password",
    "log_level",
    "public_url",
    "secrets_file",
)


def _quantity(text: str | int) -> str:
    try:
        parse_quantity(text)
    except BadInput as error:
        raise ValueError(str(error)) from error
    return str(text)


Quantity = Annotated[str | int, AfterValidator(_quantity)]
"""A Kubernetes quantity: `10Gi`, `100m`, `2`."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HomeSettings(_Part):
    """The volume that holds a person's files, one for all of their servers."""

    storage_class: str | None = None
    """None: the cluster's default class."""
    size: Quantity = "10Gi"
    access_modes: list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]] = ["ReadWriteOnce"]
    """`ReadWriteMany` where one person's servers run on several nodes at once."""


class RequestSettings(_Part):
    """What pods ask of Kubernetes, whatever their profiles show: for trying out on a small cluster."""

    cpu: Quantity = "100m"
    memory: Quantity = "256Mi"


class GpuNodes(_Part):
    """Where the pods of one GPU class run."""

    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []


class KubernetesSettings(_Part):
    """How servers run as pods. Addresses are as the cluster's own names give them."""

    namespace: str = "hangang-users"
    """Where people's pods run; the hub itself lives in another namespace."""
    hub_url: str = "http://hub.hangang-system.svc:8081"
    """How pods and proxy reach the hub."""
    hub_port: Annotated[int, Field(ge=1, le=65535)] = 8081
    """Where the hub listens, on every address of its pod."""
    proxy_api_url: str = "http://proxy-api:8001"
    """How the hub reaches the proxy."""
    desk_url: str = "http://desk.hangang-system.svc:8085"
    """How pods and proxy reach the desk."""
    desk_port: Annotated[int, Field(ge=1, le=65535)] = 8085
    """Where the desk listens, on every address of its pod."""
    gateway_url: str = "http://gateway.hangang-system.svc:8000"
    """How people's servers, the schedulers of clusters and the Dask proxy reach the gateway."""
    gateway_port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Where the gateway listens, on every address of its pod."""
    dask_proxy_url: str = "http://dask-proxy.hangang-system.svc:8001"
    """How the desk reaches the dashboards of clusters."""
    dask_proxy_port: Annotated[int, Field(ge=1, le=65535)] = 8001
    """Where the Dask proxy listens for the desk, on every address of its pod."""
    dask_address: str = "gateway://dask-proxy.hangang-system.svc:8786"
    """How clients in people's servers reach the schedulers of their clusters."""
    dask_port: Annotated[int, Field(ge=1, le=65535)] = 8786
    """Where the Dask proxy listens for clients, on every address of its pod."""
    image: str = "hangang/notebook:dev"
    """For profiles that name none."""
    image_pull_secrets: list[str] = []
    command: list[str] = ["hangang-singleuser"]
    """What starts a server in the image."""
    home: HomeSettings = HomeSettings()
    shared_claim: str | None = None
    """A claim with the centre's data, which every server sees read-only at /shared."""
    scratch: Quantity | None = "20Gi"
    """Fast space of one server, gone with it, at /scratch."""
    disk: Quantity | None = "10Gi"
    """What a server may write outside home and scratch (its own packages, /tmp); None: as much as its node has."""
    priority_class: str | None = "hangang-servers"
    requests: RequestSettings | None = None
    gpu_nodes: dict[str, GpuNodes] = {}
    """By GPU class of the policy."""
    tolerations: list[dict[str, Any]] = []
    """Of every server's pod."""
    start_seconds: Annotated[int, Field(ge=30, le=3600)] = 600
    """How long a pod may take to run: pulling a large image counts."""
    node_seconds: Annotated[int, Field(ge=10, le=3600)] = 120
    """How long a pod may find no node: longer where a node that is needed is made first."""


def _duration(value: object) -> int:
    try:
        return parse_duration(value if isinstance(value, str) else str(value))
    except BadInput as error:
        raise ValueError(str(error)) from error


def _one_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no address; write for example https://id.example/realms/city")
    return text


Duration = Annotated[int, BeforeValidator(_duration)]
"""Seconds, written as `90s`, `15m` or `1h`."""


class OidcSettings(_Part):
    """The identity provider that people sign in through (OpenID Connect)."""

    issuer: Annotated[str, AfterValidator(_one_address)]
    """As the provider calls itself, to the letter; only its claims count."""
    client_id: Annotated[str, Field(min_length=1)]
    client_secret: SecretStr | None = None
    client_secret_file: Path | None = None
    """Holds the secret and nothing else; relative to the settings file."""
    title: dict[Literal["en", "ko"], str] = {}
    """What the button on the sign-in page calls the provider."""
    scopes: list[str] = []
    """By default openid, profile and email, and offline_access where the provider has it."""
    claims_from: Literal["userinfo", "id_token"] = "userinfo"
    """`id_token` for providers that put groups there only."""
    refresh: Annotated[Duration, Field(ge=1)] = 300
    """How long what is known of somebody counts before the provider is asked again."""
    grace: Duration = 3600
    """How long people stay in while the provider is away."""
    ca_file: Path | None = None
    """Certificates that the provider's is checked by, in PEM form; by default the system's."""
    allow_http: bool = False
    """Speak to the provider without encryption: for a trial only."""

    @model_validator(mode="after")
    def _encrypted(self) -> OidcSettings:
        if urlsplit(self.issuer).scheme != "https" and not self.allow_http:
            raise ValueError(
                f"{self.issuer} is not encrypted; use https, or for a trial write allow_http: true beside it"
            )
        return self

    def secret(self, root: Path) -> str:
        """The client's secret. Raises BadInput where there is none."""
        if self.client_secret is not None and self.client_secret.get_secret_value():
            return self.client_secret.get_secret_value()
        if self.client_secret_file is None:
            raise BadInput(
                "oidc: there is no client secret; give HUB_OIDC_CLIENT_SECRET, or name a file: client_secret_file"
            )
        path = root / self.client_secret_file
        try:
            found = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"oidc: the client secret cannot be read from {path} ({error})") from error
        if not found:
            raise BadInput(f"oidc: {path} is empty; write the client's secret into it")
        return found


class Settings(BaseModel):
    """Everything that can be set. Environment variables are `HUB_` and the name in capitals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path = Path()
    """The folder of the settings file; the paths below are relative to it."""
    run_on: Literal["machine", "kubernetes"] = "machine"
    """Whether servers are processes on this machine or pods of a cluster."""
    kubernetes: KubernetesSettings = KubernetesSettings()
    public_url: str | None = None
    """The hub's address as people's browsers see it, where a proxy or ingress stands before it."""
    secrets_file: Path | None = None
    """Made beforehand (`hub-ext secrets`); by default it is made under `state`."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    state: Path = Path(".hub")
    oidc: OidcSettings | None = None
    """The identity provider that people sign in through; without one, the demo's people and password."""
    database_url: str | None = None
    """Where the ledger lives; by default SQLite under `state`."""
    policy: Path = Path("policy/pools.yaml")
    identity: Path = Path("policy/identity.yaml")
    profiles: Path = Path("spawner_profiles")
    cluster_profiles: Path = Path("cluster_profiles")
    """Dask clusters on offer; without this folder there are none."""
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

    @model_validator(mode="after")
    def _shared_database(self) -> Settings:
        if self.on_kubernetes and self.database_url and not self.database_url.startswith("postgres"):
            raise ValueError(
                "hub and desk in a cluster need a database that both reach; "
                "write database_url: postgresql://USER@HOST/NAME"
            )
        return self

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
    def cluster_profiles_dir(self) -> Path | None:
        """None: no clusters are offered. A folder that the settings name must be there."""
        folder = self.root / self.cluster_profiles
        return folder if folder.exists() or "cluster_profiles" in self.model_fields_set else None

    @property
    def samples_dir(self) -> Path:
        return (self.root / self.sample_notebooks).absolute()

    @property
    def homes_dir(self) -> Path:
        return self.state_dir / "homes"

    @property
    def ledger_url(self) -> str:
        if self.database_url is None:
            return f"sqlite:///{self.state_dir / 'ledger.sqlite'}"
        if (
            self.on_kubernetes
            and self.database_url.startswith("postgres")
            and "schema=" not in self.database_url
        ):
            # One database holds both: ours in this schema, JupyterHub's own tables in another.
            return f"{self.database_url}{'&' if '?' in self.database_url else '?'}schema={LEDGER_SCHEMA}"
        return self.database_url

    @property
    def on_kubernetes(self) -> bool:
        return self.run_on == "kubernetes"

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
    secret = environment.get("HUB_OIDC_CLIENT_SECRET")
    if secret and isinstance(values.get("oidc"), dict):
        values["oidc"] = {**values["oidc"], "client_secret": secret}
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
    desk_port: int
    gateway_port: int
    """Where the gateway of Dask clusters listens."""
    dask_http_port: int
    """Where the proxy before all schedulers serves their dashboards: for the desk, which asks who comes."""
    dask_tcp_port: int
    """Where it serves the schedulers themselves, encrypted, each to who has its certificate."""
    dask_proxy_token: str


def load_secrets(settings: Settings) -> Secrets:
    """The state folder's secrets; those that are missing are made. Safe when two processes come at once."""
    path = _secrets_path(settings)
    try:
        kept = _secrets_of(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        instead = (
            "move it away and a new one is made (everybody signs in again)"
            if settings.secrets_file is None
            else "`hub-ext secrets` prints what it must hold"
        )
        raise BadInput(f"{path} cannot be read; {instead}") from error
    password = settings.demo_password or kept.demo_password
    if len(password) < LEAST_PASSWORD:
        raise BadInput(
            f"The demo password is too short: give HUB_DEMO_PASSWORD at least {LEAST_PASSWORD} characters."
        )
    return replace(kept, demo_password=password)


def _secrets_path(settings: Settings) -> Path:
    if settings.secrets_file is not None:
        return settings.root / settings.secrets_file
    folder = settings.state_dir
    path = folder / "secrets.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if not path.exists():
            _make_secrets(path)
        elif settings.secrets_file is None:
            _add_what_is_new(path)
    except OSError as error:
        raise BadInput(
            f"The state folder {folder} cannot be used ({error.strerror}); give HUB_STATE one that you may write to"
        ) from error
    return path


def _make_secrets(path: Path) -> None:
    """Written whole under another name first: nobody ever reads half of it."""
    descriptor, made = tempfile.mkstemp(prefix=".secrets.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(new_secrets(), file)
        with suppress(FileExistsError):  # another process was first: its secrets count
            os.link(made, path)
    finally:
        Path(made).unlink()


def _add_what_is_new(path: Path) -> None:
    """A folder that an earlier version made lacks what this one needs beside; what is there stays as it is."""
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        return
    if not isinstance(kept, dict) or kept.keys() >= ADDED_LATER:
        return
    missing = ADDED_LATER - kept.keys()
    fresh = new_secrets()
    taken = {port for name, port in kept.items() if name.endswith("_port")}
    while any(fresh[name] in taken for name in missing):  # kept for a sibling that does not run right now
        fresh = new_secrets()
    descriptor, made = tempfile.mkstemp(prefix=".secrets.", dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        json.dump({**kept, **{name: fresh[name] for name in missing}}, file)
    Path(made).replace(path)


def _secrets_of(kept: dict[str, Any]) -> Secrets:
    """Raises for anything that `new_secrets` would not make."""
    kept = {**{name: 0 if name.endswith("_port") else "" for name in ADDED_LATER}, **kept}
    if not all(isinstance(value, int if name.endswith("_port") else str) for name, value in kept.items()):
        raise TypeError("a number where a text was, or the other way round")
    return Secrets(**{**kept, "cookie_secret": bytes.fromhex(kept["cookie_secret"])})


def new_secrets() -> dict[str, Any]:
    """Fresh ones, as the secrets file holds them. The ports are for hubs on one machine."""
    hub, proxy_api, desk, gateway, dask_http, dask_tcp = free_ports(6)
    return {
        "cookie_secret": secrets.token_hex(32),
        "proxy_token": secrets.token_hex(32),
        "clock_token": secrets.token_hex(32),
        "desk_token": secrets.token_hex(32),
        "demo_password": secrets.token_urlsafe(9),
        "hub_port": hub,
        "proxy_api_port": proxy_api,
        "desk_port": desk,
        "gateway_port": gateway,
        "dask_http_port": dask_http,
        "dask_tcp_port": dask_tcp,
        "dask_proxy_token": secrets.token_hex(32),
    }


PORTS: Final = range(20_000, 32_000)
"""Below those that Linux and others hand out to outgoing connections: one kept for later is not taken meanwhile."""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens at now, each another.

    Raises OSError where so many cannot be found.
    """
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(found) == count:
            return found
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found.append(port)
    raise OSError(f"fewer than {count} free ports from {PORTS.start} to {PORTS.stop - 1}")

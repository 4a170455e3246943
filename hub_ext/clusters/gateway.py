"""The gateway as a process: dask-gateway's server with our backend, our people, and our words.

Nothing is read from files or the command line: `gateway` makes all of it from what the factory hands in. What comes
in by HTTP is looked at here before dask-gateway's own handlers see it: whatever the body holds, the answer is a
sentence, and never a stack trace.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn

from aiohttp import web
from dask_gateway_server.app import DaskGateway
from dask_gateway_server.models import ClusterStatus
from dask_gateway_server.proxy.core import Proxy
from dask_gateway_server.routes import api_handler
from traitlets.config import Config

from hub_ext.clusters.authenticator import People, PeopleAuthenticator
from hub_ext.clusters.backend import QuotaBackend
from hub_ext.clusters.holding import Quota
from hub_ext.clusters.policy import HEARTBEAT_SECONDS, HEARTBEAT_TIMEOUT, START_SECONDS
from hub_ext.clusters.settings import SERVICE, GatewaySettings
from hub_ext.clusters.words import one_line
from hub_ext.core.errors import HubError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LARGEST_COUNT: Final = 10**6
STATUS_SECONDS: Final = 2
"""How often it is looked whether what is being started is still there."""
RECORDS_SECONDS: Final = 7 * 86400
"""How long the record of a cluster that is over is kept."""
CLOSED: Final = 499
"""Nobody reads this status: it is for our own log."""
CLUSTER: Final = "/api/v1/clusters/{cluster_name}"


class Gateway(DaskGateway):
    """dask-gateway's server; `quota` and `people` are handed in before it is initialized."""

    quota: Quota
    prepare: Callable[[QuotaBackend], None]

    def load_config_file(self, *_: object, **__: object) -> None:
        """No file that happens to lie in this folder configures it."""

    def initialize(self, argv: list[str] | None = None) -> None:
        super().initialize(argv or [])
        backend = self.backend
        assert isinstance(backend, QuotaBackend)
        backend.quota = self.quota
        self.prepare(backend)
        self.authenticator.people = People(self.quota.known)
        self.app.middlewares.append(in_words)
        self.app.middlewares.append(says_why_fewer)
        self.app.add_routes([web.get(f"{CLUSTER}/logs", logs)])


def configuration(settings: GatewaySettings, backend: type[QuotaBackend]) -> Config:
    """What of dask-gateway is set, and why (ARCHITECTURE §5)."""
    c = Config()
    c.DaskGateway.address = settings.address
    c.DaskGateway.authenticator_class = PeopleAuthenticator
    c.DaskGateway.backend_class = backend
    c.DaskGateway.log_level = settings.log_level
    c.PeopleAuthenticator.jupyterhub_api_url = settings.hub_api_url
    # It is never used: a person's own token says who they are.
    c.PeopleAuthenticator.jupyterhub_api_token = "none"
    c.PeopleAuthenticator.jupyterhub_service_name = SERVICE
    c.DBBackendBase.api_url = settings.api_url
    c.DBBackendBase.db_url = settings.database_url
    c.DBBackendBase.db_encrypt_keys = [base64.urlsafe_b64encode(settings.encryption_key).decode()]
    c.DBBackendBase.db_cluster_max_age = RECORDS_SECONDS
    # A restart of the gateway costs nobody their cluster, and a scheduler that computes may be late.
    c.DBBackendBase.stop_clusters_on_shutdown = False
    c.DBBackendBase.cluster_heartbeat_period = HEARTBEAT_SECONDS
    c.DBBackendBase.cluster_heartbeat_timeout = HEARTBEAT_TIMEOUT
    c.DBBackendBase.cluster_start_timeout = START_SECONDS
    c.DBBackendBase.worker_start_timeout = START_SECONDS
    c.DBBackendBase.cluster_status_period = STATUS_SECONDS
    c.DBBackendBase.worker_status_period = STATUS_SECONDS
    # The proxy is a sibling: it goes on while the gateway is started anew, and so do the connections through it.
    c.Proxy.externally_managed = True
    c.Proxy.gateway_url = settings.url
    c.Proxy.address = settings.proxy_http
    c.Proxy.tcp_address = settings.proxy_tcp
    c.Proxy.api_token = settings.proxy_token
    return c


def gateway(
    settings: GatewaySettings, quota: Quota, backend: type[QuotaBackend], prepare: Callable[[Any], None]
) -> Gateway:
    """The server, ready to `start()`. `prepare` gets the backend and hands it what its kind needs."""
    made = Gateway(config=configuration(settings, backend))
    made.quota, made.prepare = quota, prepare
    made.initialize([])
    return made


def become_proxy(settings: GatewaySettings) -> NoReturn:
    """Replace this process by the proxy before all schedulers."""
    proxy = Proxy(
        gateway_url=settings.url,
        address=settings.proxy_http,
        tcp_address=settings.proxy_tcp,
        api_token=settings.proxy_token,
    )
    command = proxy.get_start_command(is_child_process=False)
    os.execve(command[0], command, {**os.environ, "DASK_GATEWAY_PROXY_TOKEN": settings.proxy_token})


# -- what comes in --------------------------------------------------------------------------------------------------------


@web.middleware
async def in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Bodies are JSON objects of bounded size, and every answer that is no success is a sentence."""
    try:
        if request.method == "POST":
            _looked_at(request, await _object(request))
        _authorization(request)
        answer = await handler(request)
    except web.HTTPException as error:
        answer = _told(error.status, one_line(error.reason), error.headers)
    except ConnectionResetError:
        return web.Response(status=CLOSED)  # whoever asked is gone, as the proxy is once a minute
    except HubError as error:
        request.app["log"].warning("%s %s: %s", request.method, request.path, error)
        answer = _told(503, one_line(str(error)))
    if answer.status >= 400 and isinstance(answer, web.Response) and not answer.prepared:
        _with_reason(answer)
    return answer


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read() or b"{}")
    except web.HTTPRequestEntityTooLarge:
        raise
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(reason="The body is not JSON.") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(reason="The body must be a JSON object.")
    return body


def _looked_at(request: web.Request, body: Mapping[str, Any]) -> None:
    """Numbers of workers are numbers of workers."""
    path = _path(request)
    if path == f"{CLUSTER}/scale":
        _a_count(body.get("count"), "count")
    elif path == f"{CLUSTER}/adapt":
        for name in ("minimum", "maximum"):
            if body.get(name) is not None:
                _a_count(body[name], name)
        if not isinstance(body.get("active", True), bool):
            raise web.HTTPUnprocessableEntity(reason="active is true or false.")


def _a_count(value: object, name: str) -> None:
    if type(value) is not int or not 0 <= value <= LARGEST_COUNT:
        raise web.HTTPUnprocessableEntity(
            reason=f"{name} is a whole number of workers, from 0 to {LARGEST_COUNT}."
        )


def _authorization(request: web.Request) -> None:
    """dask-gateway splits this header without looking."""
    header = request.headers.get("Authorization")
    if header is not None and len(header.split(" ", 1)) != 2:
        raise web.HTTPUnauthorized(
            reason="The Authorization header names a kind and a token.",
            headers={"WWW-Authenticate": "jupyterhub"},
        )


def _path(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical


def _told(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> web.Response:
    kept = {
        name: value
        for name, value in (headers or {}).items()
        if name.lower() not in ("content-type", "content-length")
    }
    return web.json_response({"error": sentence}, status=status, headers=kept)


def _with_reason(answer: web.Response) -> None:
    """Clients show the reason of an answer where they do not read its body."""
    try:
        sentence = json.loads(answer.text or "{}").get("error")
    except (ValueError, AttributeError):
        return
    if isinstance(sentence, str) and sentence:
        answer.set_status(answer.status, one_line(sentence))


@web.middleware
async def says_why_fewer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whoever asks for more workers than come now is told how many do, and why: `{"ok": false, "msg": …}`."""
    answer = await handler(request)
    path = _path(request)
    grows = path in (f"{CLUSTER}/scale", f"{CLUSTER}/adapt")
    if not grows or request.method != "POST" or answer.status != 200 or not isinstance(answer, web.Response):
        return answer
    backend, name = request.app["backend"], request.match_info["cluster_name"]
    body, language = await request.json(), request.headers.get("Accept-Language", "")
    if path.endswith("/scale"):
        message = await backend.why_fewer(name, body["count"], language)
    elif body.get("active", True):
        message = await backend.why_not_up_to(name, body.get("maximum"), language)
    else:
        message = None
    return answer if message is None else web.json_response({"ok": False, "msg": message})


@api_handler(user_authenticated=True)
async def logs(request: web.Request) -> web.Response:
    """The ends of a cluster's logs, for its owner: also of one that could not start."""
    backend, name, user = request.app["backend"], request.match_info["cluster_name"], request["user"]
    cluster = await backend.get_cluster(name)
    if cluster is None or not user.has_permissions(cluster):
        raise web.HTTPNotFound(reason=f"You have no cluster {name}.")
    found = await backend.last_words(backend.db.get_cluster(name))
    return web.json_response({"name": name, "failed": cluster.status == ClusterStatus.FAILED, "logs": found})

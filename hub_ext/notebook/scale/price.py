"""What this server costs in GPU-hours per hour, as the desk says; None where no desk answers. (A cluster tells its own.)

| variable of the environment | what |
|---|---|
| `HANGANG_DESK_URL` | where the desk answers: `http://proxy:8000/services/desk` |
| `JUPYTERHUB_API_TOKEN`, `JUPYTERHUB_SERVER_NAME` | who this server is; the hub sets them |
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.parse import quote

from hub_ext.core.amounts import COST_UNITS_PER_GPU_SECOND

__all__ = ["price_of_this_server"]

ANSWER_SECONDS = 5.0
_ANSWER_BYTES = 1_000_000


def price_of_this_server(environ: Mapping[str, str] = os.environ) -> float | None:
    """GPU-hours that an hour of this server costs: 0 without a GPU, half where it is borrowed at half price."""
    name = environ.get("JUPYTERHUB_SERVER_NAME", "")
    answer = _ask(f"leases?server={quote(name, safe='')}", environ)
    items = answer.get("items") if isinstance(answer, Mapping) else None
    for item in items if isinstance(items, list) else ():
        if (
            isinstance(item, Mapping)
            and item.get("server", "") == name
            and item.get("kind", "server") == "server"
            and item.get("state") != "released"
        ):
            cost = item.get("cost")
            units = _number(cost.get("units_per_second")) if isinstance(cost, Mapping) else None
            return None if units is None else units / COST_UNITS_PER_GPU_SECOND
    return None


def _number(value: object) -> float | None:
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        else None
    )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token goes to the desk and nowhere else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def _ask(path: str, environ: Mapping[str, str]) -> Any:
    url, token = environ.get("HANGANG_DESK_URL", ""), environ.get("JUPYTERHUB_API_TOKEN", "")
    if not url or not token:
        return None
    headers = {"Authorization": f"token {token}", "Accept": "application/json"}
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}/api/v1/{path}", headers=headers)
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=ANSWER_SECONDS) as response:
            return json.loads(response.read(_ANSWER_BYTES))
    except (OSError, HTTPException, ValueError):
        return None

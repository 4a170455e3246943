"""What monitoring reads."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from hub_ext.desk.access import OPERATE
from hub_ext.desk.auth import caller_with, token_identity
from hub_ext.desk.desk import PREFIX
from hub_ext.desk.metrics import Metrics

router = APIRouter(include_in_schema=False)

READ_METRICS: Final = "read:metrics"
"""The hub's own scope for its metrics: one token reads both."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})


@router.get(f"{PREFIX}/metrics")
async def metrics(request: Request) -> Response:
    """For a token with the scope `read:metrics`, for an operator's with `custom:desk:operate`, and for whoever is on this very machine."""
    if not _from_this_machine(request):
        identity = await token_identity(request)
        if READ_METRICS not in identity.scopes:
            await caller_with(request, OPERATE)
    kept: Metrics = request.app.state.metrics
    body, content_type = kept.exposition()
    return Response(body, media_type=content_type)


def _from_this_machine(request: Request) -> bool:
    """Not through the proxy, which on one machine is a neighbour too and says for whom it asks."""
    direct = not any(
        name in request.headers for name in ("x-forwarded-for", "forwarded", "x-forwarded-proto")
    )
    return direct and request.client is not None and request.client.host in _LOOPBACK

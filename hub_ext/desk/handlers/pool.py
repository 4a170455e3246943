"""The page *pool*, for leads: who uses what below a pool, its hours, grants and requests."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from hub_ext.desk.auth import signed_in_lead
from hub_ext.desk.desk import API, PREFIX
from hub_ext.desk.errors import not_found
from hub_ext.desk.pool_facts import SPANS, PoolFacts, first_led, read_pool, span_of
from hub_ext.desk.rendering import desk_of, render
from hub_ext.desk.streaming import streamed_table
from hub_ext.desk.views_pool import GRANT_FIELDS, grant_rows, pool_page
from hub_ext.desk.visitor import Visitor

router = APIRouter(include_in_schema=False)
POOL = f"{PREFIX}/pool"
Leading = Annotated[Visitor, Depends(signed_in_lead)]


@router.get(POOL)
async def pool(request: Request, visitor: Leading) -> Response:
    facts = await _facts(request, visitor)
    given = request.query_params.get("page", "")
    page = pool_page(
        facts, visitor.say, int(given) if given.isascii() and given.isdecimal() and len(given) < 6 else 1
    )
    return render(request, visitor, "pool.html", page=page, spans=SPANS, usage=f"{API}/usage")


@router.get(f"{POOL}/grants.csv")
async def grants(request: Request, visitor: Leading) -> Response:
    facts = await _facts(request, visitor)
    name = f"grants-{facts.pool}"
    return await streamed_table(desk_of(request).admission, GRANT_FIELDS, [grant_rows(facts)], name=name)


async def _facts(request: Request, visitor: Visitor) -> PoolFacts:
    """Of the pool that the address names, else of the first that they lead; what is not theirs is not there."""
    desk = desk_of(request)
    name = request.query_params.get("pool") or first_led(visitor.access, visitor.policy)
    span = span_of(request.query_params.get("days"))
    facts = None
    if name is not None:
        facts = await desk.admission.in_thread(
            read_pool, desk.store, visitor.access, name, desk.clock.now(), span
        )
    if facts is None:
        raise not_found()
    return facts

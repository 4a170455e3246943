"""`/api/v1/pools` and `/api/v1/budgets`: what pools hold, use and have left, for programs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel

from hub_ext.desk.access import READ
from hub_ext.desk.auth import calls
from hub_ext.desk.desk import API
from hub_ext.desk.errors import bad_cursor, not_found
from hub_ext.desk.paging import LARGEST_LIMIT
from hub_ext.desk.pool_facts import pools_open_to, read_budgets, read_pools
from hub_ext.desk.rendering import desk_of
from hub_ext.desk.visitor import Caller

router = APIRouter(prefix=API, tags=["pools"])
Reader = Annotated[Caller, Depends(calls(READ))]
PoolName = Annotated[str, Path(min_length=1, max_length=255)]


class ResourceBody(BaseModel):
    """In base units: milli-GPU, milli-cores, MiB."""

    nominal: int
    subtree: int
    local: int
    used: int
    g: int
    available: int
    potential: int
    over: int


class PoolBody(BaseModel):
    name: str
    parent: str | None
    kind: str
    title: dict[str, str]
    leads: bool
    """Whether you answer for it."""
    share: int | str
    dominant: str | None
    resources: dict[str, ResourceBody]


class PoolPage(BaseModel):
    items: list[PoolBody]
    next: str | None


class GrantBody(BaseModel):
    id: str
    hours: float
    left: float
    until: datetime
    why: str


class BudgetBody(BaseModel):
    """In GPU-hours."""

    pool: str
    budget: str
    period: str
    person: str | None
    limit: float
    used: float
    committed: float
    left: float
    soft: float | None
    """From this fraction on people are warned."""
    soft_reached: bool
    starts: datetime
    renews: datetime
    grants: list[GrantBody]


class BudgetPage(BaseModel):
    items: list[BudgetBody]
    next: str | None


@router.get("/pools", response_model=PoolPage, summary="Pools that are open to you")
async def list_pools(
    request: Request,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=LARGEST_LIMIT)] = 100,
    cursor: Annotated[
        str | None, Query(max_length=255, description="The last pool of the page before")
    ] = None,
) -> Any:
    """Those you are a member of, and those you lead; operators all. In the order of the policy."""
    names = pools_open_to(caller.access, caller.policy)
    if cursor is not None and cursor not in names:
        raise bad_cursor()
    start = 0 if cursor is None else names.index(cursor) + 1
    shown = names[start : start + limit]
    items = await desk_of(request).admission.in_thread(
        read_pools, desk_of(request).store, caller.access, shown
    )
    return {"items": items, "next": shown[-1] if start + limit < len(names) else None}


@router.get("/pools/{name}", response_model=PoolBody, summary="One pool")
async def read_pool(request: Request, caller: Reader, name: PoolName) -> Any:
    if name not in pools_open_to(caller.access, caller.policy):
        raise not_found()
    found = await desk_of(request).admission.in_thread(
        read_pools, desk_of(request).store, caller.access, [name]
    )
    if not found:
        raise not_found()
    return found[0]


@router.get("/budgets", response_model=BudgetPage, summary="Budgets, and what is left of them")
async def list_budgets(
    request: Request,
    caller: Reader,
    pool: Annotated[str | None, Query(max_length=255)] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_LIMIT)] = 100,
    cursor: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Any:
    """Those that bind you, and the pools' own that you lead; nearest pools first. Outside a term there is none."""
    desk = desk_of(request)
    found = await desk.admission.in_thread(read_budgets, desk.store, caller.access, desk.clock.now())
    found = [one for one in found if pool is None or one["pool"] == pool]
    end = cursor + limit
    return {"items": found[cursor:end], "next": str(end) if end < len(found) else None}

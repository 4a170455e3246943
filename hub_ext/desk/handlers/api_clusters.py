"""`/api/v1/clusters` and `/cluster-profiles`: Dask clusters, how they stand, their end; and what could be started.

They are started, and made larger or smaller, through the gateway: with dask-gateway's client, from a notebook.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from hub_ext.desk.access import READ
from hub_ext.desk.auth import calls
from hub_ext.desk.clusters import ClusterFacts, extend_cluster, read_cluster, read_clusters
from hub_ext.desk.desk import API, Desk
from hub_ext.desk.errors import Problem, not_found
from hub_ext.desk.front_rules import is_cluster
from hub_ext.desk.handlers.api_leases import LONGEST_MINUTES, checked_cursor
from hub_ext.desk.mine import titles_at
from hub_ext.desk.paging import LARGEST_LIMIT, LONGEST_CURSOR
from hub_ext.desk.rendering import desk_of
from hub_ext.desk.views_cluster_api import ClusterBody, OffersBody, cluster_body, offers_body
from hub_ext.desk.visitor import Caller
from hub_ext.quota.codes import Ended
from hub_ext.quota.explain import explain
from hub_ext.quota.model import Policy

router = APIRouter(prefix=API, tags=["clusters"])
Reader = Annotated[Caller, Depends(calls(READ))]
Name = Annotated[str, Path(min_length=1, max_length=64)]
Belongs = Callable[[str, str], bool]


class ClusterPage(BaseModel):
    items: list[ClusterBody]
    next: str | None


class ExtendClusterBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    minutes: Annotated[int, Field(ge=1, le=LONGEST_MINUTES, description="To add, as far as the quota allows")]


@router.get(
    "/cluster-profiles", summary="The sizes of clusters that the caller may start, and how each stands now"
)
async def cluster_profiles(request: Request, caller: Reader) -> OffersBody:
    """One for each size and pool of theirs from which they may start it."""
    desk = desk_of(request)
    if desk.clusters is None:
        return OffersBody(items=[], budgets=[])
    menu = await desk.clusters.menu(caller.name)
    return offers_body(list(menu.offers), caller.say, titles_at(desk)(caller.policy))


@router.get("/clusters", summary="The caller's clusters, or those of a pool that they lead")
async def clusters(
    request: Request,
    caller: Reader,
    pool: Annotated[
        str | None, Query(max_length=255, description="Everybody's in this pool and below; for who leads it")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(max_length=LONGEST_CURSOR)] = None,
) -> ClusterPage:
    desk = desk_of(request)
    if pool is not None and not caller.access.leads(caller.policy, pool):
        raise not_found()
    after = checked_cursor(cursor)

    def belongs(policy: Policy) -> Belongs:
        if pool is None:
            return lambda person, _: person == caller.name
        below = frozenset(policy.subtree(pool)) & caller.access.leads_in(policy)
        return lambda _, of: of in below

    def read() -> tuple[list[ClusterFacts], str | None]:
        return read_clusters(desk.store, desk.clock.now(), titles_at(desk), belongs, limit=limit, after=after)

    found, following = await desk.admission.in_thread(read)
    return ClusterPage(items=[cluster_body(facts, caller.say) for facts in found], next=following)


@router.get("/clusters/{name}", summary="One cluster: the caller's, or one of a pool that they lead")
async def cluster(request: Request, caller: Reader, name: Name) -> ClusterBody:
    return cluster_body(await _seen(desk_of(request), caller, name), caller.say)


@router.delete(
    "/clusters/{name}", status_code=202, summary="End a cluster; it counts until what it runs is gone"
)
async def end(request: Request, caller: Reader, name: Name) -> Response:
    """Whoever started it, or an operator."""
    desk = desk_of(request)
    person = (await _seen(desk, caller, name)).of[0]
    if not caller.access.may_see_of(person):
        raise not_found()
    why = Ended.PERSON if person == caller.name else Ended.OPERATOR
    await desk.admission.end_cluster(name, caller.name, why.value)
    return Response(status_code=202)


@router.post(
    "/clusters/{name}/extend", summary="Let it run longer with its workers, as far as the quota allows"
)
async def extend(request: Request, caller: Reader, name: Name, wish: ExtendClusterBody) -> ClusterBody:
    desk = desk_of(request)
    if (await _seen(desk, caller, name)).of[0] != caller.name:
        raise not_found()
    done = await desk.admission.in_thread(
        extend_cluster, desk.store, desk.clock.now(), name, wish.minutes, caller.name
    )
    if done is None:
        raise not_found()
    extension, policy, now = done
    if extension.objection is not None and not extension.longer:
        objection = extension.objection
        told = explain(objection.code, objection.facts, caller.say, titles=titles_at(desk)(policy), now=now)
        raise Problem(409, objection.code.value, str(told), **objection.facts)
    return cluster_body(await _seen(desk, caller, name), caller.say)


async def _seen(desk: Desk, caller: Caller, name: str) -> ClusterFacts:
    """A cluster that is theirs to see. Raises Problem for any other, and where there is none."""
    if not is_cluster(name):
        raise not_found()
    found = await desk.admission.in_thread(read_cluster, desk.store, desk.clock.now(), titles_at(desk), name)
    if found is None:
        raise not_found()
    person, pool, _ = found.of
    if not caller.access.may_see_of(person) and not caller.access.leads(caller.policy, pool):
        raise not_found()
    return found

"""`/api/v1/machines`, `/queue`, `/decisions`, `/policies` and `/simulate`: the centre, for operators' programs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Query, Request
from pydantic import BaseModel, Field

from hub_ext.core.errors import Fault
from hub_ext.desk.access import OPERATE
from hub_ext.desk.auth import calls
from hub_ext.desk.centre import read_entries, read_machines, read_policy, read_versions, read_waiting
from hub_ext.desk.desk import API
from hub_ext.desk.errors import Problem, bad_cursor, not_found
from hub_ext.desk.records import LARGEST_PAGE, Cursor
from hub_ext.desk.rendering import desk_of
from hub_ext.desk.views_centre import standing_of
from hub_ext.desk.views_decisions import Asked
from hub_ext.desk.visitor import Caller
from hub_ext.desk.what_if import LONGEST_TEXT, Busy, TookTooLong, player_of
from hub_ext.quota.ledger import EntryKind

router = APIRouter(prefix=API, tags=["centre"])
Operator = Annotated[Caller, Depends(calls(OPERATE))]
Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE)]
CursorText = Annotated[str | None, Query(max_length=255, description="`next` of the page before")]
Name = Annotated[str, Query(max_length=255)]


class HolderBody(BaseModel):
    """A lease on a machine; amounts in base units (milli-GPU, milli-cores, MiB)."""

    lease: str
    person: str
    pool: str
    kind: str
    amounts: dict[str, int]
    standing: Literal["guaranteed", "borrowed", "ending"]
    ends_at: datetime
    devices: list[str]


class MachineBody(BaseModel):
    name: str
    takes_new: bool
    capacity: dict[str, int]
    used: dict[str, int]
    leases: list[HolderBody]


class MachinePage(BaseModel):
    items: list[MachineBody]
    next: str | None


class WaitingBody(BaseModel):
    id: str
    place: int | None
    person: str
    pool: str
    kind: str
    profile: str | None
    server: str
    amounts: dict[str, int]
    wanted: int
    code: str
    facts: dict[str, Any]
    made_at: datetime
    eta: datetime | None
    eta_kind: Literal["latest", "expected"] | None
    put_back: bool
    taken_back_for_it: int


class WaitingPage(BaseModel):
    items: list[WaitingBody]
    next: str | None


class EntryBody(BaseModel):
    number: int
    at: datetime
    kind: EntryKind
    why: str
    lease: str | None
    pool: str | None
    person: str | None
    who: str
    facts: dict[str, Any]


class EntryPage(BaseModel):
    items: list[EntryBody]
    next: str | None


class VersionBody(BaseModel):
    number: int
    at: datetime
    who: str
    in_force: bool


class VersionPage(BaseModel):
    items: list[VersionBody]
    next: str | None


class PolicyBody(VersionBody):
    text: str


class ScenarioBody(BaseModel):
    scenario: Annotated[str, Field(max_length=LONGEST_TEXT)]
    """The YAML document of `hub-ext simulate`, with the policy in it."""


class OutcomeBody(BaseModel):
    """As `hub-ext simulate --json` writes it."""

    decisions: list[dict[str, Any]]
    pools: dict[str, dict[str, Any]]
    budgets: list[dict[str, Any]]


@router.get("/machines", response_model=MachinePage, summary="Machines with GPUs, and what runs on them")
async def list_machines(
    request: Request, caller: Operator, limit: Limit = 100, cursor: CursorText = None
) -> Any:
    desk = desk_of(request)
    policy, machines = await desk.admission.in_thread(read_machines, desk.store, cursor or "", limit + 1)
    items = [
        {
            "name": node.name,
            "takes_new": node.ready,
            "capacity": node.capacity,
            "used": {name: sum(one.amounts.get(name, 0) for one in held) for name in node.capacity},
            "leases": [
                {
                    "lease": one.id,
                    "person": one.person,
                    "pool": one.pool,
                    "kind": one.kind,
                    "amounts": one.amounts,
                    "standing": standing_of(one),
                    "ends_at": policy.local(one.ends_at),
                    "devices": one.devices,
                }
                for one in held
            ],
        }
        for node, held in machines
    ]
    return _page(items, limit, lambda item: str(item["name"]))


@router.get("/queue", response_model=WaitingPage, summary="Everybody who waits, in order")
async def list_queue(
    request: Request,
    caller: Operator,
    pool: Annotated[Name, Query(description="This pool and all below it")] = "",
    person: Name = "",
    code: Name = "",
    limit: Limit = 100,
    cursor: CursorText = None,
) -> Any:
    """By place; the order moves while people come and go, so that one may be met twice between two pages."""
    desk = desk_of(request)
    if pool and pool not in caller.policy.pools:
        return {"items": [], "next": None}
    start = _number(cursor) or 0
    tickets = await desk.admission.in_thread(read_waiting, desk.store, pool, person, code, start, limit + 1)
    items = [
        {
            "id": one.id,
            "place": one.place,
            "person": one.person,
            "pool": one.pool,
            "kind": one.kind,
            "profile": one.profile,
            "server": one.server,
            "amounts": one.amounts,
            "wanted": one.wanted,
            "code": one.code,
            "facts": one.facts,
            "made_at": caller.policy.local(one.made_at),
            "eta": None if one.eta_at is None else caller.policy.local(one.eta_at),
            "eta_kind": one.eta_kind,
            "put_back": one.put_back,
            "taken_back_for_it": one.reclaims,
        }
        for one in tickets
    ]
    return {"items": items[:limit], "next": str(start + limit) if len(items) > limit else None}


@router.get("/decisions", response_model=EntryPage, summary="What the ledger wrote down, the newest first")
async def list_decisions(
    request: Request,
    caller: Operator,
    person: Name = "",
    pool: Name = "",
    kind: Annotated[EntryKind | None, Query(description="Without it: everything but accrued hours")] = None,
    code: Name = "",
    lease: Name = "",
    first: Annotated[str, Query(alias="from", max_length=10, description="A day, included")] = "",
    last: Annotated[str, Query(alias="to", max_length=10, description="A day, included")] = "",
    limit: Limit = 100,
    cursor: CursorText = None,
) -> Any:
    desk = desk_of(request)
    asked = Asked(person, pool, kind.value if kind else "", code, lease, first, last)
    after = None if cursor is None else Cursor.parse(cursor)
    if cursor is not None and after is None:
        raise bad_cursor()
    policy, entries = await desk.admission.in_thread(read_entries, desk.store, asked, after, limit + 1)
    items = [
        {
            "number": number,
            "at": policy.local(entry.at),
            "kind": entry.kind,
            "why": entry.why,
            "lease": entry.lease,
            "pool": entry.pool,
            "person": entry.person,
            "who": entry.who,
            "facts": entry.facts,
        }
        for number, entry in entries[:limit]
    ]
    further = None
    if len(entries) > limit:
        number, entry = entries[limit - 1]
        further = str(Cursor(entry.at, number))
    return {"items": items, "next": further}


@router.get("/policies", response_model=VersionPage, summary="Policies that were in force, the newest first")
async def list_policies(
    request: Request, caller: Operator, limit: Limit = 100, cursor: CursorText = None
) -> Any:
    desk = desk_of(request)
    newest, versions = await desk.admission.in_thread(read_versions, desk.store, _number(cursor), limit + 1)
    items = [
        {
            "number": one.number,
            "at": caller.policy.local(one.at),
            "who": one.who,
            "in_force": one.number == newest,
        }
        for one in versions
    ]
    return _page(items, limit, lambda item: str(item["number"]))


@router.get("/policies/{number}", response_model=PolicyBody, summary="One policy, with its text")
async def read_one_policy(request: Request, caller: Operator, number: int) -> Any:
    desk = desk_of(request)
    if not 0 < number < 1 << 31:
        raise not_found()
    facts = await desk.admission.in_thread(read_policy, desk.store, desk.clock.now(), number)
    if facts is None:
        raise not_found()
    return {
        "number": facts.shown.number,
        "at": caller.policy.local(facts.shown.at),
        "who": facts.shown.who,
        "in_force": facts.versions[0].number == facts.shown.number,
        "text": facts.text,
    }


@router.post("/simulate", response_model=OutcomeBody, summary="Play a scenario; nothing real is touched")
async def simulate(request: Request, caller: Operator, body: Annotated[ScenarioBody, Body()]) -> Any:
    """A scenario with faults is answered 422 with every fault by line; one that takes too long, too."""
    try:
        answer = await player_of(request.app.state).answer(body.scenario)
    except Busy:
        raise Problem(
            503,
            "busy",
            lambda say: say("Another scenario is being played. Try again in some seconds."),
        ) from None
    except TookTooLong as error:
        raise Problem(422, "took-too-long", str(error)) from None
    if answer.outcome is None:
        raise _faulty(answer.faults)
    return answer.outcome


def _faulty(faults: Any) -> Problem:
    found: list[Fault] = list(faults)
    return Problem(
        422,
        "faulty-scenario",
        "\n".join(str(fault) for fault in found),
        faults=[{"line": fault.line, "what": fault.what, "instead": fault.instead} for fault in found],
    )


def _number(cursor: str | None) -> int | None:
    """Raises Problem for a cursor that is no number; None without one."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 10):
        raise bad_cursor()
    return int(cursor)


def _page(items: list[dict[str, Any]], limit: int, place: Any) -> dict[str, Any]:
    """One more than the page was read, where there is more."""
    return {"items": items[:limit], "next": place(items[limit - 1]) if len(items) > limit else None}

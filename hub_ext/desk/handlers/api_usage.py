"""`GET /api/v1/usage`: what was used, for programs and for spreadsheets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from hub_ext.desk.access import READ
from hub_ext.desk.auth import calls
from hub_ext.desk.desk import API, Desk
from hub_ext.desk.errors import Problem, bad_cursor
from hub_ext.desk.rendering import desk_of
from hub_ext.desk.streaming import streamed, streamed_table
from hub_ext.desk.usage import SCHEMA, Row, names
from hub_ext.desk.usage_report import LONGEST_DAYS, By, all_pages, read_page, sacct_pages, scope_for
from hub_ext.desk.visitor import Caller
from hub_ext.quota.budget import local_date
from hub_ext.quota.ports_hours import UsageScope

router = APIRouter(prefix=API, tags=["usage"])
Reader = Annotated[Caller, Depends(calls(READ))]
Name = Annotated[str | None, Query(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f]+$")]
"""Of a person or pool."""
MOST_ROWS = 1000


class UsagePage(BaseModel):
    """One page of a report; `next` is the cursor of the page after it, null where there is none."""

    schema_name: str = Field(alias="schema", serialization_alias="schema")
    by: str
    first: date = Field(serialization_alias="from")
    last: date = Field(serialization_alias="to")
    timezone: str
    items: list[dict[str, Any]]
    next: str | None


@router.get(
    "/usage",
    response_model=UsagePage,
    summary="GPU-hours by lease, day, pool or person",
    responses={
        200: {
            "content": {"text/csv": {}, "application/jsonl": {}, "text/plain": {}},
            "description": "`json` comes in pages; `csv`, `jsonl` and `sacct` are the whole report, sent as it is read.",
        }
    },
)
async def usage(
    request: Request,
    caller: Reader,
    by: By = "lease",
    first: Annotated[
        date | None, Query(alias="from", description="First local date; the first of this month")
    ] = None,
    last: Annotated[date | None, Query(alias="to", description="Last local date, included; today")] = None,
    person: Name = None,
    pool: Annotated[Name, Query(description="With everything below it")] = None,
    form: Annotated[Literal["json", "csv", "jsonl", "sacct"], Query(alias="format")] = "json",
    mark: Annotated[bool, Query(description="Begin a CSV with a byte order mark, as Excel needs it")] = False,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
    cursor: Annotated[str | None, Query(max_length=1000)] = None,
) -> Response:
    """Everybody gets their own use; leads that of the pools they lead, and operators all.

    `sacct`: every lease that ended in this time as one line of Slurm's `sacct --parsable2`, as Open XDMoD's shredder
    reads it; `by` says nothing there.
    """
    desk = desk_of(request)
    first, last = _days(desk, caller, first, last)
    scope = scope_for(caller.access, caller.policy, first, last, person=person, pool=pool)
    name = f"usage-{by}-{first}-{last}"
    match form:
        case "csv":
            pages = all_pages(desk.store, scope, by)
            return await streamed_table(desk.admission, names(by), pages, name=name, mark=mark)
        case "jsonl":
            lines = _json_lines(all_pages(desk.store, scope, by))
            return await streamed(desk.admission, lines, media_type="application/jsonl", name=f"{name}.jsonl")
        case "sacct":
            jobs = ("".join(f"{line}\n" for line in page) for page in sacct_pages(desk.store, scope))
            return await streamed(
                desk.admission,
                jobs,
                media_type="text/plain; charset=utf-8",
                name=f"sacct-{first}-{last}.log",
            )
        case "json":
            return await _page(desk, caller, scope, by, cursor, limit)


async def _page(
    desk: Desk, caller: Caller, scope: UsageScope, by: By, cursor: str | None, limit: int
) -> Response:
    def read() -> Response:
        try:
            page = read_page(desk.store, scope, by, cursor=cursor, limit=limit)
        except ValueError:
            raise bad_cursor() from None
        body = UsagePage(
            schema=SCHEMA,
            by=by,
            first=scope.first,
            last=scope.last,
            timezone=caller.policy.timezone.key,
            items=[dict(row) for row in page.rows],
            next=page.further,
        )
        return Response(
            body.model_dump_json(by_alias=True),
            media_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    return await desk.admission.in_thread(read)


def _days(desk: Desk, caller: Caller, first: date | None, last: date | None) -> tuple[date, date]:
    """Both local dates. Raises Problem where they are the wrong way round, or too far apart."""
    today = local_date(desk.clock.now(), caller.policy.timezone)
    last = last or (today if first is None or first <= today else first)
    first = first or last.replace(day=1)
    if last < first:
        raise Problem(
            400,
            "dates-reversed",
            lambda say: say("The first day lies after the last. Turn them round."),
            first=first,
            last=last,
        )
    if last - first >= timedelta(days=LONGEST_DAYS):
        raise Problem(
            400,
            "too-many-days",
            lambda say: say("One report holds {count} days at most. Ask for several.", count=LONGEST_DAYS),
            days=(last - first).days + 1,
            most=LONGEST_DAYS,
        )
    return first, last


def _json_lines(pages: Iterator[list[Row]]) -> Iterator[str]:
    for rows in pages:
        yield "".join(f"{json.dumps(dict(row), ensure_ascii=False)}\n" for row in rows)

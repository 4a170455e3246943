"""`/api/v1/reservations`: amounts held for a pool in a window of time, for programs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field

from hub_ext.core.amounts import Amount, is_gpu, parse_amount
from hub_ext.core.clock import Instant, instant_of
from hub_ext.core.errors import BadInput
from hub_ext.desk.access import LEAD, READ
from hub_ext.desk.auth import calls
from hub_ext.desk.desk import API, Desk
from hub_ext.desk.errors import Problem, not_found
from hub_ext.desk.handlers.api_leases import checked_cursor
from hub_ext.desk.paging import LARGEST_LIMIT, LONGEST_CURSOR, one_page
from hub_ext.desk.rendering import desk_of
from hub_ext.desk.reservations import (
    Counts,
    Draft,
    NotTheirs,
    Objection,
    Reservations,
    Standing,
    TooFar,
    TooMany,
)
from hub_ext.desk.visitor import Caller
from hub_ext.language import Speaker
from hub_ext.quota.calendar import Red
from hub_ext.quota.model import Policy, Reservation

router = APIRouter(prefix=f"{API}/reservations", tags=["reservations"])
Reader = Annotated[Caller, Depends(calls(READ))]
Lead = Annotated[Caller, Depends(calls(LEAD))]
ReservationId = Annotated[str, Path(min_length=1, max_length=64)]
Quantity = Annotated[str, Field(max_length=40)] | int | float


class NewReservation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pool: Annotated[str, Field(max_length=255)]
    amounts: Annotated[
        dict[Annotated[str, Field(max_length=255)], Quantity],
        Field(
            min_length=1, max_length=50, description='As in the policy: {"gpu.h200": 4, "memory": "512Gi"}'
        ),
    ]
    start: datetime
    end: Annotated[datetime, Field(description="Not included. Without an offset both are the centre's time.")]
    title: Annotated[str, Field(max_length=200)] = ""


class ReservationBody(BaseModel):
    """Amounts in base units: milli-GPU, milli-cores, MiB."""

    id: str
    pool: str
    title: str
    amounts: dict[str, int]
    start: datetime
    end: datetime
    counts: bool
    """Whether it holds anything; if not, it waits to be approved."""
    shrunk_to: dict[str, int] | None
    """What was in use 20 minutes after its start: from then on only that is held."""
    made_by: str | None
    approved_by: str | None
    """Told to those who lead the pool."""
    made_at: datetime


class StandingBody(ReservationBody):
    approver: str | None = Field(description="The pool whose leads, or those above it, have to agree")


class ReservationPage(BaseModel):
    items: list[ReservationBody]
    next: str | None


@router.get("", response_model=ReservationPage, summary="Reservations of the pools that are open to you")
async def list_reservations(
    request: Request,
    caller: Reader,
    pool: Annotated[str | None, Query(max_length=255)] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(max_length=LONGEST_CURSOR)] = None,
) -> Any:
    """Those that are not over, the first to begin first."""
    after, desk = checked_cursor(cursor), desk_of(request)
    policy, found = await desk.admission.in_thread(Reservations(desk.admission).seen, caller.access, pool)
    page, following = one_page(found, lambda one: (one.start, one.id), limit, after)
    return {"items": [_body(one, caller, policy) for one in page], "next": following}


@router.get("/{reservation_id}", response_model=StandingBody, summary="One reservation")
async def read_reservation(request: Request, caller: Reader, reservation_id: ReservationId) -> Any:
    desk = desk_of(request)
    found = await desk.admission.in_thread(Reservations(desk.admission).one, caller.access, reservation_id)
    return _answer(found, caller, desk)


@router.post(
    "",
    response_model=StandingBody,
    status_code=status.HTTP_201_CREATED,
    summary="Reserve for a pool you lead",
)
async def reserve(request: Request, response: Response, caller: Lead, body: NewReservation) -> Any:
    """Within the guarantee of the pool's home it counts at once; beyond that it waits to be approved.

    What does not fit is answered 409 with the nearest times that would.
    """
    desk, policy = desk_of(request), caller.policy
    if body.pool not in caller.leads:
        raise not_found()
    draft = Draft(
        pool=body.pool,
        amounts={name: _amount(policy, name, value) for name, value in body.amounts.items()},
        start=_instant(body.start, policy),
        end=_instant(body.end, policy),
        title=body.title,
    )
    outcome = await desk.admission.in_thread(Reservations(desk.admission).ask, caller.access, draft)
    shown = _answer(outcome, caller, desk)
    response.headers["Location"] = f"{API}/reservations/{shown['id']}"
    return shown


@router.post("/{reservation_id}/approve", response_model=StandingBody, summary="Let a reservation count")
async def approve(request: Request, caller: Lead, reservation_id: ReservationId) -> Any:
    """For whoever leads the pool that has to agree, or one above it."""
    desk = desk_of(request)
    reservations = Reservations(desk.admission)
    outcome = await desk.admission.in_thread(reservations.approve, caller.access, reservation_id)
    return _answer(outcome, caller, desk)


@router.delete("/{reservation_id}", status_code=204, summary="Give a reservation of a pool you lead up")
async def give_up(request: Request, caller: Lead, reservation_id: ReservationId) -> Response:
    """What runs inside it goes on as ordinary leases."""
    desk = desk_of(request)
    done = await desk.admission.in_thread(Reservations(desk.admission).give_up, caller.access, reservation_id)
    if done is None:
        raise not_found()
    if not done:
        raise Problem(
            403, "not-yours", lambda say: say("Whoever leads the pool of this reservation may give it up.")
        )
    return Response(status_code=204)


def _answer(outcome: Standing | Objection | None, caller: Caller, desk: Desk) -> dict[str, Any]:
    if outcome is None:
        raise not_found()
    if not isinstance(outcome, Standing):
        raise _problem(outcome, caller.policy, desk.clock.now())
    return _body(outcome.reservation, caller, caller.policy) | {"approver": outcome.approver}


def _body(reservation: Reservation, caller: Caller, policy: Policy) -> dict[str, Any]:
    leads = caller.operates or reservation.pool in caller.leads
    return {
        "id": reservation.id,
        "pool": reservation.pool,
        "title": reservation.title,
        "amounts": reservation.amounts,
        "start": policy.local(reservation.start),
        "end": policy.local(reservation.end),
        "counts": reservation.approved,
        "shrunk_to": reservation.shrunk_to,
        "made_by": reservation.made_by if leads else None,
        "approved_by": (reservation.approved_by or None) if leads else None,
        "made_at": policy.local(reservation.made_at),
    }


def _problem(objection: Objection, policy: Policy, now: Instant) -> Problem:
    match objection:
        case Red(before, after):
            times = {"before": before, "after": after}
            facts = {name: None if at is None else policy.local(at) for name, at in times.items()}
            return Problem(409, "does-not-fit", lambda say: _does_not_fit(say, objection, now), **facts)
        case TooMany(pool):
            return Problem(
                409,
                "too-many-reservations",
                lambda say: say(
                    "{pool} has as many reservations ahead as one pool may have. Give one up first.",
                    pool=_title(say, policy, pool),
                ),
                pool=pool,
            )
        case TooFar(latest):
            return Problem(
                409,
                "too-far-ahead",
                lambda say: say("Nothing can be reserved beyond {time}.", time=say.moment(latest, now)),
                latest=policy.local(latest),
            )
        case NotTheirs(approver):
            return Problem(
                403,
                "not-yours-to-approve",
                lambda say: say(
                    "Whoever leads {pool}, or a pool above it, has to agree to this.",
                    pool=_title(say, policy, approver),
                ),
                approver=approver,
            )
        case Counts():
            return Problem(409, "counts-already", lambda say: say("This reservation counts already."))


def _does_not_fit(say: Speaker, red: Red, now: Instant) -> str:
    before, after = (None if at is None else say.moment(at, now) for at in (red.before, red.after))
    if before is not None and after is not None:
        return say(
            "This does not fit at that time. It would from {before}, or from {after}.",
            before=before,
            after=after,
        )
    if before is not None or after is not None:
        return say("This does not fit at that time. It would from {time}.", time=before or after)
    return say("This does not fit at that time, nor at any other that is known. Reserve less.")


def _title(say: Speaker, policy: Policy, pool: str) -> str:
    return say.text(policy.pools[pool].title if pool in policy.pools else {}, pool)


def _amount(policy: Policy, resource: str, value: str | float) -> Amount:
    """Raises BadInput for what is no resource of this centre."""
    known: Mapping[str, object] = policy.gpu_classes
    if resource not in ("cpu", "memory") and not (
        is_gpu(resource) and resource.removeprefix("gpu.") in known
    ):
        names = ", ".join([*(f"gpu.{name}" for name in known), "cpu", "memory"])
        raise BadInput(f"There is no resource {resource!r} to reserve; there are {names}")
    return parse_amount(resource, value, rounding="up")


def _instant(time: datetime, policy: Policy) -> Instant:
    return instant_of(time if time.tzinfo else time.replace(tzinfo=policy.timezone))

"""Requests for hours as rows, for files and the API; read page by page."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from hub_ext.core.clock import Instant
from hub_ext.desk.access import Access
from hub_ext.desk.tables_csv import Cell
from hub_ext.desk.usage import gpu_hours
from hub_ext.quota.model import HoursRequest, Policy, RequestState
from hub_ext.quota.ports import Store, Transaction
from hub_ext.quota.ports_hours import Place

REQUEST_FIELDS: Final = (
    "id",
    "pool",
    "budget",
    "person",
    "hours",
    "until",
    "why",
    "made_at",
    "made_by",
    "state",
    "answered_at",
    "answered_by",
    "answer",
    "granted_hours",
    "granted_until",
    "grant",
)
PAGE: Final = 1000


def requests_seen(
    txn: Transaction,
    access: Access,
    *,
    states: Collection[RequestState] | None = None,
    before: Place | None = None,
    limit: int = PAGE,
) -> list[HoursRequest]:
    """What this person may see, the newest first: their own, and those of the pools that they lead."""
    if access.operates:
        return txn.requests(states=states, before=before, limit=limit)
    leads = access.leads_in(txn.policy)
    return txn.requests(pools=leads, made_by=access.person.name, states=states, before=before, limit=limit)


def request_rows(txn: Transaction, found: Collection[HoursRequest]) -> list[dict[str, Cell]]:
    pools = {request.pool for request in found}
    grants = {grant.id: grant for grant in txn.ledger(pools).grants} if pools else {}
    rows = []
    for request in found:
        grant = grants.get(request.grant or "")
        rows.append(
            request_row(request, txn.policy)
            | {
                "granted_hours": None if grant is None else gpu_hours(grant.units),
                "granted_until": None if grant is None else _iso(grant.until, txn.policy),
                "grant": request.grant,
            }
        )
    return rows


def request_row(request: HoursRequest, policy: Policy) -> dict[str, Any]:
    return {
        "id": request.id,
        "pool": request.pool,
        "budget": request.budget,
        "person": request.person or None,
        "hours": gpu_hours(request.units),
        "until": _iso(request.until, policy),
        "why": request.why,
        "made_at": _iso(request.made_at, policy),
        "made_by": request.made_by,
        "state": request.state.value,
        "answered_at": _iso(request.answered_at, policy),
        "answered_by": request.answered_by or None,
        "answer": request.answer,
    }


def all_requests(store: Store, access: Access) -> Iterator[list[dict[str, Cell]]]:
    before: Place | None = None
    while True:
        with store.reading() as txn:
            found = requests_seen(txn, access, before=before)
            rows = request_rows(txn, found)
        yield rows
        if len(found) < PAGE:
            return
        before = (found[-1].made_at, found[-1].id)


def _iso(instant: Instant | None, policy: Policy) -> str | None:
    return None if instant is None else policy.local(instant).isoformat()

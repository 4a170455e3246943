"""What came of a scenario, as data: every decision and change in order, and how the pools stand at its end. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hub_ext.core.errors import Fault
from hub_ext.desk.what_if import Answer
from hub_ext.language import Speaker

MOST_SHOWN: Final = 500
"""So many decisions stand on the page; all of them are in the download."""


@dataclass(frozen=True, slots=True)
class DecisionLine:
    at: str
    id: str
    kind: str
    """For a chip: now, borrowed, wait, refused; empty for a change."""
    what: str
    code: str
    how: str
    until: str


@dataclass(frozen=True, slots=True)
class PoolLine:
    pool: str
    resource: str
    used: str
    quota: str
    free: str
    over: bool


@dataclass(frozen=True, slots=True)
class WhatIfPage:
    text: str
    played: bool
    faults: tuple[Fault, ...]
    summary: str
    decisions: tuple[DecisionLine, ...]
    left_out: int
    pools: tuple[PoolLine, ...]


def what_if_page(text: str, answer: Answer | None, say: Speaker) -> WhatIfPage:
    outcome: Mapping[str, Any] = (answer.outcome if answer else None) or {}
    found: Sequence[Mapping[str, Any]] = outcome.get("decisions", ())
    return WhatIfPage(
        text=text,
        played=answer is not None and answer.outcome is not None,
        faults=tuple(answer.faults) if answer else (),
        summary=_summary(found, say) if outcome else "",
        decisions=tuple(_line(entry, say) for entry in found[:MOST_SHOWN]),
        left_out=max(0, len(found) - MOST_SHOWN),
        pools=tuple(_pools(outcome.get("pools", {}), say)),
    )


def _line(entry: Mapping[str, Any], say: Speaker) -> DecisionLine:
    verdict = entry.get("verdict")
    code = entry.get("code") or ""
    ends = entry.get("ends_at")
    return DecisionLine(
        at=_clock(entry["at"]),
        id=str(entry["id"]),
        kind=_kind(entry),
        what=verdict_title(verdict, say) if verdict else change_title(str(entry["change"]), say),
        code=str(code),
        how=", ".join(_how(entry, say)),
        until=_clock(ends) if ends else "",
    )


def _kind(entry: Mapping[str, Any]) -> str:
    match entry.get("verdict"):
        case "admit":
            return "now" if entry.get("guaranteed") else "borrowed"
        case "wait":
            return "wait"
        case "refuse":
            return "refused"
        case _:
            return ""


def verdict_title(verdict: str, say: Speaker) -> str:
    return {"admit": say("may start"), "wait": say("waits"), "refuse": say("is refused")}.get(
        verdict, verdict
    )


def change_title(change: str, say: Speaker) -> str:
    return {
        "admitted": say("its turn came"),
        "noticed": say("notice given"),
        "withdrawn": say("notice withdrawn"),
        "stopped": say("stopped"),
        "expired": say("expired"),
        "promoted": say("became guaranteed"),
        "extended": say("extended"),
    }.get(change, change)


def _how(entry: Mapping[str, Any], say: Speaker) -> Iterator[str]:
    if entry.get("guaranteed"):
        yield say("guaranteed")
    elif entry.get("lender"):
        yield say("borrowed from {pool}", pool=entry["lender"])
    if entry.get("position") is not None:
        yield say("place {place}", place=entry["position"])
    eta = entry.get("eta")
    if isinstance(eta, Mapping) and eta.get("at"):
        time = _clock(eta["at"])
        yield (
            say("at the latest {time}", time=time)
            if eta.get("kind") == "latest"
            else say("expected {time}", time=time)
        )
    if entry.get("reclaims"):
        yield say("takes back {leases}", leases=", ".join(str(lease) for lease in entry["reclaims"]))


def _pools(pools: Mapping[str, Any], say: Speaker) -> Iterator[PoolLine]:
    """Every pool and resource of which any is used or owned."""
    for name, numbers in pools.items():
        for resource, found in numbers["resources"].items():
            if not (found["used"] or found["subtree"]):
                continue
            yield PoolLine(
                pool=name,
                resource=say.resource(resource),
                used=say.amount(resource, found["used"]),
                quota=say.amount(resource, found["subtree"]),
                free=say.amount(resource, max(0, found["available"])),
                over=found["over"] > 0,
            )


def _summary(found: Sequence[Mapping[str, Any]], say: Speaker) -> str:
    counts = [
        (verdict, sum(entry.get("verdict") == verdict for entry in found))
        for verdict in ("admit", "wait", "refuse")
    ]
    parts = [f"{verdict_title(verdict, say)}: {count}" for verdict, count in counts if count]
    return " · ".join(parts) or say("Nothing was asked for.")


def _clock(iso: str) -> str:
    """The time with its date, in the scenario's own offset."""
    return f"{iso[:10]} {iso[11:19]}"

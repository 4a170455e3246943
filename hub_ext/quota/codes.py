"""What every code of a decision means: its verdicts, and the facts that come with it, with their units; and why
leases end.

`docs/reference/codes.md` is made from this table, and the tests of `explain.py` draw their facts from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hub_ext.core.decision import Code


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact of a code: its unit and meaning. An optional fact may be absent or null."""

    unit: str
    meaning: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class CodeEntry:
    """What a code means, which verdicts bear it, and the facts that come with it."""

    verdicts: tuple[str, ...]
    meaning: str
    facts: Mapping[str, Fact]


_POOL: Final = Fact("name of a pool", "where the server would run")
_PERSON: Final = Fact("name of a person", "who asks")
_RESOURCE: Final = Fact("name of a resource", "what is short")
_ASKED: Final = Fact("base units of the resource", "what the ask needs")
_ALL_ASKED: Final = Fact("base units by resource", "everything the ask needs")
_KEY: Final = Fact("name of a resource, `servers` or `dask-workers`", "what the cap counts")
_CAP_POOL: Final = Fact("name of a pool", "the pool that states the cap")
_FIRST_END: Final = Fact(
    "time", "when the first lease that holds some of it ends; null where none does", optional=True
)
_BUDGET: Final[Mapping[str, Fact]] = {
    "kind": Fact("`budget`", "tells these facts from other kinds of limits", optional=True),
    "pool": Fact("name of a pool", "the pool that states the budget"),
    "period": Fact("`day` … `year`, or FROM/TO of a term", "the budget's period"),
    "budget_person": Fact(
        "name of a person", "whose budget it is; null where it is the whole pool's", optional=True
    ),
    "limit": Fact("GPU-seconds", "hours of the period, with what was carried in and grants"),
    "used": Fact("GPU-seconds", "what has accrued"),
    "committed": Fact("GPU-seconds", "what running leases may still accrue in the period"),
    "left": Fact("GPU-seconds", "limit − used − committed"),
    "needed": Fact("GPU-seconds", "what the shortest start costs; null outside a term", optional=True),
    "until": Fact("time", "the period's end; null outside a term", optional=True),
    "renews": Fact("time", "when the next period with hours begins; null where there is none", optional=True),
}

CODES: Final[Mapping[Code, CodeEntry]] = {
    Code.NOT_A_MEMBER: CodeEntry(
        ("refuse",),
        "The person is not a member of the pool they ask for, or there is no such pool.",
        {
            "person": _PERSON,
            "pool": _POOL,
            "pools": Fact("names of pools", "the pools the person is a member of"),
        },
    ),
    Code.PROFILE_NOT_ALLOWED: CodeEntry(
        ("refuse",),
        "The profile is not among those the person may start.",
        {
            "person": _PERSON,
            "pool": _POOL,
            "profile": Fact("name of a profile", "what was asked for", optional=True),
        },
    ),
    Code.TOO_BIG_FOR_POOL: CodeEntry(
        ("refuse",),
        "More than the pool could have with everything idle and all borrowing used.",
        {
            "pool": _POOL,
            "resource": _RESOURCE,
            "asked": _ASKED,
            "potential": Fact("base units of the resource", "the most the pool can ever have"),
        },
    ),
    Code.TOO_BIG_FOR_PERSON: CodeEntry(
        ("refuse",),
        "More than a person's cap allows, even with nothing else running.",
        {
            "person": _PERSON,
            "pool": _CAP_POOL,
            "key": _KEY,
            "asked": Fact("base units, or a count", "what the ask needs"),
            "cap": Fact("base units, or a count", "the cap of each person"),
        },
    ),
    Code.TOO_BIG_FOR_ANY_NODE: CodeEntry(
        ("refuse",),
        "No single machine is large enough, even empty.",
        {
            "asked": _ALL_ASKED,
            "largest": Fact("base units by resource", "the most that any one machine has"),
            "resource": Fact(
                "name of a resource", "one that no machine has enough of; null: no one machine has all", True
            ),
        },
    ),
    Code.PERSON_AT_CAP: CodeEntry(
        ("wait",),
        "What the person already runs leaves too little of their cap.",
        {
            "person": _PERSON,
            "pool": _CAP_POOL,
            "key": _KEY,
            "asked": Fact("base units, or a count", "what the ask needs"),
            "held": Fact("base units, or a count", "what the person's running leases hold"),
            "cap": Fact("base units, or a count", "the cap of each person"),
            "leases": Fact("ids of leases", "those that count against the cap, the first to end first", True),
            "servers": Fact(
                "names of servers", "theirs, in the same order; empty is the default server", True
            ),
            "first_end": Fact("time", "when the first of them ends", optional=True),
        },
    ),
    Code.BUDGET_SPENT: CodeEntry(
        ("wait", "refuse"),
        "A budget on the path has too few hours left for even the shortest start (refused where no later period comes).",
        _BUDGET,
    ),
    Code.BUDGET_SHORT: CodeEntry(
        ("wait",), "A budget has hours left, but running leases have set them aside.", _BUDGET
    ),
    Code.RESERVED_SOON: CodeEntry(
        ("wait",),
        "A reservation needs the room so soon that the shortest start would run into it; or the ask's own reservation "
        "has yet to begin, or ends when the lease does that was to go on.",
        {
            "pool": _POOL,
            "resource": Fact("name of a resource", "what the reservation holds", optional=True),
            "starts": Fact("time", "when the reservation begins", optional=True),
            "ends": Fact("time", "when the reservation ends", optional=True),
            "reservation": Fact("id of a reservation", "which one it is", optional=True),
            "reserved_for": Fact("name of a pool", "whose reservation it is", optional=True),
            "inside": Fact("yes or no", "whether it is the one that the ask names", optional=True),
        },
    ),
    Code.POOL_FULL: CodeEntry(
        ("wait",),
        "The quota of the pool, or of a pool above it, has no room now.",
        {
            "pool": _POOL,
            "short_at": Fact("name of a pool", "where the tree has no room", optional=True),
            "resource": _RESOURCE,
            "asked": _ASKED,
            "available": Fact(
                "base units of the resource", "what the pool could still get; negative after a cut"
            ),
            "first_end": _FIRST_END,
        },
    ),
    Code.NO_NODE_FREE: CodeEntry(
        ("wait",),
        "The quota has room, but no single machine does.",
        {
            "pool": _POOL,
            "asked": _ALL_ASKED,
            "nodes": Fact("count", "machines looked at", optional=True),
            "first_end": _FIRST_END,
        },
    ),
    Code.STARTS_BUSY: CodeEntry(
        ("wait",),
        "As many servers are being started as may be at one time.",
        {
            "pool": _POOL,
            "starts": Fact("count", "servers being started"),
            "limit": Fact("count", "the most at one time"),
        },
    ),
    Code.OTHERS_WAITING: CodeEntry(
        ("wait",),
        "It would fit, but somebody who comes first waits for it.",
        {"pool": _POOL},
    ),
    Code.CLUSTER_OVER: CodeEntry(
        ("refuse",),
        "The Dask cluster has ended, is being ended, or ends within a minute: it gets no more workers.",
        {
            "pool": _POOL,
            "cluster": Fact("name of a cluster", "the cluster that asks for workers"),
        },
    ),
}


class Ended(StrEnum):
    """Why a lease was released, as the ledger writes it."""

    TIME = "ended"
    PERSON = "stopped"
    OPERATOR = "stopped-by-operator"
    HOURS = "budget-spent"
    DIED = "died"
    START_FAILED = "start-failed"
    START_LOST = "start-lost"
    LOST = "lost"
    ORPHAN = "orphan"
    TAKEN_OVER = "taken-over"
    OUT_OF_MEMORY = "out-of-memory"
    EVICTED = "evicted"
    PREEMPTED = "preempted"
    NODE_LOST = "node-lost"
    DELETED = "deleted"
    CRASHED = "crashed"
    EXITED = "exited"
    IMAGE_MISSING = "image-missing"
    NO_ROOM = "no-room"
    CLUSTER_AWAY = "cluster-away"
    TAKEN_BACK = "taken-back"
    UNCLAIMED = "unclaimed"
    NOT_NEEDED = "not-needed"
    CLUSTER_OVER = "cluster-over"
    CLUSTER_IDLE = "cluster-idle"
    CLUSTER_NO_CLIENT = "cluster-no-client"
    CLUSTER_OWNER_GONE = "cluster-owner-gone"


class TicketEnd(StrEnum):
    """Why a ticket is over, as the ledger writes it; one that is refused bears the code of the refusal."""

    TURN = "turn"
    LEFT = "left"
    REPLACED = "replaced"
    AGAIN = "again"
    NOT_NEEDED = "not-needed"
    CLUSTER_OVER = "cluster-over"


ENDS: Final[Mapping[Ended, str]] = {
    Ended.TIME: "Its end time came.",
    Ended.PERSON: "The person stopped it.",
    Ended.OPERATOR: "An operator stopped it; the entry in the ledger says why.",
    Ended.HOURS: "A budget was used up while it ran.",
    Ended.DIED: "What it ran ended by itself.",
    Ended.START_FAILED: "What it was booked for did not come up; nothing was charged.",
    Ended.START_LOST: "The start was forgotten before anything ran; nothing was charged.",
    Ended.LOST: "Nothing ran for it for five minutes, with no hub to ask.",
    Ended.ORPHAN: "It ran, but the hub knew no such server, so that nobody could reach it.",
    Ended.TAKEN_OVER: "The same server was started anew.",
    Ended.OUT_OF_MEMORY: "It needed more memory than its size has (its pod was killed).",
    Ended.EVICTED: "Its node was short of memory or space, or was being emptied.",
    Ended.PREEMPTED: "The cluster needed its place for something of a higher priority.",
    Ended.NODE_LOST: "The node that it ran on is gone.",
    Ended.DELETED: "Its pod was deleted in the cluster, past the hub.",
    Ended.CRASHED: "Its process ended with an error.",
    Ended.EXITED: "Its process ended by itself, without an error.",
    Ended.IMAGE_MISSING: "The start was given up: its image could not be had.",
    Ended.NO_ROOM: "The start was given up: the cluster had no node for it after all; nothing was charged.",
    Ended.CLUSTER_AWAY: "The start was given up: the cluster did not take it; nothing was charged.",
    Ended.TAKEN_BACK: "It was borrowed, and somebody with a guarantee needed it; the person is first in line again.",
    Ended.UNCLAIMED: "It was started for somebody who waited and who did not come.",
    Ended.NOT_NEEDED: "It was booked for a worker, and the cluster wished for fewer before one ran; nothing was charged.",
    Ended.CLUSTER_OVER: "The Dask cluster that it belonged to ended.",
    Ended.CLUSTER_IDLE: "The Dask cluster did nothing for as long as was chosen when it was started.",
    Ended.CLUSTER_NO_CLIENT: "Nobody was connected to the Dask cluster, and it did nothing.",
    Ended.CLUSTER_OWNER_GONE: "The server that the Dask cluster belonged to ended.",
}

TICKET_ENDS: Final[Mapping[TicketEnd, str]] = {
    TicketEnd.TURN: "Its turn came: a lease was booked under the same id.",
    TicketEnd.LEFT: "The person left the line.",
    TicketEnd.REPLACED: "The person asked for another size, pool or server instead.",
    TicketEnd.AGAIN: "What was booked for it ended early; the person waits again, under the ticket that is named.",
    TicketEnd.NOT_NEEDED: "The cluster has all the workers that it wishes for.",
    TicketEnd.CLUSTER_OVER: "The Dask cluster that wished for more workers ended.",
}


def codes_document() -> str:
    """The text of `docs/reference/codes.md`."""
    lines = [
        "# Codes and their facts",
        "",
        "Why a start waits or is refused, in the order in which the checks are made; the first that objects wins.",
        "The sentences people read are made from these by `hub_ext/quota/explain.py`.",
        "",
        "Base units: milli-GPU (1000 is one GPU), milli-core, MiB. Times are ISO 8601 with the policy's offset. A fact",
        "marked *optional* may be absent or null.",
        "",
        "This file is made from the table in `hub_ext/quota/codes.py`; a test says when it is out of date.",
    ]
    for code, entry in CODES.items():
        lines += ["", f"## `{code.value}`: {' or '.join(entry.verdicts)}", "", entry.meaning, ""]
        lines += ["| fact | unit | meaning |", "|---|---|---|"]
        for name, fact in entry.facts.items():
            meaning = f"{fact.meaning} *(optional)*" if fact.optional else fact.meaning
            lines.append(f"| `{name}` | {fact.unit} | {meaning} |")
    lines += ["", "## Why a lease was released", "", "| reason | meaning |", "|---|---|"]
    lines += [f"| `{reason.value}` | {meaning} |" for reason, meaning in ENDS.items()]
    lines += ["", "## Why a ticket is over", ""]
    lines += ["A refusal ends a ticket as well, with its code.", "", "| reason | meaning |", "|---|---|"]
    lines += [f"| `{reason.value}` | {meaning} |" for reason, meaning in TICKET_ENDS.items()]
    return "\n".join(lines) + "\n"

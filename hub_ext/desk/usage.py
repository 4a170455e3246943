"""What was used, as rows for accounting: the fields, and how a lease becomes a row. Pure.

One row per lease, or per day, pool and person, or sums. The table of fields is also the manual's
(`docs/operate/accounting.md`). `sacct_line` writes what Slurm's `sacct --parsable2` writes, in the fields and the order
that Open XDMoD's shredder reads (its `classes/OpenXdmod/Shredder/Slurm.php`; times in UTC).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from hub_ext.core.amounts import (
    COST_UNITS_PER_GPU_HOUR,
    COST_UNITS_PER_GPU_SECOND,
    MILLI,
    Amounts,
    format_amount,
    is_gpu,
)
from hub_ext.core.clock import DAY, HOUR, MINUTE, Instant, Seconds, at
from hub_ext.desk.tables_csv import Cell
from hub_ext.quota.codes import Ended
from hub_ext.quota.model import Lease, LeaseState, Policy
from hub_ext.quota.ports_hours import DayUsage, LeaseUsage, UsageSum

Row = Mapping[str, Cell]
SCHEMA: Final = "hangang-usage-1"
"""Fields are only ever added at the end; whatever else changes gets another name here."""


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    unit: str
    meaning: str


LEASE_FIELDS: Final = (
    Field("lease", "text", "id of the lease"),
    Field("number", "integer", "number of its booking in the ledger; never used again"),
    Field("person", "text", "user name"),
    Field("pool", "text", "pool it was booked in"),
    Field(
        "pool_path", "text", "the pools it is charged to, from the root: `seoul/public-interest/hangang-univ`"
    ),
    Field(
        "kind",
        "text",
        "`server`, `dask-scheduler`, `dask-worker`, or `reservation`: what one held and nobody used",
    ),
    Field("profile", "text", "profile it was started with"),
    Field(
        "server", "text", "name of the server, or of the Dask cluster; empty is the person's default server"
    ),
    Field("resource", "text", "GPU class (`h200`), or `cpu` for a lease without a GPU"),
    Field("gpus", "number", "GPUs or slices of that class"),
    Field("cpus", "number", "CPU cores"),
    Field("memory_mib", "integer", "memory, MiB"),
    Field("resources", "text", "all amounts: `cpu=16,gpu.h200=1,memory=192Gi`"),
    Field("node", "text", "machine it ran on"),
    Field("admitted", "text", "`guaranteed` or `borrowed`"),
    Field("lender", "text", "pool lent from, where borrowed"),
    Field("rate", "number", "what an hour costs by how it was admitted, as booked: 1, 0.5 …"),
    Field("gpu_hours_per_hour", "number", "GPU-hours that an hour of it costs"),
    Field("booked", "time", "when it was admitted"),
    Field("start", "time", "when it began to run; empty: it never ran"),
    Field("end", "time", "when it was gone; empty: it runs"),
    Field("ends_at", "time", "when it ends or was to end"),
    Field("state", "text", "`booked`, `running`, `ending` or `released`"),
    Field("reason", "text", "why it was released (`docs/reference/codes.md`)"),
    Field("seconds", "integer", "seconds charged on the days of the report"),
    Field("gpu_hours", "number", "GPU-hours charged on the days of the report"),
    Field("total_seconds", "integer", "seconds charged on all days"),
    Field("total_gpu_hours", "number", "GPU-hours charged on all days"),
)
DAY_FIELDS: Final = (
    Field("day", "date", "local date"),
    Field("pool", "text", "pool that the leases were booked in"),
    Field("pool_path", "text", "where that pool stands now; the pool alone where it is gone"),
    Field("person", "text", "user name"),
    Field("leases", "integer", "leases that were charged on that day"),
    Field("seconds", "integer", "seconds charged, each lease's added up"),
    Field("gpu_hours", "number", "GPU-hours charged"),
)
PERSON_FIELDS: Final = (
    Field("person", "text", "user name"),
    Field("leases", "integer", "leases that were charged"),
    Field("seconds", "integer", "seconds charged, each lease's added up"),
    Field("gpu_hours", "number", "GPU-hours charged"),
)
POOL_FIELDS: Final = (
    Field("pool", "text", "pool, with everything below it"),
    *PERSON_FIELDS[1:],
)
FIELDS: Final[Mapping[str, tuple[Field, ...]]] = {
    "lease": LEASE_FIELDS,
    "day": DAY_FIELDS,
    "pool": POOL_FIELDS,
    "person": PERSON_FIELDS,
}
"""By what a report has one row for."""


def names(by: str) -> list[str]:
    return [field.name for field in FIELDS[by]]


# -- rows ------------------------------------------------------------------------------------------------------------


def lease_row(one: LeaseUsage, policy: Policy) -> Row:
    lease = one.lease
    resource, gpus = _gpus(lease.amounts)
    return {
        "lease": lease.id,
        "number": one.number,
        "person": lease.person,
        "pool": lease.pool,
        "pool_path": "/".join(reversed(lease.path)),
        "kind": lease.kind,
        "profile": lease.profile,
        "server": lease.server,
        "resource": resource,
        "gpus": _number(gpus),
        "cpus": _number(Decimal(lease.amounts.get("cpu", 0)) / MILLI),
        "memory_mib": lease.amounts.get("memory", 0),
        "resources": ",".join(
            f"{name}={format_amount(name, amount)}" for name, amount in sorted(lease.amounts.items())
        ),
        "node": lease.node,
        "admitted": "guaranteed" if lease.guaranteed else "borrowed",
        "lender": lease.lender,
        "rate": _rate(lease, policy),
        "gpu_hours_per_hour": _number(Decimal(lease.cost) / COST_UNITS_PER_GPU_SECOND),
        "booked": _iso(lease.booked_at, policy),
        "start": _iso(lease.started_at, policy),
        "end": _iso(lease.released_at, policy),
        "ends_at": _iso(lease.ends_at, policy),
        "state": lease.state.value,
        "reason": lease.reason,
        "seconds": one.seconds,
        "gpu_hours": gpu_hours(one.units),
        "total_seconds": one.all_seconds,
        "total_gpu_hours": gpu_hours(one.all_units),
    }


def day_row(one: DayUsage, policy: Policy) -> Row:
    path = policy.path(one.pool) if one.pool in policy.pools else (one.pool,)
    return {
        "day": one.day.isoformat(),
        "pool": one.pool,
        "pool_path": "/".join(reversed(path)),
        "person": one.person,
        "leases": one.leases,
        "seconds": one.seconds,
        "gpu_hours": gpu_hours(one.units),
    }


def person_rows(found: Iterable[UsageSum]) -> list[Row]:
    return [
        {
            "person": one.key[0],
            "leases": one.leases,
            "seconds": one.seconds,
            "gpu_hours": gpu_hours(one.units),
        }
        for one in found
    ]


def pool_rows(found: Iterable[UsageSum], policy: Policy, visible: Iterable[str] | None = None) -> list[Row]:
    """Each pool with everything below it, in the order of the policy, pools that are gone last.

    `visible` are the pools whose sums the reader may see; None: all.
    """
    sums: dict[str, list[int]] = {}
    for one in found:
        for pool in one.key:
            total = sums.setdefault(pool, [0, 0, 0])
            for place, value in enumerate((one.leases, one.seconds, one.units)):
                total[place] += value
    order = {name: place for place, name in enumerate(policy.pools)}
    shown = set(sums) if visible is None else set(sums) & set(visible)
    return [
        {
            "pool": pool,
            "leases": sums[pool][0],
            "seconds": sums[pool][1],
            "gpu_hours": gpu_hours(sums[pool][2]),
        }
        for pool in sorted(shown, key=lambda name: (order.get(name, len(order)), name))
    ]


def gpu_hours(units: int) -> float:
    """Cost units as GPU-hours with six decimals: exact to 4 milliseconds of one GPU."""
    return float((Decimal(units) / COST_UNITS_PER_GPU_HOUR).quantize(Decimal("0.000001"), ROUND_HALF_UP))


def _gpus(amounts: Amounts) -> tuple[str, Decimal]:
    """The class with the most GPUs, and their number; `cpu` where there are none."""
    held = {name.removeprefix("gpu."): amount for name, amount in amounts.items() if is_gpu(name) and amount}
    if not held:
        return "cpu", Decimal(0)
    first = min(held, key=lambda name: (-held[name], name))
    return first, Decimal(held[first]) / MILLI


def _rate(lease: Lease, policy: Policy) -> float | None:
    """The rate it was booked at; None where it costs nothing, or its GPU class is gone."""
    full = policy.cost(lease.amounts, Decimal(1))
    return float(round(Decimal(lease.cost) / full, 3)) if full and lease.cost else None


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _iso(instant: Instant | None, policy: Policy) -> str | None:
    return None if instant is None else policy.local(instant).isoformat()


# -- as Slurm writes it -----------------------------------------------------------------------------------------------

SACCT_FIELDS: Final = (
    "jobid", "jobidraw", "cluster", "partition", "qos", "account", "group", "gid", "user", "uid", "submit", "eligible",
    "start", "end", "elapsed", "exitcode", "state", "nnodes", "ncpus", "reqcpus", "reqmem", "reqtres", "alloctres",
    "timelimit", "nodelist", "jobname",
)  # fmt: skip
NOBODY: Final = "65534"
"""People of the hub have no number on its machines."""

_SACCT_STATES: Final[Mapping[str, str]] = {
    Ended.TIME: "TIMEOUT",
    Ended.HOURS: "TIMEOUT",
    Ended.PERSON: "COMPLETED",
    Ended.EXITED: "COMPLETED",
    Ended.TAKEN_OVER: "COMPLETED",
    Ended.OPERATOR: "CANCELLED",
    Ended.DELETED: "CANCELLED",
    Ended.UNCLAIMED: "CANCELLED",
    Ended.NOT_NEEDED: "CANCELLED",
    Ended.CLUSTER_OVER: "COMPLETED",
    Ended.CLUSTER_IDLE: "COMPLETED",
    Ended.CLUSTER_NO_CLIENT: "COMPLETED",
    Ended.CLUSTER_OWNER_GONE: "COMPLETED",
    Ended.TAKEN_BACK: "PREEMPTED",
    Ended.PREEMPTED: "PREEMPTED",
    Ended.EVICTED: "PREEMPTED",
    Ended.OUT_OF_MEMORY: "OUT_OF_MEMORY",
    Ended.NODE_LOST: "NODE_FAIL",
    Ended.DIED: "FAILED",
    Ended.CRASHED: "FAILED",
    Ended.LOST: "FAILED",
    Ended.ORPHAN: "FAILED",
}
_FAILED: Final = frozenset({"FAILED", "OUT_OF_MEMORY", "NODE_FAIL"})


def sacct_state(lease: Lease) -> str:
    """Slurm's word for how it ended; an operator's own words are a cancellation."""
    if lease.live:
        return "RUNNING" if lease.state is not LeaseState.BOOKED else "PENDING"
    return _SACCT_STATES.get(lease.reason or "", "CANCELLED" if lease.reason else "COMPLETED")


def sacct_line(one: LeaseUsage, cluster: str) -> str:
    """One lease as one job, for `xdmod-shredder -f slurm`. The job's number is that of its booking in the ledger."""
    lease = one.lease
    state = sacct_state(lease)
    cpus = str(max(1, -(-lease.amounts.get("cpu", 0) // MILLI)))
    memory = f"{lease.amounts.get('memory', 0)}M"
    tres = _tres(lease.amounts, cpus, memory)
    elapsed = (lease.released_at or lease.charged_until) - (lease.started_at or lease.charged_until)
    values: Sequence[str] = (
        str(one.number),
        str(one.number),
        cluster,
        _gpus(lease.amounts)[0],
        "guaranteed" if lease.guaranteed else "borrowed",
        lease.pool,
        lease.pool,  # Open XDMoD takes the group for the principal investigator
        NOBODY,
        lease.person,
        NOBODY,
        _utc(lease.booked_at),
        _utc(lease.booked_at),
        _utc(lease.started_at),
        _utc(lease.released_at),
        _elapsed(max(0, elapsed)),
        "1:0" if state in _FAILED else "0:0",
        state,
        "1",
        cpus,
        cpus,
        memory,
        tres,
        tres,
        _elapsed(max(0, lease.ends_at - (lease.started_at or lease.booked_at))),
        lease.node or "hub",
        lease.profile or lease.kind,
    )
    return "|".join(_field(value) for value in values)


def _tres(amounts: Amounts, cpus: str, memory: str) -> str:
    """Slurm's trackable resources; part of a GPU counts as one."""
    held = {name.removeprefix("gpu."): amount for name, amount in amounts.items() if is_gpu(name) and amount}
    parts = [f"cpu={cpus}"]
    if held:
        parts.append(f"gres/gpu={sum(-(-amount // MILLI) for amount in held.values())}")
        parts += [f"gres/gpu:{name}={-(-amount // MILLI)}" for name, amount in sorted(held.items())]
    return ",".join([*parts, f"mem={memory}", "node=1"])


def _utc(instant: Instant | None) -> str:
    return "Unknown" if instant is None else f"{at(instant, UTC):%Y-%m-%dT%H:%M:%S}"


def _elapsed(seconds: Seconds) -> str:
    days, rest = divmod(seconds, DAY)
    clock = f"{rest // HOUR:02}:{rest % HOUR // MINUTE:02}:{rest % MINUTE:02}"
    return f"{days}-{clock}" if days else clock


def _field(text: str) -> str:
    """Without what would be read as a new field or line."""
    return "".join("_" if letter == "|" or not letter.isprintable() else letter for letter in text)

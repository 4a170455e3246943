"""The frozen data of the quota: policy, ask, lease, grant, node, snapshot.

| word | meaning |
|---|---|
| pool | a node of the tree centre -> sector -> institution -> (course, project, team); several roots are allowed |
| ask | what a person wants to run, with an id that makes asking twice the same as asking once |
| lease | an admitted ask: booked -> running -> (noticed) -> ending -> released; its amounts never change |
| guaranteed, borrowed | within the home pool's own nominal, or out of what others leave idle |
| ticket | an ask that waits |
| outlook | how a ticket stands: why it waits, its place, when its turn is expected |
| reservation | amounts held for a pool in a half-open window of time |
| budget | GPU-hours of a pool, or of each person in it, per period |
| grant | extra hours beside one budget, until a date |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from hub_ext.core.amounts import Amounts, cost_per_second
from hub_ext.core.clock import HOUR, MINUTE, Instant, Seconds, at

SERVER: Final = "server"
SCHEDULER: Final = "dask-scheduler"
WORKER: Final = "dask-worker"
"""The leases of a Dask cluster: their `server` is the cluster's name, which is the id of its scheduler's lease."""
KINDS: Final = (SERVER, SCHEDULER, WORKER)
START_AGAIN_WITHIN: Final[Seconds] = 15 * MINUTE
"""Whoever waited longer for a start that was cut off has given it up."""
COUNTED_KINDS: Final[Mapping[str, str]] = {SERVER: "servers", WORKER: "dask-workers"}
"""The person caps that count leases of a kind, beside those that sum resources."""


@dataclass(frozen=True, slots=True)
class GpuClass:
    """A kind of GPU or MIG slice: its Kubernetes resource, memory in MiB, and GPU-hours one unit costs."""

    name: str
    resource: str
    hours: Decimal
    memory: int


@dataclass(frozen=True, slots=True)
class Rates:
    """What an hour costs, by how it was admitted."""

    guaranteed: Decimal = Decimal(1)
    borrowed: Decimal = Decimal("0.5")
    reservation: Decimal = Decimal(1)


@dataclass(frozen=True, slots=True)
class QueueRules:
    patience: Seconds = 15 * MINUTE
    claim: Seconds = 10 * MINUTE
    half_life: Seconds = 7 * 24 * HOUR
    starts: int = 64


@dataclass(frozen=True, slots=True)
class Quota:
    """A pool's own share of one resource in base units; `borrow` and `lend` None mean without limit."""

    nominal: int
    borrow: int | None = None
    lend: int | None = None


class Period(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


@dataclass(frozen=True, slots=True)
class Term:
    """A budget's one period, both dates included."""

    first: date
    last: date

    def __str__(self) -> str:
        return f"{self.first.isoformat()}/{self.last.isoformat()}"


@dataclass(frozen=True, slots=True)
class Budget:
    """GPU-hours of a pool, or of each person in its subtree, per period.

    `soft` is the fraction from which people are warned, `carry` the hours of an unused period that may pass to
    the next.
    """

    hours: Decimal
    period: Period | Term
    soft: Decimal | None = None
    carry: Decimal | None = None
    each_person: bool = False

    @property
    def name(self) -> str:
        """Tells the budgets of one pool apart."""
        return f"{self.period}:person" if self.each_person else str(self.period)


@dataclass(frozen=True, slots=True)
class Session:
    """Times of a lease in seconds; in a pool, None means inherited from the nearest pool upwards."""

    min: Seconds | None = None
    max: Seconds | None = None
    protected: Seconds | None = None
    notice: Seconds | None = None
    grace: Seconds | None = None


@dataclass(frozen=True, slots=True)
class SessionTimes:
    """A pool's session times after inheritance."""

    min: Seconds = 15 * MINUTE
    max: Seconds = 12 * HOUR
    protected: Seconds = 30 * MINUTE
    notice: Seconds = 10 * MINUTE
    grace: Seconds = 30 * MINUTE


@dataclass(frozen=True, slots=True)
class Pool:
    name: str
    parent: str | None = None
    kind: str = "project"
    title: Mapping[str, str] = field(default_factory=dict)
    """The name people read, by language (`en`, `ko`)."""
    weight: Decimal = Decimal(1)
    quota: Mapping[str, Quota] = field(default_factory=dict)
    person: Mapping[str, int] = field(default_factory=dict)
    """Caps of each person over this pool's subtree: resources in base units, `servers`, `dask-workers`."""
    budgets: tuple[Budget, ...] = ()
    session: Session = Session()


@dataclass(frozen=True)
class Policy:
    """The whole policy document; pools in the order of the file."""

    timezone: ZoneInfo
    gpu_classes: Mapping[str, GpuClass]
    pools: Mapping[str, Pool]
    rates: Rates = Rates()
    queue: QueueRules = QueueRules()
    derived: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What other modules work out of a policy once and keep with it."""

    def path(self, pool: str) -> tuple[str, ...]:
        """The pool and every pool above it, nearest first."""
        return self._paths[pool]

    def subtree(self, pool: str) -> tuple[str, ...]:
        """The pool and every pool below it, in the order of the file."""
        return tuple(name for name, path in self._paths.items() if pool in path)

    def children(self, pool: str) -> tuple[str, ...]:
        return self._children.get(pool, ())

    def root(self, pool: str) -> str:
        return self._paths[pool][-1]

    def tree(self, pool: str) -> tuple[str, ...]:
        """Every pool under the same root."""
        return self._trees[self.root(pool)]

    def stated(self, pool: str) -> tuple[str, ...]:
        """The resources that any pool of the same tree states, sorted."""
        return self._stated[self.root(pool)]

    def home(self, pool: str, resource: str) -> str | None:
        """Whose guarantee an ask of this pool draws on; None where only the nodes limit the resource."""
        for name in self._paths[pool]:
            if resource in self.pools[name].quota:
                return name
        return self.root(pool) if resource in self.stated(pool) else None

    def nominal(self, pool: str, resource: str) -> int:
        quota = self.pools[pool].quota.get(resource)
        return quota.nominal if quota else 0

    def cap(self, pool: str, key: str) -> tuple[str, int] | None:
        """The nearest pool upwards that caps `key` for each person, and the cap."""
        for name in self._paths[pool]:
            if key in self.pools[name].person:
                return name, self.pools[name].person[key]
        return None

    def session(self, pool: str) -> SessionTimes:
        return self._sessions[pool]

    def cost(self, amounts: Amounts, rate: Decimal) -> int:
        """Millionths of a GPU-second per second."""
        return cost_per_second({name: gpu.hours for name, gpu in self.gpu_classes.items()}, amounts, rate)

    def local(self, instant: Instant) -> datetime:
        """The instant with the policy's offset, as facts and reports show it."""
        return at(instant, self.timezone)

    @cached_property
    def _paths(self) -> dict[str, tuple[str, ...]]:
        paths: dict[str, tuple[str, ...]] = {}
        for name in self.pools:
            path = [name]
            while (parent := self.pools[path[-1]].parent) is not None:
                path.append(parent)
            paths[name] = tuple(path)
        return paths

    @cached_property
    def _children(self) -> dict[str, tuple[str, ...]]:
        children: dict[str, tuple[str, ...]] = {}
        for pool in self.pools.values():
            if pool.parent is not None:
                children[pool.parent] = (*children.get(pool.parent, ()), pool.name)
        return children

    @cached_property
    def _trees(self) -> dict[str, tuple[str, ...]]:
        return {name: self.subtree(name) for name, pool in self.pools.items() if pool.parent is None}

    @cached_property
    def _stated(self) -> dict[str, tuple[str, ...]]:
        return {
            root: tuple(sorted({resource for name in tree for resource in self.pools[name].quota}))
            for root, tree in self._trees.items()
        }

    @cached_property
    def _sessions(self) -> dict[str, SessionTimes]:
        default = SessionTimes()
        fields = ("min", "max", "protected", "notice", "grace")
        return {
            name: SessionTimes(
                **{
                    key: next(
                        (value for p in path if (value := getattr(self.pools[p].session, key)) is not None),
                        getattr(default, key),
                    )
                    for key in fields
                }
            )
            for name, path in self._paths.items()
        }


@dataclass(frozen=True, slots=True)
class Ask:
    """What a person wants to run. `id` makes it idempotent; `minutes` None means as long as allowed."""

    id: str
    person: str
    pool: str
    amounts: Amounts
    kind: str = SERVER
    profile: str | None = None
    minutes: int | None = None
    reservation: str | None = None
    server: str = ""
    """The name of the person's server ("" is the default one)."""


class LeaseState(StrEnum):
    BOOKED = "booked"
    RUNNING = "running"
    ENDING = "ending"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Lease:
    """An admitted ask.

    `path` is the pool and those above it when it was booked: hours are charged there even after a pool moved.
    `charged_until` is the instant up to which the lease has accrued (its booking until it runs).
    `devices` are GPU or MIG UUIDs on one machine; `handle` names what runs (a process or pod) once it does.
    """

    id: str
    person: str
    pool: str
    path: tuple[str, ...]
    amounts: Amounts
    kind: str
    guaranteed: bool
    lender: str | None
    cost: int
    booked_at: Instant
    ends_at: Instant
    charged_until: Instant
    state: LeaseState = LeaseState.BOOKED
    started_at: Instant | None = None
    noticed_at: Instant | None = None
    seen_at: Instant | None = None
    released_at: Instant | None = None
    reason: str | None = None
    profile: str | None = None
    server: str = ""
    node: str | None = None
    devices: tuple[str, ...] = ()
    handle: str | None = None
    reservation: str | None = None
    noticed_for: str | None = None
    """The ticket or reservation that it is taken back for."""
    ends_unless_taken: Instant | None = None
    """When it would end if that notice were withdrawn."""
    unclaimed: bool = False
    """It was started for somebody who waited, and who has not come yet."""

    @property
    def live(self) -> bool:
        return self.state is not LeaseState.RELEASED

    @property
    def age_order(self) -> tuple[Instant, str]:
        """Oldest first, then by id."""
        return (self.started_at if self.started_at is not None else self.booked_at, self.id)


def facts_of(lease: Lease) -> dict[str, Any]:
    """What something that runs says of its lease, so that a ledger that lost it can adopt it. A server says no kind."""
    kind = {} if lease.kind == SERVER else {"kind": lease.kind}
    return {
        "person": lease.person,
        **kind,
        "server": lease.server,
        "pool": lease.pool,
        "profile": lease.profile,
        "amounts": dict(lease.amounts),
        "ends_at": lease.ends_at,
        "devices": list(lease.devices),
    }


@dataclass(frozen=True, slots=True)
class Grant:
    """Extra hours beside one budget (of one person where the budget is each person's), until an instant."""

    id: str
    pool: str
    budget: str
    person: str
    units: int
    """Cost units (millionths of a GPU-second)."""
    until: Instant
    why: str
    made_at: Instant
    made_by: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU or MIG slice of a machine."""

    id: str
    gpu_class: str


@dataclass(frozen=True, slots=True)
class Node:
    """A machine: what it has in base units, and its devices where leases choose them.

    `ready` False: it is there, and takes nothing new for the moment. `only_gpus`: it takes nothing without a GPU.
    """

    name: str
    capacity: Amounts
    devices: tuple[Device, ...] = ()
    simulated: bool = False
    ready: bool = True
    only_gpus: bool = False


@dataclass(frozen=True, slots=True)
class Eta:
    """When a ticket's turn is expected: `latest` is promised, since nothing can delay it; `expected` follows from
    known ends.
    """

    at: Instant
    kind: Literal["latest", "expected"]


@dataclass(frozen=True, slots=True)
class Outlook:
    """How a ticket stood at the last look: why it waits, its place in its tree's line (the first is 1), when its turn
    is expected, and the leases that are taken back for it.
    """

    code: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    place: int | None = None
    eta: Eta | None = None
    reclaims: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ticket:
    """An ask that waits. Its lease will have the same id.

    `put_back`: what it asked for was taken back, so that it is first again; `displaced_by` is the lease or ticket that
    it was taken back for, and that never loses its place to this one. `wanted` counts leases (Dask workers), 1 for a
    server; more than one is elastic: after servers, and whatever fits is taken. `booked` counts those that it has already.
    `options` is what the person chose, to start the server with.
    """

    ask: Ask
    made_at: Instant
    outlook: Outlook
    put_back: bool = False
    displaced_by: str | None = None
    wanted: int = 1
    booked: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.ask.id

    @property
    def elastic(self) -> bool:
        return self.ask.kind != SERVER or self.wanted + self.booked > 1


@dataclass(frozen=True, slots=True)
class Reservation:
    """Amounts held for a pool in [start, end).

    `approved`: it may count (within the guarantee, or a lead agreed). `shrunk_to` is what was in use when its grace
    was over; from then on only that is held.
    """

    id: str
    pool: str
    amounts: Amounts
    start: Instant
    end: Instant
    approved: bool = True
    shrunk_to: Amounts | None = None
    title: str = ""
    made_by: str = ""
    made_at: Instant = 0
    approved_by: str = ""


class RequestState(StrEnum):
    OPEN = "open"
    GRANTED = "granted"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class HoursRequest:
    """Somebody asks for more hours beside one budget; whoever answers for the pool grants, shortens or declines.

    `person` is whose budget it is ("" for the whole pool's). `units` are cost units, as asked for; what was granted is
    in the grant that `grant` names.
    """

    id: str
    pool: str
    budget: str
    person: str
    units: int
    until: Instant
    why: str
    made_at: Instant
    made_by: str
    state: RequestState = RequestState.OPEN
    answered_at: Instant | None = None
    answered_by: str = ""
    answer: str = ""
    grant: str | None = None

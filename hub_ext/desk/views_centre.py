"""The page *centre* as data: every GPU and slice by machine and class, who holds it, and the totals. Pure.

A machine's GPUs are told apart by their ids where leases choose them, else they are only counted: then its cells are
filled in the order in which leases were booked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hub_ext.core.amounts import MILLI, is_gpu
from hub_ext.core.clock import Instant, Seconds
from hub_ext.desk.charts import share_of
from hub_ext.desk.records import Held, Total
from hub_ext.desk.tables_csv import Cell as TableCell
from hub_ext.desk.views_parts import of_cluster
from hub_ext.language import Speaker
from hub_ext.quota.explain import Titles
from hub_ext.quota.model import LeaseState, Node, Policy

NODES_A_PAGE: Final = 24
"""So many machines stand on one page: some two thousand slices at most."""
STANDINGS: Final = ("guaranteed", "borrowed", "ending", "free", "away")
"""How a GPU stands, in the order in which cells and totals are shown."""


# -- what the page is made from ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CentreFacts:
    """`nodes` are all machines (None: nobody reported any); `shown` those of this page, with what runs on them."""

    policy: Policy
    as_of: Instant
    now: Instant
    nodes: Sequence[Node] | None = None
    shown: Sequence[Node] = ()
    held: Sequence[Held] = ()
    nowhere: Sequence[Held] = ()
    """Leases whose machine is not known."""
    totals: Sequence[Total] = ()
    taken: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By machine and resource, what leases hold there."""
    waiting: int = 0
    titles: Titles = field(default_factory=dict)
    gpu_class: str = ""
    page: int = 1


# -- what the page is -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """One GPU or slice: how it stands, and what is said of it."""

    standing: str
    told: str


@dataclass(frozen=True, slots=True)
class Holder:
    """One lease on a machine, as the table beside the cells lists it."""

    person: str
    pool: str
    what: str
    standing: str
    until: str
    until_exact: str
    lease: str


@dataclass(frozen=True, slots=True)
class ClassRow:
    """The cells of one class on one machine."""

    gpu_class: str
    title: str
    cells: tuple[Cell, ...]
    summary: str


@dataclass(frozen=True, slots=True)
class NodeRow:
    name: str
    ready: bool
    rows: tuple[ClassRow, ...]
    holders: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class ClassTotal:
    """A class over all machines: counts by standing, and their thousandths for a bar."""

    gpu_class: str
    title: str
    all: str
    counts: Mapping[str, str]
    shares: tuple[tuple[str, int], ...]
    told: str


@dataclass(frozen=True, slots=True)
class CentrePage:
    totals: tuple[ClassTotal, ...]
    nodes: tuple[NodeRow, ...]
    nowhere: tuple[Holder, ...]
    classes: tuple[tuple[str, str], ...]
    """Names and titles, for the filter."""
    standings: Mapping[str, str]
    summary: str
    age: Seconds
    count: int
    """All machines that fit the filter."""
    known: bool
    page: int
    pages: int


def with_class(nodes: Sequence[Node], gpu_class: str) -> list[Node]:
    """The machines that have GPUs: of this class, or any where it is empty."""
    return [
        node
        for node in nodes
        if any(
            is_gpu(resource) and amount and gpu_class in ("", resource.removeprefix("gpu."))
            for resource, amount in node.capacity.items()
        )
    ]


def page_of(nodes: Sequence[Node], page: int) -> Sequence[Node]:
    """The machines of one page, which counts from 1."""
    return nodes[(page - 1) * NODES_A_PAGE : page * NODES_A_PAGE]


def pages_of(count: int, size: int = NODES_A_PAGE) -> int:
    return max(1, -(-count // size))


def centre_page(facts: CentreFacts, say: Speaker) -> CentrePage:
    on_node: dict[str | None, list[Held]] = {}
    for held in facts.held:
        on_node.setdefault(held.node, []).append(held)
    fitting = with_class(facts.nodes or (), facts.gpu_class)
    totals = tuple(_totals(facts, say))
    return CentrePage(
        totals=totals,
        nodes=tuple(_node(facts, node, on_node.get(node.name, ()), say) for node in facts.shown),
        nowhere=tuple(_holder(facts, held, say) for held in facts.nowhere),
        classes=tuple((name, say.resource(f"gpu.{name}")) for name in facts.policy.gpu_classes),
        standings=standings(say),
        summary=_summary(facts, say),
        age=max(0, facts.now - facts.as_of),
        count=len(fitting),
        known=facts.nodes is not None,
        page=facts.page,
        pages=pages_of(len(fitting)),
    )


def standings(say: Speaker) -> dict[str, str]:
    """What each standing is called."""
    return {
        "guaranteed": say("guaranteed"),
        "borrowed": say("borrowed"),
        "ending": say("being ended"),
        "free": say("free"),
        "away": say("takes nothing new"),
    }


def standing_of(held: Held) -> str:
    if held.noticed_at is not None or held.state is LeaseState.ENDING:
        return "ending"
    return "guaranteed" if held.guaranteed else "borrowed"


# -- machines ---------------------------------------------------------------------------------------------------------


def _node(facts: CentreFacts, node: Node, held: Sequence[Held], say: Speaker) -> NodeRow:
    rows = []
    for resource in sorted(node.capacity):
        name = resource.removeprefix("gpu.")
        if not is_gpu(resource) or not node.capacity[resource] or facts.gpu_class not in ("", name):
            continue
        cells = tuple(_cells(facts, node, resource, held, say))
        rows.append(ClassRow(name, say.resource(resource), cells, _counted(cells, say)))
    with_gpus = [one for one in held if any(is_gpu(r) and amount for r, amount in one.amounts.items())]
    return NodeRow(
        name=node.name,
        ready=node.ready,
        rows=tuple(rows),
        holders=tuple(_holder(facts, one, say) for one in with_gpus),
    )


def _cells(
    facts: CentreFacts, node: Node, resource: str, held: Sequence[Held], say: Speaker
) -> Iterator[Cell]:
    """One cell for each GPU or slice; a lease above what the machine has is shown as well."""
    free = "free" if node.ready else "away"
    devices = [device.id for device in node.devices if f"gpu.{device.gpu_class}" == resource]
    by_device = {device: one for one in held for device in one.devices}
    counted = [one for one in held if one.amounts.get(resource) and not set(one.devices) & set(devices)]
    number = 0
    for device in devices:
        number += 1
        yield _cell(facts, resource, number, by_device.get(device), free, say)
    places = [one for one in counted for _ in range(_whole(one.amounts[resource]))]
    count = max(_whole(node.capacity[resource]) - len(devices), len(places))
    for place in range(count):
        number += 1
        yield _cell(facts, resource, number, places[place] if place < len(places) else None, free, say)


def _whole(amount: int) -> int:
    """Part of a GPU takes a cell of its own."""
    return -(-amount // MILLI)


def _cell(facts: CentreFacts, resource: str, number: int, held: Held | None, free: str, say: Speaker) -> Cell:
    if held is None:
        return Cell(
            free,
            say(
                "{gpu} {number}: {standing}",
                gpu=say.resource(resource),
                number=number,
                standing=standings(say)[free],
            ),
        )
    standing = standing_of(held)
    return Cell(
        standing,
        say(
            "{gpu} {number}: {standing}, {person} ({pool}), until {time}",
            gpu=say.resource(resource),
            number=number,
            standing=standings(say)[standing],
            person=held.person or say("nobody"),
            pool=_title(facts.titles, held.pool, say),
            time=say.moment(held.ends_at, facts.now),
        ),
    )


def _counted(cells: Sequence[Cell], say: Speaker) -> str:
    """`4 of 8 in use`."""
    used = sum(cell.standing not in ("free", "away") for cell in cells)
    return say("{used} of {all} in use", used=used, all=len(cells))


def _holder(facts: CentreFacts, held: Held, say: Speaker) -> Holder:
    gpus = {resource: amount for resource, amount in held.amounts.items() if is_gpu(resource)}
    return Holder(
        person=held.person,
        pool=_title(facts.titles, held.pool, say),
        what=of_cluster(say.amounts(gpus or held.amounts), held.kind, held.server, say),
        standing=standing_of(held),
        until=say.moment(held.ends_at, facts.now),
        until_exact=say.exact(held.ends_at),
        lease=held.id,
    )


# -- totals -----------------------------------------------------------------------------------------------------------


def _totals(facts: CentreFacts, say: Speaker) -> Iterator[ClassTotal]:
    for name in facts.policy.gpu_classes:
        counts = class_counts(facts, name)
        whole = max(1, sum(counts.values()))
        shown = {standing: _gpus(amount, say) for standing, amount in counts.items()}
        yield ClassTotal(
            gpu_class=name,
            title=say.resource(f"gpu.{name}"),
            all=_gpus(sum(counts.values()), say),
            counts=shown,
            shares=tuple((standing, share_of(amount, whole)) for standing, amount in counts.items()),
            told=", ".join(
                f"{standings(say)[standing]} {shown[standing]}" for standing in STANDINGS if counts[standing]
            ),
        )


def class_counts(facts: CentreFacts, name: str) -> dict[str, int]:
    """Milli-GPU of one class by standing, over the whole centre."""
    resource = f"gpu.{name}"
    counts = dict.fromkeys(STANDINGS, 0)
    for total in facts.totals:
        counts[total.standing] += total.amounts.get(resource, 0) * total.count
    for node in facts.nodes or ():
        free = node.capacity.get(resource, 0) - facts.taken.get((node.name, resource), 0)
        counts["free" if node.ready else "away"] += max(0, free)
    return counts


def _gpus(milli: int, say: Speaker) -> str:
    whole, rest = divmod(milli, MILLI)
    return f"{whole:,}" if not rest else f"{milli / MILLI:,.1f}"


def _summary(facts: CentreFacts, say: Speaker) -> str:
    leases = sum(total.count for total in facts.totals)
    running = say.ngettext("{count} lease", "{count} leases", leases, count=leases)
    waiting = say.ngettext("{count} in line", "{count} in line", facts.waiting, count=facts.waiting)
    machines = len(facts.nodes or ())
    return " · ".join(
        [running, waiting, say.ngettext("{count} machine", "{count} machines", machines, count=machines)]
    )


def _title(titles: Titles, pool: str, say: Speaker) -> str:
    return say.text(titles.get(pool, {}), pool)


MACHINE_COLUMNS: Final = (
    "machine", "takes_new", "gpu_class", "capacity", "used", "lease", "person", "pool", "kind", "gpus", "standing",
    "ends_at", "devices",
)  # fmt: skip


def machine_rows(
    machines: Sequence[tuple[Node, Sequence[Held]]], policy: Policy, gpu_class: str = ""
) -> Iterator[list[TableCell]]:
    """One row for each lease on each machine and class (or one class), and one for a machine of which nothing is used."""
    for node, held in machines:
        for resource in sorted(node.capacity):
            name = resource.removeprefix("gpu.")
            if not is_gpu(resource) or not node.capacity[resource] or gpu_class not in ("", name):
                continue
            here = [one for one in held if one.amounts.get(resource)]
            used = sum(one.amounts[resource] for one in here)
            about: list[TableCell] = [
                node.name,
                "yes" if node.ready else "no",
                name,
                node.capacity[resource] / MILLI,
                used / MILLI,
            ]
            for one in here:
                yield [
                    *about, one.id, one.person, one.pool, one.kind, one.amounts[resource] / MILLI, standing_of(one),
                    policy.local(one.ends_at).isoformat(), " ".join(one.devices),
                ]  # fmt: skip
            if not here:
                yield [*about, *[None] * 8]

"""The pages *centre* as data: cells and totals, queue, log, comparison of policies, and downloads."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.core.clock import HOUR
from hub_ext.desk.records import Cursor, Held, QueueFilter, Total
from hub_ext.desk.views_centre import (
    STANDINGS,
    CentreFacts,
    CentrePage,
    centre_page,
    class_counts,
    machine_rows,
    page_of,
    pages_of,
    with_class,
)
from hub_ext.desk.views_decisions import Asked, LogFacts, log_page
from hub_ext.desk.views_policy import CONTEXT, compare
from hub_ext.desk.views_queue import QueueFacts, queue_page
from hub_ext.pages.words import speaker
from hub_ext.quota.document import parse_policy
from hub_ext.quota.ledger import Entry, EntryKind
from hub_ext.quota.model import Device, LeaseState, Node
from tests.desk.lively import POLICY, START
from tests.desk.test_views_mine import TICKET

CENTRE = parse_policy(POLICY)
TITLES = {name: pool.title for name, pool in CENTRE.pools.items()}
SAY = speaker(CENTRE, "en")

ONE = Held(
    id="l1",
    person="kim",
    pool="univ",
    kind="server",
    amounts={"gpu.h200": 1000, "cpu": 8000},
    guaranteed=True,
    lender=None,
    state=LeaseState.RUNNING,
    ends_at=START + HOUR,
    noticed_at=None,
    node="n1",
)
NODE = Node("n1", {"gpu.h200": 4000, "cpu": 64000})


def page(*held: Held, nodes: tuple[Node, ...] = (NODE,), **facts: Any) -> CentrePage:
    made = CentreFacts(CENTRE, START, START, nodes=nodes, shown=nodes, held=held, titles=TITLES, **facts)
    return centre_page(made, SAY)


def standings_of(made: CentrePage) -> list[list[str]]:
    return [[cell.standing for cell in row.cells] for node in made.nodes for row in node.rows]


# -- the map ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "nodes", "want"),
    [
        pytest.param([], [NODE], [["free"] * 4], id="nothing runs"),
        pytest.param([], [replace(NODE, ready=False)], [["away"] * 4], id="a machine that takes nothing new"),
        pytest.param(
            [ONE, replace(ONE, id="l2", guaranteed=False)],
            [NODE],
            [["guaranteed", "borrowed", "free", "free"]],
            id="guaranteed and borrowed",
        ),
        pytest.param(
            [replace(ONE, amounts={"gpu.h200": 3000})],
            [NODE],
            [["guaranteed"] * 3 + ["free"]],
            id="one lease on several",
        ),
        pytest.param(
            [replace(ONE, noticed_at=START), replace(ONE, id="l2", state=LeaseState.ENDING)],
            [NODE],
            [["ending", "ending", "free", "free"]],
            id="noticed or being stopped",
        ),
        pytest.param(
            [replace(ONE, amounts={"gpu.h200": 500})],
            [NODE],
            [["guaranteed", "free", "free", "free"]],
            id="part of one takes its cell",
        ),
        pytest.param(
            [replace(ONE, amounts={"gpu.h200": 3000}), replace(ONE, id="l2", amounts={"gpu.h200": 2000})],
            [NODE],
            [["guaranteed"] * 5],
            id="more than the machine has is shown",
        ),
        pytest.param([replace(ONE, node="elsewhere")], [NODE], [["free"] * 4], id="of another machine"),
        pytest.param(
            [replace(ONE, amounts={"cpu": 8000})], [NODE], [["free"] * 4], id="a lease without a GPU"
        ),
    ],
)
def test_each_gpu_is_a_cell(held: list[Held], nodes: list[Node], want: list[list[str]]) -> None:
    assert standings_of(page(*held, nodes=tuple(nodes))) == want


def test_devices_that_leases_chose_are_told_apart() -> None:
    node = Node("n1", {"gpu.h200": 3000}, tuple(Device(f"GPU-{n}", "h200") for n in range(3)))
    second = replace(ONE, devices=("GPU-1",))
    third = replace(ONE, id="l2", person="lee", guaranteed=False, devices=("GPU-2",))
    made = page(second, third, nodes=(node,))
    assert standings_of(made) == [["free", "guaranteed", "borrowed"]]
    assert [cell.told for cell in made.nodes[0].rows[0].cells] == [
        "H200 1: free",
        "H200 2: guaranteed, kim (Hangang University), until 10:00",
        "H200 3: borrowed, lee (Hangang University), until 10:00",
    ]


def test_classes_of_one_machine_are_rows_of_their_own_and_may_be_picked() -> None:
    node = Node("n1", {"gpu.h200": 1000, "gpu.h200-1g": 2000, "cpu": 8000})
    made = page(replace(ONE, amounts={"gpu.h200-1g": 1000}), nodes=(node,))
    assert standings_of(made) == [["free"], ["guaranteed", "free"]]
    assert [row.summary for row in made.nodes[0].rows] == ["0 of 1 in use", "1 of 2 in use"]
    assert standings_of(page(nodes=(node,), gpu_class="h200")) == [["free"]]


def test_the_table_beside_the_cells_says_the_same() -> None:
    (holder,) = (
        page(replace(ONE, noticed_at=START), replace(ONE, id="x", amounts={"cpu": 1})).nodes[0].holders
    )
    assert (holder.person, holder.pool, holder.what) == ("kim", "Hangang University", "1 × H200")
    assert (holder.standing, holder.until) == ("ending", "10:00")


def test_machines_without_gpus_are_not_on_the_map() -> None:
    nodes = [NODE, Node("cpu-only", {"cpu": 64000}), Node("none-left", {"gpu.h200": 0})]
    assert with_class(nodes, "") == [NODE]
    assert with_class(nodes, "h200-1g") == []


@given(st.integers(0, 200), st.integers(1, 24))
def test_pages_hold_every_machine_once(count: int, size: int) -> None:
    nodes = [Node(f"n{n}", {"gpu.h200": 1000}) for n in range(count)]
    shown = [node for number in range(1, pages_of(count) + 1) for node in page_of(nodes, number)]
    assert shown == nodes
    assert pages_of(count, size) * size >= count


AMOUNTS = st.integers(0, 8).map(lambda gpus: {"gpu.h200": gpus * 1000} if gpus else {"cpu": 1000})


@given(
    st.lists(st.tuples(AMOUNTS, st.sampled_from(["guaranteed", "borrowed", "ending"])), max_size=12),
    st.lists(st.booleans(), min_size=1, max_size=6),
)
def test_totals_add_up_to_the_machines(leases: list[tuple[dict[str, int], str]], ready: list[bool]) -> None:
    """Where everything runs on a machine and no machine is overfull, the standings add up to what there is."""
    room = [8000] * len(ready)
    taken: Counter[tuple[str, str]] = Counter()
    totals = []
    for amounts, standing in leases:
        need = amounts.get("gpu.h200", 0)
        place = next((n for n, left in enumerate(room) if left >= need), None)
        if place is None:
            continue
        room[place] -= need
        taken[f"n{place}", "gpu.h200"] += need
        totals.append(Total("univ", amounts, standing, 1))
    nodes = [Node(f"n{n}", {"gpu.h200": 8000}, ready=up) for n, up in enumerate(ready)]
    counts = class_counts(CentreFacts(CENTRE, START, START, nodes=nodes, totals=totals, taken=taken), "h200")
    assert set(counts) == set(STANDINGS)
    assert sum(counts.values()) == 8000 * len(nodes)
    assert all(count >= 0 for count in counts.values())


# -- the queue --------------------------------------------------------------------------------------------------------


def test_a_line_of_the_queue_says_who_what_why_and_when() -> None:
    tickets = [
        replace(
            TICKET, person="kim", place=1, eta_at=START + HOUR, eta_kind="latest", reclaims=2, put_back=True
        ),
        replace(TICKET, id="t2", person="lee", code="", place=None, wanted=4),
    ]
    made = queue_page(QueueFacts(CENTRE, START, START, tickets, 2, QueueFilter(), titles=TITLES), SAY)
    first, second = made.lines
    assert (first.place, first.person, first.pool_title, first.since) == (
        "1",
        "kim",
        "Hangang University",
        "5 min",
    )
    assert (first.code, first.chip.text) == ("pool-full", "Wait, by 10:00")
    assert first.notes == ("put back after a notice", "2 borrowed leases are taken back for it")
    assert (second.place, second.told, second.notes) == ("", None, ("wants 4 of these",))


@pytest.mark.parametrize(("count", "want"), [(0, 1), (50, 1), (51, 2), (2000, 40)])
def test_the_queue_is_read_in_pages(count: int, want: int) -> None:
    assert queue_page(QueueFacts(CENTRE, START, START, [], count, QueueFilter()), SAY).pages == want


# -- the log ----------------------------------------------------------------------------------------------------------


def told(kind: EntryKind, facts: dict[str, Any], why: str = "") -> tuple[str, str, str]:
    """What the line says, its code, and the reason in somebody's own words."""
    entry = Entry(kind, START, "l1", "univ", "kim", "kim", why, facts)
    made = log_page(LogFacts(CENTRE, START, [(1, entry)], Asked(), titles=TITLES), SAY)
    (line,) = made.lines
    return line.told, line.code, line.why


@pytest.mark.parametrize(
    ("kind", "facts", "why", "want"),
    [
        (
            EntryKind.BOOKED,
            {"amounts": {"gpu.h200": 1000}, "ends_at": START + HOUR, "guaranteed": True},
            "",
            ("1 × H200, guaranteed, until 10:00", "", ""),
        ),
        (
            EntryKind.BOOKED,
            {"amounts": {"gpu.h200": 1000}, "ends_at": START + HOUR, "guaranteed": False, "lender": "lab"},
            "",
            ("1 × H200, borrowed from River Lab, until 10:00", "", ""),
        ),
        (EntryKind.RUNNING, {"node": "n1", "handle": "x"}, "", ("runs on n1", "", "")),
        (
            EntryKind.NOTICED,
            {"ends_at": START + HOUR, "for": "t1"},
            "taken-back",
            ("ends 10:00", "taken-back", ""),
        ),
        (
            EntryKind.ACCRUED,
            {"units": 36 * 10**8, "until": START + HOUR},
            "",
            ("1 GPU-h until 10:00", "", ""),
        ),
        (
            EntryKind.GRANTED,
            {"units": 5 * 36 * 10**8, "until": START + 26 * HOUR},
            "Deadline of the thesis",
            ("5 GPU-h, until tomorrow 11:00", "", "Deadline of the thesis"),
        ),
        (EntryKind.CORRECTED, {"units": -36 * 10**8}, "", ("1 GPU-h less used", "", "")),
        (
            EntryKind.RESERVED,
            {"amounts": {"gpu.h200": 2000}, "start": START + HOUR, "end": START + 26 * HOUR},
            "made",
            ("2 × H200, from 10:00 to tomorrow 11:00", "made", ""),
        ),
        (EntryKind.RELEASED, {}, "stopped", ("", "stopped", "")),
        (EntryKind.BOOKED, {"of": "another version"}, "", ("", "", "")),
    ],
)
def test_an_entry_is_told_in_words(
    kind: EntryKind, facts: dict[str, Any], why: str, want: tuple[str, str, str]
) -> None:
    assert told(kind, facts, why) == want


def test_a_decision_is_told_as_the_person_read_it() -> None:
    facts = {"pool": "univ", "resource": "gpu.h200", "asked": 1000, "available": 0}
    said, code, _ = told(EntryKind.DECIDED, {"ask": "a", "facts": facts}, "pool-full")
    assert said.startswith("Nothing of this is free at Hangang University now: H200.")
    assert code == "pool-full"


def test_every_kind_of_entry_has_a_name() -> None:
    made = log_page(LogFacts(CENTRE, START, [], Asked()), SAY)
    assert {kind for kind, _ in made.kinds} == {kind.value for kind in EntryKind}
    korean = log_page(LogFacts(CENTRE, START, [], Asked()), speaker(CENTRE, "ko"))
    assert not {title for _, title in korean.kinds} & {title for _, title in made.kinds}


@pytest.mark.parametrize(
    ("query", "want"),
    [
        ({}, {}),
        ({"kind": "decided"}, {"kinds": (EntryKind.DECIDED,)}),
        ({"kind": "nonsense"}, {}),
        ({"person": " kim "}, {"person": "kim"}),
        ({"from": "2027-03-02"}, {"since": START - 9 * HOUR}),
        ({"to": "2027-03-02"}, {"before": START + 15 * HOUR}),
        ({"from": "yesterday", "to": "2027-13-45"}, {}),
        ({"to": "9999-12-31", "from": "0001-01-01"}, {}),
        ({"lease": "x" * 500}, {"lease": "x" * 200}),
    ],
)
def test_the_address_says_what_is_looked_for(query: dict[str, str], want: dict[str, Any]) -> None:
    found = Asked.of(query).which(CENTRE)
    assert found == replace(Asked().which(CENTRE), **want)


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_place_in_the_log_survives_the_address(at: int, number: int) -> None:
    assert Cursor.parse(str(Cursor(at, number))) == Cursor(at, number)


@given(st.text())
def test_a_place_that_is_none_is_none(text: str) -> None:
    found = Cursor.parse(text)
    assert found is None or 0 <= found.at <= 1 << 62


# -- the policy -------------------------------------------------------------------------------------------------------

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d: 1", "d: 2", ""]), max_size=40)


@given(TEXTS, TEXTS)
def test_a_comparison_tells_exactly_what_changed(before: list[str], after: list[str]) -> None:
    lines = list(compare(before, after))
    for line in lines:
        if line.kind in ("same", "added"):
            assert line.number is not None
            assert after[line.number - 1] == line.text
        if line.kind in ("same", "removed"):
            assert line.before is not None
            assert before[line.before - 1] == line.text
    added = {line.number for line in lines if line.kind == "added"}
    removed = {line.before for line in lines if line.kind == "removed"}
    kept = [text for number, text in enumerate(after, start=1) if number not in added]
    assert kept == [text for number, text in enumerate(before, start=1) if number not in removed]
    assert bool(lines) is (before != after)


def test_a_comparison_shows_what_is_around_a_change_and_no_more() -> None:
    before = [str(number) for number in range(40)]
    after = [*before[:5], "new", *before[5:30], *before[31:]]
    lines = list(compare(before, after))
    assert [line.text for line in lines if line.kind == "added"] == ["new"]
    assert [line.text for line in lines if line.kind == "removed"] == ["30"]
    assert sum(line.kind == "gap" for line in lines) == 1
    assert sum(line.kind == "same" for line in lines) == 4 * CONTEXT


# -- downloads --------------------------------------------------------------------------------------------------------


def test_the_download_of_machines_has_a_row_for_each_lease_and_each_idle_machine() -> None:
    idle = Node("n2", {"gpu.h200": 2000})
    rows = list(machine_rows([(NODE, [ONE, replace(ONE, id="l2", guaranteed=False)]), (idle, [])], CENTRE))
    assert [(row[0], row[4], row[5], row[10]) for row in rows] == [
        ("n1", 2.0, "l1", "guaranteed"),
        ("n1", 2.0, "l2", "borrowed"),
        ("n2", 0.0, None, None),
    ]
    assert len({len(row) for row in rows}) == 1

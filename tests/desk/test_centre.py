"""The pages *centre* on a real store: for operators alone, with filters, downloads and what-if."""

import asyncio
import csv
import html
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from hub_ext.core.clock import HOUR, MINUTE
from hub_ext.desk.centre import read_live
from hub_ext.desk.live_scenario import live_scenario
from hub_ext.desk.what_if import LONGEST_TEXT, Busy, TookTooLong, WhatIf, answer_to
from hub_ext.quota.model import Ask, Eta, Outlook, Reservation, Ticket
from hub_ext.quota.numbers import pool_numbers
from tests.desk.lively import NEIGHBOUR, OPERATOR_PERSON, POLICY, START, STUDENT, TOKEN, Lively, lively
from tests.support.databases import Database

CENTRE = "/services/desk/centre"
PAGES = (
    "", "/machines.csv", "/queue", "/queue.csv", "/decisions", "/decisions.csv", "/policy", "/policy.yaml", "/what-if",
)  # fmt: skip


@pytest.fixture
def centre(sqlite_database: Database) -> Iterator[Lively]:
    made = lively(sqlite_database)
    yield made
    made.store.close()


def text_of(page: str) -> str:
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


# -- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
async def test_nobody_but_an_operator_sees_it(centre: Lively, page: str) -> None:
    async with centre.visit(STUDENT) as student:
        answer = await student.get(CENTRE + page)
        assert answer.status_code == 403
        assert "neighbour" not in answer.text
        assert "River Lab" not in answer.text
        if page == "/what-if":
            sent = await student.post(CENTRE + page, data={"_csrf": TOKEN, "scenario": "now: x"})
            assert sent.status_code == 403
    async with centre.visit(OPERATOR_PERSON) as operator:
        assert (await operator.get(CENTRE + page)).status_code == 200


# -- the map ----------------------------------------------------------------------------------------------------------


async def test_the_map_shows_every_gpu_with_its_totals_from_one_snapshot(centre: Lively) -> None:
    centre.take_back("idle", START + 10 * MINUTE, "theirs")
    async with centre.visit(OPERATOR_PERSON) as operator:
        page = (await operator.get(CENTRE)).text
    shown = re.findall(r'class="hd-cell hd-cell--(\w+)"', page)
    assert {name: shown.count(name) for name in set(shown)} == {
        "guaranteed": 7,
        "ending": 1,
        "away": 2,
        "free": 7,
    }
    numbers = [
        [text_of(cell) for cell in re.findall(r'<td class="hd-number">(.*?)</td>', row)]
        for row in re.findall(r"<tr><th scope=\"row\">.*?</tr>", page, re.DOTALL)[:2]
    ]
    assert numbers == [["10", "7", "0", "1", "0", "2"], ["7", "0", "0", "0", "7", "0"]]
    assert "H200 4: being ended, student (Hangang University), until 09:10" in page


async def test_one_class_may_be_picked_and_what_is_no_class_picks_none(centre: Lively) -> None:
    async with centre.visit(OPERATOR_PERSON) as operator:
        slices = (await operator.get(f"{CENTRE}?class=h200-1g")).text
        assert len(re.findall(r'class="hd-cell ', slices)) == 7
        everything = (await operator.get(f"{CENTRE}?class='nothing&page=x")).text
        assert len(re.findall(r'class="hd-cell ', everything)) == 17


async def test_a_lease_without_a_machine_is_not_forgotten(centre: Lively) -> None:
    """Before any machine was reported, nobody knows where a server runs."""
    centre.database.run("DELETE FROM nodes", "DELETE FROM reported")
    centre.book("floating", NEIGHBOUR, starting=True)
    async with centre.visit(OPERATOR_PERSON) as operator:
        page = text_of((await operator.get(CENTRE)).text)
    assert "Not on a machine yet" in page
    assert "No machine is known yet" in page


async def test_the_download_of_machines_counts_as_the_map_does(centre: Lively) -> None:
    async with centre.visit(OPERATOR_PERSON) as operator:
        rows = rows_of((await operator.get(f"{CENTRE}/machines.csv")).text)
        slices = rows_of((await operator.get(f"{CENTRE}/machines.csv?class=h200-1g")).text)
    assert sum(float(row["gpus"] or 0) for row in rows) == 8
    assert {(row["lease"], row["standing"]) for row in rows if row["lease"]} == {
        ("train", "guaranteed"), ("slice", "guaranteed"), ("more", "guaranteed"), ("idle", "borrowed"),
    }  # fmt: skip
    assert {row["machine"]: row["takes_new"] for row in rows}["gpu-3"] == "no"
    assert [(row["machine"], row["gpu_class"], row["used"]) for row in slices] == [
        ("slices", "h200-1g", "0.0")
    ]


# -- the queue --------------------------------------------------------------------------------------------------------


async def test_the_queue_is_in_order_whatever_the_pages(centre: Lively) -> None:
    for number in range(120):
        centre.wait(f"t{number:03d}", (STUDENT, NEIGHBOUR)[number % 2], place=120 - number)
    found = []
    async with centre.visit(OPERATOR_PERSON) as operator:
        for number in (1, 2, 3):
            page = (await operator.get(f"{CENTRE}/queue?page={number}")).text
            found += re.findall(r'<td class="hd-number">(\d+)</td>', page)
        assert [int(place) for place in found] == list(range(1, 121))
        assert "120 in line" in page
        beyond = (await operator.get(f"{CENTRE}/queue?page=99")).text
        assert "Page 3 of 3" in beyond


async def test_filter_and_download_agree(centre: Lively) -> None:
    centre.wait("mine", eta=Eta(START + HOUR, "latest"))
    centre.wait("theirs", NEIGHBOUR, place=2, code="no-node-free")
    cases = {
        "pool=lab": ["theirs"],
        "pool=seoul": ["mine", "theirs"],
        "person=student": ["mine"],
        "code=no-node-free": ["theirs"],
        "person=nobody": [],
        "pool=nothing": ["mine", "theirs"],
    }
    async with centre.visit(OPERATOR_PERSON) as operator:
        for query, want in cases.items():
            rows = rows_of((await operator.get(f"{CENTRE}/queue.csv?{query}")).text)
            assert [row["ticket"] for row in rows] == want, query
            shown = (await operator.get(f"{CENTRE}/queue?{query}")).text
            assert f"{len(want)} in line" in shown
    (row,) = [row for row in rows if row["ticket"] == "mine"]
    assert row["expected_at"] == "2027-03-02T10:00:00+09:00"
    assert (row["gpus"], row["gpu_class"], row["waiting_seconds"]) == ("1", "h200", "300")


# -- the log of decisions ---------------------------------------------------------------------------------------------


async def test_every_entry_stands_on_exactly_one_page(centre: Lively) -> None:
    """Many in one second, too: a place in the log is time and number."""
    for number in range(130):
        centre.clock.at += number % 3
        centre.admission.admit_now(STUDENT, _too_much(f"a{number}"))
    found: list[str] = []
    async with centre.visit(OPERATOR_PERSON) as operator:
        address: str | None = f"{CENTRE}/decisions?kind=decided"
        while address is not None:
            page = (await operator.get(address)).text
            found += re.findall(r'href="\?lease=(a\d+)"', page)
            older = re.search(r'<a href="(\?[^"]*)" rel="next">', page)
            address = f"{CENTRE}/decisions{html.unescape(older[1])}" if older else None
    assert len(found) == 130
    assert found == [f"a{number}" for number in reversed(range(130))]


async def test_filters_stand_in_the_address_and_in_the_form(centre: Lively) -> None:
    centre.admission.admit_now(STUDENT, _too_much("refused"))
    async with centre.visit(OPERATOR_PERSON) as operator:
        query = "person=student&code=too-big-for-pool&from=2027-03-02&to=2027-03-02&pool=univ&kind=decided"
        page = (await operator.get(f"{CENTRE}/decisions?{query}")).text
        assert re.findall(r'href="\?lease=([\w-]+)"', page) == ["refused"]
        assert "Hangang University can never have that much at once" in text_of(page)
        for field in (
            'name="person" value="student"',
            'value="2027-03-02"',
            '<option value="univ" selected>',
        ):
            assert field in page
        for other in ("person=neighbour", "code=pool-full", "to=2027-03-01", "pool=lab", "from=2027-03-03"):
            empty = (await operator.get(f"{CENTRE}/decisions?kind=decided&{other}")).text
            assert "Nothing in the ledger fits this filter" in empty, other


async def test_accrued_hours_hide_nothing_unless_asked_for(centre: Lively) -> None:
    async with centre.visit(OPERATOR_PERSON) as operator:
        everything = rows_of((await operator.get(f"{CENTRE}/decisions.csv")).text)
        accrued = rows_of((await operator.get(f"{CENTRE}/decisions.csv?kind=accrued")).text)
    assert {row["kind"] for row in everything} == {"booked", "running", "released"}
    assert {row["kind"] for row in accrued} == {"accrued"}
    assert sum(json.loads(row["facts"])["units"] for row in accrued) == 3 * HOUR * 10**6


async def test_the_download_of_the_log_holds_every_entry_once(centre: Lively) -> None:
    for number in range(600):
        centre.admission.admit_now(STUDENT, _too_much(f"a{number}"))
    async with centre.visit(OPERATOR_PERSON) as operator:
        rows = rows_of((await operator.get(f"{CENTRE}/decisions.csv?kind=decided")).text)
    numbers = [int(row["number"]) for row in rows]
    assert len(numbers) == len(set(numbers)) == 600
    assert numbers == sorted(numbers, reverse=True)


async def test_hostile_filters_are_texts(centre: Lively) -> None:
    async with centre.visit(OPERATOR_PERSON) as operator:
        for value in ("<script>", "' OR 1=1 --", "%", "\x00x", "ㄱ" * 5000):
            for name in ("person", "pool", "kind", "code", "lease", "from", "to", "after"):
                answer = await operator.get(f"{CENTRE}/decisions", params={name: value})
                assert answer.status_code == 200
                assert "<script>" not in answer.text


# -- the policy -------------------------------------------------------------------------------------------------------


async def test_the_policy_is_shown_by_line_with_what_changed(centre: Lively) -> None:
    changed = POLICY.replace("gpu.h200: {nominal: 6}", "gpu.h200: {nominal: 5}")
    centre.clock.at += HOUR
    centre.load(changed, who="policy file")
    async with centre.visit(OPERATOR_PERSON) as operator:
        now = (await operator.get(f"{CENTRE}/policy")).text
        assert "In force since 10:00, put there by policy file" in text_of(now)
        assert "+1 −1" in text_of(now)
        assert re.search(r'hd-source__removed">.*?nominal: 6', now, re.DOTALL)
        assert re.search(r'hd-source__added">.*?nominal: 5', now, re.DOTALL)
        lines = re.findall(r'<tr class="hd-source__same" id="line-(\d+)">', now)
        assert [int(line) for line in lines] == list(range(1, len(changed.splitlines()) + 1))
        former = (await operator.get(f"{CENTRE}/policy?version=1")).text
        assert "This version is not in force any more." in former
        assert (await operator.get(f"{CENTRE}/policy.yaml?version=1")).text == POLICY
        assert (await operator.get(f"{CENTRE}/policy.yaml")).text == changed
        assert (await operator.get(f"{CENTRE}/policy?version=77")).status_code == 404


# -- what-if ----------------------------------------------------------------------------------------------------------


def scenario_in(page: str) -> str:
    found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    assert found is not None
    return html.unescape(found[1])


async def test_the_centre_as_it_is_plays_at_one_click(centre: Lively) -> None:
    centre.wait("later")
    async with centre.visit(OPERATOR_PERSON) as operator:
        text = scenario_in((await operator.get(f"{CENTRE}/what-if?from=now")).text)
        played = await operator.post(f"{CENTRE}/what-if", data={"_csrf": TOKEN, "scenario": text})
        assert played.status_code == 200
        assert "person-at-cap" in played.text  # `later`: the student has two servers
        assert scenario_in(played.text) == text
        as_json = await operator.post(
            f"{CENTRE}/what-if", data={"_csrf": TOKEN, "scenario": text, "as": "json"}
        )
    assert as_json.headers["content-disposition"] == 'attachment; filename="what-if.json"'
    assert set(as_json.json()) == {"decisions", "pools", "budgets"}
    assert "later" in {entry["id"] for entry in as_json.json()["decisions"]}


def test_the_live_scenario_stands_where_the_centre_stands(centre: Lively) -> None:
    """Played without an event, it has the very numbers of the ledger, for every pool and resource."""
    centre.admission.release_now("more", "neighbour", "stopped")
    centre.book("again", NEIGHBOUR, h200=3)
    with centre.store.booking() as txn:
        ledger = txn.ledger(None)
        for lease in txn.live_leases():
            txn.save(ledger, [ledger.accrue(lease, START)])
    text = live_scenario(read_live(centre.store, START))
    answer = answer_to((text.partition("events:")[0] + "events: []\n").encode())
    assert answer.faults == ()
    assert answer.outcome is not None
    with centre.store.reading() as txn:
        ledger = txn.ledger(None)
        assert answer.outcome["pools"] == {pool: pool_numbers(ledger, pool) for pool in txn.policy.pools}


def test_a_live_scenario_tells_what_it_leaves_out(centre: Lively) -> None:
    centre.admission.grant_hours(
        "univ", 36 * 10**9, START + 24 * HOUR, why="soon", who="operator", period="month", person=None
    )
    ask = Ask("gone", "student", "lab", {"gpu.h200": 1000}, server="gone")
    with centre.store.booking() as txn:
        txn.put_reservations([Reservation("w1", "lab", {"gpu.h200": 1000}, START + HOUR, START + 3 * HOUR)])
        txn.put_tickets([Ticket(ask, START, Outlook("pool-full"))])
    centre.load(
        POLICY.replace("  lab:\n", "  studio:\n").replace(
            "{hours: 200, period: month", "{hours: 200, period: day"
        )
    )
    text = live_scenario(read_live(centre.store, START))
    assert "Left out: 2 in pools that the policy does not name any more." in text
    assert answer_to(text.encode()).faults == ()


def test_reservations_and_grants_are_in_the_live_scenario(centre: Lively) -> None:
    centre.admission.grant_hours(
        "univ",
        36 * 10**9,
        START + 24 * HOUR,
        why='a "deadline": #1',
        who="operator",
        period="month",
        person=None,
    )
    with centre.store.booking() as txn:
        txn.put_reservations(
            [Reservation("w1", "univ", {"gpu.h200-1g": 4000}, START + HOUR, START + 3 * HOUR)]
        )
    answer = answer_to(live_scenario(read_live(centre.store, START)).encode())
    assert answer.faults == ()
    assert answer.outcome is not None
    (month,) = [b for b in answer.outcome["budgets"] if (b["pool"], b["period"]) == ("univ", "month")]
    assert month["limit"] == 210 * HOUR


FAULTY = {
    "not YAML": ("now: [", 1, "this is not YAML"),
    "no policy": ("now: 2027-03-02T09:00:00+09:00\n", 1, "policy is missing"),
    "a mistake in line 3": ("now: 2027-03-02T09:00:00+09:00\npolicy: {}\nevnts: []\n", 3, "evnts is not a known"),
    "a file of the desk's machine": (
        "now: 2027-03-02T09:00:00+09:00\npolicy: /etc/passwd\n", 2, "there are no files beside this form",
    ),
    "a list": ("- 1\n- 2\n", 1, ""),
    "nothing": ("", 1, ""),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "what"), FAULTY.values(), ids=FAULTY)
async def test_what_cannot_be_played_is_told_by_line(centre: Lively, text: str, line: int, what: str) -> None:
    async with centre.visit(OPERATOR_PERSON) as operator:
        answer = await operator.post(f"{CENTRE}/what-if", data={"_csrf": TOKEN, "scenario": text})
    assert answer.status_code == 422
    assert f"line {line}: " in text_of(answer.text)
    assert what in text_of(answer.text)
    assert "root:" not in answer.text


def test_no_event_reads_a_file_either() -> None:
    text = f"now: 2027-03-02T09:00:00+09:00\npolicy:\n  {POLICY.replace(chr(10), chr(10) + '  ')}\n"
    text += "events:\n  - {at: +1m, policy: ../../etc/hostname}\n"
    (fault,) = answer_to(text.encode()).faults
    assert "no files beside this form" in fault.what
    assert fault.line == text.count("\n")


async def test_a_scenario_that_takes_too_long_is_ended_with_its_process() -> None:
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(TookTooLong):
        await WhatIf(seconds=0.01).answer("now: 2027-03-02T09:00:00+09:00")
    assert {child.pid for child in psutil.Process().children()} <= before


@pytest.mark.parametrize(
    ("limit", "value"),
    [pytest.param("MEMORY", 48 << 20, id="memory"), pytest.param("SECONDS", 1, id="processor")],
)
def test_a_scenario_that_takes_too_much_ends_the_program_and_nothing_else(limit: str, value: int) -> None:
    """The program keeps its own limits; it answers nothing then, and does not end well."""
    events = "".join(f"  - {{at: +{n}s, tick: true}}\n" for n in range(60_000))
    text = f"now: 2027-03-02T09:00:00+09:00\npolicy:\n  {POLICY.replace(chr(10), chr(10) + '  ')}\nevents:\n{events}"
    program = f"from hub_ext.desk import what_if; what_if.{limit} = {value}; what_if.main()"
    done = subprocess.run(
        [sys.executable, "-c", program], input=text.encode(), capture_output=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert done.stdout == b""


async def test_one_scenario_is_played_at_a_time() -> None:
    player = WhatIf()
    first = asyncio.create_task(player.answer("now: ["))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await player.answer("now: [")
    assert (await first).faults
    assert (await player.answer("now: [")).faults


async def test_a_text_that_is_too_long_is_not_even_read() -> None:
    (fault,) = (await WhatIf(seconds=0).answer("#" * (LONGEST_TEXT + 1))).faults
    assert "longer than" in fault.what


async def test_a_form_that_is_not_ours_plays_nothing(centre: Lively) -> None:
    async with centre.visit(OPERATOR_PERSON) as operator:
        assert (await operator.post(f"{CENTRE}/what-if", data={"scenario": "now: ["})).status_code == 403


def _too_much(name: str) -> Ask:
    """An ask that is refused at once."""
    return Ask(name, "student", "univ", {"gpu.h200": 64_000}, server=name)

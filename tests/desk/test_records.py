"""What the pages read beside the store says the same as the store, on each kind of database."""

from collections import Counter
from collections.abc import Iterator
from datetime import date

import pytest

from hub_ext.core.clock import HOUR, MINUTE
from hub_ext.desk.records import Cursor, DayOfUse, EntryFilter, QueueFilter, Records
from hub_ext.desk.views_centre import standing_of
from hub_ext.quota.budget import first_instant
from hub_ext.quota.contention import WAITS_FOR_ROOM
from hub_ext.quota.ledger import EntryKind
from hub_ext.quota.model import Eta
from hub_ext.quota.queue import others_waiting_for
from tests.desk.lively import NEIGHBOUR, POLICY, START, STUDENT, Lively, lively
from tests.support.databases import Database


@pytest.fixture
def centre(database: Database) -> Iterator[Lively]:
    made = lively(database)
    made.take_back("idle", START + 10 * MINUTE, "theirs")
    made.ending("slice")
    for number in range(7):
        made.wait(
            f"t{number}",
            (STUDENT, NEIGHBOUR)[number % 2],
            place=None if number == 3 else 7 - number,
            eta=Eta(START + HOUR, "latest") if number else None,
            code=("pool-full", "person-at-cap")[number // 5],
        )
    yield made
    made.store.close()


def test_leases_on_machines_are_the_live_ones(centre: Lively) -> None:
    with centre.store.reading() as txn:
        records = Records.of(txn)
        live = {lease.id: lease for lease in txn.live_leases()}
        held = records.held_on(["gpu-1", "gpu-2", "slices", "nowhere"])
        assert {one.id for one in held} == live.keys()
        for one in held:
            lease = live[one.id]
            assert (one.person, one.amounts, one.state, one.node) == (
                lease.person,
                lease.amounts,
                lease.state,
                lease.node,
            )
            assert (one.ends_at, one.noticed_at, one.devices) == (
                lease.ends_at,
                lease.noticed_at,
                lease.devices,
            )
        assert records.held_on([]) == []
        assert records.held_nowhere(10) == []


def test_totals_count_every_live_lease_once(centre: Lively) -> None:
    with centre.store.reading() as txn:
        records = Records.of(txn)
        held = records.held_on(["gpu-1", "gpu-2"])
        want = Counter((one.pool, standing_of(one), one.amounts["gpu.h200"]) for one in held)
        found = Counter(
            {
                (total.pool, total.standing, total.amounts["gpu.h200"]): total.count
                for total in records.totals()
            }
        )
    assert found == want


def test_use_by_day_is_the_ledgers(centre: Lively) -> None:
    for name in ("train", "idle", "more"):
        centre.accrue(name)
    first, last = date(2027, 2, 20), date(2027, 3, 2)
    with centre.store.reading() as txn:
        since = first_instant(first, txn.policy.timezone)
        found = Records.of(txn).use_of("student", first, last, since)
        want: dict[date, DayOfUse] = {}
        for row in txn.usage(first, last):
            if row.lease.person == "student":
                day = want.get(row.day, DayOfUse(row.day))
                guaranteed = row.units if row.lease.guaranteed else 0
                want[row.day] = DayOfUse(
                    row.day, day.guaranteed + guaranteed, day.borrowed + row.units - guaranteed
                )
        assert found == want
        assert set(found) == {date(2027, 2, 28), date(2027, 3, 2)}
        assert found[date(2027, 3, 2)].borrowed > 0
        assert Records.of(txn).use_of("nobody", first, last, since) == {}


def test_the_line_is_by_place_and_by_age_behind(centre: Lively) -> None:
    with centre.store.reading() as txn:
        records = Records.of(txn)
        everybody = records.waiting(QueueFilter(), offset=0, limit=100)
        assert [one.place for one in everybody] == [1, 2, 3, 5, 6, 7, None]
        parts = [one for start in (0, 3, 6) for one in records.waiting(QueueFilter(), offset=start, limit=3)]
        assert parts == everybody
        assert records.count_waiting() == 7
        for which in (
            QueueFilter(pool=("lab",)),
            QueueFilter(person="student"),
            QueueFilter(code="person-at-cap"),
            QueueFilter(pool=("univ",), code="pool-full"),
        ):
            found = records.waiting(which, offset=0, limit=100)
            assert records.count_waiting(which) == len(found) > 0
            assert all(one.pool in (which.pool or (one.pool,)) for one in found)
        tickets = {ticket.id: ticket for ticket in txn.tickets(person="student")}
        assert {one.id for one in records.waiting_of("student")} == tickets.keys()
        for one in records.waiting_of("student"):
            assert one.amounts == tickets[one.id].ask.amounts
            assert one.facts == tickets[one.id].outlook.facts


def test_what_is_waited_for_objects_as_all_tickets_do(centre: Lively) -> None:
    with centre.store.reading() as txn:
        records, policy = Records.of(txn), txn.policy
        short, whole = records.waited_for(WAITS_FOR_ROOM), txn.tickets(codes=WAITS_FOR_ROOM)
        assert len(short) < len(whole)
        for lease in txn.live_leases():
            assert bool(others_waiting_for(policy, lease, short)) == bool(
                others_waiting_for(policy, lease, whole)
            )


def test_the_log_is_the_ledger_from_its_end(centre: Lively) -> None:
    with centre.store.reading() as txn:
        records = Records.of(txn)
        every = txn.entries(limit=10_000)
        want = [pair for pair in reversed(every) if pair[1].kind is not EntryKind.ACCRUED]
        assert records.entries(EntryFilter(), after=None, limit=10_000) == want
        read, after = [], None
        while part := records.entries(EntryFilter(), after=after, limit=3):
            read += part
            after = Cursor(part[-1][1].at, part[-1][0])
        assert read == want
        accrued = records.entries(EntryFilter(kinds=(EntryKind.ACCRUED,)), after=None, limit=10_000)
        assert len(accrued) == len(every) - len(want) > 0
        of_train = records.entries(EntryFilter(lease="train"), after=None, limit=100)
        assert [entry.kind for _, entry in of_train] == [EntryKind.RUNNING, EntryKind.BOOKED]
        window = EntryFilter(since=START - HOUR, before=START)
        assert {entry.lease for _, entry in records.entries(window, after=None, limit=100)} == {"idle"}


def test_policies_are_kept_with_what_was_before_them(centre: Lively) -> None:
    changed = POLICY.replace("nominal: 6", "nominal: 5")
    centre.load(changed, who="policy file")
    with centre.store.reading() as txn:
        records = Records.of(txn)
        newest, oldest = records.versions(10)
        assert (newest.who, oldest.who) == ("policy file", "operator")
        assert records.text_of(newest.number) == changed
        assert records.before(newest.number) == oldest.number
        assert records.before(oldest.number) is None
        assert records.version(10**9) is None
        assert records.text_of(10**9) is None

"""Times, and the small shared words: durations, instants, people, faults, verdicts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.core import clock
from hub_ext.core.clock import DAY, LONGEST, SystemClock, at, format_duration, instant_of, parse_duration
from hub_ext.core.decision import Admit, Code, Refuse, Wait, verdict
from hub_ext.core.errors import BadInput, Fault, FaultyDocument
from hub_ext.core.people import Person


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("5s", 5), ("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800), ("1w", 604_800), ("1h30m", 5400),
        ("1m1m", 120), ("0s", 0), (" 15m ", 900), ("36500d", LONGEST),
    ],
)  # fmt: skip
def test_durations(text: str, wanted: int) -> None:
    assert parse_duration(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "15",
        "m",
        "-15m",
        "+15m",
        "1.5h",
        "15 m",
        "15M",
        "1y",
        "1h 30m",
        "m15",
        "१m",
        "15m!",
        "1" * 10 + "s",
        15,
        None,
        True,
        1.5,
    ],
)
def test_what_is_no_duration(text: Any) -> None:
    with pytest.raises(BadInput, match="is not a duration; write for example"):
        parse_duration(text)


def test_a_duration_longer_than_anything() -> None:
    for text in ("36500d1s", "999999999w"):
        with pytest.raises(BadInput, match="longer than a hundred years"):
            parse_duration(text)


@given(st.integers(0, LONGEST))
def test_a_duration_is_read_back(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 2**40 // 40), st.sampled_from(["UTC", "Asia/Seoul", "America/Sao_Paulo"]).map(ZoneInfo))
def test_an_instant_is_the_same_in_every_zone(instant: int, zone: ZoneInfo) -> None:
    assert instant_of(at(instant, zone)) == instant
    assert at(instant, zone) == at(instant)


def test_an_instant_is_the_whole_second_a_moment_lies_in() -> None:
    moment = datetime(2027, 3, 2, 9, tzinfo=timezone(timedelta(hours=9)))
    assert instant_of(moment) == instant_of(moment + timedelta(microseconds=999_999)) == 1_803_945_600
    assert instant_of(datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)) == -1
    with pytest.raises(BadInput, match="has no time zone; write for example 2027-03-02T09:00:00"):
        instant_of(moment.replace(tzinfo=None))


def test_a_clock_that_is_set_back_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = iter([1000.9, 1005.0, 5.0, 1004.0, 1006.2])
    monkeypatch.setattr(clock.time, "time", lambda: next(shown))
    system = SystemClock()
    assert [system.now() for _ in range(5)] == [1000, 1005, 1005, 1005, 1006]


def test_people() -> None:
    someone = Person("ha", pools=("univ",), profiles=frozenset({"small"}), any_profile=False)
    assert [someone.member_of(pool) for pool in ("univ", "lab")] == [True, False]
    assert [someone.may_start(profile) for profile in ("small", "large", None)] == [True, False, True]
    everybody = Person("", any_pool=True)
    assert everybody.member_of("anything")
    assert everybody.may_start("anything")


def test_verdicts() -> None:
    assert verdict(Admit(True, None, DAY, 0)) == "admit"
    assert verdict(Wait(Code.POOL_FULL)) == "wait"
    assert verdict(Refuse(Code.NOT_A_MEMBER)) == "refuse"


def test_a_faulty_document_tells_all_its_faults() -> None:
    faults = [
        Fault("a.yaml", 3, "this is wrong", "Write that."),
        Fault("a.yaml", 7, "so is this", "Remove it."),
    ]
    error = FaultyDocument(faults)
    assert str(error) == "a.yaml:3: this is wrong. Write that.\na.yaml:7: so is this. Remove it."
    assert error.faults == faults

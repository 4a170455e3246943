"""Which language is spoken, and how amounts, times and hours are said in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR as HOURS
from hub_ext.core.amounts import MILLI
from hub_ext.core.clock import DAY, HOUR, MINUTE
from hub_ext.language import LANGUAGES, GpuName, gpu_names, pick_language, translator
from tests.pages.made_up import NOW, SEOUL, speaker

ASKED = {
    "nothing is asked for": (None, "en"),
    "an empty header": ("", "en"),
    "Korean": ("ko", "ko"),
    "Korean of Korea, as browsers send it": ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
    "English of the United States": ("en-US,en;q=0.9", "en"),
    "English first, Korean too": ("en-US,en;q=0.9,ko;q=0.8", "en"),
    "the better quality wins, not the order": ("en;q=0.5, ko;q=0.9", "ko"),
    "among equals the first wins": ("ko;q=0.8,en;q=0.8", "ko"),
    "a language that is not spoken here, then Korean": ("fr-FR,fr;q=0.9,ko;q=0.4", "ko"),
    "only languages that are not spoken here": ("fr,de;q=0.9", "en"),
    "anything": ("*", "en"),
    "anything but English": ("en;q=0,*;q=0.5", "ko"),
    "Korean ruled out": ("ko;q=0", "en"),
    "anything is less wanted than Korean": ("*;q=0.1,ko", "ko"),
    "capital letters": ("KO-kr", "ko"),
    "blanks everywhere": (" ko ; q = 0.9 , en ; q=0.1", "ko"),
    "a language whose name begins like Korean": ("kok,en;q=0.2", "en"),
    "a quality that is no number": ("ko;q=high,en;q=0.1", "en"),
    "a quality above one counts as one": ("en;q=0.9,ko;q=1.5", "ko"),
    "a negative quality is passed over": ("ko;q=-1", "en"),
    "not a header at all": ("\x00<script>;;;q=,,,=;", "en"),
    "Hangul where a tag should be": ("한국어", "en"),
    "a very long header ends unread": ("x-a," * 10_000 + "ko", "en"),
}


@pytest.mark.parametrize(("header", "want"), ASKED.values(), ids=ASKED.keys())
def test_the_language_is_what_the_browser_asks_for(header: str | None, want: str) -> None:
    assert pick_language(header) == want


@pytest.mark.parametrize(
    ("cookie", "want"),
    [("ko", "ko"), ("en", "en"), ("fr", "ko"), ("", "ko"), ("KO", "ko"), ("ko; evil", "ko")],
)
def test_the_persons_own_choice_comes_first_and_nonsense_counts_for_nothing(cookie: str, want: str) -> None:
    assert pick_language("ko-KR,en;q=0.5", cookie) == want


@given(header=st.one_of(st.text(), st.text(alphabet="koen-;,q=.0123456789* ")), cookie=st.none() | st.text())
def test_any_header_and_cookie_lead_to_a_language_that_is_spoken(header: str, cookie: str | None) -> None:
    assert pick_language(header, cookie) in LANGUAGES


def test_what_the_catalogue_does_not_know_is_said_in_english() -> None:
    assert translator("ko")("Never said {x}", x=1) == "Never said 1"


AMOUNTS = {
    "one GPU": (("gpu.h200", MILLI), "1 × H200", "H200 1개"),
    "four GPUs": (("gpu.h200", 4 * MILLI), "4 × H200", "H200 4개"),
    "half a GPU": (("gpu.h200", 500), "0.5 × H200", "H200 0.5개"),
    "a slice": (("gpu.h200-1g", MILLI), "1/7 H200 (18 GB)", "H200 1/7 (18 GB)"),
    "two slices": (("gpu.h200-1g", 2 * MILLI), "2 × 1/7 H200 (18 GB)", "H200 1/7 (18 GB) 2개"),
    "a class the policy no longer has": (("gpu.b300", MILLI), "1 × B300", "B300 1개"),
    "cores": (("cpu", 8 * MILLI), "8 CPU", "CPU 8개"),
    "half a core": (("cpu", 500), "0.5 CPU", "CPU 0.5개"),
    "memory": (("memory", 64 * 1024), "64 GB", "64 GB"),
    "little memory": (("memory", 512), "512 MB", "512 MB"),
    "much memory": (("memory", 1536 * 1024), "1.5 TB", "1.5 TB"),
    "one server": (("servers", 1), "1 server", "서버 1대"),
    "two servers": (("servers", 2), "2 servers", "서버 2대"),
    "eight workers": (("dask-workers", 8), "8 Dask workers", "Dask 워커 8개"),
}


@pytest.mark.parametrize(("amount", "english", "korean"), AMOUNTS.values(), ids=AMOUNTS.keys())
def test_amounts_as_people_say_them(amount: tuple[str, int], english: str, korean: str) -> None:
    assert speaker("en").amount(*amount) == english
    assert speaker("ko").amount(*amount) == korean


def test_all_amounts_of_a_server_in_one_line() -> None:
    amounts = {"cpu": 16 * MILLI, "gpu.h200": MILLI, "memory": 192 * 1024, "gpu.h200-1g": 0}
    assert speaker("en").amounts(amounts) == "1 × H200 · 16 CPU · 192 GB"
    assert speaker("en").sizes(amounts) == "141 GB GPU · 16 CPU · 192 GB memory"
    assert speaker("ko").sizes(amounts) == "GPU 141 GB · CPU 16개 · 메모리 192 GB"


@dataclass(frozen=True)
class AClass:
    resource: str
    memory: int


def test_gpu_classes_get_names_that_people_know() -> None:
    classes = {
        "h200": AClass("nvidia.com/gpu", 144384),
        "h200-1g": AClass("nvidia.com/mig-1g.18gb", 18432),
        "h200-3g": AClass("nvidia.com/mig-3g.71gb", 72704),
        "rtx-6000": AClass("nvidia.com/gpu", 98304),
    }
    assert gpu_names(classes) == {
        "h200": GpuName("H200", "", 144384),
        "h200-1g": GpuName("H200", "1/7", 18432),
        "h200-3g": GpuName("H200", "3/7", 72704),
        "rtx-6000": GpuName("RTX-6000", "", 98304),
    }


DURATIONS = {
    0: ("under 1 min", "1분 미만"),
    59: ("under 1 min", "1분 미만"),
    45 * MINUTE: ("45 min", "45분"),
    2 * HOUR: ("2 h", "2시간"),
    5 * HOUR + 10 * MINUTE + 59: ("5 h 10 min", "5시간 10분"),
    2 * DAY: ("2 d", "2일"),
    2 * DAY + 3 * HOUR + MINUTE: ("2 d 3 h", "2일 3시간"),
}


@pytest.mark.parametrize(("seconds", "want"), DURATIONS.items())
def test_durations_are_cut_to_what_people_say(seconds: int, want: tuple[str, str]) -> None:
    assert (speaker("en").duration(seconds), speaker("ko").duration(seconds)) == want


MOMENTS = {
    "today": (NOW + 9 * HOUR + 40 * MINUTE, "18:40", "18:40"),
    "midnight is tomorrow": (NOW + 15 * HOUR, "tomorrow 00:00", "내일 00:00"),
    "in some days": (NOW + 6 * DAY, "Mon 8 Mar 09:00", "3월 8일(월) 09:00"),
    "yesterday": (NOW - DAY, "Mon 1 Mar 09:00", "3월 1일(월) 09:00"),
    "next year": (NOW + 365 * DAY, "Wed 1 Mar 2028 09:00", "2028년 3월 1일(수) 09:00"),
}


@pytest.mark.parametrize(("moment", "english", "korean"), MOMENTS.values(), ids=MOMENTS.keys())
def test_times_come_with_a_date_when_they_are_not_today(moment: int, english: str, korean: str) -> None:
    assert speaker("en").moment(moment, NOW) == english
    assert speaker("ko").moment(moment, NOW) == korean


def test_a_time_may_be_an_instant_a_datetime_or_its_iso_text() -> None:
    say, moment = speaker("en"), NOW + HOUR
    as_datetime = datetime.fromtimestamp(moment, SEOUL)
    assert (
        say.moment(moment, NOW)
        == say.moment(as_datetime, NOW)
        == say.moment(as_datetime.isoformat(), NOW)
        == "10:00"
    )
    assert say.moment(moment) == "Tue 2 Mar 2027 10:00", "without now, the date is always there"
    assert say.exact(moment) == "2027-03-02 10:00:00 KST"


def test_until_says_how_long_that_is() -> None:
    end = NOW + 5 * HOUR + 10 * MINUTE
    assert speaker("en").until(end, NOW) == "until 14:10 (5 h 10 min left)"
    assert speaker("ko").until(end, NOW) == "14:10까지 (5시간 10분 남음)"
    assert speaker("en").until(NOW - 5, NOW) == "until 08:59 (under 1 min left)"


def test_hours_are_rounded_down_so_that_what_is_shown_is_there() -> None:
    assert speaker("en").hours(int(12.59 * HOURS)) == "12.5"
    assert speaker("en").hours(2000 * HOURS) == "2,000"
    assert speaker("en").used_of(25 * HOURS // 2, 60 * HOURS, "week") == "12.5 GPU-h of 60 this week"
    assert speaker("ko").used_of(25 * HOURS // 2, 60 * HOURS, "week") == "이번 주 60 GPU시간 중 12.5 사용"
    assert speaker("en").left_of(63 * HOURS // 2, 60 * HOURS, "week") == "31.5 of 60 GPU-h left this week"
    assert speaker("ko").left_of(-HOURS, 60 * HOURS, "month") == "이번 달 60 GPU시간 중 0 남음", (
        "never below zero"
    )


def test_a_term_is_said_by_its_last_day() -> None:
    assert speaker("en").period("2027-03-01/2027-06-30") == "this term (until Wed 30 Jun 2027)"
    assert speaker("ko").period("2027-03-01/2027-06-30") == "이번 운영 기간(2027년 6월 30일(수)까지)"
    assert speaker("en").period("fortnight") == "fortnight", "a period that came later than these words"


@pytest.mark.parametrize(
    ("cost", "english", "korean"),
    [
        (0, "no GPU-hours", "GPU시간 차감 없음"),
        (143_000, "0.14 GPU-h/hour", "시간당 0.14 GPU시간"),
        (500_000, "0.5 GPU-h/hour", "시간당 0.5 GPU시간"),
        (4_000_000, "4 GPU-h/hour", "시간당 4 GPU시간"),
        (1, "0.01 GPU-h/hour", "시간당 0.01 GPU시간"),
    ],
)
def test_prices_never_look_free_when_they_are_not(cost: int, english: str, korean: str) -> None:
    assert (speaker("en").price(cost), speaker("ko").price(cost)) == (english, korean)

"""What is shown, and when: quiet unless it matters."""

from __future__ import annotations

import pytest

from hub_ext.core.clock import HOUR, MINUTE
from hub_ext.language import translator
from hub_ext.notebook.lab.model import Lease, Notice
from hub_ext.notebook.lab.policy import SOON, Link, View, off, step_minutes, view

NOW = 1_803_945_600
LINKS = (Link("My servers", "/services/desk/mine"),)


def lease(ahead: int = 4 * HOUR, **facts: object) -> Lease:
    return Lease("l1", NOW + ahead, "09:00", **facts)  # type: ignore[arg-type]


def seen(found: Lease | None, *, away: bool = False, age: int = 0, language: str = "en") -> View:
    say = translator(language)  # type: ignore[arg-type]
    return view(found, NOW, NOW - age, away=away, links=LINKS, say=say)


@pytest.mark.parametrize(
    ("found", "mood", "again", "sentence", "chip", "extend"),
    [
        pytest.param(None, "quiet", 15, "", "", False, id="no lease"),
        pytest.param(lease(), "quiet", 15, "", "", False, id="hours to go"),
        pytest.param(
            lease(guaranteed=False),
            "borrowed",
            15,
            "This server runs on what others leave idle. It may be taken back, with notice.",
            "Borrowed",
            False,
            id="borrowed",
        ),
        pytest.param(lease(SOON + 1), "quiet", 15, "", "", False, id="a second before it is soon"),
        pytest.param(
            lease(SOON), "soon", 15, "This server ends at 09:00. Save your work.", "", True, id="ends soon"
        ),
        pytest.param(
            lease(-5), "soon", 15, "This server ends at 09:00. Save your work.", "", True, id="late"
        ),
        pytest.param(
            lease(HOUR, over=True), "soon", 15, "This server is ending.", "", False, id="it is being ended"
        ),
        pytest.param(
            lease(HOUR, guaranteed=False, notice=Notice("taken-back", NOW + HOUR, "Needed back.")),
            "notice",
            5,
            "Needed back.",
            "Borrowed",
            True,
            id="a notice is shown however long it runs",
        ),
        pytest.param(
            lease(HOUR, notice=Notice("ends-soon", NOW + HOUR, "Ends at 09:00. Let it run longer.")),
            "soon",
            15,
            "Ends at 09:00. Let it run longer.",
            "",
            True,
            id="told of the end that was agreed",
        ),
        pytest.param(
            lease(guaranteed=False, borrowed="Borrowed from Seoul."),
            "borrowed",
            15,
            "Borrowed from Seoul.",
            "Borrowed",
            False,
            id="borrowed, in the desk's words",
        ),
        pytest.param(
            lease(HOUR, notice=Notice("budget-spent", NOW + HOUR, "")),
            "notice",
            5,
            "This server is taken back at 09:00. Save your work.",
            "",
            True,
            id="a notice without words",
        ),
    ],
)
def test_shows(found: Lease | None, mood: str, again: int, sentence: str, chip: str, extend: bool) -> None:
    shown = seen(found)
    assert (shown.mood, shown.again, shown.sentence, shown.chip) == (mood, again, sentence, chip)
    assert (shown.extend is not None) == extend


def test_the_time_left_is_that_of_the_notice_and_never_below_nothing() -> None:
    assert seen(lease(notice=Notice("taken-back", NOW + 600, ""))).left == 600
    assert seen(lease(90)).left == 90
    assert seen(lease(-90)).left == 0


@pytest.mark.parametrize(
    ("until", "minutes"),
    [(None, 60), (0, 60), (-600, 60), (20 * MINUTE, 20), (59, 1), (5 * HOUR, 60)],
)
def test_one_press_asks_for_an_hour_or_what_is_possible(until: int | None, minutes: int) -> None:
    ends = NOW + 10 * MINUTE
    found = lease(10 * MINUTE, extend_until=None if until is None else ends + until)
    assert step_minutes(found) == minutes
    extend = seen(found).extend
    assert extend is not None
    assert extend.minutes == minutes


def test_only_who_loses_a_gpu_is_shown_the_way_to_a_server_without() -> None:
    beside = Link("Start a CPU server beside it", "/hub/spawn/student/cpu")

    def shown(found: Lease) -> tuple[Link, ...]:
        return view(found, NOW, NOW, away=False, links=LINKS, say=translator("en"), beside=beside).links

    notice = Notice("taken-back", NOW + 600, "")
    assert shown(lease(gpus=True, notice=notice)) == (beside, *LINKS)
    assert shown(lease(gpus=False, notice=notice)) == LINKS
    assert shown(lease(gpus=True, notice=Notice("ends-soon", NOW + 600, ""))) == LINKS
    assert shown(lease(gpus=True)) == LINKS


def test_an_old_answer_says_so_only_while_the_desk_is_away() -> None:
    soon = lease(600)
    assert seen(soon, away=True, age=60).stale
    assert not seen(soon, away=True, age=59).stale
    assert not seen(soon, away=False, age=600).stale


def test_korean() -> None:
    shown = seen(lease(600, guaranteed=False), language="ko")
    assert shown.language == "ko"
    assert shown.sentence == "이 서버는 09:00에 종료됩니다. 작업을 저장해 주세요."
    assert shown.chip == "빌린 자원"
    assert shown.words["left"] == "{time} 남음"


def test_without_a_desk_nobody_asks_again() -> None:
    assert (off().mood, off().again) == ("off", 0)

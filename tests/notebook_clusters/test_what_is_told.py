"""What the desk tells, in any shape, and what the panel makes of it: pure."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.core.clock import instant_of
from hub_ext.notebook.clusters import view
from hub_ext.notebook.clusters.model import (
    BadAnswer,
    ClusterState,
    Menu,
    Notice,
    Offer,
    Waiting,
    menu_of,
    state_of,
)
from hub_ext.notebook.clusters.versions import versions_differ
from hub_ext.notebook.clusters.view import Worker
from hub_ext.notebook.clusters.words import language_of, speaker
from tests.support.clusters_desk import HOURS, NO_ROOM, NOTICE, profiles, state
from tests.support.notebook_desk import BORROWED

EN, KO = speaker("en"), speaker("ko")
NAME = "0123456789abcdef0123456789abcdef"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


# -- answers --------------------------------------------------------------------------------------------------------


def test_a_menu_is_read_with_its_hours() -> None:
    menu = menu_of(
        {"items": profiles("en"), "budgets": [{"sentence": HOURS["en"]}, {"title": "no line"}]}, "en"
    )
    assert [offer.profile for offer in menu.offers] == ["cpu", "slice", "gpu", "many"]
    assert [offer.state for offer in menu.offers] == ["now", "borrowed", "wait", "no"]
    assert menu.hours == (HOURS["en"],)
    assert menu.offer("slice", "hangang-univ") == menu.offers[1]
    assert menu.offer("slice", "another") is None


def test_a_title_may_come_in_all_languages() -> None:
    item = profiles("en")[0] | {"title": {"en": "CPU worker", "ko": "CPU 워커"}}
    assert menu_of({"items": [item]}, "ko").offers[0].title == "CPU 워커"


def test_a_cluster_is_read_with_notice_and_place() -> None:
    found = state_of(
        state(
            NAME,
            "en",
            workers={"live": 3, "running": 2, "guaranteed": 2, "borrowed": 1, "wanted": 2},
            notice={
                "at": None,
                "ends_at": "2026-11-26T14:10:00+09:00",
                "workers": 1,
                "message": NOTICE["en"],
            },
            waiting={
                "message": NO_ROOM["en"],
                "place": 3,
                "eta": {"at": "2026-11-26T14:20:00+09:00", "sentence": "expected 14:20"},
            },
            cost_per_hour=0.5,
        ),
        "en",
    )
    assert (found.live, found.running, found.borrowed, found.wanted, found.wished) == (3, 2, 1, 2, 5)
    assert found.notice is not None
    assert found.notice.workers == 1
    assert found.waiting is not None
    assert found.waiting.eta == "expected 14:20"
    assert found.cost_per_hour == 0.5


@given(ANYTHING)
def test_answers_of_any_shape_are_read_or_refused(answer: Any) -> None:
    for read in (menu_of, state_of):
        for shaped in (
            answer,
            {"items": [answer], "budgets": answer},
            {"name": "x", "workers": answer, "notice": answer},
        ):
            try:
                read(shaped, "en")
            except BadAnswer:
                continue


@given(st.dictionaries(st.sampled_from(list(profiles("en")[0])), ANYTHING))
def test_sizes_with_facts_of_any_shape_can_be_shown(facts: dict[str, Any]) -> None:
    for offer in menu_of({"items": [profiles("en")[1] | facts]}, "en").offers:
        assert view.label(offer, EN, pool=True)
        assert view.details(offer, KO)
        assert view.cost(offer, 4, EN)


# -- what it costs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "want"),
    [
        pytest.param(0, 0.0, id="none"),
        pytest.param(2, 2.0, id="guaranteed ones"),
        pytest.param(4, 3.0, id="two of them borrowed, at half the price"),
        pytest.param(6, 5.0, id="two more wait, and cost in full when they come"),
    ],
)
def test_cost_of_workers(workers: int, want: float) -> None:
    offer = Offer("gpu", "One", guaranteed=2, borrowed=2, cost_guaranteed=1.0, cost_borrowed=0.5)
    assert offer.cost(workers) == want


def test_what_has_no_room_now_is_said_beside_the_cost() -> None:
    offer = Offer("gpu", "One", guaranteed=2, state="now", cost_guaranteed=1.0, cost_borrowed=0.5)
    assert text_of(view.cost(offer, 2, EN)) == "2 workers: 2 GPU-h/hour."
    assert "1 of them has no room now; it waits in line and comes by itself." in view.cost(offer, 3, EN)
    assert "그중 2개는 지금 자리가 없어" in view.cost(offer, 4, KO)


@pytest.mark.parametrize(
    ("hours", "want"),
    [(0, "no GPU-hours"), (0.001, "0.01 GPU-h/hour"), (1 / 7, "0.14 GPU-h/hour"), (12.5, "12.5 GPU-h/hour")],
)
def test_a_price_never_rounds_to_nothing(hours: float, want: str) -> None:
    assert view.price(hours, EN) == want


# -- what is shown --------------------------------------------------------------------------------------------------


def test_every_state_has_a_word_and_a_sign_beside_its_colour() -> None:
    labels = [view.label(offer, EN, pool=False) for offer in menu_of({"items": profiles("en")}, "en").offers]
    assert labels == [
        "CPU worker  —  ✓ Now",
        "One H200 slice  —  ◐ Now, borrowed",
        "One H200  —  ◷ Wait",
        "Many H200  —  ■ Not possible",
    ]


def test_details_say_room_and_reason() -> None:
    _, borrowed, wait, _ = menu_of({"items": profiles("en")}, "en").offers
    told = text_of(view.details(borrowed, EN))
    assert "1/7 H200 (18 GB) · 4 CPU · 32 GB · room for 6 borrowed workers" in told
    assert BORROWED["en"] in told
    assert NO_ROOM["en"] in text_of(view.details(wait, EN))


def test_a_running_cluster_says_how_many_until_when_and_what_is_waited_for() -> None:
    ends = datetime.fromisoformat("2026-11-26T18:40:00+09:00")
    found = ClusterState(
        NAME,
        live=3,
        wanted=2,
        borrowed=1,
        ends_at=ends,
        cost_per_hour=2.5,
        notice=Notice(NOTICE["en"]),
        waiting=Waiting(NO_ROOM["en"], 3, "expected 14:20"),
    )
    html = view.standing(found, 3, instant_of(ends) - 5 * 3600, EN)
    told = text_of(html)
    assert "3 of 5 workers · 1 borrowed · until 18:40 (5 h left) · 2.5 GPU-h/hour" in told
    assert f"⚠ {NOTICE['en']}" in told
    assert f"2 workers wait in line. {NO_ROOM['en']} Place in line: 3. Expected 14:20." in told
    assert 'role="alert"' in html


def test_without_a_desk_the_workers_are_counted_all_the_same() -> None:
    assert text_of(view.standing(None, 1, 0, EN)) == "✓ Running 1 worker"


def test_bars_say_their_numbers_to_everybody() -> None:
    html = view.bars(
        [Worker("a", 3 * 1024**3, 4 * 1024**3, 50.0, 2), Worker("b", 1024**3, 4 * 1024**3, 0.0, 2)], EN
    )
    assert text_of(html) == (
        "All workers 4.0 GB / 8.0 GB · 25 % busy Worker 1 3.0 GB / 4.0 GB · 50 % busy Worker 2 1.0 GB / 4.0 GB · 0 % busy"
    )
    assert html.count('role="meter"') == 3
    assert 'aria-valuenow="75"' in html
    assert 'aria-label="Worker 1: memory 3.0 GB / 4.0 GB"' in html


def test_of_many_workers_some_are_shown_and_the_rest_counted() -> None:
    html = view.bars([Worker(str(n), 1, 2, 0, 1) for n in range(40)], EN)
    assert html.count('role="meter"') == 1 + view.MOST_BARS
    assert "and 32 more" in html


def test_a_worker_without_a_limit_or_metrics_is_shown() -> None:
    found = view.workers_of(
        {"tcp://1": {"name": "b"}, "tcp://2": {"name": "a", "metrics": None, "memory_limit": 0}}
    )
    assert [worker.name for worker in found] == ["a", "b"]
    assert 'aria-valuenow="0"' in view.bars(found, EN)


@pytest.mark.parametrize("size", view.DATA_SIZES)
def test_every_size_of_data_has_its_advice(size: str) -> None:
    assert text_of(view.advice(size, EN))
    assert text_of(view.advice(size, KO)) != text_of(view.advice(size, EN))
    assert view.advice(None, EN) == ""


def test_nothing_from_outside_becomes_markup() -> None:
    bad = "<img src=x onerror=alert(1)>"
    offer = Offer(bad, bad, bad, bad, bad, bad, 1, 1, "now", bad)
    found = ClusterState(NAME, wanted=1, notice=Notice(bad), waiting=Waiting(bad))
    shown = [
        view.head(Menu((), (bad,)), EN),
        view.details(offer, EN),
        view.standing(found, 1, 0, EN),
        view.bars([Worker('"><img', 1, 2, 0, 1), Worker(bad, 1, 2, 0, 1)], EN),
        view.box("wait", "!", bad),
        view.usage('/"><img src=x>', EN),
    ]
    assert not [html for html in shown if "<img" in html]


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        pytest.param("/services/desk/clusters/a/status", True, id="through the desk"),
        pytest.param("javascript:alert(1)", False, id="a script"),
        pytest.param("", False, id="none"),
    ],
)
def test_only_an_address_becomes_a_link(link: str, shown: bool) -> None:
    assert ("<a href" in view.usage(link, EN)) is shown


# -- the language ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        pytest.param({}, "en", id="nothing is said"),
        pytest.param({"LANG": "ko_KR.UTF-8"}, "ko", id="the locale"),
        pytest.param({"HANGANG_BROWSER_LANGUAGE": "ko", "LANG": "en_US.UTF-8"}, "ko", id="the browser"),
        pytest.param({"LANG": "C.UTF-8"}, "en", id="the locale of an image"),
        pytest.param({"LANG": "en_US.UTF-8", "LC_ALL": "ko_KR.UTF-8"}, "ko", id="the stronger locale"),
        pytest.param(
            {"HANGANG_LANGUAGE": "en", "LANG": "ko_KR.UTF-8"}, "en", id="chosen for the hub's notebooks"
        ),
        pytest.param({"HANGANG_LANGUAGE": "xx", "LANG": "ko"}, "ko", id="a choice that does not exist"),
    ],
)
def test_the_language_of_a_notebook(environment: dict[str, str], want: str, tmp_path: Path) -> None:
    assert language_of({"HOME": str(tmp_path)} | environment) == want


def test_what_was_chosen_in_the_lab_counts_more_than_the_locale(tmp_path: Path) -> None:
    folder = tmp_path / ".jupyter/lab/user-settings/@jupyterlab/translation-extension"
    folder.mkdir(parents=True)
    (folder / "plugin.jupyterlab-settings").write_text(
        '{\n    // Language locale\n    // "locale": "en"\n    "locale": "ko_KR",\n}\n'
    )
    environment = {"HOME": str(tmp_path), "LANG": "en_US.UTF-8", "HANGANG_BROWSER_LANGUAGE": "en"}
    assert language_of(environment) == "ko"
    assert language_of(environment | {"HANGANG_LANGUAGE": "en"}) == "en"


# -- versions -------------------------------------------------------------------------------------------------------


def versions(dask: str = "2026.7.1", python: str = "3.13.1.final.0") -> dict[str, Any]:
    return {"packages": {"dask": dask, "distributed": dask, "numpy": None}, "host": {"python": python}}


@pytest.mark.parametrize(
    ("client", "scheduler", "want"),
    [
        pytest.param(versions(), versions(), (), id="the same"),
        pytest.param(versions(), versions(python="3.13.9.final.0"), (), id="another patch of Python"),
        pytest.param(
            versions("2025.1.0"),
            versions(),
            ("dask 2025.1.0, distributed 2025.1.0 here", "%pip install dask==2026.7.1 distributed==2026.7.1"),
            id="another dask",
        ),
        pytest.param(
            versions(python="3.11.7.final.0"),
            versions(),
            ("python 3.11 here", "same Python"),
            id="another Python",
        ),
        pytest.param(None, {"packages": 7}, (), id="nothing is known"),
    ],
)
def test_versions_that_differ(client: Any, scheduler: Any, want: tuple[str, ...]) -> None:
    told = versions_differ({"client": client, "scheduler": scheduler}, EN)
    assert bool(told) is bool(want)
    assert all(part in told for part in want)

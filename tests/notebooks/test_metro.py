"""The metro's typical days: as the source writes them, what comes out, and each way in which a file can be wrong."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from hub_ext.notebook.data import DataError, load
from hub_ext.notebook.metro import METRO_CONGESTION, MINUTES

HEADER = "day_type,line,station_no,station,direction,time,congestion_pct"
ROWS = [
    "평일,2,201,시청,내선,5:30,7.3",
    "평일,2,201,시청,내선,8:00,101.5",
    "토요일,2,201,시청,외선,23:30,34",
    "공휴일,1,150,서울역,상선,00:00,",
    "공휴일,1,150,서울역,하선,00:30,12.0",
]


def written(folder: Path, *rows: str, header: str = HEADER) -> dict[str, str]:
    (folder / METRO_CONGESTION.file).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return {"HANGANG_DATA": str(folder)}


def test_the_source_s_words_and_times_become_ours(tmp_path: Path) -> None:
    found = load(METRO_CONGESTION, environ=written(tmp_path, *ROWS))
    assert found.source.kind == "file"
    assert "Seoul Metro" in found.source.attribution
    rows = found.frame.set_index(["day_type", "direction", "minute"])["congestion_pct"].to_dict()
    assert pd.isna(
        rows.pop(("holiday", "up", 1440))
    )  # the night belongs to the day before; empty stays empty
    assert rows == {
        ("weekday", "inner", 330): 7.3,
        ("weekday", "inner", 480): 101.5,
        ("saturday", "outer", 1410): 34.0,
        ("holiday", "down", 1470): 12.0,
    }
    assert set(found.frame["station"]) == {"시청", "서울역"}


def test_a_reading_that_stands_twice_is_kept_once(tmp_path: Path) -> None:
    found = load(METRO_CONGESTION, environ=written(tmp_path, *ROWS, ROWS[1], ROWS[3]))
    assert len(found.frame) == len(ROWS)


@pytest.mark.parametrize(
    ("rows", "header", "want"),
    [
        pytest.param(
            ROWS, HEADER.replace("time", "hour"), "lacks the columns time", id="a column is missing"
        ),
        pytest.param(
            [*ROWS, "일요일,1,150,서울역,상선,6:00,3"],
            HEADER,
            "line 7, column day_type: '일요일' is not one of 평일, 토요일, 공휴일",
            id="an unknown kind of day",
        ),
        pytest.param(
            [*ROWS, "평일,1,150,서울역,,6:00,3"],
            HEADER,
            r"line 7, column direction: '\(empty\)' is not one of",
            id="no direction",
        ),
        pytest.param(
            [*ROWS, "평일,신분당,150,강남,상선,6:00,3"],
            HEADER,
            "line 7, column line: '신분당' is not a whole number",
            id="a line that is no number",
        ),
        pytest.param(
            [*ROWS, "평일,1,150.5,서울역,상선,6:00,3"],
            HEADER,
            "line 7, column station_no: '150.5' is not a whole number",
            id="half a station",
        ),
        pytest.param(
            [*ROWS, "평일,1,,서울역,상선,6:00,3"],
            HEADER,
            r"line 7, column station_no: '\(empty\)' is not a whole number",
            id="no station",
        ),
        pytest.param(
            [*ROWS, "평일,1,150,서울역,상선,25:00,3"],
            HEADER,
            "line 7, column time: '25:00' is not a time",
            id="a time that no day has",
        ),
        pytest.param(
            [*ROWS, "평일,1,150,서울역,상선,6:00,full"],
            HEADER,
            "line 7, column congestion_pct: 'full' is not a number",
            id="a reading in words",
        ),
        pytest.param(
            [*ROWS, "평일,2,201,시청,내선,8:00,99"],
            HEADER,
            "two different readings for day_type weekday, line 2, station_no 201, direction inner, minute 480",
            id="two readings of one half hour",
        ),
        pytest.param([], HEADER, "has a header and no rows", id="no rows"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_place(
    rows: list[str], header: str, want: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=want):
        load(METRO_CONGESTION, environ=written(tmp_path, *rows, header=header))


def test_a_typical_day_has_no_date() -> None:
    with pytest.raises(DataError, match="no days of a calendar; load it without `days`"):
        load(METRO_CONGESTION, (date(2022, 1, 1), date(2022, 1, 2)), environ={})


def test_every_half_hour_of_every_place_once(origin_folder: Path | None) -> None:
    found = load(METRO_CONGESTION, environ={"HANGANG_DATA": str(origin_folder)} if origin_folder else {})
    assert found.source.kind == ("file" if origin_folder else "synthetic")
    frame = found.frame
    assert list(frame.columns) == [column.name for column in found.columns]
    places = frame.groupby(["day_type", "line", "station_no", "direction"])["minute"].agg(list)
    assert (places.map(lambda minutes: minutes == list(MINUTES))).all()
    assert set(frame["day_type"]) == {"weekday", "saturday", "holiday"}
    assert set(frame["line"]) == set(range(1, 9))
    assert 500 < len(places) / 3 < 600
    readings = frame["congestion_pct"].dropna()
    assert len(readings) > 0.95 * len(frame)
    assert readings.between(0, 250).all()
    # What the notebook asks about is there: some packed trains, at the rush hours of weekdays.
    packed = frame[frame["congestion_pct"] >= 100]
    assert 100 < len(packed) < 0.02 * len(frame)
    assert (packed["day_type"] == "weekday").mean() > 0.9


def test_what_is_generated_is_the_same_each_time() -> None:
    once, again = (load(METRO_CONGESTION, environ={}).frame for _ in range(2))
    pd.testing.assert_frame_equal(once, again)


def test_what_no_folder_has_is_generated_and_says_why() -> None:
    found = load(METRO_CONGESTION, environ={"SEOUL_OPEN_DATA_KEY": "a-persons-key"})
    assert found.source.kind == "synthetic"
    assert "SYNTHETIC DATA" in found.source.attribution
    assert "HANGANG_DATA is not set" in found.source.note
    assert "the Open Data Plaza's API does not deliver this set" in found.source.note

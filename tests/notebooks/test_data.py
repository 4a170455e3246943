"""The loader: each origin, what it says of itself, and each way in which data can be wrong."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import hub_ext.notebook
from hub_ext.notebook import data
from hub_ext.notebook.data import DATA_SETS, DataError, load, public_holidays, stamp

KEY = "a-persons-key"
A_DAY = (date(2018, 6, 1), date(2018, 6, 1))


class StoppedClock:
    """Noon of 23 November 2026 in Seoul."""

    def now(self) -> int:
        return int(pd.Timestamp("2026-11-23 12:00", tz="Asia/Seoul").timestamp())


def as_file(name: str, days: tuple[date, date] = A_DAY) -> pd.DataFrame:
    """Some generated days in the layout of the real file, as text, so that a test can spoil it."""
    frame = load(name, days, environ={}).frame.reset_index()
    if name == "weather_pm10_hourly":
        frame["time"] = frame["time"].dt.strftime("%Y-%m-%d %H:%M")
    else:
        frame["date"] = frame["time"].dt.strftime("%Y-%m-%d")
        frame["hour"] = frame["time"].dt.hour
        frame["holiday"] = frame["holiday"].map({True: "Holiday", False: "No Holiday"})
        frame["functioning_day"] = frame["functioning_day"].map({True: "Yes", False: "No"})
        frame = frame.drop(columns="time")
    return frame.astype(object)


def write(frame: pd.DataFrame, name: str, folder: Path) -> dict[str, str]:
    frame.to_csv(folder / DATA_SETS[name].file, index=False)
    return {"HANGANG_DATA": str(folder)}


# ---- every set, from wherever ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DATA_SETS))
@pytest.mark.parametrize("kind", ["file", "synthetic"])
def test_every_set_has_its_documented_columns_by_the_hour_in_seoul(
    name: str, kind: str, tmp_path: Path
) -> None:
    source_set = "bike_hourly" if name == "bike_rentals_hourly" else name
    environ = write(as_file(source_set), source_set, tmp_path) if kind == "file" else {}
    found = load(name, None if kind == "file" else A_DAY, environ=environ)
    assert found.source.kind == kind
    assert (
        list(found.frame.columns)
        == [c.name for c in found.columns]
        == [c.name for c in DATA_SETS[name].columns]
    )
    assert all(c.meaning for c in found.columns)
    assert found.frame.index.name == "time"
    assert str(found.frame.index[0]) == "2018-06-01 00:00:00+09:00"
    assert (np.diff(found.frame.index.asi8) == np.diff(found.frame.index.asi8)[0]).all()
    assert len(found.frame) == 24
    assert list(found.describe().index) == list(found.frame.columns)


@pytest.mark.parametrize("name", sorted(DATA_SETS))
def test_what_a_file_holds_is_what_comes_out(name: str, tmp_path: Path) -> None:
    source_set = "bike_hourly" if name == "bike_rentals_hourly" else name
    environ = write(as_file(source_set), source_set, tmp_path)
    want = load(name, A_DAY, environ={}).frame
    pd.testing.assert_frame_equal(
        load(name, environ=environ).frame, want, check_dtype=False, check_freq=False
    )


def test_every_set_of_the_city_can_be_read(origin_folder: Path | None) -> None:
    environ = {"HANGANG_DATA": str(origin_folder)} if origin_folder else {}
    for name in DATA_SETS:
        found = load(name, environ=environ)
        assert found.source.kind == ("file" if origin_folder else "synthetic")
        assert len(found.frame) in (365 * 24, (5 * 365 + 1) * 24)
        assert found.frame.notna().any().all()


@pytest.mark.parametrize(
    ("name", "column", "low", "high"),
    [
        ("bike_hourly", "rented_bikes", 0, 6000),
        ("bike_hourly", "temp_c", -25, 45),
        ("bike_hourly", "humidity_pct", 1, 100),
        ("bike_hourly", "rain_mm", 0, 120),
        ("bike_hourly", "solar_mj_m2", 0, 4.5),
        ("weather_pm10_hourly", "pm10_ugm3", 0, 1500),
        ("weather_pm10_hourly", "wind_dir_deg", 0, 360),
        ("weather_pm10_hourly", "slp_hpa", 950, 1060),
    ],
)
def test_values_are_of_the_unit_they_say(
    name: str, column: str, low: float, high: float, origin_folder: Path | None
) -> None:
    environ = {"HANGANG_DATA": str(origin_folder)} if origin_folder else {}
    values = load(name, environ=environ).frame[column].dropna()
    assert low <= values.min() <= values.max() <= high


def test_no_rentals_while_the_service_stands_still(origin_folder: Path | None) -> None:
    environ = {"HANGANG_DATA": str(origin_folder)} if origin_folder else {}
    frame = load("bike_hourly", environ=environ).frame
    assert frame["functioning_day"].dtype == bool
    assert 0 < (~frame["functioning_day"]).sum() < 0.1 * len(frame)
    assert (frame.loc[~frame["functioning_day"], "rented_bikes"] == 0).all()
    assert (frame.loc[frame["functioning_day"], "rented_bikes"] > 0).all()


# ---- a file that is wrong ------------------------------------------------------------------------------------------------


def cell(row: int, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def spoil(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[row, column] = value
        return frame

    return spoil


@dataclass(frozen=True)
class Spoilt:
    name: str
    data_set: str
    spoil: Callable[[pd.DataFrame], pd.DataFrame]
    want: str


SPOILT = [
    Spoilt(
        "columns are missing",
        "bike_hourly",
        lambda f: f.drop(columns=["rented_bikes", "temp_c"]),
        r"lacks the columns rented_bikes, temp_c; it has: humidity_pct",
    ),
    Spoilt(
        "the time is missing",
        "weather_pm10_hourly",
        lambda f: f.drop(columns="time"),
        r"lacks the columns time",
    ),
    Spoilt(
        "a number is a word",
        "bike_hourly",
        cell(4, "temp_c", "warm"),
        r"line 6, column temp_c: 'warm' is not a number",
    ),
    Spoilt(
        "a day does not exist",
        "bike_hourly",
        cell(0, "date", "2018-02-30"),
        r"line 2, column date: '2018-02-30' is not a time",
    ),
    Spoilt(
        "a day is empty",
        "bike_hourly",
        cell(0, "date", None),
        r"line 2, column date: '\(empty\)' is not a time",
    ),
    Spoilt(
        "a flag is a third word",
        "bike_hourly",
        cell(2, "functioning_day", "Perhaps"),
        r"line 4, column functioning_day: 'Perhaps' is not 'Yes' or 'No'",
    ),
    Spoilt(
        "an hour is there twice",
        "bike_hourly",
        lambda f: pd.concat([f, f.iloc[[5]]]),
        r"2018-06-01 05:00 is there twice",
    ),
    Spoilt(
        "an hour is missing",
        "weather_pm10_hourly",
        lambda f: f.drop(index=7),
        r"2018-06-01 06:00 is followed by 2018-06-01 08:00",
    ),
    Spoilt("there are no rows", "bike_hourly", lambda f: f.iloc[:0], r"has a header and no rows"),
]


@pytest.mark.parametrize("case", SPOILT, ids=lambda case: case.name)
def test_a_file_that_is_wrong_says_where(case: Spoilt, tmp_path: Path) -> None:
    environ = write(case.spoil(as_file(case.data_set)), case.data_set, tmp_path)
    with pytest.raises(DataError, match=case.want):
        load(case.data_set, environ=environ)


@pytest.mark.parametrize(
    ("content", "want"),
    [
        pytest.param(b"", "is not a CSV table", id="empty"),
        pytest.param(
            "날짜,대여\n".encode("cp949") * 3, "is not UTF-8 text", id="in Korean Windows' encoding"
        ),
        pytest.param(b'a,b\n1,2,3\n"', "is not a CSV table", id="a broken table"),
        pytest.param(None, "cannot be read", id="a folder in place of the file"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_not_synthetic_data(
    content: bytes | None, want: str, tmp_path: Path
) -> None:
    path = tmp_path / DATA_SETS["bike_hourly"].file
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=want):
        load("bike_hourly", environ={"HANGANG_DATA": str(tmp_path)})


def test_a_folder_that_is_not_there_is_an_error_not_synthetic_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder; correct it or unset it"):
        load("bike_hourly", environ={"HANGANG_DATA": str(tmp_path / "nowhere")})


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(
        DataError,
        match="no data set 'bikes'; there are: bike_hourly, bike_rentals_hourly, weather_pm10_hourly",
    ):
        load("bikes", environ={})


def test_days_in_the_wrong_order_are_an_error() -> None:
    with pytest.raises(DataError, match="swap them"):
        load("bike_hourly", (date(2018, 6, 2), date(2018, 6, 1)), environ={})


def test_humidity_of_nought_is_read_as_missing(tmp_path: Path) -> None:
    frame = cell(3, "humidity_pct", 0)(as_file("bike_hourly"))
    found = load("bike_hourly", environ=write(frame, "bike_hourly", tmp_path)).frame
    assert list(np.flatnonzero(found["humidity_pct"].isna())) == [3]


# ---- which origin ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    name: str
    file: bool
    key: bool
    days: tuple[date, date] | None
    want: str
    want_note: str


JUNE_2ND = (date(2018, 6, 2), date(2018, 6, 2))
ORDER = [
    Order("the file comes before the Plaza", True, True, None, "file", "column names changed by us"),
    Order("without a file the Plaza is asked", False, True, A_DAY, "open-data-plaza", "is not in the folder"),
    Order(
        "a file without the day passes on to the Plaza",
        True,
        True,
        JUNE_2ND,
        "open-data-plaza",
        "holds 2018-06-01",
    ),
    Order(
        "without file and key it is generated",
        False,
        False,
        A_DAY,
        "synthetic",
        "SEOUL_OPEN_DATA_KEY is not set",
    ),
    Order("a file without the day, no key: generated", True, False, JUNE_2ND, "synthetic", "not 2018-06-02"),
]


@pytest.mark.parametrize("case", ORDER, ids=lambda case: case.name)
def test_the_first_origin_that_has_it(case: Order, tmp_path: Path, plaza: Any) -> None:
    environ = {"HANGANG_DATA": str(tmp_path), "SEOUL_OPEN_DATA_URL": plaza.url}
    if case.file:
        write(as_file("bike_hourly"), "bike_hourly", tmp_path)
    if case.key:
        environ["SEOUL_OPEN_DATA_KEY"] = KEY
    found = load("bike_rentals_hourly", case.days, environ=environ)
    assert found.source.kind == case.want
    assert case.want_note in found.source.note
    assert bool(plaza.asked) == (case.want == "open-data-plaza")


@pytest.mark.parametrize("name", ["bike_hourly", "weather_pm10_hourly"])
def test_a_set_that_the_plaza_does_not_have_is_never_asked_of_it(name: str, plaza: Any) -> None:
    environ = {"SEOUL_OPEN_DATA_KEY": KEY, "SEOUL_OPEN_DATA_URL": plaza.url}
    found = load(name, A_DAY, environ=environ)
    assert found.source.kind == "synthetic"
    assert "does not deliver this set" in found.source.note
    assert plaza.asked == []


# ---- the Plaza ----------------------------------------------------------------------------------------------------------------


def from_plaza(plaza: Any, days: tuple[date, date] | None = A_DAY) -> data.CityData:
    environ = {"SEOUL_OPEN_DATA_KEY": KEY, "SEOUL_OPEN_DATA_URL": plaza.url}
    return load("bike_rentals_hourly", days, environ=environ, clock=StoppedClock())


def test_the_plazas_rows_are_summed_by_the_hour(plaza: Any) -> None:
    found = from_plaza(plaza)
    assert list(found.frame["rented_bikes"]) == [3 * (hour + 1) for hour in range(24)]
    assert found.source.attribution == "Data: Seoul Metropolitan Government (Seoul Open Data Plaza, OA-15245)"
    ask = next(ask for ask in plaza.asked if ask["hour"] == "7")
    want = {"key": KEY, "form": "json", "service": "tbCycleRentUseTimeInfo", "start": "1", "end": "1000"}
    assert ask == want | {"day": "20180601", "hour": "7"}


def test_an_hour_of_more_than_a_thousand_rows_is_read_page_by_page(plaza: Any) -> None:
    plaza.rows_per_hour = 2500
    assert from_plaza(plaza).frame["rented_bikes"].iloc[9] == 2500 * 10
    assert {(ask["start"], ask["end"]) for ask in plaza.asked} == {
        ("1", "1000"),
        ("1001", "2000"),
        ("2001", "3000"),
    }


def test_without_days_the_last_three_complete_ones_come(plaza: Any) -> None:
    found = from_plaza(plaza, None)
    assert (found.frame.index[0].date(), found.frame.index[-1].date()) == (
        date(2026, 11, 19),
        date(2026, 11, 21),
    )


def test_more_days_than_can_be_fetched_are_not_begun(plaza: Any) -> None:
    found = from_plaza(plaza, (date(2018, 6, 1), date(2018, 6, 1) + timedelta(days=data.PLAZA_DAYS)))
    assert found.source.kind == "synthetic"
    assert plaza.asked == []


def says(body: object, status: int = 200) -> Callable[..., tuple[int, str]]:
    text = body if isinstance(body, str) else json.dumps(body)
    return lambda plaza, ask: (status, text)


def loses_its_field(plaza: Any, ask: dict[str, str]) -> tuple[int, str]:
    status, body = plaza.rows(ask)
    return status, body.replace("USE_CNT", "USE_COUNT")


def never_answers(plaza: Any, ask: dict[str, str]) -> tuple[int, str]:
    plaza.closing.wait()
    return 200, ""


def result(code: str) -> dict[str, Any]:
    return {"RESULT": {"CODE": code, "MESSAGE": "…"}}


@dataclass(frozen=True)
class Failure:
    """`want` is an error's text where `error`, else a part of the note beside synthetic data."""

    name: str
    answer: Callable[..., tuple[int, str]]
    want: str
    error: bool = False


FAILURES = [
    Failure("it refuses the key", says(result("INFO-100")), "refuses the key", error=True),
    Failure(
        "it refuses the key as XML",
        says("<RESULT><CODE>INFO-100</CODE><MESSAGE>…</MESSAGE></RESULT>"),
        "refuses the key",
        error=True,
    ),
    Failure("it lost a field", loses_its_field, "lost or changed a field", error=True),
    Failure("it has no rows for an hour", says(result("INFO-200")), "nothing yet for 2018-06-01 00 h"),
    Failure("its database is away", says(result("ERROR-600")), "answered ERROR-600"),
    Failure(
        "it reports an error inside its page",
        says({"cycleRentUseTimeInfo": result("ERROR-500")}),
        "answered ERROR-500",
    ),
    Failure("it answers HTTP 503", says("busy", 503), "answered HTTP 503"),
    Failure("a sign-in page answers in its place", says("<html>Sign in</html>"), "what answered is not"),
    Failure("a list answers in its place", says([1, 2]), "what answered is not"),
    Failure("it never answers", never_answers, "did not answer"),
]


@pytest.mark.parametrize("case", FAILURES, ids=lambda case: case.name)
def test_a_plaza_that_fails(case: Failure, plaza: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "ANSWER_SECONDS", 0.2)
    plaza.answer = case.answer
    if case.error:
        with pytest.raises(DataError, match=case.want) as caught:
            from_plaza(plaza)
        assert KEY not in str(caught.value)
        return
    found = from_plaza(plaza)
    assert found.source.kind == "synthetic"
    assert case.want in found.source.note
    assert KEY not in found.source.note


def test_a_plaza_that_never_answers_is_not_asked_for_every_hour(
    plaza: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "ANSWER_SECONDS", 0.2)
    plaza.answer = never_answers
    from_plaza(plaza)
    assert len(plaza.asked) <= 8


def test_a_plaza_where_nobody_listens_is_passed_over(plaza: Any) -> None:
    with socket.socket() as taken:  # bound, so that nobody else gets it, and not listening
        taken.bind(("127.0.0.1", 0))
        plaza.url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        found = from_plaza(plaza)
    assert found.source.kind == "synthetic"
    assert "did not answer" in found.source.note


def test_the_whole_load_has_an_end(plaza: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "TOTAL_SECONDS", -1.0)
    assert "did not finish within" in from_plaza(plaza).source.note


# ---- the generator ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DATA_SETS))
def test_a_generated_day_is_the_same_whatever_else_is_asked_for(name: str) -> None:
    whole = load(name, environ={}).frame
    day = load(name, A_DAY, environ={}).frame
    pd.testing.assert_frame_equal(whole.loc["2018-06-01"], day, check_freq=False)
    pd.testing.assert_frame_equal(whole, load(name, environ={}).frame)


def test_generated_bikes_and_weather_are_of_the_same_days() -> None:
    bike = load("bike_hourly", A_DAY, environ={}).frame
    weather = load("weather_pm10_hourly", A_DAY, environ={}).frame
    assert (bike["temp_c"] == weather["temp_c"]).all()


def test_public_holidays_hold_substitute_days_and_elections() -> None:
    days = public_holidays(date(2017, 12, 1), date(2018, 11, 30))
    assert len(days) == len(set(days)) == 19
    assert {date(2018, 5, 7), date(2018, 6, 13), date(2018, 9, 26)} <= set(days)
    assert date(2017, 12, 22) not in days


# ---- the stamp -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["constrained", "tight", None])
@pytest.mark.parametrize(
    ("kinds", "want_synthetic"),
    [
        (("file",), False),
        (("file", "file"), False),
        (("synthetic",), True),
        (("file", "synthetic"), True),
    ],
    ids=["measured", "two measured sets", "synthetic", "measured and synthetic mixed"],
)
def test_a_figure_says_where_its_data_comes_from(
    kinds: tuple[str, ...], want_synthetic: bool, layout: Any, tmp_path: Path
) -> None:
    names = ("bike_hourly", "weather_pm10_hourly")[: len(kinds)]
    shown = [
        load(name, A_DAY, environ=write(as_file(name), name, tmp_path) if kind == "file" else {})
        for name, kind in zip(names, kinds, strict=True)
    ]
    figure = Figure(figsize=(8, 4), layout=layout)
    axes = figure.subplots()
    axes.plot([0, 1])
    axes.set_xlabel("hour")
    stamp(figure, *shown)
    texts = {text.get_gid(): text.get_text() for text in figure.texts}
    for data_shown in shown:
        assert data_shown.source.attribution in texts["source"].replace("\n", " ")
    assert texts.get("synthetic") == ("SYNTHETIC DATA" if want_synthetic else None)
    # Nothing of the plot lies under the line, and all of the line lies on the figure.
    figure.savefig(tmp_path / "figure.png")
    line = next(text for text in figure.texts if text.get_gid() == "source").get_window_extent()
    assert line.y1 <= axes.get_tightbbox().y0
    assert line.x0 >= 0
    assert line.y0 >= 0
    assert line.x1 <= figure.bbox.x1


def test_a_stamp_without_data_is_an_error() -> None:
    with pytest.raises(DataError, match="needs the data"):
        stamp(Figure())


# ---- what it costs to import, and the GPU --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["hub_ext", "hub_ext.notebook", "hub_ext.notebook.samples"])
def test_importing_it_brings_no_pandas_along(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'numpy', 'pandas', 'matplotlib'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"


class Driver:
    """The CUDA driver, as far as it is asked: what cuInit says, and how many GPUs there are."""

    def __init__(self, init: int, gpus: int) -> None:
        self.init, self.gpus = init, gpus

    def __call__(self, name: str) -> Driver:
        assert name == "libcuda.so.1"
        return self

    def cuInit(self, flags: int) -> int:  # noqa: N802 (CUDA's name)
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802 (CUDA's name)
        count._obj.value = self.gpus
        return 0


def no_driver(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.parametrize(
    ("driver", "cudf", "want"),
    [
        pytest.param(no_driver, True, "no CUDA driver here", id="no driver"),
        pytest.param(Driver(100, 0), True, "no CUDA GPU in this server", id="a driver that finds no device"),
        pytest.param(Driver(0, 0), True, "no CUDA GPU in this server", id="a driver with no GPU"),
        pytest.param(Driver(0, 1), False, "cudf is not installed in this image", id="a GPU without cudf"),
        pytest.param(Driver(0, 1), True, "", id="a GPU and cudf"),
    ],
)
def test_why_pandas_is_not_on_a_gpu(
    driver: Any, cudf: bool, want: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", driver)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if cudf else None)
    assert hub_ext.notebook.why_not_cudf() == want

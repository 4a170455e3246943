"""The question at scale: its answer by hand, the large table, three engines, and how they are compared."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from distributed import Client, KilledWorker
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from matplotlib.figure import Figure

from hub_ext.core.errors import HubError
from hub_ext.notebook import scale, why_not_cudf
from hub_ext.notebook.data import CityData, DataError, Source, load
from hub_ext.notebook.metro import METRO_CONGESTION
from hub_ext.notebook.scale import Parts, Run, Size, engines
from hub_ext.notebook.scale.question import KEYS

ROOT = Path(__file__).resolve().parents[2]
TINY = Size("tiny", date(2018, 7, 20), date(2018, 8, 3), copies=3, months=1)
SOURCE = Source("file", "Data: a test", "")


@pytest.fixture(scope="module")
def city() -> tuple[CityData, CityData]:
    return load(METRO_CONGESTION, environ={}), load("weather_pm10_hourly", environ={})


@pytest.fixture(scope="module")
def parts(city: tuple[CityData, CityData], tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return scale.unfold(TINY, *city, tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def want(parts: Parts) -> pd.DataFrame:
    return parts.answer_from_the_small_tables()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        yield client


# ---- the question ------------------------------------------------------------------------------------------------


def trains(*rows: tuple[str, float]) -> pd.DataFrame:
    frame = pd.DataFrame({"time": pd.to_datetime([time for time, _ in rows]).astype("datetime64[us]")})
    return frame.assign(line=2, station_no=201, direction=0, congestion_pct=[pct for _, pct in rows])


def hours(**temperature: float) -> pd.DataFrame:
    moments = [f"2018-07-02 {hour.removeprefix('h')}:00" for hour in temperature]
    return pd.DataFrame(
        {
            "hour": pd.to_datetime(moments).astype("datetime64[us]"),
            "temp_c": list(temperature.values()),
        }
    )


def test_the_answer_by_hand() -> None:
    found = scale.question(
        trains(
            ("2018-07-02 08:00", 100.0),  # packed, at the very limit, in an hour at the very limit
            ("2018-07-02 08:30", 150.0),
            ("2018-07-02 09:00", 99.9),  # not packed
            ("2018-07-02 09:00", 120.0),  # the same half hour again, as in a copy
            ("2018-07-02 10:30", 130.0),  # not hot
        ),
        hours(h08=30.0, h09=32.5, h10=29.9),
    )
    assert list(found.index.names) == KEYS
    rows = found.reset_index().set_index("minute")
    assert rows[["readings", "hot", "packed_hot"]].to_dict("index") == {
        480: {"readings": 1, "hot": 1, "packed_hot": 1},
        510: {"readings": 1, "hot": 1, "packed_hot": 1},
        540: {"readings": 2, "hot": 2, "packed_hot": 1},
        630: {"readings": 1, "hot": 0, "packed_hot": 0},
    }
    assert rows["heat_load"].to_dict() == pytest.approx(
        {480: 0, 510: 0, 540: 2.5 * 0.999 + 2.5 * 1.2, 630: 0}
    )


def test_what_was_not_measured_does_not_count() -> None:
    found = scale.question(
        trains(("2018-07-02 08:00", math.nan), ("2018-07-02 09:00", 120.0), ("2018-07-02 11:00", 120.0)),
        hours(h08=33.0, h09=math.nan, h10=33.0),
    )
    assert len(found) == 0


# ---- the large table ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(
            Size("a day", date(2018, 7, 4), date(2018, 7, 4), copies=1, months=1), id="one day, once"
        ),
        pytest.param(TINY, id="two months in part, three times"),
        pytest.param(
            Size("x", date(2017, 12, 28), date(2018, 1, 4), copies=2, months=12), id="over new year, in years"
        ),
        pytest.param(
            Size("x", date(2018, 5, 4), date(2018, 5, 8), copies=1, months=6), id="holidays that move"
        ),
        pytest.param(
            Size("x", date(2018, 12, 30), date(2018, 12, 31), copies=1, months=3),
            id="the last night there is",
        ),
    ],
)
def test_the_large_table_and_the_small_ones_have_one_answer(
    size: Size, city: tuple[CityData, CityData], tmp_path: Path
) -> None:
    parts = scale.unfold(size, *city, tmp_path)
    table = pd.read_parquet(list(parts.files))
    assert len(table) == parts.rows == sum(parts.file_rows)
    found = Run("pandas", answer=scale.question(table, pd.read_parquet(parts.weather)))
    want = parts.answer_from_the_small_tables()
    scale.check([found], want)
    assert want["readings"].sum() > 0
    assert (want["readings"] % size.copies == 0).all()


def test_copies_change_no_result_but_their_number(city: tuple[CityData, CityData], tmp_path: Path) -> None:
    once, thrice = (
        scale.unfold(replace(TINY, copies=copies), *city, tmp_path).answer_from_the_small_tables()
        for copies in (1, 3)
    )
    pd.testing.assert_frame_equal(once * 3, thrice)


def test_files_by_month_and_copy_and_copies_byte_for_byte(parts: Parts) -> None:
    assert [file.name for file in parts.files] == [
        f"copy-{copy:03d}-2018-{month}.parquet" for copy in range(3) for month in ("07", "08")
    ]
    july = {file.read_bytes() for file in parts.files if "2018-07" in file.name}
    assert len(july) == 1
    assert parts.file_rows[0] == len(pd.read_parquet(parts.files[0]))
    assert parts.memory_bytes == pd.read_parquet(list(parts.files)).memory_usage(index=False).sum()
    assert parts.some(0.01) == parts.files[:1]
    assert parts.some(0.5) == parts.files[:3]
    assert parts.some(1.0) == parts.files
    assert parts.rows_of(0.5) == sum(parts.file_rows[:3])


def one_reading(day_type: str, minute: int, congestion: float = 140.0) -> CityData:
    frame = pd.DataFrame(
        {
            "day_type": ["weekday", "saturday", "holiday"],
            "line": 1,
            "station_no": 150,
            "station": "A",
            "direction": "down",
            "minute": minute,
            "congestion_pct": math.nan,
        }
    )
    frame.loc[frame["day_type"] == day_type, "congestion_pct"] = congestion
    return CityData("one reading", frame, METRO_CONGESTION.columns, SOURCE)


def hot_only(*moments: str) -> CityData:
    index = pd.date_range("2018-05-01", "2018-05-31 23:00", freq="h", tz="Asia/Seoul", name="time")
    frame = pd.DataFrame({"temp_c": 20.0}, index=index)
    for moment in moments:
        frame.loc[moment, "temp_c"] = 35.0
    return CityData("one hot hour", frame, (), SOURCE)


@pytest.mark.parametrize(
    ("day_type", "minute", "hot", "want"),
    [
        pytest.param("weekday", 480, "2018-05-04 08:00", 1, id="a Friday is a weekday"),
        pytest.param("saturday", 480, "2018-05-12 08:00", 1, id="a Saturday"),
        pytest.param("holiday", 480, "2018-05-13 08:00", 1, id="a Sunday is a holiday"),
        pytest.param("holiday", 480, "2018-05-05 08:00", 1, id="Children's Day beats its Saturday"),
        pytest.param("saturday", 480, "2018-05-05 08:00", 0, id="and is none"),
        pytest.param("holiday", 480, "2018-05-22 08:00", 1, id="Buddha's birthday, a Tuesday"),
        pytest.param("weekday", 1470, "2018-05-05 00:00", 1, id="half past midnight of a Friday is in Saturday's night"),
        pytest.param("weekday", 1470, "2018-05-04 00:00", 1, id="and of a Thursday in Friday's"),
        pytest.param("saturday", 1470, "2018-05-05 00:00", 0, id="never in its own"),
    ],
)  # fmt: skip
def test_each_day_gets_the_typical_day_of_its_kind(
    day_type: str, minute: int, hot: str, want: int, tmp_path: Path
) -> None:
    size = Size("May", date(2018, 5, 1), date(2018, 5, 30), copies=1, months=1)
    parts = scale.unfold(size, one_reading(day_type, minute), hot_only(hot), tmp_path)
    answer = scale.question(pd.read_parquet(list(parts.files)), pd.read_parquet(parts.weather))
    assert answer["packed_hot"].sum() == want
    assert set(answer.index.get_level_values("minute")) == {minute % 1440}
    scale.check([Run("pandas", answer=answer)], parts.answer_from_the_small_tables())


def test_it_says_how_often_it_is_replicated_on_every_figure(
    parts: Parts, city: tuple[CityData, CityData]
) -> None:
    figure = Figure(figsize=(8, 4))
    parts.stamp(figure)
    written = {text.get_gid(): text.get_text().replace("\n", " ") for text in figure.texts}
    assert written["replicated"] == parts.note
    assert "REPLICATED" in parts.note
    assert "15 days of weather (2018-07-20 to 2018-08-03)" in parts.note
    assert "stands in the table 3 times" in parts.note
    assert f"{parts.rows:,} rows" in parts.note


def test_a_table_that_is_not_copied_does_not_say_so(city: tuple[CityData, CityData], tmp_path: Path) -> None:
    parts = scale.unfold(replace(TINY, copies=1), *city, tmp_path)
    assert "each once" in parts.note
    assert "times" not in parts.note


def test_years_are_those_of_the_calendar(
    parts: Parts, city: tuple[CityData, CityData], tmp_path: Path
) -> None:
    assert parts.years == 1
    over = Size("x", date(2016, 12, 31), date(2018, 1, 1), copies=1, months=12)
    assert scale.unfold(over, *city, tmp_path).years == 3


def test_removing_takes_the_folder_away(city: tuple[CityData, CityData], tmp_path: Path) -> None:
    parts = scale.unfold(TINY, *city, tmp_path)
    assert parts.folder.parent == tmp_path
    parts.remove()
    assert list(tmp_path.iterdir()) == []
    parts.remove()  # twice is once


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))


def a_file_in_place(folder: Path) -> Path:
    (folder / "taken").write_text("")
    return folder / "taken"


def test_a_full_disk_is_seen_before_anything_is_written(
    city: tuple[CityData, CityData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch)
    with pytest.raises(
        DataError, match=r"has 0\.0 GiB free and size 'tiny' may take .* choose another folder"
    ):
        scale.unfold(TINY, *city, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_folder_is_named(city: tuple[CityData, CityData], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="taken cannot be written to: File exists"):
        scale.unfold(TINY, *city, a_file_in_place(tmp_path))


@pytest.mark.parametrize(
    ("size", "want"),
    [
        (Size("x", date(2013, 12, 31), date(2014, 1, 5), copies=1, months=1), "asks for 2013-12-31"),
        (Size("x", date(2018, 12, 31), date(2019, 1, 1), copies=1, months=1), "to 2019-01-01"),
    ],
)
def test_days_without_weather_are_refused(
    size: Size, want: str, city: tuple[CityData, CityData], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"reaches from 2014-01-01 to 2018-12-31.*{want}"):
        scale.unfold(size, *city, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_kind_of_day_that_the_file_lacks_is_named(city: tuple[CityData, CityData], tmp_path: Path) -> None:
    metro = replace(city[0], frame=city[0].frame[city[0].frame["day_type"] == "weekday"])
    with pytest.raises(DataError, match="no typical holiday and no typical saturday"):
        scale.unfold(TINY, metro, city[1], tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"last": date(2018, 7, 19)},
        {"copies": 0},
        {"months": 0},
        {"months": 13},
    ],
)
def test_a_size_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="size tiny:"):
        replace(TINY, **wrong)


def test_the_sizes_on_offer_grow(city: tuple[CityData, CityData]) -> None:
    days = [((size.last - size.first).days + 1) * size.copies for size in scale.SIZES.values()]
    assert days == sorted(days)
    first, last = city[1].frame.index[[0, -1]]
    assert all(first.date() <= size.first <= size.last <= last.date() for size in scale.SIZES.values())


def test_where_workers_have_to_see_it_it_goes_into_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert scale.where_to_write(shared=True).is_relative_to(tmp_path)
    assert not scale.where_to_write(shared=False).is_relative_to(tmp_path / ".cache")


def test_what_a_killed_kernel_left_in_the_home_is_swept_and_nothing_else(
    city: tuple[CityData, CityData], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    base = scale.where_to_write(shared=True)
    old, new, other = (base / name for name in ("scale-large-old", "scale-large-new", "mine"))
    for folder in (old, new, other):
        folder.mkdir(parents=True)
        (folder / "a.parquet").write_text("")
    for folder in (old, other):
        os.utime(folder, (0, 0))
    parts = scale.unfold(TINY, *city, base)
    assert set(base.iterdir()) == {new, other, parts.folder}


def test_a_folder_that_others_use_as_well_is_never_swept(
    city: tuple[CityData, CityData], tmp_path: Path
) -> None:
    theirs = tmp_path / "scale-theirs"
    theirs.mkdir()
    os.utime(theirs, (0, 0))
    scale.unfold(TINY, *city, tmp_path)
    assert theirs.exists()


# ---- the engines -------------------------------------------------------------------------------------------------


def test_pandas_answers_and_is_measured(parts: Parts, want: pd.DataFrame) -> None:
    run = scale.run_pandas(parts, shares=(0.5, 1.0), rounds=2, gpu_hours_per_hour=0.5)
    scale.check([run], want)
    assert list(run.seconds) == [0.5, 1.0]
    assert all(seconds > 0 for seconds in run.seconds.values())
    assert run.ready_seconds > 0
    assert run.peak_bytes is not None
    assert parts.memory_bytes < run.peak_bytes < scale.memory_limit()
    assert (run.where, run.why_not, run.gpu_hours_per_hour) == ("this server's CPU", "", 0.5)


def test_pandas_is_not_begun_where_it_does_not_fit(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEM_LIMIT", "200000000")
    run = scale.run_pandas(parts)
    assert run.answer is None
    assert re.fullmatch(r"needs about 0\.[3-9] GiB of memory, and this server has 0\.2", run.why_not)


@pytest.mark.parametrize("limit", ["", "0", "much", "-1"])
def test_without_a_limit_it_is_what_the_machine_has_left(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEM_LIMIT", limit)
    assert 10**8 < scale.memory_limit() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_program_that_fails_says_its_last_lines(parts: Parts, tmp_path: Path) -> None:
    lost = replace(parts, weather=tmp_path / "lost.parquet")
    run = scale.run_pandas(lost)
    assert run.answer is None
    assert "it ended with 1:" in run.why_not
    assert "lost.parquet" in run.why_not


def stand_in_cudf(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A `cudf.pandas` that can be put before a module; it does as told."""
    package = folder / "cudf" / "pandas"
    package.mkdir(parents=True)
    for place in (package.parent, package):
        (place / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        f"import os, runpy, signal, sys\nassert sys.argv[1] == '-m'\n{body}\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
    monkeypatch.setattr(engines, "why_not_cudf", lambda: "")


GO_ON = "module = sys.argv[2]\nsys.argv = sys.argv[2:]\nrunpy.run_module(module, run_name='__main__', alter_sys=True)"


def test_without_a_gpu_cudf_pandas_says_why_not(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "why_not_cudf", lambda: "no CUDA GPU in this server")
    run = scale.run_cudf_pandas(parts)
    assert (run.answer, run.why_not) == (None, "no CUDA GPU in this server")


def test_what_falls_back_to_the_cpu_is_not_called_a_gpu(
    parts: Parts, want: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_cudf(tmp_path, monkeypatch, GO_ON)
    run = scale.run_cudf_pandas(parts, rounds=1)
    scale.check([run], want)
    assert run.where == "this server's CPU"


def test_what_lies_on_the_gpu_is_said_to(
    parts: Parts, want: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = "import enum, pandas\npandas.DataFrame._fsproxy_state = enum.Enum('State', 'SLOW FAST').FAST\n"
    stand_in_cudf(tmp_path, monkeypatch, fast + GO_ON)
    run = scale.run_cudf_pandas(parts, rounds=1)
    scale.check([run], want)
    assert run.where == "this server's GPU"


def test_a_program_that_is_killed_says_so(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_cudf(tmp_path, monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)")
    run = scale.run_cudf_pandas(parts)
    assert (run.answer, run.why_not) == (None, "it was killed, most likely for the memory it took")


@pytest.mark.gpu
@pytest.mark.skipif(bool(why_not_cudf()), reason="cudf.pandas needs an NVIDIA GPU and cuDF")
def test_a_real_gpu_answers_the_same(parts: Parts, want: pd.DataFrame) -> None:
    run = scale.run_cudf_pandas(parts)
    scale.check([run], want)
    assert run.where == "this server's GPU"


def test_dask_answers_and_is_measured(parts: Parts, want: pd.DataFrame, client: Client) -> None:
    run = scale.run_dask(
        parts, client, where="2 workers", start_seconds=5.0, shares=(0.5,), rounds=2, gpu_hours_per_hour=0.0
    )
    scale.check([run], want)
    assert list(run.seconds) == [0.5, 1.0]
    assert run.ready_seconds > 5.0
    assert run.cores == 2
    assert run.where == "2 workers"
    assert run.peak_bytes is not None
    assert run.peak_bytes > 0


def test_workers_that_cannot_see_the_files_are_not_asked(
    parts: Parts, client: Client, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "another-disk.parquet"
    shutil.copyfile(parts.files[0], elsewhere)
    here = replace(parts, files=(elsewhere,), file_rows=parts.file_rows[:1])
    assert scale.unseen_by(client, here) == ""

    def blind(_file: str) -> None:
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "_size_of", blind)
        run = scale.run_dask(here, client, where="2 workers", start_seconds=0.0)
    assert run.answer is None
    assert run.why_not.startswith("2 of 2 workers cannot see")


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        pytest.param({"nthreads": 1, "memory_limit": 400_000_000}, r"a worker with 1 threads needs about 0\.4 GiB and may use 0\.3", id="too small"),
        pytest.param({"nthreads": 8, "memory_limit": 10**9}, "a worker with 8 threads needs about 0.8 GiB and may use 0.7", id="too many threads"),
        pytest.param({"nthreads": 2, "memory_limit": 4 * 10**9}, "", id="large enough"),
        pytest.param({"nthreads": 2, "memory_limit": 0}, "", id="without a limit"),
        pytest.param(None, "there are no workers", id="none at all"),
    ],
)  # fmt: skip
def test_workers_that_dask_would_pause_for_ever_are_not_asked(
    worker: dict[str, int] | None, said: str, parts: Parts, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = (
        {}
        if worker is None
        else {"tcp://large": {"nthreads": 1, "memory_limit": 10**12}, "tcp://one": worker}
    )
    monkeypatch.setattr(client, "scheduler_info", lambda n_workers: {"workers": workers})
    more = replace(parts, file_rows=(400_000,) * len(parts.files))
    run = scale.run_dask(more, client, where="x", start_seconds=0.0, rounds=1)
    assert re.match(said, run.why_not)
    assert (run.answer is None) == bool(said)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        pytest.param(FutureCancelledError("sum", "scheduler-connection-lost"), "sum cancelled for reason: scheduler-connection-lost", id="taken back"),
        pytest.param(KilledWorker("sum", SimpleNamespace(address="tcp://1"), 3), "Attempted to run task 'sum' on 4 different workers", id="killed for its memory"),
        pytest.param(CommClosedError("in <TCP>: reset"), "in <TCP>: reset", id="out of reach"),
    ],
)  # fmt: skip
def test_a_cluster_that_is_lost_gives_no_answer_and_does_not_stop_the_others(
    problem: Exception, said: str, parts: Parts, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise problem

    monkeypatch.setattr(engines, "_by_dask", lost)
    run = scale.run_dask(parts, client, where="x", start_seconds=0.0)
    assert run.answer is None
    assert run.why_not.startswith("the cluster was lost: ")
    assert said in run.why_not
    assert "\n" not in run.why_not


def test_a_mistake_in_the_question_is_no_lost_cluster(
    parts: Parts, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise KeyError("congestion_pct")

    monkeypatch.setattr(engines, "question", wrong)
    with pytest.raises(KeyError, match="congestion_pct"):
        scale.run_dask(parts, client, where="x", start_seconds=0.0)


@pytest.mark.parametrize(("shares", "rounds"), [((), 1), ((0.0,), 1), ((1.5,), 1), ((1.0,), 0)])
def test_rounds_that_measure_nothing_are_refused(
    shares: tuple[float, ...], rounds: int, parts: Parts
) -> None:
    with pytest.raises(HubError, match="cannot measure"):
        scale.run_pandas(parts, shares=shares, rounds=rounds)


# ---- the comparison ----------------------------------------------------------------------------------------------


def spoilt(column: str, change: Callable[[Any], Any]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def spoil(frame: pd.DataFrame) -> pd.DataFrame:
        row = frame["heat_load"].to_numpy().argmax()
        frame.iloc[row, frame.columns.get_loc(column)] = change(frame[column].iloc[row])
        return frame

    return spoil


@pytest.mark.parametrize(
    ("spoil", "want"),
    [
        pytest.param(spoilt("packed_hot", lambda n: n + 1), "Dask differs in packed_hot at line", id="a count"),
        pytest.param(spoilt("heat_load", lambda x: x * (1 + 1e-8)), "differs in heat_load", id="a sum, by too much"),
        pytest.param(spoilt("heat_load", lambda x: math.nan), "nan instead of", id="a sum that is no number"),
        pytest.param(lambda f: f.iloc[1:], "0 too many, 1 missing, the first line 1", id="a row is missing"),
        pytest.param(
            lambda f: pd.concat([f, f.iloc[:1].rename({1: 9}, level=0)]), "1 too many, 0 missing", id="a row too many"
        ),
        pytest.param(
            lambda f: f.rename({1: 9}, level=0), "too many, [1-9]", id="a line by another number"
        ),
        pytest.param(lambda f: pd.concat([f, f.iloc[:1]]), "answered .* rows of", id="a row twice"),
    ],
)  # fmt: skip
def test_an_answer_that_differs_fails_loudly(
    spoil: Callable[[pd.DataFrame], pd.DataFrame], want: str, parts: Parts
) -> None:
    right = parts.answer_from_the_small_tables()
    runs = [Run("pandas", answer=right), Run("Dask", answer=spoil(right.copy()))]
    with pytest.raises(scale.DifferentAnswers, match=want):
        scale.check(runs, right)


def test_another_order_of_adding_is_no_difference(want: pd.DataFrame) -> None:
    near = want.assign(heat_load=want["heat_load"] * (1 + 1e-12)).sample(frac=1, random_state=0)
    found = scale.check([Run("Dask", answer=near)], want)
    assert found.loc["Dask", "rows"] == len(want)
    difference = found.loc["Dask", "largest difference of a sum, relative"]
    assert 1e-13 < difference < found.loc["Dask", "allowed"] == scale.TOLERANCE


def test_if_nobody_answered_nothing_is_proven(want: pd.DataFrame) -> None:
    with pytest.raises(scale.DifferentAnswers, match=r"no answer to check \(pandas: too large; Dask: away\)"):
        scale.check([Run("pandas", why_not="too large"), Run("Dask", why_not="away")], want)


def a_run(engine: str, ready: float, whole: float, half: float | None = None, **more: Any) -> Run:
    seconds = {1.0: whole} if half is None else {0.5: half, 1.0: whole}
    return Run(engine, "here", pd.DataFrame(), ready, seconds, cores=4.0, peak_bytes=2**30, **more)


def test_the_table_counts_the_start_and_tells_what_is_not_known(parts: Parts) -> None:
    table = scale.table(
        [
            a_run("pandas", 6.0, 30.0),
            a_run("Dask", 12.0, 24.0, gpu_hours_per_hour=2.0),
            Run("cudf.pandas", why_not="no CUDA driver here"),
        ],
        parts,
    )
    dask = table.loc["Dask"]
    assert dask["GPU-hours"] == pytest.approx(2.0 * 36 / 3600)
    assert dask["core-hours"] == pytest.approx(4 * 36 / 3600)
    assert dask["million rows per second"] == pytest.approx(parts.rows / 24e6)
    assert dask["memory at most (GiB)"] == 1.0
    assert math.isnan(table.loc["pandas", "GPU-hours"])
    assert table["remark"].to_dict() == {
        "pandas": "no desk told a price",
        "Dask": "",
        "cudf.pandas": "no CUDA driver here",
    }
    assert table.loc["cudf.pandas", "ran on"] == "did not run"
    assert math.isnan(table.loc["cudf.pandas", "answer after (s)"])


@pytest.mark.parametrize(
    ("dask", "want"),
    [
        pytest.param(a_run("Dask", 9.0, 6.0), r"Dask was 2\.0 times SLOWER than pandas \(6\.00 s against 3\.00 s\), and took 9\.0 s", id="slower"),
        pytest.param(a_run("Dask", 9.0, 1.0), r"3\.0 times FASTER .* ready 8\.0 s later, it pays from about question 4 on", id="faster, later ready"),
        pytest.param(a_run("Dask", 1.0, 1.0), r"FASTER .*, and was ready no later", id="faster at once"),
        pytest.param(Run("Dask", why_not="no workers"), r"cannot be compared with pandas: Dask did not run \(no workers\)", id="did not run"),
    ],
)  # fmt: skip
def test_who_was_faster_in_a_sentence(dask: Run, want: str) -> None:
    assert re.search(want, scale.against(dask, a_run("pandas", 1.0, 3.0)))


@pytest.mark.parametrize(
    ("dask", "want"),
    [
        # pandas: 1 s for half of the rows and 2 s for all.
        pytest.param(a_run("Dask", 0, 2.5, 2.0), r"at about [\d.,]+ million rows .*, by extrapolation, NOT measured", id="later"),
        pytest.param(a_run("Dask", 0, 1.6, 1.2), "within what was measured", id="in between"),
        pytest.param(a_run("Dask", 0, 4.0, 1.0), "needs no less time for each further row", id="never"),
        pytest.param(a_run("Dask", 0, 1.0, 0.5), "faster than pandas at every size that was measured", id="always"),
        pytest.param(a_run("Dask", 0, 1.0), "Too little was measured", id="one size only"),
        pytest.param(Run("Dask", why_not="away"), "Too little was measured", id="not run"),
    ],
)  # fmt: skip
def test_from_which_size_on(dask: Run, want: str, parts: Parts) -> None:
    assert re.search(want, scale.crossover(dask, a_run("pandas", 0, 2.0, 1.0), parts))


def test_where_two_lines_meet_is_where_they_meet(parts: Parts) -> None:
    # pandas: 2 s for all rows from nothing. Dask: 1.5 s + 1 s for all rows: they meet at 1.5 times the rows.
    rows = parts.rows
    half = parts.rows_of(0.5) / rows
    pandas = a_run("pandas", 0, 2.0, 2.0 * half)
    dask = a_run("Dask", 0, 2.5, 1.5 + half)
    assert f"about {1.5 * rows / 1e6:,.1f} million rows" in scale.crossover(dask, pandas, parts)


@pytest.mark.parametrize(
    ("size", "want"),
    [(1, "no cluster"), (10**10 - 1, "no cluster"), (10**10, "one GPU"), (10**11 - 1, "one GPU"), (10**11, "a Dask cluster")],
)  # fmt: skip
def test_the_advice_by_size(size: int, want: str) -> None:
    assert want in scale.advice(size).partition(":")[2].partition(",")[0] + scale.advice(size)
    assert (
        sum(
            word in scale.advice(size) for word in ("memory: no cluster", "memory: one GPU", "memory: a Dask")
        )
        == 1
    )


# ---- prices ------------------------------------------------------------------------------------------------------


@dataclass
class DeskOfPrices:
    """Answers `body` with `status`; `asked` has the paths and tokens."""

    status: int = 200
    body: Any = None
    location: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    @property
    def environ(self) -> dict[str, str]:
        return {
            "HANGANG_DESK_URL": f"{self.url}/services/desk",
            "JUPYTERHUB_API_TOKEN": "a-token",
            "JUPYTERHUB_SERVER_NAME": "gpu",
        }


@contextmanager
def answering(desk: DeskOfPrices) -> Iterator[DeskOfPrices]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            desk.asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(desk.status)
            if desk.location:
                self.send_header("Location", desk.location)
            self.end_headers()
            self.wfile.write(desk.body if isinstance(desk.body, bytes) else json.dumps(desk.body).encode())

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    desk.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield desk
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def lease(**more: Any) -> dict[str, Any]:
    return {"id": "l", "kind": "server", "state": "running", "server": "gpu", "cost": {"units_per_second": 71500}, **more}  # fmt: skip


def test_the_price_of_this_server_is_what_the_desk_says() -> None:
    others = [
        lease(server="", cost={"units_per_second": 1}),
        lease(kind="dask-worker"),
        lease(state="released"),
    ]
    with answering(DeskOfPrices(body={"items": [*others, lease()]})) as desk:
        assert scale.price_of_this_server(desk.environ) == 0.0715
        assert desk.asked == [("/services/desk/api/v1/leases?server=gpu", "token a-token")]


@pytest.mark.parametrize(
    "desk",
    [
        pytest.param(DeskOfPrices(status=403, body={"items": [lease()]}), id="refused"),
        pytest.param(DeskOfPrices(status=500, body=b""), id="failing"),
        pytest.param(DeskOfPrices(body=b"<html>"), id="no JSON"),
        pytest.param(DeskOfPrices(body=[]), id="a list"),
        pytest.param(DeskOfPrices(body={"items": "none"}), id="no list"),
        pytest.param(DeskOfPrices(body={"items": [None, {}]}), id="no leases in it"),
        pytest.param(DeskOfPrices(body={"items": [lease(cost=None)]}), id="no price"),
        pytest.param(
            DeskOfPrices(body={"items": [lease(cost={"units_per_second": -1})]}), id="no number"
        ),
    ],
)  # fmt: skip
def test_a_price_that_nobody_told_is_not_made_up(desk: DeskOfPrices) -> None:
    with answering(desk):
        assert scale.price_of_this_server(desk.environ) is None
    assert scale.price_of_this_server(desk.environ) is None  # and now it is gone
    assert scale.price_of_this_server({}) is None


def test_the_token_goes_to_the_desk_alone() -> None:
    with (
        answering(DeskOfPrices(body={"items": [lease()]})) as elsewhere,
        answering(DeskOfPrices(status=302, location=f"{elsewhere.url}/")) as desk,
    ):
        assert scale.price_of_this_server(desk.environ) is None
        assert elsewhere.asked == []

"""City data for the sample notebooks: measured where it can be had, generated where not, and saying which.

`load("bike_hourly")` looks in this order, and `.source` says where it ended and why:

1. `file`: the folder named by the environment variable `HANGANG_DATA`.
2. `open-data-plaza`: the Seoul Open Data Plaza's API, when `SEOUL_OPEN_DATA_KEY` holds a person's key and the network
   answers. Of the sets below the Plaza delivers one, `bike_rentals_hourly`, some days at a time. Its service
   `tbCycleRentUseTimeInfo` (set OA-15245, "public bike use by time of day") answers one hour of one day, in rows by
   station, ticket, sex and age, at most 1,000 rows a request; their `USE_CNT` is summed here. It has neither weather
   nor holidays, and a year would take tens of thousands of requests, so `bike_hourly` never comes from there; the
   hourly weather of station 108 is KMA's and not in the Plaza. The Plaza offers this address without TLS: the key
   crosses the network in clear, which is its way of working.
   (Written from public descriptions and programs; tested against a stand-in, not against the live service.)
3. `synthetic`: a small seeded generator with the same columns. Every figure stamped with it says SYNTHETIC DATA.

All frames named in `DATA_SETS` are hourly, indexed by `time` (the hour's beginning, Asia/Seoul), without gaps; `.columns`
has the units. A set of another shape is described beside it and loaded the same way: `load(METRO_CONGESTION)`.
"""

from __future__ import annotations

import json
import math
import os
import re
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd  # type: ignore[import-untyped, unused-ignore] # where pandas-stubs is installed it is typed

from hub_ext.core.clock import Clock, SystemClock, at
from hub_ext.core.errors import HubError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "DATA_SETS",
    "CityData",
    "Column",
    "DataError",
    "DataSet",
    "Kind",
    "Source",
    "Table",
    "load",
    "public_holidays",
    "stamp",
]

SEOUL = ZoneInfo("Asia/Seoul")
Kind = Literal["file", "open-data-plaza", "synthetic"]
Days = tuple[date, date]
Hours = np.ndarray[Any, np.dtype[np.float64]]

_BIKE_YEAR: Days = (date(2017, 12, 1), date(2018, 11, 30))
_WEATHER_YEARS: Days = (date(2014, 1, 1), date(2018, 12, 31))


class DataError(HubError):
    """The data cannot be used as it stands; the text says what is wrong and what to do."""


# ---- what a notebook gets ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One column of a frame: its unit as printed on an axis ("" where it has none), and what it means."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Source:
    """Where a frame comes from.

    `attribution` belongs on every figure and report; `note` says what else to know: limits of use, and why an
    earlier origin was passed over.
    """

    kind: Kind
    attribution: str
    note: str


@dataclass(frozen=True, eq=False)
class CityData:
    """A data set: `frame` (hourly, index `time` in Asia/Seoul, where the set is dated), its columns and its source."""

    name: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    source: Source

    def describe(self) -> pd.DataFrame:
        """A table of the columns: unit, meaning, share of hours with a value."""
        rows = {c.name: (c.unit, c.meaning, f"{self.frame[c.name].notna().mean():.1%}") for c in self.columns}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["unit", "meaning", "filled"])


def load(
    name: str | DataSet,
    days: Days | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    clock: Clock | None = None,
) -> CityData:
    """The data set `name`, from the first origin that has it; `DATA_SETS` lists the names, and a set may stand itself.

    `days`: first and last day wanted, both included. Without it: all there is, or from the Plaza the last three days
    that are surely complete. An origin without all these days is passed over.

    Raises DataError for an unknown name, days of a set that has none, a folder or file that is named but cannot be read, missing columns, values
    that are no numbers, hours that are missing or double, and a key that the Plaza refuses.
    """
    spec = DATA_SETS.get(name) if isinstance(name, str) else name
    if spec is None:
        raise DataError(f"there is no data set {name!r}; there are: {', '.join(sorted(DATA_SETS))}")
    if days is not None and not spec.dated:
        raise DataError(f"{spec.title}: these are no days of a calendar; load it without `days`")
    if days is not None and days[0] > days[1]:
        raise DataError(f"the first day {days[0]} lies after the last day {days[1]}; swap them")
    passed_over: list[str] = []
    for origin in (_from_folder, _from_plaza):
        try:
            found = origin(spec, days, environ, clock or SystemClock())
        except _PassedOver as reason:
            passed_over.append(str(reason))
            continue
        note = "; ".join([*passed_over, found.source.note] if found.source.note else passed_over)
        return replace(found, source=replace(found.source, note=note))
    made = spec.generate(*(days or spec.generated_days))
    attribution = f"SYNTHETIC DATA: generated, not measured; it only has the shape of: {spec.title}"
    return CityData(spec.name, made, spec.columns, Source("synthetic", attribution, "; ".join(passed_over)))


def stamp(figure: Figure, *data: CityData) -> None:
    """Write on the figure where its data comes from; where any of it is generated, say so across the figure."""
    if not data:
        raise DataError("a stamp needs the data that the figure shows: stamp(figure, bike, weather)")
    from matplotlib.layout_engine import ConstrainedLayoutEngine, TightLayoutEngine

    width, height = figure.get_size_inches()
    synthetic = [d for d in data if d.source.kind == "synthetic"]
    text = "  |  ".join(dict.fromkeys(d.source.attribution for d in data))
    lines = textwrap.wrap(text, max(30, int(width * 17)))
    footer = (0.14 * len(lines) + 0.10) / height
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine | TightLayoutEngine):
        engine.set(rect=(0, footer, 1, 1 - footer))
    else:
        figure.subplots_adjust(bottom=max(figure.subplotpars.bottom, footer + 0.5 / height))
    colour = "#b3261e" if synthetic else "#5f6368"
    figure.text(0.01, 0.05 / height, "\n".join(lines), fontsize=7.5, color=colour, gid="source", va="bottom")
    if synthetic:
        across = figure.text(
            0.5, 0.52, "SYNTHETIC DATA", gid="synthetic", ha="center", va="center", zorder=50
        )
        across.set(fontsize=6 * width, color=colour, alpha=0.16, weight="bold")
        across.set_rotation(math.degrees(math.atan2(height, width)))


# The public holidays of Dec 2017 - Nov 2018, by the Regulations on Holidays of Public Offices, substitute days and
# the local elections included, and 1 May, a paid day off in private companies. Moving feasts of other years are not kept.
_MOVING = {
    *(date(2018, 2, 15) + timedelta(days=n) for n in range(3)),  # Seollal
    date(2018, 5, 7),  # for Children's Day, which fell on a Saturday
    date(2018, 5, 22),  # Buddha's birthday
    date(2018, 6, 13),  # local elections
    *(date(2018, 9, 23) + timedelta(days=n) for n in range(4)),  # Chuseok, with one substitute day
}
_FIXED = {(1, 1), (3, 1), (5, 1), (5, 5), (6, 6), (8, 15), (10, 3), (10, 9), (12, 25)}


def public_holidays(first: date, last: date) -> list[date]:
    """Korea's days off from `first` to `last`; lunar, substitute and election days only for Dec 2017 - Nov 2018."""
    every = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return [day for day in every if (day.month, day.day) in _FIXED or day in _MOVING]


# ---- 1. a file in the folder ---------------------------------------------------------------------------------------


class _PassedOver(Exception):
    """This origin does not have what was asked for; the text says why."""


def _from_folder(spec: DataSet, days: Days | None, environ: Mapping[str, str], clock: Clock) -> CityData:
    folder = environ.get("HANGANG_DATA", "")
    if not folder:
        raise _PassedOver("HANGANG_DATA is not set")
    if not Path(folder).is_dir():
        raise DataError(f"HANGANG_DATA names {folder}, which is not a folder; correct it or unset it")
    path = Path(folder, spec.file)
    if not path.exists():
        raise _PassedOver(f"{spec.file} is not in the folder of HANGANG_DATA")
    try:
        raw = pd.read_csv(path, dtype=str, encoding="utf-8", encoding_errors="strict")
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror or problem}") from problem
    except UnicodeDecodeError as problem:
        raise DataError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from problem
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as problem:
        raise DataError(f"{path} is not a CSV table: {problem}") from problem
    frame = spec.read(Table(path.name, raw))
    if days is not None:
        if frame.index[0].date() > days[0] or frame.index[-1].date() < days[1]:
            reach = f"{frame.index[0].date()} to {frame.index[-1].date()}"
            raise _PassedOver(f"{spec.file} holds {reach}, not {days[0]} to {days[1]}")
        frame = frame.loc[str(days[0]) : str(days[1])]
    return CityData(spec.name, frame, spec.columns, Source("file", spec.attribution, spec.note))


@dataclass(frozen=True)
class Table:
    """A CSV file as text, read column by column with errors that name the place."""

    file: str
    raw: pd.DataFrame

    def text(self, name: str) -> pd.Series:
        if name not in self.raw.columns:
            raise DataError(
                f"{self.file} has no column {name!r}; it has: {', '.join(map(str, self.raw.columns))}"
            )
        return self.raw[name]

    def require(self, *names: str) -> None:
        missing = [name for name in names if name not in self.raw.columns]
        if missing:
            raise DataError(
                f"{self.file} lacks the columns {', '.join(missing)}; it has: {', '.join(map(str, self.raw.columns))}"
            )

    def numbers(self, name: str) -> pd.Series:
        text = self.text(name)
        return self._checked(name, text, pd.to_numeric(text, errors="coerce"), "a number").astype("float64")

    def flags(self, name: str, yes: str, no: str) -> pd.Series:
        text = self.text(name)
        return (
            self._checked(name, text.fillna("(empty)"), text.map({yes: 1.0, no: 0.0}), f"{yes!r} or {no!r}")
            == 1.0
        )

    def whole(self, name: str) -> pd.Series:
        text = self.text(name)
        values = pd.to_numeric(text, errors="coerce")
        values = values.where(values % 1 == 0)
        return self._checked(name, text.fillna("(empty)"), values, "a whole number").astype("int64")

    def words(self, name: str, words: Mapping[str, str]) -> pd.Series:
        """The column with each of the source's words put as `words` has it."""
        text = self.text(name)
        return self._checked(name, text.fillna("(empty)"), text.map(words), f"one of {', '.join(words)}")

    def moments(self, name: str, form: str) -> pd.Series:
        text = self.text(name)
        return self._checked(
            name, text.fillna("(empty)"), pd.to_datetime(text, format=form, errors="coerce"), "a time"
        )

    def _checked(self, name: str, text: pd.Series, values: pd.Series, wanted: str) -> pd.Series:
        bad = (values.isna() & text.notna()).to_numpy()
        if bad.any():
            row = int(bad.argmax())
            raise DataError(f"{self.file}, line {row + 2}, column {name}: {text.iloc[row]!r} is not {wanted}")
        return values

    def hourly(self, times: pd.Series, columns: Mapping[str, pd.Series]) -> pd.DataFrame:
        """The columns by the hour, in order of time; every hour must be there once."""
        if len(times) == 0:
            raise DataError(f"{self.file} has a header and no rows; fetch it again")
        frame = pd.DataFrame({name: column.to_numpy() for name, column in columns.items()})
        frame.index = pd.DatetimeIndex(times.to_numpy(), name="time").tz_localize(SEOUL)
        frame = frame.sort_index()
        steps = frame.index[1:] - frame.index[:-1]
        wrong = np.flatnonzero(np.asarray(steps != pd.Timedelta(hours=1)))
        if wrong.size:
            here, after = frame.index[wrong[0]], frame.index[wrong[0] + 1]
            what = "is there twice" if here == after else f"is followed by {after:%Y-%m-%d %H:%M}"
            raise DataError(
                f"{self.file}: the hour {here:%Y-%m-%d %H:%M} {what}; every hour must be there once (write empty cells)"
            )
        return frame


def _read_bike(table: Table) -> pd.DataFrame:
    table.require("date", "hour", *(c.name for c in _BIKE))
    times = table.moments("date", "%Y-%m-%d") + pd.to_timedelta(table.numbers("hour"), unit="h")
    columns = {c.name: table.numbers(c.name) for c in _BIKE[:9]}
    # The file writes a missing humidity as 0 %, which Seoul never has (KMA's own file leaves those hours empty).
    columns["humidity_pct"] = columns["humidity_pct"].where(columns["humidity_pct"] > 0)
    columns["season"] = table.text("season")
    columns["holiday"] = table.flags("holiday", "Holiday", "No Holiday")
    columns["functioning_day"] = table.flags("functioning_day", "Yes", "No")
    return table.hourly(times, columns)


def _read_rentals(table: Table) -> pd.DataFrame:
    table.require("date", "hour", "rented_bikes")
    times = table.moments("date", "%Y-%m-%d") + pd.to_timedelta(table.numbers("hour"), unit="h")
    return table.hourly(times, {"rented_bikes": table.numbers("rented_bikes")})


def _read_weather(table: Table) -> pd.DataFrame:
    table.require("time", *(c.name for c in _WEATHER))
    return table.hourly(
        table.moments("time", "%Y-%m-%d %H:%M"), {c.name: table.numbers(c.name) for c in _WEATHER}
    )


# ---- 2. the Seoul Open Data Plaza ------------------------------------------------------------------------------------

PLAZA = "http://openapi.seoul.go.kr:8088"  # another address (a centre's own cache): SEOUL_OPEN_DATA_URL
PLAZA_ROWS = 1000  # the most rows of one answer
PLAZA_DAYS = 14  # the most days of one load: an hour takes up to some ten requests
PLAZA_LAG_DAYS = 2  # yesterday may still be filling
ANSWER_SECONDS = 5.0
TOTAL_SECONDS = 120.0
_ANSWER_BYTES = 5_000_000


def _from_plaza(spec: DataSet, days: Days | None, environ: Mapping[str, str], clock: Clock) -> CityData:
    key = environ.get("SEOUL_OPEN_DATA_KEY", "").strip()
    if not spec.in_plaza:
        raise _PassedOver("the Open Data Plaza's API does not deliver this set")
    if not key:
        raise _PassedOver("SEOUL_OPEN_DATA_KEY is not set")
    last = at(clock.now(), SEOUL).date() - timedelta(days=PLAZA_LAG_DAYS)
    first, last = days or (last - timedelta(days=2), last)
    if (last - first).days >= PLAZA_DAYS:
        raise _PassedOver(f"the Open Data Plaza is asked for at most {PLAZA_DAYS} days at a time")
    plaza = _Plaza(environ.get("SEOUL_OPEN_DATA_URL") or PLAZA, key, time.monotonic() + TOTAL_SECONDS)
    hours = pd.date_range(str(first), f"{last} 23:00", freq="h", tz=SEOUL, name="time")
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(plaza.rentals, hours))
    if None in counts:
        raise _PassedOver(
            f"the Open Data Plaza has nothing yet for {hours[counts.index(None)]:%Y-%m-%d %H} h"
        )
    frame = pd.DataFrame({"rented_bikes": np.array(counts, dtype=np.float64)}, index=hours)
    attribution = "Data: Seoul Metropolitan Government (Seoul Open Data Plaza, OA-15245)"
    return CityData(spec.name, frame, spec.columns, Source("open-data-plaza", attribution, ""))


@dataclass(frozen=True)
class _Plaza:
    """The Plaza's service of bike rentals. No message repeats its URL, which holds the key."""

    url: str
    key: str
    deadline: float  # of time.monotonic()

    def rentals(self, hour: pd.Timestamp) -> int | None:
        """Rentals begun in this hour in all of Seoul; None when the Plaza has no rows for it."""
        rented, start, total = 0, 1, 1
        while start <= total:
            answer = self._page(hour, start)
            if answer is None:
                return None
            try:
                total = int(answer["list_total_count"])
                rows = answer["row"]
                rented += sum(int(float(row["USE_CNT"])) for row in rows)
            except (KeyError, TypeError, ValueError) as problem:
                raise DataError(
                    f"the Open Data Plaza's answer has lost or changed a field ({problem}); "
                    "unset SEOUL_OPEN_DATA_KEY to go on without it, and tell us"
                ) from None
            start += PLAZA_ROWS
        return rented

    def _page(self, hour: pd.Timestamp, start: int) -> dict[str, Any] | None:
        wanted = f"tbCycleRentUseTimeInfo/{start}/{start + PLAZA_ROWS - 1}/{hour:%Y%m%d}/{hour.hour}"
        body = self._get(f"{self.url.rstrip('/')}/{quote(self.key, safe='')}/json/{wanted}")
        page, code = _opened(body)
        if code == "INFO-000" and page is not None:
            return page
        if code == "INFO-200":
            return None
        if code == "INFO-100":
            raise DataError(
                "the Open Data Plaza refuses the key (INFO-100); correct SEOUL_OPEN_DATA_KEY or unset it"
            )
        if code:
            raise _PassedOver(f"the Open Data Plaza answered {code}")
        raise _PassedOver("what answered is not the Open Data Plaza (a sign-in page in between?)")

    def _get(self, url: str) -> str:
        chunks: list[bytes] = []
        if time.monotonic() > self.deadline:
            raise _PassedOver(f"the Open Data Plaza did not finish within {TOTAL_SECONDS:.0f} s")
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as response:
                while chunk := response.read1(65536):
                    chunks.append(chunk)
                    if time.monotonic() > self.deadline or sum(map(len, chunks)) > _ANSWER_BYTES:
                        raise _PassedOver(f"the Open Data Plaza did not finish within {TOTAL_SECONDS:.0f} s")
        except urllib.error.HTTPError as problem:
            raise _PassedOver(f"the Open Data Plaza answered HTTP {problem.code}") from None
        except (OSError, HTTPException, ValueError):
            raise _PassedOver("the Open Data Plaza did not answer") from None
        return b"".join(chunks).decode("utf-8", errors="replace")


def _opened(body: str) -> tuple[dict[str, Any] | None, str]:
    """The page of rows, and the Plaza's result code; "" where there is none.

    A refusal comes inside the page, instead of it, or, also where JSON was asked for, as XML.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        code = re.search(r"<CODE>\s*((?:INFO|ERROR)-\d{3})", body)
        return None, code[1] if code else ""
    page = answer.get("cycleRentUseTimeInfo") if isinstance(answer, dict) else None
    for holder in (page, answer):
        result = holder.get("RESULT") if isinstance(holder, dict) else None
        if isinstance(result, dict):
            return (page if isinstance(page, dict) else None), str(result.get("CODE", ""))
    return None, ""


# ---- 3. the generator ------------------------------------------------------------------------------------------------

_SEED = 20180601


def _years(days: Days, make: Callable[[int], pd.DataFrame]) -> pd.DataFrame:
    """Whole years, each from its own seed, cut to the days: the same day is the same whatever else is asked for."""
    whole = pd.concat([make(year) for year in range(days[0].year, days[1].year + 1)])
    return whole.loc[str(days[0]) : str(days[1])]


def _drift(random: np.random.Generator, count: int, keep: float, spread: float) -> Hours:
    """Noise that remembers: x[t] = keep * x[t-1] + e, with standard deviation `spread`."""
    steps = random.normal(0.0, spread * math.sqrt(1 - keep**2), count)
    value = 0.0
    for n, step in enumerate(steps):
        value = steps[n] = keep * value + step
    return steps


def _hours_of(year: int) -> pd.DatetimeIndex:
    return pd.date_range(f"{year}-01-01", f"{year}-12-31 23:00", freq="h", tz=SEOUL, name="time")


def _weather_year(year: int) -> pd.DataFrame:
    random = np.random.default_rng([_SEED, year])
    index = _hours_of(year)
    count, hour = len(index), index.hour.to_numpy()
    season = -np.cos((index.day_of_year.to_numpy() - 20) / 365 * 2 * np.pi)  # -1 mid-January, 1 mid-July
    daylight = np.clip(np.sin((hour - 6) / 13 * np.pi), 0, None) * (hour >= 6) * (hour <= 19)
    # Rain comes in spells, more of them in summer.
    wet, raining = np.zeros(count, dtype=bool), False
    for n, chance in enumerate(random.random(count)):
        raining = chance > 0.22 if raining else chance < 0.012 + 0.012 * season[n]
        wet[n] = raining
    amount = np.round(np.where(wet, random.gamma(0.6, 2.0 + 1.5 * season), 0.0), 1)
    temp = (
        12.5
        + 14.5 * season
        + 4.0 * np.sin((hour - 9) / 12 * np.pi)
        + _drift(random, count, 0.985, 3.2)
        - 2.0 * wet
    )
    humidity = np.clip(
        58 + 12 * season - 12 * np.sin((hour - 9) / 12 * np.pi) + 25 * wet + _drift(random, count, 0.95, 9),
        8,
        99,
    )
    cloud = np.clip(0.35 + 0.5 * wet + _drift(random, count, 0.95, 0.25), 0, 1)
    pm10 = np.exp(3.6 - 0.25 * season + _drift(random, count, 0.98, 0.5) - 0.4 * wet)
    wind = np.abs(1.9 + 0.6 * daylight + _drift(random, count, 0.9, 0.9))
    snow = np.where(wet & (temp < 0), 2.0, 0.0)
    return pd.DataFrame(
        {
            "temp_c": temp.round(1),
            "rain_mm": np.where(amount > 0, amount, np.nan),
            "wind_ms": wind.round(1),
            "wind_dir_deg": np.round(_drift(random, count, 0.9, 90) % 360, -1),
            "humidity_pct": humidity.round(),
            # Magnus formula, Sonntag's constants over water.
            "dew_point_c": _dew_point(temp, humidity).round(1),
            "slp_hpa": (1016 - 8 * season + _drift(random, count, 0.99, 5)).round(1),
            "sunshine_hr": np.where(daylight > 0, (1 - cloud).round(1), np.nan),
            "solar_mj_m2": np.where(daylight > 0, ((2.4 + season) * daylight * (1 - 0.7 * cloud)).round(2), np.nan),
            "snow_depth_cm": np.where(snow > 0, snow, np.nan),
            "visibility_10m": np.clip(2000 - 6 * pm10 - 700 * wet + random.normal(0, 150, count), 50, 2000).round(),
            "ground_temp_c": (temp + 5 * daylight).round(1),
            "pm10_ugm3": np.where(random.random(count) < 0.04, np.nan, pm10.round()),
        },
        index=index,
    )  # fmt: skip


def _dew_point(temp: Hours, humidity: Hours) -> Hours:
    gamma = np.log(humidity / 100) + 17.62 * temp / (243.12 + temp)
    return np.asarray(243.12 * gamma / (17.62 - gamma))


def _bike_year(year: int) -> pd.DataFrame:
    weather = _weather_year(year)
    random = np.random.default_rng([_SEED, year, 1])
    index, count = _hours_of(year), len(weather)
    hour, day = index.hour.to_numpy(), index.day_of_year.to_numpy() - 1
    holidays = set(public_holidays(date(year, 1, 1), date(year, 12, 31)))
    holiday = np.array([day in holidays for day in index.date])
    off = holiday | (index.day_of_week.to_numpy() >= 5)

    def bump(centre: float, width: float) -> Hours:
        return np.asarray(np.exp(-0.5 * ((hour - centre) / width) ** 2))

    work = 0.12 + 0.9 * bump(8, 1.0) + 1.5 * bump(18.3, 1.8) + 0.5 * bump(13, 3.5) + 0.5 * bump(21.5, 1.8)
    free = 0.18 + 1.15 * bump(15.5, 4.0) + 0.35 * bump(21, 2.2)
    temp, rain = weather["temp_c"].to_numpy(), weather["rain_mm"].fillna(0.0).to_numpy()
    comfort = 0.12 + np.exp(-0.5 * ((temp - 22) / 10.5) ** 2)
    wet = np.exp(-0.9 * np.sqrt(rain)) * np.where(rain > 0, 0.75, 1.0)
    mood = np.exp(_drift(random, 366, 0.6, 0.12))[day] * np.exp(random.normal(0, 0.09, count))
    growth = 1.18 ** (year - 2018 + day / 365)
    stopped = (random.random(366) < 0.035)[day]
    rentals = np.where(
        stopped, 0.0, np.maximum(2, np.round(950 * np.where(off, free, work) * comfort * wet * mood * growth))
    )
    season = np.array(["Winter", "Spring", "Summer", "Autumn"], dtype=object)[
        index.month.to_numpy() % 12 // 3
    ]
    same = ["temp_c", "humidity_pct", "wind_ms", "visibility_10m", "dew_point_c"]
    frame = weather[same].copy()
    frame.insert(0, "rented_bikes", rentals)
    frame["solar_mj_m2"] = weather["solar_mj_m2"].fillna(0.0)
    frame["rain_mm"] = rain
    frame["snow_cm"] = weather["snow_depth_cm"].fillna(0.0)
    return frame.assign(season=season, holiday=holiday, functioning_day=~stopped)


# ---- the data sets ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataSet:
    """What the loader knows of one data set; `title` names it in a sentence."""

    name: str
    title: str
    file: str
    columns: tuple[Column, ...]
    attribution: str
    note: str
    read: Callable[[Table], pd.DataFrame]
    generate: Callable[[date, date], pd.DataFrame]
    generated_days: Days
    in_plaza: bool = False
    dated: bool = True
    """Whether `frame` is a series of days; `load` takes `days` only then."""


_RENTED = Column("rented_bikes", "rentals per hour", "rentals begun in the hour, all of Seoul")
_BIKE = (
    _RENTED,
    Column("temp_c", "°C", "air temperature"),
    Column("humidity_pct", "%", "relative humidity"),
    Column("wind_ms", "m/s", "wind speed"),
    Column("visibility_10m", "10 m", "visibility, capped at 2,000 (20 km)"),
    Column("dew_point_c", "°C", "dew point"),
    Column("solar_mj_m2", "MJ/m²", "solar radiation reported at the hour"),
    Column(
        "rain_mm", "mm", "rain reported at the hour (the rentals fit: fallen in the hour before); 0 for none"
    ),
    Column("snow_cm", "cm", "depth of snow; 0 for none"),
    Column("season", "", "Winter, Spring, Summer or Autumn"),
    Column("holiday", "", "the source's flag for a holiday, as published"),
    Column("functioning_day", "", "false: the service stood still, and 0 rentals mean nothing"),
)
_WEATHER = (
    Column("temp_c", "°C", "air temperature"),
    Column("rain_mm", "mm", "rain reported at the hour; empty for none"),
    Column("wind_ms", "m/s", "wind speed"),
    Column("wind_dir_deg", "°", "direction the wind comes from"),
    Column("humidity_pct", "%", "relative humidity"),
    Column("dew_point_c", "°C", "dew point"),
    Column("slp_hpa", "hPa", "air pressure at sea level"),
    Column("sunshine_hr", "h", "sunshine reported at the hour; empty at night"),
    Column("solar_mj_m2", "MJ/m²", "solar radiation reported at the hour; empty at night"),
    Column("snow_depth_cm", "cm", "depth of snow; empty for none"),
    Column("visibility_10m", "10 m", "visibility"),
    Column("ground_temp_c", "°C", "temperature of the ground"),
    Column("pm10_ugm3", "µg/m³", "fine dust below 10 µm"),
)
_BIKE_ATTRIBUTION = (
    "Data: Seoul Metropolitan Government (Seoul Open Data Plaza); "
    "Seoul Bike Sharing Demand (UCI, doi:10.24432/C5F62R, CC BY 4.0)"
)

DATA_SETS: dict[str, DataSet] = {
    spec.name: spec
    for spec in (
        DataSet(
            name="bike_hourly",
            title="Seoul's public bikes and weather by the hour",
            file="seoul_bike_hourly_2017_2018.csv",
            columns=_BIKE,
            attribution=_BIKE_ATTRIBUTION,
            note="column names changed by us; humidity of 0 % read as missing",
            read=_read_bike,
            generate=lambda first, last: _years((first, last), _bike_year),
            generated_days=_BIKE_YEAR,
        ),
        DataSet(
            name="bike_rentals_hourly",
            title="Seoul's public bikes by the hour",
            file="seoul_bike_hourly_2017_2018.csv",
            columns=(_RENTED,),
            attribution=_BIKE_ATTRIBUTION,
            note="column names changed by us",
            read=_read_rentals,
            generate=lambda first, last: _years((first, last), _bike_year)[["rented_bikes"]],
            generated_days=_BIKE_YEAR,
            in_plaza=True,
        ),
        DataSet(
            name="weather_pm10_hourly",
            title="Seoul's weather and fine dust by the hour",
            file="seoul_kma_weather_pm10_hourly_2014_2018.csv",
            columns=_WEATHER,
            attribution="Data: Korea Meteorological Administration (ASOS station 108, PM10)",
            note="joined on the hour by us; KMA's terms of use to be confirmed before publishing outside the team",
            read=_read_weather,
            generate=lambda first, last: _years((first, last), _weather_year),
            generated_days=_WEATHER_YEARS,
        ),
    )
}

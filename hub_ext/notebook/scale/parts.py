"""Makes a large table out of the city's two small ones, and says what that is and is not.

The metro's congestion is published as typical days, the weather as hours of five years. *Unfolding* puts the typical day of
its kind on every day of the weather, a row for each reading. *Copying* then repeats the whole, to reach a size that a
question is asked at. Neither adds knowledge: how many rows there are says how much work it is, not how much is known.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped, unused-ignore] # where pandas-stubs is installed it is typed

from hub_ext.core.clock import DAY, SystemClock
from hub_ext.notebook.data import CityData, DataError, public_holidays
from hub_ext.notebook.scale.question import READ, shortcut

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SIZES", "Parts", "Size", "scratch", "unfold", "where_to_write"]

_GIB = 2**30
_ROW_BYTES = 8 + 1 + 2 + 1 + 8
"""Of the columns of `READ`, in their order, as they lie in memory."""
_ROWS_A_DAY = 25_000
"""At most; the typical days hold about 21,500 readings."""
_FILE_BYTES_PER_ROW = 4
"""At most, of a row in a compressed file; asked of the disk before anything is written. Seen: 0.6 to 1.8."""
_LEFT_BEHIND = 14 * DAY
"""Seconds; no server runs that long, so whoever wrote such a folder is gone."""

DIRECTIONS = ["up", "down", "inner", "outer"]
"""What a direction's number in the large table means."""


@dataclass(frozen=True)
class Size:
    """How large: the days of weather that are unfolded (both included), copies of the whole, months in one file."""

    name: str
    first: date
    last: date
    copies: int
    months: int

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise DataError(f"size {self.name}: the first day {self.first} lies after the last, {self.last}")
        if self.copies < 1 or not 1 <= self.months <= 12:
            raise DataError(f"size {self.name}: it needs at least 1 copy, and 1 to 12 months in a file")


SIZES = {
    size.name: size
    for size in (
        Size("small", date(2018, 6, 1), date(2018, 8, 31), copies=2, months=1),
        Size("medium", date(2014, 1, 1), date(2018, 12, 31), copies=1, months=3),
        Size("large", date(2014, 1, 1), date(2018, 12, 31), copies=10, months=6),
        Size("huge", date(2014, 1, 1), date(2018, 12, 31), copies=60, months=12),
    )
}
"""About 4, 39, 390 million and 2.4 billion rows: a test, a laptop's work, a server's, and a cluster's."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The large table: Parquet `files` of like layout in `folder`, and the `weather` file beside them.

    `readings`, `hours` and `days` are the small tables it was made from. `remove` deletes the folder.
    """

    size: Size
    folder: Path
    files: tuple[Path, ...]
    weather: Path
    file_rows: tuple[int, ...]
    readings: pd.DataFrame
    hours: pd.DataFrame
    days: pd.DataFrame
    remove: Callable[[], None]

    @cached_property
    def file_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    @property
    def rows(self) -> int:
        return sum(self.file_rows)

    @property
    def memory_bytes(self) -> int:
        """Of the columns that the question reads, as they lie in memory."""
        return self.rows * _ROW_BYTES

    @property
    def years(self) -> int:
        """Calendar years that the days lie in; an amount per year is a sum divided by this and by the copies."""
        return int(self.days["day"].dt.year.nunique())

    @property
    def note(self) -> str:
        """What belongs on every figure made from the large table."""
        many, days = self.size.copies, len(self.days)
        copied = (
            "each once"
            if many == 1
            else f"and the whole stands in the table {many} times (divided out again)"
        )
        return (
            f"REPLICATED: one typical day of each kind put on each of {days:,} days of weather ({self.size.first} to {self.size.last}), "
            f"{copied}. {self.rows:,} rows say how much work it is, not how much is known."
        )

    def some(self, share: float) -> tuple[Path, ...]:
        """The first files, at least one, up to that share of them."""
        return self.files[: max(1, round(share * len(self.files)))]

    def rows_of(self, share: float) -> int:
        """Rows in `some(share)`."""
        return sum(self.file_rows[: len(self.some(share))])

    def answer_from_the_small_tables(self) -> pd.DataFrame:
        """What everybody has to arrive at, worked out another way (`shortcut`)."""
        return shortcut(self.readings, self.hours, self.days, self.size.copies)

    def stamp(self, figure: Figure) -> None:
        """Write `note` above the figure."""
        width = figure.get_size_inches()[0]
        lines = textwrap.wrap(self.note, max(30, int(width * 17)))
        title = figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=7.5, color="#8a5a00")
        title.set_gid("replicated")


def where_to_write(*, shared: bool) -> Path:
    """Where scratch files go. `shared`: the workers of a cluster have to see them, and so they go into the person's home,
    which all have; else to `/scratch`, which is this server's alone, or to the folder for temporary files.
    """
    if shared:
        return Path.home() / ".cache" / "scale"
    own = Path("/scratch")
    return own if os.access(own, os.W_OK) else Path(tempfile.gettempdir())


def scratch(size: Size, base: Path) -> tuple[Path, Callable[[], None]]:
    """A new folder below `base`, and what deletes it; it goes with the kernel at the latest.

    Raises DataError where `base` cannot be written to or has not the room.
    """
    need = ((size.last - size.first).days + 1) * _ROWS_A_DAY * size.copies * _FILE_BYTES_PER_ROW
    try:
        base.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(base).free
        if free < need:
            raise DataError(
                f"{base} has {free / _GIB:.1f} GiB free and size {size.name!r} may take {need / _GIB:.1f} GiB; "
                "choose another folder or a smaller size"
            )
        _sweep(base)
        folder = tempfile.TemporaryDirectory(
            prefix=f"scale-{size.name}-", dir=base, ignore_cleanup_errors=True
        )
    except OSError as problem:
        raise DataError(
            f"{base} cannot be written to: {problem.strerror or problem}; choose another folder"
        ) from problem
    return Path(folder.name), folder.cleanup


def _sweep(base: Path) -> None:
    """In the home, which outlives every server: take away what a kernel that was killed left there."""
    if base != where_to_write(shared=True):
        return
    oldest = SystemClock().now() - _LEFT_BEHIND
    for folder in base.glob("scale-*"):
        if folder.stat(follow_symlinks=False).st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)


def unfold(size: Size, metro: CityData, weather: CityData, base: Path) -> Parts:
    """Unfold, copy and write the large table into a new folder below `base`.

    Raises DataError where the weather does not cover the size's days, and as `scratch`.
    """
    # 1. The small tables, as numbers: a name takes more room than what it names.
    hours = _hours(weather)
    days = _days(size)
    if hours["hour"].iloc[0] > days["day"].iloc[0] or hours["hour"].iloc[-1] < days["day"].iloc[-1]:
        raise DataError(
            f"the weather reaches from {hours['hour'].iloc[0]:%Y-%m-%d} to {hours['hour'].iloc[-1]:%Y-%m-%d}, "
            f"size {size.name!r} asks for {size.first} to {size.last}"
        )
    readings = metro.frame.assign(direction=metro.frame["direction"].map(DIRECTIONS.index))
    typical = {kind: _narrow(rows) for kind, rows in readings.groupby("day_type")}
    if missing := sorted(set(days["day_type"]) - set(typical)):
        raise DataError(
            f"{metro.name} has no typical {' and no typical '.join(missing)} to put on these days"
        )
    # 2. One file after the other, so that no more than one lies in memory; its copies are copies of the file.
    folder, remove = scratch(size, base)
    files: dict[Path, int] = {}
    for name, some in days.groupby(_period(days["day"], size.months)):
        table = _on_days(typical, some)
        first = folder / f"copy-000-{name}.parquet"
        table.to_parquet(first, index=False)
        files[first] = len(table)
        for copy in range(1, size.copies):
            again = folder / f"copy-{copy:03d}-{name}.parquet"
            shutil.copyfile(first, again)
            files[again] = len(table)
    # 3. The weather is small and goes along whole.
    along = folder / "weather.parquet"
    hours.to_parquet(along, index=False)
    order = tuple(sorted(files))
    file_rows = tuple(files[file] for file in order)
    return Parts(size, folder, order, along, file_rows, readings, hours, days, remove)


def _hours(weather: CityData) -> pd.DataFrame:
    """The temperature by the hour on Seoul's clock, which knows no summer time."""
    frame = weather.frame
    hour = pd.DatetimeIndex(frame.index).tz_localize(None).astype("datetime64[us]")
    return pd.DataFrame({"hour": hour, "temp_c": frame["temp_c"].to_numpy(dtype="float64")})


def _days(size: Size) -> pd.DataFrame:
    """The days and their kinds. Moving feasts are known for some years only (`public_holidays`)."""
    day = pd.date_range(size.first, size.last, freq="D").astype("datetime64[us]")
    off = np.isin(
        np.array([moment.date() for moment in day]), np.array(public_holidays(size.first, size.last))
    )
    kind = np.where(
        off | (day.day_of_week == 6), "holiday", np.where(day.day_of_week == 5, "saturday", "weekday")
    )
    return pd.DataFrame({"day": day, "day_type": kind})


def _period(day: pd.Series, months: int) -> pd.Series:
    """The name of the file that a day goes to, by its first month."""
    first = (day.dt.month - 1) // months * months + 1
    return day.dt.year.astype(str) + "-" + first.astype(str).str.zfill(2)


def _narrow(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[["minute", "line", "station_no", "direction", "congestion_pct"]].astype(
        {"minute": "int64", "line": "int8", "station_no": "int16", "direction": "int8"}
    )


def _on_days(typical: dict[Any, pd.DataFrame], days: pd.DataFrame) -> pd.DataFrame:
    """The typical day of its kind on each of the days."""
    tables = []
    for day, kind in zip(days["day"], days["day_type"], strict=True):
        rows = typical[kind]
        time = day.to_datetime64() + rows["minute"].to_numpy().astype("timedelta64[m]")
        tables.append(rows.assign(time=time.astype("datetime64[us]"))[READ])
    return pd.concat(tables, ignore_index=True)

"""How full Seoul's metro trains are on a typical day: by station, direction and half hour, as `load(METRO_CONGESTION)`.

Not a series of days: one typical weekday, Saturday and holiday of 2022, as Seoul Metro publishes them for its lines 1 to 8.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd  # type: ignore[import-untyped, unused-ignore] # where pandas-stubs is installed it is typed

from hub_ext.notebook.data import Column, DataError, DataSet, Table

__all__ = ["METRO_CONGESTION", "MINUTES"]

MINUTES = range(5 * 60 + 30, 24 * 60 + 31, 30)
"""The half hours of a day of service, in minutes since its midnight: 5:30 to 0:30 of the next day."""

_NIGHT_ENDS = 4 * 60
"""Minutes; what is written as earlier than this belongs to the day of service before."""

_KEYS = ["day_type", "line", "station_no", "direction", "minute"]
_DAY_TYPES = {"평일": "weekday", "토요일": "saturday", "공휴일": "holiday"}
_DIRECTIONS = {"상선": "up", "하선": "down", "내선": "inner", "외선": "outer"}
_COLUMNS = (
    Column("day_type", "", "weekday, saturday or holiday (Sundays and public holidays)"),
    Column("line", "", "line, 1 to 8"),
    Column("station_no", "", "number of the station on its line"),
    Column("station", "", "name of the station, in Korean"),
    Column("direction", "", "up or down; on the loop of line 2 inner or outer"),
    Column("minute", "min", "begin of the half hour, since the midnight of its day of service (0:30 at night is 1,470)"),
    Column("congestion_pct", "% of capacity", "how full the trains are: 34 is every seat taken, 100 full by design"),
)  # fmt: skip


def _read(table: Table) -> pd.DataFrame:
    """The file's typical days. The same reading twice is kept once; two different ones are refused."""
    table.require("day_type", "line", "station_no", "station", "direction", "time", "congestion_pct")
    time = table.moments("time", "%H:%M")
    minute = (time.dt.hour * 60 + time.dt.minute).astype("int64")
    frame = pd.DataFrame(
        {
            "day_type": table.words("day_type", _DAY_TYPES),
            "line": table.whole("line"),
            "station_no": table.whole("station_no"),
            "station": table.text("station").fillna(""),
            "direction": table.words("direction", _DIRECTIONS),
            "minute": minute.where(minute >= _NIGHT_ENDS, minute + 24 * 60),
            "congestion_pct": table.numbers("congestion_pct"),
        }
    )
    if frame.empty:
        raise DataError(f"{table.file} has a header and no rows; fetch it again")
    frame = frame.drop_duplicates().sort_values(_KEYS, kind="stable", ignore_index=True)
    twice = frame[frame.duplicated(_KEYS)]
    if len(twice):
        place = ", ".join(f"{name} {twice.iloc[0][name]}" for name in _KEYS)
        raise DataError(f"{table.file} has two different readings for {place}; keep one of them")
    return frame


def _generate(_first: date, _last: date) -> pd.DataFrame:
    """Eight lines of 34 stations: two rush hours on weekdays, a broad afternoon on the other days."""
    random = np.random.default_rng(20220101)
    minute = np.array(MINUTES, dtype=np.int64)

    def bump(hour: float, width: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.asarray(np.exp(-0.5 * ((minute / 60 - hour) / width) ** 2))

    shapes = {
        "weekday": {"in": 12 + 85 * bump(8.3, 0.9) + 45 * bump(18.4, 1.4) + 14 * bump(13, 3.5),
                    "out": 12 + 40 * bump(8.3, 0.9) + 80 * bump(18.4, 1.3) + 14 * bump(13, 3.5)},
        "saturday": {"in": 10 + 35 * bump(15, 4.0), "out": 10 + 38 * bump(17, 4.0)},
        "holiday": {"in": 8 + 28 * bump(15, 4.0), "out": 8 + 31 * bump(17, 4.0)},
    }  # fmt: skip
    tables = []
    for line in range(1, 9):
        busy = random.uniform(0.5, 1.5)
        for place in range(34):
            middle = busy * (0.35 + 0.9 * np.sin((place + 0.5) / 34 * np.pi))
            names = ("inner", "outer") if line == 2 else ("up", "down")
            for name, way in zip(names, ("in", "out"), strict=True):
                for day_type, shape in shapes.items():
                    noise = np.exp(random.normal(0, 0.08, len(minute)))
                    closed = (day_type != "weekday") & (minute >= 24 * 60)
                    reading = np.where(closed, np.nan, np.round(shape[way] * middle * noise, 1))
                    tables.append(
                        pd.DataFrame(
                            {
                                "day_type": day_type,
                                "line": line,
                                "station_no": line * 100 + place,
                                "station": f"Station {line * 100 + place}",
                                "direction": name,
                                "minute": minute,
                                "congestion_pct": reading,
                            }
                        )
                    )
    return pd.concat(tables).sort_values(_KEYS, kind="stable", ignore_index=True)


METRO_CONGESTION = DataSet(
    name="metro_congestion",
    title="Congestion of Seoul's metro on a typical day",
    file="seoul_metro_congestion_30min_2022.csv",
    columns=_COLUMNS,
    attribution="Data: Seoul Metro (data.go.kr 15071311, 2022), via statgarten/datatoys (CC0)",
    note="a typical day of each kind, not a series of days; words translated by us; a reading that stands twice is kept once",
    read=_read,
    generate=_generate,
    generated_days=(date(2022, 1, 1), date(2022, 12, 31)),
    dated=False,
)

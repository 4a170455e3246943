"""One question to a table of half hours, in words that pandas, cudf.pandas and Dask all understand.

*Where do packed trains meet hot hours, and how often?* `question` answers it from the large table, whichever of the three
holds it. `shortcut` answers it from the two small tables that the large one was unfolded from, another way round: it is
the yardstick of the others, and a reminder that a better query may beat any machine.
"""

from __future__ import annotations

from typing import Any

import pandas as pd  # type: ignore[import-untyped, unused-ignore] # where pandas-stubs is installed it is typed

__all__ = ["COUNTS", "HOT_C", "KEYS", "PACKED_PCT", "READ", "SUMS", "question", "shortcut"]

HOT_C = 30.0
"""°C; air outside from which an hour counts as hot."""

PACKED_PCT = 100.0
"""% of capacity; a train as full as it was designed for, or fuller."""

KEYS = ["line", "station_no", "direction", "minute"]
"""What an answer has one row for: a station, a direction, and a half hour of the day (minutes since midnight)."""

READ = ["time", "line", "station_no", "direction", "congestion_pct"]
COUNTS = ["readings", "hot", "packed_hot"]
SUMS = ["heat_load"]


def question(trains: Any, weather: Any, **hints: Any) -> Any:
    """For each of `KEYS`: readings, those in hot hours, those that were packed as well, and their heat load.

    `trains` has the columns `READ`, `weather` the columns `hour` and `temp_c`; frames of pandas, cuDF or Dask (then so is
    the answer). A reading without a number, or without a temperature of its hour, does not count.
    `hints` go to the sum at the end: Dask is told there that the answer is small.
    `heat_load`: the sum of capacities filled x degrees above `HOT_C`, in °C x trains' capacities.
    """
    # 1. Each half hour meets the weather of its hour.
    met = trains.assign(hour=trains["time"].dt.floor("h")).merge(weather, on="hour", how="inner")
    met = met.dropna(subset=["congestion_pct", "temp_c"])
    # 2. What to count of each.
    hot = met["temp_c"] >= HOT_C
    packed = met["congestion_pct"] >= PACKED_PCT
    met = met.assign(
        minute=(met["time"].dt.hour * 60 + met["time"].dt.minute).astype("int64"),
        readings=1,
        hot=hot.astype("int64"),
        packed_hot=(hot & packed).astype("int64"),
        heat_load=met["congestion_pct"] / 100 * (met["temp_c"] - HOT_C).clip(lower=0.0),
    )
    # 3. Added up by place and time of day.
    return met.groupby(KEYS)[COUNTS + SUMS].sum(**hints)


def shortcut(readings: pd.DataFrame, weather: pd.DataFrame, days: pd.DataFrame, copies: int) -> pd.DataFrame:
    """The answer to `question` without the large table: the weather is counted first, and then meets the typical day.

    `readings`: the typical days, with `day_type` and `minute` since the midnight of the day of service; `days`: the
    columns `day` and `day_type`; `copies`: how often each reading stands in the large table.
    """
    # 1. For each kind of day and half hour: hours with a temperature, hot ones, and degrees above.
    slots = days.merge(readings[["day_type", "minute"]].drop_duplicates(), on="day_type")
    slots["hour"] = (slots["day"] + pd.to_timedelta(slots["minute"], unit="m")).dt.floor("h")
    slots = slots.merge(weather, on="hour", how="inner").dropna(subset=["temp_c"])
    slots["n"] = 1
    slots["n_hot"] = (slots["temp_c"] >= HOT_C).astype("int64")
    slots["degrees"] = (slots["temp_c"] - HOT_C).clip(lower=0.0)
    counted = slots.groupby(["day_type", "minute"], as_index=False)[["n", "n_hot", "degrees"]].sum()
    # 2. Each reading stands for that many.
    met = readings.dropna(subset=["congestion_pct"]).merge(counted, on=["day_type", "minute"])
    packed = (met["congestion_pct"] >= PACKED_PCT).astype("int64")
    met = met.assign(
        minute=met["minute"] % (24 * 60),
        readings=met["n"] * copies,
        hot=met["n_hot"] * copies,
        packed_hot=met["n_hot"] * packed * copies,
        heat_load=met["congestion_pct"] / 100 * met["degrees"] * copies,
    )
    return met.groupby(KEYS)[COUNTS + SUMS].sum()

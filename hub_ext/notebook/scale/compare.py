"""Whether all engines answered the same, what each took, and what that advises.

Counts must be equal. Sums of floats depend on the order in which they are added, which no two engines share: they may
differ by `TOLERANCE`, relative to the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd  # type: ignore[import-untyped, unused-ignore] # where pandas-stubs is installed it is typed

from hub_ext.core.errors import HubError
from hub_ext.notebook.scale.engines import Run
from hub_ext.notebook.scale.parts import Parts
from hub_ext.notebook.scale.question import COUNTS, KEYS, SUMS

__all__ = ["TOLERANCE", "DifferentAnswers", "advice", "against", "check", "crossover", "table"]

TOLERANCE = 1e-9
"""Relative. Adding n numbers of one sign in another order moves a double's sum by at most about n x 1e-16, and for a group of
these tables (up to some hundred thousand rows) in practice by 1e-13: whatever passes this line is a mistake."""

GB = 10**9
NO_CLUSTER_BELOW = 10 * GB
ONE_GPU_BELOW = 100 * GB


class DifferentAnswers(HubError):
    """Two engines did not answer the same; the text says which, where, and by how much."""


def check(runs: Sequence[Run], reference: pd.DataFrame) -> pd.DataFrame:
    """Hold each answer against the reference: one row for each engine that answered, with its largest difference.

    Raises DifferentAnswers at the first row or number that differs by more than it may, and where nobody answered.
    """
    answered = [run for run in runs if run.answer is not None]
    if not answered:
        reasons = "; ".join(f"{run.engine}: {run.why_not}" for run in runs) or "none was run"
        raise DifferentAnswers(f"there is no answer to check ({reasons})")
    want = reference.sort_index()
    found = {}
    for run in answered:
        assert run.answer is not None
        found[run.engine] = {
            "rows": len(run.answer),
            "counts": "equal",
            "largest difference of a sum, relative": _largest_difference(
                run.engine, run.answer.sort_index(), want
            ),
            "allowed": TOLERANCE,
        }
    return pd.DataFrame.from_dict(found, orient="index")


def _largest_difference(engine: str, answer: pd.DataFrame, want: pd.DataFrame) -> float:
    theirs, ours = answer.index.to_frame(), want.index.to_frame()
    if len(theirs) != len(ours) or not (theirs.to_numpy() == ours.to_numpy()).all():
        extra, missing = answer.index.difference(want.index), want.index.difference(answer.index)
        raise DifferentAnswers(
            f"{engine} answered {len(theirs):,} rows of {len(ours):,}: {len(extra):,} too many, {len(missing):,} missing, "
            f"the first {_place((list(extra) + list(missing) or [theirs.index[0]])[0])}"
        )
    largest = 0.0
    for name in COUNTS + SUMS:
        got, wanted = answer[name].to_numpy(dtype="float64"), want[name].to_numpy(dtype="float64")
        apart = np.abs(got - wanted)
        allowed = TOLERANCE * np.abs(wanted) if name in SUMS else np.zeros(len(wanted))
        # Not "greater": a NaN is no answer either.
        wrong = ~(apart <= allowed)
        if wrong.any():
            row = int(wrong.argmax())
            raise DifferentAnswers(
                f"{engine} differs in {name} at {_place(want.index[row])}: {got[row]:.17g} instead of {wanted[row]:.17g} "
                f"(and in {int(wrong.sum()) - 1:,} other rows); allowed are {TOLERANCE:g} of a sum, nothing of a count"
            )
        if name in SUMS and (wanted != 0).any():
            largest = max(largest, float((apart[wanted != 0] / np.abs(wanted[wanted != 0])).max()))
    return largest


def _place(key: tuple[int, ...]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(KEYS, key, strict=True))


def table(runs: Sequence[Run], parts: Parts) -> pd.DataFrame:
    """One row for each engine: time, what it held, and what that costs; `remark` says why one did not run.

    Core-hours and GPU-hours are of one question to the whole on a machine that was started for it, start included.
    """
    rows = {}
    for run in runs:
        answer = run.seconds.get(1.0, math.nan)
        whole_hours = (run.ready_seconds + answer) / 3600
        price = run.gpu_hours_per_hour
        rows[run.engine] = {
            "ran on": run.where or "did not run",
            "ready after (s)": run.ready_seconds,
            "answer after (s)": answer,
            "million rows per second": parts.rows / answer / 1e6,
            "memory at most (GiB)": math.nan if run.peak_bytes is None else run.peak_bytes / 2**30,
            "cores held": run.cores,
            "core-hours": run.cores * whole_hours,
            "GPU-hours": math.nan if price is None else price * whole_hours,
            "remark": run.why_not or ("" if price is not None else "no desk told a price"),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def against(one: Run, other: Run) -> str:
    """How `one` did against `other`, in a sentence; it says so where it did worse."""
    for run in (one, other):
        if run.answer is None:
            return f"{one.engine} cannot be compared with {other.engine}: {run.engine} did not run ({run.why_not})."
    mine, theirs = one.seconds[1.0], other.seconds[1.0]
    if mine <= theirs:
        saved = theirs - mine
        begun = one.ready_seconds - other.ready_seconds
        pays = (
            ", and was ready no later"
            if begun <= 0
            else f"; ready {begun:.1f} s later, it pays from about question {math.ceil(begun / saved):,} on"
            if saved > 0
            else ""
        )
        return f"{one.engine} was {theirs / mine:.1f} times FASTER than {other.engine} ({mine:.2f} s against {theirs:.2f} s){pays}."
    return (
        f"{one.engine} was {mine / theirs:.1f} times SLOWER than {other.engine} ({mine:.2f} s against {theirs:.2f} s), "
        f"and took {one.ready_seconds:.1f} s before the first question against {other.ready_seconds:.1f} s."
    )


def crossover(one: Run, other: Run, parts: Parts) -> str:
    """From which size on `one` would be as fast as `other`, by a straight line through what was measured."""
    if one.answer is None or other.answer is None or len(one.seconds) < 2 or len(other.seconds) < 2:
        return (
            f"Too little was measured to say from which size on {one.engine} is faster than {other.engine}."
        )
    if all(one.seconds[share] < other.seconds[share] for share in one.seconds if share in other.seconds):
        return f"{one.engine} was faster than {other.engine} at every size that was measured."
    (base, slope), (their_base, their_slope) = _line(one, parts), _line(other, parts)
    if slope >= their_slope:
        return (
            f"By what was measured, {one.engine} needs no less time for each further row than {other.engine}: by a straight line a "
            f"larger table does not make it the faster one. Above {parts.rows / 1e6:,.1f} million rows nothing was measured."
        )
    rows = max(0.0, (base - their_base) / (their_slope - slope))
    known = "within what was measured" if rows <= parts.rows else "by extrapolation, NOT measured"
    return (
        f"{one.engine} becomes as fast as {other.engine} at about {rows / 1e6:,.1f} million rows "
        f"({rows / parts.rows * parts.memory_bytes / GB:.2f} GB in memory), {known}; its start is not counted."
    )


def _line(run: Run, parts: Parts) -> tuple[float, float]:
    """Seconds before the first row, and for each row: the least squares through the shares that were measured."""
    rows = np.array([parts.rows_of(share) for share in run.seconds])
    slope, base = np.polyfit(rows, np.array(list(run.seconds.values())), 1)
    return float(base), float(slope)


def advice(memory_bytes: int) -> str:
    """What to use for a table that takes so much memory (the columns that are needed, unpacked)."""
    size = f"{memory_bytes / GB:.1f} GB"
    if memory_bytes < NO_CLUSTER_BELOW:
        return (
            f"{size} in memory: no cluster. pandas or Polars on this server, cudf.pandas where it has a GPU; "
            "a cluster starts paying above about 10 GB."
        )
    if memory_bytes < ONE_GPU_BELOW:
        return f"{size} in memory: one GPU (cudf.pandas, or cudf-polars, which streams what does not fit), before any cluster."
    return f"{size} in memory: a Dask cluster, of GPUs where the hours allow it; read only the columns that are needed."

"""The same question to the same files by three engines, each measured in the same way.

A `Run` says what was answered, how long it took until the engine was ready and until the answers were there, what it held
meanwhile, and what that costs. An engine that cannot run gives a `Run` that says why.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd  # type: ignore[import-untyped, unused-ignore] # where pandas-stubs is installed it is typed

from hub_ext.core.errors import HubError
from hub_ext.notebook import why_not_cudf
from hub_ext.notebook.scale.parts import Parts
from hub_ext.notebook.scale.question import KEYS, READ, question

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "CUDF_PANDAS",
    "DASK",
    "PANDAS",
    "Run",
    "memory_limit",
    "run_cudf_pandas",
    "run_dask",
    "run_pandas",
    "run_small_tables",
    "unseen_by",
]

PANDAS, CUDF_PANDAS, DASK = "pandas", "cudf.pandas", "Dask"
SMALL_TABLES = "pandas, small tables"
_PEAK_BYTES, _PEAK_BYTES_PER_ROW = 300_000_000, 190
"""Main memory that pandas takes at most while it answers, before the first row and for each: as measured, about ten times what
the columns take that it reads."""
_PAUSES_AT = 0.8
"""Of its memory; a worker of Dask that has taken so much takes no more tasks."""
_GIB = 2**30
_FAILED_LINES = 3


@dataclass(frozen=True, eq=False)
class Run:
    """What one engine did. `seconds`: by share of the files, the median of the rounds; the share 1.0 is the whole.

    `ready_seconds`: until the first question could be asked, a first small one included. `cores` are held while it runs.
    `gpu_hours_per_hour`: the price of what it holds, None where nobody could tell. `peak_bytes`: of main memory, of all
    workers together. `why_not`: why it did not run; then there is no answer.
    """

    engine: str
    where: str = ""
    answer: pd.DataFrame | None = None
    ready_seconds: float = math.nan
    seconds: Mapping[float, float] = field(default_factory=dict)
    cores: float = math.nan
    peak_bytes: int | None = None
    gpu_hours_per_hour: float | None = None
    why_not: str = ""


# ---- one machine -------------------------------------------------------------------------------------------------


def run_pandas(
    parts: Parts,
    *,
    shares: Sequence[float] = (1.0,),
    rounds: int = 3,
    gpu_hours_per_hour: float | None = None,
) -> Run:
    """Ask pandas, on this server's CPU. Where it needs more memory than there is it is not begun: that would end the kernel."""
    need, there = _PEAK_BYTES + parts.rows * _PEAK_BYTES_PER_ROW, memory_limit()
    if need > there:
        return Run(
            PANDAS,
            why_not=f"needs about {need / _GIB:.1f} GiB of memory, and this server has {there / _GIB:.1f}",
        )
    return _alone(PANDAS, (), parts, shares, rounds, gpu_hours_per_hour)


def run_cudf_pandas(
    parts: Parts,
    *,
    shares: Sequence[float] = (1.0,),
    rounds: int = 3,
    gpu_hours_per_hour: float | None = None,
) -> Run:
    """The same program with `cudf.pandas` loaded before it, on this server's GPU; where there is none, why not."""
    if obstacle := why_not_cudf():
        return Run(CUDF_PANDAS, why_not=obstacle)
    return _alone(CUDF_PANDAS, ("-m", "cudf.pandas"), parts, shares, rounds, gpu_hours_per_hour)


def run_small_tables(parts: Parts, *, gpu_hours_per_hour: float | None = None) -> Run:
    """No large table at all: pandas counts the weather first (`shortcut`). Possible only because the large one is a copy."""
    begin = time.perf_counter()
    found = parts.answer_from_the_small_tables()
    took = time.perf_counter() - begin
    return Run(
        SMALL_TABLES,
        where="this server's CPU",
        answer=found.sort_index(),
        ready_seconds=0.0,
        seconds={1.0: took},
        cores=_cores_here(),
        gpu_hours_per_hour=gpu_hours_per_hour,
    )


def _alone(
    engine: str,
    loader: Sequence[str],
    parts: Parts,
    shares: Sequence[float],
    rounds: int,
    gpu_hours_per_hour: float | None,
) -> Run:
    asked = _rounds(shares, rounds)
    with tempfile.TemporaryDirectory() as folder:
        job, answer = Path(folder, "job.json"), Path(folder, "answer.parquet")
        files = [[str(file) for file in parts.some(share)] for share in asked]
        first = [str(parts.files[0])]  # a first small question, which brings all that is loaded late
        job.write_text(
            json.dumps({"rounds": [first, *files], "weather": str(parts.weather)}), encoding="utf-8"
        )
        program = [sys.executable, *loader, "-m", "hub_ext.notebook.scale.alone", str(job), str(answer)]
        begin = time.perf_counter()
        ended = subprocess.run(program, capture_output=True, text=True, check=False)
        took = time.perf_counter() - begin
        if ended.returncode:
            return Run(engine, why_not=_why_ended(ended))
        report = json.loads(ended.stdout)
        found = pd.read_parquet(answer).set_index(KEYS).sort_index()
    seconds = report["seconds"][1:]
    return Run(
        engine,
        where="this server's GPU" if report["where"] == "gpu" else "this server's CPU",
        answer=found,
        ready_seconds=took - sum(seconds),
        seconds=_medians(asked, seconds),
        cores=_cores_here(),
        peak_bytes=int(report["peak_bytes"]),
        gpu_hours_per_hour=gpu_hours_per_hour,
    )


def _why_ended(ended: subprocess.CompletedProcess[str]) -> str:
    if ended.returncode == -signal.SIGKILL:
        return "it was killed, most likely for the memory it took"
    last = [line for line in ended.stderr.splitlines() if line.strip()][-_FAILED_LINES:]
    return f"it ended with {ended.returncode}: {' / '.join(last)}"


# ---- a cluster ---------------------------------------------------------------------------------------------------


def run_dask(
    parts: Parts,
    client: Client,
    *,
    where: str,
    start_seconds: float,
    shares: Sequence[float] = (1.0,),
    rounds: int = 3,
    gpu_hours_per_hour: float | None = None,
) -> Run:
    """Ask a Dask cluster, to which `client` is connected.

    `start_seconds`: how long the cluster took to start. Where this server and every worker have a GPU with cuDF, the
    partitions are cuDF's. It does not run, and says so, where workers cannot see the files (a pod's scratch space is its
    own), where their memory is too small (Dask pauses them, and no answer ever comes), and where the cluster is lost.
    """
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    asked = _rounds(shares, rounds)
    try:
        return _ask_dask(parts, client, where, start_seconds, asked, gpu_hours_per_hour)
    except (FutureCancelledError, KilledWorker, CommClosedError, ConnectionError, TimeoutError) as problem:
        # Taken back, ended, or killed for its memory: what is known then is what Dask says.
        return Run(DASK, where=where, why_not=f"the cluster was lost: {' '.join(str(problem).split())}")


def _ask_dask(
    parts: Parts,
    client: Client,
    where: str,
    start_seconds: float,
    asked: Sequence[float],
    gpu_hours_per_hour: float | None,
) -> Run:
    if blind := unseen_by(client, parts):
        return Run(DASK, where=where, why_not=f"{blind} cannot see {parts.folder}: it must lie where all can")
    workers = client.scheduler_info(n_workers=-1)["workers"]
    backend = _backend(client)
    if backend == "pandas" and (small := _too_small(workers, parts)):
        return Run(DASK, where=where, why_not=small)
    begin = time.perf_counter()
    _by_dask(parts.files[:1], parts, backend)
    ready = start_seconds + time.perf_counter() - begin
    seconds, found = [], None
    with _peak_of(client) as peak:
        for share in asked:
            begin = time.perf_counter()
            found = _by_dask(parts.some(share), parts, backend)
            seconds.append(time.perf_counter() - begin)
    return Run(
        DASK,
        where=f"{where}, on GPUs" if backend == "cudf" else where,
        answer=found,
        ready_seconds=ready,
        seconds=_medians(asked, seconds),
        cores=float(sum(worker["nthreads"] for worker in workers.values())),
        peak_bytes=peak(),
        gpu_hours_per_hour=gpu_hours_per_hour,
    )


def _too_small(workers: Mapping[str, Any], parts: Parts) -> str:
    """Why the smallest worker cannot take a file with each of its threads; "" where all can."""
    if not workers:
        return "there are no workers"
    for worker in workers.values():
        need = _PEAK_BYTES + worker["nthreads"] * max(parts.file_rows) * _PEAK_BYTES_PER_ROW
        usable = worker["memory_limit"] * _PAUSES_AT
        if 0 < usable < need:
            return (
                f"a worker with {worker['nthreads']} threads needs about {need / _GIB:.1f} GiB and may use "
                f"{usable / _GIB:.1f}; take larger workers, or a size with smaller files"
            )
    return ""


def _backend(client: Client) -> str:
    """Whose frames the partitions are: cuDF's where this server, which plans, and every worker have it."""
    return "pandas" if why_not_cudf() or any(client.run(why_not_cudf).values()) else "cudf"


def _by_dask(files: Sequence[Path], parts: Parts, backend: str) -> pd.DataFrame:
    import dask
    import dask.dataframe as dd

    with dask.config.set({"dataframe.backend": backend}):
        trains = dd.read_parquet([str(file) for file in files], columns=READ)
        # One partition: it is sent to each of the others, and nothing is shuffled.
        weather = dd.read_parquet(str(parts.weather))
        # By several columns Dask would share the sums out among partitions, which only pays for large answers.
        found = question(trains, weather, split_out=1).compute()
    return (found.to_pandas() if hasattr(found, "to_pandas") else found).sort_index()


def unseen_by(client: Client, parts: Parts) -> str:
    """The workers that cannot see the files of the large table, in words; "" when all can."""
    file, size = str(parts.files[-1]), parts.files[-1].stat().st_size
    seen = client.run(_size_of, file)
    blind = [worker for worker, found in seen.items() if found != size]
    return "" if not blind else f"{len(blind)} of {len(seen)} workers"


def _size_of(file: str) -> int | None:
    try:
        return Path(file).stat().st_size
    except OSError:
        return None


@contextlib.contextmanager
def _peak_of(client: Client) -> Iterator[Any]:
    """Most memory that the workers took together meanwhile, as they told the scheduler; None where none did."""
    from distributed.diagnostics.memory_sampler import MemorySampler

    sampler = MemorySampler()  # type: ignore[no-untyped-call]
    taken: list[int] = []
    with sampler.sample("workers", client=client, measure="process", interval=0.1):
        yield lambda: max(taken, default=None)
    taken.extend(int(amount) for _, amount in sampler.samples["workers"])


# ---- measured alike ----------------------------------------------------------------------------------------------


def _rounds(shares: Sequence[float], rounds: int) -> list[float]:
    """The shares to ask for, one after the other; the whole is last, and its answer is kept."""
    if rounds < 1 or not shares or not all(0 < share <= 1 for share in shares):
        raise HubError(f"cannot measure {rounds} rounds of {list(shares)}: shares are above 0 and at most 1")
    return sorted({*shares, 1.0}) * rounds


def _medians(asked: Sequence[float], seconds: Sequence[float]) -> dict[float, float]:
    return {
        share: statistics.median(took for other, took in zip(asked, seconds, strict=True) if other == share)
        for share in sorted(set(asked))
    }


def _cores_here() -> float:
    limit = os.environ.get("CPU_LIMIT", "")
    with contextlib.suppress(ValueError):
        if float(limit) > 0:
            return float(limit)
    return float(len(os.sched_getaffinity(0)))


def memory_limit() -> int:
    """Bytes of main memory that this server may take: its limit, or what the machine has left where that is less."""
    import psutil

    left = int(psutil.virtual_memory().available)
    with contextlib.suppress(ValueError):
        limit = int(os.environ.get("MEM_LIMIT", ""))
        if limit > 0:
            return min(limit, left)
    return left

"""The question on one machine, in a program of its own: `python -m hub_ext.notebook.scale.alone JOB ANSWER`.

With `-m cudf.pandas` before it the same lines run on a GPU. A program of its own starts with an empty memory, tells how
much of it was taken at most, and gives it all back. JOB is a JSON file: `rounds`, each a list of Parquet files, and
`weather`. The answer to the last round goes to ANSWER (Parquet), the report (JSON) to standard output.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped, unused-ignore] # where pandas-stubs is installed it is typed

from hub_ext.notebook.scale.question import READ, question

__all__ = ["main"]


def main(job: str, answer: str) -> dict[str, Any]:
    """Run the rounds; the report: `seconds` of each, `peak_bytes` of main memory, and `where` the answer lay."""
    wanted = json.loads(Path(job).read_text(encoding="utf-8"))
    seconds, found = [], None
    for files in wanted["rounds"]:
        found = None  # what the round before held is given back first
        begin = time.perf_counter()
        found = question(pd.read_parquet(files, columns=READ), pd.read_parquet(wanted["weather"]))
        seconds.append(time.perf_counter() - begin)
    if found is None:
        raise ValueError("a job needs at least one round")
    where = _where(found)
    found.reset_index().to_parquet(answer, index=False)
    # Linux counts it in KiB.
    return {
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "where": where,
    }


def _where(frame: Any) -> str:
    """`gpu` or `cpu`: where cudf.pandas holds the frame, which falls back silently; plain pandas is on the CPU."""
    state = getattr(frame, "_fsproxy_state", None)
    return "gpu" if getattr(state, "name", "") == "FAST" else "cpu"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])))

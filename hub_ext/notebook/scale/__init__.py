"""One question at several sizes and on several engines: what `sample_notebooks/scale` is built of.

`unfold` makes a large table out of two small ones (`parts`), `question` is what is asked of it (`question`), `run_pandas`,
`run_cudf_pandas` and `run_dask` ask it and measure (`engines`), `check`, `table` and `advice` compare (`compare`).
"""

from __future__ import annotations

from hub_ext.notebook.scale.compare import (
    TOLERANCE,
    DifferentAnswers,
    advice,
    against,
    check,
    crossover,
    table,
)
from hub_ext.notebook.scale.engines import (
    CUDF_PANDAS,
    DASK,
    PANDAS,
    Run,
    memory_limit,
    run_cudf_pandas,
    run_dask,
    run_pandas,
    run_small_tables,
    unseen_by,
)
from hub_ext.notebook.scale.parts import SIZES, Parts, Size, unfold, where_to_write
from hub_ext.notebook.scale.price import price_of_this_server
from hub_ext.notebook.scale.question import HOT_C, PACKED_PCT, question, shortcut

__all__ = [
    "CUDF_PANDAS",
    "DASK",
    "HOT_C",
    "PACKED_PCT",
    "PANDAS",
    "SIZES",
    "TOLERANCE",
    "DifferentAnswers",
    "Parts",
    "Run",
    "Size",
    "advice",
    "against",
    "check",
    "crossover",
    "memory_limit",
    "price_of_this_server",
    "question",
    "run_cudf_pandas",
    "run_dask",
    "run_pandas",
    "run_small_tables",
    "shortcut",
    "table",
    "unfold",
    "unseen_by",
    "where_to_write",
]

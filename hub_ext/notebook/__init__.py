"""What runs inside a person's notebook.

Importing this package stays light: pandas, numpy and matplotlib are imported by the functions that use them, so that
`%load_ext cudf.pandas` may still come after it.
"""

from __future__ import annotations

import ctypes
import importlib.util

__all__ = ["why_not_cudf"]


def why_not_cudf() -> str:
    """The reason why this notebook cannot put pandas on a GPU, as a phrase; "" when it can.

    It asks the CUDA driver itself and needs neither nvidia-smi nor an import of cudf, which fails without a GPU.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        answered = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except (OSError, AttributeError):
        return "no CUDA driver here"
    if not answered or count.value < 1:
        return "no CUDA GPU in this server"
    if importlib.util.find_spec("cudf") is None:
        return "cudf is not installed in this image"
    return ""

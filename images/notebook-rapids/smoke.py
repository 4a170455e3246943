"""Run in the image. With a GPU RAPIDS computes on it, and so does a Dask worker; without one only the versions are seen."""

import importlib.metadata
import os
import subprocess
import sys

from hub_ext.notebook import why_not_cudf

VERSIONS = {"dask": "2026.7.1", "distributed": "2026.7.1", "cudf-cu13": "26.10", "dask-cuda": "26.10"}
CUDF_PANDAS = """
import pandas
frame = pandas.DataFrame({"key": [1, 2, 1], "value": [1, 2, 3]})
assert frame.groupby("key")["value"].sum().to_dict() == {1: 4, 2: 2}
assert "cudf" in str(type(frame._fsproxy_fast)), type(frame._fsproxy_fast)
"""


def main():
    # 1. The user is nobody, and the versions that belong together are there.
    assert os.getuid() != 0, "runs as root"
    for name, wanted in VERSIONS.items():
        found = importlib.metadata.version(name)
        assert found.startswith(wanted), f"{name} is {found}, not {wanted}"
    reason = why_not_cudf()
    if reason:
        print(f"RAPIDS is installed; nothing was computed: {reason}")
        return
    # 2. The same sums on the GPU as on the CPU: by cudf, by cudf.pandas, by a Dask worker that holds the GPU.
    import cudf
    import pandas

    frame = pandas.DataFrame({"key": [n % 7 for n in range(100_000)], "value": range(100_000)})
    wanted = frame.groupby("key")["value"].sum()
    found = cudf.from_pandas(frame).groupby("key")["value"].sum().sort_index().to_pandas()
    pandas.testing.assert_series_equal(found, wanted)
    subprocess.run([sys.executable, "-m", "cudf.pandas", "-c", CUDF_PANDAS], check=True)
    pandas.testing.assert_series_equal(sums_of_a_dask_worker(frame), wanted)
    print(
        "RAPIDS computes on",
        subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.strip(),
    )


def sums_of_a_dask_worker(frame):
    import cudf
    import dask_cudf
    from dask_cuda import LocalCUDACluster
    from distributed import Client

    with LocalCUDACluster(n_workers=1, enable_cudf_spill=True) as cluster, Client(cluster):
        parts = dask_cudf.from_cudf(cudf.from_pandas(frame), npartitions=4)
        return parts.groupby("key")["value"].sum().compute().sort_index().to_pandas()


if __name__ == "__main__":
    main()

"""The notebook on clusters, run from top to bottom on the CPU: the answers are the same, and what it says holds.

It runs once on each origin of data, with cells added at its end that look at what it made; and by a cell spoilt on
purpose, to see it fail.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from hub_ext.core.errors import HubError
from hub_ext.notebook import scale
from hub_ext.notebook.clusters import ClusterError, ClusterRefused

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "sample_notebooks" / "scale" / "dask_urban.ipynb"
ENGINES = ["pandas", "cudf.pandas", "Dask"]

# Run after the notebook, in its kernel; each prints one line of JSON.
PROBES = {
    "facts": """
import json
print(json.dumps({
    "kinds": [metro.source.kind, weather.source.kind],
    "rows": parts.rows, "copies": size.copies, "note": parts.note,
    "engines": {run.engine: [run.answer is not None, run.why_not, len(run.seconds)] for run in engines},
    "table": compared.drop(columns="ran on").to_json(),
    "answered": int(small_tables.answer["readings"].sum()),
    "worst": places.head(3).to_list(), "places": len(places),
    "lines": list(grid.index),
    "removed": not parts.folder.exists(),
    "workers": len(workers), "closed": client.status,
}))
""",
    "figures": """
print(json.dumps([
    {
        "texts": {text.get_gid(): text.get_text().replace("\\n", " ") for text in plt.figure(n).texts},
        "title": plt.figure(n).axes[0].get_title(loc="left"),
        "labels": [plt.figure(n).axes[0].get_xlabel(), plt.figure(n).axes[0].get_ylabel()],
    }
    for n in plt.get_fignums()
]))
""",
}


@dataclass(frozen=True)
class Run:
    """The notebook after a run: its cells, and what the probes found."""

    cells: dict[str, Any]
    found: dict[str, Any]
    real: bool

    def printed(self, cell: str) -> str:
        return "".join(o["text"] for o in self.cells[cell]["outputs"] if o["output_type"] == "stream")


def executed(notebook: Any, folder: Path, data: Path | None) -> None:
    """Run it in a server without gateway, desk or GPU, whose files for a while are in `folder`."""
    taken_away = ("HANGANG_", "SEOUL_OPEN_DATA", "JUPYTERHUB_", "DASK_", "CPU_LIMIT", "MEM_LIMIT", "CUDA_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(taken_away)}
    # A backend that keeps the figures, so that a probe can look at them.
    environ |= {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "TMPDIR": str(folder)}
    if data is not None:
        environ["HANGANG_DATA"] = str(data)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute(env=environ)


@pytest.fixture(scope="session")
def run(origin_folder: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for name, source in PROBES.items():
        cell = nbformat.v4.new_code_cell(source)
        cell["id"] = f"probe-{name}"
        notebook.cells.append(cell)
    folder = tmp_path_factory.mktemp("server")
    executed(notebook, folder, origin_folder)
    assert list(folder.rglob("*.parquet")) == [], "the notebook left parts of its table behind"
    cells = {cell["id"]: cell for cell in notebook.cells}
    found = {name: json.loads(cells[f"probe-{name}"]["outputs"][0]["text"]) for name in PROBES}
    return Run(cells, found, origin_folder is not None)


@pytest.mark.slow
def test_pandas_and_dask_answer_the_same_and_the_gpu_says_why_not(run: Run) -> None:
    engines = run.found["facts"]["engines"]
    assert list(engines) == ENGINES
    for name in ("pandas", "Dask"):
        assert engines[name] == [True, "", 3], name
    ran, why_not, _ = engines["cudf.pandas"]
    # On a machine with a GPU and cuDF it runs; everywhere else there is a reason, and it is told.
    assert ran or (why_not and f"cudf.pandas did not run: {why_not}" in run.printed("cudf"))
    checked = "".join(o["data"]["text/html"] for o in run.cells["same"]["outputs"])
    assert checked.count("<td>equal</td>") == 2 + ran
    assert "1.000000e-09" in checked


@pytest.mark.slow
def test_the_table_is_large_enough_to_be_one_and_says_that_it_is_replicated(run: Run) -> None:
    facts = run.found["facts"]
    assert facts["rows"] > 3_000_000
    assert facts["copies"] == 2
    assert 0.9 * facts["rows"] < facts["answered"] < facts["rows"]
    assert facts["note"] in run.printed("unfold")
    assert "one typical day of each kind put on each of 92 days" in facts["note"]
    assert "2 times" in facts["note"]
    assert facts["note"] in "".join(o["data"]["text/html"] for o in run.cells["table"]["outputs"])


@pytest.mark.slow
def test_time_and_cost_stand_in_one_table(run: Run) -> None:
    table = json.loads(run.found["facts"]["table"])
    rows = ["pandas, small tables", *ENGINES]
    assert list(table["answer after (s)"]) == rows
    for name in ("pandas", "Dask"):
        assert table["ready after (s)"][name] > 0
        assert table["answer after (s)"][name] > 0
        assert table["memory at most (GiB)"][name] > 0.1
        assert table["core-hours"][name] > 0
    # No desk is here to tell a price, and none is made up.
    assert set(table["GPU-hours"].values()) == {None}
    assert table["remark"]["Dask"] == table["remark"]["pandas"] == "no desk told a price"


@pytest.mark.slow
def test_it_says_who_was_slower(run: Run) -> None:
    table = json.loads(run.found["facts"]["table"])["answer after (s)"]
    word = "FASTER" if table["Dask"] <= table["pandas"] else "SLOWER"
    assert re.search(rf"Dask was [\d.]+ times {word} than pandas", run.printed("verdict"))
    assert "GB in memory: no cluster" in run.printed("verdict")


@pytest.mark.slow
def test_without_a_gateway_workers_are_this_server_s_and_are_given_back(run: Run) -> None:
    facts = run.found["facts"]
    assert "No gateway for clusters here." in run.printed("dask")
    assert f"Dask on {facts['workers']} workers in this server" in run.printed("dask")
    assert facts["closed"] == "closed"
    assert facts["removed"]


@pytest.mark.slow
def test_the_city_gets_its_answer(run: Run) -> None:
    facts = run.found["facts"]
    assert f"origin: {'file' if run.real else 'synthetic'}." in run.printed("load")
    assert facts["kinds"] == ["file" if run.real else "synthetic"] * 2
    assert facts["lines"] == list(range(1, 9))
    assert 500 < facts["places"] < 600
    # Some places meet both; and no place has more packed, hot hours than a summer's evenings and mornings give.
    assert 92 * 4 > facts["worst"][0] >= facts["worst"][1] >= facts["worst"][2] > 10


@pytest.mark.slow
def test_every_figure_says_where_it_comes_from_and_how_often_it_is_replicated(run: Run) -> None:
    figures = run.found["figures"]
    assert len(figures) == 3
    for figure in figures:
        assert figure["texts"]["replicated"] == run.found["facts"]["note"]
        assert figure["title"].endswith("?")
        assert all(figure["labels"])
        if run.real:
            assert "Seoul Metro" in figure["texts"]["source"]
            assert "Korea Meteorological Administration" in figure["texts"]["source"]
            assert "synthetic" not in figure["texts"]
        else:
            assert figure["texts"]["synthetic"] == "SYNTHETIC DATA"


@pytest.mark.slow
def test_no_cell_complains(run: Run) -> None:
    said = "".join(
        o["text"] for cell in run.cells.values() for o in cell.get("outputs", []) if o.get("name") == "stderr"
    )
    # What Dask logs of a machine that is busy with other things (slow to end, slow to answer) is no fault of the notebook.
    busy = re.compile(r"- distributed\.\S+ - (INFO|WARNING) - ")
    complaints = [line for line in said.splitlines() if line.strip() and not busy.search(line)]
    assert complaints == []


def test_answers_that_differ_stop_the_notebook(tmp_path: Path) -> None:
    """The cell of the check, with an answer that is off by one train."""
    cells = {cell["id"]: cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    made = nbformat.v4.new_code_cell("""
import pandas as pd
from hub_ext.notebook import scale
right = pd.DataFrame(
    {"line": [2, 2], "station_no": [201, 202], "direction": 0, "minute": 480, "readings": 5, "hot": 2, "packed_hot": 1, "heat_load": 3.5}
).set_index(["line", "station_no", "direction", "minute"])
wrong = right.copy()
wrong.iloc[1, 2] += 1
small_tables, by_pandas = (scale.Run(name, answer=right) for name in ("small", "pandas"))
by_cudf, by_dask = scale.Run("cudf.pandas", why_not="no GPU"), scale.Run("Dask", answer=wrong)
""")
    notebook = nbformat.v4.new_notebook(cells=[made, cells["same"]])
    with pytest.raises(CellExecutionError, match="Dask differs in packed_hot at line 2, station_no 202"):
        executed(notebook, tmp_path, None)


# ---- which cluster ---------------------------------------------------------------------------------------------------


@dataclass
class StandInClusters:
    """`clusters` as the notebook sees it. `fails` names how: refused, blind, late, silent."""

    fails: str = ""
    did: list[str] = field(default_factory=list)
    name = "gateway"
    status = "running"

    def start(self, workers: int, profile: str) -> StandInClusters:
        self.did.append(f"start {workers} {profile}")
        if self.fails == "refused":
            raise ClusterRefused("your limit is 2 workers")
        return self

    def local(self) -> StandInClusters:
        self.did.append("local")
        self.name = "local"
        return self

    @property
    def cluster(self) -> StandInClusters:
        return self

    def close(self) -> None:
        self.did.append(f"close {self.name}")

    def wait_for_workers(self, count: int, timeout: float) -> None:
        if self.fails == "late":
            raise TimeoutError

    def state(self) -> StandInClusters:
        if self.fails == "silent":
            raise ClusterError("The desk does not answer.")
        return self

    cost_per_hour = 2.0

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {"tcp://1": {}, "tcp://2": {}}}


@pytest.mark.parametrize(
    ("gateway", "fails", "did", "price", "where", "said"),
    [
        pytest.param(True, "", ["start 4 cpu"], 2.0, "2 workers of a cluster (cpu)", "", id="a cluster"),
        pytest.param(False, "", ["local"], 0.5, "2 workers in this server", "No gateway for clusters here.", id="no gateway"),
        pytest.param(True, "refused", ["start 4 cpu", "local"], 0.5, "2 workers in this server", "No cluster now: your limit is 2 workers", id="refused by the quota"),
        pytest.param(True, "blind", ["start 4 cpu", "close gateway", "close gateway", "local"], 0.5, "2 workers in this server", "2 of 2 workers cannot see", id="workers that do not see the files"),
        pytest.param(True, "late", ["start 4 cpu"], 2.0, "2 workers of a cluster (cpu)", "Not all of 4 workers came", id="fewer workers than wished for"),
        pytest.param(True, "silent", ["start 4 cpu"], None, "2 workers of a cluster (cpu)", "The desk does not answer.", id="no price"),
    ],
)  # fmt: skip
def test_the_cluster_that_there_is_is_used(
    gateway: bool,
    fails: str,
    did: list[str],
    price: float | None,
    where: str,
    said: str,
    committed: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if gateway:
        monkeypatch.setenv("DASK_GATEWAY__ADDRESS", "http://127.0.0.1:1")
    else:
        monkeypatch.delenv("DASK_GATEWAY__ADDRESS", raising=False)
    asked: dict[str, Any] = {}

    def run_dask(parts: Any, client: Any, **how: Any) -> scale.Run:
        asked.update(how)
        return scale.Run("Dask", where=how["where"], seconds={1.0: 1.0}, ready_seconds=1.0)

    blind = "2 of 2 workers" if fails == "blind" else ""
    stand_in = StandInClusters(fails)
    names: dict[str, Any] = {
        "time": time,
        "os": os,
        "HubError": HubError,
        "clusters": stand_in,
        "scale": SimpleNamespace(run_dask=run_dask, unseen_by=lambda client, parts: blind),
        "parts": SimpleNamespace(folder="/scratch/x"),
        "server_price": 0.5,
    }
    cells = {cell["id"]: cell.source for cell in committed.cells}
    exec(cells["parameters"] + "\n" + cells["dask"], names)
    assert stand_in.did == did
    assert (asked["gpu_hours_per_hour"], asked["where"]) == (price, where)
    assert said in capsys.readouterr().out
    exec(cells["give-back"], names)
    assert stand_in.did[-1] == f"close {stand_in.name}"


# ---- the file as committed -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_a_valid_notebook_without_outputs(committed: Any) -> None:
    nbformat.validate(committed)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert committed.metadata.kernelspec.name == "python3"


def test_its_size_is_set_in_one_cell_and_small_as_committed(committed: Any) -> None:
    [parameters] = [cell for cell in committed.cells if "parameters" in cell.metadata.get("tags", [])]
    assert parameters.source.startswith('SIZE = "small"\n')
    others = [cell.source for cell in committed.cells if cell.cell_type == "code" and cell is not parameters]
    assert not any(re.search(r"^SIZE\b\s*=", source, re.MULTILINE) for source in others)


def test_its_text_holds_no_numbers_from_the_data(committed: Any) -> None:
    text = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "markdown")
    assert not re.findall(r"\d{3,}|\d[.,]\d|\d\s?%", text)


def test_its_heading_has_a_korean_summary(committed: Any) -> None:
    heading = committed.cells[0].source
    assert heading.startswith("# ")
    assert "?" in heading.splitlines()[0]
    assert len(re.findall("[가-힣]", heading)) > 50

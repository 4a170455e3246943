"""The notebook on bike demand, run from top to bottom: what it claims must hold.

It runs once on each origin of data, with cells added at its end that look at what it made.
"""

from __future__ import annotations

import ast
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "sample_notebooks" / "mobility" / "bike_demand.ipynb"
FIGURES = 6

# Run after the notebook, in its kernel; each prints one line of JSON.
PROBES = {
    "facts": """
import json
print(json.dumps({
    "kinds": {d.name: d.source.kind for d in (bike, weather)},
    "mae": scores["MAE"].to_dict(), "share": scores["error share"].to_dict(), "hours": scores.attrs["hours"],
    "rules": RULES, "model": MODEL, "bound": BOUND, "honest": list(honest), "perfect": PERFECT,
    "ends": [str(validation_start), str(test_start), str(end)],
    "overlap": int((test & validation).sum()),
    "stopped_hours": int((~table["functioning_day"]).sum()),
    "stopped_demand": int(table.loc[~table["functioning_day"], "demand"].notna().sum()),
    "by_hour": list(mae_by_hour.index), "tested": int(rows_tested.sum()),
    "measured_in_test": int(table.loc[test, "demand"].notna().sum()),
}))
""",
    "seconds": """
import time
print(time.process_time())
""",
    "figures": """
print(json.dumps([
    {
        "texts": {text.get_gid(): text.get_text() for text in plt.figure(n).texts},
        "titles": [axes.get_title(loc="left") for axes in plt.figure(n).axes],
        "labels": [axes.get_ylabel() for axes in plt.figure(n).axes],
    }
    for n in plt.get_fignums()
]))
""",
    # A check of our own, not the notebook's: from one midnight on the whole world is another one.
    "leaks": """
def another_world(moment, names):
    changed = table.copy()
    later = changed.index >= moment
    for name in names:
        changed.loc[later, name] = changed.loc[later, name].to_numpy()[::-1] * 3.0 + 17.0
    return changed

def same(one, other):
    return bool(((one == other) | (one.isna() & other.isna())).all(axis=None))

moment = test_start + pd.Timedelta(days=10)
day, later = slice(None, moment + pd.Timedelta(hours=23)), slice(moment + pd.Timedelta(days=2), None)
numbers = [name for name in table.columns if table[name].dtype.kind == "f" and name not in ("usual", "relative")]
changed = {"rentals": another_world(moment, ["demand"]), "all": another_world(moment, numbers)}
seen = {}
for name, inputs in INPUTS.items():
    truth = features(table, day_off, inputs)
    for what, world in changed.items():
        other = features(world, day_off, inputs)
        seen[f"{name} / {what}"] = {"the day": same(truth[day], other[day]), "later": same(truth[later], other[later])}

# And the forecast itself: fitted and made at test_start, in a world whose rentals differ from then on.
real_table = table
before = rolling_forecast(rows[honest[0]], test_start, test_start + pd.Timedelta(days=1), SETTINGS[honest[1]])
table = another_world(test_start, numbers)
table["usual"] = by_hour(usual(by_day(table["demand"]), day_off))
after = rolling_forecast(features(table, day_off, INPUTS[honest[0]]), test_start, test_start + pd.Timedelta(days=1), SETTINGS[honest[1]])
table = real_table
print(json.dumps({"inputs": seen, "forecast": [before.dropna().tolist(), after.dropna().tolist()]}))
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


@pytest.fixture(scope="session")
def run(origin_folder: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for name, source in PROBES.items():
        cell = nbformat.v4.new_code_cell(source)
        cell["id"] = f"probe-{name}"
        notebook.cells.append(cell)
    taken_away = ("HANGANG_DATA", "SEOUL_OPEN_DATA_KEY", "SEOUL_OPEN_DATA_URL")
    environ = {name: value for name, value in os.environ.items() if name not in taken_away}
    # A backend that keeps the figures, so that a probe can look at them.
    environ |= {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    if origin_folder is not None:
        environ["HANGANG_DATA"] = str(origin_folder)
    home = tmp_path_factory.mktemp("home")
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(home)}})
    client.execute(env=environ)
    assert list(home.iterdir()) == [], "the notebook left files behind"
    cells = {cell["id"]: cell for cell in notebook.cells}
    found = {name: json.loads(cells[f"probe-{name}"]["outputs"][0]["text"]) for name in PROBES}
    return Run(cells, found, origin_folder is not None)


pytestmark = pytest.mark.slow


def test_it_runs_within_a_minute_on_two_cores(run: Run) -> None:
    # Seconds of the processor, not of the wall: another program on the machine is no fault of the notebook.
    assert run.found["seconds"] < 2 * 60


def test_it_says_what_it_ran_on_and_with_which_data(run: Run) -> None:
    assert re.match(
        r"Tables run on (pandas, on the CPU \(.+\)|the GPU: cudf\.pandas is loaded)\.",
        run.printed("accelerate"),
    )
    kind = "file" if run.real else "synthetic"
    assert run.found["facts"]["kinds"] == {"bike_hourly": kind, "weather_pm10_hourly": kind}
    assert f"origin: {kind}." in run.printed("load")
    assert ("SYNTHETIC DATA" in run.printed("load")) != run.real


def test_no_cell_complains(run: Run) -> None:
    complaints = [
        o["text"] for cell in run.cells.values() for o in cell.get("outputs", []) if o.get("name") == "stderr"
    ]
    assert complaints == []


def test_the_model_beats_every_rule_of_thumb_on_the_test_part(run: Run) -> None:
    facts = run.found["facts"]
    mae, model = facts["mae"], facts["mae"][facts["model"]]
    assert len(facts["rules"]) == 4
    for rule in facts["rules"]:
        assert model < mae[rule], rule
    # By a margin that matters over the rules that need no thought, and by some over the best of them.
    assert model < 0.75 * mae["same hour last week"]
    assert model < 0.80 * mae["hour of the week, all weeks"]
    assert model < 0.97 * mae["usual demand"]


def test_knowing_the_weather_is_better_still_and_kept_apart_from_the_result(run: Run) -> None:
    facts = run.found["facts"]
    assert facts["mae"][facts["bound"]] < 0.85 * facts["mae"][facts["model"]]
    assert facts["honest"][0] != facts["perfect"]
    assert f"off by {facts['mae'][facts['model']]:.0f} rentals" in run.printed("test-result")


def test_training_validation_and_test_follow_each_other_in_time(run: Run) -> None:
    facts = run.found["facts"]
    assert facts["ends"] == sorted(facts["ends"])
    assert facts["overlap"] == 0
    assert facts["by_hour"] == list(range(24))


def test_hours_without_service_count_nowhere(run: Run) -> None:
    facts = run.found["facts"]
    assert facts["stopped_hours"] > 0
    assert facts["stopped_demand"] == 0
    # And every hour with a measurement is tested: none is dropped for being difficult.
    assert facts["tested"] == facts["hours"] == facts["measured_in_test"]


def test_no_forecast_sees_its_own_future(run: Run) -> None:
    leaks, perfect = run.found["leaks"], run.found["facts"]["perfect"]
    for name, same in leaks["inputs"].items():
        # In the bound the day's weather is taken as known, and so it does see that change: the check can see one.
        known = name == f"{perfect} / all"
        assert same["the day"] is not known, name
        assert not same["later"], f"{name}: the change never arrives, so this test shows nothing"
    before, after = leaks["forecast"]
    assert len(before) == 24
    assert before == after


def test_every_figure_is_stamped_titled_and_labelled(run: Run) -> None:
    figures = run.found["figures"]
    assert len(figures) == FIGURES
    for figure in figures:
        source = figure["texts"]["source"].replace("\n", " ")
        if run.real:
            assert "Seoul Metropolitan Government" in source
            assert "synthetic" not in figure["texts"]
        else:
            assert "SYNTHETIC DATA" in source
            assert figure["texts"]["synthetic"] == "SYNTHETIC DATA"
        assert all(title.endswith("?") for title in figure["titles"]), figure["titles"]
        assert all(figure["labels"])
    dust = next(figure for figure in figures if "air is bad" in figure["titles"][0])
    assert not run.real or "Korea Meteorological Administration" in dust["texts"]["source"].replace("\n", " ")


# ---- the first cell ----------------------------------------------------------------------------------------------------

A_CUDF = """
import sys, types, hub_ext.notebook
hub_ext.notebook.why_not_cudf = lambda: ""
loaded = []
sys.modules["cudf"], sys.modules["cudf.pandas"] = types.ModuleType("cudf"), types.ModuleType("cudf.pandas")
sys.modules["cudf"].pandas = sys.modules["cudf.pandas"]
"""


@pytest.mark.parametrize(
    ("before", "want"),
    [
        pytest.param(
            A_CUDF + 'sys.modules["cudf.pandas"].load_ipython_extension = loaded.append',
            "Tables run on the GPU: cudf.pandas is loaded.\n1\n",
            id="a GPU and a cudf that starts",
        ),
        pytest.param(
            A_CUDF + 'sys.modules["cudf.pandas"].load_ipython_extension = lambda shell: 1 / 0',
            "Tables run on pandas, on the CPU (cudf did not start: division by zero).\n0\n",
            id="a GPU and a cudf that fails",
        ),
        pytest.param(
            'import hub_ext.notebook; hub_ext.notebook.why_not_cudf = lambda: "no CUDA driver here"; loaded = []',
            "Tables run on pandas, on the CPU (no CUDA driver here).\n0\n",
            id="no GPU",
        ),
    ],
)
def test_the_first_cell_says_what_it_really_loaded(before: str, want: str) -> None:
    first = next(cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell["id"] == "accelerate")
    cells = [nbformat.v4.new_code_cell(before), first, nbformat.v4.new_code_cell("print(len(loaded))")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=60).execute(env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert "".join(o["text"] for cell in notebook.cells for o in cell["outputs"]) == want


# ---- the file as committed -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_a_valid_notebook_without_outputs(committed: Any) -> None:
    nbformat.validate(committed)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert committed.metadata.kernelspec.name == "python3"


def test_cudf_is_loaded_before_anything_brings_pandas(committed: Any) -> None:
    code = [cell.source for cell in committed.cells if cell.cell_type == "code"]
    assert "%load_ext cudf.pandas" in code[0]
    assert "pandas as pd" not in code[0]
    imported = {node.module for node in ast.walk(ast.parse(code[1])) if isinstance(node, ast.ImportFrom)}
    assert "hub_ext.notebook.data" in imported


def test_its_text_holds_no_numbers_from_the_data(committed: Any) -> None:
    text = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "markdown")
    # What may stand there: numbers of sections, clock times and the like, all below 100.
    assert not re.findall(r"\d{3,}|\d[.,]\d|\d\s?%", text)


def test_its_heading_has_a_korean_summary(committed: Any) -> None:
    heading = committed.cells[0].source
    assert heading.startswith("# ")
    assert "?" in heading.splitlines()[0]
    assert len(re.findall("[가-힣]", heading)) > 50


def test_the_list_of_notebooks_names_each_one() -> None:
    readme = (ROOT / "sample_notebooks" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "sample_notebooks").rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in path.parts:
            assert f"({path.relative_to(ROOT / 'sample_notebooks').as_posix()})" in readme

"""The whole story over HTTP: sign in, form, start, run the notebook's cells, stop, and what it cost."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.support.hub import EmbeddedHub, Visitor, text_of, wait_for
from tests.support.story import NOTEBOOK, code_cells, run_cells, seconds_between


async def test_a_student_runs_the_city_notebook_on_a_gpu_and_the_ledger_shows_what_it_cost(
    hub: EmbeddedHub,
) -> None:
    student = Visitor(hub, "student")

    # The form names what may be started, with its state, and what may not, with the reason.
    form = student.http.get("/hub/spawn")
    assert form.status_code == 200
    page = text_of(form.text)
    assert "One H200" in page
    assert "simulated" in page.lower()
    assert 'name="profile"' in form.text
    assert "profile-option-h200--minutes" in form.text

    # Start one GPU by the form.
    answer = student.submit_form("h200", minutes="60")
    assert answer.status_code == 200
    student.wait_until_ready()
    (lease,) = hub.leases()
    assert (lease["person"], lease["profile"], lease["state"]) == ("student", "h200", "running")
    assert len(lease["devices"]) == 1

    # Open JupyterLab as a browser does, and run the sample notebook cell by cell over the kernel's websocket.
    lab = student.http.get("/user/student/lab")
    assert lab.status_code == 200
    cells = code_cells(student)
    assert cells
    outputs = await run_cells(student, cells)
    visible = [name for name, text in outputs if name == "display_data" and "image/png" in text]
    assert len(visible) >= 3, "the notebook draws its plots"
    environment = await run_cells(student, ["import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"])
    assert lease["devices"][0] in environment[0][1]
    assert (hub.state / "homes" / "student" / NOTEBOOK).is_file()

    # Stop; the lease ends, and usage shows it to the second.
    student.stop()
    wait_for(lambda: not hub.leases(), "the lease is released")
    released = next(one for one in hub.all_leases() if one["id"] == lease["id"])
    assert released["reason"] == "stopped"
    rows = list(csv.DictReader(io.StringIO(hub.command("usage", "--by", "person", "--format", "csv"))))
    (mine,) = [row for row in rows if row["person"] == "student"]
    seconds = seconds_between(released["started_at"], released["released_at"])
    rate = 1.0 if lease["guaranteed"] else 0.5
    assert float(mine["gpu_hours"]) == pytest.approx(seconds * rate / 3600, abs=2e-6)
    by_pool = json.loads(hub.command("usage", "--format", "json"))["rows"]
    assert {row["pool"] for row in by_pool} >= {"seoul", "public-interest", "hangang-univ"}
    assert len({row["gpu_hours"] for row in by_pool}) == 1, "each pool above counts the same hours once"

"""The whole story over HTTP: sign in, form, start, run the notebook's cells, stop, and what it cost."""

from __future__ import annotations

import csv
import io
import json
import uuid
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from tests.support.hub import EmbeddedHub, Visitor, text_of, wait_for

NOTEBOOK = "sample_notebooks/mobility/bike_demand.ipynb"


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
    cells = _code_cells(student)
    assert cells
    outputs = await _run_cells(student, cells)
    visible = [name for name, text in outputs if name == "display_data" and "image/png" in text]
    assert len(visible) >= 3, "the notebook draws its plots"
    environment = await _run_cells(student, ["import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"])
    assert lease["devices"][0] in environment[0][1]
    assert (hub.state / "homes" / "student" / NOTEBOOK).is_file()

    # Stop; the lease ends, and usage shows it to the second.
    student.stop()
    wait_for(lambda: not hub.leases(), "the lease is released")
    released = next(one for one in hub.all_leases() if one["id"] == lease["id"])
    assert released["reason"] == "stopped"
    rows = list(csv.DictReader(io.StringIO(hub.command("usage", "--by", "person", "--format", "csv"))))
    (mine,) = [row for row in rows if row["person"] == "student"]
    seconds = _seconds_between(released["started_at"], released["released_at"])
    rate = 1.0 if lease["guaranteed"] else 0.5
    assert float(mine["gpu_hours"]) == pytest.approx(seconds * rate / 3600, abs=2e-6)
    by_pool = json.loads(hub.command("usage", "--format", "json"))["rows"]
    assert {row["pool"] for row in by_pool} >= {"seoul", "public-interest", "hangang-univ"}
    assert len({row["gpu_hours"] for row in by_pool}) == 1, "each pool above counts the same hours once"


def _seconds_between(first: str, last: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def _code_cells(visitor: Visitor) -> list[str]:
    answer = visitor.http.get(f"/user/{visitor.name}/api/contents/{NOTEBOOK}", params={"content": "1"})
    assert answer.status_code == 200, "the sample notebook was copied into the home"
    return [cell["source"] for cell in answer.json()["content"]["cells"] if cell["cell_type"] == "code"]


async def _run_cells(visitor: Visitor, cells: list[str]) -> list[tuple[str, str]]:
    """Run the cells in one kernel; (message type, content as JSON) of every output. Fails on the first error."""
    base = f"/user/{visitor.name}"
    xsrf = next(c.value for c in visitor.http.cookies.jar if c.name == "_xsrf" and c.path == f"{base}/")
    folder = NOTEBOOK.rpartition("/")[0]
    kernel = visitor.http.post(
        f"{base}/api/kernels", json={"name": "python3", "path": folder}, headers={"X-XSRFToken": str(xsrf)}
    )
    assert kernel.status_code == 201, kernel.text
    kernel_id = kernel.json()["id"]
    cookies = "; ".join(
        f"{cookie.name}={cookie.value}"
        for cookie in visitor.http.cookies.jar
        if cookie.path in ("/", f"{base}/")
    )
    address = visitor.hub.url.replace("http", "ws", 1) + f"{base}/api/kernels/{kernel_id}/channels"
    socket = await websocket_connect(HTTPRequest(address, headers={"Cookie": cookies}, request_timeout=60))
    outputs: list[tuple[str, str]] = []
    try:
        for source in cells:
            await _run_one(socket, source, outputs)
    finally:
        socket.close()
        visitor.http.delete(f"{base}/api/kernels/{kernel_id}", headers={"X-XSRFToken": str(xsrf)})
    return outputs


async def _run_one(socket: Any, source: str, outputs: list[tuple[str, str]]) -> None:
    message_id = uuid.uuid4().hex
    header = {
        "msg_id": message_id,
        "msg_type": "execute_request",
        "username": "",
        "session": "story",
        "version": "5.3",
    }
    content = {
        "code": source,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
    }
    request = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
    await socket.write_message(json.dumps(request))
    idle = replied = False
    while not (idle and replied):
        raw = await socket.read_message()
        assert isinstance(raw, str), "the kernel's websocket stayed open"
        message = json.loads(raw)
        if message["parent_header"].get("msg_id") != message_id:
            continue
        kind, body = message["msg_type"], message["content"]
        if kind == "error":
            raise AssertionError(f"a cell failed: {body['ename']}: {body['evalue']}\n{source}")
        if kind == "status":
            idle = body["execution_state"] == "idle"
        elif kind == "execute_reply":
            replied = True
        elif kind in ("stream", "display_data", "execute_result"):
            outputs.append((kind, json.dumps(body)))

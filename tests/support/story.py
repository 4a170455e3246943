"""The steps of a person's story that several tests take: the city notebook over a kernel's websocket and in a browser."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from playwright.sync_api import Page
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from tests.support.browser import screenshot_path
from tests.support.hub import Visitor, wait_for

NOTEBOOK = "sample_notebooks/mobility/bike_demand.ipynb"


# -- over HTTP ---------------------------------------------------------------------------------------------------------


def seconds_between(first: str, last: str) -> float:
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def code_cells(visitor: Visitor) -> list[str]:
    answer = visitor.http.get(f"/user/{visitor.name}/api/contents/{NOTEBOOK}", params={"content": "1"})
    assert answer.status_code == 200, "the sample notebook was copied into the home"
    return [cell["source"] for cell in answer.json()["content"]["cells"] if cell["cell_type"] == "code"]


Run = Callable[[str], Awaitable[list[tuple[str, str]]]]


async def run_cells(visitor: Visitor, cells: list[str]) -> list[tuple[str, str]]:
    """Run the cells in one kernel; (message type, content as JSON) of every output. Fails on the first error."""
    outputs: list[tuple[str, str]] = []
    async with kernel(visitor, NOTEBOOK.rpartition("/")[0]) as run:
        for source in cells:
            outputs += await run(source)
    return outputs


@asynccontextmanager
async def kernel(visitor: Visitor, folder: str = "") -> AsyncIterator[Run]:
    """A kernel of the person's own server: runs cells one by one, each until it is done. Shut down in the end."""
    base = f"/user/{visitor.name}"
    xsrf = next(c.value for c in visitor.http.cookies.jar if c.name == "_xsrf" and c.path == f"{base}/")
    started = visitor.http.post(
        f"{base}/api/kernels", json={"name": "python3", "path": folder}, headers={"X-XSRFToken": str(xsrf)}
    )
    assert started.status_code == 201, started.text
    kernel_id = started.json()["id"]
    cookies = "; ".join(
        f"{cookie.name}={cookie.value}"
        for cookie in visitor.http.cookies.jar
        if cookie.path in ("/", f"{base}/")
    )
    address = visitor.hub.url.replace("http", "ws", 1) + f"{base}/api/kernels/{kernel_id}/channels"
    socket = await websocket_connect(HTTPRequest(address, headers={"Cookie": cookies}, request_timeout=60))

    async def run(source: str) -> list[tuple[str, str]]:
        outputs: list[tuple[str, str]] = []
        await _run_one(socket, source, outputs)
        return outputs

    try:
        yield run
    finally:
        socket.close()
        visitor.http.delete(f"{base}/api/kernels/{kernel_id}", headers={"X-XSRFToken": str(xsrf)})


def printed(outputs: list[tuple[str, str]]) -> str:
    """What the cells wrote."""
    return "".join(json.loads(text)["text"] for kind, text in outputs if kind == "stream")


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


# -- in a browser ------------------------------------------------------------------------------------------------------


def run_notebook_in(page: Page, server: str, picture: str) -> None:
    """Open the city notebook at the server's address, run all of its cells, and look at what they drew."""
    page.goto(f"{server}/lab/tree/{NOTEBOOK}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    # Before it has a kernel, "Run All Cells" asks for one.
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    assert page.get_by_text("Jupyter news").count() == 0
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    try:
        wait_for(lambda: _all_ran(page), "every cell of the notebook ran", 180, every=0.5)
    finally:
        page.screenshot(path=screenshot_path(picture))
    assert (
        page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr'] .ansi-red-fg").count()
        == 0
    )
    assert page.locator(".jp-OutputArea-output img").count() >= 3


def _all_ran(page: Page) -> bool:
    """Every code cell has a number, and none failed."""
    prompts = page.evaluate(
        """() => {
            const notebook = document.querySelector('.jp-Notebook').closest('.jp-NotebookPanel');
            const cells = [...notebook.querySelectorAll('.jp-CodeCell')];
            return cells.map(cell => cell.querySelector('.jp-InputPrompt').textContent);
        }"""
    )
    status = page.locator(".jp-Notebook-ExecutionIndicator").first.get_attribute("data-status")
    ran = [
        re.fullmatch(r"\[\d+\]:", prompt.replace("\xa0", "").replace("\u200b", "").strip())
        for prompt in prompts
    ]
    return bool(prompts) and all(ran) and status == "idle"

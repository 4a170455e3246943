"""What the tests of the notebooks share: where data comes from, and a stand-in for the Open Data Plaza."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def real_data() -> Path | None:
    """The folder with the city's real data, where this checkout has one beside it; the project holds none of it."""
    named = os.environ.get("HANGANG_DATA")
    for folder in (Path(named) if named else None, ROOT.parent / "shared" / "data"):
        if folder is not None and (folder / "seoul_bike_hourly_2017_2018.csv").is_file():
            return folder.resolve()
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # Where there is no real data, its cases are not made: CI, which has it, runs both.
    if "origin_folder" in metafunc.fixturenames:
        folders = {"on synthetic data": None}
        if (real := real_data()) is not None:
            folders["on real data"] = real
        metafunc.parametrize(
            "origin_folder", list(folders.values()), ids=list(folders), scope="session", indirect=True
        )


@pytest.fixture(scope="session")
def origin_folder(request: pytest.FixtureRequest) -> Path | None:
    return request.param


# ---- the stand-in ------------------------------------------------------------------------------------------------


@dataclass
class StandInPlaza:
    """The Plaza's bike service as publicly described; `answer` may be exchanged for one that fails."""

    rows_per_hour: int = 3
    answer: Callable[[StandInPlaza, dict[str, str]], tuple[int, str]] = lambda plaza, ask: plaza.rows(ask)
    asked: list[dict[str, str]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def rows(self, ask: dict[str, str]) -> tuple[int, str]:
        """Every row counts one rental more than the hour's number: hour 5 with 3 rows makes 18."""
        first, last = int(ask["start"]), min(int(ask["end"]), self.rows_per_hour)
        row = {"RENT_DT": ask["day"], "RENT_HR": ask["hour"], "USE_CNT": str(int(ask["hour"]) + 1)}
        page = {
            "list_total_count": self.rows_per_hour,
            "RESULT": {"CODE": "INFO-000", "MESSAGE": "정상 처리되었습니다"},
            "row": [row] * (last - first + 1),
        }
        return 200, json.dumps({"cycleRentUseTimeInfo": page})


@pytest.fixture
def plaza(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInPlaza]:
    """A stand-in on loopback; its `url` goes into SEOUL_OPEN_DATA_URL."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    plaza = StandInPlaza()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            names = ("key", "form", "service", "start", "end", "day", "hour")
            ask = dict(zip(names, self.path.strip("/").split("/"), strict=True))
            plaza.asked.append(ask)
            status, body = plaza.answer(plaza, ask)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the other side gave up waiting, as it should
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    plaza.url = f"http://127.0.0.1:{server.server_port}"
    yield plaza
    plaza.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()

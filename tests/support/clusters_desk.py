"""A stand-in for the desk as clusters in a notebook see it: real HTTP, sizes, states, and ways to fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zoneinfo import ZoneInfo

from tests.support.notebook_desk import BORROWED

SEOUL = ZoneInfo("Asia/Seoul")
TOKEN = "token-of-the-server"
WHOSE = {"en": "Your hours: Hangang University", "ko": "내 GPU시간: 한강대학교"}
HOURS = {"en": "31.5 of 60 GPU-h left this week", "ko": "이번 주 60 GPU시간 중 31.5 남음"}
NO_ROOM = {
    "en": "Your institution holds 4 of 4 guaranteed; all borrowable ones are in use.",
    "ko": "소속 기관이 보장된 4개를 모두 쓰고 있고, 빌릴 수 있는 것도 모두 사용 중입니다.",
}
NOT_YOURS = {
    "en": "Your limit is 1 GPU; ask the lead of your institution.",
    "ko": "한도는 GPU 1개입니다. 소속 기관의 담당자에게 문의해 주세요.",
}
NOTICE = {
    "en": "Han River Institute needs 1 worker back at 14:10. Its data moves to the others.",
    "ko": "한강연구원이 14:10에 워커 1개를 다시 필요로 합니다. 데이터는 다른 워커로 옮겨집니다.",
}


def profiles(language: str) -> list[dict[str, Any]]:
    korean = language == "ko"

    def one(profile: str, title: str, words: str, state: str, **facts: Any) -> dict[str, Any]:
        return {
            "profile": profile,
            "title": title,
            "description": "",
            "pool": "hangang-univ",
            "pool_title": "한강대학교" if korean else "Hangang University",
            "worker": {"amounts": {}, "words": words},
            "now": {"guaranteed": 0, "borrowed": 0},
            "state": state,
            "code": "",
            "facts": {},
            "message": "",
            "cost_per_hour": {"guaranteed": 0.0, "borrowed": 0.0},
            "most_workers": 8,
            "minutes": [60, 120, 240],
            "default_minutes": 120,
            "idle_minutes": [10, 20, 30, 60],
        } | facts

    return [
        one(
            "cpu",
            "CPU 워커" if korean else "CPU worker",
            "4 CPU · 16 GB",
            "now",
            now={"guaranteed": 3, "borrowed": 0},
        ),
        one(
            *(
                "slice",
                "H200 조각" if korean else "One H200 slice",
                "1/7 H200 (18 GB) · 4 CPU · 32 GB",
                "borrowed",
            ),
            now={"guaranteed": 0, "borrowed": 6},
            message=BORROWED[language],
            cost_per_hour={"guaranteed": 1 / 7, "borrowed": 1 / 14},
        ),
        one(
            *("gpu", "H200 한 개" if korean else "One H200", "1 × H200 · 12 CPU · 160 GB", "wait"),
            message=NO_ROOM[language],
            cost_per_hour={"guaranteed": 1.0, "borrowed": 0.5},
        ),
        one(
            *("many", "H200 여러 개" if korean else "Many H200", "4 × H200", "no"),
            message=NOT_YOURS[language],
            cost_per_hour={"guaranteed": 4.0, "borrowed": 2.0},
        ),
    ]


def state(name: str, language: str, **facts: Any) -> dict[str, Any]:
    ends = datetime.now(SEOUL).replace(microsecond=0) + timedelta(hours=3)
    return {
        "name": name,
        "person": "student",
        "pool": "hangang-univ",
        "profile": "cpu",
        "state": "running",
        "started_at": datetime.now(SEOUL).isoformat(),
        "ends_at": ends.isoformat(),
        "workers": {"live": 2, "running": 2, "guaranteed": 2, "borrowed": 0, "wanted": 0},
        "notice": None,
        "waiting": None,
        "cost_per_hour": 0.0,
        "dashboard": f"/services/desk/clusters/{name}/status",
    } | facts


@dataclass
class ClustersDesk:
    """`fails`: "failing", "refusing", "nonsense". `facts` are put over what it says of every cluster."""

    fails: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    by_language: dict[str, dict[str, Any]] = field(default_factory=dict)
    """As `facts`, for one language."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Other names for profiles, as which the gateway knows them."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path below `/api/v1/`, token."""
    url: str = ""

    def answer(self, method: str, path: str, language: str) -> tuple[int, Any]:
        if self.fails == "failing":
            return 500, {}
        if self.fails == "refusing":
            return 403, {"code": "forbidden", "facts": {}, "message": NOT_YOURS[language]}
        if self.fails == "nonsense":
            return 200, {"items": 7}
        if method == "GET" and path == "cluster-profiles":
            items = profiles(language)
            for item in items:
                item["profile"] = self.renamed.get(item["profile"], item["profile"])
            return 200, {"items": items, "budgets": [{"whose": WHOSE[language], "sentence": HOURS[language]}]}
        if method == "GET" and path.startswith("clusters/"):
            facts = self.facts | self.by_language.get(language, {})
            return 200, state(path.removeprefix("clusters/"), language, **facts)
        return 404, {"code": "not-found", "facts": {}, "message": "there is nothing here"}


class _Handler(BaseHTTPRequestHandler):
    desk: ClustersDesk

    def do_GET(self) -> None:
        path = self.path.removeprefix("/services/desk/api/v1/")
        self.desk.asked.append(("GET", path, self.headers.get("Authorization", "")))
        language = "ko" if self.headers.get("Accept-Language", "").startswith("ko") else "en"
        status, value = self.desk.answer("GET", path, language)
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def clusters_desk(**facts: Any) -> Iterator[ClustersDesk]:
    desk = ClustersDesk(**facts)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"desk": desk}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    desk.url = f"http://127.0.0.1:{server.server_port}/services/desk"
    try:
        yield desk
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""Whatever is sent, wherever: an answer in the one form, and never a mistake of ours; on both kinds of database."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib import import_module
from pkgutil import iter_modules

import pytest
from fastapi.routing import APIRoute

from hub_ext.desk import handlers
from tests.desk.in_process import DeskInProcess
from tests.support.databases import Database
from tests.support.desk import API, DESK

HOSTILE = [
    "%00",
    "%ED%A0%80",
    "'%22%3C%26;--",
    "..%2F..%2Fetc",
    "9" * 40,
    "-1",
    "x" * 500,
]
PARAMETERS = (
    *(
        "pool",
        "person",
        "code",
        "kind",
        "lease",
        "from",
        "to",
        "cursor",
        "limit",
        "server",
        "state",
        "by",
        "format",
    ),
    *("class", "page", "after", "before", "days", "version", "done", "mark"),
)


@pytest.fixture
async def here(database: Database) -> AsyncIterator[DeskInProcess]:
    made = DeskInProcess.on(database)
    yield made
    made.desk.store.close()


def paths(method: str) -> list[str]:
    modules = (import_module(f"{handlers.__name__}.{one.name}") for one in iter_modules(handlers.__path__))
    routes = [route for module in modules for route in module.router.routes if isinstance(route, APIRoute)]
    found = sorted(route.path for route in routes if method in route.methods)
    return [path for path in found if not path.endswith(("/events", "/logout", "/oauth_callback"))]


@pytest.mark.parametrize("text", HOSTILE)
async def test_no_address_makes_a_mistake_of_ours(here: DeskInProcess, text: str) -> None:
    query = "&".join(f"{name}={text}" for name in PARAMETERS)
    one_each = [f"{name}={text}" for name in PARAMETERS]
    async with (
        here.browser(Authorization="token token-operator") as program,
        here.browser("operator") as browser,
    ):
        for path in paths("GET"):
            filled = re.sub(r"\{.*?\}", text, path)
            client = program if path.startswith(API) else browser
            for asked in ("", query, *(one_each if path.startswith((API, f"{DESK}/centre")) else ())):
                answer = await client.get(f"{filled}?{asked}")
                assert answer.status_code < 500, (filled, asked, answer.text[:300])


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\U0001f4a9", "x" * 500])
async def test_no_form_and_no_body_makes_a_mistake_of_ours(here: DeskInProcess, text: str) -> None:
    headers, csrf = here.session("operator")
    fields = ("lease", "minutes", "ticket", "budget", "hours", "until", "why", "request", "verdict", "answer")
    body = dict.fromkeys(("server", "profile", "pool", "period", "person", "why", "until", "title"), text)
    async with here.browser(Authorization="token token-operator") as program, here.browser(**headers) as page:
        for path in paths("POST"):
            filled = re.sub(r"\{.*?\}", "x1", path)
            if path.startswith(API):
                for sent in (body, {"pool": text}, {"scenario": text}, {"granted": True, "answer": text}):
                    answer = await program.post(filled, json=sent)
                    assert answer.status_code < 500, (filled, sent, answer.text[:300])
                for half in (
                    b'{"pool": "\\ud800", "why": "\\ud800"}',
                    b'{"scenario": "\\udc00"}',
                    b'"\\ud800"',
                ):
                    answer = await program.post(
                        filled, content=half, headers={"Content-Type": "application/json"}
                    )
                    assert answer.status_code < 500, (filled, half, answer.text[:300])
            elif not path.endswith("/what-if"):
                answer = await page.post(filled, data=dict.fromkeys(fields, text) | {"_csrf": csrf})
                assert answer.status_code < 500, (filled, answer.text[:300])

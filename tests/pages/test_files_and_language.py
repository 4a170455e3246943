"""The pages' own addresses: static files, the typeface, the switch of language. Served by a real tornado."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from hub_ext.pages import FONTS, HERE, extra_handlers, static_version
from hub_ext.pages.handlers import is_local


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    fonts = tmp_path / "fonts"
    (fonts / "woff2").mkdir(parents=True)
    (fonts / "face.css").write_text("@font-face {}")
    (fonts / "woff2" / "face.woff2").write_bytes(b"wOF2")
    (fonts / "package.json").write_text("{}")
    (tmp_path / "secret.css").write_text("secret")
    handlers = [(f"/hub{pattern}", *rest) for pattern, *rest in extra_handlers(fonts)]
    server = HTTPServer(Application(handlers, base_url="/"))  # type: ignore[arg-type]
    socket, port = bind_unused_port()
    server.add_socket(socket)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as one:
        yield one
    server.stop()
    await server.close_all_connections()


async def test_static_files_are_kept_by_browsers_only_with_their_version(client: httpx.AsyncClient) -> None:
    lasting = await client.get(f"/hub/hangang/static/hangang.css?v={static_version()}")
    assert lasting.status_code == 200
    assert "immutable" in lasting.headers["Cache-Control"]
    assert lasting.headers["X-Content-Type-Options"] == "nosniff"
    assert (await client.get("/hub/hangang/static/hangang.css")).headers["Cache-Control"] == "no-cache"


async def test_every_static_file_is_served(client: httpx.AsyncClient) -> None:
    for path in sorted((HERE / "static").iterdir()):
        assert (await client.get(f"/hub/hangang/static/{path.name}")).status_code == 200


async def test_the_typeface_is_served_and_nothing_beside_it(client: httpx.AsyncClient) -> None:
    assert (await client.get("/hub/hangang/fonts/face.css")).headers["Content-Type"].startswith("text/css")
    assert (await client.get("/hub/hangang/fonts/woff2/face.woff2")).status_code == 200
    for path in (
        "package.json",
        "woff2",
        "",
        "../secret.css",
        "%2e%2e/secret.css",
        "..%2fsecret.css",
        "nothing.css",
    ):
        answer = await client.get(f"/hub/hangang/fonts/{path}")
        assert answer.status_code in (403, 404), path
        assert "secret" not in answer.text


def test_without_the_typeface_its_address_is_not_there(tmp_path: Path) -> None:
    assert len(extra_handlers(tmp_path / "missing")) == 2


def test_the_installed_typeface_is_the_one_the_pages_name() -> None:
    page = (HERE / "templates" / "page.html").read_text()
    assert (FONTS / "pretendardvariable-dynamic-subset.css").is_file()
    assert "hangang/fonts/pretendardvariable-dynamic-subset.css" in page


@pytest.mark.parametrize(
    ("to", "cookie"), [("ko", "ko"), ("en", "en"), ("fr", None), ("", None), ("ko\r\nX: y", None)]
)
async def test_the_switch_remembers_a_language_that_is_spoken(
    client: httpx.AsyncClient, to: str, cookie: str | None
) -> None:
    answer = await client.get("/hub/hangang/language", params={"to": to, "next": "/hub/home"})
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/hub/home"
    assert answer.cookies.get("hangang-language") == cookie
    if cookie:
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(
            answer.headers["Set-Cookie"].replace("; ", ";").split(";")
        )


STAYS = ["/", "/hub/spawn", "/hub/spawn/student/evaluation?next=%2Fuser", "/user/한강/lab", "/a/../b"]
LEAVES = ["", "hub", "//evil.example", "/\\evil.example", "\\/evil.example", "https://evil.example", "/\t/evil.example",
          "/hub\nSet-Cookie: a=b", "javascript:alert(1)", "/" + "x" * 3000]  # fmt: skip


@pytest.mark.parametrize("target", LEAVES)
async def test_the_switch_never_leads_away(client: httpx.AsyncClient, target: str) -> None:
    answer = await client.get("/hub/hangang/language", params={"to": "ko", "next": target})
    assert answer.headers["Location"] == "/"


@pytest.mark.parametrize("target", STAYS)
def test_addresses_of_this_host_are_local(target: str) -> None:
    assert is_local(target)


@given(st.one_of(st.text(), st.text(alphabet="/\\.:@?#htps \t\n%evil")))
def test_whatever_is_local_stays_on_this_host(target: str) -> None:
    if is_local(target):
        assert urlsplit(urljoin("http://hub.example/hub/", target)).netloc == "hub.example"

"""Every template over JupyterHub's own, drawn as the hub draws it, in both languages and for hostile names."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader

from hub_ext.language import LANGUAGES, Language, translator
from hub_ext.pages import (
    DemoPerson,
    PageSettings,
    PersonLine,
    content_security_policy,
    request_language,
    template_paths,
    template_vars,
)
from hub_ext.profiles.render import render_refusal
from hub_ext.quota.explain import Explanation, explain_release
from tests.pages.made_up import HOSTILE
from tests.pages.test_render import Reader
from tests.support.hub import text_of

STOCK = Path(sys.prefix) / "share" / "jupyterhub" / "templates"
OURS = sorted(
    path.name
    for path in Path(template_paths()[0]).glob("*.html")
    if path.name not in ("page.html", "admin.html")
)


class Handler:
    """What a page sees of the handler that draws it: a bound `static_url`."""

    def __init__(
        self, accept: str = "en", cookie: str | None = None, uri: str = "/hub/home?a=b&_xsrf=secret"
    ) -> None:
        self.request = SimpleNamespace(headers={"Accept-Language": accept}, uri=uri)
        self.cookie = cookie

    def get_cookie(self, name: str) -> str | None:
        return self.cookie

    def static_url(self, path: str, include_version: bool = True) -> str:
        return f"/hub/static/{path}"


def spawner(name: str = "", **changes: Any) -> SimpleNamespace:
    values: dict[str, Any] = {
        "name": name,
        "display_name": name,
        "active": False,
        "ready": False,
        "pending": None,
        "last_activity": None,
        "options_form": True,
    }
    return SimpleNamespace(**(values | changes))


def user(name: str) -> SimpleNamespace:
    named = [
        spawner("running", active=True, ready=True),
        spawner("starting", active=True, pending="spawn"),
        spawner("stopping", active=True, pending="stop"),
        spawner(
            "off", display_name=name, last_activity=datetime(2027, 3, 2, tzinfo=UTC).replace(tzinfo=None)
        ),
    ]
    return SimpleNamespace(
        name=name,
        escaped_name="escaped",
        spawner=spawner(),
        all_spawners=lambda include_default: named,
        server_url=lambda server: f"/user/escaped/{server}/",
    )


def a_token(name: str) -> SimpleNamespace:
    return SimpleNamespace(api_id=name, note=name, last_activity=None, expires_at=None, scopes=[name, "self"])


Draw = Callable[..., str]


@pytest.fixture(scope="module")
def draw() -> Draw:
    stock = FileSystemLoader(str(STOCK))
    loader = ChoiceLoader(
        [PrefixLoader({"templates": stock}), FileSystemLoader([*template_paths(), str(STOCK)])]
    )
    environment = Environment(loader=loader, autoescape=True)

    def one(
        template: str,
        handler: Handler | None = None,
        *,
        name: str = "student",
        settings: PageSettings | None = None,
        **more: Any,
    ) -> str:
        who = user(name)
        line = PersonLine(
            {"en": "Student", "ko": "학생"}, {"en": name, "ko": name}, {"en": "Public", "ko": "공공"}
        )
        pages = settings or PageSettings(
            simulated=True,
            embedded=True,
            demo_people=[DemoPerson(name, line)],
            person_line=lambda _: line,
            server_line=lambda one, language: f"{language} {name}" if one.active else "",
        )
        namespace: dict[str, Any] = {
            "base_url": "/hub/",
            "prefix": "/",
            "user": who,
            "login_url": "/hub/login",
            "logout_url": "/hub/logout",
            "authenticator_login_url": "/hub/login?next=",
            "authenticator": SimpleNamespace(request_otp=False),
            "login_service": "",
            "login_error": "Invalid username or password",
            "username": name,
            "static_url": (handler or Handler()).static_url,
            "version_hash": "v",
            "services": [SimpleNamespace(href="/services/desk/", name="desk")],
            "parsed_scopes": {"admin-ui": set()},
            "xsrf": "token",
            "xsrf_token": "token",
            "url": "/hub/spawn",
            "for_user": who,
            "spawner": who.spawner,
            "default_server": who.spawner,
            "allow_named_servers": True,
            "named_server_limit_per_user": 5,
            "invalid_server_names": [name],
            "spawner_options_form": "<p>form</p>",
            "spawn_url": "/hub/spawn/escaped",
            "server_name": name,
            "progress_url": "/hub/api/progress",
            "status_code": 403,
            "status_message": "Forbidden",
            "message": name,
            "failed": True,
            "failed_message": name,
            "error_message": name,
            "token_expires_in_max_seconds": 0,
            "api_tokens": [a_token(name)],
            "oauth_clients": [
                {"token_id": name, "description": name, "last_activity": None, "tokens": [a_token(name)]}
            ],
        }
        for key, value in template_vars(pages).items():
            namespace[key] = value(who) if callable(value) else value
        return environment.get_template(template).render(**(namespace | more))

    return one


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("template", OURS)
def test_every_page_is_in_the_language_asked_for_with_no_script_in_it(
    draw: Draw, template: str, language: Language
) -> None:
    html = draw(template, Handler(language))
    read = Reader(html)
    assert read.named("html")[0]["lang"] == language
    assert [a["type"] for a in read.named("script") if "src" not in a] == ["application/json"]
    for tag, attributes in read.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for address in (attributes.get("href"), attributes.get("src"), attributes.get("action")):
            assert not re.match(r"(https?:)?//|javascript:", address or ""), address
    other = {"ko": "Simulated GPUs", "en": "모의 GPU"}[language]
    assert other not in read.text


@pytest.mark.parametrize("template", OURS)
def test_hostile_names_stay_text_on_every_page(draw: Draw, template: str) -> None:
    html = draw(template, name=HOSTILE)
    assert "<script>alert" not in html
    assert str(1234567 * 8) not in html, "no name is read as a template"


def test_the_simulated_banner_and_the_note_of_a_single_machine_stand_where_they_are_true(draw: Draw) -> None:
    both = draw("home.html")
    assert "Simulated GPUs" in both
    assert "all servers here run as the same user" in both
    neither = draw("home.html", settings=PageSettings())
    assert "Simulated GPUs" not in neither
    assert "same user" not in neither


def test_the_header_says_who_is_signed_in(draw: Draw) -> None:
    read = Reader(draw("home.html", Handler("ko"), name="한강대학교"))
    assert "학생 · 한강대학교 (공공)" in re.sub(r"\s+", " ", read.text)


def test_the_switch_leads_back_to_the_same_page_without_its_token(draw: Draw) -> None:
    addresses = [a["href"] for a in Reader(draw("home.html")).named("a") if "hreflang" in a]
    assert addresses == [
        "/hub/hangang/language?to=ko&next=%2Fhub%2Fhome%3Fa%3Db",
        "/hub/hangang/language?to=en&next=%2Fhub%2Fhome%3Fa%3Db",
    ]


def test_a_page_without_a_handler_is_english(draw: Draw) -> None:
    html = draw("home.html", static_url=lambda path, include_version=True: path)
    assert '<html lang="en">' in html
    assert request_language(None) == "en"


def test_the_cookie_wins_over_the_browser(draw: Draw) -> None:
    assert '<html lang="ko">' in draw("home.html", Handler("en", cookie="ko"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_refusal_is_shown_as_it_was_worded_on_every_page_it_may_land_on(
    draw: Draw, language: Language
) -> None:
    html = render_refusal(Explanation("WHAT", "NEXT"), [], language)
    for template, name in (
        ("spawn.html", "html_error_message"),
        ("spawn.html", "error_html_message"),
        ("not_running.html", "failed_html_message"),
        ("error.html", "message_html"),
    ):
        page = draw(template, Handler(language), **{name: html, "status_code": 409})
        assert html.strip() in page, template
    title = translator(language)("The server was not started")
    assert title in draw("error.html", Handler(language), message_html=html)
    assert f"<h1>{title}</h1>".replace(" ", "") in draw(
        "not_running.html", Handler(language), server_name=""
    ).replace(" ", "").replace("\n", "")


ERRORS = {
    "plain words": ("No room.", "No room."),
    "as JupyterHub writes its own exception": (
        "409 SpawnException(reason=pool-full): No room (at all): wait",
        "No room (at all): wait",
    ),
    "a fault": (
        "HTTP 500: Internal Server Error (Unhandled error starting server x)",
        "Something went wrong while it started.",
    ),
}


@pytest.mark.parametrize(("message", "want"), ERRORS.values(), ids=ERRORS.keys())
def test_an_error_of_a_start_without_html_is_told_in_words(draw: Draw, message: str, want: str) -> None:
    read = Reader(draw("spawn.html", error_message=message))
    assert want in read.text
    assert "SpawnException" not in read.text
    assert "Unhandled" not in read.text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
def test_an_error_says_what_to_do(draw: Draw, status: int, language: Language) -> None:
    template = "404.html" if status == 404 else "error.html"
    text = Reader(draw(template, Handler(language), status_code=status, status_message=None, message="")).text
    assert str(status) in text
    assert "None" not in text


def test_servers_of_every_state_have_the_buttons_that_do_something(draw: Draw) -> None:
    html = draw("home.html")
    read = Reader(html)
    ids = {attributes["id"] for attributes in read.named("button") if attributes.get("id")}
    assert {"stop-running", "stop-starting", "stop-stopping", "delete-off"} <= ids
    assert "delete-running" not in ids
    stopping = next(a for a in read.named("button") if a.get("id") == "stop-stopping")
    assert "disabled" in stopping
    assert [a["datetime"] for a in read.named("time")] == ["2027-03-02T00:00:00Z"]


def test_no_more_named_servers_than_allowed_can_be_added(draw: Draw) -> None:
    assert "hg-add-server" in draw("home.html")
    assert "hg-add-server" not in draw("home.html", named_server_limit_per_user=4)
    assert "hg-add-server" in draw("home.html", named_server_limit_per_user=0)
    assert "home-server-row" in draw("home.html", allow_named_servers=False)


def test_the_policy_lets_nothing_in_from_elsewhere() -> None:
    policy = content_security_policy("/base/")
    assert "script-src 'self';" in policy
    assert "default-src 'self'" in policy
    assert "report-uri /base/hub/security/csp-report" in policy


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_server_that_ended_says_why_on_the_page_its_owner_comes_to(draw: Draw, language: Language) -> None:
    told = str(explain_release("out-of-memory", translator(language)))
    asked: list[tuple[str, str, Language]] = []

    def ended_line(person: str, server: str, spoken: Language) -> str:
        asked.append((person, server, spoken))
        return told if server == "second" else ""

    settings = PageSettings(ended_line=ended_line)
    known = {"failed": False, "failed_html_message": "", "failed_message": ""}
    page = draw("not_running.html", Handler(language), settings=settings, server_name="second", **known)
    assert told in text_of(page)
    assert {(person, server) for person, server, _ in asked} == {("student", "second")}
    other = draw("not_running.html", Handler(language), settings=settings, server_name="", **known)
    assert translator(language)("Its time may have ended, or it was stopped. Your files are kept.") in other


@pytest.mark.parametrize("language", LANGUAGES)
def test_whoever_is_first_in_line_again_is_led_to_their_place(draw: Draw, language: Language) -> None:
    settings = PageSettings(goes_on=lambda person, server: "" if server else "line")
    known = {"failed": False, "failed_html_message": "", "failed_message": ""}
    say = translator(language)
    page = draw("not_running.html", Handler(language), settings=settings, server_name="", **known)
    assert say("See my place in line") in page
    assert say("Start something else instead") in page
    assert 'services/desk/mine"' in page
    other = draw("not_running.html", Handler(language), settings=settings, server_name="second", **known)
    assert say("See my place in line") not in other
    assert say("Start it") in other


@pytest.mark.parametrize("language", LANGUAGES)
def test_whoever_has_no_hours_left_may_ask_for_more(draw: Draw, language: Language) -> None:
    settings = PageSettings(goes_on=lambda person, server: "hours")
    known = {"failed": False, "failed_html_message": "", "failed_message": ""}
    page = draw("not_running.html", Handler(language), settings=settings, server_name="", **known)
    assert translator(language)("Ask for more hours") in page
    assert 'services/desk/hours#ask"' in page

"""Pages from templates: everything that comes in is escaped, and no script or style stands in a page."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import HTTPConnection

from hub_ext.desk.charts import bar_chart, thin_bar
from hub_ext.desk.desk import HUB, PREFIX, Desk
from hub_ext.desk.static_files import STATIC, static_version
from hub_ext.desk.visitor import Visitor
from hub_ext.language import COOKIE, DEFAULT, LANGUAGES, Language, Speaker, pick_language, translator
from hub_ext.profiles.render import ICONS

TEMPLATES = Path(__file__).parent / "templates"
LANGUAGE_NAMES: Mapping[Language, str] = {"ko": "한국어", "en": "English"}


def render(
    request: Request,
    visitor: Visitor,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    """A page for somebody who is signed in. Templates know `visitor`, `_`, `ngettext` and `csrf_field()` beside the
    context.
    """
    return _render(request, visitor, visitor.say, template, status, headers, context)


def render_plain(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    """A page that is the same for everybody; the frame shows who is signed in where that is known already."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    say = visitor.say if visitor is not None else request_speaker(request)
    return _render(request, visitor, say, template, status, headers, context)


def request_language(request: HTTPConnection) -> Language:
    """The reader's own choice, else the browser's; English where neither says."""
    return pick_language(request.headers.get("accept-language"), request.cookies.get(COOKIE))


def request_speaker(request: Request) -> Speaker:
    """The catalogue alone, before a policy is known."""
    return translator(request_language(request))


def desk_of(request: HTTPConnection) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _render(
    request: Request,
    visitor: Visitor | None,
    say: Speaker,
    template: str,
    status: int,
    headers: Mapping[str, str] | None,
    context: Mapping[str, Any],
) -> HTMLResponse:
    text = (
        environment()
        .get_template(template)
        .render(
            **{
                "_": say,
                "ngettext": say.ngettext,
                "say": say,
                "visitor": visitor,
                "site": desk_of(request).site,
                "desk": PREFIX,
                "hub": HUB,
                "files": STATIC,
                "version": f"?v={static_version()}",
                "languages": _languages(request, say.language),
                "here": request.url.path,
                "who": _who(request, visitor, say),
                "csrf_field": lambda: _csrf_field(visitor),
            }
            | dict(context)
        )
    )
    return HTMLResponse(text, status, {"Cache-Control": "no-store", **(headers or {})})


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["icons"] = ICONS
    made.globals |= {"bar_chart": bar_chart, "thin_bar": thin_bar}
    made.globals["default_language"] = DEFAULT
    return made


def _csrf_field(visitor: Visitor | None) -> Markup:
    value = visitor.csrf if visitor is not None else ""
    return Markup('<input type="hidden" name="_csrf" value="{}">').format(value)


def _languages(request: Request, current: Language) -> list[tuple[Language, str, str, bool]]:
    """Each language with its own name, the address that switches to it, and whether it is the page's."""
    query = urlencode(parse_qsl(request.url.query, keep_blank_values=True))
    address = request.url.path + (f"?{query}" if query else "")
    if request.url.path == f"{PREFIX}/oauth_callback":
        address = f"{PREFIX}/mine"  # what stands in that address is good once, and nobody else's to see
    here = quote(address, safe="")
    return [
        (
            language,
            LANGUAGE_NAMES[language],
            f"{HUB}hangang/language?to={language}&next={here}",
            language == current,
        )
        for language in LANGUAGES
    ]


def _who(request: Request, visitor: Visitor | None, say: Speaker) -> tuple[str, str, str]:
    """What the person, their institution and their sector are called; empty where that is not known."""
    if visitor is None:
        return "", "", ""
    policy, person = visitor.policy, visitor.person
    title = say.text(desk_of(request).site.person_title(person), person.name)
    home = next((pool for pool in person.pools if pool in policy.pools), None)
    if home is None:
        return title, "", ""
    path = policy.path(home)
    by_kind = {policy.pools[pool].kind: policy.pools[pool].title for pool in reversed(path)}
    institution = by_kind.get("institution") or policy.pools[path[0]].title
    return title, say.text(institution), say.text(by_kind.get("sector", {}))

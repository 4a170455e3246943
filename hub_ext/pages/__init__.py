"""What people see of the hub: templates over JupyterHub's own, static files, and what both are told.

`bootstrap` hands these to JupyterHub:

    c.JupyterHub.template_paths = template_paths()
    c.JupyterHub.template_vars = template_vars(PageSettings(...))
    c.JupyterHub.extra_handlers = extra_handlers()
    c.JupyterHub.tornado_settings = {"headers": {"Content-Security-Policy": content_security_policy(base_url)}}

JupyterHub gives its templates no request, but its `static_url` is a method of the handler: from there a page knows
the language that its reader asks for (`request_language`), so that it is written in one language, with no script.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from jinja2 import pass_context
from jinja2.runtime import Context

from hub_ext.language import COOKIE, DEFAULT, LANGUAGES, Language, Speaker, pick_language, translator
from hub_ext.pages.handlers import FontFiles, LanguageHandler, PageFiles

HERE = Path(__file__).parent
FONTS = HERE.parent.parent / "node_modules" / "pretendard" / "dist" / "web" / "variable"
"""Where `npm ci` puts the typeface."""

Words = Mapping[str, str]
LANGUAGE_NAMES: Mapping[Language, str] = {"ko": "한국어", "en": "English"}


@dataclass(frozen=True, slots=True)
class PersonLine:
    """Who is signed in, as the header says it: `Student · Hangang University (public interest)`."""

    title: Words = field(default_factory=dict)
    institution: Words = field(default_factory=dict)
    sector: Words = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DemoPerson:
    """Somebody to sign in as on a demo, offered on the sign-in page."""

    name: str
    line: PersonLine = PersonLine()


GoesOn = Literal["", "line", "hours"]
"""What somebody whose server ended does next at the desk: see their place in line, or ask for hours."""


@dataclass(frozen=True)
class PageSettings:
    """What the pages are told.

    `person_line` gets the name of who is signed in, `server_line` a spawner and a language, `ended_line` person,
    server and language, `goes_on` person and server; all are called while a page is drawn and must answer at once
    (from memory).
    """

    brand: str = "Hangang Hub"
    simulated: bool = False
    embedded: bool = False
    demo_people: Sequence[DemoPerson] = ()
    provider: Words = field(default_factory=dict)
    """What the button on the sign-in page calls the identity provider."""
    person_line: Callable[[str], PersonLine | None] = lambda name: None
    server_line: Callable[[Any, Language], str] = lambda spawner, language: ""
    ended_line: Callable[[str, str, Language], str] = lambda person, server, language: ""
    goes_on: Callable[[str, str], GoesOn] = lambda person, server: ""


def template_paths() -> list[str]:
    """Folders of templates that stand before JupyterHub's."""
    return [str(HERE / "templates")]


def extra_handlers(fonts: Path | None = None) -> list[tuple[Any, ...]]:
    """`/hub/hangang/…`: static files, the typeface (where it is installed), the switch of language."""
    handlers: list[tuple[Any, ...]] = [
        (r"/hangang/static/(.*)", PageFiles, {"path": str(HERE / "static")}),
        (r"/hangang/language", LanguageHandler),
    ]
    folder = fonts or FONTS
    if folder.is_dir():
        handlers.append((r"/hangang/fonts/(.*)", FontFiles, {"path": str(folder)}))
    return handlers


def template_vars(settings: PageSettings) -> dict[str, Any]:
    """`_` and `ngettext` speak the reader's language; `hangang` knows the rest."""
    return {
        # JupyterHub calls what can be called with the user, and gives the template what comes back.
        "_": lambda user: _gettext,
        "ngettext": lambda user: _ngettext,
        "hangang": PageVars(settings),
    }


def content_security_policy(base_url: str = "/") -> str:
    """Nothing loads from elsewhere, and no script stands in a page. (Styles may: JupyterHub's own pages need it.)"""
    return "; ".join(
        [
            "default-src 'self'",
            "script-src 'self'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "object-src 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            f"report-uri {base_url}hub/security/csp-report",
        ]
    )


def request_language(handler: Any) -> Language:
    """The language a request asks for: the reader's own choice, else the browser's; English without a request."""
    request = getattr(handler, "request", None)
    if request is None:
        return DEFAULT
    return pick_language(request.headers.get("Accept-Language"), handler.get_cookie(COOKIE))


class PageVars:
    """What templates know as `hangang`."""

    def __init__(self, settings: PageSettings) -> None:
        self.brand = settings.brand
        self.simulated = settings.simulated
        self.embedded = settings.embedded
        self.demo_people = settings.demo_people
        self.provider = settings.provider
        self.version = static_version()
        self._settings = settings

    @pass_context
    def language(self, context: Context) -> Language:
        return request_language(_handler(context))

    @pass_context
    def languages(self, context: Context) -> list[tuple[Language, str, str, bool]]:
        """Each language with its own name, the address that switches to it, and whether it is the page's."""
        here, current = _address(context), self.language(context)
        switch = f"{context.get('base_url', '/')}hangang/language"
        return [
            (
                language,
                LANGUAGE_NAMES[language],
                f"{switch}?to={language}&next={quote(here, safe='')}",
                language == current,
            )
            for language in LANGUAGES
        ]

    @pass_context
    def text(self, context: Context, words: Words, otherwise: str = "") -> str:
        """A text that an operator wrote, in the page's language."""
        return _speaker(context).text(words, otherwise)

    @pass_context
    def server_line(self, context: Context, spawner: Any) -> str:
        """What a server is and until when it runs; empty where that is not known."""
        return self._settings.server_line(spawner, self.language(context))

    @pass_context
    def ended_line(self, context: Context, user: Any, server: str) -> str:
        """Why a server of theirs ended; empty where that is not known."""
        return self._settings.ended_line(user.name, server, self.language(context))

    def goes_on(self, user: Any, server: str) -> GoesOn:
        """Where at the desk it goes on after a server of theirs ended."""
        return self._settings.goes_on(user.name, server)

    def person_line(self, user: Any) -> PersonLine | None:
        return self._settings.person_line(user.name) if user is not None else None


@cache
def static_version() -> str:
    """Changes with any static file, so that browsers never mix two versions."""
    digest = hashlib.sha256()
    for path in sorted((HERE / "static").rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@pass_context
def _gettext(context: Context, message: str, /, **values: object) -> str:
    return _speaker(context)(message, **values)


@pass_context
def _ngettext(context: Context, one: str, many: str, number: int, /, **values: object) -> str:
    return _speaker(context).ngettext(one, many, number, **values)


def _speaker(context: Context) -> Speaker:
    return translator(request_language(_handler(context)))


def _handler(context: Context) -> Any:
    """The handler that draws this page, by its bound method `static_url`; None where there is none."""
    return getattr(context.get("static_url"), "__self__", None)


def _address(context: Context) -> str:
    """The page's own address, without the token that JupyterHub puts into the address of a form."""
    request = getattr(_handler(context), "request", None)
    parts = urlsplit(request.uri if request is not None else "")
    query = [
        (name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "_xsrf"
    ]
    return parts.path + (f"?{urlencode(query)}" if query else "")

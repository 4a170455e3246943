"""The pages' own addresses under the hub: static files, the typeface, and the switch of language."""

from __future__ import annotations

import re
from pathlib import Path

from tornado.web import HTTPError, RequestHandler, StaticFileHandler

from hub_ext.language import COOKIE, as_language

_DAY = 86400
_LOCAL_PATH = re.compile(r"/(?![/\\])[^\\\s\x00-\x1f]*", re.ASCII)


class PageFiles(StaticFileHandler):
    """Static files: kept by browsers for a year where the address carries a version, else asked for again."""

    def set_extra_headers(self, path: str) -> None:
        lasting = "public, max-age=31536000, immutable" if "v" in self.request.arguments else "no-cache"
        self.set_header("Cache-Control", lasting)
        self.set_header("X-Content-Type-Options", "nosniff")


class FontFiles(StaticFileHandler):
    """The typeface: its style sheet and its pieces, nothing else of the folder they come in."""

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", f"public, max-age={30 * _DAY}")
        self.set_header("X-Content-Type-Options", "nosniff")

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        if Path(absolute_path).suffix not in (".css", ".woff2"):
            raise HTTPError(404)
        return super().validate_absolute_path(root, absolute_path)


class LanguageHandler(RequestHandler):
    """`?to=ko&next=/hub/home`: remembers the language in a cookie and goes back. Works without script."""

    def get(self) -> None:
        language = as_language(self.get_query_argument("to", ""))
        base_url = str(self.settings.get("base_url", "/"))
        if language is not None:
            self.set_cookie(
                COOKIE,
                language,
                path=base_url,
                expires_days=365,
                httponly=True,
                samesite="Lax",
                secure=self.request.protocol == "https",
            )
        target = self.get_query_argument("next", "")
        self.redirect(target if is_local(target) else base_url)


def is_local(target: str) -> bool:
    """Whether an address stays on this host: one slash at the start, and nothing that a browser reads as a host."""
    return len(target) <= 2000 and _LOCAL_PATH.fullmatch(target) is not None

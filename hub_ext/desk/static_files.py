"""The desk's own copies of everything its pages load, so that they look right while the hub is away."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from jupyterhub._data import DATA_FILES_PATH
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from hub_ext import pages
from hub_ext.desk.desk import PREFIX
from hub_ext.pages import FONTS

STATIC: Final = f"{PREFIX}/static/"
OWN: Final = Path(__file__).parent / "static"
_YEAR, _MONTH = 31536000, 30 * 86400


class Files(StaticFiles):
    """Kept by browsers for a year where the address carries a version, else asked for again."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        lasting = b"v=" in scope.get("query_string", b"")
        response.headers["Cache-Control"] = f"public, max-age={_YEAR}, immutable" if lasting else "no-cache"
        return response


class Fonts(StaticFiles):
    """The typeface: its style sheet and its pieces, nothing else of the folder they come in."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if Path(path).suffix not in (".css", ".woff2"):
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = f"public, max-age={_MONTH}"
        return response


def add_static_files(app: FastAPI) -> None:
    """`static/hub/`: the hub's own; `static/frame/`: JupyterHub's style sheet; `static/fonts/`; else the desk's."""
    app.mount(f"{STATIC}hub", Files(directory=pages.HERE / "static"))
    of_jupyterhub = Path(DATA_FILES_PATH) / "static"
    app.mount(f"{STATIC}frame", Files(directory=of_jupyterhub / "css"))
    # The style sheet above names its signs by this address.
    signs = "components/@fortawesome"
    app.mount(f"{STATIC}{signs}", Files(directory=of_jupyterhub / signs))
    if FONTS.is_dir():
        app.mount(f"{STATIC}fonts", Fonts(directory=FONTS))
    app.mount(STATIC.rstrip("/"), Files(directory=OWN))


@cache
def static_version() -> str:
    """Changes with any static file, so that browsers never mix two versions."""
    digest = hashlib.sha256(pages.static_version().encode())
    for path in sorted(OWN.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]

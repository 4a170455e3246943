"""What the desk answers when it cannot do what was asked: a page in words, or {code, facts, message}; never a stack trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from hub_ext.core.errors import BadInput, HubError, StoreUnavailable
from hub_ext.desk.desk import PREFIX
from hub_ext.desk.hub_api import HubAway
from hub_ext.desk.rendering import render_plain, request_speaker
from hub_ext.desk.security import SECURITY_HEADERS
from hub_ext.language import Speaker

log = structlog.get_logger("hub_ext.desk")

Message = str | Callable[[Speaker], str]
"""Ready words, or how to say it in the reader's language."""
RETRY_SECONDS: Final = 5


class ErrorBody(BaseModel):
    """The one body of every error of the API. `code` is stable; `message` is for people."""

    code: str
    facts: dict[str, Any] = {}
    message: str


class Problem(Exception):
    """What was asked for is not done. `code` is stable, for programs; `facts` hold what it is about."""

    def __init__(self, status: int, code: str, message: Message, /, **facts: object) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.facts: Mapping[str, object] = facts

    def said(self, say: Speaker) -> str:
        return self.message if isinstance(self.message, str) else self.message(say)


def not_found() -> Problem:
    """For what is not there and for what is not theirs to see, alike."""
    return Problem(404, "not-found", lambda say: say("There is nothing here, or it is not open to you."))


def not_open() -> Problem:
    return Problem(403, "not-open", lambda say: say("This part of the desk is not open to you."))


def bad_cursor() -> Problem:
    return Problem(
        400,
        "bad-cursor",
        lambda say: say(
            "This cursor is no place in this list. Begin without one, and use those that come back."
        ),
    )


def put_into_words(error: Exception) -> Problem:
    """Foreseen errors of the services below, as what the desk answers."""
    match error:
        case Problem():
            return error
        case StoreUnavailable():
            return Problem(
                503,
                "records-away",
                lambda say: say(
                    "The hub's records cannot be reached at this moment. Servers go on running; nothing is lost."
                ),
            )
        case HubAway():
            return Problem(
                503,
                "hub-away",
                lambda say: say(
                    "The hub does not answer at this moment. Servers go on running; nothing is lost."
                ),
            )
        case BadInput():
            return Problem(400, "bad-input", str(error))
        case HubError():
            return Problem(503, "not-now", str(error))
        case RequestValidationError():
            fields = [
                {"field": ".".join(str(step) for step in one["loc"][1:]), "what": str(one["msg"])}
                for one in error.errors()
            ]
            return Problem(
                422,
                "bad-input",
                lambda say: say("What was sent cannot be used as it is ({fields}).", fields=_named(fields)),
                fields=fields,
            )
        case HTTPException():
            if error.status_code in (404, 405):
                return not_found() if error.status_code == 404 else _not_allowed()
            code = "too-large" if error.status_code == 413 else "bad-request"
            return Problem(error.status_code, code, str(error.detail))
        case _:
            pass
    return Problem(
        500, "mistake", lambda say: say("Something went wrong here. Your files and servers are safe.")
    )


def _not_allowed() -> Problem:
    return Problem(405, "not-allowed", lambda say: say("This address does not take that kind of request."))


def _named(fields: list[dict[str, str]]) -> str:
    return "; ".join(f"{one['field']}: {one['what']}" for one in fields)


def wants_page(request: Request) -> bool:
    """Whether a person reads the answer: the API and scripts get JSON."""
    return not request.url.path.startswith(f"{PREFIX}/api/") and "text/html" in request.headers.get(
        "accept", ""
    )


async def answer(request: Request, error: Exception) -> Response:
    """The answer to a request that failed so."""
    problem = put_into_words(error)
    if problem.status >= 500:
        level = log.error if problem.status == 500 else log.warning
        level("a request failed", path=request.url.path, code=problem.code, error=repr(error))
    # A mistake of ours is answered outside of everything that would add them.
    headers = dict(SECURITY_HEADERS)
    if problem.status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    if isinstance(error, HTTPException) and error.headers:
        headers.update(error.headers)
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="desk"'
    if wants_page(request):
        say = request_speaker(request)
        return render_plain(
            request,
            "error.html",
            status=problem.status,
            headers=headers,
            problem=problem,
            message=problem.said(say),
            retry=RETRY_SECONDS if problem.status == 503 else None,
        )
    body = ErrorBody(
        code=problem.code,
        facts=jsonable_encoder(dict(problem.facts)),
        message=problem.said(request_speaker(request)),
    )
    return JSONResponse(body.model_dump(), problem.status, headers)


def add_error_handlers(app: FastAPI) -> None:
    for kind in (Problem, HubError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)

"""The jupyter_server extension: `hangang/lease` and `hangang/extend`, for whoever may use this server."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado.web import authenticated

from hub_ext.core.clock import Clock, SystemClock
from hub_ext.language import COOKIE, OF_THE_BROWSER, Language, Speaker, as_language, pick_language, translator
from hub_ext.notebook.lab.claim import Claim, watch_identities
from hub_ext.notebook.lab.desk import Desk, DeskAway, Refused
from hub_ext.notebook.lab.policy import Link, View, off, step_minutes, view
from hub_ext.notebook.lab.watch import LeaseWatch

__all__ = ["install"]

DESK_URL = "HANGANG_DESK_URL"
CPU_SERVER = "cpu"
"""The name of the server to go on with."""
LONGEST_EXTENSION = 7 * 24 * 60
"""Minutes; what the quota allows is the desk's to say."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notices:
    """What the handlers use."""

    desk: Desk
    watch: LeaseWatch
    claim: Claim
    environment: Mapping[str, str]

    async def view(self, language: Language, *, anew: bool = False) -> View:
        known = await self.watch.look(language, anew=anew)
        say = translator(language)
        return view(
            known.lease,
            known.now,
            known.told_at,
            away=known.away,
            links=links(self.environment, say),
            say=say,
            beside=beside(self.environment, say),
        )

    async def extend(self, minutes: int | None, language: Language) -> tuple[bool, str]:
        """Whether it was done, and what to say about it."""
        say = translator(language)
        # A desk that does not answer is waited for once, not once for each question.
        lease = self.watch.last() or (await self.watch.look(language)).lease
        try:
            if lease is None:
                raise DeskAway("this server's lease is not known")
            await self.desk.extend(lease.id, minutes or step_minutes(lease), language)
        except Refused as refusal:
            self.watch.forget()
            return False, str(refusal) or say("The desk does not allow it and gives no reason.")
        except DeskAway as problem:
            _log.warning("Not extended: %s", problem)
            return False, say(
                "The desk did not answer in time. Look again in a minute: the time left shows whether it was done."
            )
        self.watch.forget()
        lease = (await self.watch.look(language)).lease
        return True, say("Extended: it ends at {time} now.", time=lease.clock) if lease else ""


def links(environment: Mapping[str, str], say: Speaker) -> tuple[Link, ...]:
    """Where a person sees all their servers: the desk's page, or the hub's where each service has its own host."""
    base, host = environment.get("JUPYTERHUB_BASE_URL") or "/", environment.get("JUPYTERHUB_HOST", "")
    path = "hub/home" if host else "services/desk/mine"
    return (Link(say("My servers"), host + url_path_join(base, path)),)


def beside(environment: Mapping[str, str], say: Speaker) -> Link | None:
    """The start page for a second server of this person, which shares the home with this one."""
    base, host = environment.get("JUPYTERHUB_BASE_URL") or "/", environment.get("JUPYTERHUB_HOST", "")
    person = environment.get("JUPYTERHUB_USER", "")
    if not person or environment.get("JUPYTERHUB_SERVER_NAME", "") == CPU_SERVER:
        return None
    path = url_path_join(base, "hub/spawn", quote(person, safe="@~"), CPU_SERVER)
    return Link(say("Start a CPU server beside it"), host + path)


class _Handler(APIHandler):
    # A page that only looks at the time does not keep its server from being culled as idle.
    _track_activity = False
    auth_resource = "hangang"

    def initialize(self, notices: Notices | None) -> None:
        self.notices = notices

    @property
    def language(self) -> Language:
        """The lab's, where somebody chose one there; else as the hub's pages."""
        chosen = as_language(self.get_query_argument("lab", "")[:2].lower())
        if chosen is not None:
            return chosen
        return pick_language(self.request.headers.get("Accept-Language"), self.get_cookie(COOKIE))

    def answer(self, value: Mapping[str, Any]) -> None:
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(value, ensure_ascii=False))


class LeaseHandler(_Handler):
    @authenticated
    @authorized
    async def get(self) -> None:
        # For the kernels that start from now on: what they show is read in this browser.
        os.environ[OF_THE_BROWSER] = self.language
        if self.notices is None:
            self.answer(asdict(off()))
            return
        anew = bool(self.get_query_argument("now", ""))
        self.answer(asdict(await self.notices.view(self.language, anew=anew)))


class ExtendHandler(_Handler):
    @authenticated
    @authorized
    async def post(self) -> None:
        minutes = _minutes(self.request.body)
        if minutes is not None and not 1 <= minutes <= LONGEST_EXTENSION:
            self.set_status(400)
            self.answer({"message": f"write {{'minutes': N}} with N from 1 to {LONGEST_EXTENSION}"})
            return
        if self.notices is None:
            self.set_status(404)
            self.answer({"message": "this server knows of no desk"})
            return
        done, sentence = await self.notices.extend(minutes, self.language)
        view = asdict(await self.notices.view(self.language))
        self.answer({"done": done, "sentence": sentence, "view": view})


def _minutes(body: bytes) -> int | None:
    """None where the request leaves it to us; 0 for what is no whole number."""
    if not body.strip():
        return None
    try:
        found = json.loads(body)["minutes"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def install(
    server: Any, environment: Mapping[str, str] = os.environ, clock: Clock | None = None
) -> Notices | None:
    """Add the handlers to a server, and watch for the first person who comes. None where no desk is known."""
    url, token = environment.get(DESK_URL, ""), environment.get("JUPYTERHUB_API_TOKEN", "")
    notices = None
    if url.startswith(("http://", "https://")) and token:
        desk = Desk(url, token, environment.get("JUPYTERHUB_SERVER_NAME", ""))
        notices = Notices(desk, LeaseWatch(desk, clock or SystemClock()), Claim(desk), environment)
        watch_identities(server.identity_provider, notices.claim.somebody_came)
    else:
        _log.info("No desk is known here (%s): nothing is said about this server's time", DESK_URL)
    base = server.web_app.settings["base_url"]
    server.web_app.add_handlers(
        ".*$",
        [
            (url_path_join(base, "hangang", "lease"), LeaseHandler, {"notices": notices}),
            (url_path_join(base, "hangang", "extend"), ExtendHandler, {"notices": notices}),
        ],
    )
    return notices

"""The addresses of signing in through a provider: there, back again, and out; and what people read when it fails."""

from __future__ import annotations

from typing import Any

from oauthenticator.oauth2 import (
    OAuthCallbackHandler,
    OAuthLoginHandler,
    OAuthLogoutHandler,
    _deserialize_state,
)
from tornado.web import HTTPError

from hub_ext.core.errors import HubError
from hub_ext.language import COOKIE, Speaker, pick_language, translator


class SignInHandler(OAuthLoginHandler):
    """Sends the person to the provider."""

    async def get(self) -> None:
        try:
            await self.authenticator.find_provider()
        except HubError as error:
            self.log.error("Nobody can sign in: %s", error)
            raise provider_away(speaker_of(self)) from None
        super().get()


class CallbackHandler(OAuthCallbackHandler):
    """Where the provider sends the person back to."""

    def check_arguments(self) -> None:
        """Only what began in this very browser goes on; whatever else is in the address is anybody's words."""
        say = speaker_of(self)
        try:
            begun = _deserialize_state(self.get_state_cookie()).get("state_id")
            named = _deserialize_state(self.get_argument("state", "")).get("state_id")
        except (ValueError, AttributeError, RecursionError):
            begun = named = None
        if not begun or begun != named:
            message = say("This sign-in did not begin in this browser, or took too long. Sign in again.")
            raise refusal(400, message, "sign-in-not-begun")
        if self.get_argument("error", ""):
            self.log.warning("The provider did not sign somebody in: %.200r", self.get_argument("error"))
            message = say("The sign-in service did not sign you in, or you ended it there. Sign in again.")
            raise refusal(403, message, "sign-in-ended")
        if not self.get_argument("code", ""):
            message = say("This sign-in did not begin in this browser, or took too long. Sign in again.")
            raise refusal(400, message, "sign-in-not-begun")


class SignOutHandler(OAuthLogoutHandler):
    """Signs out of the hub, and then of the provider where it offers that."""

    _hint: str | None = None

    async def handle_logout(self) -> None:
        await super().handle_logout()
        user = self.current_user
        if user is not None:
            self._hint = (await user.get_auth_state() or {}).get("id_token")

    async def render_logout_page(self) -> None:
        target = self.authenticator.end_session(self, self._hint) if self._hint else ""
        if target:
            self.redirect(target)
        else:
            await super().render_logout_page()


# -- what people read --------------------------------------------------------------------------------------------------


def speaker_of(handler: Any) -> Speaker:
    request = getattr(handler, "request", None)
    if request is None:
        return translator(pick_language(None))
    return translator(pick_language(request.headers.get("Accept-Language"), handler.get_cookie(COOKIE)))


def provider_away(say: Speaker) -> HTTPError:
    message = say(
        "The sign-in service does not answer at this moment. Try again in a minute; if it stays so, tell the operators."
    )
    return refusal(503, message, "sign-in-service-away", 60)


def records_away(say: Speaker) -> HTTPError:
    message = say(
        "Signing in is not possible at this moment: the hub's records cannot be reached. Try again in a minute."
    )
    return refusal(503, message, "sign-in-not-now", 60)


def refusal(status: int, message: str, code: str, retry_after: int | None = None) -> HTTPError:
    """`reason` is a code, for pages and programs."""
    error = HTTPError(status, message, reason=code)
    if retry_after is not None:
        error.headers = {"Retry-After": str(retry_after)}  # type: ignore[attr-defined]  # jupyterhub looks for it
    return error

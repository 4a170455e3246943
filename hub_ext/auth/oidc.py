"""Signing in through an identity provider (OpenID Connect): its claims become a person by the identity document.

JupyterHub's oauthenticator speaks the protocol (code flow with PKCE, state in a signed cookie). Here is decided whose
claims count, who that is, and how long somebody stays in: every few minutes the provider is asked again, so that whom
it no longer stands for is out, and changed groups count. While it is away those who are in stay in, for a while.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

import jwt
from oauthenticator.generic import GenericOAuthenticator
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.web import HTTPError
from traitlets import Any as AnyTrait
from traitlets import Bool, Instance, Integer, Unicode, default

from hub_ext.auth.claims import Identity
from hub_ext.auth.explain import explain
from hub_ext.auth.handlers import (
    CallbackHandler,
    SignInHandler,
    SignOutHandler,
    provider_away,
    records_away,
    refusal,
    speaker_of,
)
from hub_ext.auth.policy import NAME_TAKEN, Known, NotKnown, decide, is_administrator
from hub_ext.auth.provider import (
    ANSWER_SECONDS,
    LARGEST_ANSWER,
    Provider,
    ProviderAway,
    ProviderRefuses,
    discover,
)
from hub_ext.core.clock import HOUR, Clock, Instant, Seconds, SystemClock
from hub_ext.core.errors import HubError, NameTaken
from hub_ext.core.people import Person
from hub_ext.language import Speaker

ALWAYS_ASKED: Final = ("openid", "profile", "email")
OFFLINE: Final = "offline_access"
SHARED_SECONDS: Final[Seconds] = 2
"""Requests that come at once ask the provider once: many hand out each refresh token for one use only."""
CLOCKS_APART: Final[Seconds] = 60
GONE: Final = frozenset(
    {"invalid_grant", "access_denied", "interaction_required", "login_required", "consent_required"}
)
"""What a provider says of a refresh token whose person is out or must sign in again; other errors are the hub's own."""

AuthModel = dict[str, Any]
"""What jupyterhub calls the result of signing in: `name`, `admin`, `auth_state`."""
Tokens = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Refreshed:
    at: Instant
    model: AuthModel | bool


class OidcAuthenticator(GenericOAuthenticator):
    """Lets in whom `identity` knows by the claims of `issuer`, and nobody else."""

    login_handler = SignInHandler
    callback_handler = CallbackHandler
    logout_handler = SignOutHandler

    identity = Instance(Identity, args=(), help="Who is known: what `load_identity` read.").tag(config=True)
    issuer = Unicode("", help="The one issuer whose claims count.").tag(config=True)
    found = Instance(
        Provider, allow_none=True, help="What was discovered at the start; None while the provider is away."
    ).tag(config=True)
    claims_from = Unicode("userinfo", help="`userinfo` or `id_token`.").tag(config=True)
    ca_file = Unicode("", help="Certificates that the provider's is checked by; empty: the system's.").tag(
        config=True
    )
    allow_http = Bool(False, help="Speak to the provider without encryption, for a trial.").tag(config=True)
    grace = Integer(HOUR, help="Seconds for which people stay in while the provider is away.").tag(
        config=True
    )
    name_of = AnyTrait(
        None,
        allow_none=True,
        help="An async function of issuer and subject: the name they have had so far, or None.",
    ).tag(config=True)
    on_sign_in = AnyTrait(
        None,
        allow_none=True,
        help="""An async function of person, issuer and subject, awaited before they are in: it writes the table `people`.

        Raises NameTaken for a name of somebody else. Plain functions, no bound methods: traitlets copies what is
        configured, with the object it is bound to.
        """,
    ).tag(config=True)
    clock = AnyTrait(help='Where "now" comes from; tests bring their own.')

    known: ClassVar[dict[str, Known]] = {}
    """Whom this process has seen lately, by name: what pages call them."""

    # Whom the rules no longer know is out: neither the hub's memory of old users lets them back in, nor do their
    # tokens outlive it. Between two refreshes a start asks nobody: three hundred at once would ask the provider.
    allow_existing_users = Bool(False)
    any_allow_config = Bool(True)
    auth_refresh_strict = Bool(True).tag(config=True)
    enable_auth_state = Bool(True)
    refresh_pre_spawn = Bool(False).tag(config=True)
    manage_groups = Bool(False)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.http_request_kwargs = {
            "connect_timeout": ANSWER_SECONDS,
            "request_timeout": ANSWER_SECONDS,
            "follow_redirects": False,
            **({"ca_certs": self.ca_file} if self.ca_file else {}),
        }
        self._turns: dict[str, asyncio.Lock] = {}
        self._refreshed: dict[str, _Refreshed] = {}
        if self.found is None:
            self.log.error(
                "The identity provider %s does not answer: nobody can sign in until it does.", self.issuer
            )
        else:
            self._use(self.found)

    @default("clock")
    def _default_clock(self) -> Clock:
        return SystemClock()

    @default("http_client")
    def _default_http_client(self) -> AsyncHTTPClient:
        # Tornado's own, also where pycurl is installed: that one cannot be told how large an answer may be.
        return SimpleAsyncHTTPClient(force_instance=True, max_body_size=LARGEST_ANSWER)

    # -- the provider ---------------------------------------------------------------------------------------------------

    async def find_provider(self) -> Provider:
        """Where the provider answers; asked for until it was found once. Raises ProviderAway, BadProvider."""
        if self.found is None:
            ca_file = Path(self.ca_file) if self.ca_file else None
            self._use(
                await asyncio.to_thread(discover, self.issuer, ca_file=ca_file, allow_http=self.allow_http)
            )
        assert self.found is not None
        return self.found

    def _use(self, provider: Provider) -> None:
        self.found = provider
        self.authorize_url = provider.authorize_url
        self.token_url = provider.token_url
        self.userdata_url = provider.userinfo_url
        if not self.scope:
            # With it running servers keep their standing while their person is away for a weekend.
            offline = [OFFLINE] if OFFLINE in provider.scopes else []
            self.set_trait("scope", [*ALWAYS_ASKED, *offline])

    def end_session(self, handler: Any, id_token: str) -> str:
        """The address at the provider that ends the person's session there, "" where it has none."""
        if self.found is None or not self.found.end_session_url:
            return ""
        back = self.get_callback_url(handler).removesuffix("oauth_callback") + "login"
        asked = {"client_id": self.client_id, "id_token_hint": id_token, "post_logout_redirect_uri": back}
        joint = "&" if "?" in self.found.end_session_url else "?"
        return f"{self.found.end_session_url}{joint}{urlencode(asked)}"

    async def _ask(
        self, what: str, url: str, refused: Callable[[HTTPClientError], bool], **kwargs: Any
    ) -> Any:
        """JSON that the provider answers. Raises ProviderRefuses where `refused` says so, else ProviderAway."""
        try:
            return await self.httpfetch(url, what, **kwargs)
        except HTTPClientError as error:
            if refused(error):
                raise ProviderRefuses(
                    f"The identity provider refuses ({what}): {_error_code(error)}"
                ) from None
            raise ProviderAway(
                f"The identity provider fails ({what}): {error.code} {_error_code(error)}"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise ProviderAway(
                f"The identity provider does not answer as it should ({what}): {error}"
            ) from None

    async def _tokens(self, params: Mapping[str, Any]) -> Tokens:
        answer = await self._ask(
            "exchanging for tokens",
            self.token_url,
            lambda error: error.code in (400, 401, 403) and _error_code(error) in GONE,
            method="POST",
            headers=self.build_token_info_request_headers(),
            body=urlencode({name: value for name, value in params.items() if value is not None}),
        )
        if not isinstance(answer, dict) or not isinstance(answer.get("access_token"), str):
            raise ProviderAway("The identity provider answered without an access token.")
        return answer

    async def _claims(self, tokens: Tokens, subject: str | None = None) -> dict[str, Any]:
        """What the provider says of whose tokens these are, of `subject` only where one is given.

        The id token comes straight from the provider over TLS, which stands for its signature (OpenID Connect Core,
        section 3.1.3.7); issuer, audience and time are checked here. Raises ProviderRefuses, ProviderAway.
        """
        signed = self._id_token(tokens) if tokens.get("id_token") else None
        if signed is None and (subject is None or self.claims_from == "id_token"):
            raise ProviderAway("The identity provider answered without an id token.")
        subject = subject or str((signed or {}).get("sub"))
        claims = signed
        if self.claims_from == "userinfo":
            claims = await self._ask(
                "userinfo",
                self.userdata_url,
                lambda error: error.code in (400, 401, 403),
                headers=self.build_userdata_request_headers(
                    tokens["access_token"], str(tokens.get("token_type", "Bearer"))
                ),
            )
        if not isinstance(claims, dict):
            raise ProviderAway("The identity provider's claims are no JSON object.")
        for one in (signed or {}, claims):
            if one.get("sub", subject) != subject or one.get("iss", self.issuer) != self.issuer:
                raise ProviderRefuses("The identity provider's claims are about somebody else.")
        return {**claims, "iss": self.issuer, "sub": subject}

    def _id_token(self, tokens: Tokens) -> dict[str, Any]:
        try:
            claims = jwt.decode(
                tokens["id_token"],
                audience=self.client_id,
                issuer=self.issuer,
                leeway=CLOCKS_APART,
                options={
                    "verify_signature": False,
                    "verify_aud": True,
                    "verify_iss": True,
                    "verify_exp": True,
                    "require": ["iss", "sub", "aud", "exp"],
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise ProviderRefuses(f"The identity provider's id token cannot be used: {error}") from None
        if claims.get("azp", self.client_id) != self.client_id:
            raise ProviderRefuses("The identity provider's id token is another program's.")
        return dict(claims)

    # -- what jupyterhub calls ------------------------------------------------------------------------------------------------

    async def authenticate(self, handler: Any, data: Any = None, **kwargs: Any) -> AuthModel:
        """Who comes back from the provider. Raises HTTPError with a sentence for everybody who is not let in."""
        say = speaker_of(handler)
        try:
            # 1. The code for tokens, and these for what the provider says of the person.
            await self.find_provider()
            tokens = await self._tokens(self.build_access_tokens_request_params(handler))
            claims = await self._claims(tokens)
            # 2. The name they have had so far.
            known_as = await self.name_of(self.issuer, claims["sub"]) if self.name_of is not None else None
        except ProviderRefuses as error:
            self.log.warning("Somebody cannot sign in: %s", error)
            message = say("The sign-in service did not confirm who you are. Sign in again.")
            raise refusal(403, message, "sign-in-not-confirmed") from None
        except ProviderAway as error:
            self.log.error("Nobody can sign in: %s", error)
            raise provider_away(say) from None
        except HubError as error:
            self.log.error("Nobody can sign in: %s", error)
            raise records_away(say) from None
        # 3. Who that is, by the rules.
        found = decide(self.identity, claims, known_as)
        if isinstance(found, NotKnown):
            raise self._refused(found, say)
        # 4. They are written down in run_post_auth_hook, after every check.
        return self._model(found, tokens, claims, self.clock.now())

    def normalize_username(self, username: str) -> str:
        """Rules have made it what it is; a map of names would make two of one."""
        return username

    async def check_allowed(self, username: str, auth_model: AuthModel | None) -> bool:
        """The identity document alone decides; jupyterhub's own lists let nobody in."""
        return auth_model is not None and isinstance(self._decided(auth_model), Known)

    async def run_post_auth_hook(self, handler: Any, auth_model: AuthModel) -> AuthModel:
        """The last step of signing in: the person is written down, or is not in."""
        auth_model = await super().run_post_auth_hook(handler, auth_model)
        found = self._decided(auth_model) if auth_model else None
        if isinstance(found, Known):
            say = speaker_of(handler)
            try:
                await self._tell(found)
            except NameTaken:
                raise self._refused(NotKnown(NAME_TAKEN, {"name": found.person.name}), say) from None
            except HubError as error:
                self.log.error("%s cannot sign in: %s", found.person.name, error)
                raise records_away(say) from None
            self._refreshed.pop(found.person.name, None)
        return auth_model

    async def refresh_user(self, user: Any, handler: Any = None, **kwargs: Any) -> AuthModel | bool:
        """Called some minutes after the last time: the person as the provider and the rules have them now.

        False: out. Requests that come together take turns, and share what the first one learned.
        """
        async with self._turns.setdefault(user.name, asyncio.Lock()):
            latest = self._refreshed.get(user.name)
            if latest is None or not 0 <= self.clock.now() - latest.at < SHARED_SECONDS:
                model = await self._refresh(user)
                latest = self._refreshed[user.name] = _Refreshed(self.clock.now(), model)
            return latest.model

    async def _refresh(self, user: Any) -> AuthModel | bool:
        # 1. What is kept of their sign-in.
        kept = await user.get_auth_state()
        if not kept or kept.get("issuer") != self.issuer:
            return False
        # 2. What the provider says now; while it is away, what it said last, but not for ever.
        try:
            await self.find_provider()
            tokens, claims = await self._asked_again(kept)
            confirmed = self.clock.now()
        except ProviderRefuses as error:
            self.log.warning("%s must sign in again: %s", user.name, error)
            return False
        except HubError as error:
            if self.clock.now() - kept["confirmed_at"] > self.grace:
                self.log.error("%s must sign in again, the grace is over: %s", user.name, error)
                return False
            self.log.warning("%s stays in for now: %s", user.name, error)
            tokens, claims, confirmed = kept, kept["claims"], kept["confirmed_at"]
        # 3. Who that is, by the rules as they are now.
        found = decide(self.identity, claims, user.name)
        if isinstance(found, NotKnown):
            self.log.warning("%s is out: %s", user.name, found.code)
            return False
        # 4. Changed pools and roles are written down; where that fails they stay in, and the next refresh tries again.
        if (before := self.known.get(user.name)) is None or before.person != found.person:
            try:
                await self._tell(found)
            except NameTaken:
                self.log.warning("%s is out: the name belongs to somebody else", user.name)
                return False
            except HubError as error:
                self.log.warning("What changed about %s is not written yet: %s", user.name, error)
        return self._model(found, tokens, claims, confirmed)

    async def _asked_again(self, kept: Mapping[str, Any]) -> tuple[Tokens, dict[str, Any]]:
        """Tokens and claims of now. Raises ProviderRefuses for whom the provider no longer stands for."""
        if self.claims_from == "userinfo":
            try:
                return kept, await self._claims({**kept, "id_token": None}, kept["subject"])
            except ProviderRefuses:
                # The access token lives for minutes only.
                if not kept.get("refresh_token"):
                    raise
        elif not kept.get("refresh_token"):
            raise ProviderRefuses("The identity provider gave no refresh token.")
        answer = await self._tokens(self.build_refresh_token_request_params(kept["refresh_token"]))
        tokens = {**kept, **{name: value for name, value in answer.items() if value}}
        return tokens, await self._claims({**tokens, "id_token": answer.get("id_token")}, kept["subject"])

    # -- small things -------------------------------------------------------------------------------------------------------------

    def _model(self, found: Known, tokens: Tokens, claims: dict[str, Any], confirmed: Instant) -> AuthModel:
        """`admin` is always said, so that a role that was taken away is taken away in the hub too."""
        return {
            "name": found.person.name,
            "admin": is_administrator(found.person),
            "auth_state": {
                **{
                    name: tokens.get(name)
                    for name in ("access_token", "token_type", "refresh_token", "id_token")
                },
                "issuer": found.issuer,
                "subject": found.subject,
                "claims": claims,
                "confirmed_at": confirmed,
            },
        }

    def _decided(self, auth_model: AuthModel) -> Known | NotKnown:
        return decide(self.identity, auth_model["auth_state"]["claims"], auth_model["name"])

    async def _tell(self, found: Known) -> None:
        callback: Callable[[Person, str, str], Awaitable[None]] | None = self.on_sign_in
        if callback is not None:
            await callback(found.person, found.issuer, found.subject)
        self.known[found.person.name] = found

    def _refused(self, found: NotKnown, say: Speaker) -> HTTPError:
        self.log.warning("Somebody is not let in: %s %s", found.code, dict(found.facts))
        return refusal(403, explain(found, self.identity, say), found.code)


def _error_code(error: HTTPClientError) -> str:
    """What OAuth calls it: `invalid_grant`."""
    try:
        found = json.loads(error.response.body)["error"] if error.response else ""
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return found[:80] if isinstance(found, str) else ""

"""Signing in to the demo: the people of the identity document, and one password for all of them.

For a machine on which somebody tries the hub out, or a workshop. A centre signs its people in through an identity
provider; everything behind `person_of` is the same then.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from jupyterhub.auth import Authenticator
from tornado.web import HTTPError
from traitlets import Any as AnyTrait
from traitlets import Bool, Instance, Unicode, default, observe

from hub_ext.auth.claims import Identity
from hub_ext.auth.policy import administrators, is_administrator, names, person_of
from hub_ext.auth.throttle import Throttle
from hub_ext.core.clock import Clock, SystemClock
from hub_ext.core.errors import BadInput, HubError
from hub_ext.core.people import Person

SHORTEST_PASSWORD: Final = 8
LONGEST_NAME: Final = 64
"""Longer names are nobody's; they are counted by their beginning."""

AuthModel = dict[str, Any]
"""What jupyterhub calls the result of signing in: `name`, `admin`, `auth_state`, ..."""


class DemoAuthenticator(Authenticator):
    """Lets in the people of `identity`, and nobody else, with the one `password`.

    Raises BadInput when it is made with a password that is missing or too short.
    """

    identity = Instance(Identity, args=(), help="Who is known: what `load_identity` read.").tag(config=True)
    password = Unicode("", help="The one password of the demo, at least 8 characters.").tag(config=True)
    on_sign_in = AnyTrait(
        None,
        allow_none=True,
        help="""An async function of the person, awaited before they are in: it writes the table `people`.

        A plain function, no bound method: traitlets copies what is configured, with the object it is bound to.
        """,
    ).tag(config=True)
    clock = AnyTrait(help='Where "now" comes from; tests bring their own.')

    # Whoever is taken out of the document is out: neither the hub's memory of old users lets them back in, nor do
    # their tokens outlive it.
    allow_existing_users = Bool(False)
    auth_refresh_strict = Bool(True).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if len(self.password.strip()) < SHORTEST_PASSWORD:
            what = "is too short" if self.password.strip() else "is missing"
            raise BadInput(
                f"the demo's password {what}; set one of at least {SHORTEST_PASSWORD} characters, it opens every demo account"
            )
        self._throttle = Throttle(self.clock)
        self._known: dict[str, Person] = {}
        """Whom `on_sign_in` was last told of, by name."""
        self._set_names()

    @default("clock")
    def _default_clock(self) -> Clock:
        return SystemClock()

    @observe("identity")
    def _identity_changed(self, change: Mapping[str, Any]) -> None:
        self._set_names()

    def _set_names(self) -> None:
        self.allowed_users = set(names(self.identity))
        self.admin_users = set(administrators(self.identity))

    # -- what jupyterhub calls, in this order ---------------------------------------------------------------------------

    async def authenticate(self, handler: Any, data: Mapping[str, str]) -> AuthModel | None:
        """The person with this name, if the password is right; None otherwise, which the page says in one way.

        A name that nobody has takes the same time and the same tries as one that somebody has.
        """
        if "username" not in data or "password" not in data:
            raise HTTPError(400, "The form came without a user name or a password. Try again.")
        name = self.normalize_username(data["username"])
        counted = name[:LONGEST_NAME]
        seconds = self._throttle.wait(counted)
        if seconds:
            raise _too_many_tries(seconds)
        person = person_of(self.identity, name)
        if not _same(data["password"], self.password) or person is None:
            self._throttle.failed(counted)
            return None
        self._throttle.succeeded(counted)
        return _auth_model(person)

    def normalize_username(self, username: str) -> str:
        return str(super().normalize_username(username.strip()))

    def check_allowed(self, username: str, authentication: AuthModel | None = None) -> bool:
        """The document alone decides; jupyterhub's own list also holds whom an administrator added by hand."""
        return username in self.identity.people

    async def run_post_auth_hook(self, handler: Any, auth_model: AuthModel) -> AuthModel:
        """The last step of signing in, after every check: the person is written down, or is not in."""
        auth_model = await super().run_post_auth_hook(handler, auth_model)
        person = person_of(self.identity, auth_model["name"]) if auth_model else None
        if person is not None:
            try:
                await self._tell(person)
            except HubError as error:
                self.log.error("%s cannot sign in: %s", person.name, error)
                raise _not_now() from None
        return auth_model

    async def refresh_user(self, user: Any, handler: Any = None) -> AuthModel | bool:
        """Called some minutes after the last time: who was taken out must leave; changed pools and roles count now."""
        person = person_of(self.identity, user.name)
        if person is None:
            return False
        if self._known.get(person.name) != person:
            try:
                await self._tell(person)
            except HubError as error:
                # They are signed in already and stay so; the next refresh tries again.
                self.log.warning("What changed about %s is not written yet: %s", person.name, error)
        return _auth_model(person)

    async def _tell(self, person: Person) -> None:
        callback: Callable[[Person], Awaitable[None]] | None = self.on_sign_in
        if callback is not None:
            await callback(person)
        self._known[person.name] = person


def _auth_model(person: Person) -> AuthModel:
    """`admin` is always said, so that a role that was taken away is taken away in the hub too."""
    return {"name": person.name, "admin": is_administrator(person)}


def _same(sent: str, expected: str) -> bool:
    """Compares in a time that tells nothing, not even the length."""
    return hmac.compare_digest(_digest(sent), _digest(expected))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _too_many_tries(seconds: int) -> HTTPError:
    """`reason` is a code, for pages that say it in another language."""
    message = f"Too many wrong passwords for this name. Try again in {seconds} s."
    return _error(429, message, "sign-in-too-many-tries", seconds)


def _not_now() -> HTTPError:
    message = "Signing in is not possible at this moment: the hub's records cannot be written. Try again in a minute."
    return _error(503, message, "sign-in-not-now", 60)


def _error(status: int, message: str, code: str, retry_after: int) -> HTTPError:
    error = HTTPError(status, message, reason=code)
    error.headers = {"Retry-After": str(retry_after)}  # type: ignore[attr-defined]  # jupyterhub looks for it
    return error

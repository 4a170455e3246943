"""The authenticator in front of a scripted provider: what it lets pass, and how it takes a provider that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from tornado.web import HTTPError

from hub_ext.auth.document import parse_identity
from hub_ext.auth.oidc import SHARED_SECONDS, OidcAuthenticator
from hub_ext.auth.provider import BadProvider, Provider, ProviderAway, discover, provider_of
from hub_ext.core.errors import NameTaken, StoreUnavailable
from hub_ext.core.people import Person
from tests.auth.fakes import HandClock
from tests.support.fakes import Answer, ScriptedServer

IDENTITY = parse_identity(
    """
rules:
  - name: students
    when: [{claim: groups, contains: students}]
    gives: {pools: [univ], roles: [student]}
  - name: operators
    when: [{claim: groups, contains: operators}]
    gives: {roles: [operator]}
""",
    ["univ"],
)
CLIENT = "hub"
GRACE = 600


class ScriptedProvider:
    """Answers as it is told to; `asked` counts what it was asked."""

    def __init__(self) -> None:
        self.groups = ["students"]
        self.subject = "s-1"
        self.answers: dict[str, Answer] = {}
        """What it answers instead, by path."""
        self.id_token: dict[str, Any] = {}
        """What its id tokens say instead."""
        self.tokens: dict[str, Any] = {}
        self.server = ScriptedServer(self.answer)

    @property
    def issuer(self) -> str:
        return self.server.url

    def asked(self, path: str) -> int:
        return sum(one == path for _, one, _ in self.server.requests)

    def claims(self) -> dict[str, Any]:
        return {
            "sub": self.subject,
            "preferred_username": "minji",
            "groups": self.groups,
            "name": "Kim Minji",
        }

    def answer(self, method: str, path: str) -> Answer:
        if path in self.answers:
            return self.answers[path]
        if path == "/userinfo":
            return Answer(body=self.claims())
        if path == "/token":
            said = {"iss": self.issuer, "aud": CLIENT, "exp": 4_000_000_000, **self.claims(), **self.id_token}
            token = jwt.encode({k: v for k, v in said.items() if v is not None}, "k" * 32)
            body = {"access_token": "a", "refresh_token": "r", "token_type": "Bearer", "id_token": token}
            return Answer(body={k: v for k, v in (body | self.tokens).items() if v is not None})
        assert path == "/.well-known/openid-configuration"
        return Answer(body=self.document())

    def document(self) -> Mapping[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/auth",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/end",
            "scopes_supported": ["openid", "offline_access"],
        }


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    one = ScriptedProvider()
    yield one
    one.server.close()


@pytest.fixture(autouse=True)
def nobody_is_known() -> Iterator[None]:
    OidcAuthenticator.known.clear()
    yield
    OidcAuthenticator.known.clear()


class Desk:
    """Where people are written down; it can be away."""

    def __init__(self) -> None:
        self.told: list[tuple[Person, str, str]] = []
        self.names: dict[tuple[str, str], str] = {}
        self.away: Exception | None = None

    async def write(self, person: Person, issuer: str, subject: str) -> None:
        if self.away:
            raise self.away
        self.told.append((person, issuer, subject))

    async def name_of(self, issuer: str, subject: str) -> str | None:
        return self.names.get((issuer, subject))


class Handler:
    """What the authenticator sees of the request that comes back from the provider."""

    def __init__(self, language: str = "en") -> None:
        self.request = SimpleNamespace(
            headers={"Accept-Language": language}, protocol="http", host="hub.example"
        )
        self.hub = SimpleNamespace(server=SimpleNamespace(base_url="/hub/"))

    def get_argument(self, name: str, default: str = "") -> str:
        return {"code": "c"}.get(name, default)

    def get_cookie(self, name: str) -> None:
        return None

    def get_state_cookie(self) -> str:
        return "eyJzdGF0ZV9pZCI6ICIxIiwgImNvZGVfdmVyaWZpZXIiOiAidiJ9"


class User:
    """JupyterHub's user, with what was kept of the last sign-in."""

    def __init__(self, name: str, auth_state: dict[str, Any] | None) -> None:
        self.name, self.auth_state = name, auth_state

    async def get_auth_state(self) -> dict[str, Any] | None:
        return self.auth_state


def authenticator(provider: ScriptedProvider, desk: Desk | None = None, **changes: Any) -> OidcAuthenticator:
    desk = desk or Desk()
    values: dict[str, Any] = {
        "identity": IDENTITY,
        "issuer": provider.issuer,
        "found": provider_of(provider.document(), provider.issuer, allow_http=True),
        "allow_http": True,
        "client_id": CLIENT,
        "client_secret": "secret",
        "grace": GRACE,
        "clock": HandClock(),
        "name_of": desk.name_of,
        "on_sign_in": desk.write,
    }
    return OidcAuthenticator(**(values | changes))


async def signed_in(auth: OidcAuthenticator, language: str = "en") -> Any:
    return await auth.get_authenticated_user(Handler(language), None)


async def refused(auth: OidcAuthenticator, language: str = "en") -> HTTPError:
    with pytest.raises(HTTPError) as caught:
        await signed_in(auth, language)
    return caught.value


# -- coming in ----------------------------------------------------------------------------------------------------------------


async def test_somebody_whom_the_rules_know_is_in_and_written_down(provider: ScriptedProvider) -> None:
    desk = Desk()
    auth = authenticator(provider, desk)
    model = await signed_in(auth)
    assert (model["name"], model["admin"]) == ("minji", False)
    assert "groups" not in model
    assert desk.told == [(Person("minji", ("univ",), frozenset({"student"})), provider.issuer, "s-1")]
    assert auth.known["minji"].title == {"en": "Kim Minji"}
    json.dumps(model["auth_state"])


async def test_operators_administer_the_hub(provider: ScriptedProvider) -> None:
    provider.groups = ["students", "operators"]
    assert (await signed_in(authenticator(provider)))["admin"] is True


async def test_a_name_that_was_theirs_stays_theirs(provider: ScriptedProvider) -> None:
    desk = Desk()
    desk.names[provider.issuer, "s-1"] = "kim.minji"
    assert (await signed_in(authenticator(provider, desk)))["name"] == "kim.minji"


async def test_jupyterhubs_own_lists_let_nobody_in_and_may_keep_somebody_out(
    provider: ScriptedProvider,
) -> None:
    desk = Desk()
    assert await signed_in(authenticator(provider, desk, blocked_users={"minji"})) is None
    assert desk.told == []
    provider.groups = []
    error = await refused(
        authenticator(provider, desk, allow_all=True, allowed_users={"minji"}, admin_users={"minji"})
    )
    assert error.reason == "sign-in-no-pool"


@pytest.mark.parametrize(
    ("id_token", "want"),
    [
        pytest.param({"iss": "https://other.example"}, "sign-in-not-confirmed", id="another issuer"),
        pytest.param({"iss": None}, "sign-in-not-confirmed", id="no issuer"),
        pytest.param({"aud": "another"}, "sign-in-not-confirmed", id="for another program"),
        pytest.param({"aud": ["another", CLIENT], "azp": "another"}, "sign-in-not-confirmed", id="made for another program"),
        pytest.param({"exp": 1}, "sign-in-not-confirmed", id="long over"),
        pytest.param({"exp": None}, "sign-in-not-confirmed", id="without an end"),
        pytest.param({"sub": None}, "sign-in-not-confirmed", id="without a subject"),
        pytest.param({"sub": "s-2"}, "sign-in-not-confirmed", id="about somebody else than the userinfo"),
    ],
)  # fmt: skip
async def test_an_id_token_that_does_not_count(
    provider: ScriptedProvider, id_token: dict[str, Any], want: str
) -> None:
    provider.id_token = id_token
    desk = Desk()
    error = await refused(authenticator(provider, desk))
    assert (error.status_code, error.reason) == (403, want)
    assert desk.told == []


@pytest.mark.parametrize(
    ("path", "answer", "want_status"),
    [
        pytest.param("/token", Answer(400, {"error": "invalid_grant"}), 403, id="the code is not known"),
        pytest.param("/token", Answer(401, {"error": "invalid_client"}), 503, id="the hub is not known"),
        pytest.param("/token", Answer(429), 503, id="too many requests"),
        pytest.param("/token", Answer(500), 503, id="a fault there"),
        pytest.param("/token", Answer(302, headers={"Location": "/elsewhere"}), 503, id="a redirect"),
        pytest.param("/token", Answer(200, b"<html>"), 503, id="a page instead of tokens"),
        pytest.param("/token", Answer(200, b"[]"), 503, id="a list instead of tokens"),
        pytest.param("/token", Answer(200, b'{"access_token": 5}'), 503, id="a number for a token"),
        pytest.param("/token", Answer(200, {"access_token": "a"}), 503, id="no id token"),
        pytest.param("/token", Answer(200, {"access_token": "a", "id_token": "x.y.z"}), 403, id="no token at all"),
        pytest.param("/token", Answer(200, b"[" * 100_000), 503, id="very deep"),
        pytest.param("/token", Answer(200, b" " * 2_000_000), 503, id="endless"),
        pytest.param("/userinfo", Answer(401, {"error": "invalid_token"}), 403, id="the token is not known"),
        pytest.param("/userinfo", Answer(502), 503, id="the userinfo is away"),
        pytest.param("/userinfo", Answer(200, b"null"), 503, id="the userinfo says nothing"),
        pytest.param("/userinfo", Answer(200, {"sub": "s-2", "groups": ["students"]}), 403, id="the userinfo is about somebody else"),
        pytest.param("/userinfo", Answer(200, {"sub": "s-1", "iss": "https://other.example"}), 403, id="the userinfo is another issuer's"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("language", ["en", "ko"])
async def test_a_provider_that_fails_lets_nobody_in_and_is_told_in_a_sentence(
    provider: ScriptedProvider, path: str, answer: Answer, want_status: int, language: str
) -> None:
    provider.answers[path] = answer
    desk = Desk()
    error = await refused(authenticator(provider, desk), language)
    assert error.status_code == want_status
    assert str(error.log_message).isascii() is (language == "en")
    assert desk.told == []


async def test_who_cannot_be_written_down_is_not_in(provider: ScriptedProvider) -> None:
    desk = Desk()
    desk.away = StoreUnavailable("away")
    assert (await refused(authenticator(provider, desk))).reason == "sign-in-not-now"
    desk.away = NameTaken("taken")
    error = await refused(authenticator(provider, desk))
    assert (error.status_code, error.reason) == (403, "sign-in-name-taken")
    assert "minji belongs to somebody else" in str(error.log_message)


# -- staying in ---------------------------------------------------------------------------------------------------------------


async def user_of(auth: OidcAuthenticator) -> User:
    model = await signed_in(auth)
    auth.clock.at += SHARED_SECONDS
    return User(model["name"], model["auth_state"])


async def test_a_refresh_asks_with_the_token_at_hand_and_changes_nothing(provider: ScriptedProvider) -> None:
    desk = Desk()
    auth = authenticator(provider, desk)
    user = await user_of(auth)
    model = await auth.refresh_user(user)
    assert isinstance(model, dict)
    assert {**model["auth_state"], "confirmed_at": 0} == {**(user.auth_state or {}), "confirmed_at": 0}
    assert (provider.asked("/token"), provider.asked("/userinfo")) == (1, 2)
    assert len(desk.told) == 1


async def test_when_the_token_is_over_the_refresh_token_brings_a_new_one(provider: ScriptedProvider) -> None:
    auth = authenticator(provider)
    user = await user_of(auth)
    asked = provider.asked("/userinfo")
    provider.tokens = {"access_token": "a2", "refresh_token": "r2"}

    def userinfo(method: str, path: str) -> Answer:
        if path == "/userinfo" and provider.asked("/userinfo") == asked + 1:
            return Answer(401, {"error": "invalid_token"})
        return provider.answer(method, path)

    provider.server.answer = userinfo
    model = await auth.refresh_user(user)
    assert isinstance(model, dict)
    assert (model["auth_state"]["access_token"], model["auth_state"]["refresh_token"]) == ("a2", "r2")


async def test_changed_groups_and_roles_count_and_are_written_down(provider: ScriptedProvider) -> None:
    desk = Desk()
    auth = authenticator(provider, desk)
    user = await user_of(auth)
    provider.groups = ["students", "operators"]
    model = await auth.refresh_user(user)
    assert isinstance(model, dict)
    assert model["admin"] is True
    assert [sorted(person.roles) for person, _, _ in desk.told] == [["student"], ["operator", "student"]]
    provider.groups = []
    auth.clock.at += SHARED_SECONDS
    assert await auth.refresh_user(user) is False, "no rule knows them any more"


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param({"/userinfo": Answer(401), "/token": Answer(400, {"error": "invalid_grant"})}, id="the person is disabled"),
        pytest.param({"/userinfo": Answer(401)}, id="also a new token is refused"),
        pytest.param({"/userinfo": Answer(200, {"sub": "s-2", "groups": ["students"]})}, id="the claims are about somebody else"),
    ],
)  # fmt: skip
async def test_whom_the_provider_no_longer_stands_for_is_out(
    provider: ScriptedProvider, answers: dict[str, Answer]
) -> None:
    auth = authenticator(provider)
    user = await user_of(auth)
    provider.answers = answers
    assert await auth.refresh_user(user) is False


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param({"/userinfo": Answer(503)}, id="a fault there"),
        pytest.param({"/userinfo": Answer(401), "/token": Answer(500)}, id="a fault where tokens are exchanged"),
        pytest.param({"/userinfo": Answer(401), "/token": Answer(401, {"error": "invalid_client"})}, id="the hub's own secret is over"),
        pytest.param({"/userinfo": Answer(200, b"<html>")}, id="a page instead of claims"),
    ],
)  # fmt: skip
async def test_while_the_provider_is_away_people_stay_in_for_the_grace(
    provider: ScriptedProvider, answers: dict[str, Answer]
) -> None:
    auth = authenticator(provider)
    user = await user_of(auth)
    confirmed = (user.auth_state or {})["confirmed_at"]
    provider.answers = answers
    auth.clock.at = confirmed + GRACE
    model = await auth.refresh_user(user)
    assert isinstance(model, dict)
    assert model["auth_state"]["confirmed_at"] == confirmed, "the grace does not begin anew"
    auth.clock.at += SHARED_SECONDS
    assert await auth.refresh_user(user) is False
    provider.answers = {}
    auth.clock.at += SHARED_SECONDS
    assert isinstance(await auth.refresh_user(user), dict)


async def test_rules_that_changed_count_also_while_the_provider_is_away(provider: ScriptedProvider) -> None:
    auth = authenticator(provider)
    user = await user_of(auth)
    provider.answers = {"/userinfo": Answer(503)}
    auth.identity = parse_identity(
        "rules: [{name: all, when: [{claim: groups, contains: other}], gives: {pools: [univ], roles: [student]}}]",
        None,
    )
    assert await auth.refresh_user(user) is False


async def test_requests_that_come_at_once_ask_once(provider: ScriptedProvider) -> None:
    auth = authenticator(provider)
    user = await user_of(auth)
    before = provider.asked("/userinfo")
    found = await asyncio.gather(*(auth.refresh_user(user) for _ in range(20)))
    assert provider.asked("/userinfo") == before + 1
    assert all(one == found[0] for one in found)


async def test_a_new_sign_in_is_not_answered_by_an_old_refresh(provider: ScriptedProvider) -> None:
    auth = authenticator(provider)
    user = await user_of(auth)
    provider.answers = {"/userinfo": Answer(401), "/token": Answer(400, {"error": "invalid_grant"})}
    assert await auth.refresh_user(user) is False
    provider.answers = {}
    model = await signed_in(auth)
    assert isinstance(await auth.refresh_user(User("minji", model["auth_state"])), dict)


@pytest.mark.parametrize("kept", [None, {}, {"issuer": "https://other.example", "subject": "s-1"}])
async def test_who_never_signed_in_here_must_sign_in(
    provider: ScriptedProvider, kept: dict[str, Any] | None
) -> None:
    assert await authenticator(provider).refresh_user(User("minji", kept)) is False


async def test_a_refresh_that_cannot_write_keeps_the_person_in_and_tries_again(
    provider: ScriptedProvider,
) -> None:
    desk = Desk()
    auth = authenticator(provider, desk)
    user = await user_of(auth)
    provider.groups = ["students", "operators"]
    desk.away = StoreUnavailable("away")
    assert isinstance(await auth.refresh_user(user), dict)
    desk.away = None
    auth.clock.at += SHARED_SECONDS
    await auth.refresh_user(user)
    assert [len(person.roles) for person, _, _ in desk.told] == [1, 2]


# -- claims of the id token ---------------------------------------------------------------------------------------------------------


async def test_claims_may_come_from_the_id_token_and_are_refreshed_with_it(
    provider: ScriptedProvider,
) -> None:
    auth = authenticator(provider, claims_from="id_token")
    user = await user_of(auth)
    provider.groups = ["students", "operators"]
    model = await auth.refresh_user(user)
    assert isinstance(model, dict)
    assert model["admin"] is True
    assert provider.asked("/userinfo") == 0
    provider.tokens = {"id_token": None}
    auth.clock.at += SHARED_SECONDS
    assert isinstance(await auth.refresh_user(user), dict), "no id token is no news: the grace"
    auth.clock.at += GRACE + 1
    assert await auth.refresh_user(user) is False


# -- the provider itself ----------------------------------------------------------------------------------------------------------


async def test_a_provider_that_was_away_at_the_start_is_found_later(provider: ScriptedProvider) -> None:
    auth = authenticator(provider, found=None)
    provider.answers["/.well-known/openid-configuration"] = Answer(503)
    with pytest.raises(ProviderAway, match="answers 503"):
        await auth.find_provider()
    provider.answers.clear()
    assert (await signed_in(auth))["name"] == "minji"
    assert auth.scope == ["openid", "profile", "email", "offline_access"]
    assert auth.authorize_url == f"{provider.issuer}/auth"


def test_what_is_asked_for_is_what_the_settings_say(provider: ScriptedProvider) -> None:
    assert authenticator(provider, scope=["openid", "groups"]).scope == ["openid", "groups"]


def test_signing_out_names_the_hub_and_where_to_come_back(provider: ScriptedProvider) -> None:
    address = authenticator(provider).end_session(Handler(), "t")
    assert address.startswith(
        f"{provider.issuer}/end?client_id=hub&id_token_hint=t&post_logout_redirect_uri="
    )
    assert address.endswith("http%3A%2F%2Fhub.example%2Fhub%2Flogin")
    silent = Provider(provider.issuer, "a", "t", "u")
    assert authenticator(provider, found=silent).end_session(Handler(), "t") == ""


@pytest.mark.parametrize(
    ("answer", "want_error", "want"),
    [
        pytest.param(Answer(404), BadProvider, "answers 404, not 200", id="nothing there"),
        pytest.param(Answer(302, headers={"Location": "https://elsewhere.example"}), BadProvider, "answers 302", id="a redirect"),
        pytest.param(Answer(200, b"<html>"), BadProvider, "is no JSON", id="a page"),
        pytest.param(Answer(200, b"[" * 100_000), BadProvider, "is no JSON", id="very deep"),
        pytest.param(Answer(200, b"[]"), BadProvider, "no JSON object", id="a list"),
        pytest.param(Answer(200, b" " * 2_000_000), BadProvider, "larger than 1 MiB", id="endless"),
        pytest.param(Answer(200, {"issuer": "https://other.example"}), BadProvider, "calls itself 'https://other.example'", id="another name"),
        pytest.param(Answer(HTTPStatus.SERVICE_UNAVAILABLE), ProviderAway, "answers 503", id="a fault there"),
        pytest.param(Answer(429), ProviderAway, "answers 429", id="too many requests"),
    ],
)  # fmt: skip
def test_a_provider_that_cannot_be_used(
    provider: ScriptedProvider, answer: Answer, want_error: type[Exception], want: str
) -> None:
    provider.answers["/.well-known/openid-configuration"] = answer
    with pytest.raises(want_error, match=want):
        discover(provider.issuer, allow_http=True)


def test_nothing_that_listens() -> None:
    with pytest.raises(ProviderAway, match="does not answer"):
        discover("http://127.0.0.1:1", allow_http=True)


@pytest.mark.parametrize("address", [None, 5, "", "ftp://x", "//x", "http://x"])
def test_addresses_that_cannot_be_used(address: object) -> None:
    document = {"issuer": "https://i", "authorization_endpoint": "https://i/a", "token_endpoint": address}
    with pytest.raises(BadProvider, match="names no usable token_endpoint"):
        provider_of(document, "https://i")

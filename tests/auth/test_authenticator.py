from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tornado.web import HTTPError
from traitlets.config import Config

from hub_ext.auth.authenticator import DemoAuthenticator
from hub_ext.auth.claims import Entry, Identity
from hub_ext.auth.throttle import FIRST_WAIT, FREE_TRIES
from hub_ext.core.errors import BadInput, SchemaMismatch, StoreUnavailable
from hub_ext.core.people import Person
from tests.auth.fakes import HandClock

PASSWORD = "a good one"


def identity(**roles: str) -> Identity:
    return Identity({name: Entry(name, ("univ",), frozenset({role})) for name, role in roles.items()})


PEOPLE = identity(student="student", op="operator")


class Desk:
    """Where `on_sign_in` writes; it can be away."""

    def __init__(self) -> None:
        self.told: list[Person] = []
        self.away: Exception | None = None

    async def write(self, person: Person) -> None:
        if self.away:
            raise self.away
        self.told.append(person)


def authenticator(desk: Desk | None = None, **changes: Any) -> DemoAuthenticator:
    values: dict[str, Any] = {"identity": PEOPLE, "password": PASSWORD, "clock": HandClock()}
    return DemoAuthenticator(**(values | {"on_sign_in": desk.write if desk else None} | changes))


async def sign_in(auth: DemoAuthenticator, name: str = "student", password: str = PASSWORD) -> Any:
    return await auth.get_authenticated_user(None, {"username": name, "password": password})


# -- who is let in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "password", "want_name"),
    [
        pytest.param("student", PASSWORD, "student", id="a known name with the right password"),
        pytest.param("Student", PASSWORD, "student", id="capital letters"),
        pytest.param(" student ", PASSWORD, "student", id="spaces around the name"),
        pytest.param("student", PASSWORD.upper(), None, id="a wrong password"),
        pytest.param("student", PASSWORD + " ", None, id="a space after the password"),
        pytest.param("student", "", None, id="no password"),
        pytest.param("nobody", PASSWORD, None, id="an unknown name"),
        pytest.param("", PASSWORD, None, id="no name"),
        pytest.param("../op", PASSWORD, None, id="a path for a name"),
        pytest.param("op\x00", PASSWORD, None, id="a zero byte after the name"),
        pytest.param("student", "비밀번호가 아님", None, id="a password in Korean"),
        pytest.param("student", "\ud800", None, id="half a character"),
        pytest.param("x" * 100_000, "y" * 100_000, None, id="very long input"),
    ],
)
async def test_who_is_let_in(name: str, password: str, want_name: str | None) -> None:
    found = await sign_in(authenticator(), name, password)
    assert (found and found["name"]) == want_name


@pytest.mark.parametrize("data", [{}, {"username": "student"}, {"password": PASSWORD}])
async def test_a_form_without_its_fields_is_refused_with_a_sentence(data: dict[str, str]) -> None:
    with pytest.raises(HTTPError, match="without a user name or a password"):
        await authenticator().get_authenticated_user(None, data)


async def test_operators_administer_the_hub_and_others_are_said_not_to() -> None:
    auth = authenticator()
    assert (await sign_in(auth, "op"))["admin"] is True
    assert (await sign_in(auth))["admin"] is False
    assert auth.admin_users == {"op"}
    assert auth.allowed_users == {"student", "op"}


async def test_a_blocked_person_is_not_let_in_and_not_written_down() -> None:
    desk = Desk()
    assert await sign_in(authenticator(desk, blocked_users={"student"})) is None
    assert desk.told == []


async def test_the_hubs_memory_of_old_users_lets_nobody_back_in() -> None:
    auth = authenticator()
    auth.add_user(SimpleNamespace(name="gone"))
    assert not auth.allow_existing_users
    assert not auth.check_allowed("gone")
    assert await sign_in(auth, "gone") is None


async def test_allow_all_does_not_let_in_whom_nobody_knows() -> None:
    assert await sign_in(authenticator(allow_all=True), "nobody") is None


@pytest.mark.parametrize(
    ("password", "want"),
    [
        ("", "password is missing"),
        ("        ", "password is missing"),
        ("1234567", "password is too short"),
        ("    1234567   ", "too short"),
    ],
)
def test_a_missing_or_short_password_does_not_start(password: str, want: str) -> None:
    with pytest.raises(BadInput, match=want):
        authenticator(password=password)


def test_it_is_made_from_the_hubs_configuration() -> None:
    async def write(person: Person) -> None: ...

    config = Config()
    config.DemoAuthenticator.identity = PEOPLE
    config.DemoAuthenticator.password = PASSWORD
    config.DemoAuthenticator.on_sign_in = write
    auth = DemoAuthenticator(config=config)
    assert auth.identity == PEOPLE
    assert auth.on_sign_in is write
    assert auth.clock.now() > 0
    auth.check_allow_config()
    assert auth.any_allow_config


# -- what is written down -------------------------------------------------------------------------------------------


async def test_whoever_signs_in_is_written_down_after_every_check() -> None:
    desk = Desk()
    auth = authenticator(desk)
    await sign_in(auth, password="a wrong one")
    assert desk.told == []
    await sign_in(auth)
    assert desk.told == [Person("student", ("univ",), frozenset({"student"}))]


@pytest.mark.parametrize("away", [StoreUnavailable("ledger is locked"), SchemaMismatch("version 3")])
async def test_when_nothing_can_be_written_nobody_is_in_and_the_page_says_why(away: Exception) -> None:
    desk = Desk()
    auth = authenticator(desk)
    desk.away = away
    with pytest.raises(HTTPError) as caught:
        await sign_in(auth)
    error = caught.value
    assert (error.status_code, error.reason) == (503, "sign-in-not-now")
    assert "Signing in is not possible at this moment" in str(error.log_message)
    assert str(away) not in str(error.log_message)
    assert error.headers == {"Retry-After": "60"}  # type: ignore[attr-defined]
    assert error.__suppress_context__
    desk.away = None
    assert (await sign_in(auth))["name"] == "student"


async def test_an_error_that_nobody_foresaw_is_not_hidden() -> None:
    desk = Desk()
    desk.away = RuntimeError("a mistake of ours")
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        await sign_in(authenticator(desk))


async def test_the_sites_own_hook_still_runs_before() -> None:
    seen: list[str] = []
    desk = Desk()

    def hook(auth: Any, handler: Any, model: dict[str, Any]) -> dict[str, Any]:
        seen.append(f"hook, told {len(desk.told)}")
        return model

    await sign_in(authenticator(desk, post_auth_hook=hook))
    assert seen == ["hook, told 0"]
    assert len(desk.told) == 1


# -- later ------------------------------------------------------------------------------------------------------------


async def test_a_refresh_writes_only_what_changed() -> None:
    desk = Desk()
    auth = authenticator(desk)
    await sign_in(auth)
    assert await auth.refresh_user(SimpleNamespace(name="student")) == {"name": "student", "admin": False}
    assert len(desk.told) == 1
    auth.identity = identity(student="operator")
    assert await auth.refresh_user(SimpleNamespace(name="student")) == {"name": "student", "admin": True}
    assert [sorted(person.roles) for person in desk.told] == [["student"], ["operator"]]


async def test_after_a_restart_the_first_refresh_writes() -> None:
    desk = Desk()
    await authenticator(desk).refresh_user(SimpleNamespace(name="student"))
    assert len(desk.told) == 1


async def test_a_refresh_that_cannot_write_keeps_the_person_in_and_tries_again() -> None:
    desk = Desk()
    auth = authenticator(desk)
    desk.away = StoreUnavailable("away")
    assert await auth.refresh_user(SimpleNamespace(name="student")) == {"name": "student", "admin": False}
    desk.away = None
    await auth.refresh_user(SimpleNamespace(name="student"))
    assert len(desk.told) == 1


async def test_who_was_taken_out_of_the_document_must_leave_with_their_tokens() -> None:
    auth = authenticator()
    auth.identity = identity(op="operator")
    assert auth.allowed_users == {"op"}
    assert await auth.refresh_user(SimpleNamespace(name="student")) is False
    assert auth.auth_refresh_strict
    assert await sign_in(auth) is None


# -- guessing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["student", "nobody"])
async def test_after_five_wrong_passwords_a_name_waits_whether_it_exists_or_not(name: str) -> None:
    auth = authenticator()
    for _ in range(FREE_TRIES):
        assert await sign_in(auth, name, "a wrong one") is None
    for password in ("a wrong one", PASSWORD):
        with pytest.raises(HTTPError) as caught:
            await sign_in(auth, name.upper(), password)
        error = caught.value
        assert (error.status_code, error.reason) == (429, "sign-in-too-many-tries")
        assert error.log_message == f"Too many wrong passwords for this name. Try again in {FIRST_WAIT} s."
        assert error.headers == {"Retry-After": str(FIRST_WAIT)}  # type: ignore[attr-defined]


async def test_after_the_wait_the_right_password_opens_again_and_the_count_is_forgotten() -> None:
    auth = authenticator()
    for _ in range(FREE_TRIES):
        await sign_in(auth, password="a wrong one")
    auth.clock.at += FIRST_WAIT
    assert (await sign_in(auth))["name"] == "student"
    for _ in range(FREE_TRIES - 1):
        assert await sign_in(auth, password="a wrong one") is None
    assert (await sign_in(auth))["name"] == "student"


async def test_others_are_not_held_up() -> None:
    auth = authenticator()
    for _ in range(FREE_TRIES):
        await sign_in(auth, password="a wrong one")
    assert (await sign_in(auth, "op"))["name"] == "op"


@pytest.mark.parametrize("name", ["student", "nobody"])
async def test_the_password_is_read_for_every_name_so_that_time_tells_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr("hub_ext.auth.authenticator._same", lambda sent, expected: bool(read.append(sent)))
    await sign_in(authenticator(), name, "a guess")
    assert read == ["a guess"]

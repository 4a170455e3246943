"""The whole way of signing in: a real hub, a real Keycloak, over HTTP."""

from __future__ import annotations

import base64
import json
import sqlite3
from typing import Any

import httpx
import pytest

from tests.auth.conftest import MakeHub
from tests.support.hub import EmbeddedHub, Visitor, text_of, wait_for
from tests.support.keycloak import PASSWORD, Guest, Keycloak, needs_java

pytestmark = [pytest.mark.keycloak, pytest.mark.slow, needs_java]


@pytest.fixture(scope="module")
def hub(make_provider_hub: MakeHub) -> EmbeddedHub:
    return make_provider_hub()


def written(hub: EmbeddedHub, name: str) -> dict[str, Any] | None:
    """The row of the table `people`."""
    with sqlite3.connect(hub.state / "ledger.sqlite") as database:
        database.row_factory = sqlite3.Row
        row = database.execute("SELECT * FROM people WHERE name = ?", (name,)).fetchone()
    database.close()
    return None if row is None else dict(row) | {key: json.loads(row[key]) for key in ("pools", "roles")}


def is_in(guest: Guest) -> bool:
    """Whether the hub still knows them by their cookies."""
    return guest.http.get("/hub/home", follow_redirects=False).status_code == 200


# -- who is let in, and as whom --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "want_pools", "want_roles", "want_header"),
    [
        pytest.param("bora", ["city-traffic"], ["lead", "researcher"], "Bora Kim · City Traffic Office (Public sector)", id="the public sector"),
        pytest.param("haneul", ["hangang-univ", "hangang-ai-course"], ["student"], "Haneul Lee · Hangang University (Public interest sector)", id="the public interest sector"),
        pytest.param("taeyang", ["naru-robotics", "ai-50-challenge"], ["researcher"], "Taeyang Park · Naru Robotics (startup) (Private sector)", id="the private sector"),
        pytest.param("professor", ["hangang-univ", "hangang-vision", "hangang-ai-course"], ["instructor", "researcher"], "Nara Choi · Hangang University", id="an instructor"),
        pytest.param("operator", ["seoul-ai-institute"], ["operator", "researcher"], "Areum Jung · Seoul AI Institute", id="an operator"),
    ],
)  # fmt: skip
def test_people_of_every_sector_sign_in_with_their_pools_and_roles(
    hub: EmbeddedHub,
    keycloak: Keycloak,
    name: str,
    want_pools: list[str],
    want_roles: list[str],
    want_header: str,
) -> None:
    guest = Guest(hub, name)
    home = guest.come()
    assert (home.status_code, str(home.url)) == (200, f"{hub.url}/hub/home")
    assert want_header in text_of(home.text)
    row = written(hub, name)
    assert row is not None
    assert (row["pools"], row["roles"]) == (want_pools, want_roles)
    assert (row["issuer"], row["subject"]) == (keycloak.issuer, keycloak.user(name)["id"])
    me = guest.api("GET", "/user").json()
    assert me["admin"] is ("operator" in want_roles)
    assert me["groups"] == []
    assert guest.api("GET", "/users").status_code == (200 if me["admin"] else 403)
    start = guest.http.get("/hub/spawn")
    assert start.status_code == 200
    assert 'name="profile"' in start.text


def test_a_wrong_password_stays_at_the_provider(hub: EmbeddedHub, keycloak: Keycloak) -> None:
    guest = Guest(hub, "haneul")
    answer = guest.come(password="a wrong one")
    assert str(answer.url).startswith(keycloak.url)
    assert not is_in(guest)


@pytest.mark.parametrize(
    ("language", "want"), [("en", "no rule of this centre gives you a pool"), ("ko", "자원 풀")]
)
def test_a_stranger_is_told_what_was_claimed_and_whom_to_ask(
    hub: EmbeddedHub, language: str, want: str
) -> None:
    guest = Guest(hub, "stranger", language=language)
    answer = guest.come()
    assert answer.status_code == 403
    told = text_of(answer.text)
    assert want in told
    assert "email=stranger@elsewhere.example" in told
    assert "desk@hangang.example" in told
    assert not is_in(guest)
    assert written(hub, "stranger") is None


def test_somebody_disabled_at_the_provider_does_not_get_in(hub: EmbeddedHub) -> None:
    guest = Guest(hub, "gone")
    guest.come()
    assert not is_in(guest)
    assert written(hub, "gone") is None


def test_the_demos_password_opens_nothing_and_its_form_is_not_there(hub: EmbeddedHub) -> None:
    visitor = Visitor(hub)
    page = visitor.http.get("/hub/login")
    assert "Sign in with Hangang ID" in text_of(page.text)
    assert "login_form" not in page.text
    assert "Look around as" not in page.text
    visitor.sign_in("operator")
    assert visitor.http.get("/hub/home", follow_redirects=False).status_code == 302
    assert "through http://127.0.0.1" in hub.output()
    assert "Password" not in hub.output()


# -- how long they stay in -------------------------------------------------------------------------------------------------------


def test_somebody_who_is_disabled_is_out_with_their_tokens_after_the_next_refresh(
    hub: EmbeddedHub, keycloak: Keycloak
) -> None:
    guest = Guest(hub, "byeol")
    guest.come()
    token = guest.api("POST", "/users/byeol/tokens", json={"note": "a program"}).json()["token"]
    program = httpx.Client(base_url=hub.url, headers={"Authorization": f"token {token}"}, trust_env=False)
    assert program.get("/hub/api/user").status_code == 200
    keycloak.change("byeol", enabled=False)
    try:
        wait_for(lambda: not is_in(guest), "the person is out", 30)
        wait_for(lambda: program.get("/hub/api/user").status_code == 403, "the token is out", 30)
        guest.come()
        assert not is_in(guest)
    finally:
        program.close()
        keycloak.change("byeol", enabled=True)
    guest.come()
    assert is_in(guest)


def test_changed_groups_and_roles_at_the_provider_count_after_the_next_refresh(
    hub: EmbeddedHub, keycloak: Keycloak
) -> None:
    guest = Guest(hub, "byeol")
    guest.come()
    assert (written(hub, "byeol") or {})["pools"] == ["hangang-univ"]
    keycloak.join("byeol", "/projects/vision")
    operator = keycloak.admin("GET", "/roles/operator").json()
    roles = f"/users/{keycloak.user('byeol')['id']}/role-mappings/realm"
    keycloak.admin("POST", roles, json=[operator])

    def pools() -> Any:
        assert is_in(guest)
        return (written(hub, "byeol") or {})["pools"]

    wait_for(lambda: pools() == ["hangang-univ", "hangang-vision"], "the project's pool is written down", 30)
    wait_for(lambda: guest.api("GET", "/user").json()["admin"], "the operator administers the hub", 30)
    keycloak.admin("DELETE", roles, json=[operator])
    wait_for(lambda: not guest.api("GET", "/user").json()["admin"], "and does not any more", 30)


def test_a_session_that_was_ended_at_the_provider_needs_a_new_sign_in(
    make_provider_hub: MakeHub, keycloak: Keycloak
) -> None:
    # Without offline access what the hub keeps lives as long as the person's session at the provider.
    hub = make_provider_hub(scopes=["openid", "profile", "email"])
    guest = Guest(hub, "taeyang")
    guest.come()
    assert is_in(guest)
    keycloak.admin("POST", f"/users/{keycloak.user('taeyang')['id']}/logout")
    wait_for(lambda: not is_in(guest), "the person must sign in again", 30)
    guest.come()
    assert is_in(guest)


def test_while_the_provider_is_away_people_stay_in_for_the_grace_and_nobody_comes_in(
    make_provider_hub: MakeHub, keycloak: Keycloak
) -> None:
    hub = make_provider_hub(grace="25s")
    guest = Guest(hub, "haneul")
    guest.come()
    with keycloak.paused():
        refreshed = hub.log("hub").count("haneul stays in for now")
        wait_for(
            lambda: is_in(guest) and hub.log("hub").count("haneul stays in for now") > refreshed,
            "the person stays in though the provider could not be asked",
            60,
        )
        wait_for(lambda: not is_in(guest), "the grace is over", 90)
        hub.child("hub").kill()
        wait_for(
            lambda: "does not answer: nobody can sign in" in hub.log("hub"), "the hub starts without it", 90
        )

        def told() -> bool:
            answer = Guest(hub, "haneul").http.get("/hub/oauth_login")
            return answer.status_code == 503 and "does not answer at this moment" in text_of(answer.text)

        wait_for(told, "who signs in now is told", 90, every=1)
    guest.come()
    assert is_in(guest)


# -- whose name it is ----------------------------------------------------------------------------------------------------------------


def test_a_name_that_is_given_to_somebody_else_at_the_provider_opens_nothing_here(
    hub: EmbeddedHub, keycloak: Keycloak
) -> None:
    Guest(hub, "professor").come()
    before = written(hub, "professor")
    keycloak.replace("professor")
    other = Guest(hub, "professor")
    answer = other.come()
    assert answer.status_code == 403
    assert "The user name professor belongs to somebody else here." in text_of(answer.text)
    assert not is_in(other)
    assert written(hub, "professor") == before


def test_a_name_that_changes_at_the_provider_stays_the_same_here(
    hub: EmbeddedHub, keycloak: Keycloak
) -> None:
    Guest(hub, "taeyang").come()
    keycloak.admin("PUT", "", json={"editUsernameAllowed": True})
    keycloak.change("taeyang", username="taeyang.park")
    guest = Guest(hub, "taeyang.park")
    try:
        guest.come()
        assert guest.api("GET", "/user").json()["name"] == "taeyang"
        assert written(hub, "taeyang.park") is None
    finally:
        keycloak.change("taeyang.park", username="taeyang")


# -- out ---------------------------------------------------------------------------------------------------------------------------------


def test_signing_out_ends_the_session_at_the_provider_too(hub: EmbeddedHub) -> None:
    guest = Guest(hub, "haneul")
    guest.come()
    out = guest.http.get("/hub/logout")
    assert str(out.url).startswith(f"{hub.url}/hub/login"), "by way of the provider, back to our own page"
    assert not is_in(guest)
    again = guest.http.get("/hub/oauth_login")
    assert 'id="kc-form-login"' in again.text, "the provider asks for the password again"


# -- forgeries -------------------------------------------------------------------------------------------------------------------------


def state(data: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).decode()


@pytest.mark.parametrize(
    "query",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"code": "x"}, id="a code alone"),
        pytest.param({"code": "x", "state": state({"state_id": "0" * 32})}, id="a state of somebody else"),
        pytest.param({"code": "x", "state": state({})}, id="an empty state"),
        pytest.param({"code": "x", "state": state([1])}, id="a list for a state"),
        pytest.param({"code": "x", "state": "%%%"}, id="no base64"),
        pytest.param({"code": "x", "state": "한글"}, id="Korean letters"),
        pytest.param({"error": "access_denied", "error_description": "<b>call 555</b>"}, id="an error of somebody else"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("begun", [False, True], ids=["nothing begun", "a sign-in begun"])
def test_a_forged_way_back_is_refused_with_a_sentence(
    hub: EmbeddedHub, query: dict[str, str], begun: bool
) -> None:
    guest = Guest(hub, "haneul")
    if begun:
        guest.http.get("/hub/oauth_login")
    answer = guest.http.get("/hub/oauth_callback", params=query)
    assert answer.status_code == 400
    assert "did not begin in this browser" in text_of(answer.text)
    assert "555" not in text_of(answer.text)
    assert not is_in(guest)


def way_back(guest: Guest) -> str:
    """Sign in at the provider; the address it sends the person back to, not yet visited."""
    page = guest.http.get("/hub/oauth_login")
    guest.http.follow_redirects = False
    answer = guest.fill_in(page)
    guest.http.follow_redirects = True
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


def test_a_way_back_works_in_the_browser_where_it_began_and_once(hub: EmbeddedHub) -> None:
    guest, other = Guest(hub, "haneul"), Guest(hub, "bora")
    address = way_back(guest)
    other.http.get("/hub/oauth_login")
    stolen = other.http.get(address)
    assert stolen.status_code == 400
    assert not is_in(other)
    assert guest.http.get(address).status_code == 200
    assert is_in(guest)
    assert guest.http.get(address).status_code == 400


def test_a_code_that_the_provider_does_not_know_is_refused(hub: EmbeddedHub) -> None:
    guest = Guest(hub, "haneul")
    address = httpx.URL(way_back(guest))
    forged = address.copy_merge_params({"code": "0" * 32})
    answer = guest.http.get(forged)
    assert answer.status_code == 403
    assert "did not confirm who you are" in text_of(answer.text)
    assert not is_in(guest)


def test_who_ends_signing_in_at_the_provider_is_told_so(hub: EmbeddedHub) -> None:
    guest = Guest(hub, "haneul")
    address = httpx.URL(way_back(guest))
    ended = address.copy_remove_param("code").copy_merge_params({"error": "access_denied"})
    answer = guest.http.get(ended)
    assert answer.status_code == 403
    assert "you ended it there" in text_of(answer.text)


@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example/", "\\\\evil.example"])
def test_nobody_is_sent_elsewhere_after_signing_in(hub: EmbeddedHub, target: str) -> None:
    guest = Guest(hub, "haneul")
    assert guest.come(next_url=target).url.host == "127.0.0.1"


# -- settings -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param({"issuer": "{url}/realms/nobody"}, "answers 404, not 200; check the address of the issuer", id="no such realm"),
        pytest.param({"issuer": "{issuer}/"}, "the provider calls itself", id="a slash too many"),
    ],
)  # fmt: skip
def test_a_hub_with_a_wrong_issuer_does_not_start_and_says_why(
    make_provider_hub: MakeHub, keycloak: Keycloak, changes: dict[str, str], want: str
) -> None:
    filled = {name: text.format(url=keycloak.url, issuer=keycloak.issuer) for name, text in changes.items()}
    with pytest.raises(AssertionError, match="The hub does not start") as caught:
        make_provider_hub(**filled)
    assert want in str(caught.value)


def test_a_wrong_client_secret_lets_nobody_in_and_is_told_to_operators(
    make_provider_hub: MakeHub, keycloak: Keycloak
) -> None:
    hub = make_provider_hub(client_secret="a wrong one")
    answer = Guest(hub, "haneul").come()
    assert answer.status_code == 503
    assert "unauthorized_client" in hub.log("hub")
    assert PASSWORD not in hub.log("hub")

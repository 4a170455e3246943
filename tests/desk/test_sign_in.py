"""Signing in at the desk through a real hub: what is let in, and everything that is not."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support.desk import API, DESK, AtTheDesk, with_token
from tests.support.hub import PASSWORD, EmbeddedHub, text_of, wait_for

PAGE = f"{DESK}/mine"
COOKIE = "hangang-desk"


@pytest.fixture
def student(hub: EmbeddedHub) -> AtTheDesk:
    return AtTheDesk(hub, "student")


def stranger(hub: EmbeddedHub, **headers: str) -> httpx.Client:
    return httpx.Client(
        base_url=hub.url, headers={"Accept": "text/html", **headers}, trust_env=False, timeout=30
    )


def test_the_desk_answers_that_it_is_alive_without_sign_in(hub: EmbeddedHub) -> None:
    answer = httpx.get(f"{hub.url}{DESK}/health", trust_env=False)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_whoever_is_signed_in_at_the_hub_is_at_the_desk_without_another_question(student: AtTheDesk) -> None:
    page = student.page("/")
    assert page.status_code == 200
    assert page.url.path == PAGE
    assert "Student" in text_of(page.text)
    assert "Hangang University" in text_of(page.text)


def test_signing_in_leads_back_to_the_page_that_was_asked_for(hub: EmbeddedHub) -> None:
    person = AtTheDesk(hub)
    first = person.page("/mine?days=30")
    assert first.url.path == "/hub/login"
    target = parse_qs(urlsplit(str(first.url)).query)["next"][0]
    person.name = "student"
    arrived = person.http.post(
        "/hub/login",
        data={"username": "student", "password": PASSWORD, "_xsrf": person.xsrf},
        params={"next": target},
    )
    assert arrived.url.raw_path == b"/services/desk/mine?days=30"


def test_a_page_says_nothing_to_a_stranger_but_where_to_sign_in(hub: EmbeddedHub) -> None:
    with stranger(hub) as browser:
        answer = browser.get(PAGE)
    assert answer.status_code == 302
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query["client_id"] == ["service-desk"]
    assert query["redirect_uri"] == [f"{DESK}/oauth_callback"]
    assert query["code_challenge_method"] == ["S256"]
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert answer.text == ""


@pytest.mark.parametrize("path", ["/mine", "/pool", "/centre", "/tickets/t1", "/tickets/t1/events"])
def test_a_stranger_who_asks_for_no_page_is_told_401(hub: EmbeddedHub, path: str) -> None:
    answer = httpx.get(f"{hub.url}{DESK}{path}", headers={"Accept": "*/*"}, trust_env=False)
    assert answer.status_code == 401
    assert answer.json()["code"] == "not-signed-in"


# -- the way back from the hub ------------------------------------------------------------------------------------


def begun(person: AtTheDesk) -> tuple[str, str]:
    """Go to the hub with the browser and stop before coming back: the code and the state."""
    person.http.follow_redirects = False
    to_the_hub = person.page()
    back = person.http.get(to_the_hub.headers["location"])
    person.http.follow_redirects = True
    query = parse_qs(urlsplit(back.headers["location"]).query)
    return query["code"][0], query["state"][0]


def come_back(person: AtTheDesk, **query: str) -> httpx.Response:
    return person.http.get(f"{DESK}/oauth_callback", params=query)


def refused(answer: httpx.Response) -> bool:
    return answer.status_code == 400 and 'data-code="sign-in-not-begun"' in answer.text


def test_a_code_is_good_once(student: AtTheDesk) -> None:
    code, state = begun(student)
    assert come_back(student, code=code, state=state).url.path == PAGE
    assert refused(come_back(student, code=code, state=state)), "its state is used up"
    student.http.cookies.delete(COOKIE)
    _, another = begun(student)
    assert refused(come_back(student, code=code, state=another)), "and the hub takes no code twice"


def test_a_forged_state_signs_nobody_in(student: AtTheDesk) -> None:
    code, state = begun(student)
    for forged in ("", "x", state[:-1], state + "x", "../" + state, "A" * 22, "한글"):
        assert refused(come_back(student, code=code, state=forged)), forged
    assert student.http.cookies.get(COOKIE) is None


def test_nobody_is_signed_in_by_a_link_that_another_began(hub: EmbeddedHub, student: AtTheDesk) -> None:
    """Login CSRF: the attacker's code in the victim's browser."""
    code, state = begun(student)
    victim = AtTheDesk(hub, "researcher")
    assert refused(come_back(victim, code=code, state=state))
    assert victim.http.cookies.get(COOKIE) is None


def test_a_code_without_its_verifier_is_worth_nothing(hub: EmbeddedHub, student: AtTheDesk) -> None:
    """Whoever reads the code on its way back still lacks what only the browser has."""
    code, _ = begun(student)
    thief = AtTheDesk(hub, "researcher")
    _, own_state = begun(thief)
    assert refused(come_back(thief, code=code, state=own_state))


def test_what_stands_in_the_address_is_never_shown(student: AtTheDesk) -> None:
    _, state = begun(student)
    answer = come_back(
        student, state=state, error="access_denied<script>", error_description="ring-this-number"
    )
    assert answer.status_code == 403
    assert "access_denied" not in answer.text
    assert "ring-this" not in answer.text


# -- the session ------------------------------------------------------------------------------------------------------


def test_the_cookie_is_for_the_desk_alone_and_for_no_script(student: AtTheDesk) -> None:
    code, state = begun(student)
    student.http.follow_redirects = False
    cookies = come_back(student, code=code, state=state).headers.get_list("set-cookie")
    (session,) = [one for one in cookies if one.startswith(f"{COOKIE}=")]
    assert "HttpOnly" in session
    assert "SameSite=lax" in session
    assert f"Path={DESK}" in session
    assert student.name not in session


def changed(value: str, place: int) -> str:
    return value[:place] + ("A" if value[place] != "A" else "B") + value[place + 1 :]


def test_a_forged_cookie_is_nobody(hub: EmbeddedHub, student: AtTheDesk) -> None:
    student.page()
    good = student.http.cookies[COOKIE]
    session = student.http.cookies["jupyterhub-session-id"]
    for forged in (changed(good, 5), changed(good, len(good) - 3), good[:-1], "x", "W10.x.y", ""):
        cookies = f"{COOKIE}={forged}; jupyterhub-session-id={session}"
        answer = httpx.get(f"{hub.url}{PAGE}", headers={"Cookie": cookies}, trust_env=False)
        assert answer.status_code == 401, forged
    cookies = f"{COOKIE}={good}; jupyterhub-session-id={session}"
    answer = httpx.get(
        f"{hub.url}{PAGE}", headers={"Cookie": cookies, "Accept": "text/html"}, trust_env=False
    )
    assert answer.status_code == 200, "and the true one is somebody"


def test_a_cookie_without_the_hubs_session_is_nobody(hub: EmbeddedHub, student: AtTheDesk) -> None:
    student.page()
    for session in ("", "; jupyterhub-session-id=0000"):
        cookies = f"{COOKIE}={student.http.cookies[COOKIE]}{session}"
        answer = httpx.get(f"{hub.url}{PAGE}", headers={"Cookie": cookies}, trust_env=False)
        assert answer.status_code == 401


def test_signing_out_of_the_hub_signs_out_of_the_desk(student: AtTheDesk) -> None:
    assert student.page().status_code == 200
    student.http.get("/hub/logout")
    assert student.page().url.path == "/hub/login"


def test_signing_out_of_the_desk_signs_out_of_the_hub(student: AtTheDesk) -> None:
    assert student.page().status_code == 200
    student.page("/logout")
    assert student.http.cookies.get(COOKIE) is None
    assert student.http.get("/hub/home").url.path == "/hub/login"


def test_another_person_in_the_same_browser_is_that_person(hub: EmbeddedHub, student: AtTheDesk) -> None:
    assert "Student" in student.page().text
    student.http.get("/hub/logout")
    student.sign_in("researcher")
    assert "Researcher" in student.page().text


# -- forms and scripts ----------------------------------------------------------------------------------------------


def test_a_form_without_the_sessions_token_does_nothing(hub: EmbeddedHub, student: AtTheDesk) -> None:
    other = AtTheDesk(hub, "researcher").csrf
    for csrf in ("", "x", other, changed(student.csrf, 3)):
        answer = student.post("/tickets/t1/leave", csrf)
        assert answer.status_code == 403, csrf
        assert 'data-code="form-not-ours"' in answer.text
    assert student.post("/tickets/t1/leave").status_code == 404, "and with it only the ticket is missing"


def test_a_script_of_another_page_at_the_same_address_reads_nothing(student: AtTheDesk) -> None:
    """Somebody's server shares the hub's address: what the browser says of a request tells it from a page."""
    student.page()
    script = {
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Site": "same-origin",
        "Referer": f"{student.hub.url}{PAGE}",
    }
    assert student.page(headers=script).status_code == 403
    assert student.http.get(f"{API}/leases", headers=script).status_code == 403
    assert student.http.post(f"{API}/servers", json={"profile": "h200"}).status_code == 403
    assert student.page(headers=script | {"X-CSRF-Token": student.csrf}).status_code == 200


def test_every_answer_forbids_what_no_page_needs(hub: EmbeddedHub, student: AtTheDesk) -> None:
    answers = [
        student.page(),
        student.page("/nothing"),
        httpx.get(f"{hub.url}{API}/leases", trust_env=False),
        httpx.get(f"{hub.url}{DESK}/static/desk.css", trust_env=False),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert answers[0].headers["cache-control"] == "no-store"


# -- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", ["", "token", "Bearer x", "token " + "a" * 32, "Basic YTpi", "token \u00e9", "a b c"]
)
def test_a_token_that_the_hub_does_not_know_is_nobody(hub: EmbeddedHub, given: str) -> None:
    headers = [(b"Authorization", given.encode("latin-1"))]
    answer = httpx.get(f"{hub.url}{API}/leases", headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert answer.json()["code"] == "token-unknown"
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_token_gives_what_its_scopes_say_and_no_more(hub: EmbeddedHub, student: AtTheDesk) -> None:
    enter, read = "access:services!service=desk", "custom:desk:read"
    assert with_token(hub, student.token(enter, read), "GET", "/leases").status_code == 200
    only_in = with_token(hub, student.token(enter), "GET", "/leases")
    assert (only_in.status_code, only_in.json()["code"]) == (403, "scope-missing")
    assert only_in.json()["facts"] == {"scope": read}
    outside = with_token(hub, student.token(read), "GET", "/leases")
    assert (outside.status_code, outside.json()["code"]) == (403, "not-open")


def test_a_token_that_was_taken_back_is_nobody_soon(hub: EmbeddedHub, student: AtTheDesk) -> None:
    made = student.api(
        "POST",
        "/users/student/tokens",
        json={"scopes": ["access:services!service=desk", "custom:desk:read"]},
    ).json()
    student.api("DELETE", f"/users/student/tokens/{made['id']}")
    assert with_token(hub, made["token"], "GET", "/leases").status_code == 401


def test_a_token_that_has_run_out_is_nobody(hub: EmbeddedHub, student: AtTheDesk) -> None:
    made = student.api(
        "POST",
        "/users/student/tokens",
        json={"scopes": ["access:services!service=desk", "custom:desk:read"], "expires_in": 1},
    ).json()
    bearer = {"Authorization": f"token {made['token']}"}
    wait_for(
        lambda: httpx.get(f"{hub.url}/hub/api/user", headers=bearer, trust_env=False).status_code == 403,
        "the hub takes it no more",
    )
    assert with_token(hub, made["token"], "GET", "/leases").status_code == 401


def test_scopes_are_no_roles(hub: EmbeddedHub, student: AtTheDesk) -> None:
    """A student may hold a token with an operator's scope; what it opens is the student's still."""
    everything = student.token("access:services!service=desk", "custom:desk:operate")
    assert with_token(hub, everything, "GET", "/leases").json() == {"items": [], "next": None}
    for page in ("/pool", "/centre"):
        assert student.page(page).status_code in (403, 404), page


def test_a_service_is_no_person(hub: EmbeddedHub) -> None:
    token = json.loads((hub.state / "secrets.json").read_text())["desk_token"]
    answer = with_token(hub, token, "GET", "/leases")
    assert answer.status_code == 403

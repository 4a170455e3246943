"""What the clock reads from the hub's REST API, over real HTTP: nothing is concluded from half an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from hub_ext.desk.hub_api import LOOKS, PAGE, HubAway, HubServers
from tests.support.databases import closed_port
from tests.support.fakes import Answer, ScriptedServer

Serve = Callable[[Callable[[str, str], Answer]], ScriptedServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[ScriptedServer] = []

    def start(answer: Callable[[str, str], Answer]) -> ScriptedServer:
        servers.append(ScriptedServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def client(server: ScriptedServer, *, seconds: float = 5) -> HubServers:
    return HubServers(f"{server.url}/hub/api", "a-token", seconds=seconds)


def user(name: str, *servers: str, pending: str | None = None) -> dict[str, Any]:
    return {"name": name, "servers": {server: {"pending": pending, "ready": True} for server in servers}}


class Hub:
    """Pages through its users as JupyterHub does."""

    def __init__(self, *users: dict[str, Any]) -> None:
        self.users = list(users)
        self.asked: list[tuple[int, int]] = []
        self.before_page: Callable[[int], object] = lambda page: None

    def __call__(self, method: str, path: str) -> Answer:
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        assert (method, urlsplit(path).path, query["state"]) == ("GET", "/hub/api/users", "active")
        offset, limit = int(query["offset"]), min(int(query["limit"]), PAGE)
        self.before_page(len(self.asked))
        self.asked.append((offset, limit))
        following = {"offset": offset + limit, "limit": limit} if offset + limit < len(self.users) else None
        page = {"items": self.users[offset : offset + limit], "_pagination": {"next": following}}
        return Answer(body=page)


# -- the list ----------------------------------------------------------------------------------------------------------


def test_every_server_by_person_and_name_with_what_is_pending(serve: Serve) -> None:
    hub = Hub(user("student", "", "second"), user("lead", "", pending="stop"), user("idle"))
    server = serve(hub)
    assert client(server).active() == {
        ("student", ""): None,
        ("student", "second"): None,
        ("lead", ""): "stop",
    }
    _, _, headers = server.requests[0]
    assert headers["Authorization"] == "token a-token"
    assert headers["Accept"] == "application/jupyterhub-pagination+json"


@pytest.mark.parametrize("count", [0, 1, PAGE, PAGE + 1, 2 * PAGE - 1, 2 * PAGE, 1000])
def test_everybody_is_listed_whatever_the_number_of_pages(serve: Serve, count: int) -> None:
    hub = Hub(*(user(f"u{number}", "") for number in range(count)))
    found = client(serve(hub)).active()
    assert len(found) == count
    assert len(hub.asked) == 1 + max(0, -(-(count - PAGE) // (PAGE - 1)))


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        pytest.param(lambda users: users.pop(0), "u0", id="somebody on the first page stopped theirs"),
        pytest.param(
            lambda users: users.pop(PAGE - 1), f"u{PAGE - 1}", id="the last on the first page stopped theirs"
        ),
        pytest.param(lambda users: users.insert(0, user("new", "")), None, id="somebody started one"),
        pytest.param(
            lambda users: (users.pop(0), users.pop(0), users.insert(0, user("new", ""))), "u0", id="both"
        ),
    ],
)
def test_a_list_that_shifts_between_two_pages_is_read_anew_so_that_nobody_is_missing(
    serve: Serve, change: Callable[[list[dict[str, Any]]], object], missing: str | None
) -> None:
    """Whoever is missing loses a running server: it would be taken for one that nobody can reach."""
    hub = Hub(*(user(f"u{number}", "") for number in range(2 * PAGE)))
    hub.before_page = lambda page: change(hub.users) if page == 1 else None
    found = client(serve(hub)).active()
    assert {person for person, _ in found} == {one["name"] for one in hub.users}
    assert (missing, "") not in found


def test_a_list_that_shifts_at_each_look_is_given_up_for_this_tick(serve: Serve) -> None:
    hub = Hub(*(user(f"u{number}", "") for number in range(2 * PAGE)))
    hub.before_page = lambda page: hub.users.pop(0)
    with pytest.raises(HubAway, match="changed each time"):
        client(serve(hub)).active()
    assert len(hub.asked) == 2 * LOOKS


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(500), id="500"),
        pytest.param(Answer(503, b"<html>starting</html>"), id="503"),
        pytest.param(Answer(403), id="a token without the right"),
        pytest.param(Answer(404), id="nothing at this address"),
        pytest.param(Answer(302, headers={"Location": "/hub/login"}), id="a page to sign in"),
        pytest.param(Answer(200, b"<html>Welcome</html>"), id="a web page"),
        pytest.param(Answer(200, b""), id="nothing at all"),
        pytest.param(Answer(200, b"[]"), id="a list, as without paging"),
        pytest.param(Answer(200, {"items": []}), id="no word on further pages"),
        pytest.param(
            Answer(200, {"items": [{"name": "student"}], "_pagination": {"next": None}}),
            id="people without servers",
        ),
        pytest.param(
            Answer(200, {"items": [{"servers": {}}], "_pagination": {"next": None}}),
            id="people without names",
        ),
        pytest.param(
            Answer(200, {"items": [], "_pagination": {"next": {"offset": 0}}}), id="pages without end"
        ),
        pytest.param(
            Answer(200, {"items": [], "_pagination": {"next": {"offset": "soon"}}}), id="a page nowhere"
        ),
    ],
)
def test_an_answer_that_is_not_the_list_is_no_answer(serve: Serve, answer: Answer) -> None:
    with pytest.raises(HubAway) as caught:
        client(serve(lambda method, path: answer)).active()
    assert "a-token" not in str(caught.value)


def test_a_page_in_the_middle_that_fails_is_no_answer(serve: Serve) -> None:
    hub = Hub(*(user(f"u{number}", "") for number in range(2 * PAGE)))
    with pytest.raises(HubAway, match="500"):
        client(serve(lambda method, path: Answer(500) if hub.asked else hub(method, path))).active()


def test_nobody_listens() -> None:
    servers = HubServers(f"http://127.0.0.1:{closed_port()}/hub/api", "a-token")
    for ask in (servers.active, lambda: servers.stop("student", "")):
        with pytest.raises(HubAway, match=r"does not answer \(ConnectError\)"):
            ask()
    servers.close()


def test_a_hub_that_hangs_is_not_waited_for(serve: Serve) -> None:
    servers = client(serve(lambda method, path: Answer(hangs=True)), seconds=0.05)
    for ask in (servers.active, lambda: servers.stop("student", "")):
        with pytest.raises(HubAway, match=r"does not answer \(ReadTimeout\)"):
            ask()


# -- stopping ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "want"),
    [
        pytest.param(202, True, id="it is stopping"),
        pytest.param(204, True, id="it is stopped"),
        pytest.param(404, False, id="there is none"),
    ],
)
def test_stopping(serve: Serve, status: int, want: bool) -> None:
    server = serve(lambda method, path: Answer(status))
    assert client(server).stop("student", "second") is want
    assert [(method, path) for method, path, _ in server.requests] == [
        ("DELETE", "/hub/api/users/student/servers/second")
    ]


@pytest.mark.parametrize("status", [302, 400, 401, 403, 429, 500, 502, 503])
def test_a_stop_that_the_hub_did_not_take_is_not_taken_for_a_server_it_does_not_know(
    serve: Serve, status: int
) -> None:
    """What it does not know is ended without it."""
    with pytest.raises(HubAway, match=str(status)):
        client(serve(lambda method, path: Answer(status))).stop("student", "")


ODD = [
    "student",
    "김하늘",
    "a b",
    "50%",
    "a/b",
    "a%2Fb",
    "?#&=",
    "..",
    ".",
    "a.b",
    "-",
    "x;y",
    "a\nb",
    "'\"<>",
    "😀",
]


@pytest.mark.parametrize("name", ODD)
def test_names_with_odd_characters_arrive_as_they_are(serve: Serve, name: str) -> None:
    hub = Hub(user(name, "", name))
    server = serve(lambda method, path: Answer(204) if method == "DELETE" else hub(method, path))
    servers = client(server)
    assert servers.active() == {(name, ""): None, (name, name): None}
    servers.stop(name, "")
    servers.stop(name, name)
    paths = [path for method, path, _ in server.requests if method == "DELETE"]
    assert [[unquote(step) for step in path.split("/")[3:]] for path in paths] == [
        ["users", name, "server"],
        ["users", name, "servers", name],
    ]


def headers_of(requests: list[tuple[str, str, Mapping[str, str]]]) -> list[str]:
    return [headers.get("Authorization", "") for _, _, headers in requests]


def test_every_request_carries_the_token(serve: Serve) -> None:
    server = serve(lambda method, path: Answer(204) if method == "DELETE" else Hub()(method, path))
    servers = client(server)
    servers.active()
    servers.stop("student", "")
    assert headers_of(server.requests) == ["token a-token"] * 2

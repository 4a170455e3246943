"""Whatever is sent to the gateway, by whoever has a token, the answer is a sentence and nobody's place is taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.cluster_site import ClusterSite, cluster_site, known
from tests.support.hub import wait_for


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSite]:
    with cluster_site(tmp_path_factory.mktemp("hostile") / "site") as made:
        made.tokens["narrow-token"] = known("student", scopes=["read:users!user"])
        made.tokens["service-token"] = known("desk", kind="service")
        made.tokens["stranger-token"] = known("stranger")
        yield made


@pytest.fixture(scope="module")
def cluster(site: ClusterSite) -> str:
    """A running cluster of the student's with one worker."""
    name = site.request("POST", "/clusters/", json={"cluster_options": {"profile": "cpu"}}).json()["name"]
    wait_for(lambda: site.request("GET", f"/clusters/{name}").json()["status"] == "RUNNING", "it runs")
    assert site.request("POST", f"/clusters/{name}/scale", json={"count": 1}).status_code == 200
    wait_for(lambda: len(site.running()) == 2, "its worker runs")
    return str(name)


@pytest.fixture(scope="module")
def own_token(site: ClusterSite, cluster: str) -> str:
    """What its scheduler has in its environment, and its owner can read."""
    environ = next(one.environ() for one in _processes() if one.environ().get("HUB_EXT_LEASE") == cluster)
    return environ["DASK_GATEWAY_API_TOKEN"]


def _processes() -> Iterator[Any]:
    import psutil

    for process in psutil.process_iter():
        try:
            process.environ()
        except psutil.Error:
            continue
        yield process


def is_a_sentence(answer: httpx.Response) -> str:
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    text = answer.json()["error"]
    assert isinstance(text, str)
    assert text
    assert "\n" not in text
    assert "Traceback" not in text
    return text


# -- who may ----------------------------------------------------------------------------------------------------------------

WHO: dict[str, tuple[dict[str, str], int]] = {
    "nobody": ({}, 401),
    "a token that nobody has": ({"Authorization": "jupyterhub made-up"}, 401),
    "a token without a kind": ({"Authorization": "student-token"}, 401),
    "a name and password": ({"Authorization": "Basic c3R1ZGVudDpwYXNz"}, 401),
    "a token that may not": ({"Authorization": "jupyterhub narrow-token"}, 403),
    "a service": ({"Authorization": "jupyterhub service-token"}, 403),
    "somebody who never signed in": ({"Authorization": "jupyterhub stranger-token"}, 403),
    "a cookie of the gateway's own": ({"Cookie": "dask-gateway-x=student"}, 401),
}


@pytest.mark.parametrize(("headers", "status"), WHO.values(), ids=WHO.keys())
def test_who_may_not_ask_is_told_so(site: ClusterSite, headers: dict[str, str], status: int) -> None:
    for method, path in (("GET", "/clusters/"), ("POST", "/clusters/"), ("GET", "/options")):
        answer = httpx.request(method, f"{site.url}/api/v1{path}", headers=headers, trust_env=False)
        assert answer.status_code == status
        is_a_sentence(answer)
        assert "set-cookie" not in answer.headers


def test_nobody_is_remembered(site: ClusterSite) -> None:
    site.tokens["short-token"] = known("student")
    assert site.request("GET", "/clusters/", "short-token").status_code == 200
    del site.tokens["short-token"]
    assert site.request("GET", "/clusters/", "short-token").status_code == 401


def test_another_persons_cluster_is_nobody_elses(site: ClusterSite, cluster: str) -> None:
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/scale"),
        ("POST", "/adapt"),
        ("GET", "/logs"),
    ):
        answer = site.request(method, f"/clusters/{cluster}{path}", "classmate-token", json={"count": 0})
        assert answer.status_code in (403, 404), (method, path)
    assert cluster not in site.request("GET", "/clusters/", "classmate-token").json()
    assert len(site.running()) == 2


# -- options of any shape -----------------------------------------------------------------------------------------------------

BODIES: dict[str, bytes] = {
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"7",
    "bytes": b"\xff\xfe\x00",
    "options as a list": b'{"cluster_options": [1]}',
    "options as a text": b'{"cluster_options": "cpu"}',
    "a profile that is none": b'{"cluster_options": {"profile": "h200-x"}}',
    "a profile that is a list": b'{"cluster_options": {"profile": ["cpu"]}}',
    "a name that is none": b'{"cluster_options": {"scheduler_cmd": ["rm"]}}',
    "an image of one's own": b'{"cluster_options": {"image": "evil:latest"}}',
    "a variable of the system's": b'{"cluster_options": {"environment": {"LD_PRELOAD": "/x.so"}}}',
    "a variable with a new line": b'{"cluster_options": {"environment": {"A": "b\\nc"}}}',
    "a variable with nothing": b'{"cluster_options": {"environment": {"A": "b\\u0000c"}}}',
    "never idle": b'{"cluster_options": {"idle_minutes": 0}}',
    "minutes without end": b'{"cluster_options": {"minutes": 1e400}}',
    "a server of somebody else's": b'{"cluster_options": {"server": "../lead"}}',
    "somebody else's pool": b'{"cluster_options": {"pool": "lab"}}',
    "a pool that is none": b'{"cluster_options": {"pool": "nowhere"}}',
    "deep": b'{"cluster_options": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "ten megabytes": b'{"cluster_options": {"pool": "' + b"x" * 10_000_000 + b'"}}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_options_of_any_shape_are_answered_in_words(site: ClusterSite, body: bytes) -> None:
    before = site.leases()
    answer = site.request("POST", "/clusters/", content=body, headers={"Content-Type": "application/json"})
    is_a_sentence(answer)
    assert site.leases() == before
    # Clients show this where they do not read the body.
    assert answer.extensions["reason_phrase"].decode() == answer.json()["error"]


def test_what_there_is_to_choose_can_be_asked_for_and_sent_back_as_it_is(site: ClusterSite) -> None:
    with site.client() as gateway:
        options = gateway.cluster_options()
        assert set(options) == {"profile", "pool", "minutes", "idle_minutes", "image", "environment"}
        assert options.profile == "gpus", "the first of the menu"
        options.profile = "cpu"
        with pytest.raises(ValueError, match="h200"):
            options.profile = "h200"
        with gateway.new_cluster(options, shutdown_on_close=True) as cluster:
            sent = gateway.get_cluster(cluster.name).options
            assert sent == {"profile": "cpu", "pool": "univ", "idle_minutes": 20}
        wait_for(lambda: not site.leases(cluster.name), "it is gone")


def test_what_is_refused_leaves_no_record(site: ClusterSite) -> None:
    answer = site.request("POST", "/clusters/", json={"cluster_options": {"profile": "cpu", "pool": "lab"}})
    assert "univ" in is_a_sentence(answer) or "lab" in is_a_sentence(answer)
    every = site.request("GET", "/clusters/?status=pending,running,stopping,stopped,failed").json()
    assert all(one["options"]["pool"] != "lab" for one in every.values())


COUNTS: list[object] = [-1, "500", 2.5, True, None, [1], {"a": 1}, 10**7, float("nan")]


@pytest.mark.parametrize("count", COUNTS, ids=repr)
def test_numbers_of_workers_are_numbers(site: ClusterSite, cluster: str, count: object) -> None:
    content = json.dumps({"count": count, "minimum": count, "maximum": count})
    is_a_sentence(site.request("POST", f"/clusters/{cluster}/scale", content=content))
    if count is not None:
        is_a_sentence(site.request("POST", f"/clusters/{cluster}/adapt", content=content))


def test_five_hundred_workers_are_as_many_as_fit_and_a_sentence(site: ClusterSite, cluster: str) -> None:
    answer = site.request("POST", f"/clusters/{cluster}/scale", json={"count": 500})
    assert answer.status_code == 200
    assert answer.json()["ok"] is False
    assert answer.json()["msg"].startswith("7 of 500 workers can run now. ")
    korean = site.request(
        "POST", f"/clusters/{cluster}/scale", json={"count": 500}, headers={"Accept-Language": "ko"}
    )
    assert korean.json()["msg"].startswith("지금은 작업자 500개 가운데 7개를 실행할 수 있습니다.")
    assert len(site.workers(cluster)) == 7
    assert site.request("POST", f"/clusters/{cluster}/scale", json={"count": 1}).json()["ok"] is True
    wait_for(lambda: len(site.workers(cluster)) == 1 and site.one_to_one(), "one is left")


# -- heartbeats with the scheduler's own token ----------------------------------------------------------------------------------


def honest(site: ClusterSite, cluster: str) -> dict[str, Any]:
    workers = [one.environ() for one in _processes() if one.environ().get("HUB_EXT_LEASE") != cluster]
    assert workers
    return {
        "scheduler_address": "tls://127.0.0.1:1",
        "dashboard_address": "http://127.0.0.1:1",
        "api_address": "http://127.0.0.1:1",
        "count": 1,
        "active_workers": [],
        "closing_workers": [],
        "closed_workers": [],
    }


def beat(site: ClusterSite, cluster: str, token: str, **message: Any) -> httpx.Response:
    return httpx.post(
        f"{site.url}/api/v1/clusters/{cluster}/heartbeat",
        content=json.dumps(honest(site, cluster) | message),
        headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
        trust_env=False,
    )


def test_a_forged_wish_gets_what_the_quota_has_and_no_more(
    site: ClusterSite, cluster: str, own_token: str
) -> None:
    seen = []

    def workers_after_a_forged_beat() -> int:
        assert beat(site, cluster, own_token, count=500).status_code == 200
        seen.append(len(site.workers(cluster)))
        return seen[-1]

    # The scheduler goes on saying what it really wishes for, at any moment.
    wait_for(lambda: workers_after_a_forged_beat() == 7, "as many as there is room for")
    for _ in range(5):
        workers_after_a_forged_beat()

    def settled() -> bool:
        seen.append(len(site.workers(cluster)))
        return seen[-1] == 1 and site.one_to_one()

    wait_for(settled, "the scheduler's own wish counts again")
    assert max(seen) == 7


FORGED: list[dict[str, Any]] = [
    {"count": -5},
    {"count": "500"},
    {"count": float("nan")},
    {"count": float("inf")},
    {"active_workers": "x"},
    {"active_workers": [["deep"]] * 30_000},
    {"closed_workers": {"a": 1}},
    {"api_address": "http://127.0.0.1:1/../../"},
    {"scheduler_address": "inproc://x"},
    {"idle_seconds": -1},
    {"memory": {"process": "much"}},
]


@pytest.mark.parametrize("forged", FORGED, ids=[str(one)[:40] for one in FORGED])
def test_forged_heartbeats_change_nothing(
    site: ClusterSite, cluster: str, own_token: str, forged: dict[str, Any]
) -> None:
    is_a_sentence(beat(site, cluster, own_token, **forged))
    assert len(site.workers(cluster)) == 1
    assert site.one_to_one()


def test_workers_that_the_gateway_did_not_make_are_not_counted(
    site: ClusterSite, cluster: str, own_token: str
) -> None:
    names = [f"mine-{n}" for n in range(1000)]
    assert beat(site, cluster, own_token, active_workers=names, closed_workers=names).status_code == 200
    assert len(site.workers(cluster)) == 1
    assert site.one_to_one()


def test_a_heartbeat_of_ten_megabytes_is_not_read(site: ClusterSite, cluster: str, own_token: str) -> None:
    assert beat(site, cluster, own_token, pad="x" * 10_000_000).status_code == 413


def test_a_token_is_good_for_its_own_cluster_only(site: ClusterSite, cluster: str, own_token: str) -> None:
    assert beat(site, "0" * 32, own_token).status_code == 401
    assert beat(site, cluster, "0" * 32).status_code == 401
    assert site.request("GET", "/clusters/", own_token).status_code == 401


def test_a_scheduler_cannot_be_at_an_address_of_somebody_elses(site: ClusterSite) -> None:
    """Else the gateway and the desk would speak to it as if it were the scheduler."""
    name = site.request("POST", "/clusters/", json={"cluster_options": {"profile": "cpu"}}).json()["name"]

    def its_token() -> str | None:
        found = (one.environ() for one in _processes())
        return next((e["DASK_GATEWAY_API_TOKEN"] for e in found if e.get("HUB_EXT_LEASE") == name), None)

    token = wait_for(its_token, "its scheduler begins", every=0.01)
    hub = f"http://127.0.0.1:{site.factory.secrets.hub_port}"
    forged = beat(
        site,
        name,
        token,
        api_address=hub,
        dashboard_address=hub,
        scheduler_address=hub.replace("http", "tls"),
    )
    status = site.request("GET", f"/clusters/{name}").json()["status"]
    assert forged.status_code == 409 or status == "RUNNING", "it was there before us"
    wait_for(lambda: site.request("GET", f"/clusters/{name}").json()["status"] == "RUNNING", "it runs")
    page = httpx.get(f"{site.factory.dask_proxy_url}/clusters/{name}/status", trust_env=False)
    assert "Dask" in page.text
    assert site.request("DELETE", f"/clusters/{name}").status_code == 204
    wait_for(lambda: not site.leases(name), "it is gone")


SEGMENTS = st.lists(
    st.text(max_size=12) | st.sampled_from(["clusters", "..", ".", "scale", "heartbeat", "%2e%2e"])
)


@given(segments=SEGMENTS, method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "PATCH"]))
@settings(max_examples=60, deadline=None)
def test_no_path_ends_in_a_fault_of_ours(site: ClusterSite, segments: list[str], method: str) -> None:
    path = "/".join(quote(segment.encode("utf-8", "replace"), safe="%") for segment in segments)
    answer = httpx.request(
        method,
        f"{site.url}/api/v1/{path}",
        headers={"Authorization": "jupyterhub student-token"},
        trust_env=False,
    )
    assert answer.status_code < 500

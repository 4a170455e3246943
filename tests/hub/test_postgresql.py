"""The same hub with its ledger in PostgreSQL, and what happens when that goes away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.hub.test_faults import one_to_one, processes
from tests.support.databases import PostgresServer
from tests.support.hub import EmbeddedHub, Visitor, wait_for

pytestmark = pytest.mark.postgres


def test_a_database_that_is_away_means_503_and_servers_go_on(make_hub: Callable[..., EmbeddedHub]) -> None:
    server = PostgresServer.start()
    try:
        hub = make_hub(
            environment={"HUB_DATABASE_URL": f"postgresql://postgres@/postgres?host={server.folder}"}
        )
        student = Visitor(hub, "student")
        assert student.start({"profile": "cpu-small"}).status_code in (201, 202)
        student.wait_until_ready()
        before = processes(hub)

        server.crash()
        away = student.start({"profile": "cpu-small"}, "second")
        assert away.status_code == 503, away.text
        assert "Retry-After" in away.headers
        assert "psycopg" not in away.text
        page = student.http.get("/hub/spawn/student/third")
        assert page.status_code == 200
        assert "Traceback" not in page.text
        assert processes(hub) == before
        assert student.http.get("/user/student/api").status_code == 200

        server.start_again()
        wait_for(
            lambda: student.start({"profile": "cpu-small"}, "second").status_code in (201, 202),
            "starts work again",
        )
        student.wait_until_ready("second")
        wait_for(lambda: one_to_one(hub, student), "servers, leases and processes are one to one")
        hub.command("stop-servers")
        wait_for(lambda: not hub.leases(), "all is given back")
    finally:
        server.stop()

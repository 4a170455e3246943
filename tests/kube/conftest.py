"""A fake API server, and the Kubernetes client led to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kubernetes_asyncio.client import Configuration

from hub_ext.kube import watch
from tests.support.api_server import FakeApiServer


@pytest.fixture
def api_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(watch, "LONGEST_PAUSE", 0.05)
    before = Configuration._default
    server = FakeApiServer()
    Configuration.set_default(Configuration(host=server.url))
    try:
        yield server
    finally:
        server.close()
        Configuration.set_default(before)

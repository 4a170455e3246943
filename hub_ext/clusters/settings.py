"""Where a gateway is, and what it needs to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

SERVICE: Final = "dask-gateway"
"""What the hub calls the gateway."""


@dataclass(frozen=True)
class GatewaySettings:
    """Addresses are `host:port`."""

    address: str
    """Where it listens."""
    api_url: str
    """How clusters reach it: straight, and not through any proxy."""
    proxy_http: str
    proxy_tcp: str
    """Where the proxy before all schedulers listens."""
    proxy_token: str = field(repr=False)
    hub_api_url: str
    database_url: str
    encryption_key: bytes = field(repr=False)
    """32 bytes: the certificates and tokens in the database are kept encrypted."""
    client_url: str = ""
    client_tcp: str = ""
    """How clients reach it, and through the proxy their schedulers (`gateway://HOST:PORT`)."""
    log_level: str = "INFO"

    @property
    def url(self) -> str:
        """How the proxy before all schedulers reaches it."""
        return self.api_url.removesuffix("/api")

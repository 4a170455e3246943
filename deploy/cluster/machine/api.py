"""The few questions that are put to the cluster's HTTP servers without a program of their own for each."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from machine.certificates import ADMIN, AUTHORITY, Identity
from machine.places import API

SECONDS = 5
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


class Refused(Exception):
    """The server answered, with a status that is no success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


def answers(url: str, identity: Identity | None = None) -> bool:
    """Whether the address answers with success. Without an identity the server's own is not looked at either."""
    parts = urlsplit(url)
    try:
        connection = _connect(parts.scheme, parts.netloc, identity)
        try:
            connection.request("GET", parts.path)
            return connection.getresponse().status == 200
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False


def ask(method: str, path: str, body: object = None, content_type: str = "application/json") -> Any:
    """One request to the API server as its administrator. Raises Refused, OSError."""
    connection = _connect("https", urlsplit(API).netloc, ADMIN)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": content_type, "Accept": "application/json"})
        answer = connection.getresponse()
        said = answer.read().decode()
    except http.client.HTTPException as error:
        raise OSError(f"the API server broke off: {error}") from error
    finally:
        connection.close()
    if answer.status >= 300:
        raise Refused(answer.status, said)
    return json.loads(said)


def _connect(scheme: str, address: str, identity: Identity | None) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(address, timeout=SECONDS)
    if identity is None:
        # The program's own self-made certificate, on loopback.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context(cafile=str(AUTHORITY))
        context.load_cert_chain(identity.certificate, identity.key)
    return http.client.HTTPSConnection(address, timeout=SECONDS, context=context)

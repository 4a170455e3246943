"""An identity provider that speaks OpenID Connect: where it answers, as it says itself (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from hub_ext.core.errors import BadInput, HubError

WELL_KNOWN: Final = "/.well-known/openid-configuration"
LARGEST_ANSWER: Final = 1024 * 1024
ANSWER_SECONDS: Final = 10


class ProviderAway(HubError):
    """The provider does not answer, or not as it should. Nothing is known about anybody; later it may be."""


class ProviderRefuses(HubError):
    """The provider answered, and no longer stands for who was asked about."""


class BadProvider(BadInput):
    """What the settings name is no such provider, or another one."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Where the provider answers. `end_session_url` is "" where it ends no sessions on request."""

    issuer: str
    authorize_url: str
    token_url: str
    userinfo_url: str
    end_session_url: str = ""
    scopes: frozenset[str] = frozenset()


def discover(issuer: str, *, ca_file: Path | None = None, allow_http: bool = False) -> Provider:
    """Ask the provider. Raises ProviderAway when it does not answer, BadProvider when the settings must change."""
    url = issuer.rstrip("/") + WELL_KNOWN
    try:
        verify = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
    except OSError as error:
        raise BadProvider(
            f"oidc.ca_file: {ca_file} cannot be read as certificates ({error}); name a file in PEM form"
        ) from error
    try:
        with httpx.stream("GET", url, timeout=ANSWER_SECONDS, verify=verify, trust_env=False) as answer:
            status, raw = answer.status_code, _read(answer)
    except httpx.HTTPError as error:
        raise ProviderAway(f"The identity provider does not answer at {url} ({error}).") from error
    if status >= 500 or status == 429:
        raise ProviderAway(f"The identity provider answers {status} at {url}.")
    if status != 200:
        raise BadProvider(f"oidc.issuer: {url} answers {status}, not 200; check the address of the issuer")
    try:
        return provider_of(json.loads(raw), issuer, allow_http=allow_http)
    except (ValueError, RecursionError) as error:
        raise BadProvider(f"oidc.issuer: {url} is no JSON; check the address of the issuer") from error


def _read(answer: httpx.Response) -> bytes:
    raw = b""
    for piece in answer.iter_bytes():
        raw += piece
        if len(raw) > LARGEST_ANSWER:
            raise BadProvider(
                f"oidc.issuer: {answer.url} is larger than 1 MiB; check the address of the issuer"
            )
    return raw


def provider_of(document: Any, issuer: str, *, allow_http: bool = False) -> Provider:
    """The provider as its discovery document says. Raises BadProvider where that cannot be used."""
    if not isinstance(document, dict):
        raise BadProvider(
            "oidc.issuer: its discovery document is no JSON object; check the address of the issuer"
        )
    # An issuer that says another name could speak for people of another one (Discovery, section 4.3).
    if document.get("issuer") != issuer:
        named = str(document.get("issuer"))[:200]
        raise BadProvider(
            f"oidc.issuer: the provider calls itself {named!r}, not {issuer!r}; write it as it does"
        )

    def address(name: str, *, needed: bool = True) -> str:
        found = document.get(name)
        if found is None and not needed:
            return ""
        scheme = urlsplit(found).scheme if isinstance(found, str) else ""
        if scheme != "https" and not (scheme == "http" and allow_http):
            raise BadProvider(
                f"oidc.issuer: its discovery document names no usable {name}; ask the provider's operators"
            )
        return str(found)

    scopes = document.get("scopes_supported")
    return Provider(
        issuer=issuer,
        authorize_url=address("authorization_endpoint"),
        token_url=address("token_endpoint"),
        userinfo_url=address("userinfo_endpoint", needed=False),
        end_session_url=address("end_session_endpoint", needed=False),
        scopes=frozenset(str(scope) for scope in scopes) if isinstance(scopes, list) else frozenset(),
    )

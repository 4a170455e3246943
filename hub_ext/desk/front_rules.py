"""What goes through the front of the dashboards, and what does not: addresses, headers, the policy of their pages. Pure.

A dashboard is the work of whoever owns the cluster, and may be anything. So nothing that says who asks goes to it, and
its pages stand in a sandbox: an origin of their own, without cookies, that reaches its own addresses and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from hub_ext.desk.desk import PREFIX

CLUSTERS: Final = f"{PREFIX}/clusters"
PASSED: Final = "-"
"""Stands in an address before a pass: no page of a dashboard is called so."""
LONGEST_PATH: Final = 2000
LONGEST_QUERY: Final = 8000
_NAME: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_PATH: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*", re.ASCII)
_QUERY: Final = re.compile(r"[!-~]*", re.ASCII)
_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)
_ASKED_ON: Final = (
    "accept",
    "accept-encoding",
    "accept-language",
    "if-modified-since",
    "if-none-match",
    "range",
)
_ANSWERED_ON: Final = (
    "accept-ranges",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "etag",
    "last-modified",
)


def is_cluster(name: str) -> bool:
    """Whether a cluster can be called so."""
    return _NAME.fullmatch(name) is not None


def page_of(name: str, path: str = "status") -> str:
    """The address of a cluster's dashboard, for people."""
    return f"{CLUSTERS}/{name}/{path}"


def base_of(name: str, given: str) -> str:
    """Where everything of a dashboard stands that somebody has this pass for."""
    return f"{CLUSTERS}/{name}/{PASSED}/{given}/"


def rest_of(raw_path: bytes, base: str) -> str | None:
    """The part of an address behind `base`, as it was sent; None where it could lead anywhere else."""
    path = raw_path.decode("latin-1")
    if not path.startswith(base) or len(path) > LONGEST_PATH:
        return None
    rest = path.removeprefix(base)
    plain = unquote(rest, errors="replace")
    if not _PATH.fullmatch(rest) or "%2f" in rest.lower() or "\\" in plain or not plain.isprintable():
        return None
    return None if {".", ".."} & set(plain.split("/")) else rest


def query_of(raw: bytes) -> str | None:
    """What stands behind the question mark, as it was sent; None for what no browser sends."""
    query = raw.decode("latin-1")
    return query if len(query) <= LONGEST_QUERY and _QUERY.fullmatch(query) else None


def asked_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Of a request, what the dashboard is told: no cookie, no token, no address, no language of a session."""
    return {name: headers[name] for name in _ASKED_ON if name in headers}


def answered_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Of a dashboard's answer, what the browser is told: nothing that sets, allows or leads anywhere."""
    return {name: headers[name] for name in _ANSWERED_ON if name in headers}


def led_to(location: str, name: str, base: str) -> str | None:
    """Where a dashboard's redirection leads within itself; None where it leads elsewhere."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return None
    if parts.scheme or parts.netloc or location.startswith(("//", "/\\", "\\")):
        return None
    query = f"?{parts.query}" if parts.query else ""
    if not parts.path.startswith("/"):
        path = parts.path
        return None if rest_of((base + path).encode("utf-8"), base) is None else path + query
    path = parts.path.removeprefix(f"/clusters/{name}").lstrip("/")
    return None if rest_of((base + path).encode("utf-8"), base) is None else base + path + query


def offered(protocols: Iterable[str]) -> tuple[str, ...]:
    """The protocols that a browser offers for a stream: tokens, and few."""
    found = [one for one in protocols if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z=-]{1,4096}", one)]
    return tuple(found[:8])


def page_headers(host: str, base: str) -> dict[str, str]:
    """What a browser is told of everything that a dashboard answers.

    `sandbox` without `allow-same-origin` gives its pages an origin of their own: they see no cookie, send none, and are
    strangers to the desk, the hub and everybody's servers. What they load and speak to is their own addresses (a
    dashboard has scripts in its pages, and is drawn by them). JupyterLab may frame it.
    """
    own = "'self'"
    if _HOST.fullmatch(host):
        own = " ".join(f"{scheme}://{host}{base}" for scheme in ("http", "https", "ws", "wss"))
    return {
        "Content-Security-Policy": "; ".join(
            [
                "sandbox allow-scripts",
                "default-src 'none'",
                f"script-src {own} 'unsafe-inline' 'unsafe-eval'",
                f"style-src {own} 'unsafe-inline'",
                f"img-src {own} data: blob:",
                f"font-src {own} data:",
                f"connect-src {own}",
                "form-action 'none'",
                "base-uri 'none'",
                "frame-ancestors 'self'",
            ]
        ),
        # To an origin of its own everything is foreign, its own files included: they are open to whoever has the pass.
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Opener-Policy": "unsafe-none",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
    }

"""Passes to dashboards: what the addresses of a dashboard's parts carry, since its pages have no cookies.

A pass is for one cluster and one session. It holds the session's token, so that signing out ends it; it is encrypted,
since the dashboard's own scripts can read the address that it stands in.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Final

from cryptography.fernet import Fernet, InvalidToken

from hub_ext.core.clock import HOUR, Instant

PASS_SECONDS: Final = 24 * HOUR
LONGEST_PASS: Final = 1500


@dataclass(frozen=True)
class Passes:
    """Makes and reads them. `key` is the desk's own, the same for all desks of one hub."""

    key: bytes

    def give(self, cluster: str, token: str, now: Instant) -> str:
        sealed = self._box.encrypt_at_time(json.dumps([cluster, token]).encode(), now)
        return sealed.decode().rstrip("=")

    def token_in(self, given: str, cluster: str, now: Instant) -> str | None:
        """The token of the session that it was given to; None for what is no pass to this cluster, or too old."""
        if len(given) > LONGEST_PASS or not given.isascii():
            return None
        padded = given + "=" * (-len(given) % 4)
        try:
            plain = self._box.decrypt_at_time(padded.encode(), PASS_SECONDS, now)
        except InvalidToken:
            return None
        kept, token = json.loads(plain)
        return token if kept == cluster else None

    @property
    def _box(self) -> Fernet:
        digest = hashlib.sha256(b"pass to a dashboard:" + self.key).digest()
        return Fernet(urlsafe_b64encode(digest))

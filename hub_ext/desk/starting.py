"""Starting a server for somebody at the desk: through the hub, whose gate admits it or gives it a ticket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx

from hub_ext.core.decision import Refuse, Wait
from hub_ext.core.people import Person
from hub_ext.desk.desk import Desk
from hub_ext.desk.errors import Problem
from hub_ext.desk.hub_api import HubAway
from hub_ext.profiles.service import Chosen
from hub_ext.quota.model import SERVER, Lease, Ticket

START_SECONDS: Final = 30.0
"""How long the hub's first answer to a start is waited for; it gives one as soon as the start is under way."""


@dataclass(frozen=True, slots=True)
class Started:
    """What came of it: a lease, a ticket, or why neither."""

    lease: Lease | None = None
    ticket: Ticket | None = None
    objection: Refuse | Wait | None = None


@dataclass(frozen=True)
class HubStarts:
    desk: Desk

    async def start(
        self, person: Person, server: str, options: Mapping[str, Any], *, instead_of: str | None = None
    ) -> Started:
        """Start a server with these options. Raises BadSelection, StoreUnavailable, HubAway, Problem.

        `instead_of` names a ticket that is only given up where the start is possible at once.
        """
        desk = self.desk
        # 1. What was asked for, among what exists.
        chosen = await desk.profiles.choose(person.name, server, dict(options))
        # 2. What can never be is refused here, with all its facts; what must wait gets no second ticket.
        preview = await desk.admission.preview(chosen.person, [chosen.ask], instead_of=instead_of)
        decision = preview.decisions[chosen.ask.id]
        if isinstance(decision, Refuse) or (isinstance(decision, Wait) and instead_of is not None):
            return Started(objection=decision)
        # 3. The hub starts it, or its gate gives it a ticket.
        await self._ask_the_hub(person.name, server, options)
        return await desk.admission.in_thread(self._found, chosen)

    async def _ask_the_hub(self, person: str, server: str, options: Mapping[str, Any]) -> None:
        login = self.desk.login
        path = f"/users/{_segment(person)}/" + (f"servers/{_segment(server)}" if server else "server")
        try:
            response = await login.client.post(
                f"{login.api_url}{path}",
                json={"user_options": dict(options)},
                headers={"Authorization": f"token {login.token}"},
                timeout=START_SECONDS,
            )
        except httpx.ReadTimeout:
            return  # it took the request, and is not done with it
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HubAway(f"The hub does not answer ({type(error).__name__}); is it running?") from error
        if response.is_success or response.status_code == 409:
            return
        if response.status_code == 400:
            raise Problem(
                409,
                "server-runs",
                lambda say: say("A server of this name runs already, or is just being stopped."),
                server=server,
            )
        if response.status_code >= 500:
            raise HubAway(f"The hub answered {response.status_code} to a start")
        raise Problem(409, "not-started", _message_of(response), status=response.status_code)

    def _found(self, chosen: Chosen) -> Started:
        """The lease or ticket that the gate made for this server."""
        ask = chosen.ask
        with self.desk.store.reading() as txn:
            leases = txn.live_leases(person=ask.person)
            lease = next((one for one in leases if (one.kind, one.server) == (SERVER, ask.server)), None)
            if lease is not None:
                return Started(lease=lease)
            tickets = [
                one
                for one in txn.tickets(person=ask.person)
                if (one.ask.kind, one.ask.server) == (SERVER, ask.server)
            ]
        if tickets:
            return Started(ticket=tickets[-1])
        raise Problem(
            409,
            "not-started",
            lambda say: say("The hub did not start it. Try again, or look at the start page."),
        )


def _segment(name: str) -> str:
    return quote(name, safe="").replace(".", "%2E")


def _message_of(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"The hub answered {response.status_code}"

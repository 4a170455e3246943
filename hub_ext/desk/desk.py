"""What the desk's handlers work with; the factory makes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from hub_ext.clusters.model import ClusterCatalogue
from hub_ext.clusters.service import Clusters
from hub_ext.core.clock import Clock
from hub_ext.core.people import Person
from hub_ext.desk.hub_login import HubLogin
from hub_ext.pages import Words
from hub_ext.profiles.service import Profiles
from hub_ext.quota.model import Policy
from hub_ext.quota.ports import Servers, Store
from hub_ext.quota.service import Admission

PREFIX: Final = "/services/desk"
"""Everything of the desk's stands below this address."""
API: Final = f"{PREFIX}/api/v1"
HUB: Final = "/hub/"
"""The hub's own pages, as a browser sees them."""


def ticket_page(ticket_id: str) -> str:
    """The waiting room of a ticket; afterwards, what became of it."""
    return f"{PREFIX}/tickets/{quote(ticket_id, safe='')}"


def start_page(person: str, server: str) -> str:
    """The hub's page of a start, which goes on to the server by itself."""
    path = f"{HUB}spawn-pending/{quote(person, safe='')}"
    return f"{path}/{quote(server, safe='')}" if server else path


@dataclass(frozen=True, slots=True)
class Site:
    """What every page is told about this hub."""

    brand: str = "Hangang Hub"
    simulated: bool = False
    embedded: bool = False
    titles: Mapping[str, Words] = field(default_factory=dict)
    """What people among the identity's are called, by user name."""

    def person_title(self, person: Person) -> Words:
        return self.titles.get(person.name, {})


@dataclass(frozen=True)
class Desk:
    """`key` signs what the desk keeps in browsers; it is the same for all desks of one hub.
    `dask_proxy_url` is where the Dask proxy answers HTTP; empty where there is none.
    """

    admission: Admission
    profiles: Profiles
    servers: Servers
    login: HubLogin
    key: bytes
    site: Site = field(default_factory=Site)
    clusters: Clusters | None = None
    """None where this hub offers no clusters."""
    dask_proxy_url: str = ""

    @property
    def store(self) -> Store:
        return self.admission.store

    @property
    def cluster_catalogue(self) -> ClusterCatalogue:
        return self.clusters.catalogue if self.clusters is not None else ClusterCatalogue()

    @property
    def clock(self) -> Clock:
        return self.admission.clock

    def policy_and_person(self, name: str) -> tuple[Policy, Person | None]:
        """The policy in force, and the person as written down when they signed in last. One short read: in a thread."""
        with self.store.reading() as txn:
            return txn.policy, txn.person(name)

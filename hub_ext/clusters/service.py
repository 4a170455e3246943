"""What clusters a person may start and how each stands now, and a choice turned into what the quota is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hub_ext.clusters.model import ClusterCatalogue, ClusterProfile, ClusterSelection
from hub_ext.clusters.selection import SERVER as SERVER_FIELD
from hub_ext.clusters.selection import (
    Say,
    in_english,
    parse_selection,
    refused,
    selection_to_options,
    told,
)
from hub_ext.core.people import Person
from hub_ext.core.untrusted import BadSelection
from hub_ext.profiles.service import may_start, pools_for, visible
from hub_ext.quota.model import SCHEDULER, SERVER, WORKER, Ask, Lease, LeaseState, Policy
from hub_ext.quota.service import Admission, ClusterPreview, new_lease_id

__all__ = ["BadSelection", "ChosenCluster", "ClusterMenu", "ClusterOffer", "Clusters"]

ServerImage = Callable[[str | None], str | None]
"""The image that a server of this profile runs; None where servers run without images."""


@dataclass(frozen=True, slots=True)
class ClusterOffer:
    """One size of cluster in one pool of the person's, and what a cluster of the most workers would get of it now."""

    profile: ClusterProfile
    pool: str
    preview: ClusterPreview


@dataclass(frozen=True, slots=True)
class ClusterMenu:
    """Every cluster that a person may start, for the length that its profile has by default; all from one snapshot.

    A profile stands once for each of the person's pools from which they may start it, in the person's order.
    """

    person: Person
    offers: tuple[ClusterOffer, ...] = ()
    hidden: tuple[ClusterProfile, ...] = ()
    """What the centre offers to others."""


@dataclass(frozen=True, slots=True)
class ChosenCluster:
    """A choice that exists, as the quota is asked for it.

    `scheduler` is asked once; its id is the cluster's name. `unit` is what one worker takes; each worker has an id of
    its own. `image` is the reference that scheduler and workers run; None where nothing runs in images.
    """

    person: Person
    profile: ClusterProfile
    selection: ClusterSelection
    scheduler: Ask
    unit: Ask
    image: str | None = None

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.scheduler.id

    @property
    def options(self) -> dict[str, Any]:
        """The choice in its saved form, to start the same again."""
        return selection_to_options(self.selection)

    def named(self, name: str) -> ChosenCluster:
        """The same under the name that the gateway gave the cluster."""
        return replace(
            self,
            scheduler=replace(self.scheduler, id=name, server=name),
            unit=replace(self.unit, id=name, server=name),
        )


class Clusters:
    """The catalogue of clusters with the quota behind it.

    `server_image` gives the image that a server of a profile runs, which is what its clusters run too.
    """

    def __init__(
        self,
        admission: Admission,
        catalogue: ClusterCatalogue,
        server_image: ServerImage = lambda profile: None,
    ) -> None:
        self.admission = admission
        self.catalogue = catalogue
        self.server_image = server_image

    async def menu(self, name: str) -> ClusterMenu:
        """What this person may start now; nothing is booked. Raises StoreUnavailable."""
        return await self.admission.in_thread(self._menu, name)

    def _menu(self, name: str) -> ClusterMenu:
        with self.admission.store.reading() as txn:
            person, policy = txn.person(name) or Person(name), txn.policy
        shown = [profile for profile in self.catalogue if visible(profile, person, policy.path)]
        each = [
            (profile, self._chosen(person, policy, profile, ClusterSelection(profile.slug, pool), None))
            for profile in shown
            for pool in pools_for(profile, person, policy.path)
        ]
        previews = self.admission.preview_clusters_now(
            [(one.person, one.scheduler, one.unit, profile.most_workers) for profile, one in each]
        )
        return ClusterMenu(
            person,
            tuple(
                ClusterOffer(profile, one.unit.pool, preview)
                for (profile, one), preview in zip(each, previews, strict=True)
            ),
            tuple(profile for profile in self.catalogue if profile not in shown),
        )

    async def choose(self, name: str, options: object, say: Say = in_english) -> ChosenCluster:
        """What this person asked for, checked against what exists.

        The cluster gets a new name; `ChosenCluster.named` gives it the gateway's. Raises StoreUnavailable, and
        BadSelection with a sentence in the language of `say`.
        """
        return await self.admission.in_thread(self._choose, name, options, say)

    def _choose(self, name: str, options: object, say: Say) -> ChosenCluster:
        with self.admission.store.reading() as txn:
            # 1. Who asks, as written down when they signed in.
            person, policy = txn.person(name) or Person(name), txn.policy
            # 2. What they chose, among what exists: whether they may is the quota's to say.
            selection = parse_selection(
                options, self.catalogue, self._choosable(options, person, policy), say
            )
            profile = self.catalogue.get(selection.profile)
            assert profile is not None
            # 3. From which pool: the one they named, else the first from which they may.
            pools = pools_for(profile, person, policy.path) or person.pools
            selection = replace(selection, pool=selection.pool or next(iter(pools), ""))
            servers = [
                lease
                for lease in txn.live_leases(person=name)
                if lease.kind == SERVER and lease.state is not LeaseState.ENDING
            ]
        # 4. In which image: the chosen one, else that of the server that they work in.
        image = self._image(profile, selection, servers, say)
        # 5. What that takes.
        return self._chosen(person, policy, profile, selection, image)

    def _choosable(self, options: object, person: Person, policy: Policy) -> set[str]:
        """What they see, and what they named of what there is: then the quota says why they may not."""
        seen = {profile.slug for profile in self.catalogue if visible(profile, person, policy.path)}
        named = options.get("profile") if isinstance(options, Mapping) else None
        return seen | {slug for slug in self.catalogue.slugs if slug == named}

    def _image(
        self, profile: ClusterProfile, selection: ClusterSelection, servers: Iterable[Lease], say: Say
    ) -> str | None:
        """Raises BadSelection where the server that is named is none of theirs, or does not run."""
        server = next((lease for lease in servers if lease.server == selection.server), None)
        if server is None and selection.server is not None:
            what = say("You have no server {name} that runs.", name=told(selection.server))
            start = say("Start it first, or leave the server out.")
            raise refused(what, say, field=SERVER_FIELD, instead=start)
        chosen = next((image for image in profile.images if image.name == selection.image), None)
        if chosen is not None:
            return chosen.reference
        return self.server_image(server.profile if server is not None else None)

    def _chosen(
        self,
        person: Person,
        policy: Policy,
        profile: ClusterProfile,
        selection: ClusterSelection,
        image: str | None,
    ) -> ChosenCluster:
        pool = selection.pool or ""
        allowed = frozenset(one.slug for one in self.catalogue if may_start(one, person, pool, policy.path))
        name = new_lease_id()
        minutes = profile.default_minutes if selection.minutes is None else selection.minutes
        scheduler = Ask(
            id=name,
            person=person.name,
            pool=pool,
            amounts=profile.scheduler,
            kind=SCHEDULER,
            profile=profile.slug,
            minutes=minutes,
            server=name,
        )
        return ChosenCluster(
            replace(person, profiles=allowed, any_profile=False),
            profile,
            selection,
            scheduler,
            replace(scheduler, kind=WORKER, amounts=profile.worker),
            image,
        )

"""What the gateway's own record keeps of a cluster: the choice as it was made, whatever the catalogue says later. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from hub_ext.clusters.model import SCHEDULER, WORKER, ClusterProfile, ClusterSelection, RmmPool
from hub_ext.clusters.policy import MOST_WORKERS
from hub_ext.clusters.service import ChosenCluster
from hub_ext.core.errors import BadInput
from hub_ext.quota.model import Ask

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A cluster as it was chosen. A profile that changed or went away meanwhile changes nothing for what runs."""

    person: str
    pool: str
    profile: ClusterProfile
    selection: ClusterSelection
    minutes: int | None = None
    image: str | None = None

    @property
    def most_workers(self) -> int:
        return min(self.profile.most_workers, MOST_WORKERS)

    def scheduler(self, name: str) -> Ask:
        """What the scheduler of the cluster of this name takes."""
        return self._ask(name, SCHEDULER, self.profile.scheduler)

    def unit(self, name: str) -> Ask:
        """What each of its workers takes."""
        return self._ask(name, WORKER, self.profile.worker)

    def _ask(self, name: str, kind: str, amounts: Mapping[str, int]) -> Ask:
        return Ask(
            id=name,
            person=self.person,
            pool=self.pool,
            amounts=amounts,
            kind=kind,
            profile=self.profile.slug,
            minutes=self.minutes,
            server=name,
        )


def keep(chosen: ChosenCluster) -> dict[str, Any]:
    """The choice as JSON values."""
    profile = chosen.profile
    return {
        "version": VERSION,
        "person": chosen.person.name,
        "pool": chosen.scheduler.pool,
        "minutes": chosen.scheduler.minutes,
        "image": chosen.image,
        "selection": {**asdict(chosen.selection), "environment": dict(chosen.selection.environment)},
        "profile": {
            "slug": profile.slug,
            "title": dict(profile.title),
            "worker": dict(profile.worker),
            "scheduler": dict(profile.scheduler),
            "threads": profile.threads,
            "rmm": None if profile.rmm is None else asdict(profile.rmm),
            "environment": dict(profile.environment),
            "most_workers": profile.most_workers,
        },
        # dask-gateway's own routes compare with this one.
        "cluster_max_workers": min(profile.most_workers, MOST_WORKERS),
    }


def read(kept: Mapping[str, Any]) -> Kept:
    """What `keep` wrote. Raises BadInput for a record that another version of the gateway made."""
    try:
        if kept["version"] != VERSION:
            raise BadInput(
                f"a cluster's record has version {kept['version']!r}, and this gateway reads {VERSION}"
            )
        profile = dict(kept["profile"])
        rmm = profile.pop("rmm")
        return Kept(
            person=kept["person"],
            pool=kept["pool"],
            profile=ClusterProfile(**profile, description={}, rmm=None if rmm is None else RmmPool(**rmm)),
            selection=ClusterSelection(**kept["selection"]),
            minutes=kept["minutes"],
            image=kept["image"],
        )
    except (KeyError, TypeError) as error:
        raise BadInput(f"a cluster's record cannot be read ({error!r}); it is ended") from error

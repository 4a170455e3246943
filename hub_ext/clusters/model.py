"""The frozen data of clusters: what an operator offers, what a person chose of it, and how a cluster stands.

| word | meaning |
|---|---|
| cluster | a scheduler and its workers, each under a lease of its own |
| cluster name | the gateway's name of it (32 hexadecimal digits), the id of its scheduler's lease, and the `server` of all its leases |
| profile | the size of one worker, of the scheduler, and how many workers there may be |
| unit | what one worker asks of the quota |
| device | the one GPU, or slice of one, that a GPU worker has |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from hub_ext.core.amounts import Amounts, is_gpu
from hub_ext.core.clock import Instant
from hub_ext.core.errors import BadInput
from hub_ext.profiles.model import Audience, Words
from hub_ext.quota.model import SCHEDULER as SCHEDULER
from hub_ext.quota.model import WORKER as WORKER


@dataclass(frozen=True, slots=True)
class RmmPool:
    """The memory that RMM takes of the device: at the start, and at most. MiB."""

    pool: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image that a cluster may run in place of the notebook's own; `reference` has a tag or a digest."""

    name: str
    reference: str
    title: Words = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterProfile:
    """One size of cluster.

    `worker` and `scheduler` are in base units; a worker has at most one device. `minutes` are the lengths offered
    (none: as long as the pool's sessions allow). `images` may be chosen in place of the notebook's own.
    """

    slug: str
    title: Words
    description: Words
    worker: Amounts
    scheduler: Amounts
    threads: int
    order: int = 100
    audience: Audience = field(default_factory=Audience)
    rmm: RmmPool | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    images: tuple[Image, ...] = ()
    most_workers: int = 8
    minutes: tuple[int, ...] = ()
    default_minutes: int | None = None

    @property
    def gpu_class(self) -> str | None:
        """The class of the worker's device; None for workers without one."""
        return next((name.removeprefix("gpu.") for name in self.worker if is_gpu(name)), None)


@dataclass(frozen=True, slots=True)
class ClusterCatalogue:
    """Every size of cluster that the operator offers, in the order of the menu; made by `ClusterCatalogue.of`."""

    profiles: tuple[ClusterProfile, ...] = ()

    @classmethod
    def of(cls, profiles: Iterable[ClusterProfile]) -> ClusterCatalogue:
        """Raises BadInput where two profiles have the same slug."""
        ordered = tuple(sorted(profiles, key=lambda profile: (profile.order, profile.slug)))
        slugs = [profile.slug for profile in ordered]
        twice = next((slug for slug in slugs if slugs.count(slug) > 1), None)
        if twice is not None:
            raise BadInput(f"there are two profiles of clusters {twice!r}; give each its own name")
        return cls(ordered)

    @property
    def slugs(self) -> tuple[str, ...]:
        return tuple(profile.slug for profile in self.profiles)

    def get(self, slug: str) -> ClusterProfile | None:
        return next((profile for profile in self.profiles if profile.slug == slug), None)

    def without_images(self) -> ClusterCatalogue:
        """For one machine, where every cluster runs what the notebook runs."""
        return ClusterCatalogue(tuple(replace(profile, images=()) for profile in self.profiles))

    def __iter__(self) -> Iterator[ClusterProfile]:
        return iter(self.profiles)

    def __len__(self) -> int:
        return len(self.profiles)


@dataclass(frozen=True, slots=True)
class ClusterSelection:
    """What a person chose.

    `pool` None: the first from which they may. `minutes` None: the profile's default length. `image` None: the
    notebook's own. `server` is the server of theirs that the cluster ends with ("" is the default one); None: no
    server, as for a program outside.
    """

    profile: str
    pool: str | None = None
    minutes: int | None = None
    idle_minutes: int = 20
    image: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    server: str | None = None


class ClusterEnd(StrEnum):
    """Why a cluster is stopped by us, as the ledger writes it."""

    TIME = "ended"
    IDLE = "cluster-idle"
    NO_CLIENT = "cluster-no-client"
    OWNER_GONE = "cluster-owner-gone"
    HOURS = "budget-spent"


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What the reaper looks at. All times are ours; what the cluster's own scheduler says only moves them.

    `last_active` is when it was last known to work, `last_client` when a client was last known to be connected; both
    begin at `started_at`, and a scheduler that tells nothing leaves them there. `owner_seen` is when the owner's
    server was last known to run; None for a cluster that is not tied to a server. `hours_over_since`: since when it
    has no worker and can have none, because the budget is spent.
    """

    started_at: Instant
    ends_at: Instant
    idle_minutes: int
    last_active: Instant
    last_client: Instant
    owner_seen: Instant | None = None
    hours_over_since: Instant | None = None

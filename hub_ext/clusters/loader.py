"""Reads the clusters an operator offers: a folder with one YAML file per size (`cluster_profiles/`).

The file's name is the profile's slug; `images.yaml` is the list of images that profiles may name. Every fault is named
with file, line and what to write instead; a folder with a fault changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hub_ext.clusters.document import ClusterProfileDoc, ImagesDoc, RmmDoc
from hub_ext.clusters.model import ClusterProfile, Image, RmmPool
from hub_ext.clusters.policy import may_set, most_of_device
from hub_ext.core.amounts import MILLI, Amounts, format_amount, is_gpu, parse_amount
from hub_ext.core.errors import BadInput, FaultyDocument
from hub_ext.document_fields import checked_slug
from hub_ext.document_reading import Known, Reading, dotted, read_folder, words
from hub_ext.documents import Document, Place, parse_document, read_document, validate
from hub_ext.profiles.model import Audience

IMAGES_FILE: Final = "images.yaml"
LEAST_MEMORY: Final = 1024
"""MiB: Dask and the libraries of a notebook alone take about half of it."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a cluster profile may name: `device_memory` is that of each GPU class in MiB (0: not known)."""

    known: Known
    images: Mapping[str, Image]
    device_memory: Mapping[str, int]


def load_cluster_profiles(
    folder: Path, known: Known, device_memory: Mapping[str, int]
) -> tuple[ClusterProfile, ...]:
    """Every cluster of a folder, in the order of the menu. Raises FaultyDocument with the faults of all files."""
    faults = []
    images: Mapping[str, Image] = {}
    listed = folder / IMAGES_FILE
    try:
        images = images_of(read_document(listed)) if listed.exists() else {}
    except FaultyDocument as error:
        faults += error.faults
    around = Around(known, images, device_memory)
    try:
        profiles = read_folder(
            folder,
            lambda document, slug: cluster_profile_of(document, slug, around),
            example="cpu.yaml",
            apart=(IMAGES_FILE,),
        )
    except FaultyDocument as error:
        # With a fault in the list of images, that names are missing there is no news.
        faults += [fault for fault in error.faults if not faults or "there is no image" not in fault.what]
    if faults:
        raise FaultyDocument(faults)
    return profiles


def parse_cluster_profile(text: str, slug: str, around: Around) -> ClusterProfile:
    """One profile from the text of its file. Raises FaultyDocument with every fault."""
    return cluster_profile_of(parse_document(text, f"{slug}.yaml"), slug, around)


def images_of(document: Document) -> dict[str, Image]:
    """The list of images. Raises FaultyDocument with every fault."""
    if document.data is None:
        return {}
    images = validate(ImagesDoc, document).root
    return {name: Image(name, image.image, words(image.title)) for name, image in images.items()}


def cluster_profile_of(document: Document, slug: str, around: Around) -> ClusterProfile:
    """The profile of a parsed file. Raises FaultyDocument with every fault."""
    if document.data is None:
        raise FaultyDocument(
            [document.fault((), "the file is empty", "Write at least title, description, worker, scheduler.")]
        )
    reader = _Reader(document, around)
    profile = reader.profile(slug, validate(ClusterProfileDoc, document))
    if reader.faults:
        raise FaultyDocument(reader.faults)
    return profile


class _Reader(Reading):
    """Turns a well-formed file into the model, collecting what names, amounts and the parts together get wrong."""

    def __init__(self, document: Document, around: Around) -> None:
        super().__init__(document, around.known)
        self.around = around

    def profile(self, slug: str, doc: ClusterProfileDoc) -> ClusterProfile:
        try:
            checked_slug(slug)
        except ValueError as error:
            self.fault((), f"the file's name: {error}")
        worker, scheduler = self._worker(doc), self._scheduler(doc)
        with_gpu = any(is_gpu(resource) for resource in worker)
        for name in doc.environment:
            if not may_set(name):
                self.fault(
                    ("environment", name), f"environment.{name}: the cluster sets it itself; remove it"
                )
        return ClusterProfile(
            slug=slug,
            title=words(doc.title),
            description=words(doc.description),
            worker=worker,
            scheduler=scheduler,
            threads=doc.threads or (1 if with_gpu else max(1, worker.get("cpu", 0) // MILLI)),
            order=doc.order,
            audience=Audience(*self.audience(doc.audience)),
            rmm=self._rmm(doc.rmm, worker) if doc.rmm else None,
            environment=dict(doc.environment),
            images=self._images(doc),
            most_workers=doc.most_workers,
            minutes=self.minutes(doc.minutes) if doc.minutes else (),
            default_minutes=doc.minutes.default if doc.minutes else None,
        )

    # -- sizes --------------------------------------------------------------------------------------------------------

    def _worker(self, doc: ClusterProfileDoc) -> Amounts:
        worker = self._sized(doc.worker, "worker", "a worker")
        gpus = {resource: amount for resource, amount in worker.items() if is_gpu(resource)}
        if len(gpus) > 1:
            what = f"worker: {' and '.join(sorted(gpus))} come together; a worker gets one device, keep one"
            self.fault(("worker",), what)
        for resource, amount in gpus.items():
            if amount > MILLI:
                place = ("worker", resource)
                self.fault(
                    place,
                    f"{dotted(place)}: a worker is one process with one device; write 1, and ask for more workers",
                )
        return worker

    def _scheduler(self, doc: ClusterProfileDoc) -> Amounts:
        scheduler = self._sized(doc.scheduler, "scheduler", "a scheduler")
        for resource in scheduler:
            if is_gpu(resource):
                place = ("scheduler", resource)
                self.fault(place, f"{dotted(place)}: a scheduler computes nothing on a GPU; remove it")
        return scheduler

    def _sized(self, resources: Mapping[str, object], part: str, whose: str) -> Amounts:
        amounts = self.amounts(resources, (part,), whose=whose)
        self.needs_cpu_and_memory(resources, (part,))
        if 0 < amounts.get("memory", 0) < LEAST_MEMORY:
            place = (part, "memory")
            self.fault(place, f"{dotted(place)}: Dask does not come up in less than 1Gi; write at least 1Gi")
        return amounts

    # -- the device's memory ------------------------------------------------------------------------------------------

    def _rmm(self, doc: RmmDoc, worker: Amounts) -> RmmPool:
        gpu_class = next((name.removeprefix("gpu.") for name in worker if is_gpu(name)), None)
        if gpu_class is None:
            self.fault(("rmm",), "rmm: there is no GPU whose memory it could take; remove rmm")
        pool = self._memory(doc.pool, ("rmm", "pool"))
        maximum = self._memory(doc.maximum, ("rmm", "maximum"))
        if pool > maximum:
            self.fault(
                ("rmm", "pool"), "rmm.pool: it begins with more than its maximum; write at most the maximum"
            )
        memory = self.around.device_memory.get(gpu_class or "", 0)
        if memory and maximum > most_of_device(memory):
            most = format_amount("memory", most_of_device(memory))
            what = f"rmm.maximum: of {format_amount('memory', memory)} the driver and libraries need some"
            self.fault(("rmm", "maximum"), f"{what}; write at most {most}")
        return RmmPool(pool, maximum)

    def _memory(self, value: object, place: Place) -> int:
        try:
            return parse_amount("memory", value, rounding="down")
        except BadInput as error:
            self.fault(place, f"{dotted(place)}: {error}")
            return 0

    # -- images -------------------------------------------------------------------------------------------------------

    def _images(self, doc: ClusterProfileDoc) -> tuple[Image, ...]:
        self.unique(("images",), doc.images)
        for index, name in enumerate(doc.images):
            if name not in self.around.images:
                self.unknown(("images", index), "image", name, self.around.images)
        return tuple(self.around.images[name] for name in doc.images if name in self.around.images)

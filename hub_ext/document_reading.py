"""Reading what operators offer: a folder with one YAML file per thing, and what several kinds of files have in common.

Every fault is named with file, line and what to write instead; a folder with a fault changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from hub_ext.core.amounts import MILLI, Amounts, is_gpu, parse_amount
from hub_ext.core.errors import BadInput, Fault, FaultyDocument
from hub_ext.document_fields import AudienceDoc, MinutesDoc, TextDoc, TitleDoc
from hub_ext.documents import Document, Place, read_document


@dataclass(frozen=True, slots=True)
class Known:
    """The names a document may use. `gpu_classes` and `pools` None: any, for a check without the policy at hand."""

    gpu_classes: Collection[str] | None
    roles: Collection[str]
    pools: Collection[str] | None = None


class Offer(Protocol):
    """What a file of the folder describes."""

    @property
    def slug(self) -> str: ...
    @property
    def title(self) -> Mapping[str, str]: ...
    @property
    def order(self) -> int: ...


OfferT = TypeVar("OfferT", bound=Offer)


def read_folder(
    folder: Path, read: Callable[[Document, str], OfferT], *, example: str, apart: Sequence[str] = ()
) -> tuple[OfferT, ...]:
    """Everything that a folder offers, in its order. Raises FaultyDocument with the faults of all files.

    `read` makes an offer of a document and its file's name, `apart` names files that are something else. Files that
    do not end in `.yaml` are left alone, except `.yml`, which somebody would wait for in vain.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        what = f"the folder of profiles cannot be read ({error.strerror or error})"
        raise FaultyDocument([Fault(str(folder), 1, what, "Check the path and its rights.")]) from error
    offers: list[tuple[Document, OfferT]] = []
    faults = [
        Fault(str(path), 1, "profiles end in .yaml", f"Rename it to {path.stem}.yaml.")
        for path in paths
        if path.suffix == ".yml"
    ]
    for path in paths:
        if path.suffix == ".yaml" and path.name not in apart:
            try:
                document = read_document(path)
                offers.append((document, read(document, path.stem)))
            except FaultyDocument as error:
                faults += error.faults
    if not offers and not faults:
        faults.append(Fault(str(folder), 1, "there is no profile here", f"Add a file such as {example}."))
    faults += _same_titles(offers)
    if faults:
        raise FaultyDocument(faults)
    return tuple(sorted((offer for _, offer in offers), key=lambda offer: (offer.order, offer.slug)))


class Reading:
    """Turns a well-formed document into a model, collecting what names and amounts get wrong."""

    def __init__(self, document: Document, known: Known) -> None:
        self.document = document
        self.known = known
        self.faults: list[Fault] = []

    def amounts(self, resources: Mapping[str, object], place: Place, *, whose: str = "a server") -> Amounts:
        """In base units, rounded up. GPUs are whole."""
        return {
            resource: self._amount(resource, value, (*place, resource), whose)
            for resource, value in resources.items()
        }

    def needs_cpu_and_memory(self, resources: Mapping[str, object], place: Place) -> None:
        for resource, example in (("cpu", "cpu: 2"), ("memory", "memory: 8Gi")):
            if resource not in resources:
                self.fault(place, f"{dotted(place)}: {resource} is missing; add for example {example}")

    def _amount(self, resource: str, value: object, place: Place, whose: str) -> int:
        gpu_class, known = resource.removeprefix("gpu."), self.known.gpu_classes
        if is_gpu(resource) and known is not None and gpu_class not in known:
            self.unknown(place, "GPU class", gpu_class, known)
        try:
            amount = parse_amount(resource, value, rounding="up")
        except BadInput as error:
            self.fault(place, f"{dotted(place)}: {error}")
            return 0
        if is_gpu(resource) and amount % MILLI:
            what = (
                f"{dotted(place)}: {whose} gets whole GPUs; write a whole number, or use the class of a slice"
            )
            self.fault(place, what)
        return amount

    def minutes(self, doc: MinutesDoc) -> tuple[int, ...]:
        self.unique(("minutes", "choices"), doc.choices)
        if not doc.choices:
            self.fault(
                ("minutes", "choices"),
                "minutes.choices: there is no length to choose; add some, or remove minutes",
            )
        elif doc.default not in doc.choices:
            offered = ", ".join(str(minutes) for minutes in doc.choices)
            what = f"minutes.default: {doc.default} is not among the choices; write one of: {offered}"
            self.fault(("minutes", "default"), what)
        return tuple(sorted(doc.choices))

    def audience(self, doc: AudienceDoc) -> tuple[frozenset[str], frozenset[str]]:
        """The roles and pools."""
        for field, kind, names, known in (
            ("roles", "role", doc.roles, self.known.roles),
            ("pools", "pool", doc.pools, self.known.pools),
        ):
            if names == []:
                self.fault(
                    ("for", field),
                    f"for.{field}: nobody could see the profile; add a {kind}, or remove {field}",
                )
            for index, name in enumerate(names or ()):
                if known is not None and name not in known:
                    self.unknown(("for", field, index), kind, name, known)
            self.unique(("for", field), names or ())
        return frozenset(doc.roles or ()), frozenset(doc.pools or ())

    def unique(self, place: Place, values: Iterable[object]) -> None:
        seen: set[object] = set()
        for index, value in enumerate(values):
            if value in seen:
                self.fault(
                    (*place, index), f"{dotted(place)}: {value!r} stands here twice; keep one of the two"
                )
            seen.add(value)

    def unknown(self, place: Place, kind: str, name: str, known: Iterable[str]) -> None:
        names = ", ".join(sorted(known)) or "none is known"
        self.fault(place, f"{dotted(place)}: there is no {kind} {name!r}; use one of: {names}")

    def fault(self, place: Place, sentence: str) -> None:
        """A fault from a sentence of two halves: what is wrong; what to write instead."""
        what, _, instead = sentence.rpartition("; ")
        self.faults.append(self.document.fault(place, what, f"{instead[:1].upper()}{instead[1:]}."))


def dotted(place: Place) -> str:
    return ".".join(str(step) for step in place)


def words(doc: TitleDoc | TextDoc) -> dict[str, str]:
    """The text by language."""
    return {language: text for language, text in (("en", doc.en), ("ko", doc.ko)) if text is not None}


def _same_titles(offers: Iterable[tuple[Document, Offer]]) -> list[Fault]:
    """Two cards that people could not tell apart."""
    first: dict[str, Document] = {}
    faults = []
    for document, offer in offers:
        other = first.setdefault(offer.title["en"], document)
        if other is not document:
            what = f"title: {Path(other.file).name} has the same title"
            faults.append(document.fault(("title", "en"), what, "Give each profile its own."))
    return faults

"""Reads the profiles an operator offers: a folder with one YAML file per profile (`spawner_profiles/`).

The file's name is the profile's slug. Every fault is named with file, line and what to write instead; a folder with
a fault changes nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hub_ext.core.amounts import MILLI, Amounts, is_gpu, parse_amount
from hub_ext.core.errors import BadInput, Fault, FaultyDocument
from hub_ext.documents import Document, Place, parse_document, read_document, validate
from hub_ext.profiles.document import (
    AudienceDoc,
    ChoiceDoc,
    MinutesDoc,
    OptionDoc,
    ProfileDoc,
    TextDoc,
    TitleDoc,
    checked_slug,
)
from hub_ext.profiles.model import Audience, Choice, Option, Profile, Words

MOST_COMBINATIONS: Final = 24
"""The start page decides each combination of choices each time it is shown."""


@dataclass(frozen=True, slots=True)
class Known:
    """The names a profile may use. `gpu_classes` and `pools` None: any, for a check without the policy at hand."""

    gpu_classes: Collection[str] | None
    roles: Collection[str]
    pools: Collection[str] | None = None


def load_profiles(folder: Path, known: Known) -> tuple[Profile, ...]:
    """Every profile of a folder, in the order of the start page. Raises FaultyDocument with the faults of all files.

    Files that do not end in `.yaml` are left alone, except `.yml`, which somebody would wait for in vain.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        what = f"the folder of profiles cannot be read ({error.strerror or error})"
        raise FaultyDocument([Fault(str(folder), 1, what, "Check the path and its rights.")]) from error
    profiles: list[tuple[Document, Profile]] = []
    faults = [
        Fault(str(path), 1, "profiles end in .yaml", f"Rename it to {path.stem}.yaml.")
        for path in paths
        if path.suffix == ".yml"
    ]
    for path in paths:
        if path.suffix == ".yaml":
            try:
                document = read_document(path)
                profiles.append((document, profile_of(document, path.stem, known)))
            except FaultyDocument as error:
                faults += error.faults
    if not profiles and not faults:
        faults.append(Fault(str(folder), 1, "there is no profile here", "Add a file such as cpu-small.yaml."))
    faults += _same_titles(profiles)
    if faults:
        raise FaultyDocument(faults)
    return tuple(
        sorted((profile for _, profile in profiles), key=lambda profile: (profile.order, profile.slug))
    )


def parse_profile(text: str, slug: str, known: Known) -> Profile:
    """One profile from the text of its file. Raises FaultyDocument with every fault."""
    return profile_of(parse_document(text, f"{slug}.yaml"), slug, known)


def profile_of(document: Document, slug: str, known: Known) -> Profile:
    """The profile of a parsed file. Raises FaultyDocument with every fault."""
    if document.data is None:
        raise FaultyDocument(
            [document.fault((), "the file is empty", "Write at least title, description, resources.")]
        )
    reader = _Reader(document, known)
    profile = reader.profile(slug, validate(ProfileDoc, document))
    if reader.faults:
        raise FaultyDocument(reader.faults)
    return profile


class _Reader:
    """Turns a well-formed file into the model, collecting what names, amounts and the parts together get wrong."""

    def __init__(self, document: Document, known: Known) -> None:
        self.document = document
        self.known = known
        self.faults: list[Fault] = []

    def profile(self, slug: str, doc: ProfileDoc) -> Profile:
        try:
            checked_slug(slug)
        except ValueError as error:
            self._fault((), f"the file's name: {error}")
        amounts = self._amounts(doc.resources, ("resources",))
        for resource in ("cpu", "memory"):
            if resource not in doc.resources:
                self._fault(
                    ("resources",), f"resources: {resource} is missing; add for example {_EXAMPLES[resource]}"
                )
        options = tuple(self._option(name, option) for name, option in doc.options.items())
        if not self.faults:
            self._check_together(amounts, options)
        return Profile(
            slug=slug,
            title=_words(doc.title),
            description=_words(doc.description),
            amounts=amounts,
            order=doc.order,
            options=options,
            minutes=self._minutes(doc.minutes) if doc.minutes else (),
            default_minutes=doc.minutes.default if doc.minutes else None,
            audience=self._audience(doc.audience),
            teaching=doc.teaching,
            image=doc.image,
            environment=dict(doc.environment),
        )

    # -- resources ----------------------------------------------------------------------------------------------------

    def _amounts(self, resources: Mapping[str, object], place: Place) -> Amounts:
        return {
            resource: self._amount(resource, value, (*place, resource))
            for resource, value in resources.items()
        }

    def _amount(self, resource: str, value: object, place: Place) -> int:
        gpu_class, known = resource.removeprefix("gpu."), self.known.gpu_classes
        if is_gpu(resource) and known is not None and gpu_class not in known:
            self._unknown(place, "GPU class", gpu_class, known)
        try:
            amount = parse_amount(resource, value, rounding="up")
        except BadInput as error:
            self._fault(place, f"{_dotted(place)}: {error}")
            return 0
        if is_gpu(resource) and amount % MILLI:
            what = f"{_dotted(place)}: a server gets whole GPUs; write a whole number, or use the class of a slice"
            self._fault(place, what)
        return amount

    # -- options ------------------------------------------------------------------------------------------------------

    def _option(self, name: str, doc: OptionDoc) -> Option:
        place = ("options", name, "choices")
        if not doc.choices:
            self._fault(
                place, f"{_dotted(place)}: there is nothing to choose; add a choice, or remove the option"
            )
        defaults = [choice for choice, entry in doc.choices.items() if entry.default]
        if len(defaults) > 1:
            where = (*place, defaults[1], "default")
            self._fault(where, f"{_dotted(where)}: {defaults[0]} is the default already; keep one of the two")
        elif not defaults and len(doc.choices) > 1:
            self._fault(
                place, f"{_dotted(place)}: no choice is the default; add default: true to one of them"
            )
        self._same_titles(place, doc.choices)
        choices = tuple(self._choice(place, choice, entry) for choice, entry in doc.choices.items())
        if len(choices) == 1:
            choices = (
                Choice(
                    choices[0].name,
                    choices[0].title,
                    choices[0].amounts,
                    choices[0].environment,
                    default=True,
                ),
            )
        return Option(name, _words(doc.title), choices)

    def _choice(self, place: Place, name: str, doc: ChoiceDoc) -> Choice:
        amounts = self._amounts(doc.resources, (*place, name, "resources"))
        return Choice(name, _words(doc.title), amounts, dict(doc.environment), doc.default)

    def _same_titles(self, place: Place, choices: Mapping[str, ChoiceDoc]) -> None:
        first: dict[str, str] = {}
        for name, choice in choices.items():
            other = first.setdefault(choice.title.en, name)
            if other != name:
                where = (*place, name, "title")
                self._fault(where, f"{_dotted(where)}: {other} has the same title; give each its own")

    def _check_together(self, amounts: Amounts, options: tuple[Option, ...]) -> None:
        """What only shows once all choices are seen together."""
        named_by: dict[str, str] = {}
        for option in options:
            for name in {
                name for choice in option.choices for name in (*choice.amounts, *choice.environment)
            }:
                other = named_by.setdefault(name, option.name)
                if other != option.name:
                    place = ("options", option.name)
                    self._fault(
                        place,
                        f"{_dotted(place)}: the option {other} sets {name} too; let only one of them set it",
                    )
        combinations = math.prod(len(option.choices) for option in options)
        if combinations > MOST_COMBINATIONS:
            what = f"options: {combinations} combinations of choices are too many; offer at most {MOST_COMBINATIONS}"
            self._fault(("options",), what)
            return
        for chosen in itertools.product(*(option.choices for option in options)):
            gpus = sorted(
                {r for named in (amounts, *(choice.amounts for choice in chosen)) for r in named if is_gpu(r)}
            )
            if len(gpus) > 1:
                what = (
                    f"resources: {' and '.join(gpus)} come together; a server gets one class of GPU, keep one"
                )
                self._fault(("options",) if options else ("resources",), what)
                return

    # -- the rest -----------------------------------------------------------------------------------------------------

    def _minutes(self, doc: MinutesDoc) -> tuple[int, ...]:
        self._unique(("minutes", "choices"), doc.choices)
        if not doc.choices:
            self._fault(
                ("minutes", "choices"),
                "minutes.choices: there is no length to choose; add some, or remove minutes",
            )
        elif doc.default not in doc.choices:
            offered = ", ".join(str(minutes) for minutes in doc.choices)
            what = f"minutes.default: {doc.default} is not among the choices; write one of: {offered}"
            self._fault(("minutes", "default"), what)
        return tuple(sorted(doc.choices))

    def _audience(self, doc: AudienceDoc) -> Audience:
        for field, kind, names, known in (
            ("roles", "role", doc.roles, self.known.roles),
            ("pools", "pool", doc.pools, self.known.pools),
        ):
            if names == []:
                self._fault(
                    ("for", field),
                    f"for.{field}: nobody could see the profile; add a {kind}, or remove {field}",
                )
            for index, name in enumerate(names or ()):
                if known is not None and name not in known:
                    self._unknown(("for", field, index), kind, name, known)
            self._unique(("for", field), names or ())
        return Audience(frozenset(doc.roles or ()), frozenset(doc.pools or ()))

    def _unique(self, place: Place, values: Iterable[object]) -> None:
        seen: set[object] = set()
        for index, value in enumerate(values):
            if value in seen:
                self._fault(
                    (*place, index), f"{_dotted(place)}: {value!r} stands here twice; keep one of the two"
                )
            seen.add(value)

    def _unknown(self, place: Place, kind: str, name: str, known: Iterable[str]) -> None:
        names = ", ".join(sorted(known)) or "none is known"
        self._fault(place, f"{_dotted(place)}: there is no {kind} {name!r}; use one of: {names}")

    def _fault(self, place: Place, sentence: str) -> None:
        """A fault from a sentence of two halves: what is wrong; what to write instead."""
        what, _, instead = sentence.rpartition("; ")
        self.faults.append(self.document.fault(place, what, f"{instead[:1].upper()}{instead[1:]}."))


_EXAMPLES: Final = {"cpu": "cpu: 2", "memory": "memory: 8Gi"}


def _dotted(place: Place) -> str:
    return ".".join(str(step) for step in place)


def _words(doc: TitleDoc | TextDoc) -> Words:
    return {language: text for language, text in (("en", doc.en), ("ko", doc.ko)) if text is not None}


def _same_titles(profiles: Iterable[tuple[Document, Profile]]) -> list[Fault]:
    """Two cards that people could not tell apart."""
    first: dict[str, Document] = {}
    faults = []
    for document, profile in profiles:
        other = first.setdefault(profile.title["en"], document)
        if other is not document:
            what = f"title: {Path(other.file).name} has the same title"
            faults.append(document.fault(("title", "en"), what, "Give each profile its own."))
    return faults

"""Reads the profiles an operator offers: a folder with one YAML file per profile (`spawner_profiles/`).

The file's name is the profile's slug. Every fault is named with file, line and what to write instead; a folder with
a fault changes nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hub_ext.core.amounts import Amounts, is_gpu
from hub_ext.core.errors import FaultyDocument
from hub_ext.document_fields import checked_slug
from hub_ext.document_reading import Known, Reading, dotted, read_folder, words
from hub_ext.documents import Document, Place, parse_document, validate
from hub_ext.profiles.document import ChoiceDoc, OptionDoc, ProfileDoc
from hub_ext.profiles.model import Audience, Choice, Option, Profile

MOST_COMBINATIONS: Final = 24
"""The start page decides each combination of choices each time it is shown."""

__all__ = ["MOST_COMBINATIONS", "Known", "load_profiles", "parse_profile", "profile_of"]


def load_profiles(folder: Path, known: Known) -> tuple[Profile, ...]:
    """Every profile of a folder, in the order of the start page. Raises FaultyDocument with the faults of all files.

    Files that do not end in `.yaml` are left alone, except `.yml`, which somebody would wait for in vain.
    """
    return read_folder(
        folder, lambda document, slug: profile_of(document, slug, known), example="cpu-small.yaml"
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


class _Reader(Reading):
    """Turns a well-formed file into the model, collecting what names, amounts and the parts together get wrong."""

    def profile(self, slug: str, doc: ProfileDoc) -> Profile:
        try:
            checked_slug(slug)
        except ValueError as error:
            self.fault((), f"the file's name: {error}")
        amounts = self.amounts(doc.resources, ("resources",))
        self.needs_cpu_and_memory(doc.resources, ("resources",))
        options = tuple(self._option(name, option) for name, option in doc.options.items())
        if not self.faults:
            self._check_together(amounts, options)
        return Profile(
            slug=slug,
            title=words(doc.title),
            description=words(doc.description),
            amounts=amounts,
            order=doc.order,
            options=options,
            minutes=self.minutes(doc.minutes) if doc.minutes else (),
            default_minutes=doc.minutes.default if doc.minutes else None,
            audience=Audience(*self.audience(doc.audience)),
            teaching=doc.teaching,
            image=doc.image,
            environment=dict(doc.environment),
        )

    # -- options ------------------------------------------------------------------------------------------------------

    def _option(self, name: str, doc: OptionDoc) -> Option:
        place = ("options", name, "choices")
        if not doc.choices:
            self.fault(
                place, f"{dotted(place)}: there is nothing to choose; add a choice, or remove the option"
            )
        defaults = [choice for choice, entry in doc.choices.items() if entry.default]
        if len(defaults) > 1:
            where = (*place, defaults[1], "default")
            self.fault(where, f"{dotted(where)}: {defaults[0]} is the default already; keep one of the two")
        elif not defaults and len(doc.choices) > 1:
            self.fault(place, f"{dotted(place)}: no choice is the default; add default: true to one of them")
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
        return Option(name, words(doc.title), choices)

    def _choice(self, place: Place, name: str, doc: ChoiceDoc) -> Choice:
        amounts = self.amounts(doc.resources, (*place, name, "resources"))
        return Choice(name, words(doc.title), amounts, dict(doc.environment), doc.default)

    def _same_titles(self, place: Place, choices: Mapping[str, ChoiceDoc]) -> None:
        first: dict[str, str] = {}
        for name, choice in choices.items():
            other = first.setdefault(choice.title.en, name)
            if other != name:
                where = (*place, name, "title")
                self.fault(where, f"{dotted(where)}: {other} has the same title; give each its own")

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
                    self.fault(
                        place,
                        f"{dotted(place)}: the option {other} sets {name} too; let only one of them set it",
                    )
        combinations = math.prod(len(option.choices) for option in options)
        if combinations > MOST_COMBINATIONS:
            what = f"options: {combinations} combinations of choices are too many; offer at most {MOST_COMBINATIONS}"
            self.fault(("options",), what)
            return
        for chosen in itertools.product(*(option.choices for option in options)):
            gpus = sorted(
                {r for named in (amounts, *(choice.amounts for choice in chosen)) for r in named if is_gpu(r)}
            )
            if len(gpus) > 1:
                what = (
                    f"resources: {' and '.join(gpus)} come together; a server gets one class of GPU, keep one"
                )
                self.fault(("options",) if options else ("resources",), what)
                return

"""YAML documents that operators write: read with line numbers, validated with every fault named at its line.

A fault says what is wrong and what to write instead; all faults of a document are reported at once.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from hub_ext.core.errors import BadInput, Fault, FaultyDocument

Place = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top."""
ModelT = TypeVar("ModelT", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Composes without aliases (a few lines of them can stand for gigabytes), without tags, and not too deep."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        problem = None
        if isinstance(event, yaml.AliasEvent):
            problem = "aliases (*name) are not supported"
        elif getattr(event, "tag", None) is not None:
            problem = "tags (!name) are not supported"
        elif self.depth > 2 * DEEPEST:
            problem = "values are nested too deeply"
        if problem:
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


LARGEST_DOCUMENT = 4 * 1024 * 1024
DEEPEST = 40
LARGEST_NUMBER = 10**100
"""Longer ones, which hexadecimal digits can make, could not even be told in a message."""


@dataclass(frozen=True)
class Document:
    """Plain data with the line each value stands on."""

    file: str
    data: Any
    lines: Mapping[Place, int] = field(default_factory=dict)

    def line(self, place: Place) -> int:
        """The line of the value, or of the nearest thing around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def fault(self, place: Place, what: str, instead: str) -> Fault:
        return Fault(self.file, self.line(place), what, instead)

    def part(self, place: Place) -> Document:
        """The document below `place`, with its own lines."""
        data = self.data
        for step in place:
            data = data[step]
        size = len(place)
        lines = {key[size:]: line for key, line in self.lines.items() if key[:size] == place}
        return Document(self.file, data, lines)


def read_document(path: Path) -> Document:
    """Read one YAML file. Raises FaultyDocument when it cannot be read or is not YAML."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_DOCUMENT + 1)
        if len(raw) > LARGEST_DOCUMENT:
            raise FaultyDocument(
                [Fault(str(path), 1, "the file is larger than 4 MiB", "Split or shorten it.")]
            )
        text = raw.decode("utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise FaultyDocument(
            [Fault(str(path), 1, f"the file cannot be read ({reason})", "Check the path and its rights.")]
        ) from error
    except UnicodeDecodeError as error:
        raise FaultyDocument(
            [Fault(str(path), 1, "the file is not UTF-8 text", "Save it as UTF-8.")]
        ) from error
    return parse_document(text, str(path))


def parse_document(text: str, file: str) -> Document:
    """Parse one YAML document. Raises FaultyDocument for syntax errors, duplicate keys, aliases and tags."""
    faults: list[Fault] = []
    try:
        loader = _Loader(text)
        try:
            node = _single_node(loader)
            lines: dict[Place, int] = {}
            data = None if node is None else _build(loader, node, (), lines, faults, file)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        fault = Fault(file, _line_of(error, text), f"this is not YAML: {problem}", "Mend the syntax here.")
        raise FaultyDocument([fault]) from error
    if faults:
        raise FaultyDocument(faults)
    return Document(file, data, lines)


def _single_node(loader: _Loader) -> yaml.Node | None:
    try:
        return loader.get_single_node()
    except (ValueError, OverflowError) as error:  # "\UFFFFFFFF": the scanner makes a character of any number
        mark = loader.get_mark()
        raise yaml.scanner.ScannerError(None, None, "there is no such character", mark) from error


def _line_of(error: yaml.YAMLError, text: str) -> int:
    """Where YAML stumbled: syntax errors carry a mark, forbidden characters a position."""
    mark = getattr(error, "problem_mark", None)
    return mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1


def _build(
    loader: yaml.SafeLoader,
    node: yaml.Node,
    place: Place,
    lines: dict[Place, int],
    faults: list[Fault],
    file: str,
) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(place, line)
    if len(place) > DEEPEST:
        faults.append(Fault(file, line, "values are nested too deeply", "Write a flatter document."))
        return None
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _plain(loader, key_node, faults, file)
            key_line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                if not isinstance(key, int | float) or isinstance(key, bool):
                    faults.append(Fault(file, key_line, f"{key!r} cannot be a name", "Quote it as a text."))
                    continue
                key = str(key_node.value)
            if key in result:
                faults.append(Fault(file, key_line, f"{key!r} stands here twice", "Keep one of the two."))
                continue
            lines[(*place, key)] = key_line
            result[key] = _build(loader, value_node, (*place, key), lines, faults, file)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, child, (*place, i), lines, faults, file) for i, child in enumerate(node.value)]
    return _plain(loader, node, faults, file)


def _plain(loader: yaml.SafeLoader, node: yaml.Node, faults: list[Fault], file: str) -> Any:
    """A text, number, date or the like. Some look like one and are none: 2026-13-45, a number of 5,000 digits."""
    try:
        value = loader.construct_object(node, deep=True)
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise ValueError("no number here is as long")
        return value
    except (ValueError, OverflowError) as error:
        line = node.start_mark.line + 1
        faults.append(Fault(file, line, f"a value cannot be read: {error}", "Write it as a quoted text."))
        return ""


def validate(model: type[ModelT], document: Document) -> ModelT:
    """The document as a pydantic model. Raises FaultyDocument naming every fault with its line."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise FaultyDocument(faults_of(document, model, error)) from error


def faults_of(document: Document, model: type[BaseModel], error: ValidationError) -> list[Fault]:
    faults = []
    for detail in error.errors(include_url=False):
        place = tuple(step for step in detail["loc"] if step != "[key]")
        what, instead = _in_words(document, model, place, detail)
        fault = document.fault(_existing(document, place), what, instead)
        if fault not in faults:
            faults.append(fault)
    return faults


def _existing(document: Document, place: Place) -> Place:
    """The longest part of a validation place that stands in the document (union tags do not)."""
    kept: list[str | int] = []
    data = document.data
    for step in place:
        if not isinstance(data, str):
            with contextlib.suppress(KeyError, IndexError, TypeError):
                data = data[step]
                kept.append(step)
    return tuple(kept)


def _in_words(
    document: Document, model: type[BaseModel], place: Place, detail: Mapping[str, Any]
) -> tuple[str, str]:
    name = ".".join(str(step) for step in place) or "the document"
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _known_keys(model, place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        hint = (
            f"Did you mean {near[0]!r}?"
            if near
            else f"Known here: {', '.join(sorted(known))}."
            if known
            else ""
        )
        return f"{name} is not a known setting", hint or "Remove it."
    if kind == "missing":
        return f"{name} is missing", f"Add {place[-1]!r}."
    if kind == "value_error":
        cause = detail.get("ctx", {}).get("error")
        text = str(cause) if isinstance(cause, BadInput | ValueError) else str(detail["msg"])
        what, _, instead = text.partition("; ")
        return f"{name}: {what}", _sentence(instead) if instead else "Write another value."
    return f"{name}: {detail['msg'][:1].lower()}{detail['msg'][1:]}", f"Found {_short(detail.get('input'))}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known_keys(model: type[BaseModel], place: Place) -> list[str]:
    """The settings a model knows at a place, following its fields as far as they are models."""
    current: Any = model
    for step in place:
        model_here = _as_model(current)
        if model_here is None:
            current = _inner_model(current)  # an entry of a mapping or list
            continue
        by_name = {info.alias or key: info for key, info in model_here.model_fields.items()}
        if str(step) not in by_name:
            return []
        current = by_name[str(step)].annotation
    model_here = _as_model(current) or _inner_model(current)
    return [info.alias or key for key, info in model_here.model_fields.items()] if model_here else []


def _as_model(annotation: Any) -> type[BaseModel] | None:
    """The model itself, also where it is optional; not the entries of a container."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        return next((found for part in get_args(annotation) if (found := _as_model(part))), None)
    return None


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None

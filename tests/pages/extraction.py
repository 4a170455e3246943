"""Every message that code and templates say, found as gettext's tools find them."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from babel.messages.extract import extract
from jinja2.ext import babel_extract

PACKAGE = Path(__file__).parents[2] / "hub_ext"
KEYWORDS = {"_": None, "say": None, "sentence": None, "gettext": None, "ngettext": (1, 2)}
OWN = {"hub_ext/language.py": {"self": None, "ngettext": (1, 2)}}
"""The speaker calls itself."""

Message = str | tuple[str, str]


def used_messages() -> dict[Message, list[str]]:
    """Each message with the places that say it."""
    found: dict[Message, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE.parent).as_posix()
        for message, line in _in_python(path, OWN.get(name, KEYWORDS)):
            found.setdefault(message, []).append(f"{name}:{line}")
    for path in sorted(PACKAGE.glob("*/templates/**/*.html")):
        name = path.relative_to(PACKAGE.parent).as_posix()
        options = {"silent": "false", "trim_blocks": "true", "lstrip_blocks": "true"}
        for line, _, message, _ in babel_extract(
            BytesIO(path.read_bytes()), ("_", "gettext", "ngettext"), [], options
        ):
            # Jinja's tool gives every argument of a call, null for those that are no text.
            said = message if isinstance(message, str) else _texts(message)
            found.setdefault(said, []).append(f"{name}:{line}")
    return found


def _texts(arguments: tuple[str | None, ...]) -> Message:
    texts = [text for text in arguments if text is not None]
    return (texts[0], texts[1]) if len(texts) > 1 else texts[0]


def _in_python(path: Path, keywords: dict[str, object]) -> Iterator[tuple[Message, int]]:
    for line, message, _, _ in extract("python", BytesIO(path.read_bytes()), keywords=keywords):  # type: ignore[arg-type]
        yield (message if isinstance(message, str) else (message[0], message[1])), line

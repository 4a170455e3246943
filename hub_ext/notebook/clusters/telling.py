"""One line in a notebook's output that says what is waited for, and goes again when it came."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

__all__ = ["Telling"]


class Telling:
    """Says each sentence in place of the last one where there is a notebook, else line by line on standard error."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell
        self._line: Any = None

    def __call__(self, sentence: str) -> None:
        if not sentence:
            return
        if self._tell is not None:
            self._tell(sentence)
        elif (display := _display()) is None:
            sys.stderr.write(f"{sentence}\n")
        elif self._line is None:
            self._line = display(_text(sentence), raw=True, display_id=True)
        else:
            self._line.update(_text(sentence), raw=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._line is not None and error is None:
            self._line.update(_text(""), raw=True)


def _text(sentence: str) -> dict[str, str]:
    return {"text/plain": sentence}


def _display() -> Any:
    """IPython's, where a kernel listens."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    return display

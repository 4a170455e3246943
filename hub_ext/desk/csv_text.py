"""Tables as CSV (RFC 4180, UTF-8) that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from fastapi import Response

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
BYTE_ORDER_MARK: Final = "\ufeff"
"""Excel reads Korean right only with it."""


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A text cell that a spreadsheet would run as a formula begins with an apostrophe; numbers stay numbers.

    Without a header: rows that go on.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    if header:
        writer.writerow([_cell(name) for name in header])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def csv_response(name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Response:
    """The table as a file to keep; `name` is ASCII without an ending."""
    return Response(
        BYTE_ORDER_MARK + csv_text(header, rows),
        media_type="text/csv; charset=utf-8",
        headers=csv_headers(name),
    )


def csv_headers(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}.csv"', "Cache-Control": "no-store"}


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value

"""Tables as CSV that a spreadsheet may open: no cell is taken for a formula. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

Cell = str | int | float | Decimal | None
Row = Mapping[str, Cell] | Sequence[Cell]
"""A value for each field: by the field's name, or in the fields' order."""

_BEGINS_A_FORMULA: Final = frozenset("=+-@\t\r\n＝＋－＠")
"""As OWASP lists them ("CSV Injection"), the wide ones included: spreadsheets set to Korean or Japanese read them."""
BYTE_ORDER_MARK: Final = "\ufeff"
"""Without it Excel takes Korean text for another encoding."""


def csv_lines(fields: Sequence[str], rows: Iterable[Row], *, head: bool = True) -> str:
    """The rows, with a first line of names where `head` is wanted; lines end as RFC 4180 has them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    if head:
        writer.writerow(fields)
    for row in rows:
        cells = [row[name] for name in fields] if isinstance(row, Mapping) else row
        writer.writerow([safe_cell(cell) for cell in cells])
    return out.getvalue()


def csv_parts(fields: Sequence[str], pages: Iterable[Iterable[Row]], *, mark: bool = False) -> Iterator[str]:
    """A table of any length, a page of rows at a time; `mark` begins it with the byte order mark."""
    first = True
    for rows in pages:
        yield (BYTE_ORDER_MARK if first and mark else "") + csv_lines(fields, rows, head=first)
        first = False


def safe_cell(value: Cell) -> str | int | float | Decimal:
    """A number as it stands; a text that a spreadsheet would calculate gets an apostrophe before it."""
    if value is None:
        return ""
    if isinstance(value, str):
        value = value.replace("\x00", "")
        return f"'{value}" if value.lstrip(" ")[:1] in _BEGINS_A_FORMULA and value.strip(" ") else value
    return value

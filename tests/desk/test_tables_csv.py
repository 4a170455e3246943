"""Files for spreadsheets: what comes in is what is read, and nothing is ever calculated."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.desk.tables_csv import BYTE_ORDER_MARK, Cell, csv_lines, csv_parts, safe_cell

cells = st.one_of(st.text(), st.text("=+-@\t\r\n ＝＠'a1", max_size=6), st.integers(), st.none())


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@given(st.lists(st.lists(cells, min_size=2, max_size=4), max_size=5))
def test_no_cell_is_a_formula_and_nothing_else_changes(rows: list[list[Cell]]) -> None:
    for row, found in zip(rows, read(csv_lines(["first"], rows))[1:], strict=True):
        for value, cell in zip(row, found, strict=True):
            if isinstance(value, str):
                text = value.replace("\x00", "")
                assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
                assert cell in (text, f"'{text}")
            else:
                assert cell == ("" if value is None else str(value))


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1", "＠x", '=HYPERLINK("http://x")'],
)
def test_a_formula_becomes_text(text: str) -> None:
    assert read(csv_lines(["a", "b"], [{"b": 1, "a": text}], head=False)) == [[f"'{text}", "1"]]


@pytest.mark.parametrize(
    "text", ["hangang-univ", "김하늘", 'a "quoted", name', "2 lines\nof text", "", "a=b"]
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert read(csv_lines(["a", "b"], [[text, 1]], head=False)) == [[text, "1"]]


def test_numbers_stay_numbers() -> None:
    assert [safe_cell(value) for value in (-1, 0.5, None)] == [-1, 0.5, ""]


def test_a_table_has_one_head_however_many_pages_it_comes_in() -> None:
    whole = "".join(csv_parts(["a"], [[{"a": 1}], [], [[2]]], mark=True))
    assert whole == BYTE_ORDER_MARK + "a\r\n1\r\n2\r\n"
    assert list(csv_parts(["a"], [[]])) == ["a\r\n"]

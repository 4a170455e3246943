"""Amounts are whole numbers of one base unit; what people write is converted at the edge, exactly."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.core.amounts import (
    LARGEST,
    family,
    format_amount,
    gpu_seconds,
    is_gpu,
    parse_amount,
    parse_quantity,
)
from hub_ext.core.errors import BadInput


@pytest.mark.parametrize(
    ("resource", "value", "up", "down"),
    [
        pytest.param("cpu", 2, 2000, 2000, id="a whole number"),
        pytest.param("cpu", "500m", 500, 500, id="milli"),
        pytest.param("cpu", 0.5, 500, 500, id="a decimal"),
        pytest.param("cpu", ".5", 500, 500, id="a decimal that begins with its point"),
        pytest.param("cpu", "2.", 2000, 2000, id="a decimal that ends with its point"),
        pytest.param("cpu", " 2 ", 2000, 2000, id="spaces around it"),
        pytest.param("cpu", "0.0001", 1, 0, id="asks are rounded up, quotas down"),
        pytest.param("cpu", "100u", 1, 0, id="micro"),
        pytest.param("cpu", "1n", 1, 0, id="nano"),
        pytest.param("cpu", "1e3", 1_000_000, 1_000_000, id="an exponent"),
        pytest.param("cpu", "1E-3", 1, 1, id="a negative exponent"),
        pytest.param("cpu", "1k", 1_000_000, 1_000_000, id="kilo"),
        pytest.param("cpu", 1e-7, 1, 0, id="a float that Python writes with an exponent"),
        pytest.param("gpu.h200", "0.143", 143, 143, id="a part of a GPU"),
        pytest.param("memory", "4Ti", 4 * 1024**2, 4 * 1024**2, id="tebibytes"),
        pytest.param("memory", "1Gi", 1024, 1024, id="gibibytes"),
        pytest.param("memory", "1Ki", 1, 0, id="a kibibyte is less than the unit"),
        pytest.param("memory", "1G", 954, 953, id="a gigabyte is no whole number of mebibytes"),
        pytest.param("memory", "1M", 1, 0, id="nor is a megabyte"),
        pytest.param("memory", 1048576, 1, 1, id="bytes"),
        pytest.param("memory", 1048577, 2, 1, id="a byte more"),
        pytest.param("memory", "1500m", 1, 0, id="thousandths of bytes"),
        pytest.param("cpu", 0, 0, 0, id="none"),
        pytest.param("cpu", "0.1", 100, 100, id="0.1 exactly"),
        pytest.param("cpu", 0.1, 100, 100, id="0.1 exactly, also as a float"),
        pytest.param("cpu", 0.3, 300, 300, id="0.3 exactly, also as a float"),
        pytest.param("cpu", 10**9, LARGEST, LARGEST, id="the most"),
    ],
)
def test_quantities(resource: str, value: Any, up: int, down: int) -> None:
    assert parse_amount(resource, value, rounding="up") == up
    assert parse_amount(resource, value, rounding="down") == down


@pytest.mark.parametrize(
    "value",
    [-1, "-1", "-0", "+1", "", " ", "1 Gi", "1gi", "1K", "m", "1mm", "1e", "1e999", "0x10", "1_000", "१", "½", "1,5", "NaN", float("nan"), float("inf"), True, False, None, [], {}, b"1", "1" * 40, "∞"],
)  # fmt: skip
def test_what_is_no_quantity(value: Any) -> None:
    with pytest.raises(BadInput, match="is not an amount; write for example"):
        parse_quantity(value)


def test_more_than_any_centre_has() -> None:
    for value in (10**9 + 1, "1E", "9" * 30, "1e99"):
        with pytest.raises(BadInput, match="more than any centre has"):
            parse_amount("cpu", value, rounding="down")


def test_tenths_add_up() -> None:
    """0.1 + 0.2 is 0.3 (KAI-Scheduler #2209 shows what floats make of it)."""
    assert parse_amount("gpu.a", 0.1, rounding="up") + parse_amount(
        "gpu.a", 0.2, rounding="up"
    ) == parse_amount("gpu.a", 0.3, rounding="down")


@given(
    resource=st.sampled_from(["cpu", "memory", "gpu.h200"]),
    amount=st.integers(0, LARGEST),
    rounding=st.sampled_from(["up", "down"]),
)
def test_what_is_written_is_read_back(resource: str, amount: int, rounding: Literal["up", "down"]) -> None:
    assert parse_amount(resource, format_amount(resource, amount), rounding=rounding) == amount


@given(st.decimals(0, 10**6, places=9), st.sampled_from(["cpu", "memory"]))
def test_rounding_up_is_never_less_and_at_most_one_more(value: Decimal, resource: str) -> None:
    up, down = (parse_amount(resource, f"{value:f}", rounding=rounding) for rounding in ("up", "down"))
    assert 0 <= up - down <= 1


@given(st.integers(-(10**15), 10**15))
def test_gpu_seconds_have_at_most_six_decimals(units: int) -> None:
    shown = gpu_seconds(units)
    assert Decimal(repr(shown)) * 10**6 == units


@pytest.mark.parametrize(
    ("resource", "gpu", "wanted"),
    [
        ("gpu.h200", True, "gpu"),
        ("gpu.h200-1g", True, "gpu"),
        ("cpu", False, "cpu"),
        ("memory", False, "memory"),
    ],
)
def test_families(resource: str, gpu: bool, wanted: str) -> None:
    assert (is_gpu(resource), family(resource)) == (gpu, wanted)

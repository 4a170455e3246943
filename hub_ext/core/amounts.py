"""Amounts: whole numbers of one base unit per resource, converted only at the edge.

| resource      | base unit                    |
|---------------|------------------------------|
| `gpu.<class>` | milli-GPU (1 GPU = 1000)     |
| `cpu`         | milli-core                   |
| `memory`      | MiB                          |

Integers only: 0.1 + 0.2 against a limit of 0.3 must fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Final, Literal

from hub_ext.core.errors import BadInput

Amount = int
Amounts = Mapping[str, Amount]
Rounding = Literal["up", "down"]

MILLI: Final = 1000
MIB: Final = 1 << 20
LARGEST: Final = 10**12
"""No resource of any centre is larger in its base unit; larger input is a mistake."""

COST_UNITS_PER_GPU_SECOND: Final = 10**6
COST_UNITS_PER_GPU_HOUR: Final = 3600 * COST_UNITS_PER_GPU_SECOND

_SUFFIXES: Final[Mapping[str, Decimal]] = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{letter: Decimal(1000) ** (i + 1) for i, letter in enumerate("kMGTPE")},
    **{f"{letter}i": Decimal(1024) ** (i + 1) for i, letter in enumerate("KMGTPE")},
}
_QUANTITY = re.compile(
    r"(\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,2}))?", re.ASCII
)


def is_gpu(resource: str) -> bool:
    return resource.startswith("gpu.")


def family(resource: str) -> str:
    """`gpu` for every GPU class, else the resource itself."""
    return "gpu" if is_gpu(resource) else resource


def parse_quantity(value: object) -> Decimal:
    """A Kubernetes quantity (`"500m"`, `2`, `4Ti`, `1e3`) as an exact number of whole units.

    Raises BadInput for negative numbers, NaN, booleans and anything that is not a quantity.
    """
    text = str(value).strip() if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise BadInput(
            f"{value!r} is not an amount; write for example 2, 0.5, 500m or 64Gi, never below zero"
        )
    number, suffix, exponent = match.groups()
    scale = Decimal(10) ** int(exponent) if exponent else _SUFFIXES[suffix or ""]
    return Decimal(number) * scale


def parse_amount(resource: str, value: object, *, rounding: Rounding) -> Amount:
    """The quantity in the resource's base unit; asks round `up`, quotas round `down`."""
    units = parse_quantity(value)
    scaled = units / MIB if resource == "memory" else units * MILLI
    if scaled > LARGEST:
        raise BadInput(f"{value!r} of {resource} is more than any centre has; check the unit")
    return int(scaled.to_integral_value(ROUND_CEILING if rounding == "up" else ROUND_FLOOR))


def format_amount(resource: str, amount: Amount) -> str:
    """The shortest Kubernetes quantity that `parse_amount` reads back as the same amount."""
    if resource == "memory":
        for power, suffix in ((4, "Pi"), (3, "Ti"), (2, "Gi")):
            size = 1024 ** (power - 1)
            if amount and amount % size == 0:
                return f"{amount // size}{suffix}"
        return f"{amount}Mi"
    whole, milli = divmod(amount, MILLI)
    return f"{amount}m" if milli else str(whole)


def cost_per_second(gpu_hours: Mapping[str, Decimal], amounts: Amounts, rate: Decimal) -> int:
    """What a second of these amounts costs, in millionths of a GPU-second.

    Per class: milli-GPU x round(1000 x hours x rate), decimal and half up (QUOTA.md §7); other resources are
    free, and so is a class that the policy does not name (what is adopted may be of one that was taken away).
    """
    cost = 0
    for resource, amount in amounts.items():
        if is_gpu(resource):
            hours = gpu_hours.get(resource.removeprefix("gpu."), Decimal(0))
            cost += amount * int((1000 * hours * rate).to_integral_value(ROUND_HALF_UP))
    return cost


def gpu_seconds(cost_units: int) -> int | float:
    """Cost units as GPU-seconds, at most six decimals; a whole number stays an integer."""
    whole, rest = divmod(cost_units, COST_UNITS_PER_GPU_SECOND)
    return cost_units / COST_UNITS_PER_GPU_SECOND if rest else whole


def hours_to_cost_units(hours: Decimal) -> int:
    return int((hours * COST_UNITS_PER_GPU_HOUR).to_integral_value(ROUND_FLOOR))

"""The values that rules see of one event: the named inputs, read by their declared type.

Knows types, not rules. What is missing, not finite, or of another type than declared is left out.
"""

import math
from collections.abc import Iterable, Mapping

from fraudguard.domain import Scalar
from fraudguard.rules.validators import Type

Value = float | str | bool
Values = Mapping[str, Value]


def read_values(slots: Iterable[tuple[str, Type]], inputs: Mapping[str, Scalar]) -> dict[str, Value]:
    """The known values among `slots` (name, type); every number becomes a double, as the rules compare doubles."""
    values: dict[str, Value] = {}
    for name, kind in slots:
        value = inputs.get(name)
        if value is None:
            continue
        if (value.__class__ is float or value.__class__ is int) and kind == "number":  # nearly all of them
            number = _double(value)
            if math.isfinite(number):
                values[name] = number
        elif isinstance(value, bool):
            if kind == "boolean" or kind == "any":
                values[name] = value
        elif isinstance(value, str):
            if kind == "text" or kind == "any":
                values[name] = value if type(value) is str else str(value)
        elif kind == "number" or kind == "any":
            number = _double(value)
            if math.isfinite(number):
                values[name] = number
    return values


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf

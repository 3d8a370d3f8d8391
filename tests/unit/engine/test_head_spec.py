"""head.json's features as numbers. What a bad head.json is refused for is in test_head.py."""

import math

import pytest

from fraudguard.engine.head_spec import as_numbers
from fraudguard.errors import BadModel


def test_values_become_numbers() -> None:
    """Booleans are 0 and 1; None and what is not finite are missing."""
    rows = [{"a": True, "b": 2, "c": 0.5, "unused": "x"}, {"a": False, "b": None, "c": math.inf}]
    table = as_numbers(["a", "b", "c"], rows)
    assert table[0].tolist() == [1.0, 2.0, 0.5]
    assert table[1][0] == 0.0
    assert math.isnan(table[1][1])
    assert math.isnan(table[1][2])


def test_text_is_refused() -> None:
    """A feature that turned into text is another registry's."""
    with pytest.raises(BadModel, match="reads 'a' as a number, but it is text"):
        as_numbers(["a"], [{"a": "app"}])

"""Cursors survive a round trip and refuse everything else."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.decisions.pages import decode_cursor, encode_cursor
from fraudguard.errors import BadInput

TYPES = (float, datetime, str)


@settings(max_examples=100, deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.datetimes(timezones=st.just(UTC)),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
def test_a_cursor_keeps_its_key(number: float, at: datetime, name: str) -> None:
    """The key comes back equal, and the cursor needs no escaping in a URL."""
    cursor = encode_cursor(number, at, name)
    assert decode_cursor(cursor, *TYPES) == [number, at, name]
    assert cursor.replace("-", "").replace("_", "").isalnum()


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=30)
    | st.lists(st.none() | st.integers() | st.text(), max_size=4).map(lambda key: encode_cursor(*key))
)  # type: ignore[arg-type] - wrong keys are the point
def test_other_text_is_refused(cursor: str) -> None:
    """Anything that is not a cursor of this list is BadInput."""
    with pytest.raises(BadInput, match="cursor"):
        decode_cursor(cursor, *TYPES)


def test_numbers_and_naive_times_are_refused() -> None:
    """NaN, infinity and a time without zone would break the order."""
    for key in ((float("nan"), datetime(2026, 1, 1, tzinfo=UTC)), (1.0, datetime(2026, 1, 1))):  # noqa: DTZ001 - naive on purpose
        with pytest.raises(BadInput, match="cursor"):
            decode_cursor(encode_cursor(*key, "x"), *TYPES)

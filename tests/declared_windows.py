"""Declared windows, events that meet their edges, and what a window is by definition, for the features' tests."""

from fractions import Fraction

from hypothesis import strategies as st

from fraudguard.domain import Window

DAY = 86_400


def every(features):
    """A window without a filter."""
    return True


def written(features):
    """What a rule manager might write: messages, and payments to x or y."""
    return features["event_type"] == "message" or features["counterparty_id"] in ("x", "y")


def window(aggregate, of, seconds, matches=every, entity="account"):
    """A window whose name says what it is."""
    name = f"{aggregate}_{of.replace('.', '_')}_{seconds}_{matches.__name__}"
    return Window(name, entity, aggregate, of, seconds, f"{entity}-{name}", matches)


WINDOWS = (
    window("count", "", 600), window("count", "", 90 * DAY, written), window("sum", "amount_base", 3600),
    window("sum", "attributes.points", DAY, written), window("max", "amount_base", DAY),
    window("max", "attributes.points", 600), window("mean", "amount_base", 7 * DAY),
    window("mean", "attributes.points", 3600, written), window("distinct", "counterparty_id", DAY),
    window("distinct", "attributes.city", 3600, written),
)  # fmt: skip

EDGES_US = [12_500_000, 75_000_000, 1_800_000_000]  # buckets of 10 minutes, an hour and a day
# Times cluster (bursts), lie days apart, and meet bucket edges to the microsecond.
seconds = st.one_of(
    st.integers(0, 100 * DAY),
    st.integers(0, 3 * 3600),
    st.builds(
        lambda n, length, off: n * length + off, st.integers(0, 60), st.sampled_from([12.5, 1800]), st.integers(-1, 1)
    ),
)
buckets = st.integers(0, 120).map(lambda n: n * 12.5)  # edges of ten minutes' alone, so that many are met
fields = st.fixed_dictionaries(
    {
        "currency": st.sampled_from(["CNY", "USD", "XTS"]),
        "amount": st.integers(1, 10**6),
        "counterparty_id": st.sampled_from([None, *"xyz"]),
        "attributes": st.fixed_dictionaries(
            {},
            optional={
                "points": st.integers(-(10**6), 10**6).map(lambda n: n / 100) | st.integers(-9, 9) | st.just("many"),
                "city": st.sampled_from(["Xi'an", "Wuhan"]) | st.just(7),
            },
        ),
    }
)


def value_of(window, features):
    """What the oracle counts of an event: a fraction, a text, or True for a count; None where it does not enter."""
    if not window.matches(features):
        return None
    value = features.get(window.of)
    if window.aggregate == "count":
        return True
    if window.aggregate == "distinct":
        return value if isinstance(value, str) else None
    return None if value is None or isinstance(value, str) else Fraction(repr(value))


def naive(window, history, us):
    """The window over (time in microseconds, features) of every event taken on time, in fractions."""
    length = window.seconds * 1_000_000 // 48
    inside = [features for then, features in history if us // length - 48 < then // length <= us // length]
    values = [value for value in (value_of(window, features) for features in inside) if value is not None]
    if window.aggregate == "count":
        return len(values)
    if window.aggregate == "distinct":
        return len(set(values))
    if window.aggregate == "sum":
        return float(sum(values))
    if not values:
        return None
    return float(max(values) if window.aggregate == "max" else sum(values) / len(values))

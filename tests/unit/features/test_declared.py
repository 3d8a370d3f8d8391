"""Declared windows of an account: their definition recomputed, and history counted in as if it had been live."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from views import NOTHING_SHARED

from fraudguard.domain import Window
from fraudguard.features.facts import microseconds

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
steps = st.lists(st.tuples(seconds, st.none() | fields), max_size=30)


@pytest.fixture(scope="session")
def event_of(payment, message):
    """event_of(step): the event that a drawn step stands for."""

    def make(step):
        at, values = step
        return message(at) if values is None else payment(at, **values)

    return make


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


@settings(max_examples=150, deadline=None)
@given(steps=steps, lateness_s=st.sampled_from([0, 60, 3600, 2 * DAY]), in_order=st.booleans())
def test_windows_equal_naive_recomputation(account, event_of, steps, lateness_s, in_order):
    """On-time events see their own past and themselves; late ones see the latest time and change nothing."""
    if in_order:
        steps = sorted(steps, key=lambda step: step[0])
    state, history, latest = account(lateness_s=lateness_s, windows=WINDOWS), [], None
    for step in steps:
        event = event_of(step)
        us = microseconds(event.event_time)
        snapshot = state.take(event, *NOTHING_SHARED)
        if not snapshot.late:
            history.append((us, snapshot.features))
            latest = us if latest is None else max(latest, us)
        expected = {window.name: naive(window, history, latest if snapshot.late else us) for window in WINDOWS}
        assert {name: snapshot.features[name] for name in expected} == expected


def restored(account, body, windows, **arguments):
    """A state from the store, of a rule set with these windows."""
    state = account(windows=windows, **arguments)
    state.restore(body)
    return state


@settings(max_examples=100, deadline=None)
@given(
    steps=steps,
    stops=st.sets(st.integers(0, 30)),
    declared_at=st.integers(0, 30),
    filled_at=st.integers(0, 30),
    lateness_s=st.sampled_from([0, 3600, 2 * DAY]),
)
def test_history_counts_as_if_it_had_been_live(account, event_of, steps, stops, declared_at, filled_at, lateness_s):
    """Windows declared and filled at any points give the values and bytes of windows declared from the start.

    Until they are filled they are missing, also over the store; the ones that were there before go on.
    """
    before, after = WINDOWS[::2], (*WINDOWS[1::2], *WINDOWS[::2])
    live, state = account(windows=after, lateness_s=lateness_s), account(windows=before, lateness_s=lateness_s)
    history, new, declared = [], {window.key for window in WINDOWS[1::2]}, before
    for number, step in enumerate([*steps, (100 * DAY, None)]):
        if number == declared_at:
            declared = after
        if number in stops or number == declared_at:
            body = state.dump()
            state = restored(account, body, declared, lateness_s=lateness_s)
            assert state.dump() == body
        if number >= filled_at or number == len(steps):
            if declared is before:
                declared = after
                state = restored(account, state.dump(), after, lateness_s=lateness_s)
            assert {window.key for window in state.unfilled} in (new, set())
            state.fill({window.key for window in state.unfilled}, history)
        event = event_of(step)
        expected, snapshot = live.take(event, *NOTHING_SHARED), state.take(event, *NOTHING_SHARED)
        history.append((event, snapshot.late))
        missing = {window.name for window in state.unfilled}
        assert all(snapshot.features[name] is None for name in missing)
        unknown = missing | {window.name for window in after if window not in declared}
        assert {name: value for name, value in expected.features.items() if name not in unknown} == {
            name: value for name, value in snapshot.features.items() if name not in unknown
        }
    assert state.dump() == live.dump()

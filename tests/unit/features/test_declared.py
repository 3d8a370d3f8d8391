"""Declared windows of an account: their definition recomputed, and history counted in as if it had been live."""

from dataclasses import replace
from math import inf, nan

import orjson
import pytest
from declared_windows import DAY, WINDOWS, buckets, fields, naive, seconds, window
from hypothesis import given, settings
from hypothesis import strategies as st
from views import NOTHING_SHARED

from fraudguard.features.declared import MEMBERS_MAX, hundredths
from fraudguard.features.facts import microseconds
from fraudguard.features.money import AMOUNT_CENTS_MAX

steps = st.one_of(
    st.lists(st.tuples(seconds, st.none() | fields), max_size=30),
    st.lists(st.tuples(buckets, st.none() | fields), min_size=20, max_size=40),
)


@pytest.fixture(scope="session")
def event_of(payment, message):
    """event_of(step): the event that a drawn step stands for."""

    def make(step):
        at, values = step
        return message(at) if values is None else payment(at, **values)

    return make


@settings(max_examples=150, deadline=None)
@given(steps=steps, lateness_s=st.sampled_from([0, 60, 600, 3600, 2 * DAY]), in_order=st.booleans())
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
    lateness_s=st.sampled_from([0, 60, 600, 3600, 2 * DAY]),
)
def test_history_counts_as_if_it_had_been_live(account, event_of, steps, stops, declared_at, filled_at, lateness_s):
    """Windows declared and filled at any points give the values and bytes of windows declared from the start.

    Until they are filled they are missing, also over the store; the ones that were there before go on.
    """
    before, after = WINDOWS[::2], (*WINDOWS[1::2], *WINDOWS[::2])
    live, state = account(windows=after, lateness_s=lateness_s), account(windows=before, lateness_s=lateness_s)
    history, new, declared = [], {window.key for window in WINDOWS[1::2]}, before
    for number, step in enumerate(steps):
        if number == declared_at:
            declared = after
        if number in stops or number == declared_at:
            body = state.dump()
            state = restored(account, body, declared, lateness_s=lateness_s)
            assert state.dump() == body
        if number >= filled_at:
            state.fill(new, history)
        event = event_of(step)
        expected, snapshot = live.take(event, *NOTHING_SHARED), state.take(event, *NOTHING_SHARED)
        history.append((event, snapshot.late))
        missing = {window.name for window in state.unfilled}
        assert all(snapshot.features[name] is None for name in missing)
        unknown = missing | {window.name for window in after if window not in declared}
        assert {name: value for name, value in expected.features.items() if name not in unknown} == {
            name: value for name, value in snapshot.features.items() if name not in unknown
        }
    state = restored(account, state.dump(), after, lateness_s=lateness_s)
    state.fill(new, history)
    assert state.dump() == live.dump()


def test_older_states_are_unfilled_and_new_accounts_are_not(account, payment):
    """A state written before there were windows restores; a new account has no history to count."""
    new = account(windows=WINDOWS)
    assert new.unfilled == ()
    new.take(payment(), *NOTHING_SHARED)
    stored = orjson.loads(new.dump())
    del stored["declared"], stored["trend"]
    old = restored(account, orjson.dumps(stored), WINDOWS)
    assert old.unfilled == WINDOWS
    assert set(old.trend().values()) == {None}
    features = old.take(payment(1), *NOTHING_SHARED).features
    assert all(features[window.name] is None for window in WINDOWS)
    assert orjson.loads(old.dump())["declared"] == {}


def test_withdrawn_window_is_dropped_and_comes_back_unfilled(account, payment):
    """A rollback and its rollback: what was not counted meanwhile must be counted in again."""
    state = account(windows=WINDOWS)
    state.take(payment(), *NOTHING_SHARED)
    without = restored(account, state.dump(), WINDOWS[1:])
    assert list(orjson.loads(without.dump())["declared"]) == [window.key for window in WINDOWS[1:]]
    assert restored(account, without.dump(), WINDOWS).unfilled == WINDOWS[:1]


def test_fill_takes_the_windows_asked_for_and_is_all_or_nothing(account, payment):
    """The others stay unfilled; a history that cannot be read changes nothing."""
    state = account()
    state.take(payment(), *NOTHING_SHARED)
    state = restored(account, state.dump(), WINDOWS)
    before = state.dump()

    def broken():
        yield payment(), False
        raise RuntimeError("store")

    with pytest.raises(RuntimeError, match="store"):
        state.fill({WINDOWS[0].key}, broken())
    assert (state.dump(), state.unfilled) == (before, WINDOWS)
    state.fill({WINDOWS[0].key, "of-another"}, [(payment(), False)])
    assert state.unfilled == WINDOWS[1:]
    assert state.take(payment(1), *NOTHING_SHARED).features[WINDOWS[0].name] == 2


def test_failing_filter_leaves_the_state_as_it_was(account, payment):
    """A filter that raises refuses the event, not the account."""

    def choosy(features):
        if features["amount"] == 7:
            raise ZeroDivisionError
        return True

    state = account(windows=(window("count", "", 600), window("count", "", 600, choosy)))
    state.take(payment(), *NOTHING_SHARED)
    before = state.dump()
    with pytest.raises(ZeroDivisionError):
        state.take(payment(1, amount=7), *NOTHING_SHARED)
    assert state.dump() == before


def test_one_definition_under_two_names_counts_once(account, payment):
    """Two names with one key read the same buckets."""
    first = window("count", "", 600)
    state = account(windows=(first, replace(first, name="again")))
    state.take(payment(), *NOTHING_SHARED)
    features = state.take(payment(1), *NOTHING_SHARED).features
    assert (features[first.name], features["again"]) == (2, 2)


def test_windows_of_other_entities_are_not_counted_here(account, payment):
    """They belong to `SharedWindows`; a state holds none of them."""
    state = account(windows=(window("count", "", 600, entity="device"),))
    state.take(payment(device_id="d"), *NOTHING_SHARED)
    assert orjson.loads(state.dump())["declared"] == {}


@pytest.mark.parametrize(
    ("value", "cents"),
    [
        (0.285, 28), (1.1, 110), (-0.01, -1), (3, 300), (10**300, AMOUNT_CENTS_MAX), (1e300, AMOUNT_CENTS_MAX),
        (-1e300, -AMOUNT_CENTS_MAX), (nan, None), (inf, None), (True, None), ("7", None), (None, None),
    ],
)  # fmt: skip
def test_numbers_count_in_hundredths(value, cents):
    """Whole hundredths within a bound; what is no finite number is missing, and a boolean is none."""
    assert hundredths(value) == cents


@given(cents=st.integers(-AMOUNT_CENTS_MAX, AMOUNT_CENTS_MAX))
def test_amounts_are_exact(cents):
    """What money.py counted in hundredths survives its way through a float."""
    assert hundredths(cents / 100) == cents


def test_hostile_account_stays_bounded(account, payment):
    """Every bucket within reach full of new counterparties: as many, and as full, as declared.py says."""
    state = account(windows=[window("distinct", "counterparty_id", 600)], lateness_s=600)
    for bucket in range(120):
        for n in range(MEMBERS_MAX + 3):
            state.take(payment(bucket * 12.5, counterparty_id=f"{bucket}-{n}"), *NOTHING_SHARED)
    ((starts, _, members),) = orjson.loads(state.dump())["declared"].values()
    assert len(starts) == 48 + 600 * 48 // 600
    assert {len(characters) for characters in members} == {MEMBERS_MAX}

"""Declared windows of what accounts share: their definition, batches in any split, and back-fill."""

from itertools import pairwise
from math import log
from zoneinfo import ZoneInfo

import pytest
from declared_windows import DAY, buckets, fields, naive, seconds, window, written
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.domain import ENTITY_FIELDS, WindowCount
from fraudguard.features.declared import bucket_us
from fraudguard.features.event import event_features
from fraudguard.features.facts import facts_of, microseconds
from fraudguard.features.money import load_rates
from fraudguard.features.shared import MEMBER_BITS, SharedWindows, shared_keys

RATES, ZONE = load_rates("CNY"), ZoneInfo("Asia/Shanghai")
WINDOWS = (
    window("count", "", 600, entity="device"), window("count", "", 90 * DAY, written, "counterparty"),
    window("sum", "amount_base", 3600, entity="ip"), window("sum", "attributes.points", DAY, written, "merchant"),
    window("max", "amount_base", DAY, entity="counterparty"), window("max", "attributes.points", 600, entity="device"),
    window("mean", "amount_base", 7 * DAY, entity="merchant"),
    window("mean", "attributes.points", 3600, written, "counterparty"),
    window("distinct", "counterparty_id", DAY, entity="device"), window("distinct", "account_id", 7 * DAY, entity="ip"),
    window("count", "", 600, entity="account"),
)  # fmt: skip
SHARED = WINDOWS[:-1]

entities = st.fixed_dictionaries(
    {
        "device_id": st.sampled_from([None, "d", "e"]),
        "ip": st.sampled_from([None, "203.0.113.5", "2001:db8::1"]),
        "merchant_id": st.sampled_from([None, "m", "n"]),
        "account_id": st.sampled_from(["a-1", "a-2", "a-3"]),
    }
)
steps = st.lists(
    st.tuples(
        seconds | buckets,
        st.none() | st.builds(lambda one, other: one | other, fields, entities),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=30,
)


def said(event, late=False):
    """The event group's features of an event."""
    return event_features(event, facts_of(event, RATES), ZONE, late=late)


class Store:
    """Rows as a database adds them up, each field for itself."""

    def __init__(self):
        self.rows = {}

    def read(self, windows, events):
        """The rows that a batch of events asks for, and no other."""
        for span in {span for event in events for span in shared_keys(windows, event)}:
            for key, row in self.rows.items():
                if key[:2] == (span.window, span.entity_id) and span.first <= key[2] <= span.last:
                    yield key, WindowCount(*key, *row)

    def view(self, windows, events):
        """What the pipeline makes for a batch."""
        return SharedWindows(windows, dict(self.read(windows, events)).values())

    def add(self, changes):
        """Commutative upserts."""
        for change in changes:
            key = (change.window, change.entity_id, change.bucket)
            count, total, peak, members = self.rows.get(key, (0, 0, None, 0))
            peaks = [value for value in (peak, change.peak) if value is not None]
            self.rows[key] = (
                count + change.count, total + change.total, max(peaks, default=None), members | change.members,
            )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(steps=steps, cuts=st.sets(st.integers(0, 30)), filled=st.integers(0, 30))
def test_any_split_and_any_back_fill_gives_the_definition(payment, message, steps, cuts, filled):
    """Batches cut anywhere, the first events counted in without reading: each value is its definition."""
    events = [(message(at) if values is None else payment(at, **values), late) for at, values, late in steps]
    bounds = sorted({0, len(events), min(filled, len(events)), *(cut for cut in cuts if cut < len(events))})
    store, history = Store(), {}
    for low, high in pairwise(bounds):
        batch = events[low:high]
        view = SharedWindows(WINDOWS, ()) if high <= filled else store.view(WINDOWS, [event for event, _ in batch])
        for event, late in batch:
            us, features = microseconds(event.event_time), said(event, late)
            places = {}
            if event.type == "transaction":
                places = {w: (w.entity, getattr(event, ENTITY_FIELDS[w.entity])) for w in SHARED}
            for place in {place for place in places.values() if place[1] is not None and not late}:
                history.setdefault(place, []).append((us, features))
            if high <= filled:
                if not late:
                    view.count_only(event, features)
                continue
            expected = {
                w.name: naive(w, history.get(places[w], []), us) if places.get(w, (0, None))[1] is not None else None
                for w in SHARED
            }
            assert view.take(event, features, late=late) == expected
        store.add(view.increments())
    whole = SharedWindows(WINDOWS, ())
    for event, late in events:
        whole.take(event, said(event, late), late=late)
    assert store.rows == {
        (c.window, c.entity_id, c.bucket): (c.count, c.total, c.peak, c.members) for c in whole.increments()
    }


def test_keys_are_the_buckets_read(payment, message):
    """48 buckets up to the event's own, for each shared window of an entity that the event has."""
    event = payment(device_id="d")
    bucket = microseconds(event.event_time) // 12_500_000
    keys = shared_keys([window("count", "", 600, entity="device"), *WINDOWS[1:]], event)
    assert (WINDOWS[0].key, "d", bucket - 47, bucket) in keys
    assert {key.entity_id for key in keys} == {"d"}
    assert shared_keys(WINDOWS, message()) == []


def test_only_what_entered_is_written(payment):
    """Stored rows are no increments, nor are windows that did not count the event."""
    counted, filtered = window("sum", "amount_base", 600, entity="device"), window("count", "", 600, written, "device")
    event = payment(device_id="d", counterparty_id="z")
    bucket = microseconds(event.event_time) // bucket_us(counted)
    view = SharedWindows((counted, filtered), [WindowCount(counted.key, "d", bucket, 3, 700, 500, 0)])
    assert view.increments() == []
    assert view.take(event, said(event), late=False) == {counted.name: 107.0, filtered.name: 0}
    assert view.increments() == [WindowCount(counted.key, "d", bucket, 1, 10_000, 10_000, 0)]


def test_failing_filter_enters_nothing(payment):
    """If one window's filter raises, no window has counted the event."""

    def broken(features):
        raise ZeroDivisionError

    view = SharedWindows([WINDOWS[0], window("count", "", 600, broken, "device")], ())
    with pytest.raises(ZeroDivisionError):
        view.take(payment(device_id="d"), said(payment(device_id="d")), late=False)
    assert view.increments() == []


@pytest.mark.parametrize("accounts", [1, 5, 20, 100, 500, 1_000])
def test_distinct_values_are_estimated(payment, accounts):
    """Few are exact but for a rare collision; of many the estimate errs as linear counting does, by five deviations."""
    declared = window("distinct", "account_id", DAY, entity="ip")
    view = SharedWindows((declared,), ())
    for n in range(accounts):
        event = payment(n, account_id=f"customer-{n}", ip="203.0.113.5")
        estimate = view.take(event, said(event), late=False)[declared.name]
    load = accounts / MEMBER_BITS
    deviation = (MEMBER_BITS * (2.718281828**load - load - 1)) ** 0.5
    assert abs(estimate - accounts) <= (1 if accounts <= 20 else 5 * deviation)


def test_full_bitmap_says_as_many_as_one_bit_unset(payment):
    """Beyond what 1,024 bits can tell apart, the estimate stays finite."""
    declared, event = window("distinct", "account_id", DAY, entity="ip"), payment(ip="203.0.113.5")
    bucket = microseconds(event.event_time) // bucket_us(declared)
    row = WindowCount(declared.key, "203.0.113.5", bucket, 9_999, 0, None, (1 << MEMBER_BITS) - 1)
    assert SharedWindows((declared,), [row]).take(event, said(event), late=False)[declared.name] == round(
        MEMBER_BITS * log(MEMBER_BITS)
    )


def test_largest_of_zeros_is_zero(payment):
    """A value of 0 entered; only where nothing did is the largest missing."""
    declared, event = window("max", "attributes.points", 600, entity="device"), payment(device_id="d")
    view = SharedWindows((declared,), ())
    assert view.take(event, said(event), late=False)[declared.name] is None
    event = payment(1, device_id="d", attributes={"points": 0})
    assert view.take(event, said(event), late=False)[declared.name] == 0.0

"""Label feedback against the definition, and in one batch or many."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.domain import EntityCount
from fraudguard.features.feedback import WINDOWS_DAYS, FeedbackView, day_of, keys_of

DAY = 86_400

counts = st.builds(
    EntityCount,
    kind=st.sampled_from(["counterparty", "device", "ip", "merchant"]),
    entity_id=st.sampled_from(["x", "y", "203.0.113.5"]),
    day=st.integers(20_730, 20_785),  # around the test events' day, 20_778
    transactions=st.integers(1, 9),
    frauds=st.just(0),
).map(lambda c: EntityCount(c.kind, c.entity_id, c.day, c.transactions, c.day % (c.transactions + 1)))


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(counts, max_size=60, unique_by=lambda c: (c.kind, c.entity_id, c.day)), delay=st.integers(1, 9))
def test_shares_are_their_definition(payment, rows, delay):
    """Whole days d with day(t) - delay - w <= d < day(t) - delay, and nothing else."""
    event = payment(counterparty_id="x", device_id="y", ip="203.0.113.5", merchant_id="z")
    features = FeedbackView(rows, delay).shares(event)
    today = day_of(event)
    for kind, entity in keys_of(event):
        for w in WINDOWS_DAYS:
            read = [
                row
                for row in rows
                if (row.kind, row.entity_id) == (kind, entity) and today - delay - w <= row.day < today - delay
            ]
            total, frauds = sum(r.transactions for r in read), sum(r.frauds for r in read)
            assert features[f"{kind}_transactions_{w}d"] == total
            assert features[f"{kind}_fraud_share_{w}d"] == (float(Fraction(frauds, total)) if total else None)


def test_missing_entities_are_missing(payment, message):
    """No counterparty, device, ip or merchant: no count and no share; a message has none of them."""
    view = FeedbackView([], 7)
    assert set(view.shares(message()).values()) == {None}
    features = view.shares(payment(device_id="d"))
    assert features["device_transactions_30d"] == 0
    assert features["device_fraud_share_30d"] is None
    assert features["merchant_transactions_30d"] is None


def test_keys_are_the_entities_present(payment, message):
    """Keys name kind and id; only transactions have them."""
    assert keys_of(payment(counterparty_id="c", merchant_id="m")) == [("counterparty", "c"), ("merchant", "m")]
    assert keys_of(payment(device_id="d", ip="203.0.113.5")) == [("device", "d"), ("ip", "203.0.113.5")]
    assert keys_of(message()) == []


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 60), st.sampled_from("xy"), st.booleans()), max_size=30),
    cut=st.integers(0, 30),
)
def test_one_batch_is_many(payment, steps, cut):
    """A view built from the first batch's increments goes on as the first would have."""
    events = [payment(day * DAY, counterparty_id=who, device_id="d") for day, who, _ in steps]

    def run(view, part):
        seen = []
        for event, (_, _, fraud) in part:
            seen.append(view.shares(event))
            view.count(event)
            if fraud:
                view.mark(event, 1)
        return seen

    pairs = list(zip(events, steps, strict=True))
    whole = FeedbackView([], 1)
    expected = run(whole, pairs)
    first = FeedbackView([], 1)
    seen = run(first, pairs[:cut])
    second = FeedbackView(first.increments(), 1)
    assert seen + run(second, pairs[cut:]) == expected
    merged = {}
    for change in first.increments() + second.increments():
        old = merged.get((change.kind, change.entity_id, change.day), (0, 0))
        merged[change.kind, change.entity_id, change.day] = (old[0] + change.transactions, old[1] + change.frauds)
    assert merged == {(c.kind, c.entity_id, c.day): (c.transactions, c.frauds) for c in whole.increments()}


def test_stored_rows_are_no_increments(payment):
    """Only what the batch added is written again, on the transaction's own day."""
    event = payment(counterparty_id="c")
    view = FeedbackView([EntityCount("counterparty", "c", 20_700, 5, 1)], 7)
    assert view.increments() == []
    view.count(event)
    view.count(event)
    assert view.increments() == [EntityCount("counterparty", "c", day_of(event), 2, 0)]


def test_withdrawn_label_leaves_nothing(payment):
    """+1 and -1 make no increment; -1 alone is a negative one."""
    event = payment(merchant_id="m")
    view = FeedbackView([], 7)
    view.mark(event, 1)
    view.mark(event, -1)
    assert view.increments() == []
    view.mark(event, -1)
    assert view.increments() == [EntityCount("merchant", "m", day_of(event), 0, -1)]


@pytest.mark.parametrize(("days_later", "share"), [(7, None), (8, 1.0), (9, None)])
def test_share_waits_for_the_label_delay(payment, days_later, share):
    """With a delay of 7 days, yesterday's window of one day holds exactly the day 8 days ago."""
    view = FeedbackView([], 7)
    event = payment(merchant_id="m")
    view.count(event)
    view.mark(event, 1)
    assert view.shares(payment(days_later * DAY, merchant_id="m"))["merchant_fraud_share_1d"] == share

"""The windows against a naive recomputation over every event taken so far."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from importlib.resources import files

import orjson
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from views import NOTHING_SHARED

from fraudguard.domain import Message, Screenable
from fraudguard.features.facts import Facts, microseconds
from fraudguard.features.velocity import BUCKET_COUNTERPARTIES_MAX, BUCKET_SUM_MAX, Velocity

DAY = 86_400
RATES = {"CNY": Decimal(1), "USD": Decimal("7.1"), "JPY": Decimal("0.0465")}  # of rates.yaml
BUCKETS = {"1h": (60, 60), "1d": (1_800, 48), "7d": (10_800, 56), "30d": (43_200, 60)}


@dataclass(frozen=True)
class Taken:
    """An on-time event as the oracle remembers it."""

    second: int
    event: Screenable


def base(event) -> Decimal | None:
    """The amount in base currency, to the hundredth."""
    if event.currency not in RATES:
        return None
    return (event.amount * RATES[event.currency]).quantize(Decimal("0.01"), ROUND_HALF_EVEN)


def naive(history: Iterable[Taken], second: int) -> dict[str, float]:
    """Every window from the definition in velocity.py, in Decimal."""
    expected = {}
    for window, (length, count) in BUCKETS.items():
        bucket = second // length
        inside = [t.event for t in history if bucket - count < t.second // length <= bucket]
        money = [event for event in inside if not isinstance(event, Message)]
        expected[f"messages_{window}"] = len(inside) - len(money)
        for way, direction in (("out", "debit"), ("in", "credit")):
            some = [event for event in money if event.direction == direction]
            amounts = [amount for amount in map(base, some) if amount is not None]
            expected[f"{way}_count_{window}"] = len(some)
            expected[f"{way}_sum_{window}"] = float(sum(amounts, Decimal(0)))
            expected[f"{way}_max_{window}"] = float(max(amounts, default=0))
            expected[f"{way}_counterparties_{window}"] = len({e.counterparty_id for e in some} - {None})
        expected[f"transfers_{window}"] = sum(e.direction == "debit" and e.kind == "transfer" for e in money)
    return expected


# Times cluster (bursts), lie days apart, and meet bucket edges.
seconds = st.one_of(
    st.integers(0, 40 * DAY),
    st.integers(0, 3 * 3600),
    st.builds(
        lambda n, length, off: n * length + off,
        st.integers(0, 60),
        st.sampled_from([60, 1800, 10800, 43200]),
        st.integers(-1, 1),
    ),
)
money = st.fixed_dictionaries(
    {
        "direction": st.sampled_from(["debit", "credit"]),
        "kind": st.sampled_from(["transfer", "card"]),
        "currency": st.sampled_from(["CNY", "CNY", "USD", "JPY", "XTS"]),
        "amount": st.integers(1, 10**9),
        "counterparty_id": st.sampled_from([None, *"abcdef"]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.tuples(seconds, st.none() | money), max_size=60),
    lateness_s=st.sampled_from([0, 60, 3600, 2 * DAY]),
    in_order=st.booleans(),
)
def test_windows_equal_naive_recomputation(account, payment, message, steps, lateness_s, in_order):
    """On-time events see their own past and themselves; late ones see the latest time and change nothing."""
    if in_order:
        steps = sorted(steps, key=lambda step: step[0])
    state = account(lateness_s=lateness_s)
    history: list[Taken] = []
    latest = None
    for at, fields in steps:
        event = message(at) if fields is None else payment(at, **fields)
        second = microseconds(event.event_time) // 1_000_000
        late = latest is not None and second < latest - lateness_s
        if not late:
            history.append(Taken(second, event))
            latest = second if latest is None else max(latest, second)
        snapshot = state.take(event, *NOTHING_SHARED)
        assert snapshot.late is late
        expected = naive(history, latest if late else second)
        assert {name: snapshot.features[name] for name in expected} == expected


def test_rates_of_the_oracle_are_the_shipped_ones():
    """The oracle converts at the shipped table's rates."""
    shipped = yaml.safe_load((files("fraudguard.features") / "rates.yaml").read_text())["rates"]
    assert {code: Decimal(shipped[code]) for code in RATES} == RATES


def test_eleventh_transfer_of_the_day_sees_eleven(account, payment):
    """The current event counts, or a rule on `transfers_1d > 10` would be one late."""
    state = account()
    counts = [state.take(payment(600 * i), *NOTHING_SHARED).features["transfers_1d"] for i in range(11)]
    assert counts == list(range(1, 12))


def test_distinct_counterparties_saturate_per_bucket():
    """A bucket remembers a fixed number of counterparties; another bucket remembers its own."""
    velocity = Velocity()
    for counterparty in range(1000):
        velocity.add(Facts("out", 0, counterparty=counterparty), 0)
    assert velocity.read(0)["out_counterparties_1h"] == BUCKET_COUNTERPARTIES_MAX
    velocity.add(Facts("out", 60_000_000, counterparty=5_000), 0)
    assert velocity.read(60_000_000)["out_counterparties_1h"] == BUCKET_COUNTERPARTIES_MAX + 1
    assert velocity.read(60_000_000)["out_count_1h"] == 1001


def test_sums_stay_storable():
    """A bucket's sum stops at a 64-bit integer, which the stored form can hold."""
    velocity = Velocity()
    for _ in range(3):
        velocity.add(Facts("in", 0, cents=BUCKET_SUM_MAX // 2), 0)
    assert velocity.read(0)["in_sum_30d"] == BUCKET_SUM_MAX / 100
    assert Velocity.load(orjson.loads(orjson.dumps(velocity.dump()))).read(0) == velocity.read(0)


def test_times_before_1970_have_buckets_too(account, payment):
    """Bucket numbers round down, not towards zero."""
    state = account()
    long_ago = -60 * 365 * DAY
    counts = [
        state.take(payment(long_ago + at), *NOTHING_SHARED).features["out_count_1h"] for at in (0, 30, 3540, 3600)
    ]
    assert counts == [1, 2, 3, 2]

"""What is usual for an account, and what is missing before it is known."""

import math

import pytest
from views import NOTHING_SHARED

from fraudguard.features.facts import Facts
from fraudguard.features.profile import COUNTERPARTIES_MAX, COUNTRIES_MAX, DEVICES_MAX, HOUR_EVENTS_MAX, Profile

HOUR = 3600
NAMES = (
    "amount_usual", "amount_ratio", "amount_z", "hour_share", "hours_since_last", "hours_since_message",
    "counterparty_message_share", "is_new_device", "is_new_country", "is_new_counterparty", "counterparty_payments",
)  # fmt: skip


@pytest.fixture
def screen(account):
    """screen(*events): the features of the last, all taken by one new account."""

    def run(*events):
        state = account()
        return [state.take(event, *NOTHING_SHARED) for event in events][-1].features

    return run


def test_first_event_has_nothing_to_compare_with(screen, payment):
    """Comparisons are missing at the first event; only the new payee is a fact of its own."""
    features = screen(payment(counterparty_id="c", device_id="d", country="CN"))
    missing = {name for name in NAMES if features[name] is None}
    assert missing == set(NAMES) - {"is_new_counterparty", "counterparty_payments"}
    assert features["is_new_counterparty"] is True
    assert features["counterparty_payments"] == 0
    assert features["account_events"] == 0
    assert features["account_age_days"] == 0.0


def test_usual_amount_is_the_geometric_mean_at_first(screen, payment):
    """Until PAYMENTS_USUAL payments the mean and deviation are those of all logs."""
    features = screen(*(payment(i, amount=a) for i, a in enumerate((100, 400, 100, 400, 800))))
    logs = [math.log(a) for a in (100, 400, 100, 400)]
    mean = sum(logs) / 4
    deviation = math.sqrt(sum((x - mean) ** 2 for x in logs) / 4)
    assert features["amount_usual"] == pytest.approx(200)
    assert features["amount_ratio"] == pytest.approx(4)
    assert features["amount_z"] == pytest.approx((math.log(800) - mean) / deviation)


def test_one_huge_payment_does_not_become_usual(screen, payment):
    """After many payments of 100, one of 10 million moves the usual amount by less than a half."""
    features = screen(*(payment(i) for i in range(60)), payment(61, amount=10**7), payment(62))
    assert 100 < features["amount_usual"] < 150


def test_received_money_is_no_usual_payment(screen, payment):
    """Only outgoing amounts with a rate are learned, and only they are compared."""
    features = screen(payment(0, amount=10, direction="credit"), payment(1, currency="XTS", amount=9), payment(2))
    assert features["amount_usual"] is None
    features = screen(payment(0), payment(1, direction="credit", amount=5000))
    assert features["amount_usual"] == pytest.approx(100)
    assert features["amount_ratio"] is None


def test_amounts_below_a_hundredth_are_no_error(screen, payment):
    """VND 1 is less than a hundredth of CNY."""
    features = screen(*(payment(i, amount=1, currency="VND") for i in range(5)))
    assert features["amount_base"] == 0.0
    assert features["amount_z"] == 0.0


def test_hour_share_counts_earlier_events_of_the_hour(screen, payment, message):
    """Three of four earlier events lay in this UTC hour, on whatever day."""
    features = screen(
        message(0), payment(24 * HOUR), message(5 * HOUR + 48 * HOUR), payment(72 * HOUR), payment(96 * HOUR)
    )
    assert features["hour_share"] == 0.75


def test_hours_forget_old_habits():
    """Counters are halved together at a bound, so a new habit overtakes an old one in bounded time."""
    profile = Profile()
    for _ in range(10 * HOUR_EVENTS_MAX):
        profile.update(Facts("message", 0))
    for _ in range(HOUR_EVENTS_MAX):
        profile.update(Facts("message", HOUR * 1_000_000))
    assert profile.features(Facts("message", HOUR * 1_000_000))["hour_share"] > 0.5


def test_known_counterparties_go_by_direction(screen, payment):
    """Someone who paid the account is still a new payee."""
    features = screen(payment(0, direction="credit", counterparty_id="c"), payment(1, counterparty_id="c"))
    assert features["is_new_counterparty"] is True
    features = screen(payment(0, counterparty_id="c"), payment(1, counterparty_id="c"), payment(2, counterparty_id="c"))
    assert features["is_new_counterparty"] is False
    assert features["counterparty_payments"] == 2


def test_new_device_and_country_need_a_known_one(screen, payment):
    """A second device is new, the same again is not, an absent one is missing."""
    first = payment(0, device_id="d", country="CN")
    assert screen(first, payment(1, device_id="e", country="NG"))["is_new_device"] is True
    assert screen(first, payment(1, device_id="e", country="NG"))["is_new_country"] is True
    assert screen(first, payment(1), payment(2, device_id="d", country="CN"))["is_new_device"] is False
    assert screen(first, payment(1))["is_new_country"] is None


def test_memory_is_bounded_and_keeps_the_last_seen():
    """The entity seen longest ago is forgotten first; one seen again stays."""
    profile = Profile()
    for n in range(1, 10_000):
        profile.update(Facts("out", n, 1, counterparty=n, device=n, country=str(n)))
        if n > 1:
            assert profile.features(Facts("in", n, device=0))["is_new_device"] is False
        profile.update(Facts("in", n, 1, counterparty=0, device=0, country="CN"))
    payees, payers, devices, countries = profile.dump()[7:11]
    assert [len(known) for known in (payees, payers, devices, countries)] == [
        COUNTERPARTIES_MAX,
        1,
        DEVICES_MAX,
        COUNTRIES_MAX,
    ]
    assert profile.features(Facts("in", 0, device=1, country="1"))["is_new_device"] is True


def test_conversation_since_the_last_payment(screen, payment, message):
    """Messages are counted anew after each outgoing transaction; a received one does not start again."""
    talk = (message(0), message(HOUR, sender="counterparty"), message(2 * HOUR, sender="counterparty"))
    features = screen(*talk)
    assert (features["messages_since_payment"], features["counterparty_message_share"]) == (3, 2 / 3)
    features = screen(*talk, payment(3 * HOUR, direction="credit"), payment(4 * HOUR))
    assert (features["messages_since_payment"], features["counterparty_message_share"]) == (3, 2 / 3)
    assert features["hours_since_message"] == 2.0
    features = screen(*talk, payment(4 * HOUR), message(5 * HOUR))
    assert (features["messages_since_payment"], features["counterparty_message_share"]) == (1, 0.0)


def test_time_never_runs_backwards(screen, payment):
    """An out-of-order event is no hours, not minus some, after the latest one."""
    features = screen(payment(48 * HOUR), payment(47.5 * HOUR))
    assert features["hours_since_last"] == 0.0
    assert features["account_age_days"] == 0.0
    features = screen(*(payment(hours * HOUR) for hours in (48, 47.5, 48, 49)))
    assert features["hours_since_last"] == 1.0
    assert features["account_age_days"] == pytest.approx(1.5 / 24)


def test_late_event_leaves_the_profile_alone(account, payment):
    """A late payment to a new payee neither teaches the payee nor the amount."""
    state = account()
    state.take(payment(48 * HOUR, counterparty_id="b"), *NOTHING_SHARED)
    late = state.take(payment(0, counterparty_id="c", amount=99_999), *NOTHING_SHARED)
    after = state.take(payment(48 * HOUR + 1, counterparty_id="c"), *NOTHING_SHARED).features
    assert late.late
    assert late.features["is_new_counterparty"] is True
    assert after["is_new_counterparty"] is True
    assert after["account_events"] == 1
    assert after["amount_usual"] == pytest.approx(100)

"""The measures against scikit-learn, plain definitions and worked examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fraudguard.evaluation import (
    alarm_shares,
    alarm_threshold,
    average_precision,
    calibration_error,
    card_precision_at_k,
    difference_interval,
    recall_at_fpr,
    reliability,
    roc_auc,
    threshold_at_fpr,
)

# Few distinct scores, so that ties are common.
ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, fpr=st.floats(0, 1))
def test_as_scikit_learn(rows: list[tuple[bool, int]], fpr: float) -> None:
    """Average precision, area under the ROC and recall at a false-positive rate, ties included."""
    labels, scores = np.array([label for label, _ in rows]), np.array([score / 6 for _, score in rows])
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))
    assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    rates, recalls, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert recall_at_fpr(labels, scores, fpr) == pytest.approx(recalls[rates <= fpr].max())


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, fpr=st.floats(0, 1))
def test_the_threshold_keeps_its_rate(rows: list[tuple[bool, int]], fpr: float) -> None:
    """At the threshold the rate holds and the recall is the promised one; the next lower score would break it."""
    labels, scores = np.array([label for label, _ in rows]), np.array([float(score) for _, score in rows])
    threshold = threshold_at_fpr(labels, scores, fpr)
    assert np.mean(scores[~labels] >= threshold) <= fpr
    assert np.mean(scores[labels] >= threshold) == pytest.approx(recall_at_fpr(labels, scores, fpr))
    lower = scores[scores < threshold]
    if len(lower):
        assert np.mean(scores[~labels] >= lower.max()) > fpr


def test_card_precision_by_hand() -> None:
    """Two days, k = 2: on the first day one of two is bad; the caught card is left out on the second."""
    days = [1, 1, 1, 1, 2, 2, 2]
    cards = ["a", "a", "b", "c", "a", "c", "d"]
    labels = [0, 1, 0, 1, 1, 1, 0]
    scores = [0.1, 0.9, 0.8, 0.2, 0.99, 0.7, 0.6]
    # Day 1: a (0.9, bad), b (0.8). Day 2, without a: c (0.7, bad), d (0.6).
    assert card_precision_at_k(days, cards, labels, scores, 2) == pytest.approx((0.5 + 0.5) / 2)
    # k = 1. Day 1: a. Day 2: c.
    assert card_precision_at_k(days, cards, labels, scores, 1) == pytest.approx(1.0)


def test_card_precision_counts_a_short_day_against_k() -> None:
    """A day with fewer cards than k cannot fill the reviewers' list: the share is of k."""
    assert card_precision_at_k([1], ["a"], [1], [0.5], 4) == pytest.approx(0.25)


def test_card_precision_does_not_depend_on_the_order_of_rows() -> None:
    """Ties go by card."""
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 3, 80), rng.integers(0, 20, 80), rng.integers(0, 2, 80), rng.integers(0, 3, 80)]
    order = rng.permutation(80)
    assert card_precision_at_k(*columns, 5) == card_precision_at_k(*(column[order] for column in columns), 5)


def test_calibration_error_by_hand() -> None:
    """Two bins of two: |0.2 - 0.5| and |0.8 - 1.0|, weighted alike."""
    assert calibration_error([0, 1, 1, 1], [0.1, 0.3, 0.7, 0.9], bins=2) == pytest.approx(0.25)
    assert calibration_error([0, 1], [0.0, 1.0]) == 0.0


def test_bad_input_is_refused() -> None:
    """One kind only, NaN, unequal lengths, nothing."""
    for labels, scores in (([0, 0], [0.1, 0.2]), ([1], [np.nan]), ([1, 0], [0.5]), ([], [])):
        with pytest.raises(ValueError):  # noqa: PT011 - several messages
            roc_auc(labels, scores)
        with pytest.raises(ValueError):  # noqa: PT011 - several messages
            average_precision(labels, scores)


def test_reliability_as_scikit_learn() -> None:
    """Equally filled bins without ties are its quantile bins; the calibration error is their weighted distance."""
    rng = np.random.default_rng(1)
    risks = rng.permutation(np.linspace(0.01, 0.99, 300))
    labels = rng.random(300) < risks**2
    found = reliability(labels, risks, bins=10)
    shares, means = calibration_curve(labels, risks, n_bins=10, strategy="quantile")
    assert found.events.tolist() == [30] * 10
    np.testing.assert_allclose(found.share, shares)
    np.testing.assert_allclose(found.risk, means)
    assert calibration_error(labels, risks, bins=10) == pytest.approx(np.mean(np.abs(shares - means)))


@settings(max_examples=200, deadline=None)
@given(peaks=st.lists(st.integers(0, 9), min_size=1, max_size=40), rate=st.floats(0, 0.99))
def test_the_alarm_threshold_keeps_its_rate(peaks: list[int], rate: float) -> None:
    """At most the rate of the harmless reach it, and it is the lowest such threshold: at the peak below more would."""
    threshold = alarm_threshold(peaks, rate)
    assert np.mean(np.array(peaks) >= threshold) <= rate + 1e-9
    below = [peak for peak in peaks if peak < threshold]
    assert threshold == np.nextafter(max(below), np.inf)
    assert np.mean(np.array(peaks) >= max(below)) > rate - 1e-9


def test_one_percent_of_a_hundred_is_one() -> None:
    """Of 100 harmless conversations one may alarm, of 99 none; 0.29 * 100 is 28.999999999999996 and means 29."""
    assert np.sum(np.arange(100) >= alarm_threshold(range(100), 0.01)) == 1
    assert np.sum(np.arange(99) >= alarm_threshold(range(99), 0.01)) == 0
    assert np.sum(np.arange(100) >= alarm_threshold(range(100), 0.29)) == 29


def test_alarm_shares_by_hand() -> None:
    """The second of four turns, the last of one, never, and the first of two that reach it."""
    found = alarm_shares([[0.1, 0.5, 0.2, 0.9], [0.5], [0.4, 0.49], [0.6, 0.7, 0.1]], 0.5)
    assert found.tolist() == [0.5, 1.0, np.inf, pytest.approx(1 / 3)]


def test_the_interval_is_scipys() -> None:
    """A paired percentile bootstrap of the difference of two areas, about as scipy draws it."""
    rng = np.random.default_rng(3)
    labels = rng.random(150) < 0.4
    ours, theirs = labels + rng.normal(0, 1, 150), labels + rng.normal(0, 2, 150)
    low, high = difference_interval(roc_auc, labels, ours, theirs, rounds=1_500)
    found = bootstrap(
        (labels, ours, theirs), lambda y, a, b: roc_auc(y, a) - roc_auc(y, b), n_resamples=1_500, paired=True,
        vectorized=False, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (low, high) == (pytest.approx(found.low, abs=0.02), pytest.approx(found.high, abs=0.02))
    assert low < roc_auc(labels, ours) - roc_auc(labels, theirs) < high


def test_rows_of_one_case_are_drawn_together() -> None:
    """Ten copies of each row say no more than one: by cases the interval stays, row by row it would shrink."""
    rng = np.random.default_rng(4)
    labels = rng.random(60) < 0.5
    ours, theirs = labels + rng.normal(0, 1, 60), labels + rng.normal(0, 1, 60)
    once = difference_interval(roc_auc, labels, ours, theirs, rounds=400)
    copied = [np.repeat(column, 10) for column in (labels, ours, theirs)]
    cases = difference_interval(roc_auc, *copied, groups=np.repeat(np.arange(60), 10), rounds=400)
    alone = difference_interval(roc_auc, *copied, rounds=400)
    assert cases == pytest.approx(once)
    assert alone[1] - alone[0] < 0.6 * (once[1] - once[0])


def test_bad_input_of_alarms_and_intervals() -> None:
    """No harmless conversation, a rate of one, one kind or one case alone."""
    for peaks, rate in (([], 0.01), ([0.5], 1.0), ([np.nan], 0.1)):
        with pytest.raises(ValueError, match="alarm threshold"):
            alarm_threshold(peaks, rate)
    for labels, groups in (([1, 1], None), ([0, 1], ["a", "a"])):
        with pytest.raises(ValueError, match="two groups"):
            difference_interval(roc_auc, labels, [0.1, 0.2], [0.1, 0.2], groups=groups)
    with pytest.raises(ValueError, match="reliability"):
        reliability([], [])

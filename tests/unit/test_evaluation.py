"""The measures against scikit-learn, plain definitions and worked examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fraudguard.evaluation import (
    average_precision,
    calibration_error,
    card_precision_at_k,
    recall_at_fpr,
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

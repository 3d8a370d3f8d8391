"""Platt's sigmoid against scikit-learn's, and at the edges."""

import numpy as np
import pytest
from sklearn.calibration import _SigmoidCalibration

from fraudguard.engine.calibration import Platt, fit_platt
from fraudguard.evaluation import calibration_error


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_is_platts(seed: int) -> None:
    """As scikit-learn's, which follows the same paper."""
    rng = np.random.default_rng(seed)
    truth = rng.random(500) < 0.2
    logits = rng.normal(size=500) * 2 + 3 * truth - 1
    theirs = _SigmoidCalibration().fit(logits, truth)
    ours = fit_platt(logits, truth)
    assert ours.risk(logits) == pytest.approx(theirs.predict(logits), abs=1e-3)


def test_it_repairs_a_wrong_scale() -> None:
    """Logits ten times too sure become risks that hold."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=20_000) * 2 - 2
    truth = rng.random(20_000) < 1 / (1 + np.exp(-logits))
    platt = fit_platt(10 * logits + 3, truth)
    assert calibration_error(truth, platt.risk(10 * logits + 3)) < 0.01
    assert calibration_error(truth, Platt(1.0, 0.0).risk(10 * logits + 3)) > 0.1


def test_separable_data_stay_bounded() -> None:
    """Perfect order does not drive the slope to infinity: the smoothed targets hold it."""
    platt = fit_platt([-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1])
    assert 0 < platt.slope < 10
    assert platt.risk([-2.0])[0] < 0.5 < platt.risk([2.0])[0]


def test_far_logits_do_not_overflow() -> None:
    """Risks are 0 and 1 at the ends, without a warning."""
    with np.errstate(all="raise", under="ignore"):
        assert Platt(5.0, 0.0).risk([-1e6, 0.0, 1e6]).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("logits", "truth", "message"),
    [([1.0, 2.0], [1, 1], "both frauds and others"), ([2.0, 1.0, 3.0, 0.5], [0, 1, 0, 1], "nothing to calibrate")],
)
def test_what_cannot_be_calibrated_is_refused(logits: list[float], truth: list[int], message: str) -> None:
    """One kind only, or an upside-down score."""
    with pytest.raises(ValueError, match=message):
        fit_platt(logits, truth)

"""From a logit to a calibrated P(fraud): Platt's sigmoid, risk = 1 / (1 + exp(-(slope * logit + offset))).

Knows numbers only. The fit is Platt's (1999), with his smoothed targets against overconfidence.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Platt:
    """slope > 0 keeps the order of the logits."""

    slope: float
    offset: float

    def risk(self, logits: npt.ArrayLike) -> Floats:
        """P(fraud) in [0, 1], the shape of logits; never overflows."""
        z = self.slope * np.asarray(logits, dtype=np.float64) + self.offset
        return np.asarray(np.exp(-np.logaddexp(0.0, -z)), dtype=np.float64)


def fit_platt(logits: npt.ArrayLike, labels: npt.ArrayLike, steps_max: int = 100) -> Platt:
    """The maximum-likelihood sigmoid for labels (0 or 1) at logits [n], by damped Newton steps.

    Raises ValueError unless both labels occur and larger logits go with fraud.
    """
    x = np.asarray(logits, dtype=np.float64)
    y = np.asarray(labels, dtype=np.float64)
    frauds, others = float(y.sum()), float(len(y) - y.sum())
    if not frauds or not others:
        raise ValueError("a calibration needs both frauds and others")
    target = np.where(y == 1, (frauds + 1) / (frauds + 2), 1 / (others + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)
    weights = np.array([0.0, np.log((frauds + 1) / (others + 1))])

    def loss(w: Floats) -> float:
        z = design @ w
        return float(np.sum(np.logaddexp(0.0, z) - target * z))

    for _ in range(steps_max):
        risk = Platt(float(weights[0]), float(weights[1])).risk(x)
        gradient = design.T @ (risk - target)
        curvature = (design * (risk * (1 - risk))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        scale = 1.0
        while loss(weights - scale * step) > loss(weights) and scale > 1e-6:
            scale /= 2
        weights = weights - scale * step
        if np.abs(scale * step).max() < 1e-9:
            break
    if weights[0] <= 0:
        raise ValueError("larger logits do not go with fraud: there is nothing to calibrate")
    return Platt(float(weights[0]), float(weights[1]))

"""From a risk logit to a calibrated P(fraud), as head.json writes it: Platt's sigmoid, or steps that only rise.

Knows numbers only. The fit is Platt's (1999), with his smoothed targets against overconfidence; finetune/calibrate.py
fits the others. A temperature (Guo et al., arXiv 1706.04599) is a sigmoid with offset 0 and slope 1 / temperature.
"""

from itertools import pairwise
from typing import Annotated, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Floats = npt.NDArray[np.float64]
_STRICT: Final = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Platt(BaseModel):
    """risk = 1 / (1 + exp(-(slope * logit + offset))). slope > 0 keeps the order of the logits."""

    model_config = _STRICT
    kind: Literal["platt"] = "platt"
    slope: Annotated[float, Field(gt=0)]
    offset: float

    def risk(self, logits: npt.ArrayLike) -> Floats:
        """P(fraud) in [0, 1], the shape of logits; never overflows."""
        z = self.slope * np.asarray(logits, dtype=np.float64) + self.offset
        return np.asarray(np.exp(-np.logaddexp(0.0, -z)), dtype=np.float64)


class Isotonic(BaseModel):
    """The risk at some logits, straight between them, and beyond the ends what it is there: scikit-learn's.

    Never turns the order of two logits round, but makes equal what lies on one step.
    """

    model_config = _STRICT
    kind: Literal["isotonic"] = "isotonic"
    logits: Annotated[list[float], Field(min_length=2)]
    risks: list[Annotated[float, Field(ge=0, le=1)]]

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if len(self.logits) != len(self.risks):
            raise ValueError("there must be one risk a logit")
        if any(high <= low for low, high in pairwise(self.logits)):
            raise ValueError("the logits do not ascend")
        if any(high < low for low, high in pairwise(self.risks)):
            raise ValueError("the risks fall")
        return self

    def risk(self, logits: npt.ArrayLike) -> Floats:
        """P(fraud) in [0, 1], the shape of logits."""
        return np.asarray(np.interp(np.asarray(logits, dtype=np.float64), self.logits, self.risks), dtype=np.float64)


Calibration = Annotated[Platt | Isotonic, Field(discriminator="kind")]


def fit_platt(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Platt:
    """The maximum-likelihood sigmoid for labels (0 or 1) at logits [n].

    Raises ValueError unless both labels occur and larger logits go with fraud.
    """
    x = np.asarray(logits, dtype=np.float64)
    slope, offset = _likeliest(np.stack([x, np.ones_like(x)], axis=1), smoothed(labels))
    return Platt(slope=_rising(slope), offset=float(offset))


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Platt:
    """The same with offset 0: how sure the logits are changes, and not where they say half. Raises ValueError."""
    (slope,) = _likeliest(np.asarray(logits, dtype=np.float64)[:, None], smoothed(labels))
    return Platt(slope=_rising(slope), offset=0.0)


def smoothed(labels: npt.ArrayLike) -> Floats:
    """Platt's targets for labels (0 or 1): a little off 0 and 1, the more so the fewer there are.

    Raises ValueError unless both occur.
    """
    y = np.asarray(labels, dtype=np.float64)
    frauds, others = float(y.sum()), float(len(y) - y.sum())
    if not frauds or not others:
        raise ValueError("a calibration needs both frauds and others")
    return np.where(y == 1, (frauds + 1) / (frauds + 2), 1 / (others + 2))


def _rising(slope: float) -> float:
    if slope <= 0:
        raise ValueError("larger logits do not go with fraud: there is nothing to calibrate")
    return float(slope)


def _likeliest(design: Floats, target: Floats, steps_max: int = 100) -> Floats:
    """The weights [column] under which design [n, column] is likeliest to give the targets, by damped Newton steps."""

    def loss(w: Floats) -> float:
        z = design @ w
        return float(np.sum(np.logaddexp(0.0, z) - target * z))

    weights = np.zeros(design.shape[1])
    for _ in range(steps_max):
        risk = np.exp(-np.logaddexp(0.0, -(design @ weights)))
        gradient = design.T @ (risk - target)
        curvature = (design * (risk * (1 - risk))[:, None]).T @ design + 1e-9 * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        scale = 1.0
        while loss(weights - scale * step) > loss(weights) and scale > 1e-6:
            scale /= 2
        weights = weights - scale * step
        if np.abs(scale * step).max() < 1e-9:
            break
    return weights

"""Labelled events beside what a release says of them, asked of the engine that serves it.

Knows timelines, truths and scores; measures nothing (fraudguard.evaluation does).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from finetune.dataset import LabelledTimeline, requests
from fraudguard.domain import Score, ScoreRequest, Transaction
from fraudguard.engine.calibration import Platt
from fraudguard.engine.engine import Engine
from fraudguard.engine.loader import load
from fraudguard.engine.precision import Precision
from fraudguard.engine.release import Release
from fraudguard.features.timeline import TokenCounter

EVENTS_A_CALL = 64
CACHE_BYTES = 1 << 28
# A power of two, so that taking it back is exact; large enough that no risk of a float64 is 1.
_COOL = 16.0


class Scorer(Protocol):
    """Any of the engines."""

    @property
    def tokenizer(self) -> TokenCounter: ...  # noqa: D102 - see Engine

    @property
    def tokens_max(self) -> int: ...  # noqa: D102

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Scored:
    """One row an event, in the timelines' order. fraud: whether it is confirmed. account: a number each."""

    risk: npt.NDArray[np.float64]
    fraud: npt.NDArray[np.bool_]
    payment: npt.NDArray[np.bool_]
    account: npt.NDArray[np.int64]


def score(engine: Scorer, timelines: Sequence[LabelledTimeline], tenant: str | None = None) -> Scored:
    """Every event, at its own line, as the service would ask."""
    asked = list(requests(timelines, engine.tokenizer, engine.tokens_max))
    risks: list[float] = []
    for start in range(0, len(asked), EVENTS_A_CALL):
        part = [replace(request, tenant=tenant) for _, _, request in asked[start : start + EVENTS_A_CALL]]
        risks += [given.risk for given in engine.score(part)]
    _, accounts = np.unique([timeline.account_id for timeline, _, _ in asked], return_inverse=True)
    return Scored(
        np.array(risks),
        np.array([one.truth == 1.0 for _, one, _ in asked]),
        np.array([isinstance(one.event, Transaction) for _, one, _ in asked]),
        accounts.astype(np.int64),
    )


def uncalibrated(release: Release, precision: Precision) -> Engine:
    """The release's engine, but its risks are plain sigmoids whose logits `logits` takes back."""
    loaded = load(release, precision)
    plain = {"calibration": Platt(slope=1 / _COOL, offset=0.0), "calibrations": {}}
    for head in (loaded.head, *loaded.tenants.values()):
        head.spec = head.spec.model_copy(update=plain)
    return Engine(f"{release.name}@{release.version}+{precision}", loaded, CACHE_BYTES)


def logits(scored: Scored) -> npt.NDArray[np.float64]:
    """The head's own, of what an uncalibrated engine scored."""
    return _COOL * (np.log(scored.risk) - np.log1p(-scored.risk))

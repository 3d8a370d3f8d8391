"""What a release says of a dataset's events, asked of the engine that serves it, with or without its calibration.

Knows releases and rows; measures nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from finetune.dataset import LabelledTimeline, requests
from finetune.evaluate import engine_model
from finetune.rows import Rows
from fraudguard.engine.calibration import Platt
from fraudguard.engine.engine import Engine
from fraudguard.engine.loader import load
from fraudguard.engine.precision import Precision
from fraudguard.engine.release import Release
from fraudguard.evaluation import Floats

CACHE_BYTES = 1 << 28
# A power of two, so that taking it back is exact; large enough that no risk of a float64 is 1.
_COOL = 16.0


def rows_of(engine: Engine, timelines: Sequence[LabelledTimeline], tenant: str | None = None) -> Rows:
    """Every event, as the service would ask for the tenant."""
    asked = requests(timelines, engine.tokenizer, engine.tokens_max)
    return Rows([(timeline, event, replace(request, tenant=tenant)) for timeline, event, request in asked])


def uncalibrated(release: Release, precision: Precision) -> Engine:
    """The release's engine, but its risks are such that `logits` takes the head's own back."""
    loaded = load(release, precision)
    plain = {"calibration": Platt(slope=1 / _COOL, offset=0.0), "calibrations": {}}
    for head in (loaded.head, *loaded.tenants.values()):
        head.spec = head.spec.model_copy(update=plain)
    return Engine(f"{release.name}@{release.version}+{precision}", loaded, CACHE_BYTES)


def logits(engine: Engine, rows: Rows) -> Floats:
    """The head's own [row], of an uncalibrated engine."""
    risk = engine_model(engine)(rows)
    return np.asarray(_COOL * (np.log(risk) - np.log1p(-risk)))

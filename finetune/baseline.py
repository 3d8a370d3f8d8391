"""What a release was trained on, for `fraudguard drift --baseline`; finetune.publish keeps it in the release.

How often each numeric input lay in each bin, over every event of the train split, by
event type, each event once whatever its weight. Risk and typology are the model's own, so they are not in it.
"""

import hashlib
from pathlib import Path

import numpy as np

from finetune import dataset
from fraudguard.baseline import Baseline, EventType
from fraudguard.features.registry import MODEL_FEATURES
from fraudguard.stability import Histogram, bin_of, cuts_of


def baseline_of(folder: Path) -> Baseline:
    """The train split of a dataset, named after the folder and the file's digest. Raises BadInput."""
    rows: dict[EventType, list[dataset.Numbers]] = {}
    for timeline in dataset.read(folder, "train"):
        for one in timeline.events:
            rows.setdefault(one.event.type, []).append(one.numbers)
    digest = hashlib.sha256((folder / "train.parquet").read_bytes()).hexdigest()
    return Baseline(
        name=f"{folder.name} (train, {digest[:12]})",
        variables={kind: _histograms(np.stack(numbers)) for kind, numbers in sorted(rows.items())},
    )


def _histograms(numbers: dataset.Numbers) -> dict[str, Histogram]:
    """numbers: [events, features]."""
    found = {}
    for name, column in zip(MODEL_FEATURES, numbers.T, strict=True):
        values, times = np.unique(column[~np.isnan(column)], return_counts=True)
        # The shortest number that a float32 stands for is the one that was rounded to it: 9.9, which screening sees.
        counted = {float(str(value)): int(count) for value, count in zip(values, times, strict=True)}
        cuts = cuts_of([value for value, count in counted.items() for _ in range(count)])
        counts = [0] * (len(cuts) + 1) + [int(np.isnan(column).sum())]
        for value, count in counted.items():
            counts[bin_of(cuts, value)] += count
        found[name] = Histogram(cuts, tuple(counts))
    return found

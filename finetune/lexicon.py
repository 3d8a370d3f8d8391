"""Fits the head's lexicon (fraudguard/engine/lexicon.py): logistic regression over the words of labelled timelines.

Knows samples' ids and labels. What the head learns from are scores of lexicons that have not seen the account: a score
of words that were learned by heart would teach it to believe words alone.
"""

from collections.abc import Sequence
from random import Random

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from finetune.adapt import COLUMNS, Sample
from finetune.recipe import LexiconRun
from fraudguard.engine.lexicon import FEATURE, Floats, Lexicon, places

_COLUMN = COLUMNS.index(FEATURE)


def give_lexicon(train: Sequence[Sample], others: Sequence[Sample], run: LexiconRun, seed: int) -> Lexicon:
    """The lexicon of train; its scores are written into others' numbers, and held-out ones into train's."""
    rng = Random(seed)
    accounts = sorted({sample.account_id for sample in train})
    fold_of = dict(zip(accounts, (rng.randrange(run.folds) for _ in accounts), strict=True))
    folds = np.array([fold_of[sample.account_id] for sample in train])
    for fold in range(run.folds):
        seen = [sample for sample, its in zip(train, folds, strict=True) if its != fold]
        write(fit(seen, run, seed), [sample for sample, its in zip(train, folds, strict=True) if its == fold])
    lexicon = fit(train, run, seed)
    write(lexicon, others)
    return lexicon


def fit(samples: Sequence[Sample], run: LexiconRun, seed: int) -> Lexicon:
    """Of the readings that are certain, at most run.readings of them, each weighing what its label says."""
    readings = [
        (sample.own_ids[: end + 1], truth, weight)
        for sample in samples
        for end, truth, weight in zip(sample.own_ends, sample.truth.tolist(), sample.weight.tolist(), strict=True)
        if truth in (0.0, 1.0) and weight > 0
    ]
    readings = Random(seed).sample(readings, min(len(readings), run.readings))
    rows = [places(ids, run.buckets) for ids, _, _ in readings]
    starts = np.cumsum([0, *(len(slots) for slots, _ in rows)])
    slots, counts = np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows])
    documents = np.bincount(slots, minlength=run.buckets)
    inverse: Floats = (np.log((1 + len(rows)) / (1 + documents)) + 1).astype(np.float32)
    counts = counts * inverse[slots]
    lengths = np.sqrt(np.add.reduceat(counts**2, starts[:-1]))
    # Only buckets that something falls into: of the others the penalty would make zeros, slowly.
    used, columns = np.unique(slots, return_inverse=True)
    table = csr_matrix((counts / np.repeat(lengths, np.diff(starts)), columns, starts), (len(rows), len(used)))
    model = LogisticRegression(C=run.inverse_penalty, max_iter=run.iterations)
    model.fit(table, [truth for _, truth, _ in readings], sample_weight=[weight for _, _, weight in readings])
    # Rounded as its file will be: the head learns from what it will be given.
    coefficients = np.zeros(run.buckets, np.float32)
    coefficients[used] = model.coef_[0].astype(np.float16)
    return Lexicon(inverse.astype(np.float16).astype(np.float32), coefficients, float(model.intercept_[0]))


def write(lexicon: Lexicon, samples: Sequence[Sample]) -> None:
    """Each reading's score into its numbers."""
    for sample in samples:
        scores: npt.NDArray[np.float32] = np.array(
            [lexicon.score(sample.own_ids[: end + 1]) for end in sample.own_ends], dtype=np.float32
        )
        sample.numbers[:, _COLUMN] = torch.from_numpy(scores)

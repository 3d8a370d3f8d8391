"""What a report says of a model: measures of its risks over rows and conversations, all by fraudguard.evaluation.

Knows arrays of risks. Event measures take truth 1 against truth 0; a conversation is a scam if any of its truths is 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from finetune.rows import Mask, Rows, groups
from fraudguard.errors import BadInput
from fraudguard.evaluation import (
    Floats,
    alarm_shares,
    alarm_threshold,
    average_precision,
    calibration_error,
    card_precision_at_k,
    recall_at_fpr,
    roc_auc,
)
from fraudguard.measures import Metrics

HALF = 0.5
CURVE = tuple(step / 20 for step in range(1, 21))  # shares of turns


@dataclass(frozen=True, slots=True)
class Early:
    """How early a threshold catches scams. threshold: see `alarm_threshold`; chosen on other rows than these.

    caught: the share of scams caught by each share of turns in CURVE. false_alarms: of these rows' harmless.
    """

    threshold: float
    scams: int
    harmless: int
    by_half: float
    ever: float
    false_alarms: float
    caught: tuple[float, ...]


def along(rows: Rows, risk: Floats) -> list[Floats]:
    """The risks along each conversation."""
    return [risk[one.rows] for one in rows.conversations]


def early(scores: Sequence[Floats], fraud: Sequence[bool] | Mask, threshold: float) -> Early:
    """Over conversations, given the scores along each; NaN where there are no scams, or no harmless ones."""
    shares = alarm_shares([one for one, scam in zip(scores, fraud, strict=True) if scam], threshold)
    alarmed = np.array([one.max() >= threshold for one, scam in zip(scores, fraud, strict=True) if not scam])
    return Early(
        threshold, len(shares), len(alarmed), _mean(shares <= HALF), _mean(shares <= 1.0), _mean(alarmed),
        tuple(_mean(shares <= share) for share in CURVE),
    )  # fmt: skip


def early_by_set(test: Rows, risk: Floats, dev: Rows, dev_risk: Floats, rate: float) -> dict[str, Early]:
    """Each set of test that has scams, at the threshold that its own harmless conversations in dev give."""
    chosen, judged = along(dev, dev_risk), along(test, risk)
    found = {}
    for name in sorted({one.source for one in test.conversations if one.fraud}):
        peaks = [
            scores.max()
            for one, scores in zip(dev.conversations, chosen, strict=True)
            if one.source == name and not one.fraud
        ]
        if peaks:
            part = [n for n, one in enumerate(test.conversations) if one.source == name]
            frauds = [test.conversations[n].fraud for n in part]
            found[name] = early([judged[n] for n in part], frauds, alarm_threshold(peaks, rate))
    return found


def _mean(held: Mask) -> float:
    return float(np.mean(held)) if len(held) else float("nan")


def overall(rows: Rows, risk: Floats, k: int) -> dict[str, float]:
    """The measures over every event, as metrics.json names them; `early_share` is of conversations."""
    kept = rows.measured
    truth, score = rows.fraud[kept], risk[kept]
    return {
        "average_precision": average_precision(truth, score),
        "roc_auc": roc_auc(truth, score),
        "recall_at_0.1%_fpr": recall_at_fpr(truth, score, 0.001),
        "recall_at_1%_fpr": recall_at_fpr(truth, score, 0.01),
        "precision_at_k": card_precision_at_k(rows.days[kept], rows.accounts[kept], truth, score, k),
        "k": k,
        "calibration_error": calibration_error(truth, score),
    }


def by_group(rows: Rows, risk: Floats) -> dict[str, dict[str, dict[str, float]]]:
    """by_typology: frauds of one kind against everything harmless. The others: the events of one group alone.

    A group without frauds, or without others, has no such measure and is left out.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, parts in _parts(rows):
        found[name] = {}
        for value, part in parts.items():
            kept = part & rows.measured
            truth = rows.fraud[kept]
            if truth.any() and not truth.all():
                found[name][value] = {
                    "average_precision": average_precision(truth, risk[kept]),
                    "recall_at_1%_fpr": recall_at_fpr(truth, risk[kept], 0.01),
                }
    return found


def _parts(rows: Rows) -> Iterator[tuple[str, dict[str, Mask]]]:
    kinds = groups(rows.typology)
    yield "by_typology", {value: (part & rows.fraud) | (rows.truth == 0.0) for value, part in kinds.items()}
    yield "by_language", groups(rows.language)
    yield "by_channel", groups(rows.channel)
    yield "by_source", groups(rows.source)


def sizes(rows: Rows) -> dict[str, dict[str, tuple[int, int]]]:
    """Frauds and others measured in each group of `by_group`, those that have no measure too."""
    return {
        name: {
            value: (int((part & rows.fraud).sum()), int((part & (rows.truth == 0.0)).sum()))
            for value, part in parts.items()
        }
        for name, parts in _parts(rows)
    }


@dataclass(frozen=True, slots=True)
class Measured:
    """One model on the test rows. events: how many it was measured on."""

    name: str
    events: int
    measures: dict[str, float]
    early: Early | None


@dataclass(frozen=True, slots=True)
class Attacked:
    """Measures of one model under one attack (or none). changed: the share of the counterparty's lines that differ."""

    attack: str
    model: str
    changed: float
    average_precision: float
    roc_auc: float
    recall: float
    ever: float


def metrics(rows: Rows, risk: Floats, found: Measured, dataset: dict[str, str]) -> Metrics:
    """metrics.json: what the promotion gate reads."""
    early_share = found.early.by_half if found.early is not None and found.early.scams else None
    return Metrics.model_validate(
        {
            "format": 1, "model": found.name, "dataset": dataset,
            "events": int(rows.measured.sum()), "frauds": int(rows.fraud.sum()),
            "measures": {**found.measures, "early_share": early_share}, **by_group(rows, risk),
        }
    )  # fmt: skip


def check(rows: Rows, path: str) -> None:
    """Raises BadInput where there is nothing to measure."""
    if not rows.fraud.any() or not (rows.truth == 0.0).any():
        missing = "fraud" if not rows.fraud.any() else "harmless event"
        raise BadInput(f"there is no {missing} among {len(rows)} events", path=path, hint="prepare a larger dataset")


def threshold(rows: Rows, risk: Floats, rate: float) -> float:
    """The alarm threshold on these rows' harmless conversations; infinite, so that nothing alarms, without any."""
    peaks = [risk[one.rows].max() for one in rows.conversations if not one.fraud]
    return alarm_threshold(peaks, rate) if peaks else float("inf")

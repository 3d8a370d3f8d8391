"""Measures of a risk score against the truth, exact, on numpy arrays.

Knows labels and scores only. Average precision and ROC match scikit-learn's, ties included (tests compare them).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def _curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Frauds and others at or above each distinct score, highest score first. Raises ValueError on bad input."""
    truth, score = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    if truth.shape != score.shape or truth.ndim != 1 or np.isnan(score).any():
        raise ValueError("labels and scores must be two arrays [n] without NaN")
    order = np.argsort(-score, kind="stable")
    if not len(score):
        return np.empty(0), np.empty(0)
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    frauds = np.cumsum(truth[order], dtype=np.float64)[last]
    return frauds, last + 1.0 - frauds


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Mean precision over the steps of recall: sum of (recall_n - recall_n-1) * precision_n. Raises without a fraud."""
    frauds, others = _curve(labels, scores)
    if not len(frauds) or frauds[-1] == 0:
        raise ValueError("average precision needs a fraud")
    steps = np.diff(frauds, prepend=0.0) / frauds[-1]
    return float(np.sum(steps * frauds / (frauds + others)))


def roc_auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """P(a fraud scores above another event), ties half. Raises ValueError unless both occur."""
    frauds, others = _curve(labels, scores)
    if not len(frauds) or frauds[-1] == 0 or others[-1] == 0:
        raise ValueError("the area under the ROC needs frauds and others")
    return float(np.trapezoid(np.append(0.0, frauds), np.append(0.0, others)) / (frauds[-1] * others[-1]))


def recall_at_fpr(labels: npt.ArrayLike, scores: npt.ArrayLike, fpr: float) -> float:
    """The largest share of frauds caught by a threshold that alarms on at most the share `fpr` of the others."""
    frauds, others = _curve(labels, scores)
    if not len(frauds) or frauds[-1] == 0 or others[-1] == 0:
        raise ValueError("recall at a false-positive rate needs frauds and others")
    allowed = others / others[-1] <= fpr
    return float(frauds[allowed].max(initial=0.0) / frauds[-1])


def threshold_at_fpr(labels: npt.ArrayLike, scores: npt.ArrayLike, fpr: float) -> float:
    """The lowest score t such that at most the share `fpr` of the others scores t or more; inf if there is none."""
    _, others = _curve(labels, scores)
    if not len(others) or others[-1] == 0:
        raise ValueError("a false-positive rate needs others")
    distinct = np.unique(np.asarray(scores, dtype=np.float64))[::-1]
    allowed = distinct[others / others[-1] <= fpr]
    return float(allowed.min()) if len(allowed) else float("inf")


def card_precision_at_k(
    days: npt.ArrayLike, cards: npt.ArrayLike, labels: npt.ArrayLike, scores: npt.ArrayLike, k: int
) -> float:
    """Mean over days of the share of compromised cards among the k cards with the day's highest scores.

    Cards that were caught on an earlier day (in the k, and compromised) are left out, as in the Fraud Detection
    Handbook (Le Borgne et al., chapter 4). All arrays [n], one row a transaction; days sort in time.
    """
    day, card = np.asarray(days), np.asarray(cards)
    truth, score = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    if k < 1 or not len(day):
        raise ValueError("card precision needs transactions and k of at least 1")
    caught: set[object] = set()
    shares = []
    for today in np.unique(day):
        rows = np.flatnonzero(day == today)
        top: dict[object, float] = {}
        bad: set[object] = set()
        for row in rows:
            name = card[row]
            if name in caught:
                continue
            top[name] = max(top.get(name, -np.inf), float(score[row]))
            if truth[row]:
                bad.add(name)
        # Equal scores: in the cards' own order, so that the value does not depend on the order of rows.
        chosen = sorted(top, key=lambda name: (-top[name], name))[:k]
        found = [name for name in chosen if name in bad]
        caught.update(found)
        shares.append(len(found) / k)
    return float(np.mean(shares))


@dataclass(frozen=True, slots=True)
class Reliability:
    """Equally filled bins by risk, lowest first: mean risk, share of frauds and events of each."""

    risk: Floats
    share: Floats
    events: npt.NDArray[np.int64]


def reliability(labels: npt.ArrayLike, risks: npt.ArrayLike, bins: int = 15) -> Reliability:
    """What the risks promise beside what came true. Raises ValueError without scores."""
    truth, risk = np.asarray(labels, dtype=np.float64), np.asarray(risks, dtype=np.float64)
    if not len(risk):
        raise ValueError("reliability needs scores")
    parts = np.array_split(np.argsort(risk, kind="stable"), min(bins, len(risk)))
    return Reliability(
        np.array([risk[part].mean() for part in parts]),
        np.array([truth[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def calibration_error(labels: npt.ArrayLike, risks: npt.ArrayLike, bins: int = 15) -> float:
    """Expected calibration error: mean |mean risk - share of frauds| over equally filled bins, weighted by size."""
    found = reliability(labels, risks, bins)
    return float(np.sum(np.abs(found.risk - found.share) * found.events) / found.events.sum())


def alarm_threshold(peaks: npt.ArrayLike, rate: float) -> float:
    """The lowest threshold t such that at most the share `rate` of harmless conversations ever reaches it.

    peaks: the highest score of each. Raises ValueError without any, or unless 0 <= rate < 1.
    """
    ordered = np.sort(np.asarray(peaks, dtype=np.float64))[::-1]
    if not len(ordered) or np.isnan(ordered).any() or not 0 <= rate < 1:
        raise ValueError("an alarm threshold needs harmless conversations and a rate in [0, 1)")
    # A little more than a hundredth of 100 is still one: 0.01 * 300 is 3.0000000000000004, 0.29 * 100 is 28.999...
    allowed = int(np.floor(rate * len(ordered) + 1e-9))
    return float(np.nextafter(ordered[allowed], np.inf))


def alarm_shares(conversations: Sequence[npt.ArrayLike], threshold: float) -> Floats:
    """For each conversation the share of its turns that were over when a score first reached the threshold.

    conversations: the scores along each, one a turn. The k-th of n turns is k / n; inf where none reaches it.
    """
    shares = np.full(len(conversations), np.inf)
    for index, scores in enumerate(conversations):
        score = np.asarray(scores, dtype=np.float64)
        reached = np.flatnonzero(score >= threshold)
        if len(reached):
            shares[index] = (reached[0] + 1) / len(score)
    return shares


def difference_interval(
    measure: Callable[[npt.ArrayLike, npt.ArrayLike], float],
    labels: npt.ArrayLike,
    ours: npt.ArrayLike,
    theirs: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    rounds: int = 1_000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of measure(ours) - measure(theirs) on the same rows, drawn in pairs.

    groups: of rows that belong together and are drawn together, such as windows of one case; None: each is its own.
    Draws without both kinds are drawn again. Raises ValueError unless two groups or more have both kinds.
    """
    truth = np.asarray(labels, dtype=bool)
    one, other = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    names = np.arange(len(truth)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    members = np.split(np.argsort(names, kind="stable"), np.cumsum(np.bincount(names))[:-1])
    if truth.all() or not truth.any() or len(members) < 2:
        raise ValueError("an interval needs frauds and others in two groups or more")
    rng = np.random.default_rng(seed)
    found: list[float] = []
    while len(found) < rounds:
        drawn = np.concatenate([members[number] for number in rng.integers(len(members), size=len(members))])
        if 0 < truth[drawn].sum() < len(drawn):
            found.append(measure(truth[drawn], one[drawn]) - measure(truth[drawn], other[drawn]))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)

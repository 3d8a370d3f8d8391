"""What a release must beat, on the same rows: TF-IDF, gradient boosting, the bare language model, the rule pack.

Knows rows and how to learn from them; knows no measure. None of them is shipped.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from finetune import dataset, measures
from finetune.rows import Asked, Rows
from fraudguard.domain import Outcome, Scalar
from fraudguard.engine.loader import load_base
from fraudguard.engine.release import Release
from fraudguard.engine.tokenizer import open_tokenizer
from fraudguard.evaluation import Floats, average_precision
from fraudguard.features.event import event_features
from fraudguard.features.facts import facts_of
from fraudguard.features.money import load_rates
from fraudguard.features.registry import features_in
from fraudguard.features.timeline import TokenCounter, chat
from fraudguard.rules import expression
from fraudguard.rules.registry import RuleSet, load_rules

log = logging.getLogger(__name__)
Model = Callable[[Rows], Floats]  # a score a row, higher is more suspicious

TF_IDF = "TF-IDF + logistic regression"
BOOSTING = "gradient boosting, numbers alone"
ZERO_SHOT = "zero-shot: the base, asked"
RULES = "keyword rules"

BASE_CURRENCY = "CNY"
READS_TEXT = {"text", "chat", "memo"}
HITS_MAX = 100  # more on one event than any pack has


class TfIdfRun(BaseModel):
    """ngrams: lengths of character n-grams. penalties: sklearn's C, of which dev chooses one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ngrams: tuple[int, int]
    features_max: int
    penalties: tuple[float, ...] = Field(min_length=1)


class BoostingRun(BaseModel):
    """Of sklearn's HistGradientBoostingClassifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rounds: int
    rate: float


class ZeroShotRun(BaseModel):
    """question: follows the timeline on a line of its own. fraud, harmless: the two answers to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    question: str
    fraud: str
    harmless: str
    batch: int


@dataclass(frozen=True, slots=True)
class Lesson:
    """Events to learn from and how much each counts; of: how many they were drawn from."""

    rows: Rows
    weights: Floats
    of: int


def lesson(folder: Path, counter: TokenCounter, tokens_max: int, rows_max: int, seed: int) -> Lesson:
    """Events of the train part with a truth of 0 or 1, drawn over all of it. Raises BadInput."""
    truth = dataset.truths(folder, "train")
    chosen, factors = drawn(truth, rows_max, seed)
    wanted, first = set(chosen.tolist()), 0
    asked: list[Asked] = []
    for timeline in dataset.iterate(folder, "train"):
        places = range(first, first + len(timeline.events))
        first = places.stop
        if not wanted.isdisjoint(places):
            whole = dataset.requests([timeline], counter, tokens_max)
            asked += [one for place, one in zip(places, whole, strict=True) if place in wanted]
    rows = Rows(asked)
    measures.check(rows, str(folder / "train.parquet"))
    return Lesson(rows, rows.weight * factors, len(truth))


def drawn(truth: Floats, rows_max: int, seed: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """At most rows_max events with a truth of 0 or 1, in order, at least half of them fraud if there are so many.

    The factors make up for what was left out of each kind, so that a learner's P(fraud) is that of all events.
    """
    rng = np.random.default_rng(seed)
    frauds, others = np.flatnonzero(truth == 1.0), np.flatnonzero(truth == 0.0)
    most = max(rows_max - len(others), rows_max // 2)
    chosen, factors = [], []
    for part, room in ((frauds, most), (others, rows_max - min(len(frauds), most))):
        kept = rng.choice(part, min(len(part), room), replace=False)
        chosen.append(kept)
        factors.append(np.full(len(kept), len(part) / max(len(kept), 1)))
    order = np.argsort(places := np.concatenate(chosen))
    return places[order], np.concatenate(factors)[order]


def tf_idf(taught: Lesson, dev: Rows, run: TfIdfRun) -> Model:
    """Logistic regression on character n-grams of the timeline up to the event: alike for Chinese and English."""
    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=run.ngrams, max_features=run.features_max, min_df=2, sublinear_tf=True,
        dtype=np.float32,
    )  # fmt: skip
    table = vectorizer.fit_transform(taught.rows.texts)
    trial = vectorizer.transform(dev.texts)[dev.measured]
    best: tuple[float, LogisticRegression] | None = None
    for penalty in run.penalties:
        learner = LogisticRegression(C=penalty, max_iter=300)
        learner.fit(table, taught.rows.fraud, taught.weights)
        found = average_precision(dev.fraud[dev.measured], learner.predict_proba(trial)[:, 1])
        log.info("TF-IDF, C %g: average precision on dev %.3f", penalty, found)
        if best is None or found > best[0]:
            best = found, learner
    assert best is not None  # noqa: S101  the settings name a penalty
    learner = best[1]
    return lambda rows: _floats(learner.predict_proba(vectorizer.transform(rows.texts))[:, 1])


def boosting(taught: Lesson, run: BoostingRun, seed: int) -> Model:
    """Gradient boosting on the numeric features alone."""
    known = ~np.isnan(taught.rows.numbers).all(axis=0)  # sklearn cannot bin what is always missing
    learner = HistGradientBoostingClassifier(
        max_iter=run.rounds, learning_rate=run.rate, early_stopping=True, random_state=seed
    )
    learner.fit(taught.rows.numbers[:, known], taught.rows.fraud, taught.weights)
    return lambda rows: _floats(learner.predict_proba(rows.numbers[:, known])[:, 1])


def _floats(values: npt.ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


# ------------------------------------------------------------ the bare language model


def zero_shot(release: Release, tokens_max: int, run: ZeroShotRun) -> Model:
    """The release's base without adapter or head, asked in words: P(fraud) / (P(fraud) + P(harmless)) of the answers.

    A base that never saw an instruction, such as the starter's, only says which answer looks more like its texts.
    """
    tokenizer = open_tokenizer(release.base)
    model = load_base(release.base)
    model.eval()
    prefix = tokenizer.encode_prefix(release.prefix)
    answers = [tokenizer.encode(run.question + answer)[:-1] for answer in (run.fraud, run.harmless)]
    room = min(tokens_max, model.config.max_position_embeddings - len(prefix) - max(map(len, answers)))
    asked = len(_common(*answers))

    def likelihood(ids: Sequence[tuple[int, ...]], answer: tuple[int, ...]) -> Floats:
        """Log-probability of the answer after each timeline, the question's tokens not counted."""
        whole = [(*prefix, *one, *answer) for one in ids]
        width = max(map(len, whole))
        tokens = torch.tensor([[*one, *(0,) * (width - len(one))] for one in whole])
        mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in whole])
        # Only the answer's own places meet the vocabulary, which may be 150,000 wide.
        places = torch.tensor([range(len(one) - len(answer) + asked, len(one)) for one in whole])
        with torch.inference_mode():
            hidden = model.model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
            before = hidden.gather(1, (places - 1)[..., None].expand(-1, -1, hidden.shape[-1]))
            said = model.lm_head(before).float().log_softmax(-1)
        found = said.gather(2, tokens.gather(1, places)[..., None]).sum((1, 2))
        return np.asarray(found, dtype=np.float64)

    def model_of(rows: Rows) -> Floats:
        ids = [tokenizer.encode_timeline(request.timeline, room) for _, _, request in rows.asked]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        scores = np.zeros(len(ids))
        for start in range(0, len(order), run.batch):
            part = order[start : start + run.batch]
            fraud, harmless = (likelihood([ids[row] for row in part], answer) for answer in answers)
            scores[part] = 1.0 / (1.0 + np.exp(np.clip(harmless - fraud, -50.0, 50.0)))
        return scores

    return model_of


def _common(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """The tokens with which both begin."""
    found = []
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        found.append(left)
    return found


# ------------------------------------------------------------ keyword rules


def keyword_rules(folder: Path) -> Model:
    """The pack's active rules that read text, through the rules' own evaluator, without the model's risk.

    A score is the strongest outcome of the rules that hit, finer by how many did. Windows and lists that the pack
    declares are no part of a dataset: they are missing, and a rule that needs one does not hold. Raises BadRule.
    """
    rules = text_rules(load_rules(folder, features_in(BASE_CURRENCY)))
    rates = load_rates(BASE_CURRENCY)
    zone = ZoneInfo("Asia/Shanghai")

    def score(inputs: Mapping[str, Scalar]) -> float:
        hits = rules.evaluate(inputs)
        worst = max((hit.outcome.severity for hit in hits), default=0)
        return (worst + len(hits) / HITS_MAX) / (Outcome.BLOCK.severity + 1)

    def model_of(rows: Rows) -> Floats:
        found = np.zeros(len(rows))
        for row, (_, labelled, request) in enumerate(rows.asked):
            said = event_features(labelled.event, facts_of(labelled.event, rates), zone, late=False)
            found[row] = score({**said, **labelled.features, "chat": chat(request.timeline), "degraded": True})
        return found

    return model_of


def text_rules(rules: RuleSet) -> RuleSet:
    """Those of the active rules that read what people wrote and not what the model says."""
    model = {feature.name for feature in features_in(BASE_CURRENCY) if feature.group == "score"}
    other = []
    for rule in rules.active:
        read = {node.name for node in expression.walk(rule.condition) if isinstance(node, expression.Field)}
        if not read & READS_TEXT or read & model:
            other.append(rule.id)
    return rules.without(other)

"""What gives the answer away: how well trivial readers tell the frauds of a DATASET from the rest.

Knows plots, dialogues and cases as wholes; ordinary life is not asked. A number of a model on the same test split means
something only beside these. `across` says how much of a reader's skill is the source's own topic and style.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from finetune.dataset import LabelledEvent, Split, iterate
from fraudguard.domain import Message
from fraudguard.evaluation import roc_auc

KIND_MIN = 5  # frauds and others, each, for an area under the ROC


@dataclass(frozen=True, slots=True)
class Talk:
    """One plot, dialogue or case. text: its messages and memos, a line each."""

    source: str
    language: str
    channels: str
    turns: int
    text: str
    fraud: bool


def verdict(events: Sequence[LabelledEvent]) -> bool | None:
    """Whether events belong to a fraud; None where it is not known."""
    known = [one for one in events if one.weight > 0]
    if any(one.truth == 1.0 or (one.truth > 0 and one.typology is not None) for one in known):
        return True
    return False if known and not any(one.truth for one in known) else None


def talks(folder: Path, split: Split) -> list[Talk]:
    """Those of a split, in its order."""
    found = []
    for timeline in iterate(folder, split):
        by_story: dict[str, list[LabelledEvent]] = {}
        for one in timeline.events:
            if one.story is not None:
                by_story.setdefault(one.story, []).append(one)
        for events in by_story.values():
            fraud = verdict(events)
            if fraud is not None:
                found.append(_talk(timeline.source, events, fraud))
    return found


def _talk(source: str, events: Sequence[LabelledEvent], fraud: bool) -> Talk:
    messages = [one.event for one in events if isinstance(one.event, Message)]
    memos = [one.event.memo or "" for one in events if not isinstance(one.event, Message)]
    return Talk(
        source, (messages[0].language or "") if messages else "",
        " ".join(sorted({f"{message.channel}/{message.sender}" for message in messages})), len(events),
        "\n".join([message.text for message in messages] + [memo for memo in memos if memo]), fraud,
    )  # fmt: skip


def _words(talk: Talk) -> str:
    return talk.text


def _length(talk: Talk) -> dict[str, Any]:
    return {"turns": np.log1p(talk.turns), "characters": np.log1p(len(talk.text))}


def _channel(talk: Talk) -> dict[str, Any]:
    return {"language": talk.language, **dict.fromkeys(talk.channels.split(), 1)}


def _source(talk: Talk) -> dict[str, Any]:
    return {"source": talk.source}


def _table(columns: Callable[[Talk], Any]) -> Callable[[], tuple[Callable[[Talk], Any], Pipeline]]:
    return lambda: (
        columns,
        make_pipeline(DictVectorizer(sparse=False), StandardScaler(), LogisticRegression(max_iter=500)),
    )


def _tf_idf() -> tuple[Callable[[Talk], Any], Pipeline]:
    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=(1, 3), min_df=2, max_features=60_000, sublinear_tf=True, dtype=np.float32
    )
    return _words, make_pipeline(vectorizer, LogisticRegression(C=10, max_iter=300))


TF_IDF = "TF-IDF + logistic regression"
READERS = {
    "length": _table(_length), "channel, speakers and language": _table(_channel), "source": _table(_source),
    TF_IDF: _tf_idf,
}  # fmt: skip


def report(folder: Path) -> dict[str, Any]:
    """AUC of each reader, trained on train: on test, by source and across sources. What cannot be asked is missing."""
    train, test = talks(folder, "train"), talks(folder, "test")
    found: dict[str, Any] = {"talks": {"train": _sizes(train), "test": _sizes(test)}, "readers": {}, "across": {}}
    if not _both(train):
        return found
    for name, make in READERS.items():
        found["readers"][name] = _aucs(make(), train, test)
    sources = sorted({talk.source for talk in train + test})
    for taught, asked in product(sources, sources):
        of_taught = [talk for talk in train if talk.source == taught]
        of_asked = [talk for talk in test if talk.source == asked]
        if _both(of_taught) and _both(of_asked):
            auc = _aucs(_tf_idf(), of_taught, of_asked)["all"]
            found["across"].setdefault(taught, {})[asked] = auc
    return found


def _sizes(of: Sequence[Talk]) -> dict[str, int]:
    frauds = sum(talk.fraud for talk in of)
    return {"frauds": frauds, "harmless": len(of) - frauds}


def _both(of: Sequence[Talk]) -> bool:
    return min(_sizes(of).values()) >= KIND_MIN


def _aucs(
    reader: tuple[Callable[[Talk], Any], Pipeline], train: Sequence[Talk], test: Sequence[Talk]
) -> Mapping[str, float]:
    """`all`, and each source of test."""
    columns, learner = reader
    learner.fit([columns(talk) for talk in train], [talk.fraud for talk in train])
    scores = np.asarray(learner.decision_function([columns(talk) for talk in test])) if test else np.empty(0)
    truth = np.array([talk.fraud for talk in test], dtype=bool)
    sources = np.array([talk.source for talk in test])
    found = {}
    for name in ("all", *sorted(set(sources.tolist()))):
        asked = (sources == name) | (name == "all")
        if KIND_MIN <= truth[asked].sum() <= asked.sum() - KIND_MIN:
            found[name] = round(roc_auc(truth[asked], scores[asked]), 4)
    return found

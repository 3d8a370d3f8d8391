"""Measures a release on a dataset's test part, through the service's own engine and timeline, beside its baselines.

    python -m finetune.evaluate finetune/evaluate.yaml --dataset DATASET --release RELEASE --out REPORT [--data DATA]

Writes REPORT/report.md with its pictures and REPORT/metrics.json, which the promotion gate reads. Thresholds of alarms
are chosen on dev. With --data also sets that nobody trained on (finetune/measuring.py).
"""

import argparse
import hashlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune import baselines, dataset, measures, report
from finetune.attacks import ATTACKS, attacked, speaks
from finetune.baselines import BOOSTING, RULES, TF_IDF, ZERO_SHOT, BoostingRun, Lesson, Model, TfIdfRun, ZeroShotRun
from finetune.dataset import LabelledTimeline, Split
from finetune.measures import Attacked, Measured
from finetune.measuring import transfer, unseen
from finetune.rows import Rows, sample
from fraudguard.engine.engine import Engine
from fraudguard.engine.precision import Precision
from fraudguard.engine.release import open_release
from fraudguard.errors import BadInput, FraudguardError
from fraudguard.evaluation import Floats, average_precision, recall_at_fpr, roc_auc

log = logging.getLogger(__name__)
CHUNK = 512  # requests that the engine gets at once


class Settings(BaseModel):
    """evaluate.yaml, which says what each is."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seed: int
    threads: int
    capacity: int = Field(ge=1)
    false_alarms: float = Field(ge=0, lt=1)
    test_events_max: int
    dev_events_max: int
    train_events_max: int
    attack_events_max: int
    zero_shot_events_max: int
    tf_idf: TfIdfRun
    boosting: BoostingRun
    zero_shot: ZeroShotRun
    rules: Path
    reach: tuple[float, ...]
    reach_sources: tuple[str, ...]
    bootstrap_rounds: int


def read_settings(path: Path) -> Settings:
    """The settings in the file. Raises BadInput."""
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"cannot be read: {error}", path=str(path)) from error


def engine_model(engine: Engine) -> Model:
    """The engine's risks, asked timeline after timeline as in serving."""

    def risks(rows: Rows) -> Floats:
        found = np.empty(len(rows))
        for start in range(0, len(rows), CHUNK):
            chunk = rows.asked[start : start + CHUNK]
            found[start : start + CHUNK] = [score.risk for score in engine.score([ask for _, _, ask in chunk])]
        return found

    return risks


class Bench:
    """The parts of a dataset, cut to the settings' sizes, as a release reads them. timelines: of test."""

    def __init__(self, settings: Settings, folder: Path, engine: Engine) -> None:
        """Raises BadInput where there is nothing to measure."""
        self.settings, self.folder, self.engine = settings, folder, engine
        self.timelines = self._drawn("test", settings.test_events_max)
        self.test = self._checked("test", self.timelines)
        self.dev = self._checked("dev", self._drawn("dev", settings.dev_events_max))

    def rows(self, timelines: Sequence[LabelledTimeline]) -> Rows:
        """What the release is asked at every event of the timelines."""
        return Rows.of(timelines, self.engine.tokenizer, self.engine.tokens_max)

    def lesson(self) -> Lesson:
        """What the baselines learn from."""
        settings, engine = self.settings, self.engine
        return baselines.lesson(
            self.folder, engine.tokenizer, engine.tokens_max, settings.train_events_max, settings.seed
        )

    def rivals(self, taught: Lesson) -> dict[str, Model]:
        """The baselines that read every row."""
        settings = self.settings
        return {
            TF_IDF: baselines.tf_idf(taught, self.dev, settings.tf_idf),
            BOOSTING: baselines.boosting(taught, settings.boosting, settings.seed),
            RULES: baselines.keyword_rules(settings.rules),
        }

    def measured(self, name: str, risk: Floats, dev_risk: Floats) -> Measured:
        """A model on test. risk, dev_risk: of the rows of test and dev, where the threshold of alarms is chosen."""
        limit = measures.threshold(self.dev, dev_risk, self.settings.false_alarms)
        scams = [one.fraud for one in self.test.conversations]
        seen = measures.early(measures.along(self.test, risk), scams, limit)
        events = int(self.test.measured.sum())
        return Measured(name, events, measures.overall(self.test, risk, self.settings.capacity), seen)

    def named(self) -> dict[str, str]:
        """The dataset's name, and the digest of what was measured."""
        card = self.folder / "card.json"
        name = json.loads(card.read_text(encoding="utf-8")).get("name") if card.is_file() else None
        digest = hashlib.sha256((self.folder / "test.parquet").read_bytes()).hexdigest()
        return {"name": str(name or self.folder.resolve().name), "digest": digest}

    def _drawn(self, split: Split, events_max: int) -> list[LabelledTimeline]:
        return sample(dataset.read(self.folder, split), events_max, self.settings.seed)

    def _checked(self, split: Split, timelines: Sequence[LabelledTimeline]) -> Rows:
        rows = self.rows(timelines)
        measures.check(rows, str(self.folder / f"{split}.parquet"))
        return rows


def zero_shot(bench: Bench, source: str, ours: Model) -> list[Measured]:
    """The bare base on a part of the timelines, and the release on the same: that forward pass keeps no cache."""
    settings = bench.settings
    some = bench.rows(sample(bench.timelines, settings.zero_shot_events_max, settings.seed))
    if not some.fraud.any() or not (some.truth == 0.0).any():
        return []
    model = baselines.zero_shot(open_release(source), bench.engine.tokens_max, settings.zero_shot)
    events = int(some.measured.sum())
    return [
        Measured(name, events, measures.overall(some, asked(some), settings.capacity), None)
        for name, asked in ((ZERO_SHOT, model), (f"{bench.engine.name}, same part", ours))
    ]


def under_attack(bench: Bench, models: Mapping[str, tuple[Model, float]]) -> list[Attacked]:
    """Timelines of scams that speak, rewritten, against every harmless event of the others as it was.

    models: each with its threshold of alarms.
    """
    settings = bench.settings
    chosen = sample([one for one in bench.timelines if speaks(one)], settings.attack_events_max, settings.seed)
    plain = bench.rows(chosen)
    safe = Rows([one for one in bench.test.asked if not any(event.truth == 1.0 for event in one[0].events)])
    if not len(plain) or not len(safe):
        return []
    beside = {name: model(safe)[safe.measured] for name, (model, _) in models.items()}
    found = []
    for attack in ("none", *ATTACKS):
        rows = plain if attack == "none" else bench.rows(attacked(chosen, attack, settings.seed))
        truth = np.concatenate([rows.fraud[rows.measured], safe.fraud[safe.measured]])
        scams = [one.fraud for one in rows.conversations]
        for name, (model, limit) in models.items():
            risk = model(rows)
            scores = np.concatenate([risk[rows.measured], beside[name]])
            found.append(
                Attacked(
                    attack, name, changed(plain, rows), average_precision(truth, scores), roc_auc(truth, scores),
                    recall_at_fpr(truth, scores, 0.01), measures.early(measures.along(rows, risk), scams, limit).ever,
                )
            )  # fmt: skip
    return found


def changed(plain: Rows, rows: Rows) -> float:
    """The share of the counterparty's lines in scams that an attack changed, after the service's own cleaning."""
    pairs = [
        (before.timeline.lines[-1].text, after.timeline.lines[-1].text)
        for (_, labelled, before), (_, _, after) in zip(plain.asked, rows.asked, strict=True)
        if labelled.truth > 0 and getattr(labelled.event, "sender", "") == "counterparty"
    ]
    return float(np.mean([before != after for before, after in pairs])) if pairs else 0.0


def evaluate(
    settings: Settings, folder: Path, source: str, precision: Precision, out: Path, data: Sequence[Path] = ()
) -> None:
    """Measure and write. data: folders of sets that nobody trained on. Raises BadInput, BadModel."""
    engine = Engine.load(source, precision, settings.threads)
    bench = Bench(settings, folder, engine)
    others = [one for sets in data for one in unseen(sets)]
    taught = bench.lesson()
    log.info("baselines learn from %d events of %d", len(taught.rows), taught.of)
    models = {engine.name: engine_model(engine)} | bench.rivals(taught)
    log.info("scoring %d events of test, %d of dev", len(bench.test), len(bench.dev))
    risks = {name: model(bench.test) for name, model in models.items()}
    chosen = {name: model(bench.dev) for name, model in models.items()}
    table = [bench.measured(name, risks[name], chosen[name]) for name in models]
    by_set = {
        name: measures.early_by_set(bench.test, risks[name], bench.dev, chosen[name], settings.false_alarms)
        for name in (engine.name, TF_IDF)
    }
    early = {one.name: one.early for one in table if one.early is not None}
    log.info("zero-shot")
    table += zero_shot(bench, source, models[engine.name])
    log.info("attacks")
    attacks = under_attack(bench, {name: (models[name], early[name].threshold) for name in (engine.name, TF_IDF)})
    ours, theirs, limit = models[engine.name], models[TF_IDF], early[engine.name].threshold
    beyond = [
        (one, transfer(one, engine.tokenizer, engine.tokens_max, ours, theirs, limit, settings.bootstrap_rounds))
        for one in others
    ]
    found = report.Findings(
        model=engine.name, dataset=bench.named(), capacity=settings.capacity, false_alarms=settings.false_alarms,
        taught=(len(taught.rows), taught.of),
        test=bench.test, dev=bench.dev, risks=risks, table=table, attacks=attacks, reach=settings.reach,
        reach_sources=settings.reach_sources, uncalibrated=(ZERO_SHOT, RULES), beside=TF_IDF, by_set=by_set,
        beyond=beyond,
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    report.draw(found, out)
    (out / "report.md").write_text(report.render(found), encoding="utf-8")
    numbers = measures.metrics(bench.test, risks[engine.name], table[0], found.dataset)
    (out / "metrics.json").write_text(numbers.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; what a person can mend is printed without a traceback and exits with 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--dataset", type=Path, required=True, help="folder of finetune.prepare")
    parser.add_argument("--release", default="starter", help="a release folder")
    parser.add_argument("--precision", default="int8", choices=get_args(Precision))
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder of sets that nobody trained on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(0)
    try:
        evaluate(
            read_settings(asked.settings), asked.dataset, asked.release, asked.precision, asked.out, asked.data
        )  # fmt: skip
    except FraudguardError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()

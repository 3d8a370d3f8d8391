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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune import baselines, dataset, measures, report
from finetune.attacks import ATTACKS, attacked
from finetune.baselines import BOOSTING, RULES, TF_IDF, ZERO_SHOT, BoostingRun, Model, TfIdfRun, ZeroShotRun
from finetune.dataset import LabelledTimeline
from finetune.measures import Attacked, Early, Measured
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
    train_rows_max: int
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


@dataclass(frozen=True, slots=True)
class Parts:
    """The dataset as its parts are used. timelines: of test."""

    timelines: list[LabelledTimeline]
    test: Rows
    dev: Rows
    train: Rows


def read_parts(settings: Settings, folder: Path, engine: Engine) -> Parts:
    """The parts, cut to the settings' sizes. Raises BadInput where there is nothing to measure or to choose by."""
    counter, tokens_max = engine.tokenizer, engine.tokens_max
    timelines = sample(dataset.read(folder, "test"), settings.test_events_max, settings.seed)
    test = Rows.of(timelines, counter, tokens_max)
    measures.check(test, str(folder / "test.parquet"))
    dev = Rows.of(sample(dataset.read(folder, "dev"), settings.dev_events_max, settings.seed), counter, tokens_max)
    measures.check(dev, str(folder / "dev.parquet"))
    taught = sample(dataset.read(folder, "train"), settings.train_events_max, settings.seed)
    train = Rows.of(taught, counter, tokens_max)
    measures.check(train, str(folder / "train.parquet"))
    return Parts(timelines, test, dev, train)


def rivals(settings: Settings, parts: Parts) -> dict[str, Model]:
    """The baselines that read every row."""
    log.info("baselines learn from %d events", len(parts.train))
    rows_max, seed = settings.train_rows_max, settings.seed
    return {
        TF_IDF: baselines.tf_idf(parts.train, parts.dev, settings.tf_idf, rows_max, seed),
        BOOSTING: baselines.boosting(parts.train, settings.boosting, rows_max, seed),
        RULES: baselines.keyword_rules(settings.rules),
    }


def zero_shot(settings: Settings, parts: Parts, engine: Engine, source: str, ours: Model) -> list[Measured]:
    """The bare base on a part of the timelines, and the release on the same: the forward pass has no cache there."""
    some = Rows.of(
        sample(parts.timelines, settings.zero_shot_events_max, settings.seed), engine.tokenizer, engine.tokens_max
    )
    if not some.fraud.any() or some.fraud.all():
        return []
    model = baselines.zero_shot(open_release(source), engine.tokens_max, settings.zero_shot)
    asked = {ZERO_SHOT: model, f"{engine.name}, same part": ours}
    return [
        Measured(name, len(some), measures.overall(some, one(some), settings.capacity), None)
        for name, one in asked.items()
    ]


def attack(
    settings: Settings, parts: Parts, engine: Engine, models: dict[str, Model], early: dict[str, Early]
) -> list[Attacked]:
    """Frauds rewritten against every harmless event as it was."""
    frauds = [one for one in parts.timelines if any(event.truth == 1.0 for event in one.events)]
    chosen = sample(frauds, settings.attack_events_max, settings.seed)
    plain = Rows.of(chosen, engine.tokenizer, engine.tokens_max)
    safe = Rows([one for one in parts.test.asked if not any(event.truth == 1.0 for event in one[0].events)])
    beside = {name: model(safe) for name, model in models.items()}
    found = []
    for name in ("none", *ATTACKS):
        rows = plain
        if name != "none":
            rows = Rows.of(attacked(chosen, name, settings.seed), engine.tokenizer, engine.tokens_max)
        changed = [before != after for before, after in zip(_lines(plain), _lines(rows), strict=True)]
        for model_name, model in models.items():
            risk = model(rows)
            truth = np.concatenate([rows.fraud[rows.measured], safe.fraud[safe.measured]])
            scores = np.concatenate([risk[rows.measured], beside[model_name][safe.measured]])
            caught = measures.early(rows, risk, early[model_name].threshold).ever
            found.append(
                Attacked(
                    name, model_name, float(np.mean(changed)) if changed else 0.0, average_precision(truth, scores),
                    roc_auc(truth, scores), recall_at_fpr(truth, scores, 0.01), caught,
                )
            )  # fmt: skip
    return found


def _lines(rows: Rows) -> list[str]:
    """The counterparty's newest lines in frauds."""
    return [
        request.timeline.lines[-1].text
        for (_, labelled, request), payment in zip(rows.asked, rows.payment, strict=True)
        if not payment and labelled.truth > 0 and getattr(labelled.event, "sender", "") == "counterparty"
    ]


def named(folder: Path) -> dict[str, str]:
    """The dataset's name, and the digest of what was measured."""
    card = folder / "card.json"
    name = json.loads(card.read_text(encoding="utf-8")).get("name") if card.is_file() else None
    digest = hashlib.sha256((folder / "test.parquet").read_bytes()).hexdigest()
    return {"name": str(name or folder.resolve().name), "digest": digest}


def evaluate(settings: Settings, folder: Path, source: str, precision: Precision, out: Path) -> None:
    """Measure and write. Raises BadInput, BadModel."""
    engine = Engine.load(source, precision, settings.threads)
    parts = read_parts(settings, folder, engine)
    ours = engine_model(engine)
    models = {engine.name: ours} | rivals(settings, parts)
    log.info("scoring %d events of test, %d of dev", len(parts.test), len(parts.dev))
    limits = measures.thresholds(
        parts.dev, {name: model(parts.dev) for name, model in models.items()}, settings.false_alarms, str(folder)
    )
    risks = {name: model(parts.test) for name, model in models.items()}
    early = {name: measures.early(parts.test, risk, limits[name]) for name, risk in risks.items()}
    table = [
        Measured(name, len(parts.test), measures.overall(parts.test, risk, settings.capacity), early[name])
        for name, risk in risks.items()
    ]
    log.info("zero-shot and attacks")
    table += zero_shot(settings, parts, engine, source, ours)
    attacks = attack(settings, parts, engine, {name: models[name] for name in (engine.name, TF_IDF)}, early)
    out.mkdir(parents=True, exist_ok=True)
    found = report.Findings(
        model=engine.name, dataset=named(folder), capacity=settings.capacity, false_alarms=settings.false_alarms,
        test=parts.test, dev=parts.dev, risks=risks, table=table, attacks=attacks, reach=settings.reach,
        reach_sources=settings.reach_sources, uncalibrated=(ZERO_SHOT, RULES), beside=TF_IDF,
    )  # fmt: skip
    numbers = measures.metrics(
        parts.test, risks[engine.name], settings.capacity, early[engine.name], engine.name, found.dataset
    )
    (out / "metrics.json").write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    report.draw(found, out)
    (out / "report.md").write_text(report.render(found), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; what a person can mend is printed without a traceback and exits with 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--dataset", type=Path, required=True, help="folder of finetune.prepare")
    parser.add_argument("--release", default="starter", help="a release folder")
    parser.add_argument("--precision", default="int8", choices=get_args(Precision))
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(0)
    try:
        evaluate(read_settings(options.settings), options.dataset, options.release, options.precision, options.out)
    except FraudguardError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()

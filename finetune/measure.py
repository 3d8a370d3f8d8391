"""Measures a release on held-out material through the service's own engine; prints the tables of docs/model-card.md.

    python -m finetune.measure finetune/starter.yaml --data DATA [--release starter] [--precision int8]

A dialogue's score is the risk at its last line; it alarms when any of its lines reaches the threshold.
"""

import argparse
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch

from finetune import data
from finetune.data import Life
from finetune.passages import snapshots
from finetune.recipe import Recipe, read_recipe
from finetune.train_starter import gather
from fraudguard.domain import ScoreRequest, Transaction
from fraudguard.engine.engine import Engine
from fraudguard.engine.precision import Precision
from fraudguard.evaluation import average_precision, calibration_error, recall_at_fpr, roc_auc, threshold_at_fpr
from fraudguard.features.registry import MODEL_FEATURES

ALARM = 0.5
REACHED = (0.3, 0.45, 0.5, 0.6, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class Scored:
    """One event with its truth and the risk that the release gave."""

    source: str
    account_id: str
    story: str | None
    fraud: bool
    payment: bool
    risk: float


def score(engine: Engine, lives: Sequence[Life], tokens_max: int) -> list[Scored]:
    """Every event of the lives, account by account."""
    entries = []
    for life, told, snapshot in snapshots(lives, engine.tokenizer, tokens_max):
        features = {name: snapshot.features[name] for name in MODEL_FEATURES}
        entries.append((life, told, ScoreRequest(snapshot.timeline, features)))
    entries.sort(key=lambda entry: entry[0].account_id)
    scored = []
    for start in range(0, len(entries), 512):
        chunk = entries[start : start + 512]
        scores = engine.score([request for _, _, request in chunk])
        for (life, told, _), given in zip(chunk, scores, strict=True):
            scored.append(
                Scored(
                    life.source,
                    life.account_id,
                    told.story,
                    told.truth > 0,
                    isinstance(told.event, Transaction),
                    given.risk,
                )
            )
    return scored


@dataclass(frozen=True, slots=True)
class Conversation:
    """The risks along one dialogue or plot, its own events only. fraud: whether each event is."""

    source: str
    fraud: bool
    risks: npt.NDArray[np.float64]
    frauds: npt.NDArray[np.bool_]


def conversations(scored: Iterable[Scored]) -> list[Conversation]:
    """The dialogues and plots among the events."""
    found: dict[tuple[str, str], list[Scored]] = {}
    for event in scored:
        if event.story is not None:
            found.setdefault((event.source, event.story + event.account_id), []).append(event)
    return [
        Conversation(
            source, any(event.fraud for event in events), np.array([event.risk for event in events]),
            np.array([event.fraud for event in events]),
        )
        for (source, _), events in found.items()
    ]  # fmt: skip


def dialogue_table(found: Sequence[Conversation]) -> list[str]:
    """Public scam dialogues against harmless ones of the same set."""
    lines = [
        "| set | scams / others | AUC, last line | AUC, first half | recall at 1 % FPR | alarms on others at 0.5 |",
        "|---|---|---|---|---|---|",
    ]
    for source in ("teleantifraud", "bothbosu"):
        of_source = [one for one in found if one.source == source]
        truth = np.array([one.fraud for one in of_source])
        if len(set(truth.tolist())) < 2:
            continue
        last = np.array([one.risks[-1] for one in of_source])
        half = np.array([one.risks[max(len(one.risks) // 2, 1) - 1] for one in of_source])
        alarms = np.mean([one.risks.max() >= ALARM for one in of_source if not one.fraud])
        lines.append(
            f"| {source} | {truth.sum()} / {(~truth).sum()} | {roc_auc(truth, last):.3f} "
            f"| {roc_auc(truth, half):.3f} | "
            f"{recall_at_fpr(truth, last, 0.01):.3f} | {alarms:.1%} |"
        )
    return lines


def story_table(scored: Sequence[Scored], found: Sequence[Conversation]) -> list[str]:
    """Held-out stories and the ordinary life around them, event by event."""
    events = [event for event in scored if event.source in ("story", "life")]
    truth, risk = np.array([event.fraud for event in events]), np.array([event.risk for event in events])
    paid = np.array([event.payment for event in events])
    limit = threshold_at_fpr(truth, risk, 0.01)
    plots = [one for one in found if one.source == "story"]
    frauds, harmless = [one for one in plots if one.fraud], [one for one in plots if not one.fraud]
    rows = {
        "events, frauds among them": f"{len(events)}, {truth.sum()}",
        "events: AUC / AP / recall at 1 % FPR": f"{roc_auc(truth, risk):.3f} / {average_precision(truth, risk):.3f} / "
        f"{recall_at_fpr(truth, risk, 0.01):.3f}",
        "payments: AUC / AP / recall at 1 % FPR": f"{roc_auc(truth[paid], risk[paid]):.3f} / "
        f"{average_precision(truth[paid], risk[paid]):.3f} / {recall_at_fpr(truth[paid], risk[paid], 0.01):.3f}",
        "expected calibration error": f"{calibration_error(truth, risk):.4f}",
    }
    for name, threshold in (("risk 0.5", ALARM), (f"risk {limit:.3f} (1 % of harmless events)", limit)):
        caught = [one for one in frauds if one.risks[one.frauds].max() >= threshold]
        at = [int(np.flatnonzero(one.risks[one.frauds] >= threshold)[0]) + 1 for one in caught]
        alarmed = np.mean([one.risks.max() >= threshold for one in harmless])
        median = f", median at fraud event {np.median(at):.0f}" if at else ""
        rows[f"frauds caught at {name}"] = f"{len(caught)} of {len(frauds)}{median}"
        rows[f"hard harmless stories alarmed at {name}"] = f"{alarmed:.1%} of {len(harmless)}"
    return ["| measure | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def reach_table(scored: Sequence[Scored]) -> list[str]:
    """How many harmless and fraudulent events of the stories reach a risk: what thresholds are chosen from."""
    lines = ["| risk | harmless payments | fraudulent | harmless messages | fraudulent |", "|---|---|---|---|---|"]
    events = [event for event in scored if event.source in ("story", "life")]
    kinds = [(payment, fraud) for payment in (True, False) for fraud in (False, True)]
    risks = [np.array([e.risk for e in events if (e.payment, e.fraud) == kind]) for kind in kinds]
    for risk in REACHED:
        lines.append(f"| {risk} | " + " | ".join(f"{np.mean(of_kind >= risk):.2%}" for of_kind in risks) + " |")
    return lines


def harmless_table(found: Sequence[Conversation]) -> list[str]:
    """How often harmless talk alarms, by set."""
    lines = ["| set | dialogues | alarms at 0.5 |", "|---|---|---|"]
    for source in sorted({one.source for one in found} - {"story", "teleantifraud", "bothbosu"}):
        alarms = [one.risks.max() >= ALARM for one in found if one.source == source]
        lines.append(f"| {source} | {len(alarms)} | {np.mean(alarms):.1%} |")
    return lines


def antifraud_table(engine: Engine, recipe: Recipe, folder: Path) -> list[str]:
    """zh_antifraud_sft, on which nothing was trained."""
    windows = data.dialogues(folder, "antifraud_sft")
    lives = list(data.dialogue_lives(windows, "test", recipe.seed, ordinary_events_max=0))
    scored = score(engine, lives, recipe.adapter.tokens_max)
    last = {event.story: event.risk for event in scored if event.story is not None}
    risk = np.array([last[f"{dialogue.source}/{dialogue.group}"] for dialogue in windows])
    truth = np.array([dialogue.fraud for dialogue in windows])
    hard = np.array([dialogue.source == "antifraud_sft" for dialogue in windows])
    return [
        "| windows | AUC | AUC without meetings |",
        "|---|---|---|",
        f"| {len(windows)} | {roc_auc(truth, risk):.3f} | {roc_auc(truth[hard], risk[hard]):.3f} |",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets")
    parser.add_argument("--release", default="starter", help="a release folder")
    parser.add_argument("--precision", default="int8", choices=get_args(Precision))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    recipe = read_recipe(options.recipe)
    torch.set_num_threads(recipe.threads)
    engine = Engine.load(options.release, options.precision, recipe.threads)
    scored = score(engine, gather(recipe, options.data, "test"), recipe.adapter.tokens_max)
    found = conversations(scored)
    for title, table in (
        ("Held-out stories", story_table(scored, found)),
        ("What reaches a risk", reach_table(scored)),
        ("Public dialogues, test parts", dialogue_table(found)),
        ("Harmless talk, held out", harmless_table(found)),
    ):
        print(f"\n### {title}: {engine.name}\n", *table, sep="\n")
    if (options.data / "zh_antifraud_sft").is_dir():
        table = antifraud_table(engine, recipe, options.data)
        print(f"\n### zh_antifraud_sft (never trained on): {engine.name}\n", *table, sep="\n")


if __name__ == "__main__":
    main()

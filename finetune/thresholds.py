"""Chooses a policy's thresholds for what people can look at: the lowest risks that stay within so many alerts a day.

    python -m finetune.thresholds finetune/thresholds.yaml --dataset DATASET --release RELEASE --out POLICY

Events of the dev split are weighed so that frauds have the share that the bank states, and the day as many events. An
alert is an event that reaches the threshold; several of one account come into one case, so cases are fewer. Rules bring
alerts of their own, which are not counted here. Prints what is expected, by dev and by test, which chose nothing.
"""

import argparse
import logging
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Self

import torch
import yaml
from pydantic import Field, model_validator

from finetune import dataset, scored
from finetune.command import command
from finetune.dataset import LabelledTimeline
from finetune.evaluate import engine_model
from finetune.recipe import Settings, read_settings
from finetune.rows import Mask
from fraudguard.decisions.policy import EventType, Policy, load_policy
from fraudguard.domain import Outcome
from fraudguard.engine.engine import Engine
from fraudguard.engine.precision import Precision
from fraudguard.errors import BadInput
from fraudguard.evaluation import Floats

log = logging.getLogger(__name__)

Thresholds = Mapping[EventType, Mapping[Outcome, float]]

LEVELS: Final = 10_000  # thresholds are multiples of its inverse
# Fewer harmless events than this above a threshold say little about how many there will be.
EVENTS_LEAST: Final = 10


class Capacity(Settings):
    """What is known of a kind of event, and how many alerts a day each outcome may bring."""

    events_day: Annotated[float, Field(gt=0)]
    base_rate: Annotated[float, Field(gt=0, lt=1)]
    alerts_day: dict[Outcome, Annotated[float, Field(gt=0)]]

    @model_validator(mode="after")
    def _falling(self) -> Self:
        if Outcome.APPROVE in self.alerts_day:
            raise ValueError("nobody is alerted to what is approved")
        stated = [self.alerts_day[outcome] for outcome in Outcome if outcome in self.alerts_day]
        if any(more <= fewer for more, fewer in pairwise(stated)):
            raise ValueError("a more severe outcome must have fewer alerts: block's are among review's")
        return self


class ThresholdsRun(Settings):
    """thresholds.yaml."""

    policy: Path
    precision: Precision
    threads: int
    transaction: Capacity
    message: Capacity

    @property
    def capacities(self) -> dict[EventType, Capacity]:
        """By kind of event."""
        return {"transaction": self.transaction, "message": self.message}


@dataclass(frozen=True, slots=True)
class Sample:
    """Risks of the events of one kind whose truth is known."""

    risk: Floats
    fraud: Mask


Samples = Mapping[EventType, Sample]


def samples(engine: Engine, timelines: Sequence[LabelledTimeline], tenant: str | None) -> Samples:
    """What the engine says of the timelines' events, by kind."""
    rows = scored.rows_of(engine, timelines, tenant)
    risk = engine_model(engine)(rows)
    kinds: dict[EventType, Mask] = {"transaction": rows.payment, "message": ~rows.payment}
    return {
        event_type: Sample(risk[kind & rows.measured], rows.fraud[kind & rows.measured])
        for event_type, kind in kinds.items()
    }


@dataclass(frozen=True, slots=True)
class Expected:
    """What reaches a threshold. harmless: how many events of the sample stand behind the alerts that are none."""

    alerts_day: float
    precision: float
    recall: float
    harmless: int


def expected(risk: Floats, fraud: Mask, capacity: Capacity, least: float) -> Expected:
    """At risks of `least` and more, where each event of the sample stands for its share of the day."""
    reached = risk >= least
    frauds, others = int((reached & fraud).sum()), int((reached & ~fraud).sum())
    recall = frauds / fraud.sum()
    fraud_day = capacity.events_day * capacity.base_rate * recall
    alerts = fraud_day + capacity.events_day * (1 - capacity.base_rate) * others / (~fraud).sum()
    return Expected(alerts, fraud_day / alerts if alerts else float("nan"), recall, others)


def choose(risk: Floats, fraud: Mask, capacity: Capacity) -> dict[Outcome, float]:
    """The lowest threshold of each outcome that stays within its alerts and above the milder outcome's.

    An outcome without such a threshold is left out. Raises BadInput unless frauds and others occur.
    """
    if fraud.all() or not fraud.any():
        raise BadInput("thresholds need frauds and others of each kind of event", hint="take a larger dataset")
    chosen: dict[Outcome, float] = {}
    above = 0
    for outcome, most in sorted(capacity.alerts_day.items(), key=lambda item: item[0].severity):
        candidates = range(above + 1, LEVELS + 1)
        few = bisect_left(
            candidates, True, key=lambda level: expected(risk, fraud, capacity, level / LEVELS).alerts_day <= most
        )
        if few < len(candidates):
            above = candidates[few]
            chosen[outcome] = above / LEVELS
    return chosen


def with_thresholds(source: str, thresholds: Thresholds, note: Sequence[str]) -> str:
    """The policy's text with other thresholds under `model` and all else as it is, comments too."""
    lines = source.splitlines(keepends=True)
    root = yaml.compose(source)
    assert isinstance(root, yaml.MappingNode)  # noqa: S101  it was read as a policy
    start = next(key.start_mark.line for key, _ in root.value if key.value == "model")
    stop = start + 1
    while stop < len(lines) and (not lines[stop].strip() or lines[stop].startswith(" ")):
        stop += 1
    while not lines[stop - 1].strip():
        stop -= 1
    while start and lines[start - 1].startswith("#"):
        start -= 1
    rows = [
        f"  {event_type}: {{{', '.join(f'{outcome}: {least:.4f}' for outcome, least in of_type.items())}}}\n"
        for event_type, of_type in thresholds.items()
    ]
    return "".join([*lines[:start], *(f"# {line}\n" for line in note), "model:\n", *rows, *lines[stop:]])


def table(splits: Mapping[str, Samples], run: ThresholdsRun, thresholds: Thresholds) -> list[str]:
    """What each threshold brings, by each split."""
    lines = [
        "| event | outcome | risk from | split | alerts a day | precision | recall | harmless events behind it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for event_type, of_type in thresholds.items():
        for outcome, least in of_type.items():
            for split, of_split in splits.items():
                sample = of_split[event_type]
                found = expected(sample.risk, sample.fraud, run.capacities[event_type], least)
                lines.append(
                    f"| {event_type} | {outcome} | {least:.4f} | {split} | {found.alerts_day:.1f} "
                    f"| {found.precision:.3f} | {found.recall:.3f} | {found.harmless} |"
                )
    return lines


def thresholds_of(of_split: Samples, run: ThresholdsRun) -> dict[EventType, dict[Outcome, float]]:
    """For each kind of event. Raises BadInput."""
    chosen: dict[EventType, dict[Outcome, float]] = {}
    for event_type, capacity in run.capacities.items():
        sample = of_split[event_type]
        chosen[event_type] = choose(sample.risk, sample.fraud, capacity)
        for outcome, least in chosen[event_type].items():
            behind = expected(sample.risk, sample.fraud, capacity, least).harmless
            if behind < EVENTS_LEAST:
                log.warning("%s, %s: %d harmless events reach it: too few to count on", event_type, outcome, behind)
        for outcome in capacity.alerts_day.keys() - chosen[event_type].keys():
            log.warning("%s: no threshold for %s stays within its alerts: it is left out", event_type, outcome)
    return chosen


def note(run: ThresholdsRun, model: str) -> list[str]:
    """What stands above the thresholds in the policy."""
    lines = ["The least risk at which the model alone asks for each outcome.", f"Chosen for {model}, so that a day of"]
    for event_type, of_type in run.capacities.items():
        most = ", ".join(f"{alerts:g} {outcome}" for outcome, alerts in of_type.alerts_day.items())
        lines.append(
            f"{of_type.events_day:g} {event_type}s, {of_type.base_rate:g} of them frauds, brings at most {most}."
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--release", required=True)
    parser.add_argument("--out", type=Path, required=True, help="the policy's file")
    parser.add_argument("--tenant", help="whose model it is; the release's own without it")
    options = parser.parse_args(arguments)
    with command():
        run = read_settings(options.recipe, ThresholdsRun)
        torch.set_num_threads(run.threads)
        source = load_policy(run.policy).source
        engine = Engine.load(options.release, run.precision, run.threads, scored.CACHE_BYTES)
        splits = {
            split: samples(engine, dataset.read(options.dataset, split), options.tenant) for split in ("dev", "test")
        }
        thresholds = thresholds_of(splits["dev"], run)
        text = with_thresholds(source, thresholds, note(run, engine.name))
        Policy.from_source(text, str(options.out))
        options.out.write_text(text, encoding="utf-8")
        print(*table(splits, run, thresholds), sep="\n")


if __name__ == "__main__":
    main()

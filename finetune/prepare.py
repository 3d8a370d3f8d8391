"""Prepares a DATASET (dataset.py): own stories and public dialogues, shared out to train, dev and test.

    python -m finetune.prepare finetune/prepare.yaml --data DATA --out DATASET

Deterministic. Sets that DATA lacks are left out, and said so.
"""

import argparse
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import yaml
from pydantic import BaseModel, ConfigDict

from finetune import data, dataset
from finetune.data import Dialogue, Life
from finetune.dataset import SPLITS, Split
from finetune.passages import labelled

log = logging.getLogger(__name__)


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CastSize(_Settings):
    """How large a cast of stories is."""

    accounts: int
    frauds: int


class Stories(_Settings):
    """The casts of each split."""

    train: CastSize
    dev: CastSize
    test: CastSize


class Amounts(_Settings):
    """How many dialogues of a set are taken at most."""

    scams: int = 0
    harmless: int = 0


class Settings(_Settings):
    """The whole of prepare.yaml. ordinary_weight: of events outside every plot and dialogue; 1 inside."""

    name: str
    seed: int
    ordinary_weight: float
    stories: Stories
    public: dict[str, Amounts]
    hold_out: list[str]
    sentences: dict[str, int]


def read_settings(path: Path) -> Settings:
    """The settings in the file. Raises pydantic's ValidationError."""
    return Settings.model_validate(yaml.safe_load(path.read_text()))


def public_dialogues(settings: Settings, folder: Path) -> list[Dialogue]:
    """What is drawn of the public sets, in the settings' order."""
    drawn: list[Dialogue] = []
    for source, amounts in settings.public.items():
        found = data.dialogues(folder, source)
        for fraud, most in ((True, amounts.scams), (False, amounts.harmless)):
            of_kind = [one for one in found if one.fraud == fraud]
            drawn += _sample(f"{settings.seed} {source} {fraud}", of_kind, most)
        if not found:
            log.warning("%s has no %s", folder, source)
    for source, most in settings.sentences.items():
        drawn += _sample(f"{settings.seed} {source}", data.sentences(folder, source), most)
    return [replace(one, part="test") if one.source in settings.hold_out else one for one in drawn]


def _sample(seed: str, dialogues: Sequence[Dialogue], most: int) -> list[Dialogue]:
    return Random(seed).sample(dialogues, min(len(dialogues), most))


def lives(settings: Settings, dialogues: Sequence[Dialogue], split: Split) -> list[Life]:
    """All lives of a split: stories, and the dialogues inside ordinary lives."""
    size: CastSize = getattr(settings.stories, split)
    told = data.story_lives(split, settings.seed, size.accounts, size.frauds)
    spoken = [one for one in dialogues if one.part == split]
    return told + data.dialogue_lives(spoken, split, settings.seed)


def prepare(settings: Settings, folder: Path, out: Path) -> None:
    """Write the DATASET."""
    dialogues = public_dialogues(settings, folder)
    for split in SPLITS:
        timelines = labelled(lives(settings, dialogues, split), settings.ordinary_weight)
        dataset.write(out, split, timelines)
        events = [one for timeline in timelines for one in timeline.events]
        frauds = sum(one.truth > 0 for one in events)
        log.info("%s: %d timelines, %d events, %d frauds", split, len(timelines), len(events), frauds)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the DATASET; what it holds is replaced")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    started = time.process_time()
    staging: Path = options.out.with_name(options.out.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    prepare(read_settings(options.settings), options.data, staging)
    shutil.rmtree(options.out, ignore_errors=True)
    staging.rename(options.out)
    log.info("%s after %.0f CPU seconds", options.out, time.process_time() - started)


if __name__ == "__main__":
    main()

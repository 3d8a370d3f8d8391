"""Prepares a DATASET (dataset.py) from own stories, public dialogues and the decisions of this installation.

    python -m finetune.prepare finetune/prepare.yaml --data DATA --out DATASET [--database URL]

Splits share no account, story, speaker or near-duplicate; it fails if they would. Deterministic. Sets that DATA lacks
are left out, and said so.
"""

import argparse
import asyncio
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from finetune import apart, card, data, decided, leakage
from finetune.data import MEASURING_ONLY, Dialogue
from finetune.dataset import SPLITS, LabelledTimeline, Split, Writer
from finetune.decided import DecisionsRun
from finetune.passages import labelled
from fraudguard.errors import BadInput, BadSettings, FraudguardError

log = logging.getLogger(__name__)

DIALOGUES_AT_ONCE = 2_000


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

    scams: int | Literal["all"] = 0
    harmless: int | Literal["all"] = 0


class Settings(_Settings):
    """The whole of prepare.yaml. ordinary_weight: of events outside every plot, dialogue and case; 1 inside.

    ordinary_events_max: of the account's life before a public dialogue. hold_out: sets that are in test alone.
    measuring_only: may hold sets whose licence keeps what is trained on them from being shipped.
    """

    name: str
    seed: int = 0
    measuring_only: bool = False
    ordinary_weight: float
    ordinary_events_max: int = 25
    stories: Stories | None = None
    public: dict[str, Amounts] = {}
    hold_out: list[str] = []
    sentences: dict[str, int] = {}
    decisions: DecisionsRun | None = None


def read_settings(path: Path) -> Settings:
    """The settings in the file. Raises BadSettings."""
    try:
        settings = Settings.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise BadSettings(f"cannot be read: {error.strerror}", path=str(path)) from error
    except yaml.YAMLError as error:
        raise BadSettings(f"is not YAML: {error}", path=str(path)) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadSettings(f"{where}: {first['msg']}", path=str(path), hint="see finetune/prepare.yaml") from error
    kept_back = sorted(set(MEASURING_ONLY) & settings.public.keys())
    if kept_back and not settings.measuring_only:
        raise BadSettings(
            f"public: {kept_back[0]} is for measuring only (GPL-3.0)", path=str(path),
            hint="leave it out, or say `measuring_only: true` and never ship what is trained on it",
        )  # fmt: skip
    unknown = sorted(set(settings.hold_out) - settings.public.keys())
    if unknown:
        raise BadSettings(f"hold_out: {unknown[0]} is not among `public`", path=str(path))
    return settings


# ------------------------------------------------------------ what goes in


def public_dialogues(settings: Settings, folder: Path) -> list[Dialogue]:
    """What is drawn of the public sets, in the settings' order."""
    drawn: list[Dialogue] = []
    for source, amounts in settings.public.items():
        found = data.dialogues(folder, source)
        if not found:
            log.warning("%s has no %s", folder, source)
        if source in settings.hold_out:
            found = [replace(one, part="test") for one in found]
        for fraud, most in ((True, amounts.scams), (False, amounts.harmless)):
            of_kind = [one for one in found if one.fraud == fraud]
            drawn += of_kind if most == "all" else _sample(f"{settings.seed} {source} {fraud}", of_kind, most)
    for source, most in settings.sentences.items():
        drawn += _sample(f"{settings.seed} {source}", data.sentences(folder, source), most)
    return drawn


def _sample(seed: str, dialogues: Sequence[Dialogue], most: int) -> list[Dialogue]:
    return Random(seed).sample(dialogues, min(len(dialogues), most))


def made(settings: Settings, dialogues: Sequence[Dialogue], split: Split) -> Iterator[LabelledTimeline]:
    """The timelines of a split that no database is needed for: stories, and dialogues inside ordinary lives."""
    if settings.stories is not None:
        size: CastSize = getattr(settings.stories, split)
        yield from labelled(
            data.story_lives(split, settings.seed, size.accounts, size.frauds), settings.ordinary_weight
        )
    spoken = [one for one in dialogues if one.part == split]
    lives = data.dialogue_lives(spoken, split, settings.seed, settings.ordinary_events_max)
    while some := labelled(islice(lives, DIALOGUES_AT_ONCE), settings.ordinary_weight):
        yield from some


# ------------------------------------------------------------ the whole


def prepare(settings: Settings, folder: Path, out: Path, database: str | None) -> None:
    """Write the DATASET. Raises BadInput where its splits share what they must not."""
    if (settings.decisions is None) != (database is None):
        raise BadSettings(
            "decisions are read where the settings have a section `decisions` and a database is named",
            path="--database", hint="give both or neither; see finetune/decisions.yaml",
        )  # fmt: skip
    dialogues = public_dialogues(settings, folder)
    with Writer(out) as writer:
        for split in SPLITS:
            for timeline in made(settings, dialogues, split):
                writer.add(split, timeline)
            log.info("%s: stories and dialogues are written", split)
        if settings.decisions is not None and database is not None:
            asyncio.run(decided.write(writer, settings.decisions, settings.ordinary_weight, database))
    removed = apart.remove_twins(out)
    log.info("near-duplicates: %s pairs, %s timelines removed", dict(removed.pairs), _sizes(removed))
    shared = apart.shared(out) | {"speakers": _shared_speakers(dialogues)}
    for kind, names in shared.items():
        if names:
            raise BadInput(f"{len(names)} {kind} are in more than one split, such as {names[0]}", path=str(out))
    counts = card.counted(out)
    card.write(
        out,
        {
            "format": 1, "name": settings.name, "measuring_only": settings.measuring_only, **counts,
            "licences": card.licences(list(counts["by_source"])),
            "leakage": {
                "shared": {kind: len(names) for kind, names in shared.items()},
                "twins": {
                    "pairs": dict(removed.pairs),
                    "removed": {split: removed.by_source(split) for split in SPLITS},
                },
                **leakage.report(out),
            },
            "settings": settings.model_dump(mode="json"),
        },
    )  # fmt: skip


def _sizes(removed: apart.Removed) -> dict[str, int]:
    return {split: len(names) for split, names in removed.timelines.items()}


def _shared_speakers(dialogues: Sequence[Dialogue]) -> list[str]:
    parts: dict[str, set[str]] = {}
    for one in dialogues:
        if one.speaker is not None:
            parts.setdefault(f"{one.source}/{one.speaker}", set()).add(one.part)
    return sorted(speaker for speaker, of in parts.items() if len(of) > 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the DATASET; what it holds is replaced")
    parser.add_argument("--database", help="URL of the PostgreSQL whose decisions are read")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    started = time.process_time()
    staging: Path = options.out.with_name(options.out.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        prepare(read_settings(options.settings), options.data, staging, options.database)
    except FraudguardError as error:
        parser.exit(1, f"{error}\n")
    shutil.rmtree(options.out, ignore_errors=True)
    staging.rename(options.out)
    log.info("%s after %.0f CPU seconds", options.out, time.process_time() - started)


if __name__ == "__main__":
    main()

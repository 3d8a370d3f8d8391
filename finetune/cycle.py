"""One turn of continual learning, in one command: what analysts decided becomes a challenger, in shadow.

    python -m finetune.cycle finetune/cycle.yaml --database URL --rehearsal DATASET --out FOLDER [--resume]

New decisions with their labels -> FOLDER/new, a dataset -> LoRA from the champion, on them and on a rehearsal of what
it learned from -> both measured through the serving engine, on the fixed set (DATASET's test) and on the newest
decisions -> FOLDER/release, sealed and registered as challenger; FOLDER/cycle.md says what it is worth. Promoting it is
a person's decision, and the gate's. Knows the order of these steps; each is its own module's work.
"""

import argparse
import asyncio
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Annotated

import torch
from peft import PeftModel
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from finetune import adapt, calibrate_activations, dataset, evaluate, prepare
from finetune.dataset import LabelledTimeline, passages
from finetune.decided import DecisionsRun
from finetune.lexicon import write
from finetune.lora import calibrate_on, copy_base
from finetune.measures import metrics
from finetune.publish import staged
from finetune.recipe import AdapterRun, HeadRun, read_settings
from finetune.run_folder import RunFolder
from fraudguard.config import Settings
from fraudguard.decisions.repository import connect
from fraudguard.engine.engine import Engine
from fraudguard.engine.head import FusionHead, load_head
from fraudguard.engine.loader import attach, load_base
from fraudguard.engine.release import STARTER, Manifest, Release, open_release, seal
from fraudguard.engine.release_metrics import read_metrics
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadInput, FraudguardError
from fraudguard.measures import Metrics
from fraudguard.models import Releasing

log = logging.getLogger(__name__)

ACTOR = "finetune.cycle"


class CycleRecipe(BaseModel):
    """The whole of cycle.yaml, which says what each is."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seed: int
    threads: Annotated[int, Field(ge=1)]
    bfloat16: bool
    save_every: Annotated[int, Field(ge=1)]
    evaluate: Path
    ordinary_weight: float
    decisions: DecisionsRun
    rehearsal_timelines: Annotated[int, Field(ge=1)]
    new_weight: Annotated[float, Field(gt=0)]
    epochs: Annotated[int, Field(ge=1)]
    batch_tokens: Annotated[int, Field(ge=1)]
    row_tokens: Annotated[int, Field(ge=1)]
    rate: Annotated[float, Field(gt=0)]
    head_rate: Annotated[float, Field(gt=0)]
    number_dropout: Annotated[float, Field(ge=0, lt=1)]


def champion_folder(settings: Settings) -> Path:
    """Where the champion's release is: the registry's, or the one that workers begin with. Raises BadInput."""

    async def registered() -> str | None:
        async with connect(settings.database_url.get_secret_value()) as repository:
            head = await repository.models.head()
            return head.champion.location if head and head.champion else None

    found = asyncio.run(registered()) or settings.model
    if found == "off":
        raise BadInput("there is no champion to begin with", path="FRAUDGUARD_MODEL", hint="name a release")
    return STARTER if found == "starter" else Path(found)


Parts = tuple[Sequence[LabelledTimeline], Sequence[LabelledTimeline], Sequence[LabelledTimeline]]


def gather(recipe: CycleRecipe, new: Path, rehearsal: Path) -> Parts:
    """Timelines of the old to keep, new ones to learn from, and of both to choose and calibrate by."""
    rng = Random(recipe.seed)
    old = dataset.read(rehearsal, "train")
    old = rng.sample(old, min(len(old), recipe.rehearsal_timelines))
    train = [_weighed(timeline, recipe.new_weight) for timeline in dataset.read(new, "train")]
    if not any(event.truth == 1.0 for timeline in train for event in timeline.events):
        raise BadInput(
            "no new fraud has been confirmed", path=str(new), hint="decisions.since and labels say what is new"
        )
    return old, train, [*dataset.read(rehearsal, "dev"), *dataset.read(new, "dev")]


def _weighed(timeline: LabelledTimeline, factor: float) -> LabelledTimeline:
    return replace(timeline, events=tuple(replace(event, weight=event.weight * factor) for event in timeline.events))


def remember(champion: PeftModel, head: FusionHead, old: Sequence[adapt.Sample]) -> None:
    """Let what the champion says of the old be what is learned of it again: the labels of so few timelines would be
    learned by heart, at the cost of all others (learning without forgetting, arXiv 1606.09282)."""
    said = torch.from_numpy(adapt.read(champion, head, old)).float().sigmoid()
    for sample, risks in zip(old, torch.split(said, [len(sample.ends) for sample in old]), strict=True):
        sample.truth = risks


def train(
    recipe: CycleRecipe,
    champion: Release,
    folder: Path,
    parts: Parts,
    out: Path,
    run: RunFolder,
) -> None:
    """Go on with the champion's adapter and head; the parts of a release, calibrated, but for release.json."""
    tokenizer, base, head = LineTokenizer(champion.base), load_base(champion.base), load_head(champion.head)
    base.name_or_path = ""  # or peft writes this machine's path into the adapter
    old, new, held_out = (
        adapt.samples(passages(part, tokenizer, head.spec.tokens_max), tokenizer, champion.prefix) for part in parts
    )
    if head.lexicon is not None:
        # The champion's stays: one of so few words would forget what all of its training taught.
        write(head.lexicon, [*old, *new, *held_out])
    if champion.adapter is None:
        raise BadInput("the champion has no adapter to go on with", path=str(folder), hint="make one: finetune.lora")
    adapted = attach(base, champion.adapter)
    remember(adapted, head, old)
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad = "lora_" in name
    settings = AdapterRun(
        rank=1, alpha=1, dropout=0.0, epochs=recipe.epochs, batch_tokens=recipe.batch_tokens,
        row_tokens=recipe.row_tokens, rate=recipe.rate, tokens_max=head.spec.tokens_max, prefix=champion.prefix,
    )  # fmt: skip
    of_head = HeadRun(
        width=head.spec.width, bins=1, dropout=0.0, number_dropout=recipe.number_dropout, rate=recipe.head_rate
    )
    adapt.train(adapted, head, [*old, *new], held_out, settings, of_head, recipe.seed, recipe.bfloat16, run)
    calibrate_on(adapted, head, held_out)
    # Those of other precisions were the champion's.
    head.spec = head.spec.model_copy(update={"calibrations": {}})
    adapt.save_adapter(adapted, out / "adapter")
    head.save(out / "head")


def write_release(champion: Release, folder: Path, version: str, new: Path, out: Path) -> None:
    """What a release holds beside adapter and head: the champion's base, and where this one comes from."""
    manifest = Manifest.model_validate_json((folder / "release.json").read_bytes())
    if (folder / manifest.base).is_dir():
        copy_base(champion.base, out / "base")
        manifest = manifest.model_copy(update={"base": "base"})
    made = f"Made by finetune/cycle.py from {champion.name}@{champion.version}."
    changes = {"version": version, "description": made, "adapter": "adapter", "head": "head", "metrics": None}
    changes |= {"activations": None, "data": "data.json"}
    shutil.copyfile(new / "card.json", out / "data.json")
    if manifest.licence:
        shutil.copyfile(folder / manifest.licence, out / manifest.licence)
    (out / "release.json").write_text(manifest.model_copy(update=changes).model_dump_json(indent=1) + "\n")
    if champion.activations is not None:
        calibrate_activations.calibrate(out)


def measured(recipe: CycleRecipe, release: Path, folder: Path) -> Metrics:
    """A release on DATASET's test, through the serving engine."""
    settings = evaluate.read_settings(recipe.evaluate)
    engine = Engine.load(release, "int8", recipe.threads)
    bench = evaluate.Bench(settings, folder, engine)
    model = evaluate.engine_model(engine)
    risk = model(bench.test)
    return metrics(bench.test, risk, bench.measured(engine.name, risk, model(bench.dev)), bench.named())


def report(sets: dict[str, tuple[Metrics, Metrics]]) -> str:
    """cycle.md: champion and challenger, on each set."""
    lines = ["# Champion and challenger", ""]
    for title, (old, new) in sets.items():
        lines += [f"## {title}: {old.events} events, {old.frauds} frauds", ""]
        lines += [f"| measure | {old.model} | {new.model} |", "|---|---|---|"]
        before, after = (json.loads(one.measures.model_dump_json(by_alias=True)) for one in (old, new))
        lines += [f"| {name} | {_cell(before[name])} | {_cell(after[name])} |" for name in before]
        for kind in old.by_typology:
            pair = [one.by_typology[kind].average_precision for one in (old, new) if kind in one.by_typology]
            lines.append(f"| average precision: {kind} | " + " | ".join(map(_cell, pair)) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def cycle(recipe: CycleRecipe, settings: Settings, rehearsal: Path, out: Path, version: str, *, resume: bool) -> None:
    """The whole turn. Raises BadInput, BadModel, Conflict, StoreUnavailable."""
    folder = champion_folder(settings)
    champion, new = open_release(folder), out / "new"
    log.info("champion: %s@%s", champion.name, champion.version)
    run = RunFolder(out / "run", recipe.save_every, resume=resume)
    if not (resume and (new / "card.json").is_file()):  # a run that goes on must see what it saw
        wanted = prepare.Settings(
            name=f"{champion.name}@{version}", ordinary_weight=recipe.ordinary_weight, decisions=recipe.decisions
        )
        shutil.rmtree(new, ignore_errors=True)
        prepare.prepare(wanted, new, new, settings.database_url.get_secret_value())
    before = read_metrics(champion)
    fixed_before = before or measured(recipe, folder, rehearsal)
    release = out / "release"
    with staged(release) as staging:
        train(recipe, champion, folder, gather(recipe, new, rehearsal), staging, run)
        write_release(champion, folder, version, new, staging)
        fixed = measured(recipe, staging, rehearsal)
        if fixed.dataset.digest != fixed_before.dataset.digest:
            hint = "give the DATASET that it was measured on"
            raise BadInput("the champion was measured on another fixed set", path=str(rehearsal), hint=hint)
        newest = measured(recipe, folder, new), measured(recipe, staging, new)
        manifest = json.loads((staging / "release.json").read_text()) | {"metrics": "metrics.json"}
        (staging / "release.json").write_text(json.dumps(manifest, indent=1) + "\n")
        (staging / "metrics.json").write_text(fixed.model_dump_json(indent=1, exclude_none=True) + "\n")
        seal(staging)
    (out / "cycle.md").write_text(report({"Newest decisions": newest, "Fixed set": (fixed_before, fixed)}))
    run.finish()

    async def register() -> str:
        async with connect(settings.database_url.get_secret_value()) as repository:
            releasing = Releasing(settings, repository)
            return (await releasing.shadow(release.resolve(), ACTOR, f"cycle of {version}", datetime.now(UTC))).model.id

    log.info("challenger in shadow: %s; %s says what it is worth", asyncio.run(register()), out / "cycle.md")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; what a person can mend is printed without a traceback and exits with 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--database", required=True, help="URL of the PostgreSQL that holds decisions and registry")
    parser.add_argument("--rehearsal", type=Path, required=True, help="DATASET that the champion was measured on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--version", default=f"{datetime.now(UTC):%Y.%m.%d}", help="of the challenger; today's date")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run was ended")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        recipe = read_settings(options.recipe, CycleRecipe)
        torch.set_num_threads(recipe.threads)
        settings = Settings(database_url=SecretStr(options.database))
        cycle(recipe, settings, options.rehearsal, options.out, options.version, resume=options.resume)
    except FraudguardError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()

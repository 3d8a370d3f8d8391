"""The starter's recipe, start to end: tokenizer, base, adapter and head, calibration, release.

    python -m finetune.train_starter finetune/starter.yaml --data DATA --out OUT

Deterministic for one machine and one version of torch. Sets that DATA lacks are left out, and said so.
"""

import argparse
import json
import logging
import shutil
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from random import Random

import numpy as np
import torch

from finetune import adapt, calibrate_activations, data
from finetune.data import Dialogue, Life, Part
from finetune.dataset import LabelledEvent, LabelledTimeline, Passage, passages
from finetune.language_model import new_base, pretrain, save_tokenizer, train_tokenizer
from finetune.passages import rough_lines, snapshots
from finetune.recipe import Recipe, read_recipe
from fraudguard.engine.head_spec import as_numbers
from fraudguard.engine.loader import load_base
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.features.registry import MODEL_FEATURES

log = logging.getLogger(__name__)


def gather(recipe: Recipe, folder: Path, part: Part) -> list[Life]:
    """All lives of a part: stories, dialogues inside ordinary lives, and single sentences for training."""
    size = {"train": recipe.stories.train, "dev": recipe.stories.dev, "test": recipe.stories.test}[part]
    lives = data.story_lives(part, recipe.seed, size.accounts, size.frauds)
    spoken: list[Dialogue] = []
    by_source: dict[str, list[Dialogue]] = {}
    for dialogue in data.dialogues(folder, part):
        by_source.setdefault(dialogue.source, []).append(dialogue)
    for source, all_of_it in by_source.items():
        most = recipe.dialogues_max.get(source, len(all_of_it))
        if part != "train":
            most = min(most, 60)
        spoken += Random(f"{recipe.seed} {source}").sample(all_of_it, min(len(all_of_it), most))
    if part == "train":
        spoken += data.utterances(folder)
    if not spoken:
        log.warning("%s has none of the public sets: training on own stories alone", folder)
    return lives + data.dialogue_lives(spoken, recipe.seed)


def labelled(
    lives: Sequence[Life], encoder: LineTokenizer, tokens_max: int, ordinary_weight: float
) -> list[LabelledTimeline]:
    """The lives as timelines with a label at every event. ordinary_weight: of events outside every plot."""
    events: dict[str, list[LabelledEvent]] = {life.account_id: [] for life in lives}
    for life, told, snapshot in snapshots(lives, encoder, tokens_max):
        numbers, weight = as_numbers(MODEL_FEATURES, [snapshot.features])[0], 1.0 if told.story else ordinary_weight
        label = LabelledEvent(told.event, numbers, told.truth, weight, told.typology, told.story, "own")
        events[life.account_id].append(label)
    return [LabelledTimeline(life.source, life.account_id, tuple(events[life.account_id])) for life in lives]


def thinned(made: Sequence[Passage], recipe: Recipe) -> list[Passage]:
    """Every passage with a plot or dialogue in it, and a share of the others."""
    rng = Random(recipe.seed)
    return [
        passage
        for passage in made
        if any(reading.label.story for reading in passage.readings) or rng.random() < recipe.stories.ordinary_share
    ]


def make_tokenizer(recipe: Recipe, folder: Path, lives: Sequence[Life], base: Path) -> LineTokenizer:
    """A tokenizer for both languages, timelines and harmless text, stored in `base`."""
    lines = rough_lines(lives[:: recipe.tokenizer.lives_step])
    save_tokenizer(train_tokenizer(chain(lines, data.texts(folder)), recipe.tokenizer), base)
    return LineTokenizer(base)


def make_base(recipe: Recipe, folder: Path, made: Sequence[Passage], encoder: LineTokenizer, base: Path) -> None:
    """A language model of timelines and harmless text, stored as a float16 checkpoint."""
    documents = [[token for line in passage.lines for token in encoder.encode(line)] for passage in made]
    documents += [list(encoder.encode(text)) for text in data.texts(folder)]
    log.info("language model: %d documents, %d tokens", len(documents), sum(map(len, documents)))
    model = new_base(recipe.base, encoder.vocabulary)
    loss = pretrain(model, documents, recipe.language_model, recipe.seed, recipe.bfloat16)
    log.info("language model: final loss %.3f", loss)
    model.to(torch.float16).save_pretrained(base)


def make_adapter(
    recipe: Recipe, made: Sequence[Passage], dev: Sequence[Passage], encoder: LineTokenizer, out: Path
) -> None:
    """Adapter and head, trained and calibrated, beside the base in `out`."""
    train_samples = adapt.samples(made, encoder, recipe.adapter.prefix)
    dev_samples = adapt.samples(dev, encoder, recipe.adapter.prefix)
    log.info(
        "adapter: %d passages, %d tokens, %d readings; dev: %d passages", len(made),
        sum(len(sample.ids) for sample in train_samples), sum(len(sample.ends) for sample in train_samples), len(dev),
    )  # fmt: skip
    # What is trained on top is what will be loaded: the base as rounded to float16.
    base = load_base(out / "base")
    base.name_or_path = ""  # or peft writes this machine's path into the adapter
    adapted = adapt.new_adapter(base, recipe.adapter)
    head = adapt.new_head(train_samples, recipe.base.hidden_size, recipe.head, recipe.adapter.tokens_max)
    adapt.train(adapted, head, train_samples, dev_samples, recipe.adapter, recipe.head, recipe.seed, recipe.bfloat16)
    truth = np.concatenate([sample.truth.numpy() for sample in dev_samples]) == 1.0
    adapt.calibrate(head, adapt.read(adapted, head, dev_samples), truth)
    adapted.save_pretrained(out / "adapter", save_embedding_layers=False)
    (out / "adapter" / "README.md").unlink(missing_ok=True)  # peft's empty model card; ours is docs/model-card.md
    head.save(out / "head")


def write_manifest(recipe: Recipe, out: Path) -> None:
    """release.json, last of all: without it the folder is no release."""
    manifest = {
        "format": 1, "name": recipe.name, "version": recipe.version,
        "description": "Made by finetune/train_starter.py; see docs/model-card.md.",
        "base": "base", "adapter": "adapter", "head": "head", "prefix": recipe.adapter.prefix,
    }  # fmt: skip
    (out / "release.json").write_text(json.dumps(manifest, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the release; what it holds is replaced")
    parser.add_argument("--base", type=Path, help="take tokenizer and base from this folder instead of training them")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = read_recipe(options.recipe)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    started = time.process_time()
    lives = gather(recipe, options.data, "train")
    staging: Path = options.out.with_name(options.out.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    if options.base:
        shutil.copytree(options.base, staging / "base")
        encoder = LineTokenizer(staging / "base")
    else:
        encoder = make_tokenizer(recipe, options.data, lives, staging / "base")
    tokens_max, weight = recipe.adapter.tokens_max, recipe.adapter.ordinary_weight
    made = thinned(passages(labelled(lives, encoder, tokens_max, weight), encoder, tokens_max), recipe)
    log.info("data after %.0f CPU seconds", time.process_time() - started)
    if not options.base:
        make_base(recipe, options.data, made, encoder, staging / "base")
    log.info("base after %.0f CPU seconds", time.process_time() - started)
    held_out = labelled(gather(recipe, options.data, "dev"), encoder, tokens_max, 1.0)
    dev = passages(held_out, encoder, tokens_max)
    make_adapter(recipe, made, dev, encoder, staging)
    write_manifest(recipe, staging)
    calibrate_activations.calibrate(staging)
    shutil.rmtree(options.out, ignore_errors=True)
    staging.rename(options.out)
    for file in options.out.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes files that only their owner reads
    log.info("%s after %.0f CPU seconds", options.out, time.process_time() - started)


if __name__ == "__main__":
    main()

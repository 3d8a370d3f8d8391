"""The starter's recipe, start to end: tokenizer, base, adapter with lexicon and head, calibration, release.

    python -m finetune.train_starter finetune/starter.yaml --dataset DATASET --corpus CORPUS --out RELEASE

Deterministic for one machine and one version of torch. Knows a DATASET (finetune.prepare) and a CORPUS
(finetune.corpus); each part is its own module's work.
"""

import argparse
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
import torch

from finetune import adapt, calibrate_activations, dataset
from finetune.dataset import Passage, passages
from finetune.language_model import new_base, save_tokenizer, train_tokenizer
from finetune.lexicon import give_lexicon
from finetune.pretrain import pretrain, read_corpus, start_embeddings
from finetune.publish import staged, write_manifest
from finetune.recipe import Recipe, read_recipe
from finetune.run_folder import RunFolder
from fraudguard.engine.loader import load_base
from fraudguard.engine.tokenizer import LineTokenizer

log = logging.getLogger(__name__)


def corpus_lines(corpus: Path) -> Iterator[str]:
    """Every line of the corpus."""
    for file in sorted(corpus.glob("??.parquet")):
        yield from chain.from_iterable(pq.read_table(file, columns=["lines"])["lines"].to_pylist())


def make_base(recipe: Recipe, corpus: Path, base: Path) -> None:
    """Tokenizer and base, stored in `base` as a float16 checkpoint."""
    save_tokenizer(train_tokenizer(corpus_lines(corpus), recipe.tokenizer), base)
    encoder = LineTokenizer(base)
    model = new_base(recipe.base, encoder.vocabulary)
    start_embeddings(model, encoder.texts(), recipe.threads)
    losses = pretrain(model, read_corpus(corpus, encoder), recipe.pretrain, recipe.seed, bfloat16=recipe.bfloat16)
    log.info("base: final losses %s", {name: round(loss, 4) for name, loss in losses.items()})
    model.to(torch.float16).save_pretrained(base)


def thinned(made: Sequence[Passage], recipe: Recipe) -> list[Passage]:
    """Every passage with a plot or dialogue in it, and a share of the others."""
    rng = Random(recipe.seed)
    return [
        passage
        for passage in made
        if any(reading.label.story for reading in passage.readings) or rng.random() < recipe.ordinary_share
    ]


def make_adapter(
    recipe: Recipe, made: Sequence[Passage], dev: Sequence[Passage], out: Path, folder: RunFolder | None
) -> None:
    """Adapter, lexicon and head, trained and calibrated, beside the base in `out`."""
    encoder = LineTokenizer(out / "base")
    train, held_out = (adapt.samples(part, encoder, recipe.adapter.prefix) for part in (made, dev))
    log.info(
        "adapter: %d passages, %d tokens, %d readings; dev: %d passages", len(train),
        sum(len(sample.ids) for sample in train), sum(len(sample.ends) for sample in train), len(held_out),
    )  # fmt: skip
    lexicon = give_lexicon(train, held_out, recipe.lexicon, recipe.seed)
    # What is trained on top is what will be loaded: the base as rounded to float16.
    base = load_base(out / "base")
    base.name_or_path = ""  # or peft writes this machine's path into the adapter
    adapted = adapt.new_adapter(base, recipe.adapter)
    head = adapt.new_head(train, recipe.base.hidden_size, recipe.head, recipe.adapter.tokens_max)
    head.lexicon = lexicon
    bfloat16 = recipe.bfloat16
    adapt.train(adapted, head, train, held_out, recipe.adapter, recipe.head, recipe.seed, bfloat16, folder)
    truth = np.concatenate([sample.truth.numpy() for sample in held_out])
    certain = (truth == 0) | (truth == 1)
    adapt.calibrate(head, adapt.read(adapted, head, held_out)[certain], truth[certain] == 1)
    adapt.save_adapter(adapted, out / "adapter")
    head.save(out / "head")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--dataset", type=Path, required=True, help="folder that finetune.prepare made")
    parser.add_argument("--corpus", type=Path, help="folder that finetune.corpus made")
    parser.add_argument("--base", type=Path, help="in its place: take tokenizer and base from this folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the release; what it holds is replaced")
    parser.add_argument("--run", type=Path, help="store the adapter's run here, to go on with it if it is killed")
    options = parser.parse_args(arguments)
    if (options.corpus is None) == (options.base is None):
        parser.error("give either --corpus or --base")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = read_recipe(options.recipe)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    started = time.process_time()
    folder = RunFolder(options.run, save_every=100, resume=True) if options.run else None
    with staged(options.out) as staging:
        if options.base:
            shutil.copytree(options.base, staging / "base")
        else:
            make_base(recipe, options.corpus, staging / "base")
        log.info("base after %.0f CPU seconds", time.process_time() - started)
        encoder, tokens_max = LineTokenizer(staging / "base"), recipe.adapter.tokens_max
        made, dev = (passages(dataset.read(options.dataset, part), encoder, tokens_max) for part in ("train", "dev"))
        make_adapter(recipe, thinned(made, recipe), dev, staging, folder)
        write_manifest(
            staging, name=recipe.name, version=recipe.version, prefix=recipe.adapter.prefix,
            description="Made by finetune/train_starter.py; see docs/model-card.md.",
        )  # fmt: skip
        calibrate_activations.calibrate(staging)
    log.info("%s after %.0f CPU seconds", options.out, time.process_time() - started)


if __name__ == "__main__":
    main()

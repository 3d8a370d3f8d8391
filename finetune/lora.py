"""Any Qwen2.5, DeepSeek-R1-Distill-Qwen or starter base to a release: LoRA, DoRA or QLoRA, and the head.

    python -m finetune.lora finetune/lora.yaml --dataset DATASET --base BASE --out RELEASE [--resume]

BASE: a checkpoint's folder, which is copied into the release, or a hub id owner/name@revision, which the release then
names by its commit. While it trains, RELEASE.run/ holds a checkpoint, the losses and their picture; killed at any
point, --resume goes on from there. Deterministic for one machine's CPU and one version of torch.
"""

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import torch
from peft import PeftModel

from finetune import adapt, dataset
from finetune.adapt import Sample
from finetune.command import command
from finetune.dataset import Passage
from finetune.four_bit import in_four_bits
from finetune.lexicon import give_lexicon
from finetune.publish import staged, write_manifest
from finetune.recipe import LoraRecipe, Machine, read_settings
from finetune.run_folder import RunFolder
from fraudguard.engine.head import FusionHead
from fraudguard.engine.loader import attach, check_fit, load_base
from fraudguard.engine.precision import Hardware
from fraudguard.engine.release import fetch
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadInput, BadSettings

log = logging.getLogger(__name__)

COPIED = ("*.json", "*.safetensors", "*.txt", "LICENSE*", "NOTICE*")


def find_base(reference: str) -> tuple[Path, str]:
    """The checkpoint's folder, and what release.json will call it. Raises BadModel."""
    folder = Path(reference)
    if folder.is_dir():
        return folder, "base"
    path = fetch(reference)
    return path, f"{reference.partition('@')[0]}@{path.name}"


def read_samples(folder: Path, recipe: LoraRecipe, tokenizer: LineTokenizer) -> tuple[list[Sample], list[Sample]]:
    """DATASET's train and dev as the model reads them. Raises BadInput."""
    run = recipe.adapter
    learned, held_out = (
        dataset.passages(dataset.read(folder, split), tokenizer, run.tokens_max) for split in ("train", "dev")
    )
    learned = thinned(learned, recipe.ordinary_share, recipe.seed)
    train, dev = (adapt.samples(part, tokenizer, run.prefix) for part in (learned, held_out))
    for split, made in (("train", train), ("dev", dev)):
        readings, tokens = sum(len(sample.ends) for sample in made), sum(len(sample.ids) for sample in made)
        log.info("%s: %d passages, %d tokens, %d readings", split, len(made), tokens, readings)
        if not made:
            raise BadInput("holds no event", path=str(folder / f"{split}.parquet"), hint="prepare it again")
    return train, dev


def thinned(made: Sequence[Passage], share: float, seed: int) -> list[Passage]:
    """Every passage with a plot, dialogue or case in it, and a share of the others."""
    rng = Random(seed)
    return [
        passage for passage in made if any(reading.label.story for reading in passage.readings) or rng.random() < share
    ]


def hardware(recipe: Machine) -> tuple[torch.device, bool]:
    """Where to train, and whether to multiply in bfloat16. Raises BadSettings."""
    there = torch.cuda.is_available()
    if recipe.device == "cuda" and not there:
        raise BadSettings("there is no GPU", path="device", hint="auto or cpu")
    device: Literal["cpu", "cuda"] = "cuda" if there and recipe.device != "cpu" else "cpu"
    native = Hardware.of(device).bf16
    if recipe.bfloat16 is True and not native:
        log.warning("bfloat16 is emulated on this %s, which is slower than float32", device)
    return torch.device(device), device == "cuda" and native if recipe.bfloat16 == "auto" else recipe.bfloat16


def fine_tune(recipe: LoraRecipe, folder: Path, base: str, out: Path, run: RunFolder) -> None:
    """DATASET and BASE to RELEASE. Raises BadInput."""
    device, bfloat16 = hardware(recipe)
    # On a GPU the frozen weights stay in bfloat16, as they are published; the adapter and the head are float32.
    dtype = torch.bfloat16 if bfloat16 and device.type == "cuda" else torch.float32
    checkpoint, reference = find_base(base)
    tokenizer = LineTokenizer(checkpoint)
    model = load_base(checkpoint, dtype)
    prefix = tokenizer.encode_prefix(recipe.adapter.prefix)
    check_fit(model.config, tokenizer, len(prefix), recipe.adapter.tokens_max, checkpoint)
    train, dev = read_samples(folder, recipe, tokenizer)
    lexicon = None if recipe.lexicon is None else give_lexicon(train, dev, recipe.lexicon, recipe.seed)
    if recipe.four_bit:
        model = in_four_bits(model, torch.bfloat16 if bfloat16 else torch.float32, device)
    torch.manual_seed(recipe.seed)
    adapted = adapt.new_adapter(model, recipe.adapter).to(device)
    head = adapt.new_head(train, model.config.hidden_size, recipe.head, recipe.adapter.tokens_max).to(device)
    head.lexicon = lexicon
    best = adapt.train(adapted, head, train, dev, recipe.adapter, recipe.head, recipe.seed, bfloat16, run)
    log.info("mean average precision on dev %.4f", best)
    with staged(out) as staging:
        adapt.save_adapter(adapted, staging / "adapter")
        del model, adapted
        # What will be served is the base as it is published, not in four bits: the risks are those of that.
        served = attach(load_base(checkpoint, dtype), staging / "adapter").to(device)
        calibrate_on(served, head, dev)
        head.save(staging / "head")
        name = checkpoint.resolve().name if reference == "base" else reference
        if reference == "base":
            copy_base(checkpoint, staging / "base")
        write_manifest(
            staging, name=recipe.name, version=recipe.version, description=f"Made by finetune/lora.py from {name}.",
            prefix=recipe.adapter.prefix, base=reference,
        )  # fmt: skip
    run.finish()


def calibrate_on(served: PeftModel, head: FusionHead, dev: Sequence[Sample]) -> None:
    """Give the head the sigmoid that fits the readings of dev whose truth is certain. Raises BadInput."""
    kept, truth = adapt.certain(dev), np.concatenate([sample.truth.numpy() for sample in dev])
    try:
        adapt.calibrate(head, adapt.read(served, head, dev)[kept], truth[kept] == 1.0)
    except ValueError as error:
        raise BadInput(f"cannot be calibrated on dev: {error}", hint="more of dev, or longer training") from error


def copy_base(checkpoint: Path, to: Path) -> None:
    """The checkpoint's files that a release needs, and the texts that must go with them."""
    to.mkdir()
    for pattern in COPIED:
        for file in checkpoint.glob(pattern):
            shutil.copyfile(file, to / file.name)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--dataset", type=Path, required=True, help="folder of finetune.prepare")
    parser.add_argument("--base", required=True, help="a checkpoint's folder, or owner/name@revision")
    parser.add_argument("--out", type=Path, required=True, help="folder of the release; what it holds is replaced")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run was ended")
    options = parser.parse_args(arguments)
    with command():
        recipe = read_settings(options.recipe, LoraRecipe)
        torch.set_num_threads(recipe.threads)
        run = RunFolder(options.out.with_name(options.out.name + ".run"), recipe.save_every, resume=options.resume)
        fine_tune(recipe, options.dataset, options.base, options.out, run)


if __name__ == "__main__":
    main()

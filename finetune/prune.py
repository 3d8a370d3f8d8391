"""Makes a release smaller, layers or width, and lets it learn again what it lost.

    python -m finetune.prune finetune/prune_width.yaml --dataset DATASET --release RELEASE --out OUT

The release's adapter is merged; what did least on passages of train goes (finetune/pruning.py); an adapter on what is
left, and the head, learn to say what RELEASE says. OUT's base is a plain Qwen2 checkpoint in float16.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Annotated

import torch
from peft import PeftModel
from pydantic import Field
from torch import Tensor
from transformers import Qwen2ForCausalLM

from finetune import adapt, calibrate_activations
from finetune.command import command
from finetune.derived import alone, derived
from finetune.lora import hardware
from finetune.pruning import Shares, choose, importance, pruned, pruned_head
from finetune.recipe import read_settings
from finetune.recovery import (
    ChangedRecipe,
    Material,
    all_weights,
    finish,
    material,
    parser,
    recover,
    run_of,
    save_adapter,
    save_base,
    with_words,
)
from finetune.run_folder import RunFolder
from fraudguard.engine.head import FusionHead, load_head
from fraudguard.engine.loader import load_base, load_merged
from fraudguard.engine.release import Release, open_release
from fraudguard.engine.tokenizer import LineTokenizer

log = logging.getLogger(__name__)


class PruneRecipe(ChangedRecipe):
    """The whole of a prune_*.yaml. passages: of train, on which is seen what each part does."""

    passages: Annotated[int, Field(ge=1)]
    shares: Shares


def smaller(
    release: Release, head: FusionHead, data: Material, recipe: PruneRecipe, device: torch.device
) -> tuple[Qwen2ForCausalLM, FusionHead]:
    """What is left of the release's merged model, and the head that reads it."""
    model = load_merged(release).to(device)
    order = Random(recipe.seed).sample(range(len(data.taught)), min(recipe.passages, len(data.taught)))
    read: list[Tensor] = [data.taught[number].ids for number in order]
    found = importance(model, read)
    kept = choose(found, model.config.num_key_value_heads, recipe.shares)
    made = pruned(model, kept, found)
    shapes = (model.config, made.config)
    for name in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "hidden_size"):
        log.info("%s: %d -> %d", name, *(getattr(config, name) for config in shapes))
    return made, pruned_head(head, kept.hidden)


def prune(release: Release, dataset: Path, recipe: PruneRecipe, out: Path, folder: RunFolder) -> None:
    """RELEASE and DATASET to OUT. Raises BadInput, BadModel."""
    head, tokenizer = load_head(alone(release).head), LineTokenizer(release.base)
    device, _ = hardware(recipe)
    data = material(dataset, release, tokenizer, head.spec.tokens_max, release.prefix, device)
    with_words(head, data)
    base, head = smaller(release, head, data, recipe, device)
    parts = ("base", "adapter", "head")
    with_adapter = recipe.recovery.trained == "adapter"
    changes = {
        "base": "base", "adapter": "adapter" if with_adapter else None, "head": "head",
        "description": f"Made by finetune/prune.py from {release.name}@{release.version}.",
    }  # fmt: skip
    with derived(release, out, recipe.suffix, parts, **changes) as made:
        save_base(base, release.base, made / "base")
        # What is trained on top is what will be loaded: the base as rounded to float16.
        left = load_base(made / "base")
        left.name_or_path = ""  # or peft writes this machine's path into the adapter
        run = recipe.recovery.adapter_run(head.spec.tokens_max)
        model: PeftModel = adapt.new_adapter(left, run) if with_adapter else all_weights(left)
        recover(model, head, data, recipe, recipe.head_run(head), folder)
        if with_adapter:
            save_adapter(model, made / "adapter")
        else:
            save_base(model, release.base, made / "base")
        head.save(made / "head")
        if release.activations is not None:
            calibrate_activations.calibrate(made)
        finish(made, data.timelines, recipe)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    asked = parser(__doc__)
    asked.add_argument("--release", required=True)
    options = asked.parse_args(arguments)
    with command():
        recipe = read_settings(options.recipe, PruneRecipe)
        torch.set_num_threads(recipe.threads)
        with run_of(options.out, recipe, options.resume) as folder:
            prune(open_release(options.release), options.dataset, recipe, options.out, folder)


if __name__ == "__main__":
    main()

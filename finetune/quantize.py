"""Trains a release for the precision in which it is served, so that rounding costs it less.

    python -m finetune.quantize finetune/quantize.yaml --dataset DATASET --release RELEASE --out OUT

Every product rounds as the engine's will, while the release learns to say what it says in float32: its adapter, which
the engine merges before it rounds, or all its weights. OUT is a release like any other: the engine rounds it when it is
loaded, to what was trained; ranges of activations are those that it was trained with.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from pydantic import TypeAdapter

from finetune.command import command
from finetune.derived import alone, derived
from finetune.fake_quantization import fake_quantized
from finetune.lora import hardware
from finetune.recipe import read_settings
from finetune.recovery import (
    ChangedRecipe,
    finish,
    material,
    parser,
    recover,
    run_of,
    save_adapter,
    save_base,
    trainable,
    with_words,
)
from finetune.run_folder import RunFolder
from fraudguard.engine.head import load_head
from fraudguard.engine.precision import Precision
from fraudguard.engine.quantization import SCHEMES, Range
from fraudguard.engine.release import Release, open_release
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadInput

_RANGES = TypeAdapter(dict[str, Range])


class QuantizeRecipe(ChangedRecipe):
    """The whole of quantize.yaml. precision: the one to train for."""

    precision: Precision


def ranges_for(release: Release, precision: Precision) -> Mapping[str, Range] | None:
    """What each layer was seen to read, where the precision needs it. Raises BadInput."""
    if precision not in SCHEMES or not SCHEMES[precision].calibrated:
        return None
    if release.activations is None:
        hint = "python -m finetune.calibrate_activations RELEASE takes them"
        raise BadInput("the release has no ranges of activations", path=str(release.folder), hint=hint)
    return _RANGES.validate_json(release.activations.read_bytes())


def quantize(release: Release, dataset: Path, recipe: QuantizeRecipe, out: Path, folder: RunFolder) -> None:
    """RELEASE and DATASET to OUT. Raises BadInput, BadModel."""
    ranges = ranges_for(alone(release), recipe.precision)
    head, tokenizer = load_head(release.head), LineTokenizer(release.base)
    data = material(dataset, release, tokenizer, head.spec.tokens_max, release.prefix, hardware(recipe)[0])
    with_words(head, data)
    model = trainable(release, recipe.recovery, head.spec.tokens_max)
    with fake_quantized(model, recipe.precision, ranges):
        recover(model, head, data, recipe, recipe.head_run(head), folder)
    changes = {"description": f"Made by finetune/quantize.py from {release.name}@{release.version}."}
    if isinstance(model, PeftModel):
        with derived(
            release, out, recipe.suffix, ("adapter", "head"), adapter="adapter", head="head", **changes
        ) as made:
            save_adapter(model, made / "adapter")
            head.save(made / "head")
            finish(made, data.timelines, recipe)
        return
    parts = {"base": "base", "adapter": None, "head": "head"}
    with derived(release, out, recipe.suffix, ("base", "adapter", "head"), **parts, **changes) as made:
        save_base(model, release.base, made / "base")
        head.save(made / "head")
        finish(made, data.timelines, recipe)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    asked = parser(__doc__)
    asked.add_argument("--release", required=True)
    options = asked.parse_args(arguments)
    with command():
        recipe = read_settings(options.recipe, QuantizeRecipe)
        torch.set_num_threads(recipe.threads)
        with run_of(options.out, recipe, options.resume) as folder:
            quantize(open_release(options.release), options.dataset, recipe, options.out, folder)


if __name__ == "__main__":
    main()

"""A small release that says what a larger one says.

    python -m finetune.distil finetune/distil.yaml --dataset DATASET --teacher RELEASE --base BASE --out OUT

The student is any Qwen2 checkpoint with its own tokenizer, with a new head. It learns the teacher's verdicts at every
event, and by a projection what the teacher's last hidden state is there; the labels too, as far as the recipe wants.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from peft import PeftModel
from pydantic import Field

from finetune import adapt
from finetune.command import command
from finetune.lexicon import give_lexicon
from finetune.lora import copy_base, hardware
from finetune.publish import staged, write_manifest
from finetune.recipe import HeadRun, LexiconRun, read_settings
from finetune.recovery import (
    RecoveryRecipe,
    all_weights,
    finish,
    material,
    parser,
    recover,
    run_of,
    save_adapter,
    save_base,
)
from finetune.run_folder import RunFolder
from fraudguard.engine.loader import check_fit, load_base
from fraudguard.engine.release import Release, open_release
from fraudguard.engine.tokenizer import LineTokenizer


class DistilRecipe(RecoveryRecipe):
    """The whole of distil.yaml. tokens_max, prefix: the student's. lexicon: null for none."""

    name: str
    version: str
    tokens_max: Annotated[int, Field(ge=1)]
    prefix: str
    head: HeadRun
    lexicon: LexiconRun | None


def distil(
    teacher: Release, checkpoint: Path, dataset: Path, recipe: DistilRecipe, out: Path, folder: RunFolder
) -> None:
    """A teacher, BASE and DATASET to OUT. Raises BadInput, BadModel."""
    base, tokenizer = load_base(checkpoint), LineTokenizer(checkpoint)
    prefix = recipe.prefix
    check_fit(base.config, tokenizer, len(tokenizer.encode_prefix(prefix)), recipe.tokens_max, checkpoint)
    data = material(dataset, teacher, tokenizer, recipe.tokens_max, prefix, hardware(recipe)[0])
    base.name_or_path = ""  # or peft writes this machine's path into the adapter
    with_adapter = recipe.recovery.trained == "adapter"
    run = recipe.recovery.adapter_run(recipe.tokens_max)
    model: PeftModel = adapt.new_adapter(base, run) if with_adapter else all_weights(base)
    lexicon = None if recipe.lexicon is None else give_lexicon(data.taught, data.dev, recipe.lexicon, recipe.seed)
    head = adapt.new_head(data.taught, base.config.hidden_size, recipe.head, recipe.tokens_max)
    head.lexicon = lexicon
    recover(model, head, data, recipe, recipe.head, folder)
    with staged(out) as made:
        if with_adapter:
            copy_base(checkpoint, made / "base")
            save_adapter(model, made / "adapter")
        else:
            save_base(model, checkpoint, made / "base")
        head.save(made / "head")
        write_manifest(
            made, name=recipe.name, version=recipe.version, prefix=prefix, adapter="adapter" if with_adapter else None,
            description=f"Made by finetune/distil.py from {teacher.name}@{teacher.version}.",
        )  # fmt: skip
        finish(made, data.timelines, recipe)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    asked = parser(__doc__)
    asked.add_argument("--teacher", required=True, help="a release")
    asked.add_argument("--base", type=Path, required=True, help="the student: a Qwen2 checkpoint with its tokenizer")
    options = asked.parse_args(arguments)
    with command():
        recipe = read_settings(options.recipe, DistilRecipe)
        torch.set_num_threads(recipe.threads)
        with run_of(options.out, recipe, options.resume) as folder:
            distil(open_release(options.teacher), options.base, options.dataset, recipe, options.out, folder)


if __name__ == "__main__":
    main()

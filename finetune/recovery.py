"""Training that takes a changed model back to what a teacher says: what quantize, prune and distil have in common.

Knows a model, its head, a teacher and a dataset; what was changed is the recipes' business.
"""

import argparse
import copy
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from peft import PeftModel
from pydantic import Field
from transformers import Qwen2ForCausalLM

from finetune import adapt, calibrate_activations, dataset, lexicon
from finetune.adapt import Sample
from finetune.calibrate import FitRun, fit, write
from finetune.dataset import LabelledTimeline
from finetune.lessons import LessonsRun, TaughtSample, TeachersLesson, teach
from finetune.lora import hardware
from finetune.recipe import AdapterRun, HeadRun, Machine, Settings
from finetune.run_folder import RunFolder
from fraudguard.engine.head import FusionHead
from fraudguard.engine.loader import attach, load_base, load_merged
from fraudguard.engine.release import Release, open_release
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadInput

log = logging.getLogger(__name__)

Trained = Literal["adapter", "weights"]


class Recovery(Settings):
    """trained: an adapter beside the weights, or all weights; the head always is. rank, alpha: of a new adapter.

    The others are as in lora.yaml. lessons: see finetune/lessons.py.
    """

    trained: Trained
    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    epochs: Annotated[int, Field(ge=1)]
    batch_tokens: Annotated[int, Field(ge=1)]
    row_tokens: Annotated[int | None, Field(ge=1)] = None
    rate: Annotated[float, Field(gt=0)]
    typology_share: Annotated[float, Field(ge=0)] = 0.1
    evaluations: Annotated[int, Field(ge=1)] = 1
    lessons: LessonsRun

    def adapter_run(self, tokens_max: int) -> AdapterRun:
        """As finetune/adapt.py takes it."""
        return AdapterRun(
            rank=self.rank, alpha=self.alpha, dropout=0.0, epochs=self.epochs, batch_tokens=self.batch_tokens,
            row_tokens=self.row_tokens, rate=self.rate, typology_share=self.typology_share,
            evaluations=self.evaluations, tokens_max=tokens_max,
        )  # fmt: skip


class RecoveryRecipe(Machine):
    """What quantize.yaml, prune_*.yaml and distil.yaml have in common. calibrate: what is made is, at its end.

    save_every: steps.
    """

    save_every: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    calibrate: FitRun
    recovery: Recovery


class ChangedRecipe(RecoveryRecipe):
    """Of a release made from another one. suffix: of its version. head_rate: the rate of the head, which goes on."""

    suffix: str
    head_rate: Annotated[float, Field(gt=0)]

    def head_run(self, head: FusionHead) -> HeadRun:
        """As finetune/adapt.py takes it: nothing is hidden from a head that a teacher sees whole."""
        return HeadRun(width=head.spec.width, bins=0, dropout=0.0, number_dropout=0.0, rate=self.head_rate)


@dataclass(frozen=True, slots=True)
class Material:
    """What a student reads. taught: train, with the teacher's lessons. timelines: of dev."""

    taught: Sequence[TaughtSample]
    dev: Sequence[Sample]
    timelines: Sequence[LabelledTimeline]


def material(
    folder: Path, teacher: Release, tokenizer: LineTokenizer, tokens_max: int, prefix: str, device: torch.device
) -> Material:
    """DATASET's train and dev as the student reads them, train with what the teacher says of it. Raises BadInput."""
    train, dev = (dataset.read(folder, split) for split in ("train", "dev"))
    of_train, of_dev = (
        adapt.samples(dataset.passages(part, tokenizer, tokens_max), tokenizer, prefix) for part in (train, dev)
    )
    if not of_train:
        raise BadInput("holds no event", path=str(folder / "train.parquet"), hint="prepare it again")
    log.info("the teacher reads %d passages", len(of_train))
    return Material(teach(teacher, train, of_train, device), of_dev, dev)


def with_words(head: FusionHead, data: Material) -> None:
    """What the head's lexicon says into the samples' numbers, if it has one."""
    if head.lexicon is not None:
        lexicon.write(head.lexicon, [*data.taught, *data.dev])


def recover(
    model: PeftModel, head: FusionHead, data: Material, recipe: RecoveryRecipe, head_run: HeadRun, folder: RunFolder
) -> None:
    """Train model and head in place to the lessons; what of the model requires a gradient. Raises BadInput."""
    run = recipe.recovery
    device, bfloat16 = hardware(recipe)
    model.to(device)
    head.to(device)
    torch.manual_seed(recipe.seed)
    taught, size = data.taught, head.spec.hidden_size
    lesson = TeachersLesson(run.lessons, taught, size, run.typology_share, recipe.model_dump_json()).to(device)
    of_adapter = run.adapter_run(head.spec.tokens_max)
    best = adapt.train(model, head, taught, data.dev, of_adapter, head_run, recipe.seed, bfloat16, folder, lesson)
    log.info("mean average precision on dev %.4f", best)
    model.to("cpu")
    head.to("cpu")


def trainable(release: Release, run: Recovery, tokens_max: int) -> PeftModel:
    """The release's model with gradients where `run.trained` says: its adapter, or all weights with that merged in."""
    if run.trained == "weights":
        return all_weights(load_merged(release))
    base = load_base(release.base)
    base.name_or_path = ""  # or peft writes this machine's path into the adapter
    if release.adapter is None:
        return adapt.new_adapter(base, run.adapter_run(tokens_max))
    adapted = attach(base, release.adapter)
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return adapted


def all_weights(model: Qwen2ForCausalLM) -> Qwen2ForCausalLM:
    """The model with gradients at every weight of its body; the vocabulary's own head is not used."""
    model.requires_grad_(False)
    model.model.requires_grad_(True)
    return model


def save_base(model: Qwen2ForCausalLM, tokenizer: Path, folder: Path) -> None:
    """A plain Qwen2 checkpoint in float16, as transformers and the engine load it, with the tokenizer's files."""
    copy.deepcopy(model).to(torch.float16).save_pretrained(folder)  # in place it would round the rotations too
    for file in tokenizer.glob("tokenizer*"):
        shutil.copyfile(file, folder / file.name)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """The adapter, without what is ours already."""
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


def finish(folder: Path, dev: Sequence[LabelledTimeline], recipe: RecoveryRecipe) -> None:
    """Calibrate the new release, and take the ranges of its activations if the old one had them."""
    release = open_release(folder)
    if release.activations is not None:
        calibrate_activations.calibrate(folder)
    write(release.head, fit(release, dev, recipe.calibrate, recipe.seed))


@contextmanager
def run_of(out: Path, recipe: RecoveryRecipe, resume: bool) -> Iterator[RunFolder]:
    """OUT.run/, where the training is stored, and taken up again with `resume`, until OUT is made. Raises BadInput."""
    if out.exists():
        raise BadInput("there is something already", path=str(out), hint="name a folder that is not there yet")
    folder = RunFolder(out.with_name(out.name + ".run"), recipe.save_every, resume=resume)
    yield folder
    folder.finish()


def parser(description: str | None) -> argparse.ArgumentParser:
    """What the recipes' command lines have in common."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("recipe", type=Path)
    made.add_argument("--dataset", type=Path, required=True)
    made.add_argument("--out", type=Path, required=True, help="folder of the new release")
    made.add_argument("--resume", action="store_true", help="go on where an earlier run was ended")
    return made

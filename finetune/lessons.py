"""What a teacher says of every event, and how far a student is from it: for distilling, and for getting back what
rounding or pruning took.

Knows logits and hidden states; a lesson is worth what it says about the data, so nothing here reads labels. Readings are
matched by their order, event by event: teacher and student may cut and tokenize the same timelines differently.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2ForCausalLM

from finetune.adapt import TYPOLOGIES, Sample, samples, verdicts
from finetune.dataset import LabelledTimeline, passages
from finetune.packing import filled
from fraudguard.engine.head import FusionHead, load_head
from fraudguard.engine.loader import attach, load_base
from fraudguard.engine.release import Release
from fraudguard.engine.tokenizer import open_tokenizer
from fraudguard.errors import BadInput

ROW_TOKENS = 2048


class LessonsRun(BaseModel):
    """labels, logits, hidden: what each error weighs: the labels', that to the teacher's verdicts, to its hidden states.

    temperature: by which both sides' logits are divided, so that small chances are learned too (arXiv 1503.02531).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: Annotated[float, Field(ge=0)]
    logits: Annotated[float, Field(ge=0)]
    hidden: Annotated[float, Field(ge=0)]
    temperature: Annotated[float, Field(gt=0)] = 1.0


@dataclass(slots=True)
class TaughtSample(Sample):
    """With the teacher's risk logit [reading], typology logits [reading, typology], and hidden states [reading, size]."""

    logits: Tensor
    kinds: Tensor
    states: Tensor


@dataclass(frozen=True, slots=True)
class Teacher:
    """A release as it was trained: adapter beside the base, in float32."""

    release: Release
    model: Qwen2ForCausalLM
    head: FusionHead

    @classmethod
    def of(cls, release: Release, device: str = "cpu") -> "Teacher":
        """Raises BadModel, and BadInput where it knows other typologies."""
        head, model = load_head(release.head), load_base(release.base)
        if release.adapter is not None:
            model = attach(model, release.adapter).merge_and_unload()
        missing = sorted(set(TYPOLOGIES) - set(head.spec.typologies))
        if missing:
            raise BadInput(f"the teacher knows no {missing[0]}", path=str(release.head), hint="train it again")
        return cls(release, model.eval().to(device), head.to(device))

    @torch.no_grad()
    def teach(self, timelines: Sequence[LabelledTimeline], given: Sequence[Sample]) -> list[TaughtSample]:
        """The samples, which are of the same timelines, with what the teacher says at each reading."""
        tokenizer = open_tokenizer(self.release.base)
        own = samples(passages(timelines, tokenizer, self.head.spec.tokens_max), tokenizer, self.release.prefix)
        order = [self.head.spec.typologies.index(typology) for typology in TYPOLOGIES]
        said: list[tuple[Tensor, Tensor, Tensor]] = []
        for row in filled(range(len(own)), [len(sample.ids) for sample in own], ROW_TOKENS):
            states, logits, kinds = verdicts(self.model, self.head, [own[number] for number in row])
            said.append((logits.cpu(), kinds[:, order].cpu(), states.cpu()))
        logits, kinds, states = (torch.cat(parts) for parts in zip(*said, strict=True))
        counts = [len(sample.ends) for sample in given]
        parts = zip(logits.split(counts), kinds.split(counts), states.split(counts), strict=True)
        return [
            TaughtSample(*(getattr(sample, one.name) for one in fields(Sample)), *part)
            for sample, part in zip(given, parts, strict=True)
        ]

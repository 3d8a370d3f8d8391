"""What a teacher says of every event, and how far a student is from it.

For distilling, and for getting back what rounding or pruning took. Knows logits and hidden states, reads no label.
Readings are matched by their order, event by event: teacher and student may cut and tokenize timelines differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from finetune.adapt import TYPOLOGIES, Sample, samples, states_at, verdicts
from finetune.dataset import LabelledTimeline, passages
from finetune.lexicon import write
from finetune.packing import filled
from finetune.recipe import Settings
from fraudguard.engine.head import load_head
from fraudguard.engine.loader import load_merged
from fraudguard.engine.release import Release
from fraudguard.engine.tokenizer import open_tokenizer
from fraudguard.errors import BadInput

ROW_TOKENS = 2048


class LessonsRun(Settings):
    """What errors weigh: labels, the labels'; logits, that to the teacher's verdicts; hidden, to its hidden states.

    temperature: by which both sides' logits are divided, so that small chances are learned too (arXiv 1503.02531).
    """

    labels: Annotated[float, Field(ge=0)]
    logits: Annotated[float, Field(ge=0)]
    hidden: Annotated[float, Field(ge=0)]
    temperature: Annotated[float, Field(gt=0)] = 1.0


@dataclass(slots=True)
class TaughtSample(Sample):
    """With the teacher's risk logit [reading], typology logits [reading, kind], hidden states [reading, size]."""

    logits: Tensor
    kinds: Tensor
    states: Tensor


@torch.no_grad()
def teach(
    release: Release, timelines: Sequence[LabelledTimeline], given: Sequence[Sample], device: torch.device
) -> list[TaughtSample]:
    """The samples, which are of the same timelines, with what the release says at each reading, in float32.

    Raises BadModel, and BadInput where it knows other typologies.
    """
    head, model = load_head(release.head), load_merged(release)
    missing = sorted(set(TYPOLOGIES) - set(head.spec.typologies))
    if missing:
        raise BadInput(f"the teacher knows no {missing[0]}", path=str(release.head), hint="train it again")
    order = [head.spec.typologies.index(typology) for typology in TYPOLOGIES]
    model.eval().to(device)
    head.to(device)
    tokenizer = open_tokenizer(release.base)
    own = samples(passages(timelines, tokenizer, head.spec.tokens_max), tokenizer, release.prefix)
    if head.lexicon is not None:
        write(head.lexicon, own)
    said: list[tuple[Tensor, Tensor, Tensor]] = []
    for numbers in filled(range(len(own)), [len(sample.ids) for sample in own], ROW_TOKENS):
        row = [own[number] for number in numbers]
        states = states_at(model, row)
        logits, kinds = verdicts(head, states, row)
        said.append((logits.cpu(), kinds[:, order].cpu(), states.cpu()))
    counts = [len(sample.ends) for sample in given]
    parts = zip(*(torch.split(torch.cat(part), counts) for part in zip(*said, strict=True)), strict=True)
    return [
        TaughtSample(*(getattr(sample, one.name) for one in fields(Sample)), *part)
        for sample, part in zip(given, parts, strict=True)
    ]


class TeachersLesson(nn.Module):
    """How far a student is from what its teacher said, beside the labels' loss: a Lesson of finetune/adapt.py.

    Hidden states are compared by their cosine with the teacher's, from which their mean is taken: all of them have much
    in common, which would count for more than what tells events apart. A projection takes the student's there.
    """

    mean: Tensor

    def __init__(
        self, run: LessonsRun, taught: Sequence[TaughtSample], hidden_size: int, typology_share: float, recipe: str
    ) -> None:
        """hidden_size: the student's. typology_share: of the error in typologies, beside that in the risk.

        recipe: the whole of it, in words.
        """
        super().__init__()
        self._run, self._share, self._recipe = run, typology_share, recipe
        states = torch.cat([sample.states for sample in taught])
        self.register_buffer("mean", states.mean(0))
        self.projection: nn.Linear | None = None
        if run.hidden:
            self.projection = nn.Linear(hidden_size, states.shape[1])
            if hidden_size == states.shape[1]:  # a student made of its teacher begins where it is
                nn.init.eye_(self.projection.weight)
                self.projection.bias.data.copy_(-states.mean(0))

    def extra_repr(self) -> str:
        """Names the run: one that was interrupted is taken up with the same lesson only."""
        return self._recipe

    def forward(
        self, loss: Tensor, row: Sequence[TaughtSample], states: Tensor, logits: Tensor, kinds: Tensor, total: float
    ) -> Tensor:
        """As finetune/adapt.py's Lesson says."""
        run, device = self._run, states.device
        share = torch.cat([sample.weight for sample in row]).to(device) / total
        loss = run.labels * loss
        if run.logits:
            wanted, wanted_kinds = (
                torch.cat([getattr(sample, name) for sample in row]).to(device) / run.temperature
                for name in ("logits", "kinds")
            )
            error = F.binary_cross_entropy_with_logits(logits / run.temperature, wanted.sigmoid(), reduction="none")
            of_kinds = F.cross_entropy(kinds / run.temperature, wanted_kinds.softmax(1), reduction="none")
            # Its square keeps the gradients' size (arXiv 1503.02531).
            loss = loss + run.logits * run.temperature**2 * ((error + self._share * of_kinds) * share).sum()
        if self.projection is not None:
            centred = torch.cat([sample.states for sample in row]).to(device) - self.mean
            apart = 1 - F.cosine_similarity(self.projection(states.float()), centred, dim=1)
            loss = loss + run.hidden * (apart * share).sum()
        return loss

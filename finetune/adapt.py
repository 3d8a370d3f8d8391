"""From a base to verdicts: a LoRA adapter and the joint-fusion head, trained together, then calibrated.

One pass over a passage teaches a verdict at every line's end. Knows tokens, numbers and truths, not their sources, and
nothing of the base's size: everything runs where the base's weights are, on the CPU or on one GPU.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import Qwen2ForCausalLM

from finetune.dataset import Passage
from finetune.language_model import warm_cosine
from finetune.objective import Objective
from finetune.packing import Row, Step, filled, hidden_states, plan
from finetune.recipe import AdapterRun, HeadRun
from finetune.run_folder import RunFolder, State, progress
from fraudguard.domain import Typology
from fraudguard.engine.calibration import Platt, fit_platt
from fraudguard.engine.head import FusionHead
from fraudguard.engine.head_spec import HeadSpec, NumericInput
from fraudguard.engine.lexicon import FEATURE
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadInput
from fraudguard.evaluation import average_precision
from fraudguard.features.registry import FEATURES, MODEL_FEATURES

log = logging.getLogger(__name__)

TYPOLOGIES = tuple(Typology)
# Of a sample's numbers: the features, and what the lexicon says.
COLUMNS = (*MODEL_FEATURES, FEATURE)
_BOOLEANS = {feature.name for feature in FEATURES if feature.type == "boolean"}


@dataclass(slots=True)
class Sample:
    """A passage in numbers, after its release's prefix. ids [token]; ends: each reading's position; the rest one row a
    reading.

    numbers: COLUMNS, the lexicon's missing until there is one. typology: -1 where there is none. prefix: tokens of it.
    """

    source: str
    account_id: str
    prefix: int
    ids: Tensor
    ends: Tensor
    numbers: Tensor
    truth: Tensor
    typology: Tensor
    weight: Tensor

    @property
    def own_ids(self) -> list[int]:
        """ids without the prefix."""
        ids: list[int] = self.ids[self.prefix :].tolist()
        return ids

    @property
    def own_ends(self) -> list[int]:
        """ends in own_ids."""
        ends: list[int] = (self.ends - self.prefix).tolist()
        return ends


def samples(made: Sequence[Passage], tokenizer: LineTokenizer, prefix: str = "") -> list[Sample]:
    """Passages as tensors, in order. prefix: of the release, read before each as the engine will."""
    before = tokenizer.encode_prefix(prefix)
    found = []
    for passage in made:
        lines = [tokenizer.encode(line) for line in passage.lines]
        ends = len(before) + np.cumsum([len(line) for line in lines]) - 1
        labels = [reading.label for reading in passage.readings]
        found.append(
            Sample(
                source=passage.source,
                account_id=passage.account_id,
                prefix=len(before),
                ids=torch.tensor([*before, *chain.from_iterable(lines)]),
                ends=torch.tensor([int(ends[reading.line]) for reading in passage.readings]),
                numbers=torch.tensor(np.stack([np.append(label.numbers, np.float32(np.nan)) for label in labels])),
                truth=torch.tensor([label.truth for label in labels]),
                typology=torch.tensor([_index(label.typology) for label in labels]),
                weight=torch.tensor([label.weight for label in labels]),
            )
        )
    return found


def _index(typology: Typology | None) -> int:
    return -1 if typology is None else TYPOLOGIES.index(typology)


def numeric_inputs(numbers: npt.NDArray[np.float32], bins: int) -> list[NumericInput]:
    """Quantile edges over the rows [n, COLUMNS]; a feature that never varies is left out."""
    inputs = []
    for column, name in enumerate(COLUMNS):
        values = numbers[:, column]
        values = values[~np.isnan(values)]
        if len(values) == 0 or values.min() == values.max():
            continue
        if name in _BOOLEANS:
            edges = [0.0, 1.0]
        else:
            # Most counts are mostly zero: quantiles of the distinct values too, so that the tail gets bins.
            spread = np.linspace(0, 1, bins // 2 + 1)
            both = np.concatenate([np.quantile(values, spread), np.quantile(np.unique(values), spread)])
            edges = sorted({float(f"{edge:.6g}") for edge in both})
        inputs.append(NumericInput(name=name, edges=edges))
    return inputs


def new_head(train: Sequence[Sample], hidden_size: int, run: HeadRun, tokens_max: int) -> FusionHead:
    """A head with bins from the training readings, not yet trained or calibrated."""
    numbers = np.concatenate([sample.numbers.numpy() for sample in train])
    spec = HeadSpec(
        format=1,
        hidden_size=hidden_size,
        width=run.width,
        tokens_max=tokens_max,
        features=numeric_inputs(numbers, run.bins),
        typologies=[str(typology) for typology in TYPOLOGIES],
        calibration=Platt(slope=1.0, offset=0.0),
    )
    return FusionHead(spec, run.dropout)


def new_adapter(base: Qwen2ForCausalLM, run: AdapterRun) -> PeftModel:
    """LoRA, or DoRA, beside the base's layers that run.targets names; the base may be in four bits (QLoRA)."""
    config = LoraConfig(
        r=run.rank, lora_alpha=run.alpha, lora_dropout=run.dropout, target_modules=list(run.targets),
        use_dora=run.dora, bias="none",
    )  # fmt: skip
    base.name_or_path = ""  # or peft writes this machine's path into the adapter
    return get_peft_model(base, config)


def save_adapter(adapted: PeftModel, folder: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors, the same bytes for the same adapter."""
    adapted.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    file = folder / "adapter_config.json"
    config = json.loads(file.read_bytes())
    config["target_modules"].sort()  # peft keeps them as a set
    file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def train(
    model: PeftModel,
    head: FusionHead,
    data: Sequence[Sample],
    dev: Sequence[Sample],
    run: AdapterRun,
    head_run: HeadRun,
    seed: int,
    bfloat16: bool,
    folder: RunFolder | None = None,
    lesson: "Lesson | None" = None,
) -> float:
    """Train adapter and head in place; keep the best mean average precision on dev, and return that.

    model: what requires a gradient is trained; a Qwen2ForCausalLM without an adapter will do too. lesson: makes the
    loss of the labels' (finetune/lessons.py); its parameters are trained with the head's.
    folder: where the run is stored, and taken up again. Every step's randomness is that of its number, so a run that
    is taken up again is the run that was never interrupted, bit for bit on one machine's CPU. Raises BadInput.
    """
    if not any((sample.truth == 1.0).any() for sample in dev):
        raise BadInput("dev holds no fraud: nothing can be chosen or calibrated by it", hint="prepare more of it")
    steps = list(_all_steps(data, run, seed))
    parameters = _trained(model, head, lesson)
    of_model = {name for name, one in model.named_parameters() if one.requires_grad}
    optimizer = torch.optim.AdamW(
        [
            {"params": [one for name, one in parameters.items() if name in of_model], "peak": run.rate},
            {"params": [one for name, one in parameters.items() if name not in of_model], "peak": head_run.rate},
        ],
        lr=run.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True,
    )  # fmt: skip
    state = State(parameters, optimizer)
    if folder:
        folder.resume(state, _key(model, parameters, [*data, *dev], (run, head_run, seed, bfloat16, repr(lesson))))
    if run.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    objective = Objective.of(data, len(TYPOLOGIES), run.balance, run.label_smoothing, run.typology_share)
    learner = Learner(model, head, objective, head_run.number_dropout, bfloat16, lesson)
    with progress(len(steps), state.step) as advance:
        while state.step < len(steps) and not (run.patience and state.stale >= run.patience):
            index, last_of_part = steps[state.step]
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * warm_cosine(state.step, len(steps))
            torch.manual_seed((seed << 32) + state.step)
            loss = learner.backward([[data[number] for number in row] for row in index])
            torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if not math.isfinite(loss):
                raise BadInput(f"the loss of step {state.step + 1} is {loss}", hint="lower adapter.rate or head.rate")
            state.learned(loss, optimizer.param_groups[0]["lr"])
            if last_of_part:
                precision = precision_by_source(dev, read(model, head, dev))
                state.judged(precision)
                log.info("step %d of %d, average precision on dev %s", state.step, len(steps), precision)
            if folder:
                folder.keep(state)
            advance(loss)
    if folder:
        folder.keep(state, done=True)
    state.take_best()
    model.eval()
    head.eval()
    return state.best


def _all_steps(data: Sequence[Sample], run: AdapterRun, seed: int) -> Iterator[tuple[Step, bool]]:
    """Every epoch's steps, and whether dev is read after them."""
    lengths = [len(sample.ids) for sample in data]
    for epoch in range(run.epochs):
        steps = list(plan(lengths, run.batch_tokens, run.row_tokens or run.batch_tokens, Random(f"{seed} {epoch}")))
        read_after = {len(steps) * (part + 1) // run.evaluations - 1 for part in range(run.evaluations)}
        yield from ((step, number in read_after) for number, step in enumerate(steps))


def _trained(model: PeftModel, head: FusionHead, lesson: "Lesson | None") -> dict[str, torch.nn.Parameter]:
    """What is trained, by name."""
    found = {name: one for name, one in model.named_parameters() if one.requires_grad}
    found |= {f"head.{name}": one for name, one in head.named_parameters()}
    return found if lesson is None else found | {f"lesson.{name}": one for name, one in lesson.named_parameters()}


def _key(model: PeftModel, trained: dict[str, Any], data: Sequence[Sample], settings: tuple[Any, ...]) -> str:
    """Names the run: what is the same here makes the same steps."""
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(repr([(name, tuple(one.shape)) for name, one in trained.items()]).encode())
    for name, one in model.named_parameters():
        if name not in trained:  # a sum of bytes, which no order of adding changes
            digest.update(str(one.detach().contiguous().view(torch.uint8).sum(dtype=torch.int64).item()).encode())
    for sample in data:
        for part in (sample.ids, sample.ends, sample.numbers, sample.truth, sample.typology, sample.weight):
            digest.update(part.numpy().tobytes())
    return digest.hexdigest()


class Lesson(Protocol):
    """What else a row of passages teaches than its labels."""

    def __call__(
        self, loss: Tensor, row: Sequence[Sample], states: Tensor, logits: Tensor, kinds: Tensor, total: float
    ) -> Tensor:
        """The row's part of the step's loss.

        loss: its labels'. states [reading, hidden_size], logits, kinds: what the model made. total: what the weights of
        the step's readings sum up to.
        """

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """What is trained with it."""


class Learner:
    """One step: the gradients of its rows, added up."""

    def __init__(
        self, model: PeftModel, head: FusionHead, objective: Objective, number_dropout: float, bfloat16: bool,
        lesson: Lesson | None = None,
    ) -> None:  # fmt: skip
        """number_dropout: how often a feature is hidden. bfloat16: multiply in it (autocast)."""
        self._model, self._head, self._objective, self._lesson = model, head, objective, lesson
        self._hide, self._bfloat16 = number_dropout, bfloat16

    def backward(self, rows: Sequence[Sequence[Sample]]) -> float:
        """Adds the gradients of the loss of these rows of passages, and returns the loss."""
        self._model.train()
        self._head.train()
        weights = [self._objective.weights(sample) for row in rows for sample in row]
        risk_total, kind_total = (float(torch.cat(parts).sum()) for parts in zip(*weights, strict=True))
        total = sum(float(sample.weight.sum()) for row in rows for sample in row)
        device = next(self._model.parameters()).device
        losses = []
        # Drawn for the whole step, so that they do not depend on its rows.
        shown = [[self._some_hidden(sample) for sample in row] for row in rows]
        for row in shown:
            with torch.autocast(device.type, torch.bfloat16, enabled=self._bfloat16):
                states = states_at(self._model, row)
            logits, kinds = verdicts(self._head, states, row)
            labels = _Labels(*(torch.cat(parts).to(device) for parts in zip(*map(_labels, row), strict=True)))
            loss = self._objective.loss(logits, kinds, labels, risk_total, kind_total)
            if self._lesson is not None:
                loss = self._lesson(loss, row, states, logits, kinds, total)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            losses.append(loss.detach())
        return float(torch.stack(losses).sum())

    def _some_hidden(self, sample: Sample) -> Sample:
        hidden = torch.rand(sample.numbers.shape) < self._hide
        return replace(sample, numbers=sample.numbers.masked_fill(hidden, torch.nan))


@dataclass(slots=True)
class _Labels:
    truth: Tensor
    weight: Tensor
    typology: Tensor


def _labels(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
    return sample.truth, sample.weight, sample.typology


def states_at(model: PeftModel, row: Sequence[Sample]) -> Tensor:
    """The hidden state at every reading of the passages, packed into one row: [reading, hidden_size]."""
    packed = Row.of([sample.ids for sample in row], next(model.parameters()).device)
    starts = np.cumsum([0, *packed.lengths])
    ends = torch.cat([sample.ends + int(start) for sample, start in zip(row, starts, strict=False)])
    return hidden_states(model, packed)[ends.to(packed.ids.device)]


def verdicts(head: FusionHead, states: Tensor, row: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Risk logit [reading] and typology logits [reading, typology], in float32 as they are served."""
    columns = torch.tensor([COLUMNS.index(name) for name in head.names])
    numbers = torch.cat([sample.numbers for sample in row])[:, columns]
    logits, kinds = head(states.float(), numbers.to(states.device))
    return logits, kinds


@torch.no_grad()
def read(model: PeftModel, head: FusionHead, data: Sequence[Sample], row_tokens: int = 2048) -> npt.NDArray[np.float64]:
    """The risk logit of every reading, sample after sample."""
    model.eval()
    head.eval()
    order = filled(range(len(data)), [len(sample.ids) for sample in data], row_tokens)
    rows = ([data[number] for number in row] for row in order)
    logits = [verdicts(head, states_at(model, row), row)[0] for row in rows]
    return torch.cat(logits).cpu().numpy().astype(np.float64)


def certain(data: Sequence[Sample]) -> npt.NDArray[np.bool_]:
    """Of every reading, sample after sample: whether its truth is known for sure."""
    truth, weight = (np.concatenate([getattr(sample, name).numpy() for sample in data]) for name in ("truth", "weight"))
    return np.isin(truth, (0.0, 1.0)) & (weight > 0)


def precision_by_source(dev: Sequence[Sample], logits: npt.NDArray[np.float64]) -> dict[str, float]:
    """Average precision of each source that has frauds, its readings among those of all sources that have none.

    Readings of an uncertain truth, or of none, are left out.
    """
    kept = certain(dev)
    truth = np.concatenate([sample.truth.numpy() for sample in dev])[kept] == 1.0
    source = np.concatenate([np.full(len(sample.ends), sample.source) for sample in dev])[kept]
    logits = logits[kept]
    with_fraud = sorted(set(source[truth].tolist()))
    harmless = ~np.isin(source, with_fraud)
    return {
        name: round(average_precision(truth[rows], logits[rows]), 4)
        for name in with_fraud
        for rows in [harmless | (source == name)]
    }


def calibrate(head: FusionHead, logits: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> None:
    """Give the head the sigmoid that fits the logits of held-out readings."""
    head.spec = head.spec.model_copy(update={"calibration": fit_platt(logits, truth)})

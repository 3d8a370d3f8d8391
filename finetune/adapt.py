"""From a base to verdicts: a LoRA adapter and the joint-fusion head, trained together, then calibrated.

One pass over a passage teaches a verdict at every line's end. Knows tokens, numbers and truths, not their sources.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen2ForCausalLM

from finetune.language_model import warm_cosine
from finetune.passages import Passage
from finetune.recipe import AdapterRun, HeadRun
from fraudguard.domain import Typology
from fraudguard.engine.calibration import Platt, fit_platt
from fraudguard.engine.head import FusionHead
from fraudguard.engine.head_spec import HeadSpec, NumericInput
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.evaluation import average_precision
from fraudguard.features.registry import FEATURES, MODEL_FEATURES

log = logging.getLogger(__name__)

TYPOLOGIES = tuple(Typology)
_BOOLEANS = {feature.name for feature in FEATURES if feature.type == "boolean"}


@dataclass(slots=True)
class Sample:
    """A passage in numbers, after its release's prefix. ids [token]; ends: each reading's position; the rest one row a
    reading.

    typology: -1 where there is none. source: of its passage.
    """

    source: str
    ids: Tensor
    ends: Tensor
    numbers: Tensor
    truth: Tensor
    typology: Tensor
    weight: Tensor


def samples(
    made: Sequence[Passage], tokenizer: LineTokenizer, ordinary_weight: float, prefix: str = ""
) -> list[Sample]:
    """Passages as tensors, in order. prefix: of the release, read before each as the engine will."""
    before = tokenizer.encode_prefix(prefix)
    result = []
    for passage in made:
        lines = [tokenizer.encode(line) for line in passage.lines]
        ends = len(before) + np.cumsum([len(line) for line in lines]) - 1
        readings = passage.readings
        result.append(
            Sample(
                source=passage.source,
                ids=torch.tensor([*before, *(token for line in lines for token in line)]),
                ends=torch.tensor([int(ends[reading.line]) for reading in readings]),
                numbers=torch.tensor(np.stack([reading.numbers for reading in readings])),
                truth=torch.tensor([reading.truth for reading in readings]),
                typology=torch.tensor([_index(reading.typology) for reading in readings]),
                weight=torch.tensor([1.0 if reading.story else ordinary_weight for reading in readings]),
            )
        )
    return result


def _index(typology: Typology | None) -> int:
    return -1 if typology is None else TYPOLOGIES.index(typology)


def numeric_inputs(numbers: npt.NDArray[np.float32], bins: int) -> list[NumericInput]:
    """Quantile edges over the rows [n, MODEL_FEATURES]; a feature that never varies is left out."""
    inputs = []
    for column, name in enumerate(MODEL_FEATURES):
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
    """LoRA on every linear layer of the body and on the embeddings: what words say about fraud is new to the base."""
    targets = ["embed_tokens", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=run.rank, lora_alpha=run.alpha, lora_dropout=run.dropout, target_modules=targets, bias="none")
    return get_peft_model(base, config)


def train(
    adapted: PeftModel,
    head: FusionHead,
    data: Sequence[Sample],
    dev: Sequence[Sample],
    run: AdapterRun,
    head_run: HeadRun,
    seed: int,
    bfloat16: bool,
) -> float:
    """Train adapter and head in place; keep the epoch with the best mean average precision on dev, and return that."""
    columns = torch.tensor([MODEL_FEATURES.index(name) for name in head.names])
    lora = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": lora, "lr": run.rate}, {"params": list(head.parameters()), "lr": head_run.rate}],
        betas=(0.9, 0.98), weight_decay=0.01, fused=True,
    )  # fmt: skip
    rng, generator = Random(seed), torch.Generator().manual_seed(seed)
    steps = run.epochs * sum(1 for _ in _batches(data, run.batch_tokens, Random(0)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps))
    best, kept, step = -1.0, _weights(adapted, head), 0
    for epoch in range(run.epochs):
        adapted.train()
        head.train()
        for batch in _batches(data, run.batch_tokens, rng):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = _loss(adapted, head, batch, columns, head_run.number_dropout, generator)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            torch.nn.utils.clip_grad_norm_([*lora, *head.parameters()], 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 50 == 0:
                log.info("adapter: step %d of %d, loss %.4f", step, steps, loss.item())
        logits = read(adapted, head, dev)
        by_source = precision_by_source(dev, logits)
        score = float(np.mean(list(by_source.values())))
        log.info("adapter: epoch %d, average precision on dev %s, mean %.4f", epoch + 1, by_source, score)
        if score > best:
            best, kept = score, _weights(adapted, head)
    adapted.load_state_dict(kept[0], strict=False)
    head.load_state_dict(kept[1])
    adapted.eval()
    head.eval()
    return best


def precision_by_source(dev: Sequence[Sample], logits: npt.NDArray[np.float64]) -> dict[str, float]:
    """Average precision of each source that has frauds, its readings among those of all sources that have none."""
    truth = np.concatenate([sample.truth.numpy() for sample in dev]) == 1.0
    source = np.concatenate([np.full(len(sample.ends), sample.source) for sample in dev])
    with_fraud = sorted(set(source[truth].tolist()))
    harmless = ~np.isin(source, with_fraud)
    return {
        name: round(average_precision(truth[rows], logits[rows]), 4)
        for name in with_fraud
        for rows in [harmless | (source == name)]
    }


def _weights(adapted: PeftModel, head: FusionHead) -> tuple[dict[str, Any], dict[str, Any]]:
    lora = {name: tensor for name, tensor in adapted.state_dict().items() if "lora_" in name}
    return copy.deepcopy(lora), copy.deepcopy(head.state_dict())


def _batches(data: Sequence[Sample], tokens: int, rng: Random) -> Iterator[list[Sample]]:
    """Samples of like length, at most `tokens` with padding, in random order."""
    order = sorted(data, key=lambda sample: (len(sample.ids) + rng.randrange(16), rng.random()))
    made: list[list[Sample]] = [[]]
    longest = 0
    for sample in order:
        longest = max(longest, len(sample.ids))
        if made[-1] and (len(made[-1]) + 1) * longest > tokens:
            made.append([])
            longest = len(sample.ids)
        made[-1].append(sample)
    rng.shuffle(made)
    yield from made


def _hidden(adapted: PeftModel, batch: Sequence[Sample]) -> Tensor:
    """The hidden state at every reading: [reading, hidden_size]."""
    longest = max(len(sample.ids) for sample in batch)
    # Few distinct shapes: oneDNN compiles a kernel for each.
    ids = torch.zeros(len(batch), -(-longest // 32) * 32, dtype=torch.long)
    for row, sample in enumerate(batch):
        ids[row, : len(sample.ids)] = sample.ids
    states = adapted.base_model.model.model(input_ids=ids, use_cache=False).last_hidden_state
    return torch.cat([states[row, sample.ends] for row, sample in enumerate(batch)])


def _loss(
    adapted: PeftModel,
    head: FusionHead,
    batch: Sequence[Sample],
    columns: Tensor,
    hide: float,
    generator: torch.Generator,
) -> Tensor:
    numbers = torch.cat([sample.numbers for sample in batch])[:, columns]
    hidden_numbers = torch.rand(numbers.shape, generator=generator) < hide
    logits, typologies = head(_hidden(adapted, batch), numbers.masked_fill(hidden_numbers, torch.nan))
    truth = torch.cat([sample.truth for sample in batch])
    weight = torch.cat([sample.weight for sample in batch])
    typology = torch.cat([sample.typology for sample in batch])
    logits, typologies = logits.float(), typologies.float()
    loss = (F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * weight).sum() / weight.sum()
    if (typology >= 0).any():
        loss = loss + 0.1 * F.cross_entropy(typologies, typology, ignore_index=-1)
    return loss


@torch.no_grad()
def read(adapted: PeftModel, head: FusionHead, data: Sequence[Sample]) -> npt.NDArray[np.float64]:
    """The risk logit of every reading, sample after sample."""
    adapted.eval()
    head.eval()
    columns = torch.tensor([MODEL_FEATURES.index(name) for name in head.names])
    logits: list[Tensor] = [torch.empty(0)] * len(data)
    order = sorted(range(len(data)), key=lambda index: len(data[index].ids))
    for start in range(0, len(order), 8):
        batch = [data[index] for index in order[start : start + 8]]
        numbers = torch.cat([sample.numbers for sample in batch])[:, columns]
        found = head(_hidden(adapted, batch), numbers)[0].split([len(sample.ends) for sample in batch])
        for index, of_sample in zip(order[start : start + 8], found, strict=True):
            logits[index] = of_sample
    return torch.cat(logits).numpy().astype(np.float64)


def calibrate(head: FusionHead, logits: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> None:
    """Give the head the sigmoid that fits the logits of held-out readings."""
    head.spec = head.spec.model_copy(update={"calibration": fit_platt(logits, truth)})

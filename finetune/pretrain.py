"""The starter's base, from nothing: a tokenizer, and a small Qwen2 that learns the next token and, where the corpus has
vectors of its teachers (finetune/teacher.py), meaning.

    python -m finetune.pretrain finetune/base.yaml --corpus CORPUS --out BASE

With teachers: first the embeddings alone, as a bag of words; then the whole model, whose last hidden state and whose
mean are drawn to the teacher's vector of the chunk. Knows chunks of lines and their vectors (finetune/corpus.py); reads
no label. Deterministic for one machine and one version of torch.
"""

import argparse
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2ForCausalLM

from finetune.language_model import new_base, save_tokenizer, train_tokenizer, warm_cosine
from finetune.publish import staged
from finetune.recipe import BaseRecipe, PretrainRun, read_settings
from finetune.teacher import Teacher
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadInput

log = logging.getLogger(__name__)

CHUNK_TOKENS = 128
EMBEDDING_STD = 0.03
_HAN = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True, slots=True)
class Talk:
    """The chunks of one language. ids [chunk][token]; vectors: their teacher's, centred and of unit length, or none."""

    ids: list[list[int]]
    vectors: Tensor | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Chunks of one language. ids and real (not padding): [chunk, token]. rows: their numbers in the talk."""

    language: str
    ids: Tensor
    real: Tensor
    rows: list[int]


def read_corpus(folder: Path, tokenizer: LineTokenizer) -> dict[str, Talk]:
    """CORPUS by language; of a chunk its first CHUNK_TOKENS tokens. Raises BadInput."""
    talks = {}
    for file in sorted(folder.glob("??.parquet")):
        table = pq.read_table(file)
        ids = [
            [token for line in lines for token in tokenizer.encode(line)][:CHUNK_TOKENS]
            for lines in table["lines"].to_pylist()
        ]
        vectors = None
        if "vector" in table.schema.names:
            flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            vectors = torch.from_numpy(flat.reshape(len(ids), -1).astype(np.float32))
            # Around their mean: sentence vectors share most of their direction, which teaches nothing.
            vectors = F.normalize(vectors - vectors.mean(dim=0), dim=1)
        talks[file.stem] = Talk(ids, vectors)
    if not talks:
        raise BadInput("there is no corpus", path=str(folder), hint="python -m finetune.corpus makes one")
    return talks


def start_embeddings(model: Qwen2ForCausalLM, texts: Sequence[str], threads: int) -> None:
    """Start each token's embedding from its teacher's vector of the token's text, in its main directions."""
    weights = model.get_input_embeddings().weight
    for language in ("zh", "en"):
        tokens = [
            token
            for token, text in enumerate(texts)
            if text.strip() and "\ufffd" not in text and bool(_HAN.search(text)) == (language == "zh")
        ]
        vectors = torch.from_numpy(Teacher(language, threads).embed([texts[token].strip() for token in tokens]))
        vectors = vectors - vectors.mean(dim=0)
        _, _, directions = torch.linalg.svd(vectors, full_matrices=False)
        placed = vectors @ directions[: weights.shape[1]].t()
        with torch.no_grad():
            weights[tokens, : placed.shape[1]] = placed / placed.std() * EMBEDDING_STD


class Pupil(nn.Module):
    """The base with a projection to each teacher's space, which is thrown away afterwards."""

    def __init__(self, model: Qwen2ForCausalLM, talks: Mapping[str, Talk]) -> None:
        super().__init__()
        self.model, self._talks = model, talks
        self.to_teacher = nn.ModuleDict(
            {
                language: nn.Linear(model.config.hidden_size, talk.vectors.shape[1])
                for language, talk in talks.items()
                if talk.vectors is not None
            }
        )

    def bag(self, batch: Batch) -> Tensor:
        """Mean cosine distance of the mean embedding: the model without its layers."""
        body = self.model.model
        return self._distance(batch, _mean(body.norm(body.embed_tokens(batch.ids)), batch.real))

    def forward(self, batch: Batch) -> Tensor:
        """Hidden states [chunk, token, hidden_size]."""
        # No mask: padding comes last, where nothing looks back at it.
        hidden: Tensor = self.model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
        return hidden

    def distances(self, batch: Batch, hidden: Tensor) -> dict[str, Tensor]:
        """Mean cosine distances of the states' mean and of the last one; none where there is no teacher."""
        if batch.language not in self.to_teacher:
            return {}
        last = hidden[torch.arange(len(hidden)), batch.real.sum(dim=1) - 1]
        return {"mean": self._distance(batch, _mean(hidden, batch.real)), "last": self._distance(batch, last)}

    def next_token(self, batch: Batch, hidden: Tensor, positions: int, generator: torch.Generator) -> Tensor:
        """Cross-entropy of the next token at `positions` places drawn at random; of all of them it would cost most."""
        places = batch.real[:, 1:].flatten().nonzero().flatten()
        drawn = places[torch.randint(len(places), (positions,), generator=generator)]
        words = self.model.get_input_embeddings().weight
        if batch.language in self.to_teacher:
            # Adam would move every word of the vocabulary at its full rate, away from what its teacher says.
            words = words.detach()
        logits = hidden[:, :-1].flatten(0, 1)[drawn] @ words.t()
        return F.cross_entropy(logits.float(), batch.ids[:, 1:].flatten()[drawn])

    def _distance(self, batch: Batch, pooled: Tensor) -> Tensor:
        found = F.normalize(self.to_teacher[batch.language](pooled).float(), dim=-1)
        vectors = self._talks[batch.language].vectors
        assert vectors is not None  # noqa: S101  only such have a projection
        return 1 - (found * vectors[batch.rows]).sum(dim=-1).mean()


def _mean(states: Tensor, real: Tensor) -> Tensor:
    weight = real.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(dim=1) / weight.sum(dim=1)


def pretrain(
    model: Qwen2ForCausalLM, talks: Mapping[str, Talk], run: PretrainRun, seed: int, *, bfloat16: bool
) -> dict[str, float]:
    """Train the base in place. Returns each loss's mean over the last tenth of the steps, by name."""
    torch.manual_seed(seed)
    pupil = Pupil(model, talks)
    rng, generator = Random(seed), torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {}
    if pupil.to_teacher:
        for layer in model.model.layers:  # until they learn, layers add nothing: the bag of words is where they start
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)
        batches = _until(talks, run.bag_batch_tokens, run.bag_tokens, rng)
        bag = [*pupil.to_teacher.parameters(), *model.get_input_embeddings().parameters()]
        for batch, step in _steps(bag, run.bag_rate, batches, "bag of words"):
            loss = pupil.bag(batch)
            step(loss)
            found.setdefault("bag", []).append(loss.item())
    batches = _until(talks, run.batch_tokens, run.tokens, rng)
    for number, (batch, step) in enumerate(_steps(list(pupil.parameters()), run.rate, batches, "base"), 1):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            hidden = pupil(batch)
            parts = pupil.distances(batch, hidden)
            weight = run.next_weight if parts else 1.0
            after = pupil.next_token(batch, hidden, run.next_positions, generator)
        step(torch.stack([*parts.values(), weight * after]).sum())
        for name, part in (parts | {"next": after}).items():
            found.setdefault(name, []).append(part.item())
        if number % 100 == 0:
            shown = {name: round(float(np.mean(values[-100:])), 4) for name, values in found.items()}
            log.info("base: step %d of %d, %s", number, len(batches), shown)
    model.eval()
    return {name: float(np.mean(values[-max(len(values) // 10, 1) :])) for name, values in found.items()}


class _Step:
    """One step of the optimizer."""

    def __init__(self, parameters: list[nn.Parameter], rate: float, steps: int) -> None:
        self._parameters = parameters
        self._optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: warm_cosine(step, steps))

    def __call__(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)


def _steps(
    parameters: list[nn.Parameter], rate: float, batches: Sequence[Batch], name: str
) -> Iterator[tuple[Batch, _Step]]:
    step = _Step(parameters, rate, len(batches))
    for batch in track(batches, name):
        yield batch, step


def _until(talks: Mapping[str, Talk], batch_tokens: int, tokens: int, rng: Random) -> list[Batch]:
    """Batches of one language each, together at least `tokens` with padding, all chunks equally often but for one."""
    made: list[Batch] = []
    while True:
        epoch = [batch for name, talk in talks.items() for batch in _batches(name, talk, batch_tokens, rng)]
        rng.shuffle(epoch)
        for batch in epoch:
            made.append(batch)
            tokens -= batch.ids.numel()
            if tokens <= 0:
                return made


def _batches(language: str, talk: Talk, tokens: int, rng: Random) -> Iterator[Batch]:
    """Chunks of like length, padded to a multiple of 32: oneDNN compiles kernels for every shape."""
    order = sorted(range(len(talk.ids)), key=lambda index: (-(-len(talk.ids[index]) // 32), rng.random()))
    at = 0
    while at < len(order):
        length = -(-len(talk.ids[order[at]]) // 32) * 32
        rows = order[at : at + max(tokens // length, 1)]
        rows = [index for index in rows if len(talk.ids[index]) <= length]
        at += len(rows)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        real = torch.zeros(len(rows), length, dtype=torch.bool)
        for row, index in enumerate(rows):
            ids[row, : len(talk.ids[index])] = torch.tensor(talk.ids[index])
            real[row, : len(talk.ids[index])] = True
        yield Batch(language, ids, real, rows)


def lines_of(corpus: Path) -> Iterator[str]:
    """Every line of CORPUS."""
    for file in sorted(corpus.glob("??.parquet")):
        yield from chain.from_iterable(pq.read_table(file, columns=["lines"])["lines"].to_pylist())


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--corpus", type=Path, required=True, help="folder that finetune.corpus made")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint; what it holds is replaced")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    started = time.process_time()
    recipe = read_settings(options.recipe, BaseRecipe)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    with staged(options.out) as staging:
        save_tokenizer(train_tokenizer(lines_of(options.corpus), recipe.tokenizer), staging)
        encoder = LineTokenizer(staging)
        model = new_base(recipe.shape, encoder.vocabulary)
        talks = read_corpus(options.corpus, encoder)
        if any(talk.vectors is not None for talk in talks.values()):
            start_embeddings(model, encoder.texts(), recipe.threads)
        losses = pretrain(model, talks, recipe.pretrain, recipe.seed, bfloat16=recipe.bfloat16)
        model.to(torch.float16).save_pretrained(staging)
    shown = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
    log.info("%s after %.0f CPU seconds; final losses: %s", options.out, time.process_time() - started, shown)


if __name__ == "__main__":
    main()

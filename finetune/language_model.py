"""The starter's base: a byte-level BPE tokenizer and a small Qwen2 language model, both from nothing.

Knows lines of text only; no labels are read here.
"""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from finetune.recipe import BaseShape, LanguageModelRun, TokenizerRun

log = logging.getLogger(__name__)

END_OF_TEXT = "<|endoftext|>"
# Qwen2's split: words with their leading space, single digits, runs of punctuation, line ends.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(lines: Iterable[str], run: TokenizerRun) -> Tokenizer:
    """Byte-level BPE over the lines: any text can be encoded, and the line end is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=run.vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=run.token_chars_max,
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, and what transformers wants beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def new_base(shape: BaseShape, vocabulary: int) -> Qwen2ForCausalLM:
    """A Qwen2 with random weights, embeddings tied."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.hidden_size // shape.heads,
            intermediate_size=shape.intermediate_size,
            max_position_embeddings=shape.positions,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def pretrain(
    model: Qwen2ForCausalLM, documents: Sequence[Sequence[int]], run: LanguageModelRun, seed: int, bfloat16: bool
) -> float:
    """Next-token training over the documents packed into blocks; the mean loss of the last tenth of the steps."""
    steps = max(run.tokens // (run.batch * run.block), 1)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.rate, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps))
    blocks = _blocks(documents, run, Random(seed))
    losses: list[float] = []
    model.train()
    for step in range(steps):
        ids = torch.tensor([next(blocks) for _ in range(run.batch)])
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = _loss(model, ids, run.candidates, generator)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 50 == 0 or step == steps - 1:
            log.info("language model: step %d of %d, loss %.3f", step + 1, steps, losses[-1])
    model.eval()
    tail = losses[-max(steps // 10, 1) :]
    return sum(tail) / len(tail)


def _loss(model: Qwen2ForCausalLM, ids: Tensor, candidates: int, generator: torch.Generator) -> Tensor:
    """Cross-entropy among the batch's own next tokens and `candidates` random ones.

    A softmax over the whole vocabulary would cost more than twice what the body does.
    """
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state.flatten(0, 1)
    targets = ids[:, 1:].flatten()
    embeddings = model.get_input_embeddings().weight
    others = torch.randint(len(embeddings), (candidates,), generator=generator)
    rivals, places = torch.unique(torch.cat([targets, others]), return_inverse=True)
    logits = hidden @ embeddings[rivals].t()
    return torch.nn.functional.cross_entropy(logits.float(), places[: len(targets)])


def _blocks(documents: Sequence[Sequence[int]], run: LanguageModelRun, rng: Random) -> Iterator[list[int]]:
    rest: list[int] = []
    order = list(range(len(documents)))
    while True:
        rng.shuffle(order)
        for index in order:
            rest.extend((*documents[index], 0))
            while len(rest) >= run.block:
                yield rest[: run.block]
                del rest[: run.block]


def warm_cosine(step: int, steps: int) -> float:
    """A rate's factor: up within 3 % of the steps, then down along a cosine to a tenth."""
    warm = max(steps * 3 // 100, 1)
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))

"""The recipe's settings, as starter.yaml writes them."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenizerRun(_Settings):
    """token_chars_max: bytes of the longest token. lives_step: every how many-th life it is trained on."""

    vocabulary: int
    token_chars_max: int
    lives_step: int


class BaseShape(_Settings):
    """A Qwen2's shape; the head's dimension is hidden_size / heads."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    intermediate_size: int
    positions: int


class CastSize(_Settings):
    """How large a cast of stories is."""

    accounts: int
    frauds: int


class StoriesRun(_Settings):
    """ordinary_share: of the training passages without a plot, how many are kept."""

    train: CastSize
    dev: CastSize
    test: CastSize
    ordinary_share: float


class CorpusRun(_Settings):
    """chunks: at most, of each language. lines: of a chunk, at most. chars_min: said in it, at least."""

    chunks: int
    lines: int
    chars_min: int


class PretrainRun(_Settings):
    """bag_*: of the embeddings alone. tokens: with padding, seen in all. rate: Adam's.

    next_positions: places a step at which the next token is asked for. next_weight: of that loss.
    """

    bag_tokens: int
    bag_batch_tokens: int
    bag_rate: float
    tokens: int
    batch_tokens: int
    rate: float
    next_positions: int
    next_weight: float


class AdapterRun(_Settings):
    """batch_tokens: padded tokens a step. ordinary_weight: of readings outside every plot and dialogue.

    prefix: text that the release reads before every timeline, such as an instruct checkpoint's system prompt.
    """

    rank: int
    alpha: int
    dropout: float
    epochs: int
    batch_tokens: int
    rate: float
    tokens_max: int
    ordinary_weight: float
    prefix: str = ""


class HeadRun(_Settings):
    """bins: of each feature's encoding. number_dropout: how often a feature is hidden in training."""

    width: int
    bins: int
    dropout: float
    number_dropout: float
    rate: float


class Recipe(_Settings):
    """The whole of starter.yaml. bfloat16: multiply in it while training (autocast)."""

    name: str
    version: str
    seed: int
    threads: int
    bfloat16: bool
    tokenizer: TokenizerRun
    base: BaseShape
    stories: StoriesRun
    dialogues_max: dict[str, int]
    corpus: CorpusRun
    pretrain: PretrainRun
    adapter: AdapterRun
    head: HeadRun


def read_recipe(path: Path) -> Recipe:
    """The recipe in the file. Raises pydantic's ValidationError."""
    return Recipe.model_validate(yaml.safe_load(path.read_text()))

"""The recipe's settings, as starter.yaml writes them."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fraudguard.errors import BadInput

# Of a Qwen2: what words mean, and every linear layer of the body.
LAYERS = ("embed_tokens", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Settings(BaseModel):
    """What a recipe may say; a word that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenizerRun(Settings):
    """token_chars_max: bytes of the longest token."""

    vocabulary: int
    token_chars_max: int


class BaseShape(Settings):
    """A Qwen2's shape; the head's dimension is hidden_size / heads."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    intermediate_size: int
    positions: int


class CorpusRun(Settings):
    """chunks: at most, of each language. lines: of a chunk, at most. chars_min: said in it, at least.

    teachers: with their vectors (finetune/teacher.py), which cost most of the time; without them, text alone.
    """

    chunks: int
    lines: int
    chars_min: int
    teachers: bool


class PretrainRun(Settings):
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


class AdapterRun(Settings):
    """How an adapter is trained.

    targets: the layers that it stands beside. dora: magnitudes too (arXiv 2402.09353). batch_tokens: a step.
    row_tokens: that pass at once, their gradients added up; None: the whole step. label_smoothing: arXiv 1512.00567.
    balance: 0 lets every reading weigh what its label says, 1 makes the classes weigh alike. typology_share: its
    error's, beside the risk's. evaluations: readings of dev an epoch. patience: readings without a gain that end the
    training. prefix: text that the release reads before every timeline, such as an instruct checkpoint's system prompt.
    """

    rank: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: tuple[str, ...] = LAYERS
    dora: bool = False
    epochs: Annotated[int, Field(ge=1)]
    batch_tokens: Annotated[int, Field(ge=1)]
    row_tokens: Annotated[int | None, Field(ge=1)] = None
    gradient_checkpointing: bool = False
    rate: Annotated[float, Field(gt=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    typology_share: Annotated[float, Field(ge=0)] = 0.1
    evaluations: Annotated[int, Field(ge=1)] = 1
    patience: Annotated[int | None, Field(ge=1)] = None
    tokens_max: Annotated[int, Field(ge=1)]
    prefix: str = ""


class LexiconRun(Settings):
    """buckets: of its tables. folds: of the accounts, for scores that the head may learn from. readings: at most.

    inverse_penalty: scikit-learn's C.
    """

    buckets: Annotated[int, Field(ge=2)]
    folds: Annotated[int, Field(ge=2)]
    readings: Annotated[int, Field(ge=1)]
    inverse_penalty: Annotated[float, Field(gt=0)]
    iterations: Annotated[int, Field(ge=1)]


class HeadRun(Settings):
    """bins: of each feature's encoding. number_dropout: how often a feature is hidden in training."""

    width: int
    bins: int
    dropout: float
    number_dropout: float
    rate: float


class BaseRecipe(Settings):
    """The whole of base.yaml. bfloat16: multiply in it while training (autocast)."""

    seed: int
    threads: int
    bfloat16: bool
    tokenizer: TokenizerRun
    shape: BaseShape
    corpus: CorpusRun
    pretrain: PretrainRun


class Machine(Settings):
    """Where a recipe runs. bfloat16: multiply in it while training, "auto": on a GPU."""

    threads: Annotated[int, Field(ge=1)]
    device: Literal["auto", "cpu", "cuda"]
    bfloat16: bool | Literal["auto"]


class LoraRecipe(Machine):
    """The whole of lora.yaml. four_bit: train beside a base of NF4 (QLoRA, arXiv 2305.14314), which needs bitsandbytes;
    what is served is the base as it is. save_every: steps.

    ordinary_share: of training passages without a plot, dialogue or case, how many are kept. lexicon: None for none.
    """

    name: str
    version: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    four_bit: bool = False
    save_every: Annotated[int, Field(ge=1)]
    ordinary_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    adapter: AdapterRun
    lexicon: LexiconRun | None = None
    head: HeadRun


AnyRecipe = TypeVar("AnyRecipe", bound=BaseModel)


def read_settings(path: Path, kind: type[AnyRecipe]) -> AnyRecipe:
    """The recipe of this kind in the file. Raises BadInput."""
    try:
        return kind.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"cannot be read: {error}", path=str(path)) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(
            f"{where}: {first['msg']}", path=str(path), hint="the recipes in finetune/ say what may stand there"
        ) from error

"""Small releases made on the fly: random weights, but real checkpoints, adapters and heads."""

import json
from datetime import UTC, datetime
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM

from fraudguard.domain import Line, Scalar, ScoreRequest, Timeline
from fraudguard.engine.head import FusionHead
from fraudguard.engine.head_spec import Calibration, HeadSpec, NumericInput

# With qwen25's tokenizer 23 tokens, which are no whole pages; its first is a control token there.
PREFIX = "<|im_start|>system\nYou watch payments. 急用钱\n"
AT = datetime(2026, 11, 21, 10, tzinfo=UTC)
TEXTS = [
    "customer: 急用钱，先转到安全账户",
    "counterparty: send the code now",
    "[pay out CNY 50,000 transfer new payee]",
]
FEATURES = {"amount_base": 50_000.0, "is_new_counterparty": True, "transfers_1d": 3}

# Shapes as in the wild, made small. qwen25: GQA, tied embeddings. r1_distill: GQA, untied, a beginning-of-text token.
# starter: one key/value head.
SHAPES = {
    "qwen25": {"heads": 4, "kv": 2, "tied": True, "special": ["<|endoftext|>", "<|im_start|>"]},
    "r1_distill": {"heads": 6, "kv": 3, "tied": False, "special": ["<｜begin▁of▁sentence｜>", "<think>"]},
    "starter": {"heads": 3, "kv": 1, "tied": True, "special": ["<|endoftext|>"]},
}


def make_tokenizer(folder: Path, special: list[str], vocabulary: int = 400) -> None:
    """A byte-level BPE over TEXTS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, "a\n\nb"], trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def make_release(
    folder: Path, shape: str = "starter", *, hidden: int = 48, adapter: bool = True, prefix: str = ""
) -> Path:
    """A release with random weights, the adapter's among them."""
    settings = SHAPES[shape]
    torch.manual_seed(7)
    config = Qwen2Config(
        vocab_size=512, hidden_size=hidden, num_hidden_layers=2, num_attention_heads=settings["heads"],
        num_key_value_heads=settings["kv"], intermediate_size=64, max_position_embeddings=256,
        tie_word_embeddings=settings["tied"], initializer_range=0.2,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder / "base")
    make_tokenizer(folder / "base", settings["special"])
    if adapter:
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
        get_peft_model(model, lora).save_pretrained(folder / "adapter")
    head = FusionHead(
        HeadSpec(
            format=1, hidden_size=hidden, width=16, tokens_max=128,
            features=[
                NumericInput(name="amount_base", edges=[0.0, 100.0, 10_000.0]),
                NumericInput(name="is_new_counterparty", edges=[0.0, 1.0]),
                NumericInput(name="transfers_1d", edges=[0.0, 2.0, 10.0]),
            ],
            typologies=["scam", "mule"], calibration=Calibration(kind="platt", slope=1.5, offset=-0.5),
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(0, 0.3)
    head.save(folder / "head")
    manifest = {
        "format": 1, "name": shape, "version": "0.0.1", "base": "base",
        "adapter": "adapter" if adapter else None, "head": "head", "prefix": prefix,
    }  # fmt: skip
    (folder / "release.json").write_text(json.dumps(manifest))
    return folder


def request_of(*texts: str, account_id: str = "a-1", features: dict[str, Scalar] | None = None) -> ScoreRequest:
    """A timeline of these lines, each at the same time."""
    lines = tuple(Line("message", AT, text) for text in texts)
    return ScoreRequest(Timeline(account_id, 1, lines), FEATURES if features is None else features)

"""Small releases made on the fly: random weights, but real checkpoints, adapters and heads."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM

from fraudguard.domain import Line, Scalar, ScoreRequest, Timeline
from fraudguard.engine.calibration import Platt
from fraudguard.engine.head import FusionHead
from fraudguard.engine.head_spec import HeadSpec, NumericInput

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


# LoRA configurations of tenants that differ in all that may differ: targets, ranks, scaling.
TENANTS: dict[str, dict[str, Any]] = {
    "attention": {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    "by_layer": {
        "r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": ["k_proj", "gate_proj", "up_proj"],
        "rank_pattern": {"layers.1.mlp.up_proj": 7}, "alpha_pattern": {"layers.0.self_attn.k_proj": 20},
    },
    "embedding": {"r": 5, "lora_alpha": 5, "target_modules": ["embed_tokens", "up_proj", "down_proj"]},
}  # fmt: skip


def make_release(
    folder: Path,
    shape: str = "starter",
    *,
    hidden: int = 48,
    adapter: bool = True,
    prefix: str = "",
    tenants: Mapping[str, dict[str, Any]] = MappingProxyType({}),
) -> Path:
    """A release with random weights, those of adapters and heads among them. tenants: names and LoRA configurations."""
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
        _save_adapter(model, folder / "adapter", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    _save_head(folder / "head", hidden)
    for tenant, lora in tenants.items():
        _save_adapter(model, folder / tenant / "adapter", **lora)
        _save_head(folder / tenant / "head", hidden)
    manifest = {
        "format": 1, "name": shape, "version": "0.0.1", "base": "base",
        "adapter": "adapter" if adapter else None, "head": "head", "prefix": prefix,
        "tenants": {tenant: {"adapter": f"{tenant}/adapter", "head": f"{tenant}/head"} for tenant in tenants},
    }  # fmt: skip
    (folder / "release.json").write_text(json.dumps(manifest))
    return folder


def merged_release(folder: Path, source: Path, tenant: str) -> Path:
    """A release of one tenant of `source` alone: its adapter, which is then merged, and its head."""
    manifest = json.loads((source / "release.json").read_text())
    parts = {"base": manifest["base"], **manifest.pop("tenants")[tenant]}
    folder.mkdir(parents=True)
    absolute = {name: str(source / part) for name, part in parts.items()}
    (folder / "release.json").write_text(json.dumps(manifest | absolute))
    return folder


def _save_adapter(model: Qwen2ForCausalLM, folder: Path, **lora: Any) -> None:
    adapted = get_peft_model(model, LoraConfig(init_lora_weights=False, **lora))
    adapted.save_pretrained(folder, save_embedding_layers=False)
    adapted.unload()


def _save_head(folder: Path, hidden: int) -> None:
    head = FusionHead(
        HeadSpec(
            format=1, hidden_size=hidden, width=16, tokens_max=128,
            features=[
                NumericInput(name="amount_base", edges=[0.0, 100.0, 10_000.0]),
                NumericInput(name="is_new_counterparty", edges=[0.0, 1.0]),
                NumericInput(name="transfers_1d", edges=[0.0, 2.0, 10.0]),
            ],
            typologies=["scam", "mule"], calibration=Platt(slope=1.5, offset=-0.5),
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(0, 0.3)
    head.save(folder)


def request_of(
    *texts: str, account_id: str = "a-1", features: dict[str, Scalar] | None = None, tenant: str | None = None
) -> ScoreRequest:
    """A timeline of these lines, each at the same time."""
    lines = tuple(Line("message", AT, text) for text in texts)
    return ScoreRequest(Timeline(account_id, 1, lines), FEATURES if features is None else features, tenant)

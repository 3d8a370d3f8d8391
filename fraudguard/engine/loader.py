"""A release's folders to modules in memory: base, adapters, heads, tokenizer, checked against each other.

Knows transformers and peft. Only safetensors are read and no code of a checkpoint is run. The adapter is merged before
anything is quantized: merging into a quantized base loses precision. Adapters of several tenants stay beside the base.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora import Embedding, Linear, LoraLayer
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging as transformers_logging

from fraudguard.engine.adapters import LowRank
from fraudguard.engine.head import FusionHead, load_head, load_tenants
from fraudguard.engine.precision import Precision
from fraudguard.engine.quantization import SCHEMES, Range, quantize
from fraudguard.engine.qwen2 import Qwen2
from fraudguard.engine.release import Release
from fraudguard.engine.tokenizer import LineTokenizer, open_tokenizer
from fraudguard.errors import BadModel

# Where it is installed (for QLoRA), peft imports it, and it says that it has no kernel that nobody here uses.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

_RANGES = TypeAdapter(dict[str, Range])


@dataclass(frozen=True, slots=True)
class Loaded:
    """backbone: in the precision and on the device asked for. head: float32, on the CPU; so are the tenants'.

    prefix: the ids that it reads before every timeline. Without tenants the adapter is merged. With them the backbone
    has the release's own as number 0, or nothing there, and the tenants' from 1 on, in this order.
    """

    backbone: Qwen2
    head: FusionHead
    tokenizer: LineTokenizer
    prefix: tuple[int, ...] = ()
    tenants: Mapping[str, FusionHead] = field(default_factory=dict)


def load(release: Release, precision: Precision, device: str = "cpu") -> Loaded:
    """Everything needed to score. Raises BadModel when a part is missing, damaged or does not fit the others."""
    if release.graph is not None:
        raise BadModel("this is an ONNX release", path=str(release.graph), hint="give the release that it was made of")
    tokenizer = open_tokenizer(release.base)
    head = load_head(release.head).requires_grad_(False)
    tenants = load_tenants(release.tenants, head)
    model = load_base(release.base)
    config = model.config
    if head.spec.hidden_size != config.hidden_size:
        raise BadModel(
            f"the head reads hidden states of {head.spec.hidden_size}, the base has {config.hidden_size}",
            path=str(release.head),
            hint="the head was trained on another base",
        )
    prefix = tokenizer.encode_prefix(release.prefix)
    check_fit(config, tokenizer, len(prefix), head.spec.tokens_max, release.base)
    beside: list[dict[str, LowRank]] = []
    if release.tenants:
        folders = [release.adapter, *(tenant.adapter for tenant in release.tenants.values())]
        beside = [{} if folder is None else low_rank(model, folder) for folder in folders]
    else:
        model = _merged(model, release)
    kept = torch.float32 if precision == "fp32" or precision in SCHEMES else torch.bfloat16
    backbone = Qwen2.of(model.model.to(kept)).to(device)
    ranges = _ranges(release, backbone) if precision in SCHEMES and SCHEMES[precision].calibrated else None
    quantize(backbone, precision, ranges)
    if beside:
        backbone.adapt(beside)
    return Loaded(backbone, head, tokenizer, prefix, tenants)


def check_fit(config: Qwen2Config, tokenizer: LineTokenizer, prefix: int, tokens_max: int, folder: Path) -> None:
    """Raises BadModel unless the base in the folder can read this tokenizer's ids, tokens_max after so many before."""
    if prefix + tokens_max > config.max_position_embeddings:
        after = f" after a prefix of {prefix}" if prefix else ""
        raise BadModel(
            f"the head reads {tokens_max} tokens{after}, the base only {config.max_position_embeddings}",
            path=str(folder),
        )
    if tokenizer.vocabulary > config.vocab_size:
        raise BadModel(
            f"the tokenizer has {tokenizer.vocabulary} ids, the base only {config.vocab_size} embeddings",
            path=str(folder),
        )


def _ranges(release: Release, backbone: nn.Module) -> dict[str, Range]:
    """What each linear layer was seen to read. Raises BadModel."""
    hint = "python -m finetune.calibrate_activations RELEASE takes them"
    if release.activations is None:
        raise BadModel("the release has no ranges of activations", path=str(release.head.parent), hint=hint)
    path = str(release.activations)
    try:
        ranges = _RANGES.validate_json(release.activations.read_bytes())
    except (OSError, ValidationError) as error:
        raise BadModel("there are no readable ranges of activations", path=path, hint=hint) from error
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Linear) and name not in ranges:
            raise BadModel(f"the ranges lack {name}", path=path, hint=hint)
    return ranges


def load_base(folder: Path, dtype: torch.dtype = torch.float32) -> Qwen2ForCausalLM:
    """A Qwen2.5 or DeepSeek-R1-Distill-Qwen checkpoint, every weight of its body found. Raises BadModel."""
    try:
        kind = json.loads((folder / "config.json").read_bytes())["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadModel("there is no readable config.json with a model_type", path=str(folder)) from error
    if kind != "qwen2":
        raise BadModel(f"the base is a {kind!r} model", path=str(folder), hint="it must be qwen2 (Qwen2, Qwen2.5)")
    if not any(folder.glob("*.safetensors")):
        raise BadModel("there are no .safetensors weights", path=str(folder), hint="convert other formats first")
    transformers_logging.disable_progress_bar()
    try:
        config = Qwen2Config.from_pretrained(folder, local_files_only=True)
        model, found = Qwen2ForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers, safetensors and torch raise kinds of their own
        raise BadModel(f"the base cannot be loaded: {error}", path=str(folder)) from error
    if config.rope_parameters["rope_type"] != "default" or config.hidden_act != "silu":
        kinds = f"{config.rope_parameters['rope_type']!r} positions, {config.hidden_act!r} activations"
        raise BadModel(f"the base has {kinds}", path=str(folder), hint="plain Qwen2 has 'default' and 'silu'")
    # transformers would fill what is missing with random numbers. The vocabulary's head is not used.
    missing = sorted(set(found["missing_keys"]) - {"lm_head.weight"})
    if missing:
        raise BadModel(f"the base lacks {len(missing)} weights, such as {missing[0]}", path=str(folder))
    return model


def load_merged(release: Release) -> Qwen2ForCausalLM:
    """The release's base in float32, its own adapter merged. Raises BadModel."""
    return _merged(load_base(release.base), release)


def _merged(base: Qwen2ForCausalLM, release: Release) -> Qwen2ForCausalLM:
    if release.adapter is None:
        return base
    with _quiet():
        return attach(base, release.adapter).merge_and_unload()


def attach(model: nn.Module, folder: Path) -> PeftModel:
    """The model with the LoRA adapter on it, not merged, every tensor of the file used. Raises BadModel."""
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise BadModel("there is no adapter_model.safetensors", path=str(folder), hint="pickled adapters are refused")
    try:
        kind = json.loads((folder / "adapter_config.json").read_bytes())["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadModel("there is no readable adapter_config.json with a peft_type", path=str(folder)) from error
    if kind != "LORA":
        raise BadModel(f"the adapter is {kind!r}", path=str(folder), hint="only LoRA can be merged")
    try:
        with _quiet():
            adapted = PeftModel.from_pretrained(model, folder)
        with safe_open(weights, framework="pt") as file:
            stored = set(file.keys())
    except Exception as error:  # peft and torch raise kinds of their own, a wrong shape among them
        raise BadModel(f"the adapter does not fit the base: {error}", path=str(folder)) from error
    # peft only warns about names that it does not find.
    needed = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    known = set(get_peft_model_state_dict(adapted, save_embedding_layers=True))
    stray = sorted((needed - stored) | (stored - known))
    if stray:
        raise BadModel(f"the adapter does not fit the base: {len(stray)} tensors differ, {stray[0]}", path=str(folder))
    return adapted


def low_rank(base: Qwen2ForCausalLM, folder: Path) -> dict[str, LowRank]:
    """What the adapter adds to modules of the base's body, by their names; the base stays as it is. Raises BadModel."""
    adapted = attach(base, folder)
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        stored = set(file.keys())
    # DoRA's magnitudes, biases, whole modules: more than products beside the weights.
    kinds = "lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B"
    more = sorted(name for name in stored if not name.endswith(kinds))
    if adapted.peft_config["default"].layer_replication:
        more.append("layer_replication")
    found: dict[str, LowRank] = {}
    for name, module in adapted.base_model.model.model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        if type(module) not in (Linear, Embedding) or module.lora_variant:
            more.append(name)
        elif isinstance(module, Embedding):
            (down,), (up,) = module.lora_embedding_A.values(), module.lora_embedding_B.values()
            found[name] = LowRank(down.detach(), up.detach() * module.scaling["default"])
        else:
            (down,), (up,) = module.lora_A.values(), module.lora_B.values()
            found[name] = LowRank(down.weight.detach(), up.weight.detach() * module.scaling["default"])
    if more:
        raise BadModel(
            f"the adapter is more than LoRA of linear layers and embeddings: it has {more[0]}",
            path=str(folder),
            hint="it can only be merged: make it the adapter of a release without tenants",
        )
    adapted.unload()
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """peft warns that adapting tied embeddings changes the vocabulary's head too, which is not used here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model (has|with) `tie_word_embeddings=True`")
        yield

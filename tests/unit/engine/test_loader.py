"""The loader: real checkpoint layouts, merged adapters, and refusals that say what does not fit."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, Qwen2Model

from fraudguard.engine.attention import Span
from fraudguard.engine.loader import attach, load, load_base
from fraudguard.engine.precision import Precision
from fraudguard.engine.quantization import Int8Linear
from fraudguard.engine.qwen2 import Qwen2
from fraudguard.engine.release import open_release
from fraudguard.errors import BadModel

IDS = torch.arange(3, 43).reshape(2, 20)


def hidden(backbone: Qwen2) -> torch.Tensor:
    """The final states of IDS, [row, token, hidden]."""
    slots = np.arange(IDS.numel()).reshape(IDS.shape)
    spans = [Span(0, row, range(len(row))) for row in slots]
    return backbone(IDS.flatten(), spans, backbone.new_pool(IDS.numel())).view(*IDS.shape, -1)


@pytest.mark.parametrize("shape", ["qwen25", "r1_distill", "starter"])
@torch.inference_mode()
def test_merged_equals_unmerged(ready_releases: Callable[[str], Path], shape: str) -> None:
    """fp32: the backbone gives what peft gives with the adapter beside the base (1e-4), and not the bare base."""
    release = open_release(ready_releases(shape))
    assert release.adapter is not None
    merged = hidden(load(release, "fp32").backbone)
    beside = attach(load_base(release.base), release.adapter).eval().base_model.model.model(input_ids=IDS)
    bare = load_base(release.base).eval().model(input_ids=IDS).last_hidden_state
    torch.testing.assert_close(merged, beside.last_hidden_state, atol=1e-4, rtol=1e-4)
    assert (merged - bare).abs().max() > 0.05


@torch.inference_mode()
def test_the_starter_merges_as_peft_runs_it() -> None:
    """The shipped weights, tied embeddings adapted too, agree within 1e-4."""
    release = open_release("starter")
    assert release.adapter is not None
    merged = hidden(load(release, "fp32").backbone)
    beside = attach(load_base(release.base), release.adapter).eval().base_model.model.model(input_ids=IDS)
    torch.testing.assert_close(merged, beside.last_hidden_state, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_base_of_the_bare_body_loads(make_release: Callable[..., Path]) -> None:
    """A checkpoint saved without the vocabulary's head, in float16, is the same body."""
    folder = make_release(adapter=False)
    whole = hidden(load(open_release(folder), "fp32").backbone)
    bare = Qwen2Model.from_pretrained(folder / "base").to(torch.float16)
    bare.save_pretrained(folder / "base")
    again = hidden(load(open_release(folder), "fp32").backbone)
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, whole, atol=0.05, rtol=0.05)


def _rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _refused(folder: Path, message: str) -> None:
    with pytest.raises(BadModel, match=message):
        load(open_release(folder), "fp32")


def test_another_architecture_is_refused(make_release: Callable[..., Path]) -> None:
    """Only Qwen2 bodies are read."""
    folder = make_release()
    BertConfig().save_pretrained(folder / "base")
    _refused(folder, "the base is a 'bert' model.*qwen2")


def test_scaled_positions_are_refused(make_release: Callable[..., Path]) -> None:
    """YaRN and the like would be read as if they were plain."""
    folder = make_release()
    scaled = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
    _rewrite(folder / "base" / "config.json", rope_parameters=scaled)
    _refused(folder, "'linear' positions.*plain Qwen2")


def test_missing_weights_are_refused(make_release: Callable[..., Path]) -> None:
    """No file, or a file that lacks a tensor: never random weights."""
    folder = make_release()
    file = folder / "base" / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    _refused(folder, r"lacks 1 weights, such as model\.layers\.1\.mlp\.up_proj\.weight")
    file.unlink()
    _refused(folder, r"no \.safetensors weights")


def test_a_damaged_file_is_refused(make_release: Callable[..., Path]) -> None:
    """Half a file is not a checkpoint."""
    folder = make_release()
    file = folder / "base" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    _refused(folder, "the base cannot be loaded")


def test_pickled_weights_are_refused(make_release: Callable[..., Path]) -> None:
    """A checkpoint or adapter that would have to be unpickled is not opened."""
    folder = make_release()
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    torch.save(tensors, folder / "adapter" / "adapter_model.bin")
    (folder / "adapter" / "adapter_model.safetensors").unlink()
    _refused(folder, "pickled adapters are refused")


def test_code_in_a_checkpoint_is_not_run(make_release: Callable[..., Path], tmp_path: Path) -> None:
    """A config that points at Python beside it loads the known classes instead."""
    folder = make_release()
    (folder / "base" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    _rewrite(folder / "base" / "config.json", auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"})
    load(open_release(folder), "fp32")
    assert not (tmp_path / "ran").exists()


def test_an_adapter_of_another_base_is_refused(
    make_release: Callable[..., Path], ready_releases: Callable[[str], Path]
) -> None:
    """Tensors of other shapes do not fit."""
    folder = make_release(hidden=96)
    release = open_release(folder)
    other = open_release(ready_releases("starter"))
    assert other.adapter is not None
    with pytest.raises(BadModel, match="the adapter does not fit the base"):
        attach(load_base(release.base), other.adapter)


def test_an_adapter_with_unknown_tensors_is_refused(make_release: Callable[..., Path]) -> None:
    """peft would only warn about a tensor that no layer takes, or one that is missing."""
    folder = make_release()
    file = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name.replace("layers.0", "layers.9")] = tensors.pop(name)
    save_file(tensors, file)
    _refused(folder, "2 tensors differ")


CALIBRATED: tuple[Precision, ...] = ("int8-tensor", "int8-tensor-asymmetric")


@pytest.mark.parametrize("precision", CALIBRATED)
def test_a_calibrated_precision_needs_ranges(make_release: Callable[..., Path], precision: Precision) -> None:
    """Of a release without, damaged or incomplete ones the error says which command takes them."""
    folder = make_release()
    needs = r"finetune\.calibrate_activations RELEASE"
    with pytest.raises(BadModel, match=f"has no ranges of activations.*{needs}"):
        load(open_release(folder), precision)
    _rewrite(folder / "release.json", activations="activations.json")
    for content in (None, '{"layers.0.qkv": [1]}', "[", '{"layers.0.qkv": ["a", 2]}'):
        if content is not None:
            (folder / "activations.json").write_text(content)
        with pytest.raises(BadModel, match=f"activations.json: there are no readable ranges.*{needs}"):
            load(open_release(folder), precision)
    (folder / "activations.json").write_text('{"layers.0.qkv": [-1.0, 2.0]}')
    with pytest.raises(BadModel, match=f"the ranges lack layers.*{needs}"):
        load(open_release(folder), precision)
    load(open_release(folder), "int8")  # which needs none


def test_the_starter_brings_ranges() -> None:
    """Every linear layer of it is calibrated."""
    for precision in CALIBRATED:
        layers = [
            layer
            for layer in load(open_release("starter"), precision).backbone.modules()
            if isinstance(layer, Int8Linear)
        ]
        assert len(layers) == 16
        assert all(layer.step is not None for layer in layers)


def test_another_kind_of_adapter_is_refused(make_release: Callable[..., Path]) -> None:
    """Prompt tuning and the like cannot be merged."""
    folder = make_release()
    _rewrite(folder / "adapter" / "adapter_config.json", peft_type="IA3")
    _refused(folder, "the adapter is 'IA3'.*only LoRA")


def test_a_head_of_another_base_is_refused(make_release: Callable[..., Path]) -> None:
    """The head's hidden size must be the base's."""
    folder = make_release()
    _rewrite(folder / "head" / "head.json", hidden_size=64)
    _refused(folder, "does not fit head.json")


def test_hidden_sizes_must_agree(make_release: Callable[..., Path], ready_releases: Callable[[str], Path]) -> None:
    """A whole head that was trained on another base is named as such."""
    folder = make_release(hidden=96)
    _rewrite(folder / "release.json", head=str(ready_releases("starter") / "head"), adapter=None)
    _refused(folder, "reads hidden states of 48, the base has 96")


def test_more_tokens_than_positions_are_refused(make_release: Callable[..., Path]) -> None:
    """A head that reads longer timelines than the base can place is refused."""
    folder = make_release()
    _rewrite(folder / "head" / "head.json", tokens_max=257)
    _refused(folder, "reads 257 tokens, the base only 256")


def test_a_prefix_needs_positions_too(make_release: Callable[..., Path]) -> None:
    """Both together may fill the base's positions, and no more."""
    folder = make_release(prefix="a" * 100)
    tokens = len(load(open_release(folder), "fp32").prefix)
    head = folder / "head" / "head.json"
    _rewrite(head, tokens_max=256 - tokens)
    assert load(open_release(folder), "fp32").head.spec.tokens_max == 256 - tokens
    _rewrite(head, tokens_max=257 - tokens)
    _refused(folder, f"reads {257 - tokens} tokens after a prefix of {tokens}, the base only 256")


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(make_release: Callable[..., Path]) -> None:
    """An id without an embedding would crash in the forward pass."""
    folder = make_release()
    file = folder / "base" / "tokenizer.json"
    content = json.loads(file.read_text())
    token = {"id": 512, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"].append({**token, "special": True})
    content["model"]["vocab"]["<x>"] = 512
    file.write_text(json.dumps(content))
    _refused(folder, "has 513 ids, the base only 512")

"""The LoRA step on a GPU, in bfloat16: packed as one by one, near the CPU's in float32, and through the recipe."""

from pathlib import Path

import pytest
import torch
from finetune_support import lora_settings, make_base, make_dataset, make_timelines, write_recipe
from transformers import Qwen2Config, Qwen2ForCausalLM

from finetune import lora
from finetune.adapt import TYPOLOGIES, Learner, new_adapter, new_head, samples
from finetune.dataset import passages
from finetune.four_bit import in_four_bits
from finetune.objective import Objective
from finetune.packing import Row, hidden_states
from finetune.recipe import LoraRecipe
from fraudguard.engine.engine import Engine
from fraudguard.engine.loader import load_base
from fraudguard.engine.tokenizer import LineTokenizer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
GPU = torch.device("cuda")


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of two tensors of one shape."""
    return float(torch.cosine_similarity(one.flatten().double(), other.flatten().double(), 0))


@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(14, 2, 64), (28, 4, 128)], ids=["0.5B-like", "7B-like"])
def test_packed_equals_one_by_one(heads: int, kv_heads: int, dim: int, window: int | None) -> None:
    """States and gradients in bfloat16 are those of transformers' own pass over each passage, but for rounding."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=1_000, hidden_size=heads * dim, num_hidden_layers=3, num_attention_heads=heads,
        num_key_value_heads=kv_heads, intermediate_size=2 * heads * dim, use_sliding_window=window is not None,
        sliding_window=window, max_window_layers=1,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).to(GPU, torch.bfloat16).eval()
    made = [torch.randint(1_000, (length,)) for length in (7, 200, 1, 333)]
    weight = model.model.embed_tokens.weight
    alone = torch.cat([model.model(input_ids=ids[None].to(GPU)).last_hidden_state[0] for ids in made])
    direction = torch.randn(alone.shape, device=GPU)
    wanted = torch.autograd.grad((alone * direction).sum(), weight)[0]
    packed = hidden_states(model, Row.of(made, GPU))[: len(alone)]
    found = torch.autograd.grad((packed * direction).sum(), weight)[0]
    assert cosine(packed, alone) > 0.999
    assert cosine(found, wanted) > 0.99


@pytest.mark.parametrize("four_bit", [False, True], ids=["lora", "qlora"])
def test_a_step_is_that_of_the_cpu(tmp_path: Path, four_bit: bool) -> None:
    """Its loss and its gradients, within what bfloat16 rounds."""
    base = make_base(tmp_path / "base")
    recipe = LoraRecipe.model_validate(lora_settings(dropout=0.0))
    data = samples(passages(make_timelines(9, 1), LineTokenizer(base), 96), LineTokenizer(base))
    found = []
    for device, dtype in ((torch.device("cpu"), torch.float32), (GPU, torch.bfloat16)):
        model = load_base(base, dtype)
        if four_bit:
            model = in_four_bits(model, dtype, device)
        torch.manual_seed(0)
        adapted = new_adapter(model, recipe.adapter).to(device)
        head = new_head(data, model.config.hidden_size, recipe.head, 96).to(device).requires_grad_(True)
        head.mlp[2].p = 0.0
        objective = Objective.of(data, len(TYPOLOGIES), 0.5, 0.1, 0.1)
        torch.manual_seed(0)
        loss = Learner(adapted, head, objective, 0.1, bfloat16=dtype == torch.bfloat16).backward([data])
        gradients = [one.grad.cpu() for one in [*adapted.parameters(), *head.parameters()] if one.grad is not None]
        found.append((loss, gradients))
    (wanted_loss, wanted), (loss, gradients) = found
    assert loss == pytest.approx(wanted_loss, abs=0.02)
    for one, other in zip(gradients, wanted, strict=True):
        assert not other.any() or cosine(one, other) > 0.95


@pytest.mark.parametrize("four_bit", [False, True], ids=["lora", "qlora"])
def test_the_recipe_ends_in_a_release(tmp_path: Path, four_bit: bool) -> None:
    """Trained on the GPU, in bfloat16, with checkpointing; served on the CPU."""
    changes = {"device": "cuda", "bfloat16": "auto", "four_bit": four_bit, "gradient_checkpointing": True}
    recipe = write_recipe(tmp_path / "tiny.yaml", **changes)
    data, base, out = make_dataset(tmp_path / "data"), make_base(tmp_path / "base"), tmp_path / "out"
    lora.main([str(recipe), "--dataset", str(data), "--base", str(base), "--out", str(out)])
    assert Engine.load(out, "fp32").name == "tiny@0.0.1+fp32"

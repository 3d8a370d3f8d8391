"""Pruning: what does nothing goes without a trace, and what is left is a Qwen2 that everyone loads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from releases import make_release
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from finetune.pruning import Shares, choose, importance, pruned, pruned_head
from finetune.recovery import save_base
from fraudguard.engine.attention import Span
from fraudguard.engine.head import load_head
from fraudguard.engine.loader import load_base
from fraudguard.engine.qwen2 import Qwen2
from fraudguard.engine.release import open_release

IDS = [torch.randint(200, (40,), generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
NOTHING = Shares(layers=0, heads=0, intermediate=0, hidden=0)
THIRD = Shares(layers=0.34, heads=0.34, intermediate=0.34, hidden=0.34)


def model_of(kv_heads: int = 2, heads: int = 6, *, tied: bool = True) -> Qwen2ForCausalLM:
    """Three layers, random."""
    torch.manual_seed(0)
    return (
        Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=200, hidden_size=96, num_hidden_layers=3, num_attention_heads=heads,
                num_key_value_heads=kv_heads, head_dim=16, intermediate_size=96, tie_word_embeddings=tied,
                max_position_embeddings=128, initializer_range=0.3,
            )
        )
        .eval()
        .requires_grad_(False)
    )  # fmt: skip


def read(model: Qwen2ForCausalLM) -> Tensor:
    """The last hidden state of every token."""
    with torch.no_grad():
        return torch.cat([model.model(input_ids=ids[None]).last_hidden_state[0] for ids in IDS])


@pytest.mark.parametrize("tied", [True, False])
def test_where_nothing_goes_nothing_changes(tied: bool) -> None:
    """Every weight is where it was."""
    model = model_of(tied=tied)
    found = importance(model, IDS)
    made = pruned(model, choose(found, 2, NOTHING), found)
    torch.testing.assert_close(read(made), read(model), rtol=1e-5, atol=1e-5)
    assert made.config.tie_word_embeddings == tied


@pytest.mark.parametrize("shares", [{"heads": 0.34}, {"intermediate": 0.34}, {"layers": 0.34}])
def test_what_did_nothing_goes_without_a_trace(shares: dict[str, float]) -> None:
    """One head a group, a third of the neurons, or a layer, whose products are zero, are those that go."""
    model = model_of()
    layers = model.model.layers
    for layer in layers:
        if "heads" in shares:
            layer.self_attn.o_proj.weight.view(96, 6, 16)[:, [1, 3]] = 0  # the second of group 0, the first of group 1
        if "intermediate" in shares:
            layer.mlp.down_proj.weight[:, 5:37] = 0
    if "layers" in shares:
        layers[1].self_attn.o_proj.weight.zero_()
        layers[1].mlp.down_proj.weight.zero_()
    found = importance(model, IDS)
    kept = choose(found, 2, NOTHING.model_copy(update=shares))
    made = pruned(model, kept, found)
    torch.testing.assert_close(read(made), read(model), rtol=1e-4, atol=1e-4)
    if "heads" in shares:
        assert [heads.tolist() for heads in kept.heads] == [[0, 2, 4, 5]] * 3
    if "intermediate" in shares:
        assert made.config.intermediate_size == 64
    if "layers" in shares:
        assert kept.layers == [0, 2]


def test_hidden_dimensions_that_are_zero_go_without_a_trace() -> None:
    """The norms are told that the rest is larger now."""
    model = model_of()
    gone = torch.arange(3, 35)
    model.model.embed_tokens.weight[:, gone] = 0
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[gone] = 0
        layer.mlp.down_proj.weight[gone] = 0
    found = importance(model, IDS)
    kept = choose(found, 2, NOTHING.model_copy(update={"hidden": 0.34}))
    assert set(kept.hidden.tolist()) == set(range(96)) - set(gone.tolist())
    made = pruned(model, kept, found)
    torch.testing.assert_close(read(made), read(model)[:, kept.hidden], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "left"), [(6, 2, (4, 2)), (3, 3, (2, 2)), (3, 1, (2, 1)), (2, 2, (1, 1))]
)
def test_heads_go_by_group(heads: int, kv_heads: int, left: tuple[int, int]) -> None:
    """As many of each group; where no two share a key, the key and value go too."""
    model = model_of(kv_heads, heads)
    found = importance(model, IDS)
    made = pruned(model, choose(found, kv_heads, NOTHING.model_copy(update={"heads": 0.34})), found)
    assert (made.config.num_attention_heads, made.config.num_key_value_heads) == left
    assert read(made).isfinite().all()


def test_importance_ignores_nothing_but_order() -> None:
    """The same passages in any order, read together or apart, say the same."""
    model = model_of()
    one, other = importance(model, IDS), importance(model, IDS[::-1])
    for name in ("layers", "heads", "neurons", "hidden"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("shape", ["qwen25", "starter"])
def test_the_checkpoint_is_read_by_all(shape: str, tmp_path: Path) -> None:
    """transformers and the engine read what was pruned as the module did, to float16's rounding of the weights."""
    release = open_release(make_release(tmp_path / "release", shape))
    model = load_base(release.base).eval()
    ids = IDS[0]
    found = importance(model, IDS)
    kept = choose(found, model.config.num_key_value_heads, THIRD)
    made = pruned(model, kept, found)
    save_base(made, release.base, tmp_path / "base")
    for weight in made.parameters():
        weight.data = weight.half().float()  # as rounded for the file
    with torch.no_grad():
        wanted = made.model(input_ids=ids[None]).last_hidden_state[0]
        theirs = Qwen2ForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
        torch.testing.assert_close(theirs.model(input_ids=ids[None]).last_hidden_state[0], wanted)
        body = Qwen2.of(load_base(tmp_path / "base").model)
        ours = body(ids, [Span(0, np.arange(40), range(40))], body.new_pool(40))
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
    assert made.num_parameters() < 0.75 * model.num_parameters()
    assert (tmp_path / "base" / "tokenizer.json").read_bytes() == (release.base / "tokenizer.json").read_bytes()


def test_the_head_reads_what_is_left(tmp_path: Path) -> None:
    """As it would with zeros in place of what is gone; the numbers are read as before."""
    head = load_head(open_release(make_release(tmp_path / "release", "starter")).head)
    size = head.spec.hidden_size
    hidden, states, numbers = torch.arange(0, size, 2), torch.randn(5, size), torch.rand(5, len(head.names))
    zeroed = torch.zeros_like(states)
    zeroed[:, hidden] = states[:, hidden]
    made = pruned_head(head, hidden)
    assert made.spec.hidden_size == len(hidden)
    with torch.no_grad():
        for ours, wanted in zip(made(states[:, hidden], numbers), head(zeroed, numbers), strict=True):
            torch.testing.assert_close(ours, wanted)

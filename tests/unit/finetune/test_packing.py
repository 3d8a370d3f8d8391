"""Passages packed into one row are read as each is alone, and every passage is in one step of an epoch."""

from random import Random
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from finetune.packing import ATTENTION, ROW_STEP, Row, hidden_states, plan

LENGTHS = [7, 50, 1, 33, 64, 12]
SHAPES: dict[str, dict[str, Any]] = {
    "shared keys": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "one key": {"num_attention_heads": 3, "num_key_value_heads": 1},
    "sliding window": {
        "num_attention_heads": 4, "num_key_value_heads": 4,
        "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_equals_one_by_one(shape: str) -> None:
    """States and gradients are those of transformers' own pass over each passage."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=300,
        hidden_size=48,
        num_hidden_layers=3,
        intermediate_size=96,
        initializer_range=0.2,
        **SHAPES[shape],
    )
    model = Qwen2ForCausalLM(config).eval()
    passages = [torch.randint(300, (length,)) for length in LENGTHS]
    alone = torch.cat([model.model(input_ids=ids[None]).last_hidden_state[0] for ids in passages])
    direction = torch.randn(alone.shape)
    wanted = torch.autograd.grad((alone * direction).sum(), model.model.embed_tokens.weight)[0]
    packed = hidden_states(model, Row.of(passages, torch.device("cpu")))[: sum(LENGTHS)]
    gradient = torch.autograd.grad((packed * direction).sum(), model.model.embed_tokens.weight)[0]
    assert alone.abs().max() > 1
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)
    assert wanted.abs().max() > 1
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)


def test_a_passage_does_not_see_its_neighbours() -> None:
    """Another first passage changes nothing behind it."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=300, hidden_size=48, num_hidden_layers=2, intermediate_size=96, **SHAPES["shared keys"]
    )
    model = Qwen2ForCausalLM(config)
    first, other, second = (torch.randint(300, (20,)) for _ in range(3))
    rows = [hidden_states(model.eval(), Row.of([one, second], torch.device("cpu"))) for one in (first, other)]
    assert not torch.equal(rows[0][:20], rows[1][:20])
    torch.testing.assert_close(rows[0][20:40], rows[1][20:40], rtol=0, atol=0)


def test_a_row_has_a_round_length() -> None:
    """What fills it up is a passage of its own, after the others."""
    row = Row.of([torch.arange(5), torch.arange(30)], torch.device("cpu"))
    assert row.lengths == (5, 30, 2 * ROW_STEP - 35)
    assert row.positions[0].tolist() == [*range(5), *range(30), *range(2 * ROW_STEP - 35)]
    assert row.starts.tolist() == [0, 5, 35, 2 * ROW_STEP]


def test_an_epoch_has_every_passage_once() -> None:
    """Steps and rows keep to their tokens, where a single passage is not longer; rows do not change the steps."""
    lengths = [Random(1).randrange(1, 60) for _ in range(200)] + [500]
    steps = list(plan(lengths, 256, 100, Random(0)))
    assert sorted(number for step in steps for row in step for number in row) == list(range(201))
    assert steps != list(plan(lengths, 256, 100, Random(1)))
    for step in steps:
        for row in step:
            assert sum(lengths[number] for number in row) <= 100 or row == [200]
        in_step = [number for row in step for number in row]
        assert sum(lengths[number] for number in in_step) <= 256 or in_step == [200]
    whole = plan(lengths, 256, 256, Random(0))
    assert [[[number for row in step for number in row]] for step in steps] == list(whole)


def test_the_gpu_gets_one_call() -> None:
    """Its kernel takes these arguments and gives this shape; what it computes is tests/gpu's to say."""
    with FakeTensorMode():
        query, key, value = (torch.empty(1, heads, 96, 64, device="cuda", dtype=torch.bfloat16) for heads in (14, 2, 2))
        starts = torch.zeros(3, dtype=torch.int32, device="cuda")
        row = Row(torch.empty(1, 96, device="cuda"), torch.empty(1, 96, device="cuda"), starts, (50, 46))
        mixed, _ = ALL_ATTENTION_FUNCTIONS[ATTENTION](None, query, key, value, None, scaling=0.1, packed=row)
        assert (mixed.shape, mixed.device.type) == ((1, 96, 14, 64), "cuda")

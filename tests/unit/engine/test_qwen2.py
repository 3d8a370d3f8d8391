"""The own forward pass against transformers', for every batch composition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2Model

from fraudguard.engine.attention import Span
from fraudguard.engine.loader import load_base
from fraudguard.engine.qwen2 import Qwen2
from fraudguard.engine.release import open_release

CAPACITY = 64


def random_model(heads: int, kv_heads: int, layers: int, theta: float, window: int | None = None) -> Qwen2Model:
    """Random weights, biases too, large enough that every part counts."""
    torch.manual_seed(heads * 100 + kv_heads)
    config = Qwen2Config(
        vocab_size=300, hidden_size=heads * 16, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, intermediate_size=72, max_position_embeddings=CAPACITY,
        initializer_range=0.2, rope_parameters={"rope_type": "default", "rope_theta": theta}, rms_norm_eps=1e-5,
        use_sliding_window=window is not None, sliding_window=window, max_window_layers=1,
    )  # fmt: skip
    model = Qwen2Model(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.normal_(0.5, 0.3)
    return model


MODELS = {
    "7B-like": random_model(8, 2, 2, 1e6),
    "0.5B-like": random_model(6, 1, 3, 1e6),
    "one layer": random_model(2, 2, 1, 1e4),
    "sliding window": random_model(4, 2, 3, 1e6, window=9),
    "starter": load_base(open_release("starter").base).model.eval(),
}
OURS = {name: Qwen2.of(model) for name, model in MODELS.items()}
# A timeline: how long it is, how its tokens come in passes, and which ends are wanted.
TIMELINE = st.tuples(st.integers(1, CAPACITY), st.lists(st.integers(1, 20), max_size=4), st.integers(0, 1000))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=25, deadline=None)
@given(timelines=st.lists(TIMELINE, min_size=1, max_size=6))
@torch.inference_mode()
def test_every_batch_gives_what_transformers_gives(name: str, timelines: list[tuple[int, list[int], int]]) -> None:
    """fp32, 1e-4: packed with others, in one pass or continued over several, at any ends."""
    ours, theirs = OURS[name], MODELS[name]
    rows = [torch.randint(0, 300, (length,), generator=torch.manual_seed(seed)) for length, _, seed in timelines]
    want = [theirs(input_ids=row[None], use_cache=False).last_hidden_state[0] for row in rows]
    pool = ours.new_pool(CAPACITY * len(rows))
    rooms = np.random.default_rng(len(rows)).permutation(CAPACITY * len(rows)).reshape(len(rows), CAPACITY)
    past = [0] * len(rows)
    for step in range(5):
        spans, ids, expected = [], [], []
        for number, (length, pieces, seed) in enumerate(timelines):
            left = length - past[number]
            count = min(left, pieces[step]) if step < len(pieces) else left
            if count == 0:
                continue
            ends = sorted({(seed + k) % count for k in range(seed % 3)})
            spans.append(Span(past[number], rooms[number][: past[number] + count], ends))
            ids.append(rows[number][past[number] : past[number] + count])
            expected += [want[number][past[number] + end] for end in ends]
            past[number] += count
        if not spans:
            break
        given_states = ours(torch.cat(ids), spans, pool)
        assert given_states.shape == (len(expected), ours.shape.hidden)
        if expected:
            torch.testing.assert_close(given_states, torch.stack(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sizes", [(20,), (1, 1, 18), (12, 7, 1)])
@torch.inference_mode()
def test_extending_is_the_packed_pass_for_one_timeline(name: str, sizes: tuple[int, ...]) -> None:
    """In pieces of any size, the last hidden state and all keys and values are those of one packed pass."""
    ours, ids, slots = OURS[name], torch.arange(20), np.arange(20)
    pool = ours.new_pool(20)
    want = ours(ids, [Span(0, slots, [19])], pool)
    past = ours.new_pool(0)
    for piece in ids.split(list(sizes)):
        hidden, new = ours.extend(piece, past)
        past = torch.cat((past, new), dim=1)
    torch.testing.assert_close(hidden, want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(past, pool, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_one_timeline_may_come_in_two_spans_of_a_pass() -> None:
    """The second sees the first's tokens."""
    ours, theirs = OURS["7B-like"], MODELS["7B-like"]
    row = torch.arange(20)
    slots = np.arange(20)
    states = ours(row, [Span(0, slots[:12], [11]), Span(12, slots, [7])], ours.new_pool(20))
    want = theirs(input_ids=row[None], use_cache=False).last_hidden_state[0]
    torch.testing.assert_close(states, want[[11, 19]], atol=1e-4, rtol=1e-4)

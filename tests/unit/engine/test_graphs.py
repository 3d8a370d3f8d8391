"""Static passes give what the plain pass gives, whatever fills up a bucket; on the CPU, in Triton's interpreter."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.engine.adapters import LowRank
from fraudguard.engine.attention import Gathered, Span
from fraudguard.engine.qwen2 import Qwen2, Shape

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
LONGEST = 60
SHAPES = {
    "GQA of 7": Shape(50, 112, 2, 7, 1, 16, 40, LONGEST, 1e4, 1e-6, (None, None)),
    "GQA of 2, a window": Shape(50, 48, 3, 4, 2, 12, 40, LONGEST, 1e4, 1e-6, (None, 9, 5)),
    "no GQA": Shape(50, 64, 1, 2, 2, 32, 40, LONGEST, 1e4, 1e-6, (None,)),
}


@pytest.fixture(scope="module", autouse=True)
def graphs() -> Iterator[ModuleType]:
    """engine/graphs.py with its kernel interpreted: the way of a kernel is chosen when its module is imported."""
    names = tuple(f"fraudguard.engine.{name}" for name in ("paged_attention", "fused", "graphs"))
    kept = {name: sys.modules.pop(name, None) for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        yield importlib.import_module(names[-1])
    for name, module in kept.items():
        sys.modules.pop(name)
        if module is not None:
            sys.modules[name] = module


def model_of(shape: Shape) -> Qwen2:
    """Random weights, large enough that every part counts."""
    torch.manual_seed(1)
    model = Qwen2(shape).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.3)
    return model


def adapted(shape: Shape) -> Qwen2:
    """The same with three adapters beside it, the second of them nothing."""
    model = model_of(shape)
    some = {"layers.0.self_attn.v_proj": (shape.kv_heads * shape.head_dim, shape.hidden), "embed_tokens": (112, 50)}
    others = {"layers.1.mlp.up_proj": (40, 112), "layers.1.mlp.down_proj": (112, 40)}
    random = [
        {name: LowRank(torch.randn(3, wide), torch.randn(high, 3)) for name, (high, wide) in names.items()}
        for names in (some, {}, others)
    ]
    model.adapt(random)
    return model


MODELS = {name: model_of(shape) for name, shape in SHAPES.items()} | {"adapters": adapted(SHAPES["GQA of 7"])}
# A timeline: how many tokens are kept, how many are new, which of these are read.
TIMELINE = st.tuples(st.integers(0, 30), st.integers(1, 30), st.sets(st.integers(0, 29), max_size=4))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8, deadline=None)
@given(timelines=st.lists(TIMELINE, min_size=1, max_size=5))
@torch.inference_mode()
def test_a_static_pass_is_the_plain_one(
    graphs: ModuleType, name: str, timelines: list[tuple[int, int, set[int]]]
) -> None:
    """Hidden states and what is written into the pool, 1e-4, one pass after another through the same buffers."""
    model, places = MODELS[name], LONGEST * len(timelines)
    pools = [model.new_pool(places + 1) for _ in range(2)]
    passes = graphs.Passes(model, pools[1], LONGEST, graphs=False)
    rooms = np.random.default_rng(places).permutation(places).reshape(-1, LONGEST)
    for kept in (True, False):
        spans, ids = [], []
        for number, (room, (past, count, ends)) in enumerate(zip(rooms, timelines, strict=True)):
            adapter = number % max(1, model.adapters)
            if kept and past:
                spans.append(Span(0, room[:past], [], adapter))
                ids += [(past + n) % 50 for n in range(past)]
            elif not kept:
                wanted = sorted(end for end in ends if end < count)
                spans.append(Span(past, room[: past + count], wanted, adapter))
                ids += [(count + n) % 50 for n in range(count)]
        if not spans:
            continue
        want = model(torch.tensor(ids), spans, pools[0])
        torch.testing.assert_close(passes(ids, spans), want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pools[1][:, :-1], pools[0][:, :-1], atol=1e-4, rtol=1e-4)


def test_too_much_for_one_pass_is_refused(graphs: ModuleType) -> None:
    """More ends than the largest bucket has."""
    model = MODELS["no GQA"]
    passes = graphs.Passes(model, model.new_pool(601), 600, graphs=False)
    with pytest.raises(ValueError, match="600 tokens of 600 requests are too many"):
        passes([0] * 600, [Span(0, np.arange(600), range(600))])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 5e-3)])
@pytest.mark.parametrize("window", [None, 1, 70])
def test_the_kernel_attends_as_its_twin(
    graphs: ModuleType, dtype: torch.dtype, tolerance: float, window: int | None
) -> None:
    """Several blocks of keys, tiles that are not full, ends alone; NaN in places and rows that are nobody's."""
    heads, kv_heads, dim, slots = 14, 2, 64, 700
    torch.manual_seed(3)
    shape = Shape(50, 64, 1, heads, kv_heads, dim, 40, slots, 1e4, 1e-6, (window,))
    kept = torch.randn(slots, 2, kv_heads, dim, dtype=dtype)
    free = np.random.default_rng(0).permutation(slots)
    kept[free[500:]] = torch.nan
    spans, at = [], 0
    for past, count in ((0, 5), (200, 33), (17, 1), (3, 70), (64, 64)):
        spans.append(Span(past, free[at : at + past + count], [0, count - 1] if count > 1 else [0]))
        at += past + count
    count = sum(span.count for span in spans)
    buffers = (torch.zeros(10_000, dtype=torch.int32) for _ in "ab")
    batch = graphs.PackedBatch(graphs.Bucket(256, 64), shape, *buffers, adapted=False)
    batch.fill([0] * count, spans, slots - 1)
    queries = torch.randn(256, heads, dim, dtype=dtype)
    twin = Gathered(torch.zeros(count, dtype=torch.long), spans, queries, adapted=False)
    rows = batch.wanted[: sum(len(span.ends) for span in spans)]
    for ends, asked in ((False, torch.arange(count)), (True, rows)):
        found = batch.attend(queries, kept, window, ends=ends)[asked]
        want = twin.attend(queries[: -(-count // 16) * 16], kept, window, ends=ends)[asked]
        torch.testing.assert_close(found, want, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("capability", "dtype"), [(80, "bf16"), (90, "bf16")])
def test_the_kernels_compile_for_gpus(capability: int, dtype: str) -> None:
    """To machine code, within the shared memory there is, for the shapes of Qwen2.5-0.5B and 7B and for single ends.

    In a process of its own: here kernels are interpreted.
    """
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE, str(capability), dtype]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    shared = [int(line) for line in done.stdout.split()]
    assert len(shared) == 6
    assert max(shared) <= {80: 163, 90: 227}[capability] << 10


COMPILE = """
import sys
import torch, triton
from triton.backends.compiler import GPUTarget
from fraudguard.engine import fused, paged_attention as kernel

dtype = sys.argv[2]
target = GPUTarget("cuda", int(sys.argv[1]), 32)


def compiled(function, signature, constants, **options):
    source = triton.compiler.ASTSource(function, signature | dict.fromkeys(constants, "constexpr"), constants)
    print(triton.compile(source, target=target, options=options).metadata.shared)


pointers = dict.fromkeys(("queries", "kept", "found"), "*" + dtype) | dict.fromkeys(("tiles", "places"), "*i32")
strides = ("query_row", "query_head", "kept_slot", "kept_value", "kept_head", "found_row")
for heads, kv_heads, dim, window in ((14, 2, 64, None), (28, 4, 128, 4096)):
    for tokens in (kernel.tile_tokens(heads, kv_heads), 1):
        kind = torch.float32 if dtype == "fp32" else torch.bfloat16
        constants = kernel.constants(heads, kv_heads, dim, tokens, kind, window)
        signature = pointers | {"scale": "fp32", "window": "i32"} | dict.fromkeys(strides, "i32")
        compiled(kernel._kernel, signature, constants, num_warps=kernel.WARPS, num_stages=kernel.STAGES)
signature = dict.fromkeys(("qkv", "positions", "slots", "cosines", "sines", "queries", "kept"), "*" + dtype)
signature |= {"positions": "*i32", "slots": "*i32", "cosines": "*fp32", "sines": "*fp32"}
signature |= dict.fromkeys(("qkv_row", "kept_slot", "kept_value"), "i32")
compiled(fused._place, signature, {"HEADS": 18, "HEADS_FILLED": 32, "KV_HEADS": 2, "HALF": 32, "HALF_FILLED": 32})
compiled(fused._gated, {"gate_up": "*" + dtype, "found": "*" + dtype, "inner": "i32"}, {"NUMBERS": fused.NUMBERS})
"""

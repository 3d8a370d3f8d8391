"""Forward passes on a GPU: static inputs, one copy there, one copy back, and a CUDA graph for each size of batch.

A small pass costs the CPU more in kernel launches than the GPU in work; a captured graph is launched once. Sizes are
rounded up to a bucket, and what fills it up has no effect. Knows tensors, spans and buckets; knows no account and no
timeline. Everything but the capture itself runs on a CPU too, where the tests compare it with the plain pass.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor

from fraudguard.engine.attention import REQUESTS_PER_PASS, TOKENS_PER_PASS, Span
from fraudguard.engine.fused import gated, place
from fraudguard.engine.paged_attention import TILE_FIELDS, attend, tile_tokens
from fraudguard.engine.qwen2 import Qwen2, Shape

TOKENS: Final = (16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, TOKENS_PER_PASS["cuda"])
REQUESTS: Final = (8, 64, REQUESTS_PER_PASS)
ALIGNMENT: Final = 4  # int32 numbers: Triton compiles a kernel again for pointers that 16 bytes do not divide

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """The most that a pass of this size reads. requests: spans, and ends."""

    tokens: int
    requests: int


BUCKETS: Final = tuple(sorted({Bucket(tokens, min(tokens, most)) for tokens, most in product(TOKENS, REQUESTS)}))


class PackedBatch:
    """A Batch (engine/attention.py) of one bucket, in views of one int32 buffer here and one where the model is.

    Its tensors stay where they are, so a graph that was captured with them reads what was last filled in.
    """

    def __init__(self, bucket: Bucket, shape: Shape, here: Tensor, there: Tensor, *, adapted: bool) -> None:
        """here, there: room for the bucket's parts and its spans' places, on the host (pinned) and on the device.

        adapted: the model has adapters beside its weights.
        """
        self._here, self._there = here, there
        self._tokens_of_tile = tile_tokens(shape.heads, shape.kv_heads)
        sizes = _sizes(bucket, self._tokens_of_tile)
        stops = np.cumsum(list(sizes.values())).tolist()
        self._parts = {name: slice(stop - sizes[name], stop) for name, stop in zip(sizes, stops, strict=True)}
        views = {name: there[part] for name, part in self._parts.items()}
        self.ids, self.wanted = views["ids"], views["wanted"]
        self.adapters = views["adapters"] if adapted else None
        self._positions, self._slots = views["positions"], views["slots"]
        self._tiles, self._end_tiles = (views[name].view(-1, TILE_FIELDS) for name in ("tiles", "end_tiles"))
        self._places_from = stops[-1]
        self._places = there[self._places_from :]

    def fill(self, ids: Sequence[int], spans: Sequence[Span], filler: int) -> None:
        """Make this its content. filler: a place of the pool that nobody reads."""
        here, counts = self._here.numpy(), np.array([span.count for span in spans])
        past, ends = np.array([span.past for span in spans]), [np.array(span.ends, dtype=np.int64) for span in spans]
        places = np.concatenate([span.slots for span in spans])
        rows, begins = _starts(counts), _starts(past + counts)
        here[: self._places_from] = 0
        parts = {name: here[part] for name, part in self._parts.items()}
        parts["ids"][: len(ids)] = ids
        owner, within = _counted(counts)
        parts["positions"][: len(ids)] = past[owner] + within
        parts["slots"][:] = filler
        parts["slots"][: len(ids)] = places[begins[owner] + past[owner] + within]
        parts["adapters"][: len(ids)] = np.array([span.adapter for span in spans])[owner]
        owner, step = _counted(-(-counts // self._tokens_of_tile))
        token = step * self._tokens_of_tile
        taken = np.minimum(counts[owner] - token, self._tokens_of_tile)
        _put(parts["tiles"], rows[owner] + token, taken, past[owner] + token, begins[owner])
        owner, _ = _counted(np.array([len(of_span) for of_span in ends]))
        token = np.concatenate(ends)
        parts["wanted"][: len(token)] = rows[owner] + token
        _put(parts["end_tiles"], rows[owner] + token, np.ones_like(token), past[owner] + token, begins[owner])
        stop = self._places_from + len(places)
        here[self._places_from : stop] = places
        self._there[:stop].copy_(self._here[:stop], non_blocking=True)

    def place(self, qkv: Tensor, cosines: Tensor, sines: Tensor, kept: Tensor) -> Tensor:  # noqa: D102 - see Batch
        return place(qkv, self._positions, self._slots, cosines, sines, kept)

    def gated(self, gate_up: Tensor) -> Tensor:  # noqa: D102 - see Batch
        return gated(gate_up)

    def attend(self, queries: Tensor, kept: Tensor, window: int | None, *, ends: bool) -> Tensor:  # noqa: D102 - see Batch
        if ends:
            return attend(queries, kept, self._end_tiles, self._places, 1, window)
        return attend(queries, kept, self._tiles, self._places, self._tokens_of_tile, window)


def _sizes(bucket: Bucket, tokens_of_tile: int) -> dict[str, int]:
    """How many numbers each part of a batch takes; the spans' places, which are last, come on top."""
    tiles = -(-bucket.tokens // tokens_of_tile) + bucket.requests
    sizes = {
        "ids": bucket.tokens, "positions": bucket.tokens, "slots": bucket.tokens, "adapters": bucket.tokens,
        "wanted": bucket.requests, "tiles": tiles * TILE_FIELDS, "end_tiles": bucket.requests * TILE_FIELDS,
    }  # fmt: skip
    return {name: -(-size // ALIGNMENT) * ALIGNMENT for name, size in sizes.items()}


def _starts(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.cumsum(counts) - counts


def _counted(counts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For counts (2, 3): whose (0, 0, 1, 1, 1), and the how-manieth (0, 1, 0, 1, 2)."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - _starts(counts)[owner]


def _put(tiles: npt.NDArray[np.int32], *fields: npt.NDArray[np.int64]) -> None:
    tiles.reshape(-1, TILE_FIELDS)[: len(fields[0])] = np.stack(fields, axis=1)


class Passes:
    """Runs a model's passes over one pool. For one thread."""

    def __init__(self, model: Qwen2, pool: Tensor, timeline_tokens_max: int, *, graphs: bool) -> None:
        """timeline_tokens_max: of one span with its past. graphs: capture every bucket now; needs a GPU.

        The last place of the pool must be nobody's.
        """
        self._model, self._pool = model, pool
        largest = BUCKETS[-1]
        places = largest.requests * timeline_tokens_max
        size = sum(_sizes(largest, 1).values()) + places
        self._here = torch.zeros(size, dtype=torch.int32, pin_memory=pool.is_cuda)
        self._there = torch.zeros(size, dtype=torch.int32, device=pool.device)
        states = (largest.requests, model.shape.hidden)
        self._states = torch.zeros(states, pin_memory=pool.is_cuda)
        self._captured: dict[Bucket, tuple[PackedBatch, torch.cuda.CUDAGraph, Tensor]] = {}
        if graphs:
            self._capture()

    def _capture(self) -> None:
        """Largest first, so that the smaller ones find room in the memory that all of them share."""
        began, shared = time.perf_counter(), torch.cuda.graph_pool_handle()
        for bucket in track(BUCKETS[::-1], "capturing CUDA graphs", transient=True):
            batch = self._batch(bucket)
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # kernels are compiled and libraries set up outside the capture
                self._model.read(batch, self._pool)
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Another engine may be scoring meanwhile, on a thread of its own: this one is to take over from it.
            with torch.cuda.graph(graph, pool=shared, capture_error_mode="thread_local"):
                states = self._model.read(batch, self._pool).float()
            self._captured[bucket] = batch, graph, states
        log.info("captured %d CUDA graphs in %.1f s", len(BUCKETS), time.perf_counter() - began)

    def _batch(self, bucket: Bucket) -> PackedBatch:
        adapted = self._model.adapters > 0
        return PackedBatch(bucket, self._model.shape, self._here, self._there, adapted=adapted)

    @property
    def _filler(self) -> int:
        return self._pool.shape[1] - 1

    def __call__(self, ids: Sequence[int], spans: Sequence[Span]) -> Tensor:
        """As Qwen2.forward: [end, hidden], float32, on the host; to be read before the next call.

        ids: at most TOKENS[-1]; spans and ends: at most REQUESTS[-1] each.
        """
        ends = sum(len(span.ends) for span in spans)
        requests = max(len(spans), ends)
        bucket = next((one for one in BUCKETS if one.tokens >= len(ids) and one.requests >= requests), None)
        if bucket is None:
            raise ValueError(f"{len(ids)} tokens of {requests} requests are too many for one pass")
        if captured := self._captured.get(bucket):
            batch, graph, states = captured
            batch.fill(ids, spans, self._filler)
            graph.replay()
        else:
            batch = self._batch(bucket)
            batch.fill(ids, spans, self._filler)
            states = self._model.read(batch, self._pool).float()
        given = self._states[:ends]
        given.copy_(states[:ends], non_blocking=True)
        if self._pool.is_cuda:
            torch.cuda.current_stream().synchronize()  # the one wait of a pass
        return given

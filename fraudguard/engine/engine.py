"""The engine: timelines and features in, calibrated risks and typologies out, on the CPU or on one GPU.

Knows tokens, batches and the forward pass. Knows no rule, no account state and no clock; a score depends on its own
timeline and features alone, never on the batch it came in.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch

from fraudguard.domain import Score, ScoreRequest
from fraudguard.engine.attention import REQUESTS_PER_PASS, TOKENS_PER_PASS, Places, Span
from fraudguard.engine.head import Heads
from fraudguard.engine.kv_cache import PAGE, Room, TimelineCache
from fraudguard.engine.kv_host import HostTier
from fraudguard.engine.loader import Loaded, load
from fraudguard.engine.precision import Hardware, Precision, choose
from fraudguard.engine.qwen2 import Shape
from fraudguard.engine.release import open_release
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadSettings

Ids = tuple[int, ...]
Key = tuple[int, str]  # an adapter's number, an account


@dataclass(slots=True)
class Run:
    """A timeline that is read once. readings: by its token, the requests whose verdict is read there."""

    key: Key
    ids: Ids
    readings: dict[int, list[int]] = field(default_factory=dict)


class Engine:
    """Scores timelines with one release. `score` is for one thread at a time."""

    def __init__(
        self, name: str, loaded: Loaded, cache_bytes: int = 0, host_cache_bytes: int = 0, *, graphs: bool = True
    ) -> None:
        """name: name@version+precision. cache_bytes: for keys and values, at least the prefixes' and a pass's.

        host_cache_bytes: for those of timelines that do not fit, in host memory. graphs: on a GPU, capture passes as
        CUDA graphs; takes seconds.
        """
        self.name = name
        self._backbone, self._head, self._tokenizer = loaded.backbone, loaded.head, loaded.tokenizer
        self._heads = Heads(name, loaded.head, loaded.tenants, loaded.tokenizer)
        self._adapters: dict[str | None, int] = {None: 0} | {tenant: n for n, tenant in enumerate(loaded.tenants, 1)}
        self.tokens_per_pass = TOKENS_PER_PASS[self.device.type]
        least = len(self._adapters) * (len(loaded.prefix) + PAGE) + max(self.tokens_max + PAGE, self.tokens_per_pass)
        slots = max(cache_bytes // self._backbone.new_pool(1).nbytes, least) // PAGE * PAGE
        # The last page is nobody's: what fills up a graph's batch goes there.
        self._pool = self._backbone.new_pool(slots + PAGE)
        self._host = HostTier(self._pool, host_cache_bytes)
        self._cache = TimelineCache(slots, evicted=self._host.keep)
        self._run_pass: Callable[[Sequence[int], Sequence[Span]], torch.Tensor] = self._plain_pass
        if self.device.type == "cuda":
            from fraudguard.engine.graphs import Passes  # imports triton, which only GPUs need

            longest = len(loaded.prefix) + self.tokens_max
            self._run_pass = Passes(self._backbone, self._pool, longest, graphs=graphs)
        self._prefixes = [self._read_prefix(loaded.prefix, adapter) for adapter in self._adapters.values()]

    @classmethod
    def load(
        cls,
        source: Path | str,
        precision: Precision | Literal["auto"],
        threads: int = 0,
        cache_bytes: int = 0,
        device: Literal["auto", "cpu", "cuda"] = "cpu",
        host_cache_bytes: int = 0,
        graphs: bool = True,
    ) -> Self:
        """The release in a folder, or "starter".

        precision: see engine/precision.py. threads: of torch, for the whole process; 0 leaves its choice.
        device "auto": a GPU if there is one. graphs: see the class. Raises BadModel, BadSettings.
        """
        if threads:
            torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        precision = choose(precision, Hardware.of(device))
        if device == "cpu" and host_cache_bytes:
            raise BadSettings(
                "a model on the CPU keeps its timelines in host memory already",
                path="FRAUDGUARD_ENGINE_HOST_CACHE_MIB",
                hint="raise FRAUDGUARD_ENGINE_CACHE_MIB instead",
            )
        release = open_release(source)
        name = f"{release.name}@{release.version}+{precision}"
        engine = cls(name, load(release, precision, device), cache_bytes, host_cache_bytes, graphs=graphs)
        engine.read_cold(1)  # the first pass sets torch up: 50 ms that no event should wait for
        return engine

    @property
    def tokenizer(self) -> LineTokenizer:
        """How this release tokenizes lines."""
        return self._tokenizer

    @property
    def tokens_max(self) -> int:
        """The longest timeline it was trained on; of a longer one the last tokens are read."""
        return self._head.spec.tokens_max

    @property
    def weight_bytes(self) -> int:
        """What the base's weights, and adapters beside them, take in memory."""
        return sum(tensor.nbytes for tensor in self._backbone.state_dict().values())

    @property
    def device(self) -> torch.device:
        """Where it reads."""
        return self._backbone.device

    @property
    def shape(self) -> Shape:
        """The numbers of the base's architecture."""
        return self._backbone.shape

    @torch.inference_mode()
    def read_cold(self, tokens: int) -> None:
        """One pass over so many tokens of timelines that nobody has seen; nothing of them is kept."""
        starts = range(0, tokens, self.tokens_max)
        timelines = [((0, f"cold {start}"), (0,) * min(self.tokens_max, tokens - start)) for start in starts]
        self._last_hidden(timelines)
        for (_, account_id), _ in timelines:
            self.forget(account_id)

    @torch.inference_mode()
    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in order. Raises BadModel when the features are not those the head was made for."""
        if not requests:
            return []
        hidden = self._last_hidden([(self._key(request), self._ids(request)) for request in requests])
        return self._heads.scores(hidden, requests)

    def new_tokens(self, request: ScoreRequest) -> int:
        """About how many tokens scoring it would read now, at least 1; may be asked from any thread."""
        ids = self._ids(request)
        key = self._key(request)
        return max(1, len(ids) - max(self._cache.held(key, ids), self._host.held(key, ids)))

    def forget(self, account_id: str) -> None:
        """Drop what is kept of the account's timeline; its next score costs more and is the same."""
        for adapter in self._adapters.values():
            self._cache.drop((adapter, account_id))
            self._host.drop((adapter, account_id))

    def _key(self, request: ScoreRequest) -> Key:
        return self._adapters[self._heads.tenant(request)], request.timeline.account_id

    def _ids(self, request: ScoreRequest) -> Ids:
        return self._tokenizer.encode_timeline(request.timeline, self.tokens_max)

    @torch.inference_mode()
    def _read_prefix(self, ids: Ids, adapter: int) -> Places:
        """Read what comes before every timeline, once and for all; the places where it is."""
        room = self._cache.take(None, ids)
        assert room is not None  # noqa: S101  no timeline is in the pool yet
        slots = room.slots
        for start in range(0, len(ids), self.tokens_per_pass):
            part = ids[start : start + self.tokens_per_pass]
            self._run_pass(part, [Span(start, slots[: start + len(part)], [], adapter)])
        return slots

    def _last_hidden(self, timelines: Sequence[tuple[Key, Ids]]) -> torch.Tensor:
        """The final hidden state at the last token of each timeline: [n, hidden_size]."""
        hidden = torch.empty(len(timelines), self._head.spec.hidden_size)
        waiting = deque(share(timelines))
        while waiting:
            taken: list[tuple[Run, Room]] = []
            try:
                while waiting and (room := self._take(waiting[0])):
                    taken.append((waiting.popleft(), room))
                self._read(taken, hidden)
            except BaseException:
                for _, room in taken:
                    self._cache.release(room)
                raise
            for _, room in taken:
                self._cache.put(room)
        return hidden

    def _take(self, run: Run) -> Room | None:
        """Room for the run, with what is kept of its account, here or in host memory; None as the cache says."""
        self._host.use(run.key)  # making room must not push it out
        room = self._cache.take(run.key, run.ids)
        if room is None:
            return None
        try:
            return self._host.fill(room)
        except BaseException:
            self._cache.release(room)
            raise

    def _read(self, taken: Sequence[tuple[Run, Room]], hidden: torch.Tensor) -> None:
        """Fill the rooms, and into `hidden` what is read there, in passes of bounded size."""
        tokens: list[int] = []
        spans: list[Span] = []
        readers: list[list[int]] = []  # by end, the requests that read there
        for run, room in taken:
            adapter, _ = run.key
            before, slots = len(self._prefixes[adapter]), np.concatenate((self._prefixes[adapter], room.slots))
            start = min(room.held, *run.readings)  # what is read must be run
            while start < len(run.ids):
                ends = [end for end in sorted(run.readings) if end >= start]
                room_left = REQUESTS_PER_PASS - max(len(spans), len(readers))
                stop = min(len(run.ids), start + self.tokens_per_pass - len(tokens), *ends[room_left : room_left + 1])
                ends = [end for end in ends if end < stop]
                tokens += run.ids[start:stop]
                ends_here = [end - start for end in ends]
                spans.append(Span(before + start, slots[: before + stop], ends_here, adapter))
                readers += [run.readings[end] for end in ends]
                start = stop
                full = max(len(spans), len(readers)) == REQUESTS_PER_PASS
                if full or len(tokens) == self.tokens_per_pass:
                    self._forward(tokens, spans, readers, hidden)
                    tokens, spans, readers = [], [], []
        if tokens:
            self._forward(tokens, spans, readers, hidden)

    def _forward(
        self, tokens: Sequence[int], spans: Sequence[Span], readers: Sequence[list[int]], hidden: torch.Tensor
    ) -> None:
        states = self._run_pass(tokens, spans)
        ends = np.repeat(np.arange(len(readers)), [len(indices) for indices in readers])
        hidden[list(chain.from_iterable(readers))] = states[ends]

    def _plain_pass(self, tokens: Sequence[int], spans: Sequence[Span]) -> torch.Tensor:
        states: torch.Tensor = self._backbone(torch.tensor(tokens), spans, self._pool)
        return states.float()


def share(timelines: Sequence[tuple[Key, Ids]]) -> list[Run]:
    """The timelines that must be read, each with the requests that are read from it; an adapter's come together.

    The events of one account in one batch have timelines that continue each other; one run reads them all.
    """
    of_key: defaultdict[Key, list[int]] = defaultdict(list)
    for index, (key, _) in enumerate(timelines):
        of_key[key].append(index)
    runs: list[Run] = []
    for key in sorted(of_key):
        # Backwards in lexicographic order a timeline stands right behind those that continue it.
        for index in sorted(of_key[key], key=lambda index: timelines[index][1], reverse=True):
            ids = timelines[index][1]
            if not runs or runs[-1].key != key or runs[-1].ids[: len(ids)] != ids:
                runs.append(Run(key, ids))
            runs[-1].readings.setdefault(len(ids) - 1, []).append(index)
    return runs

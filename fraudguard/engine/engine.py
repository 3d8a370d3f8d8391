"""The engine: timelines and features in, calibrated risks and typologies out, on the CPU or on one GPU.

Knows tokens, batches and the forward pass. Knows no rule, no account state and no clock; a score depends on its own
timeline and features alone, never on the batch it came in.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch

from fraudguard.domain import Score, ScoreRequest
from fraudguard.engine.kv_cache import PAGE, Room, TimelineCache
from fraudguard.engine.loader import Loaded, load
from fraudguard.engine.precision import Hardware, Precision, choose
from fraudguard.engine.qwen2 import Shape, Span
from fraudguard.engine.release import open_release
from fraudguard.engine.tokenizer import LineTokenizer

# New tokens of one forward pass: more leave the caches of a CPU core and are slower a token.
TOKENS_PER_FORWARD = 1_024

Ids = tuple[int, ...]


@dataclass(slots=True)
class Run:
    """A timeline that is read once. readings: by its token, the requests whose verdict is read there."""

    account_id: str
    ids: Ids
    readings: dict[int, list[int]] = field(default_factory=dict)


class Engine:
    """Scores timelines with one release. `score` is for one thread at a time."""

    def __init__(self, name: str, loaded: Loaded, cache_bytes: int = 0) -> None:
        """name: name@version+precision. cache_bytes: for timelines' keys and values, at least a pass's."""
        self.name = name
        self._backbone, self._head, self._tokenizer = loaded.backbone, loaded.head, loaded.tokenizer
        slots = max(cache_bytes // self._backbone.new_pool(1).nbytes, self.tokens_max + PAGE, TOKENS_PER_FORWARD)
        self._cache = TimelineCache(slots)
        self._pool = self._backbone.new_pool(slots)

    @classmethod
    def load(
        cls,
        source: Path | str,
        precision: Precision | Literal["auto"],
        threads: int = 0,
        cache_bytes: int = 0,
        device: Literal["auto", "cpu", "cuda"] = "cpu",
    ) -> Self:
        """The release in a folder, or "starter".

        precision: see engine/precision.py. threads: of torch, for the whole process; 0 leaves its choice.
        device "auto": a GPU if there is one. Raises BadModel, BadSettings.
        """
        if threads:
            torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        precision = choose(precision, Hardware.of(device))
        release = open_release(source)
        name = f"{release.name}@{release.version}+{precision}"
        engine = cls(name, load(release, precision, device), cache_bytes)
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
        """What the base's weights take in memory."""
        return sum(tensor.nbytes for tensor in self._backbone.state_dict().values())

    @property
    def shape(self) -> Shape:
        """The numbers of the base's architecture."""
        return self._backbone.shape

    @torch.inference_mode()
    def read_cold(self, tokens: int) -> None:
        """One pass over so many tokens of timelines that nobody has seen; nothing is kept."""
        starts = range(0, tokens, self.tokens_max)
        spans = [Span(0, np.arange(start, min(tokens, start + self.tokens_max)), [0]) for start in starts]
        self._backbone(torch.zeros(tokens, dtype=torch.long), spans, self._backbone.new_pool(tokens))

    @torch.inference_mode()
    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in order. Raises BadModel when the features are not those the head was made for."""
        if not requests:
            return []
        hidden = self._last_hidden([(request.timeline.account_id, self._ids(request)) for request in requests])
        return self._head.scores(hidden, [request.features for request in requests], self.name)

    def new_tokens(self, request: ScoreRequest) -> int:
        """About how many tokens scoring it would read now, at least 1; may be asked from any thread."""
        ids = self._ids(request)
        return max(1, len(ids) - self._cache.held(request.timeline.account_id, ids))

    def forget(self, account_id: str) -> None:
        """Drop what is kept of the account's timeline; its next score costs more and is the same."""
        self._cache.drop(account_id)

    def _ids(self, request: ScoreRequest) -> Ids:
        return self._tokenizer.encode_timeline(request.timeline, self.tokens_max)

    def _last_hidden(self, timelines: Sequence[tuple[str, Ids]]) -> torch.Tensor:
        """The final hidden state at the last token of each timeline: [n, hidden_size]."""
        hidden = torch.empty(len(timelines), self._head.spec.hidden_size)
        waiting = deque(share(timelines))
        while waiting:
            taken: list[tuple[Run, Room]] = []
            while waiting and (room := self._cache.take(waiting[0].account_id, waiting[0].ids)):
                taken.append((waiting.popleft(), room))
            try:
                self._read(taken, hidden)
            except BaseException:
                for _, room in taken:
                    self._cache.release(room)
                raise
            for _, room in taken:
                self._cache.put(room)
        return hidden

    def _read(self, taken: Sequence[tuple[Run, Room]], hidden: torch.Tensor) -> None:
        """Fill the rooms, and into `hidden` what is read there, in passes of at most TOKENS_PER_FORWARD tokens."""
        tokens: list[int] = []
        spans: list[Span] = []
        readers: list[list[int]] = []  # by end, the requests that read there
        for run, room in taken:
            slots, start = room.slots, min(room.held, *run.readings)  # what is read must be run
            while start < len(run.ids):
                stop = min(len(run.ids), start + TOKENS_PER_FORWARD - len(tokens))
                ends = [end for end in sorted(run.readings) if start <= end < stop]
                tokens += run.ids[start:stop]
                spans.append(Span(start, slots[:stop], [end - start for end in ends]))
                readers += [run.readings[end] for end in ends]
                start = stop
                if len(tokens) == TOKENS_PER_FORWARD:
                    self._forward(tokens, spans, readers, hidden)
                    tokens, spans, readers = [], [], []
        if tokens:
            self._forward(tokens, spans, readers, hidden)

    def _forward(
        self, tokens: Sequence[int], spans: Sequence[Span], readers: Sequence[list[int]], hidden: torch.Tensor
    ) -> None:
        states = self._backbone(torch.tensor(tokens), spans, self._pool).float().cpu()
        for state, indices in zip(states, readers, strict=True):
            hidden[indices] = state


def share(timelines: Sequence[tuple[str, Ids]]) -> list[Run]:
    """The timelines (account, ids) that must be read, each with the requests that are read from it.

    The events of one account in one batch have timelines that continue each other; one run reads them all.
    """
    runs: list[Run] = []
    # Backwards in lexicographic order a timeline stands right behind those that continue it.
    for index in sorted(range(len(timelines)), key=timelines.__getitem__, reverse=True):
        account_id, ids = timelines[index]
        if not runs or runs[-1].account_id != account_id or runs[-1].ids[: len(ids)] != ids:
            runs.append(Run(account_id, ids))
        runs[-1].readings.setdefault(len(ids) - 1, []).append(index)
    return runs

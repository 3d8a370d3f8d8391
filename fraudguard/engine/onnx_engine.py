"""The engine without torch: an ONNX release on onnxruntime, one timeline at a time. For small machines at the edge.

Scores what engine.py scores, to rounding. Knows numpy, the graph's inputs and outputs, and the cache of timelines;
knows no tensor library. An event costs its own tokens; there are no batches, which pay only on larger machines.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import onnxruntime

from fraudguard.domain import Score, ScoreRequest, Typology
from fraudguard.engine.head_spec import as_numbers, load_spec
from fraudguard.engine.kv_cache import PAGE, TimelineCache
from fraudguard.engine.lexicon import FEATURE, Lexicon
from fraudguard.engine.release import Release, open_release, verify
from fraudguard.engine.tokenizer import LineTokenizer, open_tokenizer
from fraudguard.errors import BadModel

# ids [new]; past and new [layer, token, key or value, kv_head, head_dim]; numbers [1, feature], NaN where missing;
# risk [1]: calibrated P(fraud); typologies [1, typology]: logits, in head.json's order.
INPUTS: Final = ("ids", "past", "numbers")
OUTPUTS: Final = ("risk", "typologies", "new")


class OnnxEngine:
    """Scores timelines with one ONNX release. `score` is for one thread at a time."""

    def __init__(self, release: Release, threads: int = 0, cache_bytes: int = 0) -> None:
        """threads: 0 for onnxruntime's choice. cache_bytes: for keys and values, at least a timeline's.

        Raises BadModel.
        """
        if release.graph is None:
            raise BadModel("this is no ONNX release", path=str(release.base), hint="make one: fraudguard export-onnx")
        verify(release.folder)
        self.name = f"{release.name}@{release.version}+onnx-{release.graph.stem}"
        self._spec, self._tokenizer = load_spec(release.head), open_tokenizer(release.base)
        self._names = [feature.name for feature in self._spec.features]
        self._lexicon = Lexicon.load(release.head) if FEATURE in self._names else None
        self._typologies = tuple(Typology(value) for value in self._spec.typologies)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(release.graph), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises kinds of its own
            raise BadModel(f"cannot be loaded: {error}", path=str(release.graph)) from error
        layers, _, *of_token = self._session.get_inputs()[INPUTS.index("past")].shape
        bytes_of_token = layers * int(np.prod(of_token)) * np.dtype(np.float32).itemsize
        prefix = self._tokenizer.encode_prefix(release.prefix)
        slots = max(cache_bytes // bytes_of_token, len(prefix) + self.tokens_max + 2 * PAGE)
        self._cache = TimelineCache(slots)
        self._pool = np.zeros((layers, slots, *of_token), dtype=np.float32)
        self._prefix = self._read_prefix(prefix)

    @classmethod
    def load(cls, source: Path | str, threads: int = 0, cache_bytes: int = 0) -> Self:
        """The ONNX release in a folder. Raises BadModel."""
        return cls(open_release(source), threads, cache_bytes)

    @property
    def tokenizer(self) -> LineTokenizer:
        """How this release tokenizes lines."""
        return self._tokenizer

    @property
    def tokens_max(self) -> int:
        """The longest timeline it was trained on; of a longer one the last tokens are read."""
        return self._spec.tokens_max

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in order. Raises BadModel when the features are not those the head was made for."""
        timelines = [
            (request.timeline.account_id, self._tokenizer.encode_timeline(request.timeline, self.tokens_max))
            for request in requests
        ]
        rows = [request.features for request in requests]
        if self._lexicon is not None:
            rows = [{**row, FEATURE: self._lexicon.score(ids)} for row, (_, ids) in zip(rows, timelines, strict=True)]
        numbers = as_numbers(self._names, rows)
        scores: dict[int, Score] = {}
        # In this order a timeline comes right before those of the batch that continue it.
        for index in sorted(range(len(timelines)), key=timelines.__getitem__):
            scores[index] = self._one(*timelines[index], numbers[index : index + 1])
        return [scores[index] for index in range(len(requests))]

    def new_tokens(self, request: ScoreRequest) -> int:
        """About how many tokens scoring it would read now, at least 1; may be asked from any thread."""
        ids = self._tokenizer.encode_timeline(request.timeline, self.tokens_max)
        return max(1, len(ids) - self._cache.held(request.timeline.account_id, ids))

    def _read_prefix(self, ids: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Read what comes before every timeline, once and for all; the places where it is."""
        room = self._cache.take(None, ids)
        assert room is not None  # noqa: S101  nothing else is in the pool yet
        slots = room.slots
        if ids:
            numbers = np.full((1, len(self._names)), np.nan, dtype=np.float32)
            _, _, self._pool[:, slots] = self._run(ids, slots[:0], numbers)
        return slots

    def _run(
        self, ids: tuple[int, ...], past: npt.NDArray[np.int64], numbers: npt.NDArray[np.float32]
    ) -> list[npt.NDArray[np.float32]]:
        """The graph's OUTPUTS for ids after those whose keys and values are in the places `past`."""
        inputs = (np.array(ids, dtype=np.int64), self._pool.take(past, axis=1), numbers)
        outputs: list[npt.NDArray[np.float32]] = self._session.run(OUTPUTS, dict(zip(INPUTS, inputs, strict=True)))
        return outputs

    def _one(self, account_id: str, ids: tuple[int, ...], numbers: npt.NDArray[np.float32]) -> Score:
        room = self._cache.take(account_id, ids)
        assert room is not None  # noqa: S101  the pool holds a longest timeline, and no other is taken out
        start = min(room.held, len(ids) - 1)  # what is read must be run
        past, own = np.concatenate((self._prefix, room.slots[:start])), room.slots[start:]
        try:
            risk, typologies, self._pool[:, own] = self._run(ids[start:], past, numbers)
        except BaseException:
            self._cache.release(room)
            raise
        self._cache.put(room)
        return Score(float(risk[0]), self._typologies[int(typologies.argmax())], self.name)

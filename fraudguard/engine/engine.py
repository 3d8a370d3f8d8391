"""The engine: timelines and features in, calibrated risks and typologies out, on the CPU.

Knows tokens, batches and the forward pass. Knows no rule, no account state and no clock; a score depends on its own
timeline and features alone, never on the batch it came in.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch

from fraudguard.domain import Score, ScoreRequest, Typology
from fraudguard.engine.head import as_numbers
from fraudguard.engine.loader import Loaded, Precision, load
from fraudguard.engine.release import open_release
from fraudguard.engine.tokenizer import LineTokenizer

# Padded tokens of one forward pass: larger ones leave the caches of a CPU core and are slower a token.
TOKENS_PER_FORWARD = 1_024
# Lengths are padded to multiples of this. oneDNN compiles an int8 kernel for every number of rows that it has not seen
# lately, which costs more than the multiplication; so there are few numbers of rows.
LENGTH_STEP = 16

Ids = tuple[int, ...]


class Engine:
    """Scores timelines with one release. `score` is for one thread at a time."""

    def __init__(self, name: str, loaded: Loaded) -> None:
        """name: name@version+precision."""
        self.name = name
        self._backbone, self._head, self._tokenizer = loaded.backbone, loaded.head, loaded.tokenizer
        self._typologies = tuple(Typology(value) for value in self._head.spec.typologies)

    @classmethod
    def load(cls, source: Path | str, precision: Precision, threads: int = 0) -> Self:
        """The release in a folder, or "starter". threads: of torch, for the whole process; 0 leaves its choice.

        Raises BadModel.
        """
        if threads:
            torch.set_num_threads(threads)
        release = open_release(source)
        return cls(f"{release.name}@{release.version}+{precision}", load(release, precision))

    @property
    def tokenizer(self) -> LineTokenizer:
        """How this release tokenizes lines."""
        return self._tokenizer

    @property
    def tokens_max(self) -> int:
        """The longest timeline it was trained on; of a longer one the last tokens are read."""
        return self._head.spec.tokens_max

    @torch.inference_mode()
    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in order. Raises BadModel when the features are not those the head was made for."""
        if not requests:
            return []
        hidden = self._last_hidden([self._ids(request) for request in requests])
        numbers = torch.from_numpy(as_numbers(self._head.names, [request.features for request in requests]))
        logits, typologies = self._head(hidden, numbers)
        risks = self._head.calibration.risk(logits.numpy())
        return [
            Score(float(risk), self._typologies[kind], self.name)
            for risk, kind in zip(risks, typologies.argmax(dim=1).tolist(), strict=True)
        ]

    def _ids(self, request: ScoreRequest) -> Ids:
        ids = [token for line in request.timeline.lines for token in self._tokenizer.encode(line.text)]
        return tuple(ids[-self.tokens_max :])

    def _last_hidden(self, sequences: Sequence[Ids]) -> torch.Tensor:
        """The final hidden state at the last token of each sequence: [n, hidden_size]."""
        readings = share(sequences)
        hidden = torch.empty(len(sequences), self._head.spec.hidden_size)
        for batch in batches(list(readings)):
            ids = torch.zeros(len(batch), padded(len(batch[0])), dtype=torch.long)
            for row, sequence in enumerate(batch):
                ids[row, : len(sequence)] = torch.tensor(sequence)
            # Padding stands on the right, where causal attention cannot see it: no mask is needed.
            states = self._backbone(input_ids=ids, use_cache=False).last_hidden_state
            for row, sequence in enumerate(batch):
                for index in readings[sequence]:
                    hidden[index] = states[row, len(sequences[index]) - 1]
        return hidden


def share(sequences: Sequence[Ids]) -> dict[Ids, list[int]]:
    """Which sequences must be run, each with the indices that are read from it: itself, and what it begins with.

    The events of one account in one batch have timelines that continue each other; one pass reads them all.
    """
    readings: dict[Ids, list[int]] = {}
    longest: Ids = ()
    # In lexicographic order a sequence stands right before those it begins.
    for index in sorted(range(len(sequences)), key=sequences.__getitem__, reverse=True):
        sequence = sequences[index]
        if not readings or longest[: len(sequence)] != sequence:
            longest = sequence
        readings.setdefault(longest, []).append(index)
    return readings


def padded(length: int) -> int:
    """The length of a row that holds so many tokens."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def batches(sequences: Sequence[Ids]) -> list[list[Ids]]:
    """Sequences of like length together, longest first.

    A batch fits TOKENS_PER_FORWARD with its padding, or is one sequence.
    """
    made: list[list[Ids]] = []
    for sequence in sorted(sequences, key=len, reverse=True):
        if not made or (len(made[-1]) + 1) * padded(len(made[-1][0])) > TOKENS_PER_FORWARD:
            made.append([])
        made[-1].append(sequence)
    return made

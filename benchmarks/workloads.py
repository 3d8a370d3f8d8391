"""The token streams that engines are measured on, and when two engines' hidden states count as the same.

Knows token ids, accounts and tensors; knows no engine and no clock.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import torch
from torch import Tensor

from fraudguard.domain import Line, ScoreRequest, Timeline

LENGTH_MEDIAN, LENGTH_SIGMA, LENGTH_MIN, LENGTH_MAX = 256, 0.8, 64, 2_048
NEW_MIN, NEW_MAX = 8, 64
AT = datetime(2026, 1, 1, tzinfo=UTC)

# float32 rows must agree to the last digits; reduced precision must keep the direction of every hidden state.
DIFFERENCE_MAX: Final = 1e-3
COSINE_MIN: Final = 0.99

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """A timeline to be read to its end; the last line is the event's own.

    ids: the whole timeline. request: the same, each line's text its ids in decimal.
    """

    ids: Ids
    request: ScoreRequest

    @classmethod
    def of(cls, account: str, lines: Sequence[Ids]) -> "Event":
        """The timeline of these lines."""
        ids = tuple(token for line in lines for token in line)
        texts = tuple(Line("message", AT, " ".join(map(str, line))) for line in lines)
        return cls(ids, ScoreRequest(Timeline(account, 1, texts), {}))

    @property
    def account(self) -> str:
        """Whose timeline it is."""
        return self.request.timeline.account_id


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that come together. before: timelines that a cache may have read by then and was not shown yet."""

    events: list[Event]
    before: list[Event]


@dataclass(frozen=True, slots=True)
class Parity:
    """How far hidden states are from the reference's: the largest difference, and the worst event's cosine."""

    difference: float
    cosine: float

    def holds(self, *, exact: bool) -> bool:
        """Within the stated tolerance; exact: the engine claims full precision."""
        return self.cosine >= COSINE_MIN and (not exact or self.difference <= DIFFERENCE_MAX)


def parity(found: Tensor, reference: Tensor) -> Parity:
    """Both [event, hidden]. What is not a number is infinitely far."""
    difference = (found - reference).abs().max().nan_to_num(torch.inf)
    cosine = torch.cosine_similarity(found, reference, dim=1).min().nan_to_num(-1.0)
    return Parity(float(difference), float(cosine))


def warm(seed: int, accounts: int, batches: int, size: int, vocabulary: int, length_max: int) -> Iterator[Batch]:
    """Workload A: timelines that exist already each grow by a line of 8 to 64 tokens, accounts in random order.

    As in the product, one that outgrows length_max loses its oldest lines, down to half of it.
    """
    random = np.random.default_rng(seed)
    timelines = [_lines(random, length, vocabulary) for length in _lengths(random, accounts, length_max)]
    seen: set[str] = set()
    for _ in range(batches):
        batch = Batch([], [])
        for number in random.integers(accounts, size=size).tolist():
            account, lines = f"account-{number}", timelines[number]
            if account not in seen:
                seen.add(account)
                batch.before.append(Event.of(account, lines))
            grown = [*lines, _line(random, int(random.integers(NEW_MIN, NEW_MAX + 1)), vocabulary)]
            if sum(map(len, grown)) > length_max:
                while sum(map(len, grown)) > length_max // 2:
                    grown.pop(0)
            timelines[number] = grown
            batch.events.append(Event.of(account, grown))
        yield batch


def cold(seed: int, batches: int, size: int, vocabulary: int, length_max: int) -> Iterator[Batch]:
    """Workload B: timelines of mixed lengths, each of an account never seen before."""
    random = np.random.default_rng(seed)
    for number in range(batches):
        lengths = enumerate(_lengths(random, size, length_max))
        yield Batch([Event.of(f"cold-{number}-{n}", _lines(random, length, vocabulary)) for n, length in lengths], [])


def conversation(seed: int, turns: int, vocabulary: int, length_max: int) -> Iterator[Event]:
    """One timeline from its first line to its last, all lines equally long and together length_max tokens."""
    random = np.random.default_rng(seed)
    lines: list[Ids] = []
    for _ in range(turns):
        lines.append(_line(random, length_max // turns, vocabulary))
        yield Event.of("conversation", lines)


def slope(turns: Sequence[int], costs: Sequence[float]) -> float:
    """What one more turn adds to the cost of an event: least squares."""
    return float(np.polyfit(turns, costs, 1)[0])


def _lengths(random: np.random.Generator, count: int, length_max: int) -> list[int]:
    """Lognormal, and so that a line more still fits into length_max."""
    drawn = random.lognormal(np.log(LENGTH_MEDIAN), LENGTH_SIGMA, count)
    return [int(length) for length in drawn.clip(LENGTH_MIN, length_max - NEW_MAX)]


def _lines(random: np.random.Generator, length: int, vocabulary: int) -> list[Ids]:
    """So many tokens, in lines of at most NEW_MAX."""
    return [_line(random, min(NEW_MAX, length - start), vocabulary) for start in range(0, length, NEW_MAX)]


def _line(random: np.random.Generator, length: int, vocabulary: int) -> Ids:
    return tuple(random.integers(vocabulary, size=length).tolist())

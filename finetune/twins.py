"""Near-duplicate conversations: two that share half of their character shingles.

Knows texts and names. Digits and punctuation do not count, so one script with other amounts and codes is a twin of
itself; names of people and places do. Conversations of fewer than SHINGLES_MIN shingles are nobody's twin: short ones
are said by everybody. Candidates come from MinHash (128 permutations in 42 bands of 3: a pair at the threshold is
missed once in 270, one of 0.65 once in 10 million), the verdict from the shingles themselves.
"""

import re
import zlib
from collections.abc import Hashable
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from datasketch import MinHash, MinHashLSH

SHINGLE, SHINGLES_MIN, ALIKE = 5, 40, 0.5
_PERMUTATIONS, _BANDS, _ROWS = 128, 42, 3
_DIGITS, _MARKS = re.compile(r"\d+"), re.compile(r"[\W_]+")

Shingles = npt.NDArray[np.uint32]
Name = TypeVar("Name", bound=Hashable)


def shingles(text: str) -> Shingles | None:
    """The hashes of a text's shingles, ascending; None if it is too short to be a twin."""
    said = _MARKS.sub("", _DIGITS.sub("0", text.casefold()))
    found = {zlib.crc32(said[at : at + SHINGLE].encode()) for at in range(len(said) - SHINGLE + 1)}
    if len(found) < SHINGLES_MIN:
        return None
    return np.array(sorted(found), dtype=np.uint32)


def likeness(one: Shingles, other: Shingles) -> float:
    """Jaccard: the share of all their shingles that both have."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


class Twins(Generic[Name]):
    """Conversations by name, to be asked for the twins of another."""

    def __init__(self) -> None:
        self._known: dict[Name, Shingles] = {}
        self._index = MinHashLSH(num_perm=_PERMUTATIONS, params=(_BANDS, _ROWS))

    def add(self, name: Name, of: Shingles) -> None:
        """One more, under a name of its own."""
        self._known[name] = of
        self._index.insert(name, _hashed(of), check_duplication=False)

    def of(self, asked: Shingles) -> list[Name]:
        """The names of its twins, in no order."""
        return [name for name in self._index.query(_hashed(asked)) if likeness(self._known[name], asked) >= ALIKE]


def _hashed(of: Shingles) -> MinHash:
    made = MinHash(num_perm=_PERMUTATIONS, hashfunc=int)
    made.update_batch(of)
    return made

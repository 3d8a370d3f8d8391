"""The timelines' keys and values, by account, so that an event costs its own tokens only.

Knows ids and bytes; knows no model and no line. What it holds is a copy of what could be computed again: an entry may
vanish at any time and changes no score. One engine owns one cache, so entries never mix models, adapters or precisions.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor

CAPACITY_MIN: Final = 64


@dataclass(frozen=True, slots=True)
class _Entry:
    ids: Sequence[int]
    kv: Tensor


class TimelineCache:
    """At most bytes_max of entries that nobody has taken out, least recently used out first. Not thread-safe."""

    def __init__(self, new_kv: Callable[[int], Tensor], bytes_max: int) -> None:
        """new_kv: makes room for so many tokens, [layer, key or value, kv_head, capacity, head_dim]."""
        self._new_kv, self._bytes_max = new_kv, bytes_max
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, account_id: str, ids: Sequence[int]) -> tuple[Tensor, int]:
        """Room for all of ids, and how many first ones it holds already. The entry is out until it is put back."""
        entry = self._entries.pop(account_id, None)
        if entry is None:
            return self._new_kv(_capacity(len(ids))), 0
        self.bytes -= entry.kv.nbytes
        held = _common(entry.ids, ids)
        if entry.kv.shape[3] >= len(ids):
            return entry.kv, held
        room = self._new_kv(_capacity(len(ids)))
        room[:, :, :, :held] = entry.kv[:, :, :, :held]
        return room, held

    def put(self, account_id: str, ids: Sequence[int], kv: Tensor) -> None:
        """Keep the keys and values of ids; of several for one account the last stays."""
        self.drop(account_id)
        self._entries[account_id] = _Entry(ids, kv)
        self.bytes += kv.nbytes
        while self.bytes > self._bytes_max:
            self.drop(next(iter(self._entries)))

    def drop(self, account_id: str) -> None:
        """Forget the account's entry, if there is one."""
        entry = self._entries.pop(account_id, None)
        if entry is not None:
            self.bytes -= entry.kv.nbytes


def _capacity(tokens: int) -> int:
    """The next power of two: a timeline that grows line by line is copied a few times only."""
    return max(CAPACITY_MIN, 1 << (tokens - 1).bit_length())


def _common(held: Sequence[int], wanted: Sequence[int]) -> int:
    """How many first ids are the same."""
    if held == wanted[: len(held)]:
        return len(held)
    pairs = enumerate(zip(held, wanted, strict=False))
    return next((place for place, (a, b) in pairs if a != b), len(wanted))

"""Where the timelines' keys and values are, by account, so that an event costs its own tokens only.

Knows ids and the places of one pool; knows no model, no tensor and no line. What the pool holds could be computed
again: an entry may vanish at any time and changes no score. One engine owns one cache, so entries never mix models,
adapters or precisions.

What is read before every timeline is in a room that is taken out once and never put back: no account's, never evicted.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

PAGE: Final = 16  # consecutive places that are given away together

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class Room:
    """Places of the pool for a timeline's tokens. slots: one a token; held: how many of the first are filled.

    key: whose timeline; two models' of one account would be two.
    """

    key: Hashable
    ids: Ids
    pages: list[int]
    held: int

    @property
    def slots(self) -> npt.NDArray[np.int64]:
        """The place of each id."""
        places = np.array(self.pages, dtype=np.int64)[:, None] * PAGE + np.arange(PAGE)
        return places.flatten()[: len(self.ids)]


class TimelineCache:
    """Shares a pool of so many places among timelines; least recently used out first. For one thread."""

    def __init__(self, slots: int, evicted: Callable[[Room], None] = lambda _: None) -> None:
        """slots: places of the pool; of those beyond a multiple of PAGE no use is made.

        evicted: is told of each entry that goes for want of places, while nobody else has them yet.
        """
        self._pages, self._evicted = slots // PAGE, evicted
        self._free = list(range(self._pages))
        self._entries: OrderedDict[Hashable, Room] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def held(self, key: Hashable, ids: Ids) -> int:
        """How many of the first ids are kept; the one question that another thread may ask."""
        entry = self._entries.get(key)
        return _common(entry.ids, ids) if entry else 0

    def find(self, key: Hashable) -> Room | None:
        """The entry that is kept, from now on the most recently used."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def take(self, key: Hashable, ids: Ids) -> Room | None:
        """Room for all of ids, nobody else's until it is put back; None while those taken out fill the pool."""
        wanted = -(-len(ids) // PAGE)
        if wanted > self._pages:
            return None
        entry = self.find(key)
        pages = entry.pages if entry else []
        # Its own entry is the last, and stays in its place while the others go: telling of them may fail.
        while len(self._free) + len(pages) < wanted and len(self._entries) > (entry is not None):
            self._evict()
        self._entries.pop(key, None)
        self._free += pages[wanted:]
        pages = pages[:wanted]
        if len(self._free) + len(pages) < wanted:
            self._free += pages
            return None
        pages += [self._free.pop() for _ in range(wanted - len(pages))]
        return Room(key, ids, pages, _common(entry.ids, ids) if entry else 0)

    def put(self, room: Room) -> None:
        """Keep a room whose places are all filled; of several for one key the last stays."""
        self.drop(room.key)
        self._entries[room.key] = room

    def release(self, room: Room) -> None:
        """Take back a room that was not filled."""
        self._free += room.pages

    def drop(self, key: Hashable) -> None:
        """Forget the key's entry, if there is one."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.release(entry)

    def _evict(self) -> None:
        _, oldest = self._entries.popitem(last=False)
        try:
            self._evicted(oldest)
        finally:
            self.release(oldest)


def _common(held: Ids, wanted: Ids) -> int:
    """How many first ids are the same."""
    if held == wanted[: len(held)]:
        return len(held)
    pairs = enumerate(zip(held, wanted, strict=False))
    return next((place for place, (a, b) in pairs if a != b), len(wanted))

"""A second place for keys and values, in host memory: what the GPU's pool has no room for is copied there, and back.

Knows two pools' tensors and the rooms in them; knows no model and no account. Every copy is made in the order of the
engine's own CUDA stream and the CPU never looks at a page, so nothing waits for a copy: what overwrites a page comes
after it in the stream. What is here could be computed again, as everything in kv_cache.py.
"""

from collections.abc import Hashable
from dataclasses import replace

import torch
from torch import Tensor

from fraudguard.engine.kv_cache import PAGE, Ids, Room, TimelineCache


class HostTier:
    """Keeps timelines that were evicted, least recently used out first. For one thread."""

    def __init__(self, pool: Tensor, bytes_max: int) -> None:
        """pool [layer, slot, ...]: of whole pages, from which rooms are evicted. bytes_max: 0 keeps nothing.

        Of bytes_max beside a GPU the largest power of two is used: torch takes pinned memory in those.
        """
        self._pool = pool.view(len(pool), -1, PAGE, *pool.shape[2:])
        if pool.is_cuda and bytes_max:
            bytes_max = 1 << bytes_max.bit_length() - 1
        pages = bytes_max // self._pool[:, 0].nbytes
        layers, _, *of_page = self._pool.shape
        # A page's layers lie together, so that its copy is one.
        self._host = torch.empty((pages, layers, *of_page), dtype=pool.dtype, pin_memory=pool.is_cuda)
        self._cache = TimelineCache(pages * PAGE)

    def __len__(self) -> int:
        return len(self._cache)

    def held(self, key: Hashable, ids: Ids) -> int:
        """How many of the first ids are kept; may be asked from any thread."""
        return self._cache.held(key, ids)

    def use(self, key: Hashable) -> None:
        """Let the key's entry be the last to go."""
        self._cache.find(key)

    def drop(self, key: Hashable) -> None:
        """Forget the key's entry, if there is one."""
        self._cache.drop(key)

    def keep(self, room: Room) -> None:
        """Copy what fills a room of the pool, where it differs from what is here; nothing if it is too long."""
        copy = self._cache.take(room.key, room.ids)
        if copy is None:
            return
        try:
            first = copy.held // PAGE
            filled = self._pool.index_select(1, self._numbers(room.pages[first:])).transpose(0, 1).contiguous()
            for page, values in zip(copy.pages[first:], filled, strict=True):
                self._host[page].copy_(values, non_blocking=True)
        except BaseException:
            self._cache.release(copy)
            raise
        self._cache.put(copy)

    def fill(self, room: Room) -> Room:
        """The room of the pool, its first places filled from here as far as that is further than they are."""
        copy, held = self._cache.find(room.key), self._cache.held(room.key, room.ids)
        if copy is None or held <= room.held:
            return room
        first, last = room.held // PAGE, -(-held // PAGE)
        values = torch.empty((last - first, *self._host.shape[1:]), dtype=self._host.dtype, device=self._pool.device)
        for place, page in zip(values, copy.pages[first:last], strict=True):
            place.copy_(self._host[page], non_blocking=True)
        self._pool.index_copy_(1, self._numbers(room.pages[first:last]), values.transpose(0, 1))
        return replace(room, held=held)

    def _numbers(self, pages: list[int]) -> Tensor:
        return torch.tensor(pages, dtype=torch.long, device=self._pool.device)

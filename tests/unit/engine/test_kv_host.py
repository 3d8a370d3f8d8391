"""The second place for timelines: what comes back is what was there, and no place of either pool is lost."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fraudguard.engine.kv_cache import PAGE, Room, TimelineCache
from fraudguard.engine.kv_host import HostTier

Ids = tuple[int, ...]
LAYERS, BYTES = 2, 4  # of a place: LAYERS x 2 float32
PAGE_BYTES = PAGE * LAYERS * 2 * BYTES


class Pool:
    """A pool with host memory behind it, used as the engine does: a place holds its id in every number."""

    def __init__(self, slots: int, host_bytes: int) -> None:
        self.tensor = torch.full((LAYERS, slots, 2), -1.0)
        self.host = HostTier(self.tensor, host_bytes)
        self.cache = TimelineCache(slots, evicted=self.host.keep)

    def values(self, ids: Ids) -> Tensor:
        """What the places of ids hold: [layer, slot, 2]."""
        return torch.tensor(ids, dtype=torch.float32)[None, :, None].expand(LAYERS, -1, 2)

    def use(self, account: str, ids: Ids) -> int:
        """Check what is held, in all once it is filled from the host; fill in the rest, put it back."""
        expected = self.cache.held(account, ids)
        self.host.use(account)
        room = self.cache.take(account, ids)
        assert room is not None
        assert room.held == expected
        expected = max(expected, self.host.held(account, ids))  # after making room, which may have pushed it out
        room = self.host.fill(room)
        assert room.held == expected
        slots = torch.from_numpy(room.slots)
        assert torch.equal(self.tensor[:, slots[: room.held]], self.values(ids[: room.held]))
        self.tensor[:, slots[room.held :]] = self.values(ids[room.held :])
        self.cache.put(room)
        return room.held


# Timelines that share any number of first ids, and then differ.
IDS = st.builds(
    lambda same, rest, other: (*range(same), *[other] * rest),
    st.integers(1, 70),
    st.integers(0, 30),
    st.integers(-1, 0),
)
USES = st.lists(st.tuples(st.sampled_from("abc"), IDS, st.sampled_from(["", "", "pool", "host"])), max_size=30)


@settings(max_examples=200, deadline=None)
@given(uses=USES, pages=st.integers(7, 20), host_pages=st.integers(0, 20))
def test_what_comes_back_is_what_was_evicted(uses: list[tuple[str, Ids, str]], pages: int, host_pages: int) -> None:
    """Whatever grows, is cut, is evicted from either, or is dropped from either before it is used."""
    pool = Pool(pages * PAGE, host_pages * PAGE_BYTES + PAGE_BYTES - 1)
    for account, ids, dropped in uses:
        if dropped:
            (pool.cache if dropped == "pool" else pool.host).drop(account)
        pool.use(account, ids)
    for account in "abc":
        pool.cache.drop(account)
        pool.host.drop(account)
    assert len(pool.cache) == len(pool.host) == 0
    # No place was lost on the way: one timeline can have them all, in the pool and behind it.
    longest = tuple(range(pages * PAGE))
    assert pool.use("whole", longest) == 0
    pool.use("other", longest)
    assert pool.host.held("whole", longest) == (len(longest) if host_pages >= pages else 0)


def test_the_least_recently_used_goes_first_there_too() -> None:
    """Room for one timeline in the pool and two behind it."""
    pool = Pool(PAGE, 2 * PAGE_BYTES)
    for account in "abc":
        assert pool.use(account, (1, 2)) == 0
    assert pool.use("a", (1, 2)) == 2  # c goes behind, and a is no longer the oldest there: b is
    assert pool.use("c", (1, 2)) == 2
    assert pool.use("b", (1, 2)) == 0


def test_only_what_is_new_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a timeline that was there before, the pages from the first that changed."""
    pool, copied = Pool(4 * PAGE, 100 * PAGE_BYTES), list[int]()
    numbers = pool.host._numbers
    monkeypatch.setattr(pool.host, "_numbers", lambda pages: (copied.append(len(pages)), numbers(pages))[1])
    first, other = tuple(range(3 * PAGE + 1)), tuple(range(100, 100 + 4 * PAGE))
    pool.use("a", first)
    pool.use("b", other)  # a goes: 4 pages out
    pool.use("a", (*first, 7))  # b goes: 4 out; a comes: 4 in
    pool.use("b", other)  # a goes: its last page alone; b comes: 4 in
    assert copied == [4, 4, 4, 1, 4]


@pytest.mark.parametrize("host_pages", [0, 3])
def test_a_timeline_that_is_too_long_pushes_nobody_out(host_pages: int) -> None:
    """It is not kept, and those that are stay."""
    pool = Pool(4 * PAGE, host_pages * PAGE_BYTES)
    pool.use("a", (1, 2))
    pool.use("b", tuple(range(4 * PAGE)))
    pool.use("c", tuple(range(4 * PAGE)))
    assert pool.host.held("a", (1, 2)) == (2 if host_pages else 0)
    assert pool.host.held("b", tuple(range(4 * PAGE))) == 0


def test_a_failed_copy_loses_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when it goes nor when it comes back; what was not copied whole is not kept."""
    pool, both = Pool(2 * PAGE, 4 * PAGE_BYTES), tuple(range(2 * PAGE))
    pool.use("a", both)
    with monkeypatch.context() as patched:
        patched.setattr(pool.host, "_numbers", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pool.cache.take("b", both)
    assert pool.host.held("a", both) == 0
    assert pool.use("b", both) == 0
    assert pool.use("a", both) == 0
    with monkeypatch.context() as patched:
        patched.setattr(pool.host, "_numbers", lambda _: 1 / 0)
        room = Room("b", both, [0, 1], 0)
        with pytest.raises(ZeroDivisionError):
            pool.host.fill(room)
    assert pool.use("b", both) == 2 * PAGE
    assert pool.use("a", both) == 2 * PAGE

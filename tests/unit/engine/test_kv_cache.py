"""The timeline cache: what it says is held is right, and no place belongs to two."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.engine.kv_cache import PAGE, Room, TimelineCache

Ids = tuple[int, ...]


class Pool:
    """A cache and the places it gives away, filled as the engine does."""

    def __init__(self, slots: int) -> None:
        self.cache, self.places = TimelineCache(slots), np.full(slots, -1)

    def use(self, account: str, ids: Ids) -> int | None:
        """Check what is held, fill in the rest, put it back. How many ids were held; None without room."""
        room = self.cache.take(account, ids)
        if room is None:
            return None
        slots = room.slots
        assert len(set(slots.tolist())) == len(ids)
        assert self.places[slots[: room.held]].tolist() == list(ids[: room.held])
        self.places[slots] = ids
        self.cache.put(room)
        return room.held


IDS = st.lists(st.integers(0, 2), min_size=1, max_size=200).map(tuple)


@settings(max_examples=200, deadline=None)
@given(uses=st.lists(st.tuples(st.sampled_from("abc"), IDS), max_size=30), slots=st.integers(200 + PAGE, 700))
def test_what_is_held_is_what_was_put(uses: list[tuple[str, Ids]], slots: int) -> None:
    """Whatever grows, shrinks, changes or is evicted."""
    pool = Pool(slots)
    for account, ids in uses:
        assert pool.use(account, ids) is not None
    for account in "abc":
        pool.cache.drop(account)
    assert pool.use("whole", tuple(range(slots // PAGE * PAGE))) == 0  # no place was lost on the way


def test_a_continued_timeline_is_held_whole() -> None:
    """Line after line."""
    pool, ids = Pool(1024), tuple(range(1000))
    for end in range(10, 1000, 10):
        assert pool.use("a", ids[:end]) == (end - 10 if end > 10 else 0)


def test_a_cut_timeline_is_held_as_far_as_it_is_the_same() -> None:
    """Other first ids, other keys and values: nothing of it can be used."""
    pool = Pool(1024)
    pool.use("a", (1, 2, 3, 4))
    assert pool.use("a", (1, 2, 9)) == 2
    assert pool.use("a", (3, 4)) == 0


def test_the_least_recently_used_goes_first() -> None:
    """Room for two: the third pushes out the one used longest ago."""
    pool = Pool(2 * PAGE)
    for account in "abac":
        pool.use(account, (1, 2))
    assert [pool.use(account, (1, 2)) for account in "ca"] == [2, 2]
    assert pool.use("b", (1, 2)) == 0


def test_what_is_taken_out_is_nobody_elses() -> None:
    """Two rooms at once share no place, even for one account; a third finds none until one is back."""
    cache = TimelineCache(2 * PAGE)
    first, second = cache.take("a", (1,)), cache.take("a", (1, 2))
    assert first is not None
    assert second is not None
    assert not set(first.slots) & set(second.slots)
    assert cache.take("b", (1,)) is None
    cache.put(first)
    cache.put(second)
    assert len(cache) == 1
    third = cache.take("b", (1,))
    assert third is not None
    cache.release(third)
    assert cache.take("b", tuple(range(2 * PAGE))) is not None


def test_a_dropped_entry_is_computed_again() -> None:
    """And dropping what is not there is no error."""
    pool = Pool(1024)
    pool.use("a", (1, 2))
    pool.cache.drop("a")
    pool.cache.drop("a")
    assert len(pool.cache) == 0
    assert pool.use("a", (1, 2)) == 0


def test_what_is_evicted_is_told_while_it_is_whole() -> None:
    """Its places still hold its ids; what is dropped or replaced is not told."""
    told: list[object] = []
    pool = Pool(2 * PAGE)

    def evicted(room: Room) -> None:
        told.append(room.key)
        assert pool.places[room.slots].tolist() == list(room.ids)

    pool.cache = TimelineCache(2 * PAGE, evicted)
    pool.use("a", (1,))
    pool.use("b", (2,))
    pool.use("b", (2, 3))
    pool.use("c", tuple(range(2 * PAGE)))
    pool.cache.drop("c")
    assert told == ["a", "b"]


def test_an_error_while_it_is_told_loses_no_place() -> None:
    """The entry is gone, the one that room was made for is still there, and every place can be had again."""
    failing = [False]
    pool = Pool(3 * PAGE)
    pool.cache = TimelineCache(3 * PAGE, lambda _: 1 / 0 if failing[0] else None)  # type: ignore[arg-type, return-value]
    pool.use("a", (1,))
    pool.use("b", (2,))
    failing[0] = True
    with pytest.raises(ZeroDivisionError):
        pool.cache.take("a", tuple(range(1, 3 * PAGE)))
    assert [pool.cache.held(account, (n,)) for n, account in enumerate("ab", 1)] == [1, 0]
    assert pool.use("a", tuple(range(1, 3 * PAGE))) == 1


def test_a_room_that_is_never_put_back_is_never_evicted() -> None:
    """What is read before every timeline stays; a timeline longer than the rest of the pool finds no room."""
    pool = Pool(4 * PAGE)
    prefix = pool.cache.take(None, tuple(range(PAGE + 1)))
    assert prefix is not None
    for account in "abcd":
        pool.use(account, tuple(range(2 * PAGE)))
        assert not set(pool.cache.find(account).slots) & set(prefix.slots)  # type: ignore[union-attr]  # it was just put
    assert pool.cache.take("e", tuple(range(2 * PAGE + 1))) is None
    assert pool.cache.take("e", tuple(range(4 * PAGE + 1))) is None

"""The timeline cache: what it says it holds is right, and it stays within its bytes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fraudguard.engine.kv_cache import CAPACITY_MIN, TimelineCache

BYTES_A_TOKEN = 2 * 4


def new_kv(capacity: int) -> Tensor:
    """Room for one number a token, twice."""
    return torch.full((1, 2, 1, capacity, 1), torch.nan)


def use(cache: TimelineCache, account: str, ids: tuple[int, ...]) -> int:
    """As the engine does: check what is held, compute the rest, put it back. How many ids were held."""
    kv, held = cache.take(account, ids)
    assert kv[0, 0, 0, :held, 0].tolist() == [float(token) for token in ids[:held]]
    assert kv.shape[3] >= len(ids)
    kv[0, :, 0, held : len(ids), 0] = torch.tensor(ids[held:], dtype=torch.float32)
    cache.put(account, ids, kv)
    return held


IDS = st.lists(st.integers(0, 2), min_size=1, max_size=200).map(tuple)


@settings(max_examples=100, deadline=None)
@given(uses=st.lists(st.tuples(st.sampled_from("abc"), IDS), max_size=30), bytes_max=st.integers(0, 4_000))
def test_what_is_held_is_what_was_put(uses: list[tuple[str, tuple[int, ...]]], bytes_max: int) -> None:
    """Whatever grows, shrinks, changes or is evicted; and never more than the bytes allow."""
    cache = TimelineCache(new_kv, bytes_max)
    for account, ids in uses:
        use(cache, account, ids)
        assert cache.bytes <= bytes_max
    assert len(cache) <= 3


def test_a_continued_timeline_is_held_whole() -> None:
    """Line after line, over the growing of its room."""
    cache = TimelineCache(new_kv, 1 << 20)
    ids = tuple(range(1000))
    for end in range(10, 1000, 10):
        assert use(cache, "a", ids[:end]) == (end - 10 if end > 10 else 0)
    assert cache.bytes == 1024 * BYTES_A_TOKEN


def test_a_cut_timeline_is_held_as_far_as_it_is_the_same() -> None:
    """Other first ids, other keys and values: nothing of it can be used."""
    cache = TimelineCache(new_kv, 1 << 20)
    use(cache, "a", (1, 2, 3, 4))
    assert use(cache, "a", (1, 2, 9)) == 2
    assert use(cache, "a", (3, 4)) == 0


def test_the_least_recently_used_goes_first() -> None:
    """Room for two: the third pushes out the one used longest ago."""
    cache = TimelineCache(new_kv, 2 * CAPACITY_MIN * BYTES_A_TOKEN)
    for account in "abac":
        use(cache, account, (1, 2))
    assert [use(cache, account, (1, 2)) for account in "ca"] == [2, 2]
    assert use(cache, "b", (1, 2)) == 0


@pytest.mark.parametrize("taken", [True, False])
def test_a_dropped_entry_is_computed_again(taken: bool) -> None:
    """Dropped while kept or while in use: neither is an error."""
    cache = TimelineCache(new_kv, 1 << 20)
    use(cache, "a", (1, 2))
    if taken:
        cache.take("a", (1, 2))
    cache.drop("a")
    assert (len(cache), cache.bytes) == (0, 0)
    assert use(cache, "a", (1, 2)) == 0

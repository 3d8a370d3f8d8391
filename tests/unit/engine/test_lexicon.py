"""The lexicon: scikit-learn's TF-IDF and logistic regression, in a table, for token ids."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fraudguard.engine.lexicon import FILE, Lexicon, places
from fraudguard.errors import BadModel

IDS = st.lists(st.integers(0, 20_000), min_size=1, max_size=60)


def lexicon(buckets: int = 4_096) -> Lexicon:
    """One with random tables."""
    random = np.random.default_rng(0)
    inverse, coefficients = random.uniform(1, 8, buckets), random.normal(0, 3, buckets)
    return Lexicon(inverse.astype(np.float32), coefficients.astype(np.float32), -0.25)


@given(IDS)
def test_every_n_gram_counts_once_for_each_time(ids: list[int]) -> None:
    """One to three tokens in a row, by their content alone: the same as counting them in a dictionary."""
    buckets = 1 << 40  # so that no two meet
    slots, counts = places(ids, buckets)
    grams: dict[tuple[int, ...], int] = {}
    for order in (1, 2, 3):
        for at in range(len(ids) - order + 1):
            gram = tuple(ids[at : at + order])
            grams[gram] = grams.get(gram, 0) + 1
    assert len(slots) == len(grams)
    assert sorted(counts.tolist()) == pytest.approx(sorted(1 + np.log(list(grams.values()))), rel=1e-6)


def test_the_score_is_written_out() -> None:
    """Two tokens: three n-grams, weighed, of unit length, times coefficients."""
    one = lexicon()
    slots, counts = places([5, 9], 4_096)
    assert len(slots) == 3
    assert counts.tolist() == [1, 1, 1]
    weights = one.inverse[slots]
    wanted = (weights * one.coefficients[slots]).sum() / np.sqrt((weights**2).sum()) - 0.25
    assert one.score([5, 9]) == pytest.approx(wanted, rel=1e-5)


@given(IDS)
def test_tables_bound_the_score(ids: list[int]) -> None:
    """Whatever the ids, the score is finite and no larger than the largest coefficients allow."""
    one = lexicon()
    assert abs(one.score(ids) + 0.25) <= np.abs(one.coefficients).max() * np.sqrt(3 * len(ids)) + 1e-6


def test_order_within_a_gram_matters() -> None:
    """The same tokens turned round share their single tokens, and no pair and no triple."""
    forth, back = (set(places(ids, 1 << 40)[0].tolist()) for ids in ([1, 2, 3], [3, 2, 1]))
    assert len(forth) == len(back) == 6
    assert len(forth & back) == 3


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """In half precision, which the saved one then has as well."""
    one = lexicon()
    one.save(tmp_path)
    assert Lexicon.load(tmp_path).score([1, 2, 3]) == one.score([1, 2, 3])


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """Missing, not safetensors, tables of two sizes: the message names the file."""
    with pytest.raises(BadModel, match=FILE):
        Lexicon.load(tmp_path)
    (tmp_path / FILE).write_bytes(b"no")
    with pytest.raises(BadModel, match=FILE):
        Lexicon.load(tmp_path)
    half = np.zeros(3, np.float16)
    save_file({"inverse": half, "coefficients": half[:2], "bias": np.zeros(1, np.float32)}, tmp_path / FILE)
    with pytest.raises(BadModel, match="differ in size"):
        Lexicon.load(tmp_path)

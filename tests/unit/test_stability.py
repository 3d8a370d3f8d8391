"""The stability index against hand-worked examples, its properties, and chance."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudguard.stability import SOME, Histogram, Level, bin_of, cuts_of, level_of, noise, psi, spread

bins = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=1, max_size=20).filter(
    lambda rows: all(any(side) for side in zip(*rows, strict=True))
)


def test_a_hand_worked_index() -> None:
    """Shares .5 .3 .2 against .2 .3 .5: twice .3 times the logarithm of 2.5; sizes play no part."""
    assert psi([50, 30, 20], [20, 30, 50]) == pytest.approx(0.6 * math.log(2.5), abs=1e-12)
    assert psi([50, 30, 20], [200, 300, 500]) == pytest.approx(0.5497744, abs=1e-7)


def test_an_empty_bin_counts_as_half_a_value_of_the_smaller_side() -> None:
    """100 against 10 values: the floor is a twentieth."""
    expected = (0.9 - 1.0) * math.log(0.9 / 1.0) + (0.1 - 0.05) * math.log(0.1 / 0.05)
    assert psi([90, 10], [10, 0]) == pytest.approx(expected, abs=1e-12)


@given(rows=bins)
def test_it_is_never_negative_and_the_same_both_ways_round(rows: list[tuple[int, int]]) -> None:
    """For any two counts, and so is what chance gives."""
    one, other = [row[0] for row in rows], [row[1] for row in rows]
    assert psi(one, other) >= 0
    assert psi(one, other) == pytest.approx(psi(other, one), abs=1e-12)
    assert noise(one, other) >= 0
    assert noise(one, other) == pytest.approx(noise(other, one), abs=1e-12)


@given(rows=bins, times=st.integers(1, 1_000))
def test_equal_shares_give_exactly_nothing(rows: list[tuple[int, int]], times: int) -> None:
    """Whatever the number of values on either side."""
    counts = [row[0] for row in rows]
    assert psi(counts, counts) == 0
    assert psi(counts, [count * times for count in counts]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("one", "other"), [([1, 2], [1]), ([0, 0], [1, 2]), ([1, 2], [0, 0]), ([], [])])
def test_what_cannot_be_compared_is_refused(one: list[int], other: list[int]) -> None:
    """Other bins, or a side without a value."""
    for measure in (psi, noise):
        with pytest.raises(ValueError, match="both sides"):
            measure(one, other)


def test_cuts_are_the_deciles() -> None:
    """Of values that differ, and every bin holds as many."""
    values = [float(n) for n in range(1, 101)]
    assert cuts_of(values) == tuple(float(n) for n in range(10, 100, 10))
    assert cuts_of(values[::-1]) == cuts_of(values)


def test_a_frequent_value_has_a_bin_of_its_own() -> None:
    """90 % zeros: less, equal, and the rest in nine parts; a constant leaves room on both sides."""
    values = [0.0] * 900 + [float(n) for n in range(1, 101)]
    cuts = cuts_of(values)
    assert cuts[:2] == (math.nextafter(0, -1), 0.0)
    assert cuts[2:] == (12, 23, 34, 45, 56, 67, 78, 89)
    constant = cuts_of([7.0] * 50)
    assert [bin_of(constant, value) for value in (6.999, 7.0, 7.001, None)] == [0, 1, 2, 3]


def test_few_or_no_values_can_be_cut() -> None:
    """Nothing, one value, less values than bins."""
    assert cuts_of([]) == ()
    assert [bin_of((), value) for value in (3.0, None)] == [0, 1]
    assert cuts_of([5.0]) == (5.0,)
    assert cuts_of([1.0, 2.0, 3.0]) == (1.0, 2.0, 3.0)


@given(values=st.lists(st.floats(-1e9, 1e9) | st.sampled_from((0.0, 1.0)), max_size=300))
def test_every_value_has_one_bin(values: list[float]) -> None:
    """Cuts rise, are few, and no bin of distinct values holds much more than its share."""
    cuts = cuts_of(values)
    assert list(cuts) == sorted(set(cuts))
    assert len(cuts) < 21
    counts = [0] * (len(cuts) + 2)
    for value in values:
        counts[bin_of(cuts, value)] += 1
    assert Histogram(cuts, tuple(counts)).total == len(values)
    if len(set(values)) == len(values):
        assert max(counts) <= math.ceil(len(values) / 10)


@pytest.mark.parametrize(("cuts", "counts"), [((2.0, 1.0), (1, 1, 1, 1)), ((1.0,), (1, 1)), ((1.0,), (1, -1, 1))])
def test_a_histogram_that_cannot_be_is_refused(cuts: tuple[float, ...], counts: tuple[int, ...]) -> None:
    """Cuts that fall, missing or negative counts."""
    with pytest.raises(ValueError, match="must"):
        Histogram(cuts, counts)


@pytest.mark.parametrize(
    ("reference", "week", "above_max", "alarms"), [(100_000, 2_000, 2, 0), (4_000, 500, 2, 0), (400, 60, 4, 1_500)]
)
def test_what_did_not_move_stays_below_the_noise(reference: int, week: int, above_max: int, alarms: int) -> None:
    """Of 2,000 pairs of samples of one distribution a few exceed it, half do at the middle; SOME alone would alarm."""
    rng = Random(reference)
    above, middle, read = 0, 0, 0
    for _ in range(2_000):
        pair = [_sample(rng, [0.1] * 10, size) for size in (reference, week)]
        index = psi(*pair)
        above += index > noise(*pair)
        middle += index > noise(*pair, 0.5)
        read += index >= SOME
    assert above <= above_max
    assert 900 < middle < 1_200
    assert read >= alarms


def _sample(rng: Random, shares: list[float], size: int) -> list[int]:
    """One multinomial draw, each bin by the normal approximation of its binomial."""
    counts, left, weight = [], size, 1.0
    for share in shares[:-1]:
        p = share / weight
        drawn = round(rng.gauss(left * p, math.sqrt(left * p * (1 - p))))
        counts.append(min(max(drawn, 0), left))
        left, weight = left - counts[-1], weight - share
    return [*counts, left]


def test_a_reference_whose_parts_differ_has_a_spread() -> None:
    """The largest index of one part against the rest; nothing where chance explains it, or a part is empty."""
    parts = [[500, 500], [500, 500], [200, 800]]
    assert spread(parts) == psi([1_000, 1_000], [200, 800])
    assert spread([[500, 500], [0, 0], [520, 480]]) == 0
    assert spread([[1, 4], [500, 500]]) == 0
    assert spread([[500, 500]]) == spread([]) == 0


@pytest.mark.parametrize(
    ("index", "usual", "level"),
    [
        (0.0999, 0.0, Level.STEADY), (0.1, 0.0, Level.SOME), (0.25, 0.0, Level.SOME), (0.2501, 0.0, Level.LARGE),
        (0.2, 0.2, Level.NOISE), (0.9, 1.0, Level.NOISE), (0.05, 1.0, Level.STEADY),
    ],
)  # fmt: skip
def test_the_usual_reading(index: float, usual: float, level: Level) -> None:
    """Below 0.1, to 0.25, above; and nothing that is usual."""
    assert level_of(index, usual) is level
    assert level.moved == (level in (Level.SOME, Level.LARGE))

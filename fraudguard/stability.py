"""How far a distribution has moved from a reference: the population stability index over bins of the reference.

Knows numbers and counts; knows no feature, no week and no database. Counts of a variable are one list: a bin up to
and with each cut, one above the last, and at the end the missing values.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Final

BINS: Final = 10
# The usual reading (Lewis 1994, An Introduction to Credit Scoring; Siddiqi 2006, Credit Risk Scorecards): conventions,
# which is why `noise` and `spread` stand beside them.
SOME, LARGE = 0.1, 0.25
# Of `noise`. A report makes over a thousand comparisons, none of which should alarm by chance.
CERTAINTY: Final = 0.9999


class Level(StrEnum):
    """How a shift is read. NOISE: an index from SOME on that values which did not move may have too."""

    STEADY = "steady"
    NOISE = "within noise"
    SOME = "some shift"
    LARGE = "large shift"

    @property
    def moved(self) -> bool:
        """Whether somebody should look."""
        return self in (Level.SOME, Level.LARGE)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often a variable lay in each bin. cuts rise; counts has two more: above the last cut, and missing."""

    cuts: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.cuts)) or list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError("cuts must be numbers that rise")
        if len(self.counts) != len(self.cuts) + 2 or min(self.counts) < 0:
            raise ValueError("counts must be one for each bin and one of the missing values")

    @property
    def total(self) -> int:
        """How many values, missing ones among them."""
        return sum(self.counts)


def cuts_of(values: Sequence[float], bins: int = BINS) -> tuple[float, ...]:
    """The upper ends, inclusive, of about `bins` bins with equally many of the values; none without a value.

    A value that alone fills a bin's share has a bin of its own, and the others share the remaining bins: velocity
    counts are 0 nearly always, and quantiles of all values would put everything else into one bin.
    """
    held = Counter(values)
    alone = {value for value, count in held.items() if count > 1 and count * bins >= len(values)}
    cuts = {end for value in alone for end in (math.nextafter(value, -math.inf), value)}
    others = sorted(value for value in held.elements() if value not in alone)
    parts = bins - len(alone)
    cuts |= {others[math.ceil(n * len(others) / parts) - 1] for n in range(1, parts)} if others else set()
    return tuple(sorted(cuts))


def bin_of(cuts: Sequence[float], value: float | None) -> int:
    """The place of a value in a variable's counts."""
    return len(cuts) + 1 if value is None else bisect_left(cuts, value)


def psi(reference: Sequence[int], counts: Sequence[int]) -> float:
    """Population stability index of two counts over the same bins: sum of (a - b) ln(a / b) over their shares a, b.

    0 for equal shares, never negative, the same both ways round (it is Jeffreys' divergence; Kullback and Leibler
    1951). Smoothing, since a bin may be empty: no share is taken for less than that of half a value of the smaller
    side. Raises ValueError without values or with other bins.
    """
    floor = 0.5 / _smaller(reference, counts)
    before, after = sum(reference), sum(counts)
    index = 0.0
    for one, other in zip(reference, counts, strict=True):
        a, b = max(one / before, floor), max(other / after, floor)
        index += (a - b) * math.log(a / b)
    return index


def noise(reference: Sequence[int], counts: Sequence[int], certainty: float = CERTAINTY) -> float:
    """The index that values which did not move stay below, with this certainty, if they are independent.

    Of two samples of n and m values over B bins it is spread like (1/n + 1/m) times chi-squared with B - 1 degrees of
    freedom (Yurdakul and Naranjo 2020, Statistical properties of the population stability index); its quantile by
    Wilson and Hilferty 1931. Events of one account are not independent, so the truth lies higher: see `spread`.
    """
    _smaller(reference, counts)
    freedom = sum(1 for one, other in zip(reference, counts, strict=True) if one or other) - 1
    if freedom < 1:
        return 0.0
    spread = 2 / (9 * freedom)
    quantile = freedom * (1 - spread + NormalDist().inv_cdf(certainty) * math.sqrt(spread)) ** 3
    return (1 / sum(reference) + 1 / sum(counts)) * quantile


def spread(parts: Sequence[Sequence[int]]) -> float:
    """The largest index of one part of a reference against the others together; 0 where chance alone explains all.

    What a week may differ by in which nothing moved: unlike `noise` it knows that the events of an account are alike.
    """
    largest = 0.0
    whole = [sum(column) for column in zip(*parts, strict=True)]
    for part in parts:
        others = [a - b for a, b in zip(whole, part, strict=True)]
        if any(part) and any(others) and (index := psi(others, part)) > noise(others, part):
            largest = max(largest, index)
    return largest


def level_of(index: float, usual: float) -> Level:
    """The reading of an index; usual: what values that did not move may have, by `noise` and `spread`."""
    if index < SOME:
        return Level.STEADY
    if index <= usual:
        return Level.NOISE
    return Level.LARGE if index > LARGE else Level.SOME


def _smaller(reference: Sequence[int], counts: Sequence[int]) -> int:
    smaller = min(sum(reference), sum(counts))
    if len(reference) != len(counts) or smaller <= 0:
        raise ValueError("a stability index needs values on both sides, over the same bins")
    return smaller

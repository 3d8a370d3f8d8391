"""Lines and bars over time with their scales, as figures that a template draws as SVG: no library, no script.

Knows numbers and places; what they mean, and every word beside them, is the page's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, log10
from typing import Final, Literal

WIDTH, HEIGHT = 600.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 34.0, 8.0, 18.0  # room for the scales and for the names at the lines' ends
_NAME_GAP: Final = 12.0  # two names this close would cover each other


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """parts: runs without a gap, as SVG points. name stands at `end`, None where there is nothing to stand beside."""

    name: str
    parts: tuple[str, ...]
    end: float | None


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar from the bottom. label: what a tooltip says."""

    x: float
    y: float
    height: float
    label: str


@dataclass(frozen=True, slots=True)
class Point:
    """A value with what it may be, from low to high. label: what a tooltip says."""

    x: float
    y: float
    low: float
    high: float
    label: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart. mark: a level that values are held against. even: whether to draw where both scales are equal."""

    lines: tuple[Line, ...]
    bars: tuple[Bar, ...]
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    mark: Tick | None
    bar_width: float = 0.0
    points: tuple[Point, ...] = ()
    even: bool = False
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to heights. logarithmic: by powers of ten, for what spreads over several of them."""

    low: float
    high: float
    logarithmic: bool

    def y(self, value: float) -> float:
        """Where a value stands; what is outside stands at the edge."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = log10(value / self.low) / log10(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(TOP + (1 - share) * (HEIGHT - TOP - BOTTOM), 1)

    def ticks(self, label: Callable[[float], str]) -> tuple[Tick, ...]:
        """Every power of ten, or quarters of the whole."""
        if self.logarithmic:
            powers = range(round(log10(self.low)), round(log10(self.high)) + 1)
            values = [10.0**power for power in powers]
        else:
            values = [self.low + (self.high - self.low) * part / 4 for part in (0, 2, 4)]
        return tuple(Tick(self.y(value), label(value)) for value in values)


def scale(values: Sequence[float], kind: Literal["linear", "log"], least: float) -> Scale:
    """From 0 to a round number of `least` or more; or from power of ten to power of ten."""
    top = max([*values, least])
    if kind == "log":
        bottom = max(min([*(value for value in values if value > 0), top]), 0.1)
        low, high = 10.0 ** floor(log10(bottom)), 10.0 ** ceil(log10(top))
        return Scale(low, high if high > low else low * 10, True)
    step = 10.0 ** floor(log10(top))
    return Scale(0.0, next(step * n for n in (1, 2, 5, 10) if step * n >= top - 1e-9), False)


def lines(
    series: Mapping[str, Sequence[float | None]],
    columns: Sequence[str],
    by: Scale,
    label: Callable[[float], str],
    mark: tuple[float, str] | None = None,
) -> Plot:
    """One line a series. columns: a label for each place from left to right, "" for none."""
    count = len(columns)
    xs = [LEFT + (WIDTH - LEFT - RIGHT) * place / max(1, count - 1) for place in range(count)]
    drawn, ends = [], list[float]()
    for name, values in series.items():
        places = [(x, by.y(value)) if value is not None else None for x, value in zip(xs, values, strict=True)]
        runs = [list(run) for there, run in groupby(places, bool) if there]
        parts = tuple(" ".join(f"{p[0]:.1f},{p[1]:.1f}" for p in run if p) for run in runs)
        last = next((place for place in reversed(places) if place), None)
        end = _apart(last[1], ends) if last else None
        if end is not None:
            ends.append(end)
        drawn.append(Line(name, parts, end))
    at = Tick(by.y(mark[0]), mark[1]) if mark else None
    return Plot(tuple(drawn), (), by.ticks(label), _columns(xs, columns), at)


def bars(
    values: Sequence[float | None],
    columns: Sequence[str],
    titles: Sequence[str],
    by: Scale,
    label: Callable[[float], str],
) -> Plot:
    """One bar a value, each with a title; None leaves its place empty."""
    room = (WIDTH - LEFT - RIGHT) / max(1, len(values))
    xs = [LEFT + room * place for place in range(len(values))]
    drawn = []
    for x, value, title in zip(xs, values, titles, strict=True):
        if value:
            y = min(by.y(value), HEIGHT - BOTTOM - 1)
            drawn.append(Bar(round(x, 1), y, round(HEIGHT - BOTTOM - y, 1), title))
    return Plot((), tuple(drawn), by.ticks(label), _columns(xs, columns), None, round(max(room - 2, 1), 1))


def points(
    places: Sequence[tuple[float, float, float, float, str]],
    columns: Sequence[tuple[float, str]],
    label: Callable[[float], str],
    *,
    even: bool = False,
) -> Plot:
    """Shares with their intervals, as (place from 0 to 1, value, low, high, title). columns: labelled places."""
    by, room = Scale(0.0, 1.0, False), WIDTH - LEFT - RIGHT
    drawn = tuple(
        Point(round(LEFT + room * place, 1), by.y(value), by.y(low), by.y(high), title)
        for place, value, low, high, title in places
    )
    ticks = tuple(Tick(round(LEFT + room * place, 1), name) for place, name in columns)
    return Plot((), (), by.ticks(label), ticks, None, points=drawn, even=even)


def _columns(xs: Sequence[float], labels: Sequence[str]) -> tuple[Tick, ...]:
    return tuple(Tick(round(x, 1), label) for x, label in zip(xs, labels, strict=True) if label)


def _apart(at: float, taken: Sequence[float]) -> float:
    """Moved up or down until no name is covered."""
    for way in (0.0, -_NAME_GAP, _NAME_GAP, -2 * _NAME_GAP, 2 * _NAME_GAP):
        if all(abs(at + way - other) >= _NAME_GAP for other in taken):
            return at + way
    return at

"""A drift count as one picture: how stable what moved most was, alerts and what they were worth, where values went.

Knows how to draw; needs matplotlib, the extra [bench].
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fraudguard.drift import EVENT_TYPES, Drift, Shift
from fraudguard.drift_report import GROWING, bin_names
from fraudguard.stability import LARGE, SOME
from fraudguard.weeks import Week

LINES_MAX: Final = 14  # variables in the map
BARS_MAX: Final = 3  # variables whose bins are drawn
_COLOURS: Final = {"reference": "#9aa0a6", "week": "#1a73e8", "stopped": "#e8710a", "precision": "#5b8c5a"}


def can_draw() -> bool:
    """Whether matplotlib is there."""
    try:
        import matplotlib.figure  # noqa: F401  only asked for
    except ImportError:
        return False
    return True


def draw(drift: Drift, path: Path) -> None:
    """Write the picture. There must be a week with decisions."""
    from matplotlib.figure import Figure

    most = _most_moved(drift)
    bars = [shift for shift in most if shift.level.moved and shift.variable not in GROWING][:BARS_MAX]
    figure = Figure(figsize=(11, 4 + 0.3 * len(most) + 2.2 * len(bars)), layout="constrained")
    rows = [0.3 * len(most) + 0.8] if most else []
    grid = figure.add_gridspec(len(rows) + 1 + len(bars), 1, height_ratios=[*rows, 2.4, *[1.8] * len(bars)])
    if most:
        _map(figure, figure.add_subplot(grid[0, 0]), drift, most)
    _alerts(figure.add_subplot(grid[len(rows), 0]), drift)
    for place, shift in enumerate(bars):
        _bins(figure.add_subplot(grid[len(rows) + 1 + place, 0]), drift, shift)
    figure.savefig(path, dpi=110)


def _most_moved(drift: Drift) -> list[Shift]:
    """The week of each variable in which it moved most, what moved most first."""
    largest: dict[tuple[str, str], Shift] = {}
    for week in drift.compared:
        for shift in drift.shifts(week):
            key = (shift.event_type, shift.variable)
            if key not in largest or _rank(shift) > _rank(largest[key]):
                largest[key] = shift
    return sorted(largest.values(), key=_rank, reverse=True)[:LINES_MAX]


def _rank(shift: Shift) -> tuple[bool, float]:
    return shift.level.moved, shift.psi


def _map(figure: Any, axes: Any, drift: Drift, most: Sequence[Shift]) -> None:
    """A line a variable, a column a week, coloured by the index."""
    cells = [[drift.shift(week, shift.event_type, shift.variable) for week in drift.weeks] for shift in most]
    values = [[cell.psi if cell else float("nan") for cell in line] for line in cells]
    image = axes.imshow(values, cmap="YlOrRd", vmin=0, vmax=2 * LARGE, aspect="auto")
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            if cell and cell.psi >= SOME:
                said = f"{cell.psi:.2f}" if cell.level.moved else f"({cell.psi:.2f})"
                colour = "white" if cell.psi > 1.5 * LARGE else "black"
                axes.text(x, y, said, ha="center", va="center", fontsize=7, color=colour)
    axes.set_yticks(range(len(most)), [f"{shift.variable} ({shift.event_type}s)" for shift in most], fontsize=8)
    _week_names(axes, drift)
    axes.set_title("stability index by week; in brackets: within noise", loc="left", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.9)


def _alerts(axes: Any, drift: Drift) -> None:
    """Shares of each week: reviewed or blocked, and confirmed fraud among the disposed alerts."""
    precision = axes.twinx()
    for kind, style in zip(EVENT_TYPES, ("-", "--"), strict=True):
        of = [drift.of(week, kind) for week in drift.weeks]
        if any(population.total for population in of):
            shares = [100 * p.stopped / p.total if p.total else float("nan") for p in of]
            axes.plot(shares, style, color=_COLOURS["stopped"], marker="o", label=f"{kind}s reviewed or blocked")
            worth = [float("nan") if p.precision is None else 100 * p.precision for p in of]
            precision.plot(worth, style, color=_COLOURS["precision"], marker="s", label=f"precision, {kind}s")
    _week_names(axes, drift)
    axes.set_ylabel("reviewed or blocked, %", color=_COLOURS["stopped"])
    axes.set_ylim(bottom=0)
    precision.set_ylabel("precision of disposed, %", color=_COLOURS["precision"])
    precision.set_ylim(0, 105)
    lines = [*axes.get_lines(), *precision.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], fontsize=7, loc="upper left", ncols=2)
    axes.set_title("alerts and what they were worth", loc="left", fontsize=9)


def _bins(axes: Any, drift: Drift, shift: Shift) -> None:
    """Shares of the bins, in the reference and in the week that moved most."""
    if drift.reference is None:
        return
    histogram = drift.reference.histograms[shift.event_type][shift.variable]
    counts = drift.of(shift.week, shift.event_type).counts[shift.variable]
    names = bin_names(shift.variable, histogram.cuts)
    held = [n for n, (a, b) in enumerate(zip(histogram.counts, counts, strict=True)) if a or b]
    for name, of, colour, offset in (
        ("reference", histogram.counts, "reference", -0.2),
        (shift.week.name, counts, "week", 0.2),
    ):
        shares = [100 * of[n] / sum(of) for n in held]
        axes.bar([x + offset for x in range(len(held))], shares, 0.4, label=name, color=_COLOURS[colour])
    axes.set_xticks(range(len(held)), [names[n] for n in held], fontsize=7, rotation=20, ha="right")
    axes.set_ylabel("%")
    axes.legend(fontsize=7)
    axes.set_title(f"{shift.variable} of {shift.event_type}s, {shift.level}", loc="left", fontsize=9)


def _week_names(axes: Any, drift: Drift) -> None:
    axes.set_xticks(range(len(drift.weeks)), [_name(drift, week) for week in drift.weeks], fontsize=7, rotation=25)
    axes.set_xlim(-0.5, len(drift.weeks) - 0.5)


def _name(drift: Drift, week: Week) -> str:
    return week.name + (" r" if drift.reference and week in drift.reference.weeks else "")

"""A backtest for people: a page of Markdown that also reads well on a terminal, and a picture.

Knows how to word and draw counts; counts nothing.
"""

from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from fraudguard.backtest import Backtest, Past, RuleTally, Side
from fraudguard.domain import Outcome
from fraudguard.markdown import table

RULES_DRAWN_MAX: Final = 6
_COLOURS: Final = {"fraud": "#b3261e", "legitimate": "#5b8c5a", "open": "#9aa0a6"}

_SAID: Final = {"open": "not known yet"}


def render(backtest: Backtest, currency: str) -> str:
    """The page. currency: of the money."""
    total = backtest.total
    if not total.all or backtest.first is None or backtest.last is None:
        return "# Backtest\n\nNo decision lies in this span.\n"
    parts = [
        f"# Backtest: {total.all:,} decisions, {backtest.first:%Y-%m-%d} to {backtest.last:%Y-%m-%d}",
        f"Known fraud {total.fraud:,} ({currency} {total.fraud_money:,.0f}), known legitimate {total.legitimate:,}, "
        f"not known yet {total.open:,}. Truth counts once the label delay is over; legitimate without a label.",
        *_missing(backtest),
        "## What would have changed",
        _effect(backtest, currency),
        _changes(backtest, currency),
        "## Rules",
        _rules(backtest, currency),
        *_examples(backtest, currency),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _missing(backtest: Backtest) -> list[str]:
    return [
        f"**Careful:** `{name}` was not stored with {count:,} of {backtest.total.all:,} decisions; there it counts as "
        "missing."
        for name, count in sorted(backtest.missing.items())
    ]


def _effect(backtest: Backtest, currency: str) -> str:
    before, after, days = backtest.stopped_before, backtest.stopped_after, backtest.days
    saved = after.fraud_money - before.fraud_money
    wrongly = after.legitimate_money - before.legitimate_money
    rows = [
        ("", "as decided", "with these rules", "difference"),
        ("alerts a day", *_pair(backtest.alerts_before / days, backtest.alerts_after / days, ".1f")),
        ("fraud stopped (review or block)", *_pair(before.fraud, after.fraud, ",.0f")),
        (
            f"fraud money stopped, {currency}",
            f"{before.fraud_money:,.0f}",
            f"{after.fraud_money:,.0f}",
            f"{saved:+,.0f}",
        ),
        ("legitimate stopped", *_pair(before.legitimate, after.legitimate, ",.0f")),
        (
            f"legitimate money stopped, {currency}",
            f"{before.legitimate_money:,.0f}",
            f"{after.legitimate_money:,.0f}",
            f"{wrongly:+,.0f}",
        ),
    ]
    return table(rows)


def _pair(before: float, after: float, form: str) -> tuple[str, str, str]:
    return format(before, form), format(after, form), format(after - before, "+" + form)


def _changes(backtest: Backtest, currency: str) -> str:
    if not backtest.changes:
        return "No decision would have come out otherwise."
    rows = [("from", "to", "decisions", "fraud", "legitimate", "not known", f"money, {currency}")]
    for (old, new), change in sorted(backtest.changes.items(), key=lambda item: _order(*item[0])):
        side = change.side
        money = side.fraud_money + side.legitimate_money
        rows.append(
            (old, new, f"{side.all:,}", f"{side.fraud:,}", f"{side.legitimate:,}", f"{side.open:,}", f"{money:,.0f}")
        )
    return table(rows)


def _order(old: Outcome, new: Outcome) -> tuple[int, int]:
    return -new.severity, old.severity


def _rules(backtest: Backtest, currency: str) -> str:
    money = f"fraud, {currency}", f"legitimate, {currency}"
    rows: list[tuple[str, ...]] = [
        ("rule", "state", "hits", "a day", "precision", "recall", *money, "alone", "mostly together with"),
    ]
    silent = sorted(t.rule.id for t in backtest.rules.values() if not t.hits.all and not t.changed)
    for tally in _ranked(backtest):
        hits, rule = tally.hits, tally.rule
        if rule.id in silent:
            continue
        most = ", ".join(f"{other} {count / hits.all:.0%}" for other, count in tally.overlap.most_common(2))
        rows.append((
            f"{rule.id} v{rule.version}" + (" *" if tally.changed else ""), rule.state, f"{hits.all:,}",
            f"{hits.all / backtest.days:.1f}", _share(hits.precision),
            _share(hits.fraud / backtest.total.fraud if backtest.total.fraud else None),
            f"{hits.fraud_money:,.0f}", f"{hits.legitimate_money:,.0f}", f"{tally.alone.all:,}", most or "-",
        ))  # fmt: skip
    note = "\\* new, or other than the rule that decided. alone: no other live rule hit."
    without = f"Without a hit: {', '.join(silent)}." if silent else ""
    return "\n\n".join(filter(None, (table(rows), note, without)))


def _ranked(backtest: Backtest) -> list[RuleTally]:
    return sorted(backtest.rules.values(), key=lambda tally: (not tally.changed, -tally.hits.all, tally.rule.id))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _examples(backtest: Backtest, currency: str) -> list[str]:
    """Of the outcomes that change, and of what new rules hit, a shadow rule's hits among it."""
    head = ("decision", "account", "event time", f"money, {currency}", "risk", "truth")
    changes: list[tuple[str, ...]] = [(*head, "from", "to", "rules that hit")]
    for (old, new), change in sorted(backtest.changes.items(), key=lambda item: _order(*item[0])):
        changes += [(*_facts(past), old, new, ", ".join(rules) or "-") for past, rules in change.examples]
    hits: list[tuple[str, ...]] = [(*head, "decided", "rule that hits")]
    for tally in _ranked(backtest):
        hits += [(*_facts(past), past.outcome, tally.rule.id) for past in tally.examples]
    parts = [table(rows) for rows in (changes, hits) if len(rows) > 1]
    why = "`fraudguard rules explain DECISION` says why one came out as it did."
    return ["## Examples", *parts, why] if parts else []


def _facts(past: Past) -> tuple[str, ...]:
    risk = "-" if past.score is None else f"{past.score.risk:.3f}"
    time, money = f"{past.event_time:%Y-%m-%d %H:%M}", f"{past.money:,.0f}"
    return past.decision_id, past.account_id, time, money, risk, past.verdict or "not known"


def draw(backtest: Backtest, path: Path) -> None:
    """The picture: what changes from where to where, and the hits a day of the rules that are new or hit most."""
    from matplotlib.figure import Figure

    drawn = [tally for tally in _ranked(backtest) if tally.hits.all][:RULES_DRAWN_MAX]
    figure = Figure(figsize=(11, 3.2 + 1.6 * len(drawn)), layout="constrained")
    grid = figure.add_gridspec(1 + len(drawn), 2, height_ratios=[2, *[1] * len(drawn)])
    matrix, money = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    names = [outcome.value for outcome in Outcome]
    counts = [[_moved(backtest, old, new) for new in Outcome] for old in Outcome]
    matrix.imshow([[min(count, 1) for count in row] for row in counts], cmap="Oranges", vmin=0, vmax=2)
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            matrix.text(column, row, f"{count:,}" if count else "", ha="center", va="center")
    matrix.set_xticks(range(len(names)), names, rotation=25)
    matrix.set_yticks(range(len(names)), names)
    matrix.set_xlabel("with these rules")
    matrix.set_ylabel("as decided")
    matrix.set_title("decisions that change")
    sides = (backtest.stopped_before, backtest.stopped_after)
    for name, values in (
        ("fraud", [side.fraud_money for side in sides]),
        ("legitimate", [side.legitimate_money for side in sides]),
    ):
        shift = -0.2 if name == "fraud" else 0.2
        bars = money.bar([i + shift for i in range(2)], values, 0.38, label=name, color=_COLOURS[name])
        money.bar_label(bars, fmt="{:,.0f}")
    money.set_xticks(range(2), ["as decided", "with these rules"])
    money.set_title("money stopped (review or block)")
    money.ticklabel_format(axis="y", style="plain")
    money.margins(y=0.15)
    money.legend()
    for i, tally in enumerate(drawn):
        _draw_days(figure.add_subplot(grid[1 + i, :]), tally, backtest)
    figure.savefig(path, dpi=110)


def _moved(backtest: Backtest, old: Outcome, new: Outcome) -> int:
    change = backtest.changes.get((old, new))
    return change.side.all if change else 0


def _draw_days(axes: Any, tally: RuleTally, backtest: Backtest) -> None:
    if backtest.first is None or backtest.last is None:
        return
    first, last = backtest.first.date(), backtest.last.date()
    days = [first + timedelta(n) for n in range((last - first).days + 1)]
    below = [0] * len(days)
    for name, colour in _COLOURS.items():
        counts = [_of_day(tally, day, name) for day in days]
        axes.bar(days, counts, bottom=below, color=colour, label=_SAID.get(name, name), width=0.9)
        below = [a + b for a, b in zip(below, counts, strict=True)]
    axes.set_title(f"{tally.rule.id}: hits a day", loc="left", fontsize=9)
    axes.margins(y=0.25)
    axes.legend(loc="upper right", fontsize=7, ncols=3)


def _of_day(tally: RuleTally, day: date, name: str) -> int:
    count: int = getattr(tally.days.get(day, Side()), name)
    return count

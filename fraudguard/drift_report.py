"""A drift count for people: what a risk manager reads first, and the page behind it.

Knows how to word counts and indices; counts nothing. The page is Markdown that also reads well on a terminal.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final
from zoneinfo import ZoneInfo

from fraudguard.baseline import EventType
from fraudguard.domain import Outcome, Typology
from fraudguard.drift import EVENT_TYPES, VARIABLES, Drift, Population, Shift
from fraudguard.features.registry import FEATURES
from fraudguard.markdown import table
from fraudguard.stability import LARGE, SOME, Level, bin_of
from fraudguard.weeks import Week

SAID_MAX: Final = 8  # lines of what moved in the summary
NAMED_MAX: Final = 3  # variables in one of them
GROWING: Final = ("account_age_days", "account_events", "counterparty_payments")  # older accounts, nothing else
ROWS_MIN: Final = 10  # variables in a table, steady ones too
_MARKS: Final = {Level.STEADY: "", Level.NOISE: " ~", Level.SOME: " !", Level.LARGE: " !!"}
_BOOLEANS: Final = {feature.name for feature in FEATURES if feature.type == "boolean"}
_FAMILIES: Final = {feature.name: feature.name.removesuffix(f"_{feature.window}") for feature in FEATURES}
_READING: Final = (
    f"The population stability index (PSI) of a week's values against the reference's: below {SOME} steady, to {LARGE} "
    f"some shift (!), above it a large one (!!). ~: {SOME} or more, but no more than so few values give by chance, or "
    "than weeks of the reference differ from each other. r: part of the reference. docs/drift.md says how it is "
    "counted and what to do."
)


def title(drift: Drift) -> str:
    """One line: what was read."""
    if drift.newest is None:
        return "Drift: no decision is stored"
    if not drift.weeks:
        return "Drift: no decision lies in these weeks"
    decisions = sum(drift.in_all(drift.weeks, kind).total for kind in EVENT_TYPES)
    return f"Drift: {decisions:,} decisions, {_from_to(drift.weeks)} ({drift.zone})"


def render(drift: Drift, picture: str | None = None) -> str:
    """The page. picture: the file name of the one that belongs to it."""
    parts = [f"# {title(drift)}", summary(drift)]
    if drift.weeks:
        if picture:
            parts.append(f"![stability, alerts and what moved most]({picture})")
        parts += [part for kind in EVENT_TYPES for part in _of_type(drift, kind)]
        parts += ["## Versions", _versions(drift), "## How to read this", _READING]
    return "\n\n".join(filter(None, parts)) + "\n"


# ------------------------------------------------------------ what is read first


def summary(drift: Drift) -> str:
    """A list of sentences, the most important first."""
    return "\n".join(f"- {said}" if not said.startswith("`") else f"  - {said}" for said in _sentences(drift))


def _sentences(drift: Drift) -> list[str]:
    """One that starts with a variable's name belongs under the one before."""
    if drift.newest is None:
        return ["Nothing to report: `fraudguard worker` or `fraudguard screen --keep` store decisions."]
    zone = ZoneInfo(drift.zone)
    if not drift.weeks:
        return [f"The newest decision is of an event of {drift.newest.astimezone(zone):%Y-%m-%d}: choose other weeks."]
    if not any(drift.in_all(drift.weeks, kind).total for kind in EVENT_TYPES):
        return [f"Nothing was decided in these weeks. The newest event is of {drift.newest.astimezone(zone):%Y-%m-%d}."]
    week = drift.current
    sentences = list(_moved(drift, week)) if week and drift.reference else [_nothing_to_compare(drift)]
    shown = week or drift.weeks[-1]
    sentences += [*_alerts(drift, shown), *_labels(drift), _degraded(drift, shown), *_new_versions(drift)]
    return sentences


def _nothing_to_compare(drift: Drift) -> str:
    if drift.reference is None:
        return (
            "There is one week only, and nothing to compare it with: inputs and scores are compared from the next on."
        )
    return "Every week with decisions is part of the reference: nothing is compared."


def _moved(drift: Drift, week: Week) -> Iterator[str]:
    """What moved in the week, what did before, and what could not be seen."""
    reference = drift.reference
    if reference is None:
        return
    shifts = drift.shifts(week)
    moved = [shift for shift in shifts if shift.level.moved]
    against = f"against {'the baseline ' if not reference.weeks else ''}{reference.name}"
    if moved:
        yield f"{len(moved)} of {len(shifts)} inputs and scores moved in {_said(drift, week)}, {against}:"
        telling = [shift for shift in moved if shift.variable not in GROWING]
        together = _together(drift, telling)
        yield from (_sentence(drift, shifts) for shifts in together[:SAID_MAX])
        if len(together) > SAID_MAX:
            left = sum(map(len, together[SAID_MAX:]))
            yield f"`...` and {left} more, in the page's tables."
        if len(telling) < len(moved):
            grown = ", ".join(f"`{name}`" for name in GROWING if name in {shift.variable for shift in moved})
            yield f"{grown}: these grow while accounts grow older, whatever happens."
    else:
        yield f"None of {len(shifts)} inputs and scores moved in {_said(drift, week)}, {against}."
    now = {(shift.event_type, shift.variable) for shift in moved}
    before = dict[tuple[EventType, str], str]()
    for earlier in drift.compared:
        for shift in drift.shifts(earlier) if earlier < week else ():
            if shift.level.moved and (shift.event_type, shift.variable) not in now:
                before[shift.event_type, shift.variable] = earlier.name
    if before:
        listed = [f"`{variable}` of {kind}s ({name})" for (kind, variable), name in before.items()]
        yield f"Moved in an earlier week and steady in {week.name}: {_some(listed, SAID_MAX)}."
    yield from _not_seen(drift, week)


def _not_seen(drift: Drift, week: Week) -> Iterator[str]:
    """What this comparison is blind to."""
    reference, filled = drift.reference, drift.filled
    if reference and reference.weeks and filled and reference.weeks[0].first < filled:
        yield (
            f"Careful: until {filled.astimezone(ZoneInfo(drift.zone)):%Y-%m-%d} the longest windows and the counts of "
            "earlier events were still filling up, in part of the reference too: these move by themselves."
        )
    for kind in EVENT_TYPES if reference else ():
        population = drift.of(week, kind)
        if reference and population.total and not reference.size(kind):
            yield f"Careful: the reference has next to no {kind}s; those of {week.name} are not compared."
        elif reference and population.total:
            missing = [name for name in VARIABLES if name not in reference.histograms[kind]]
            if missing:
                named = _some([f"`{name}`" for name in missing], NAMED_MAX)
                yield f"Careful: the reference of {kind}s lacks {named}: these are not compared."
            blind = [
                f"`{shift.variable}` {shift.psi:.2f}"
                for shift in drift.shifts(week)
                if shift.event_type == kind and shift.level is Level.NOISE and shift.variable not in GROWING
            ]
            if blind:
                yield (
                    f"Cannot tell of {kind}s ({population.total:,} beside {reference.size(kind):,}): "
                    f"{_some(blind, NAMED_MAX)}, within what chance or the reference's own weeks give."
                )


def _together(drift: Drift, shifts: Sequence[Shift]) -> list[list[Shift]]:
    """Shifts that are one to a reader: windows of one measure, and all that went missing at once. Order is kept."""
    found: dict[tuple[str, ...], list[Shift]] = {}
    for shift in shifts:
        before, after = _missing_shares(drift, shift)
        largest = changes(drift, shift, 1)
        gone = bool(largest) and largest[0].startswith("missing")
        key = (f"{before:.0%}", f"{after:.0%}") if gone else (_FAMILIES[shift.variable],)
        found.setdefault((shift.event_type, *key), []).append(shift)
    return list(found.values())


def _missing_shares(drift: Drift, shift: Shift) -> tuple[float, float]:
    """Of the reference and of the week."""
    counts = drift.of(shift.week, shift.event_type).counts[shift.variable]
    if drift.reference is None:
        return 0.0, counts[-1] / sum(counts)
    histogram = drift.reference.histograms[shift.event_type][shift.variable]
    return histogram.counts[-1] / histogram.total, counts[-1] / sum(counts)


def _sentence(drift: Drift, shifts: Sequence[Shift]) -> str:
    """Variables that moved together: how far the first did, since when, and where to."""
    shift = since = shifts[0]
    for week in reversed([week for week in drift.compared if week < shift.week]):
        earlier = drift.shift(week, shift.event_type, shift.variable)
        if earlier is None or not earlier.level.moved:
            break
        since = earlier
    when = f", since {since.week.name}" if since is not shift else ""
    names = _some([f"`{one.variable}`" for one in shifts], NAMED_MAX)
    where = "; ".join(changes(drift, shift))
    return f"{names} of {shift.event_type}s: {shift.level}, PSI {shift.psi:.2f}{when}. {where}"


def changes(drift: Drift, shift: Shift, most: int = 2) -> list[str]:
    """The bins that make most of a shift, each with its share in the reference and in the week."""
    if drift.reference is None:
        return []
    histogram = drift.reference.histograms[shift.event_type][shift.variable]
    counts = drift.of(shift.week, shift.event_type).counts[shift.variable]
    before, after = histogram.total, sum(counts)
    rows = [
        (abs(count / after - known / before), name, known / before, count / after)
        for name, known, count in zip(bin_names(shift.variable, histogram.cuts), histogram.counts, counts, strict=True)
    ]
    largest = sorted(rows, key=lambda row: -row[0])[:most]
    return [f"{name}: {known:.1%} → {share:.1%}" for moved, name, known, share in largest if moved]


def bin_names(variable: str, cuts: Sequence[float]) -> list[str]:
    """What lies in each bin, in words; the last is missing."""
    if variable == "typology":
        return [*Typology, "another", "missing"]
    names = [_between(cuts, place) for place in range(len(cuts) + 1)]
    if variable in _BOOLEANS and (no := bin_of(cuts, 0.0)) != (yes := bin_of(cuts, 1.0)):
        names[no], names[yes] = "no", "yes"
    return [*names, "missing"]


def _between(cuts: Sequence[float], place: int) -> str:
    lower = cuts[place - 1] if place else None
    upper = cuts[place] if place < len(cuts) else None
    if upper is None:
        return "any value" if lower is None else f"over {_number(lower)}"
    # A value of its own has its cuts right below it and at it.
    if lower == math.nextafter(upper, -math.inf):
        return _number(upper)
    above = math.nextafter(upper, math.inf)
    end = f"below {_number(above)}" if above in cuts[place + 1 : place + 2] else f"to {_number(upper)}"
    return end if lower is None else f"over {_number(lower)} {end}"


def _number(value: float) -> str:
    if abs(value) < 1e-12:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def _alerts(drift: Drift, week: Week) -> Iterator[str]:
    reference = drift.reference
    for kind in EVENT_TYPES:
        now = drift.of(week, kind)
        if not now.total:
            continue
        usual = drift.in_all(reference.weeks, kind) if reference else Population()
        beside = f", {_share(usual.stopped, usual.total)} in the reference" if usual.total else ""
        yield f"Reviewed or blocked: {_share(now.stopped, now.total)} of {kind}s in {_said(drift, week)}{beside}."
        if not now.alerts.total():
            continue
        waiting, suspicious = now.alerts[None], now.alerts["suspicious"]
        if now.disposed:
            beside = f"; {_share(usual.alerts['confirmed_fraud'], usual.disposed)} in the reference"
            precision = _share(now.alerts["confirmed_fraud"], now.disposed)
            yield (
                f"Precision of disposed alerts: {precision} of {now.disposed:,} {kind}s in {week.name} "
                f"({suspicious:,} suspicious, {waiting:,} not disposed of yet)"
                + (beside if usual.disposed else "")
                + "."
            )
        else:
            yield (
                f"Of {now.alerts.total():,} alerts on {kind}s in {week.name} none is confirmed or cleared yet "
                f"({suspicious:,} suspicious, {waiting:,} wait)."
            )


def _labels(drift: Drift) -> Iterator[str]:
    due = [week for week in drift.weeks if drift.labels_due(week)]
    if not due:
        yield f"No week is old enough for its labels: they may take {drift.label_delay_days} days."
        return
    week = due[-1]
    for kind in EVENT_TYPES:
        population = drift.of(week, kind)
        if population.total:
            frauds, stopped = population.labelled("fraud"), population.labelled("fraud", stopped=True)
            caught = f", of which {stopped:,} had been reviewed or blocked" if frauds else ""
            yield (
                f"Labels name {frauds:,} of {population.total:,} {kind}s fraud in {week.name}, the newest week whose "
                f"labels have had their {drift.label_delay_days} days{caught}."
            )


def _degraded(drift: Drift, week: Week) -> str:
    now = [drift.of(week, kind) for kind in EVENT_TYPES]
    share = _share(sum(p.degraded for p in now), sum(p.total for p in now))
    return f"Decided without the model (degraded): {share} in {_said(drift, week)}."


def _new_versions(drift: Drift) -> Iterator[str]:
    for word, seen in (("model", _seen(drift, "models")), ("rules", _seen(drift, "rules"))):
        began = min(weeks[0] for weeks in seen.values())
        new = [f"{version} since {weeks[0].name}" for version, weeks in seen.items() if weeks[0] > began]
        if new:
            yield f"New {word} in these weeks: {', '.join(new)}."


# ------------------------------------------------------------ the tables


def _of_type(drift: Drift, kind: EventType) -> list[str]:
    if not drift.in_all(drift.weeks, kind).total:
        return []
    return [f"## {kind.capitalize()}s by week", _weeks(drift, kind), *_stability(drift, kind)]


def _weeks(drift: Drift, kind: EventType) -> str:
    head = ("week", "decisions", *Outcome, "review or block", "degraded")
    people = ("alerts", "confirmed", "false positive", "suspicious", "not yet", "precision")
    rows = [(*head, *people, "labelled fraud", "of it stopped")]
    for week in drift.weeks:
        of = drift.of(week, kind)
        precision = "-" if of.precision is None else f"{of.precision:.1%}"
        rows.append((
            _marked(drift, week), f"{of.total:,}", *(f"{of.outcomes[outcome]:,}" for outcome in Outcome),
            _share(of.stopped, of.total), _share(of.degraded, of.total), f"{of.alerts.total():,}",
            f"{of.alerts['confirmed_fraud']:,}", f"{of.alerts['false_positive']:,}", f"{of.alerts['suspicious']:,}",
            f"{of.alerts[None]:,}", precision, *_labelled(drift, week, of),
        ))  # fmt: skip
    return table(rows)


def _labelled(drift: Drift, week: Week, of: Population) -> tuple[str, str]:
    """Frauds by label and those stopped; where labels may still come, that they may."""
    if not of.total:
        return "-", "-"
    frauds, stopped = of.labelled("fraud"), of.labelled("fraud", stopped=True)
    if drift.labels_due(week):
        return f"{frauds:,}", _share(stopped, frauds)
    return (f"{frauds:,} so far", f"{stopped:,} so far") if frauds else ("not due yet", "-")


def _stability(drift: Drift, kind: EventType) -> list[str]:
    """The variables by their largest index in a week that is compared; steady ones only to fill ROWS_MIN."""
    ranked: list[tuple[bool, float, str, Shift, dict[Week, Shift]]] = []
    for variable in VARIABLES:
        of = {week: shift for week in drift.weeks if (shift := drift.shift(week, kind, variable))}
        compared = [of[week] for week in drift.compared if week in of]
        if compared:
            most = max(compared, key=lambda shift: (shift.level.moved, shift.psi))
            ranked.append((not most.level.moved, -most.psi, variable, most, of))
    if not ranked:
        return []
    ranked.sort(key=lambda row: row[:3])
    moved = sum(not row[0] for row in ranked)
    rows: list[tuple[str, ...]] = [("PSI", *(_marked(drift, week) for week in drift.weeks), "where, in the most moved")]
    for _, _, variable, most, of in ranked[: max(moved, ROWS_MIN)]:
        cells = (_index(of.get(week)) for week in drift.weeks)
        where = "; ".join(changes(drift, most))
        rows.append((variable, *cells, f"{most.week.name}: {where}" if where else "-"))
    rest = ranked[max(moved, ROWS_MIN) :]
    below = f"The other {len(rest)} stayed below {SOME} or within noise (~)." if rest else ""
    return [f"### What moved most among {kind}s", table(rows), below]


def _index(shift: Shift | None) -> str:
    return "-" if shift is None else f"{shift.psi:.3f}{_MARKS[shift.level]}"


def _versions(drift: Drift) -> str:
    rows = [("what", "version", "first week", "last week", "decisions")]
    for word, name in (("model", "models"), ("rules", "rules")):
        for version, weeks in _seen(drift, name).items():
            count = sum(getattr(drift.of(week, kind), name)[version] for week in weeks for kind in EVENT_TYPES)
            rows.append((word, version, weeks[0].name, weeks[-1].name, f"{count:,}"))
    return table(rows)


def _seen(drift: Drift, name: str) -> dict[str, list[Week]]:
    """The weeks in which each version decided, in the order in which they came."""
    seen: dict[str, list[Week]] = {}
    for week in drift.weeks:
        for version in sorted({v for kind in EVENT_TYPES for v in getattr(drift.of(week, kind), name)}):
            seen.setdefault(version, []).append(week)
    return seen


# ------------------------------------------------------------ words


def _marked(drift: Drift, week: Week) -> str:
    within = drift.reference is not None and week in drift.reference.weeks
    return week.name + (" r" if within else "") + ("" if drift.whole(week) else " so far")


def _said(drift: Drift, week: Week) -> str:
    return week.name if drift.whole(week) else f"{week.name} so far"


def _from_to(weeks: Sequence[Week]) -> str:
    last = weeks[-1].monday + timedelta(days=6)
    names = weeks[0].name if len(weeks) == 1 else f"{weeks[0].name} to {weeks[-1].name}"
    return f"{names}, {weeks[0].monday} to {last}"


def _some(names: Sequence[str], most: int) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"

"""How the stored decisions of each week differ from those of a reference: inputs, scores, outcomes, alerts, labels.

Knows which weeks are compared with what, and counts them in one reading; the maths is stability.py's, the words are
drift_report.py's. Weeks are ISO weeks of the event time, Monday to Sunday in the setting `time_zone`.

The bins' cuts come from a sample of at most SAMPLE_DECISIONS of the reference (all, if there are less); every count is
of all decisions. Memory goes by weeks and bins, never by decisions.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final, get_args
from zoneinfo import ZoneInfo

import orjson

from fraudguard.baseline import Baseline, EventType, read_baseline
from fraudguard.config import Settings
from fraudguard.decisions.repository import Repository, connect
from fraudguard.decisions.weekly import Span
from fraudguard.domain import STOPPED, Typology
from fraudguard.errors import BadInput
from fraudguard.features.registry import MODEL_FEATURES, WINDOWS_DAYS
from fraudguard.stability import Histogram, Level, cuts_of, level_of, noise, psi, spread
from fraudguard.weeks import Week, weeks_of

WEEKS_SHOWN: Final = 12  # where no --since is given
REFERENCE_WEEKS: Final = 4
SAMPLE_DECISIONS: Final = 20_000
ROWS_A_STEP: Final = 1_000
_YEARS: Final = (1900, 9000)
_EVER: Final = datetime.min.replace(tzinfo=UTC)

EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)
VARIABLES: Final = (*MODEL_FEATURES, "risk", "typology")
# A typology is counted by its place; one that this version does not know comes above the last.
_PLACES: Final = {typology.value: place for place, typology in enumerate(Typology)}
_TYPOLOGY_CUTS: Final = tuple(float(place) for place in _PLACES.values())


@dataclass(frozen=True, slots=True)
class Asked:
    """Days of the time zone, rounded to whole weeks; until and reference_to: before this day.

    None: until the newest decision, from WEEKS_SHOWN weeks before; the first REFERENCE_WEEKS of them are the reference.
    """

    since: date | None = None
    until: date | None = None
    reference_from: date | None = None
    reference_to: date | None = None
    baseline: Path | None = None

    def check(self) -> None:
        """Raises BadInput where the options contradict each other."""
        if (self.reference_from is None) != (self.reference_to is None):
            raise BadInput("--reference-from and --reference-to need each other", hint="give both, or neither")
        if self.baseline is not None and self.reference_from is not None:
            raise BadInput("--baseline is a reference already", path="--reference-from", hint="give one of them")
        for day in (self.since, self.until, self.reference_from, self.reference_to):
            if day is not None and not _YEARS[0] <= day.year <= _YEARS[1]:
                raise BadInput(f"{day} is outside of the calendar", hint=f"give years {_YEARS[0]} to {_YEARS[1]}")
        for first, before, name in (
            (self.since, self.until, "--since"),
            (self.reference_from, self.reference_to, "--reference-from"),
        ):
            if first is not None and before is not None and first >= before:
                raise BadInput(f"{first} is not before {before}", path=name)


@dataclass(slots=True)
class Population:
    """Decisions of one event type. counts: by variable, see stability.py; none where the reference has no such events.

    alerts: by their case's disposition, None for not yet. labels: labelled decisions, by the label's source and verdict
    and the decision's outcome.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    models: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    counts: dict[str, list[int]] = field(default_factory=dict)
    alerts: Counter[str | None] = field(default_factory=Counter)
    labels: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """How many decisions."""
        return self.outcomes.total()

    @property
    def stopped(self) -> int:
        """Reviewed or blocked."""
        return sum(self.outcomes[outcome] for outcome in STOPPED)

    @property
    def disposed(self) -> int:
        """Alerts that somebody has called fraud or not; the merely suspicious are neither."""
        return self.alerts["confirmed_fraud"] + self.alerts["false_positive"]

    @property
    def precision(self) -> float | None:
        """Share of confirmed fraud among the disposed alerts; None where there are none."""
        return self.alerts["confirmed_fraud"] / self.disposed if self.disposed else None

    def labelled(self, verdict: str, *, stopped: bool = False) -> int:
        """Decisions whose newest label says so. stopped: of them the reviewed or blocked."""
        return sum(
            count
            for (_, said, outcome), count in self.labels.items()
            if said == verdict and (outcome in STOPPED or not stopped)
        )

    def add(self, other: "Population") -> None:
        """Take another one's counts in."""
        self.outcomes += other.outcomes
        self.degraded += other.degraded
        self.models += other.models
        self.rules += other.rules
        self.alerts += other.alerts
        self.labels += other.labels
        for name, counts in other.counts.items():
            own = self.counts.setdefault(name, [0] * len(counts))
            self.counts[name] = [a + b for a, b in zip(own, counts, strict=True)]


@dataclass(frozen=True, slots=True)
class Shift:
    """A variable of a week beside the reference. usual: an index that it may have though nothing moved."""

    week: Week
    event_type: EventType
    variable: str
    psi: float
    usual: float

    @property
    def level(self) -> Level:
        """How it is read."""
        return level_of(self.psi, self.usual)


@dataclass(frozen=True, slots=True)
class Reference:
    """What the weeks are compared with. weeks: that it is made of, none for a baseline.

    spreads: how far its weeks differ from each other, see stability.py.
    """

    name: str
    weeks: tuple[Week, ...]
    histograms: Mapping[EventType, Mapping[str, Histogram]]
    spreads: Mapping[EventType, Mapping[str, float]] = field(default_factory=dict)

    def size(self, event_type: EventType) -> int:
        """How many events of this type it is made of."""
        return max((histogram.total for histogram in self.histograms.get(event_type, {}).values()), default=0)


@dataclass(frozen=True, slots=True)
class Drift:
    """The count. weeks: to show. reference None: no week would be left to compare.

    oldest and newest: event times of any decision, None where there is none.
    """

    zone: str
    oldest: datetime | None
    newest: datetime | None
    weeks: tuple[Week, ...]
    reference: Reference | None
    populations: Mapping[tuple[Week, EventType], Population]
    label_delay_days: int

    @property
    def compared(self) -> tuple[Week, ...]:
        """The weeks that are no part of the reference."""
        within = set(self.reference.weeks) if self.reference else set()
        return tuple(week for week in self.weeks if week not in within)

    @property
    def current(self) -> Week | None:
        """The newest whole week with decisions that is compared; one in part where none is whole."""
        held = [week for week in self.compared if any(self.of(week, kind).total for kind in EVENT_TYPES)]
        return next((week for week in reversed(held) if self.whole(week)), held[-1] if held else None)

    def whole(self, week: Week) -> bool:
        """Whether decisions of later events are there already."""
        return self.newest is not None and week.before <= self.newest

    def labels_due(self, week: Week) -> bool:
        """Whether every decision of the week has had its label delay."""
        return self.newest is not None and week.before <= self.newest - timedelta(days=self.label_delay_days)

    @property
    def filled(self) -> datetime | None:
        """From when on a decision could have seen its longest windows in full, label delay included."""
        return self.oldest and self.oldest + timedelta(days=max(WINDOWS_DAYS) + self.label_delay_days)

    def of(self, week: Week, event_type: EventType) -> Population:
        """The week's decisions of this type."""
        return self.populations.get((week, event_type)) or Population()

    def in_all(self, weeks: Iterable[Week], event_type: EventType) -> Population:
        """Those of several weeks together."""
        together = Population()
        for week in weeks:
            together.add(self.of(week, event_type))
        return together

    def shift(self, week: Week, event_type: EventType, variable: str) -> Shift | None:
        """None where the reference or the week has no such events."""
        if self.reference is None:
            return None
        histogram = self.reference.histograms.get(event_type, {}).get(variable)
        counts = self.of(week, event_type).counts.get(variable)
        if not histogram or not counts or not histogram.total or not any(counts):
            return None
        own = self.reference.spreads.get(event_type, {}).get(variable, 0.0)
        usual = max(own, noise(histogram.counts, counts))
        return Shift(week, event_type, variable, psi(histogram.counts, counts), usual)

    def shifts(self, week: Week) -> list[Shift]:
        """Of every variable that can be compared, what moved most first."""
        found = [self.shift(week, kind, variable) for kind in EVENT_TYPES for variable in VARIABLES]
        return sorted((shift for shift in found if shift), key=lambda shift: (not shift.level.moved, -shift.psi))


async def run(settings: Settings, asked: Asked, advance: Callable[[int], None]) -> Drift:
    """Count the stored decisions. advance: called with how many more have been counted.

    Raises BadInput for options that contradict each other or what is stored, and for a baseline that cannot be read.
    """
    asked.check()
    baseline = read_baseline(asked.baseline) if asked.baseline else None
    async with connect(settings.database_url.get_secret_value()) as repository:
        return await _Run(settings, repository, asked, baseline).run(advance)


class _Run:
    """One reading of the decisions in PostgreSQL."""

    def __init__(self, settings: Settings, repository: Repository, asked: Asked, baseline: Baseline | None) -> None:
        self._settings, self._weekly, self._asked, self._baseline = settings, repository.weekly, asked, baseline
        self._newest_event_time = repository.newest_event_time
        self._zone = ZoneInfo(settings.time_zone)
        self._populations: dict[tuple[Week, EventType], Population] = {}

    async def run(self, advance: Callable[[int], None]) -> Drift:
        newest = await self._newest_event_time()
        weeks = await self._weeks(newest) if newest else ()
        reference = await self._reference_weeks(weeks)
        cuts = await self._cuts(reference)
        for run in _consecutive({*weeks, *reference}):
            await self._count(run, cuts, advance)
        return Drift(
            zone=self._settings.time_zone,
            oldest=await self._weekly.first_event_time(_EVER, newest) if newest else None,
            newest=newest,
            weeks=weeks,
            reference=self._reference(reference, cuts),
            populations=self._populations,
            label_delay_days=self._settings.label_delay_days,
        )

    async def _weeks(self, newest: datetime) -> tuple[Week, ...]:
        """The weeks to show."""
        asked, newest_day = self._asked, newest.astimezone(self._zone).date()
        last = asked.until - timedelta(days=1) if asked.until else newest_day
        if asked.since:
            if asked.since > last:
                raise BadInput(
                    f"nothing was decided since {asked.since}", path="--since", hint=f"the newest is of {newest_day}"
                )
            return weeks_of(asked.since, last, self._zone)
        first = date.fromordinal(max(1, last.toordinal() - 7 * (WEEKS_SHOWN - 1)))
        return await self._from_first_decision(weeks_of(first, last, self._zone))

    async def _from_first_decision(self, weeks: Sequence[Week]) -> tuple[Week, ...]:
        """The weeks without those at the beginning in which nothing was decided."""
        first = await self._weekly.first_event_time(weeks[0].first, weeks[-1].before)
        return tuple(week for week in weeks if first is not None and first < week.before)

    async def _reference_weeks(self, weeks: Sequence[Week]) -> tuple[Week, ...]:
        """Stored weeks to compare with; none with a baseline, and where no week would be left to compare."""
        asked = self._asked
        if self._baseline or not weeks:
            return ()
        if asked.reference_from and asked.reference_to:
            chosen = weeks_of(asked.reference_from, asked.reference_to - timedelta(days=1), self._zone)
            if not await self._from_first_decision(chosen):
                raise BadInput(
                    f"nothing was decided in the reference, {chosen[0].name} to {chosen[-1].name}",
                    path="--reference-from",
                    hint="choose weeks with decisions",
                )
            return chosen
        held = await self._from_first_decision(weeks)
        return held[: min(REFERENCE_WEEKS, len(held) - 1)]

    async def _cuts(self, reference: Sequence[Week]) -> dict[EventType, dict[str, tuple[float, ...]]]:
        """The bins of each variable: the baseline's, or from a sample of the reference."""
        if self._baseline:
            given = self._baseline.variables.items()
            return {kind: {name: held.cuts for name, held in of.items()} for kind, of in given}
        if not reference:
            return {}
        values: dict[str, dict[str, array[float]]] = {}
        async for event_type, risk, features in self._weekly.sample(_span(reference), SAMPLE_DECISIONS):
            of = values.setdefault(event_type, {name: array("d") for name in (*MODEL_FEATURES, "risk")})
            for name, value in {**orjson.loads(features), "risk": risk}.items():
                if name in of and value is not None:
                    of[name].append(value)
        return {
            kind: {**{name: cuts_of(held) for name, held in values[kind].items()}, "typology": _TYPOLOGY_CUTS}
            for kind in EVENT_TYPES
            if kind in values
        }

    async def _count(
        self,
        weeks: Sequence[Week],
        cuts: Mapping[EventType, Mapping[str, tuple[float, ...]]],
        advance: Callable[[int], None],
    ) -> None:
        """Take the decisions, alerts and labels of consecutive weeks in."""
        span, own = _span(weeks), dict[tuple[int, str], Population]()
        plans: dict[tuple[int, str], list[tuple[str, tuple[float, ...], list[int]]]] = {}
        for place, week in enumerate(weeks):
            for kind in EVENT_TYPES:
                bins = {name: [0] * (len(ends) + 2) for name, ends in cuts.get(kind, {}).items()}
                own[place, kind] = self._populations[week, kind] = Population(counts=bins)
                plans[place, kind] = [(name, cuts[kind][name], counts) for name, counts in bins.items()]
        taken = 0
        rows = self._weekly.screened(span)
        async for place, event_type, outcome, risk, typology, degraded, model, rules, features in rows:
            population = own[place, event_type]
            population.outcomes[outcome] += 1
            population.degraded += degraded
            population.models[model] += 1
            population.rules[rules] += 1
            values = orjson.loads(features)
            values["risk"] = risk
            values["typology"] = None if typology is None else _PLACES.get(typology, len(_PLACES))
            for name, ends, counts in plans[place, event_type]:
                value = values.get(name)
                counts[-1 if value is None else bisect_left(ends, value)] += 1
            taken += 1
            if not taken % ROWS_A_STEP:
                advance(ROWS_A_STEP)
        advance(taken % ROWS_A_STEP)
        for alert in await self._weekly.alerts(span):
            own[alert.week, alert.event_type].alerts[alert.disposition] += alert.count
        for label in await self._weekly.labels(span):
            own[label.week, label.event_type].labels[label.source, label.verdict, label.outcome] += label.count

    def _reference(
        self, weeks: tuple[Week, ...], cuts: Mapping[EventType, Mapping[str, tuple[float, ...]]]
    ) -> Reference | None:
        if self._baseline:
            return Reference(self._baseline.name, (), self._baseline.variables)
        if not weeks:
            return None
        histograms: dict[EventType, dict[str, Histogram]] = {}
        spreads: dict[EventType, dict[str, float]] = {}
        for kind, of in cuts.items():
            parts = {name: [self._populations[week, kind].counts[name] for week in weeks] for name in of}
            sums = {name: tuple(map(sum, zip(*counts, strict=True))) for name, counts in parts.items()}
            histograms[kind] = {name: Histogram(ends, sums[name]) for name, ends in of.items()}
            spreads[kind] = {name: spread(counts) for name, counts in parts.items()}
        name = weeks[0].name if len(weeks) == 1 else f"{weeks[0].name} to {weeks[-1].name}"
        return Reference(name, weeks, histograms, spreads)


def _span(weeks: Sequence[Week]) -> Span:
    return Span(tuple(week.first for week in weeks), weeks[-1].before)


def _consecutive(weeks: Iterable[Week]) -> Iterator[list[Week]]:
    """Runs of weeks without a gap, in order."""
    run: list[Week] = []
    for week in sorted(weeks):
        if run and run[-1].before != week.first:
            yield run
            run = []
        run.append(week)
    if run:
        yield run

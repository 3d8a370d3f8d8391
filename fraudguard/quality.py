"""How good the model's risks have been, by week: precision of judged alerts, calibration, drift, the challenger beside.

Knows what counts mean; reads them bounded, so a page may ask for them. `fraudguard drift` counts every decision and
input, for whoever has minutes. Weeks are those of drift.py: ISO weeks of the event time in the setting `time_zone`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import sqrt
from statistics import fmean
from typing import Final
from zoneinfo import ZoneInfo

from fraudguard.config import Settings
from fraudguard.decisions.judged import BINS, JudgedAlerts, Scored
from fraudguard.decisions.models import Model
from fraudguard.decisions.repository import Repository
from fraudguard.decisions.weekly import Span
from fraudguard.domain import STOPPED
from fraudguard.stability import Level, bin_of, cuts_of, level_of, noise, psi
from fraudguard.weeks import Week, weeks_of

WEEKS: Final = 8
REFERENCE_WEEKS: Final = 4  # the first ones, as in drift.py
_Z: Final = 1.96  # 95 %
_JUDGED: Final = ("confirmed_fraud", "false_positive")
EVENT_TYPES: Final = ("transaction", "message")


@dataclass(frozen=True, slots=True)
class Share:
    """part of whole. low, high: Wilson's 95 % interval (Wilson 1927), None without a whole."""

    part: int
    whole: int

    @property
    def value(self) -> float | None:
        """None without a whole."""
        return self.part / self.whole if self.whole else None

    @property
    def low(self) -> float | None:
        """Where the interval begins."""
        return self._interval(-1)

    @property
    def high(self) -> float | None:
        """Where it ends."""
        return self._interval(1)

    def _interval(self, way: int) -> float | None:
        if not self.whole:
            return None
        n, p = self.whole, self.part / self.whole
        middle, spread = p + _Z * _Z / (2 * n), _Z * sqrt(p * (1 - p) / n + _Z * _Z / (4 * n * n))
        return min(1.0, max(0.0, (middle + way * spread) / (1 + _Z * _Z / n)))


@dataclass(frozen=True, slots=True)
class Moved:
    """The risks of a week's events of one type beside the reference's. usual: an index that chance alone may give."""

    psi: float
    usual: float

    @property
    def level(self) -> Level:
        """How it is read."""
        return level_of(self.psi, self.usual)


@dataclass(frozen=True, slots=True)
class WeekQuality:
    """One week. alerts: all of it; precision: confirmed fraud among the judged ones. sampled: decisions that were read.

    stopped: reviewed or blocked, of the sample. moved: by event type, none in the reference and without events.
    """

    week: Week
    alerts: int
    precision: Share
    sampled: int
    stopped: Share
    degraded: Share
    mean_risk: Mapping[str, float]
    moved: Mapping[str, Moved]
    reference: bool


@dataclass(frozen=True, slots=True)
class Bin:
    """Judged alerts whose risk lies here. risk: their mean; frauds: confirmed ones among them."""

    low: float
    high: float
    risk: float
    frauds: Share


@dataclass(frozen=True, slots=True)
class TypologyQuality:
    """What the model called so. typology None: it gave no risk."""

    typology: str | None
    alerts: int
    precision: Share


@dataclass(frozen=True, slots=True)
class Beside:
    """The challenger beside what was decided. sampled: decisions that both scored; moved: mean change of the risk.

    outcomes: (as decided, the challenger's) where they differ. frauds, false_alarms: of the judged alerts that both
    scored, how many it would have stopped too.
    """

    sampled: int
    moved: float
    outcomes: Mapping[tuple[str, str], int]
    frauds: Share
    false_alarms: Share


@dataclass(frozen=True, slots=True)
class Quality:
    """weeks: with decisions, oldest first. scoring: the newest decision's model. beside: None without challenger."""

    weeks: tuple[WeekQuality, ...] = ()
    bins: tuple[Bin, ...] = ()
    typologies: tuple[TypologyQuality, ...] = ()
    scoring: str | None = None
    beside: Beside | None = None


async def quality(settings: Settings, repository: Repository, challenger: Model | None, now: datetime) -> Quality:
    """Of the newest WEEKS weeks with decisions. Raises StoreUnavailable."""
    newest = await repository.newest_event_time()
    if newest is None:
        return Quality()
    zone = ZoneInfo(settings.time_zone)
    last = newest.astimezone(zone).date()
    first = date.fromordinal(max(8, last.toordinal() - 7 * (WEEKS - 1)))
    weeks = weeks_of(first, last, zone)
    span = Span(tuple(week.first for week in weeks), weeks[-1].before)
    digest = challenger.digest if challenger else None
    alerts, scored = await repository.judged.alerts(span, digest), await repository.judged.scored(span, digest)
    return Quality(
        weeks=_weeks(weeks, alerts, scored),
        bins=_bins(alerts),
        typologies=_typologies(alerts),
        scoring=await repository.judged.scoring(now - timedelta(days=7)),
        beside=_beside(alerts, scored) if challenger else None,
    )


def _weeks(weeks: Sequence[Week], alerts: Sequence[JudgedAlerts], scored: Sequence[Scored]) -> tuple[WeekQuality, ...]:
    held = sorted({row.week for row in scored} | {row.week for row in alerts})
    reference = set(held[: min(REFERENCE_WEEKS, len(held) - 1)])
    moved = _moved(held, reference, scored)
    return tuple(
        _week(weeks[place], [row for row in alerts if row.week == place], [r for r in scored if r.week == place],
              moved.get(place, {}), place in reference)
        for place in held
    )  # fmt: skip


def _week(
    week: Week, alerts: Sequence[JudgedAlerts], scored: Sequence[Scored], moved: Mapping[str, Moved], reference: bool
) -> WeekQuality:
    risks: dict[str, list[float]] = {}
    for row in scored:
        if row.risk is not None:
            risks.setdefault(row.event_type, []).append(row.risk)
    return WeekQuality(
        week=week,
        alerts=sum(row.count for row in alerts),
        precision=_precision(alerts),
        sampled=len(scored),
        stopped=Share(sum(row.outcome in STOPPED for row in scored), len(scored)),
        degraded=Share(sum(row.degraded for row in scored), len(scored)),
        mean_risk={kind: fmean(values) for kind, values in risks.items()},
        moved=moved,
        reference=reference,
    )


def _moved(held: Sequence[int], reference: set[int], scored: Sequence[Scored]) -> dict[int, dict[str, Moved]]:
    """The stability index of each compared week's risks, over deciles of the reference's."""
    found: dict[int, dict[str, Moved]] = {}
    for kind in EVENT_TYPES:
        by_week: dict[int, list[float]] = {}
        for row in scored:
            if row.event_type == kind and row.risk is not None:
                by_week.setdefault(row.week, []).append(row.risk)
        before = [risk for week in reference for risk in by_week.get(week, ())]
        if not before:
            continue
        cuts = cuts_of(before)
        counts = _counts(cuts, before)
        for week in held:
            if week not in reference and by_week.get(week):
                own = _counts(cuts, by_week[week])
                found.setdefault(week, {})[kind] = Moved(psi(counts, own), noise(counts, own))
    return found


def _counts(cuts: Sequence[float], risks: Sequence[float]) -> list[int]:
    counts = [0] * (len(cuts) + 2)
    for risk in risks:
        counts[bin_of(cuts, risk)] += 1
    return counts


def _precision(alerts: Sequence[JudgedAlerts]) -> Share:
    """As in drift.py: the merely suspicious are neither."""
    frauds = sum(row.count for row in alerts if row.disposition == "confirmed_fraud")
    return Share(frauds, sum(row.count for row in alerts if row.disposition in _JUDGED))


def _bins(alerts: Sequence[JudgedAlerts]) -> tuple[Bin, ...]:
    found = []
    for place in range(BINS):
        judged = [row for row in alerts if row.bin == place and row.disposition in _JUDGED]
        if judged:
            frauds = _precision(judged)
            risk = sum(row.risk for row in judged) / frauds.whole
            found.append(Bin(place / BINS, (place + 1) / BINS, risk, frauds))
    return tuple(found)


def _typologies(alerts: Sequence[JudgedAlerts]) -> tuple[TypologyQuality, ...]:
    counts = Counter[str | None]()
    for row in alerts:
        counts[row.typology] += row.count
    return tuple(
        TypologyQuality(typology, count, _precision([row for row in alerts if row.typology == typology]))
        for typology, count in counts.most_common()
    )


def _beside(alerts: Sequence[JudgedAlerts], scored: Sequence[Scored]) -> Beside:
    both = [(row.risk, row.outcome, row.shadow_risk, row.shadow_outcome) for row in scored if row.shadow_outcome]
    changes = [abs(shadow - risk) for risk, _, shadow, _ in both if risk is not None and shadow is not None]
    stopped, whole = Counter[str](), Counter[str]()
    for row in alerts:
        if row.shadow is not None and row.disposition is not None:
            whole[row.disposition] += row.count
            stopped[row.disposition] += row.count * (row.shadow in STOPPED)
    return Beside(
        sampled=len(both),
        moved=fmean(changes) if changes else 0.0,
        outcomes=Counter((live, shadow) for _, live, _, shadow in both if shadow and shadow != live),
        frauds=Share(stopped["confirmed_fraud"], whole["confirmed_fraud"]),
        false_alarms=Share(stopped["false_positive"], whole["false_positive"]),
    )

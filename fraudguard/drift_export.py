"""A drift count for machines: JSON, and Prometheus's text format for node_exporter's textfile collector.

No worker exposes these: they come from a scan of the database, which belongs into a nightly command.
"""

from pathlib import Path
from typing import Any, Final

from prometheus_client import write_to_textfile

from fraudguard import metrics
from fraudguard.drift import EVENT_TYPES, VARIABLES, Drift, Population
from fraudguard.errors import BadInput
from fraudguard.weeks import Week

_BY_LABEL: Final = (
    metrics.DRIFT_PSI, metrics.DRIFT_PSI_USUAL, metrics.DRIFT_DECISIONS, metrics.DRIFT_STOPPED_SHARE,
    metrics.DRIFT_DEGRADED_SHARE, metrics.DRIFT_ALERTS, metrics.DRIFT_PRECISION, metrics.DRIFT_FRAUDS,
    metrics.DRIFT_FRAUDS_STOPPED,
)  # fmt: skip


def as_json(drift: Drift) -> dict[str, Any]:
    """Everything that was counted; of variables also the bins' cuts and counts."""
    reference = drift.reference
    return {
        "format": 1,
        "time_zone": drift.zone,
        "newest_event_time": drift.newest and drift.newest.isoformat(),
        "label_delay_days": drift.label_delay_days,
        "current_week": drift.current and drift.current.name,
        "reference": reference and {"name": reference.name, "weeks": [week.name for week in reference.weeks]},
        "weeks": [_week(drift, week) for week in drift.weeks],
        "variables": {kind: _variables(drift, kind) for kind in EVENT_TYPES},
    }


def _week(drift: Drift, week: Week) -> dict[str, Any]:
    return {
        "week": week.name,
        "first": week.first.isoformat(),
        "before": week.before.isoformat(),
        "whole": drift.whole(week),
        "labels_due": drift.labels_due(week),
        **{kind: _population(drift.of(week, kind)) for kind in EVENT_TYPES},
    }


def _population(of: Population) -> dict[str, Any]:
    labels = [
        {"source": source, "verdict": verdict, "outcome": outcome, "decisions": count}
        for (source, verdict, outcome), count in sorted(of.labels.items())
    ]
    return {
        "decisions": of.total,
        "outcomes": dict(sorted(of.outcomes.items())),
        "degraded": of.degraded,
        "models": dict(sorted(of.models.items())),
        "rules": dict(sorted(of.rules.items())),
        "alerts": {disposition or "not_yet": count for disposition, count in sorted(of.alerts.items(), key=str)},
        "precision": of.precision,
        "labels": labels,
    }


def _variables(drift: Drift, kind: Any) -> dict[str, Any]:
    found = {}
    for name in VARIABLES:
        histogram = drift.reference and drift.reference.histograms.get(kind, {}).get(name)
        if histogram:
            shifts = {week.name: drift.shift(week, kind, name) for week in drift.weeks}
            found[name] = {
                "cuts": histogram.cuts,
                "reference": histogram.counts,
                "weeks": {week.name: drift.of(week, kind).counts.get(name) for week in drift.weeks},
                "shifts": {
                    week: {"psi": shift.psi, "usual": shift.usual, "level": shift.level}
                    for week, shift in shifts.items()
                    if shift
                },
            }
    return found


def write_textfile(drift: Drift, path: Path) -> None:
    """Set every gauge of metrics.DRIFT and write them, whole or not at all. Raises BadInput."""
    if path.suffix != ".prom":
        raise BadInput("is not read by the collector", path=str(path), hint="its name must end in .prom")
    for gauge in _BY_LABEL:
        gauge.clear()
    week = drift.current
    if drift.newest:
        metrics.DRIFT_NEWEST.set(drift.newest.timestamp())
    for shift in drift.shifts(week) if week and drift.whole(week) else ():
        labels = (shift.event_type, shift.variable)
        metrics.DRIFT_PSI.labels(*labels).set(shift.psi)
        metrics.DRIFT_PSI_USUAL.labels(*labels).set(shift.usual)
    for shown in drift.weeks:
        for kind in EVENT_TYPES:
            _expose(drift, shown, kind, drift.of(shown, kind))
    try:
        write_to_textfile(str(path), metrics.DRIFT)
    except (OSError, ValueError) as error:  # ValueError: NUL in a path
        raise BadInput(f"cannot be written: {error}", path=repr(str(path)), hint="name a file in a folder") from error


def _expose(drift: Drift, week: Week, kind: str, of: Population) -> None:
    for outcome, count in of.outcomes.items():
        metrics.DRIFT_DECISIONS.labels(week.name, kind, outcome).set(count)
    if of.total:
        metrics.DRIFT_STOPPED_SHARE.labels(week.name, kind).set(of.stopped / of.total)
        metrics.DRIFT_DEGRADED_SHARE.labels(week.name, kind).set(of.degraded / of.total)
    for disposition, count in of.alerts.items():
        metrics.DRIFT_ALERTS.labels(week.name, kind, disposition or "not_yet").set(count)
    if of.precision is not None:
        metrics.DRIFT_PRECISION.labels(week.name, kind).set(of.precision)
    if of.total and drift.labels_due(week):
        metrics.DRIFT_FRAUDS.labels(week.name, kind).set(of.labelled("fraud"))
        metrics.DRIFT_FRAUDS_STOPPED.labels(week.name, kind).set(of.labelled("fraud", stopped=True))

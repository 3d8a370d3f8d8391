"""What a model page counts by week: judged alerts, and a bounded sample of what the model said.

Knows which rows, by event time and along indexes; what the counts mean is quality.py's. Alerts are few beside
decisions, and the weeks are few, so alerts are all counted; of decisions at most SLOT_ROWS of every SLOT are read.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text

from fraudguard.decisions.connection import Open
from fraudguard.decisions.weekly import Span

SLOT: Final = timedelta(hours=3)
SLOT_ROWS: Final = 30  # 1,680 a week
BINS: Final = 10  # of the risk, equally wide

# Row by row along shadow_scores' key: a join that reads all that a challenger scored would outlast a page.
# An alert's own disposition counts before its case's. The challenger's outcome is known where it scored the decision.
_JUDGED = text("""
SELECT width_bucket(a.event_time, CAST(:firsts AS timestamptz[])) - 1, a.typology,
       least(width_bucket(a.risk, 0, 1, :bins), :bins) - 1,
       CASE WHEN c.disposition IS NOT NULL THEN coalesce(o.disposition, c.disposition) END, s.outcome,
       count(*), coalesce(sum(a.risk), 0)
FROM alerts a JOIN cases c ON c.case_id = a.case_id
LEFT JOIN LATERAL (
    SELECT disposition FROM alert_dispositions WHERE decision_id = a.decision_id ORDER BY id DESC LIMIT 1
) o ON true
LEFT JOIN LATERAL (
    SELECT outcome FROM shadow_scores WHERE digest = :challenger AND decision_id = a.decision_id LIMIT 1
) s ON true
WHERE a.event_time >= :first AND a.event_time < :before
GROUP BY 1, 2, 3, 4, 5
""")

# Slot by slot along the primary key: the first rows of each, whatever the load.
_SCORED = text("""
SELECT width_bucket(s.at, CAST(:firsts AS timestamptz[])) - 1, d.event_type, d.risk, d.outcome, d.degraded,
       h.risk, h.outcome
FROM generate_series(CAST(:first AS timestamptz), CAST(:last AS timestamptz), :slot) AS s (at)
CROSS JOIN LATERAL (
    SELECT decision_id, event_type, risk, outcome, degraded FROM decisions
    WHERE event_time >= s.at AND event_time < s.at + :slot AND event_time >= :first AND event_time < :before
    ORDER BY event_time LIMIT :rows
) d
LEFT JOIN LATERAL (
    SELECT risk, outcome FROM shadow_scores WHERE digest = :challenger AND decision_id = d.decision_id LIMIT 1
) h ON true
""")

_SCORING = text("""
SELECT body #>> '{decision,model}' FROM decisions WHERE decided_at >= :since ORDER BY decided_at DESC LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class JudgedAlerts:
    """Alerts of a week that are alike. bin: of the risk, None where the model gave none.

    disposition: their own, else of their case; None while that is open. shadow: what the challenger would have made of
    them, None where it did not score. risk: their sum.
    """

    week: int
    typology: str | None
    bin: int | None
    disposition: str | None
    shadow: str | None
    count: int
    risk: float


@dataclass(frozen=True, slots=True)
class Scored:
    """One decision of the sample. shadow_risk, shadow_outcome: the challenger's, None where it did not score."""

    week: int
    event_type: str
    risk: float | None
    outcome: str
    degraded: bool
    shadow_risk: float | None
    shadow_outcome: str | None


class Judged:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, open_: Open) -> None:
        """open_: gives the transaction to work in."""
        self._open = open_

    async def alerts(self, span: Span, challenger: str | None) -> list[JudgedAlerts]:
        """Every alert of the weeks, counted. challenger: a digest."""
        values = {**span.bounds, "firsts": list(span.firsts), "bins": BINS, "challenger": challenger or ""}
        async with self._open() as connection:
            return [JudgedAlerts(*row) for row in await connection.execute(_JUDGED, values)]

    async def scored(self, span: Span, challenger: str | None) -> list[Scored]:
        """A sample of the weeks' decisions: the first SLOT_ROWS of each SLOT."""
        values = {
            **span.bounds,
            "firsts": list(span.firsts),
            "last": span.before - timedelta(seconds=1),
            "slot": SLOT,
            "rows": SLOT_ROWS,
            "challenger": challenger or "",
        }
        async with self._open() as connection:
            return [Scored(*row) for row in await connection.execute(_SCORED, values)]

    async def scoring(self, since: datetime) -> str | None:
        """The model of the newest decision: name@version+precision; None where nothing was decided since."""
        async with self._open() as connection:
            model: str | None = await connection.scalar(_SCORING, {"since": since})
            return model

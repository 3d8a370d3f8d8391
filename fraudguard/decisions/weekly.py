"""What a drift report counts, by week: decisions streamed, alerts and labels counted by PostgreSQL.

Bounded memory, as in history.py. Weeks are places in a list of their first moments: which weeks these are, the caller
says.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, text

from fraudguard.decisions.connection import Open

ROWS_A_FETCH = 1_000

# Plain tuples: names cost three times as much. (event type, risk, features as JSON)
SampledRow = tuple[str, float | None, str]
# (week, event type, outcome, risk, typology, degraded, model, rules version, features as JSON)
ScreenedRow = tuple[int, str, str, float | None, str | None, bool, str, str, str]

# PostgreSQL takes the few wanted parts out of the body: it reads each part but once.
_SCREENED = text("""
SELECT width_bucket(d.event_time, CAST(:firsts AS timestamptz[])) - 1, d.event_type, d.outcome, d.risk, d.typology,
       d.degraded, b.decision ->> 'model', b.decision ->> 'rules_version', CAST(b.features AS text)
FROM decisions d, json_to_record(d.body) AS b (decision json, features json)
WHERE d.event_time >= :first AND d.event_time < :before
""")

# By a hash of the id: the same decisions every time, and any of them as likely. The keys alone are sorted.
_SAMPLE = text("""
SELECT d.event_type, d.risk, CAST(b.features AS text)
FROM (SELECT event_time, decision_id FROM decisions WHERE event_time >= :first AND event_time < :before
      ORDER BY md5(decision_id), decision_id LIMIT :limit) k
JOIN decisions d ON d.event_time = k.event_time AND d.decision_id = k.decision_id,
     json_to_record(d.body) AS b (features json)
WHERE d.event_time >= :first AND d.event_time < :before
""")

_ALERTS = text("""
SELECT width_bucket(a.event_time, CAST(:firsts AS timestamptz[])) - 1, a.event_type,
       CASE WHEN c.disposition IS NOT NULL THEN coalesce(o.disposition, c.disposition) END, count(*)
FROM alerts a JOIN cases c ON c.case_id = a.case_id
LEFT JOIN (SELECT DISTINCT ON (decision_id) decision_id, disposition FROM alert_dispositions
           ORDER BY decision_id, id DESC) o ON o.decision_id = a.decision_id
WHERE a.event_time >= :first AND a.event_time < :before
GROUP BY 1, 2, 3
""")

# A decision's newest label is its truth; of equal times the greater id, as in screening.
_LABELS = text("""
SELECT width_bucket(d.event_time, CAST(:firsts AS timestamptz[])) - 1, d.event_type, l.source, l.verdict, d.outcome,
       count(*)
FROM (SELECT DISTINCT ON (l.target_event_id, l.tenant) l.source, l.verdict, e.event_time, e.decision_id
      FROM labels l JOIN event_ids e ON e.event_id = l.target_event_id AND e.tenant = l.tenant
      WHERE e.event_time >= :first AND e.event_time < :before
      ORDER BY l.target_event_id, l.tenant, l.event_time DESC, l.event_id DESC) l
JOIN decisions d ON d.event_time = l.event_time AND d.decision_id = l.decision_id
WHERE d.event_time >= :first AND d.event_time < :before
GROUP BY 1, 2, 3, 4, 5
""")

_FIRST = text("SELECT min(event_time) FROM decisions WHERE event_time >= :first AND event_time < :before")


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive weeks, each from its first moment to before the next one's. before: where the last one ends."""

    firsts: tuple[datetime, ...]
    before: datetime

    @property
    def bounds(self) -> dict[str, datetime]:
        """The parameters of every statement here."""
        return {"first": self.firsts[0], "before": self.before}


@dataclass(frozen=True, slots=True)
class AlertCount:
    """Alerts of a week's decisions. disposition: their own, else of their case; None while that is open."""

    week: int
    event_type: str
    disposition: str | None
    count: int


@dataclass(frozen=True, slots=True)
class LabelCount:
    """Decisions of a week that have a label. source and verdict: of the newest; outcome: of the decision."""

    week: int
    event_type: str
    source: str
    verdict: str
    outcome: str
    count: int


class Weekly:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, open_: Open) -> None:
        self._open = open_

    async def first_event_time(self, first: datetime, before: datetime) -> datetime | None:
        """The earliest event time from `first` to before `before`; None where nothing was decided."""
        async with self._open() as connection:
            found: datetime | None = await connection.scalar(_FIRST, {"first": first, "before": before})
            return found

    async def sample(self, span: Span, limit: int) -> AsyncIterator[SampledRow]:
        """At most `limit` decisions, any as likely as another; all of them if there are less."""
        async for row in self._stream(_SAMPLE, {**span.bounds, "limit": limit}):
            yield row

    async def screened(self, span: Span) -> AsyncIterator[ScreenedRow]:
        """Every decision of the span, in no order."""
        async for row in self._stream(_SCREENED, {**span.bounds, "firsts": list(span.firsts)}):
            yield row

    async def alerts(self, span: Span) -> list[AlertCount]:
        """By week of the decision, whenever its case was disposed of."""
        async with self._open() as connection:
            rows = await connection.execute(_ALERTS, {**span.bounds, "firsts": list(span.firsts)})
            return [AlertCount(*row) for row in rows]

    async def labels(self, span: Span) -> list[LabelCount]:
        """By week of the decision, whenever the label came; each decision once, however many labels it has."""
        async with self._open() as connection:
            rows = await connection.execute(_LABELS, {**span.bounds, "firsts": list(span.firsts)})
            return [LabelCount(*row) for row in rows]

    async def _stream(self, query: TextClause, parameters: Mapping[str, Any]) -> AsyncIterator[Any]:
        """Rows as plain tuples. Holds one connection meanwhile; close it (contextlib.aclosing) when you stop early."""
        options = {"yield_per": ROWS_A_FETCH}
        async with self._open() as connection, connection.stream(query, parameters, execution_options=options) as rows:
            async for part in rows.partitions(ROWS_A_FETCH):
                for row in part:
                    yield tuple(row)

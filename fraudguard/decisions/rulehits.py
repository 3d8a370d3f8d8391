"""What rules did, counted from stored decisions: hits a day, what people found of them, the newest of one rule.

Knows rows; which rules there are is the rule book's to say. Reads only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from sqlalchemy import text

from fraudguard.decisions.connection import Open
from fraudguard.decisions.records import load_record
from fraudguard.domain import DecisionRecord, Outcome

# Every statement names the condition of ix_decisions_hits, so that decisions without a hit are not read.
_DAYS = text("""
SELECT CAST(timezone(:zone, d.event_time) AS date) AS day, h.rule, h.state, count(*) AS hits
FROM decisions d, json_to_recordset(d.body -> 'hits') AS h (rule text, state text)
WHERE d.event_time >= :since AND (d.body ->> 'hits') <> '[]'
GROUP BY 1, 2, 3
""")

# An alert's own disposition is its truth, else its case's; the merely suspicious are neither, as in the drift report.
_JUDGED = text("""
SELECT h.rule, count(*) FILTER (WHERE j.disposition = 'confirmed_fraud') AS fraud,
       count(*) FILTER (WHERE j.disposition = 'false_positive') AS harmless
FROM (
    SELECT a.event_time, a.decision_id, coalesce(o.disposition, c.disposition) AS disposition
    FROM alerts a JOIN cases c ON c.case_id = a.case_id
    LEFT JOIN (SELECT DISTINCT ON (decision_id) decision_id, disposition FROM alert_dispositions
               ORDER BY decision_id, id DESC) o ON o.decision_id = a.decision_id
    WHERE a.event_time >= :since AND c.disposition IS NOT NULL
) j
JOIN decisions d ON d.event_time = j.event_time AND d.decision_id = j.decision_id,
     json_to_recordset(d.body -> 'hits') AS h (rule text)
WHERE d.event_time >= :since AND (d.body ->> 'hits') <> '[]'
GROUP BY 1
""")

_STANDING = text("""
SELECT h.version, h.state, h.outcome AS asked, d.outcome AS decided, count(*) AS hits,
       count(*) FILTER (WHERE l.verdict = 'fraud') AS fraud,
       count(*) FILTER (WHERE l.verdict = 'legitimate') AS harmless
FROM decisions d
CROSS JOIN LATERAL json_to_recordset(d.body -> 'hits') AS h (rule text, version integer, state text, outcome text)
LEFT JOIN LATERAL (
    SELECT verdict FROM labels WHERE target_event_id = d.event_id AND tenant = d.tenant
    ORDER BY event_time DESC, event_id DESC LIMIT 1
) l ON true
WHERE d.event_time >= :since AND (d.body ->> 'hits') <> '[]' AND h.rule = :rule
GROUP BY 1, 2, 3, 4
""")

_NEWEST = text("""
SELECT CAST(d.body AS text) AS body, a.case_id
FROM decisions d LEFT JOIN alerts a ON a.decision_id = d.decision_id
WHERE d.event_time >= :since AND (d.body ->> 'hits') <> '[]'
  AND EXISTS (SELECT FROM json_to_recordset(d.body -> 'hits') AS h (rule text) WHERE h.rule = :rule)
ORDER BY d.event_time DESC, d.decision_id DESC LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class HitDay:
    """Hits of one rule on one local day, in one state."""

    day: date
    rule: str
    state: Literal["live", "shadow"]
    hits: int


@dataclass(frozen=True, slots=True)
class Judged:
    """Disposed alerts among a rule's hits: found to be fraud, found harmless."""

    rule: str
    fraud: int
    harmless: int

    @property
    def precision(self) -> float | None:
        """Share of fraud; None where nobody has said anything."""
        said = self.fraud + self.harmless
        return self.fraud / said if said else None


@dataclass(frozen=True, slots=True)
class Standing:
    """Hits of one version of a rule in one state. asked: its outcome; decided: what came out.

    fraud, harmless: as labelled.
    """

    version: int
    state: Literal["live", "shadow"]
    asked: Outcome
    decided: Outcome
    hits: int
    fraud: int
    harmless: int


@dataclass(frozen=True, slots=True)
class HitExample:
    """A decision that a rule hit, and the case it is an alert of."""

    record: DecisionRecord
    case_id: str | None


class RuleHits:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, open_: Open) -> None:
        """open_: gives the transaction to work in."""
        self._open = open_

    async def days(self, since: datetime, zone: str) -> Sequence[HitDay]:
        """Hits of decisions with an event time of `since` or later, by local day, rule and state, in no order."""
        async with self._open() as connection:
            rows = await connection.execute(_DAYS, {"since": since, "zone": zone})
            return [HitDay(row.day, row.rule, row.state, row.hits) for row in rows]

    async def judged(self, since: datetime) -> dict[str, Judged]:
        """By rule, what was found of the alerts among its hits; rules without a disposed alert are missing."""
        async with self._open() as connection:
            rows = await connection.execute(_JUDGED, {"since": since})
            return {row.rule: Judged(row.rule, row.fraud, row.harmless) for row in rows}

    async def standing(self, rule: str, since: datetime) -> Sequence[Standing]:
        """One rule's hits by version, state and what was decided, in no order."""
        async with self._open() as connection:
            rows = await connection.execute(_STANDING, {"rule": rule, "since": since})
            return [
                Standing(
                    row.version, row.state, Outcome(row.asked), Outcome(row.decided), row.hits, row.fraud, row.harmless
                )
                for row in rows
            ]

    async def newest(self, rule: str, since: datetime, limit: int) -> Sequence[HitExample]:
        """The rule's newest hits, without sealed texts."""
        async with self._open() as connection:
            rows = await connection.execute(_NEWEST, {"rule": rule, "since": since, "limit": limit})
            return [HitExample(load_record(row.body, None), row.case_id) for row in rows]

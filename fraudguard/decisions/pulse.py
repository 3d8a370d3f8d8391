"""How the service has been deciding lately: a sample of the newest decisions by the time they were made.

Knows which decisions are looked at, and that their number is bounded whatever the load; counts nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text

from fraudguard.decisions.connection import Open

SLOT_S: Final = 10
SLOT_ROWS: Final = 12  # of each slot the first so many: 2,160 in half an hour

# Slot by slot along the index of decided_at: a scan of the whole time would read every decision of a busy hour.
_BEATS = text("""
SELECT d.decided_at, d.event_type, d.degraded, d.reasons,
       CAST(d.body #>> '{decision,latency_ms}' AS double precision)
FROM generate_series(CAST(:first AS timestamptz), CAST(:last AS timestamptz), :slot) AS s (at)
CROSS JOIN LATERAL (
    SELECT decided_at, event_type, degraded, reasons, body FROM decisions
    WHERE decided_at >= s.at AND decided_at < s.at + :slot
    ORDER BY decided_at LIMIT :rows
) d
""")


@dataclass(frozen=True, slots=True)
class Beat:
    """One decision of the sample. latency_ms: from received to decided."""

    decided_at: datetime
    event_type: str
    degraded: bool
    reasons: tuple[str, ...]
    latency_ms: float


class Pulse:
    """Raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, open_: Open) -> None:
        """open_: gives the transaction to work in."""
        self._open = open_

    async def beats(self, first: datetime, before: datetime) -> list[Beat]:
        """Decisions made from `first` to before `before`, SLOT_ROWS of every SLOT_S seconds at most, in order."""
        slot = timedelta(seconds=SLOT_S)
        values = {"first": first, "last": before - slot, "slot": slot, "rows": SLOT_ROWS}
        async with self._open() as connection:
            rows = await connection.execute(_BEATS, values)
            return [Beat(row[0], row[1], row[2], tuple(row[3]), row[4]) for row in rows]

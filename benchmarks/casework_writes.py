"""What indexes on decisions cost a worker: milliseconds to write a batch of decisions into a filled table.

Each set of indexes is made, written to and taken back in one transaction, so a commit's own time (fsync) is not in it.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median
from typing import Final
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.decisions.batch import write_decisions
from fraudguard.decisions.connection import open_engine
from fraudguard.decisions.records import load_record
from fraudguard.domain import DecisionRecord

BATCH: Final = 256
SETS: Final = {
    "the indexes as they are": "",
    "those before migration 0008": """
        DROP INDEX ix_decisions_typology; DROP INDEX ix_decisions_risk; DROP INDEX ix_decisions_by_outcome;
        CREATE INDEX ON decisions (outcome, event_time, decision_id)""",
    "none but the key": """
        DROP INDEX ix_decisions_typology; DROP INDEX ix_decisions_risk; DROP INDEX ix_decisions_by_outcome;
        DROP INDEX ix_decisions_account; DROP INDEX ix_decisions_reasons""",
}


async def writes(url: str, batches: int) -> dict[str, float]:
    """The median of so many batches, by set of indexes."""
    engine = open_engine(url, pool_size=1, statement_timeout_s=600)
    took: dict[str, float] = {}
    try:
        for name, statements in SETS.items():
            async with engine.connect() as connection:
                patterns = await _patterns(connection)
                for statement in filter(str.strip, statements.split(";")):
                    await connection.execute(text(statement))
                spent = []
                for _ in range(batches):
                    records = _batch(patterns)
                    began = time.perf_counter()
                    await write_decisions(connection, records)
                    spent.append((time.perf_counter() - began) * 1000)
                took[name] = median(spent)
                await connection.rollback()
    finally:
        await engine.dispose()
    return took


async def _patterns(connection: AsyncConnection) -> list[DecisionRecord]:
    newest = text("SELECT CAST(body AS text) FROM decisions ORDER BY event_time DESC LIMIT :count")
    return [load_record(body, None) for body in await connection.scalars(newest, {"count": BATCH})]


def _batch(patterns: Sequence[DecisionRecord]) -> list[DecisionRecord]:
    """The newest decisions once more, now, of accounts that nobody has."""
    now = datetime.now(UTC)
    made = []
    for pattern in patterns:
        ids = {"event_id": f"w-{uuid4()}", "account_id": f"w-{uuid4()}"}
        decision = pattern.decision.model_copy(update={**ids, "decision_id": str(uuid4()), "decided_at": now})
        made.append(
            replace(pattern, decision=decision, event=pattern.event.model_copy(update={**ids, "event_time": now}))
        )
    return made

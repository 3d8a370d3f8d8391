"""A tenant's lists among 100,000 rows of others: policies keep the indexes in use, however small the tenant."""

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions.casebook import CaseFilter
from fraudguard.decisions.connection import on_behalf_of, transaction
from fraudguard.decisions.listing import DecisionFilter
from fraudguard.decisions.repository import Repository

ROWS, SMALL = 100_000, "bank-999"  # one decision and one case in a thousand is a small tenant's
NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
OF = "CASE WHEN n % 1000 = 999 THEN 'bank-999' WHEN n % 3 = 0 THEN '' ELSE 'bank-' || n % 3 END"
FILLED = f"""
INSERT INTO event_ids
SELECT 'e-' || n, 'a-' || n % 5000, n, '2026-11-01Z'::timestamptz + n * interval '20 seconds', 'd-' || n, {OF}
FROM generate_series(1, :rows) n;
INSERT INTO decisions
SELECT '2026-11-01Z'::timestamptz + n * interval '20 seconds', 'd-' || n, 'e-' || n, 'a-' || n % 5000, n, 'transaction',
       'review', 0.5, 'scam', '{{}}', false, '2026-11-01Z', '{{}}', NULL, {OF}
FROM generate_series(1, :rows) n;
INSERT INTO cases (case_id, account_id, state, opened_at, updated_at, due_at, expected_loss, outcome, alerts, tenant)
SELECT 'c-' || n, 'a-' || n, 'open', '2026-11-01Z', '2026-11-01Z', '2026-11-01Z'::timestamptz + n * interval '1 second',
       n, 'review', 1, {OF}
FROM generate_series(1, :rows) n;
"""


@pytest.fixture
async def large(engine: AsyncEngine) -> AsyncEngine:
    """ROWS decisions and open cases; PostgreSQL knows how they lie."""
    async with engine.begin() as connection:
        await connection.execute(text("SELECT decisions_ensure_month('2026-11-01')"))
        for statement in filter(str.strip, FILLED.split(";\n")):
            await connection.execute(text(statement), {"rows": ROWS})
    async with engine.connect() as connection:
        bare = await connection.execution_options(isolation_level="AUTOCOMMIT")
        for table in ("event_ids", "decisions", "cases"):
            await bare.execute(text(f"VACUUM ANALYZE {table}"))
    return engine


async def plan_of(engine: AsyncEngine, asking: Callable[[], Awaitable[Any]]) -> str:
    """How PostgreSQL answers the last statement of a question, asked as the small tenant."""
    asked: list[tuple[str, Any]] = []

    def hear(_c: Any, _k: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", hear)
    with on_behalf_of(SMALL):
        with suppress(ValidationError):  # the rows' bodies are empty: the query is what is wanted
            await asking()
        event.remove(engine.sync_engine, "before_cursor_execute", hear)
        statement, parameters = asked[-1]
        async with transaction(engine) as connection:
            rows = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS OFF) {statement}", parameters)
            return "\n".join(rows.scalars())


async def test_a_small_tenants_lists_read_its_own_rows(large: AsyncEngine) -> None:
    """The queue, the closed ones, the inboxes, the decisions and an account's: by index, none of others on the way."""
    repository = Repository(large)
    cases, decisions = repository.cases.list_cases, repository.list_decisions
    questions = {
        "ix_cases_tenant_queue": lambda: cases(CaseFilter(state="unclosed", snoozed=False, at=NOW)),
        "ix_cases_tenant_closed": lambda: cases(CaseFilter(state="closed")),
        "(tenant = NULLIF": lambda: repository.casefile.inboxes("ana", NOW),
        "tenant_event_time_decision_id_idx": lambda: decisions(DecisionFilter()),
        "ix_cases_account": lambda: cases(CaseFilter(account_id="a-1999")),
        "account_id_event_time_decision_id_idx": lambda: decisions(DecisionFilter(account_id="a-1999")),
    }
    for index, asking in questions.items():
        plan = await plan_of(large, asking)
        assert index in plan, plan
        assert not re.search("Seq Scan on (cases|event_ids|decisions_2026_11)", plan), plan
        assert "Rows Removed by Filter" not in plan or index.startswith(("ix_cases_account", "account_id")), plan

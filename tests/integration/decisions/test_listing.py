"""Lists of decisions: every filter, pages without gaps or repeats, and cursors that are not ours."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions.listing import DecisionFilter, listing
from fraudguard.decisions.pages import Page
from fraudguard.decisions.repository import Changes, Repository, StoredState
from fraudguard.domain import DecisionRecord, Outcome, Typology
from fraudguard.errors import BadInput

Make = Callable[..., DecisionRecord]


def changes(*records: DecisionRecord) -> Changes:
    """A batch of new accounts."""
    return Changes(records=records, states={r.event.account_id: StoredState(0, b"s") for r in records})


async def read_all(repository: Repository, wanted: DecisionFilter, limit: int) -> list[list[str]]:
    """Event ids page by page."""
    pages, cursor = [], None
    while True:
        page: Page[DecisionRecord] = await repository.list_decisions(wanted, limit, cursor)
        pages.append([r.event.event_id for r in page.items])
        cursor = page.next
        if cursor is None:
            return pages


@pytest.mark.parametrize("limit", [1, 3, 7, 40, 41])
async def test_pages_over_ties_and_months(repository: Repository, make: Make, limit: int) -> None:
    """Pages hold each decision once, newest first, though many share a time and they lie in several partitions."""
    base = make().event.event_time
    records = [make(f"a-{n}", at=base + timedelta(days=20 * (n // 10))) for n in range(40)]
    await repository.commit(changes(*records))
    pages = await read_all(repository, DecisionFilter(), limit)
    expected = sorted(records, key=lambda r: (r.event.event_time, r.decision.decision_id), reverse=True)
    assert [event_id for page in pages for event_id in page] == [r.event.event_id for r in expected]
    assert all(len(page) == limit for page in pages[:-1])
    assert pages[-1]


async def test_newer_decisions_do_not_shift_a_page(repository: Repository, make: Make) -> None:
    """What arrives while someone pages neither repeats nor hides a decision."""
    first = [make(f"a-{n}") for n in range(4)]
    await repository.commit(changes(*first))
    page = await repository.list_decisions(DecisionFilter(), 2)
    await repository.commit(changes(*(make(f"b-{n}") for n in range(4))))
    rest = await repository.list_decisions(DecisionFilter(), 2, page.next)
    assert [r.event.event_id for r in (*page.items, *rest.items)] == [r.event.event_id for r in reversed(first)]
    assert rest.next is None


MANY = """
INSERT INTO decisions (event_time, decision_id, event_id, account_id, sequence, event_type, outcome, risk, typology,
                       reasons, degraded, decided_at, body)
SELECT at, md5(n::text), 'e-' || n, 'a-' || n % 500, n, CASE WHEN n % 2 = 0 THEN 'message' ELSE 'transaction' END,
       CASE WHEN n % 40 = 1 THEN 'block' ELSE 'approve' END, CASE WHEN n % 40 = 1 THEN 0.9 ELSE 0.01 END,
       CASE WHEN n % 400 = 0 THEN 'mule' ELSE 'scam' END, '{}', false, at, to_json(repeat('x', 500))
FROM (SELECT n, timestamptz '2026-11-01Z' + n * interval '10 seconds' AS at FROM generate_series(1, 30000) n)
"""


async def test_an_index_gives_every_list_in_its_order(engine: AsyncEngine) -> None:
    """Whatever is asked, hardly more is read than the page shows; a filter that finds little reads nothing in vain."""
    async with engine.begin() as connection:
        await connection.execute(text("SELECT decisions_ensure_month('2026-11-01')"))
        await connection.execute(text(MANY))
    async with engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("ANALYZE decisions"))
        for wanted in (
            DecisionFilter(),
            DecisionFilter(account_id="a-7"),
            DecisionFilter(typology=Typology.MULE),
            DecisionFilter(typology=Typology.CASH_OUT),
            DecisionFilter(outcome=Outcome.BLOCK),
            DecisionFilter(outcome=Outcome.BLOCK, event_type="message"),
            DecisionFilter(outcome=Outcome.BLOCK, typology=Typology.MULE),
            DecisionFilter(risk_min=0.8),
            DecisionFilter(risk_min=0.99),
            DecisionFilter(risk_min=0.8, outcome=Outcome.APPROVE),
        ):
            query = listing(wanted, 51, None).compile(engine, compile_kwargs={"literal_binds": True})
            plan = "\n".join(await connection.scalars(text(f"EXPLAIN (ANALYZE, TIMING off, SUMMARY off) {query}")))
            assert max(float(rows) for rows in re.findall(r"Scan.*actual rows=([\d.]+)", plan)) <= 100, plan
            assert "Rows Removed by Filter" not in plan, plan


async def test_filters(repository: Repository, make: Make) -> None:
    """Each filter keeps exactly the decisions that fit, alone and together, and sealed texts stay out."""
    start = make().event.event_time
    scam = make("a-1", outcome=Outcome.BLOCK, risk=0.99, reasons=("A", "B"), sealed=b"secret")
    mule = make("a-2", outcome=Outcome.REVIEW, risk=0.9, typology=Typology.MULE, reasons=("B",))
    chat = make("a-1", text="你好", outcome=Outcome.APPROVE, risk=0.01, reasons=())
    dark = make("a-3", outcome=Outcome.STEP_UP, risk=None, reasons=("OVERLOAD",), at=start + timedelta(days=40))
    await repository.commit(changes(scam, mule, chat, dark))

    async def found(**wanted: object) -> set[str]:
        page = await repository.list_decisions(DecisionFilter(**wanted))  # type: ignore[arg-type] - by name below
        assert all(r.sealed_text is None for r in page.items)
        return {r.event.event_id for r in page.items}

    names = {record.event.event_id: record for record in (scam, mule, chat, dark)}
    s, m, c, d = names
    assert await found() == {s, m, c, d}
    assert await found(account_id="a-1") == {s, c}
    assert await found(account_id="nobody") == set()
    assert await found(outcome=Outcome.BLOCK) == {s}
    assert await found(event_type="message") == {c}
    assert await found(typology=Typology.MULE) == {m}
    assert await found(risk_min=0.9) == {s, m}
    assert await found(reason="B") == {s, m}
    assert await found(reason="b") == set()
    assert await found(event_time_from=mule.event.event_time) == {m, c, d}
    assert await found(event_time_to=mule.event.event_time) == {s}
    assert await found(account_id="a-1", reason="A", risk_min=0.5, outcome=Outcome.BLOCK) == {s}


@pytest.mark.parametrize(
    "cursor", ["", "x", "!!", "WzEsMl0", "W10", "bnVsbA", "WyIyMDI2LTExLTIxIiwgImEiXQ", "WyJ4IiwgImEiXQ", "é"]
)
async def test_foreign_cursors_are_refused(repository: Repository, cursor: str) -> None:
    """Text that is no cursor of this list is bad input, never a failure."""
    with pytest.raises(BadInput, match="cursor"):
        await repository.list_decisions(DecisionFilter(), 10, cursor)


@pytest.mark.parametrize("limit", [0, -1, 501])
async def test_limits(repository: Repository, limit: int) -> None:
    """A page has from 1 to 500 items."""
    with pytest.raises(BadInput, match="from 1 to 500"):
        await repository.list_decisions(DecisionFilter(), limit)


async def test_nul_in_a_filter_is_bad_input(repository: Repository) -> None:
    """The one character PostgreSQL cannot hold is the caller's mistake."""
    with pytest.raises(BadInput, match="cannot be stored"):
        await repository.list_decisions(DecisionFilter(account_id="a\x00"))

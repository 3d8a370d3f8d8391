"""A case from its first alert to its disposition and the labels that come of it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions.casebook import UNDO, Case, CaseFilter, Disposition
from fraudguard.decisions.repository import Changes, Repository, StoredState
from fraudguard.domain import DecisionRecord, Outcome, Typology
from fraudguard.errors import BadInput, Conflict, NotFound, Overtaken

Make = Callable[..., DecisionRecord]
NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
DISPOSE = (1, Disposition.CONFIRMED_FRAUD, "the payee is on two other cases", "ana", NOW)


async def alert(repository: Repository, *records: DecisionRecord) -> None:
    """Commit records that are all alerts."""
    states = await repository.states({r.event.account_id for r in records})
    read = {r.event.account_id: states.get(r.event.account_id, StoredState(0, b"")) for r in records}
    await repository.commit(Changes(records=records, states=read, alerts=records))


async def only_case(repository: Repository) -> str:
    """The id of the one case there is."""
    (case,) = (await repository.cases.list_cases(CaseFilter())).items
    return case.case_id


async def test_alerts_open_and_join_one_case(repository: Repository, make: Make) -> None:
    """An account's alerts share a case that knows the loss, the riskiest alert and the most severe outcome."""
    opening = make("a-1", text="转到安全账户", risk=0.8, typology=Typology.ACCOUNT_TAKEOVER, outcome=Outcome.REVIEW)
    await alert(repository, opening, make("a-2", amount_base=None))
    payment = make("a-1", risk=0.5, amount_base=1_000.0, outcome=Outcome.BLOCK, typology=Typology.MULE)
    degraded = make("a-1", risk=None, amount_base=200.0, outcome=Outcome.STEP_UP)
    riskiest = make("a-1", risk=0.95, amount_base=10.0, outcome=Outcome.REVIEW, typology=Typology.SCAM)
    await alert(repository, payment, degraded)
    await alert(repository, riskiest)
    (case,) = (await repository.cases.list_cases(CaseFilter(account_id="a-1"))).items
    shown, alerts = await repository.cases.get_case(case.case_id)
    assert shown == case
    assert case.expected_loss == pytest.approx(0.5 * 1_000 + 200 + 0.95 * 10)
    assert (case.top_risk, case.typology, case.outcome, case.alerts) == (0.95, Typology.SCAM, Outcome.BLOCK, 4)
    assert (case.state, case.opened_at, case.updated_at) == (
        "open",
        opening.decision.decided_at,
        riskiest.decision.decided_at,
    )
    assert [a.event_id for a in alerts] == [r.event.event_id for r in (opening, payment, degraded, riskiest)]
    assert [a.amount_base for a in alerts] == [None, 1_000.0, 200.0, 10.0]


async def test_a_case_of_degraded_alerts_takes_the_first_risk_it_gets(repository: Repository, make: Make) -> None:
    """Without a risk there is no typology; the first scored alert gives both."""
    await alert(repository, make(risk=None))
    case = (await repository.cases.list_cases(CaseFilter())).items[0]
    assert (case.top_risk, case.typology) == (None, None)
    await alert(repository, make(risk=0.0, typology=Typology.MULE))
    case = (await repository.cases.list_cases(CaseFilter())).items[0]
    assert (case.top_risk, case.typology) == (0.0, Typology.MULE)


@pytest.mark.parametrize(
    ("disposition", "verdict", "typology"),
    [(Disposition.CONFIRMED_FRAUD, "fraud", Typology.SCAM), (Disposition.FALSE_POSITIVE, "legitimate", None)],
)
async def test_disposing_makes_labels(
    repository: Repository, make: Make, disposition: Disposition, verdict: str, typology: Typology | None
) -> None:
    """A verdict closes the case and queues one label for each alerted event, until it is marked published."""
    records = [make(), make(text="急用钱")]
    await alert(repository, *records)
    case_id = await only_case(repository)
    closed = await repository.cases.dispose(case_id, 1, disposition, " told by phone ", "ana", NOW)
    assert (closed.state, closed.disposition, closed.reason) == ("closed", disposition, "told by phone")
    assert (closed.closed_at, closed.closed_by) == (NOW, "ana")
    assert (await repository.cases.get_case(case_id))[0] == closed
    waiting = await repository.outbox.waiting(10)
    assert [label.target_event_id for label in waiting] == [r.event.event_id for r in records]
    assert {(label.verdict, label.typology, label.source, label.event_time) for label in waiting} == {
        (verdict, typology, "analyst", NOW)
    }
    assert len({label.event_id for label in waiting}) == 2
    assert await repository.outbox.take(10, NOW + UNDO - timedelta(microseconds=1)) == []
    assert await repository.outbox.take(0, NOW + UNDO) == []
    taken = await repository.outbox.take(10, NOW + UNDO)
    assert [pending.label for pending in taken] == waiting
    await repository.outbox.mark_published([taken[0].id], NOW)
    assert await repository.outbox.take(10, NOW + UNDO) == taken[1:]


async def test_suspicious_makes_no_label(repository: Repository, make: Make) -> None:
    """A case that stays merely suspicious says nothing to the next training."""
    await alert(repository, make())
    await repository.cases.dispose(await only_case(repository), 1, Disposition.SUSPICIOUS, "cannot tell", "ana", NOW)
    assert await repository.outbox.waiting(10) == []


async def test_disposing_is_audited_and_kept(repository: Repository, engine: AsyncEngine, make: Make) -> None:
    """The deed stands in the audit trail and as an immutable disposition, written with it."""
    await alert(repository, make())
    case_id = await only_case(repository)
    await repository.cases.dispose(case_id, *DISPOSE)
    async with engine.connect() as connection:
        trail = (await connection.execute(text("SELECT at, actor, action, subject, detail FROM audit"))).all()
        query = "SELECT case_id, disposition, reason, actor, at FROM dispositions"
        kept = (await connection.execute(text(query))).all()
    detail = {"version": 2, "disposition": "confirmed_fraud", "reason": DISPOSE[2], "labels": "1"}
    assert [tuple(row) for row in trail] == [(NOW, "ana", "case.dispose", case_id, detail)]
    assert [tuple(row) for row in kept] == [(case_id, "confirmed_fraud", DISPOSE[2], "ana", NOW)]


async def test_a_case_is_disposed_of_once(repository: Repository, other: Repository, make: Make) -> None:
    """Of two people who dispose at once one wins; the other, and any later one, is told who was first."""
    await alert(repository, make())
    case_id = await only_case(repository)
    done = await asyncio.gather(
        repository.cases.dispose(case_id, *DISPOSE), other.cases.dispose(case_id, *DISPOSE), return_exceptions=True
    )
    assert sorted(type(d).__name__ for d in done) == ["Case", "Overtaken"]
    with pytest.raises(Conflict, match="closed as confirmed_fraud by ana"):
        await repository.cases.dispose(case_id, 2, Disposition.FALSE_POSITIVE, "changed my mind", "bo", NOW)
    assert len(await repository.outbox.waiting(10)) == 1


@pytest.mark.parametrize("reason", ["", "  ", "x" * 2_001, "a\x00b"])
async def test_a_disposition_needs_a_reason(repository: Repository, make: Make, reason: str) -> None:
    """Without a usable reason nothing is closed."""
    await alert(repository, make())
    case_id = await only_case(repository)
    with pytest.raises(BadInput, match="reason"):
        await repository.cases.dispose(case_id, 1, Disposition.SUSPICIOUS, reason, "ana", NOW)
    assert (await repository.cases.get_case(case_id))[0].state == "open"


async def test_unknown_cases(repository: Repository) -> None:
    """An id that names no case is NotFound."""
    with pytest.raises(NotFound):
        await repository.cases.get_case("x")
    with pytest.raises(NotFound):
        await repository.cases.dispose("x", *DISPOSE)


async def test_the_next_alert_opens_a_new_case(repository: Repository, make: Make) -> None:
    """A closed case stays closed: the account's next alert opens another."""
    await alert(repository, make())
    first = await only_case(repository)
    await repository.cases.dispose(first, *DISPOSE)
    await alert(repository, make())
    (second,) = (await repository.cases.list_cases(CaseFilter(state="open"))).items
    assert second.case_id != first
    assert second.alerts == 1
    (closed,) = (await repository.cases.list_cases(CaseFilter(state="closed"))).items
    assert (closed.case_id, closed.alerts) == (first, 1)


async def test_alerts_racing_a_disposition_are_never_lost(
    repository: Repository, other: Repository, make: Make
) -> None:
    """An alert that arrives while its case is being closed keeps it open, unseen as it is, or opens a new one."""
    for n in range(12):
        account = f"a-{n}"
        await alert(repository, make(account))
        (case,) = (await repository.cases.list_cases(CaseFilter(account_id=account))).items
        late = make(account)
        disposed = other.cases.dispose(case.case_id, *DISPOSE)
        _, done = await asyncio.gather(alert(repository, late), disposed, return_exceptions=True)
        assert isinstance(done, Case | Overtaken)
        cases = (await repository.cases.list_cases(CaseFilter(account_id=account))).items
        assert sum(c.alerts for c in cases) == 2
        assert len(cases) == (1 if isinstance(done, Overtaken) else 2)
        labelled = {label.target_event_id for label in await repository.outbox.waiting(500)}
        assert late.event.event_id not in labelled
        assert sum(c.state == "open" for c in cases) == 1


async def test_the_queue_is_paged_by_loss_then_age(repository: Repository, make: Make) -> None:
    """Pages of the queue hold each case once: greatest loss first, equal losses oldest first."""
    losses = [100.0, None, 300.0, None, 100.0, 200.0, None]
    records = [make(f"a-{n}", risk=1.0, amount_base=loss) for n, loss in enumerate(losses)]
    for record in records:
        await alert(repository, record)
    seen: list[str] = []
    cursor = None
    while True:
        page = await repository.cases.list_cases(CaseFilter(state="open"), 2, cursor)
        seen += [case.account_id for case in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == ["a-2", "a-5", "a-0", "a-4", "a-1", "a-3", "a-6"]


async def test_case_filters(repository: Repository, make: Make) -> None:
    """State, account, typology and outcome each narrow the list."""
    await alert(repository, make("a-1", outcome=Outcome.BLOCK), make("a-2", typology=Typology.MULE))

    async def accounts(wanted: CaseFilter) -> set[str]:
        return {case.account_id for case in (await repository.cases.list_cases(wanted)).items}

    assert await accounts(CaseFilter()) == {"a-1", "a-2"}
    assert await accounts(CaseFilter(outcome=Outcome.BLOCK)) == {"a-1"}
    assert await accounts(CaseFilter(typology=Typology.MULE)) == {"a-2"}
    assert await accounts(CaseFilter(account_id="a-2", state="open")) == {"a-2"}
    assert await accounts(CaseFilter(state="closed")) == set()
    with pytest.raises(BadInput, match="cursor"):
        await repository.cases.list_cases(CaseFilter(), 10, "WzEsMl0")


async def test_cases_of_two_workers(repository: Repository, other: Repository, make: Make) -> None:
    """Workers that alert on the same accounts in any order neither deadlock nor open a second case."""
    accounts = [f"a-{n}" for n in range(80)]
    orders = [accounts, accounts[::-1]] * 3
    for n in range(1, 4):
        batches = [[make(account) for account in order] for order in orders]
        await asyncio.gather(
            *(
                store.commit(Changes(records=batch, alerts=batch))
                for batch, store in zip(batches, [repository, other] * 3, strict=True)
            )
        )
        cases = (await repository.cases.list_cases(CaseFilter(), 100)).items
        assert [case.alerts for case in cases] == [len(orders) * n] * len(accounts)

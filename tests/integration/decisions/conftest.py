"""A repository on a fresh database, a second one beside it, and decision records to store."""

import itertools
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions.connection import open_engine
from fraudguard.decisions.repository import Repository
from fraudguard.domain import Decision, DecisionHit, DecisionRecord, Hit, Message, Outcome, Score, Transaction, Typology

START = datetime(2026, 11, 21, 10, tzinfo=UTC)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The pool of a fresh, migrated database."""
    engine = open_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def repository(engine: AsyncEngine) -> Repository:
    """A repository on it."""
    return Repository(engine)


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Repository]:
    """Another process's repository on the same database."""
    engine = open_engine(database_url)
    yield Repository(engine)
    await engine.dispose()


@pytest.fixture
def make() -> Callable[..., DecisionRecord]:
    """Builds a record: a payment, or a message where `text` is given; fresh ids and sequences unless told."""
    numbers = itertools.count(1)

    def build(
        account: str = "a-1",
        *,
        event_id: str | None = None,
        sequence: int | None = None,
        at: datetime | None = None,
        text: str | None = None,
        outcome: Outcome = Outcome.REVIEW,
        risk: float | None = 0.9,
        typology: Typology = Typology.SCAM,
        reasons: tuple[str, ...] = ("MODEL_RISK_REVIEW",),
        amount_base: float | None = 50_000.0,
        sealed: bytes | None = None,
        tenant: str = "",
    ) -> DecisionRecord:
        number = next(numbers)
        common: dict[str, Any] = {
            "version": 1,
            "event_id": event_id or f"e-{number}",
            "account_id": account,
            "event_time": at or START + timedelta(seconds=number),
            "attributes": {"tenant": tenant} if tenant else {},
        }
        event: Transaction | Message
        if text is None:
            event = Transaction(
                **common,
                type="transaction",
                direction="debit",
                kind="transfer",
                channel="app",
                amount=Decimal("50000.00"),
                currency="CNY",
                counterparty_id="c-9",
                memo="货款",
            )
        else:
            event = Message(
                **common, type="message", conversation_id="k-1", channel="chat", sender="counterparty", text=text
            )
        score = None if risk is None else Score(risk, typology, "starter@1.0.0+int8")
        hits = (
            Hit("urgent-money-burst", 3, Outcome.BLOCK, "TRANSFERS_1D_AND_URGENT_MONEY", "live"),
            Hit("new-payee", 1, Outcome.REVIEW, "NEW_PAYEE", "shadow"),
        )
        decision = Decision(
            decision_id=str(uuid4()),
            event_id=event.event_id,
            event_type=event.type,
            account_id=account,
            sequence=sequence or number,
            outcome=outcome,
            risk=risk,
            typology=None if risk is None else typology,
            reasons=reasons,
            hits=(DecisionHit(rule="urgent-money-burst", version=3, outcome=Outcome.BLOCK),),
            degraded=risk is None,
            model="starter@1.0.0+int8",
            rules_version="r-1",
            decided_at=START + timedelta(milliseconds=number),
            latency_ms=14.2,
            tenant=tenant,
        )
        return DecisionRecord(
            decision=decision,
            event=event,
            received_at=START + timedelta(microseconds=number),
            late=False,
            line=f"[line {number}]",
            timeline_start=1,
            timeline_hash="0" * 64,
            features={"amount_base": amount_base if text is None else None, "transfers_1d": 3, "first_seen": True},
            score=score,
            hits=hits,
            policy_version="p-1",
            sealed_text=sealed,
        )

    return build

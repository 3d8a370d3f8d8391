"""Tenants in the pipeline: streams of one account id, decided together, are decided as each would be alone."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain, zip_longest
from typing import Any

import pytest
from support import settings_for

from fraudguard.assembly import Parts, load_parts, open_pipeline
from fraudguard.clock import SystemClock
from fraudguard.decisions.casebook import CaseFilter
from fraudguard.decisions.repository import connect
from fraudguard.domain import DecisionRecord, Event, Label, Received, Transaction
from fraudguard.features.registry import features_in
from fraudguard.pipeline import Decided, Labelled, Refused
from fraudguard.replay import Replayer

NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
TENANTS = ("", "bank-a", "bank-b")


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    """Rules and policy, no model."""
    parts = load_parts(settings_for("unused:1", "postgresql://unused", model="off"))
    yield parts
    parts.close()


def stream(tenant: str) -> list[Event]:
    """Payments of one account to one payee from one device, with a chargeback; amounts and pace are its own."""
    place = TENANTS.index(tenant)
    common: dict[str, Any] = {"version": 1, "account_id": "a-1", "attributes": {"tenant": tenant} if tenant else {}}
    events: list[Event] = [
        Transaction(
            **common,
            type="transaction",
            event_id=f"t-{number}",
            event_time=NOON + timedelta(minutes=number * (place + 1)),
            direction="debit",
            kind="transfer",
            channel="app",
            amount=Decimal(1000 * (place + 1) + number),
            currency="CNY",
            counterparty_id="c-1",
            device_id="d-1",
        )
        for number in range(4 + place)
    ]
    label = {"type": "label", "event_id": "l-1", "event_time": NOON + timedelta(days=1), "target_event_id": "t-1"}
    events.append(Label.model_validate({**common, **label, "source": "chargeback", "verdict": "fraud"}))
    later = events[0].model_copy(update={"event_id": "t-later", "event_time": NOON + timedelta(days=20)})
    return [*events, later]


async def screened(url: str, parts: Parts, batches: Sequence[Sequence[Event]]) -> dict[tuple[str, str], DecisionRecord]:
    """The decisions of these batches by tenant and event id."""
    found = {}
    async with open_pipeline(settings_for("unused:1", url, model="off"), parts, SystemClock()) as pipeline:
        for batch in batches:
            for answer in await pipeline.screen([Received(event, datetime.now(UTC)) for event in batch]):
                assert not isinstance(answer, Refused)
                if isinstance(answer, Decided):
                    found[answer.record.decision.tenant, answer.record.event.event_id] = answer.record
    return found


def what(record: DecisionRecord) -> Any:
    """All of a decision but when it was made."""
    timed = {"decided_at", "latency_ms"}
    return record.decision.model_dump(exclude=timed), record.features, record.line, record.timeline_hash, record.hits


async def test_tenants_decided_together_are_decided_as_alone(
    database_url: str, second_database_url: str, parts: Parts
) -> None:
    """Equal account, event, payee and device ids: no state, window, feedback, label or case of one reaches another."""
    streams = [stream(tenant) for tenant in TENANTS]
    mixed = [event for row in zip_longest(*streams) for event in row if event is not None]
    together = await screened(database_url, parts, [mixed[:5], mixed[5:12], mixed[12:]])
    alone = await screened(second_database_url, parts, streams)
    assert {key: what(record) for key, record in together.items()} == {k: what(r) for k, r in alone.items()}
    assert len(together) == len(list(chain(*streams))) - len(TENANTS)  # labels get none
    assert len({record.decision.decision_id for record in together.values()}) == len(together)
    later = [together[tenant, "t-later"].features for tenant in TENANTS]
    assert [features["counterparty_transactions_30d"] for features in later] == [4, 5, 6]
    assert [features["device_fraud_share_30d"] for features in later] == [1 / 4, 1 / 5, 1 / 6]

    async with connect(database_url) as repository:
        cases = (await repository.cases.list_cases(CaseFilter())).items
        assert len(cases) == len({(case.account_id, case.tenant) for case in cases})
        replayer = Replayer(repository, features_in("CNY"))
        for record in together.values():
            assert (await replayer.replay(record.decision.decision_id)).differences == ()
    again = await screened(database_url, parts, [mixed])
    assert again == together  # each event's first decision, whoever else used its id


async def test_a_label_reaches_its_tenants_event_alone(database_url: str, parts: Parts) -> None:
    """One that names its tenant's event by an id that others use too moves that tenant's counts."""
    async with open_pipeline(settings_for("unused:1", database_url, model="off"), parts, SystemClock()) as pipeline:
        events = [event for tenant in TENANTS for event in stream(tenant)]
        answers = await pipeline.screen([Received(event, datetime.now(UTC)) for event in events])
    labels = [answer.label for answer in answers if isinstance(answer, Labelled)]
    assert [label.attributes.get("tenant", "") for label in labels] == list(TENANTS)
    async with connect(database_url) as repository:
        day = (NOON - datetime(1970, 1, 1, tzinfo=UTC)).days
        for place, prefix in enumerate(("", "bank-a\x1f", "bank-b\x1f")):
            counts = await repository.entity_counts([("counterparty", f"{prefix}c-1")], day)
            assert [(one.transactions, one.frauds) for one in counts if one.day == day] == [(4 + place, 1)]

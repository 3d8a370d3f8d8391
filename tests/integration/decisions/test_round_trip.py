"""What is read is what was committed, bit for bit, whatever people write."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraudguard.decisions.repository import Changes, Repository, StoredState
from fraudguard.domain import (
    DecisionHit,
    DecisionRecord,
    Hit,
    Label,
    Message,
    Outcome,
    Score,
    Transaction,
    Typology,
)

_numbers = count(1)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60)
ids = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=60)
times = st.datetimes(datetime(2026, 1, 1), datetime(2026, 4, 1), timezones=st.just(UTC)) | st.sampled_from(  # noqa: DTZ001
    [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), datetime(2009, 12, 31, 23, 59, 59, 1, UTC)]
)
floats = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [-0.0, 5e-324, 1e22, 1e-7, 2.0**53, 0.1 + 0.2]
)
scalars = st.none() | st.booleans() | st.integers() | st.just(10**40) | floats | texts
attributes = st.dictionaries(ids, st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | floats | texts, max_size=4)
risks = st.floats(0, 1)
hits = st.lists(
    st.builds(
        Hit,
        rule=ids,
        version=st.integers(1, 10**9),
        outcome=st.sampled_from(Outcome),
        reason=ids,
        state=st.sampled_from(["live", "shadow"]),
    ),
    max_size=3,
).map(tuple)


@st.composite
def events(draw: st.DrawFn) -> Transaction | Message:
    """Any event that the wire format allows."""
    common: dict[str, Any] = {
        "version": 1,
        "event_id": f"{draw(ids)}-{next(_numbers)}",
        "account_id": draw(ids),
        "event_time": draw(times),
        "attributes": draw(attributes),
    }
    if draw(st.booleans()):
        text = draw(texts.filter(bool) | st.sampled_from(["急" * 8000, "🙏🏽" * 4000, "\u2028\\\"'\t\r\n"]))
        return Message(
            **common,
            type="message",
            conversation_id=draw(ids),
            channel="call",
            sender="agent",
            language="zh",
            text=text,
        )
    return Transaction(
        **common,
        type="transaction",
        direction="credit",
        kind="refund",
        channel="atm",
        amount=Decimal(draw(st.sampled_from(["0.01", "50000.00", "7", "7.0", "0000.10", "9999999999999999.99"]))),
        currency="CNY",
        ip="2001:db8::1",
        memo=draw(texts),
    )


@st.composite
def variations(draw: st.DrawFn, base: DecisionRecord) -> DecisionRecord:
    """The base record with everything that may vary drawn anew."""
    event, risk = draw(events()), draw(st.none() | risks)
    typology = draw(st.sampled_from(Typology))
    chosen = draw(hits)
    decision = base.decision.model_copy(
        update={
            "decision_id": str(uuid4()),
            "event_id": event.event_id,
            "event_type": event.type,
            "account_id": event.account_id,
            "sequence": next(_numbers),
            "outcome": draw(st.sampled_from(Outcome)),
            "risk": risk,
            "typology": None if risk is None else typology,
            "reasons": tuple(draw(st.lists(ids, max_size=3))),
            "hits": tuple(DecisionHit(rule=h.rule, version=h.version, outcome=h.outcome) for h in chosen),
            "degraded": risk is None,
            "decided_at": draw(times),
            "latency_ms": draw(st.floats(0, 1e9)),
        }
    )
    return replace(
        base,
        decision=decision,
        event=event,
        received_at=draw(times),
        late=draw(st.booleans()),
        line=draw(texts),
        features=draw(st.dictionaries(ids, scalars, max_size=12)),
        score=None if risk is None else Score(risk, typology, draw(ids)),
        hits=chosen,
        sealed_text=draw(st.none() | st.binary(max_size=40)),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_records(repository: Repository, make: Callable[..., DecisionRecord], data: st.DataObject) -> None:
    """A stored record equals its original; the repr too, which tells 1 from 1.0 from True and -0.0 from 0.0."""
    record = data.draw(variations(make()))
    account = record.event.account_id
    states = await repository.states([account])
    version = states[account].version if states else 0
    body = data.draw(st.binary(max_size=100))
    await repository.commit(Changes(records=[record], states={account: StoredState(version, body)}, alerts=[record]))
    stored = (await repository.earlier([record.event.event_id]))[record.event.event_id]
    assert stored == record
    assert repr(stored.features) == repr(record.features)
    assert repr(stored.event.attributes) == repr(record.event.attributes)
    assert stored.decision.model_dump_json() == record.decision.model_dump_json()
    assert repr(stored.score) == repr(record.score)
    assert stored.event.model_dump_json() == record.event.model_dump_json()
    assert await repository.states([account]) == {account: StoredState(version + 1, body)}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids, ids, times, st.sampled_from(["fraud", "legitimate"]), st.none() | st.sampled_from(Typology))
async def test_labels(
    repository: Repository, account: str, target: str, at: datetime, verdict: Any, typology: Typology | None
) -> None:
    """A stored label equals its original."""
    label = Label(
        type="label",
        version=1,
        event_id=f"l-{next(_numbers)}",
        account_id=account,
        event_time=at,
        target_event_id=target,
        source="law_enforcement",
        verdict=verdict,
        typology=typology,
    )
    await repository.commit(Changes(labels=[label]))
    assert label in (await repository.labels([target]))[target]
    assert await repository.labels_by_id([label.event_id]) == {label.event_id: label}

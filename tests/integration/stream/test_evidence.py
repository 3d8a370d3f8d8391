"""The worker as a process makes evidence beside its decisions, and when it is wished for."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from api_support import CLOCK, until
from support import Worker, fresh_topics, produce, read_decisions, settings_for

from fraudguard.api import examples
from fraudguard.decisions.repository import connect
from fraudguard.domain import Message, Transaction
from fraudguard.embedded.kafka import EmbeddedKafka

NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)


async def test_alerts_have_evidence_and_wishes_are_served(
    kafka: EmbeddedKafka, database_url: str, tmp_path: Path
) -> None:
    """Without being asked where a person must look; of any other decision within moments of the wish."""
    settings = settings_for(kafka.bootstrap, database_url)
    fresh_topics(settings)
    greeting = {**examples.MESSAGE, "event_id": "m-0", "text": "您好", "event_time": NOON - timedelta(minutes=1)}
    events = [
        Message.model_validate(greeting),
        Message.model_validate({**examples.MESSAGE, "event_time": NOON}),
        Transaction.model_validate({**examples.TRANSACTION, "event_time": NOON + timedelta(minutes=1)}),
    ]
    with Worker(settings, tmp_path / "worker.log") as worker:
        decided = {}
        for sent in (events[:2], events[2:]):  # two topics have no order between them
            produce(settings, sent)
            decided |= read_decisions(settings, [event.event_id for event in sent], alive=worker)
        alert, harmless = (decided[name][0] for name in (examples.EVENT_ID, "m-0"))
        assert (alert.outcome, harmless.outcome) == ("block", "approve")
        async with connect(database_url) as repository:
            book = repository.evidence

            async def made(decision_id: str) -> bool:
                return await book.of(decision_id) is not None

            await until(lambda: made(alert.decision_id), "the alert's evidence", timeout_s=120)
            assert await book.wish(harmless.decision_id, CLOCK.now()) == "waits"
            await until(lambda: made(harmless.decision_id), "the wish is served", timeout_s=120)
            found = await book.of(alert.decision_id)
            assert found is not None
            assert found.model == alert.model
            assert {one.name for one in found.contributions if one.kind == "line"} == {"1", "2", "3"}
        assert worker.stop() == 0

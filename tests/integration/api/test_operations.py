"""Operations on the real Kafka and PostgreSQL: latency, where workers stand, dead letters sent again and audited."""

import asyncio
from datetime import timedelta

import pytest
from api_support import CLOCK, Api, until
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from sqlalchemy import select
from support import settings_for

from fraudguard.api import examples
from fraudguard.api.watch import Watch
from fraudguard.decisions.connection import open_engine
from fraudguard.decisions.tables import AUDIT
from fraudguard.domain import Role
from fraudguard.errors import BrokerUnavailable
from fraudguard.events.standing import read_standing
from fraudguard.events.topics import DEAD_LETTERS, MESSAGES

REPLAY = "/v1/dead-letters/replay"


def broken(api: Api, text: bytes = b'{"text": "call 13800138000 now"') -> None:
    """A record that no worker can read."""
    producer = KafkaProducer(bootstrap_servers=api.settings.kafka_bootstrap)
    producer.send(MESSAGES, key=b"a-1", value=text)
    producer.close()


async def letters(api: Api, count: int) -> list[dict[str, object]]:
    """The newest letters, once there are so many."""
    found: list[dict[str, object]] = []

    async def there() -> bool:
        answer = await api.send(Role.LEAD, "GET", "/v1/dead-letters")
        found[:] = answer.json().get("letters", [])
        return len(found) >= count

    await until(there, f"{count} dead letters are shown")
    return found


@pytest.fixture(autouse=True)
def _no_letters(api: Api) -> None:
    """The session's Kafka may hold those of other tests."""
    with KafkaAdminClient(bootstrap_servers=api.settings.kafka_bootstrap) as admin:
        places = {(DEAD_LETTERS, p["partition_index"]) for p in admin.describe_topics([DEAD_LETTERS])[0]["partitions"]}

        admin.delete_records({TopicPartition(*place): -1 for place in places})


async def test_a_dead_letter_is_shown_masked_sent_again_once_and_audited(api: Api) -> None:
    """An administrator alone sends; what comes back is a new letter, and the trail has begin and end."""
    broken(api)
    (letter,) = await letters(api, 1)
    assert (letter["code"], letter["replayed"]) == ("bad_json", False)
    assert "<PHONE>" in str(letter["preview"])
    assert "13800138000" not in str(letter)
    body = {"ids": [letter["id"]]}
    assert (await api.send(Role.LEAD, "POST", REPLAY, json=body)).status_code == 403
    begun = await api.send(Role.ADMIN, "POST", REPLAY, json=body)
    assert (begun.status_code, begun.json()["runs"], begun.json()["which"]) == (202, True, letter["id"])
    again, first = sorted(await letters(api, 2), key=lambda one: str(one["time"]), reverse=True)
    assert (first["replayed"], again["replays"]) == (True, 1)

    async def ended() -> bool:
        replay = (await api.send(Role.LEAD, "GET", "/v1/dead-letters")).json()["replay"]
        return (replay["runs"], replay["sent"], replay["before"], replay["refused"]) == (False, 1, 0, 0)

    await until(ended, "the replay has ended")
    engine = open_engine(api.settings.database_url.get_secret_value())
    async with engine.connect() as connection:
        wanted = select(AUDIT.c.action, AUDIT.c.actor).where(AUDIT.c.subject == "dead_letters").order_by(AUDIT.c.id)
        rows = [tuple(row) for row in await connection.execute(wanted)]
    await engine.dispose()
    assert [action for action, _ in rows] == ["dead_letters.replay", "dead_letters.replayed"]
    assert {who.partition(" (")[0] for _, who in rows} == {"test admin"}


@pytest.mark.parametrize("which", ["one", "1/x", "1/2/3", "-1/0"])
async def test_a_letter_is_named_by_its_place(api: Api, which: str) -> None:
    """Anything else is refused, and nothing is sent."""
    answer = await api.send(Role.ADMIN, "POST", REPLAY, json={"ids": [which]})
    assert (answer.status_code, answer.json()["path"]) == (422, "ids")


async def test_latency_is_of_the_decisions_made_lately(api: Api) -> None:
    """Percentiles against the budget; degraded ones with their reason; nothing older than half an hour."""
    for event in (examples.MESSAGE, examples.TRANSACTION):
        assert (await api.send(Role.SERVICE, "POST", "/v1/screen", json=event)).status_code == 200
    found = (await api.send(Role.LEAD, "GET", "/v1/operations")).json()["lately"]
    assert found["budget_ms"] == api.settings.screen_deadline_ms
    every, payments = found["all"], found["by_type"]["transaction"]
    assert (every["sampled"], payments["sampled"], found["by_type"]["message"]["sampled"]) == (2, 1, 1)
    assert 0 < every["p50"] <= every["p95"] <= every["p99"]
    assert (every["degraded"], found["reasons"]) == (1.0, {"ENGINE_OFF": 2})  # this decider has no model
    assert sum(minute["latency"]["sampled"] for minute in found["minutes"]) == 2
    api.clock.by = timedelta(minutes=40)
    later = (await api.send(Role.LEAD, "GET", "/v1/operations")).json()["lately"]
    assert (later["all"]["sampled"], later["all"]["p99"]) == (0, None)


async def test_a_group_without_workers_is_behind_by_everything(api: Api) -> None:
    """This decider belongs to no group, so nothing was ever committed in the workers' name."""
    assert (await api.send(Role.SERVICE, "POST", "/v1/screen", json=examples.MESSAGE)).status_code == 200
    group = api.settings.model_copy(update={"consumer_group": "nobody-yet"})
    standing = await asyncio.to_thread(read_standing, group)
    assert (standing.workers, standing.state) == ((), "Dead")
    assert standing.lag >= 1
    assert {share.committed for share in standing.shares} == {None}
    assert len(standing.shares) == 3 * api.settings.topic_partitions
    found = (await api.send(Role.LEAD, "GET", "/v1/operations")).json()
    assert found["kafka"]["shares"]
    assert found["kafka_problem"] is None


async def test_kafka_that_is_away_is_said_so_and_asked_once(api: Api) -> None:
    """The reading fails in its thread within seconds, and is kept: who asks again does not wait again."""
    asked = []
    away = settings_for("127.0.0.1:1", "postgresql://unused")

    def read() -> object:
        asked.append(1)
        return read_standing(away)

    watch = Watch(read, CLOCK)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await watch.see()
    assert len(asked) == 1


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANALYST, Role.RULE_EDITOR, Role.SERVICE])
async def test_operations_are_for_leads_and_administrators(api: Api, role: Role) -> None:
    """Everybody else is told so, by page and route."""
    for path in ("/v1/operations", "/v1/dead-letters", "/console/operations"):
        assert (await api.send(role, "GET", path)).status_code == 403, path

"""The worker as a process, on the real Kafka and PostgreSQL, with the starter model."""

import asyncio
import itertools
import shutil
import signal
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from packs import rule
from sealed import sealed
from support import Worker, fresh_topics, produce, read_decisions, reading, send_raw, settings_for, wait_until

from fraudguard.config import Settings
from fraudguard.decisions.repository import connect
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.domain import DecisionRecord, Label, Message, Outcome, Transaction
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.events.dead_letter import DeadLetter
from fraudguard.events.schema import encode
from fraudguard.events.topics import DEAD_LETTERS, TRANSACTIONS
from fraudguard.features.registry import features_in
from fraudguard.rulebook import open_publishing, pack_of

# Long enough ago that a label delay later is still no event of the future.
NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
WATCHED = "{account_id in @watched_accounts: true}"


def transfer(event_id: str, account: str, minute: int, **others: object) -> Transaction:
    """A small transfer to a known payee, `minute` minutes after noon."""
    fields = {
        "type": "transaction", "version": 1, "event_id": event_id, "account_id": account,
        "event_time": NOON + timedelta(minutes=minute), "direction": "debit", "kind": "transfer", "channel": "app",
        "amount": Decimal("20.00"), "currency": "CNY", "counterparty_id": "c-1", "device_id": f"d-{account}",
    }  # fmt: skip
    return Transaction.model_validate({**fields, **others})


def says(event_id: str, account: str, minute: int, text: str) -> Message:
    """A chat message of the counterparty."""
    return Message(
        type="message", version=1, event_id=event_id, account_id=account,
        event_time=NOON + timedelta(minutes=minute), conversation_id="k-1", channel="chat", sender="counterparty",
        text=text,
    )  # fmt: skip


@pytest.fixture
def settings(kafka: EmbeddedKafka, database_url: str) -> Settings:
    """Fresh topics and a fresh database."""
    settings = settings_for(kafka.bootstrap, database_url)
    fresh_topics(settings)
    return settings


async def published(settings: Settings, rules: str) -> tuple[int, str]:
    """The shipped pack and one more file, put in force; the release and its rules' version."""
    async with connect(settings.database_url.get_secret_value()) as repository:
        book = open_publishing(settings, repository)
        head = await book.head()
        assert head is not None
        pack = pack_of({**await book.files(head.number), "more.yaml": rules}, features_in(settings.base_currency))
        now = datetime.now(UTC)
        done = await book.publish(pack, base=head.number, author="ana", via="api", note="hot", now=now)
        return done.number, pack.rules.version


async def stored(settings: Settings, *event_ids: str) -> dict[str, DecisionRecord]:
    """The decisions in PostgreSQL."""
    async with connect(settings.database_url.get_secret_value()) as repository:
        return await repository.earlier(event_ids)


async def test_eleven_transfers_and_an_urgent_chat_are_blocked_and_ten_are_not(
    settings: Settings, tmp_path: Path
) -> None:
    """The seed rule end to end, with its reason code, published and stored alike."""
    eleven = [transfer(f"e-{n}", "a-eleven", 10 * n) for n in range(11)]
    ten = [transfer(f"t-{n}", "a-ten", 10 * n) for n in range(10)]
    chats = [says("e-chat", "a-eleven", 200, "急用钱，快点转"), says("t-chat", "a-ten", 200, "急用钱，快点转")]
    events = [*eleven, *ten, *chats]
    with Worker(settings, tmp_path / "worker.log") as worker:
        produce(settings, [*eleven, *ten])
        read_decisions(settings, {e.event_id for e in (*eleven, *ten)}, alive=worker)
        produce(settings, chats)  # another topic: sent together, they might be taken first
        published = read_decisions(settings, {e.event_id for e in events}, alive=worker)
        assert worker.stop() == 0
    blocked = published["e-chat"][0]
    assert blocked.outcome == Outcome.BLOCK
    assert "TRANSFERS_1D_AND_URGENT_MONEY" in blocked.reasons
    assert "urgent-money-burst" in {hit.rule for hit in blocked.hits}
    assert all(published[e.event_id][0].outcome != Outcome.BLOCK for e in [*ten, chats[1]])
    assert (await stored(settings, "e-chat"))["e-chat"].decision == blocked


async def test_an_event_sent_twice_gets_its_first_decision_twice(settings: Settings, tmp_path: Path) -> None:
    """Nothing counts twice: the repeat publishes the same decision and the next event's window has one transfer."""
    first, second = transfer("x-1", "a-1", 0), transfer("x-2", "a-1", 5)
    with Worker(settings, tmp_path / "worker.log") as worker:
        produce(settings, [first])
        read_decisions(settings, ["x-1"], alive=worker)
        produce(settings, [first, first, second])
        published = read_decisions(settings, ["x-2"], alive=worker)
        wait_until(lambda: len(read_decisions(settings, ["x-1"])["x-1"]) == 3, "the repeats are published")
        published = read_decisions(settings, ["x-1", "x-2"])
    assert {d.model_dump_json() for d in published["x-1"]} == {published["x-1"][0].model_dump_json()}
    assert published["x-2"][0].sequence == 2
    assert (await stored(settings, "x-2"))["x-2"].features["transfers_1d"] == 2


def test_what_cannot_be_read_goes_to_the_dead_letters_and_stops_nothing(settings: Settings, tmp_path: Path) -> None:
    """Each bad record keeps its bytes and says why; the good one between them is decided."""
    good = transfer("g-1", "a-1", 0)
    bad = [b"\xff\xfe", b"{", encode(good).replace(b'"version":1', b'"version":2'), None, b"[" * 5000]
    records = [(TRANSACTIONS, b"a-1", value) for value in bad]
    records.insert(2, (TRANSACTIONS, b"a-1", encode(good)))
    with Worker(settings, tmp_path / "worker.log") as worker:
        send_raw(settings, records)
        read_decisions(settings, ["g-1"], alive=worker)
        letters = []
        with reading(settings, DEAD_LETTERS) as consumer:

            def all_there() -> bool:
                for batch in consumer.poll(timeout_ms=100).values():
                    letters.extend(DeadLetter.decode(record.value) for record in batch)
                return len(letters) == len(bad)

            wait_until(all_there, "every bad record is in the dead letters")
        assert worker.stop() == 0
    assert {letter.topic for letter in letters} == {TRANSACTIONS}
    assert sorted(letter.raw or b"" for letter in letters) == sorted(value or b"" for value in bad)
    assert all(letter.code and letter.reason for letter in letters)


def test_two_workers_share_the_work_and_a_stopped_one_is_replaced(settings: Settings, tmp_path: Path) -> None:
    """Stopping one of two workers loses nothing: the other takes its partitions over."""
    events = [transfer(f"w-{n}", f"a-{n % 40}", n // 40) for n in range(400)]
    with Worker(settings, tmp_path / "1.log") as one, Worker(settings, tmp_path / "2.log") as two:
        produce(settings, events[:200])
        read_decisions(settings, {e.event_id for e in events[:200]}, alive=two)
        assert one.stop() == 0
        produce(settings, events[200:])
        published = read_decisions(settings, {e.event_id for e in events}, alive=two)
    sequences: dict[str, list[int]] = {}
    for event in events:
        sequences.setdefault(event.account_id, []).append(published[event.event_id][0].sequence)
    assert all(sorted(numbers) == list(range(1, len(numbers) + 1)) for numbers in sequences.values())


def test_without_an_answer_from_the_model_decisions_degrade_by_policy(settings: Settings, tmp_path: Path) -> None:
    """An engine that never answers in time costs its timeout: rules still decide, marked and with the reason."""
    impatient = settings.model_copy(update={"engine_timeout_ms": 1})
    events = [transfer(f"d-{n}", "a-1", n) for n in range(3)]
    with Worker(impatient, tmp_path / "worker.log") as worker:
        produce(settings, events)
        published = read_decisions(settings, {e.event_id for e in events}, alive=worker)
    decisions = [published[e.event_id][0] for e in events]
    assert all(d.degraded and d.risk is None and "ENGINE_UNAVAILABLE" in d.reasons for d in decisions)


def test_events_older_than_the_deadline_are_decided_without_the_model(settings: Settings, tmp_path: Path) -> None:
    """A backlog is worked off by rules and features alone, and says so."""
    events = [transfer(f"o-{n}", "a-1", n) for n in range(3)]
    produce(settings, events)  # they wait while the worker starts, longer than the deadline
    with Worker(settings.model_copy(update={"deadline_ms": 1}), tmp_path / "worker.log") as worker:
        published = read_decisions(settings, {e.event_id for e in events}, alive=worker)
    assert all("OVERLOAD" in published[e.event_id][0].reasons for e in events)


async def test_a_fraud_label_counts_against_the_counterparty_after_the_delay(
    settings: Settings, tmp_path: Path
) -> None:
    """A payment to a counterparty with a confirmed fraud, a label delay later, sees its share; labels count once."""
    delayed = timedelta(days=8)
    old = transfer("f-1", "a-1", 0, counterparty_id="c-mule")
    label = Label(
        type="label", version=1, event_id="l-1", account_id="a-1", event_time=NOON + timedelta(days=2),
        target_event_id="f-1", source="chargeback", verdict="fraud",
    )  # fmt: skip
    new = transfer("f-2", "a-2", 0, counterparty_id="c-mule", event_time=NOON + delayed)
    with Worker(settings, tmp_path / "worker.log") as worker:
        produce(settings, [old])
        read_decisions(settings, ["f-1"], alive=worker)
        produce(settings, [label, label])

        def counted() -> bool:
            async def frauds() -> int:
                async with connect(settings.database_url.get_secret_value()) as repository:
                    counts = await repository.entity_counts([("counterparty", "c-mule")], 0)
                    return sum(count.frauds for count in counts)

            return asyncio.run_coroutine_threadsafe(frauds(), loop).result(10) == 1

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(wait_until, counted, "the label is counted")
        produce(settings, [new])
        await asyncio.to_thread(read_decisions, settings, ["f-2"], 180.0, worker)
    features = (await stored(settings, "f-2"))["f-2"].features
    assert features["counterparty_fraud_share_7d"] == 1.0
    assert features["counterparty_transactions_7d"] == 1


def test_a_broken_rule_file_is_refused_before_anything_is_consumed(settings: Settings, tmp_path: Path) -> None:
    """The worker says file and line, and leaves with 1."""
    rules = tmp_path / "rules"
    shutil.copytree(settings.rules_dir, rules)
    (rules / "broken.yaml").write_text("id: broken\nwhen: amount >\n", encoding="utf-8")
    broken = settings.model_copy(update={"rules_dir": rules, "policy_path": rules / "policy.yaml"})
    with Worker(broken, tmp_path / "worker.log") as worker:
        assert worker.process.wait(60) == 1
        assert "broken.yaml:2" in worker.log.read_text()


def test_a_new_model_is_taken_over_without_a_restart(settings: Settings, tmp_path: Path) -> None:
    """SIGHUP after the link points elsewhere: later decisions name the new release; a broken one changes nothing."""
    link = tmp_path / "current"
    for version in ("1.0.0", "2.0.0", "broken"):
        sealed(tmp_path / version, version)
    (tmp_path / "broken" / "head" / "head.safetensors").unlink()

    def pointing_at(version: str) -> None:
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / version)

    pointing_at("1.0.0")
    log, sent = tmp_path / "worker.log", itertools.count()

    def model_now(worker: Worker) -> str:
        event = transfer(f"s-{next(sent)}", "a-1", 0)
        produce(settings, [event])
        decision = read_decisions(settings, [event.event_id], alive=worker)[event.event_id][0]
        assert not decision.degraded
        return decision.model

    with Worker(settings.model_copy(update={"model": str(link)}), log) as worker:
        assert model_now(worker).startswith("starter@1.0.0+")
        pointing_at("broken")
        worker.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "still scoring with starter@1.0.0" in log.read_text(), "the broken release is refused")
        assert model_now(worker).startswith("starter@1.0.0+")
        pointing_at("2.0.0")
        worker.process.send_signal(signal.SIGHUP)
        loaded = "loaded as champion from the next batch on: starter@2.0.0"
        wait_until(lambda: loaded in log.read_text(), "the new release is loaded")
        assert model_now(worker).startswith("starter@2.0.0+")
        assert worker.stop() == 0


async def test_all_workers_take_a_release_and_a_list_over_without_a_restart(settings: Settings, tmp_path: Path) -> None:
    """Two processes; after the publication each decides by it, and by the entry of a list, and says so."""
    settings = settings.model_copy(update={"model": "off", "rules_approvals": 0})
    accounts = [f"a-hot-{n}" for n in range(24)]
    with Worker(settings, tmp_path / "one.log") as one, Worker(settings, tmp_path / "two.log") as two:
        before = [transfer(f"h-before-{account}", account, 0) for account in accounts]
        produce(settings, before)
        read_decisions(settings, {event.event_id for event in before}, alive=one)
        hot = rule("hot", "account_id in @watched_accounts", WATCHED, outcome="block")
        release, version = await published(settings, hot)
        async with connect(settings.database_url.get_secret_value()) as repository:
            entries = [ListEntry("watched_accounts", account, "a test", "ana", "test", NOON) for account in accounts]
            assert await repository.lists.add_many(entries, "ana") == len(accounts)
        after = [transfer(f"h-after-{account}", account, 1) for account in accounts]
        produce(settings, after)
        found = read_decisions(settings, {event.event_id for event in after}, alive=two)
        assert (one.stop(), two.stop()) == (0, 0)
    for event in after:
        (decision,) = found[event.event_id]
        assert (decision.rules_version, decision.outcome) == (version, Outcome.BLOCK)
        assert "HOT" in decision.reasons
    for name in ("one.log", "two.log"):
        assert (tmp_path / name).read_text(encoding="utf-8").count(f"deciding by release {release}") == 1

"""Backtests of stored decisions: what they were not stored with is what live gives once it is declared; chat; truth."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from packs import (
    FIELDS,
    NOON,
    files_of,
    label,
    message,
    opened,
    payment,
    ready,
    received,
    records,
    rule,
    watch_list,
    window,
    write,
)
from support import settings_for

from fraudguard.assembly import Parts, load_parts
from fraudguard.backtest import Backtest, Past, Source, read_deciding, read_file, run
from fraudguard.decisions.repository import connect
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.domain import Screenable
from fraudguard.inputs import rule_inputs
from fraudguard.rulebook import open_publishing
from fraudguard.stories import generate

LARGE = rule("large", "amount_base > 100", "{amount_base: 101}")
WINDOWS = tuple(
    window(f"{entity}_{aggregate}", entity, aggregate, "2h", *what)
    for entity in ("account", "device", "counterparty")
    for aggregate, what in (
        ("count", ("", "amount_base < 400")),
        ("sum", ("amount_base",)),
        ("max", ("amount_base",)),
        ("mean", ("amount_base",)),
        ("distinct", ("country",)),
    )
)
ASKED = "counterparty_id in @mules"
PLAIN = files_of([LARGE])
CANDIDATE = files_of(
    [
        LARGE,
        rule("busy", "device_count >= 3 and account_mean > 50", "{device_count: 3, account_mean: 51}"),
        rule("mule", "counterparty in @mules", "{counterparty in @mules: true}"),
    ],
    WINDOWS,
    [watch_list("mules", "block", "counterparty")],
)
DECLARED = (
    *(f"{e}_{a}" for e in ("account", "device", "counterparty") for a in ("count", "sum", "max", "mean")),
    ASKED,
)


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    """No model."""
    parts = load_parts(settings_for("unused:1", "postgresql://unused", model="off"))
    yield parts
    parts.close()


def payments(count: int) -> list[Screenable]:
    """Payments of few accounts and devices, out of order by up to 40 minutes; every 25th is late."""
    return [
        payment(
            f"t-{n}", f"a-{n % 5}", n * 2 - (90 if n % 25 == 24 else n * 7 % 40), amount=Decimal(10 + n * 37 % 700),
            device_id=(None, "d-1", "d-2")[n % 3], counterparty_id=f"c-{n * 13 % 4}",
            country=("CN", "HK", None)[n % 7 % 3],
        )
        for n in range(count)
    ]  # fmt: skip


async def mules(url: str) -> None:
    """c-1 for good, c-2 for some hours."""
    before = NOON - timedelta(days=1)
    entries = [
        ListEntry("mules", "c-1", "police", "ana", "bulletin", before),
        ListEntry("mules", "c-2", "police", "ana", "bulletin", before, NOON + timedelta(hours=3)),
    ]
    async with connect(url) as repository:
        await repository.lists.add_many(entries, "ana")


async def backtested(url: str, files: dict[str, str], directory: Path, **source: Any) -> tuple[Backtest, list[Past]]:
    """The count, and every decision as it was saved."""
    settings = settings_for("unused:1", url, **write(files, directory / "rules"))
    given = {"since": NOON - timedelta(days=1), "save": directory / "saved"} | source
    count = await run(settings, Source(**given), None, lambda: None)
    return count, list(read_file(directory / "saved", frozenset({"ENGINE_OFF"})))


async def test_what_decisions_were_not_stored_with_is_what_live_gives(
    database_url: str, second_database_url: str, parts: Parts, tmp_path: Path
) -> None:
    """Windows and lists of a candidate, over decisions of before they existed, some made since; then from the file."""
    events = payments(200)
    await mules(second_database_url)
    async with opened(second_database_url, parts, ready(CANDIDATE)) as pipeline:
        live = {r.event.event_id: r for e in events for r in records(await pipeline.screen(received(e)))}
    async with opened(database_url, parts, ready(PLAIN)) as pipeline, connect(database_url) as repository:
        for event in events[:150]:
            await pipeline.screen(received(event))
        await mules(database_url)
        count, rows = await backtested(database_url, CANDIDATE, tmp_path / "before")
        assert count.total.all == len(rows) == 150
        _assert_as_live(rows, live)
        assert not count.missing

        # The windows come into force; decisions of before lack them still, those of after have them.
        book = open_publishing(settings_for("unused:1", database_url, rules_approvals=0), repository)
        now = datetime.now(UTC)
        await book.publish(ready(CANDIDATE), base=1, author="ana", via="files", note="", now=now)
        for event in events[150:]:
            await pipeline.screen(received(event))
    count, rows = await backtested(database_url, CANDIDATE, tmp_path / "after")
    assert count.total.all == 200
    _assert_as_live(rows, live)
    assert not count.missing
    assert {id: tally.hits.all for id, tally in count.rules.items()} == {
        id: sum(any(hit.rule == id for hit in record.hits) for record in live.values()) for id in count.rules
    }
    assert all(tally.hits.all for tally in count.rules.values())

    settings = settings_for("unused:1", "postgresql://nobody@127.0.0.1:1/none", **write(CANDIDATE, tmp_path / "files"))
    from_file = await run(settings, Source(file=tmp_path / "after/saved"), None, lambda: None)
    assert from_file == count
    assert read_deciding(tmp_path / "after/saved", FIELDS).keys() == {ready(CANDIDATE).rules.version}


def _assert_as_live(rows: list[Past], live: dict[str, Any]) -> None:
    by_decision = {record.decision.decision_id: record for record in live.values()}
    for row in rows:
        record = by_decision[row.decision_id]
        for name in DECLARED:
            if record.late and name.startswith(("device", "counterparty")) and name != ASKED:
                continue  # a late event reads buckets that may lie before the history
            assert row.inputs[name] == record.features[name], (record.event.event_id, name)


async def test_conversations_are_those_the_pipeline_gave_its_rules(
    database_url: str, parts: Parts, tmp_path: Path
) -> None:
    """Timelines that were cut included; every input of a rule is what it was."""
    cast = generate(9, 25, NOON - timedelta(days=1), 3, 6, "train")
    events = [item.event for item in cast.events if item.event.type != "label"][:500]
    told = [message(f"m-{n}", f"你好 {n} " + "请尽快处理这件事情 " * 8, "talker", n) for n in range(30)]
    async with opened(database_url, parts, ready(PLAIN)) as pipeline:
        made = []
        for start in range(0, len(events), 50):
            made += records(await pipeline.screen(received(*events[start : start + 50])))
        made += records(await pipeline.screen(received(*told)))
    assert any(record.timeline_start > 1 for record in made)
    _, rows = await backtested(database_url, PLAIN, tmp_path / "run", since=NOON - timedelta(hours=12))
    expected = {record.decision.decision_id: record for record in made}
    assert len(rows) > 100
    seen = 0
    async with connect(database_url) as repository:
        for row in rows:
            record = expected[row.decision_id]
            assert row.inputs == rule_inputs(record.features, await repository.timeline(record), record.score)
            assert row.hits == record.hits
            seen += row.inputs["chat"] is not None
    assert seen > 50


async def test_the_newest_label_is_the_truth_and_silence_in_the_end_as_well(
    database_url: str, parts: Parts, tmp_path: Path
) -> None:
    """An unlabelled decision is legitimate once the label delay is over; before that nothing is said of any."""
    day = 24 * 60
    events = [
        payment("fraud", "a-1"), label("l-1", "fraud", "a-1", day=1),
        payment("withdrawn", "a-2"), label("l-2", "withdrawn", "a-2", day=1),
        label("l-3", "withdrawn", "a-2", verdict="legitimate", day=2),
        payment("late-word", "a-3"), label("l-4", "late-word", "a-3", verdict="legitimate", day=3),
        label("l-5", "late-word", "a-3", day=1),
        payment("silent", "a-4"), payment("recent", "a-5", 4 * day), payment("newest", "a-6", 8 * day),
        payment("known", "a-7", 7 * day), label("l-6", "known", "a-7", day=8),
    ]  # fmt: skip
    async with opened(database_url, parts, ready(PLAIN)) as pipeline:
        for event in events:
            await pipeline.screen(received(event))
    count, rows = await backtested(database_url, PLAIN, tmp_path / "run")
    truth = {row.account_id: row.verdict for row in rows}
    assert truth == {
        "a-1": "fraud", "a-2": "legitimate", "a-3": "legitimate", "a-4": "legitimate", "a-5": None, "a-6": None,
        "a-7": None,
    }  # fmt: skip
    assert (count.total.fraud, count.total.legitimate, count.total.open) == (1, 3, 3)
    assert count.total.fraud_money == 20.0


async def test_a_release_is_tried_like_files_and_a_span_is_kept_to(
    database_url: str, parts: Parts, tmp_path: Path
) -> None:
    """A release that waits for approval, on the decisions from since to before until."""
    async with opened(database_url, parts, ready(PLAIN)) as pipeline, connect(database_url) as repository:
        for event in payments(40):
            await pipeline.screen(received(event))
        settings = settings_for("unused:1", database_url)
        book = open_publishing(settings, repository)
        wider = ready(files_of([LARGE.replace("> 100", "> 30").replace("version: 1", "version: 2")]))
        done = await book.publish(wider, base=1, author="ana", via="api", note="", now=datetime.now(UTC))
        assert not done.active
        since, until = NOON + timedelta(minutes=10), NOON + timedelta(minutes=50)
        count = await run(settings, Source(since, until), done.number, lambda: None)
    inside = [event for event in payments(40) if since <= event.event_time < until]
    assert count.total.all == len(inside)
    assert count.first is not None
    assert count.last is not None
    assert since <= count.first <= count.last < until
    amounts = [event.amount for event in inside if event.type == "transaction"]
    assert count.rules["large"].hits.all == sum(amount > 30 for amount in amounts)
    assert count.rules["large"].changed
    assert count.stopped_before.all == sum(amount > 100 for amount in amounts)

"""The rule book on the real PostgreSQL: hot changes, reviews, files and the command line, back-fill, watch lists."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from packs import (
    FIELDS,
    NOON,
    checked,
    files_of,
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
from typer.testing import CliRunner

from fraudguard import rules_commands
from fraudguard.__main__ import app
from fraudguard.assembly import Parts, load_parts, open_pipeline
from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.decisions.repository import Repository, connect
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.domain import DecisionRecord, Scalar, Screenable, WindowCount
from fraudguard.errors import BadRule, BadSettings, Conflict, StateConflict, StoreUnavailable
from fraudguard.pipeline import Pipeline
from fraudguard.replay import Replayer
from fraudguard.rulebook import History, Publishing, open_publishing

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
LARGE = rule("large", "amount_base > 100", "{amount_base: 101}")
LARGER = rule("large", "amount_base > 15", "{amount_base: 16}", version=2, outcome="block")
FIRST, SECOND = files_of([LARGE]), files_of([LARGER])


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    """No model."""
    parts = load_parts(settings_for("unused:1", "postgresql://unused", model="off"))
    yield parts
    parts.close()


@asynccontextmanager
async def publishing(url: str, **others: object) -> AsyncIterator[tuple[Repository, Publishing]]:
    """The rule book of a database, without approvals unless told."""
    settings = settings_for("unused:1", url, **{"rules_approvals": 0, **others})
    async with connect(url) as repository:
        yield repository, open_publishing(settings, repository)


async def test_workers_that_start_together_put_one_release_in_force(database_url: str, parts: Parts) -> None:
    """Whoever is first; all decide by it, and files that know of no release are known to be what it was made of."""
    packs = [ready(FIRST), ready(FIRST), ready(FIRST)]
    async with publishing(database_url) as (repository, book):
        await asyncio.gather(*(open_publishing(_settings(database_url), repository).start(p, NOW) for p in packs))
        head = await book.head()
        assert head is not None
        assert head.rules_version == packs[0].rules.version
        releases = (await repository.rulebook.releases()).items
        assert [release.number for release in releases if release.activated_at is not None] == [head.number]


async def test_a_first_start_that_was_killed_halfway_is_made_good(database_url: str, tmp_path: Path) -> None:
    """Its release was entered and never put in force; the next worker's is, and may be edited like any first one."""
    async with publishing(database_url) as (repository, book):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Publishing, "_activate", _killed)
            with pytest.raises(asyncio.CancelledError):
                await book.start(ready(FIRST), NOW)
        assert await book.head() is None
        assert await book.base(tmp_path) == 0
        await book.start(ready(FIRST), NOW)
        head = await book.head()
        assert head is not None
        assert len((await repository.rulebook.releases()).items) == 2
        assert await book.base(tmp_path) == head.number


async def _killed(*_: object, **__: object) -> None:
    raise asyncio.CancelledError


def _settings(url: str, **others: object) -> Settings:
    return settings_for("unused:1", url, **others)


async def test_every_worker_decides_its_next_batch_by_a_new_release(database_url: str, parts: Parts) -> None:
    """Without a restart: version, outcome and windows are those of the release from the next batch on; and back."""
    async with (
        opened(database_url, parts, ready(FIRST)) as one,
        opened(database_url, parts, ready(FIRST)) as two,
        publishing(database_url) as (_, book),
    ):
        pipelines = (one, two)

        async def versions(turn: str) -> set[tuple[str, str]]:
            made = [
                (await p.screen(received(payment(f"{turn}-{n}", f"a-{n}", len(turn)))))[0]
                for n, p in enumerate(pipelines)
            ]
            return {(r.decision.rules_version, r.decision.outcome.value) for r in records(made)}

        before, after = ready(FIRST).rules.version, ready(SECOND).rules.version
        assert await versions("x") == {(before, "approve")}
        head = await book.head()
        assert head is not None
        await book.publish(checked(SECOND), base=head.number, author="ana", via="files", note="", now=NOW)
        assert await versions("xx") == {(after, "block")}
        assert await book.rollback(None, "ben", "too many", NOW) == head.number
        assert await versions("xxx") == {(before, "approve")}


async def test_a_batch_that_an_activation_overtook_is_decided_anew(
    database_url: str, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was worked on under the old release, cannot be committed, and the second attempt decides by the new one."""
    conflicts: list[StateConflict] = []
    commit = Repository.commit
    async with opened(database_url, parts, ready(FIRST)) as pipeline, publishing(database_url) as (_, book):
        await pipeline.screen(received(payment("t-0", "a-0")))
        head = await book.head()
        assert head is not None
        new = checked(SECOND)

        async def late_commit(repository: Repository, changes: object) -> None:
            if not conflicts:
                await book.publish(new, base=head.number, author="ana", via="files", note="", now=NOW)
            try:
                await commit(repository, changes)  # type: ignore[arg-type]  # passed on
            except StateConflict as error:
                conflicts.append(error)
                raise

        monkeypatch.setattr(Repository, "commit", late_commit)
        (record,) = records(await pipeline.screen(received(payment("t-1", minute=1))))
    assert len(conflicts) == 1
    assert "activation" in str(conflicts[0])
    assert (record.decision.rules_version, record.decision.outcome) == (new.rules.version, "block")


async def test_a_release_needs_the_word_of_a_second_person(database_url: str) -> None:
    """Its author's own approval is refused, another person's puts it in force."""
    async with publishing(database_url, rules_approvals=1) as (_, book):
        await book.start(ready(FIRST), NOW)
        head = await book.head()
        assert head is not None
        done = await book.publish(ready(SECOND), base=head.number, author="ana", via="api", note="", now=NOW)
        assert not done.active
        assert "large says something else now (version 1 -> 2)" in done.notices
        with pytest.raises(Conflict, match="own"):
            await book.approve(done.number, "ana", "", NOW)
        assert await book.head() == head
        assert await book.approve(done.number, "ben", "fine", NOW)
        now_in_force = await book.head()
        assert now_in_force is not None
        assert now_in_force.number == done.number


async def test_a_release_that_this_build_cannot_read_is_taken_back(database_url: str, parts: Parts) -> None:
    """A newer build published it: workers of this one stop and say so, and a rollback sets them going again."""
    async with opened(database_url, parts, ready(FIRST)) as pipeline, publishing(database_url) as (repository, book):
        await pipeline.screen(received(payments(1)[0]))
        head = await book.head()
        assert head is not None
        policy = await repository.document("policy", head.policy_version)
        newer = await repository.rulebook.propose(
            head.number, "newer", json.dumps({"a.yaml": "id: a\nfrom: the future\n"}), head.policy_version, policy,
            author="ana", via="files", note="", diff="", at=NOW,
        )  # fmt: skip
        await repository.rulebook.activate(
            newer, "ben", "", NOW, approvals_required=0, expected=head.activation, prepare=_nothing
        )
        with pytest.raises(BadSettings, match="cannot be read here"):
            await pipeline.screen(received(*payments(2)))
        assert await book.rollback(None, "ben", "", NOW) == head.number
        (record,) = records(await pipeline.screen(received(payments(2)[1])))
        assert record.decision.rules_version == head.rules_version


async def _nothing() -> Sequence[WindowCount]:
    return ()


async def test_broken_files_stop_only_the_first_worker(database_url: str, tmp_path: Path) -> None:
    """Where nothing is in force they are refused; later the release in force decides without them."""
    paths = write(FIRST, tmp_path / "pack")
    good = _settings(database_url, model="off", **paths)
    broken = _settings(database_url, model="off", **write({**FIRST, "worse.yaml": "id: Ä"}, tmp_path / "broken"))
    with pytest.raises(BadRule, match=r"worse\.yaml:1:"):
        async with open_pipeline(broken, load_parts(broken), SystemClock()):
            pass
    async with open_pipeline(good, load_parts(good), SystemClock()) as pipeline:
        await pipeline.screen(received(payments(1)[0]))
    async with open_pipeline(broken, load_parts(broken), SystemClock()) as pipeline:
        assert records(await pipeline.screen(received(payments(2)[1])))


async def test_what_may_not_be_published(database_url: str) -> None:
    """A rule that changed under its old version, files made from a release that is not in force, and no change."""
    async with publishing(database_url) as (_, book):
        await book.start(ready(FIRST), NOW)
        head = await book.head()
        assert head is not None
        silent = ready(files_of([LARGE.replace("> 100", "> 99")]))
        with pytest.raises(BadRule, match="large changed but is still version 1: raise it"):
            await book.publish(silent, base=head.number, author="ana", via="files", note="", now=NOW)
        with pytest.raises(Conflict, match="in force already"):
            await book.publish(ready(FIRST), base=head.number, author="ana", via="files", note="", now=NOW)
        done = await book.publish(ready(SECOND), base=head.number, author="ana", via="files", note="", now=NOW)
        third = ready(files_of([LARGER, rule("small", "amount_base < 1", "{amount_base: 0.5}")]))
        with pytest.raises(Conflict, match=rf"release {head.number}, but ana activated release {done.number}"):
            await book.publish(third, base=head.number, author="cem", via="api", note="", now=NOW)


class Terminal:
    """`fraudguard` on a database and a directory of rule files, as one user."""

    def __init__(self, url: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory, self._patch = directory, monkeypatch
        named = {"rules_dir": directory, "policy_path": directory / "policy.yaml"}
        for name, value in _settings(url, **named).environment().items():
            monkeypatch.setenv(name, value)

    def __call__(self, *words: str, user: str = "ana") -> str:
        """What the command says; what is refused begins with `refused:`."""
        self._patch.setattr(rules_commands, "operator", lambda: f"cli:{user}")
        done = CliRunner().invoke(app, ["rules", *words])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            return f"refused: {done.exception}"
        assert done.exit_code == 0, done.output
        return done.output

    def edit(self, old: str, new: str) -> None:
        """Replace a part of the rule file."""
        path = self.directory / "rules.yaml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_life_of_a_release_at_a_terminal(
    database_url: str, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """status, diff, publish, approve, pull, rollback, with two people and two checkouts."""
    write(FIRST, tmp_path / "ana")
    shell = Terminal(database_url, tmp_path / "ana", monkeypatch)
    assert "in force: nothing yet" in shell("status")
    asyncio.run(_start(database_url))
    assert "files:    as in force" in shell("status")
    assert shell("diff") == "no difference\n"

    shell.edit("version: 1", "version: 2")
    shell.edit("amount_base > 100", "amount_base > 50")
    assert "+  amount_base > 50" in shell("diff")
    assert "other than in force, edited from release" in shell("status")
    assert "waits for approval by somebody else" in shell("publish", "--note", "catch more")
    assert "waits for approval" in shell("status")
    assert shell("approve", "2").startswith("refused: actor: release 2 is cli:ana's own")
    assert shell("approve", "2", user="ben") == "release 2 is in force\n"
    assert "files:    as in force" in shell("status")
    assert "amount_base > 50" in shell("diff", "2")
    assert shell("list").split()[:5] == ["large", "v2", "live", "review", "LARGE"]

    # Somebody rolls it back; what is edited here meanwhile is not lost.
    assert shell("rollback", user="ben").startswith("release 1 is in force again")
    shell.edit("a test", "a better test")
    assert shell("pull").startswith("refused: the files here were edited since release 2")
    assert "a better test" in (tmp_path / "ana/rules.yaml").read_text()
    assert shell("publish", "--note", "wording").startswith("refused: parent: this was made from release 2")
    assert "release 1" in shell("pull", "--force")
    assert (tmp_path / "ana/rules.yaml").read_text() == FIRST["rules.yaml"]
    assert shell("pull").startswith("the files are those of release 1")
    assert "files:    as in force" in shell("status")


async def _start(url: str) -> None:
    async with publishing(url, rules_approvals=1) as (_, book):
        await book.start(ready(FIRST), NOW)


def test_files_that_no_longer_exist_are_removed_by_pull(
    database_url: str, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout of another pack becomes the release; its own files go, and only with --force."""
    asyncio.run(_start(database_url))
    other = {**SECOND, "more.yaml": rule("small", "amount_base < 1", "{amount_base: 0.5}")}
    write(other, tmp_path / "ben")
    (tmp_path / "ben/RELEASE").write_text("1\n")
    shell = Terminal(database_url, tmp_path / "ben", monkeypatch)
    assert shell("pull", user="ben").startswith("refused: the files here were edited since release 1")
    shell("pull", "--force", user="ben")
    found = {path.name: path.read_text() for path in (tmp_path / "ben").glob("*.yaml")}
    assert found == FIRST


ENTITIES = ("account", "counterparty", "device", "ip", "merchant")
WINDOWS = tuple(
    window(f"{entity}_{aggregate}_{length}", entity, aggregate, length, *what)
    for entity in ENTITIES
    for aggregate, length, what in (
        ("count", "2h", ("", 'direction = "debit"')),
        ("sum", "90m", ("amount_base",)),
        ("max", "2h", ("amount_base", "amount_base < 500")),
        ("mean", "1h", ("amount_base",)),
        ("distinct", "2h", ("country",)),
    )
)
DECLARED = tuple(
    f"{entity}_{name}" for entity in ENTITIES for name in ("count_2h", "sum_90m", "max_2h", "mean_1h", "distinct_2h")
)
BUSY = rule("busy-device", "device_count_2h > 3", "{device_count_2h: 4}")
PLAIN, WINDOWED = files_of([LARGE]), files_of([LARGE, BUSY], WINDOWS)


def payments(count: int, seed: int = 5) -> list[Screenable]:
    """Payments of few accounts and shared entities, out of order by up to 40 minutes; one in twenty is late."""
    rng = random.Random(seed)
    events: list[Screenable] = []
    for n in range(count):
        behind = rng.choice((90, 200)) if rng.random() < 0.05 else rng.random() * 40
        currency = rng.choice(("CNY", "CNY", "USD", "XAG"))
        amount = Decimal(rng.randrange(1, 900)) if currency == "XAG" else Decimal(rng.randrange(1, 90_000)).scaleb(-2)
        events.append(
            payment(
                f"t-{n}", f"a-{rng.randrange(6)}", n * 1.5 - behind, amount=amount, currency=currency,
                direction=rng.choice(("debit", "credit")), counterparty_id=rng.choice((None, "c-1", "c-2", "c-3")),
                device_id=rng.choice((None, "d-1", "d-2")), ip=rng.choice((None, "203.0.113.1", "203.0.113.2")),
                merchant_id=rng.choice((None, "m-1")), country=rng.choice((None, "CN", "HK", "SG", "TH")),
            )
        )  # fmt: skip
    return events


async def screened(pipeline: Pipeline, events: Sequence[Screenable], size: int = 5) -> list[DecisionRecord]:
    """Every event in order, in small batches."""
    made: list[DecisionRecord] = []
    for start in range(0, len(events), size):
        made += records(await pipeline.screen(received(*events[start : start + size])))
    return made


async def counted_from_the_start(url: str, parts: Parts, events: Sequence[Screenable]) -> dict[str, dict[str, Scalar]]:
    """The declared windows of every event where they were declared before the first one, by event id."""
    async with opened(url, parts, ready(WINDOWED)) as pipeline:
        return {record.event.event_id: declared(record) for record in await screened(pipeline, events, 40)}


def declared(record: DecisionRecord) -> dict[str, Scalar]:
    """Its declared windows; of a late event those of its account, for others' history may end after its time."""
    names = [name for name in DECLARED if not record.late or name.startswith("account")]
    return {name: record.features[name] for name in names}


def assert_counted(made: Sequence[DecisionRecord], expected: dict[str, dict[str, Scalar]]) -> None:
    """Every declared window is what it would have been had it been declared from the start."""
    assert made
    for record in made:
        assert declared(record) == expected[record.event.event_id], record.event.event_id


async def test_new_windows_are_exact_from_the_first_decision_on(
    database_url: str, second_database_url: str, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While history is counted another worker keeps committing: nothing is counted twice, nothing is missed."""
    events = payments(420)
    expected = await counted_from_the_start(second_database_url, parts, events)
    read, committed = History.read, asyncio.Semaphore(0)

    async def read_slowly(history: History, span: timedelta, now: datetime) -> None:
        """Let some batches be committed before history is read, and some after."""
        for _ in range(3):
            await committed.acquire()
        await read(history, span, now)
        while not committed.locked():
            await committed.acquire()
        for _ in range(3):
            await committed.acquire()

    async with (
        opened(database_url, parts, ready(PLAIN)) as first,
        opened(database_url, parts, ready(PLAIN)) as second,
        publishing(database_url) as (_, book),
    ):
        await screened(first, events[:200])
        head = await book.head()
        assert head is not None
        monkeypatch.setattr(History, "read", read_slowly)
        publication = asyncio.create_task(
            book.publish(ready(WINDOWED), base=head.number, author="ana", via="files", note="", now=datetime.now(UTC))
        )
        made: list[DecisionRecord] = []
        for start in range(200, len(events), 5):
            made += records(await second.screen(received(*events[start : start + 5])))
            committed.release()
        await publication
    windowed = ready(WINDOWED).rules.version
    versions = [record.decision.rules_version for record in made]
    assert versions == sorted(versions, key=lambda version: version == windowed)  # never back
    assert versions.count(windowed) >= 50
    assert len(versions) - versions.count(windowed) >= 30
    assert_counted([record for record in made if record.decision.rules_version == windowed], expected)


async def test_windows_that_were_away_are_counted_again(
    database_url: str, second_database_url: str, parts: Parts
) -> None:
    """A rollback drops them, a second activation counts what passed meanwhile."""
    events = payments(300, seed=6)
    expected = await counted_from_the_start(second_database_url, parts, events)
    async with opened(database_url, parts, ready(PLAIN)) as pipeline, publishing(database_url) as (repository, book):
        await screened(pipeline, events[:100])
        head = await book.head()
        assert head is not None
        now = datetime.now(UTC)
        done = await book.publish(ready(WINDOWED), base=head.number, author="ana", via="files", note="", now=now)
        assert_counted(await screened(pipeline, events[100:150]), expected)
        await book.rollback(None, "ben", "", datetime.now(UTC))
        without = await screened(pipeline, events[150:200])
        assert not any(name in record.features for record in without for name in DECLARED)
        assert await _rows(repository) == 0
        await book.rollback(done.number, "ben", "", datetime.now(UTC))
        assert_counted(await screened(pipeline, events[200:]), expected)


async def _rows(repository: Repository) -> int:
    """Buckets stored of the windows declared here, for the entities that exist."""
    entities = ("c-1", "c-2", "c-3", "d-1", "d-2", "203.0.113.1", "203.0.113.2", "m-1")
    keys = [window.key for window in ready(WINDOWED).rules.windows]
    return len(await repository.window_counts([(key, entity, 0, 2**60) for key in keys for entity in entities]))


async def test_counts_that_no_event_can_read_any_more_are_pruned(
    database_url: str, second_database_url: str, parts: Parts
) -> None:
    """They go, and no value of a later event changes."""
    events = payments(120, seed=8)
    later = timedelta(days=60)
    events[60:] = [event.model_copy(update={"event_time": event.event_time + later}) for event in events[60:]]
    expected = await counted_from_the_start(second_database_url, parts, events)
    async with opened(database_url, parts, ready(WINDOWED)) as pipeline, publishing(database_url) as (repository, _):
        await screened(pipeline, events[:60])
        assert await pipeline.prune() == 0
        before = await _rows(repository)
        made = await screened(pipeline, events[60:90])
        assert await pipeline.prune() == before
        assert_counted([*made, *await screened(pipeline, events[90:])], expected)


async def test_a_publication_that_dies_after_its_counting_changes_nothing(
    database_url: str, second_database_url: str, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release waits, no bucket is stored, workers go on; put in force later, its windows are exact."""
    events = payments(200, seed=7)
    expected = await counted_from_the_start(second_database_url, parts, events)
    settle, counting = History.settle, asyncio.Event()

    async def settle_forever(history: History) -> Sequence[WindowCount]:
        counts = await settle(history)
        assert counts
        counting.set()
        await asyncio.Event().wait()
        return counts

    async with opened(database_url, parts, ready(PLAIN)) as pipeline, publishing(database_url) as (repository, book):
        await screened(pipeline, events[:100])
        head = await book.head()
        assert head is not None
        with monkeypatch.context() as patch:
            patch.setattr(History, "settle", settle_forever)
            now = datetime.now(UTC)
            dying = asyncio.create_task(
                book.publish(ready(WINDOWED), base=head.number, author="ana", via="files", note="", now=now)
            )
            await counting.wait()
            dying.cancel()
            with pytest.raises((asyncio.CancelledError, StoreUnavailable)):
                await dying
        assert await book.head() == head
        assert await _rows(repository) == 0
        after = await screened(pipeline, events[100:150])
        assert {record.decision.rules_version for record in after} == {head.rules_version}
        waiting = (await repository.rulebook.releases()).items[0]
        await book.activate(waiting.number, "ana", "", datetime.now(UTC))
        assert_counted(await screened(pipeline, events[150:]), expected)


async def test_a_watch_list_is_seen_by_the_next_event_of_every_worker(database_url: str, parts: Parts) -> None:
    """Until the entry expires by the event's own time; what was known is stored, so that replay holds without it."""
    mules = watch_list("mules", "block", "counterparty")
    asking = ready(files_of([rule("mule", "counterparty in @mules", "{counterparty in @mules: true}")], (), [mules]))
    entry = ListEntry("mules", "c-1", "police", "ana", "bulletin", NOON, NOON + timedelta(minutes=30))
    asked = "counterparty_id in @mules"
    async with (
        opened(database_url, parts, asking) as one,
        opened(database_url, parts, asking) as two,
        publishing(database_url) as (repository, _),
    ):
        made = [await screened(one, [payment("t-0", "a-0")]), await screened(two, [payment("t-1", "a-1")])]
        await repository.lists.add(entry, "ana")
        made.append(await screened(one, [payment("t-2", "a-0", 1)]))
        made.append(await screened(two, [payment("t-3", "a-1", 29.9), payment("t-4", "a-1", 30)]))
        made.append(await screened(two, [payment("t-5", "a-1", 20, counterparty_id=None)]))
        await repository.lists.remove("mules", "c-1", "wrong", "ana", NOW)
        made.append(await screened(one, [payment("t-6", "a-0", 2)]))
        flat = [record for part in made for record in part]
        answers = [record.features[asked] for record in flat]
        assert answers == [False, False, True, True, False, None, False]
        assert [bool(record.hits) for record in flat] == [answer is True for answer in answers]
        replayer = Replayer(repository, FIELDS)
        proofs = [await replayer.replay(record.decision.decision_id) for record in flat]
        replayer.close()
    assert [proof.differences for proof in proofs] == [()] * len(flat)

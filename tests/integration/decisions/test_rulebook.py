"""The rule book: who may release what, in which order, and what happens to batches meanwhile."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import rulebook
from fraudguard.decisions.pages import encode_cursor
from fraudguard.decisions.repository import Changes, Repository, StoredState
from fraudguard.decisions.rulebook import Head, Review
from fraudguard.domain import DecisionRecord, WindowCount
from fraudguard.errors import BadInput, Conflict, NotFound, StateConflict, StoreUnavailable

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
COUNT = WindowCount("k-1", "c-9", 7, 2, 300, 200, 0b101)


async def nothing() -> Sequence[WindowCount]:
    """A preparation without windows."""
    return ()


async def propose(repository: Repository, version: str, parent: int = 0, author: str = "ana", **others: Any) -> int:
    """A release of this rules version."""
    values = {"via": "files", "note": "mules", "diff": f"+ {version}", "at": NOW} | others
    return await repository.rulebook.propose(
        parent, version, f"rules {version}", "p-1", "version: 1", author=author, **values
    )


async def activate(repository: Repository, number: int, expected: int = 0, **others: Any) -> Head:
    """Activate as ben, without windows or approvals unless told."""
    values = {"approvals_required": 0, "expected": expected, "prepare": nothing} | others
    return await repository.rulebook.activate(number, "ben", "go", NOW, **values)


async def trail(engine: AsyncEngine) -> list[tuple[str, str, str, Any]]:
    """The audit rows."""
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT actor, action, subject, detail FROM audit ORDER BY id"))
        return [tuple(row) for row in rows]


async def test_a_release_from_proposal_to_rollback(repository: Repository, engine: AsyncEngine) -> None:
    """Proposed, approved by another person, activated; the next one too; and the first one back without approvals."""
    assert await repository.rulebook.head() is None
    first = await propose(repository, "r-1", diff="x" * 10_001)
    await repository.rulebook.review(first, "ben", "approve", "", NOW)
    head = await activate(repository, first, approvals_required=1)
    assert head == await repository.rulebook.head() == Head(head.activation, first, "r-1", "p-1", "ben", NOW)
    assert await repository.document("rules", "r-1") == "rules r-1"
    assert await repository.document("policy", "p-1") == "version: 1"

    second = await propose(repository, "r-2", first, via="api")
    await repository.rulebook.review(second, "cem", "approve", "好", NOW)
    later = await activate(repository, second, head.activation, approvals_required=1)
    back = await activate(repository, first, later.activation, approvals_required=1)
    assert head.activation < later.activation < back.activation
    assert (await repository.rulebook.head()) == back
    release = await repository.rulebook.release(second)
    assert (release.parent, release.via, release.diff, release.author) == (first, "api", "+ r-2", "ana")
    assert release.reviews == (Review("cem", "approve", "好", NOW),)
    assert (release.activated_at, release.active) == (NOW, False)
    assert (await repository.rulebook.release(first)).active

    deeds = await trail(engine)
    versions = {"rules_version": "r-1", "policy_version": "p-1"}
    assert [deed[:3] for deed in deeds] == [
        ("ana", "rules.propose", f"release-{first}"),
        ("ben", "rules.review", f"release-{first}"),
        ("ben", "rules.activate", f"release-{first}"),
        ("ana", "rules.propose", f"release-{second}"),
        ("cem", "rules.review", f"release-{second}"),
        ("ben", "rules.activate", f"release-{second}"),
        ("ben", "rules.activate", f"release-{first}"),
    ]
    assert deeds[0][3] == {"parent": 0, "via": "files", "note": "mules", "diff": "x" * 10_000} | versions
    assert deeds[1][3] == {"verdict": "approve", "note": ""} | versions
    assert deeds[2][3] == {"note": "go", "activation": head.activation, "before": None} | versions
    before = {"release": str(second), "rules_version": "r-2", "policy_version": "p-1"}
    assert deeds[6][3] == {"note": "go", "activation": back.activation, "before": before} | versions


async def test_pages_of_releases(repository: Repository) -> None:
    """Releases come newest first, in pages, with their reviews and whether they are active."""
    numbers = [await propose(repository, f"r-{n}") for n in range(5)]
    await repository.rulebook.review(numbers[3], "ben", "reject", "too wide", NOW)
    await activate(repository, numbers[1])
    seen, cursor = [], None
    for expected in (2, 2, 1):
        page = await repository.rulebook.releases(2, cursor)
        assert len(page.items) == expected
        seen += page.items
        cursor = page.next
    assert cursor is None
    assert [release.number for release in seen] == numbers[::-1]
    assert [release.active for release in seen] == [False, False, False, True, False]
    assert seen[1].reviews == (Review("ben", "reject", "too wide", NOW),)
    assert (await repository.rulebook.releases(5, encode_cursor(2**70))).items == tuple(seen)
    with pytest.raises(BadInput, match="cursor"):
        await repository.rulebook.releases(2, "x")
    for number in (0, -1, 99, 2**70):
        with pytest.raises(NotFound):
            await repository.rulebook.release(number)


async def test_a_proposal_from_an_old_release_is_refused(repository: Repository, engine: AsyncEngine) -> None:
    """Whoever edited what is no longer active is told who activated what and when, and nothing is stored."""
    first = await propose(repository, "r-1")
    await activate(repository, first)
    with pytest.raises(Conflict, match=rf"release 0.*ben activated release {first} at 2026-11-22T09:00.*pull"):
        await propose(repository, "r-2")
    with pytest.raises(Conflict, match="made from release 99"):
        await propose(repository, "r-2", 99)
    with pytest.raises(NotFound):
        await repository.document("rules", "r-2")
    assert len(await trail(engine)) == 2


@pytest.mark.parametrize("author", ["", " a", "a\nb", "x" * 129])
async def test_bad_names_and_notes_are_refused(repository: Repository, author: str) -> None:
    """Names are printable, notes bounded, and a rejection says why."""
    with pytest.raises(BadInput, match="author"):
        await propose(repository, "r-1", author=author)
    with pytest.raises(BadInput, match="note"):
        await propose(repository, "r-1", note="x" * 2_001)
    number = await propose(repository, "r-1")
    with pytest.raises(BadInput, match="actor"):
        await repository.rulebook.review(number, author, "approve", "", NOW)
    with pytest.raises(BadInput, match="why"):
        await repository.rulebook.review(number, "ben", "reject", " ", NOW)


async def test_reviews_are_by_others_and_once(repository: Repository) -> None:
    """The author cannot review, nobody twice, and after a rejection nobody at all."""
    number = await propose(repository, "r-1")
    with pytest.raises(Conflict, match="own"):
        await repository.rulebook.review(number, "ana", "approve", "", NOW)
    await repository.rulebook.review(number, "ben", "approve", "", NOW)
    with pytest.raises(Conflict, match="already"):
        await repository.rulebook.review(number, "ben", "reject", "no", NOW)
    await repository.rulebook.review(number, "cem", "reject", "blocks salaries", NOW)
    with pytest.raises(Conflict, match=r"cem rejected release .*blocks salaries"):
        await repository.rulebook.review(number, "dan", "approve", "", NOW)
    with pytest.raises(Conflict, match="rejected"):
        await activate(repository, number, approvals_required=1)
    with pytest.raises(NotFound):
        await repository.rulebook.review(number + 1, "ben", "approve", "", NOW)


async def test_what_cannot_be_activated(repository: Repository, engine: AsyncEngine) -> None:
    """Too few approvals, another head than the caller saw, the head itself, a superseded release: no trace of them."""
    first, second = [await propose(repository, version) for version in ("r-1", "r-2")]
    with pytest.raises(Conflict, match=r"0 of 1 approvals.*other than ana"):
        await activate(repository, first, approvals_required=1)
    with pytest.raises(Conflict, match="nothing is active"):
        await activate(repository, first, 5)
    with pytest.raises(NotFound):
        await activate(repository, 99)
    head = await activate(repository, first)
    before = await trail(engine)
    with pytest.raises(Conflict, match="active since"):
        await activate(repository, first, head.activation)
    with pytest.raises(Conflict, match="made from release 0"):
        await activate(repository, second, head.activation)
    with pytest.raises(Conflict, match="follows activation 0"):
        await activate(repository, second)
    assert await repository.rulebook.head() == head
    assert await trail(engine) == before


async def test_preparation_replaces_counts_with_the_activation(repository: Repository) -> None:
    """Counts of forgotten windows go and prepared ones come with the activation; a failed one changes nothing."""
    old, kept = WindowCount("k-0", "c-9", 7, 1, 0, None, 0), WindowCount("k-2", "c-9", 7, 1, 0, None, 0)
    await repository.commit(Changes(window_counts=[old, kept, COUNT]))
    keys = [(window, "c-9", 0, 9) for window in ("k-0", "k-1", "k-2")]
    number = await propose(repository, "r-1")

    async def counted() -> Sequence[WindowCount]:
        return [COUNT]

    async def failing() -> Sequence[WindowCount]:
        raise BadInput("no such field")

    with pytest.raises(BadInput, match="no such field"):
        await activate(repository, number, prepare=failing, forget=["k-0"])
    assert len(await repository.window_counts(keys)) == 3
    assert await repository.rulebook.head() is None
    await activate(repository, number, prepare=counted, forget=["k-0", "k-1"])
    assert sorted(await repository.window_counts(keys), key=lambda count: count.window) == [COUNT, kept]


async def test_a_long_preparation_is_given_up(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches never wait longer than the bound for a preparation."""
    monkeypatch.setattr(rulebook, "PREPARE_S_MAX", 0.01)
    number = await propose(repository, "r-1")

    async def endless() -> Sequence[WindowCount]:
        await asyncio.Event().wait()
        return ()

    with pytest.raises(StoreUnavailable, match="counting history"):
        await activate(repository, number, prepare=endless)
    assert await repository.rulebook.head() is None
    await repository.commit(Changes(window_counts=[COUNT]))


async def test_one_of_two_activations_wins(repository: Repository, other: Repository) -> None:
    """Of two people who activate different releases on the same head, in every round exactly one succeeds."""
    head, parent = 0, 0
    for round_ in range(5):
        pair = [await propose(repository, f"r-{round_}-{n}", parent) for n in range(2)]
        done = await asyncio.gather(
            activate(repository, pair[0], head), activate(other, pair[1], head), return_exceptions=True
        )
        (won,) = [outcome for outcome in done if isinstance(outcome, Head)]
        (lost,) = [outcome for outcome in done if not isinstance(outcome, Head)]
        assert isinstance(lost, Conflict)
        assert await repository.rulebook.head() == won
        head, parent = won.activation, won.number


@pytest.mark.parametrize("with_state", [True, False])
async def test_a_batch_of_other_rules_writes_nothing(
    repository: Repository, make: Callable[..., DecisionRecord], with_state: bool
) -> None:
    """A batch decided under any activation but the head is refused, one decided under it is stored."""
    states = {"a-1": StoredState(0, b"s")} if with_state else {}
    head = await activate(repository, await propose(repository, "r-1"))
    record = make()
    for activation in (0, head.activation + 1):
        with pytest.raises(StateConflict, match=f"the head is activation {head.activation}"):
            await repository.commit(Changes(records=[record], states=states, activation=activation))
    assert await repository.earlier([record.event.event_id]) == {}
    await repository.commit(Changes(records=[record], states=states, activation=head.activation))
    assert await repository.earlier([record.event.event_id]) == {record.event.event_id: record}


async def _lock(server: asyncpg.Connection, *, waiting: int, granted: int) -> None:
    """Returns once this many backends of this database have advisory locks, and wait for them."""
    for _ in range(1_000):
        states = await server.fetch(
            "SELECT l.granted FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE d.datname = current_database() AND l.locktype = 'advisory'"
        )
        have = sum(state["granted"] for state in states)
        if (len(states) - have, have) == (waiting, granted):
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"never {waiting} waiting, {granted} granted: {states}")


async def test_a_batch_that_meets_an_activation_waits_and_is_refused(
    repository: Repository, other: Repository, database_url: str
) -> None:
    """A batch that arrives in mid-activation waits for it, then sees the new head and writes nothing."""
    number = await propose(repository, "r-1")
    server = await asyncpg.connect(database_url)
    commits: list[asyncio.Task[None]] = []

    async def meanwhile() -> Sequence[WindowCount]:
        for waiting, states in enumerate(({}, {"a-1": StoredState(0, b"s")}), 1):
            commits.append(asyncio.create_task(other.commit(Changes(states=states, window_counts=[COUNT]))))
            await _lock(server, waiting=waiting, granted=1)
        return ()

    await activate(repository, number, prepare=meanwhile)
    await server.close()
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StateConflict, StateConflict]
    assert await repository.window_counts([("k-1", "c-9", 0, 9)]) == []
    assert await repository.states(["a-1"]) == {}


async def test_an_activation_waits_for_batches_under_way(
    repository: Repository, other: Repository, database_url: str
) -> None:
    """What a batch commits before an activation is there when the activation's preparation reads."""
    number = await propose(repository, "r-1")
    await repository.commit(Changes(window_counts=[COUNT]))
    blocker, server = [await asyncpg.connect(database_url) for _ in range(2)]
    found: list[WindowCount] = []

    async def reading() -> Sequence[WindowCount]:
        found.extend(await repository.window_counts([("k-1", "c-9", 0, 9)]))
        return ()

    async with blocker.transaction():
        await blocker.execute("SELECT * FROM window_counts FOR UPDATE")
        commit = asyncio.create_task(other.commit(Changes(window_counts=[COUNT])))
        await _lock(server, waiting=0, granted=1)
        activation = asyncio.create_task(activate(repository, number, prepare=reading))
        await _lock(server, waiting=1, granted=1)
        assert not commit.done()
        assert found == []
    await commit
    await activation
    assert [count.count for count in found] == [4]
    await blocker.close()
    await server.close()


async def test_batches_and_activations_at_once(repository: Repository, other: Repository) -> None:
    """Under steady activations each batch is stored once, under the head of its moment, or refused and tried again."""
    done = asyncio.Event()
    stored: list[int] = []

    async def work(account: str) -> None:
        version = 0
        while not done.is_set():
            head = await other.rulebook.head()
            activation = head.activation if head else 0
            states = {account: StoredState(version, b"s")}
            try:
                await other.commit(Changes(states=states, window_counts=[COUNT], activation=activation))
            except StateConflict:
                continue
            version += 1
            stored.append(activation)

    workers = [asyncio.create_task(work(f"a-{n}")) for n in range(3)]
    head, parent, heads = 0, 0, [0]
    for n in range(8):
        now = await activate(repository, await propose(repository, f"r-{n}", parent), head)
        head, parent = now.activation, now.number
        heads.append(head)
    done.set()
    await asyncio.gather(*workers)
    assert set(stored) <= set(heads)
    counts = await repository.window_counts([("k-1", "c-9", 0, 9)])
    assert sum(count.count for count in counts) == 2 * len(stored)


@pytest.mark.parametrize("table", ["rule_releases", "rule_reviews", "rule_activations"])
async def test_the_book_cannot_be_changed(repository: Repository, engine: AsyncEngine, table: str) -> None:
    """PostgreSQL itself refuses to update, delete or truncate what is written once."""
    number = await propose(repository, "r-1")
    await repository.rulebook.review(number, "ben", "approve", "", NOW + timedelta(hours=1))
    await activate(repository, number)
    for statement in (f"UPDATE {table} SET at = at", f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with engine.begin() as connection:
                await connection.execute(text(statement))


async def test_head_is_read_in_the_shared_transaction(repository: Repository) -> None:
    """Rule book and lists of a bound repository read on its one connection."""
    await activate(repository, await propose(repository, "r-1"))
    async with repository.one_transaction() as bound:
        head = await bound.rulebook.head()
        assert await bound.lists.members([("mules", "c-9")]) == {}
    assert head == await repository.rulebook.head()

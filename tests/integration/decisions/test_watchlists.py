"""Watch lists: who put what on them, until when, and what the trail keeps."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import watchlists
from fraudguard.decisions.repository import Repository
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.errors import BadInput, NotFound

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)


def entry(value: str, list_: str = "mule_accounts", **others: Any) -> ListEntry:
    """An entry of the fraud team's."""
    return ListEntry(list_, value, "confirmed mule", "fraud-team", "police", NOW, **others)


async def trail(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    """The audit rows."""
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT at, actor, action, subject, detail FROM audit ORDER BY id"))
        return [tuple(row) for row in rows]


async def test_an_entry_from_adding_to_removal(repository: Repository, engine: AsyncEngine) -> None:
    """Added, changed, found by value on every list, removed; the trail tells each state before and after."""
    first, later = entry("c-9"), NOW + timedelta(days=1)
    changed = replace(first, reason="court order", added_at=later, expires_at=later + timedelta(microseconds=1))
    await repository.lists.add(first, "ana")
    await repository.lists.add(changed, "ben")
    trusted = entry("c-9", "payroll")
    await repository.lists.add(trusted, "ana")
    assert await repository.lists.containing("c-9") == [changed, trusted]
    assert await repository.lists.containing("c-8") == []
    await repository.lists.remove("mule_accounts", "c-9", " appealed ", "cem", later)
    assert await repository.lists.containing("c-9") == [trusted]
    with pytest.raises(NotFound):
        await repository.lists.remove("mule_accounts", "c-9", "appealed", "cem", later)

    before = {"reason": "confirmed mule", "owner": "fraud-team", "source": "police", "expires_at": None}
    after = before | {"reason": "court order", "expires_at": "2026-11-23T09:00:00.000001Z"}
    subject = "@mule_accounts c-9"
    assert await trail(engine) == [
        (NOW, "ana", "list.add", subject, {"before": None, "after": before}),
        (later, "ben", "list.add", subject, {"before": before, "after": after}),
        (NOW, "ana", "list.add", "@payroll c-9", {"before": None, "after": before}),
        (later, "cem", "list.remove", subject, {"reason": "appealed", "before": after}),
    ]


async def test_an_import_is_whole_audited_and_may_be_repeated(repository: Repository, engine: AsyncEngine) -> None:
    """Every new or changed entry leaves one row, an unchanged one none, and a bad one stops them all."""
    entries = [entry(f"c-{n}") for n in range(40)] + [entry("c-1", "payroll")]
    assert await repository.lists.add_many(entries, "ana") == 41
    again = [replace(one, added_at=NOW + timedelta(hours=1)) for one in entries]
    again[3] = replace(again[3], owner="night-shift")
    assert await repository.lists.add_many([*again, entry("c-40")], "ben") == 2
    deeds = await trail(engine)
    assert [deed[3] for deed in deeds[41:]] == ["@mule_accounts c-3", "@mule_accounts c-40"]
    assert deeds[41][4]["before"]["owner"] == "fraud-team"
    for bad, place in ((entry("c-41 "), "value"), (entry("c-0"), "value"), (replace(entry("x"), owner=""), "owner")):
        with pytest.raises(BadInput, match=rf"entries\[2\]\.{place}"):
            await repository.lists.add_many([entry("c-50"), entry("c-0"), bad], "ana")
    assert await trail(engine) == deeds
    assert await repository.lists.counts(NOW) == {"mule_accounts": 41, "payroll": 1}
    assert await repository.lists.add_many([], "ana") == 0


async def test_too_large_an_import_is_refused(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import has a bound, and says so."""
    monkeypatch.setattr(watchlists, "IMPORT_MAX", 2)
    with pytest.raises(BadInput, match="at most 2"):
        await repository.lists.add_many([entry(f"c-{n}") for n in range(3)], "ana")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("value", bad) for bad in ("", " c", "c ", "c\n", "c\x00", "x" * 129)),
        ("list", ""),
        ("owner", ""),
        ("source", "\t"),
        ("reason", " "),
        ("reason", "x" * 2_001),
        ("expires_at", NOW),
        ("expires_at", NOW - timedelta(days=1)),
    ],
)
async def test_bad_entries_are_refused(repository: Repository, engine: AsyncEngine, path: str, value: Any) -> None:
    """Values are printable, reason and owner are given, and what is over already is not added."""
    with pytest.raises(BadInput, match=f"^{path}: "):
        await repository.lists.add(replace(entry("c-1"), **{path: value}), "ana")
    assert await trail(engine) == []


async def test_a_removal_says_why(repository: Repository) -> None:
    """Without a reason the entry stays."""
    await repository.lists.add(entry("c-9"), "ana")
    with pytest.raises(BadInput, match="reason"):
        await repository.lists.remove("mule_accounts", "c-9", " ", "ana", NOW)
    assert await repository.lists.containing("c-9") == [entry("c-9")]


async def test_membership_says_until_when(repository: Repository) -> None:
    """Pairs that are entries are found with their end, past or not; other lists and values are not there."""
    soon = NOW + timedelta(seconds=1)
    await repository.lists.add_many([entry("c-1"), entry("c-2", expires_at=soon), entry("急", "payroll")], "ana")
    pairs = [
        ("mule_accounts", "c-1"),
        ("mule_accounts", "c-2"),
        ("mule_accounts", "急"),
        ("payroll", "急"),
        ("x", "c-1"),
    ]
    assert await repository.lists.members([*pairs, *pairs]) == {
        ("mule_accounts", "c-1"): None,
        ("mule_accounts", "c-2"): soon,
        ("payroll", "急"): None,
    }
    assert await repository.lists.members([]) == {}
    assert await repository.lists.counts(NOW) == {"mule_accounts": 2, "payroll": 1}
    assert await repository.lists.counts(soon) == {"mule_accounts": 1, "payroll": 1}


@pytest.mark.parametrize("limit", [1, 4, 7, 8])
async def test_pages_by_value(repository: Repository, limit: int) -> None:
    """Entries come by code point, each once, of the one list, whole or those that begin with a prefix."""
    values = ["A", "B%", "BB", "B_", "a", "b", "é", "急"]
    await repository.lists.add_many([entry(value) for value in reversed(values)] + [entry("B", "payroll")], "ana")

    async def read(prefix: str | None) -> list[str]:
        seen: list[str] = []
        cursor = None
        while True:
            page = await repository.lists.page("mule_accounts", limit, cursor, prefix)
            seen += [one.value for one in page.items]
            cursor = page.next
            if cursor is None:
                return seen
            assert len(page.items) == limit

    assert await read(None) == values
    assert await read("B") == ["B%", "BB", "B_"]
    assert await read("B%") == ["B%"]
    assert await read("x") == []


async def test_a_prefix_is_a_range_of_the_key(repository: Repository, engine: AsyncEngine) -> None:
    """A search by prefix reads the entries it shows, not the list."""
    await repository.lists.add_many([entry(f"c-{n}") for n in range(5_000)], "ana")
    async with engine.begin() as connection:
        await connection.execute(text("ANALYZE list_entries"))
        plan = await connection.scalars(
            text("EXPLAIN SELECT * FROM list_entries WHERE list = 'mule_accounts' AND starts_with(value, 'c-77')")
        )
        assert "value >= 'c-77'" in "\n".join(plan.all())


async def test_writers_at_once_leave_a_true_trail(
    repository: Repository, other: Repository, engine: AsyncEngine
) -> None:
    """Whoever changes an entry at the same time, each row's before is the row before's after."""
    await asyncio.gather(
        *(
            store.lists.add_many([replace(entry("c-1"), owner=f"o-{n}-{name}"), entry(f"c-{n}-{name}")], name)
            for n in range(6)
            for name, store in (("ana", repository), ("ben", other))
        )
    )
    details = [deed[4] for deed in await trail(engine) if deed[3] == "@mule_accounts c-1"]
    assert len(details) == 12
    assert [detail["before"] for detail in details] == [None, *(detail["after"] for detail in details[:-1])]

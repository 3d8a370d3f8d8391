"""Entries of allow and block lists: which values, why, whose, until when.

Knows names and values only; which lists there are, and of what, is declared in rules/lists.yaml. Every change is
audited, and a removed entry stays in the trail.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.decisions import audit
from fraudguard.decisions.connection import Open, any_of
from fraudguard.decisions.pages import Page, check_limit, decode_cursor, encode_cursor
from fraudguard.decisions.tables import LIST_ENTRIES
from fraudguard.domain import format_time
from fraudguard.errors import BadInput, NotFound

VALUE_CHARACTERS_MAX, REASON_CHARACTERS_MAX = 128, 2_000
IMPORT_MAX = 50_000  # entries in one transaction

# One writer a list at a time, so that the trail's before and after follow one another; readers never wait.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('fraudguard list'), hashtext(:list))")

_WRITE = text("""
INSERT INTO list_entries (list, value, reason, owner, source, added_at, expires_at)
SELECT * FROM unnest(CAST(:lists AS text[]), CAST(:values AS text[]), CAST(:reasons AS text[]), CAST(:owners AS text[]),
                     CAST(:sources AS text[]), CAST(:added AS timestamptz[]), CAST(:expires AS timestamptz[]))
ON CONFLICT (list, value) DO UPDATE
SET reason = excluded.reason, owner = excluded.owner, source = excluded.source, added_at = excluded.added_at,
    expires_at = excluded.expires_at
""")

_PAIRS = text("""
SELECT e.list, e.value, e.expires_at
FROM unnest(CAST(:lists AS text[]), CAST(:values AS text[])) AS k (list, value)
JOIN list_entries e ON e.list = k.list AND e.value = k.value
""")


@dataclass(frozen=True, slots=True)
class ListEntry:
    """A value on a list. owner: who answers for it; source: where it came from; expires_at: None never."""

    list: str
    value: str
    reason: str
    owner: str
    source: str
    added_at: datetime
    expires_at: datetime | None = None


class WatchLists:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, open_: Open) -> None:
        """open_: gives the transaction to work in."""
        self._open = open_

    async def add(self, entry: ListEntry, actor: str) -> None:
        """Put a value on a list, or change its entry; at its added_at. Raises BadInput."""
        await self._write([entry], actor, [""])

    async def add_many(self, entries: Sequence[ListEntry], actor: str) -> int:
        """Put many values on lists, all or none, one audit row each; how many entries are new or changed.

        An entry that differs in its added_at alone is left as it is, so the same import again does nothing.
        Raises BadInput, whose path begins with the entry's place, `entries[3].`.
        """
        if len(entries) > IMPORT_MAX:
            raise BadInput(f"must be at most {IMPORT_MAX} at once", path="entries", hint="import them in parts")
        return await self._write(entries, actor, [f"entries[{place}]." for place in range(len(entries))])

    async def _write(self, entries: Sequence[ListEntry], actor: str, places: Sequence[str]) -> int:
        wanted: dict[tuple[str, str], ListEntry] = {}
        for entry, place in zip(entries, places, strict=True):
            _check(entry, place)
            if (entry.list, entry.value) in wanted:
                raise BadInput("is there twice", path=f"{place}value", hint="leave one of them out")
            wanted[entry.list, entry.value] = entry
        ordered = [wanted[key] for key in sorted(wanted)]
        async with self._open() as connection:
            for name in sorted({entry.list for entry in ordered}):
                await connection.execute(_LOCK, {"list": name})
            before = await _entries(connection, wanted)
            changed = [entry for entry in ordered if not _same(before.get((entry.list, entry.value)), entry)]
            if changed:
                await connection.execute(_WRITE, _arrays(changed))
                deeds: list[tuple[datetime, str, audit.Detail]] = [
                    (e.added_at, _subject(e), {"before": _detail(before.get((e.list, e.value))), "after": _detail(e)})
                    for e in changed
                ]
                await audit.append_many(connection, actor, "list.add", deeds)
        return len(changed)

    async def remove(self, list_: str, value: str, reason: str, actor: str, at: datetime) -> None:
        """Take a value off a list. Raises NotFound, BadInput without a reason."""
        _check_reason(reason, "")
        async with self._open() as connection:
            await connection.execute(_LOCK, {"list": list_})
            c = LIST_ENTRIES.c
            gone = delete(LIST_ENTRIES).where(c.list == list_, c.value == value).returning(LIST_ENTRIES)
            row = (await connection.execute(gone)).one_or_none()
            if row is None:
                raise NotFound(f"{value!r} is not on list {list_!r}")
            entry = _entry(row)
            detail: audit.Detail = {"reason": reason.strip(), "before": _detail(entry)}
            await audit.append(connection, at, actor, "list.remove", _subject(entry), detail)

    async def page(
        self, list_: str, limit: int = 50, cursor: str | None = None, prefix: str | None = None
    ) -> Page[ListEntry]:
        """A page of a list's entries by value, expired ones too; prefix: what values begin with. Raises BadInput."""
        c = LIST_ENTRIES.c
        query = select(LIST_ENTRIES).where(c.list == list_)
        if prefix:
            query = query.where(func.starts_with(c.value, prefix))
        if cursor is not None:
            (value,) = decode_cursor(cursor, str)
            query = query.where(c.value > value)
        async with self._open() as connection:
            rows = (await connection.execute(query.order_by(c.value).limit(check_limit(limit) + 1))).all()
        shown = tuple(_entry(row) for row in rows[:limit])
        return Page(shown, encode_cursor(shown[-1].value) if len(rows) > limit else None)

    async def containing(self, value: str) -> list[ListEntry]:
        """This value's entries on every list, expired ones too, by list."""
        c = LIST_ENTRIES.c
        async with self._open() as connection:
            rows = await connection.execute(select(LIST_ENTRIES).where(c.value == value).order_by(c.list))
            return [_entry(row) for row in rows]

    async def counts(self, at: datetime) -> dict[str, int]:
        """Entries in force at this time, by list; lists without one are missing."""
        c = LIST_ENTRIES.c
        query = select(c.list, func.count()).where(c.expires_at.is_(None) | (c.expires_at > at)).group_by(c.list)
        async with self._open() as connection:
            return {row[0]: row[1] for row in await connection.execute(query)}

    async def members(self, pairs: Collection[tuple[str, str]]) -> dict[tuple[str, str], datetime | None]:
        """Which of these (list, value) pairs are entries, and when each expires: None for never, or a time gone by."""
        if not pairs:
            return {}
        lists, values = zip(*sorted(set(pairs)), strict=True)
        async with self._open() as connection:
            rows = await connection.execute(_PAIRS, {"lists": list(lists), "values": list(values)})
            return {(row.list, row.value): row.expires_at for row in rows}


def _check(entry: ListEntry, place: str) -> None:
    for path, text_ in (("list", entry.list), ("value", entry.value), ("owner", entry.owner), ("source", entry.source)):
        if not 1 <= len(text_) <= VALUE_CHARACTERS_MAX or not text_.isprintable() or text_ != text_.strip():
            raise BadInput(
                f"must be 1 to {VALUE_CHARACTERS_MAX} printable characters without surrounding spaces",
                path=f"{place}{path}",
            )
    _check_reason(entry.reason, place)
    if entry.expires_at is not None and entry.expires_at <= entry.added_at:
        raise BadInput("must be in the future", path=f"{place}expires_at", hint="leave it out for never")


def _check_reason(reason: str, place: str) -> None:
    if not 1 <= len(reason.strip()) <= REASON_CHARACTERS_MAX:
        raise BadInput(f"must be 1 to {REASON_CHARACTERS_MAX} characters", path=f"{place}reason", hint="say why")


async def _entries(
    connection: AsyncConnection, keys: Mapping[tuple[str, str], object]
) -> dict[tuple[str, str], ListEntry]:
    """Entries of these keys' lists that have one of their values."""
    c = LIST_ENTRIES.c
    lists, values = {name for name, _ in keys}, {value for _, value in keys}
    rows = await connection.execute(select(LIST_ENTRIES).where(c.list == any_of(lists), c.value == any_of(values)))
    return {(row.list, row.value): _entry(row) for row in rows}


def _same(before: ListEntry | None, entry: ListEntry) -> bool:
    return before is not None and replace(before, added_at=entry.added_at) == entry


def _arrays(entries: Sequence[ListEntry]) -> dict[str, list[Any]]:
    return {
        "lists": [e.list for e in entries],
        "values": [e.value for e in entries],
        "reasons": [e.reason for e in entries],
        "owners": [e.owner for e in entries],
        "sources": [e.source for e in entries],
        "added": [e.added_at for e in entries],
        "expires": [e.expires_at for e in entries],
    }


def _subject(entry: ListEntry) -> str:
    return f"@{entry.list} {entry.value}"


def _detail(entry: ListEntry | None) -> dict[str, str | None] | None:
    if entry is None:
        return None
    expires = None if entry.expires_at is None else format_time(entry.expires_at)
    return {"reason": entry.reason, "owner": entry.owner, "source": entry.source, "expires_at": expires}


def _entry(row: Row[Any]) -> ListEntry:
    return ListEntry(**row._mapping)

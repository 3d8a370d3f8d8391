"""The rule book: releases of rules and policy, what people said of them, and which one decides.

Append-only. The head is the newest activation; taking a change back is activating an older release again. Knows
versions, people and order; what is in a release (`documents`) is the rules room's and the policy's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, Row, any_, insert, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.decisions import audit, documents, windows
from fraudguard.decisions.connection import Open
from fraudguard.decisions.pages import Page, check_limit, decode_cursor, encode_cursor
from fraudguard.decisions.tables import RULE_ACTIVATIONS, RULE_RELEASES, RULE_REVIEWS
from fraudguard.domain import WindowCount, format_time
from fraudguard.errors import BadInput, Conflict, NotFound, StoreUnavailable

NAME_CHARACTERS_MAX, NOTE_CHARACTERS_MAX = 128, 2_000
DIFF_CHARACTERS_AUDITED = 10_000
NUMBER_MAX = 2**63 - 1
# Every batch waits meanwhile; a commit's own bound (connection.open_engine) is longer, so none of them fails for it.
PREPARE_S_MAX = 20.0

Via = Literal["files", "api"]
Verdict = Literal["approve", "reject"]

# Batches hold this lock shared until committed: rules_activation_held() in migrations/versions/0009_tenants.py.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('fraudguard rulebook'))")
_PATIENCE = text(f"SET LOCAL idle_in_transaction_session_timeout = '{2 * PREPARE_S_MAX:.0f}s'")


@dataclass(frozen=True, slots=True)
class Head:
    """The activation in force: `number` is its release's; actor and at: who activated it and when."""

    activation: int
    number: int
    rules_version: str
    policy_version: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Review:
    """What one person said of a release; of its author only a rejection, which withdraws it."""

    actor: str
    verdict: Verdict
    note: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Release:
    """Rules and policy as somebody proposed them; parent: the release they were made from, 0 for none.

    reviews: oldest first. activated_at: when it last became the head, None if never; active: it is the head.
    """

    number: int
    parent: int
    rules_version: str
    policy_version: str
    author: str
    via: Via
    note: str
    diff: str
    at: datetime
    reviews: tuple[Review, ...]
    activated_at: datetime | None
    active: bool


class RuleBook:
    """Every method raises StoreUnavailable when PostgreSQL does not answer; every change is audited with it."""

    def __init__(self, open_: Open) -> None:
        """open_: gives the transaction to work in."""
        self._open = open_

    async def head(self) -> Head | None:
        """The activation in force; None before the first one."""
        async with self._open() as connection:
            return await _head(connection)

    async def propose(
        self,
        parent: int,
        rules_version: str,
        rules_body: str,
        policy_version: str,
        policy_body: str,
        *,
        author: str,
        via: Via,
        note: str,
        diff: str,
        at: datetime,
    ) -> int:
        """Keep a release and its sources; its number. It decides nothing until it is activated.

        Raises Conflict if `parent` is not the head's release (0: no head), BadInput for author or note.
        """
        _check(author, "author", note)
        async with self._open() as connection:
            head = await _head(connection)
            if parent != (head.number if head else 0):
                raise _overtaken(f"was made from release {parent}", head)
            await documents.save(connection, "rules", rules_version, rules_body)
            await documents.save(connection, "policy", policy_version, policy_body)
            values: dict[str, str | int] = {
                "parent": parent,
                "rules_version": rules_version,
                "policy_version": policy_version,
                "via": via,
                "note": note,
            }
            row = insert(RULE_RELEASES).values(**values, author=author, diff=diff, at=at)
            number: int = (await connection.execute(row.returning(RULE_RELEASES.c.number))).scalar_one()
            detail = values | {"diff": diff[:DIFF_CHARACTERS_AUDITED]}
            await audit.append(connection, at, author, "rules.propose", _subject(number), detail)
        return number

    async def release(self, number: int) -> Release:
        """The release of this number. Raises NotFound."""
        async with self._open() as connection:
            row = await _find(connection, number)
            (release,) = await _releases(connection, [row])
            return release

    async def releases(self, limit: int = 50, cursor: str | None = None) -> Page[Release]:
        """A page of releases, newest first. Raises BadInput for a bad limit or cursor."""
        query = select(RULE_RELEASES).order_by(RULE_RELEASES.c.number.desc()).limit(check_limit(limit) + 1)
        if cursor is not None:
            (number,) = decode_cursor(cursor, int)
            query = query.where(RULE_RELEASES.c.number < min(int(number), NUMBER_MAX))  # type: ignore[arg-type]  # it is an int
        async with self._open() as connection:
            rows = (await connection.execute(query)).all()
            shown = await _releases(connection, rows[:limit])
        return Page(tuple(shown), encode_cursor(shown[-1].number) if len(rows) > limit else None)

    async def review(self, number: int, actor: str, verdict: Verdict, note: str, at: datetime) -> None:
        """Say yes or no to a release, once a person; a rejection is final and must say why.

        Its author may only reject, which withdraws it.

        Raises NotFound, Conflict if the actor wrote what is approved, has reviewed it, or it is rejected, BadInput for
        actor or note.
        """
        _check(actor, "actor", note)
        if verdict == "reject" and not note.strip():
            raise BadInput("must say why it is rejected", path="note")
        async with self._open() as connection:
            row = await _find(connection, number, lock=True)
            if actor == row.author and verdict == "approve":
                raise Conflict(f"release {number} is {actor}'s own", path="actor", hint="another person must review it")
            reviews = (await _reviews(connection, [number])).get(number, ())
            _refuse_rejected(number, reviews)
            if any(review.actor == actor for review in reviews):
                raise Conflict(f"{actor} has reviewed release {number} already", path="actor")
            values = {"verdict": verdict, "note": note}
            await connection.execute(insert(RULE_REVIEWS).values(**values, number=number, actor=actor, at=at))
            detail = values | {"rules_version": row.rules_version, "policy_version": row.policy_version}
            await audit.append(connection, at, actor, "rules.review", _subject(number), detail)

    async def activate(
        self,
        number: int,
        actor: str,
        note: str,
        at: datetime,
        *,
        approvals_required: int,
        expected: int,
        prepare: Callable[[], Awaitable[Sequence[WindowCount]]],
        forget: Collection[str] = (),
    ) -> Head:
        """Make a release the head: no batch decided under another one is committed after this.

        approvals_required: by people other than the author; a release that was active before needs none. expected: the
        activation that the caller saw as the head, 0 for none. prepare: called while no batch can be committed, on
        connections of its own, for at most PREPARE_S_MAX; the counts it returns are added once those of the window
        keys in `forget` are deleted. Whatever is raised, nothing has changed.

        Raises NotFound; Conflict if the head is another one, or the release is active, rejected, short of approvals, or
        made from a release that is no longer the head; StoreUnavailable if prepare takes too long; BadInput.
        """
        _check(actor, "actor", note)
        async with self._open() as connection:
            await connection.execute(_PATIENCE)
            await connection.execute(_LOCK)
            head = await _head(connection)
            if expected != (head.activation if head else 0):
                raise _overtaken(f"follows activation {expected}", head)
            row = await _find(connection, number, lock=True)
            await _check_ready(connection, row, head, approvals_required)
            try:
                async with asyncio.timeout(PREPARE_S_MAX):
                    counts = await prepare()
            except TimeoutError as error:
                raise StoreUnavailable(f"counting history took longer than {PREPARE_S_MAX:.0f} s") from error
            await windows.forget(connection, forget)
            await windows.add(connection, counts)
            written = insert(RULE_ACTIVATIONS).values(number=number, actor=actor, note=note, at=at)
            activation = (await connection.execute(written.returning(RULE_ACTIVATIONS.c.id))).scalar_one()
            detail = {
                "note": note,
                "activation": activation,
                "rules_version": row.rules_version,
                "policy_version": row.policy_version,
                "before": head and _named(head),
            }
            await audit.append(connection, at, actor, "rules.activate", _subject(number), detail)
        return Head(activation, number, row.rules_version, row.policy_version, actor, at)


def _subject(number: int) -> str:
    return f"release-{number}"


def _named(head: Head) -> Mapping[str, str]:
    return {
        "release": str(head.number),
        "rules_version": head.rules_version,
        "policy_version": head.policy_version,
    }


def _check(name: str, path: str, note: str) -> None:
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or not name.isprintable() or name != name.strip():
        raise BadInput(f"must be 1 to {NAME_CHARACTERS_MAX} printable characters", path=path)
    if len(note) > NOTE_CHARACTERS_MAX:
        raise BadInput(f"must be at most {NOTE_CHARACTERS_MAX} characters", path="note")


def _overtaken(what: str, head: Head | None) -> Conflict:
    now = f"{head.actor} activated release {head.number} at {format_time(head.at)}" if head else "nothing is active"
    return Conflict(f"this {what}, but {now}", path="parent", hint="pull, and make the change again")


def _refuse_rejected(number: int, reviews: Sequence[Review]) -> None:
    for review in reviews:
        if review.verdict == "reject":
            raise Conflict(f"{review.actor} rejected release {number}: {review.note}", path="number")


async def _head(connection: AsyncConnection) -> Head | None:
    a, r = RULE_ACTIVATIONS.c, RULE_RELEASES.c
    query = select(a.id, a.number, r.rules_version, r.policy_version, a.actor, a.at).join_from(
        RULE_ACTIVATIONS, RULE_RELEASES, a.number == r.number
    )
    row = (await connection.execute(query.order_by(a.id.desc()).limit(1))).one_or_none()
    return row and Head(*row)


async def _find(connection: AsyncConnection, number: int, *, lock: bool = False) -> Row[Any]:
    query = select(RULE_RELEASES).where(RULE_RELEASES.c.number == min(number, NUMBER_MAX))
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound(f"no release {number}")
    return row


async def _check_ready(connection: AsyncConnection, row: Row[Any], head: Head | None, approvals_required: int) -> None:
    """Raises Conflict unless this release, locked, may follow the head."""
    if head and head.number == row.number:
        raise Conflict(f"release {row.number} is active since {format_time(head.at)}", path="number")
    reviews = (await _reviews(connection, [row.number])).get(row.number, ())
    _refuse_rejected(row.number, reviews)
    if await _activated(connection, [row.number]):
        return
    if row.parent != (head.number if head else 0):
        raise _overtaken(f"was made from release {row.parent}", head)
    approvals = sum(review.verdict == "approve" for review in reviews)  # none is the author's: see review()
    if approvals < approvals_required:
        hint = f"ask somebody other than {row.author} to approve it"
        raise Conflict(
            f"release {row.number} has {approvals} of {approvals_required} approvals", path="number", hint=hint
        )


async def _reviews(connection: AsyncConnection, numbers: Collection[int]) -> dict[int, tuple[Review, ...]]:
    c = RULE_REVIEWS.c
    rows = await connection.execute(select(RULE_REVIEWS).where(c.number == _any(numbers)).order_by(c.at, c.actor))
    found: dict[int, tuple[Review, ...]] = {}
    for row in rows:
        review = Review(row.actor, row.verdict, row.note, row.at)
        found[row.number] = (*found.get(row.number, ()), review)
    return found


async def _activated(connection: AsyncConnection, numbers: Collection[int]) -> dict[int, datetime]:
    """When each was last activated; those that never were are missing."""
    c = RULE_ACTIVATIONS.c
    query = select(c.number, c.at).where(c.number == _any(numbers)).order_by(c.id)
    return {row.number: row.at for row in await connection.execute(query)}


async def _releases(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> list[Release]:
    numbers = [row.number for row in rows]
    reviews, activated = await _reviews(connection, numbers), await _activated(connection, numbers)
    head = await _head(connection)
    return [
        Release(
            **row._mapping,
            reviews=reviews.get(row.number, ()),
            activated_at=activated.get(row.number),
            active=head is not None and head.number == row.number,
        )
        for row in rows
    ]


def _any(numbers: Collection[int]) -> Any:
    return any_(literal(list(numbers), ARRAY(BigInteger)))

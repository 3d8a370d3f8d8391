"""Sessions of people who signed in: begun, found by what the cookie holds, ended. Only a hash of it is stored."""

import hashlib
import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, LargeBinary, any_, delete, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fraudguard.decisions import audit
from fraudguard.decisions.audit import Detail
from fraudguard.decisions.connection import transaction
from fraudguard.decisions.keys import Principal
from fraudguard.decisions.people import Credentials
from fraudguard.decisions.tables import SESSIONS, USERS
from fraudguard.domain import Role
from fraudguard.tenants import HOUSE

_SEEN_EVERY = timedelta(minutes=1)  # a request a second need not be a write a second


def _hash(token: str) -> bytes:
    # One round is enough: the token is 256 random bits.
    return hashlib.sha256(token.encode()).digest()


def csrf_of(token: str) -> str:
    """What a page of this session sends with every change; it tells nothing of the token."""
    return hmac.digest(token.encode(), b"csrf", "sha256").hex()


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that just began. token: what the cookie holds, and nothing else has."""

    token: str = field(repr=False)
    principal: Principal


async def begin(
    connection: AsyncConnection, name: str, role: Role, tenant: str, at: datetime, detail: Detail
) -> Opened:
    """A new session of somebody who proved who they are, in the caller's transaction. Audited with this detail."""
    token = secrets.token_urlsafe(32)
    await connection.execute(insert(SESSIONS).values(token_hash=_hash(token), name=name, created_at=at, seen_at=at))
    await audit.append(connection, at, name, "session.open", name, detail)
    return Opened(token, Principal(name, role, csrf_of(token), tenant))


class Sessions:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        """engine: see connection.open_engine."""
        self._engine = engine

    async def open(self, checked: Credentials, code_step: int | None, at: datetime) -> Opened | None:
        """A new session for credentials that proved right; forgets the attempts before. Audited.

        None when they were changed meanwhile, or this step's one-time code was used already.
        """
        async with transaction(self._engine, HOUSE) as connection:
            proved = await connection.execute(
                update(USERS)
                .where(USERS.c.name == checked.name, USERS.c.password_hash == checked.password_hash)
                .where(USERS.c.disabled_at.is_(None), USERS.c.secret.is_not_distinct_from(checked.secret))
                .where(USERS.c.code_step == checked.code_step)
                .values(failures=0, locked_until=None, code_step=checked.code_step if code_step is None else code_step)
                .returning(USERS.c.role, USERS.c.tenant)
            )
            row = proved.one_or_none()
            return None if row is None else await begin(connection, checked.name, Role(row.role), row.tenant, at, {})

    async def find(self, token: str, at: datetime, idle: timedelta, longest: timedelta) -> Principal | None:
        """Whom the token speaks for; None for an unknown, ended or expired one, or a disabled account's."""
        hashed = _hash(token)
        async with transaction(self._engine, HOUSE) as connection:
            found = await connection.execute(
                select(SESSIONS.c.name, SESSIONS.c.seen_at, USERS.c.role, USERS.c.tenant)
                .join(USERS, USERS.c.name == SESSIONS.c.name)
                .where(SESSIONS.c.token_hash == hashed, USERS.c.disabled_at.is_(None))
                .where(SESSIONS.c.seen_at > at - idle, SESSIONS.c.created_at > at - longest)
            )
            row = found.one_or_none()
            if row is None:
                return None
            if row.seen_at + min(_SEEN_EVERY, idle / 2) < at:
                await connection.execute(update(SESSIONS).where(SESSIONS.c.token_hash == hashed).values(seen_at=at))
        return Principal(row.name, Role(row.role), csrf_of(token), row.tenant)

    async def alive(self, tokens: Collection[str], at: datetime, idle: timedelta, longest: timedelta) -> set[str]:
        """Those of them that still speak for somebody. Asking is no use of a session: it goes on running out."""
        by_hash = {_hash(token): token for token in tokens}
        async with transaction(self._engine, HOUSE) as connection:
            found = await connection.scalars(
                select(SESSIONS.c.token_hash)
                .join(USERS, USERS.c.name == SESSIONS.c.name)
                .where(SESSIONS.c.token_hash == any_(literal(list(by_hash), ARRAY(LargeBinary))))
                .where(USERS.c.disabled_at.is_(None))
                .where(SESSIONS.c.seen_at > at - idle, SESSIONS.c.created_at > at - longest)
            )
            return {by_hash[hashed] for hashed in found}

    async def close(self, token: str, at: datetime) -> None:
        """End this session; again changes nothing. Audited."""
        async with transaction(self._engine, HOUSE) as connection:
            ended = await connection.execute(
                delete(SESSIONS).where(SESSIONS.c.token_hash == _hash(token)).returning(SESSIONS.c.name)
            )
            name = ended.scalar_one_or_none()
            if name is not None:
                await audit.append(connection, at, name, "session.close", name, {})

    async def prune(self, at: datetime, idle: timedelta, longest: timedelta) -> int:
        """Forget sessions that ran out; how many."""
        async with transaction(self._engine, HOUSE) as connection:
            gone = await connection.execute(
                delete(SESSIONS).where((SESSIONS.c.seen_at <= at - idle) | (SESSIONS.c.created_at <= at - longest))
            )
            return gone.rowcount

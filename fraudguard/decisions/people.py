"""The accounts of people: stored, changed, locked. Knows hashes and sealed secrets, not how they are made or checked.

Every change but the counting of attempts is audited in its own transaction.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import case, delete, insert, literal, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fraudguard.decisions import audit
from fraudguard.decisions.audit import Detail
from fraudguard.decisions.connection import transaction
from fraudguard.decisions.tables import SESSIONS, USERS
from fraudguard.domain import Role
from fraudguard.errors import BadInput, NotFound, StateConflict
from fraudguard.tenants import HOUSE, checked_name

# Nothing that a key's "owner (id)" or the command line's "cli:name" could be taken for.
NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
FAILURES_MAX = 5  # attempts in a row before the account is locked
LOCK_FIRST, LOCK_MAX = timedelta(minutes=1), timedelta(hours=1)  # twice as long after each further attempt
_DOUBLINGS_MAX = 6


@dataclass(frozen=True, slots=True)
class Person:
    """An account as lists show it. codes: it needs a one-time code beside its password. tenant: as Principal's.

    issuer: the OpenID provider that vouches for this person; None for one with a password.
    """

    name: str
    role: Role
    codes: bool
    created_at: datetime
    locked_until: datetime | None
    disabled_at: datetime | None
    tenant: str
    issuer: str | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an attempt to sign in is checked against. secret: sealed; code_step: the newest that was used."""

    name: str
    password_hash: str = field(repr=False)
    secret: bytes | None = field(repr=False)
    code_step: int


class People:
    """Creates, changes, lists. Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        """engine: see connection.open_engine."""
        self._engine = engine

    async def create(
        self, name: str, role: Role, password_hash: str, actor: str, at: datetime, tenant: str = HOUSE
    ) -> None:
        """A new account, of one tenant for good; names are unique over all of them.

        Raises BadInput for a bad or taken name, and for the role that machines have.
        """
        if not NAME.fullmatch(name):
            hint = "up to 64 small letters, digits, dots, dashes, underlines and @, a letter or digit first"
            raise BadInput("is no name for an account", path="name", hint=hint)
        _check(role)
        checked_name(tenant)
        try:
            async with transaction(self._engine, HOUSE) as connection:
                values = {"name": name, "role": role.value, "password_hash": password_hash, "tenant": tenant}
                await connection.execute(insert(USERS).values(created_at=at, **values))
                await audit.append(connection, at, actor, "user.create", name, {"role": role.value}, tenant)
        except StateConflict as error:
            raise BadInput(f"there is a user {name!r} already", path="name") from error

    async def list(self) -> list[Person]:
        """Everybody, by name."""
        async with transaction(self._engine, HOUSE) as connection:
            rows = await connection.execute(select(USERS).order_by(USERS.c.name))
            return [
                Person(
                    r.name,
                    Role(r.role),
                    r.secret is not None,
                    r.created_at,
                    r.locked_until,
                    r.disabled_at,
                    r.tenant,
                    r.issuer,
                )
                for r in rows
            ]

    async def set_role(self, name: str, role: Role, actor: str, at: datetime) -> None:
        """From the next request on. Raises NotFound, BadInput for the role that machines have."""
        _check(role)
        async with transaction(self._engine, HOUSE) as connection:
            await _refuse_vouched(connection, name)
            await self._change(connection, name, role=role.value)
            await audit.append(connection, at, actor, "user.role", name, {"role": role.value})

    async def set_password(
        self, name: str, password_hash: str, actor: str, at: datetime, *, seen: str | None = None
    ) -> None:
        """Another password: unlocks the account and ends its sessions. seen: the hash it must still have.

        Raises NotFound, StateConflict when the password is no longer the one seen.
        """
        async with transaction(self._engine, HOUSE) as connection:
            await _refuse_vouched(connection, name)
            await self._change(connection, name, seen=seen, password_hash=password_hash, failures=0, locked_until=None)
            await self._end(connection, name, at, actor, "user.password", {})

    async def set_secret(self, name: str, sealed: bytes | None, actor: str, at: datetime) -> None:
        """Ask this person for one-time codes from now on, or no longer; ends the sessions. Raises NotFound."""
        async with transaction(self._engine, HOUSE) as connection:
            await _refuse_vouched(connection, name)
            await self._change(connection, name, secret=null() if sealed is None else sealed, code_step=0)
            await self._end(connection, name, at, actor, "user.codes", {"asked": "no" if sealed is None else "yes"})

    async def disable(self, name: str, actor: str, at: datetime) -> None:
        """End an account for good, with its sessions; again changes nothing. Raises NotFound."""
        async with transaction(self._engine, HOUSE) as connection:
            found = await connection.execute(select(USERS.c.disabled_at).where(USERS.c.name == name).with_for_update())
            row = found.one_or_none()
            if row is None:
                raise NotFound(f"no user {name!r}")
            if row.disabled_at is None:
                await self._change(connection, name, disabled_at=at)
                await self._end(connection, name, at, actor, "user.disable", {})

    async def attempt(self, name: str, at: datetime) -> Credentials | None:
        """What to check an attempt against; None if no such account has a password, or it is locked or disabled.

        It is counted before it is checked, so that many at once get no more tries than one after the other.
        """
        failures = USERS.c.failures + 1
        doublings = case((failures - FAILURES_MAX > _DOUBLINGS_MAX, _DOUBLINGS_MAX), else_=failures - FAILURES_MAX)
        waits = [min(LOCK_FIRST * 2**n, LOCK_MAX) for n in range(_DOUBLINGS_MAX + 1)]
        locks = case(*((doublings == n, literal(at + wait)) for n, wait in enumerate(waits)), else_=null())
        async with transaction(self._engine, HOUSE) as connection:
            taken = await connection.execute(
                update(USERS)
                .where(USERS.c.name == name, USERS.c.disabled_at.is_(None), USERS.c.password_hash.is_not(None))
                .where(USERS.c.locked_until.is_(None) | (USERS.c.locked_until <= at))
                .values(failures=failures, locked_until=locks)
                .returning(USERS)
            )
            row = taken.one_or_none()
            if row is None:
                return None
            if row.locked_until is not None:
                await audit.append(connection, at, name, "user.lock", name, {"attempts": row.failures})
            return Credentials(row.name, row.password_hash, row.secret, row.code_step)

    async def _change(
        self, connection: AsyncConnection, name: str, *, seen: str | None = None, **values: object
    ) -> None:
        changed = await connection.execute(
            update(USERS)
            .where(USERS.c.name == name, literal(seen is None) | (USERS.c.password_hash == (seen or "")))
            .values(**values)
        )
        if not changed.rowcount:
            if seen is not None:
                raise StateConflict(f"the password of {name!r} was changed by somebody else")
            raise NotFound(f"no user {name!r}")

    async def _end(
        self, connection: AsyncConnection, name: str, at: datetime, actor: str, action: str, detail: Detail
    ) -> None:
        await connection.execute(delete(SESSIONS).where(SESSIONS.c.name == name))
        await audit.append(connection, at, actor, action, name, detail)


async def _refuse_vouched(connection: AsyncConnection, name: str) -> None:
    """Raises BadInput for a person whose password, codes and role are an OpenID provider's matter."""
    issuer = await connection.scalar(select(USERS.c.issuer).where(USERS.c.name == name))
    if issuer is not None:
        hint = "change it there; `fraudguard users disable` ends the account here"
        raise BadInput(f"{name!r} signs in with {issuer}", path="name", hint=hint)


def _check(role: Role) -> None:
    if role is Role.SERVICE:
        raise BadInput("is for machines", path="role", hint="give a machine a key: fraudguard keys create service NAME")

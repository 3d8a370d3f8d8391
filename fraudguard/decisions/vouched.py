"""People whom an OpenID provider vouches for: their sign-ins under way, their accounts, their roles.

Such a person is the provider's subject, whatever they are called; the account of somebody else is never theirs because
it has the same name. Knows no HTTP and no token: what it is told was proved before.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as insert_unless
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fraudguard.decisions import audit, sessions
from fraudguard.decisions.connection import in_parts, transaction
from fraudguard.decisions.people import NAME
from fraudguard.decisions.sessions import Opened
from fraudguard.decisions.tables import SIGN_INS, USERS
from fraudguard.domain import Role
from fraudguard.errors import BadSignIn
from fraudguard.tenants import HOUSE

SIGN_IN_LASTS = timedelta(minutes=10)  # from leaving for the provider to coming back

_PRUNE = text("""
DELETE FROM sign_ins WHERE ctid = ANY (ARRAY(SELECT ctid FROM sign_ins WHERE begun_at <= :before LIMIT :rows))
""")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the provider vouches for. name: as it calls them now; role, tenant: what its claims give them here."""

    issuer: str
    subject: str
    name: str
    role: Role
    tenant: str = HOUSE


def _hash(secret: str) -> bytes:
    # One round is enough: the secret is 256 random bits.
    return hashlib.sha256(secret.encode()).digest()


class Vouched:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        """engine: see connection.open_engine."""
        self._engine = engine

    async def begin(self, secret: str, destination: str, at: datetime) -> None:
        """A browser that holds this secret leaves for the provider."""
        async with transaction(self._engine, HOUSE) as connection:
            row = {"secret_hash": _hash(secret), "destination": destination, "begun_at": at}
            await connection.execute(insert(SIGN_INS).values(row))

    async def take(self, secret: str, at: datetime) -> str | None:
        """Where the browser goes now that it is back, this once; None for an unknown, used or old secret."""
        async with transaction(self._engine, HOUSE) as connection:
            taken = await connection.execute(
                delete(SIGN_INS)
                .where(SIGN_INS.c.secret_hash == _hash(secret))
                .returning(SIGN_INS.c.destination, SIGN_INS.c.begun_at)
            )
            row = taken.one_or_none()
        return row.destination if row is not None and row.begun_at > at - SIGN_IN_LASTS else None

    async def enter(self, who: Identity, at: datetime) -> Opened:
        """A new session; makes the account the first time, and gives it the role and tenant of now. Audited.

        Raises BadSignIn where the name is no name for an account or somebody else's, or the account is disabled.
        """
        async with transaction(self._engine, HOUSE) as connection:
            mine = select(USERS).where(USERS.c.issuer == who.issuer, USERS.c.subject == who.subject).with_for_update()
            row = (await connection.execute(mine)).one_or_none()
            if row is None:
                await _make(connection, who, at)
                row = (await connection.execute(mine)).one_or_none()
            if row is None:
                hint = "an admin of fraudguard can tell whose it is"
                raise BadSignIn(f"{who.name!r} is the name of another account", hint=hint, code="name_taken")
            if row.disabled_at is not None:
                raise BadSignIn("the account is disabled", hint="ask an admin of fraudguard", code="disabled")
            if (row.role, row.tenant) != (who.role, who.tenant):
                now = {"role": who.role.value, "tenant": who.tenant}
                await connection.execute(update(USERS).where(USERS.c.name == row.name).values(now))
                detail = {name: value for name, value in now.items() if value != getattr(row, name)}
                await audit.append(connection, at, row.name, "user.role", row.name, detail, who.tenant)
            return await sessions.begin(connection, row.name, who.role, who.tenant, at, {"issuer": who.issuer})

    async def prune(self, at: datetime) -> int:
        """Forget sign-ins from which nobody came back; how many."""
        return await in_parts(partial(transaction, self._engine, HOUSE), _PRUNE, {"before": at - SIGN_IN_LASTS})


async def _make(connection: AsyncConnection, who: Identity, at: datetime) -> None:
    """The account, unless this subject has one already or the name is taken."""
    if not NAME.fullmatch(who.name):
        hint = "up to 64 small letters, digits, dots, dashes, underlines and @, a letter or digit first"
        raise BadSignIn("the provider's name for you is no name for an account", hint=hint, code="bad_name")
    row = {"name": who.name, "role": who.role.value, "tenant": who.tenant, "issuer": who.issuer, "subject": who.subject}
    made = await connection.execute(insert_unless(USERS).values(**row, created_at=at).on_conflict_do_nothing())
    if made.rowcount:
        detail = {"role": who.role.value, "issuer": who.issuer}
        await audit.append(connection, at, who.name, "user.create", who.name, detail, who.tenant)

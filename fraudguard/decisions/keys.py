"""API keys: who calls, in which role and on whose behalf. Only a hash is kept; the key itself is shown once."""

import hashlib
import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import audit
from fraudguard.decisions.connection import any_of, transaction
from fraudguard.decisions.tables import API_KEYS
from fraudguard.domain import Role
from fraudguard.errors import BadInput, NotFound
from fraudguard.tenants import HOUSE, checked_name

OWNER_CHARACTERS_MAX = 128
OWNER_CHARACTERS_SHOWN = 100  # with the key's id that fits wherever a name is stored


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. name: unique, as the audit trail and a case name them: `owner (key id)`, or a person's account.

    csrf: of a session, what a change by cookie must send along; None for a key. tenant: whose rows they see and write;
    HOUSE: everybody's.
    """

    name: str
    role: Role
    csrf: str | None = field(default=None, repr=False)
    tenant: str = HOUSE


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as lists show it."""

    key_id: str
    role: Role
    owner: str
    created_at: datetime
    revoked_at: datetime | None
    tenant: str


def _hash(secret: str) -> bytes:
    # One round is enough: the secret is 256 random bits, which no dictionary holds.
    return hashlib.sha256(secret.encode()).digest()


class KeyRing:
    """Creates, checks, revokes. Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        """engine: see connection.open_engine."""
        self._engine = engine

    async def create(self, role: Role, owner: str, actor: str, at: datetime, tenant: str = HOUSE) -> str:
        """A new key, `fg_<key id>_<secret>`, which cannot be read again. Audited. Raises BadInput for a bad owner."""
        checked_name(tenant)
        if not 1 <= len(owner) <= OWNER_CHARACTERS_MAX or not owner.isprintable() or owner != owner.strip():
            raise BadInput(f"must be 1 to {OWNER_CHARACTERS_MAX} printable characters", path="owner")
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        async with transaction(self._engine, HOUSE) as connection:
            await connection.execute(
                insert(API_KEYS).values(
                    key_id=key_id, secret_hash=_hash(secret), role=role.value, owner=owner, created_at=at, tenant=tenant
                )
            )
            detail = {"role": role.value, "owner": owner}
            await audit.append(connection, at, actor, "key.create", key_id, detail, tenant)
        return f"fg_{key_id}_{secret}"

    async def verify(self, key: str) -> Principal | None:
        """Whom the key speaks for; None for an unknown, altered or revoked key."""
        prefix, _, rest = key.partition("_")
        key_id, _, secret = rest.partition("_")
        if prefix != "fg" or not key.isascii() or not key.isprintable():
            return None
        async with transaction(self._engine, HOUSE) as connection:
            found = await connection.execute(
                select(API_KEYS).where(API_KEYS.c.key_id == key_id, API_KEYS.c.revoked_at.is_(None))
            )
            row = found.one_or_none()
        if row is None or not hmac.compare_digest(row.secret_hash, _hash(secret)):
            return None
        # Owners are for people, and need not be unique.
        name = f"{row.owner[:OWNER_CHARACTERS_SHOWN]} ({row.key_id})"
        return Principal(name, Role(row.role), tenant=row.tenant)

    async def alive(self, keys: Collection[str]) -> set[str]:
        """Those of these good keys that were not revoked since."""
        by_id = {key.split("_")[1]: key for key in keys}
        async with transaction(self._engine, HOUSE) as connection:
            found = await connection.scalars(
                select(API_KEYS.c.key_id).where(API_KEYS.c.key_id == any_of(by_id), API_KEYS.c.revoked_at.is_(None))
            )
            return {by_id[key_id] for key_id in found}

    async def revoke(self, key_id: str, actor: str, at: datetime) -> None:
        """End a key for good; again changes nothing. Audited. Raises NotFound."""
        async with transaction(self._engine, HOUSE) as connection:
            ended = await connection.execute(
                update(API_KEYS)
                .where(API_KEYS.c.key_id == key_id, API_KEYS.c.revoked_at.is_(None))
                .values(revoked_at=at)
                .returning(API_KEYS.c.tenant)
            )
            if (tenant := ended.scalar_one_or_none()) is not None:
                await audit.append(connection, at, actor, "key.revoke", key_id, {}, tenant)
                return
            known = await connection.execute(select(API_KEYS.c.key_id).where(API_KEYS.c.key_id == key_id))
            if known.one_or_none() is None:
                raise NotFound(f"no API key {key_id!r}")

    async def list(self) -> list[ApiKey]:
        """Every key, oldest first."""
        async with transaction(self._engine, HOUSE) as connection:
            rows = await connection.execute(select(API_KEYS).order_by(API_KEYS.c.created_at, API_KEYS.c.key_id))
            return [ApiKey(r.key_id, Role(r.role), r.owner, r.created_at, r.revoked_at, r.tenant) for r in rows]

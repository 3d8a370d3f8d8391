"""Who is told of decisions and case changes, and what they have yet to be told. Knows no HTTP and opens no secret.

Messages are written by the database in the transaction that makes a decision or changes a case, so none can be missing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import ColumnElement, and_, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import audit
from fraudguard.decisions.connection import current_tenant, in_parts, transaction
from fraudguard.decisions.tables import WEBHOOK_MESSAGES, WEBHOOKS
from fraudguard.errors import NotFound
from fraudguard.tenants import scoped, unscoped

SENDER = "system:webhooks"  # who switches one off, in the trail: nobody's name has a colon
KEPT = timedelta(days=30)  # after a message was delivered or given up

_TAKE = text("""
UPDATE webhook_messages SET due_at = :until, attempts = attempts + 1
WHERE id IN (SELECT id FROM webhook_messages
             WHERE webhook = :webhook AND tenant = :tenant AND done_at IS NULL AND due_at <= :at
             ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED)
RETURNING id, CAST(body AS text) AS body, attempts
""")

# Unless it has another address by now.
_ITS = text("""
SELECT w.name, w.tenant, w.off_at
FROM webhooks w JOIN webhook_messages m ON m.webhook = w.name AND m.tenant = w.tenant
WHERE m.id = :message AND w.url = :url FOR NO KEY UPDATE OF w
""")

_GIVE_UP = text("""
UPDATE webhook_messages SET problem = :problem, done_at = :at, given_up = true
WHERE webhook = :webhook AND tenant = :tenant AND done_at IS NULL
""")

_PRUNE = text("""
DELETE FROM webhook_messages
WHERE ctid = ANY (ARRAY(SELECT ctid FROM webhook_messages WHERE done_at <= :before LIMIT :rows))
""")


@dataclass(frozen=True, slots=True)
class Webhook:
    """As lists show it. waiting, given_up: messages. tenant: whose decisions and cases it hears; HOUSE: everybody's.

    off_at: when its address said that it is gone.
    """

    name: str
    url: str
    kinds: Sequence[str]
    created_at: datetime
    created_by: str
    waiting: int
    given_up: int
    tenant: str
    off_at: datetime | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that is to be sent now. attempts: with this one."""

    id: int
    body: str = field(repr=False)
    attempts: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one webhook. secret: sealed."""

    url: str
    secret: bytes = field(repr=False)
    messages: Sequence[Waiting]


class Webhooks:
    """Every method raises StoreUnavailable when PostgreSQL does not answer.

    Names are a tenant's own: whoever changes one changes that of the tenant on whose behalf this task works.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """engine: see connection.open_engine."""
        self._engine = engine

    async def put(self, name: str, url: str, kinds: Collection[str], secret: bytes, actor: str, at: datetime) -> bool:
        """Tell this address from now on, or change what it is told; whether it is new. The secret stays. Audited."""
        row = {"name": name, "url": url, "kinds": sorted(kinds), "secret": secret, "tenant": current_tenant()}
        making = insert(WEBHOOKS).values(**row, created_at=at, created_by=actor)
        changing = making.on_conflict_do_update(
            index_elements=["tenant", "name"],
            set_={"url": making.excluded.url, "kinds": making.excluded.kinds, "off_at": None},
        ).returning(WEBHOOKS.c.secret)
        async with transaction(self._engine) as connection:
            new = bool(await connection.scalar(changing) == secret)
            detail = {"url": url, "kinds": " ".join(sorted(kinds))}
            action = "webhook.create" if new else "webhook.change"
            await audit.append(connection, at, actor, action, name, detail, current_tenant())
        return new

    async def list(self) -> list[Webhook]:
        """Every one that this task may see, by tenant and name."""
        message = WEBHOOK_MESSAGES.c
        waiting = select(func.count()).where(_of_webhook(), message.done_at.is_(None))
        given_up = select(func.count()).where(_of_webhook(), message.given_up)
        counted = select(
            *(WEBHOOKS.c[n] for n in ("name", "url", "kinds", "created_at", "created_by", "tenant", "off_at")),
            waiting.scalar_subquery().label("waiting"),
            given_up.scalar_subquery().label("given_up"),
        )
        async with transaction(self._engine) as connection:
            return [
                Webhook(r.name, r.url, r.kinds, r.created_at, r.created_by, r.waiting, r.given_up, r.tenant, r.off_at)
                for r in await connection.execute(counted.order_by(WEBHOOKS.c.tenant, WEBHOOKS.c.name))
            ]

    async def remove(self, name: str, actor: str, at: datetime) -> None:
        """With everything that it was still to be told. Audited. Raises NotFound."""
        async with transaction(self._engine) as connection:
            gone = await connection.execute(delete(WEBHOOKS).where(*_named(name)))
            if not gone.rowcount:
                raise NotFound(f"no webhook {name!r}")
            await audit.append(connection, at, actor, "webhook.remove", name, {}, current_tenant())

    async def retry(self, name: str, actor: str, at: datetime) -> int:
        """Send again what was given up; how many messages. Audited. Raises NotFound."""
        message = WEBHOOK_MESSAGES.c
        async with transaction(self._engine) as connection:
            if await connection.scalar(select(WEBHOOKS.c.name).where(*_named(name))) is None:
                raise NotFound(f"no webhook {name!r}")
            again = await connection.execute(
                update(WEBHOOK_MESSAGES)
                .where(message.webhook == name, message.tenant == current_tenant(), message.given_up)
                .values(given_up=False, done_at=None, attempts=0, due_at=at)
            )
            detail = {"messages": again.rowcount}
            await audit.append(connection, at, actor, "webhook.retry", name, detail, current_tenant())
            return again.rowcount

    async def due(self, at: datetime) -> Sequence[str]:
        """The keys (tenants.scoped) of those that have something to be told now."""
        message = WEBHOOK_MESSAGES.c
        waits = select(message.id).where(_of_webhook(), message.done_at.is_(None), message.due_at <= at)
        async with transaction(self._engine) as connection:
            found = await connection.execute(select(WEBHOOKS.c.tenant, WEBHOOKS.c.name).where(waits.exists()))
            return [scoped(*row) for row in found]

    async def take(self, key: str, limit: int, at: datetime, until: datetime) -> Batch | None:
        """What to send now, taken by nobody else until then; None for nothing."""
        tenant, name = unscoped(key)
        one = select(WEBHOOKS.c.url, WEBHOOKS.c.secret).where(WEBHOOKS.c.name == name, WEBHOOKS.c.tenant == tenant)
        wanted = {"webhook": name, "tenant": tenant, "limit": limit, "at": at, "until": until}
        async with transaction(self._engine) as connection:
            where = (await connection.execute(one)).one_or_none()
            rows = await connection.execute(_TAKE, wanted)
            messages = [Waiting(row.id, row.body, row.attempts) for row in rows]
        return Batch(where.url, where.secret, messages) if where and messages else None

    async def delivered(self, message: Waiting, at: datetime) -> None:
        """It was received."""
        await self._settle(message, done_at=at, problem=None)

    async def failed(self, message: Waiting, problem: str, at: datetime, due_at: datetime | None) -> None:
        """It was not; try again at due_at, or give it up without one."""
        if due_at is None:
            await self._settle(message, problem=problem, done_at=at, given_up=True)
        else:
            await self._settle(message, problem=problem, due_at=due_at)

    async def gone(self, message: Waiting, url: str, problem: str, at: datetime) -> bool:
        """This address wants no more: it is told nothing until somebody puts it anew, what waited is given up. Audited.

        False where the webhook has another address by now.
        """
        async with transaction(self._engine) as connection:
            its = (await connection.execute(_ITS, {"message": message.id, "url": url})).one_or_none()
            if its is None:
                return False
            waiting = {"webhook": its.name, "tenant": its.tenant, "problem": problem, "at": at}
            await connection.execute(_GIVE_UP, waiting)
            if its.off_at is None:
                one = update(WEBHOOKS).where(WEBHOOKS.c.name == its.name, WEBHOOKS.c.tenant == its.tenant)
                await connection.execute(one.values(kinds=[], off_at=at))
                detail = {"url": url, "problem": problem}
                await audit.append(connection, at, SENDER, "webhook.off", its.name, detail, its.tenant)
            return True

    async def _settle(self, message: Waiting, **values: object) -> None:
        async with transaction(self._engine) as connection:
            await connection.execute(
                update(WEBHOOK_MESSAGES).where(WEBHOOK_MESSAGES.c.id == message.id).values(**values)
            )

    async def prune(self, at: datetime) -> int:
        """Forget what was delivered or given up KEPT ago, a bounded part a transaction; how many."""
        return await in_parts(partial(transaction, self._engine), _PRUNE, {"before": at - KEPT})


def _named(name: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The webhook that this task means by a name."""
    return WEBHOOKS.c.name == name, WEBHOOKS.c.tenant == current_tenant()


def _of_webhook() -> ColumnElement[bool]:
    message = WEBHOOK_MESSAGES.c
    return and_(message.tenant == WEBHOOKS.c.tenant, message.webhook == WEBHOOKS.c.name)

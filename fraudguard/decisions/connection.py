"""How this room reaches PostgreSQL, and what its failures mean to the rest of the house.

Knows the driver, its timeouts, its error codes and on whose behalf a transaction is; knows no table.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from sqlalchemy import ARRAY, URL, CollectionAggregate, Text, TextClause, any_, event, literal, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from fraudguard.decisions import units
from fraudguard.errors import BadInput, BadSettings, FraudguardError, HouseOnly, StateConflict, StoreUnavailable
from fraudguard.tenants import HOUSE

# Gives the transaction to work in: one of its own, or one that several reads share.
Open = Callable[[], AbstractAsyncContextManager[AsyncConnection]]

ROLE = "fraudguard_tenant"  # migrations/versions/0009_tenants.py says what it may do

ROWS_A_PART_MAX = 10_000  # more to delete than one statement's time allows

# https://www.postgresql.org/docs/18/errcodes-appendix.html
_CONFLICT = ("23505", "40001", "40P01")  # unique violation, serialization failure, deadlock
# connection, a cached plan older than a migration, resources, read-only standby, lock not available, operator
# (shutdown, cancel), system
_PASSING = ("08", "0A000", "53", "25006", "55P03", "57", "58")
_REFUSED = ("28", "3D000")  # authorization, no such database
_UNMIGRATED = ("42P01", "42883")  # undefined table, undefined function

_NO_RIGHT = "42501"  # insufficient privilege, also of a row that a policy does not let in
_NO_SUCH_ROLE = "22023"

_tenant: ContextVar[str] = ContextVar("tenant", default=HOUSE)
_OPTION = "fraudguard_tenant"  # of a connection: whose transaction it is in
_TURN = text("SELECT set_config('role', :role, true), set_config('fraudguard.tenant', :tenant, true)")

# For lists with filters: what is best for a rare value takes seconds for a common one, so each gets a plan of its own.
PLAN_BY_VALUE = text("SET LOCAL plan_cache_mode = force_custom_plan")

_EPOCH, _MICROSECOND = datetime(2000, 1, 1, tzinfo=UTC), timedelta(microseconds=1)  # PostgreSQL's own


def driver_url(url: str) -> URL:
    """`postgresql://` or `postgres://`, with libpq's sslmode, as SQLAlchemy and asyncpg want it. Raises BadSettings."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise BadSettings("is not a database URL", path="database_url", hint="postgresql://user@host/name") from error
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise BadSettings("must name a PostgreSQL", path="database_url", hint="postgresql://user@host/name")
    parsed = parsed.set(drivername="postgresql+asyncpg")
    if "sslmode" in parsed.query:
        mode = parsed.query["sslmode"]
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return parsed


def open_engine(
    url: str, *, pool_size: int = 5, connect_timeout_s: float = 5.0, statement_timeout_s: float = 30.0
) -> AsyncEngine:
    """A pool of at most pool_size connections; opens none yet.

    A statement that runs or waits for a lock too long fails on the server; the client gives up two seconds later, for a
    server that is gone without a word. Dispose of the engine with `await engine.dispose()`.
    """
    milliseconds = str(int(statement_timeout_s * 1000))
    engine = create_async_engine(
        driver_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=statement_timeout_s,
        pool_pre_ping=True,
        hide_parameters=True,  # conversation text must not reach a log through an error
        connect_args={
            "timeout": connect_timeout_s,
            "command_timeout": statement_timeout_s + 2,
            "server_settings": {
                "application_name": "fraudguard",
                "TimeZone": "UTC",
                "statement_timeout": milliseconds,
                "lock_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
                "jit": "off",  # every statement here is short
            },
        },
    )
    event.listen(engine.sync_engine, "connect", _plain_times)
    return engine


def _plain_times(driver: Any, _record: object) -> None:
    """Send times as microseconds: asyncpg alone makes the first and the last time of datetime infinite."""
    driver.run_async(
        lambda connection: connection.set_type_codec(
            "timestamptz",
            schema="pg_catalog",
            encoder=lambda time: ((time - _EPOCH) // _MICROSECOND,),
            decoder=lambda parts: _EPOCH + parts[0] * _MICROSECOND,
            format="tuple",
        )
    )


def _meaning(code: str, error: Exception, tenant: str) -> FraudguardError | None:
    if code == _NO_RIGHT:
        if tenant:
            return HouseOnly("is the house's, not a tenant's", hint="ask the people who run this service")
        return BadSettings(str(error), path="database_url", hint="PostgreSQL does not give this user the right")
    if code.startswith(_CONFLICT):
        return StateConflict(str(error))
    if code.startswith(_REFUSED):
        return BadSettings(str(error), path="database_url", hint="PostgreSQL refused this user or database")
    if code.startswith(_UNMIGRATED):
        return BadSettings("the database has no current schema", path="database_url", hint="run `fraudguard migrate`")
    if code in ("22021", "22P05"):  # in text, in jsonb
        return BadInput("holds a character that cannot be stored", hint="remove U+0000")
    if not code or code.startswith(_PASSING):
        return StoreUnavailable(str(error))
    return None


def current_tenant() -> str:
    """On whose behalf this task works: a tenant's name, or HOUSE."""
    return _tenant.get()


@contextmanager
def on_behalf_of(tenant: str) -> Iterator[None]:
    """Transactions that this task begins inside see and write this tenant's rows alone; of HOUSE, everybody's."""
    token = _tenant.set(tenant)
    try:
        yield
    finally:
        _tenant.reset(token)


def act_for(tenant: str) -> None:
    """The same until the end of the enclosing `on_behalf_of`."""
    _tenant.set(tenant)


@asynccontextmanager
async def transaction(engine: AsyncEngine, tenant: str | None = None) -> AsyncIterator[AsyncConnection]:
    """One transaction: committed at the end, rolled back on any error. tenant: on whose behalf, unless the task's.

    A tenant's is in a role that row-level security binds to the tenant's rows, whatever a query forgets to ask.
    Raises StateConflict (a row written by someone else), StoreUnavailable (unreachable, shut down, timed out; whether
    a commit in flight took effect is then unknown), BadSettings, BadInput (U+0000), HouseOnly (what no tenant may
    touch). Anything else is a bug and passes unchanged.
    """
    tenant = current_tenant() if tenant is None else tenant
    try:
        async with units.opened(engine) as connection, working_for(connection, tenant):
            yield connection
    except DBAPIError as error:
        meaning = _meaning(getattr(error.orig, "sqlstate", None) or "", error.orig or error, tenant)
        if meaning is None:
            raise
        raise meaning from error
    except asyncpg.PostgresError as error:  # raised while connecting, where SQLAlchemy does not wrap
        meaning = _meaning(error.sqlstate or "", error, tenant)
        if meaning is None:
            raise
        raise meaning from error
    except (PoolTimeout, OSError, TimeoutError, asyncpg.InterfaceError) as error:
        raise StoreUnavailable(str(error) or type(error).__name__) from error


@asynccontextmanager
async def working_for(connection: AsyncConnection, tenant: str) -> AsyncIterator[None]:
    """Statements inside are on behalf of this tenant; of HOUSE: for what a tenant's deed needs and its role may not.

    Raises BadSettings where the role is missing, or not this user's to turn to.
    """
    options = connection.sync_connection.get_execution_options() if connection.sync_connection else {}
    before: str | None = options.get(_OPTION, HOUSE)
    if tenant == before:
        yield
        return
    await _turn_to(connection, tenant)
    try:
        yield
    except BaseException:  # rolling back turns back; until somebody turns again it is not known
        await connection.execution_options(**{_OPTION: None})
        raise
    if before:  # the house need not be turned back to: each transaction says whose it is
        await _turn_to(connection, before)


async def _turn_to(connection: AsyncConnection, tenant: str) -> None:
    try:
        await connection.execute(_TURN, {"role": ROLE if tenant else "none", "tenant": tenant})
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) in (_NO_RIGHT, _NO_SUCH_ROLE):
            hint = f"an administrator of the server runs: CREATE ROLE {ROLE} NOLOGIN; GRANT {ROLE} TO this user"
            raise BadSettings(str(error.orig), path="database_url", hint=hint) from error
        raise
    await connection.execution_options(**{_OPTION: tenant})


def any_of(values: Collection[str]) -> CollectionAggregate[bool]:
    """`= ANY($1)` over one array: one prepared statement however many values."""
    return any_(literal(list(values), ARRAY(Text)))


async def in_parts(open_: Open, statement: TextClause, values: Mapping[str, object]) -> int:
    """Run a DELETE of at most `:rows` rows until it finds fewer, a transaction each; how many. So no lock is held long.

    Raises what `transaction` does.
    """
    total, part = 0, ROWS_A_PART_MAX
    while part == ROWS_A_PART_MAX:
        async with open_() as connection:
            part = (await connection.execute(statement, {**values, "rows": ROWS_A_PART_MAX})).rowcount
        total += part
    return total

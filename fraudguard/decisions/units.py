"""A deed and the answer to it in one transaction: it waits uncommitted until its answer is written beside it.

Whoever answers opens a unit around the work. A transaction in which a deed was audited then stays open at its end, and
later ones of the same unit are parts of it. Holds a connection from the deed to the answer; waits for nothing else.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fraudguard.errors import StoreUnavailable


class Unit:
    """Of one request. Takes part from `join` to `finish`; before and after that transactions end as they always do."""

    def __init__(self) -> None:
        self.joined = False
        self._deed: AsyncConnection | None = None
        self._kept: AsyncConnection | None = None
        self._stack = AsyncExitStack()

    @property
    def holds(self) -> bool:
        """Whether a deed waits for its answer."""
        return self._kept is not None

    def join(self) -> None:
        """From now on."""
        self.joined = True

    @asynccontextmanager
    async def opened(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """A part of the transaction that waits, or a new one, which will wait if a deed is done in it."""
        if self._kept is not None:
            async with self._kept.begin_nested():
                yield self._kept
            return
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(engine.connect())
            await connection.begin()
            yield connection
            if self._deed is connection:
                self._kept, self._stack = connection, stack.pop_all()
            else:
                await connection.commit()

    def deed_in(self, connection: AsyncConnection) -> None:
        """A deed was audited in this transaction."""
        self._deed = connection

    async def finish(self, *, commit: bool) -> None:
        """Let what waits take effect, or be as if it had not been. Again, or with nothing that waits: nothing.

        Raises StoreUnavailable; whether the deed took effect is then unknown.
        """
        kept, self._kept, self.joined = self._kept, None, False
        try:
            if kept is not None and commit:
                await kept.commit()
        except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise StoreUnavailable(str(error) or type(error).__name__) from error
        finally:
            await self._stack.aclose()  # rolls back what was not committed


_UNIT: ContextVar[Unit | None] = ContextVar("unit", default=None)


@contextmanager
def unit() -> Iterator[Unit]:
    """One for what this task does inside."""
    opened = Unit()
    token = _UNIT.set(opened)
    try:
        yield opened
    finally:
        _UNIT.reset(token)


@contextmanager
def apart() -> Iterator[None]:
    """Transactions of this task inside end by themselves: of many deeds each takes effect alone."""
    token = _UNIT.set(None)
    try:
        yield
    finally:
        _UNIT.reset(token)


def current() -> Unit | None:
    """The unit that this task works in, if it takes part."""
    found = _UNIT.get()
    return found if found is not None and found.joined else None


def join() -> None:
    """What this task does from now on waits for its answer."""
    found = _UNIT.get()
    if found is not None:
        found.join()


@asynccontextmanager
async def together() -> AsyncIterator[None]:
    """Deeds of this task inside are one transaction, of the unit that it works in or of their own."""
    if current() is not None:
        yield
        return
    with unit() as own:
        own.join()
        try:
            yield
            await own.finish(commit=True)
        finally:
            await own.finish(commit=False)


@asynccontextmanager
async def opened(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction: committed at the end unless the task's unit keeps it, rolled back on any error."""
    found = current()
    async with found.opened(engine) if found is not None else engine.begin() as connection:
        yield connection


def deed_in(connection: AsyncConnection) -> None:
    """Say that a deed was audited in this transaction."""
    found = current()
    if found is not None:
        found.deed_in(connection)

"""Which cases just changed, from PostgreSQL's NOTIFY, to whoever listens in this process.

One LISTEN connection; what is heard is an id, its version and state are read after it. A listener that falls behind, or
a connection that was lost, costs no memory: the listener is told to read everything again.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions.case_types import CaseState
from fraudguard.decisions.cases import CHANNEL
from fraudguard.decisions.connection import any_of, open_engine, transaction
from fraudguard.decisions.tables import CASES
from fraudguard.errors import BadSettings, Conflict, StoreUnavailable
from fraudguard.tenants import HOUSE

log = logging.getLogger(__name__)

GATHER_S = 0.05  # what changes within it is read by one query
PING_S = 5.0  # a connection that is gone without a word is found by asking
RETRY_S = 0.5
WAITING_MAX: Final = 1_000  # cases a listener may be behind
LISTENERS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class CaseChange:
    """A case as it is now. tenant: whose it is; nobody else is told."""

    case_id: str
    version: int
    state: CaseState
    tenant: str = HOUSE


class Subscription:
    """What one listener has not heard yet: the newest change of each case. tenant: whose cases; HOUSE: everybody's."""

    def __init__(self, tenant: str = HOUSE) -> None:
        self._tenant = tenant
        self._changes: dict[str, CaseChange] = {}
        self._stale = True  # what it has read before is older than its listening
        self.ended = False  # the process stops, or the listener may hear no more
        self._awake = asyncio.Event()
        self._awake.set()

    def tell(self, changes: list[CaseChange]) -> None:
        """Leave these to be heard; of more than WAITING_MAX none is kept."""
        heard = {change.case_id: change for change in changes if self._tenant in (HOUSE, change.tenant)}
        if not heard:
            return
        self._changes |= heard
        if len(self._changes) > WAITING_MAX:
            self.tell_stale()
        self._awake.set()

    def tell_stale(self) -> None:
        """Leave word that changes were missed."""
        self._changes, self._stale = {}, True
        self._awake.set()

    def end(self) -> None:
        """Leave word that nothing will be heard any more."""
        self.ended = True
        self._awake.set()

    async def hear(self, timeout_s: float) -> tuple[bool, list[CaseChange]]:
        """(whether to read everything again, what changed since); (False, []) when nothing does in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._awake.wait()
        except TimeoutError:
            return False, []
        self._awake.clear()
        heard = self._stale, list(self._changes.values())
        self._changes, self._stale = {}, False
        return heard


class CaseFeed:
    """`run` listens until cancelled and comes back by itself."""

    def __init__(self, url: str) -> None:
        """url: of the database. Raises BadSettings."""
        self._engine: AsyncEngine = open_engine(url, pool_size=2)
        self._heard: set[str] = set()
        self._awake = asyncio.Event()
        self._subscriptions: set[Subscription] = set()

    @contextmanager
    def subscribe(self, tenant: str = HOUSE) -> Iterator[Subscription]:
        """A listener to a tenant's cases, from now on. Raises Conflict when LISTENERS_MAX listen already."""
        if len(self._subscriptions) >= LISTENERS_MAX:
            raise Conflict(f"{LISTENERS_MAX} listen to this process already", hint="ask another replica")
        subscription = Subscription(tenant)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def end(self) -> None:
        """Tell every listener to go, for the process stops."""
        for subscription in self._subscriptions:
            subscription.end()

    async def run(self) -> None:
        """Listen; after a lost connection every listener is told that changes were missed."""
        try:
            while True:
                try:
                    await self._listen()
                except (asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError, OSError, TimeoutError) as error:
                    log.warning("cannot listen to cases: %r", error)
                except (StoreUnavailable, BadSettings) as error:
                    log.warning("cannot listen to cases: %s", error)
                await asyncio.sleep(RETRY_S)
        finally:
            await self._engine.dispose()

    async def _listen(self) -> None:
        async with self._engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            try:
                await driver.add_listener(CHANNEL, self._hear)
                driver.add_termination_listener(lambda _: self._awake.set())
                for subscription in self._subscriptions:
                    subscription.tell_stale()
                while not driver.is_closed():
                    await self._pass_on(driver)
            finally:
                await connection.invalidate()  # it would go on listening in the pool

    async def _pass_on(self, driver: Any) -> None:
        """Wait for the next change and what comes with it, read them, tell everybody."""
        try:
            async with asyncio.timeout(PING_S):
                await self._awake.wait()
        except TimeoutError:
            await driver.execute("SELECT 1")
            return
        await asyncio.sleep(GATHER_S)
        self._awake.clear()
        heard, self._heard = self._heard, set()
        if not self._subscriptions or not heard:
            return
        if len(heard) > WAITING_MAX:
            for subscription in self._subscriptions:
                subscription.tell_stale()
            return
        c = CASES.c
        async with transaction(self._engine) as connection:
            query = select(c.case_id, c.version, c.state, c.tenant).where(c.case_id == any_of(heard))
            rows = await connection.execute(query)
            changes = [CaseChange(*row) for row in rows]
        for subscription in self._subscriptions:
            subscription.tell(changes)

    def _hear(self, _connection: object, _process: int, _channel: str, case_id: str) -> None:
        if len(self._heard) <= WAITING_MAX:
            self._heard.add(case_id)
        self._awake.set()

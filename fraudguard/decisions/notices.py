"""PostgreSQL's notifications: hear that something was written, without asking again and again.

Knows a channel's name and one connection; what is heard says only that it is time to look.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import asyncpg

from fraudguard.decisions.connection import driver_url

log = logging.getLogger(__name__)

CONNECT_S: Final = 5.0
RETRY_S: Final = 1.0  # between two attempts to connect


async def listen(url: str, channel: str, heard: Callable[[], None]) -> None:
    """Call `heard` at every notification, and at every connection, for what was said before it; until cancelled.

    Raises BadSettings for a URL that is none.
    """
    parsed = driver_url(url).set(drivername="postgresql")
    if "ssl" in parsed.query:
        mode = parsed.query["ssl"]
        parsed = parsed.difference_update_query(["ssl"]).update_query_dict({"sslmode": mode})
    dsn = parsed.render_as_string(hide_password=False)
    while True:
        try:
            await _hear(dsn, channel, heard)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("cannot listen to %s now: %s", channel, error)
        await asyncio.sleep(RETRY_S)


async def _hear(dsn: str, channel: str, heard: Callable[[], None]) -> None:
    """Until the connection ends."""
    connection = await asyncpg.connect(dsn, timeout=CONNECT_S, server_settings={"application_name": "fraudguard"})
    ended = asyncio.Event()
    try:
        connection.add_termination_listener(lambda _: ended.set())
        await connection.add_listener(channel, lambda *_: heard())
        heard()
        await ended.wait()
    finally:
        connection.terminate()

"""Tells webhooks what waits for them in the outbox: at least once, signed as Standard Webhooks wants it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
Runs in every API process; a message is taken by one at a time. One receiver that does not answer delays no other, and
one that answers 410 Gone is told no more.
"""

import asyncio
import logging
from datetime import timedelta

import httpx
from standardwebhooks import Webhook as Signer

from fraudguard.clock import Clock
from fraudguard.decisions.webhooks import Waiting, Webhooks
from fraudguard.errors import BadSettings, Transient
from fraudguard.sealing import Seal

log = logging.getLogger(__name__)

EVERY_S = 1.0
AT_ONCE = 20  # messages on their way to one receiver
TIMEOUT_S = 10.0
TAKEN = timedelta(minutes=1)  # after that the process that took a message is taken for dead
# The waits that the specification proposes; after the last attempt a message is given up, some three days later.
WAITS = tuple(timedelta(seconds=s) for s in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400))


class WebhookSender:
    """Runs until cancelled; failures are logged and tried again, for the messages stay in the outbox."""

    def __init__(self, webhooks: Webhooks, seal: Seal, clock: Clock) -> None:
        self._webhooks, self._seal, self._clock = webhooks, seal, clock
        self._running: set[str] = set()

    async def run(self) -> None:
        """Look for what is due every EVERY_S; each receiver has a task of its own while something is."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client, asyncio.TaskGroup() as tasks:
            while True:
                try:
                    for name in await self._webhooks.due(self._clock.now()):
                        if name not in self._running:
                            self._running.add(name)
                            tasks.create_task(self._tell(client, name))
                except (Transient, BadSettings) as error:
                    log.warning("webhooks wait for now: %s", error)
                await asyncio.sleep(EVERY_S)

    async def _tell(self, client: httpx.AsyncClient, name: str) -> None:
        """Everything that this one is due."""
        try:
            while batch := await self._webhooks.take(name, AT_ONCE, self._clock.now(), self._clock.now() + TAKEN):
                signer = Signer(self._seal.open(batch.secret))
                await asyncio.gather(*(self._send(client, batch.url, signer, message) for message in batch.messages))
        except (Transient, BadSettings) as error:
            log.warning("webhook %s waits for now: %s", name, error)
        finally:
            self._running.discard(name)

    async def _send(self, client: httpx.AsyncClient, url: str, signer: Signer, message: Waiting) -> None:
        now, name = self._clock.now(), f"msg_{message.id}"
        headers = {
            "content-type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signer.sign(name, now, message.body),
        }
        try:
            async with asyncio.timeout(TIMEOUT_S):  # httpx's own bounds each read alone
                answer = await client.post(url, content=message.body.encode(), headers=headers)
            problem = "" if answer.is_success else f"answered {answer.status_code}"
            gone = answer.status_code == httpx.codes.GONE
        except (httpx.HTTPError, TimeoutError) as error:
            problem, gone = type(error).__name__, False
        now = self._clock.now()
        if gone and await self._webhooks.gone(message, url, problem, now):
            log.warning("a webhook's address answered 410 Gone and is told no more")
            return
        if not problem:
            await self._webhooks.delivered(message, now)
            return
        wait = WAITS[message.attempts - 1] if message.attempts <= len(WAITS) else None
        await self._webhooks.failed(message, problem, now, now + wait if wait else None)

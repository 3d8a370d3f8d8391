"""What one API process holds open, and how a route gets at it. Knows the parts, not what they do."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from fraudguard.accounts import Accounts
from fraudguard.api.auth import KeyCache
from fraudguard.api.housekeeping import Housekeeper
from fraudguard.api.kafka import DecisionListener, EventProducer
from fraudguard.api.outbox import LabelPublisher
from fraudguard.api.rates import Rates
from fraudguard.api.replays import Replays
from fraudguard.api.streams import Streams
from fraudguard.api.watch import Watch
from fraudguard.api.webhook_sender import WebhookSender
from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.decisions.feed import CaseFeed
from fraudguard.decisions.repository import Repository, connect
from fraudguard.domain import Feature
from fraudguard.events.dead_letter import Listing, list_dead_letters
from fraudguard.events.standing import Standing, read_standing
from fraudguard.features.registry import features_in
from fraudguard.oidc import Provider
from fraudguard.rulebook import Publishing, open_publishing
from fraudguard.sealing import Seal

log = logging.getLogger(__name__)

TRIALS_MAX = 2  # rule packs that are tried at once
NARRATIVES_MAX = 8  # that are written at once
BACKTESTS_MAX = 1  # that run at once, each in a process of its own
LETTERS_SHOWN = 50
LETTERS_READ = 200  # records of each partition of the dead-letter topic, the newest


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a route may use."""

    settings: Settings
    clock: Clock
    repository: Repository
    publishing: Publishing
    keys: KeyCache
    accounts: Accounts
    seal: Seal
    rates: Rates
    producer: EventProducer
    listener: DecisionListener
    labels: LabelPublisher
    trials: asyncio.Semaphore
    feed: CaseFeed
    narratives: asyncio.Semaphore
    provider: Provider | None
    streams: Streams
    backtests: asyncio.Semaphore
    fields: tuple[Feature, ...]
    standing: Watch[Standing]
    letters: Watch[Listing]
    replays: Replays


@asynccontextmanager
async def open_services(settings: Settings, clock: Clock) -> AsyncIterator[Services]:
    """Open the store and start the background parts, which connect by themselves; what is missing shows in readiness.

    Raises BadSettings for a malformed database URL, or an OpenID provider that is half set up.
    """
    url = settings.database_url.get_secret_value()
    async with connect(url, settings.review_percent) as repository:
        producer, listener = EventProducer(settings), DecisionListener(settings)
        labels = LabelPublisher(repository.outbox, producer, clock)
        seal = Seal(settings.secrets_key)
        sender, keeper = WebhookSender(repository.webhooks, seal, clock), Housekeeper(repository, settings, clock)
        feed, streams = CaseFeed(url), Streams(repository, settings, clock)
        parts = (producer, listener, labels, sender, keeper, feed, streams)
        running = [asyncio.create_task(part.run(), name=type(part).__name__) for part in parts]
        for task in running:
            task.add_done_callback(_report)
        try:
            keys, publishing = KeyCache(repository.keys, clock), open_publishing(settings, repository)
            trials, narratives = asyncio.Semaphore(TRIALS_MAX), asyncio.Semaphore(NARRATIVES_MAX)
            accounts = Accounts(repository, seal)
            yield Services(
                settings=settings,
                clock=clock,
                repository=repository,
                publishing=publishing,
                keys=keys,
                accounts=accounts,
                seal=seal,
                rates=Rates(settings),
                producer=producer,
                listener=listener,
                labels=labels,
                trials=trials,
                feed=feed,
                narratives=narratives,
                provider=Provider.of(settings, clock),
                streams=streams,
                backtests=asyncio.Semaphore(BACKTESTS_MAX),
                fields=tuple(features_in(settings.base_currency)),
                standing=Watch(lambda: read_standing(settings), clock),
                letters=Watch(lambda: list_dead_letters(settings, LETTERS_SHOWN, tail=LETTERS_READ), clock),
                replays=Replays(settings, repository.letters, clock),
            )
        finally:
            for task in reversed(running):  # the publisher first, for it uses the producer
                task.cancel()
                await asyncio.wait([task])


def _report(task: asyncio.Task[None]) -> None:
    """A background part only ends when it is cancelled: anything else is a bug, and readiness shows the gap."""
    if not task.cancelled() and (error := task.exception()):
        log.critical("%s ended", task.get_name(), exc_info=error)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Use = Annotated[Services, Depends(_services)]

"""The worker process: a Faust app that screens micro-batches, with the guards that Faust needs.

Acks by hand, after commit and publish. An infrastructure error stops the process unacked with exit code 1;
a stop signal lets the batch in flight finish; a watchdog ends a silent consumer.
"""

import asyncio
import logging
import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import faust
from prometheus_client import start_http_server

from fraudguard.assembly import Parts, load_parts, open_pipeline, registered_champion
from fraudguard.clock import Clock, SystemClock
from fraudguard.config import Settings
from fraudguard.errors import FraudguardError, StoreUnavailable
from fraudguard.events.topics import INPUTS, ensure_topics
from fraudguard.evidence import making_evidence
from fraudguard.pipeline import Pipeline
from fraudguard.stream.agents import Door, Publisher
from fraudguard.stream.faust_app import ScreeningApp
from fraudguard.stream.watchdog import Progress, Watchdog

log = logging.getLogger(__name__)

PRUNE_BEATS = 3_600  # about an hour
LOOK_S = 2.0  # between two looks at the registry while no batch comes


def run_worker(settings: Settings, clock: Clock | None = None) -> None:
    """Consume until stopped by a signal; ends the process (SystemExit).

    Raises BadInput (model, settings) before anything is consumed.
    """
    parts = load_parts(settings, asyncio.run(registered_champion(settings)))
    ensure_topics(settings)
    if settings.metrics_port:
        start_http_server(settings.metrics_port, addr=settings.metrics_host)
    app = build_app(settings, parts, clock or SystemClock())
    # Not faust's command line: it would bind a web server to every interface.
    faust.Worker(app, loglevel="WARNING", redirect_stdouts=False, override_logging=False).execute_from_commandline()


def build_app(settings: Settings, parts: Parts, clock: Clock) -> ScreeningApp:
    """The Faust app with its one agent; nothing runs before a faust.Worker starts it."""
    app = ScreeningApp(
        settings.consumer_group,
        broker=[f"kafka://{server.strip()}" for server in settings.kafka_bootstrap.split(",")],
        datadir=tempfile.mkdtemp(prefix="fraudguard-faust-"),
        value_serializer="raw",
        key_serializer="raw",
        web_enabled=False,
        web_bind="127.0.0.1",
        topic_disable_leader=True,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=1.0,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 10,
        producer_linger=0.01,
    )
    agents = _Agents(app, settings, parts, clock)
    topic = app.topic(*INPUTS, value_type=bytes, key_type=bytes, value_serializer="raw", key_serializer="raw")
    app.agent(topic, name="screening")(agents.screening)
    app.task(agents.beat)
    app.task(agents.look)
    app.on_partitions_revoked.connect(agents.revoked, weak=False)
    return app


class _Agents:
    """The agent, the heartbeat and what they share."""

    def __init__(self, app: ScreeningApp, settings: Settings, parts: Parts, clock: Clock) -> None:
        self._app, self._settings, self._parts, self._clock = app, settings, parts, clock
        self._pipeline: Pipeline | None = None
        self._beats = 0
        self._watchdog = Watchdog(self.progress, settings.watchdog_s, clock)

    async def screening(self, stream: Any) -> None:
        """Take micro-batches until stopped; ack each after everything it caused is safe."""
        settings = self._settings
        try:
            async with open_pipeline(settings, self._parts, self._clock) as pipeline, Publisher(settings) as publisher:
                self._pipeline = pipeline
                async with making_evidence(settings, pipeline, self._clock) as screen:
                    door = Door(settings, screen, publisher, self._clock)
                    log.info("worker ready: model %s", self._model)
                    async for events in stream.noack_take(settings.batch_events_max, settings.batch_wait_ms / 1000):
                        await self._finish(door, events)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # Faust would restart the agent and go on past what was not acked: end the process instead.
            log.critical("worker stops, unacked: %s: %s", type(error).__name__, error, exc_info=True)
            await self._app.crash(error)

    async def _finish(self, door: Door, events: Sequence[Any]) -> None:
        """Handle and ack a batch; a stop signal in between waits for it."""
        work = asyncio.ensure_future(door.handle([event.message for event in events]))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            with suppress(asyncio.CancelledError):
                await asyncio.wait_for(work, self._settings.batch_timeout_ms / 1000)
            raise
        finally:
            if work.done() and not work.cancelled() and work.exception() is None:
                for event in events:
                    event.ack()

    async def beat(self) -> None:
        """Show the watchdog once a second that the event loop runs; SIGHUP reloads the model."""
        self._watchdog.start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)
        while not self._app.should_stop:
            self._beats += 1
            if self._beats % PRUNE_BEATS == 0:
                await self._prune()
            await self._app.sleep(1.0)
        self._watchdog.stop()

    def _on_hangup(self) -> None:
        if self._pipeline:
            self._pipeline.reload_model()

    async def look(self) -> None:
        """See what the registry names, so that a new model is loaded before an event asks for it."""
        while not self._app.should_stop:
            await self._app.sleep(LOOK_S)
            if self._pipeline:
                try:
                    await self._pipeline.look_for_models()
                except FraudguardError as error:
                    log.warning("cannot look for models now: %s", error)

    async def _prune(self) -> None:
        if self._pipeline:
            try:
                await self._pipeline.prune()
            except StoreUnavailable as error:
                log.warning("old window counts stay for now: %s", error)

    async def revoked(self, *_: Any, **__: Any) -> None:
        """Other workers may now write these accounts: read them again when they come back."""
        if self._pipeline:
            self._pipeline.forget()

    @property
    def _model(self) -> str:
        return self._parts.scorer.name if self._parts.scorer else "off"

    def progress(self) -> Progress:
        """Called from the watchdog's thread: reads plain attributes only."""
        consumer = self._app.consumer
        known = dict(consumer._committed_offset)
        committed: dict[Any, int] = {tp: offset for tp, offset in known.items() if offset is not None}
        assigned = set(consumer._active_partitions or ())
        read = dict(consumer._read_offset)  # where a partition without any commit was taken up
        ends: dict[Any, int] = {tp: consumer.highwater(tp) or 0 for tp in assigned}
        lag = sum(max(0, end - committed.get(tp, read.get(tp) or end)) for tp, end in ends.items())
        return Progress(
            loop_beats=self._beats,
            joined=consumer.joined,
            assigned=len(assigned),
            polls=consumer.polls,
            committed=sum(committed.values()),
            lag=lag,
        )

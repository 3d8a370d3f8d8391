"""`fraudguard demo`: a scripted day through the real parts, a summary, and the service left running to look at.

Starts Kafka, PostgreSQL, a worker and the API as processes that end with this one; plays stories that the starter
model never saw (split "heldout"); listens on the decisions topic as any consumer would.
"""

import asyncio
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fraudguard import local
from fraudguard.accounts import new_password
from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.decisions.repository import connect
from fraudguard.demo_live import unfold_live
from fraudguard.domain import Decision, Outcome, Role, Screenable
from fraudguard.embedded.supervisor import free_port
from fraudguard.errors import ServiceFailed
from fraudguard.events.schema import encode
from fraudguard.events.topics import DECISIONS, MESSAGES, TRANSACTIONS
from fraudguard.stories import Cast, Story, generate
from fraudguard.stories.unfolding import FIRST_SCAM_S, SCAM_EVERY_S

SEED, ACCOUNTS, FRAUDS = 7, 300, 14
HISTORY_DAYS = 2  # ordinary days before the scripted one, so that profiles know what is usual
IN_FLIGHT_MAX = 16  # events sent and not yet decided: a steady load, so that latency is not the queue's
ALARM = (Outcome.REVIEW, Outcome.BLOCK)
READY_S = 240.0
SILENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Caught:
    """How one fraud story went. position: its event that raised the first alarm, from 1; None if none did."""

    story: Story
    position: int | None
    before_payment: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What the day came to. false_alarms: harmless events that were reviewed or blocked."""

    decisions: Mapping[str, Decision]
    seconds: float
    caught: Sequence[Caught]
    false_alarms: int
    harmless_events: int
    harmless_stories_alarmed: int
    harmless_stories: int


def run_demo(settings: Settings, console: Console, clock: Clock, *, once: bool) -> None:
    """Play the day; then serve until Ctrl-C, or return when `once`. Raises ServiceFailed with the log to read."""
    directory = settings.state_dir / "demo"
    shutil.rmtree(directory, ignore_errors=True)  # the same day every time: yesterday's decisions are not today's
    directory.mkdir(parents=True, mode=0o700)
    with ExitStack() as stack:
        console.print("starting Apache Kafka and PostgreSQL ...")
        settings, *servers = stack.enter_context(local.services(settings, directory))
        for server in servers:
            console.print(f"  {server.describe()}", highlight=False, soft_wrap=True)
        keys, passwords = asyncio.run(_invite(settings, clock))
        if "api_port" not in settings.model_fields_set:
            settings = settings.model_copy(update={"api_port": free_port()})
        worker, api = (local.start(name, settings, directory / f"{name}.log") for name in ("worker", "api"))
        for child in (worker, api):
            stack.callback(local.stop, child)
        url = f"http://{settings.api_host}:{settings.api_port}"
        console.print("starting the worker and the API ...")
        days = HISTORY_DAYS + 1
        # The cast lives by Chinese time, whose midnight is 16:00 UTC.
        today = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        cast = generate(SEED, ACCOUNTS, today - timedelta(days=days, hours=8), days, FRAUDS, "heldout")
        _await_ready(settings, url, worker, api)
        decisions, seconds = _play(settings, cast, console, worker)
        _show(console, report(cast, decisions, seconds))
        _show_next(console, settings, url, keys, passwords, decisions)
        if not once:
            console.print("serving until Ctrl-C")
            _serve(lambda stopped: unfold_live(settings, cast.idle, console, clock, stopped), worker, api)


def report(cast: Cast, decisions: Mapping[str, Decision], seconds: float) -> Report:
    """Compare decisions with the script. A story is caught when any of its events is reviewed or blocked."""
    alarmed = {event_id for event_id, decision in decisions.items() if decision.outcome in ALARM}
    frauds = [story for story in cast.stories if story.typology]
    harmless = [story for story in cast.stories if not story.typology]
    caught = []
    for story in frauds:
        positions = [i for i, event_id in enumerate(story.event_ids, 1) if event_id in alarmed]
        first = positions[0] if positions else None
        payments = [i for i, event_id in enumerate(story.event_ids, 1) if event_id in story.payment_event_ids]
        # The alarm on the first fraudulent payment itself still stops that payment.
        caught.append(Caught(story, first, first is not None and (not payments or first <= payments[0])))
    in_fraud = {event_id for story in frauds for event_id in story.event_ids}
    harmless_events = [item.event.event_id for item in cast.events if item.event.event_id not in in_fraud]
    return Report(
        decisions=decisions,
        seconds=seconds,
        caught=caught,
        false_alarms=sum(event_id in alarmed for event_id in harmless_events),
        harmless_events=len(harmless_events),
        harmless_stories_alarmed=sum(any(e in alarmed for e in story.event_ids) for story in harmless),
        harmless_stories=len(harmless),
    )


async def _invite(settings: Settings, clock: Clock) -> tuple[dict[Role, str], dict[str, str]]:
    """Keys by role, and passwords by account, one a role that people have."""
    passwords = {}
    async with connect(settings.database_url.get_secret_value()) as repository:
        keys = {role: await repository.keys.create(role, f"demo {role}", "demo", clock.now()) for role in Role}
        for role in Role:
            if role is not Role.SERVICE:
                passwords[role.value], hashed = new_password()
                await repository.people.create(role.value, role, hashed, "demo", clock.now())
    return keys, passwords


def _await_ready(settings: Settings, url: str, *children: subprocess.Popen[bytes]) -> None:
    """Until the worker has its partitions and the API says it is ready."""
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    try:
        deadline = time.monotonic() + READY_S
        while not (_worker_consumes(admin, settings) and local.answers(f"{url}/health/ready")):
            if time.monotonic() > deadline or any(child.poll() is not None for child in children):
                raise ServiceFailed("a part did not become ready: see var/demo/worker.log and var/demo/api.log")
            time.sleep(0.1)
    finally:
        admin.close()


def _worker_consumes(admin: KafkaAdminClient, settings: Settings) -> bool:
    try:
        group = admin.describe_groups([settings.consumer_group])[settings.consumer_group]
    except KafkaError:  # the broker makes its coordinator when the first group asks for one
        return False
    return bool(group["group_state"] == "Stable" and group["members"])


def _play(
    settings: Settings, cast: Cast, console: Console, worker: subprocess.Popen[bytes]
) -> tuple[dict[str, Decision], float]:
    """Send every event in event-time order, a bounded number ahead of the decisions; decisions by event id."""
    decisions: dict[str, Decision] = {}
    ahead = threading.Semaphore(IN_FLIGHT_MAX)
    events = [item.event for item in cast.events]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    consumer = KafkaConsumer(
        DECISIONS,
        bootstrap_servers=settings.kafka_bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool, Progress(*columns, console=console) as progress:
        task = progress.add_task("deciding", total=len(events))
        stop = threading.Event()
        sending = pool.submit(_send, settings, events, ahead, stop)
        heard_at = time.monotonic()
        try:
            while len(decisions) < len(events):
                for records in consumer.poll(timeout_ms=200).values():
                    for record in records:
                        decision = Decision.model_validate_json(record.value)
                        if decision.event_id not in decisions:
                            ahead.release()
                        decisions[decision.event_id] = decision
                        heard_at = time.monotonic()
                progress.update(task, completed=len(decisions))
                if worker.poll() is not None or time.monotonic() - heard_at > SILENCE_S:
                    raise ServiceFailed("the worker stopped deciding: see var/demo/worker.log")
        finally:
            stop.set()
            consumer.close()
        sending.result()
    return decisions, time.monotonic() - began


def _send(settings: Settings, events: Sequence[Screenable], ahead: threading.Semaphore, stop: threading.Event) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all", linger_ms=2)
    try:
        for event in events:
            while not ahead.acquire(timeout=0.2):
                if stop.is_set():
                    return
            topic = TRANSACTIONS if event.type == "transaction" else MESSAGES
            producer.send(topic, key=event.account_id.encode(), value=encode(event))
    finally:
        producer.close()


def _serve(unfold: Callable[[threading.Event], None], *children: subprocess.Popen[bytes]) -> None:
    """Until Ctrl-C or SIGTERM, while stories unfold; a child that ends by itself, or the stories, are an error."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with ThreadPoolExecutor(1) as pool:
        unfolding = pool.submit(unfold, stopped)
        try:
            while not stopped.wait(0.5):
                if any(child.poll() is not None for child in children):
                    raise ServiceFailed("a part of the demo ended: see var/demo/worker.log and var/demo/api.log")
                if unfolding.done():
                    break
        finally:
            stopped.set()
        unfolding.result()


def _show(console: Console, day: Report) -> None:
    latencies = [decision.latency_ms for decision in day.decisions.values()]
    table = Table(title="The scripted day", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("events decided", f"{len(day.decisions):,} in {day.seconds:.1f} s")
    for outcome in Outcome:
        table.add_row(f"  {outcome}", f"{sum(d.outcome == outcome for d in day.decisions.values()):,}")
    table.add_row("degraded", f"{sum(d.degraded for d in day.decisions.values()):,}")
    p50, p95, p99 = np.percentile(latencies, (50, 95, 99))
    table.add_row("latency p50 / p95 / p99", f"{p50:.0f} / {p95:.0f} / {p99:.0f} ms")
    table.add_row("fraud stories caught", f"{sum(c.position is not None for c in day.caught)} of {len(day.caught)}")
    table.add_row("  before or at the first payment", f"{sum(c.before_payment for c in day.caught)}")
    share = day.false_alarms / max(1, day.harmless_events)
    table.add_row("false alarms", f"{day.false_alarms:,} of {day.harmless_events:,} harmless events ({share:.2%})")
    table.add_row("hard harmless stories alarmed", f"{day.harmless_stories_alarmed} of {day.harmless_stories}")
    console.print(table)
    stories = Table(title="Fraud stories", title_justify="left")
    for heading in ("typology", "story", "account", "first alarm", "money"):
        stories.add_column(heading, no_wrap=heading in ("typology", "account"))
    for item in day.caught:
        alarm = f"{item.position} of {len(item.story.event_ids)}" if item.position else "missed"
        money = "no payment" if not item.story.payment_event_ids else "stopped" if item.before_payment else "lost"
        stories.add_row(str(item.story.typology), item.story.title, item.story.account_id, alarm, money)
    console.print(stories)


def _show_next(
    console: Console,
    settings: Settings,
    url: str,
    keys: Mapping[Role, str],
    passwords: Mapping[str, str],
    decisions: Mapping[str, Decision],
) -> None:
    blocked = next((d for d in decisions.values() if d.outcome == Outcome.BLOCK), next(iter(decisions.values())))
    database = settings.database_url.get_secret_value()
    lines = [
        "Where to look next",
        f"  console {url}/console, signed in as {Role.ANALYST}; ? shows every key",
        f"  live    stories go on until Ctrl-C; in {FIRST_SCAM_S:.0f} s, then every {SCAM_EVERY_S / 60:.0f} minutes,"
        " somebody is talked into paying.",
        "          Its case comes into the queue by itself: Enter opens it, the risk climbs line by line,",
        "          b and a digit stop it",
        f"  API and its documentation   {url}/docs",
        *(f"  key, role {role:<18}{key}" for role, key in keys.items()),
        *(f"  sign in as {name:<17}{password}" for name, password in passwords.items()),
        f"  cases   curl -H 'X-API-Key: {keys[Role.ANALYST]}' {url}/v1/cases",
        f"  store   export FRAUDGUARD_DATABASE_URL='{database}' PATH={Path(sys.executable).parent}:$PATH",
        f"  why     fraudguard rules explain {blocked.decision_id}; proof: fraudguard replay {blocked.decision_id}",
        "  rules   edit rules/*.yaml, then fraudguard rules check, backtest, publish; docs/rules.md, docs/rulebook.md",
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)

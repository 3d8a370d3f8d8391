"""`python -m benchmarks.drift`: the worked example of docs/drift.md, and how many decisions a second drift counts.

The example: thirteen weeks of generated lives through the pipeline with the starter model, on an embedded PostgreSQL.
From the eleventh week on the app of half of the customers sends no device; in the twelfth a wave of frauds meets one
account in eight. Each Monday analysts dispose of the open cases (as the script of the stories has it), customers report
fraudulent payments six days later, and so labels come. Writes FOLDER/drift.md, .json and .png.

The speed: of `drift.run` alone, over --decisions that benchmarks/backtest.py makes, by the clock and by this process's
CPU time; PostgreSQL works on another core.
"""

import argparse
import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from pydantic import SecretStr
from rich.progress import track

from benchmarks.backtest import fill
from fraudguard.assembly import load_parts, open_pipeline
from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.decisions.casebook import UNDO, CaseFilter, Disposition
from fraudguard.decisions.migrate import upgrade
from fraudguard.decisions.repository import Repository, connect
from fraudguard.domain import Label, Received, Screenable
from fraudguard.drift import Asked, run
from fraudguard.drift_commands import write
from fraudguard.drift_report import summary, title
from fraudguard.embedded.postgres import EmbeddedPostgres, temporary_directory
from fraudguard.events.masking import mask_event
from fraudguard.pipeline import Pipeline
from fraudguard.stories import Cast, generate

START = datetime(2026, 7, 20, tzinfo=UTC) - timedelta(hours=8)  # a Monday in Shanghai
WEEKS, DEVICES_GONE, WAVE = 13, 10, 11  # weeks from 0
REFERENCE = date(2026, 8, 31), date(2026, 9, 28)  # the seventh to the tenth: windows of 30 days are full by then
BATCH = 64


def script(lives: int) -> tuple[list[Screenable | Label], set[str]]:
    """Everything that is sent, in order, and the ids of the events that belong to a fraud."""
    casts = [
        generate(31, 2 * lives // 3, START, 7 * WEEKS, lives // 12, "heldout"),
        _at_once(generate(32, lives // 3, START, 7 * WEEKS, lives // 8, "heldout"), START + timedelta(weeks=WAVE)),
    ]
    events: list[Screenable | Label] = []
    for cast in casts:
        events += [_as_sent(item.event, START + timedelta(weeks=DEVICES_GONE)) for item in cast.events]
        events += _reports(cast)
    frauds = {item.event.event_id for cast in casts for item in cast.events if item.fraud}
    return sorted(events, key=lambda event: (event.event_time, event.event_id)), frauds


def _at_once(cast: Cast, week: datetime) -> Cast:
    """The cast with every fraud moved into one week, each at the hour of day at which it was."""
    shifts: dict[str | None, timedelta] = {}
    frauds = {story.story_id for story in cast.stories if story.typology}
    events = []
    for item in cast.events:
        if item.story_id in frauds:
            day = week + timedelta(days=1 + len(shifts) % 5)
            shift = shifts.setdefault(item.story_id, day.date() - item.event.event_time.date())
            item = replace(item, event=item.event.model_copy(update={"event_time": item.event.event_time + shift}))
        events.append(item)
    return replace(cast, events=tuple(events))


def _as_sent(event: Screenable, gone: datetime) -> Screenable:
    if event.type == "transaction" and event.event_time >= gone and sum(event.account_id.encode()) % 2:
        event = event.model_copy(update={"device_id": None})
    return mask_event(event)


def _reports(cast: Cast) -> Iterable[Label]:
    """What customers say of the payments that a fraud made them make."""
    paid = {event_id: story for story in cast.stories for event_id in story.payment_event_ids if story.typology}
    for item in cast.events:
        if item.event.event_id in paid:
            yield Label(
                type="label", version=1, event_id=f"report-{item.event.event_id}", account_id=item.event.account_id,
                event_time=item.event.event_time + timedelta(days=6), target_event_id=item.event.event_id,
                source="customer", verdict="fraud", typology=paid[item.event.event_id].typology,
            )  # fmt: skip


async def play(settings: Settings, lives: int) -> None:
    """Send it all, week by week."""
    events, frauds = script(lives)
    parts = load_parts(settings)
    url = settings.database_url.get_secret_value()
    async with open_pipeline(settings, parts, SystemClock()) as pipeline, connect(url) as repository:
        for week in track(range(WEEKS), "weeks"):
            first, before = START + timedelta(weeks=week), START + timedelta(weeks=week + 1)
            if week:
                await _dispose(pipeline, repository, frauds, first)
            sent = [event for event in events if first <= event.event_time < before]
            for start in range(0, len(sent), BATCH):
                now = datetime.now(UTC)
                await pipeline.screen([Received(event, now) for event in sent[start : start + BATCH]])
    parts.close()


async def _dispose(pipeline: Pipeline, repository: Repository, frauds: set[str], at: datetime) -> None:
    """Close every open case by what its alerts were; every ninth stays suspicious. Its labels come back."""
    page = await repository.cases.list_cases(CaseFilter(state="open"), 200)
    for place, case in enumerate(page.items):
        _, alerts = await repository.cases.get_case(case.case_id)
        found = any(alert.event_id in frauds for alert in alerts)
        disposition = Disposition.CONFIRMED_FRAUD if found else Disposition.FALSE_POSITIVE
        disposition = Disposition.SUSPICIOUS if place % 9 == 8 else disposition
        await repository.cases.dispose(case.case_id, case.version, disposition, "the script", "analyst", at)
    waiting = await repository.outbox.take(10_000, at + UNDO)
    if waiting:
        await pipeline.screen([Received(item.label, datetime.now(UTC)) for item in waiting])
        await repository.outbox.mark_published([item.id for item in waiting], at)


async def example(settings: Settings, lives: int, folder: Path) -> None:
    """Play, count, print the summary and write the page."""
    await play(settings, lives)
    count = await run(settings, Asked(REFERENCE[0], None, *REFERENCE), lambda _: None)
    print("\n".join([f"{title(count)}\n", summary(count), "", *write(count, folder)]))


async def speed(settings: Settings, decisions: int) -> None:
    """One row of what a count took."""
    total = await fill(settings, 120, decisions)
    began, cpu = time.perf_counter(), time.process_time()
    count = await run(settings, Asked(), lambda _: None)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    print("| decisions | weeks | s | decisions/s | decisions/s of CPU |\n|---|---|---|---|---|")
    print(f"| {total:,} | {len(count.weeks)} | {wall:.1f} | {total / wall:,.0f} | {total / cpu:,.0f} |")


def main() -> None:
    """The example where --out names a folder, else the speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="make the example, into this folder")
    parser.add_argument("--lives", type=int, default=120, help="accounts of the example")
    parser.add_argument("--decisions", type=int, default=100_000, help="of the speed")
    options = parser.parse_args()
    with temporary_directory() as directory, EmbeddedPostgres(directory / "postgres") as database:
        upgrade(database.url)
        settings = Settings(
            database_url=SecretStr(database.url),
            model="starter" if options.out else "off",
            engine_timeout_ms=300_000,  # a busy machine shall not make degraded decisions of an example
            batch_timeout_ms=600_000,
        )
        if options.out:
            asyncio.run(example(settings, options.lives, options.out))
        else:
            asyncio.run(speed(settings, options.decisions))


if __name__ == "__main__":
    main()

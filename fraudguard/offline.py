"""`fraudguard screen FILE`: the stream's pipeline over a file, without Kafka.

One event a line, in the order it is to be taken. The same events in the same order give the same decisions as
through Kafka, but for decided_at and latency_ms.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.progress import Progress

from fraudguard.assembly import load_parts, open_pipeline, registered_champion
from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.decisions.migrate import upgrade
from fraudguard.domain import Received
from fraudguard.embedded.postgres import EmbeddedPostgres, temporary_directory
from fraudguard.errors import BadEvent
from fraudguard.events.masking import mask_event
from fraudguard.events.schema import encode, parse_event
from fraudguard.pipeline import Decided, Labelled, Pipeline, Refused

BATCH_EVENTS = 64


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one line. number counts from 1; size is its length in bytes."""

    number: int
    size: int
    answer: Decided | Labelled | Refused


async def screen_lines(lines: Iterable[bytes], pipeline: Pipeline, clock: Clock) -> AsyncIterator[Line]:
    """Screen JSON lines in order; blank lines are skipped. Yields one Line an event, in order."""
    numbered = ((number, raw) for number, raw in enumerate(lines, 1) if raw.strip())
    while chunk := list(islice(numbered, BATCH_EVENTS)):
        batch: list[Received] = []
        refused: dict[int, Refused] = {}
        for number, raw in chunk:
            try:
                batch.append(Received(mask_event(parse_event(raw.strip())), clock.now()))
            except BadEvent as error:
                refused[number] = Refused(error)
        answers = iter(await pipeline.screen(batch))
        for number, raw in chunk:
            yield Line(number, len(raw), refused.get(number) or next(answers))


def screen_file(
    settings: Settings,
    clock: Clock,
    console: Console,
    file: Path,
    out: Path | None,
    rejects: Path | None,
    *,
    keep: bool,
) -> Counter[str]:
    """Screen a file with a progress bar; decisions go to `out` (None: standard output), a summary to the console.

    keep: decide into the configured database; otherwise into a throw-away PostgreSQL, so that every run starts from
    nothing. Refused lines go to `rejects` as JSON lines of number, code, path, reason and hint. Returns the counts.
    """
    with ExitStack() as stack:
        if not keep:
            directory = stack.enter_context(temporary_directory())
            database = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
            upgrade(database.url)
            settings = settings.model_copy(update={"database_url": SecretStr(database.url)})
        return asyncio.run(_screen_file(settings, clock, console, file, out, rejects))


async def _screen_file(
    settings: Settings, clock: Clock, console: Console, file: Path, out: Path | None, rejects: Path | None
) -> Counter[str]:
    counts: Counter[str] = Counter()
    parts = load_parts(settings, await registered_champion(settings))
    with ExitStack() as stack:
        stack.callback(parts.close)
        lines = stack.enter_context(file.open("rb"))
        decisions = stack.enter_context(out.open("wb")) if out else sys.stdout.buffer
        refused = stack.enter_context(rejects.open("w", encoding="utf-8")) if rejects else None
        progress = stack.enter_context(Progress(console=console))
        bar = progress.add_task(file.name, total=lines.seek(0, os.SEEK_END))
        lines.seek(0)
        async with open_pipeline(settings, parts, clock) as pipeline:
            async for line in screen_lines(lines, pipeline, clock):
                progress.advance(bar, line.size)
                if isinstance(line.answer, Decided):
                    decision = line.answer.record.decision
                    counts[decision.outcome if line.answer.fresh else "repeated"] += 1
                    decisions.write(encode(decision) + b"\n")
                elif isinstance(line.answer, Refused):
                    error = line.answer.error
                    counts["refused"] += 1
                    if refused:
                        row = {"line": line.number, "code": error.code, "path": error.path}
                        row |= {"reason": error.reason, "hint": error.hint}
                        refused.write(json.dumps(row, ensure_ascii=False) + "\n")
                    else:
                        console.print(f"line {line.number}: {error}", markup=False, highlight=False, soft_wrap=True)
                else:
                    counts["label"] += 1
    console.print(", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "the file is empty")
    return counts

"""`fraudguard screen FILE`: the stream's pipeline over a file, without Kafka.

One event a line, in the order it is to be taken. The same events in the same order give the same decisions as
through Kafka, but for decided_at and latency_ms.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from itertools import islice

from fraudguard.clock import Clock
from fraudguard.domain import Received
from fraudguard.errors import BadEvent
from fraudguard.events.masking import mask_event
from fraudguard.events.schema import parse_event
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

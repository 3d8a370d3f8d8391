"""The watchdog's judgement, on a clock of the test's own."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from fraudguard.stream.watchdog import Progress, Watchdog

HEALTHY = Progress(loop_beats=0, joined=True, assigned=8, polls=0, committed=0, lag=0)
LIMIT_S = 60.0


@dataclass
class HandClock:
    """Goes where the test puts it."""

    seconds: float = 0.0

    def monotonic(self) -> float:
        """The stopwatch."""
        return self.seconds

    def now(self) -> datetime:
        """The wall clock."""
        return datetime.fromtimestamp(self.seconds, UTC)


class Worker:
    """A worker whose progress the test writes."""

    def __init__(self) -> None:
        self.clock, self.seen = HandClock(), HEALTHY
        self.watchdog = Watchdog(lambda: self.seen, LIMIT_S, self.clock)

    def live(self, seconds: int, **frozen: object) -> str | None:
        """Let a second pass that many times; everything moves on but for what is frozen."""
        for _ in range(seconds):
            self.clock.seconds += 1
            moved = replace(self.seen, loop_beats=self.seen.loop_beats + 1, polls=self.seen.polls + 1,
                            committed=self.seen.committed + 1)  # fmt: skip
            self.seen = replace(moved, **frozen)
            if reason := self.watchdog.check():
                return reason
        return None


def test_a_working_worker_is_left_alone() -> None:
    """Progress everywhere is no reason, however long it lasts."""
    assert Worker().live(500, lag=1_000) is None


def test_an_idle_worker_is_left_alone() -> None:
    """With nothing to read, commits stand still and that is fine."""
    assert Worker().live(500, committed=7, lag=0) is None


def test_a_spare_worker_is_left_alone() -> None:
    """A member of the group without partitions does not poll."""
    assert Worker().live(500, assigned=0, polls=3) is None


@pytest.mark.parametrize(
    ("frozen", "reason"),
    [
        ({"loop_beats": 5}, "the event loop does not run"),
        ({"joined": False}, "not in the consumer group"),
        ({"polls": 5}, "partitions assigned but never polled"),
        ({"committed": 5, "lag": 100}, "behind, and no offset was committed"),
    ],
)
def test_each_way_to_be_stuck_is_found_within_the_limit(frozen: dict[str, object], reason: str) -> None:
    """The named symptom, held for the limit, is what is reported; not earlier."""
    worker = Worker()
    assert worker.live(10) is None
    assert worker.live(int(LIMIT_S) - 1, **frozen) is None
    assert worker.live(5, **frozen) == reason


def test_a_break_in_the_symptom_starts_the_count_again() -> None:
    """Lag that was caught up once within the limit is not a stuck consumer."""
    worker = Worker()
    assert worker.live(50, committed=5, lag=9) is None
    assert worker.live(1, committed=5, lag=0) is None
    assert worker.live(50, committed=5, lag=9) is None

"""Notices a worker that is alive but no longer consumes, and ends the process so that a supervisor restarts it.

A silent consumer is a known failure of the Python Kafka stack: the process runs, the partitions stay assigned,
nothing is read. Runs on a thread of its own, because the event loop may be the part that is stuck.
"""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from fraudguard.clock import Clock

log = logging.getLogger(__name__)

EXIT_STUCK = 75  # EX_TEMPFAIL: start me again


@dataclass(frozen=True, slots=True)
class Progress:
    """What the worker shows of itself.

    loop_beats: grows while the event loop runs. polls: grows with each poll that returned. committed: sum of the
    committed offsets over the assigned partitions. lag: records behind the end of those partitions.
    """

    loop_beats: int
    joined: bool
    assigned: int
    polls: int
    committed: int
    lag: int


class Watchdog:
    """Compares two looks at the worker. `check` is pure but for the stopwatch; `start` runs it on a thread."""

    def __init__(self, look: Callable[[], Progress], limit_s: float, clock: Clock) -> None:
        self._look, self._limit_s, self._clock = look, limit_s, clock
        self._since: dict[str, tuple[object, float]] = {}
        self._stopped = threading.Event()

    def check(self) -> str | None:
        """Why the worker counts as stuck, or None. Each reason must have held for limit_s without a break."""
        seen, now = self._look(), self._clock.monotonic()
        # Each symptom: the value that must change, and whether standing still is a fault at all just now.
        symptoms = {
            "the event loop does not run": (seen.loop_beats, True),
            "not in the consumer group": (seen.joined, not seen.joined),
            "partitions assigned but never polled": (seen.polls, seen.assigned > 0),
            "behind, and no offset was committed": (seen.committed, seen.lag > 0),
        }
        for reason, (value, matters) in symptoms.items():
            last, since = self._since.get(reason, (None, now))
            if not matters or value != last or reason not in self._since:
                self._since[reason] = (value, now)
            elif now - since >= self._limit_s:
                return reason
        return None

    def start(self) -> None:
        """Check four times per limit until `stop`; end the process with EXIT_STUCK when stuck."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stand down."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._limit_s / 4):
            if reason := self.check():
                log.critical("worker is stuck for %s s: %s; leaving with %s", self._limit_s, reason, EXIT_STUCK)
                os._exit(EXIT_STUCK)

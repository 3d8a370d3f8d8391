"""Percentiles and shares of the sampled newest decisions: in all, by kind of event, and minute by minute. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final

from fraudguard.clock import Clock
from fraudguard.decisions.policy import DEGRADED
from fraudguard.decisions.pulse import SLOT_S, Beat, Pulse

MINUTES: Final = 30


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from received to decided, nearest rank. sampled: of how many decisions; the rest None without any.

    over: share that took longer than the budget. degraded: share decided without the model.
    """

    sampled: int
    p50: float | None
    p95: float | None
    p99: float | None
    over: float | None
    degraded: float | None


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of the clock."""

    at: datetime
    latency: Latency


@dataclass(frozen=True, slots=True)
class Lately:
    """The last MINUTES minutes. by_type: transaction and message. reasons: of degraded ones, the commonest first."""

    first: datetime
    before: datetime
    budget_ms: int
    all: Latency
    by_type: Mapping[str, Latency]
    minutes: tuple[Minute, ...]
    reasons: Mapping[str, int]


async def lately(pulse: Pulse, clock: Clock, budget_ms: int) -> Lately:
    """What the newest decisions say. Raises StoreUnavailable."""
    now = clock.now().astimezone(UTC)
    # Whole minutes, and slots that keep their place from one reading to the next.
    before = now.replace(second=now.second - now.second % SLOT_S, microsecond=0) + timedelta(seconds=SLOT_S)
    first = before.replace(second=0) - timedelta(minutes=MINUTES - 1)
    return summary(await pulse.beats(first, before), first, before, budget_ms)


def summary(beats: Sequence[Beat], first: datetime, before: datetime, budget_ms: int) -> Lately:
    """Count a sample from `first`, the beginning of a minute, to before `before`."""
    by_minute: dict[datetime, list[Beat]] = {}
    for beat in beats:
        by_minute.setdefault(beat.decided_at.replace(second=0, microsecond=0), []).append(beat)
    count = ceil((before - first) / timedelta(minutes=1))
    minutes = [first + timedelta(minutes=n) for n in range(count)]
    reasons = Counter(reason for beat in beats if beat.degraded for reason in beat.reasons if reason in DEGRADED)
    return Lately(
        first=first,
        before=before,
        budget_ms=budget_ms,
        all=_latency(beats, budget_ms),
        by_type={
            kind: _latency([beat for beat in beats if beat.event_type == kind], budget_ms)
            for kind in ("transaction", "message")
        },
        minutes=tuple(Minute(at, _latency(by_minute.get(at, ()), budget_ms)) for at in minutes),
        reasons=dict(reasons.most_common()),
    )


def _latency(beats: Sequence[Beat], budget_ms: int) -> Latency:
    if not beats:
        return Latency(0, None, None, None, None, None)
    taken = sorted(beat.latency_ms for beat in beats)
    p50, p95, p99 = (taken[ceil(share * len(taken)) - 1] for share in (0.5, 0.95, 0.99))
    over = sum(one > budget_ms for one in taken) / len(taken)
    return Latency(len(taken), p50, p95, p99, over, sum(beat.degraded for beat in beats) / len(taken))

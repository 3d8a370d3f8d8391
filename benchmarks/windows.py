"""`python -m benchmarks.windows`: what features cost an event in one process, in microseconds.

One account pays every few minutes, each payment with a counterparty, a device, a network address and a merchant. Rows:
taking an event with the built-in features alone; what ten declared windows of a day add, by aggregate, of the account
and of each shared entity; what label feedback by entity costs. Windows have all 48 buckets in use; of shared ones
`overlay` is what laying the stored rows under a batch costs for an event that is the batch's only one, `read` what
counting and reading costs. A store's own time is not in it. Medians of rounds that take turns.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from statistics import median
from typing import Any, Literal
from zoneinfo import ZoneInfo

from fraudguard.domain import ENTITY_FIELDS, Entity, EntityCount, Transaction, Window, WindowCount
from fraudguard.features.event import event_features
from fraudguard.features.facts import facts_of
from fraudguard.features.feedback import FeedbackView, day_of, keys_of
from fraudguard.features.money import load_rates
from fraudguard.features.registry import WINDOWS_DAYS
from fraudguard.features.shared import SharedWindows, shared_keys
from fraudguard.features.state import AccountState

DAY, WINDOWS, LABEL_DELAY_DAYS = 86_400, 10, 7
ZONE, RATES = ZoneInfo("Asia/Shanghai"), load_rates("CNY")
Aggregate = Literal["count", "sum", "max", "mean", "distinct"]
AGGREGATES: tuple[tuple[Aggregate, str], ...] = (
    ("count", ""), ("sum", "amount_base"), ("max", "amount_base"), ("mean", "amount_base"), ("distinct", "ip"),
)  # fmt: skip
SHARED: tuple[Entity, ...] = ("counterparty", "device", "ip", "merchant")
NOTHING = (FeedbackView((), LABEL_DELAY_DAYS), SharedWindows((), ()))


class Characters:
    """Counts characters, so that no tokenizer is measured."""

    id = "characters"

    def count(self, line: str) -> int:
        """One a character."""
        return len(line)


def payments(count: int) -> list[Transaction]:
    """Payments five minutes apart, to twenty counterparties from three devices."""
    start = datetime(2026, 11, 1, tzinfo=UTC)
    return [
        Transaction(
            type="transaction", version=1, event_id=f"t-{n}", account_id="a-1",
            event_time=start + timedelta(minutes=5 * n), direction="debit", kind="transfer", channel="app",
            amount=Decimal(100 + n % 97), currency="CNY",
            counterparty_id=f"c-{n % 20}", device_id=f"d-{n % 3}", ip=f"203.0.113.{n % 50}", merchant_id=f"m-{n % 7}",
        )
        for n in range(count)
    ]  # fmt: skip


def declared(entity: Entity, aggregate: Aggregate, of: str) -> list[Window]:
    """WINDOWS windows of a day, each with a filter of its own that lets every payment through."""
    return [Window(f"w{n}", entity, aggregate, of, DAY, f"{n:016x}", above(n)) for n in range(WINDOWS)]


def above(amount: float) -> Callable[[Mapping[str, Any]], bool]:
    """A filter like a rule file's `amount_base > 7`."""
    return lambda said: bool(said["amount_base"] > amount)


def taking(events: list[Transaction], windows: list[Window]) -> float:
    """Microseconds of one event, its account's buckets in use."""
    state = AccountState(
        "a-1", Characters(), rates=RATES, tokens_max=2_048, lateness_s=3_600, zone=ZONE, windows=windows
    )
    warm = len(events) // 2
    for event in events[:warm]:
        state.take(event, *NOTHING)
    return timed(lambda: [state.take(event, *NOTHING) for event in events[warm:]], len(events) - warm)


def sharing(events: list[Transaction], windows: list[Window]) -> tuple[float, float]:
    """Microseconds of one event: laying its stored rows under, and counting and reading."""
    batches = [
        (event, event_features(event, facts_of(event, RATES), ZONE, late=False), rows(windows, event))
        for event in events
    ]
    views: list[SharedWindows] = []
    overlay = timed(lambda: views.extend(SharedWindows(windows, stored) for _, _, stored in batches), len(events))

    def read() -> None:
        for view, (event, said, _) in zip(views, batches, strict=True):
            view.take(event, said, late=False)
            view.increments()

    return overlay, timed(read, len(events))


def rows(windows: list[Window], event: Transaction) -> list[WindowCount]:
    """A stored row in every bucket that the event reads."""
    return [
        WindowCount(span.window, span.entity_id, bucket, 3, 30_000, 12_000, 0b101 << bucket % 1_000)
        for span in shared_keys(windows, event)
        for bucket in range(span.first, span.last + 1)
    ]


def feedback(events: list[Transaction], entity: Entity | None) -> float:
    """Microseconds of laying a month's counters of an entity under one event, and reading and counting it."""
    others = {ENTITY_FIELDS[other]: None for other in SHARED if other != entity}
    alone = [event.model_copy(update=others) for event in events]
    stored = [
        [
            EntityCount(kind, entity_id, day_of(event) - age, 5, 1)
            for kind, entity_id in keys_of(event)
            for age in range(LABEL_DELAY_DAYS + max(WINDOWS_DAYS) + 1)
        ]
        for event in alone
    ]

    def read() -> None:
        for event, counts in zip(alone, stored, strict=True):
            view = FeedbackView(counts, LABEL_DELAY_DAYS)
            view.shares(event)
            view.count(event)
            view.increments()

    return timed(read, len(events))


def timed(call: Callable[[], object], events: int) -> float:
    """Microseconds an event of one call."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e6 / events


def in_turns(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each way over rounds in which every way has its turn."""
    seen = [{name: way() for name, way in ways.items()} for _ in range(rounds)]
    return {name: median(times[name] for times in seen) for name in ways}


def report(name: str, lines: Iterable[tuple[str, str]]) -> None:
    """One table."""
    print(f"\n{name}\n" + "\n".join(f"  {label:<34}{value:>24}" for label, value in lines))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    events = payments(options.events)

    ways: dict[str, Callable[[], float]] = {"built-in": partial(taking, events, [])}
    ways |= {a: partial(taking, events, declared("account", a, of)) for a, of in AGGREGATES}
    took = in_turns(ways, options.rounds)
    base = took.pop("built-in")
    report("An event, us", [("built-in features alone", f"{base:.1f}")])
    report(f"{WINDOWS} windows of the account add, us", [(a, f"{value - base:+.1f}") for a, value in took.items()])

    part = events[: len(events) // 5]
    shared = {}
    for entity in SHARED:
        for aggregate, of in AGGREGATES:
            pairs = [sharing(part, declared(entity, aggregate, of)) for _ in range(options.rounds)]
            shared[f"{entity} {aggregate}"] = [median(side) for side in zip(*pairs, strict=True)]
    report(
        f"{WINDOWS} windows of a shared entity add, us",
        [(name, f"overlay {overlay:.1f}  read {read:.1f}") for name, (overlay, read) in shared.items()],
    )

    told = in_turns({str(e): partial(feedback, part, e) for e in (None, *SHARED)}, options.rounds)
    nothing = told.pop("None")
    report("Label feedback adds, us", [(name, f"{value - nothing:+.1f}") for name, value in told.items()])


if __name__ == "__main__":
    main()

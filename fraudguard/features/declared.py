"""Declared windows (rules/features.yaml): what an event enters into them, and those of the account itself.

Knows `Window`s and the event group of features, not YAML, rules or stores. Windows of entities that accounts share
are shared.py; both count alike:

- A window of n seconds has buckets of n/48 seconds. At time t it covers the bucket of t and the 47 before it, nothing
  later, so an out-of-order event reads what lay before it and enters its own bucket. Late events enter nothing.
- A number counts in whole hundredths, at most VALUE_MAX either way; where it is missing or no number, the event does
  not enter. Sums are exact. Distinct texts go by their hash.
- Where nothing entered, count, sum and distinct are 0, max and mean are missing.

Account windows keep the buckets that an event within the lateness bound can still read: 49, and lateness_s * 48 / n
more. A bucket holds its number, a count and one value; of a distinct window at most MEMBERS_MAX characters.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final

from fraudguard.domain import Scalar, Window
from fraudguard.features.facts import entity_hash
from fraudguard.features.money import AMOUNT_CENTS_MAX
from fraudguard.features.velocity import BUCKET_COUNTERPARTIES_MAX, BUCKET_SUM_MAX, as_character

BUCKETS: Final = 48
MEMBERS_MAX: Final = BUCKET_COUNTERPARTIES_MAX  # distinct values of one bucket of one account
VALUE_MAX: Final = AMOUNT_CENTS_MAX // 100
_US: Final = 1_000_000

Entries = list[tuple[Window, int]]


def bucket_us(window: Window) -> int:
    """The length of the window's buckets in microseconds; exact, for a window is whole minutes."""
    return window.seconds * _US // BUCKETS


def hundredths(value: Scalar) -> int | None:
    """A number in whole hundredths, within VALUE_MAX; None for what is missing, not a number or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return round(max(-VALUE_MAX, min(value, VALUE_MAX)) * 100)


def entries_of(windows: Sequence[Window], features: Mapping[str, Scalar]) -> Entries:
    """The windows that count an event, each with what enters: a number in hundredths, a text's hash, 0 for a count.

    features: of the event group, with the attributes. Raises what a window's `matches` raises.
    """
    entries: Entries = []
    for window in {window.key: window for window in windows}.values():  # under two names it still counts once
        if not window.matches(features):
            continue
        value: int | None = 0
        if window.aggregate == "distinct":
            text = features.get(window.of)
            value = entity_hash(text) if isinstance(text, str) else None
        elif window.aggregate != "count":
            value = hundredths(features.get(window.of))
        if value is not None:
            entries.append((window, value))
    return entries


class _Buckets:
    """One window's buckets as columns, ordered by bucket number: events, and their sum, largest or distinct values."""

    __slots__ = ("counts", "starts", "values")

    def __init__(self, starts: list[int], counts: list[int], values: list[Any]) -> None:
        self.starts, self.counts, self.values = starts, counts, values

    def enter(self, window: Window, bucket: int, entered: int) -> None:
        starts, value = self.starts, as_character(entered) if window.aggregate == "distinct" else entered
        at = len(starts) if not starts or bucket > starts[-1] else bisect_left(starts, bucket)
        if at == len(starts) or starts[at] != bucket:
            starts.insert(at, bucket)
            self.counts.insert(at, 1)
            self.values.insert(at, value)
            return
        self.counts[at] += 1
        held = self.values[at]
        if window.aggregate == "distinct":
            if value not in held and len(held) < MEMBERS_MAX:
                self.values[at] = held + value
        elif window.aggregate == "max":
            self.values[at] = max(held, value)
        else:
            self.values[at] = max(-BUCKET_SUM_MAX, min(held + value, BUCKET_SUM_MAX))

    def prune(self, first: int) -> None:
        gone = bisect_left(self.starts, first)
        del self.starts[:gone], self.counts[:gone], self.values[:gone]

    def read(self, window: Window, bucket: int) -> Scalar:
        low, high = bisect_left(self.starts, bucket - BUCKETS + 1), bisect_right(self.starts, bucket)
        counts, values = self.counts[low:high], self.values[low:high]
        if window.aggregate == "count":
            return sum(counts)
        if window.aggregate == "distinct":
            return len(set("".join(values)))
        total: int = max(values, default=0) if window.aggregate == "max" else sum(values)
        if window.aggregate == "sum":
            return total / 100
        if not values:
            return None
        return total / 100 if window.aggregate == "max" else total / (100 * sum(counts))


NONE_ENTERED: Final[Mapping[str, Scalar]] = {"count": 0, "sum": 0.0, "max": None, "mean": None, "distinct": 0}


class AccountWindows:
    """The declared windows of one account. unfilled: those that never saw its history; they read as missing."""

    __slots__ = ("_buckets", "_windows", "unfilled")

    def __init__(self, windows: Sequence[Window]) -> None:
        """Empty windows of a new account. windows: of any entity; only those of accounts are kept."""
        self._windows = tuple(window for window in windows if window.entity == "account")
        self._buckets: dict[str, _Buckets] = {}  # of the windows that something entered, by key
        self.unfilled: tuple[Window, ...] = ()

    def entries(self, features: Mapping[str, Scalar]) -> Entries:
        """What an event enters into the filled windows. Raises what a window's `matches` raises."""
        missing = {window.key for window in self.unfilled}
        return entries_of([window for window in self._windows if window.key not in missing], features)

    def add(self, entries: Entries, us: int, earliest_us: int) -> None:
        """Enter an event of time us; no later call asks or adds before earliest_us. Never raises."""
        for window, entered in entries:
            buckets = self._buckets.get(window.key)
            if buckets is None:
                buckets = self._buckets[window.key] = _Buckets([], [], [])
            buckets.enter(window, us // bucket_us(window), entered)
        self.prune(earliest_us)

    def prune(self, earliest_us: int) -> None:
        """Forget the buckets that no event at or after earliest_us can read."""
        for window in self._windows:
            buckets = self._buckets.get(window.key)
            if buckets is None:
                continue
            first = earliest_us // bucket_us(window) - BUCKETS + 1
            if buckets.starts[0] < first:
                buckets.prune(first)
                if not buckets.starts:
                    del self._buckets[window.key]

    def read(self, us: int) -> dict[str, Scalar]:
        """Every account window by name as of event time us; missing where it is unfilled."""
        features: dict[str, Scalar] = {}
        for window in self._windows:
            buckets = self._buckets.get(window.key)
            if buckets is not None:
                features[window.name] = buckets.read(window, us // bucket_us(window))
            else:
                features[window.name] = NONE_ENTERED[window.aggregate]
        for window in self.unfilled:
            features[window.name] = None
        return features

    def adopt(self, filled: "AccountWindows") -> None:
        """Take over windows that were unfilled here and are counted there."""
        taken = {window.key for window in filled._windows}
        self._buckets |= filled._buckets
        self.unfilled = tuple(window for window in self.unfilled if window.key not in taken)

    def dump(self) -> dict[str, list[list[Any]]]:
        """The columns of each filled window by key, none where nothing entered. Without copying."""
        missing = {window.key for window in self.unfilled}
        dumped: dict[str, list[list[Any]]] = {}
        for window in self._windows:
            if window.key not in missing:
                held = self._buckets.get(window.key)
                dumped[window.key] = [] if held is None else [held.starts, held.counts, held.values]
        return dumped

    def restore(self, stored: Mapping[str, list[list[Any]]]) -> None:
        """Become what `dump` gave; takes the lists over. What it lacks is unfilled, what is not declared is dropped."""
        self._buckets = {
            window.key: _Buckets(*stored[window.key]) for window in self._windows if stored.get(window.key)
        }
        self.unfilled = tuple(window for window in self._windows if window.key not in stored)

"""Counts, sums, maxima and distinct counterparties of one account over 1 h, 1 d, 7 d and 30 d of event time.

Knows time buckets, not events: a `Facts` goes in, numbers come out. The window at time t covers the bucket of t and
the n-1 buckets before it, nothing later, so an out-of-order event sees what lay before it and enters its own bucket:

    window  bucket   n    covers at t
    1h      1 min    60   59 to 60 min
    1d      30 min   48   23.5 to 24 h
    7d      3 h      56   165 to 168 h
    30d     12 h     60   29.5 to 30 d

Buckets are kept for the window and the lateness bound, whatever the account does, and a bucket has a fixed size:
six counts, two sums and two sets of at most BUCKET_COUNTERPARTIES_MAX counterparties each (further ones are not
counted as distinct). Sums are exact integers of 1/100 base currency.
"""

from bisect import bisect_left, bisect_right
from typing import Any, Final, Self

from fraudguard.domain import Scalar
from fraudguard.features.facts import Facts

BUCKET_COUNTERPARTIES_MAX: Final = 32
# A bucket's sum stops here: it is stored as a signed 64-bit integer.
BUCKET_SUM_MAX: Final = 2**63 - 1

# window, seconds a bucket, buckets
SPANS: Final = (("1h", 60, 60), ("1d", 1_800, 48), ("7d", 10_800, 56), ("30d", 43_200, 60))

_TRANSFERS, _OUT_COUNT, _OUT_SUM, _OUT_MAX, _IN_COUNT, _IN_SUM, _IN_MAX, _MESSAGES, _OUT_SET, _IN_SET = range(10)
_EMPTY: Final = (0, 0, 0, 0, 0, 0, 0, 0, "", "")
_US: Final = 1_000_000


def as_character(counterparty: int) -> str:
    """A counterparty as one character, so that a set is a string and a union is C-fast.

    20 bits of its hash in U+10000..U+10FFFF; two of 50 counterparties share a character with probability 0.1 %.
    """
    return chr(0x10000 + (counterparty & 0xFFFFF))


class _Window:
    """One window's buckets as columns, ordered by bucket number (event time // bucket length)."""

    __slots__ = ("columns", "count", "names", "starts", "us")

    def __init__(self, window: str, seconds: int, count: int) -> None:
        self.us, self.count = seconds * _US, count
        self.starts: list[int] = []
        self.columns: list[list[Any]] = [[] for _ in _EMPTY]
        self.names = tuple(
            f"{name}_{window}"
            for name in (
                "transfers", "out_count", "out_sum", "out_max", "in_count", "in_sum", "in_max", "messages",
                "out_counterparties", "in_counterparties",
            )
        )  # fmt: skip

    def _slot(self, bucket: int) -> int:
        """Index of the bucket, made if it is new."""
        starts = self.starts
        at = len(starts) if not starts or bucket > starts[-1] else bisect_left(starts, bucket)
        if at == len(starts) or starts[at] != bucket:
            starts.insert(at, bucket)
            for column, empty in zip(self.columns, _EMPTY, strict=True):
                column.insert(at, empty)
        return at

    def add(self, facts: Facts, character: str) -> None:
        at = self._slot(facts.us // self.us)
        columns = self.columns
        if facts.flow == "message":
            columns[_MESSAGES][at] += 1
            return
        if facts.flow == "out":
            count, total, most, members = _OUT_COUNT, _OUT_SUM, _OUT_MAX, columns[_OUT_SET]
            if facts.transfer:
                columns[_TRANSFERS][at] += 1
        else:
            count, total, most, members = _IN_COUNT, _IN_SUM, _IN_MAX, columns[_IN_SET]
        columns[count][at] += 1
        if facts.cents is not None:
            columns[total][at] = min(columns[total][at] + facts.cents, BUCKET_SUM_MAX)
            columns[most][at] = max(columns[most][at], facts.cents)
        if character not in members[at] and len(members[at]) < BUCKET_COUNTERPARTIES_MAX:
            members[at] += character

    def prune(self, earliest_us: int) -> None:
        """Forget the buckets that no event at or after earliest_us can read."""
        first = earliest_us // self.us - self.count + 1
        if self.starts[0] < first:
            gone = bisect_left(self.starts, first)
            del self.starts[:gone]
            for column in self.columns:
                del column[:gone]

    def read(self, us: int, into: dict[str, Scalar]) -> None:
        bucket = us // self.us
        low, high = bisect_left(self.starts, bucket - self.count + 1), bisect_right(self.starts, bucket)
        transfers, out_count, out_sum, out_max, in_count, in_sum, in_max, messages, out_set, in_set = (
            column[low:high] for column in self.columns
        )
        into.update(
            zip(
                self.names,
                (
                    sum(transfers), sum(out_count), sum(out_sum) / 100, max(out_max, default=0) / 100,
                    sum(in_count), sum(in_sum) / 100, max(in_max, default=0) / 100, sum(messages),
                    len(set("".join(out_set))), len(set("".join(in_set))),
                ),
                strict=True,
            )
        )  # fmt: skip


class Velocity:
    """The four windows of one account."""

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows = [_Window(*span) for span in SPANS]

    def add(self, facts: Facts, earliest_us: int) -> None:
        """Enter an event into its buckets; earliest_us: no later call asks or adds before this time. Never raises."""
        character = "" if facts.counterparty is None else as_character(facts.counterparty)
        for window in self._windows:
            window.add(facts, character)
            window.prune(earliest_us)

    def read(self, us: int) -> dict[str, Scalar]:
        """Every velocity feature as of event time us (microseconds). Sums and maxima in base currency."""
        features: dict[str, Scalar] = {}
        for window in self._windows:
            window.read(us, features)
        return features

    def dump(self) -> list[list[list[Any]]]:
        """The buckets as plain lists, without copying."""
        return [[window.starts, *window.columns] for window in self._windows]

    @classmethod
    def load(cls, stored: list[list[list[Any]]]) -> Self:
        """The inverse of `dump`; takes the lists over."""
        velocity = cls()
        for window, (starts, *columns) in zip(velocity._windows, stored, strict=True):
            window.starts, window.columns = starts, columns
        return velocity

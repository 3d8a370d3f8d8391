"""Declared windows of what accounts share: counterparty, device, network address and merchant of transactions.

Knows buckets as rows (`WindowCount`), not where they are stored. Buckets, values and late events are as declared.py
says; but a row may be written by any worker at any time, so rows only add up: reads see what was stored when the batch
began and the batch itself. An event is read as of its own time, a late one too.

Distinct values set one of MEMBER_BITS bits each by their hash. The bits of a window's buckets together, n of m set,
stand for -m ln(1 - n/m) values, rounded (linear counting: Whang, Vander-Zanden, Taylor, ACM Transactions on Database
Systems 15(2), 1990); with all of them set, for as many as with one unset.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import Final, NamedTuple

from fraudguard.domain import ENTITY_FIELDS, Scalar, Screenable, Transaction, Window, WindowCount
from fraudguard.features.declared import BUCKETS, NONE_ENTERED, Entries, bucket_us, entries_of
from fraudguard.features.facts import microseconds
from fraudguard.tenants import scoped, tenant_of

MEMBER_BITS: Final = 1_024


class Span(NamedTuple):
    """The buckets first..last of one entity in one window, which an event reads. window: its key.

    entity_id: scoped, so that what a tenant's events count no other tenant's read.
    """

    window: str
    entity_id: str
    first: int
    last: int


def shared_keys(windows: Sequence[Window], event: Screenable) -> list[Span]:
    """What an event reads, once for each window of an entity that it has; nothing for a message."""
    return list({span: None for _, span in _spans(windows, event)})


def _spans(windows: Sequence[Window], event: Screenable) -> list[tuple[Window, Span]]:
    if not isinstance(event, Transaction):
        return []
    us, tenant, spans = microseconds(event.event_time), tenant_of(event), []
    for window in windows:
        if window.entity == "account":
            continue
        entity_id = getattr(event, ENTITY_FIELDS[window.entity])
        if entity_id is not None:
            bucket, key = us // bucket_us(window), scoped(tenant, entity_id)
            spans.append((window, Span(window.key, key, bucket - BUCKETS + 1, bucket)))
    return spans


class _Bucket:
    """What the batch entered into one bucket: events, their sum and largest value, the bits of distinct ones."""

    __slots__ = ("count", "members", "peak", "total")

    def __init__(self) -> None:
        self.count = self.total = self.members = 0
        self.peak: int | None = None


_Key = tuple[str, str]  # window key, entity id


class SharedWindows:
    """The stored buckets a batch reads, overlaid with what the batch itself enters.

    Reads see the batch's own events, so one large batch gives what many small ones give.
    """

    def __init__(self, windows: Sequence[Window], rows: Iterable[WindowCount]) -> None:
        """windows: of any entity; only shared ones are used. rows: stored totals of `shared_keys` of the batch."""
        self._windows = tuple(window for window in windows if window.entity != "account")
        self._stored: dict[_Key, list[WindowCount]] = {}
        self._added: dict[_Key, dict[int, _Bucket]] = {}
        for row in rows:
            self._stored.setdefault((row.window, row.entity_id), []).append(row)

    def take(self, event: Screenable, features: Mapping[str, Scalar], *, late: bool) -> dict[str, Scalar]:
        """Enter an event, unless it is late, and read every shared window by name; missing without its entity.

        features: the event group's. Raises what a window's `matches` raises, and then nothing has entered.
        """
        spans = _spans(self._windows, event)
        if not late:
            self._enter(spans, features)
        read: dict[str, Scalar] = dict.fromkeys(window.name for window in self._windows)
        for window, span in spans:
            read[window.name] = self._read(window, span)
        return read

    def count_only(self, event: Screenable, features: Mapping[str, Scalar]) -> None:
        """Enter an on-time event of history without reading. Raises as `take` does."""
        self._enter(_spans(self._windows, event), features)

    def _enter(self, spans: Sequence[tuple[Window, Span]], features: Mapping[str, Scalar]) -> None:
        entries: Entries = entries_of([window for window, _ in spans], features)
        places = {span.window: span for _, span in spans}
        for window, entered in entries:
            span = places[window.key]
            bucket = self._added.setdefault((span.window, span.entity_id), {}).setdefault(span.last, _Bucket())
            bucket.count += 1
            if window.aggregate == "distinct":
                bucket.members |= 1 << entered % MEMBER_BITS
            elif window.aggregate != "count":
                bucket.total += entered
                bucket.peak = entered if bucket.peak is None else max(bucket.peak, entered)

    def _read(self, window: Window, span: Span) -> Scalar:
        key, first, last = (span.window, span.entity_id), span.first, span.last
        inside: list[WindowCount | _Bucket] = [row for row in self._stored.get(key, ()) if first <= row.bucket <= last]
        added = self._added.get(key, {})
        if len(added) <= BUCKETS:
            inside += [bucket for start, bucket in added.items() if first <= start <= last]
        else:  # much history was counted
            inside += [added[start] for start in range(first, last + 1) if start in added]
        if not inside:
            return NONE_ENTERED[window.aggregate]
        if window.aggregate == "count":
            return sum(bucket.count for bucket in inside)
        if window.aggregate == "distinct":
            return _distinct(inside)
        if window.aggregate == "max":
            peaks = [bucket.peak for bucket in inside if bucket.peak is not None]
            return max(peaks) / 100 if peaks else None
        total = sum(bucket.total for bucket in inside)
        return total / 100 if window.aggregate == "sum" else total / (100 * sum(bucket.count for bucket in inside))

    def increments(self) -> list[WindowCount]:
        """What entered since construction, one per window, entity and bucket, in that order."""
        return [
            WindowCount(window, entity_id, start, bucket.count, bucket.total, bucket.peak, bucket.members)
            for (window, entity_id), buckets in sorted(self._added.items())
            for start, bucket in sorted(buckets.items())
        ]


def _distinct(buckets: Iterable[WindowCount | _Bucket]) -> int:
    members = 0
    for bucket in buckets:
        members |= bucket.members
    unset = max(MEMBER_BITS - members.bit_count(), 1)
    return round(MEMBER_BITS * log(MEMBER_BITS / unset))

"""What the pipeline reads and writes: decisions, labels, account states, feedback counts, documents.

Nothing is changed once it is written, except account states (by version) and counts (by addition). A batch is one
transaction. Knows no policy, no features and no Kafka.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Self

from sqlalchemy import ColumnElement, Row, Text, and_, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import audit, batch, history, labelled, windows
from fraudguard.decisions.batch import StoredState
from fraudguard.decisions.casebook import CaseBook
from fraudguard.decisions.casefile import CaseFile
from fraudguard.decisions.cases import join_cases
from fraudguard.decisions.connection import Open, any_of, open_engine, transaction
from fraudguard.decisions.evidence import EvidenceBook
from fraudguard.decisions.history import PastEvent, StoredDecision
from fraudguard.decisions.judged import Judged
from fraudguard.decisions.keys import KeyRing
from fraudguard.decisions.labelled import LabelledDecision
from fraudguard.decisions.letters import LetterTrail
from fraudguard.decisions.listing import DecisionFilter, list_decisions
from fraudguard.decisions.models import ModelBook, ShadowScore, write_shadow_scores
from fraudguard.decisions.outbox import Outbox
from fraudguard.decisions.pages import Page
from fraudguard.decisions.people import People
from fraudguard.decisions.policy import due_of
from fraudguard.decisions.pulse import Pulse
from fraudguard.decisions.records import load_record
from fraudguard.decisions.repeats import Repeats
from fraudguard.decisions.rulebook import RuleBook
from fraudguard.decisions.rulehits import RuleHits
from fraudguard.decisions.sessions import Sessions
from fraudguard.decisions.tables import ACCOUNT_STATE, DECISIONS, DOCUMENTS, EVENT_IDS, LABELS
from fraudguard.decisions.verdicts import REVIEW_PERCENT
from fraudguard.decisions.vouched import Vouched
from fraudguard.decisions.watchlists import WatchLists
from fraudguard.decisions.webhooks import Webhooks
from fraudguard.decisions.weekly import Weekly
from fraudguard.domain import (
    DecisionRecord,
    EntityCount,
    Label,
    Line,
    Outcome,
    Screenable,
    Timeline,
    Typology,
    WindowCount,
)
from fraudguard.errors import BadInput, NotFound, StateConflict
from fraudguard.tenants import ATTRIBUTE, HOUSE, scoped, unscoped

__all__ = ["Changes", "Repository", "StoredState", "connect"]


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything one batch writes.

    states: by account, scoped (tenants.py); the version is the one that was read (0: none), the stored one is that + 1.
    counts, window_counts: increments. alerts: those of `records` that open or join a case. activation: the one of the
    rule book (`rulebook.head()`) whose rules decided the batch, 0 for none. shadow: what the challenger says of
    `records`. due: how long after they were decided alerts of each outcome should have been judged.
    """

    records: Sequence[DecisionRecord] = ()
    labels: Sequence[Label] = ()
    states: Mapping[str, StoredState] = field(default_factory=dict)
    counts: Sequence[EntityCount] = ()
    alerts: Sequence[DecisionRecord] = ()
    window_counts: Sequence[WindowCount] = ()
    activation: int = 0
    shadow: Sequence[ShadowScore] = ()
    due: Mapping[Outcome, timedelta] = field(default_factory=due_of)


_COUNTS = text("""
SELECT c.kind, c.entity_id, c.day, c.transactions, c.frauds
FROM unnest(CAST(:kinds AS text[]), CAST(:entities AS text[])) AS k (kind, entity_id)
JOIN entity_counts c ON c.kind = k.kind AND c.entity_id = k.entity_id AND c.day >= :first_day
""")

_EARLIER = text("""
SELECT d.event_id, d.tenant, CAST(d.body AS text) AS body, d.sealed_text
FROM unnest(CAST(:times AS timestamptz[]), CAST(:decisions AS text[])) AS k (event_time, decision_id)
JOIN decisions d ON d.event_time = k.event_time AND d.decision_id = k.decision_id
WHERE d.event_time BETWEEN :first AND :last
""")

_LINES = text("""
SELECT d.event_type, d.event_time, d.body ->> 'line' AS line
FROM event_ids e JOIN decisions d ON d.event_time = e.event_time AND d.decision_id = e.decision_id
WHERE e.account_id = :account AND e.tenant = :tenant AND e.sequence BETWEEN :first AND :last
ORDER BY e.sequence
""")

_OF_KEYS = text("""
SELECT e.event_time, e.decision_id
FROM unnest(CAST(:ids AS text[]), CAST(:tenants AS text[])) AS k (id, tenant)
JOIN event_ids e ON e.event_id = k.id AND e.tenant = k.tenant
""")

_LABELS_OF = text("""
SELECT l.event_id, l.account_id, l.event_time, l.target_event_id, l.source, l.verdict, l.typology, l.tenant
FROM unnest(CAST(:ids AS text[]), CAST(:tenants AS text[])) AS k (id, tenant)
JOIN labels l ON l.target_event_id = k.id AND l.tenant = k.tenant
ORDER BY l.event_time, l.event_id
""")

_LABELS_BY_ID = text("""
SELECT l.event_id, l.account_id, l.event_time, l.target_event_id, l.source, l.verdict, l.typology, l.tenant
FROM unnest(CAST(:ids AS text[]), CAST(:tenants AS text[])) AS k (id, tenant)
JOIN labels l ON l.event_id = k.id AND l.tenant = k.tenant
""")


class Repository:
    """The pipeline's door to PostgreSQL. Every method raises StoreUnavailable when it does not answer."""

    def __init__(self, engine: AsyncEngine, review_percent: float = REVIEW_PERCENT) -> None:
        """engine: see connection.open_engine. review_percent: see CaseBook."""
        self._open: Open = lambda: transaction(engine)
        self.rulebook, self.lists, self.models = _books(self._open)
        self.cases, self.outbox, self.keys = CaseBook(engine, review_percent), Outbox(engine), KeyRing(engine)
        self.people, self.sessions, self.repeats = People(engine), Sessions(engine), Repeats(engine)
        self.webhooks, self.vouched = Webhooks(engine), Vouched(engine)
        self.weekly, self.evidence = Weekly(self._open), EvidenceBook(self._open)
        self.casefile = CaseFile(self._open)
        self.rulehits = RuleHits(self._open)
        self.pulse, self.letters, self.judged = Pulse(self._open), LetterTrail(self._open), Judged(self._open)
        self._months: set[date] = set()

    @asynccontextmanager
    async def one_transaction(self) -> AsyncIterator[Self]:
        """This repository with everything done through it in one transaction: several reads at the cost of one."""
        async with self._open() as connection:
            bound = copy(self)
            bound._open = lambda: nullcontext(connection)
            bound.rulebook, bound.lists, bound.models = _books(bound._open)
            yield bound

    async def earlier(self, keys: Collection[str]) -> dict[str, DecisionRecord]:
        """The decisions these events already have, by their keys (tenants.event_key), equal to what was committed."""
        if not keys:
            return {}
        async with self._open() as connection:
            known = (await connection.execute(_OF_KEYS, _unscoped(keys))).all()
            if not known:
                return {}
            times = [one.event_time for one in known]
            rows = await connection.execute(
                _EARLIER,
                {"times": times, "decisions": [k.decision_id for k in known], "first": min(times), "last": max(times)},
            )
            return {scoped(row.tenant, row.event_id): load_record(row.body, row.sealed_text) for row in rows}

    async def record(self, decision_id: str) -> DecisionRecord:
        """The decision of this id. Raises NotFound."""
        return await self._one(EVENT_IDS.c.decision_id == decision_id, f"no decision {decision_id!r}")

    async def record_of_event(self, event_id: str, tenant: str = HOUSE) -> DecisionRecord:
        """The decision of this tenant's event. Raises NotFound."""
        condition = and_(EVENT_IDS.c.event_id == event_id, EVENT_IDS.c.tenant == tenant)
        return await self._one(condition, f"no decision for event {event_id!r}")

    async def _one(self, condition: ColumnElement[bool], missing: str) -> DecisionRecord:
        async with self._open() as connection:
            key = (await connection.execute(select(EVENT_IDS).where(condition))).one_or_none()
            if key is None:
                raise NotFound(missing)
            found = await connection.execute(
                select(DECISIONS.c.body.cast(Text).label("body"), DECISIONS.c.sealed_text).where(
                    DECISIONS.c.event_time == key.event_time, DECISIONS.c.decision_id == key.decision_id
                )
            )
            row = found.one()
            return load_record(row.body, row.sealed_text)

    async def list_decisions(
        self, wanted: DecisionFilter, limit: int = 50, cursor: str | None = None
    ) -> Page[DecisionRecord]:
        """A page of decisions, newest event first, without sealed texts. Raises BadInput for a bad limit or cursor."""
        async with self._open() as connection:
            return await list_decisions(connection, wanted, limit, cursor)

    async def raw_text_of(self, decision_id: str, actor: str, reason: str, at: datetime) -> bytes:
        """The event's sealed (encrypted) text; that it was read, by whom and why is written down first.

        Raises NotFound if there is no such decision or it keeps no text, BadInput without a reason.
        """
        if not reason.strip():
            raise BadInput("must say why the text is read", path="reason")
        async with self._open() as connection:
            found = await connection.execute(
                select(DECISIONS.c.sealed_text, DECISIONS.c.tenant).where(
                    DECISIONS.c.decision_id == EVENT_IDS.c.decision_id,
                    DECISIONS.c.event_time == EVENT_IDS.c.event_time,
                    EVENT_IDS.c.decision_id == decision_id,
                )
            )
            row = found.one_or_none()
            if row is None or row.sealed_text is None:
                raise NotFound(f"no kept text of decision {decision_id!r}")
            detail = {"reason": reason.strip()}
            await audit.append(connection, at, actor, "text.read", decision_id, detail, row.tenant)
        sealed: bytes = row.sealed_text
        return sealed

    async def timeline(self, record: DecisionRecord) -> Timeline:
        """The timeline the record was decided on, from the stored lines; its hash should equal record.timeline_hash."""
        decision = record.decision
        async with self._open() as connection:
            rows = await connection.execute(
                _LINES,
                {
                    "account": decision.account_id,
                    "tenant": decision.tenant,
                    "first": record.timeline_start,
                    "last": decision.sequence,
                },
            )
            lines = tuple(Line(row.event_type, row.event_time, row.line) for row in rows)
        return Timeline(scoped(decision.tenant, decision.account_id), record.timeline_start, lines)

    async def states(self, account_ids: Collection[str]) -> dict[str, StoredState]:
        """The stored states of these accounts, by their keys (tenants.account_key); those without one are missing."""
        async with self._open() as connection:
            rows = await connection.execute(
                select(ACCOUNT_STATE).where(ACCOUNT_STATE.c.account_id == any_of(account_ids))
            )
            return {row.account_id: StoredState(row.version, row.body) for row in rows}

    async def labels(self, targets: Collection[str]) -> dict[str, list[Label]]:
        """The labels of these events by the target's key, oldest first; targets without one are missing."""
        found: dict[str, list[Label]] = {}
        async with self._open() as connection:
            for row in await connection.execute(_LABELS_OF, _unscoped(targets)):
                found.setdefault(scoped(row.tenant, row.target_event_id), []).append(_label(row))
        return found

    async def labels_between(self, first: datetime, before: datetime) -> dict[str, list[Label]]:
        """The labels of decisions with an event time from `first` to before `before`, by target's key, oldest first."""
        found: dict[str, list[Label]] = {}
        async with self._open() as connection:
            rows = await connection.execute(
                select(LABELS)
                .join(
                    EVENT_IDS,
                    and_(EVENT_IDS.c.event_id == LABELS.c.target_event_id, EVENT_IDS.c.tenant == LABELS.c.tenant),
                )
                .where(EVENT_IDS.c.event_time >= first, EVENT_IDS.c.event_time < before)
                .order_by(LABELS.c.event_time, LABELS.c.event_id)
            )
            for row in rows:
                found.setdefault(scoped(row.tenant, row.target_event_id), []).append(_label(row))
        return found

    async def history(self, since: datetime, decided_since: datetime | None = None) -> AsyncIterator[PastEvent]:
        """Stored events with an event time of `since` or later, streamed month by month, in no order within one.

        decided_since: only those decided then or later, quickly. A batch is committed some time after it was decided:
        whoever reads on from an earlier reading asks for an overlap and tells events by their id. Holds one connection
        meanwhile; close it (contextlib.aclosing) when you stop early.
        """
        async with self._open() as connection:
            async for past in history.past_events(connection, since, decided_since):
                yield past

    async def account_history(
        self, accounts: Collection[str], since: datetime
    ) -> dict[str, list[tuple[Screenable, bool]]]:
        """Stored events of `since` or later by account's key as (event, late), in sequence; without any: missing."""
        async with self._open() as connection:
            return await history.past_of_accounts(connection, accounts, since)

    async def stored_decisions(self, first: datetime, before: datetime) -> AsyncIterator[StoredDecision]:
        """Decisions with an event time from `first` to before `before`, streamed by account, in sequence.

        Holds one connection meanwhile; close it (contextlib.aclosing) when you stop early.
        """
        async with self._open() as connection:
            async for row in history.decisions_between(connection, first, before):
                yield row

    async def labelled_decisions(self, since: datetime, until: datetime) -> AsyncGenerator[LabelledDecision, None]:
        """Decisions with an event time from `since` to `until`, streamed by account, in sequence.

        Each with the labels and the disposition that had come by `until`. Holds one connection meanwhile; close it
        (contextlib.aclosing) when you stop early.
        """
        async with self._open() as connection:
            async for row in labelled.labelled_decisions(connection, since, until):
                yield row

    async def newest(self) -> datetime | None:
        """When the newest event, label or disposition was; None where there is none."""
        async with self._open() as connection:
            return await labelled.newest(connection)

    async def newest_event_time(self) -> datetime | None:
        """The latest event time of any decision; None where there is none."""
        async with self._open() as connection:
            newest = select(DECISIONS.c.event_time).order_by(DECISIONS.c.event_time.desc()).limit(1)
            return (await connection.execute(newest)).scalar_one_or_none()

    async def labels_by_id(self, keys: Collection[str]) -> dict[str, Label]:
        """Stored labels by their own key, whatever they are about: an id in here can never be stored again."""
        async with self._open() as connection:
            rows = await connection.execute(_LABELS_BY_ID, _unscoped(keys))
            return {scoped(row.tenant, row.event_id): _label(row) for row in rows}

    async def entity_counts(self, keys: Collection[tuple[str, str]], first_day: int) -> list[EntityCount]:
        """Totals a day from first_day (days since 1970-01-01) on, of these (kind, scoped id) keys, in no order."""
        ordered = sorted(set(keys))
        async with self._open() as connection:
            rows = await connection.execute(
                _COUNTS,
                {"kinds": [k for k, _ in ordered], "entities": [e for _, e in ordered], "first_day": first_day},
            )
            return [EntityCount(*row) for row in rows]

    async def window_counts(self, keys: Collection[tuple[str, str, int, int]]) -> list[WindowCount]:
        """Stored buckets of (window key, entity id, first bucket, last bucket), both ends in; each once, unordered."""
        async with self._open() as connection:
            return await windows.read(connection, keys)

    async def prune_window_counts(self, before: Mapping[str, int]) -> int:
        """Delete, by window key, buckets before the given one, a bounded part a transaction; how many."""
        return sum([await windows.prune(self._open, *one) for one in sorted(before.items())])

    async def commit(self, changes: Changes) -> None:
        """Write everything in one transaction, or nothing.

        Raises StateConflict if an account's version or an event id was written by someone else since it was read, or
        other rules were activated, and StoreUnavailable; after the latter the batch may be stored, which `earlier` will
        tell.
        """
        await self._ensure_months(changes.records)
        try:
            async with self._open() as connection:
                await batch.write_states(connection, changes.states, changes.activation)
                await batch.write_decisions(connection, changes.records)
                await write_shadow_scores(connection, changes.shadow)
                await batch.write_labels(connection, changes.labels)
                await join_cases(connection, changes.alerts, changes.due)
                await batch.add_counts(connection, changes.counts)
                await windows.add(connection, changes.window_counts)
        except IntegrityError as error:
            if "decisions_other_years" not in str(error.orig):
                raise
            self._months.clear()  # an operator dropped a month's partition while we remembered it
            raise StateConflict("a month's partition is gone; it will be made again") from error

    async def _ensure_months(self, records: Sequence[DecisionRecord]) -> None:
        """Create the partitions these events need, in a transaction of their own so that no batch holds their locks."""
        times = [record.event.event_time for record in records]
        if batch.months_of(times, ahead=False) <= self._months:
            return
        for month in sorted(batch.months_of(times, ahead=True) - self._months):
            async with self._open() as connection:
                await connection.execute(text("SELECT decisions_ensure_month(:month)"), {"month": month})
            self._months.add(month)

    async def schema_revision(self) -> str | None:
        """The newest migration that the database has had; None if it had none. Raises BadSettings without a schema."""
        async with self._open() as connection:
            revision: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
            return revision

    async def document(self, kind: str, version: str) -> str:
        """The source saved under this version. Raises NotFound."""
        async with self._open() as connection:
            found = await connection.execute(
                select(DOCUMENTS.c.body).where(DOCUMENTS.c.kind == kind, DOCUMENTS.c.version == version)
            )
            body = found.scalar_one_or_none()
        if body is None:
            raise NotFound(f"no {kind} of version {version!r}")
        return str(body)


def _books(open_: Open) -> tuple[RuleBook, WatchLists, ModelBook]:
    return RuleBook(open_), WatchLists(open_), ModelBook(open_)


def _label(row: Row[Any]) -> Label:
    return Label(
        type="label",
        version=1,
        event_id=row.event_id,
        account_id=row.account_id,
        event_time=row.event_time,
        target_event_id=row.target_event_id,
        source=row.source,
        verdict=row.verdict,
        typology=row.typology and Typology(row.typology),
        attributes={ATTRIBUTE: row.tenant} if row.tenant else {},
    )


def _unscoped(keys: Collection[str]) -> dict[str, list[str]]:
    """The parameters of a query by keys."""
    parts = [unscoped(key) for key in keys]
    return {"ids": [id for _, id in parts], "tenants": [tenant for tenant, _ in parts]}


@asynccontextmanager
async def connect(url: str, review_percent: float = REVIEW_PERCENT) -> AsyncIterator[Repository]:
    """A repository on its own pool, closed at the end."""
    engine = open_engine(url)
    try:
        yield Repository(engine, review_percent)
    finally:
        await engine.dispose()

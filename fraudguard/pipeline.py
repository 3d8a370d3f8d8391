"""The one path of an event: state and features, score, rules, policy, commit. `screen(batch) -> answers`.

The stream worker, the offline run, replay and the tests all use this and nothing else. Knows the order of the
rooms and the rules of contract 1 (effects once, in one transaction); knows no Kafka, no torch and no SQL.
"""

import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from fraudguard import metrics
from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.decisions.models import ShadowScore
from fraudguard.decisions.repository import Changes, Repository, StoredState
from fraudguard.domain import (
    Decision,
    DecisionHit,
    DecisionRecord,
    Feature,
    Hit,
    Label,
    Outcome,
    Received,
    Scalar,
    Score,
    ScoreRequest,
    Screenable,
    Snapshot,
    Transaction,
)
from fraudguard.errors import BadEvent, BadSettings, EngineUnavailable, NotFound, StateConflict, Transient
from fraudguard.features.declared import BUCKETS, bucket_us
from fraudguard.features.facts import microseconds
from fraudguard.features.feedback import FeedbackView, day_of, keys_of
from fraudguard.features.money import Rates
from fraudguard.features.registry import WINDOWS_DAYS
from fraudguard.features.shared import SharedWindows, shared_keys
from fraudguard.features.state import AccountState
from fraudguard.features.timeline import TokenCounter
from fraudguard.inputs import rule_inputs, score_request
from fraudguard.rulebook import Book, Pack, open_book
from fraudguard.rules.registry import RuleSet
from fraudguard.serving import Serving
from fraudguard.tenants import account_key, decision_id_of, event_key, target_key, tenant_of, unscoped

log = logging.getLogger(__name__)

BUGS_IN_A_ROW_MAX = 20
# Counts of shared windows are kept for so long beside the window itself: partitions may lag, and streams be replayed.
WINDOWS_KEPT = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Decided:
    """A committed decision; `fresh` is False where the event had been decided before.

    alert: whether it is fresh and a person must look at it.
    """

    record: DecisionRecord
    fresh: bool
    alert: bool = False


@dataclass(frozen=True, slots=True)
class Labelled:
    """A stored label (now or before)."""

    label: Label


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that may not be used; belongs in the dead letters."""

    error: BadEvent


Answer = Decided | Labelled | Refused


@dataclass(slots=True)
class _Known:
    """What Postgres says about a batch before it is worked on. Events and labels by their keys (see tenants.py)."""

    earlier: dict[str, DecisionRecord]
    labels: dict[str, list[Label]]  # by target
    label_ids: dict[str, Label]
    feedback: FeedbackView
    shared: SharedWindows
    listed: dict[tuple[str, str], datetime | None]  # entries by (list, value): until when


@dataclass(slots=True)
class _Taken:
    """A fresh event, taken into its account's state, waiting for its score."""

    received: Received
    event: Screenable
    snapshot: Snapshot


class Pipeline:
    """Screens batches. One instance per process and event loop; `screen` is not called concurrently.

    It decides by the release of the rule book that is in force and the model that is champion, and turns to others
    between two batches. serving None: the model is switched off, and every decision is degraded with reason ENGINE_OFF.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        repository: Repository,
        fields: Sequence[Feature],
        serving: Serving | None,
        counter: TokenCounter,
        rates: Rates,
        clock: Clock,
    ) -> None:
        self._settings, self._repository, self._rates, self._clock = settings, repository, rates, clock
        self._fields, self._serving, self._counter = fields, serving, counter
        self._zone = ZoneInfo(settings.time_zone)
        self._book: Book | None = None
        self._states: OrderedDict[str, tuple[int, AccountState]] = OrderedDict()
        self._bugs_in_a_row = 0

    async def screen(self, batch: Sequence[Received]) -> list[Answer]:
        """Decide events in the order given and commit them in one transaction; one answer an event, in order.

        Repeated events get their first decision again. One that would be older than settings.deadline_ms by the time
        the model has read it is decided without (reason OVERLOAD).
        A bug met by one event refuses that event alone; BUGS_IN_A_ROW_MAX of them raise, for then it is not the event.
        Raises StateConflict after settings.conflict_retries_max attempts, StoreUnavailable, and BadSettings or NotFound
        where the rules in force cannot be read or there are none.
        """
        try:
            answers = await self._commit(batch)
        except (Transient, BadSettings, NotFound):  # the store, or the rules in force: not the events
            raise
        except Exception:
            if len(batch) > 1:
                log.exception("a batch of %d events failed; trying them one by one", len(batch))
                return [(await self.screen([item]))[0] for item in batch]
            self._bugs_in_a_row += 1
            if self._bugs_in_a_row >= BUGS_IN_A_ROW_MAX:
                raise
            log.exception("event %s could not be screened", batch[0].event.event_id)
            return [Refused(BadEvent("internal error", hint="report it with the log", code="internal_error"))]
        self._bugs_in_a_row = 0
        return answers

    async def _commit(self, batch: Sequence[Received]) -> list[Answer]:
        for _ in range(self._settings.conflict_retries_max):
            try:
                return await self._attempt(batch)
            except StateConflict:
                metrics.CONFLICTS.inc()
        accounts = sorted(unscoped(key)[1] for key in _accounts(batch))
        raise StateConflict(f"another worker kept writing these accounts: {accounts[:5]}")

    def forget(self) -> None:
        """Drop every cached account state (after partitions were taken away)."""
        self._states.clear()

    async def prune(self) -> int:
        """Delete counts of shared windows that are older than any event still to come may read; how many.

        Raises StoreUnavailable.
        """
        newest = await self._repository.newest_event_time()
        if newest is None or self._book is None:
            return 0
        oldest_us = microseconds(newest - WINDOWS_KEPT)
        before = {
            window.key: oldest_us // bucket_us(window) - BUCKETS
            for window in self._book.pack.rules.windows
            if window.entity != "account"
        }
        return await self._repository.prune_window_counts(before)

    async def _attempt(self, batch: Sequence[Received]) -> list[Answer]:
        with metrics.STAGE_SECONDS.labels("load").time():
            async with self._repository.one_transaction() as repository:
                book = await self._turn(repository)
                if self._serving:
                    self._serving.follow(await repository.models.head())
                    self._serving.turn()
                known = await self._know(batch, book.pack.rules, repository)
                states = await self._check_out(_accounts(batch), book.pack.rules, repository)
        with metrics.STAGE_SECONDS.labels("features").time():
            answers, labels = self._take(batch, known, states)
        taken = [answer for answer in answers if isinstance(answer, _Taken)]
        with metrics.STAGE_SECONDS.labels("engine").time():
            scores, missing_reason = await self._score(taken)
        with metrics.STAGE_SECONDS.labels("rules").time():
            records = [
                self._decide(item, score, missing_reason, book.pack, known, states[account_key(item.event)][1])
                for item, score in zip(taken, scores, strict=True)
            ]
        with metrics.STAGE_SECONDS.labels("shadow").time():
            shadow = await self._shadow(taken, records, book.pack)
        touched = {account_key(item.event) for item in taken} | {account_key(label) for label in labels}
        alerts = [r for r in records if book.pack.policy.opens_case(r.event.type, r.decision.outcome)]
        if touched:
            with metrics.STAGE_SECONDS.labels("commit").time():
                await self._repository.commit(
                    Changes(
                        records=records,
                        labels=labels,
                        states={a: StoredState(states[a][0], states[a][1].dump()) for a in sorted(touched)},
                        counts=known.feedback.increments(),
                        window_counts=known.shared.increments(),
                        alerts=alerts,
                        activation=book.activation,
                        shadow=shadow,
                        due=book.pack.policy.due,
                    )
                )
        self._check_in(states, touched)
        for record in records:
            decision = record.decision
            metrics.DECISIONS.labels(decision.outcome, decision.degraded).inc()
            if decision.degraded:
                metrics.DEGRADED.labels(missing_reason).inc()
            metrics.LATENCY_SECONDS.observe(decision.latency_ms / 1000)
        return _finish(batch, answers, records, known, {event_key(alert.event) for alert in alerts})

    async def _turn(self, repository: Repository) -> Book:
        """The book in force; when it is another one, accounts are read anew, for their windows may be others.

        Raises NotFound when nothing was ever put in force.
        """
        head = await repository.rulebook.head()
        if head is None:
            raise NotFound("no rules are in force: `fraudguard rules publish`, or start a worker")
        if self._book is None or self._book.activation != head.activation:
            self._book = await open_book(repository, head, self._fields)
            self.forget()
            log.warning("deciding by release %d: rules %s", head.number, head.rules_version)
        return self._book

    async def _know(self, batch: Sequence[Received], rules: RuleSet, repository: Repository) -> _Known:
        """Earlier decisions of these events and label targets, their labels, and what shared entities counted."""
        labels = [item.event for item in batch if isinstance(item.event, Label)]
        keys = {event_key(item.event) for item in batch} | {target_key(label) for label in labels}
        earlier = await repository.earlier(keys)
        stored = await repository.labels(keys)
        label_ids = await repository.labels_by_id([event_key(label) for label in labels]) if labels else {}
        fresh = [
            item.event for item in batch if isinstance(item.event, Transaction) and event_key(item.event) not in earlier
        ]
        counts = []
        if fresh:
            delay = self._settings.label_delay_days
            first_day = min(day_of(event) for event in fresh) - delay - max(WINDOWS_DAYS)
            counts = await repository.entity_counts({k for event in fresh for k in keys_of(event)}, first_day)
        shared = {key for event in fresh for key in shared_keys(rules.windows, event)}
        buckets = await repository.window_counts(shared) if shared else []
        events = [item.event for item in batch if not isinstance(item.event, Label)]
        asked = {
            (watch_list, value)
            for event in events
            for field, watch_list in rules.memberships.values()
            if (value := getattr(event, field, None)) is not None
        }
        return _Known(
            earlier,
            stored,
            label_ids,
            FeedbackView(counts, self._settings.label_delay_days),
            SharedWindows(rules.windows, buckets),
            await repository.lists.members(asked) if asked else {},
        )

    async def _check_out(
        self, accounts: Collection[str], rules: RuleSet, repository: Repository
    ) -> dict[str, tuple[int, AccountState]]:
        """States by account as (version read, state). They leave the cache until the batch is committed.

        Windows that an account has not counted before are counted over its stored events.
        """
        states = {a: self._states.pop(a) for a in accounts if a in self._states}
        missing = [a for a in accounts if a not in states]
        stored = await repository.states(missing) if missing else {}
        settings = self._settings
        for account in missing:
            state = AccountState(
                account,
                self._counter,
                rates=self._rates,
                tokens_max=settings.timeline_tokens_max,
                lateness_s=settings.lateness_s,
                zone=self._zone,
                windows=rules.windows,
            )
            version = 0
            if account in stored:
                version = stored[account].version
                state.restore(stored[account].body)
            states[account] = (version, state)
        unfilled = {account: states[account][1] for account in stored if states[account][1].unfilled}
        if unfilled:
            since = min(state.history_from for state in unfilled.values())
            history = await repository.account_history(unfilled, since)
            for account, state in unfilled.items():
                state.fill({window.key for window in state.unfilled}, history.get(account, ()))
        return states

    def _check_in(self, states: Mapping[str, tuple[int, AccountState]], touched: Collection[str]) -> None:
        for account, (version, state) in states.items():
            self._states[account] = (version + (account in touched), state)
        while len(self._states) > self._settings.accounts_cached_max:
            self._states.popitem(last=False)
        metrics.ACCOUNTS_CACHED.set(len(self._states))

    def _take(
        self, batch: Sequence[Received], known: _Known, states: Mapping[str, tuple[int, AccountState]]
    ) -> tuple[list[Answer | _Taken | None], list[Label]]:
        """Take events into their accounts' states, in order. None stands for 'decided before, or earlier in here'."""
        answers: list[Answer | _Taken | None] = []
        taken: dict[str, _Taken] = {}
        new_labels: list[Label] = []
        for item in batch:
            event = item.event
            if isinstance(event, Label):
                answer, is_new = self._take_label(event, known, taken)
                answers.append(answer)
                if is_new:
                    new_labels.append(event)
                continue
            key = event_key(event)
            first = known.earlier.get(key) or taken.get(key)
            if first is not None:
                same = first.event.account_id == event.account_id
                answers.append(None if same else Refused(_taken_id()))
                continue
            snapshot = states[account_key(event)][1].take(event, known.feedback, known.shared)
            taken[key] = _Taken(item, event, snapshot)
            answers.append(taken[key])
            if isinstance(event, Transaction) and not snapshot.late:
                known.feedback.count(event)
                if _is_fraud(known.labels.get(key, ())):
                    known.feedback.mark(event, 1)
        return answers, new_labels

    def _take_label(self, label: Label, known: _Known, taken: Mapping[str, _Taken]) -> tuple[Answer, bool]:
        """Answer and whether the label is new. Moves the feedback counters when the target's verdict changes."""
        key, about = event_key(label), target_key(label)
        if first := known.label_ids.get(key):
            same = first.target_event_id == label.target_event_id
            return (Labelled(first) if same else Refused(_taken_id())), False
        earlier, fresh = known.earlier.get(about), taken.get(about)
        target = earlier.event if earlier else fresh.event if fresh else None
        late = earlier.late if earlier else fresh.snapshot.late if fresh else False
        if target is not None and target.account_id != label.account_id:
            reason = "names an event of another account"
            return Refused(
                BadEvent(reason, path="target_event_id", hint="send the target's account_id", code="foreign_target")
            ), False
        others = known.labels.setdefault(about, [])
        before = _is_fraud(others)
        others.append(label)
        known.label_ids[key] = label
        if isinstance(target, Transaction) and not late and (delta := _is_fraud(others) - before):
            known.feedback.mark(target, delta)
        return Labelled(label), True

    async def _score(self, taken: Sequence[_Taken]) -> tuple[Sequence[Score | None], str]:
        """Scores in order, and why one that is None is missing."""
        if self._serving is None:
            return [None] * len(taken), "ENGINE_OFF"
        requests = [score_request(item.event, item.snapshot.timeline, item.snapshot.features) for item in taken]
        patience_s = None
        if limit_ms := self._settings.deadline_ms:
            now = self._clock.now()
            patience_s = [limit_ms / 1000 - (now - item.received.received_at).total_seconds() for item in taken]
        try:
            return await self._serving.live.score(requests, patience_s) if requests else [], "OVERLOAD"
        except EngineUnavailable as error:
            log.warning("deciding %d events without the model: %s", len(taken), error)
            return [None] * len(taken), "ENGINE_UNAVAILABLE"

    async def _shadow(
        self, taken: Sequence[_Taken], records: Sequence[DecisionRecord], pack: Pack
    ) -> list[ShadowScore]:
        """What the challenger says of decisions that are made, in what is left of the batch's time."""
        if self._serving is None or self._serving.challenger is None or not taken:
            return []
        now, within_s = self._clock.now(), self._settings.shadow_ms / 1000
        if limit_ms := self._settings.deadline_ms:
            oldest = max((now - item.received.received_at).total_seconds() for item in taken)
            within_s = min(within_s, limit_ms / 1000 - oldest)

        def judge(request: ScoreRequest, record: DecisionRecord, score: Score) -> Outcome:
            hits = pack.rules.evaluate(rule_inputs(record.features, request.timeline, score))
            return pack.policy.decide(record.event.type, score, hits, None, record.late).outcome

        requests = [score_request(item.event, item.snapshot.timeline, item.snapshot.features) for item in taken]
        decided = list(zip(requests, records, strict=True))
        return await self._serving.shadow(decided, within_s, judge, now)

    async def score_aside(self, requests: Sequence[ScoreRequest]) -> list[Score | None]:
        """Scores of what is no event, read when no event waits; None for what the model has no room for.

        Raises EngineUnavailable, also where the model is switched off.
        """
        if self._serving is None:
            raise EngineUnavailable("the model is switched off")
        return await self._serving.live.score_aside(requests)

    async def look_for_models(self) -> None:
        """Begin to load what the registry names, that a batch need not come first. Raises StoreUnavailable."""
        if self._serving:
            self._serving.follow(await self._repository.models.head())

    def reload_model(self) -> None:
        """Load the champion again from its folder, and score with it from the next batch on."""
        if self._serving:
            self._serving.reload()

    def _decide(
        self,
        item: _Taken,
        score: Score | None,
        missing_reason: str,
        pack: Pack,
        known: _Known,
        state: AccountState,
    ) -> DecisionRecord:
        event, snapshot = item.event, item.snapshot
        listed = on_lists(pack.rules, snapshot.features, known.listed, event.event_time)
        features = {**snapshot.features, **state.trend(), **listed}
        if score is not None:
            state.scored(score.risk, score.typology)
        degraded_reason = missing_reason if score is None else None
        hits = tuple(pack.rules.evaluate(rule_inputs(features, snapshot.timeline, score)))
        verdict = pack.policy.decide(event.type, score, hits, degraded_reason, snapshot.late)
        decided_at = self._clock.now()
        decision = Decision(
            decision_id=decision_id_of(event_key(event)),
            event_id=event.event_id,
            event_type=event.type,
            account_id=event.account_id,
            sequence=snapshot.sequence,
            outcome=verdict.outcome,
            risk=score.risk if score else None,
            typology=score.typology if score else None,
            reasons=verdict.reasons,
            hits=wire_hits(hits),
            degraded=score is None,
            model=score.model if score else self._serving.live.name if self._serving else "off",
            rules_version=pack.rules.version,
            decided_at=decided_at,
            latency_ms=max(0.0, round((decided_at - item.received.received_at).total_seconds() * 1000, 3)),
            severity=verdict.severity,
            tenant=tenant_of(event),
        )
        return DecisionRecord(
            decision=decision,
            event=event,
            received_at=item.received.received_at,
            late=snapshot.late,
            line=snapshot.timeline.lines[-1].text,
            timeline_start=snapshot.timeline.start,
            timeline_hash=snapshot.timeline.hash,
            features=features,
            score=score,
            hits=hits,
            policy_version=pack.policy.version,
            sealed_text=item.received.sealed_text,
        )


def on_lists(
    rules: RuleSet, features: Mapping[str, Scalar], entries: Mapping[tuple[str, str], datetime | None], at: datetime
) -> dict[str, Scalar]:
    """What the rules ask of lists, answered as of an event's time; missing where the event has no such entity.

    entries: until when each (list, value) holds, None for good.
    """
    answers: dict[str, Scalar] = {}
    for name, (field, watch_list) in rules.memberships.items():
        value = features.get(field)
        until = entries.get((watch_list, value), at) if isinstance(value, str) else at
        answers[name] = (until is None or at < until) if isinstance(value, str) else None
    return answers


def wire_hits(hits: Iterable[Hit]) -> tuple[DecisionHit, ...]:
    """The live hits as consumers see them; shadow hits stay in the store."""
    return tuple(DecisionHit(rule=h.rule, version=h.version, outcome=h.outcome) for h in hits if h.state == "live")


def _accounts(batch: Sequence[Received]) -> list[str]:
    """Their keys."""
    return list(dict.fromkeys(account_key(item.event) for item in batch))


def _is_fraud(labels: Iterable[Label]) -> bool:
    """Whether the newest label says fraud; equal times go by id, so that arrival order does not matter."""
    newest = max(labels, key=lambda label: (label.event_time, label.event_id), default=None)
    return newest is not None and newest.verdict == "fraud"


def _taken_id() -> BadEvent:
    return BadEvent(
        "was already used by another event",
        path="event_id",
        hint="event ids are unique over all accounts of a tenant",
        code="duplicate_event_id",
    )


def _finish(
    batch: Sequence[Received],
    answers: Sequence[Answer | _Taken | None],
    records: Sequence[DecisionRecord],
    known: _Known,
    alerts: Collection[str],
) -> list[Answer]:
    by_key = {event_key(record.event): record for record in records}
    done: list[Answer] = []
    for item, answer in zip(batch, answers, strict=True):
        key = event_key(item.event)
        if isinstance(answer, _Taken):
            done.append(Decided(by_key[key], fresh=True, alert=key in alerts))
        elif answer is None:
            metrics.DUPLICATES.inc()
            done.append(Decided(known.earlier.get(key) or by_key[key], fresh=False))
        else:
            done.append(answer)
    return done

"""What a rule set would have done to decisions of the past: hits, money, alerts and the outcomes it changes.

Evaluates with the same RuleSet and Policy as the stream. A rule whose condition stood in the set that decided is not
evaluated again: it held where it was stored as a hit (contract 2; the tests hold this to a full evaluation).
Knows stored decisions and files of them; knows no model: the risk is the one that was stored.
"""

import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal
from zoneinfo import ZoneInfo

import orjson

from fraudguard.config import Settings
from fraudguard.decisions.pages import PAGE_MAX
from fraudguard.decisions.policy import Verdict as PolicyVerdict
from fraudguard.decisions.repository import Repository, connect
from fraudguard.decisions.rulebook import Release
from fraudguard.domain import STOPPED, Feature, Hit, Outcome, Scalar, Score, Typology, Window
from fraudguard.errors import BadInput
from fraudguard.features.declared import AccountWindows
from fraudguard.features.event import event_features
from fraudguard.features.facts import facts_of
from fraudguard.features.money import load_rates
from fraudguard.features.registry import features_in
from fraudguard.features.shared import SharedWindows
from fraudguard.features.timeline import CHAT_SPAN, said
from fraudguard.pipeline import on_lists
from fraudguard.rulebook import Pack, open_publishing, read_pack
from fraudguard.rules.declarations import read_declarations
from fraudguard.rules.expression import Field, Listed, walk
from fraudguard.rules.registry import RuleSet
from fraudguard.rules.schema import Rule
from fraudguard.rules.validators import ATTRIBUTE
from fraudguard.tenants import HOUSE, scoped

Verdict = Literal["fraud", "legitimate"]
EXAMPLES_MAX: Final = 5
SPAN: Final = timedelta(days=30)  # of decisions, where none is asked for


@dataclass(frozen=True, slots=True)
class Past:
    """One decision of the past with everything its rules and policy saw.

    inputs: what a rule may name. verdict: the newest label's, legitimate without one; None until the label delay is
    over.
    """

    decision_id: str
    account_id: str
    event_type: Literal["transaction", "message"]
    event_time: datetime
    inputs: Mapping[str, Scalar]
    score: Score | None
    degraded_reason: str | None
    late: bool
    outcome: Outcome
    hits: tuple[Hit, ...]
    rules_version: str
    policy_version: str
    verdict: Verdict | None

    @property
    def money(self) -> float:
        """What leaves the account, in the base currency."""
        out = self.inputs.get("direction") == "debit"
        amount = self.inputs.get("amount_base")
        return float(amount) if out and isinstance(amount, int | float) else 0.0


class Conversations:
    """Gives each stored decision the `chat` its rules saw; takes them by account in the order of their sequence."""

    def __init__(self) -> None:
        self._account = ""
        self._said: deque[tuple[int, datetime, str]] = deque()

    def chat(self, body: Mapping[str, Any], event_time: datetime) -> str | None:
        """The text of the timeline's messages in the day up to this decision's event; None where there is none."""
        decision = body["decision"]
        account = scoped(decision.get("tenant", HOUSE), decision["account_id"])
        if account != self._account:
            self._account, self._said = account, deque()
        if decision["event_type"] == "message":
            self._said.append((decision["sequence"], event_time, body["line"]))
        while self._said and self._said[0][0] < body["timeline_start"]:
            self._said.popleft()
        return said(((at, line) for _, at, line in self._said), event_time)


def past_of(body: Mapping[str, Any], chat: str | None, verdict: Verdict | None, degraded: frozenset[str]) -> Past:
    """A stored record's body (see decisions/records.py) as the backtest reads it.

    degraded: the reasons a policy has floors for.
    """
    decision, stored = body["decision"], body["score"]
    score = Score(stored["risk"], Typology(stored["typology"]), stored["model"]) if stored else None
    inputs = body["features"]
    inputs["chat"] = chat
    inputs["risk"] = score.risk if score else None
    inputs["typology"] = score.typology.value if score else None
    inputs["degraded"] = score is None
    return Past(
        decision_id=decision["decision_id"],
        account_id=decision["account_id"],
        event_type=decision["event_type"],
        event_time=datetime.fromisoformat(body["event"]["event_time"]),
        inputs=inputs,
        score=score,
        degraded_reason=None if score else next((r for r in decision["reasons"] if r in degraded), None),
        late=body["late"],
        outcome=Outcome(decision["outcome"]),
        hits=tuple(Hit(**hit | {"outcome": Outcome(hit["outcome"])}) for hit in body["hits"]),
        rules_version=decision["rules_version"],
        policy_version=body["policy_version"],
        verdict=verdict,
    )


def same_rules(ours: Sequence[Rule], theirs: Sequence[Rule]) -> frozenset[str]:
    """Ids of the rules that are alike in both sets in all that makes a hit."""
    known = {rule.id: _identity(rule) for rule in theirs}
    return frozenset(rule.id for rule in ours if known.get(rule.id) == _identity(rule))


def _identity(rule: Rule) -> tuple[object, ...]:
    return rule.version, rule.condition, rule.state, rule.outcome, rule.reason, rule.severity, rule.rollout


def same_conditions(ours: RuleSet, theirs: RuleSet) -> frozenset[str]:
    """Ids of active rules of ours that hold exactly where the rule of theirs with this id holds."""
    known = {rule.id: rule.condition for rule in theirs.active}
    keys = {window.name: window.key for window in theirs.windows}
    counted = {window.name for window in ours.windows if keys.get(window.name) == window.key}
    other = {window.name for window in ours.windows} - counted
    return frozenset(
        rule.id
        for rule in ours.active
        if known.get(rule.id) == rule.condition
        and not any(isinstance(node, Field) and node.name in other for node in walk(rule.condition))
    )


class Evaluation:
    """The hits and outcome of a candidate set on decisions of the past."""

    def __init__(self, pack: Pack, deciding: Mapping[str, RuleSet]) -> None:
        """deciding: rule sets by version, as far as they are known; without one all rules are evaluated."""
        self._rules, self._policy, self._deciding = pack.rules, pack.policy, deciding
        self._plans: dict[str, tuple[RuleSet, frozenset[str]]] = {}

    def hits(self, past: Past) -> list[Hit]:
        """As RuleSet.evaluate would give them."""
        rest, same = self._plan(past.rules_version)
        hits = rest.evaluate(past.inputs) if rest.active else []
        if not same or not past.hits:
            return hits
        held = {hit.rule for hit in hits} | {hit.rule for hit in past.hits if hit.rule in same}
        return self._rules.hits_of(held, past.account_id)

    def verdict(self, past: Past, hits: Sequence[Hit]) -> PolicyVerdict:
        """As the policy decides."""
        return self._policy.decide(past.event_type, past.score, hits, past.degraded_reason, past.late)

    def outcome(self, past: Past, hits: Sequence[Hit]) -> Outcome:
        """The verdict's; the stored one where the same hits were decided by this very policy."""
        if past.policy_version == self._policy.version and past.hits == tuple(hits):
            return past.outcome
        return self.verdict(past, hits).outcome

    def _plan(self, version: str) -> tuple[RuleSet, frozenset[str]]:
        """What is to be evaluated, and which stored hits are taken over, of decisions made with this set."""
        if version not in self._plans:
            decided = self._deciding.get(version)
            same = same_conditions(self._rules, decided) if decided else frozenset[str]()
            self._plans[version] = (self._rules.without(same) if same else self._rules, same)
        return self._plans[version]


@dataclass(slots=True)
class Side:
    """Decisions by what they turned out to be, with the money that would have left. open: not known yet."""

    fraud: int = 0
    legitimate: int = 0
    open: int = 0
    fraud_money: float = 0.0
    legitimate_money: float = 0.0

    def add(self, past: Past) -> None:
        """Count one decision."""
        if past.verdict == "fraud":
            self.fraud += 1
            self.fraud_money += past.money
        elif past.verdict == "legitimate":
            self.legitimate += 1
            self.legitimate_money += past.money
        else:
            self.open += 1

    @property
    def all(self) -> int:
        """How many."""
        return self.fraud + self.legitimate + self.open

    @property
    def precision(self) -> float | None:
        """Share of fraud among those whose truth is known; None where none is."""
        known = self.fraud + self.legitimate
        return self.fraud / known if known else None


@dataclass(slots=True)
class RuleTally:
    """What one rule of the candidate did. alone: hits in which no other live rule hit.

    overlap: other rules that hit the same decisions. examples: of a changed rule's hits.
    """

    rule: Rule
    changed: bool
    hits: Side = field(default_factory=Side)
    days: dict[date, Side] = field(default_factory=dict)
    alone: Side = field(default_factory=Side)
    overlap: Counter[str] = field(default_factory=Counter)
    examples: list[Past] = field(default_factory=list)

    def add(self, past: Past, others: Sequence[str]) -> None:
        """Count one hit; others: the live rules that hit as well."""
        self.hits.add(past)
        self.days.setdefault(past.event_time.date(), Side()).add(past)
        self.overlap.update(others)
        if not others:
            self.alone.add(past)
        if self.changed and len(self.examples) < EXAMPLES_MAX:
            self.examples.append(past)


@dataclass(slots=True)
class Change:
    """Decisions whose outcome would have been another one."""

    side: Side = field(default_factory=Side)
    examples: list[tuple[Past, tuple[str, ...]]] = field(default_factory=list)  # with the rules that would have hit

    def add(self, past: Past, hits: Sequence[Hit]) -> None:
        """Count one decision."""
        self.side.add(past)
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append((past, tuple(hit.rule for hit in hits if hit.state == "live")))


@dataclass(slots=True)
class Day:
    """One day's decisions, and of them what was stopped as decided and what by the candidate."""

    total: Side = field(default_factory=Side)
    before: Side = field(default_factory=Side)
    after: Side = field(default_factory=Side)


@dataclass(slots=True)
class Backtest:
    """The count over all decisions. before: as decided; after: by the candidate; each by what it does to a payment.

    by_day: by the day of the event, UTC.
    """

    rules: dict[str, RuleTally]
    by_day: dict[date, Day] = field(default_factory=dict)
    total: Side = field(default_factory=Side)
    stopped_before: Side = field(default_factory=Side)
    stopped_after: Side = field(default_factory=Side)
    alerts_before: int = 0
    alerts_after: int = 0
    changes: dict[tuple[Outcome, Outcome], Change] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)
    first: datetime | None = None
    last: datetime | None = None

    @property
    def days(self) -> float:
        """The span of the decisions, at least one day."""
        if self.first is None or self.last is None:
            return 1.0
        return max(1.0, (self.last - self.first).total_seconds() / 86_400)


class Run:
    """Takes decisions one by one; `backtest` is the count so far."""

    def __init__(self, pack: Pack, deciding: Mapping[str, RuleSet]) -> None:
        """pack: the candidate. deciding: the rules in force by version, to which it is compared."""
        self._evaluation, self._policy = Evaluation(pack, deciding), pack.policy
        active = pack.rules.active
        same = {
            id
            for decided in deciding.values()
            for id in same_rules(active, decided.active) & same_conditions(pack.rules, decided)
        }
        changed = {rule.id for rule in active} - same
        nodes = [node for rule in active if rule.id in changed for node in walk(rule.condition)]
        names = {node.name for node in nodes if isinstance(node, Field | Listed)}
        self._asked = sorted(name for name in names if not name.startswith(ATTRIBUTE))  # an event may lack those
        self.backtest = Backtest({rule.id: RuleTally(rule, rule.id in changed) for rule in active})

    def take(self, past: Past) -> None:
        """Evaluate and count one decision."""
        count = self.backtest
        hits = self._evaluation.hits(past)
        outcome = self._evaluation.outcome(past, hits)
        day = count.by_day.setdefault(past.event_time.date(), Day())
        count.total.add(past)
        day.total.add(past)
        count.first = min(past.event_time, count.first or past.event_time)
        count.last = max(past.event_time, count.last or past.event_time)
        for name in self._asked:
            if name not in past.inputs:
                count.missing[name] += 1
        live = [hit.rule for hit in hits if hit.state == "live"]
        for hit in hits:
            count.rules[hit.rule].add(past, [rule for rule in live if rule != hit.rule])
        if past.outcome in STOPPED:
            count.stopped_before.add(past)
            day.before.add(past)
        if outcome in STOPPED:
            count.stopped_after.add(past)
            day.after.add(past)
        count.alerts_before += self._policy.opens_case(past.event_type, past.outcome)
        count.alerts_after += self._policy.opens_case(past.event_type, outcome)
        if outcome != past.outcome:
            count.changes.setdefault((past.outcome, outcome), Change()).add(past, hits)


@dataclass(frozen=True, slots=True)
class Source:
    """Which decisions: stored ones with an event time from since to before until, or those of a file.

    since None: SPAN before until. until None: the newest. save: also write them there, for `file`.
    """

    since: datetime | None = None
    until: datetime | None = None
    file: Path | None = None
    save: Path | None = None


async def run(settings: Settings, source: Source, release: int | None, advance: Callable[[], None]) -> Backtest:
    """Try a release, or the files that settings name, on decisions of the past. advance: called after each of them.

    Raises BadRule, BadPolicy, NotFound for a release that is not stored, BadInput for a damaged file.
    """
    if source.file is None or release is not None:
        async with connect(settings.database_url.get_secret_value()) as repository:
            return await _Stored(settings, repository, source).run(release, advance)
    # A file and the rule files: no database is needed.
    fields = features_in(settings.base_currency)
    pack = read_pack(settings.rules_dir, settings.policy_path, fields)
    deciding = read_deciding(source.file, fields)
    return _count(Run(pack, deciding), read_file(source.file, pack.policy.degraded_reasons), advance)


def _count(counting: Run, decisions: Iterable[Past], advance: Callable[[], None]) -> Backtest:
    for past in decisions:
        counting.take(past)
        advance()
    return counting.backtest


def read_deciding(path: Path, fields: Sequence[Feature]) -> dict[str, RuleSet]:
    """The rules that were in force when the file was saved, by version; none if there were none. Raises BadInput."""
    with path.open("rb") as lines:
        try:
            saved: dict[str, dict[str, str]] = orjson.loads(lines.readline())["in_force"]
        except (ValueError, KeyError, TypeError) as error:
            raise _not_saved(path, 1, error) from error
    return {version: RuleSet.from_published(sources, fields) for version, sources in saved.items()}


def read_file(path: Path, degraded: frozenset[str]) -> Iterator[Past]:
    """The decisions that a backtest saved, in the lines behind the first. Raises BadInput with the line."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = orjson.loads(line)
                if number > 1:
                    yield past_of(row["body"], row["chat"], row["verdict"], degraded)
            except (ValueError, KeyError, TypeError) as error:
                raise _not_saved(path, number, error) from error


def _not_saved(path: Path, number: int, error: Exception) -> BadInput:
    hint = "write it with `fraudguard rules backtest --save`"
    return BadInput(f"not a saved decision: {error!r}", path=f"{path}:{number}", hint=hint)


class _Stored:
    """A backtest on the decisions in PostgreSQL."""

    def __init__(self, settings: Settings, repository: Repository, source: Source) -> None:
        self._settings, self._repository, self._source = settings, repository, source
        self._fields = features_in(settings.base_currency)
        self._publishing = open_publishing(settings, repository)

    async def run(self, release: int | None, advance: Callable[[], None]) -> Backtest:
        source, settings = self._source, self._settings
        if release is None:
            pack = read_pack(settings.rules_dir, settings.policy_path, self._fields)
        else:
            pack = await self._publishing.pack(await self._repository.rulebook.release(release))
        head = await self._publishing.head()
        in_force = await self._publishing.pack(head) if head else None
        deciding = {in_force.rules.version: in_force.rules} if in_force else {}
        counting = Run(pack, deciding)
        if source.file is not None:
            return _count(counting, read_file(source.file, pack.policy.degraded_reasons), advance)
        with ExitStack() as stack:
            save = stack.enter_context(source.save.open("wb")) if source.save else None
            if save:
                save.write(
                    orjson.dumps({"in_force": {v: dict(rules.sources) for v, rules in deciding.items()}}) + b"\n"
                )
            async for past in self._decisions(pack, save):
                counting.take(past)
                advance()
        return counting.backtest

    async def _decisions(self, pack: Pack, save: BinaryIO | None) -> AsyncIterator[Past]:
        """Stored decisions by account, in sequence, with what the candidate asks and they were not stored with."""
        newest = await self._repository.newest_event_time()
        if newest is None:
            return
        rules, degraded = pack.rules, pack.policy.degraded_reasons
        until = self._source.until or newest + timedelta(microseconds=1)
        since = self._source.since or until - SPAN
        settled = newest - timedelta(days=self._settings.label_delay_days)
        labels = await self._repository.labels_between(since, until)
        verdicts: dict[str, Verdict] = {key: told[-1].verdict for key, told in labels.items()}
        stored_keys = await self._stored_keys(since) if rules.windows else {}
        fresh = [w for w in rules.windows if not all(w.key in keys for keys in stored_keys.values())]
        declared = await self._declared(fresh, since, until) if fresh else {}
        entries = await self._entries({watch_list for _, watch_list in rules.memberships.values()})
        conversations = Conversations()
        # The conversation of the first decisions began before them.
        async for stored in self._repository.stored_decisions(since - CHAT_SPAN, until):
            body = orjson.loads(stored.body)
            chat = conversations.chat(body, stored.event_time)
            if stored.event_time < since:
                continue
            features = body["features"]
            key = scoped(body["decision"].get("tenant", HOUSE), body["event"]["event_id"])
            if key in declared:
                keys = stored_keys.get(body["decision"]["rules_version"], frozenset())
                features |= {w.name: declared[key][w.name] for w in fresh if w.key not in keys}
            if rules.memberships:
                features |= {
                    name: answer
                    for name, answer in on_lists(rules, features, entries, stored.event_time).items()
                    if name not in features
                }
            # Fraud may be known at once, the lack of it only later: counted early, it would make every share look good.
            verdict: Verdict | None = verdicts.get(key, "legitimate") if stored.event_time < settled else None
            if save:
                save.write(orjson.dumps({"body": body, "chat": chat, "verdict": verdict}) + b"\n")
            yield past_of(body, chat, verdict, degraded)

    async def _stored_keys(self, since: datetime) -> dict[str, frozenset[str]]:
        """By rules version, the windows that decisions of events since then were stored with."""
        releases: list[Release] = []
        cursor = None
        while True:
            page = await self._repository.rulebook.releases(PAGE_MAX, cursor)
            releases += page.items
            cursor = page.next
            if cursor is None:
                break
        # No decision is made longer before its event than the door lets pass.
        first = since - timedelta(seconds=self._settings.future_s)
        activated = sorted((r.activated_at, r.rules_version) for r in releases if r.activated_at is not None)
        before = [version for at, version in activated if at <= first][-1:]
        after = [version for at, version in activated if at > first]
        keys: dict[str, frozenset[str]] = {}
        for version in {*before, *after}:
            sources = json.loads(await self._repository.document("rules", version))
            keys[version] = frozenset(w.key for w in read_declarations(sources, self._fields).windows)
        return keys

    async def _entries(self, lists: Collection[str]) -> dict[tuple[str, str], datetime | None]:
        """The lists' entries of today by (list, value), until when each holds."""
        entries: dict[tuple[str, str], datetime | None] = {}
        for name in lists:
            page = await self._repository.lists.page(name, PAGE_MAX)
            while True:
                entries |= {(name, entry.value): entry.expires_at for entry in page.items}
                if page.next is None:
                    break
                page = await self._repository.lists.page(name, PAGE_MAX, page.next)
        return entries

    async def _declared(
        self, windows: Sequence[Window], since: datetime, until: datetime
    ) -> dict[str, dict[str, Scalar]]:
        """Windows that the decisions were not stored with, counted over the stored events as they were decided.

        By event id; holds the span's events in memory.
        """
        settings, rates = self._settings, load_rates(self._settings.base_currency, self._settings.rates_path)
        zone, span = ZoneInfo(settings.time_zone), timedelta(seconds=max(window.seconds for window in windows))
        begin = since - span - timedelta(seconds=settings.lateness_s)
        history = [past async for past in self._repository.history(begin) if past.event.event_time < until]
        history.sort(key=lambda past: (past.decided_at, past.event.event_id))
        shared, accounts, latest = SharedWindows(windows, ()), dict[str, AccountWindows](), dict[str, int]()
        values: dict[str, dict[str, Scalar]] = {}
        for past in history:
            event, account = past.event, scoped(past.tenant, past.event.account_id)
            facts = facts_of(event, rates)
            own_features = event_features(event, facts, zone, late=past.late)
            own = accounts.setdefault(account, AccountWindows(windows))
            at = facts.us
            newest = latest[account] = max(latest.get(account, at), at)
            if past.late:
                at = newest
            else:
                own.add(own.entries(own_features), at, newest - settings.lateness_s * 1_000_000)
            read = own.read(at) | shared.take(event, own_features, late=past.late)
            if event.event_time >= since:
                values[scoped(past.tenant, event.event_id)] = read
        return values

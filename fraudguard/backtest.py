"""What a rule set would have done to decisions of the past: hits, money, alerts and the outcomes it changes.

Evaluates with the same RuleSet and Policy as the stream. A rule that stood word for word in the set that decided is not
evaluated again: its stored hits are what an evaluation would give (contract 2; the tests hold this to a full one).
Knows stored decisions and files of them; knows no model: the risk is the one that was stored.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, Literal

from fraudguard.decisions.policy import Policy
from fraudguard.domain import Feature, Hit, Outcome, Scalar, Score, Typology
from fraudguard.features.timeline import CHAT_SPAN
from fraudguard.rules.registry import RuleSet
from fraudguard.rules.schema import Rule

Verdict = Literal["fraud", "legitimate"]
EXAMPLES_MAX: Final = 5
STOPPED: Final = frozenset({Outcome.REVIEW, Outcome.BLOCK})  # the outcomes that hold a payment up


@dataclass(frozen=True, slots=True)
class Past:
    """One decision of the past with everything its rules and policy saw.

    inputs: what a rule may name. verdict: the newest label's; None where there is none and the label delay is not over.
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
        if decision["account_id"] != self._account:
            self._account, self._said = decision["account_id"], deque()
        if decision["event_type"] == "message":
            self._said.append((decision["sequence"], event_time, body["line"].partition(": ")[2]))
        while self._said and self._said[0][0] < body["timeline_start"]:
            self._said.popleft()
        texts = [text for _, at, text in self._said if event_time - CHAT_SPAN < at <= event_time]
        return "\n".join(texts) if texts else None


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
        hits=tuple(
            Hit(hit["rule"], hit["version"], Outcome(hit["outcome"]), hit["reason"], hit["state"])
            for hit in body["hits"]
        ),
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


class Evaluation:
    """The hits and outcome of a candidate set on decisions of the past."""

    def __init__(
        self,
        rules: RuleSet,
        policy: Policy,
        fields: Sequence[Feature],
        deciding: Callable[[str], RuleSet | None],
    ) -> None:
        """deciding: the rule set of a version, as far as it is known; without it everything is evaluated."""
        self._rules, self._policy, self._fields, self._deciding = rules, policy, fields, deciding
        self._order = {rule.id: i for i, rule in enumerate(rules.active)}
        self._plans: dict[str, tuple[RuleSet, frozenset[str]]] = {}

    def hits(self, past: Past) -> list[Hit]:
        """As RuleSet.evaluate would give them."""
        rest, same = self._plan(past.rules_version)
        hits = rest.evaluate(past.inputs)
        if same and past.hits:
            hits += [hit for hit in past.hits if hit.rule in same]
            hits.sort(key=lambda hit: self._order[hit.rule])
        return hits

    def outcome(self, past: Past, hits: Sequence[Hit]) -> Outcome:
        """As the policy decides."""
        return self._policy.decide(past.event_type, past.score, hits, past.degraded_reason, past.late).outcome

    def _plan(self, version: str) -> tuple[RuleSet, frozenset[str]]:
        """What is to be evaluated, and which stored hits are taken over, of decisions made with this set."""
        if version not in self._plans:
            decided = self._deciding(version)
            same = same_rules(self._rules.active, decided.active) if decided else frozenset[str]()
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

    overlap: other rules that hit the same decisions. missing: decisions in which an input it names was not stored.
    """

    rule: Rule
    changed: bool
    hits: Side = field(default_factory=Side)
    days: dict[date, Side] = field(default_factory=dict)
    alone: Side = field(default_factory=Side)
    overlap: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, past: Past, others: Sequence[str]) -> None:
        """Count one hit; others: the live rules that hit as well."""
        self.hits.add(past)
        self.days.setdefault(past.event_time.date(), Side()).add(past)
        self.overlap.update(others)
        if not others:
            self.alone.add(past)
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(past.decision_id)


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
class Backtest:
    """The count over all decisions. before: as decided; after: by the candidate; each by what it does to a payment."""

    rules: dict[str, RuleTally]
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

    def __init__(self, evaluation: Evaluation, policy: Policy, rules: RuleSet, changed: frozenset[str]) -> None:
        """changed: ids of the rules that are new or other than those in force."""
        self._evaluation, self._policy = evaluation, policy
        self._asked = sorted(rules.inputs_of(changed))
        self.backtest = Backtest({rule.id: RuleTally(rule, rule.id in changed) for rule in rules.active})

    def take(self, past: Past) -> None:
        """Evaluate and count one decision."""
        count = self.backtest
        hits = self._evaluation.hits(past)
        outcome = self._evaluation.outcome(past, hits)
        count.total.add(past)
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
        if outcome in STOPPED:
            count.stopped_after.add(past)
        count.alerts_before += self._policy.opens_case(past.event_type, past.outcome)
        count.alerts_after += self._policy.opens_case(past.event_type, outcome)
        if outcome != past.outcome:
            count.changes.setdefault((past.outcome, outcome), Change()).add(past, hits)


@dataclass(frozen=True, slots=True)
class Source:
    """Which decisions: stored ones with an event time from since to before until, or those of a file.

    since None: SPAN before until. until None: the newest. save: also write them there.
    """

    since: datetime | None
    until: datetime | None
    file: Path | None
    save: Path | None


async def run(settings: Settings, console: Console, source: Source, release: int | None) -> Backtest:
    """Try a release, or the files that settings name, on decisions of the past, with a progress bar.

    Raises BadRule, BadPolicy, NotFound for a release or document that is not stored, BadInput for a damaged file.
    """
    fields = features_in(settings.base_currency)
    if source.file is not None and release is None:  # no database is needed
        pack = read_pack(settings.rules_dir, settings.policy_path, fields)
        counting = Run(Evaluation(pack.rules, pack.policy, lambda _: None), pack, frozenset(r.id for r in pack.rules.active))
        with progress_bar(console) as advance:
            for past in read_file(source.file, pack.policy.degraded_reasons):
                counting.take(past)
                advance()
        return counting.backtest
    async with connect(settings.database_url.get_secret_value()) as repository:
        return await _run_stored(settings, console, source, release, repository, fields)


async def _run_stored(
    settings: Settings,
    console: Console,
    source: Source,
    release: int | None,
    repository: Repository,
    fields: Sequence[Feature],
) -> Backtest:
    publishing = open_publishing(settings, repository)
    if release is None:
        pack = read_pack(settings.rules_dir, settings.policy_path, fields)
    else:
        pack = await publishing.pack(release)
    head = await publishing.head()
    in_force = await publishing.pack(head.number) if head else None
    same = same_rules(pack.rules.active, in_force.rules.active) if in_force else frozenset[str]()
    until = source.until or await repository.newest_event_time()
    if until is None:
        return Backtest({})
    if source.until is None:
        until += timedelta(microseconds=1)
    since = source.since or until - SPAN
    stored = Stored(settings, repository, since, until, pack.rules)
    await stored.prepare(in_force.rules.windows if in_force else ())
    known = await _deciding(repository, fields)
    counting = Run(Evaluation(pack.rules, pack.policy, known), pack, frozenset(r.id for r in pack.rules.active) - same)
    with ExitStack() as stack:
        advance = stack.enter_context(progress_bar(console))
        save = stack.enter_context(source.save.open("wb")) if source.save else None
        async for past in stored.decisions(pack.policy.degraded_reasons, save):
            counting.take(past)
            advance()
    return counting.backtest

"""Why a stored decision came out as it did, and what would have changed it.

Works with what is stored, as replay.py does: the decision's inputs, its rule set and its policy. Every "would have
been" is the same evaluation and policy over changed inputs; nothing is scored anew. One value is changed at a time and
what follows from it in other features is not: amount does not move out_sum_1d.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final

import yaml

from fraudguard.config import Settings
from fraudguard.decisions.policy import Ask, EventType, Policy, Verdict
from fraudguard.decisions.repository import connect
from fraudguard.domain import (
    Contribution,
    DecisionRecord,
    Feature,
    Hit,
    Outcome,
    Scalar,
    Score,
    Severity,
    Timeline,
    Typology,
)
from fraudguard.errors import BadInput
from fraudguard.features.registry import FEATURES, families, features_in
from fraudguard.inputs import rule_inputs
from fraudguard.rulebook import open_pack
from fraudguard.rules.expression import And, Node
from fraudguard.rules.reference import holds
from fraudguard.rules.registry import RuleSet
from fraudguard.rules.schema import Rule
from fraudguard.rules.trace import Change, Part, changes, names_of, show, trace
from fraudguard.rules.validators import Type, field_type, suggest
from fraudguard.rules.values import Value, read_values

NEAR_MISSES_MAX: Final = 10
MOVED_MAX: Final = 12  # contributions told
TEST_CHARS_MAX: Final = 90  # of a rendered test; patterns and lists of phrases are longer
FOUND_MAX: Final = 2  # phrases told of one test
SHORT_CHARS_MAX: Final = 30  # of a text that is told again where it would have to change
# What an event is, and what follows from `risk`: no value of these alone can be another.
_GIVEN: Final = {"event_type", "degraded", "typology"}


@dataclass(frozen=True, slots=True)
class Turn:
    """A change of one value that ends a hit or makes one, and the outcome of the decision then."""

    change: Change
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Asked:
    """One ask of the policy. version, condition, ends: of a rule; threshold: the risk at which the model asks so.

    without: the decision's outcome had this not asked. ends: single changes that end the hit, the smallest first.
    """

    ask: Ask
    without: Outcome
    version: int | None
    threshold: float | None
    condition: Part | None
    ends: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Band:
    """Risks from `low` (included) to `high`: what the model asks for, and the outcome with all else as it was."""

    low: float
    high: float
    asks: Outcome
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A live rule of which one part of several did not hold. needs: single changes with which it would have acted."""

    rule: str
    version: int
    outcome: Outcome
    part: Part
    needs: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Simulated:
    """The decision with some inputs changed. changed: name, value before, value then."""

    changed: tuple[tuple[str, Scalar, Scalar], ...]
    outcome: Outcome
    severity: Severity | None
    reasons: tuple[str, ...]
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """What moved the risk, where that was worked out (docs/evidence.md). effect: the risk would be so much lower."""

    what: str
    effect: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """outcome, severity, reasons: worked out again; agrees: whether outcome and reasons are those stored.

    asked: what stands first, then what an allow rule took back. bands: none without a risk. moved: the greatest first.
    """

    decision_id: str
    event_id: str
    event_type: EventType
    account_id: str
    rules_version: str
    policy_version: str
    stored: Outcome
    agrees: bool
    outcome: Outcome
    severity: Severity | None
    reasons: tuple[str, ...]
    risk: float | None
    typology: Typology | None
    asked: tuple[Asked, ...]
    bands: tuple[Band, ...]
    near_misses: tuple[NearMiss, ...]
    simulated: Simulated | None
    moved: tuple[Moved, ...] = ()


class Explainer:
    """One stored decision with the documents that it names."""

    def __init__(
        self,
        record: DecisionRecord,
        timeline: Timeline,
        rules: RuleSet,
        policy: Policy,
        fields: Sequence[Feature] = FEATURES,
    ) -> None:
        """rules, policy: of the record's versions. fields: what the rules may name."""
        self._record, self._rules, self._policy = record, rules, policy
        self._fields = {feature.name: feature for feature in fields}
        self._inputs = rule_inputs(record.features, timeline, record.score)
        self._event_type = record.decision.event_type
        self._by_id = {rule.id: rule for rule in rules.rules}
        self._reason = (
            next((r for r in record.decision.reasons if r in policy.degraded_reasons), None)
            if record.decision.degraded
            else None
        )

    def explain(self, changed: Mapping[str, Scalar] | None = None) -> Explanation:
        """The explanation; with `changed` also the decision for those inputs. Raises BadInput as `simulate` does."""
        decision = self._record.decision
        hits, verdict = self._decide(self._inputs, self._record.score, self._reason, self._record.late)
        return Explanation(
            decision_id=decision.decision_id,
            event_id=decision.event_id,
            event_type=self._event_type,
            account_id=decision.account_id,
            rules_version=decision.rules_version,
            policy_version=self._record.policy_version,
            stored=decision.outcome,
            agrees=(verdict.outcome, verdict.reasons) == (decision.outcome, decision.reasons),
            outcome=verdict.outcome,
            severity=verdict.severity,
            reasons=verdict.reasons,
            risk=decision.risk,
            typology=decision.typology,
            asked=tuple(self._asked(ask, hits) for ask in verdict.asked),
            bands=self._bands(hits),
            near_misses=self._near_misses(),
            simulated=self.simulate(changed) if changed else None,
        )

    def simulate(self, changed: Mapping[str, Scalar]) -> Simulated:
        """The decision with these inputs instead. A text is read as a case's `given` would be; null is missing.

        Raises BadInput for an unknown name (with the nearest one) or a value of another type.
        """
        read = {name: self._read(name, value) for name, value in changed.items()}
        inputs = {**self._inputs, **read}
        score, reason = self._record.score, self._reason
        if "risk" in read or "typology" in read:
            score = _score(inputs["risk"], inputs["typology"])
            inputs["degraded"] = score is None
            reason = (reason or "ENGINE_UNAVAILABLE") if score is None else None
            inputs["typology"] = score.typology.value if score else None
        late = read["late"] is True if "late" in read else self._record.late
        hits, verdict = self._decide(inputs, score, reason, late)
        return Simulated(
            tuple((name, self._inputs.get(name), value) for name, value in read.items()),
            verdict.outcome,
            verdict.severity,
            verdict.reasons,
            tuple(hit.rule for hit in hits if hit.state == "live"),
        )

    def _decide(
        self, inputs: Mapping[str, Scalar], score: Score | None, reason: str | None, late: bool
    ) -> tuple[list[Hit], Verdict]:
        hits = self._rules.evaluate(inputs)
        return hits, self._policy.decide(self._event_type, score, hits, reason, late)

    def _asked(self, ask: Ask, hits: Sequence[Hit]) -> Asked:
        score, reason = self._record.score, self._reason
        if ask.source == "model":
            score = None
        if ask.source == "floor":
            reason = None
        others = [hit for hit in hits if ask.source != "rule" or hit.rule != ask.rule]
        without = self._policy.decide(self._event_type, score, others, reason, False).outcome
        if ask.source != "rule":
            steps = dict(self._thresholds()) if ask.source == "model" else {}
            return Asked(ask, without, None, steps.get(ask.outcome), None, ())
        rule = self._by_id[ask.rule]
        parts = _own_parts(rule)
        condition = parts[0] if len(parts) == 1 else And(parts)
        traced = trace(condition, self._values(condition))
        return Asked(ask, without, rule.version, None, traced, self._turns(rule, names_of(condition), acts=False))

    def _thresholds(self) -> tuple[tuple[Outcome, float], ...]:
        score = self._record.score
        return self._policy.thresholds[self._event_type][score.typology] if score else ()

    def _bands(self, hits: Sequence[Hit]) -> tuple[Band, ...]:
        score = self._record.score
        if score is None:
            return ()
        steps = [(Outcome.APPROVE, 0.0), *reversed(self._thresholds())]
        ends = [*(low for _, low in steps[1:]), 1.0]
        return tuple(
            Band(
                low,
                high,
                asks,
                self._policy.decide(self._event_type, replace(score, risk=low), hits, None, False).outcome,
            )
            for (asks, low), high in zip(steps, ends, strict=True)
        )

    def _near_misses(self) -> tuple[NearMiss, ...]:
        """Live rules for this type of event with several parts, one of which does not hold; the most severe first."""
        found = [near for rule in self._rules.rules if rule.state == "live" and (near := self._near_miss(rule))]
        found.sort(key=lambda near: (-near.outcome.severity, _nearest(near), near.rule))
        return tuple(found[:NEAR_MISSES_MAX])

    def _near_miss(self, rule: Rule) -> NearMiss | None:
        part = self._lacking(rule)
        if part is None:
            return None
        needs = self._turns(rule, names_of(part), acts=True)
        return NearMiss(rule.id, rule.version, rule.outcome, trace(part, self._values(part)), needs)

    def _lacking(self, rule: Rule) -> Node | None:
        """The one part that kept the rule from hitting, where at least one other of its own parts holds."""
        if rule.event not in {None, self._event_type}:
            return None
        parts = _own_parts(rule)
        lacking = [part for part in parts if not holds(part, self._values(part))]
        return lacking[0] if len(lacking) == 1 and len(parts) > 1 else None

    def _turns(self, rule: Rule, names: Sequence[str], *, acts: bool) -> tuple[Turn, ...]:
        """Single changes of the named inputs that turn the rule's condition, each with the outcome then.

        acts: whether the rule must act then, which one that is not rolled out to the account does not.
        """
        types = {name: self._type(name) for name in names if name not in _GIVEN}
        turns = []
        for change in changes(rule.condition, self._values(rule.condition), types):
            score = self._record.score
            if change.name == "risk":
                if not isinstance(change.to, float) or not 0 <= change.to <= 1 or score is None:
                    continue
                score = replace(score, risk=change.to)
            hits, verdict = self._decide({**self._inputs, change.name: change.to}, score, self._reason, False)
            if any(hit.rule == rule.id and hit.state == "live" for hit in hits) is acts:
                turns.append(Turn(change, verdict.outcome))
        return tuple(turns)

    def _type(self, name: str) -> Type:
        # An input that no feature declares (a list asked about, a window) is of whatever type it comes in.
        return field_type(name, self._fields) or "any"

    def _values(self, condition: Node) -> dict[str, Value]:
        return read_values([(name, self._type(name)) for name in names_of(condition)], self._inputs)

    def _read(self, name: str, value: Scalar) -> Scalar:
        if name in {"event_type", "degraded"}:
            hint = "set risk to null" if name == "degraded" else "explain an event of that type"
            raise BadInput("cannot be changed", path=name, hint=hint)
        named = {other for rule in self._rules.rules for other in names_of(rule.condition)}
        if field_type(name, self._fields) is None and name not in named and name not in self._inputs:
            near = suggest(name, sorted({*self._fields, *named, *self._inputs}))
            raise BadInput("unknown field", path=name, hint=near or "see `fraudguard features`")
        try:
            return _typed(value, self._type(name))
        except ValueError as error:
            raise BadInput(f"must be {error}", path=name, hint="null stands for missing") from None


def _own_parts(rule: Rule) -> tuple[Node, ...]:
    """What its author joined by `and`; the type of event, which a rule states apart, left out."""
    if not isinstance(rule.condition, And):
        return (rule.condition,)
    return rule.condition.items[1:] if rule.event else rule.condition.items


def _nearest(near: NearMiss) -> float:
    return near.needs[0].change.size if near.needs else math.inf


def _typed(value: Scalar, kind: Type) -> Scalar:
    """The value by its field's type; a text as it would read in a case's `given`. Raises ValueError."""
    if value is None or value == "null":
        return None
    if isinstance(value, str) and kind == "any":
        kind = _yaml_type(value)
    if isinstance(value, str) and kind == "number":
        try:
            return float(value.replace("_", ""))
        except ValueError:
            raise ValueError("a number") from None
    if isinstance(value, str) and kind == "boolean" and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    fits = {
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "text": isinstance(value, str),
        "any": True,
    }
    if not fits[kind or "any"]:
        raise ValueError({"number": "a number", "boolean": "true or false"}.get(kind or "", "a text"))
    return value


def _yaml_type(text: str) -> Type:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return "text"
    tag = node.tag.rsplit(":", 1)[-1] if isinstance(node, yaml.ScalarNode) else ""
    kinds: Mapping[str, Type] = {"int": "number", "float": "number", "bool": "boolean"}
    return kinds.get(tag, "text")


def _score(risk: Scalar, typology: Scalar) -> Score | None:
    """The score of changed inputs; None without a risk. Raises BadInput."""
    if risk is None:
        return None
    if not isinstance(risk, int | float) or not 0 <= risk <= 1:
        raise BadInput("must be a probability", path="risk", hint="from 0 to 1, or null for no score")
    if typology not in set(Typology):
        near = get_close_matches(str(typology), list(Typology), n=1)
        hint = f"did you mean {near[0]}?" if near else "one of " + ", ".join(Typology)
        raise BadInput("is missing" if typology is None else "unknown typology", path="typology", hint=hint)
    return Score(float(risk), Typology(str(typology)), "simulated")


def render(explanation: Explanation) -> str:
    """The explanation as plain text, for a terminal."""
    e = explanation
    lines = [
        f"decision   {e.decision_id}  event {e.event_id} ({e.event_type})  account {e.account_id}",
        f"outcome    {e.outcome}, severity {e.severity or '-'}: {', '.join(e.reasons) or '-'}",
        f"versions   rules {e.rules_version}  policy {e.policy_version}",
    ]
    if not e.agrees:
        lines.append(f"DIFFERS    stored was {e.stored}; `fraudguard replay` shows how")
    lines += ["", "why"]
    for asked in e.asked:
        lines += _asked_lines(asked, e)
    lines += [] if e.asked else ["  nothing asked for more than approve"]
    lines += ["", "what would have changed it, and what would not", *_changing_lines(e)]
    if e.moved:
        lines += ["", "what moved the risk: it would be so much lower without"]
        lines += [f"  {moved.effect:+.4f}  {moved.what}" for moved in e.moved]
    if e.near_misses:
        lines += ["", f"live rules that nearly hit (at most {NEAR_MISSES_MAX})"]
    for near in e.near_misses:
        lines += [f"  {near.outcome:8} {near.rule} {near.version}", *_part_lines(near.part, 11)]
        lines += [f"           hits with {_turn(turn, e)}" for turn in near.needs]
    if e.simulated:
        s = e.simulated
        lines += [
            "",
            "with " + ", ".join(f"{name} = {show(to)} (was {show(was)})" for name, was, to in s.changed),
            f"  {_then(s.outcome, e)}, severity {s.severity or '-'}: {', '.join(s.reasons) or '-'}",
            f"  live rules that hit: {', '.join(s.rules) or 'none'}",
        ]
    return "\n".join(line.replace("\n", " / ") for line in lines) + "\n"


def _asked_lines(asked: Asked, e: Explanation) -> list[str]:
    ask = asked.ask
    detail = {
        "model": f"risk {show(e.risk)} >= {show(asked.threshold)} for {e.typology}",
        "rule": f"rule {ask.rule} {asked.version}",
        "floor": "the model gave no risk",
    }[ask.source]
    severity = f", severity {ask.severity}" if ask.severity else ""
    allowing = (other.ask.rule for other in e.asked if other.ask.outcome is Outcome.APPROVE and other.ask.rule)
    back = f"; taken back by {', '.join(allowing)}" if ask.taken_back else ""
    head = f"  {ask.outcome:8} {ask.reason}: {detail}{severity}{back}"
    return [head, *(_part_lines(asked.condition, 11) if asked.condition else [])]


def _part_lines(part: Part, indent: int) -> list[str]:
    """The tests of a condition, one a line; of an `or` that holds, only what makes it hold."""
    if part.kind == "test":
        found = [f'"{phrase.phrase}" in "{phrase.excerpt}"' for phrase in part.found[:FOUND_MAX]]
        values = [f"{name} = {show(value)}" for name, value in part.values]
        told = part.text if len(part.text) <= TEST_CHARS_MAX else f"{part.text[:TEST_CHARS_MAX]} ..."
        return [f"{' ' * indent}{'yes' if part.holds else 'no '} {told}   {', '.join(found or values)}".rstrip()]
    shown = [below for below in part.parts if part.kind != "any" or not part.holds or below.holds]
    if part.kind == "all":
        return [line for below in shown for line in _part_lines(below, indent)]
    word = "any of" if part.kind == "any" else "not"
    lines = [line for below in shown for line in _part_lines(below, indent + 4)]
    return [f"{' ' * indent}{'yes' if part.holds else 'no '} {word}", *lines]


def _changing_lines(e: Explanation) -> list[str]:
    lines = [f"  without {asked.ask.rule or asked.ask.reason}: {_then(asked.without, e)}" for asked in e.asked]
    for asked in e.asked:
        lines += [f"  {asked.ask.rule} does not hit with {_turn(turn, e)}" for turn in asked.ends]
    for band in e.bands:
        here = " (as it was)" if e.risk is not None and _within(band, e.risk) else ""
        span = f"risk from {show(band.low)} to {'' if band.high == 1 else 'below '}{show(band.high)}"
        lines.append(f"  {span}{here}: the model asks for {band.asks}; {_then(band.outcome, e)}")
    return lines


def _within(band: Band, risk: float) -> bool:
    return band.low <= risk < band.high or risk == band.high == 1.0


def _turn(turn: Turn, e: Explanation) -> str:
    was = turn.change.was
    before = f" (was {show(was)})" if not isinstance(was, str) or len(was) <= SHORT_CHARS_MAX else ""
    return f"{turn.change.text}{before}: {_then(turn.outcome, e)}"


def _then(outcome: Outcome, e: Explanation) -> str:
    return f"still {outcome}" if outcome is e.outcome else str(outcome)


async def explain_one(settings: Settings, decision_id: str, changed: Mapping[str, Scalar] | None = None) -> Explanation:
    """Explain one decision of the configured database. Raises NotFound, and BadInput for `changed`."""
    async with connect(settings.database_url.get_secret_value()) as repository:
        record = await repository.record(decision_id)
        timeline = await repository.timeline(record)
        fields = features_in(settings.base_currency)
        evidence = await repository.evidence.of(decision_id)
        pack = await open_pack(repository, record.decision.rules_version, record.policy_version, fields)
    try:
        explained = Explainer(record, timeline, pack.rules, pack.policy, fields).explain(changed)
        return replace(explained, moved=_moved(record, timeline, evidence.contributions)) if evidence else explained
    finally:
        pack.close()


def _moved(record: DecisionRecord, timeline: Timeline, contributions: Sequence[Contribution]) -> tuple[Moved, ...]:
    members = {name: names for (_, name), names in families(record.features).items()}
    return tuple(
        Moved(_what(one, record, timeline, members), one.effect) for one in contributions[:MOVED_MAX] if one.effect
    )


def _what(one: Contribution, record: DecisionRecord, timeline: Timeline, members: Mapping[str, Sequence[str]]) -> str:
    if one.kind == "line":
        return f"line {one.name}: {timeline.lines[int(one.name) - timeline.start].text}"
    if one.kind == "group":
        return f"all features of the group {one.name}"
    values = ", ".join(f"{name} = {show(record.features[name])}" for name in members.get(one.name, ()))
    return values or one.name  # a feature of an older registry

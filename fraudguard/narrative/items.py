"""The numbered evidence that a narrative may speak of and link to.

Knows a decision, what moved its risk and the rules that asked for its outcome; knows no language and no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from zoneinfo import ZoneInfo

from fraudguard.decisions.evidence import Evidence, LineRisk
from fraudguard.domain import DecisionRecord, Scalar
from fraudguard.explain import Asked
from fraudguard.features.registry import families
from fraudguard.rules.trace import Part, show

LINES_MAX: Final = 5
FEATURES_MAX: Final = 4
RULES_MAX: Final = 4
EFFECT_MIN: Final = 0.01  # what takes less from the risk is not worth a sentence
TESTS_MAX: Final = 4  # of one rule
FOUND_MAX: Final = 3  # phrases of one test

Kind = Literal["decision", "rule", "line", "feature"]


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of evidence. ref: the id of the decision or rule, a line's sequence number, a feature family's name."""

    number: int
    kind: Kind
    ref: str
    facts: Mapping[str, Scalar]


def items_of(
    record: DecisionRecord,
    lines: Sequence[LineRisk],
    evidence: Evidence | None,
    asked: Sequence[Asked],
    zone: ZoneInfo,
) -> tuple[Item, ...]:
    """The decision first, then rules, lines in the account's order, and features, numbered from 1.

    lines: of the timeline that was decided on. zone: of the times, as people are shown them elsewhere. evidence: None
    where none was made; then the lines at which the risk rose most stand for those that moved it.
    """
    made = evidence.contributions if evidence else ()
    effects: dict[tuple[str, str], float] = {(one.kind, one.name): one.effect for one in made}
    found: list[tuple[Kind, str, Mapping[str, Scalar]]] = [
        ("decision", record.decision.decision_id, _decision(record, zone))
    ]
    acting = [ask for ask in asked if ask.ask.source == "rule" and not ask.ask.taken_back and ask.condition]
    found += [("rule", ask.ask.rule, _rule(ask)) for ask in acting[:RULES_MAX]]
    found += [("line", str(line.sequence), facts) for line, facts in _lines(lines, effects, zone)]
    found += [("feature", name, facts) for name, facts in _features(record, effects)]
    return tuple(Item(number, *parts) for number, parts in enumerate(found, 1))


def _decision(record: DecisionRecord, zone: ZoneInfo) -> dict[str, Scalar]:
    decision, event = record.decision, record.event
    money = {"amount": f"{event.amount:,}", "currency": event.currency} if event.type == "transaction" else {}
    return {
        "event_type": event.type,
        **money,
        "time": f"{event.event_time.astimezone(zone):%Y-%m-%d %H:%M}",
        "outcome": decision.outcome.value,
        "risk": decision.risk,
        "typology": decision.typology.value if decision.typology else None,
    }


def _rule(asked: Asked) -> dict[str, Scalar]:
    tests = _tests(asked.condition) if asked.condition else []
    return {
        "rule": asked.ask.rule,
        "version": asked.version,
        "outcome": asked.ask.outcome.value,
        "tests": "; ".join(tests[:TESTS_MAX]),
    }


def _tests(part: Part) -> list[str]:
    """The tests that made a condition hold, each with the values that it read."""
    if part.kind != "test":
        return [told for below in part.parts if below.holds for told in _tests(below)]
    if not part.holds:
        return []
    if part.found:
        return [", ".join(f'"{phrase.phrase}"' for phrase in part.found[:FOUND_MAX])]
    return [", ".join(f"{name} = {show(value)}" for name, value in part.values) or part.text]


def _lines(
    lines: Sequence[LineRisk], effects: Mapping[tuple[str, str], float], zone: ZoneInfo
) -> list[tuple[LineRisk, Mapping[str, Scalar]]]:
    """Those that moved the risk most, in the account's order; if nothing of it was said, the newest message too."""
    before: float | None = None
    told = []
    for line in lines:
        effect = effects.get(("line", str(line.sequence)))
        rise = (line.risk or 0.0) - (before or 0.0)
        facts: dict[str, Scalar] = {
            "event_type": line.event_type,
            "time": f"{line.event_time.astimezone(zone):%H:%M}",
            "text": line.line,
            "risk_before": before,
            "risk": line.risk,
            "effect": effect,
        }
        told.append((effect if effects else rise, line, facts))
        before = before if line.risk is None else line.risk
    most = sorted((one for one in told if (one[0] or 0.0) >= EFFECT_MIN), key=lambda one: -(one[0] or 0.0))
    chosen = {line.sequence for _, line, _ in most[:LINES_MAX]}
    said = [line.sequence for line in lines if line.event_type == "message"]
    if not chosen & set(said):
        chosen |= set(said[-1:])
    return [(line, facts) for _, line, facts in told if line.sequence in chosen]


def _features(
    record: DecisionRecord, effects: Mapping[tuple[str, str], float]
) -> list[tuple[str, Mapping[str, Scalar]]]:
    members = {name: names for (_, name), names in families(record.features).items()}
    most = sorted(
        ((effect, name) for (kind, name), effect in effects.items() if kind == "feature" and effect >= EFFECT_MIN),
        key=lambda one: (-one[0], one[1]),
    )
    return [
        (name, {**{part: record.features[part] for part in members.get(name, ())}, "effect": effect})
        for effect, name in most[:FEATURES_MAX]
    ]

"""Why an alert is one: each hit of its rules with the values that fired, and what is usual for the account.

Knows stored decisions, the rule sources that decided them, and features by name; scores nothing and compiles nothing.
"""

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fraudguard.decisions.connection import on_behalf_of
from fraudguard.decisions.repository import Repository
from fraudguard.domain import DecisionRecord, Feature, Hit, Outcome, Scalar, Timeline
from fraudguard.errors import NotFound
from fraudguard.features.registry import features_in
from fraudguard.features.timeline import chat
from fraudguard.rules.expression import And
from fraudguard.rules.schema import Contents, Rule, read_contents
from fraudguard.rules.trace import Part, names_of, trace
from fraudguard.rules.validators import field_type
from fraudguard.rules.values import read_values
from fraudguard.tenants import HOUSE

CONTENTS_MAX: Final = 8  # rule sets that are kept read
_PLAIN: Final = {"event_type", "direction", "kind", "channel"}  # the timeline shows them beside the line


@dataclass(frozen=True, slots=True)
class Fact:
    """A value that a rule read where it held. feature: what it is, None for an event's own attribute."""

    name: str
    value: Scalar
    feature: Feature | None


@dataclass(frozen=True, slots=True)
class Reason:
    """A rule's hit. when: its condition as written; said: phrases that it found in the talk.

    when is empty where this build has the rule no more; decision: the newest one that the rule hit.
    """

    hit: Hit
    description: str
    when: str
    facts: tuple[Fact, ...]
    said: tuple[str, ...]
    decision: DecisionRecord
    times: int


class RuleShelf:
    """Rule sets as written, by the version that a decision names; the newest few stay read."""

    def __init__(self, currency: str) -> None:
        self._fields = features_in(currency)
        self._read: OrderedDict[str, Contents] = OrderedDict()

    async def contents(self, repository: Repository, version: str) -> Contents | None:
        """The rules and fields of a version; None where it was not stored."""
        if version not in self._read:
            try:
                with on_behalf_of(HOUSE):  # a rule that hit is told of, whose decision it ever was
                    sources = json.loads(await repository.document("rules", version))
            except NotFound:
                return None
            self._read[version] = read_contents(sources, self._fields)
            if len(self._read) > CONTENTS_MAX:
                self._read.popitem(last=False)
        return self._read[version]


async def reasons(
    shelf: RuleShelf, repository: Repository, alerts: Sequence[tuple[DecisionRecord, Timeline]]
) -> list[Reason]:
    """The live hits of these decisions, each rule once with its newest, the strongest outcome first."""
    newest: dict[str, Reason] = {}
    for record, timeline in alerts:
        contents = await shelf.contents(repository, record.decision.rules_version)
        for hit in record.hits:
            if hit.state == "live" and hit.outcome is not Outcome.APPROVE:
                before = newest.get(hit.rule)
                newest[hit.rule] = _reason(hit, contents, record, timeline, before.times + 1 if before else 1)
    return sorted(newest.values(), key=lambda r: (-r.hit.outcome.severity, -r.decision.decision.sequence, r.hit.rule))


def _reason(hit: Hit, contents: Contents | None, record: DecisionRecord, timeline: Timeline, times: int) -> Reason:
    rule = next((r for r in contents.rules if (r.id, r.version) == (hit.rule, hit.version)), None) if contents else None
    if rule is None or contents is None:
        return Reason(hit, "", "", (), (), record, times)
    fields = {feature.name: feature for feature in contents.fields}
    tests = list(_holding(_traced(rule, fields, _inputs(record, timeline))))
    values = {name: value for test in tests for name, value in test.values if name not in _PLAIN and name != "chat"}
    said = dict.fromkeys(found.phrase for test in tests for found in test.found)
    facts = tuple(Fact(name, value, fields.get(name)) for name, value in values.items() if value is not None)
    return Reason(hit, rule.description.strip(), rule.when.strip(), facts, tuple(said), record, times)


def _inputs(record: DecisionRecord, timeline: Timeline) -> Mapping[str, Scalar]:
    """What rules could name then; the model's word as it was stored."""
    score = record.score
    return {
        **record.features,
        "chat": chat(timeline),
        "risk": score.risk if score else None,
        "typology": score.typology.value if score else None,
        "degraded": score is None,
    }


def _traced(rule: Rule, fields: Mapping[str, Feature], inputs: Mapping[str, Scalar]) -> Part:
    parts = rule.condition.items[1:] if rule.event and isinstance(rule.condition, And) else (rule.condition,)
    condition = parts[0] if len(parts) == 1 else And(parts)
    slots = [(name, field_type(name, fields) or "any") for name in names_of(condition)]
    return trace(condition, read_values(slots, inputs))


def _holding(part: Part) -> Iterator[Part]:
    """The tests that made it hold: of `any` those that held; what stands under `not` did not happen."""
    if part.kind == "test":
        if part.holds:
            yield part
    elif part.kind != "not":
        for item in part.parts:
            yield from _holding(item)


@dataclass(frozen=True, slots=True)
class Habit:
    """One thing beside its usual. key: `usual.<key>`; ratio: how many times the usual, None where there is none."""

    key: str
    now: float
    usual: float | None
    unit: str

    @property
    def ratio(self) -> float | None:
        """Now over usual."""
        return self.now / self.usual if self.usual else None


def habits(record: DecisionRecord) -> list[Habit]:
    """What this payment is beside what the account usually does. Daily means are over the 30 days before it."""
    f = record.features
    found = []
    amount, usual = _number(f.get("amount_base")), _number(f.get("amount_usual"))
    if amount is not None and f.get("direction") == "debit":
        found.append(Habit("amount", amount, usual, "money"))
    for key, day, month, unit in (
        ("transfers", "transfers_1d", "transfers_30d", "count"),
        ("out", "out_sum_1d", "out_sum_30d", "money"),
        ("payees", "out_counterparties_1d", "out_counterparties_30d", "count"),
        ("received", "in_sum_1d", "in_sum_30d", "money"),
    ):
        today, total = _number(f.get(day)), _number(f.get(month))
        if today:
            days = min(30.0, max(1.0, _number(f.get("account_age_days")) or 1.0))
            before = max(0.0, (total or 0.0) - today) / days
            found.append(Habit(key, today, before or None, unit))
    return found


def _number(value: Scalar) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

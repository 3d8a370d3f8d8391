"""Rule sets: a directory of rule files checked, tested, tried and loaded; then evaluated, event by event.

Knows files, versions and states. A set is immutable: a change is a new set with a new version, and the old one
frees its place in the rules core when its last user lets go of it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from fraudguard.domain import SEVERITIES, Feature, Hit, Scalar
from fraudguard.errors import BadRule
from fraudguard.metrics import RULES_FALLBACKS
from fraudguard.rules.compiler import compile_conditions
from fraudguard.rules.evaluator import EngineFault, Evaluator
from fraudguard.rules.expression import And
from fraudguard.rules.gate import judge, slots_of
from fraudguard.rules.reference import holds
from fraudguard.rules.schema import Case, Problem, Rule, read_rules
from fraudguard.rules.validators import field_type
from fraudguard.rules.values import read_values

OTHER_FILES: Final = {"policy.yaml"}  # what else lives among the rule files
_VERSION_DIGITS: Final = 12


class RuleSet:
    """The rules in force, as one version."""

    def __init__(self, sources: Mapping[str, str], rules: Sequence[Rule], fields: Sequence[Feature]) -> None:
        """For `from_sources` and `load_rules`, which let only checked and tried rules in."""
        self.sources: Mapping[str, str] = dict(sorted(sources.items()))
        self.version = _version(self.sources)
        self.rules = tuple(rules)
        # The strongest first, so that the first hit is the one to name; then by id, whatever the files are called.
        self._active = sorted(
            (rule for rule in rules if rule.state in {"live", "shadow"}),
            key=lambda rule: (-rule.outcome.severity, -SEVERITIES.index(rule.severity), rule.id),
        )
        conditions = [rule.condition for rule in self._active]
        self._slots = slots_of(conditions, fields)
        self._evaluator = Evaluator(compile_conditions(conditions))
        self._hits = [
            Hit(rule.id, rule.version, rule.outcome, rule.reason, "live" if rule.state == "live" else "shadow")
            for rule in self._active
        ]

    @classmethod
    def from_sources(cls, sources: Mapping[str, str], fields: Sequence[Feature]) -> Self:
        """Rebuild a set from stored sources; raises BadRule with every problem found."""
        rules, problems = read_rules(sources, fields)
        problems += [outcome.problem for outcome in _run_cases(rules, fields) if outcome.problem]
        if problems:
            raise BadRule("\n\n".join(map(str, problems)))
        if fault := judge(sources, fields):
            raise BadRule(fault, hint="a fault of the compiler, not of the rules: please report it")
        return cls(sources, rules, fields)

    def evaluate(self, inputs: Mapping[str, Scalar]) -> list[Hit]:
        """The live and shadow rules that hold, the strongest outcome first; other inputs than named are ignored."""
        values = read_values(self._slots, inputs)
        try:
            holding = self._evaluator.evaluate(values)
        except EngineFault:
            RULES_FALLBACKS.inc()
            holding = {i for i, rule in enumerate(self._active) if holds(rule.condition, values)}
        return [self._hits[i] for i in sorted(holding)]

    def close(self) -> None:
        """Free the rules core now; dropping the last reference does the same."""
        self._evaluator.close()


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """One case of one rule as the reference evaluator judged it. problem: None when it came out as expected."""

    rule: Rule
    case: Case
    problem: Problem | None


def load_rules(directory: Path, fields: Sequence[Feature]) -> RuleSet:
    """Check, test, try and load the rule files of a directory; raises BadRule with every problem found."""
    sources, problems = _read_sources(directory)
    if problems:
        raise BadRule("\n\n".join(map(str, [*problems, *read_rules(sources, fields)[1]])))
    return RuleSet.from_sources(sources, fields)


def check_directory(directory: Path, fields: Sequence[Feature]) -> tuple[list[Rule], list[Problem]]:
    """The rules that read well, and every problem of the others; runs no case and loads nothing."""
    sources, problems = _read_sources(directory)
    rules, more = read_rules(sources, fields)
    return rules, problems + more


def test_directory(directory: Path, fields: Sequence[Feature]) -> list[CaseOutcome]:
    """Every case of every rule that reads well."""
    return _run_cases(check_directory(directory, fields)[0], fields)


def _read_sources(directory: Path) -> tuple[dict[str, str], list[Problem]]:
    if not directory.is_dir():
        raise BadRule("there is no such directory", path=str(directory))
    sources, problems = {}, []
    for path in sorted((*directory.glob("*.yaml"), *directory.glob("*.yml"))):
        if path.name in OTHER_FILES:
            continue
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = path.read_bytes()[: error.start].count(b"\n") + 1
            problems.append(Problem(path.name, line, 1, "not UTF-8 text", "save the file as UTF-8", ""))
            continue
        # One text however it was checked out, because the version is a hash of it.
        sources[path.name] = text.replace("\r\n", "\n")
    return sources, problems


def _version(sources: Mapping[str, str]) -> str:
    canonical = json.dumps(sorted(sources.items()), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_VERSION_DIGITS]


def _run_cases(rules: Sequence[Rule], fields: Sequence[Feature]) -> list[CaseOutcome]:
    known = {feature.name: feature for feature in fields}
    return [CaseOutcome(rule, case, _failure(rule, case, known)) for rule in rules for case in rule.cases]


def _failure(rule: Rule, case: Case, fields: Mapping[str, Feature]) -> Problem | None:
    values = read_values([(name, field_type(name, fields)) for name in case.given], case.given)
    hit = holds(rule.condition, values)
    if hit is case.hit:
        return None
    hint = ""
    if not hit and isinstance(rule.condition, And):
        part = next(item for item in rule.condition.items if not holds(item, values))
        hint = f"this part does not hold: {_shown(rule, part.at)}"
    title = f'case "{case.name}"' if case.name else "this case"
    expected, got = ("hit", "no_hit") if case.hit else ("no_hit", "hit")
    return replace(case.place, message=f"{rule.id}: {title} expects {expected} and got {got}", hint=hint)


def _shown(rule: Rule, at: int) -> str:
    return " ".join(rule.when[at : at + 60].split()) + ("..." if len(rule.when) > at + 60 else "")

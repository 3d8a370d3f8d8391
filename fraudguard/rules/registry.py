"""Rule sets: a directory of rule files checked, tested, tried and loaded; then evaluated, event by event.

Knows files, versions and states. A set is immutable: a change is a new set with a new version, and the old one
frees its place in the rules core when its last user lets go of it.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Self, get_args

from fraudguard.domain import SEVERITIES, Feature, Hit, Scalar
from fraudguard.errors import BadRule
from fraudguard.metrics import RULES_FALLBACKS
from fraudguard.rules.compiler import compile_conditions
from fraudguard.rules.documents import Problem
from fraudguard.rules.evaluator import EngineFault, Evaluator
from fraudguard.rules.expression import And, Listed, split_membership, walk
from fraudguard.rules.gate import judge, slots_of
from fraudguard.rules.reference import holds
from fraudguard.rules.schema import ROLLOUT_ALL, Case, Contents, EventType, Rule, read_contents
from fraudguard.rules.validators import field_type
from fraudguard.rules.values import read_values

OTHER_FILES: Final = {"policy.yaml"}  # lives among the rule files, and has a version of its own
_VERSION_DIGITS: Final = 12


class _Group:
    """The active rules that an event of one type can meet, loaded into the core. places: their indexes, in order."""

    __slots__ = ("evaluator", "places", "slots")

    def __init__(self, active: Sequence[Rule], event: EventType | None, fields: Sequence[Feature]) -> None:
        """event: None for all of them, for inputs that do not say what they are."""
        self.places = [i for i, rule in enumerate(active) if event is None or rule.event in {None, event}]
        conditions = [active[i].condition for i in self.places]
        self.slots = slots_of(conditions, fields)
        self.evaluator = Evaluator(compile_conditions(conditions))


class RuleSet:
    """The rules in force, as one version."""

    def __init__(self, sources: Mapping[str, str], contents: Contents) -> None:
        """For the class methods below, which let only rules in that read well."""
        self.sources: Mapping[str, str] = dict(sorted(sources.items()))
        self.version = _version(self.sources)
        self._contents = contents
        self.rules, self.windows, self.lists = contents.rules, contents.windows, contents.lists
        # The strongest first, so that the first hit is the one to name; then by id, whatever the files are called.
        self.active = tuple(
            sorted(
                (rule for rule in contents.rules if rule.state in {"live", "shadow"}),
                key=lambda rule: (-rule.outcome.severity, -SEVERITIES.index(rule.severity), rule.id),
            )
        )
        # What the active rules ask of lists: (field, list) by the name of the input that has the answer.
        self.memberships: dict[str, tuple[str, str]] = {
            node.name: pair
            for rule in self.active
            for node in walk(rule.condition)
            if isinstance(node, Listed) and (pair := split_membership(node.name))
        }
        # Most rules are about payments alone: a message need not be asked their questions.
        kinds: tuple[EventType | None, ...] = (None, *get_args(EventType))
        self._groups: dict[Scalar, _Group] = {kind: _Group(self.active, kind, contents.fields) for kind in kinds}
        self._hits = [_hit(rule) for rule in self.active]
        # By index of the rule, the percent of accounts for which it acts.
        self._rollouts = {i: rule.rollout for i, rule in enumerate(self.active) if rule.rollout < ROLLOUT_ALL}

    @classmethod
    def from_sources(cls, sources: Mapping[str, str], fields: Sequence[Feature]) -> Self:
        """Check, test, try and load a set, as publishing does; raises BadRule with every problem found."""
        contents = read_contents(sources, fields)
        failed = [outcome.problem for outcome in run_cases(contents) if outcome.problem]
        _refuse([*contents.problems, *failed])
        if fault := judge(sources, fields):
            raise BadRule(fault, hint="a fault of the compiler, not of the rules: please report it")
        return cls(sources, contents)

    @classmethod
    def from_published(cls, sources: Mapping[str, str], fields: Sequence[Feature]) -> Self:
        """Load a set that `from_sources` let pass before: read and compiled, its cases and the trial run left out.

        Raises BadRule where this build cannot read what another one published.
        """
        contents = read_contents(sources, fields)
        _refuse(contents.problems)
        return cls(sources, contents)

    def evaluate(self, inputs: Mapping[str, Scalar]) -> list[Hit]:
        """The live and shadow rules that hold, the strongest outcome first; other inputs than named are ignored.

        `account_id` among the inputs says which rules are rolled out to the account; without it none with a rollout is.
        """
        group = self._groups.get(inputs.get("event_type")) or self._groups[None]
        values = read_values(group.slots, inputs)
        try:
            holding = [group.places[i] for i in sorted(group.evaluator.evaluate(values))]
        except EngineFault:
            RULES_FALLBACKS.inc()
            holding = [i for i in group.places if holds(self.active[i].condition, values)]
        return self._said(holding, inputs.get("account_id"))

    def hits_of(self, ids: Collection[str], account: Scalar) -> list[Hit]:
        """The hits that `evaluate` gives where these active rules hold and no others."""
        return self._said([i for i, rule in enumerate(self.active) if rule.id in ids], account)

    def _said(self, holding: Sequence[int], account: Scalar) -> list[Hit]:
        hits = [self._hits[i] for i in holding]
        if self._rollouts and not self._rollouts.keys().isdisjoint(holding):
            for place, i in enumerate(holding):
                if i in self._rollouts and not rolled_out(self.active[i].id, account, self._rollouts[i]):
                    hits[place] = replace(hits[place], state="shadow")
        return hits

    def without(self, ids: Collection[str]) -> "RuleSet":
        """The same set but for these rules."""
        return RuleSet(self.sources, replace(self._contents, rules=tuple(r for r in self.rules if r.id not in ids)))

    def close(self) -> None:
        """Free the rules core now; dropping the last reference does the same."""
        for group in self._groups.values():
            group.evaluator.close()


def rolled_out(rule: str, account: Scalar, percent: int) -> bool:
    """Whether a rule acts for the account: a stable share of accounts, of which a larger percent keeps every one."""
    if not isinstance(account, str):
        return False
    digest = hashlib.sha256(f"{rule}\n{account}".encode()).digest()
    return int.from_bytes(digest[:8]) % ROLLOUT_ALL < percent


def _hit(rule: Rule) -> Hit:
    state: Literal["live", "shadow"] = "live" if rule.state == "live" else "shadow"
    return Hit(rule.id, rule.version, rule.outcome, rule.reason, state, rule.severity)


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise BadRule("\n\n".join(map(str, problems)))


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
        _refuse([*problems, *read_contents(sources, fields).problems])
    return RuleSet.from_sources(sources, fields)


def fields_of(directory: Path, fields: Sequence[Feature]) -> tuple[Feature, ...]:
    """The built-in features and the windows that the directory's features.yaml declares."""
    return read_contents(_read_sources(directory)[0], fields).fields


def test_directory(directory: Path, fields: Sequence[Feature]) -> list[CaseOutcome]:
    """Every case of every rule; raises BadRule for files that do not read well, whose cases would be passed over."""
    sources, problems = _read_sources(directory)
    contents = read_contents(sources, fields)
    _refuse([*problems, *contents.problems])
    return run_cases(contents)


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


def run_cases(contents: Contents) -> list[CaseOutcome]:
    """Every case of every rule, judged by the reference evaluator."""
    known = {feature.name: feature for feature in contents.fields}
    return [CaseOutcome(rule, case, _failure(rule, case, known)) for rule in contents.rules for case in rule.cases]


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

"""Rule packs: rule files read into rules, beside the declarations of the pack, every mistake with its place and fix.

Knows the shape of a rule document and where its words stand in the file; the expression itself is parsed by
expression.py and judged by validators.py, YAML is read by documents.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import yaml

from fraudguard.domain import Feature, Outcome, Scalar, Severity, WatchList, Window
from fraudguard.rules.declarations import FEATURES_FILE, LISTS_FILE, read_declarations
from fraudguard.rules.documents import Entry, Problem, Reader
from fraudguard.rules.expression import (
    HOUR_OF_DAY,
    And,
    Comparison,
    Fault,
    Field,
    Node,
    Text,
    hour_of_day,
    membership,
    split_membership,
)
from fraudguard.rules.validators import check_condition, field_type, suggest

RULES_MAX: Final = 2_000
CASES_MAX: Final = 100  # of one rule
ROLLOUT_ALL: Final = 100

State = Literal["draft", "shadow", "live", "retired"]
EventType = Literal["transaction", "message"]


@dataclass(frozen=True, slots=True)
class Case:
    """A rule's own test: given these inputs, all others missing, it hits or not."""

    name: str
    given: Mapping[str, Scalar]
    hit: bool
    place: Problem  # what to report when it fails, with the message still to be filled in


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as written and understood.

    condition: `when`, and the event type if the rule names one. rollout: percent of accounts for which it acts. gaps:
    what its owner knows it misses.
    """

    id: str
    version: int
    owner: str
    description: str
    state: State
    event: EventType | None
    when: str
    condition: Node
    outcome: Outcome
    reason: str
    severity: Severity
    rollout: int
    gaps: str
    cases: tuple[Case, ...]
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything a directory of rule files says. fields: the built-in features and the declared ones.

    rules, windows, lists: those that are in order. problems: of the others, by file name and place.
    """

    rules: tuple[Rule, ...]
    windows: tuple[Window, ...]
    lists: tuple[WatchList, ...]
    fields: tuple[Feature, ...]
    problems: tuple[Problem, ...]


def read_contents(sources: Mapping[str, str], fields: Sequence[Feature]) -> Contents:
    """Read rules and declarations. sources: file name to text, line ends as \\n. fields: the built-in features."""
    declared = read_declarations(sources, fields)
    fields = (*fields, *declared.features)
    known = {feature.name: feature for feature in fields}
    rules: list[Rule] = []
    problems = list(declared.problems)
    first: dict[str, Rule] = {}
    for name in sorted(sources.keys() - {FEATURES_FILE, LISTS_FILE}):
        reader = _Reader(name, sources[name], known)
        for rule, at in reader.rules():
            if rule.id in first:
                earlier = first[rule.id]
                reader.problem(at, f"the id {rule.id} is taken", f"by {earlier.file}:{earlier.line}; ids are unique")
            first.setdefault(rule.id, rule)
            rules.append(rule)
        problems += reader.problems
    if len(rules) > RULES_MAX:
        problems.append(Problem(rules[-1].file, rules[-1].line, 1, f"{len(rules)} rules", f"at most {RULES_MAX}", ""))
    problems.sort(key=lambda problem: (problem.file, problem.line, problem.column))
    return Contents(tuple(rules), declared.windows, declared.lists, fields, tuple(problems))


REQUIRED: Final = ("id", "version", "owner", "description", "state", "when", "outcome", "reason", "severity", "cases")
KEYS: Final = (*REQUIRED, "event", "rollout", "gaps")
PATTERNS: Final = {
    "id": (r"[a-z0-9]+(-[a-z0-9]+)*", "small letters, digits and hyphens, like urgent-money-burst"),
    "version": (r"[1-9]\d{0,8}", "a whole number from 1, raised with every change"),
    "reason": (r"[A-Z][A-Z0-9_]*", "capitals, digits and _, like NEW_PAYEE_LARGE_AMOUNT"),
    "owner": (r"(?s)\S.*", "who answers for this rule"),
    "description": (r"(?s)\S.*", "what it catches and why"),
    "state": ("|".join(get_args(State)), "one of " + ", ".join(get_args(State))),
    "event": ("|".join(get_args(EventType)), "transaction or message; leave it out for both"),
    "outcome": ("|".join(Outcome), "one of " + ", ".join(Outcome)),
    "severity": ("|".join(get_args(Severity)), "one of " + ", ".join(get_args(Severity))),
    "rollout": (r"[1-9]\d?|100", "a whole number from 1 to 100: the percent of accounts for which a live rule acts"),
    "gaps": (r"(?s)\S.*", "what the rule is known to miss"),
}
LENGTHS: Final = {"id": 64, "reason": 64, "description": 2_000, "gaps": 2_000}
CASE_KEYS: Final = ("name", "given", "expect")
EXPECTATIONS: Final = ("hit", "no_hit")


class _Reader(Reader):
    """Reads one file of rules; collects its problems."""

    def __init__(self, file: str, text: str, fields: Mapping[str, Feature]) -> None:
        super().__init__(file, text)
        self.fields = fields

    def rules(self) -> Iterator[tuple[Rule, int]]:
        """The good rules of the file, each with the offset of its id."""
        documents = self.documents()
        if documents is None:
            return
        if not documents:
            self.problem(0, "no rule in this file", "see docs/rules.md for one to start from")
        for node in documents:
            rule = self._rule(node)
            if rule:
                yield rule

    def _rule(self, node: yaml.Node) -> tuple[Rule, int] | None:
        before = len(self.problems)
        entries = self.mapping(node, "a rule", KEYS, REQUIRED, "--- on its own line begins the next rule")
        if entries is None:
            return None
        words = self.words(entries, PATTERNS, LENGTHS)
        event = words.get("event")
        condition = self.expression("when", entries["when"][1], self._check) if "when" in entries else None
        cases = self._cases(entries["cases"], event) if "cases" in entries else ()
        if len(self.problems) > before or condition is None:
            return None
        if event:
            told = Comparison("==", Field("event_type"), Text(event))
            condition = And((told, *(condition.items if isinstance(condition, And) else (condition,))), at=condition.at)
        at = entries["id"][1].start_mark.index
        rule = Rule(
            id=words["id"],
            version=int(words["version"]),
            owner=words["owner"],
            description=words["description"],
            state=words["state"],  # type: ignore[arg-type]  # _PATTERNS allows no other word
            event=event,  # type: ignore[arg-type]  # likewise
            when=entries["when"][1].value,
            condition=condition,
            outcome=Outcome(words["outcome"]),
            reason=words["reason"],
            severity=words["severity"],  # type: ignore[arg-type]  # likewise
            rollout=int(words.get("rollout", ROLLOUT_ALL)),
            gaps=words.get("gaps", ""),
            cases=tuple(cases),
            file=self.file,
            line=self.place(at).line,
        )
        return rule, at

    def _check(self, tree: Node) -> list[Fault]:
        return check_condition(tree, self.fields)

    def _cases(self, entry: Entry, event: str | None) -> list[Case]:
        key, node = entry
        if not isinstance(node, yaml.SequenceNode):
            self.problem(node.start_mark.index, "`cases` is a list", "each begins with `- given:`")
            return []
        cases = [case for item in node.value if (case := self._case(item, event))]
        if len(node.value) > CASES_MAX:
            self.problem(key.start_mark.index, f"{len(node.value)} cases", f"at most {CASES_MAX}")
        if len(cases) == len(node.value) and {case.hit for case in cases} != {True, False}:
            self.problem(key.start_mark.index, "`cases` needs one `expect: hit` and one `expect: no_hit`")
        return cases

    def _case(self, node: yaml.Node, event: str | None) -> Case | None:
        entries = self.mapping(node, "a case", CASE_KEYS, CASE_KEYS[1:])
        if entries is None or not {"given", "expect"} <= entries.keys():
            return None
        given = self._given(entries["given"][1])
        if event:
            given.setdefault("event_type", event)
        expect_node = entries["expect"][1]
        expect = self.scalar("expect", expect_node)
        if expect not in EXPECTATIONS:
            self.problem(expect_node.start_mark.index, f"`expect` is {expect!r}", "hit or no_hit")
        name = (self.scalar("name", entries["name"][1]) or "") if "name" in entries else ""
        return Case(name, given, expect == "hit", self.place(node.start_mark.index))

    def _given(self, node: yaml.Node) -> dict[str, Scalar]:
        given: dict[str, Scalar] = {}
        for name, (key, value) in (self.mapping(node, "given", (), ()) or {}).items():
            if pair := split_membership(name):
                name = membership(*pair)
            kind = field_type(name, self.fields)
            text = self.scalar(name, value)
            if kind is None:
                hint = suggest(name, self.fields) or "see `fraudguard features`"
                self.problem(key.start_mark.index, f"unknown field {name}", hint)
            elif text is not None:
                try:
                    unit = self.fields[name].unit if name in self.fields else ""
                    given[name] = _typed(text, kind, unit, value)
                except ValueError as error:
                    self.problem(value.start_mark.index, f"{name} must be {error}", "null stands for missing")
        return given


def _typed(text: str, kind: str, unit: str, node: yaml.Node) -> Scalar:
    """The value of a case by the field's type; an attribute's by how YAML reads it. Raises ValueError."""
    tag = node.tag.rsplit(":", 1)[-1]
    if tag == "null":
        return None
    if kind == "any":
        kind = {"int": "number", "float": "number", "bool": "boolean"}.get(tag, "text")
    if kind == "text":
        return str(node.value)
    if kind == "boolean":
        if text.lower() not in {"true", "false"}:
            raise ValueError("true or false")
        return text.lower() == "true"
    if unit == HOUR_OF_DAY and (hour := hour_of_day(text)) is not None:
        return hour
    try:
        return float(text.replace("_", ""))
    except ValueError:
        raise ValueError("a time of day, like 22:30" if unit == HOUR_OF_DAY else "a number") from None

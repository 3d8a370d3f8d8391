"""Rule files: YAML documents read into rules, every mistake with its line, column and fix.

Knows the shape of a rule document and where its words stand in the file; the expression itself is parsed by
expression.py and judged by validators.py. Reads YAML's nodes and not its values, because YAML takes `on`, `no`
and `NO` (Norway) for booleans and forgets where things stood.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import yaml

from fraudguard.domain import Feature, Outcome, Scalar, Severity
from fraudguard.rules.expression import And, Comparison, Field, Node, SyntaxFault, Text, parse
from fraudguard.rules.places import scalar_places
from fraudguard.rules.validators import check_condition, field_type, suggest

FILE_LENGTH_MAX: Final = 1_000_000  # characters
RULES_MAX: Final = 2_000
CASES_MAX: Final = 100  # of one rule

State = Literal["draft", "shadow", "live", "retired"]
EventType = Literal["transaction", "message"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a rule file. line, column: from 1, in characters. source_line: as written."""

    file: str
    line: int
    column: int
    message: str
    hint: str
    source_line: str

    def __str__(self) -> str:
        before = self.source_line[: self.column - 1]
        # Chinese characters take two places on a terminal; the caret must stand below the right one.
        places = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in before)
        lines = [f"{self.file}:{self.line}:{self.column}: {self.message}", self.source_line, " " * places + "^"]
        return "\n    ".join([*lines, f"hint: {self.hint}"] if self.hint else lines)


@dataclass(frozen=True, slots=True)
class Case:
    """A rule's own test: given these inputs, all others missing, it hits or not."""

    name: str
    given: Mapping[str, Scalar]
    hit: bool
    place: Problem  # what to report when it fails, with the message still to be filled in


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as written and understood. condition: `when`, and the event type if the rule names one."""

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
    cases: tuple[Case, ...]
    file: str
    line: int


def read_rules(sources: Mapping[str, str], fields: Sequence[Feature]) -> tuple[list[Rule], list[Problem]]:
    """The rules that are in order and every problem of those that are not, by file name and place.

    sources: file name to text, line ends as \\n.
    """
    known = {feature.name: feature for feature in fields}
    rules: list[Rule] = []
    problems: list[Problem] = []
    first: dict[str, Rule] = {}
    for name in sorted(sources):
        reader = _Reader(name, sources[name], known)
        for rule, at in reader.rules():
            if rule.id in first:
                earlier = first[rule.id]
                reader.problem(at, f"the id {rule.id} is taken", f"by {earlier.file}:{earlier.line}; ids are unique")
            first.setdefault(rule.id, rule)
            rules.append(rule)
        problems += sorted(reader.problems, key=lambda problem: (problem.line, problem.column))
    if len(rules) > RULES_MAX:
        problems.append(Problem(rules[-1].file, rules[-1].line, 1, f"{len(rules)} rules", f"at most {RULES_MAX}", ""))
    return rules, problems


_Entry = tuple[yaml.ScalarNode, yaml.Node]
_REQUIRED: Final = ("id", "version", "owner", "description", "state", "when", "outcome", "reason", "severity", "cases")
_KEYS: Final = (*_REQUIRED, "event", "gaps")
_PATTERNS: Final = {
    "id": (r"[a-z0-9]+(-[a-z0-9]+)*", "small letters, digits and hyphens, like urgent-money-burst"),
    "version": (r"[1-9]\d{0,8}", "a whole number from 1, raised with every change"),
    "reason": (r"[A-Z][A-Z0-9_]*", "capitals, digits and _, like NEW_PAYEE_LARGE_AMOUNT"),
    "owner": (r"(?s)\S.*", "who answers for this rule"),
    "description": (r"(?s)\S.*", "what it catches and why"),
    "gaps": (r"(?s)\S.*", "what it misses and what it meets falsely"),
    "state": ("|".join(get_args(State)), "one of " + ", ".join(get_args(State))),
    "event": ("|".join(get_args(EventType)), "transaction or message; leave it out for both"),
    "outcome": ("|".join(Outcome), "one of " + ", ".join(Outcome)),
    "severity": ("|".join(get_args(Severity)), "one of " + ", ".join(get_args(Severity))),
}
_LENGTHS: Final = {"id": 64, "reason": 64, "owner": 100, "description": 2_000, "gaps": 2_000}
_BLOCK_HINT: Final = "YAML reads this itself: put the expression on its own line below `when: |`"


class _Reader:
    """Reads one file; collects its problems."""

    def __init__(self, file: str, text: str, fields: Mapping[str, Feature]) -> None:
        self.file, self.text, self.fields = file, text, fields
        self.problems: list[Problem] = []

    def problem(self, at: int, message: str, hint: str = "") -> None:
        self.problems.append(self.place(at, message, hint))

    def place(self, at: int, message: str = "", hint: str = "") -> Problem:
        """A problem at an offset of the file."""
        start = self.text.rfind("\n", 0, at) + 1
        line = self.text[start:].split("\n", 1)[0]
        return Problem(self.file, self.text.count("\n", 0, at) + 1, at - start + 1, message, hint, line)

    def rules(self) -> Iterator[tuple[Rule, int]]:
        """The good rules of the file, each with the offset of its id."""
        if len(self.text) > FILE_LENGTH_MAX:
            self.problem(0, f"the file is longer than {FILE_LENGTH_MAX:,} characters", "split it")
            return
        try:
            documents = [node for node in yaml.compose_all(self.text, Loader=yaml.SafeLoader) if node is not None]
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            at = mark.index if mark else 0
            self.problem(min(at, len(self.text)), f"not YAML: {error.problem}", self._yaml_hint(at))
            return
        except yaml.reader.ReaderError as error:
            self.problem(error.position, "a character that YAML does not allow", "retype it, or write \\xNN in quotes")
            return
        except RecursionError:
            self.problem(0, "nested too deeply")
            return
        if not documents:
            self.problem(0, "no rule in this file", "see docs/rules.md for one to start from")
        for node in documents:
            rule = self._rule(node)
            if rule:
                yield rule

    def _yaml_hint(self, at: int) -> str:
        lines = self.text[:at].split("\n")
        around = [lines[-1] + self.text[at:].split("\n", 1)[0], *lines[-2:-1]]
        if any("\t" in line[: len(line) - len(line.lstrip())] for line in around):
            return "indent with spaces, not tabs"
        in_when = any(line.lstrip().startswith("when:") for line in around)
        return _BLOCK_HINT if in_when else "check indentation and quotes"

    def _rule(self, node: yaml.Node) -> tuple[Rule, int] | None:
        before = len(self.problems)
        entries = self._mapping(node, "a rule", _KEYS, _REQUIRED)
        if entries is None:
            return None
        words = {name: self._word(name, entries[name][1]) for name in _PATTERNS if name in entries}
        event = words.get("event")
        condition = self._condition(entries["when"][1]) if "when" in entries else None
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
            cases=tuple(cases),
            file=self.file,
            line=self.place(at).line,
        )
        return rule, at

    def _mapping(
        self, node: yaml.Node, what: str, known: Sequence[str], required: Sequence[str]
    ) -> dict[str, _Entry] | None:
        """The entries by name, or None when it is no mapping. An empty `known` allows every name."""
        if not isinstance(node, yaml.MappingNode):
            self.problem(node.start_mark.index, f"{what} is a list of `name: value` lines", "see docs/rules.md")
            return None
        entries: dict[str, _Entry] = {}
        for key, value in node.value:
            at = key.start_mark.index
            if not isinstance(key, yaml.ScalarNode):
                self.problem(at, "a name must be one word")
            elif known and key.value not in known:
                hint = suggest(key.value, known) or "it has " + ", ".join(known)
                self.problem(at, f"{what} has no `{key.value}`", hint)
            elif key.value in entries:
                self.problem(at, f"`{key.value}` stands here twice", "--- on its own line begins the next rule")
            else:
                entries[key.value] = (key, value)
        lacking = [name for name in required if name not in entries]
        if lacking:
            self.problem(node.start_mark.index, f"{what} lacks " + ", ".join(f"`{name}`" for name in lacking))
        return entries

    def _scalar(self, name: str, node: yaml.Node) -> str | None:
        if isinstance(node, yaml.ScalarNode):
            return str(node.value).strip()
        self.problem(node.start_mark.index, f"`{name}` must be one value", _BLOCK_HINT if name == "when" else "")
        return None

    def _word(self, name: str, node: yaml.Node) -> str:
        value = self._scalar(name, node)
        if value is None:
            return ""
        pattern, meaning = _PATTERNS[name]
        if not re.fullmatch(pattern, value) or len(value) > _LENGTHS.get(name, 100):
            shown = f" is {value!r}" if value else " is empty"
            near = suggest(value, pattern.split("|")) if "|" in pattern and value else ""
            self.problem(node.start_mark.index, f"`{name}`{shown}", near or meaning)
        return value

    def _condition(self, node: yaml.Node) -> Node | None:
        if self._scalar("when", node) is None or not isinstance(node, yaml.ScalarNode):
            return None
        places = scalar_places(self.text, node)
        try:
            tree = parse(node.value)
            faults = check_condition(tree, self.fields)
        except SyntaxFault as error:
            tree, faults = None, [error.fault]
        for fault in faults:
            self.problem(places[fault.at], fault.message, fault.hint)
        return tree

    def _cases(self, entry: _Entry, event: str | None) -> list[Case]:
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
        entries = self._mapping(node, "a case", ("name", "given", "expect"), ("given", "expect"))
        if entries is None or not {"given", "expect"} <= entries.keys():
            return None
        given = self._given(entries["given"][1])
        if event:
            given.setdefault("event_type", event)
        expect_node = entries["expect"][1]
        expect = self._scalar("expect", expect_node)
        if expect not in {"hit", "no_hit"}:
            self.problem(expect_node.start_mark.index, f"`expect` is {expect!r}", "hit or no_hit")
        name = (self._scalar("name", entries["name"][1]) or "") if "name" in entries else ""
        return Case(name, given, expect == "hit", self.place(node.start_mark.index))

    def _given(self, node: yaml.Node) -> dict[str, Scalar]:
        given: dict[str, Scalar] = {}
        for name, (key, value) in (self._mapping(node, "given", (), ()) or {}).items():
            kind = field_type(name, self.fields)
            text = self._scalar(name, value)
            if kind is None:
                hint = suggest(name, list(self.fields)) or "see `fraudguard features`"
                self.problem(key.start_mark.index, f"unknown field {name}", hint)
            elif text is not None:
                try:
                    given[name] = _typed(text, kind, value)
                except ValueError as error:
                    self.problem(value.start_mark.index, f"{name} must be {error}", "null stands for missing")
        return given


def _typed(text: str, kind: str, node: yaml.Node) -> Scalar:
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
    try:
        return float(text.replace("_", ""))
    except ValueError:
        raise ValueError("a number") from None

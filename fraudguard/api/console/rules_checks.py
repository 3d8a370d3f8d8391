"""A rule as it is being written: what is wrong with it and where, whether its own tests pass, what it would change.

Pure and quick, for it runs at every pause of the typist: it reads one document beside the set in force and compiles
nothing. What publishing asks beyond that (the whole set, tried in a process of its own), publishing asks.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fraudguard.api.console import rules_texts
from fraudguard.domain import Feature
from fraudguard.rulebook import notices, objections
from fraudguard.rules.declarations import FEATURES_FILE, LISTS_FILE
from fraudguard.rules.documents import Problem, Reader
from fraudguard.rules.registry import CaseOutcome, run_cases
from fraudguard.rules.schema import Rule, read_contents

NEW_FILE: Final = "console.yaml"  # where a rule goes that is written here
_VERSION: Final = re.compile(r"^version:[ \t]*", re.MULTILINE)
_ID: Final = re.compile(r"^id:[ \t]*", re.MULTILINE)
_WORD: Final = re.compile(r"@?[\w-]+|\S")
_OFFERED: Final = re.compile(r"^(?:did you mean|raise it to) ([\w@.-]*\w)")


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of a text. rule: None while it is none. diff: against the one in force. said: what would change."""

    problems: tuple[Problem, ...]
    rule: Rule | None
    cases: tuple[CaseOutcome, ...]
    diff: tuple[str, ...]
    said: tuple[str, ...]

    @property
    def failed(self) -> int:
        """How many cases came out otherwise than expected."""
        return sum(case.problem is not None for case in self.cases)


def check(
    text: str, original: Rule | None, sources: Mapping[str, str], in_force: Sequence[Rule], fields: Sequence[Feature]
) -> Checked:
    """Read and test one rule's document. original: the rule in force that it shall replace, None for a new one."""
    text = rules_texts.plain(text)
    name = original.file if original else NEW_FILE
    declared = {file: sources[file] for file in (FEATURES_FILE, LISTS_FILE) if file in sources}
    contents = read_contents({**declared, name: text}, fields)
    before = rules_texts.document(sources[original.file], original.line) if original else ""
    problems = [problem for problem in contents.problems if problem.file == name]
    reader = Reader(name, text)
    if rules_texts.has_mark(text):
        reader.problem(0, "more than one rule", "write one rule here; the next is a new rule of its own")
    rule = contents.rules[0] if len(contents.rules) == 1 else None
    said: list[str] = []
    if rule is not None:
        _among_others(reader, text, rule, original, in_force)
        said = notices([original] if original else [], [rule])
    found = tuple(sorted([*problems, *reader.problems], key=lambda problem: (problem.line, problem.column)))
    cases = tuple(run_cases(contents)) if rule else ()
    return Checked(found, rule, cases, tuple(rules_texts.difference(before, text)), tuple(said))


def _among_others(reader: Reader, text: str, rule: Rule, original: Rule | None, in_force: Sequence[Rule]) -> None:
    """What is wrong with it only because of the rules that are in force."""
    taken = {one.id: one for one in in_force if original is None or one.id != original.id}
    if rule.id in taken:
        other = taken[rule.id]
        hint = f"by {other.file}:{other.line}; ids are unique"
        reader.problem(_at(_ID, text), f"the id {rule.id} is taken", hint)
    if original is not None and objections([original], [rule]):
        hint = f"raise it to {original.version + 1}: decisions name the version that made them"
        reader.problem(_at(_VERSION, text), f"the rule says something else but is still version {rule.version}", hint)


def _at(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return found.end() if found else 0


def word_at(problem: Problem) -> str:
    """The word that stands where the problem is; one character where none does, nothing at a line's end."""
    found = _WORD.match(problem.source_line, problem.column - 1)
    return found[0] if found else ""


def fix_of(problem: Problem) -> str:
    """The word that the hint offers for it; empty where it offers none."""
    found = _OFFERED.search(problem.hint)
    return found[1] if found else ""


def placed(files: Mapping[str, str], original: Rule | None, text: str) -> dict[str, str | None]:
    """The changed file by its name, with this text in place of the rule's, or added where it is new."""
    if original is None:
        return {NEW_FILE: rules_texts.added(files.get(NEW_FILE, ""), text)}
    return {original.file: rules_texts.replaced(files[original.file], original.line, text)}


def template(owner: str) -> str:
    """A rule to start from, which reads well and hits nothing anybody has."""
    return _TEMPLATE.format(owner=re.sub(r"[^\w@.-]", "-", owner))


_TEMPLATE: Final = """\
id: my-rule
version: 1
owner: {owner}
description: What it catches and why.
state: draft
event: transaction
when: |
  direction == "debit" and amount_base >= 50_000 and is_new_counterparty
outcome: review
reason: MY_RULE
severity: medium
gaps: What it misses, and whom it meets by mistake.
cases:
  - name: a large payment to somebody new
    given: {{direction: debit, amount_base: 60000, is_new_counterparty: true}}
    expect: hit
  - name: to somebody known
    given: {{direction: debit, amount_base: 60000, is_new_counterparty: false}}
    expect: no_hit
"""

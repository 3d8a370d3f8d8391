"""YAML files read as people wrote them: named values with their places, every mistake with line, column and fix.

Knows YAML and nothing of rules. Reads YAML's nodes and not its values, because YAML takes `on`, `no` and `NO` (Norway)
for booleans and `22:30` for a number to the base of 60, and forgets where things stood.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import yaml

from fraudguard.rules.expression import Fault, Node, SyntaxFault, parse
from fraudguard.rules.places import scalar_places
from fraudguard.rules.validators import suggest

FILE_LENGTH_MAX: Final = 1_000_000  # characters
WORD_LENGTH_MAX: Final = 100  # characters of a word whose table states no other

Entry = tuple[yaml.ScalarNode, yaml.Node]  # a name and its value
Patterns = Mapping[str, tuple[str, str]]  # by name: the pattern of its value, and what to say of one that differs

BLOCK_HINT: Final = "YAML reads this itself: put the expression on its own line below `{name}: |`"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file. line, column: from 1, in characters. source_line: as written."""

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


# Beyond Unicode, which PyYAML fails on, and half a character, which nothing could print or store afterwards.
_NO_CHARACTER = re.compile(r"\\u[dD][89A-Fa-f]|\\U(?!0010|000[0-9A-Fa-f])[0-9A-Fa-f]{8}|\\U0000[dD][89A-Fa-f]")


class Reader:
    """Reads one file; collects its problems. expressions: the names whose values are expressions."""

    expressions: Sequence[str] = ("when", "where")

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self.problems: list[Problem] = []

    def problem(self, at: int, message: str, hint: str = "") -> None:
        """Note a mistake at an offset of the file."""
        self.problems.append(self.place(at, message, hint))

    def place(self, at: int, message: str = "", hint: str = "") -> Problem:
        """A problem at an offset of the file, not noted."""
        start = self.text.rfind("\n", 0, at) + 1
        line = self.text[start:].split("\n", 1)[0]
        return Problem(self.file, self.text.count("\n", 0, at) + 1, at - start + 1, message, hint, line)

    def documents(self) -> list[yaml.Node] | None:
        """The documents of the file, empty ones left out; None when it is not YAML, which is noted."""
        if len(self.text) > FILE_LENGTH_MAX:
            self.problem(0, f"the file is longer than {FILE_LENGTH_MAX:,} characters", "split it")
            return None
        if found := _NO_CHARACTER.search(self.text):
            self.problem(found.start(), "an escape that stands for no character", "write the character itself")
            return None
        try:
            return [node for node in yaml.compose_all(self.text, Loader=yaml.SafeLoader) if node is not None]
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            at = mark.index if mark else 0
            self.problem(min(at, len(self.text)), f"not YAML: {error.problem}", self._yaml_hint(at))
        except yaml.reader.ReaderError as error:
            self.problem(error.position, "a character that YAML does not allow", "retype it, or write \\xNN in quotes")
        except RecursionError:
            self.problem(0, "nested too deeply")
        return None

    def _yaml_hint(self, at: int) -> str:
        lines = self.text[:at].split("\n")
        around = [lines[-1] + self.text[at:].split("\n", 1)[0], *lines[-2:-1]]
        if any("\t" in line[: len(line) - len(line.lstrip())] for line in around):
            return "indent with spaces, not tabs"
        for name in self.expressions:
            if any(line.lstrip(" -").startswith(f"{name}:") for line in around):
                return BLOCK_HINT.format(name=name)
        return "check indentation and quotes"

    def mapping(
        self, node: yaml.Node, what: str, known: Sequence[str], required: Sequence[str], again: str = ""
    ) -> dict[str, Entry] | None:
        """The entries by name, or None when it is no mapping. An empty `known` allows every name.

        again: the hint for a name that stands there twice.
        """
        if not isinstance(node, yaml.MappingNode):
            self.problem(node.start_mark.index, f"{what} is a list of `name: value` lines", "see docs/rules.md")
            return None
        entries: dict[str, Entry] = {}
        for key, value in node.value:
            at = key.start_mark.index
            if not isinstance(key, yaml.ScalarNode):
                self.problem(at, "a name must be one word")
            elif known and key.value not in known:
                hint = suggest(key.value, known) or "it has " + ", ".join(known)
                self.problem(at, f"{what} has no `{key.value}`", hint)
            elif key.value in entries:
                self.problem(at, f"`{key.value}` stands here twice", again)
            else:
                entries[key.value] = (key, value)
        lacking = [name for name in required if name not in entries]
        if lacking:
            self.problem(node.start_mark.index, f"{what} lacks " + ", ".join(f"`{name}`" for name in lacking))
        return entries

    def scalar(self, name: str, node: yaml.Node) -> str | None:
        """The value as written, without blanks around it; None when it is none, which is noted."""
        if isinstance(node, yaml.ScalarNode):
            return str(node.value).strip()
        hint = BLOCK_HINT.format(name=name) if name in self.expressions else ""
        self.problem(node.start_mark.index, f"`{name}` must be one value", hint)
        return None

    def words(self, entries: Mapping[str, Entry], patterns: Patterns, lengths: Mapping[str, int]) -> dict[str, str]:
        """The values of the names in `patterns`, each checked against its pattern and length."""
        return {
            name: self._word(name, entries[name][1], *patterns[name], lengths.get(name, WORD_LENGTH_MAX))
            for name in patterns
            if name in entries
        }

    def _word(self, name: str, node: yaml.Node, pattern: str, meaning: str, length_max: int) -> str:
        value = self.scalar(name, node)
        if value is None:
            return ""
        fits = re.fullmatch(pattern, value) is not None
        if fits and len(value) > length_max:
            self.problem(node.start_mark.index, f"`{name}` has {len(value):,} characters", f"at most {length_max:,}")
        elif not fits:
            shown = f" is {value[:60]!r}" if value else " is empty"
            near = suggest(value, pattern.split("|")) if re.fullmatch(r"\w+(\|\w+)+", pattern) and value else ""
            self.problem(node.start_mark.index, f"`{name}`{shown}", near or meaning)
        return value

    def expression(self, name: str, node: yaml.Node, check: Callable[[Node], list[Fault]]) -> Node | None:
        """The tree of an expression, its faults noted at their places; None when it is none."""
        if self.scalar(name, node) is None or not isinstance(node, yaml.ScalarNode):
            return None
        places = scalar_places(self.text, node)
        try:
            tree = parse(node.value)
            faults = check(tree)
        except SyntaxFault as error:
            tree, faults = None, [error.fault]
        for fault in faults:
            self.problem(places[fault.at], fault.message, fault.hint)
        return tree

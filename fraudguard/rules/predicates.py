"""Conditions as Python closures: what the rules core is not trusted with becomes a boolean before it is asked.

Knows the syntax tree and how to test all phrases of a field in one pass (RE2 sets); means exactly what reference.py
means, which the tests and the publish gate hold it to.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import re2

from fraudguard.rules.expression import (
    And,
    Arithmetic,
    Between,
    Comparison,
    Field,
    Flag,
    Known,
    Listed,
    Matches,
    Negative,
    Node,
    Not,
    Number,
    Or,
    Text,
    TextTest,
    Within,
)
from fraudguard.rules.text import fold, fold_pattern
from fraudguard.rules.values import Value, Values

Found = Mapping[str, frozenset[int]]  # by field: which of its patterns its text has
Test = Callable[[Values, Found], bool]
Getter = Callable[[Values, Found], Value | None]

_NONE: Final[frozenset[int]] = frozenset()
_ALWAYS: Final = r"\A"  # pattern 0 of every set: its absence shows that the search gave up
_SEARCH_MEMORY_BYTES: Final = 64 << 20
_ORDER: Final = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class SearchFault(Exception):
    """The pattern search ran out of memory, so its silence means nothing."""


class Predicates:
    """Conditions that are evaluated together."""

    def __init__(self, conditions: Sequence[Node]) -> None:
        self._patterns: dict[str, list[str]] = {}
        self._tests = [self._test(condition) for condition in conditions]
        self._sets = {field: _compile(patterns) for field, patterns in self._patterns.items()}

    def evaluate(self, values: Values) -> list[bool]:
        """Whether each condition holds, in the order given; raises SearchFault."""
        found = {}
        for field, patterns in self._sets.items():
            text = values.get(field)
            if isinstance(text, str):
                hits = frozenset(patterns.Match(fold(text)))
                if 0 not in hits:
                    raise SearchFault(field)
                found[field] = hits
        return [test(values, found) for test in self._tests]

    def _pattern(self, field: str, pattern: str) -> int:
        patterns = self._patterns.setdefault(field, [_ALWAYS])
        if pattern not in patterns:
            patterns.append(pattern)
        return patterns.index(pattern)

    def _test(self, node: Node) -> Test:
        match node:
            case And():
                parts = [self._test(item) for item in node.items]
                return lambda values, found: all(part(values, found) for part in parts)
            case Or():
                parts = [self._test(item) for item in node.items]
                return lambda values, found: any(part(values, found) for part in parts)
            case Not():
                inner = self._test(node.item)
                return lambda values, found: not inner(values, found)
            case Field():
                name = node.name
                return lambda values, _: values.get(name) is True
            case Listed():
                name, side = node.name, not node.negated
                return lambda values, _: values.get(name) is side
            case Flag():
                flag = node.value
                return lambda *_: flag
            case Comparison():
                return self._comparison(node)
            case Between():
                return self._between(node)
            case Within():
                return self._within(node)
            case Known():
                get, negated = self._getter(node.value), node.negated
                return lambda values, found: (get(values, found) is None) is negated
            case TextTest(value=Field(name=field)) | Matches(value=Field(name=field)):
                wanted = frozenset(self._pattern(field, pattern) for pattern in _as_patterns(node))
                return lambda _, found: not wanted.isdisjoint(found.get(field, _NONE))
        raise AssertionError(f"not a condition: {node}")

    def _getter(self, node: Node) -> Getter:
        match node:
            case Field():
                name = node.name
                return lambda values, _: values.get(name)
            case Number() | Text() | Flag():
                constant = node.value
                return lambda *_: constant
            case Negative():
                return self._arithmetic(operator.sub, lambda *_: 0.0, self._getter(node.value))
            case Arithmetic():
                left, right = self._getter(node.left), self._getter(node.right)
                operate = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": _divide}[node.operator]
                return self._arithmetic(operate, left, right)
        return self._test(node)

    @staticmethod
    def _arithmetic(operate: Callable[[float, float], float], left: Getter, right: Getter) -> Getter:
        def get(values: Values, found: Found) -> float | None:
            a, b = left(values, found), right(values, found)
            if a.__class__ is not float or b.__class__ is not float:
                return None
            outcome = operate(a, b)
            return outcome if math.isfinite(outcome) else None

        return get

    def _comparison(self, node: Comparison) -> Test:
        left, right = self._getter(node.left), self._getter(node.right)
        if node.operator in _ORDER:
            order = _ORDER[node.operator]

            def ordered(values: Values, found: Found) -> bool:
                a, b = left(values, found), right(values, found)
                return a.__class__ is float and b.__class__ is float and order(a, b)

            return ordered
        equal = node.operator == "=="

        def same(values: Values, found: Found) -> bool:
            a, b = left(values, found), right(values, found)
            return a is not None and a.__class__ is b.__class__ and (a == b) is equal

        return same

    def _between(self, node: Between) -> Test:
        value, low, high = self._getter(node.value), self._getter(node.low), self._getter(node.high)
        negated = node.negated

        def test(values: Values, found: Found) -> bool:
            a, b, c = low(values, found), value(values, found), high(values, found)
            if a.__class__ is not float or b.__class__ is not float or c.__class__ is not float:
                return False
            return (a <= b <= c) is not negated

        return test

    def _within(self, node: Within) -> Test:
        get, negated = self._getter(node.value), node.negated
        options = frozenset((option.value.__class__, option.value) for option in node.options)

        def test(values: Values, found: Found) -> bool:
            value = get(values, found)
            return value is not None and ((value.__class__, value) in options) is not negated

        return test


def _as_patterns(node: TextTest | Matches) -> list[str]:
    if isinstance(node, Matches):
        return ["(?i)" + fold_pattern(node.pattern.value)]
    patterns = []
    for term in (fold(term.value) for term in node.terms):
        literal = re2.escape(term)
        if node.kind == "mentions" and term[0].isascii() and term[0].isalnum():
            literal = r"(?:\A|[^0-9A-Za-z])" + literal
        elif node.kind == "starts with":
            literal = r"\A" + literal
        elif node.kind == "ends with":
            literal += r"\z"
        patterns.append(literal)
    return patterns


def _compile(patterns: Sequence[str]) -> re2.Set:
    options = re2.Options()
    options.max_mem = _SEARCH_MEMORY_BYTES
    options.log_errors = False
    searches = re2.Set.SearchSet(options)
    for pattern in patterns:
        searches.Add(pattern)
    searches.Compile()
    return searches


def _divide(left: float, right: float) -> float:
    return left / right if right else math.nan

"""The plain evaluator: walks the syntax tree and says what an expression means. Slow, obvious, the judge.

Knows nothing of durable_rules. It judges the compiled rules in tests and in the publish gate, and answers in their
place when the engine faults. The meaning is two-valued: a comparison or a text test of a missing value is false.
"""

import math
from functools import lru_cache

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
from fraudguard.rules.text import fold, mentions
from fraudguard.rules.validators import compile_pattern
from fraudguard.rules.values import Value, Values

_pattern = lru_cache(maxsize=4096)(compile_pattern)


def holds(condition: Node, values: Values) -> bool:
    """Whether the condition is true of the values; a missing value is one that `values` does not have."""
    return _value(condition, values) is True


def _value(node: Node, values: Values) -> Value | None:
    match node:
        case Field():
            return values.get(node.name)
        case Number() | Text() | Flag():
            return node.value
        case Negative():
            operand = _value(node.value, values)
            return -operand if isinstance(operand, float) else None
        case Arithmetic():
            return _arithmetic(node, values)
        case Comparison():
            return _comparison(node, values)
        case Between():
            ends = (_value(node.low, values), _value(node.value, values), _value(node.high, values))
            if not all(isinstance(end, float) for end in ends):
                return False
            low, value, high = ends
            return (low <= value <= high) is not node.negated  # type: ignore[operator]  # floats, checked above
        case Within():
            value = _value(node.value, values)
            if value is None:
                return False
            found = any(type(option.value) is type(value) and option.value == value for option in node.options)
            return found is not node.negated
        case Listed():
            return values.get(node.name) is (not node.negated)
        case Known():
            return (_value(node.value, values) is None) is node.negated
        case TextTest() | Matches():
            return _text_test(node, values)
        case And():
            return all(holds(item, values) for item in node.items)
        case Or():
            return any(holds(item, values) for item in node.items)
        case Not():
            return not holds(node.item, values)
    raise AssertionError(f"no meaning for {node}")


def _arithmetic(node: Arithmetic, values: Values) -> float | None:
    left, right = _value(node.left, values), _value(node.right, values)
    if not isinstance(left, float) or not isinstance(right, float):
        return None
    match node.operator:
        case "+":
            outcome = left + right
        case "-":
            outcome = left - right
        case "*":
            outcome = left * right
        case "/":
            if right == 0:
                return None
            outcome = left / right
    return outcome if math.isfinite(outcome) else None


def _comparison(node: Comparison, values: Values) -> bool:
    left, right = _value(node.left, values), _value(node.right, values)
    if left is None or right is None or type(left) is not type(right):
        return False
    if node.operator == "==":
        return left == right
    if node.operator == "!=":
        return left != right
    if not isinstance(left, float) or not isinstance(right, float):
        return False
    match node.operator:
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case ">=":
            return left >= right


def _text_test(node: TextTest | Matches, values: Values) -> bool:
    text = _value(node.value, values)
    if not isinstance(text, str):
        return False
    text = fold(text)
    if isinstance(node, Matches):
        return _pattern(node.pattern.value).search(text) is not None
    terms = [fold(term.value) for term in node.terms]
    match node.kind:
        case "mentions":
            return any(mentions(text, term) for term in terms)
        case "contains":
            return any(term in text for term in terms)
        case "starts with":
            return any(text.startswith(term) for term in terms)
        case "ends with":
            return any(text.endswith(term) for term in terms)

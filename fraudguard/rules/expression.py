"""The expression language of `when`: its syntax tree, and the parser from text to tree.

Knows spelling only. Which fields exist and what may be compared is validators.py; what a tree means is reference.py.
Every node knows the offset in the source where it starts, so that a later complaint finds its column.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from typing import Any, Final, Literal, cast

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from fraudguard.domain import ENTITY_FIELDS

LENGTH_MAX = 10_000  # characters of one expression
DEPTH_MAX = 60  # nested nodes; the evaluators recurse
HOUR_OF_DAY: Final = "hour of day"  # the unit of `22:30`, and of the features it may be compared with
_IN_LIST: Final = " in @"

Operator = Literal["==", "!=", "<", "<=", ">", ">="]
TextTestKind = Literal["mentions", "contains", "starts with", "ends with"]


@dataclass(frozen=True, slots=True)
class Node:
    """Any part of an expression. at: offset of its first character; not part of its identity."""

    at: int = field(default=0, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Field(Node):
    """A named input; missing when the event has none."""

    name: str


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A numeric constant. unit: HOUR_OF_DAY or a currency's code where it was written with one; only checked."""

    value: float
    unit: str = field(default="", compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Text(Node):
    """A text constant."""

    value: str


@dataclass(frozen=True, slots=True)
class Flag(Node):
    """`true` or `false`."""

    value: bool


Constant = Number | Text | Flag


@dataclass(frozen=True, slots=True)
class Arithmetic(Node):
    """Two numbers made one; missing when either is, or the divisor is 0, or the outcome is not finite."""

    operator: Literal["+", "-", "*", "/"]
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Negative(Node):
    """A number with its sign turned."""

    value: Node


@dataclass(frozen=True, slots=True)
class Comparison(Node):
    """Holds only between two known values of one type."""

    operator: Operator
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Within(Node):
    """`in` and `not in`; a missing value is neither."""

    value: Node
    options: tuple[Constant, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Listed(Node):
    """`in @list` and `not in @list`; a missing value is neither. list_at: offset of the list's name."""

    value: Node
    list: str
    negated: bool
    list_at: int = field(default=0, compare=False, repr=False, kw_only=True)

    @property
    def name(self) -> str:
        """The boolean input that says whether the field's value is on the list; the empty string for no field."""
        return membership(self.value.name, self.list) if isinstance(self.value, Field) else ""


@dataclass(frozen=True, slots=True)
class Between(Node):
    """`between` and `not between`, both ends included; nothing holds when any of the three is missing."""

    value: Node
    low: Node
    high: Node
    negated: bool


@dataclass(frozen=True, slots=True)
class Known(Node):
    """`is known`, and negated `is missing`."""

    value: Node
    negated: bool


@dataclass(frozen=True, slots=True)
class TextTest(Node):
    """Whether the folded text has any of the folded terms at the stated place."""

    kind: TextTestKind
    value: Node
    terms: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Matches(Node):
    """Whether the regular expression (RE2 syntax, case ignored) is found in the folded text."""

    value: Node
    pattern: Text


@dataclass(frozen=True, slots=True)
class And(Node):
    """All hold."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or(Node):
    """At least one holds."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not(Node):
    """Holds exactly when the other does not; so also when that one was false for want of a value."""

    item: Node


def membership(field: str, watch_list: str) -> str:
    """The name of the boolean input that says whether the field's value is on the list."""
    return f"{ENTITY_FIELDS.get(field, field)}{_IN_LIST}{watch_list}"  # type: ignore[call-overload]  # any word


def split_membership(name: str) -> tuple[str, str] | None:
    """(field, list) of such a name; None for another name."""
    field, found, watch_list = name.partition(_IN_LIST)
    return (field, watch_list) if found else None


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below, in reading order."""
    for slot in fields(node):
        value = getattr(node, slot.name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from value


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it, in reading order."""
    yield node
    for child in children(node):
        yield from walk(child)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at an offset of the source, and how to mend it."""

    at: int
    message: str
    hint: str = ""


class SyntaxFault(Exception):
    """The source is not an expression; internal to rules/, which turns it into a problem with its place."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.message)


def parse(source: str) -> Node:
    """The tree of one expression; raises SyntaxFault."""
    if len(source) > LENGTH_MAX:
        raise SyntaxFault(Fault(0, f"the expression has {len(source):,} characters", f"at most {LENGTH_MAX:,}"))
    if not source.strip():
        raise SyntaxFault(Fault(0, "the expression is empty", "write a condition, like transfers_1d > 10"))
    try:
        tree = cast(Node, _parser().parse(source))  # _Builder makes nodes, not lark's trees
    except UnexpectedInput as error:
        raise SyntaxFault(_explain(error, source)) from error
    level = [tree]
    for _ in range(DEPTH_MAX):
        level = [child for node in level for child in children(node)]
    if level:
        raise SyntaxFault(Fault(level[0].at, "too deeply nested", f"at most {DEPTH_MAX} levels"))
    return tree


@cache
def _parser() -> Lark:
    return Lark.open(
        "grammar.lark", rel_to=__file__, parser="lalr", lexer="basic", propagate_positions=True, transformer=_Builder()
    )


def _unquote(token: Token) -> str:
    quote, body = token[0], token[1:-1]
    # Only the quote and the backslash are escaped, so that a regular expression stays readable.
    return re.sub(r"\\([\\" + quote + "])", r"\1", body)


def hour_of_day(text: str) -> float | None:
    """22.5 for `22:30`; None when it is no time of day."""
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text, re.ASCII)
    return int(found[1]) + int(found[2]) / 60 if found else None


def _number(token: str) -> float:
    scale = {"k": 1_000, "万": 10_000}.get(token[-1], 1)
    return float(token.rstrip("k万").replace("_", "")) * scale


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Called by the parser for each rule of grammar.lark as it is recognised."""

    def either(self, *items: Node) -> Or:
        return Or(items, at=items[0].at)

    def both(self, *items: Node) -> And:
        return And(items, at=items[0].at)

    def negate(self, word: Token, item: Node) -> Not:
        return Not(item, at=word.start_pos or 0)

    def compare(self, first: Node, *rest: Any) -> Node:
        signs = ["==" if sign == "=" else str(sign) for sign in rest[::2]]
        values = (first, *rest[1::2])
        if len(signs) > 1 and not (set(signs) <= {"<", "<="} or set(signs) <= {">", ">="}):
            raise SyntaxFault(Fault(rest[2].start_pos, "comparisons can only be chained as a range, like 1 < x <= 5"))
        pairs = [
            _in_currency(Comparison(sign, left, right, at=left.at), left, right)  # type: ignore[arg-type]  # by grammar
            for sign, left, right in zip(signs, values, values[1:], strict=False)
        ]
        return pairs[0] if len(pairs) == 1 else And(tuple(pairs), at=first.at)

    def within(self, value: Node, options: tuple[Constant, ...]) -> Within:
        return Within(value, options, negated=False, at=value.at)

    def not_within(self, value: Node, options: tuple[Constant, ...]) -> Within:
        return Within(value, options, negated=True, at=value.at)

    def listed(self, value: Node, name: Token) -> Listed:
        return _listed(value, name, negated=False)

    def not_listed(self, value: Node, name: Token) -> Listed:
        return _listed(value, name, negated=True)

    def between(self, value: Node, low: Node, high: Node) -> Node:
        return _between(value, low, high, negated=False)

    def not_between(self, value: Node, low: Node, high: Node) -> Node:
        return _between(value, low, high, negated=True)

    def missing(self, value: Node) -> Known:
        return Known(value, negated=True, at=value.at)

    def known(self, value: Node) -> Known:
        return Known(value, negated=False, at=value.at)

    def mentions(self, value: Node, terms: tuple[Text, ...]) -> TextTest:
        return TextTest("mentions", value, terms, at=value.at)

    def contains(self, value: Node, terms: tuple[Text, ...]) -> TextTest:
        return TextTest("contains", value, terms, at=value.at)

    def starts_with(self, value: Node, terms: tuple[Text, ...]) -> TextTest:
        return TextTest("starts with", value, terms, at=value.at)

    def ends_with(self, value: Node, terms: tuple[Text, ...]) -> TextTest:
        return TextTest("ends with", value, terms, at=value.at)

    def matches(self, value: Node, pattern: Token) -> Matches:
        return Matches(value, self.text(pattern), at=value.at)

    def sum(self, first: Node, *rest: Any) -> Node:
        for sign, right in zip(rest[::2], rest[1::2], strict=True):
            first = Arithmetic(str(sign), first, right, at=first.at)  # type: ignore[arg-type]  # + - * / by grammar
        return first

    product = sum

    def signed(self, sign: Token, value: Node) -> Node:
        if sign == "+":
            return value
        if isinstance(value, Number):
            return Number(-value.value, unit=value.unit, at=sign.start_pos or 0)
        return Negative(value, at=sign.start_pos or 0)

    def signed_number(self, sign: Token, digits: Token) -> Number:
        value = _number(digits)
        return Number(-value if sign == "-" else value, at=sign.start_pos or 0)

    def number(self, token: Token) -> Number:
        return Number(_number(token), at=token.start_pos or 0)

    def money(self, token: Token) -> Number:
        return Number(_number(token[:-3].rstrip()), unit=token[-3:], at=token.start_pos or 0)

    def time(self, token: Token) -> Number:
        hour = hour_of_day(token)
        if hour is None:
            raise SyntaxFault(Fault(token.start_pos or 0, f"{token} is not a time of day", "from 00:00 to 23:59"))
        return Number(hour, unit=HOUR_OF_DAY, at=token.start_pos or 0)

    def text(self, token: Token) -> Text:
        return Text(_unquote(token), at=token.start_pos or 0)

    def field(self, token: Token) -> Field:
        return Field(str(token), at=token.start_pos or 0)

    def attribute(self, token: Token) -> Field:
        return Field(token.replace('"', ""), at=token.start_pos or 0)

    def true(self, token: Token) -> Flag:
        return Flag(True, at=token.start_pos or 0)

    def false(self, token: Token) -> Flag:
        return Flag(False, at=token.start_pos or 0)

    def list(self, *items: Constant) -> tuple[Constant, ...]:
        return items

    def terms(self, *tokens: Token) -> tuple[Text, ...]:
        return tuple(self.text(token) for token in tokens)


def _listed(value: Node, name: Token, negated: bool) -> Listed:
    if isinstance(value, Field) and value.name in ENTITY_FIELDS:  # `counterparty` is short for its id
        value = Field(ENTITY_FIELDS[value.name], at=value.at)  # type: ignore[index]  # checked
    return Listed(value, name[1:], negated, at=value.at, list_at=name.start_pos or 0)


def _between(value: Node, low: Node, high: Node, negated: bool) -> Node:
    """The range; one of times of day whose first is the later one goes over midnight."""
    both = isinstance(low, Number) and isinstance(high, Number)
    if both and low.unit == high.unit == HOUR_OF_DAY and low.value > high.value:  # type: ignore[attr-defined]
        ends: tuple[tuple[Operator, Operator], type[And] | type[Or]] = ((">=", "<="), Or)
        if negated:
            ends = (("<", ">"), And)
        signs, joined = ends
        parts = tuple(Comparison(s, value, end, at=value.at) for s, end in zip(signs, (low, high), strict=True))
        return joined(parts, at=value.at)
    return _in_currency(Between(value, low, high, negated, at=value.at), value, low, high)


def _in_currency(test: Node, *parts: Node) -> Node:
    """The test; one of `amount`, which has the event's own currency, with money asks for that currency as well."""
    codes = [part.unit for part in parts if isinstance(part, Number) and part.unit and part.unit != HOUR_OF_DAY]
    if Field("amount") not in parts or not codes:
        return test
    currency = Comparison("==", Field("currency", at=test.at), Text(codes[0], at=test.at), at=test.at)
    return And((currency, test), at=test.at)


_WIDE = {
    "，": ",", "（": "(", "）": ")", "“": '"', "”": '"', "‘": "'", "’": "'", "＞": ">", "＜": "<", "＝": "==",
    "【": "[", "】": "]", "＋": "+", "－": "-", "＊": "*", "／": "/", "、": ",", "≥": ">=", "≤": "<=", "≠": "!=",
    "×": "*", "÷": "/", "：": ":", "＠": "@",
}  # fmt: skip
_FOREIGN = {"&": "and", "|": "or", "!": "not, or != to compare", "~": "mentions, contains or matches",
            "$": "the currency's code behind the number, like 5_000 USD",
            "€": "the currency's code behind the number, like 5_000 EUR",
            "¥": "the currency's code behind the number, like 5_000 CNY",
            "￥": "the currency's code behind the number, like 5_000 CNY",
            "@": "a list's name right behind it, like in @mule_accounts"}  # fmt: skip
_WORDS = ("and", "or", "not", "in", "between", "is missing", "is known", "mentions", "contains", "starts with",
          "ends with", "matches")  # fmt: skip
_OTHER_WORDS = {"like": "contains", "has": "contains", "includes": "contains", "equals": "==", "regex": "matches",
                "exists": "is known", "isnull": "is missing", "then": "the rule's own `outcome:`"}  # fmt: skip


def _explain(error: UnexpectedInput, source: str) -> Fault:
    at = error.pos_in_stream if error.pos_in_stream is not None else len(source)
    if isinstance(error, UnexpectedCharacters):
        return _explain_character(source, at)
    if isinstance(error, UnexpectedToken) and error.token.type != "$END":
        return _explain_token(error, source)
    end = len(source.rstrip())
    if source.count("(") > source.count(")"):
        return Fault(end, "the expression ends before its bracket is closed", "add `)`")
    if source.count("[") > source.count("]"):
        return Fault(end, "the expression ends before its list is closed", "add `]`")
    return Fault(end, "the expression ends too early", "something must follow, like > 10 or a field's name")


def _explain_character(source: str, at: int) -> Fault:
    character = source[at]
    if character in "\"'":
        return Fault(at, "this text has no closing quote", f"add {character} on the same line")
    if character in _WIDE:
        return Fault(at, f"{character} is a full-width or typographic character", f"write {_WIDE[character]}")
    if character in _FOREIGN:
        return Fault(at, f"{character} is not used here", f"write {_FOREIGN[character]}")
    if character.isdigit() or character == ".":
        return Fault(at, "this is not a number", "write 50000, 50_000, 50k, 5万 or 0.25")
    return Fault(at, f"{character} is not used here", "text stands in quotes")


def _explain_token(error: UnexpectedToken, source: str) -> Fault:
    token = error.token
    at = token.start_pos or 0
    before = source[:at].rstrip()
    word = str(token)
    if token.type == "COMMA" and re.search(r"\d$", before) and re.match(r",\d{3}", source[at:]):
        return Fault(at, "a comma inside a number", "write 50_000 or 50k")
    if token.type == "COMPARE" and before[-1:] in "<>=!" and before:
        return Fault(at - 1, f"{before[-1]}{word} is not a comparison", "write ==, !=, <, <=, > or >=")
    if token.type in {"MENTIONS", "CONTAINS", "MATCHES", "STARTS", "ENDS"} and before.lower().endswith("not"):
        return Fault(at, f"`not {word}` is not used", f"put not in front: not chat {word} ...")
    if token.type == "NAME" and before and source[at - 1] in "\"'":
        return Fault(at, f"{word} stands right behind a text in quotes", "a quote before it is missing or one too many")
    if token.type == "NAME" and re.search(r"\bin$", before, re.IGNORECASE):
        return Fault(
            at, f"{word} does not fit here", f'the name of a list begins with @: in @{word}; texts: in ["..."]'
        )
    if token.type == "NAME" and re.search(r"\d[k万]?$", before) and re.fullmatch("[a-z]{3}", word):
        return Fault(at, f"{word} does not fit here", f"a currency is written in capitals, like {word.upper()}")
    if token.type == "NAME":
        known = _OTHER_WORDS.get(word.lower())
        close = get_close_matches(word.lower().replace("_", " "), _WORDS, n=1, cutoff=0.7)
        hint = f"write {known}" if known else f"did you mean {close[0]}?" if close else "join conditions with and, or"
        return Fault(at, f"{word} does not fit here", hint)
    if token.type == "LSQB":
        return Fault(at, "a list does not fit here", 'lists follow in, not in, mentions, like chat mentions ["a"]')
    return Fault(at, f"{word} does not fit here", _expected(error))


def _expected(error: UnexpectedToken) -> str:
    for terminal, words in (
        ("NAME", "a field, a number or a text in quotes is expected"),
        ("TEXT", 'a text in quotes is expected, like "急用钱", or a list of them'),
        ("RSQB", "a comma or the closing ] is expected"),
        ("LSQB", 'a list is expected, like ["CN", "HK"]'),
        ("COMPARE", "a comparison, and, or, or the end is expected"),
    ):
        if terminal in error.expected:
            return words
    return "expected: " + ", ".join(sorted(error.expected)).lower()

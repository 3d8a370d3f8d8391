"""Whether an expression fits the declared fields: names, types, values that can occur, patterns that compile.

Knows the feature registry's declarations and the wire format's closed vocabularies; evaluates nothing.
Every fault carries the offset of the word it is about; all faults of an expression are found in one go.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Final, Literal, get_args

import re2
from iso4217 import Currency

from fraudguard.domain import ENTITY_FIELDS, Feature, Message, Transaction, Typology
from fraudguard.rules.expression import (
    HOUR_OF_DAY,
    And,
    Arithmetic,
    Between,
    Comparison,
    Constant,
    Fault,
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
    membership,
    split_membership,
)
from fraudguard.rules.text import fold, fold_pattern

ATTRIBUTE: Final = "attributes."
TERM_LENGTH_MAX: Final = 256
PATTERN_LENGTH_MAX: Final = 1_000
LENGTH_SUGGESTED_MAX: Final = 100  # of a word that is compared with the known ones, which takes quadratic time

# `any`: an attribute, whose type its sender chooses. None: already complained about.
Type = Literal["number", "text", "boolean", "any"] | None


def _words(model: type[Transaction] | type[Message], name: str) -> tuple[str, ...]:
    return get_args(model.model_fields[name].annotation)


# A comparison with any other word can never hold, which nobody means.
VOCABULARY: Final[Mapping[str, tuple[str, ...]]] = {
    "event_type": ("transaction", "message"),
    "direction": _words(Transaction, "direction"),
    "kind": _words(Transaction, "kind"),
    "channel": (*_words(Transaction, "channel"), *_words(Message, "channel")),
    "sender": _words(Message, "sender"),
    "typology": tuple(Typology),
    "typology_previous": tuple(Typology),
    "weekday": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
}
CURRENCIES: Final = frozenset(currency.value for currency in Currency)
EVENTS_CURRENCY: Final = "event's currency"  # the unit of `amount`
BASE_CURRENCY: Final = "base currency"  # the unit of sums where nobody said which it is
_NOTHING: Final = {"null", "none", "nil", "nan", "empty", "missing", "unknown"}


def field_type(name: str, fields: Mapping[str, Feature]) -> Type:
    """The declared type, `any` for an event's own attribute, None for an unknown name."""
    if name.startswith(ATTRIBUTE) and len(name) > len(ATTRIBUTE):
        return "any"
    feature = fields.get(name)
    return feature.type if feature else None


def suggest(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known word, or the empty string."""
    close = get_close_matches(word.lower()[:LENGTH_SUGGESTED_MAX], known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def check_condition(tree: Node, fields: Mapping[str, Feature]) -> list[Fault]:
    """Everything wrong with an expression that must be a condition, in reading order."""
    checker = _Checker(fields)
    checker.condition(tree)
    # A range over midnight, or of money, is two conditions on one field: its fault is told once.
    return sorted(dict.fromkeys(checker.faults), key=lambda fault: fault.at)


def compile_pattern(pattern: str) -> re2._Regexp:
    """The linear-time pattern, to be searched in folded text; raises re2.error."""
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    return re2.compile(fold_pattern(pattern), options)


class _Checker:
    def __init__(self, fields: Mapping[str, Feature]) -> None:
        self.fields = fields
        self.faults: list[Fault] = []

    def fault(self, node: Node, message: str, hint: str = "") -> None:
        self.faults.append(Fault(node.at, message, hint))

    def condition(self, node: Node) -> None:
        """Complain unless the node is true or false."""
        kind = self.type_of(node)
        if kind == "number":
            shown = f"{node.name} > 10" if isinstance(node, Field) else "transfers_1d > 10"
            self.fault(node, "a number is not a condition", f"compare it, like {shown}")
        elif kind == "text" and isinstance(node, Text):
            self.fault(node, "a text is not a condition", f'list the phrases: mentions ["...", "{node.value}"]')
        elif kind == "text":
            self.fault(node, "a text is not a condition", 'test it, like chat mentions ["急用钱"]')

    def type_of(self, node: Node) -> Type:
        """The node's type; complaints about everything below it are noted on the way."""
        match node:
            case Field():
                return self.field(node)
            case Number():
                if not math.isfinite(node.value):
                    self.fault(node, "this number is too large", "at most about 1.8e308")
                return "number"
            case Text():
                return "text"
            case Flag():
                return "boolean"
            case Negative():
                self.number(node.value, "a minus sign")
                return "number"
            case Arithmetic():
                self.number(node.left, node.operator)
                self.number(node.right, node.operator)
                if node.operator in {"+", "-"}:
                    self.units(node.left, node.right)
                if node.operator == "/" and node.right == Number(0.0):
                    self.fault(node.right, "division by zero is always missing")
                return "number"
            case And() | Or():
                for item in node.items:
                    self.condition(item)
            case Not():
                self.condition(node.item)
            case Known():
                if not isinstance(node.value, Field | Arithmetic | Negative):
                    self.fault(node.value, "only a field can be missing", "like counterparty_id is missing")
                self.type_of(node.value)
            case Comparison():
                self.comparison(node)
            case Between():
                self.between(node)
            case Within():
                self.within(node)
            case Listed():
                self.listed(node)
            case TextTest() | Matches():
                self.text_test(node)
        return "boolean"

    def field(self, node: Field) -> Type:
        kind = field_type(node.name, self.fields)
        if kind is None:
            if node.name.lower() in _NOTHING:
                self.fault(node, f"{node.name} is not a value", "write is missing or is known")
            else:
                known = suggest(node.name, (name for name in self.fields if " " not in name))
                hint = known or "see `fraudguard features`; an event's own is attributes.NAME; text needs quotes"
                self.fault(node, f"unknown field {node.name}", hint)
        return kind

    def number(self, node: Node, why: str) -> None:
        kind = self.type_of(node)
        if kind in {"text", "boolean"}:
            self.fault(node, f"{why} needs a number, this is {_a(kind)}")

    def comparison(self, node: Comparison) -> None:
        left, right = self.type_of(node.left), self.type_of(node.right)
        self.units(node.left, node.right)
        if node.operator not in {"==", "!="}:
            for side, kind in ((node.left, left), (node.right, right)):
                if kind in {"text", "boolean"}:
                    self.fault(side, f"{node.operator} needs numbers, this is {_a(kind)}", _quoted(side))
            return
        self.same(node.left, left, node.right, right)
        if isinstance(node.left, Field) and isinstance(node.right, Text):
            self.word(node.left, node.right)
        elif isinstance(node.right, Field) and isinstance(node.left, Text):
            self.word(node.right, node.left)

    def same(self, left: Node, left_kind: Type, right: Node, right_kind: Type) -> None:
        if None in {left_kind, right_kind} or "any" in {left_kind, right_kind} or left_kind == right_kind:
            return
        name = left.name if isinstance(left, Field) else "the left side"
        self.fault(right, f"{name} is {_a(left_kind)}, this is {_a(right_kind)}", _quoted(right) or _quoted(left))

    def word(self, field: Field, text: Text) -> None:
        known = VOCABULARY.get(field.name, ())
        if known and text.value not in known:
            self.fault(text, f'{field.name} is never "{text.value}"', suggest(text.value, known) or _or(known))

    def between(self, node: Between) -> None:
        for part in (node.value, node.low, node.high):
            kind = self.type_of(part)
            if kind in {"text", "boolean"}:
                self.fault(part, f"between needs numbers, this is {_a(kind)}", _quoted(part))
        self.units(node.value, node.low)
        self.units(node.value, node.high)
        self.units(node.low, node.high)
        if isinstance(node.low, Number) and isinstance(node.high, Number) and node.low.value > node.high.value:
            name = node.value.name if isinstance(node.value, Field) else "x"
            low, high = f"{node.low.value:g}", f"{node.high.value:g}"
            hint = f"smaller end first, or write ({name} >= {low} or {name} <= {high})"
            self.fault(node.low, f"nothing is between {low} and {high}", hint)

    def units(self, left: Node, right: Node) -> None:
        """Complain of a time of day or a sum of money beside something of another unit."""
        for literal, other in ((left, right), (right, left)):
            if not isinstance(literal, Number) or not literal.unit:
                continue
            if isinstance(other, Number) and other.unit and literal is left:
                continue  # two ends of a range: the second is the one to complain about
            if isinstance(other, Number) and not other.unit:
                like = f"{other.value:g} {literal.unit}" if literal.unit != HOUR_OF_DAY else "22:00"
                self.fault(other, "this must be written like the other end", f"like {like}")
                continue
            shown = f"{other.name} is" if isinstance(other, Field) else "the other side is"
            unit = self.unit(other)
            if literal.unit == HOUR_OF_DAY:
                if unit not in {None, HOUR_OF_DAY}:
                    hint = "times of day are compared with local_time, like local_time >= 22:00"
                    self.fault(literal, f"this is a time of day, {shown} {_unit(unit)}", hint)
            elif literal.unit not in CURRENCIES:
                near = suggest_code(literal.unit)
                self.fault(literal, f"{literal.unit} is no currency", near or "three capitals of ISO 4217, like CNY")
            elif unit not in {None, literal.unit} and not (unit == EVENTS_CURRENCY and isinstance(other, Field)):
                self.fault(literal, f"this is in {literal.unit}, {shown} {_unit(unit)}", _money_hint(literal, unit))

    def unit(self, node: Node) -> str | None:
        """The unit of a number, "" for none. None: it was complained about, or it is a text."""
        match node:
            case Number(unit=unit):
                return unit
            case Field(name=name) if name in self.fields:
                return self.fields[name].unit if self.fields[name].type == "number" else None
            case Field(name=name):
                return "" if name.startswith(ATTRIBUTE) else None
            case Negative(value=value):
                return self.unit(value)
            case Arithmetic(operator=operator, left=left, right=right):
                units = (self.unit(left), self.unit(right))
                if operator == "/" and units[0] == units[1]:
                    return ""
                return next((unit for unit in units if unit), "") if operator != "/" else units[0]
        return None

    def listed(self, node: Listed) -> None:
        lists = dict(pair[::-1] for name in self.fields if (pair := split_membership(name)))
        wanted = lists.get(node.list)
        if wanted is None:
            near = get_close_matches(node.list, lists, n=1)
            known = f"did you mean @{near[0]}?" if near else ""
            hint = known or ("one of " + ", ".join(f"@{name}" for name in sorted(lists)[:10]) if lists else "")
            message = f"there is no list @{node.list}"
            self.faults.append(Fault(node.list_at, message, hint or "lists are declared in lists.yaml"))
        elif not isinstance(node.value, Field):
            self.fault(node.value, "only a field can be on a list", f"like {membership(wanted, node.list)}")
        elif node.value.name != wanted:
            (entity,) = (entity for entity, name in ENTITY_FIELDS.items() if name == wanted)
            message = f"@{node.list} is a list of {_MANY[entity]}, so {node.value.name} is never on it"
            self.fault(node.value, message, f"write {membership(wanted, node.list)}, or use another list")
        if wanted is None:
            self.type_of(node.value)

    def within(self, node: Within) -> None:
        kind = self.type_of(node.value)
        for option in node.options:
            self.option(node, kind, option)

    def option(self, node: Within, kind: Type, option: Constant) -> None:
        self.same(node.value, kind, option, self.type_of(option))
        if isinstance(node.value, Field) and isinstance(option, Text):
            self.word(node.value, option)

    def text_test(self, node: TextTest | Matches) -> None:
        name = node.kind if isinstance(node, TextTest) else "matches"
        kind = self.type_of(node.value)
        if kind in {"number", "boolean"}:
            self.fault(node.value, f"{name} needs a text, this is {_a(kind)}", "compare it with ==, < or >")
        elif kind is not None and not isinstance(node.value, Field):
            self.fault(node.value, f"{name} needs a field", "like chat or memo")
        if isinstance(node, Matches):
            self.pattern(node.pattern)
            return
        for term in node.terms:
            if not fold(term.value).strip():
                self.fault(term, "an empty text is in every text", "write at least one letter")
            elif len(term.value) > TERM_LENGTH_MAX:
                self.fault(term, f"this text is longer than {TERM_LENGTH_MAX} characters")

    def pattern(self, pattern: Text) -> None:
        if len(pattern.value) > PATTERN_LENGTH_MAX:
            self.fault(pattern, f"this pattern is longer than {PATTERN_LENGTH_MAX} characters")
            return
        try:
            compile_pattern(pattern.value)
        except re2.error as error:
            detail = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error.args[0])
            hint = "look-ahead, look-behind and back-references are not offered: they can take exponential time"
            self.fault(pattern, f"not a pattern: {detail}", hint if "(?" in detail or "escape" in detail else "")


_MANY: Final = {
    "account": "accounts",
    "counterparty": "counterparties",
    "device": "devices",
    "ip": "network addresses",
    "merchant": "merchants",
}


def suggest_code(word: str) -> str:
    """A hint that names the currency code people mean by RMB and the like, or the nearest code."""
    known = {"RMB": "CNY", "YUAN": "CNY", "HKG": "HKD", "NTD": "TWD", "STG": "GBP", "EURO": "EUR"}.get(word)
    close = [known] if known else get_close_matches(word, sorted(CURRENCIES), n=1)
    return f"did you mean {close[0]}?" if close else ""


def _unit(unit: str | None) -> str:
    if not unit:
        return "a plain number"
    if unit in CURRENCIES:
        return f"in {unit}"
    known = {"count": "a count", "ratio": "a ratio", "share": "a share", EVENTS_CURRENCY: "in the event's own currency",
             BASE_CURRENCY: "in the base currency", HOUR_OF_DAY: "a time of day"}  # fmt: skip
    return known.get(unit, "a plain number")


def _money_hint(literal: Number, unit: str | None) -> str:
    if unit == EVENTS_CURRENCY:
        return f"compare amount alone, like amount > {literal.value:g} {literal.unit}"
    if unit in CURRENCIES:
        return f"write it in {unit}, or compare amount, which is in the event's own currency"
    return f"leave {literal.unit} away"


def _a(kind: Type) -> str:
    return {"number": "a number", "text": "a text", "boolean": "true or false"}.get(kind or "", "of unknown type")


def _or(words: Sequence[str]) -> str:
    return "one of " + ", ".join(words)


def _quoted(node: Node) -> str:
    if isinstance(node, Text):
        bare = node.value.replace(",", "")
        return f"without quotes: {bare}" if bare.replace(".", "", 1).isdigit() else ""
    if isinstance(node, Number):
        return f'in quotes: "{node.value:g}"'
    return ""

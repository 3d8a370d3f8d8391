"""Why a condition holds or not: the truth of each part with the values it read, and what would have turned it.

Knows the syntax tree and asks reference.py for every truth, so that it cannot disagree with it; nodes that it has no
words for are shown by their fields. Knows no rule, no policy and no feature. Slow: for one decision at a time.
"""

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Final, Literal

from fraudguard.domain import Scalar
from fraudguard.rules.expression import (
    HOUR_OF_DAY,
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
    walk,
)
from fraudguard.rules.gate import slots_of
from fraudguard.rules.reference import holds
from fraudguard.rules.text import fold, mentions
from fraudguard.rules.validators import ATTRIBUTE, Type, compile_pattern
from fraudguard.rules.values import Value, Values

VALUE_CHARS_MAX: Final = 60  # of a text shown; a conversation has thousands
AROUND_CHARS: Final = 20  # of an excerpt, to either side


@dataclass(frozen=True, slots=True)
class Phrase:
    """What a text test found. excerpt: the folded text around it, of one line, dots where it was cut."""

    field: str
    phrase: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class Part:
    """A condition or a part of one. kind `all`, `any`, `not`: of its parts; `test`: it has none.

    values: of a test, what it read, by name; None is missing, long texts are cut.
    """

    kind: Literal["all", "any", "not", "test"]
    text: str
    holds: bool
    values: tuple[tuple[str, Scalar], ...]
    found: tuple[Phrase, ...]
    parts: tuple["Part", ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one value that turns a condition. was: before, long texts cut; to: a value that does it.

    text: every such value in words, like `transfers_1d at most 10`. size: of a number's change over the number, else 1.
    """

    name: str
    was: Scalar
    to: Scalar
    text: str
    size: float


def trace(condition: Node, values: Values) -> Part:
    """The truth of a condition and of all its parts."""
    kind: Literal["all", "any", "not", "test"]
    below: tuple[Node, ...]
    match condition:
        case And(items=below):
            kind = "all"
        case Or(items=below):
            kind = "any"
        case Not(item=item):
            kind, below = "not", (item,)
        case _:
            kind, below = "test", ()
    return Part(
        kind,
        spell(condition),
        holds(condition, values),
        () if below else tuple((name, _cut(values.get(name))) for name in names_of(condition)),
        () if below else tuple(_found(condition, values)),
        tuple(trace(item, values) for item in below),
    )


def names_of(condition: Node) -> tuple[str, ...]:
    """The inputs that a condition reads, in reading order."""
    written = [node.name for node in walk(condition) if isinstance(node, Field)]
    # A node may read an input that does not stand in it as a field.
    return tuple(dict.fromkeys([*written, *(name for name, _ in slots_of([condition], ()))]))


def changes(condition: Node, values: Values, types: Mapping[str, Type]) -> tuple[Change, ...]:
    """For each of `types` (name to type) the smallest found change of it alone that turns the condition.

    The smallest relative change of a number first. A name is left out when no value of it turns the condition; a
    number's is searched at and beside the constants and at doubling distances, then narrowed to the exact double.
    """
    turning = (_change(condition, values, name, kind) for name, kind in types.items())
    return tuple(sorted(filter(None, turning), key=lambda change: change.size))


def spell(node: Node) -> str:
    """The node as a rule's author would write it."""
    match node:
        case Field():
            own = node.name.removeprefix(ATTRIBUTE)
            return f'{ATTRIBUTE}"{own}"' if own != node.name and not re.fullmatch(r"\w+", own) else node.name
        case Number(unit=unit):
            return _clock(node.value) if unit == HOUR_OF_DAY else f"{_digits(node.value)} {unit}".rstrip()
        case Text():
            return _quoted(node.value)
        case Flag():
            return str(node.value).lower()
        case Negative():
            return f"-{_within(node.value, *_CLAUSES, Arithmetic, Negative)}"
        case Arithmetic():
            sides = (_within(side, *_CLAUSES, Arithmetic, Negative) for side in (node.left, node.right))
            return f" {node.operator} ".join(sides)
        case Comparison():
            return f" {node.operator} ".join(_within(side, *_CLAUSES) for side in (node.left, node.right))
        case Within():
            verb = "not in" if node.negated else "in"
            return f"{_within(node.value, *_CLAUSES)} {verb} [{', '.join(map(spell, node.options))}]"
        case Listed():
            return f"{spell(node.value)} {'not in' if node.negated else 'in'} @{node.list}"
        case Between():
            value, low, high = (_within(part, *_CLAUSES) for part in (node.value, node.low, node.high))
            return f"{value} {'not between' if node.negated else 'between'} {low} and {high}"
        case Known():
            return f"{_within(node.value, *_CLAUSES)} is {'missing' if node.negated else 'known'}"
        case TextTest():
            return f"{_within(node.value, *_CLAUSES)} {node.kind} [{', '.join(map(spell, node.terms))}]"
        case Matches():
            return f"{_within(node.value, *_CLAUSES)} matches {spell(node.pattern)}"
        case And():
            return " and ".join(_within(item, And, Or) for item in node.items)
        case Or():
            return " or ".join(_within(item, And, Or) for item in node.items)
        case Not():
            return f"not {_within(node.item, And, Or)}"
    parts = (_part(getattr(node, slot.name)) for slot in fields(node) if slot.compare)
    return f"{type(node).__name__.lower()}({', '.join(parts)})"


def show(value: Scalar) -> str:
    """A value as it reads in an explanation: numbers to twelve digits, texts in quotes, `missing` for None."""
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else _digits(float(f"{value:.12g}"))


_CLAUSES: Final = (And, Or, Not, Comparison, Within, Between, Known, TextTest, Matches)


def _within(node: Node, *bracketed: type[Node]) -> str:
    return f"({spell(node)})" if isinstance(node, bracketed) else spell(node)


def _part(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_part, value))}]"
    return spell(value) if isinstance(value, Node) else str(value)


def _digits(value: float) -> str:
    whole = format(Decimal(repr(value)), "f") if math.isfinite(value) else str(value)
    before, _, after = whole.partition(".")
    grouped = f"{int(before):_}" if abs(value) >= 10_000 and math.isfinite(value) else before
    return f"{grouped}.{after}" if after.strip("0") else grouped


def _clock(hours: float) -> str:
    minutes = round(hours * 60)
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _cut(value: Scalar) -> Scalar:
    long = isinstance(value, str) and len(value) > VALUE_CHARS_MAX
    return f"{str(value)[:VALUE_CHARS_MAX]}..." if long else value


def _found(node: Node, values: Values) -> Iterator[Phrase]:
    """Each phrase of a text test that is in its text."""
    if not isinstance(node, TextTest | Matches) or not isinstance(node.value, Field):
        return
    name, value = node.value.name, values.get(node.value.name)
    if not isinstance(value, str) or not holds(node, values):
        return
    text = fold(value)
    if isinstance(node, Matches):
        match = compile_pattern(node.pattern.value).search(text)
        yield Phrase(name, match.group(), _excerpt(text, *match.span()))
        return
    for term in node.terms:
        if holds(TextTest(node.kind, node.value, (term,)), values):
            folded = fold(term.value)
            at = _place(node.kind, text, folded)
            yield Phrase(name, term.value, _excerpt(text, at, at + len(folded)) if at >= 0 else "")


def _place(kind: str, text: str, term: str) -> int:
    if kind == "starts with":
        return 0
    if kind == "ends with":
        return len(text) - len(term)
    places = [match.start() for match in re.finditer(f"(?={re.escape(term)})", text)]
    if kind == "mentions":
        # With the character before it, which decides whether a word begins here.
        places = [at for at in places if at == 0 or mentions(text[at - 1 : at + len(term)], term)]
    return places[0] if places else -1


def _excerpt(text: str, start: int, end: int) -> str:
    """One line's worth around a place of the text."""
    low = max(text.rfind("\n", 0, start) + 1, start - AROUND_CHARS)
    line_end = text.find("\n", end)
    high = min(line_end if line_end >= 0 else len(text), end + AROUND_CHARS)
    before = "..." if low > 0 and text[low - 1] != "\n" else ""
    after = "..." if high < len(text) and text[high] != "\n" else ""
    return f"{before}{text[low:high]}{after}"


Turns = Callable[[Value | None], bool]
Turned = tuple[Value | None, str, float]  # to, in words, size


def _change(condition: Node, values: Values, name: str, kind: Type) -> Change | None:
    was, truth = values.get(name), holds(condition, values)
    others = {other: value for other, value in values.items() if other != name}

    def turns(value: Value | None) -> bool:
        return holds(condition, others if value is None else {**others, name: value}) is not truth

    turned: Turned | None = None
    if isinstance(was, bool) or (was is None and kind in {"boolean", "any"}):
        turned = next(((flag, f"{name} is {show(flag)}", 1.0) for flag in (True, False) if turns(flag)), None)
    if turned is None and (isinstance(was, float) or (was is None and kind in {"number", "any"})):
        turned = _number(condition, name, was if isinstance(was, float) else None, turns)
    if turned is None and (isinstance(was, str) or (was is None and kind in {"text", "any"})):
        turned = _text(condition, name, was if isinstance(was, str) else None, values, turns)
    if turned is None and turns(None):
        turned = None, f"{name} is missing", 1.0
    return Change(name, _cut(was), *turned) if turned else None


def _number(condition: Node, name: str, was: float | None, turns: Turns) -> Turned | None:
    base = 0.0 if was is None else was
    if was is None and turns(base):
        return base, f"{name} is known, like {show(base)}", 1.0
    constants = {node.value for node in walk(condition) if isinstance(node, Number)} | {0.0}
    beside = {math.nextafter(c, toward) for c in constants for toward in (-math.inf, math.inf)}
    scale = max(abs(base), 1.0)
    far = {base + sign * scale * 2.0**power for power in range(-10, 40) for sign in (-1, 1)}
    probes = sorted((constants | beside | far) - {base}, key=lambda probe: (abs(probe - base), probe))
    probe = next(filter(turns, filter(math.isfinite, probes)), None)
    if probe is None:
        return None
    kept, to = _ordinal(base), _ordinal(probe)
    while abs(to - kept) > 1:
        middle = (kept + to) // 2
        kept, to = (kept, middle) if turns(_double(middle)) else (middle, to)
    last, first = _double(kept), _double(to)
    up = first > base
    if not turns(_double(to + (1 if up else -1))):
        words = f"is {show(first)}"
    elif len(repr(first)) <= len(repr(last)):
        words = f"{'at least' if up else 'at most'} {show(first)}"
    else:
        words = f"{'above' if up else 'below'} {show(last)}"
    return first, f"{name} {words}", 1.0 if was is None else abs(first - base) / scale


def _text(condition: Node, name: str, was: str | None, values: Values, turns: Turns) -> Turned | None:
    if was and turns(""):
        phrases = dict.fromkeys(p.phrase for node in walk(condition) for p in _found(node, values) if p.field == name)
        shown = "without " + ", ".join(map(_quoted, phrases)) if phrases else f"other than {_quoted(str(_cut(was)))}"
        return "", f"{name} {shown}", 1.0
    for node in walk(condition):
        if isinstance(node, TextTest) and node.value == Field(name):
            for term in node.terms:
                to = {"starts with": f"{term.value}\n{was or ''}"}.get(node.kind, f"{was or ''}\n{term.value}")
                if turns(to):
                    return to, f"{name} with {_quoted(term.value)}", 1.0
    for node in walk(condition):
        if isinstance(node, Text) and node.value != was and turns(node.value):
            return node.value, f"{name} is {_quoted(node.value)}", 1.0
    return ("x", f"{name} is known", 1.0) if was is None and turns("x") else None


def _ordinal(value: float) -> int:
    """Doubles in their order as consecutive integers."""
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF)


def _double(ordinal: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<q", abs(ordinal)))[0]
    return value if ordinal >= 0 else -value

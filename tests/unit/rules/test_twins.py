"""The two evaluators are one meaning: random expressions on random inputs, compiled against reference."""

import random
from decimal import Decimal

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fraudguard.domain import Feature
from fraudguard.rules import expression as ex
from fraudguard.rules.compiler import compile_conditions
from fraudguard.rules.evaluator import Evaluator
from fraudguard.rules.expression import parse
from fraudguard.rules.reference import holds
from fraudguard.rules.validators import check_condition
from fraudguard.rules.values import read_values

NUMBERS = ("transfers_1d", "amount", "risk", "n3")
TEXTS = ("chat", "memo", "country")
BOOLEANS = ("is_new_device", "degraded")
ATTRIBUTES = ("attributes.tier", "attributes.退款 原因")
FIELDS = (
    *(Feature(name, "number", "", "", "", "velocity") for name in NUMBERS),
    *(Feature(name, "text", "", "", "", "event") for name in TEXTS),
    *(Feature(name, "boolean", "", "", "", "profile") for name in BOOLEANS),
)
SLOTS = (
    *((name, "number") for name in NUMBERS),
    *((name, "text") for name in TEXTS),
    *((name, "boolean") for name in BOOLEANS),
    *((name, "any") for name in ATTRIBUTES),
)
WORDS = (
    "急用钱",
    "急-用 钱",
    "urgent money",
    "Urgent  MONEY",
    "pin",
    "shopping",
    "a'b\"c\\",
    "",
    "é",
    "Ａ",
    "ß",
    "0",
    "x" * 70,
)

finite = st.one_of(
    st.sampled_from((0.0, -0.0, 1.0, 10.0, 0.1, 0.30000000000000004, 5e-324, -2.2e-308, 1e16, 1e-7, 2.0**53, 1.7e308)),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-20, 20).map(float),
)
words = st.one_of(
    st.sampled_from(WORDS), st.text(max_size=8), st.sampled_from(WORDS).map(lambda word: f"你{word}。\n好")
)
terms = words.filter(lambda word: any(character.isalnum() for character in word))
patterns = st.sampled_from(
    ("急.?用", r"\bpin\b", "[一-龥]{3}", "URGENT|money", r"^\w+$", "(?s)a.b", r"\d{2,}", "ß", r"\Qa")
)


def constants():
    """Any constant."""
    return st.one_of(finite.map(ex.Number), words.map(ex.Text), st.booleans().map(ex.Flag))


number_fields = st.sampled_from(NUMBERS + ATTRIBUTES).map(ex.Field)
numbers = st.recursive(
    number_fields | finite.map(ex.Number),
    lambda inner: st.one_of(
        st.builds(ex.Arithmetic, st.sampled_from("+-*/"), inner, inner),
        inner.filter(lambda node: not isinstance(node, ex.Number)).map(ex.Negative),
    ),
    max_leaves=3,
)
texts = st.sampled_from(TEXTS + ATTRIBUTES).map(ex.Field)
equal = st.sampled_from(("==", "!="))
tests = st.one_of(
    st.builds(ex.Comparison, st.sampled_from(("==", "!=", "<", "<=", ">", ">=")), numbers, numbers),
    st.builds(ex.Comparison, equal, texts, words.map(ex.Text)),
    st.builds(ex.Comparison, equal, texts, texts),
    st.builds(ex.Comparison, equal, st.sampled_from(BOOLEANS + ATTRIBUTES).map(ex.Field), st.booleans().map(ex.Flag)),
    st.builds(ex.Comparison, equal, st.sampled_from(ATTRIBUTES).map(ex.Field), constants()),
    st.builds(ex.Between, numbers, numbers, numbers, st.booleans()),
    st.builds(
        ex.Within, number_fields, st.lists(finite.map(ex.Number), min_size=1, max_size=3).map(tuple), st.booleans()
    ),
    st.builds(ex.Within, texts, st.lists(words.map(ex.Text), min_size=1, max_size=3).map(tuple), st.booleans()),
    st.builds(ex.Known, st.one_of(texts, number_fields), st.booleans()),
    st.builds(
        ex.TextTest,
        st.sampled_from(("mentions", "contains", "starts with", "ends with")),
        texts,
        st.lists(terms.map(ex.Text), min_size=1, max_size=3).map(tuple),
    ),
    st.builds(ex.Matches, texts, patterns.map(ex.Text)),
    st.sampled_from(BOOLEANS).map(ex.Field),
    st.booleans().map(ex.Flag),
)
conditions = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.builds(ex.And, st.lists(inner, min_size=2, max_size=4).map(tuple)),
        st.builds(ex.Or, st.lists(inner, min_size=2, max_size=4).map(tuple)),
        inner.map(ex.Not),
    ),
    max_leaves=8,
)
scalars = {
    "number": st.one_of(finite, st.integers(-(10**400), 10**400), st.just(float("nan")), st.just("wrong")),
    "text": st.one_of(words, st.just(3.0)),
    "boolean": st.one_of(st.booleans(), st.just("true"), st.just(1)),
    "any": st.one_of(finite, words, st.booleans()),
}
events = st.fixed_dictionaries({name: st.none() | scalars[kind] for name, kind in SLOTS})


def write(node: ex.Node, rng: random.Random) -> str:
    """The expression as somebody might type it: with brackets, spaces, letter case and quotes at random."""

    def text(value: str) -> str:
        quote = rng.choice("\"'")
        return quote + value.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote

    def word(value: str) -> str:
        return rng.choice((value, value.upper(), value.replace(" ", "\n  ")))

    def number(value: float) -> str:
        digits = f"{value:f}" if float(f"{value:f}") == value else None
        return digits.rstrip("0").rstrip(".") or "0" if digits else "0." + "0" * 400 if value == 0 else _long(value)

    def inner(child: ex.Node) -> str:
        return f"({write(child, rng)})"

    match node:
        case ex.Field(name=name) if name.startswith("attributes."):
            return 'attributes."' + name.removeprefix("attributes.") + '"'
        case ex.Field(name=name):
            return name
        case ex.Number(value=value):
            return number(value)
        case ex.Text(value=value):
            return text(value)
        case ex.Flag(value=value):
            return word(str(value).lower())
        case ex.Negative(value=value):
            return "-" + inner(value)
        case (
            ex.Arithmetic(operator=sign, left=left, right=right) | ex.Comparison(operator=sign, left=left, right=right)
        ):
            sign = rng.choice(("==", "=")) if sign == "==" else sign
            return f"{inner(left)}{rng.choice(('', ' '))}{sign} {inner(right)}"
        case ex.Between():
            verb = word("not between" if node.negated else "between")
            return f"{inner(node.value)} {verb} {inner(node.low)} {word('and')} {inner(node.high)}"
        case ex.Within():
            options = ", ".join(write(option, rng) for option in node.options)
            return f"{inner(node.value)} {word('not in' if node.negated else 'in')} [{options}]"
        case ex.Known():
            yes, no = ("is known", "is not missing"), ("is missing", "is not known")
            return f"{inner(node.value)} {word(rng.choice(no if node.negated else yes))}"
        case ex.TextTest():
            options = ", ".join(text(term.value) for term in node.terms)
            listed = options if len(node.terms) == 1 and rng.random() < 0.5 else f"[{options}]"
            return f"{write(node.value, rng)} {word(node.kind)} {listed}"
        case ex.Matches():
            return f"{write(node.value, rng)} {word('matches')} {text(node.pattern.value)}"
        case ex.And(items=items):
            return f" {word('and')} ".join(map(inner, items))
        case ex.Or(items=items):
            return f" {word('or')} ".join(map(inner, items))
        case ex.Not(item=item):
            return f"{word('not')} {inner(item)}"
    raise AssertionError(node)


def _long(value: float) -> str:
    return format(Decimal(repr(value)), "f")


@settings(max_examples=300, deadline=None)
@given(st.lists(conditions, min_size=1, max_size=12), st.lists(events, min_size=1, max_size=6))
def test_compiled_rules_hold_exactly_when_the_reference_says_so(rules, inputs):
    """durable_rules with its derived booleans equals the tree walk on any conditions and any inputs."""
    evaluator = Evaluator(compile_conditions(rules))
    for event in inputs:
        values = read_values(SLOTS, event)
        assert evaluator.evaluate(values) == {i for i, rule in enumerate(rules) if holds(rule, values)}
    evaluator.close()


@settings(max_examples=300, deadline=None)
@given(conditions, st.integers(0, 2**32))
def test_an_expression_reads_back_as_it_was_written(condition, seed):
    """Parsing what was written from a tree gives the tree again."""
    # A text constant stays on its line.
    assume(not any("\n" in node.value for node in ex.walk(condition) if isinstance(node, ex.Text)))
    assert parse(write(condition, random.Random(seed))) == condition


@settings(max_examples=200, deadline=None)
@given(conditions)
def test_a_condition_made_of_fitting_parts_passes_the_type_check(condition):
    """What the twin test builds is what the type check allows, but for conditions that can never hold."""
    faults = check_condition(condition, {field.name: field for field in FIELDS})
    assert not [fault for fault in faults if "division by zero" not in fault.message and "between" not in fault.message]

"""Other ways to evaluate the same conditions: zen-engine, rule-engine, one generated Python function, our own twins.

Knows how to say a parsed condition in each one's language; knows no clock. Missing values are the difficulty: both
peers fail on a comparison with null, so a field that some event lacks is guarded there (`x != null and x > 5`), and one
that no event lacks is not. What a peer cannot say (folded text and RE2 patterns) it is given as a boolean computed
before, outside of its time.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Protocol

from fraudguard.domain import Scalar
from fraudguard.rules.expression import (
    And,
    Arithmetic,
    Between,
    Comparison,
    Field,
    Flag,
    Known,
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
from fraudguard.rules.predicates import Predicates
from fraudguard.rules.reference import holds
from fraudguard.rules.validators import Type
from fraudguard.rules.values import read_values

Slots = Sequence[tuple[str, Type]]
Inputs = Mapping[str, Scalar]

# Said in every one of the three languages by the same words, but for null, which Python calls None.
_WORDS: Final = {
    "zen": ("null", "true", "false"),
    "rule-engine": ("null", "true", "false"),
    "python": ("None", "True", "False"),
}


class Untranslatable(Exception):
    """A part of the language that no generated rule uses; the benchmark must not leave it out silently."""


def text_tests(conditions: Sequence[Node]) -> dict[Node, str]:
    """Every test of folded text, with the name of the boolean that stands for it."""
    found = [node for condition in conditions for node in walk(condition) if isinstance(node, TextTest | Matches)]
    return {node: f"said_{number}" for number, node in enumerate(dict.fromkeys(found))}


class Dialect:
    """A parsed condition as an expression of another engine."""

    def __init__(self, name: str, texts: Mapping[Node, str], lacking: frozenset[str]) -> None:
        """lacking: the fields that some event has no value of."""
        self._texts, self._lacking = texts, lacking
        self._null, self._true, self._false = _WORDS[name]

    def say(self, node: Node) -> str:
        """A condition; raises Untranslatable."""
        match node:
            case And():
                return "(" + " and ".join(map(self.say, node.items)) + ")"
            case Or():
                return "(" + " or ".join(map(self.say, node.items)) + ")"
            case Not():
                return f"(not {self.say(node.item)})"
            case Field():
                return f"({node.name} == {self._true})"
            case TextTest() | Matches():
                return self._texts[node]
            case Known(value=Field(name=name)):
                return f"({name} {'==' if node.negated else '!='} {self._null})"
            case Comparison():
                return self._guarded(f"{self._value(node.left)} {node.operator} {self._value(node.right)}", node)
            case Between():
                low, value, high = map(self._value, (node.low, node.value, node.high))
                inside = f"{value} >= {low} and {value} <= {high}"
                return self._guarded(f"(not ({inside}))" if node.negated else inside, node)
            case Within():
                value = self._value(node.value)
                among = " or ".join(f"{value} == {self._value(option)}" for option in node.options)
                return self._guarded(f"(not ({among}))" if node.negated else f"({among})", node)
        raise Untranslatable(f"{node}")

    def _value(self, node: Node) -> str:
        match node:
            case Field():
                return node.name
            case Number():
                return format(Decimal(repr(node.value)), "f")
            case Text() if node.value.isprintable() and not {"'", '"', "\\"} & set(node.value):
                return f"'{node.value}'"
            case Flag():
                return self._true if node.value else self._false
            case Negative():
                return f"(0 - {self._value(node.value)})"
            case Arithmetic():
                return f"({self._value(node.left)} {node.operator} {self._value(node.right)})"
        raise Untranslatable(f"{node}")

    def _guarded(self, said: str, node: Node) -> str:
        """False where a field is missing or a divisor is 0, which our language means and the others fail on."""
        parts = list(walk(node))
        names = dict.fromkeys(part.name for part in parts if isinstance(part, Field) and part.name in self._lacking)
        guards = [f"{name} != {self._null}" for name in names]
        guards += [f"{self._value(p.right)} != 0" for p in parts if isinstance(p, Arithmetic) and p.operator == "/"]
        return "(" + " and ".join([*guards, said]) + ")"


class Judge(Protocol):
    """Conditions ready to be asked about events."""

    def shape(self, inputs: Inputs) -> Any:
        """The event as the engine takes it; not in its time."""
        ...

    def hits(self, shaped: Any) -> Sequence[int]:
        """Indexes of the conditions that hold, ascending; timed."""
        ...


class Reference:
    """fraudguard.rules.reference: walks the trees; what it says is the truth."""

    def __init__(self, conditions: Sequence[Node], slots: Slots) -> None:
        self._conditions, self._slots = conditions, slots

    def shape(self, inputs: Inputs) -> Inputs:
        """As it is."""
        return inputs

    def hits(self, shaped: Inputs) -> list[int]:
        """With reading the values."""
        values = read_values(self._slots, shaped)
        return [number for number, condition in enumerate(self._conditions) if holds(condition, values)]


class Closures:
    """fraudguard.rules.predicates for whole conditions, where the service uses it for what the core cannot do."""

    def __init__(self, conditions: Sequence[Node], slots: Slots) -> None:
        self._predicates, self._slots = Predicates(conditions), slots

    def shape(self, inputs: Inputs) -> Inputs:
        """As it is."""
        return inputs

    def hits(self, shaped: Inputs) -> list[int]:
        """With reading the values."""
        holding = self._predicates.evaluate(read_values(self._slots, shaped))
        return [number for number, held in enumerate(holding) if held]


class _Peer:
    """Takes the named fields, null where missing, and a boolean for each test of text."""

    def __init__(self, conditions: Sequence[Node], slots: Slots, lacking: frozenset[str], name: str) -> None:
        self._slots, self._texts = slots, text_tests(conditions)
        dialect = Dialect(name, self._texts, lacking)
        self.said = [dialect.say(condition) for condition in conditions]

    def shape(self, inputs: Inputs) -> dict[str, Any]:
        """The event, with the text tests done."""
        values = read_values(self._slots, inputs)
        return {name: values.get(name) for name, _ in self._slots} | {
            name: holds(node, values) for node, name in self._texts.items()
        }


class Generated(_Peer):
    """One Python function of all conditions; reads values and tests text itself, in its time."""

    def __init__(self, conditions: Sequence[Node], slots: Slots, lacking: frozenset[str]) -> None:
        super().__init__(conditions, slots, lacking, "python")
        texts = list(self._texts)
        self._names, self._predicates = list(self._texts.values()), Predicates(texts)
        names = [name for name, _ in slots]
        lines = [
            f"def conditions(get, said):\n hits = []\n add = hits.append\n {', '.join(self._names)}, *_ = *said, 0"
        ]
        lines += [f" {name} = get({name!r})" for name in names]
        lines += [f" if {said}: add({number})" for number, said in enumerate(self.said)]
        space: dict[str, Any] = {}
        exec("\n".join([*lines, " return hits"]), space)
        self._function = space["conditions"]

    def shape(self, inputs: Inputs) -> Any:
        """As it is."""
        return inputs

    def hits(self, shaped: Inputs) -> list[int]:
        """With reading the values and testing the text."""
        values = read_values(self._slots, shaped)
        return list(self._function(values.get, self._predicates.evaluate(values)))


class ZenTable(_Peer):
    """zen-engine as its documents show it: a decision table that collects, one row a rule."""

    def __init__(self, conditions: Sequence[Node], slots: Slots, lacking: frozenset[str]) -> None:
        import zen

        super().__init__(conditions, slots, lacking, "zen")
        rows = [{"_id": f"r{n}", "when": said, "then": str(n)} for n, said in enumerate(self.said)]
        table = {
            "hitPolicy": "collect",
            "inputs": [{"id": "when", "name": "when", "type": "expression"}],
            "outputs": [{"id": "then", "name": "rule", "field": "rule", "type": "expression"}],
            "rules": rows,
        }
        nodes = [
            {"id": "in", "name": "in", "type": "inputNode"},
            {"id": "table", "name": "table", "type": "decisionTableNode", "content": table},
            {"id": "out", "name": "out", "type": "outputNode"},
        ]
        edges = [
            {"id": f"{a}-{b}", "sourceId": a, "targetId": b, "type": "edge"}
            for a, b in (("in", "table"), ("table", "out"))
        ]
        self._decision = zen.ZenEngine().create_decision(json.dumps({"nodes": nodes, "edges": edges}))

    def hits(self, shaped: dict[str, Any]) -> list[int]:
        """One evaluation of the graph."""
        return [row["rule"] for row in self._decision.evaluate(shaped)["result"]]


class ZenExpression(_Peer):
    """zen-engine as fast as it goes: its bare expression language, all conditions in one list, no rules or graph."""

    def __init__(self, conditions: Sequence[Node], slots: Slots, lacking: frozenset[str]) -> None:
        import zen

        super().__init__(conditions, slots, lacking, "zen")
        self._expression = zen.compile_expression(f"[{', '.join(self.said)}]")

    def hits(self, shaped: dict[str, Any]) -> list[int]:
        """One evaluation of the list."""
        return [number for number, held in enumerate(self._expression.evaluate(shaped)) if held]


class RuleEngine(_Peer):
    """rule-engine: a Rule object a condition, with typed fields."""

    def __init__(self, conditions: Sequence[Node], slots: Slots, lacking: frozenset[str]) -> None:
        import rule_engine

        super().__init__(conditions, slots, lacking, "rule-engine")
        kinds = {
            "number": rule_engine.DataType.FLOAT,
            "text": rule_engine.DataType.STRING,
            "boolean": rule_engine.DataType.BOOLEAN,
        }
        types = {name: kinds[str(kind)] for name, kind in slots} | dict.fromkeys(self._texts.values(), kinds["boolean"])
        context = rule_engine.Context(type_resolver=rule_engine.type_resolver_from_dict(types))
        self._rules = [rule_engine.Rule(said, context=context) for said in self.said]

    def hits(self, shaped: dict[str, Any]) -> list[int]:
        """Each rule in turn."""
        return [number for number, rule in enumerate(self._rules) if rule.matches(shaped)]


PEERS: Final[dict[str, Callable[[Sequence[Node], Slots, frozenset[str]], Judge]]] = {
    "generated Python": Generated,
    "zen-engine, decision table": ZenTable,
    "zen-engine, bare expression": ZenExpression,
    "rule-engine": RuleEngine,
    "our closures": lambda conditions, slots, _: Closures(conditions, slots),
    "our reference": lambda conditions, slots, _: Reference(conditions, slots),
}

"""Conditions compiled for durable_rules, in the one mode of it that is safe.

Knows what the C core may be given: one flat fact with generated, type-separated keys; conjunctions of comparisons
with a constant, of booleans and of text equality. Everything else becomes a boolean that predicates.py computes
before, and that stands in the fact only when true. The bounds below keep clear of the core's own limits, each of
which crashes, hangs or silently drops matches when passed (docs/rules.md, "The core").
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import product
from typing import Final, Literal

from fraudguard.rules.expression import And, Comparison, Field, Flag, Listed, Node, Number, Or, Text

TERMS_MAX: Final = 4  # conjunctions of one condition; more alternatives become one derived boolean
LEAVES_MAX: Final = 12  # conditions of one conjunction; the core takes 16
PENDING_MAX: Final = 60  # nodes waiting at once in the worst case; at 64 the core gives the event up
SHARD_TERMS_MAX: Final = 200  # the core has 256 places for equal conditions and 512 for siblings
SHARD_KEYS_MAX: Final = 240  # the core takes 252 properties in a fact
TEXT_MAX: Final = 64  # characters of a text constant the core compares
INTEGER_MAX: Final = 2**53

SENTINEL: Final = "z"
# Matches every fact, so that an evaluation that was given up shows. Half, so that it also notices a process
# locale with a decimal comma, in which the core would read every number wrongly.
SENTINEL_RULE: Final = f'"{SENTINEL}":{{"all":[{{"m":{{"$gt":{{"{SENTINEL}":0.25}}}}}}]}}'

Kind = Literal["n", "s", "b", "p"]  # number, text, boolean, derived boolean

_FLIPPED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_VERBS: Final = {"<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte", "!=": "$neq"}
# Names with a meaning of their own in the core, which tells names apart by a 32-bit hash alone.
_RESERVED: Final = (
    "id", "sid", "m", "s", "$s", "$m", "$i", "all", "any", "pri", "count", "cap", "dist", "name", "$lt", "$lte",
    "$gt", "$gte", "$eq", "$neq", "$mt", "$imt", "$iall", "$iany", "$ex", "$nex", "$or", "$and", "$not", "$add",
    "$sub", "$mul", "$div", "$l", "$r", "$forward", SENTINEL,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Leaf:
    """One condition as the core reads it. exclusive: of those on one key at most one can hold."""

    key: str
    source: str
    exclusive: bool


Term = tuple[int, tuple[Leaf, ...]]  # which condition, and the leaves that together make it hold


@dataclass(frozen=True, slots=True)
class Shard:
    """One rule set of the core. keys: what its fact may contain. conditions: by generated rule name."""

    source: str
    keys: tuple[str, ...]
    conditions: dict[str, int]


@dataclass(frozen=True, slots=True)
class Program:
    """Compiled conditions. natives: (field, kind) to key. derived: the conditions behind the keys of kind p."""

    natives: dict[tuple[str, Kind], str]
    derived: dict[Node, str]
    shards: tuple[Shard, ...]


def compile_conditions(conditions: Sequence[Node]) -> Program:
    """Compile type-checked conditions; the same input gives the same output."""
    compiler = _Compiler()
    terms = [(i, leaves) for i, condition in enumerate(conditions) for leaves in compiler.terms(condition)]
    return Program(compiler.natives, compiler.derived, _pack(terms))


def encode_number(value: float) -> str:
    """The double in plain decimal digits, which the core's parser reads back exactly; it knows no exponents."""
    text = repr(value)
    if "e" in text:
        text = format(Decimal(text), "f")
    return text if "." in text else text + ".0"


def encode_text(value: str) -> str:
    """The text as the core compares it: cut one past the longest constant, nothing unprintable raw."""
    value = value[: TEXT_MAX + 1]
    return json.dumps(value, ensure_ascii=not value.isprintable())


def fnv1a(name: str) -> int:
    """The core's hash of a name: FNV-1a, 32 bits."""
    code = 0x811C9DC5
    for byte in name.encode():
        code = (code ^ byte) * 0x01000193 & 0xFFFFFFFF
    return code


class _Compiler:
    def __init__(self) -> None:
        self.natives: dict[tuple[str, Kind], str] = {}
        self.derived: dict[Node, str] = {}
        self._hashes = {fnv1a(name) for name in _RESERVED}
        self._made = 0

    def terms(self, node: Node) -> list[tuple[Leaf, ...]]:
        """Disjunctive normal form of at most TERMS_MAX conjunctions of at most LEAVES_MAX leaves."""
        if isinstance(node, Or):
            alternatives = [term for item in node.items for term in self.terms(item)]
            return alternatives if len(alternatives) <= TERMS_MAX else [(self._derive(node),)]
        if not isinstance(node, And):
            return [(self._native(node) or self._derive(node),)]
        terms: list[tuple[Leaf, ...]] = [()]
        for item in node.items:
            options = self.terms(item)
            if len(terms) * len(options) > TERMS_MAX:
                options = [(self._derive(item),)]
            terms = [left + right for left, right in product(terms, options)]
        terms = [tuple(dict.fromkeys(term)) for term in terms]
        return terms if max(map(len, terms)) <= LEAVES_MAX else [(self._derive(node),)]

    def _native(self, node: Node) -> Leaf | None:
        match node:
            case Field(name=name):
                return self._boolean(name, True)
            case Listed(name=name, negated=negated):
                return self._boolean(name, not negated)
            case Comparison(operator=operator, left=Field(name=name), right=constant):
                pass
            case Comparison(operator=flipped, left=constant, right=Field(name=name)):
                operator = _FLIPPED[flipped]  # type: ignore[assignment]  # the table maps operators to operators
            case _:
                return None
        match constant:
            case Number(value=value) if abs(value) < INTEGER_MAX:
                key, number = self._key(name, "n"), encode_number(value)
                if operator == "==":
                    return Leaf(key, f'{{"{key}":{number}}}', True)
                return Leaf(key, f'{{"{_VERBS[operator]}":{{"{key}":{number}}}}}', False)
            case Flag(value=flag) if operator in {"==", "!="}:
                return self._boolean(name, flag is (operator == "=="))
            case Text(value=text) if operator == "==" and len(text) <= TEXT_MAX and text.isprintable():
                key = self._key(name, "s")
                return Leaf(key, f'{{"{key}":{encode_text(text)}}}', True)
        return None

    def _boolean(self, name: str, value: bool) -> Leaf:
        key = self._key(name, "b")
        return Leaf(key, f'{{"{key}":{json.dumps(value)}}}', True)

    def _derive(self, node: Node) -> Leaf:
        key = self.derived.get(node) or self.derived.setdefault(node, self._new_key("p"))
        return Leaf(key, f'{{"{key}":true}}', False)

    def _key(self, name: str, kind: Kind) -> str:
        return self.natives.get((name, kind)) or self.natives.setdefault((name, kind), self._new_key(kind))

    def _new_key(self, kind: Kind) -> str:
        while True:
            key = f"{kind}{self._made}"
            self._made += 1
            if fnv1a(key) not in self._hashes:
                self._hashes.add(fnv1a(key))
                return key


@dataclass(slots=True)
class _Trie:
    """The core's own network of shared conditions, to know what can be waiting in it at once."""

    below: dict[Leaf, "_Trie"] = field(default_factory=dict)

    def add(self, leaves: Sequence[Leaf]) -> None:
        node = self
        for leaf in leaves:
            node = node.below.setdefault(leaf, _Trie())

    def pending(self) -> int:
        """The most nodes that can wait at once: a node is taken off and all its matching children are put on."""
        if not self.below:
            return 1
        matching = len({leaf.key if leaf.exclusive else leaf.source for leaf in self.below})
        return matching - 1 + max(child.pending() for child in self.below.values())


def _pack(terms: Sequence[Term]) -> tuple[Shard, ...]:
    """Spread the terms over as few shards as the bounds allow, those that share leaves side by side."""
    shared = Counter(leaf for _, leaves in terms for leaf in leaves)

    def rank(leaf: Leaf) -> tuple[bool, bool, int, str]:
        # What is mostly absent comes first, so that the core stops early; then what most terms share.
        return leaf.key[0] != "p", not leaf.exclusive, -shared[leaf], leaf.source

    ordered = [(condition, tuple(sorted(leaves, key=rank))) for condition, leaves in terms]
    ordered.sort(key=lambda term: ([leaf.source for leaf in term[1]], term[0]))
    shards: list[Shard] = []
    batch: list[Term] = []
    for term in ordered:
        if batch and not _fits([*batch, term]):
            shards.append(_shard(batch))
            batch = []
        batch.append(term)
    return (*shards, _shard(batch)) if batch else ()


def _fits(terms: Sequence[Term]) -> bool:
    trie = _Trie()
    for _, leaves in terms:
        trie.add(leaves)
    keys = {leaf.key for _, leaves in terms for leaf in leaves}
    return len(terms) <= SHARD_TERMS_MAX and len(keys) <= SHARD_KEYS_MAX and trie.pending() + 1 <= PENDING_MAX


def _shard(terms: Sequence[Term]) -> Shard:
    conditions, rules = {}, [SENTINEL_RULE]
    for i, (condition, leaves) in enumerate(terms):
        name = f"r{i}"
        conditions[name] = condition
        both = leaves[0].source if len(leaves) == 1 else '{"$and":[' + ",".join(leaf.source for leaf in leaves) + "]}"
        rules.append(f'"{name}":{{"all":[{{"m":{both}}}]}}')
    keys = sorted({leaf.key for _, leaves in terms for leaf in leaves})
    return Shard("{" + ",".join(rules) + "}", tuple(keys), conditions)

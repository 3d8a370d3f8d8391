"""Many rules at once: sharding, pending matches, key clashes and number encoding in the real core."""

import math
import random

import durable_rules_engine as core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.rules import compiler
from fraudguard.rules import expression as ex
from fraudguard.rules.compiler import compile_conditions, encode_number, fnv1a
from fraudguard.rules.evaluator import Evaluator
from fraudguard.rules.reference import holds
from fraudguard.rules.values import read_values

NAMES = {"number": ("a", "b", "c", "d"), "text": ("t", "u"), "boolean": ("x", "y", "z")}
SLOTS = tuple((name, kind) for kind, names in NAMES.items() for name in names)
WORDS = ("急用钱", "transfer", "", 'say "hi"\\', "a'b")


def some_leaf(rng: random.Random) -> ex.Node:
    """Mostly what the core takes natively, over so few values that it often holds."""
    field = {kind: ex.Field(rng.choice(names)) for kind, names in NAMES.items()}
    return rng.choice(
        (
            ex.Comparison(
                rng.choice(("<", "<=", ">", ">=", "==", "!=")), field["number"], ex.Number(rng.randint(0, 4) / 2)
            ),
            ex.Comparison(rng.choice(("<", ">=")), ex.Number(float(rng.randint(0, 2))), field["number"]),
            ex.Comparison(rng.choice(("<", ">")), field["number"], ex.Field(rng.choice(NAMES["number"]))),
            ex.Comparison("==", field["text"], ex.Text(rng.choice(WORDS))),
            ex.Comparison(rng.choice(("==", "!=")), field["boolean"], ex.Flag(rng.random() < 0.5)),
            field["boolean"],
            ex.Not(field["boolean"]),
            ex.TextTest("contains", field["text"], (ex.Text(rng.choice(("急用", "ans", "hi"))),)),
        )
    )


def some_condition(rng: random.Random, depth: int = 2) -> ex.Node:
    """And-or trees of leaves, some wider than the compiler's bounds."""
    if depth == 0 or rng.random() < 0.2:
        return some_leaf(rng)
    joined = rng.choice((ex.And, ex.And, ex.Or))
    return joined(tuple(some_condition(rng, depth - 1) for _ in range(rng.randint(2, 5))))


def some_inputs(rng: random.Random) -> dict[str, object]:
    """Values that sit on the constants above; a quarter is missing."""
    values = {
        "number": lambda: rng.randint(0, 4) / 2,
        "text": lambda: rng.choice(WORDS),
        "boolean": lambda: rng.random() < 0.5,
    }
    return {name: values[kind]() for name, kind in SLOTS if rng.random() < 0.75}


@pytest.mark.parametrize(("seed", "count"), [(seed, 30) for seed in range(30)] + [(seed, 600) for seed in range(3)])
def test_dense_rules_agree_over_many_shards(seed, count):
    """Rules that share conditions and often hold together lose no hit, whatever the sharding."""
    rng = random.Random(seed)
    conditions = [some_condition(rng) for _ in range(count)]
    program = compile_conditions(conditions)
    assert count < 600 or len(program.shards) > 3
    evaluator = Evaluator(program)
    held = 0
    for _ in range(40):
        values = read_values(SLOTS, some_inputs(rng))
        expected = {i for i, condition in enumerate(conditions) if holds(condition, values)}
        assert evaluator.evaluate(values) == expected
        held += len(expected)
    assert held > count
    evaluator.close()


def test_every_rule_matching_at_once_stays_within_the_cores_stack():
    """The worst case of pending matches: hundreds of rules without a shared condition that all hold."""
    conditions = [ex.Comparison(">", ex.Field(f"n{i}"), ex.Number(float(i))) for i in range(500)]
    evaluator = Evaluator(compile_conditions(conditions))
    values = {f"n{i}": 1000.0 for i in range(500)}
    assert evaluator.evaluate(values) == set(range(500))
    evaluator.close()


def test_hundreds_of_equal_rules_all_hit():
    """Equal conditions share one node in the core, whose list of rules is bounded."""
    conditions = [ex.Comparison(">", ex.Field("a"), ex.Number(1.0))] * 700
    evaluator = Evaluator(compile_conditions(conditions))
    assert evaluator.evaluate({"a": 2.0}) == set(range(700))
    evaluator.close()


def test_keys_whose_hashes_clash_are_never_generated(monkeypatch):
    """The core knows names by a 32-bit hash: a key that clashes is passed over."""
    monkeypatch.setattr(compiler, "fnv1a", lambda name: fnv1a(name) % 64 if name[0] in "nsbp" else fnv1a(name))
    conditions = [ex.Comparison(">", ex.Field(f"f{i}"), ex.Number(1.0)) for i in range(30)]
    keys = list(compile_conditions(conditions).natives.values())
    assert len({fnv1a(key) % 64 for key in keys}) == len(set(keys)) == 30


def test_the_hash_is_the_cores_own():
    """The reserved `id` and `sid` have the values that the core's source states."""
    assert (fnv1a("id"), fnv1a("sid"), fnv1a("$m")) == (926444256, 3593476751, 1690058490)


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_reach_the_core_as_they_are(value):
    """Every double compares with itself and its neighbours in the core as it does here."""
    constants = [ex.Number(n) for n in (value, math.nextafter(value, -math.inf), math.nextafter(value, math.inf))]
    conditions = [ex.Comparison(sign, ex.Field("a"), constant) for constant in constants for sign in ("==", "<", ">")]
    evaluator = Evaluator(compile_conditions([c for c in conditions if math.isfinite(c.right.value)]))
    kept = [c for c in conditions if math.isfinite(c.right.value)]
    assert evaluator.evaluate({"a": value}) == {i for i, c in enumerate(kept) if holds(c, {"a": value})}
    evaluator.close()
    assert float(encode_number(value)) == value
    assert "e" not in encode_number(value)


def test_closing_frees_the_core_and_a_closed_set_refuses(monkeypatch):
    """Handles are deleted once, by close or with the last reference, and never used again."""
    deleted = []
    delete = core.delete_ruleset
    monkeypatch.setattr(core, "delete_ruleset", lambda handle: (deleted.append(handle), delete(handle)))
    evaluator = Evaluator(compile_conditions([ex.Field("x")]))
    evaluator.close()
    evaluator.close()
    assert len(deleted) == 1
    with pytest.raises(RuntimeError, match="closed"):
        evaluator.evaluate({})
    forgotten = Evaluator(compile_conditions([ex.Field("x")]))
    del forgotten
    assert len(deleted) == 2

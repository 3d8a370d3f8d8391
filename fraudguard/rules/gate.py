"""The publish gate: a rule set is loaded, run and judged in a throw-away process before it may be used.

Knows that the rules core is C code that can crash, hang or eat memory on rules nobody thought of; better there than
in the worker. The child rebuilds the set from its sources, and its answers on every rule's cases and on random
inputs around the rules' own constants must be the reference evaluator's.
"""

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from fraudguard.domain import Feature, Scalar
from fraudguard.rules.compiler import compile_conditions
from fraudguard.rules.evaluator import EngineFault, Evaluator
from fraudguard.rules.expression import Field, Listed, Node, Number, Text, walk
from fraudguard.rules.reference import holds
from fraudguard.rules.schema import read_contents
from fraudguard.rules.validators import Type, field_type
from fraudguard.rules.values import read_values

PROBES: Final = 200  # random inputs
CPU_S_MAX: Final = 20
MEMORY_BYTES_MAX: Final = 2 << 30
WALL_S_MAX: Final = 60.0
_PACKAGE_ROOT: Final = Path(__file__).parents[2]


def judge(sources: Mapping[str, str], fields: Sequence[Feature]) -> str:
    """What a throw-away process found wrong with rules that read without a problem; empty when nothing."""
    path = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
    try:
        child = subprocess.run(  # our own interpreter and module
            [sys.executable, "-m", "fraudguard.rules.gate"],
            input=json.dumps({"sources": dict(sources), "fields": [asdict(feature) for feature in fields]}),
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=WALL_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the trial run took longer than {WALL_S_MAX:.0f} s"
    if child.returncode == 0:
        return ""
    return child.stdout.strip() or f"the trial run ended with {child.returncode}: {child.stderr.strip()[-400:]}"


def compare(
    conditions: Sequence[Node], slots: Sequence[tuple[str, Type]], trials: Sequence[Mapping[str, Scalar]]
) -> str:
    """The first input that the compiled conditions and the reference judge differently, in words; empty if none."""
    evaluator = Evaluator(compile_conditions(conditions))
    try:
        for inputs in trials:
            values = read_values(slots, inputs)
            compiled = evaluator.evaluate(values)
            reference = {i for i, condition in enumerate(conditions) if holds(condition, values)}
            if compiled != reference:
                return f"conditions {sorted(compiled ^ reference)} differ from the reference on {values!r}"
    except EngineFault as error:
        return str(error)
    finally:
        evaluator.close()
    return ""


def probes(
    conditions: Sequence[Node], slots: Sequence[tuple[str, Type]], count: int, seed: int
) -> Iterator[dict[str, Scalar]]:
    """Random inputs at and around the constants of the conditions, so that both sides of each test are seen."""
    rng = random.Random(seed)  # noqa: S311  # repeatable trial inputs, no secrets
    constants = [node for condition in conditions for node in walk(condition) if isinstance(node, Number | Text)]
    numbers = sorted({c.value for c in constants if isinstance(c, Number)} | {0.0, 1.0})
    texts = sorted({c.value for c in constants if isinstance(c, Text)} | {""})

    def pick(kind: Type) -> Scalar:
        if kind == "any":
            kind = rng.choice(("number", "text", "boolean"))
        if kind == "boolean":
            return rng.random() < 0.5
        if kind == "number":
            return rng.choice(numbers) + rng.choice((0, 0, 1, -1, 0.5, 1e-9))
        return rng.choice(("", "你好", "x ")) + rng.choice(texts) + rng.choice(("", "", "\n好", rng.choice(texts)))

    for _ in range(count):
        missing = rng.choice((0.0, 0.2, 0.6))
        yield {name: None if rng.random() < missing else pick(kind) for name, kind in slots}


def slots_of(conditions: Sequence[Node], fields: Sequence[Feature]) -> list[tuple[str, Type]]:
    """The fields that the conditions name, each with its type."""
    known = {feature.name: feature for feature in fields}
    nodes = [node for condition in conditions for node in walk(condition)]
    names = {node.name for node in nodes if isinstance(node, Field | Listed)}
    return [(name, field_type(name, known)) for name in sorted(names)]


def main() -> int:
    """The child: sources and fields as JSON on stdin; what is wrong on stdout and exit code 1, or 0."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    order = json.load(sys.stdin)
    contents = read_contents(order["sources"], [Feature(**feature) for feature in order["fields"]])
    conditions = [rule.condition for rule in contents.rules]
    slots = slots_of(conditions, contents.fields)
    trials = [case.given for rule in contents.rules for case in rule.cases]
    trials += probes(conditions, slots, PROBES, seed=0)
    fault = "\n".join(map(str, contents.problems)) or compare(conditions, slots, trials)
    print(fault)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())

"""A condition that somebody asks of stored decisions: the language of `when`, without a rule around it.

Knows the expression and the fields it may name; reads no decision. Judged by the reference evaluator, so it means what
a rule of the same words means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fraudguard.domain import Feature, Scalar
from fraudguard.errors import BadInput
from fraudguard.rules.expression import Fault, Listed, Node, SyntaxFault, parse, split_membership, walk
from fraudguard.rules.gate import slots_of
from fraudguard.rules.reference import holds
from fraudguard.rules.validators import Type, check_condition
from fraudguard.rules.values import read_values


@dataclass(frozen=True, slots=True)
class Question:
    """A checked condition. memberships: what it asks of lists, (field, list) by the name of the answer's input."""

    condition: Node
    slots: tuple[tuple[str, Type], ...]
    memberships: Mapping[str, tuple[str, str]]

    @property
    def names(self) -> frozenset[str]:
        """The inputs that it reads."""
        return frozenset(name for name, _ in self.slots)

    def holds(self, inputs: Mapping[str, Scalar]) -> bool:
        """Whether it is true of these inputs; one that is not among them is missing."""
        return holds(self.condition, read_values(self.slots, inputs))


def faults_of(source: str, fields: Sequence[Feature]) -> list[Fault]:
    """Everything wrong with a condition, in reading order, as the compiler of rules says it."""
    try:
        tree = parse(source)
    except SyntaxFault as error:
        return [error.fault]
    return check_condition(tree, {feature.name: feature for feature in fields})


def question_of(source: str, fields: Sequence[Feature]) -> Question:
    """Raises BadInput with the first fault, its column in the reason."""
    if faults := faults_of(source, fields):
        first = faults[0]
        raise BadInput(f"column {first.at + 1}: {first.message}", path="where", hint=first.hint)
    condition = parse(source)
    memberships = {
        node.name: pair
        for node in walk(condition)
        if isinstance(node, Listed) and (pair := split_membership(node.name))
    }
    return Question(condition, tuple(slots_of([condition], fields)), memberships)

"""Conditions asked of stored decisions: what they read, what they hold of, what is wrong with them."""

import pytest

from fraudguard.domain import Scalar
from fraudguard.errors import BadInput
from fraudguard.features.registry import features_in
from fraudguard.rules.questions import faults_of, question_of

FIELDS = features_in("CNY")


@pytest.mark.parametrize(
    ("inputs", "holds"),
    [
        ({"amount_base": 20_000, "chat": "请转到安全账户"}, True),
        ({"amount_base": 20_000.0, "chat": None}, False),
        ({"amount_base": 19_999.99, "chat": "安全账户"}, False),
        ({}, False),
    ],
)
def test_a_condition_means_what_a_rule_of_the_same_words_means(inputs: dict[str, Scalar], holds: bool) -> None:
    """Numbers as doubles, texts folded, a missing value is never true."""
    question = question_of('amount_base >= 20k and chat mentions ["安全账户"]', FIELDS)
    assert question.names == {"amount_base", "chat"}
    assert question.holds(inputs) is holds


@pytest.mark.parametrize(
    ("source", "reason", "hint"),
    [
        ("amount_bse > 1", "column 1: unknown field", "did you mean amount_base?"),
        ("amount_base > ", "column 14: the expression ends too early", "something must follow"),
        ("amount_base", "column 1: a number is not a condition", "compare it"),
        ("", "column 1: the expression is empty", "write a condition"),
    ],
)
def test_the_first_fault_is_refused_with_its_column_and_fix(source: str, reason: str, hint: str) -> None:
    """As the compiler of rules says it."""
    with pytest.raises(BadInput) as refused:
        question_of(source, FIELDS)
    assert refused.value.path == "where"
    assert refused.value.reason.startswith(reason)
    assert refused.value.hint.startswith(hint)


def test_every_fault_is_found_at_once() -> None:
    """In reading order."""
    assert [fault.at for fault in faults_of("amount_bse > 1 and outcom == 2", FIELDS)] == [0, 19]

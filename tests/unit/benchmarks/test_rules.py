"""The rules' benchmark compares like with like: all engines get the same conditions, a wrong answer voids its row."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.rule_peers import PEERS, Dialect, Generated, Untranslatable, text_tests
from benchmarks.rules import PART, Row, story_inputs, varied, write_rules
from fraudguard.domain import Scalar
from fraudguard.features.registry import FEATURES
from fraudguard.rules.expression import parse
from fraudguard.rules.gate import slots_of
from fraudguard.rules.reference import holds
from fraudguard.rules.schema import read_contents
from fraudguard.rules.values import read_values

WHEN = (
    "out_sum_1d > 10",
    "0 <= out_sum_1d < 10",
    "not (amount_base > 5)",
    "amount_base != 5",
    "amount_base not between 1 and 5",
    "amount_base between 1 and 5 or is_new_device",
    'kind in ["card", "transfer"]',
    'kind not in ["card"]',
    'kind == "card" and not is_new_device',
    "is_new_device == false",
    "counterparty_id is missing",
    "counterparty_id is known",
    "amount_base / out_sum_1d >= 0.5",
    "amount_base - out_sum_1d * 2 < -amount_base",
    'chat mentions ["急用钱", "urgent money"] and amount_base > 1',
    'not memo matches "re.?fund"',
)
CONDITIONS = [parse(when) for when in WHEN]
SLOTS = slots_of(CONDITIONS, FEATURES)
LACKING = frozenset(name for name, _ in SLOTS)

numbers = st.none() | st.sampled_from((0.0, 0.1, 1.0, 2.5, 5.0, 10.0, 11.0))
events = st.fixed_dictionaries(
    {
        "out_sum_1d": numbers,
        "amount_base": numbers,
        "kind": st.none() | st.sampled_from(("card", "transfer", "cash")),
        "is_new_device": st.none() | st.booleans(),
        "counterparty_id": st.none() | st.just("c-1"),
        "chat": st.none() | st.sampled_from(("急 用 钱", "hello", "URGENT  money")),
        "memo": st.none() | st.sampled_from(("re-fund", "rent")),
    }
)


def _installed(name: str) -> None:
    if name == "rule-engine":
        pytest.importorskip("rule_engine")


@pytest.mark.parametrize("name", PEERS)
def test_every_engine_means_what_the_reference_means(name: str) -> None:
    """Each kind of condition, on missing values above all; peers where they are installed."""
    _installed(name)
    judge = PEERS[name](CONDITIONS, SLOTS, LACKING)

    @settings(max_examples=60, deadline=None)
    @given(events)
    def check(event: dict[str, Scalar]) -> None:
        values = read_values(SLOTS, event)
        wanted = [number for number, condition in enumerate(CONDITIONS) if holds(condition, values)]
        assert list(judge.hits(judge.shape(event))) == wanted

    check()


def test_a_field_that_every_event_has_is_not_guarded() -> None:
    """A peer does no work for us that it need not."""
    node = parse("out_sum_1d > 10 and amount_base <= 2")
    assert Dialect("zen", {}, frozenset({"amount_base"})).say(node) == (
        "((out_sum_1d > 10.0) and (amount_base != null and amount_base <= 2.0))"
    )
    assert Dialect("python", {}, frozenset()).say(node) == "((out_sum_1d > 10.0) and (amount_base <= 2.0))"


def test_what_a_dialect_cannot_say_is_refused() -> None:
    """No condition is left out in silence."""
    with pytest.raises(Untranslatable):
        Dialect("zen", {}, frozenset()).say(parse("""country == "it's" """))
    assert len(text_tests([parse('chat mentions "a" or memo contains "b"')] * 2)) == 2


@pytest.fixture(scope="module")
def inputs() -> list[dict[str, Scalar]]:
    """Some events of a small cast."""
    return story_inputs(400, seed=3)


def test_generated_rules_read_well_and_pass_their_cases(inputs: list[dict[str, Scalar]]) -> None:
    """The same seed writes the same files; every rule is live, and its own cases come out as they say."""
    sources = write_rules(60, inputs, seed=5)
    assert sources == write_rules(60, inputs, seed=5)
    contents = read_contents(sources, FEATURES)
    rules, problems = list(contents.rules), list(contents.problems)
    assert not problems
    assert len(rules) == len({rule.when for rule in rules}) == 60
    kinds = {feature.name: feature.type for feature in FEATURES}
    for rule in rules:
        assert rule.state == "live"
        for case in rule.cases:
            values = read_values([(name, kinds[name]) for name in case.given], case.given)
            assert holds(rule.condition, values) is case.hit


def test_a_row_with_a_wrong_answer_is_void(inputs: list[dict[str, Scalar]]) -> None:
    """One event in a hundred is enough."""
    truth = [[n for n, c in enumerate(CONDITIONS) if holds(c, read_values(SLOTS, event))] for event in inputs[:PART]]
    make: Callable[[str], Row] = lambda name: Row(name, Generated(CONDITIONS, SLOTS, LACKING))  # noqa: E731
    right, wrong = make("right"), make("wrong")
    right.read(inputs[:PART], truth)
    assert right.cells(16, right)[-1] == "equal"
    wrong.read(inputs[:PART], [[*truth[0], 99], *truth[1:]])
    assert wrong.cells(16, right)[2:] == ("void",) * 4 + (f"1 of {PART} events differ",)


def test_no_varied_event_comes_twice(inputs: list[dict[str, Scalar]]) -> None:
    """The memory run must not be flat because it sees the same again."""
    seen = {(event["amount_base"], event["chat"]) for event in varied(inputs[:10], 200)}
    assert len(seen) == 200

"""Reading rule documents: YAML's own opinions do not matter, places are exact."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.domain import Feature
from fraudguard.rules.expression import parse
from fraudguard.rules.places import scalar_places
from fraudguard.rules.predicates import Predicates
from fraudguard.rules.reference import holds
from fraudguard.rules.schema import read_contents
from fraudguard.rules.validators import check_condition
from fraudguard.rules.values import read_values


def read_rules(sources, fields):
    """The good rules, and every problem."""
    contents = read_contents(sources, fields)
    return list(contents.rules), list(contents.problems)


@pytest.mark.parametrize(
    "written",
    [
        "when: memo contains 'x' and amonut > 5",
        "when: |\n  memo contains 'x' and\n    amonut > 5",
        "when: |-\n    memo contains 'x'\n\n    and amonut > 5",
        "when: >-  # folded\n  memo contains 'x'\n  and amonut > 5",
        "when: >\n  memo contains '急-用-钱' and amonut > 5",
        "when: \"memo contains '\\u6025\\x41\\t' and amonut > 5\"",
        'when: "memo contains \\"x\\" and \\\n    amonut > 5"',
        "when: 'memo contains ''x'' and\n  amonut > 5'",
        "when: memo contains 'x'\n  and amonut > 5",
    ],
)
def test_the_column_is_right_in_every_yaml_style(written, rule_text, fields):
    """Block, folded, quoted, escaped and plain scalars over several lines: the place is that of the word."""
    text = rule_text().replace("when: |\n  transfers_1d > 10", written)
    (problem,) = read_rules({"a.yaml": text}, fields)[1]
    assert problem.source_line[problem.column - 1 :].startswith("amonut")
    assert text.split("\n")[problem.line - 1] == problem.source_line


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="ab '\"\\\n\t急é\u3000", max_size=20),
    st.sampled_from(("'", '"', "|", ">")),
    st.booleans(),
)
def test_every_character_is_placed_where_yaml_wrote_it(value, style, unicode):
    """For whatever YAML's own writer makes of a text, each visible character is found at its place."""
    text = yaml.dump({"k": value}, default_style=style, allow_unicode=unicode, width=10)
    node = yaml.compose(text).value[0][1]
    places = scalar_places(text, node)
    assert len(places) == len(node.value) + 1
    for character, place in zip(node.value, places, strict=False):
        if not character.isspace() and text[place] != "\\":
            assert text[place] == character


def test_words_that_yaml_takes_for_booleans_stay_words(rule_text, fields):
    """NO is Norway, `no` is a memo, and 1e3 or 1_000 in a case are numbers, because the field's type decides."""
    text = rule_text(
        when='country == "NO" and memo == "no" and amount == 1k',
        hit="country: NO, memo: no, amount: 1_000",
        no_hit="country: null",
    )
    (rule,), problems = read_rules({"a.yaml": text}, fields)
    assert not problems
    assert rule.cases[0].given == {"country": "NO", "memo": "no", "amount": 1000.0}
    assert rule.cases[1].given == {"country": None}


def test_an_attribute_in_a_case_has_the_type_yaml_gives_it(rule_text, fields):
    """Attributes are declared nowhere, so quotes tell a text from a number there."""
    text = rule_text(when="attributes.tier == 3", hit="attributes.tier: 3", no_hit='attributes.tier: "3"')
    (rule,), _ = read_rules({"a.yaml": text}, fields)
    assert [case.given["attributes.tier"] for case in rule.cases] == [3.0, "3"]


def test_the_event_type_is_part_of_the_condition_and_of_the_cases(rule_text, fields):
    """A rule for messages says so once."""
    (rule,), _ = read_rules({"a.yaml": rule_text().replace("when:", "event: message\nwhen:")}, fields)
    assert rule.event == "message"
    assert all(case.given["event_type"] == "message" for case in rule.cases)
    assert len(rule.condition.items) == 2


def test_a_good_rule_is_kept_beside_a_bad_one(rule_text, fields):
    """One bad document does not hide the others."""
    text = rule_text(id="good") + "---\n" + rule_text(id="bad", when="transfers_1d >")
    rules, problems = read_rules({"a.yaml": text}, fields)
    assert [rule.id for rule in rules] == ["good"]
    assert len(problems) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "---\n---\n",
        "[" * 5_000,
        "a: &a [*a]",
        "\x00",
        "? [a]\n: b",
        "when: " + "(" * 9_000,
        "x: " + "y" * 1_000_001,
        'id: "\\U00110000"',
        'id: "\\UFFFFFFFF"',
        'owner: "\\ud800"',
        'owner: "\\U0000DFFF"',
    ],
)
def test_no_file_whatsoever_crashes_the_reader(text, fields):
    """Empty, endless, circular or binary: each is a problem, none an exception."""
    rules, problems = read_rules({"a.yaml": text}, fields)
    assert not rules
    assert problems


TIMED = (
    Feature("local_time", "number", "hour of day", "", "", "event"),
    Feature("amount", "number", "event's currency", "", "", "event"),
    Feature("currency", "text", "", "", "", "event"),
    Feature("out_sum_1d", "number", "CNY", "1d", "", "velocity"),
)


@pytest.mark.parametrize(
    ("expression", "inputs", "held"),
    [
        ("local_time between 22:00 and 06:00", {"local_time": 23.5}, True),
        ("local_time between 22:00 and 06:00", {"local_time": 6.0}, True),
        ("local_time between 22:00 and 06:00", {"local_time": 12.0}, False),
        ("local_time between 22:00 and 06:00", {}, False),
        ("local_time not between 22:00 and 06:00", {"local_time": 12.0}, True),
        ("local_time not between 22:00 and 06:00", {"local_time": 3.0}, False),
        ("local_time not between 22:00 and 06:00", {}, False),
        ("local_time between 9:00 and 17:30", {"local_time": 17.5}, True),
        (
            "local_time >= 22:30 AND out_sum_1d > 5 AND out_sum_1d < 50k CNY",
            {"local_time": 22.5, "out_sum_1d": 6},
            True,
        ),
        ("out_sum_1d - 1 CNY > 5_000 CNY", {"out_sum_1d": 5002}, True),
        ("amount > 100 USD", {"amount": 101, "currency": "USD"}, True),
        ("amount > 100 USD", {"amount": 101, "currency": "JPY"}, False),
        ("amount > 100 USD", {"amount": 101}, False),
        ("100 USD < amount <= 1k USD", {"amount": 1000, "currency": "USD"}, True),
        ("amount between 1 USD and 2 USD", {"amount": 1.5, "currency": "EUR"}, False),
        ("amount not between 1 USD and 2 USD", {"amount": 3, "currency": "USD"}, True),
    ],
)
def test_times_of_day_and_money_mean_what_they_say(expression, inputs, held):
    """Ranges go over midnight; money asks for its currency where the field has the event's own."""
    tree = parse(expression)
    assert check_condition(tree, {field.name: field for field in TIMED}) == []
    values = read_values([(field.name, field.type) for field in TIMED], inputs)
    assert holds(tree, values) is held
    assert Predicates([tree]).evaluate(values) == [held]


def test_a_case_may_give_a_time_of_day(rule_text):
    """22:30 in a case is half past ten, which YAML would read as 1350."""
    text = rule_text(when="local_time > 22:00", hit="local_time: 22:30", no_hit="local_time: 21.5")
    (rule,), problems = read_rules({"a.yaml": text}, TIMED)
    assert not problems
    assert [case.given["local_time"] for case in rule.cases] == [22.5, 21.5]

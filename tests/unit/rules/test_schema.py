"""Reading rule documents: YAML's own opinions do not matter, places are exact."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.rules.places import scalar_places
from fraudguard.rules.schema import read_rules


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
    ],
)
def test_no_file_whatsoever_crashes_the_reader(text, fields):
    """Empty, endless, circular or binary: each is a problem, none an exception."""
    rules, problems = read_rules({"a.yaml": text}, fields)
    assert not rules
    assert problems

"""Windows and lists that a pack declares: read, typed, usable in rules, part of the version."""

import pytest

from fraudguard.domain import Feature
from fraudguard.errors import BadRule
from fraudguard.rules.declarations import read_declarations
from fraudguard.rules.registry import RuleSet, load_rules
from fraudguard.rules.schema import read_contents

FIELDS = (
    Feature("kind", "text", "", "", "", "event"),
    Feature("memo", "text", "", "", "", "event"),
    Feature("counterparty_id", "text", "", "", "", "event"),
    Feature("device_id", "text", "", "", "", "event"),
    Feature("account_id", "text", "", "", "", "event"),
    Feature("currency", "text", "", "", "", "event"),
    Feature("amount", "number", "event's currency", "", "", "event"),
    Feature("amount_base", "number", "CNY", "", "", "event"),
    Feature("local_time", "number", "hour of day", "", "", "event"),
    Feature("transfers_1d", "number", "count", "1d", "", "velocity"),
)
WINDOW = """\
- name: card_declines_1h
  owner: cards-team
  meaning: card payments below 10 with this device in an hour
  entity: device
  aggregate: {aggregate}
  of: amount_base
  where: {where}
  window: {window}
"""
LISTS = """\
- name: mule_accounts
  kind: block
  entity: counterparty
  owner: fraud-operations
  description: Accounts that passed stolen money on.
"""


def window(where: str = 'kind == "card" and amount_base < 10', aggregate: str = "sum", length: str = "1h") -> str:
    """A features.yaml of one window."""
    return WINDOW.format(where=where, aggregate=aggregate, window=length)


def declared(text: str):
    """The one window of a features.yaml that reads well."""
    (only,) = read_declarations({"features.yaml": text}, FIELDS).windows
    return only


def test_a_window_becomes_a_feature_and_a_filter():
    """Name, unit and meaning are there for rules and for readers; the filter sees the event's own values."""
    declarations = read_declarations({"features.yaml": window()}, FIELDS)
    (feature,) = declarations.features
    assert (feature.name, feature.type, feature.unit, feature.window) == ("card_declines_1h", "number", "CNY", "1h")
    assert feature.group == "declared"
    (only,) = declarations.windows
    assert (only.entity, only.aggregate, only.of, only.seconds) == ("device", "sum", "amount_base", 3600)
    assert only.matches({"kind": "card", "amount_base": 9})
    assert not only.matches({"kind": "card", "amount_base": 10})
    assert not only.matches({"kind": "card", "amount_base": None})
    assert not only.matches({})


def test_a_filter_reads_folded_text_and_attributes():
    """The filter is the rules' own language."""
    only = declared(window("""memo mentions "急用钱" or attributes.mcc == '6051'"""))
    assert only.matches({"memo": "急-用-钱"})
    assert only.matches({"attributes.mcc": "6051"})
    assert not only.matches({"memo": "工资", "attributes.mcc": 6051})


def test_a_window_without_a_filter_counts_everything():
    """`where` may be left out."""
    only = declared(window().replace('  where: kind == "card" and amount_base < 10\n', ""))
    assert only.matches({})


def test_the_key_changes_with_what_changes_a_value_and_with_nothing_else():
    """Blanks, owner and name leave stored counts usable; another filter, aggregate or length does not."""
    key = declared(window()).key
    assert len(key) == 16
    spaced = window('kind  ==  "card"  AND  amount_base < 10.0').replace("cards-team", "someone").replace("_1h", "_x")
    assert declared(spaced).key == key
    others = (window('kind == "card" and amount_base < 11'), window(aggregate="max"), window(length="2h"))
    assert len({key, *(declared(text).key for text in others)}) == 4
    assert declared(window(length="60m")).key == key


@pytest.mark.parametrize("aggregate", ["count", "distinct"])
def test_counts_have_the_unit_of_counts(aggregate):
    """A count is of no currency, whatever it counts."""
    text = window(aggregate=aggregate)
    of = "" if aggregate == "count" else "  of: account_id\n"
    declarations = read_declarations({"features.yaml": text.replace("  of: amount_base\n", of)}, FIELDS)
    assert declarations.problems == ()
    assert declarations.features[0].unit == "count"


def test_a_broken_window_does_not_blame_the_rules_that_use_it(rule_text):
    """One mistake is told once."""
    sources = {
        "features.yaml": window(length="1y"),
        "a.yaml": rule_text(when="card_declines_1h > 3", hit="card_declines_1h: 4", no_hit="card_declines_1h: 1"),
    }
    (problem,) = read_contents(sources, FIELDS).problems
    assert problem.file == "features.yaml"


@pytest.fixture
def asking(rule_text):
    """The sources of a rule that asks a list, and the list."""
    text = rule_text(
        when="card_declines_1h > 3 and counterparty in @mule_accounts",
        hit="card_declines_1h: 4, counterparty_id in @mule_accounts: true",
        no_hit="card_declines_1h: 4, counterparty in @mule_accounts: false",
    )
    return {"a.yaml": text, "features.yaml": window(), "lists.yaml": LISTS}


def test_rules_use_windows_and_lists_through_the_gate(asking):
    """A declared window is a number, a list is a boolean input; both pass the trial run and hit."""
    rules = RuleSet.from_sources(asking, FIELDS)
    assert rules.memberships == {"counterparty_id in @mule_accounts": ("counterparty_id", "mule_accounts")}
    assert [only.name for only in rules.windows] == ["card_declines_1h"]
    assert [(only.name, only.kind, only.entity) for only in rules.lists] == [("mule_accounts", "block", "counterparty")]
    asked = "counterparty_id in @mule_accounts"
    assert rules.evaluate({"card_declines_1h": 4, asked: True})
    assert not rules.evaluate({"card_declines_1h": 4, asked: False})
    assert not rules.evaluate({"card_declines_1h": 4})
    rules.close()


def test_not_on_a_list_needs_somebody_to_look_up(asking):
    """`not in` holds for a counterparty that is not listed; without a counterparty neither holds."""
    swapped = {
        name: text.replace("counterparty in @mule_accounts\n", "counterparty not in @mule_accounts\n")
        .replace("@mule_accounts: true", "@mule_accounts: 0")
        .replace("@mule_accounts: false", "@mule_accounts: true")
        .replace("@mule_accounts: 0", "@mule_accounts: false")
        for name, text in asking.items()
    }
    rules = RuleSet.from_published(swapped, FIELDS)
    asked = "counterparty_id in @mule_accounts"
    assert rules.evaluate({"card_declines_1h": 4, asked: False})
    assert not rules.evaluate({"card_declines_1h": 4, asked: True})
    assert not rules.evaluate({"card_declines_1h": 4})
    rules.close()


def test_only_active_rules_say_which_lists_are_read(asking):
    """A draft's list is not looked up for each event."""
    drafted = {**asking, "a.yaml": asking["a.yaml"].replace("state: live", "state: draft")}
    rules = RuleSet.from_published(drafted, FIELDS)
    assert rules.memberships == {}
    rules.close()


def test_the_declarations_are_part_of_the_version_and_the_policy_is_not(tmp_path, asking):
    """Another window is another rule set; another policy is not."""
    versions = []
    for name, text in (*asking.items(), ("policy.yaml", "version: 1"), ("features.yaml", window(length="2h"))):
        (tmp_path / name).write_text(text)
        if len(list(tmp_path.iterdir())) >= 3:
            rules = load_rules(tmp_path, FIELDS)
            versions.append(rules.version)
            rules.close()
    assert versions[0] == versions[1] != versions[2]


def test_a_set_that_passed_is_loaded_again_without_its_cases(asking, rule_text):
    """from_published neither runs cases nor the trial run, and refuses what it cannot read."""
    wrong = {**asking, "a.yaml": asking["a.yaml"].replace("@mule_accounts: true", "@mule_accounts: false")}
    with pytest.raises(BadRule, match="expects hit"):
        RuleSet.from_sources(wrong, FIELDS)
    RuleSet.from_published(wrong, FIELDS).close()
    with pytest.raises(BadRule, match="unknown field"):
        RuleSet.from_published({"a.yaml": rule_text(when="nothing_known > 1")}, FIELDS)

"""The shipped pack: what every rule carries, which typologies it covers, and that its rules can be reached."""

from collections import Counter
from pathlib import Path

import pytest

from fraudguard.features.registry import FEATURES
from fraudguard.rules.expression import Field, Listed, walk
from fraudguard.rules.registry import RuleSet, load_rules

PACK = Path(__file__).parents[3] / "rules"
TYPOLOGIES = ("transfers", "cards", "scams", "mules", "cash_out", "laundering", "takeover")
RULES_MIN = 42


@pytest.fixture(scope="module")
def pack():
    """The shipped pack, loaded as the service loads it."""
    rules = load_rules(PACK, FEATURES)
    yield rules
    rules.close()


def test_every_typology_has_rules_of_its_own(pack: RuleSet) -> None:
    """One file a typology, three rules or more in each, and as many altogether as promised."""
    files = Counter(rule.file for rule in pack.rules)
    assert len(pack.rules) >= RULES_MIN
    assert {name: files[f"{name}.yaml"] for name in TYPOLOGIES if files[f"{name}.yaml"] < 3} == {}


def test_every_rule_says_whose_it_is_why_it_is_there_and_what_it_misses(pack: RuleSet) -> None:
    """Owner, a description of a sentence or more, and known gaps of a sentence or more."""
    short = {rule.id for rule in pack.rules if not rule.owner or len(rule.description) < 40 or len(rule.gaps) < 40}
    assert short == set()
    assert Counter(rule.reason for rule in pack.rules).most_common(1)[0][1] == 1, "a reason names one rule"


def test_every_rule_has_its_harmless_twin(pack: RuleSet) -> None:
    """A case that hits and one that does not, and those differ in what the rule reads."""
    for rule in pack.rules:
        hits = [case.given for case in rule.cases if case.hit]
        spared = [case.given for case in rule.cases if not case.hit]
        assert hits, rule.id
        assert spared, rule.id
        assert all(given not in hits for given in spared), rule.id


def test_every_rule_is_reached_through_the_core(pack: RuleSet) -> None:
    """Each active rule is among the hits of its own cases, and of no case that says it must not be."""
    for rule in pack.rules:
        assert rule.state in {"live", "shadow"}, f"{rule.id} is shipped and never evaluated"
        for case in rule.cases:
            found = {hit.rule: hit for hit in pack.evaluate(case.given)}
            assert (rule.id in found) is case.hit, (rule.id, case.name)
            if case.hit:
                hit = found[rule.id]
                assert (hit.state, hit.outcome, hit.reason) == (rule.state, rule.outcome, rule.reason)


def test_few_rules_block_alone(pack: RuleSet) -> None:
    """A block without the model is for what no honest customer does: at most one live rule in six."""
    live = [rule for rule in pack.rules if rule.state == "live"]
    assert 6 * sum(rule.outcome == "block" for rule in live) <= len(live)


def test_talk_is_met_in_both_languages(pack: RuleSet) -> None:
    """Live rules about talk that name Chinese words are met in Chinese and in English by their own cases."""
    for rule in pack.rules:
        said = [str(case.given.get("chat") or case.given.get("text") or "") for case in rule.cases if case.hit]
        if rule.state == "live" and any(said) and rule.id not in ONE_LANGUAGE:
            assert any(text.isascii() and text for text in said), rule.id
            assert any(not text.isascii() for text in said), rule.id


# Scams that live in one country's institutions.
ONE_LANGUAGE = {"cancel-student-loan"}


def test_every_window_and_list_serves_a_rule(pack: RuleSet) -> None:
    """Nothing is counted on the hot path, and no list kept, that no rule reads."""
    read = {node.name for rule in pack.rules for node in walk(rule.condition) if isinstance(node, Field)}
    assert {window.name for window in pack.windows} <= read
    asked = {node.list for rule in pack.rules for node in walk(rule.condition) if isinstance(node, Listed)}
    assert {watched.name for watched in pack.lists} == asked

"""Documents inside rule files: found by line, replaced without touching their neighbours, one state word changed."""

from pathlib import Path

import pytest
import yaml
from support import ROOT

from fraudguard.api.console import rules_texts
from fraudguard.features.registry import features_in
from fraudguard.rules.schema import read_contents

PACK = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted(Path(ROOT / "rules").glob("*.yaml"))
    if path.name != "policy.yaml"
}
RULES = read_contents(PACK, features_in("CNY")).rules


def test_every_shipped_rule_is_found_by_its_line() -> None:
    """Its document is YAML of one rule with its id, also where a comment stands before it."""
    for rule in RULES:
        text = rules_texts.document(PACK[rule.file], rule.line)
        assert yaml.safe_load(text)["id"] == rule.id
        assert not rules_texts.has_mark(text)
    found = rules_texts.documents(PACK)
    assert {rule.id for rule in RULES} <= found.keys()


def test_replacing_one_leaves_every_other_as_it_was() -> None:
    """Each in turn, by a longer and by a shorter text; the same text changes nothing that YAML reads."""
    for rule in RULES:
        before = rules_texts.documents(PACK)
        changed = rules_texts.replaced(PACK[rule.file], rule.line, "id: other\nversion: 1\n\n\n")
        after = rules_texts.documents({**PACK, rule.file: changed})
        assert after.pop("other") == "id: other\nversion: 1\n"
        before.pop(rule.id)
        assert after == before
        again = rules_texts.replaced(PACK[rule.file], rule.line, rules_texts.document(PACK[rule.file], rule.line))
        assert rules_texts.documents({**PACK, rule.file: again}) == rules_texts.documents(PACK)


@pytest.mark.parametrize(
    ("file", "line", "text"),
    [
        ("id: a\n---\nid: b\n", 1, "id: a\n"),
        ("id: a\n---\nid: b\n", 3, "id: b\n"),
        ("--- # first\nid: a\n--- \nid: b", 2, "id: a\n"),
        ("id: a\nwhen: |\n  ---\n  x\n---\nid: b\n", 1, "id: a\nwhen: |\n  ---\n  x\n"),
        ("id: a\n----\n", 1, "id: a\n----\n"),
    ],
)
def test_only_a_marker_parts_documents(file: str, line: int, text: str) -> None:
    """Three hyphens that begin a line by themselves; not indented ones, not four."""
    assert rules_texts.document(file, line) == text


def test_a_rule_is_added_and_its_state_changed() -> None:
    """Into a file that is empty or has rules; the state's own line alone, its comment kept."""
    assert rules_texts.added("", "id: a\r\n") == "id: a\n"
    assert rules_texts.added("id: a", "id: b") == "id: a\n---\nid: b\n"
    text = "id: a\nstate: draft # until Monday\ndescription: |\n  state: of things\n"
    assert rules_texts.in_state(text, "live") == text.replace("draft", "live")
    assert rules_texts.in_state("id: a\n", "live") == "id: a\n"

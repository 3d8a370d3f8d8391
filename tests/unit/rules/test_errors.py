"""What a newcomer reads: golden error texts for typical mistakes, each in its own file under golden/.

FRAUDGUARD_RECORD=1 writes the texts anew; review the difference.
"""

import os
import re
from pathlib import Path

import pytest

from fraudguard.errors import BadRule
from fraudguard.features.registry import features_in
from fraudguard.rules.registry import RuleSet, load_rules

GOLDEN = Path(__file__).parent / "golden"
PACK = sorted((GOLDEN / "pack").glob("*.yaml"))
FIELDS = features_in("CNY")


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_mistakes_are_named_with_their_place_and_a_way_out(path):
    """The whole error text of one mistake is as recorded.

    NAME.features.yaml and NAME.lists.yaml are read as the declarations of a pack; a rule stands beside those in pack/.
    """
    declared = re.search(r"[.](features|lists)[.]yaml$", path.name)
    beside = {} if declared else {file.name: file.read_text(encoding="utf-8") for file in PACK}
    sources = {**beside, declared[0][1:] if declared else path.name: path.read_text(encoding="utf-8")}
    with pytest.raises(BadRule) as caught:
        RuleSet.from_sources(sources, FIELDS)
    recorded = path.with_suffix(".txt")
    if os.environ.get("FRAUDGUARD_RECORD"):
        recorded.write_text(f"{caught.value}\n", encoding="utf-8")
    assert recorded.read_text(encoding="utf-8") == f"{caught.value}\n"


def test_all_problems_of_a_directory_are_told_at_once(tmp_path):
    """Three broken files give one error that names all three, also the one that is not even UTF-8."""
    for name in ("unknown_field", "look_ahead"):
        (tmp_path / f"{name}.yaml").write_bytes((GOLDEN / f"{name}.yaml").read_bytes())
    (tmp_path / "gbk.yml").write_bytes("description: 急用钱".encode("gbk"))
    with pytest.raises(BadRule) as caught:
        load_rules(tmp_path, FIELDS)
    assert "gbk.yml:1:1: not UTF-8 text" in str(caught.value)
    assert "look_ahead.yaml:7:16" in str(caught.value)
    assert "unknown_field.yaml:6:7" in str(caught.value)


def test_a_missing_directory_is_named(tmp_path):
    """A wrong path is said to be wrong, not taken for an empty rule set."""
    with pytest.raises(BadRule, match="no such directory"):
        load_rules(tmp_path / "nowhere", FIELDS)

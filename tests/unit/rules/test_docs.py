"""docs/rules.md is true: its rule loads, and its expressions hold exactly where it says so."""

import re
from pathlib import Path

import pytest
import yaml

from fraudguard.features.registry import features_in
from fraudguard.rules.expression import parse
from fraudguard.rules.reference import holds
from fraudguard.rules.registry import RuleSet
from fraudguard.rules.schema import read_contents
from fraudguard.rules.validators import check_condition, field_type
from fraudguard.rules.values import read_values

PAGE = (Path(__file__).parents[3] / "docs" / "rules.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
# A block that begins with `# rules/NAME` is that file, another one a file of rules.
FILES = {
    (named[1] if (named := re.match(r"# rules/(\S+)", block)) else f"copied-{n}.yaml"): block
    for n, block in enumerate(BLOCKS)
}
BUILT_IN = features_in("CNY")
FIELDS = {feature.name: feature for feature in read_contents(FILES, BUILT_IN).fields}
ROWS = re.findall(r"^\| `(.+)` \| `(\{.*\})` \| (yes|no) \|$", PAGE, re.MULTILINE)


def test_the_documented_pack_loads():
    """What a reader copies, rules, lists and windows, passes check, cases and gate."""
    rules = RuleSet.from_sources(FILES, BUILT_IN)
    assert (len(rules.rules), len(rules.lists), len(rules.windows)) == (1, 1, 2)
    rules.close()


@pytest.mark.parametrize(("expression", "inputs", "expected"), ROWS)
def test_documented_expressions_mean_what_the_page_says(expression, inputs, expected):
    """Each row of the tables is an expression, its inputs and whether it holds."""
    tree = parse(expression.replace("\\|", "|"))
    assert check_condition(tree, FIELDS) == []
    given = yaml.safe_load(inputs)
    values = read_values([(name, field_type(name, FIELDS)) for name in given], given)
    assert holds(tree, values) is (expected == "yes")


def test_the_tables_were_found():
    """The pattern above still reads the page."""
    assert len(ROWS) >= 45

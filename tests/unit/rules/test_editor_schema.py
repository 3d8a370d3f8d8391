"""The editor's schemas: current, true of what the readers accept, and mapped for VS Code.

FRAUDGUARD_RECORD=1 writes docs/schemas anew.
"""

import json
import os
from pathlib import Path

import jsonschema
import pytest
import yaml

from fraudguard.features.registry import FEATURES
from fraudguard.rules.declarations import FEATURES_FILE, LISTS_FILE
from fraudguard.rules.editor_schema import schemas
from fraudguard.rules.registry import OTHER_FILES
from fraudguard.rules.schema import read_contents

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"
RULES = [path for path in sorted((ROOT / "rules").glob("*.yaml")) if path.name not in OTHER_FILES]
FIELDS = read_contents({path.name: path.read_text(encoding="utf-8") for path in RULES}, FEATURES).fields
MADE = schemas(FIELDS)


def schema_of(path: Path) -> dict:
    """The schema that a file of a pack is written against."""
    for name, schema in ((FEATURES_FILE, "features.json"), (LISTS_FILE, "lists.json")):
        if path.name.endswith(name):
            return MADE[schema]
    return MADE["rule.json"]


@pytest.mark.parametrize("name", sorted(MADE))
def test_the_stored_schemas_are_current(name):
    """docs/schemas is what the readers' tables say today."""
    stored = ROOT / "docs" / "schemas" / name
    text = json.dumps(MADE[name], indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("FRAUDGUARD_RECORD"):
        stored.write_text(text, encoding="utf-8")
    assert stored.read_text(encoding="utf-8") == text
    jsonschema.Draft7Validator.check_schema(MADE[name])


@pytest.mark.parametrize("path", [*RULES, *sorted((GOLDEN / "pack").glob("*.yaml"))], ids=lambda path: path.name)
def test_what_the_readers_accept_the_schema_accepts(path):
    """The shipped pack, and declarations, have nothing underlined."""
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        jsonschema.validate(document, schema_of(path), cls=jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    "name",
    [
        "misspelled_and_missing_keys.yaml",
        "wrong_words.yaml",
        "when_is_missing.yaml",
        "not_a_rule.yaml",
        "rollout_out_of_range.yaml",
        "windows_with_mistakes.features.yaml",
        "window_without_parts.features.yaml",
        "features_as_mapping.features.yaml",
        "lists_with_mistakes.lists.yaml",
    ],
)
def test_mistakes_of_shape_are_underlined_while_typing(name):
    """What the readers refuse for its shape the schema refuses too."""
    document = next(yaml.safe_load_all((GOLDEN / name).read_text(encoding="utf-8")))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema_of(GOLDEN / name), cls=jsonschema.Draft7Validator)


def test_every_feature_is_offered_below_given():
    """Completion knows the registry, with each feature's meaning."""
    given = MADE["rule.json"]["properties"]["cases"]["items"]["properties"]["given"]["properties"]
    assert given.keys() == {field.name for field in FIELDS if " " not in field.name}
    assert all(entry["description"] for entry in given.values())


def test_vs_code_maps_each_file_to_its_schema():
    """The workspace settings name schemas that exist, and no file is claimed by two."""
    mapped = json.loads((ROOT / ".vscode" / "settings.json").read_text(encoding="utf-8"))["yaml.schemas"]
    assert {Path(schema).name for schema in mapped} == {*MADE, "policy.json"}
    assert all((ROOT / schema).is_file() for schema in mapped)
    for name, schema in ((FEATURES_FILE, "features.json"), (LISTS_FILE, "lists.json"), ("policy.yaml", "policy.json")):
        assert mapped[f"./docs/schemas/{schema}"] == [f"rules/{name}"]
        assert f"!rules/{name}" in mapped["./docs/schemas/rule.json"]

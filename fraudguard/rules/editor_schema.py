"""JSON Schemas of the files of a rule pack, from the same tables their readers use: an editor completes and underlines.

Knows names and the shape of values; what an expression means, and whether a list exists, the readers say.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fraudguard.domain import ENTITY_FIELDS, Feature
from fraudguard.rules.declarations import (
    COUNTABLE,
    LENGTHS,
    LIST_KEYS,
    LIST_PATTERNS,
    SUMMABLE,
    WINDOW_KEYS,
    WINDOW_PATTERNS,
    WINDOW_REQUIRED,
)
from fraudguard.rules.documents import WORD_LENGTH_MAX, Patterns
from fraudguard.rules.expression import HOUR_OF_DAY, split_membership
from fraudguard.rules.schema import (
    CASE_KEYS,
    CASES_MAX,
    EXPECTATIONS,
    KEYS,
    PATTERNS,
    REQUIRED,
    ROLLOUT_ALL,
)
from fraudguard.rules.schema import (
    LENGTHS as RULE_LENGTHS,
)
from fraudguard.rules.validators import VOCABULARY

Schema = dict[str, Any]

_DIALECT: Final = "http://json-schema.org/draft-07/schema#"  # the newest that editors' YAML servers read whole
_NUMBERS: Final = {"version": {"minimum": 1}, "rollout": {"minimum": 1, "maximum": ROLLOUT_ALL}}


def schemas(fields: Sequence[Feature]) -> Mapping[str, Schema]:
    """By file name under docs/schemas. fields: what a rule may name, the windows of features.yaml among them."""
    return {
        "rule.json": _rule(fields),
        "features.json": _windows(),
        "lists.json": _titled("Watch lists of a rule pack", {"type": "array", "items": _lists()}),
    }


def _rule(fields: Sequence[Feature]) -> Schema:
    properties = _properties(KEYS, PATTERNS, RULE_LENGTHS)
    properties["when"] = {"type": "string", "minLength": 1, "description": "the condition; write it below `when: |`"}
    case = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "given": _given(fields),
            "expect": {"enum": list(EXPECTATIONS)},
        },
        "required": list(CASE_KEYS[1:]),
        "additionalProperties": False,
    }
    properties["cases"] = {"type": "array", "items": case, "minItems": 2, "maxItems": CASES_MAX}
    return _titled("A fraudguard rule", _object(properties, REQUIRED))


def _given(fields: Sequence[Feature]) -> Schema:
    described = {
        field.name: {**_value(field), "description": field.meaning + (f" ({field.unit})" if field.unit else "")}
        for field in fields
        if split_membership(field.name) is None  # lists come and go; the pattern below has them all
    }
    lists = "|".join(ENTITY_FIELDS.values())
    patterns = {
        r"^attributes\..+": {"type": ["string", "number", "boolean", "null"]},
        f"^({lists}|{'|'.join(ENTITY_FIELDS)}) in @[a-z][a-z0-9_]*$": {"type": ["boolean", "null"]},
    }
    return {
        "type": "object",
        "properties": described,
        "patternProperties": patterns,
        "additionalProperties": False,
    }


def _value(field: Feature) -> Schema:
    if field.name in VOCABULARY:
        return {"enum": [*VOCABULARY[field.name], None]}
    if field.type == "number" and field.unit == HOUR_OF_DAY:
        return {"type": ["number", "string", "null"]}  # 22:30, which some readers of YAML take for a text
    if field.type == "text":
        return {"type": ["string", "number", "boolean", "null"]}  # what YAML takes for 12 or true is a text here
    return {"type": [field.type, "null"]}


def _windows() -> Schema:
    properties = _properties(WINDOW_KEYS, WINDOW_PATTERNS, LENGTHS)
    properties["where"] = {"type": "string", "minLength": 1, "description": "which events count; left out, all do"}
    choices = {"enum": [*SUMMABLE, *COUNTABLE]}
    properties["of"] = {**properties["of"], "anyOf": [choices, {"pattern": r"^attributes\..+"}]}
    del properties["of"]["pattern"]
    item = _object(properties, WINDOW_REQUIRED)
    return _titled("Windows of a rule pack", {"type": "array", "items": item})


def _lists() -> Schema:
    return _object(_properties(LIST_KEYS, LIST_PATTERNS, LENGTHS), LIST_KEYS)


def _properties(keys: Sequence[str], patterns: Patterns, lengths: Mapping[str, int]) -> dict[str, Schema]:
    return {key: _property(key, *patterns[key], lengths) if key in patterns else {} for key in keys}


def _property(name: str, pattern: str, meaning: str, lengths: Mapping[str, int]) -> Schema:
    if name in _NUMBERS:
        return {"type": "integer", "description": meaning, **_NUMBERS[name]}
    words = pattern.split("|")
    if len(words) > 1 and all(word.isidentifier() for word in words):
        return {"enum": words, "description": meaning}
    # JavaScript's patterns know no (?s), and nothing here but a line break needs it.
    shown = "^" + pattern.removeprefix("(?s)").replace(".*", r"[\s\S]*") + "$"
    length = lengths.get(name, WORD_LENGTH_MAX)
    return {"type": "string", "pattern": shown, "maxLength": length, "description": meaning}


def _object(properties: Mapping[str, Schema], required: Sequence[str]) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _titled(title: str, schema: Schema) -> Schema:
    return {"$schema": _DIALECT, "title": title, **schema}

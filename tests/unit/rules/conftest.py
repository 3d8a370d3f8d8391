"""Small fields and random expressions for the rules' tests."""

from collections.abc import Callable

import pytest

from fraudguard.domain import Feature

FIELDS = (
    *(Feature(name, "number", "", "", "a number", "velocity") for name in ("transfers_1d", "amount", "risk", "n3")),
    *(Feature(name, "text", "", "", "a text", "event") for name in ("chat", "memo", "country", "event_type", "kind")),
    *(Feature(name, "boolean", "", "", "a boolean", "profile") for name in ("is_new_device", "degraded")),
)

RULE = """\
id: {id}
version: 1
owner: fraud-operations
description: A rule for a test.
state: {state}
when: |
  {when}
outcome: {outcome}
reason: A_REASON
severity: high
cases:
  - given: {{{hit}}}
    expect: hit
  - given: {{{no_hit}}}
    expect: no_hit
"""


@pytest.fixture
def fields() -> tuple[Feature, ...]:
    """A registry of numbers, texts and booleans."""
    return FIELDS


@pytest.fixture
def rule_text() -> Callable[..., str]:
    """Makes one rule document; every part can be replaced."""

    def make(**parts: str) -> str:
        defaults = {
            "id": "a-rule",
            "state": "live",
            "when": "transfers_1d > 10",
            "outcome": "review",
            "hit": "transfers_1d: 11",
            "no_hit": "transfers_1d: 10",
        }
        return RULE.format(**(defaults | parts))

    return make

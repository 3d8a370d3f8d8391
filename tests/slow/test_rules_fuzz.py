"""100,000 random rule files and 1,000,000 random events: nothing crashes, nothing differs, nothing falls back.

FRAUDGUARD_FUZZ_FILES and FRAUDGUARD_FUZZ_EVENTS shorten the run, FRAUDGUARD_FUZZ_SEED gives another one.
"""

import os

import pytest
from rules_fuzz import run

FILES = int(os.environ.get("FRAUDGUARD_FUZZ_FILES", "100000"))
EVENTS = int(os.environ.get("FRAUDGUARD_FUZZ_EVENTS", "1000000"))
SEED = int(os.environ.get("FRAUDGUARD_FUZZ_SEED", "0"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def test_random_rules_load_or_are_refused_and_mean_what_the_reference_says() -> None:
    """Every file ends in rules or in BadRule; durable_rules agrees with the reference on every event."""
    seen = run(SEED, FILES, EVENTS)
    print(dict(seen))
    assert seen["loaded"] + seen["refused"] == FILES
    assert min(seen["loaded"], seen["refused"]) > FILES / 10
    assert seen["events"] >= EVENTS

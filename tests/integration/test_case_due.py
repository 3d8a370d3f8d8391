"""From the policy's file to a case's due time, through the pipeline."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from packs import POLICY, files_of, opened, payment, ready, received, rule
from support import settings_for

from fraudguard.assembly import Parts, load_parts
from fraudguard.decisions.casebook import CaseFilter
from fraudguard.decisions.repository import connect


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    """No model."""
    parts = load_parts(settings_for("unused:1", "postgresql://unused", model="off"))
    yield parts
    parts.close()


@pytest.mark.parametrize(("due", "minutes"), [("due: {step_up: 9, review: 7, block: 5}", 7), ("", 240)])
async def test_a_case_is_due_as_the_policy_says(database_url: str, parts: Parts, due: str, minutes: int) -> None:
    """By its outcome; a policy from before there were due times means four hours for a review."""
    shipped = "due: {step_up: 1440, review: 240, block: 30}"
    assert shipped in POLICY
    pack = ready(
        files_of([rule("large", "amount_base > 10", "{amount_base: 11}")], policy=POLICY.replace(shipped, due))
    )
    async with opened(database_url, parts, pack) as pipeline, connect(database_url) as repository:
        await pipeline.screen(received(payment("t-1")))
        (case,) = (await repository.cases.list_cases(CaseFilter())).items
    assert case.outcome == "review"
    assert case.due_at - case.opened_at == timedelta(minutes=minutes)

"""The same deed on many cases: each in a transaction of its own, so that one that was overtaken holds up no other."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from fraudguard.decisions.case_types import Case
from fraudguard.decisions.units import apart
from fraudguard.errors import BadInput, NotFound, StateConflict

CASES_A_BULK_MAX: Final = 200

Refusal = BadInput | NotFound | StateConflict


async def each(seen: Mapping[str, int], deed: Callable[[str, int], Awaitable[Case]]) -> dict[str, Case | Refusal]:
    """Do it to each case at the version that was seen: what it is now, or why it was not done, by id.

    deed: of an id and a version. Raises BadInput for more than CASES_A_BULK_MAX, StoreUnavailable part of the way.
    """
    if not 1 <= len(seen) <= CASES_A_BULK_MAX:
        raise BadInput(f"must be 1 to {CASES_A_BULK_MAX} cases", path="cases", hint="send them in parts")
    done: dict[str, Case | Refusal] = {}
    for case_id, version in seen.items():
        try:
            with apart():
                done[case_id] = await deed(case_id, version)
        except (BadInput, NotFound, StateConflict) as error:
            done[case_id] = error
    return done

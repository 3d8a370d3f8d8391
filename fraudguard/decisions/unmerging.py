"""Taking a merged case out again: both are what their own alerts make of them. Raises as Casework does."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.decisions import audit
from fraudguard.decisions.case_types import Case, checked
from fraudguard.decisions.cases import LINE_CHARACTERS_MAX
from fraudguard.decisions.casework import Casework
from fraudguard.decisions.tables import CASES
from fraudguard.domain import STOPPED, Outcome
from fraudguard.errors import BadInput, Conflict

# What cases.py adds up alert by alert, of all alerts of these cases; the newest riskiest one gives line and typology.
_OWN = text("""
WITH own AS (SELECT * FROM alerts WHERE case_id = ANY (CAST(:cases AS text[])))
SELECT (SELECT count(*) FROM own) AS alerts,
       (SELECT coalesce(sum(coalesce(risk, 1) * coalesce(amount_base, 0)), 0) FROM own) AS expected_loss,
       (SELECT coalesce(sum(amount_base), 0) FROM own WHERE outcome = ANY (CAST(:stopped AS text[]))) AS money_held,
       (SELECT max(array_position(CAST(:outcomes AS text[]), outcome)) FROM own) AS worst,
       top.risk AS top_risk, top.typology, d.body ->> 'line' AS line
FROM (SELECT * FROM own ORDER BY risk DESC NULLS LAST, event_time DESC, sequence DESC LIMIT 1) top
JOIN decisions d ON d.event_time = top.event_time AND d.decision_id = top.decision_id
""")


class Unmerging(Casework):
    """See Casework."""

    async def unmerge(self, case_id: str, seen: int, other: str, reason: str, actor: str, at: datetime) -> Case:
        """Open a merged case again, with its alerts: it is nobody's. What was merged into it before stays here.

        This one stays due when it was. Conflict where the other's account has a newer open case.
        """
        reason = checked(reason)
        if other == case_id:
            raise BadInput("is the case itself", path="case_id")
        async with self.changing(case_id, seen, actor, at, other) as change:
            change.must_be_free()
            gone = change.others[other]
            if gone.merged_into != case_id:
                raise Conflict(f"case {other} is not merged into {case_id}", path="case_id")
            whose = (CASES.c.account_id == gone.account_id, CASES.c.tenant == gone.tenant)
            newer = await change.connection.scalar(select(CASES.c.case_id).where(*whose, CASES.c.state != "closed"))
            if newer is not None:
                raise Conflict(f"a new alert has opened case {newer} since", path="case_id", hint="merge that one")
            opened = {"state": "open", "merged_into": None, "closed_at": None, "closed_by": None}
            await change.write(other, **opened, **await _own(change.connection, [other]))
            left = [case_id, *(case.case_id for case in change.merged_into(case_id) if case.case_id != other)]
            sums = await _own(change.connection, left)
            detail = {"from": case_id, "reason": reason}
            await audit.append(change.connection, at, actor, "case.unmerge", other, detail, gone.tenant)
            return await change.save("case.unmerge", {"other": other, "reason": reason}, **sums)


async def _own(connection: AsyncConnection, cases: Collection[str]) -> dict[str, Any]:
    """What these cases are by their alerts alone."""
    outcomes = [outcome.value for outcome in Outcome]
    wanted = {"cases": list(cases), "stopped": [outcome.value for outcome in STOPPED], "outcomes": outcomes}
    row = (await connection.execute(_OWN, wanted)).one()
    return {
        "alerts": row.alerts,
        "expected_loss": row.expected_loss,
        "money_held": row.money_held,
        "outcome": outcomes[row.worst - 1],
        "top_risk": row.top_risk,
        "typology": row.typology,
        "top_line": row.line[:LINE_CHARACTERS_MAX],
    }

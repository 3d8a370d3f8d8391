"""What people find cases to be: dispositions, their undoing, second reviews, and the labels that come of them.

A label waits in the outbox until its case can no longer be reopened. Who has which case is in casework.py.
"""

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid5

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import outbox
from fraudguard.decisions.case_types import Case, Disposition, checked
from fraudguard.decisions.cases import NAMESPACE
from fraudguard.decisions.casework import Casework, Change
from fraudguard.decisions.connection import any_of
from fraudguard.decisions.tables import ALERT_DISPOSITIONS, ALERTS, CASES, DISPOSITIONS
from fraudguard.domain import Label
from fraudguard.errors import BadInput, Conflict
from fraudguard.tenants import ATTRIBUTE

UNDO: Final = timedelta(seconds=10)  # how long a disposition may be taken back
ALERTS_A_DEED_MAX: Final = 1_000
REVIEW_PERCENT: Final = 5

# The newest disposition of each alert of these cases that has one of its own.
_OWN = text("""
SELECT a.decision_id, a.event_id, a.account_id, a.case_id, d.disposition
FROM alerts a
LEFT JOIN LATERAL (
    SELECT disposition FROM alert_dispositions WHERE decision_id = a.decision_id ORDER BY id DESC LIMIT 1
) d ON true
WHERE a.case_id = ANY (CAST(:cases AS text[]))
ORDER BY a.account_id, a.sequence
""")


class Verdicts(Casework):
    """Raises as Casework does. A disposition holds for the cases merged into this one too."""

    def __init__(self, engine: AsyncEngine, review_percent: float = REVIEW_PERCENT) -> None:
        """review_percent: of disposed cases, how many a second person looks at."""
        super().__init__(engine)
        self._review_percent = review_percent

    async def dispose(
        self, case_id: str, seen: int, disposition: Disposition, reason: str, actor: str, at: datetime
    ) -> Case:
        """Close a case with a verdict; queue a label for each of its alerts unless it stays merely suspicious.

        An alert that was judged by itself keeps that. Some cases then wait for a second review.
        """
        reason = checked(reason)
        async with self.changing(case_id, seen, actor, at) as change:
            change.must_be_free()
            merged = change.merged_into(case_id)
            await _find(change, merged, disposition, reason)
            labels = await _labels(change, merged, disposition)
            await outbox.put(change.connection, labels, at, case_id=case_id, not_before=at + UNDO)
            return await change.save(
                "case.dispose",
                {"disposition": disposition.value, "reason": reason, "labels": str(len(labels))},
                state="closed",
                disposition=disposition.value,
                reason=reason,
                closed_at=at,
                closed_by=actor,
                review="waiting" if sampled(case_id, self._review_percent) else None,
            )

    async def dispose_alerts(
        self,
        case_id: str,
        seen: int,
        decision_ids: Collection[str],
        disposition: Disposition,
        reason: str,
        actor: str,
        at: datetime,
    ) -> Case:
        """Judge some of a case's alerts by themselves; the last word on each holds once the case is disposed of."""
        reason, wanted = checked(reason), sorted(set(decision_ids))
        if not 1 <= len(wanted) <= ALERTS_A_DEED_MAX:
            raise BadInput(f"must be 1 to {ALERTS_A_DEED_MAX} alerts", path="decision_ids")
        async with self.changing(case_id, seen, actor, at) as change:
            change.must_be_free()
            cases = [case_id, *(case.case_id for case in change.merged_into(case_id))]
            query = select(ALERTS.c.decision_id).where(
                ALERTS.c.decision_id == any_of(wanted), ALERTS.c.case_id == any_of(cases)
            )
            known = set(await change.connection.scalars(query))
            for decision_id in wanted:
                if decision_id not in known:
                    raise BadInput(f"case {case_id} has no alert {decision_id!r}", path="decision_ids")
            common = {"disposition": disposition.value, "reason": reason, "actor": actor, "at": at}
            common |= {"tenant": change.case.tenant}
            rows = [common | {"decision_id": decision_id} for decision_id in wanted]
            await change.connection.execute(insert(ALERT_DISPOSITIONS), rows)
            judged = dict.fromkeys(wanted, disposition.value)
            return await change.save("case.dispose_alerts", {"reason": reason, "alerts": judged})

    async def reopen(self, case_id: str, seen: int, actor: str, at: datetime) -> Case:
        """Take one's own disposition back, within UNDO: as if it had not been, but for the trail."""
        async with self.changing(case_id, seen, actor, at) as change:
            case = change.case
            if case.closed_at is None or case.disposition is None or case.merged_into is not None:
                raise Conflict(f"case {case_id} was not disposed of", path="case_id")
            if case.closed_by != actor:
                raise Conflict(f"case {case_id} was closed by {case.closed_by}", path="case_id")
            unclosed = select(CASES.c.case_id).where(
                CASES.c.account_id == case.account_id, CASES.c.tenant == case.tenant, CASES.c.state != "closed"
            )
            newer = await change.connection.scalar(unclosed)
            if newer is not None:
                raise Conflict(f"a new alert has opened case {newer} since", path="case_id", hint="work that one")
            left = at >= case.closed_at + UNDO or case.review not in (None, "waiting")
            if left or not await outbox.take_back(change.connection, case_id):
                raise Conflict(
                    f"case {case_id} was closed more than {UNDO.seconds} s ago",
                    path="case_id",
                    hint="send a label of source `analyst` for what was found wrongly",
                )
            await _find(change, change.merged_into(case_id), None, "reopened")
            return await change.save(
                "case.reopen",
                {},
                state="investigating" if case.claimed_by else "open",
                disposition=None,
                reason=None,
                closed_at=None,
                closed_by=None,
                review=None,
            )

    async def review(
        self, case_id: str, seen: int, disposition: Disposition, reason: str, actor: str, at: datetime
    ) -> Case:
        """A second person's verdict on a case of the sample; if it is another one, it holds, with labels of its own."""
        reason = checked(reason)
        async with self.changing(case_id, seen, actor, at) as change:
            case = change.case
            if case.review != "waiting" or case.closed_at is None:
                raise Conflict(f"case {case_id} waits for no review", path="case_id")
            if case.closed_by == actor:
                raise Conflict(f"{actor} closed case {case_id}", path="actor", hint="another person must review it")
            if at < case.closed_at + UNDO:
                raise Conflict(f"case {case_id} can still be reopened", path="case_id", hint="wait a moment")
            detail = {"disposition": disposition.value, "reason": reason}
            if disposition is case.disposition:
                return await change.save("case.review", detail, review="agreed", reviewed_by=actor)
            merged = change.merged_into(case_id)
            await _find(change, merged, disposition, reason)
            labels = await _labels(change, merged, disposition, again=True)
            await outbox.put(change.connection, labels, at, case_id=case_id)
            return await change.save(
                "case.review",
                detail | {"before": case.disposition and case.disposition.value, "labels": str(len(labels))},
                disposition=disposition.value,
                reason=reason,
                review="disagreed",
                reviewed_by=actor,
            )


async def _find(change: Change, merged: Sequence[Case], disposition: Disposition | None, reason: str) -> None:
    """Write down what was found of a case and those merged into it; None: it is open again."""
    common: dict[str, Any] = {"reason": reason, "actor": change.actor, "at": change.at, "tenant": change.case.tenant}
    common["disposition"] = disposition.value if disposition else "reopened"
    rows = [common | {"case_id": case.case_id} for case in (change.case, *merged)]
    await change.connection.execute(insert(DISPOSITIONS), rows)
    for case in merged:
        found = (disposition.value, reason) if disposition else (None, None)
        await change.write(case.case_id, disposition=found[0], reason=found[1])


async def _labels(
    change: Change, merged: Sequence[Case], disposition: Disposition, *, again: bool = False
) -> list[Label]:
    """A label for each alert that is certain, of these cases. again: only those that the case's disposition is for."""
    cases = [case.case_id for case in (change.case, *merged)]
    made = []
    for row in await change.connection.execute(_OWN, {"cases": cases}):
        found = Disposition(row.disposition) if row.disposition else disposition
        if found is Disposition.SUSPICIOUS or (again and row.disposition):
            continue
        fraud = found is Disposition.CONFIRMED_FRAUD
        make_id = review_label_id if again else label_id
        made.append(
            Label(
                type="label",
                version=1,
                event_id=make_id(row.case_id, row.event_id),
                account_id=row.account_id,
                event_time=change.at,
                target_event_id=row.event_id,
                source="analyst",
                verdict="fraud" if fraud else "legitimate",
                typology=change.case.typology if fraud else None,
                attributes={ATTRIBUTE: change.case.tenant} if change.case.tenant else {},
            )
        )
    return made


def label_id(case_id: str, target_event_id: str) -> str:
    """The id of the label that a case's disposition sends of an event: publishing twice sends the same event."""
    return f"analyst-{uuid5(NAMESPACE, f'{case_id}:{target_event_id}')}"


def review_label_id(case_id: str, target_event_id: str) -> str:
    """The same of a second review, which must not be taken for the first."""
    return f"analyst-{uuid5(NAMESPACE, f'{case_id}:{target_event_id}:review')}"


def sampled(case_id: str, percent: float) -> bool:
    """Whether a second person looks at this case: always the same answer, for any `percent` of the ids."""
    place = int.from_bytes(hashlib.sha256(f"review:{case_id}".encode()).digest()[:8], "big")
    return place < percent / 100 * 2**64

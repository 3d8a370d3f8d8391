"""Decisions with what people and chargebacks said of them since, streamed account by account: what a model learns from.

Bounded memory, as in history.py. Knows rows; what they are the truth of is the reader's to say.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import orjson
from pydantic import Field, TypeAdapter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.decisions import history
from fraudguard.decisions.casebook import Disposition, label_id
from fraudguard.decisions.verdicts import review_label_id
from fraudguard.domain import Label, Scalar, Screenable, Typology
from fraudguard.tenants import scoped

_EVENT: TypeAdapter[Screenable] = TypeAdapter(Annotated[Screenable, Field(discriminator="type")])
_LABELS: TypeAdapter[list[Label]] = TypeAdapter(list[Label])

# The lateral part is read through the labels' index for each decision: no order is lost on the way.
_QUERY = text("""
SELECT d.account_id, d.tenant, d.sequence, CAST(b.event AS text) AS event, CAST(b.features AS text) AS features,
       CAST(l.labels AS text) AS labels, a.case_id, coalesce(r.typology, c.typology) AS typology,
       CASE WHEN p.disposition <> 'reopened' THEN coalesce(o.disposition, p.disposition) END AS disposition,
       CASE WHEN p.disposition <> 'reopened' THEN p.at END AS at
FROM decisions d
CROSS JOIN LATERAL json_to_record(d.body) AS b (event json, features json)
LEFT JOIN LATERAL (
    SELECT json_agg(json_build_object(
        'type', 'label', 'version', 1, 'event_id', event_id, 'account_id', account_id, 'event_time', event_time,
        'target_event_id', target_event_id, 'source', source, 'verdict', verdict, 'typology', typology
    ) ORDER BY event_time, event_id) AS labels
    FROM labels WHERE target_event_id = d.event_id AND tenant = d.tenant AND event_time <= :until
) l ON true
LEFT JOIN alerts a ON a.decision_id = d.decision_id
LEFT JOIN cases c ON c.case_id = a.case_id
LEFT JOIN cases r ON r.case_id = c.merged_into
LEFT JOIN LATERAL (
    SELECT disposition, at FROM dispositions WHERE case_id = a.case_id AND at <= :until ORDER BY id DESC LIMIT 1
) p ON true
LEFT JOIN LATERAL (
    SELECT disposition FROM alert_dispositions WHERE decision_id = a.decision_id AND at <= :until
    ORDER BY id DESC LIMIT 1
) o ON true
WHERE d.event_time >= :since AND d.event_time <= :until
ORDER BY d.account_id, d.tenant, d.sequence
""")

_NEWEST = text("""
SELECT greatest((SELECT max(event_time) FROM decisions), (SELECT max(event_time) FROM labels),
                (SELECT max(at) FROM dispositions))
""")


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """The case that an alert belongs to. typology: of its riskiest alert. at: None while it is open.

    disposition: of the alert itself where it was judged by itself, else of the case; None while that is open.
    """

    case_id: str
    typology: Typology | None
    disposition: Disposition | None
    at: datetime | None


@dataclass(frozen=True, slots=True)
class LabelledDecision:
    """An event as it was taken, with the features of that moment.

    account_id: scoped (tenants.py). labels: what was said of this event alone, oldest first; those that its case's
    disposition sent are not among them. case: None if it was no alert.
    """

    account_id: str
    sequence: int
    event: Screenable
    features: Mapping[str, Scalar]
    labels: tuple[Label, ...]
    case: CaseOutcome | None


async def labelled_decisions(
    connection: AsyncConnection, since: datetime, until: datetime
) -> AsyncIterator[LabelledDecision]:
    """Events from `since` to `until`, by account, in sequence, with what was said of them by `until`."""
    await connection.execute(history.NO_SORT_OF_ALL)
    async for row in history.stream(connection, _QUERY, {"since": since, "until": until}):
        account_id, tenant, sequence, event, features, labels, case_id, typology, disposition, at = tuple[Any, ...](row)
        case = None
        if case_id is not None:
            case = CaseOutcome(
                case_id, typology and Typology(typology), None if disposition is None else Disposition(disposition), at
            )
        own = tuple(
            label
            for label in (_LABELS.validate_json(labels) if labels else ())
            if case_id is None or label.event_id not in _sent(case_id, label.target_event_id)
        )
        key = scoped(tenant, account_id)
        yield LabelledDecision(key, sequence, _EVENT.validate_json(event), orjson.loads(features), own, case)


def _sent(case_id: str, target: str) -> tuple[str, str]:
    """The ids of the labels that the case sends of an event."""
    return label_id(case_id, target), review_label_id(case_id, target)


async def newest(connection: AsyncConnection) -> datetime | None:
    """When the newest event, label or disposition was; None where there is none."""
    found: datetime | None = await connection.scalar(_NEWEST)
    return found

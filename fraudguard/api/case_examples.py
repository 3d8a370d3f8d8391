"""The story of examples.py goes on: what analysts do with the case."""

from typing import Any

from fraudguard.api import examples

LEAD = "Zhao (88f1c2d9a7be4416)"
WANG = "Wang (51f0c2d9a7be4416)"
OTHER_ID = "1141caf2-f90d-5969-8f63-77a73be65d0d"

VERDICT = {"disposition": examples.CLOSED["disposition"], "reason": examples.CLOSED["reason"]}
ASSIGNMENT = {"assignee": WANG, "team": "payments"}
ESCALATION = {"reason": "the payee is on two other cases"}
SNOOZE = {"until": None}
NEW_NOTE = {"body": "called at 10:15: no answer"}
NEW_LINK = {"case_id": OTHER_ID, "reason": "the same payee"}
MERGE = {"case_id": OTHER_ID, "version": 2, "reason": "the same payee, the same story"}
UNMERGE = {"case_id": OTHER_ID, "reason": "the payee is another one after all"}
ALERT_VERDICT = {
    "decision_ids": [examples.DECISION_ID],
    "disposition": "false_positive",
    "reason": "this payment was to the landlord",
}

RELEASED: dict[str, Any] = examples.CASE | {"version": 4, "changed_by": WANG}
ASSIGNED: dict[str, Any] = (
    examples.CASE
    | ASSIGNMENT
    | {
        "version": 5,
        "changed_by": LEAD,
        "assigned_to": WANG,
        "inbox": "payments",
    }
)
del ASSIGNED["assignee"]
ESCALATED: dict[str, Any] = examples.CASE | {
    "version": 6,
    "changed_by": WANG,
    "escalated_at": "2026-11-21T10:12:00.000Z",
}
SNOOZED: dict[str, Any] = examples.CASE | {"version": 7, "changed_by": WANG}
NOTED: dict[str, Any] = examples.CLAIMED | {"version": 4}
REOPENED: dict[str, Any] = examples.CLAIMED | {"version": 5}
REVIEWED: dict[str, Any] = examples.CLOSED | {
    "version": 5,
    "changed_by": LEAD,
    "review": "agreed",
    "reviewed_by": LEAD,
}

FILE_TEXT = "bank: transfer of 50,000.00 to c-9 at 10:00\n"
FILE: dict[str, Any] = {
    "name": "transfer.txt",
    "media_type": "text/plain",
    "bytes": 44,
    "sha256": "b8d081ca02d74461815f683edde2d5187f00b129f6cbb2c2e6e40802f4eca37d",
    "actor": WANG,
    "at": "2026-11-21T10:16:00.000Z",
}
ALERT: dict[str, Any] = examples.ALERT | {
    "case_id": examples.CASE_ID,
    "account_id": examples.ACCOUNT_ID,
    "disposition": None,
    "labels": [
        {"source": "chargeback", "verdict": "fraud", "typology": "scam", "event_time": "2026-11-21T11:00:00.000Z"}
    ],
}
DETAIL: dict[str, Any] = {
    "case": examples.CLAIMED,
    "alerts": [ALERT],
    "missed": [],
    "notes": [NEW_NOTE | {"actor": WANG, "at": "2026-11-21T10:15:00.000Z"}],
    "files": [FILE],
    "links": [
        {
            "case_id": OTHER_ID,
            "account_id": "a-2",
            "state": "open",
            "reason": NEW_LINK["reason"],
            "actor": WANG,
            "at": "2026-11-21T10:17:00.000Z",
        }
    ],
    "merged": [],
}
INBOXES: dict[str, Any] = {
    "items": [{"name": "scam", "awake": 42, "waiting": 30, "mine": 3, "escalated": 1, "snoozed": 5}]
}
HISTORY: dict[str, Any] = {
    "items": [{"at": "2026-11-21T10:10:00.000Z", "actor": WANG, "action": "case.claim", "detail": {"version": 3}}]
}
BULK: dict[str, Any] = {
    "action": "assign",
    "assignee": WANG,
    "cases": [{"case_id": examples.CASE_ID, "version": 2}, {"case_id": OTHER_ID, "version": 1}],
}
BULK_DONE: dict[str, Any] = {
    "done": 1,
    "items": [
        {"case_id": examples.CASE_ID, "version": 3, "code": None, "detail": None},
        {
            "case_id": OTHER_ID,
            "version": None,
            "code": "overtaken",
            "detail": f"case {OTHER_ID} is version 2, not 1: {WANG} changed it at 10:10:00 UTC",
        },
    ],
}

"""One story for the OpenAPI examples: a stranger urges account a-1 to pay, the payment follows, an analyst decides.

Decision and case ids are functions of the event ids, so these are the ids that the events really get.
"""

from typing import Any

EVENT_ID, MESSAGE_ID, ACCOUNT_ID = "t-1", "m-1", "a-1"
DECISION_ID = "527938da-69cb-568a-a05a-a84e2bfda1df"
CASE_ID = "25299e5a-8397-55b0-875b-0c539f222aca"

MESSAGE: dict[str, Any] = {
    "type": "message",
    "version": 1,
    "event_id": MESSAGE_ID,
    "account_id": ACCOUNT_ID,
    "event_time": "2026-11-21T09:58:00.000Z",
    "conversation_id": "k-1",
    "channel": "chat",
    "sender": "counterparty",
    "language": "zh",
    "text": "急用钱，先转到安全账户",
    "attributes": {},
}
TRANSACTION: dict[str, Any] = {
    "type": "transaction",
    "version": 1,
    "event_id": EVENT_ID,
    "account_id": ACCOUNT_ID,
    "event_time": "2026-11-21T10:00:00.000Z",
    "direction": "debit",
    "kind": "transfer",
    "channel": "app",
    "amount": "50000.00",
    "currency": "CNY",
    "counterparty_id": "c-9",
    "merchant_id": None,
    "device_id": "d-1",
    "ip": "203.0.113.5",
    "country": "CN",
    "memo": "货款",
    "attributes": {},
}
LABEL: dict[str, Any] = {
    "type": "label",
    "version": 1,
    "event_id": "l-1",
    "account_id": ACCOUNT_ID,
    "event_time": "2026-11-21T11:00:00.000Z",
    "target_event_id": EVENT_ID,
    "source": "chargeback",
    "verdict": "fraud",
    "typology": "scam",
}
DECISION: dict[str, Any] = {
    "decision_id": DECISION_ID,
    "event_id": EVENT_ID,
    "event_type": "transaction",
    "account_id": ACCOUNT_ID,
    "sequence": 2,
    "outcome": "block",
    "risk": 0.9731,
    "typology": "scam",
    "reasons": ["SAFE_ACCOUNT_TALK_AND_NEW_PAYEE"],
    "hits": [{"rule": "safe-account-payment", "version": 1, "outcome": "block"}],
    "degraded": False,
    "model": "starter@1.0.0+int8",
    "rules_version": "4ed9e0179765",
    "decided_at": "2026-11-21T10:00:00.035Z",
    "latency_ms": 14.2,
    "severity": "critical",
}
CASE: dict[str, Any] = {
    "case_id": CASE_ID,
    "account_id": ACCOUNT_ID,
    "state": "open",
    "opened_at": "2026-11-21T09:58:00.021Z",
    "updated_at": "2026-11-21T10:00:00.035Z",
    "expected_loss": 48655.0,
    "top_risk": 0.9731,
    "typology": "scam",
    "outcome": "block",
    "alerts": 2,
    "claimed_by": None,
    "disposition": None,
    "reason": None,
    "closed_at": None,
    "closed_by": None,
    "version": 2,
    "changed_by": "",
    "claimed_until": None,
    "assigned_to": None,
    "team": None,
    "inbox": "scam",
    "due_at": "2026-11-21T10:28:00.021Z",
    "snoozed_until": None,
    "escalated_at": None,
    "money_held": 50000.0,
    "top_line": "[pay out CNY 50,000 new payee memo: 货款]",
    "merged_into": None,
    "review": None,
    "reviewed_by": None,
    "tenant": "",
}
CLAIMED: dict[str, Any] = CASE | {
    "state": "investigating",
    "updated_at": "2026-11-21T10:10:00.000Z",
    "version": 3,
    "changed_by": "Wang (51f0c2d9a7be4416)",
    "claimed_by": "Wang (51f0c2d9a7be4416)",
    "claimed_until": "2026-11-21T10:25:00.000Z",
}
CLOSED: dict[str, Any] = CLAIMED | {
    "state": "closed",
    "version": 4,
    "updated_at": "2026-11-21T10:20:00.000Z",
    "disposition": "confirmed_fraud",
    "reason": "the customer confirms on the phone that the payee is a stranger",
    "closed_at": "2026-11-21T10:20:00.000Z",
    "closed_by": "Wang (51f0c2d9a7be4416)",
}
ALERT: dict[str, Any] = {
    "decision_id": DECISION_ID,
    "event_id": EVENT_ID,
    "event_type": "transaction",
    "event_time": "2026-11-21T10:00:00.000Z",
    "sequence": 2,
    "outcome": "block",
    "risk": 0.9731,
    "typology": "scam",
    "amount_base": 50000.0,
    "reasons": ["SAFE_ACCOUNT_TALK_AND_NEW_PAYEE"],
    "line": "[pay out CNY 50,000 new payee memo: 货款]",
}
RULES: dict[str, Any] = {
    "release": 1,
    "rules_version": "4ed9e0179765",
    "policy_version": "9f2c41d07ab3",
    "at": "2026-11-21T09:00:00.000Z",
    "actor": "first start",
    "rules": [
        {
            "id": "urgent-money-burst",
            "version": 1,
            "state": "live",
            "rollout": 100,
            "outcome": "block",
            "reason": "TRANSFERS_1D_AND_URGENT_MONEY",
            "severity": "critical",
            "owner": "fraud-operations",
            "description": "Many transfers in one day while somebody urges for money.",
            "gaps": "Misses whoever urges on another channel.",
            "when": 'transfers_1d > 10 and chat mentions ["急用钱", "urgent money"]',
        }
    ],
}
POLICE_FILE = """\
id: named-by-the-police
version: 1
owner: aml-team
description: A payment to an account that the police have named.
state: live
event: transaction
when: direction == "debit" and counterparty_id in @mule_accounts
outcome: block
reason: PAYEE_NAMED_BY_POLICE
severity: critical
cases:
  - given: {direction: debit, "counterparty_id in @mule_accounts": true}
    expect: hit
  - given: {direction: debit, "counterparty_id in @mule_accounts": false}
    expect: no_hit
"""
_LINES = [f"+{line}" for line in POLICE_FILE.splitlines()]
TRIAL_FILE = POLICE_FILE.replace("state: live", "state: shadow")
FILES: dict[str, Any] = {"release": 1, "files": {"police.yaml": POLICE_FILE}}
CHANGE: dict[str, Any] = {"files": {"police.yaml": POLICE_FILE}}
PROPOSALS: list[dict[str, Any]] = [
    CHANGE | {"base": 1, "note": "the police sent a list"},
    {"files": {"police.yaml": TRIAL_FILE}, "base": 1, "note": "only on trial"},
]
CHECKED: dict[str, Any] = {
    "faults": "",
    "notices": ["named-by-the-police is new, live", "named-by-the-police goes live without having been in shadow"],
    "diff": "\n".join(["--- in force/police.yaml", "+++ new/police.yaml", f"@@ -0,0 +1,{len(_LINES)} @@", *_LINES]),
}
PUBLISHED: dict[str, Any] = {"number": 2, "active": False, "notices": CHECKED["notices"]}
AGREEMENT = {"note": "agreed: these accounts are certain"}
OBJECTION = {"note": "release 2 has it live"}
ROLLBACK = {"note": "the list held accounts of ours"}
RELEASE_BRIEF: dict[str, Any] = {
    "number": 2,
    "parent": 1,
    "rules_version": "c01d5a7e9f22",
    "policy_version": "9f2c41d07ab3",
    "author": "Li (88f1c2d9a7be4416)",
    "via": "api",
    "note": "the police sent a list",
    "at": "2026-11-21T11:00:00.000Z",
    "reviews": [
        {
            "actor": "Wang (51f0c2d9a7be4416)",
            "verdict": "approve",
            "note": AGREEMENT["note"],
            "at": "2026-11-21T11:05:00.000Z",
        }
    ],
    "activated_at": "2026-11-21T11:05:00.000Z",
    "active": True,
}
RELEASE: dict[str, Any] = RELEASE_BRIEF | {"diff": CHECKED["diff"]}
LIST: dict[str, Any] = {
    "name": "mule_accounts",
    "kind": "block",
    "entity": "counterparty",
    "owner": "aml-team",
    "description": "Accounts that received the proceeds of fraud.",
    "entries": 1,
}
ENTRY: dict[str, Any] = {
    "list": "mule_accounts",
    "value": "c-9",
    "reason": "named in case c-17",
    "owner": "Wang (51f0c2d9a7be4416)",
    "source": "api",
    "added_at": "2026-11-21T11:10:00.000Z",
    "expires_at": None,
}
NEW_ENTRY = {"reason": ENTRY["reason"]}
NEW_ENTRIES = {
    "entries": {
        "c-9": NEW_ENTRY,
        "c-10": {"reason": "named in letter 4711", "source": "police", "expires_at": "2126-11-21T00:00:00Z"},
    }
}
MODELS: dict[str, Any] = {
    "champion": None,
    "challenger": "starter@0.3.0",
    "models": [
        {
            "id": "starter@0.3.0",
            "digest": "72aa01396d3a2a6d8d122d26701b67952be6ede0c4a34e1342b4162903362cf4",
            "state": "challenger",
            "metrics": None,
            "added_at": "2026-11-21T09:00:00.000Z",
            "added_by": "cli:wang",
            "steps": [
                {
                    "action": "shadow",
                    "forced": False,
                    "actor": "cli:wang",
                    "note": "labels of October",
                    "at": "2026-11-21T09:00:00.000Z",
                }
            ],
        }
    ],
}

SIGN_IN: dict[str, Any] = {"name": "wang.wei", "password": "seven harbour crane lamp"}
NEW_PASSWORD: dict[str, Any] = {"old": SIGN_IN["password"], "new": "quiet river pencil storm"}
WHO: dict[str, Any] = {"name": "wang.wei", "role": "analyst", "csrf_token": "5b" * 32, "tenant": ""}

NEW_WEBHOOK: dict[str, Any] = {"url": "https://payments.bank.example/fraud", "kinds": ["case.closed", "decision.block"]}
MADE_WEBHOOK: dict[str, Any] = {"name": "payments", "secret": "whsec_CZ9J5r1zV0mJ1Wm8oE7y3cZr8gqXWc0bqk2kQmT0p1E="}
WEBHOOK: dict[str, Any] = {
    "name": "payments",
    **NEW_WEBHOOK,
    "created_at": "2026-11-21T09:00:00.000Z",
    "created_by": "root",
    "waiting": 0,
    "given_up": 0,
    "tenant": "",
    "off_at": None,
}
EVIDENCE: dict[str, Any] = {
    "decision_id": DECISION_ID,
    "status": "made",
    "risk": 0.9731,
    "model": "starter@1.0.0+int8",
    "model_risk": 0.9731,
    "made_at": "2026-11-21T10:00:00.412Z",
    "lines": [
        {
            "sequence": 1,
            "decision_id": "8b8a2ec4-0f4e-5c0d-9f51-3f6a4d1f2a77",
            "event_type": "message",
            "event_time": "2026-11-21T09:58:00.000Z",
            "outcome": "step_up",
            "risk": 0.7104,
            "line": "counterparty: 急用钱，先转到安全账户",
            "effect": 0.4127,
        },
        {
            "sequence": 2,
            "decision_id": DECISION_ID,
            "event_type": "transaction",
            "event_time": "2026-11-21T10:00:00.000Z",
            "outcome": "block",
            "risk": 0.9731,
            "line": "[pay out CNY 50,000 transfer new payee memo: 货款]",
            "effect": 0.1035,
        },
    ],
    "features": [
        {"kind": "group", "name": "velocity", "effect": 0.1402, "values": {}},
        {
            "kind": "feature",
            "name": "is_new_counterparty",
            "effect": 0.0811,
            "values": {"is_new_counterparty": True},
        },
    ],
    "asked": [
        {
            "source": "rule",
            "outcome": "block",
            "reason": "SAFE_ACCOUNT_TALK_AND_NEW_PAYEE",
            "severity": "critical",
            "taken_back": False,
            "rule": "safe-account-payment",
            "version": 1,
            "threshold": None,
            "tests": [
                {"text": "is_new_counterparty", "holds": True, "values": {"is_new_counterparty": True}, "found": []}
            ],
            "without": "review",
        }
    ],
    "near_misses": [],
    "explained": True,
}
EVIDENCE_WAITS: dict[str, Any] = {"decision_id": DECISION_ID, "status": "waits"}
NARRATIVE = """\
event: evidence
data: {"generated": true, "language": "zh", "items": [{"number": 1, "kind": "decision", "ref": "527938da"}]}

event: source
data: {"by": "template", "model": null, "why": "no_server"}

event: text
data: {"text": "2026-11-21 10:00（UTC）的一笔 CNY 50,000.00 交易被判定为“拦截”，诈骗风险 97 % "}

event: link
data: {"number": 1}

event: end
data: {"complete": true}

"""

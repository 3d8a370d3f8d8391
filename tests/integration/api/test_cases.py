"""Cases: the queue, one with its alerts' lines, and a disposition whose labels reach the workers through Kafka."""

import asyncio
from typing import Any

import pytest
from api_support import Api, until

from fraudguard.api import examples
from fraudguard.domain import Label, Role


async def opened(api: Api, account: str, amount: str = "50000.00") -> dict[str, Any]:
    """The case that a suspicious chat and payment of this account opened."""
    for event in (examples.MESSAGE, examples.TRANSACTION | {"amount": amount}):
        event = event | {"event_id": f"{account}-{event['type']}", "account_id": account}
        assert (await api.send(Role.SERVICE, "POST", "/v1/screen", json=event)).status_code == 200
    cases = (await api.send(Role.ANALYST, "GET", "/v1/cases", params={"account_id": account})).json()["items"]
    assert len(cases) == 1
    found: dict[str, Any] = cases[0]
    return found


async def dispose(api: Api, case_id: str, disposition: str, role: Role = Role.ANALYST) -> Any:
    """The answer to a verdict."""
    body = {"disposition": disposition, "reason": "  called the customer  "}
    return await api.send(role, "POST", f"/v1/cases/{case_id}/dispose", json=body)


async def labels_of(api: Api, account: str) -> list[Label]:
    """The labels that the workers have stored for the account's two events."""
    found = await api.repository.labels([f"{account}-message", f"{account}-transaction"])
    return [label for labels in found.values() for label in labels]


async def test_the_queue_shows_the_greatest_loss_first_and_a_case_its_lines(api: Api) -> None:
    """Filters and pages as for decisions; each alert has its risk, its reasons and the masked line."""
    small, large = await opened(api, "a-small", "10000.00"), await opened(api, "a-large", "90000.00")
    first = (await api.send(Role.RULE_EDITOR, "GET", "/v1/cases", params={"limit": 1})).json()
    assert [case["case_id"] for case in first["items"]] == [large["case_id"]]
    params = {"limit": 1, "cursor": first["next"], "state": "open"}
    second = (await api.send(Role.RULE_EDITOR, "GET", "/v1/cases", params=params)).json()
    assert [case["case_id"] for case in second["items"]] == [small["case_id"]]
    assert second["next"] is None
    assert (await api.send(Role.ANALYST, "GET", "/v1/cases", params={"state": "closed"})).json()["items"] == []
    detail = (await api.send(Role.ANALYST, "GET", f"/v1/cases/{large['case_id']}")).json()
    assert detail["case"] == large
    assert [alert["event_id"] for alert in detail["alerts"]] == ["a-large-message", "a-large-transaction"]
    chat, payment = detail["alerts"]
    assert "安全账户" in chat["line"]
    assert payment["line"].startswith("[pay out CNY 90,000")
    assert payment["amount_base"] == 90_000
    assert "SAFE_ACCOUNT_TALK_AND_NEW_PAYEE" in payment["reasons"]


@pytest.mark.parametrize(("disposition", "verdict"), [("confirmed_fraud", "fraud"), ("false_positive", "legitimate")])
async def test_a_disposition_closes_the_case_and_labels_its_events_through_kafka(
    api: Api, disposition: str, verdict: str
) -> None:
    """One label an alert arrives at the workers, once; the outbox is empty then; a second verdict is a conflict."""
    case = await opened(api, "a-1")
    response = await dispose(api, case["case_id"], disposition)
    assert response.status_code == 200
    closed = response.json()
    assert (closed["state"], closed["disposition"]) == ("closed", disposition)
    assert closed["reason"] == "called the customer"
    assert closed["closed_by"].startswith("test analyst (")

    async def labelled() -> bool:
        return len(await labels_of(api, "a-1")) == 2 and not await api.repository.outbox.pending(10)

    await until(labelled, "two labels are stored and published")
    labels = await labels_of(api, "a-1")
    assert {(label.source, label.verdict, label.account_id) for label in labels} == {("analyst", verdict, "a-1")}
    again = await dispose(api, case["case_id"], "suspicious")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


async def test_a_suspicious_case_is_closed_without_labels(api: Api) -> None:
    """Only certainty trains the model."""
    case = await opened(api, "a-1")
    assert (await dispose(api, case["case_id"], "suspicious")).status_code == 200
    assert await api.repository.outbox.pending(10) == []
    assert await labels_of(api, "a-1") == []


async def test_of_two_verdicts_at_once_one_stands(api: Api) -> None:
    """The other analyst is told."""
    case = await opened(api, "a-1")
    both = await asyncio.gather(
        dispose(api, case["case_id"], "suspicious"), dispose(api, case["case_id"], "false_positive", Role.ADMIN)
    )
    assert sorted(response.status_code for response in both) == [200, 409]


async def test_a_bad_verdict_changes_nothing(api: Api) -> None:
    """Unknown words, an empty reason, unknown fields, an unknown case: each named, the case still open."""
    case = await opened(api, "a-1")
    path = f"/v1/cases/{case['case_id']}/dispose"
    bad = [
        ({"disposition": "fraud", "reason": "x"}, "disposition"),
        ({"disposition": "suspicious", "reason": ""}, "reason"),
        ({"disposition": "suspicious", "reason": "   "}, "reason"),
        ({"disposition": "suspicious"}, "reason"),
        ({"disposition": "suspicious", "reason": "x", "by": "me"}, "by"),
        ({"disposition": "suspicious", "reason": "x", "4111111111111111": "me"}, "<CARD>"),
    ]
    for body, wrong in bad:
        response = await api.send(Role.ANALYST, "POST", path, json=body)
        assert (response.status_code, response.json()["path"]) == (422, wrong)
    key = {"X-API-Key": api.keys[Role.ANALYST]}
    for content, kind in ((b"{", "application/json"), (b'{"reason": "x"}', "text/plain")):
        broken = await api.http.post(path, content=content, headers=key | {"Content-Type": kind})
        assert (broken.status_code, broken.json()["code"]) == (422, "bad_json")
        assert "application/json" in broken.json()["hint"]
    assert (await dispose(api, "none", "suspicious")).status_code == 404
    assert (await api.send(Role.ANALYST, "GET", "/v1/cases/none")).status_code == 404
    assert (await api.send(Role.ANALYST, "GET", f"/v1/cases/{case['case_id']}")).json()["case"]["state"] == "open"

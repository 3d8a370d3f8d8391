"""Cases: the queue, one with its alerts' lines, and a disposition whose labels reach the workers through Kafka."""

import asyncio
from typing import Any

import pytest
from api_support import Api, until

from fraudguard.api import examples
from fraudguard.decisions.casebook import UNDO
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


async def dispose(api: Api, case: dict[str, Any], disposition: str, role: Role = Role.ANALYST) -> Any:
    """The answer to a verdict on the case as it was seen."""
    body = {"disposition": disposition, "reason": "  called the customer  "}
    return await act(api, role, case, "dispose", json=body)


async def act(api: Api, role: Role, case: dict[str, Any], deed: str, **options: Any) -> Any:
    """The answer to a deed on the case as it was seen."""
    headers = {"If-Match": f'"{case["version"]}"'} | options.pop("headers", {})
    return await api.send(role, "POST", f"/v1/cases/{case['case_id']}/{deed}", headers=headers, **options)


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
    response = await dispose(api, case, disposition)
    assert response.status_code == 200
    closed = response.json()
    assert (closed["state"], closed["disposition"]) == ("closed", disposition)
    assert closed["reason"] == "called the customer"
    assert closed["closed_by"].startswith("test analyst (")

    assert response.headers["ETag"] == f'"{closed["version"]}"'
    assert await labels_of(api, "a-1") == []
    api.clock.by = UNDO

    async def labelled() -> bool:
        return len(await labels_of(api, "a-1")) == 2 and not await api.repository.outbox.waiting(10)

    await until(labelled, "two labels are stored and published")
    labels = await labels_of(api, "a-1")
    assert {(label.source, label.verdict, label.account_id) for label in labels} == {("analyst", verdict, "a-1")}
    again = await dispose(api, closed, "suspicious")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    detail = (await api.send(Role.ANALYST, "GET", f"/v1/cases/{case['case_id']}")).json()
    assert [alert["labels"][0]["verdict"] for alert in detail["alerts"]] == [verdict, verdict]


async def test_a_suspicious_case_is_closed_without_labels(api: Api) -> None:
    """Only certainty trains the model."""
    case = await opened(api, "a-1")
    assert (await dispose(api, case, "suspicious")).status_code == 200
    assert await api.repository.outbox.waiting(10) == []
    assert await labels_of(api, "a-1") == []


async def test_of_two_verdicts_at_once_one_stands(api: Api) -> None:
    """The other analyst is told."""
    case = await opened(api, "a-1")
    both = await asyncio.gather(dispose(api, case, "suspicious"), dispose(api, case, "false_positive", Role.ADMIN))
    assert sorted(response.status_code for response in both) == [200, 412]


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
        response = await act(api, Role.ANALYST, case, "dispose", json=body)
        assert (response.status_code, response.json()["path"]) == (422, wrong)
    key = {"X-API-Key": api.keys[Role.ANALYST], "If-Match": '"2"'}
    for content, kind in ((b"{", "application/json"), (b'{"reason": "x"}', "text/plain")):
        broken = await api.http.post(path, content=content, headers=key | {"Content-Type": kind})
        assert (broken.status_code, broken.json()["code"]) == (422, "bad_json")
        assert "application/json" in broken.json()["hint"]
    assert (await dispose(api, case | {"case_id": "none"}, "suspicious")).status_code == 404
    assert (await api.send(Role.ANALYST, "GET", "/v1/cases/none")).status_code == 404
    assert (await api.send(Role.ANALYST, "GET", f"/v1/cases/{case['case_id']}")).json()["case"]["state"] == "open"


async def test_a_deed_names_the_version_that_was_seen(api: Api) -> None:
    """Without it 428, with an old one 412 that says who came first, and the case as it is then; with rubbish 422."""
    case = await opened(api, "a-1")
    path = f"/v1/cases/{case['case_id']}/claim"
    without = await api.send(Role.ANALYST, "POST", path)
    assert (without.status_code, without.json()["code"]) == (428, "version_needed")
    for rubbish in ("2", "*", '"0"', '"x"', '"2", "3"', '"9999999999999999999"'):
        bad = await api.send(Role.ANALYST, "POST", path, headers={"If-Match": rubbish})
        assert (bad.status_code, bad.json()["path"]) == (422, "If-Match")
    mine = await act(api, Role.ANALYST, case, "claim")
    assert (mine.status_code, mine.headers["ETag"]) == (200, '"3"')
    late = await act(api, Role.ADMIN, case, "claim")
    assert (late.status_code, late.json()["code"]) == (412, "overtaken")
    assert "test analyst (" in late.json()["detail"]
    weak = await api.send(Role.ANALYST, "POST", path, headers={"If-Match": 'W/"3"'})
    assert (weak.status_code, weak.json()["version"]) == (200, 4)
    seen = await api.send(Role.ANALYST, "GET", f"/v1/cases/{case['case_id']}")
    assert seen.headers["ETag"] == '"4"'


async def test_a_claimed_case_is_mine_and_nobody_else_s(api: Api) -> None:
    """It is listed as mine, told to others as 409, released by its claimer, or by a lead."""
    case = await opened(api, "a-1")
    claimed = (await act(api, Role.ANALYST, case, "claim")).json()
    assert (claimed["state"], claimed["claimed_by"]) == ("investigating", claimed["changed_by"])
    for role, count in ((Role.ANALYST, 1), (Role.ADMIN, 0)):
        items = (await api.send(role, "GET", "/v1/cases", params={"mine": True})).json()["items"]
        assert len(items) == count
    refused = await act(api, Role.ADMIN, claimed, "escalate", json={"reason": "look"})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    released = await act(api, Role.ADMIN, claimed, "release")
    assert (released.status_code, released.json()["claimed_by"]) == (200, None)


async def test_a_slip_can_be_taken_back(api: Api) -> None:
    """Closed, reopened at once, closed rightly: one label, of the second verdict; the trail has all three."""
    case = await opened(api, "a-1")
    closed = (await dispose(api, case, "confirmed_fraud")).json()
    back = await act(api, Role.ANALYST, closed, "reopen")
    assert (back.status_code, back.json()["state"]) == (200, "open")
    right = (await dispose(api, back.json(), "false_positive")).json()
    api.clock.by = UNDO
    assert (await act(api, Role.ANALYST, right, "reopen")).status_code == 409

    async def labelled() -> bool:
        return len(await labels_of(api, "a-1")) == 2

    await until(labelled, "the labels arrive")
    assert {label.verdict for label in await labels_of(api, "a-1")} == {"legitimate"}
    history = (await api.send(Role.ANALYST, "GET", f"/v1/cases/{case['case_id']}/history")).json()["items"]
    assert [deed["action"] for deed in history] == ["case.dispose", "case.reopen", "case.dispose"]


async def test_a_chargeback_shows_on_the_case(api: Api) -> None:
    """What a chargeback says of an alert's event stands beside it, before anybody judged the case."""
    case = await opened(api, "a-1")
    label = examples.LABEL | {"event_id": "l-1", "target_event_id": "a-1-transaction"}
    assert (await api.send(Role.SERVICE, "POST", "/v1/events", json=label)).status_code == 202

    async def known() -> bool:
        return len(await labels_of(api, "a-1")) == 1

    await until(known, "the label is stored")
    alerts = (await api.send(Role.ANALYST, "GET", f"/v1/cases/{case['case_id']}")).json()["alerts"]
    assert [len(alert["labels"]) for alert in alerts] == [0, 1]
    assert alerts[1]["labels"][0]["source"] == "chargeback"


async def test_a_file_is_handed_out_as_it_came_and_never_shown(api: Api) -> None:
    """As a download under its own name; one that is not what it says, too large or of a wrong type is refused."""
    case = await opened(api, "a-1")
    png, kind = b"\x89PNG\r\n\x1a\n<script>", {"Content-Type": "image/png"}
    params = {"name": "证据 1.png"}
    sent = await act(api, Role.ANALYST, case, "files", content=png, headers=kind, params=params)
    assert sent.status_code == 201
    case = case | {"version": case["version"] + 1}
    path = f"/v1/cases/{case['case_id']}/files/{sent.json()['sha256']}"
    got = await api.send(Role.ANALYST, "GET", path)
    assert got.content == png
    assert got.headers["Content-Type"] == "application/octet-stream"
    assert got.headers["Content-Disposition"] == "attachment; filename*=UTF-8''%E8%AF%81%E6%8D%AE%201.png"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    for content, kind_sent, status in (
        (b"<script>", "image/png", 422),
        (b"<p>", "text/html", 422),
        (b"x" * (4 * 1024 * 1024 + 1), "text/plain", 413),
    ):
        headers = {"Content-Type": kind_sent}
        bad = await act(api, Role.ANALYST, case, "files", content=content, headers=headers, params=params)
        assert bad.status_code == status
    assert (await api.send(Role.ANALYST, "GET", path[:-1] + "g")).status_code == 422
    assert (await api.send(Role.ANALYST, "GET", f"{path[:-64]}{'0' * 64}")).status_code == 404


async def test_many_cases_at_once(api: Api) -> None:
    """One line a case: done, overtaken, unknown; named twice is refused whole."""
    one, two = await opened(api, "a-1"), await opened(api, "a-2")
    await act(api, Role.ANALYST, two, "claim")
    cases = [{"case_id": case["case_id"], "version": 2} for case in (one, two, {"case_id": "none"})]
    body = {"action": "snooze", "until": "2126-11-21T00:00:00Z", "cases": cases[:1]}
    far = (await api.send(Role.ADMIN, "POST", "/v1/cases/bulk", json=body)).json()
    assert far["items"][0]["code"] == "bad_field"
    body = {"action": "dispose", "disposition": "false_positive", "reason": "a test transfer", "cases": cases}
    done = (await api.send(Role.ADMIN, "POST", "/v1/cases/bulk", json=body)).json()
    assert done["done"] == 1
    assert [line["code"] for line in done["items"]] == [None, "overtaken", "not_found"]
    twice = await api.send(Role.ADMIN, "POST", "/v1/cases/bulk", json=body | {"cases": [cases[0], cases[0]]})
    assert (twice.status_code, twice.json()["path"]) == (422, "cases")


async def test_a_chargeback_of_what_never_alerted_shows_on_the_accounts_cases(api: Api) -> None:
    """A payment that went through is on the case once somebody calls it fraud; a harmless word changes nothing."""
    quiet = examples.TRANSACTION | {
        "event_id": "quiet",
        "account_id": "a-1",
        "amount": "12.00",
        "counterparty_id": "shop",
    }
    decided = await api.send(Role.SERVICE, "POST", "/v1/screen", json=quiet)
    assert decided.json()["outcome"] == "approve"
    case = await opened(api, "a-1")
    path = f"/v1/cases/{case['case_id']}"
    for number, verdict in enumerate(("legitimate", "fraud")):
        assert (await api.send(Role.ANALYST, "GET", path)).json()["missed"] == []
        said = {"event_id": f"l-{number}", "target_event_id": "quiet", "verdict": verdict, "source": "chargeback"}
        label = {**examples.LABEL, **said, "account_id": "a-1"}
        assert (await api.send(Role.SERVICE, "POST", "/v1/events", json=label)).status_code == 202
        await until(lambda n=number: _labelled(api, n + 1), "the label is stored")  # type: ignore[misc]  # bound now
    (missed,) = (await api.send(Role.ANALYST, "GET", path)).json()["missed"]
    assert (missed["event_id"], missed["decision_id"]) == ("quiet", decided.json()["decision_id"])
    assert (missed["outcome"], [label["verdict"] for label in missed["labels"]]) == ("approve", ["legitimate", "fraud"])
    assert missed["line"].startswith("[pay out CNY 12")
    page = await api.send(Role.ANALYST, "GET", f"/console/cases/{case['case_id']}")
    assert f"/console/decisions/{missed['decision_id']}" in page.text.split("Called fraud since")[1]


async def _labelled(api: Api, count: int) -> bool:
    return len((await api.repository.labels(["quiet"])).get("quiet", [])) == count


async def test_a_merge_can_be_undone_until_its_case_is_judged(api: Api) -> None:
    """Both are again what they were; a lead's deed; not after a verdict, nor beside a newer case of that account."""
    first, second = await opened(api, "a-1"), await opened(api, "a-2", "90000.00")
    merge = {"case_id": second["case_id"], "version": second["version"], "reason": "one ring"}
    undo = {"case_id": second["case_id"], "reason": "another payee"}
    merged = await act(api, Role.LEAD, first, "merge", json=merge)
    assert merged.json()["alerts"] == first["alerts"] + second["alerts"]
    assert (await act(api, Role.ANALYST, merged.json(), "unmerge", json=undo)).status_code == 403
    undone = await act(api, Role.LEAD, merged.json(), "unmerge", json=undo)
    own = ("alerts", "expected_loss", "money_held", "top_risk", "typology", "top_line", "outcome", "state", "due_at")
    found = (await api.send(Role.LEAD, "GET", f"/v1/cases/{second['case_id']}")).json()
    assert {name: undone.json()[name] for name in own} == {name: first[name] for name in own}
    assert {name: found["case"][name] for name in own} == {name: second[name] for name in own}
    assert len(found["alerts"]) == second["alerts"]
    again = await act(api, Role.LEAD, undone.json(), "unmerge", json=undo)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    history = (await api.send(Role.LEAD, "GET", f"/v1/cases/{first['case_id']}/history")).json()["items"]
    assert [deed["action"] for deed in history] == ["case.merge", "case.unmerge"]

    merge["version"] = found["case"]["version"]
    merged = await act(api, Role.LEAD, undone.json(), "merge", json=merge)
    newer = examples.TRANSACTION | {"event_id": "newer", "account_id": "a-2", "amount": "90000.00"}
    assert (await api.send(Role.SERVICE, "POST", "/v1/screen", json=newer)).status_code == 200
    refused = await act(api, Role.LEAD, merged.json(), "unmerge", json=undo)
    assert (refused.status_code, "has opened case" in refused.json()["detail"]) == (409, True)

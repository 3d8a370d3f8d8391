"""Decisions out of the store: one, filtered pages, and the unmasked text."""

from typing import Any

from api_support import Api, serving
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import select

from fraudguard.api import examples
from fraudguard.config import Settings
from fraudguard.decisions.connection import open_engine, transaction
from fraudguard.decisions.tables import AUDIT
from fraudguard.domain import Role

CARD = "4111111111111111"


async def screened(api: Api, **changes: Any) -> dict[str, Any]:
    """The decision of a payment like the example's."""
    response = await api.send(Role.SERVICE, "POST", "/v1/screen", json=examples.TRANSACTION | changes)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_lists_are_filtered_and_paged(api: Api) -> None:
    """Pages of two follow each other without gap or repeat; each filter keeps what it says."""
    sent = [
        await screened(
            api,
            event_id=f"p-{number}",
            account_id="a-many" if number % 2 else "a-other",
            amount="60000.00" if number == 3 else "12.00",
            event_time=f"2026-11-2{number // 4}T10:0{number}:00.000Z",
        )
        for number in range(7)
    ]

    async def ids(**query: Any) -> list[str]:
        response = await api.send(Role.ANALYST, "GET", "/v1/decisions", params=query)
        assert response.status_code == 200, response.text
        return [item["event_id"] for item in response.json()["items"]]

    everything = await ids()
    assert everything == [f"p-{number}" for number in (6, 5, 4, 3, 2, 1, 0)]
    paged: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    for _ in range(4):
        page = (await api.send(Role.ANALYST, "GET", "/v1/decisions", params=query)).json()
        paged += [item["event_id"] for item in page["items"]]
        query["cursor"] = page["next"]
    assert (paged, page["next"]) == (everything, None)
    assert await ids(account_id="a-many") == ["p-5", "p-3", "p-1"]
    assert await ids(**{"from": "2026-11-21T00:00:00Z"}) == ["p-6", "p-5", "p-4"]
    assert await ids(to="2026-11-20T10:02:00+00:00") == ["p-1", "p-0"]
    strict = next(d for d in sent if d["event_id"] == "p-3")
    assert strict["outcome"] != "approve"
    assert "p-3" in await ids(outcome=strict["outcome"])
    assert "p-0" not in await ids(outcome=strict["outcome"])
    assert await ids(reason=strict["reasons"][0], account_id="a-many") == ["p-3"]
    assert await ids(event_type="message") == []
    assert await ids(min_risk=0.5) == await ids(typology="scam") == []  # the model is off


async def test_bad_filters_say_which(api: Api) -> None:
    """A problem names the parameter."""
    for name, value in {
        "outcome": "deny",
        "limit": 0,
        "from": "yesterday",
        "cursor": "x",
        "min_risk": 2,
        "acount_id": 1,
    }.items():
        response = await api.send(Role.ANALYST, "GET", "/v1/decisions", params={name: value})
        assert (response.status_code, response.json()["path"]) == (422, name)


async def test_a_decision_is_found_by_its_id_and_by_its_event(api: Api) -> None:
    """Both are what was answered; unknown ids are 404."""
    decision = await screened(api)
    assert (await api.send(Role.SERVICE, "GET", f"/v1/decisions/{decision['decision_id']}")).json() == decision
    assert (await api.send(Role.SERVICE, "GET", "/v1/events/t-1/decision")).json() == decision
    missing = await api.send(Role.SERVICE, "GET", "/v1/decisions/none")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


async def test_unmasked_text_is_for_those_who_work_cases_and_leaves_a_trace(api: Api) -> None:
    """The list and the text route differ: masked for all, as written for the roles whose reason is on record."""
    decision = await screened(api, memo=f"卡号 {CARD}")
    path = f"/v1/decisions/{decision['decision_id']}/text"
    roles = (Role.ANALYST, Role.LEAD, Role.ADMIN)
    for role in roles:
        response = await api.send(role, "GET", path, params={"reason": f"complaint of {role}"})
        assert response.json() == {"decision_id": decision["decision_id"], "text": f"卡号 {CARD}"}
    for role in (Role.VIEWER, Role.RULE_EDITOR, Role.SERVICE):
        assert (await api.send(role, "GET", path, params={"reason": "curious"})).status_code == 403
    assert (await api.send(Role.ADMIN, "GET", path)).status_code == 422
    engine = open_engine(api.settings.database_url.get_secret_value())
    async with transaction(engine) as connection:
        rows = (await connection.execute(select(AUDIT).where(AUDIT.c.action == "text.read").order_by(AUDIT.c.id))).all()
    await engine.dispose()
    told = [(decision["decision_id"], {"reason": f"complaint of {role}"}) for role in roles]
    assert [(row.subject, row.detail) for row in rows] == told
    assert [row.actor.split(" (")[0] for row in rows] == [f"test {role}" for role in roles]
    record = await api.repository.record(decision["decision_id"])
    assert CARD not in record.line


async def test_where_unmasked_text_is_not_kept_there_is_none_to_read(api: Api) -> None:
    """404 with the setting that decides it, before anything is looked up."""
    decision = await screened(api)
    async with serving(api.settings.model_copy(update={"raw_text_key": None})) as other:
        path = f"/v1/decisions/{decision['decision_id']}/text"
        response = await other.send(Role.ADMIN, "GET", path, params={"reason": "complaint"})
    assert (response.status_code, response.json()["code"]) == (404, "text_not_kept")


async def test_text_sealed_with_another_key_is_not_shown(api: Api, settings: Settings) -> None:
    """A changed key is the operator's to mend: 503, and no word of the text."""
    decision = await screened(api, memo="房租")
    other_key = SecretStr(Fernet.generate_key().decode())
    async with serving(settings.model_copy(update={"raw_text_key": other_key})) as other:
        path = f"/v1/decisions/{decision['decision_id']}/text"
        response = await other.send(Role.ADMIN, "GET", path, params={"reason": "complaint"})
    assert (response.status_code, response.json()["code"]) == (503, "not_set_up")
    assert "房租" not in response.text

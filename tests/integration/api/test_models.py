"""Models over HTTP and on the page, on the real PostgreSQL: the gate's words, the way back, who may."""

import pytest
from api_support import CLOCK, Api
from sealed import metrics_of

from fraudguard.api import examples
from fraudguard.decisions.models import Model
from fraudguard.domain import Role


async def registered(api: Api, version: str, **measures: float) -> Model:
    """A challenger with these measures on the fixed set; its folder is nowhere, which is the workers' to find."""
    named = {"recall_at_1%_fpr" if name == "recall" else name: value for name, value in measures.items()}
    model = Model(version.replace(".", "") * 16 + "0" * (64 - 16 * 2), "fraud", version, "", "words-1", "/nowhere")
    book, now = api.repository.models, CLOCK.now()
    await book.add(model, metrics_of(version, named), "cli:ana", now)
    head = await book.head()
    await book.take("shadow", model, "cli:ana", "", now, expected=head.step if head else 0)
    return model


async def champion(api: Api, model: Model) -> None:
    """Promoted where its folder is, as the first one must be."""
    head = await api.repository.models.head()
    assert head
    await api.repository.models.take("promote", model, "cli:ana", "", CLOCK.now(), expected=head.step)


async def test_the_gate_says_what_is_worse_and_lets_the_better_one_pass(api: Api) -> None:
    """Refused with both values; promoted; rolled back to the one before, and then to what the settings name."""
    first = await registered(api, "1.0", average_precision=0.6)
    refused = await api.send(Role.ADMIN, "POST", "/v1/models/promote", json={"model": first.id})
    assert refused.status_code == 409
    assert "no champion is registered" in refused.json()["detail"]
    await champion(api, first)
    worse = await registered(api, "2.0", average_precision=0.5)
    refused = await api.send(Role.ADMIN, "POST", "/v1/models/promote", json={"model": worse.id})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "average precision: 0.5000, the champion's is 0.6000" in refused.json()["detail"]
    better = await registered(api, "3.0", average_precision=0.7)
    done = await api.send(Role.ADMIN, "POST", "/v1/models/promote", json={"model": better.id, "note": "better"})
    assert done.json() == {"champion": "fraud@3.0", "restart": False}
    for expected in ("fraud@1.0", None):
        done = await api.send(Role.ADMIN, "POST", "/v1/models/rollback", json={"note": "alerts"})
        assert done.json()["champion"] == expected
    last = await api.send(Role.ADMIN, "POST", "/v1/models/rollback", json={})
    assert (last.status_code, last.json()["detail"]) == (409, "no other model was champion before")
    assert (await api.send(Role.ADMIN, "POST", "/v1/models/promote", json={"model": "fraud@9"})).status_code == 404


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR])
async def test_only_an_administrator_changes_the_champion(api: Api, role: Role) -> None:
    """Everybody who may read the console reads the page."""
    await registered(api, "1.0")
    for path in ("/v1/models/promote", "/v1/models/rollback", "/console/model/promote", "/console/model/rollback"):
        answer = await api.send(role, "POST", path, json={"model": "fraud@1.0"})
        assert answer.status_code == 403, path
    assert (await api.send(role, "GET", "/console/model")).status_code == 200


async def test_judged_alerts_become_precision(api: Api) -> None:
    """One case found to be fraud, one harmless: their week, typology and the page say so."""
    for number, account in enumerate(("a-1", "a-9")):
        for event in (examples.MESSAGE, examples.TRANSACTION):
            told = event | {"event_id": f"{event['event_id']}-{number}", "account_id": account}
            assert (await api.send(Role.SERVICE, "POST", "/v1/screen", json=told)).status_code == 200
    cases = (await api.send(Role.ANALYST, "GET", "/v1/cases")).json()["items"]
    assert len(cases) == 2
    for case, found in zip(cases, ("confirmed_fraud", "false_positive"), strict=True):
        path, seen = f"/v1/cases/{case['case_id']}/dispose", await api.seen(case["case_id"])
        body = {"disposition": found, "reason": "x"}
        assert (await api.send(Role.ANALYST, "POST", path, json=body, headers=seen)).status_code == 200
    quality = (await api.send(Role.VIEWER, "GET", "/v1/models/quality")).json()
    (week,) = quality["weeks"]
    assert week["precision"]["part"] * 2 == week["precision"]["whole"] == week["alerts"]
    assert (week["sampled"], week["degraded"]["part"], week["mean_risk"]) == (4, 4, {})  # this decider has no model
    (typology,) = quality["typologies"]
    assert (typology["typology"], typology["precision"]["whole"]) == (None, week["alerts"])
    page = (await api.send(Role.VIEWER, "GET", "/console/model")).text
    assert week["week"] in page
    assert "50 %" in page
    assert 'id="verdict-promote"' not in page

"""What analysts and leads do from the console: in whose role, with the session's token, at which version."""

from typing import Any

import httpx
import pytest
from api_support import CLOCK, Api
from httpx import codes

from fraudguard.accounts import new_password
from fraudguard.api import examples
from fraudguard.api.auth import COOKIE
from fraudguard.config import Settings
from fraudguard.decisions.casebook import UNDO, Case
from fraudguard.domain import Role

PASSWORD, HASH = new_password()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Every disposed case is reviewed."""
    return settings.model_copy(update={"review_percent": 100.0})


class Person:
    """Somebody signed in, who sends what the console's pages send."""

    def __init__(self, api: Api, cookie: str, token: str) -> None:
        self._api, self._cookie, self._token = api, cookie, token

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """A fragment, as htmx asks for it."""
        headers = {"Cookie": self._cookie, "HX-Request": "true", "Accept-Language": "en"}
        return await self._api.http.get(f"/console{path}", headers=headers, **options)

    async def post(self, path: str, *, token: bool = True, **options: Any) -> httpx.Response:
        """A form. token: with the session's."""
        headers = {"Cookie": self._cookie, "HX-Request": "true", "Accept-Language": "en"}
        headers |= {"X-CSRF-Token": self._token} if token else {}
        return await self._api.http.post(f"/console{path}", headers=headers | options.pop("headers", {}), **options)


async def person(api: Api, name: str, role: Role) -> Person:
    """A new account, signed in."""
    await api.repository.people.create(name, role, HASH, "test", CLOCK.now())
    begun = await api.http.post("/v1/session", json={"name": name, "password": PASSWORD})
    assert begun.status_code == codes.CREATED
    return Person(api, f"{COOKIE}={begun.cookies[COOKIE]}", begun.json()["csrf_token"])


async def opened(api: Api, account: str, **changes: Any) -> Case:
    """The case that a suspicious chat and payment of this account opened."""
    for event in (examples.MESSAGE, examples.TRANSACTION | changes):
        event = event | {"event_id": f"{account}-{event['type']}", "account_id": account}
        answer = await api.send(Role.SERVICE, "POST", "/v1/screen?deadline_ms=60000", json=event)
        assert answer.status_code == codes.OK, answer.text
    found = (await api.send(Role.ANALYST, "GET", "/v1/cases", params={"account_id": account})).json()["items"]
    return await case_of(api, found[0]["case_id"])


async def case_of(api: Api, case_id: str) -> Case:
    """As stored."""
    return (await api.repository.cases.get_case(case_id))[0]


async def test_a_lead_acts_on_many_and_is_told_which_were_overtaken(api: Api) -> None:
    """Each by its own version; an analyst and a request without the token change nothing."""
    cases = [await opened(api, f"a-{n}") for n in range(3)]
    lead, lin = await person(api, "zhao", Role.LEAD), await person(api, "lin", Role.ANALYST)
    sent = {"action": "assign", "assignee": "lin", "case": [f"{one.case_id}:{one.version}" for one in cases]}
    assert (await lin.post("/queue/bulk", data=sent)).status_code == codes.FORBIDDEN
    assert (await lead.post("/queue/bulk", data=sent, token=False)).status_code == codes.FORBIDDEN
    for wrong in ({"assignee": "guo"}, {"action": "merge"}, {"case": ["x"]}, {"case": []}):
        assert (await lead.post("/queue/bulk", data=sent | wrong)).status_code == codes.UNPROCESSABLE_ENTITY, wrong
    await api.repository.cases.note(cases[1].case_id, cases[1].version, "called", "lin", CLOCK.now())
    done = await lead.post("/queue/bulk", data=sent)
    assert done.headers["hx-trigger"] == "caseChanged"
    assert "2 assigned." in done.text
    assert "1 was not" in done.text
    assert f"/console/cases/{cases[1].case_id}" in done.text
    assert "lin changed it" in done.text
    assert [(await case_of(api, one.case_id)).assigned_to for one in cases] == ["lin", None, "lin"]
    now = [await case_of(api, one.case_id) for one in cases]
    closing = {"action": "dispose", "reason": "mule_behaviour", "case": [f"{c.case_id}:{c.version}" for c in now[:2]]}
    assert "2 closed." in (await lead.post("/queue/bulk", data=closing)).text
    assert (await case_of(api, cases[0].case_id)).reason == "mule_behaviour"


async def test_people_are_found_by_typing_and_say_what_they_have(api: Api) -> None:
    """Who works cases and is not disabled, by a part of the name; leads ask, analysts do not."""
    lead, lin = await person(api, "zhao", Role.LEAD), await person(api, "lin", Role.ANALYST)
    await person(api, "guo", Role.VIEWER)
    await person(api, "ling", Role.ANALYST)
    await api.repository.people.disable("ling", "test", CLOCK.now())
    case = await opened(api, "a-1")
    await api.repository.cases.claim(case.case_id, case.version, "lin", CLOCK.now())
    found = await lead.get("/people", params={"q": "li"})
    assert 'value="lin"' in found.text
    assert "1 case" in found.text
    assert "ling" not in found.text
    assert 'value="guo"' not in (await lead.get("/people")).text
    assert (await lin.get("/people")).status_code == codes.FORBIDDEN


async def test_the_queue_is_filtered_and_ordered(api: Api) -> None:
    """By account, typology, least amount and who has it; by loss, due time and newest, page after page."""
    small, large = await opened(api, "a-small", amount="20000.00"), await opened(api, "a-large", amount="90000.00")
    lin = await person(api, "lin", Role.ANALYST)
    await api.repository.cases.claim(small.case_id, small.version, "lin", CLOCK.now())

    async def rows(**query: str) -> list[str]:
        page = (await lin.get("/queue", params=query)).text
        return [name for name in ("a-small", "a-large") if f'data-account="{name}"' in page]

    assert await rows() == ["a-small", "a-large"]
    assert await rows(least="50,000") == ["a-large"]
    assert await rows(who="lin") == ["a-small"]
    assert await rows(who="-") == ["a-large"]
    assert await rows(account="a-small") == ["a-small"]
    assert await rows(typology="mule") == []
    bad = await lin.get("/queue", params={"least": "much"})
    assert "must be a number" in bad.text
    for order, first in (("loss", large), ("newest", large), ("due", small), ("priority", large)):
        query: dict[str, Any] = {"state": "unclosed", "order": order, "limit": 1}
        page = (await api.send(Role.VIEWER, "GET", "/v1/cases", params=query)).json()
        rest = (await api.send(Role.VIEWER, "GET", "/v1/cases", params=query | {"cursor": page["next"]})).json()
        ids = [case["case_id"] for case in (*page["items"], *rest["items"])]
        assert ids == [first.case_id, (small if first is large else large).case_id], order
        assert rest["next"] is None
    held = await api.send(Role.VIEWER, "GET", "/v1/cases", params={"held_by": "lin"})
    assert [case["account_id"] for case in held.json()["items"]] == ["a-small"]


async def test_a_step_up_is_asked_for_and_the_payment_system_is_told(api: Api) -> None:
    """The case says when; webhooks of that kind hear of it, each time; a viewer asks for nothing."""
    hook = {"url": "http://127.0.0.1:9/told", "kinds": ["case.step_up"]}
    assert (await api.send(Role.ADMIN, "PUT", "/v1/webhooks/payments", json=hook)).status_code == codes.OK
    case = await opened(api, "a-1")
    lin, guo = await person(api, "lin", Role.ANALYST), await person(api, "guo", Role.VIEWER)
    sent = {"seen": str(case.version), "body": "is this payee known?"}
    assert (await guo.post(f"/cases/{case.case_id}/step-up", data=sent)).status_code == codes.FORBIDDEN
    assert (await lin.post(f"/cases/{case.case_id}/step-up", data=sent)).status_code == codes.NO_CONTENT
    overtaken = await lin.post(f"/cases/{case.case_id}/step-up", data=sent)
    assert (overtaken.status_code, "lin changed it" in overtaken.text) == (codes.PRECONDITION_FAILED, True)
    assert (await case_of(api, case.case_id)).step_up_at is not None
    waiting = (await api.send(Role.ADMIN, "GET", "/v1/webhooks")).json()
    assert waiting[0]["waiting"] == 1
    trail = await lin.get(f"/cases/{case.case_id}/history")
    assert "asked for a step-up" in trail.text
    assert "is this payee known?" in trail.text


async def test_a_verdict_puts_the_other_side_on_a_list(api: Api) -> None:
    """What is ticked, with its end; where an entry is refused, the case stays open too."""
    case = await opened(api, "a-1")
    lin = await person(api, "lin", Role.ANALYST)
    page = (await lin.get(f"/cases/{case.case_id}")).text
    assert 'value="mule_accounts:c-9"' in page
    sent: dict[str, Any] = {"seen": str(case.version), "reason": "customer_deceived", "expiry": "30"}
    path = f"/cases/{case.case_id}/dispose"
    for wrong in (
        {"list": ["nothing:c-9"]},
        {"list": ["mule_accounts:c-9"], "expiry": "7"},
        {"list": ["mule_accounts:c-9", "mule_accounts:"]},
    ):
        assert (await lin.post(path, data=sent | wrong)).status_code == codes.UNPROCESSABLE_ENTITY
    assert (await case_of(api, case.case_id)).state == "open"
    done = await lin.post(path, data=sent | {"list": ["mule_accounts:c-9"]})
    assert done.headers["hx-redirect"].endswith(f"closed={case.case_id}")
    (entry,) = await api.repository.lists.containing("c-9")
    assert (entry.list, entry.owner, entry.source) == ("mule_accounts", "lin", "console")
    assert entry.expires_at is not None
    assert (entry.expires_at - entry.added_at).days == 30


async def test_one_alert_is_judged_apart_and_a_second_person_reviews(api: Api) -> None:
    """The alert keeps its own verdict; the lead's other one holds; whoever closed it and analysts do not review."""
    case = await opened(api, "a-1")
    lin, lead = await person(api, "lin", Role.ANALYST), await person(api, "zhao", Role.LEAD)
    _, alerts = await api.repository.cases.get_case(case.case_id)
    path = f"/cases/{case.case_id}"
    apart = {"seen": str(case.version), "reason": "known_payee", "decision": alerts[0].decision_id}
    assert (await lin.post(f"{path}/dispose", data=apart)).status_code == codes.NO_CONTENT
    case, alerts = await api.repository.cases.get_case(case.case_id)
    assert (case.state, [alert.disposition for alert in alerts]) == ("open", ["false_positive", None])
    assert "judged: false positive" in (await lin.get(path)).text
    assert (await lin.post(f"{path}/dispose", data={"seen": str(case.version), "reason": "customer_denies"})).is_success
    case = await case_of(api, case.case_id)
    assert case.review == "waiting"
    assert "To review" not in (await lin.get("/queue")).text
    assert 'data-account="a-1"' in (await lead.get("/queue", params={"inbox": "review"})).text
    api.clock.by = UNDO
    sent = {"seen": str(case.version), "reason": "usual_behaviour"}
    assert (await lin.post(f"{path}/review", data=sent)).status_code == codes.FORBIDDEN
    assert "disagrees: false positive" in (await lead.get(path)).text
    assert (await lead.post(f"{path}/review", data=sent)).status_code == codes.NO_CONTENT
    case = await case_of(api, case.case_id)
    assert (case.review, case.disposition, case.reviewed_by) == ("disagreed", "false_positive", "zhao")
    assert "second review by zhao" in (await lin.get(path)).text


async def test_cases_that_share_something_are_drawn_linked_and_merged(api: Api) -> None:
    """The picture leads to the other account; who may only link cannot merge; the other's version must be its own."""
    first, second = await opened(api, "a-1"), await opened(api, "a-2")
    lin, lead = await person(api, "lin", Role.ANALYST), await person(api, "zhao", Role.LEAD)
    path = f"/cases/{first.case_id}"
    page = (await lin.get(path)).text
    assert f'<a href="/console/cases/{second.case_id}"' in page
    assert "counterparty_id+%3D%3D+%22c-9%22" in page
    found = (await lin.get(f"{path}/others")).text
    assert f'value="{second.case_id}" data-version="{second.version}" data-open' in found
    assert "shares c-9" in found
    assert "No case of nobody" in (await lin.get(f"{path}/others", params={"q": "nobody"})).text
    sent = {"seen": str(first.version), "other": second.case_id, "body": "the same payee"}
    merging = sent | {"other_seen": str(second.version)}
    assert (await lin.post(f"{path}/merge", data=merging)).status_code == codes.FORBIDDEN
    assert (await lin.post(f"{path}/link", data=sent)).status_code == codes.NO_CONTENT
    first, second = await case_of(api, first.case_id), await case_of(api, second.case_id)
    assert "the same payee" in (await lin.get(path)).text
    stale = merging | {"seen": str(first.version), "other_seen": "1"}
    assert (await lead.post(f"{path}/merge", data=stale)).status_code == codes.PRECONDITION_FAILED
    merging = sent | {"seen": str(first.version), "other_seen": str(second.version)}
    assert (await lead.post(f"{path}/merge", data=merging)).status_code == codes.NO_CONTENT
    assert (await case_of(api, second.case_id)).merged_into == first.case_id


async def test_a_file_is_attached_and_read(api: Api) -> None:
    """One that is what it says; another type, another content, one that is too large are refused; viewers send none."""
    case = await opened(api, "a-1")
    lin, guo = await person(api, "lin", Role.ANALYST), await person(api, "guo", Role.VIEWER)
    path = f"/cases/{case.case_id}/files?name=talk.txt&seen={case.version}"
    text = {"Content-Type": "text/plain"}
    assert (await guo.post(path, content=b"x", headers=text)).status_code == codes.FORBIDDEN
    assert (await lin.post(path, content=b"x", headers=text, token=False)).status_code == codes.FORBIDDEN
    for content, kind in ((b"x", "text/html"), (b"x", "image/png"), (b"", "text/plain")):
        bad = await lin.post(path, content=content, headers={"Content-Type": kind})
        assert bad.status_code == codes.UNPROCESSABLE_ENTITY
    large = await lin.post(path, content=b"x" * (4 * 1024 * 1024 + 1), headers=text)
    assert large.status_code == codes.REQUEST_ENTITY_TOO_LARGE
    assert (await lin.post(path, content=b"he said so", headers=text)).status_code == codes.NO_CONTENT
    assert "talk.txt" in (await guo.get(f"/cases/{case.case_id}")).text
    assert "attached talk.txt" in (await guo.get(f"/cases/{case.case_id}/history")).text


async def test_older_lines_come_when_they_are_asked_for(api: Api) -> None:
    """The sixty before, with a way to those before them; the first has none."""
    for n in range(16):
        quiet = examples.MESSAGE | {"event_id": f"q-{n}", "account_id": "a-1", "text": f"hello {n}"}
        quiet["event_time"] = f"2026-11-21T08:{n:02}:00.000Z"
        answer = await api.send(Role.SERVICE, "POST", "/v1/screen?deadline_ms=60000", json=quiet)
        assert answer.status_code == codes.OK
    case = await opened(api, "a-1")
    lin = await person(api, "lin", Role.ANALYST)
    page = (await lin.get(f"/cases/{case.case_id}")).text
    assert "hello 3" not in page
    assert "lines?before=5" in page
    more = (await lin.get(f"/cases/{case.case_id}/lines", params={"before": 5})).text
    assert [f"hello {n}" in more for n in range(5)] == [True] * 4 + [False]
    assert "data-older" not in more


async def test_decisions_are_searched_in_the_language_of_rules(api: Api) -> None:
    """What was stored with them, the talk and the lists; faults as the compiler says them; pages without gap."""
    for n in range(3):
        await opened(api, f"a-{n}", amount=f"{n + 1}0000.00", counterparty_id=f"c-{n}")
    entry = {"reason": "known", "source": "test"}
    await api.send(Role.ANALYST, "PUT", "/v1/lists/mule_accounts/entries/c-1", json=entry)

    async def ids(where: str, **query: Any) -> list[str]:
        answer = await api.send(Role.VIEWER, "GET", "/v1/decisions", params={"where": where} | query)
        assert answer.status_code == codes.OK, answer.text
        assert answer.json()["searched"]["decisions"] >= len(answer.json()["items"])
        return sorted(item["event_id"] for item in answer.json()["items"])

    assert await ids("amount_base >= 20_000") == ["a-1-transaction", "a-2-transaction"]
    assert await ids('chat mentions ["安全账户"] and event_type == "transaction" and amount_base < 15k') == [
        "a-0-transaction"
    ]
    assert await ids("counterparty_id in @mule_accounts") == ["a-1-transaction"]
    assert await ids("amount_base >= 20_000", account_id="a-2") == ["a-2-transaction"]
    page = (await api.send(Role.VIEWER, "GET", "/v1/decisions", params={"where": "amount > 0", "limit": 2})).json()
    rest = {"where": "amount > 0", "limit": 2, "cursor": page["next"]}
    last = (await api.send(Role.VIEWER, "GET", "/v1/decisions", params=rest)).json()
    assert len(page["items"] + last["items"]) == 3
    wrong = await api.send(Role.VIEWER, "GET", "/v1/decisions", params={"where": "amount_bse > 1"})
    assert (wrong.status_code, wrong.json()["path"]) == (codes.UNPROCESSABLE_ENTITY, "where")
    assert "amount_base" in wrong.json()["hint"]
    guo = await person(api, "guo", Role.VIEWER)
    assert "did you mean amount_base?" in (await guo.get("/decisions/check", params={"where": "amount_bse > 1"})).text
    assert "In order." in (await guo.get("/decisions/check", params={"where": "amount_base > 1"})).text
    shown = (await guo.get("/decisions", params={"where": "amount_base >= 20_000"})).text
    assert shown.count("data-row") == 2
    assert "Looked at all 6 decisions" in shown

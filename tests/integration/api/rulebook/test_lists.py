"""Watch lists by API: what an entry does to the very next event, what may be a value, imports, and the trail."""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from api_support import CLOCK, Api
from rulebook_support import Person, pay, person, rule, rules_hit, trail

from fraudguard.api import examples
from fraudguard.api.middleware import FILES_BYTES_MAX
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.domain import Role, format_time

MULES = "/v1/lists/mule_accounts/entries"
WHY = {"reason": "named by the police"}


def entry(value: str, name: str = "mule_accounts") -> str:
    """The path of an entry."""
    return f"/v1/lists/{name}/entries/{quote(value, safe='')}"


async def values(api: Api, **query: Any) -> list[str]:
    """What is on the list of mules."""
    response = await api.send(Role.SERVICE, "GET", MULES, params=query)
    assert response.status_code == 200, response.text
    return [item["value"] for item in response.json()["items"]]


async def test_an_entry_is_seen_by_the_very_next_event(api: Api) -> None:
    """Put on, taken off: each event is judged by the list as it stands."""
    assert rules_hit(await pay(api, "p-1", amount="9.00")) == set()
    put = await api.send(Role.ANALYST, "PUT", entry("c-9"), json=WHY)
    assert put.status_code == 200, put.text
    decision = await pay(api, "p-2", amount="9.00")
    assert (rules_hit(decision), decision["outcome"]) == ({"listed-payee"}, "block")
    assert rules_hit(await pay(api, "p-3", amount="9.00", counterparty_id="c-10")) == set()
    gone = await api.send(Role.ANALYST, "DELETE", entry("c-9"), params={"reason": "a mistake"})
    assert (gone.status_code, gone.content) == (204, b"")
    assert rules_hit(await pay(api, "p-4", amount="9.00")) == set()
    assert (await api.send(Role.ANALYST, "DELETE", entry("c-9"), params={"reason": "again"})).status_code == 404


async def test_a_rule_and_a_list_of_ones_own(api: Api, li: Person, wang: Person) -> None:
    """A published lists.yaml makes the list there, and a rule published with it sees its entries."""
    lists = "- {name: own_list, kind: block, entity: device, owner: ops, description: Stolen.}\n"
    old = (await li.send("GET", "/v1/rules/files")).json()["files"]["lists.yaml"]
    assert (await api.send(Role.ANALYST, "PUT", entry("d-1", "own_list"), json=WHY)).status_code == 404
    stolen = rule("stolen-device", "device_id in @own_list", "device_id in @own_list: true", outcome="step_up")
    assert (await li.publish(1, lists=old + lists, stolen=stolen)).status_code == 201
    assert (await wang.review(2)).json()["active"]
    assert (await api.send(Role.ANALYST, "PUT", entry("d-1", "own_list"), json=WHY)).status_code == 200
    assert rules_hit(await pay(api, "p-1", amount="9.00")) == {"stolen-device"}


async def test_an_entry_ends_by_the_events_own_time(api: Api) -> None:
    """Events before its end are met, later ones are not; it is still shown, and no longer counted."""
    now = CLOCK.now()
    ends = now - timedelta(hours=1)
    old = ListEntry("mule_accounts", "c-9", "a raid", "aml", "police", now - timedelta(days=2), ends)
    await api.repository.lists.add(old, "test")
    for event_id, hours, met in (("p-1", -2, {"listed-payee"}), ("p-2", 0, set[str]())):
        time = format_time(now + timedelta(hours=hours))
        assert rules_hit(await pay(api, event_id, amount="9.00", event_time=time)) == met
    assert await values(api) == ["c-9"]
    told = {known["name"]: known for known in (await api.send(Role.SERVICE, "GET", "/v1/lists")).json()}
    assert told["mule_accounts"]["entries"] == 0
    past = await api.send(Role.ANALYST, "PUT", entry("c-8"), json=WHY | {"expires_at": format_time(ends)})
    assert (past.status_code, past.json()["path"]) == (422, "expires_at")
    ahead = WHY | {"expires_at": format_time(now + timedelta(days=1))}
    assert (await api.send(Role.ANALYST, "PUT", entry("c-9"), json=ahead)).json()["expires_at"] == ahead["expires_at"]
    assert rules_hit(await pay(api, "p-3", amount="9.00")) == {"listed-payee"}


@pytest.mark.parametrize(
    "value",
    [
        "张伟的商户", "ＡＢＣ１２３", "a/b", "/a//b/", "a/entries/b", "a/../b", "a b", "50% off?x=1#y", "a+b&c",
        "\U0001f4b0", "é", "'; DROP TABLE list_entries; --", "x" * 128, "账" * 128,
    ],
)  # fmt: skip
async def test_a_value_is_kept_as_it_was_sent(api: Api, value: str) -> None:
    """Through path, body and store; found, met by an event whose field is the same text, and taken off again."""
    response = await api.send(Role.RULE_EDITOR, "PUT", entry(value), json=WHY)
    assert (response.status_code, response.json().get("value")) == (200, value), response.text
    assert await values(api) == [value]
    found = await api.send(Role.SERVICE, "GET", f"/v1/list-entries/{quote(value, safe='')}")
    assert found.json() == [response.json()]
    assert rules_hit(await pay(api, "p-1", amount="9.00", counterparty_id=value)) == {"listed-payee"}
    gone = await api.send(Role.RULE_EDITOR, "DELETE", entry(value), params={"reason": "cleared"})
    assert gone.status_code == 204
    again = await api.send(Role.RULE_EDITOR, "POST", MULES, json={"entries": {value: WHY}})
    assert again.json() == {"entries": 1, "changed": 1}
    assert await values(api) == [value]


@pytest.mark.parametrize("value", ["", " c-9", "c-9 ", "c\u00009", "c\n9", "x" * 129, "c\u200b9"])
async def test_what_no_event_can_hold_is_no_value(api: Api, value: str) -> None:
    """One by one and in an import: refused, and nothing stored."""
    assert (await api.send(Role.ANALYST, "PUT", entry(value), json=WHY)).status_code in {404, 422}
    many = {"entries": {"c-1": WHY, value: WHY}}
    assert (await api.send(Role.ANALYST, "POST", MULES, json=many)).status_code == 422
    assert await values(api) == []


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", "/v1/list-entries/a%00b", {}),
        ("GET", MULES, {"params": {"prefix": "a\u0000"}}),
        ("PUT", entry("c-1"), {"json": {"reason": "a\u0000"}}),
        ("PUT", entry("c-1"), {"json": WHY | {"source": "a\u0000"}}),
        ("DELETE", entry("c-9"), {"params": {"reason": "a\u0000"}}),
        ("DELETE", entry("a\u0000b"), {"params": {"reason": "x"}}),
        ("POST", MULES, {"content": b'{"entries": {"\\ud800": {"reason": "x"}}}'}),
        ("POST", MULES, {"content": b'{"entries": {"c-1": {"reason": "\\ud800"}}}'}),
        ("POST", MULES, {"content": b'{"\\ud800": 1}'}),
        ("PUT", entry("c-1"), {"content": b'{"reason": " "}'}),
    ],
)
async def test_texts_that_cannot_be_stored_are_the_senders(
    api: Api, method: str, path: str, options: dict[str, Any]
) -> None:
    """U+0000, half a character, or nothing but spaces: 422, and nothing changed."""
    assert (await api.send(Role.ANALYST, "PUT", entry("c-9"), json=WHY)).status_code == 200
    key = {"X-API-Key": api.keys[Role.ANALYST], "Content-Type": "application/json"}
    response = await api.http.request(method, path, headers=key, **options)
    assert response.status_code == 422, response.text
    assert await values(api) == ["c-9"]


async def test_no_list_of_that_name(api: Api) -> None:
    """404 with the names there are; a list is declared by a release, not by its first entry."""
    for method, path, body in (
        ("GET", "/v1/lists/mules/entries", None),
        ("PUT", entry("c-9", "mules"), WHY),
        ("POST", "/v1/lists/mules/entries", {"entries": {"c-9": WHY}}),
    ):
        response = await api.send(Role.RULE_EDITOR, method, path, json=body)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
        assert "mule_accounts, trusted_payees" in response.json()["hint"]
    response = await api.send(Role.RULE_EDITOR, "DELETE", entry("c-9", "mules"), params={"reason": "x"})
    assert response.status_code == 404


async def test_an_import_is_done_whole_or_not_at_all(api: Api) -> None:
    """One bad entry stops all and is named; the same import again changes nothing; the largest one fits."""
    body: dict[str, Any] = {"entries": {f"c-{n}": WHY for n in range(3)}}
    bad = {"entries": body["entries"] | {"c-3": {"reason": "x", "expires_at": "2020-01-01T00:00:00Z"}}}
    refused = await api.send(Role.ANALYST, "POST", MULES, json=bad)
    assert (refused.status_code, refused.json()["path"]) == (422, "entries[3].expires_at")
    assert await values(api) == []
    for changed in (3, 0):
        assert (await api.send(Role.ANALYST, "POST", MULES, json=body)).json() == {"entries": 3, "changed": changed}
    large = {"entries": {f"large-{n:05}": {"reason": "r" * 170} for n in range(10_000)}}
    assert 1_900_000 < len(json.dumps(large)) < FILES_BYTES_MAX
    response = await api.send(Role.ANALYST, "POST", MULES, json=large)
    assert response.json() == {"entries": 10_000, "changed": 10_000}
    more = {"entries": {f"more-{n}": {"reason": "r"} for n in range(10_001)}}
    response = await api.send(Role.ANALYST, "POST", MULES, json=more)
    assert (response.status_code, response.json()["path"]) == (422, "entries")


async def test_pages_and_prefixes(api: Api) -> None:
    """Pages follow each other by value; what stands for anything elsewhere stands for itself here."""
    sent = ["a%", "a_b", "ab", "b/c", "急"]
    await api.send(Role.ANALYST, "POST", MULES, json={"entries": dict.fromkeys(sent, WHY)})
    seen, query = [], {"limit": 2}
    for _ in range(3):
        page = (await api.send(Role.SERVICE, "GET", MULES, params=query)).json()
        seen += [item["value"] for item in page["items"]]
        query["cursor"] = page["next"]
    assert (sorted(seen), page["next"]) == (sorted(sent), None)
    for prefix, found in (("a%", ["a%"]), ("a_", ["a_b"]), ("b/", ["b/c"]), ("急", ["急"]), ("A", [])):
        assert await values(api, prefix=prefix) == found


async def test_every_change_is_on_the_trail(api: Api) -> None:
    """Who, what stood there before, what stands there now; also what was taken off, and why."""
    wang = await person(api, "王" * 128, Role.ANALYST)
    assert (await wang.send("PUT", entry("c/9"), json=WHY)).json()["owner"] == wang.name
    changed = {"reason": "letter 4711", "source": "police", "expires_at": "2126-01-01T00:00:00.000Z"}
    await wang.send("PUT", entry("c/9"), json=changed)
    await api.send(Role.RULE_EDITOR, "DELETE", entry("c/9"), params={"reason": " cleared "})
    first = {"reason": WHY["reason"], "owner": wang.name, "source": "api", "expires_at": None}
    second = changed | {"owner": wang.name}
    deeds = await trail(api, "list.")
    assert deeds[:2] == [
        (wang.name, "list.add", "@mule_accounts c/9", {"before": None, "after": first}),
        (wang.name, "list.add", "@mule_accounts c/9", {"before": first, "after": second}),
    ]
    assert deeds[2][0].startswith("test rule_editor (")
    assert deeds[2][1:] == ("list.remove", "@mule_accounts c/9", {"reason": "cleared", "before": second})


async def test_a_value_may_be_on_several_lists(api: Api) -> None:
    """One question answers for all of them, and for one that is on none."""
    for name in ("trusted_payees", "mule_accounts"):
        assert (await api.send(Role.ANALYST, "PUT", entry("c-9", name), json=WHY)).status_code == 200
    found = (await api.send(Role.SERVICE, "GET", "/v1/list-entries/c-9")).json()
    assert [(item["list"], item["value"]) for item in found] == [("mule_accounts", "c-9"), ("trusted_payees", "c-9")]
    assert (await api.send(Role.SERVICE, "GET", "/v1/list-entries/c-10")).json() == []
    told = (await api.send(Role.SERVICE, "GET", "/v1/lists")).json()
    assert [(known["name"], known["kind"], known["entries"]) for known in told] == [
        ("mule_accounts", "block", 1),
        ("trusted_payees", "allow", 1),
    ]
    assert set(told[0]) == set(examples.LIST)

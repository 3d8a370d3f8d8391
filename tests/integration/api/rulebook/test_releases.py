"""Rules by API: what is in force, checking, publishing, approval by another person, rollback, and who comes first."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
from api_support import CLOCK, Api, serving, until
from rulebook_support import FILES, LISTED, Person, pay, person, rule, rules_hit, trail

from fraudguard import rulebook
from fraudguard.api import rules, services
from fraudguard.assembly import Parts
from fraudguard.config import Settings
from fraudguard.domain import Feature, Role
from fraudguard.rulebook import Pack, pack_of
from fraudguard.rules.schema import Contents

NEW = rule("small-payment", "amount_base < 100", "amount_base: 9", outcome="step_up")


def code(response: httpx.Response) -> tuple[int, str]:
    """Status and problem code."""
    return response.status_code, response.json()["code"]


async def in_force(who: Person) -> int:
    """The release that decides."""
    number: int = (await who.send("GET", "/v1/rules")).json()["release"]
    return number


async def test_before_the_first_worker_no_rules_are_in_force(settings: Settings) -> None:
    """404 says so, rather than an empty list that would look like no rules at all."""
    async with serving(settings) as api:
        li = await person(api, "Li")
        for method, path in (("GET", "/v1/rules"), ("GET", "/v1/rules/files"), ("POST", "/v1/rules/check")):
            assert code(await li.send(method, path, json={"files": {}})) == (404, "rules_unknown")
        assert code(await li.publish(0, own=rule())) == (404, "rules_unknown")
        assert code(await li.review(1)) == (404, "not_found")
        assert code(await li.send("POST", "/v1/rules/rollback", json={"note": "back"})) == (409, "conflict")
        assert (await li.send("GET", "/v1/rules/releases")).json() == {"items": [], "next": None}
        assert (await li.send("GET", "/v1/lists")).json() == []


async def test_the_rules_are_those_that_decide(api: Api, parts: Parts, li: Person) -> None:
    """Every API process tells the release, the version on the decisions, and each rule as written."""
    decision = await pay(api, "p-1")
    told = (await li.send("GET", "/v1/rules")).json()
    async with serving(api.settings) as other:
        assert (await other.send(Role.SERVICE, "GET", "/v1/rules")).json() == told
    assert told["rules_version"] == decision["rules_version"] == parts.pack.rules.version
    assert (told["release"], told["policy_version"]) == (1, parts.pack.policy.version)
    expected = {rule.id: rule for rule in parts.pack.rules.rules}
    assert {rule["id"] for rule in told["rules"]} == set(expected)
    large = next(rule for rule in told["rules"] if rule["id"] == "large-payment")
    for field in ("version", "state", "rollout", "outcome", "reason", "severity", "owner", "description", "when"):
        assert large[field] == getattr(expected["large-payment"], field)
    assert (await li.send("GET", "/v1/rules/files")).json() == {"release": 1, "files": parts.pack.files}


BROKEN: list[tuple[dict[str, str | None], Sequence[str]]] = [
    (
        {"new.yaml": rule("new", when="amount_bsae >= 5 and\n  chat > 3")},
        ("new.yaml:2:7: ", "amount_bsae", "^", "hint: ", "amount_base", "new.yaml:3:"),
    ),
    (
        {"new.yaml": NEW.replace("amount_base: 9}", "amount_base: 900}")},
        ("new.yaml:11:", "expects hit and got no_hit"),
    ),
    ({"policy.yaml": "version: 1\nmodel: 7\n"}, ("policy.yaml:2",)),
    ({"policy.yaml": None}, ("policy.yaml",)),
    ({"own.yaml": "a: [\x00"}, ("own.yaml:",)),
    ({"own.yaml": rule(when="amount_base >= 30_000")}, ("own.yaml:1: ", "large-payment", "version 1", "raise it")),
    ({"lists.yaml": None}, ("listed.yaml:2:", "mule_accounts")),
]  # fmt: skip


@pytest.mark.parametrize(("files", "words"), BROKEN)
async def test_faults_are_told_with_their_place(
    api: Api, li: Person, files: dict[str, str | None], words: Sequence[str]
) -> None:
    """Checking answers 200 with what publishing refuses with 422, and neither leaves anything behind."""
    response = await li.send("POST", "/v1/rules/check", json={"files": files})
    assert response.status_code == 200, response.text
    checked = response.json()
    for word in words:
        assert word in checked["faults"]
    assert (checked["notices"], checked["diff"]) == ([], "")
    refused = await li.send("POST", "/v1/rules/releases", json={"base": 1, "files": files, "note": "try"})
    assert code(refused) == (422, "bad_field")
    told = refused.json()
    for word in words:
        assert word in f"{told.get('path', '')}: {told['detail']} {told.get('hint', '')}"
    assert len((await li.send("GET", "/v1/rules/releases")).json()["items"]) == 1
    assert await in_force(li) == 1


@pytest.mark.parametrize("name", ["new.txt", "../new.yaml", "a/b.yaml", ".yaml", "x" * 65 + ".yaml", "n\u0000.yaml"])
async def test_files_that_are_no_rule_files_are_refused(api: Api, li: Person, name: str) -> None:
    """A name is a plain YAML file's, for it is written to disk where rules are pulled."""
    response = await li.send("POST", "/v1/rules/check", json={"files": {name: NEW}})
    assert (response.status_code, response.json()["code"]) == (422, "bad_field")


async def test_a_good_change_is_told_by_what_becomes_of_rules(api: Api, li: Person) -> None:
    """Notices for the approver and the difference; nothing is stored."""
    changed = rule(version=2, when="amount_base >= 30_000")
    files = {"new.yaml": NEW, "own.yaml": changed, "listed.yaml": LISTED.replace("state: live", "state: retired")}
    checked = (await li.send("POST", "/v1/rules/check", json={"files": files})).json()
    assert checked["faults"] == ""
    assert checked["notices"] == [
        "large-payment says something else now (version 1 -> 2)",
        "listed-payee goes from live to retired",
        "small-payment is new, live",
        "small-payment goes live without having been in shadow",
    ]
    for line in (
        "+++ new/own.yaml",
        "-when: amount_base >= 40_000",
        "+when: amount_base >= 30_000",
        "+id: small-payment",
    ):
        assert line in checked["diff"].splitlines()
    assert len((await li.send("GET", "/v1/rules/releases")).json()["items"]) == 1


async def test_texts_are_one_whatever_editor_sent_them(api: Api, li: Person) -> None:
    """Windows line ends and a byte order mark are no change: what is pulled to disk must be what is in force."""
    files = {name: "\ufeff" + text.replace("\n", "\r\n") for name, text in FILES.items()}
    assert (await li.send("POST", "/v1/rules/check", json={"files": files})).json()["diff"] == ""
    response = await li.send("POST", "/v1/rules/releases", json={"base": 1, "files": files, "note": "same"})
    assert (response.status_code, "in force already" in response.json()["detail"]) == (409, True)


async def test_a_release_from_proposal_to_rollback(api: Api, li: Person, wang: Person) -> None:
    """It decides from the next event after another person's approval, and no longer after one call."""
    first = (await pay(api, "p-1", amount="5.00"))["rules_version"]
    response = await li.publish(1, new=NEW)
    assert response.status_code == 201, response.text
    assert (response.json()["number"], response.json()["active"]) == (2, False)
    assert "small-payment is new, live" in response.json()["notices"]
    own = await li.review(2)
    assert (code(own), "own" in own.json()["detail"]) == ((409, "conflict"), True)
    waiting = (await li.send("GET", "/v1/rules/releases/2")).json()
    assert (waiting["active"], waiting["activated_at"], waiting["reviews"]) == (False, None, [])
    assert (await pay(api, "p-2", amount="5.00"))["rules_version"] == first

    assert (await wang.review(2, note="看过")).json() == {"number": 2, "active": True}
    decision = await pay(api, "p-3", amount="5.00")
    told = (await li.send("GET", "/v1/rules")).json()
    assert decision["rules_version"] == told["rules_version"] != first
    assert (told["release"], told["actor"]) == (2, wang.name)
    assert (decision["outcome"], decision["severity"], rules_hit(decision)) == ("step_up", "low", {"small-payment"})
    release = (await li.send("GET", "/v1/rules/releases/2")).json()
    assert (release["active"], release["author"], release["parent"], release["via"]) == (True, li.name, 1, "api")
    assert "+id: small-payment" in release["diff"]
    assert [(r["actor"], r["verdict"], r["note"]) for r in release["reviews"]] == [(wang.name, "approve", "看过")]
    newest = (await li.send("GET", "/v1/rules/releases", params={"limit": 1})).json()
    assert newest["items"] == [{name: told for name, told in release.items() if name != "diff"}]
    older = await li.send("GET", "/v1/rules/releases", params={"limit": 1, "cursor": newest["next"]})
    assert [item["number"] for item in older.json()["items"]] == [1]

    back = await li.send("POST", "/v1/rules/rollback", json={"note": "too many"})
    assert back.json() == {"number": 1, "active": True}
    decision = await pay(api, "p-4", amount="5.00")
    assert (decision["rules_version"], decision["outcome"]) == (first, "approve")
    forth = await li.send("POST", "/v1/rules/rollback", json={"to": 2, "note": "not that many"})
    assert forth.json() == {"number": 2, "active": True}
    deeds = await trail(api, "rules.")
    assert [deed[:3] for deed in deeds[2:]] == [
        (li.name, "rules.propose", "release-2"),
        (wang.name, "rules.review", "release-2"),
        (wang.name, "rules.activate", "release-2"),
        (li.name, "rules.activate", "release-1"),
        (li.name, "rules.activate", "release-2"),
    ]
    assert "+id: small-payment" in deeds[2][3]["diff"]
    assert deeds[5][3]["note"] == "too many"


async def test_a_release_made_from_an_older_one_is_a_conflict(api: Api, li: Person, wang: Person) -> None:
    """Publishing from it is refused, and so is approving what waited while another release came first."""
    for number in (2, 3):
        assert (await li.publish(1, **{f"n{number}": rule(f"n-{number}")})).json()["number"] == number
    assert (await wang.review(3)).json()["active"]
    refused = await wang.publish(1, new=NEW)
    assert (code(refused), refused.json()["path"]) == ((409, "conflict"), "base")
    assert "release 3 is in force" in refused.json()["detail"]
    for base in (0, 2, 99):
        assert code(await wang.publish(base, new=NEW)) == (409, "conflict")
    overtaken = await wang.review(2)
    assert (code(overtaken), "release 3" in overtaken.json()["detail"]) == ((409, "conflict"), True)
    assert (await wang.publish(3, new=NEW)).status_code == 201
    assert await in_force(li) == 3


async def test_a_rejected_release_stays_so(api: Api, li: Person, wang: Person) -> None:
    """With a reason, by another person or its author; then nobody's approval or rollback puts it in force."""
    assert (await li.publish(1, new=NEW)).status_code == 201
    assert (await wang.review(2, "reject", note="")).status_code == 422
    assert (await wang.review(2, "reject", note="too wide")).json() == {"number": 2, "active": False}
    third = await person(api, "Chen")
    response = await third.review(2)
    assert (code(response), "too wide" in response.json()["detail"]) == ((409, "conflict"), True)
    assert code(await third.send("POST", "/v1/rules/rollback", json={"to": 2, "note": "x"})) == (409, "conflict")
    assert code(await wang.review(2)) == (409, "conflict")
    assert (await li.publish(1, new=NEW)).status_code == 201
    assert (await li.review(3, "reject", note="a mistake")).json() == {"number": 3, "active": False}
    assert code(await wang.review(3)) == (409, "conflict")
    assert await in_force(li) == 1


async def test_a_late_approval_does_not_bring_back_what_was_taken_back(api: Api, li: Person, wang: Person) -> None:
    """Whoever answers an old request to approve must not undo the rollback."""
    assert (await li.publish(1, new=NEW)).status_code == 201
    assert (await wang.review(2)).json()["active"]
    assert (await li.send("POST", "/v1/rules/rollback", json={"note": "harm"})).json()["number"] == 1
    late = await (await person(api, "Chen")).review(2)
    assert (code(late), "roll back" in late.json()["hint"]) == ((409, "conflict"), True)
    assert await in_force(li) == 1


async def test_two_approvals_where_two_are_asked_for(settings: Settings, parts: Parts, api: Api) -> None:
    """The first leaves it waiting, also when it is said twice; the second puts it in force."""
    async with serving(settings.model_copy(update={"rules_approvals": 2})) as strict:
        li, wang, chen = [await person(strict, owner) for owner in ("Li", "Wang", "Chen")]
        assert (await li.publish(1, new=NEW)).status_code == 201
        for _ in range(2):
            assert (await wang.review(2)).json() == {"number": 2, "active": False}
        release = (await li.send("GET", "/v1/rules/releases/2")).json()
        assert [review["actor"] for review in release["reviews"]] == [wang.name]
        assert (await chen.review(2)).json() == {"number": 2, "active": True}


async def test_an_approval_that_was_interrupted_can_be_repeated(api: Api, li: Person, wang: Person) -> None:
    """Where the review was written and the release not yet put in force, the same person may finish it."""
    assert (await li.publish(1, new=NEW)).status_code == 201
    await api.repository.rulebook.review(2, wang.name, "approve", "seen", CLOCK.now())
    assert (await wang.review(2)).json() == {"number": 2, "active": True}
    assert code(await wang.review(2)) == (409, "conflict")


async def test_without_approvals_a_release_decides_at_once(trusting: Api) -> None:
    """FRAUDGUARD_RULES_APPROVALS=0: publishing is putting in force."""
    li = await person(trusting, "Li")
    response = await li.publish(1, new=NEW)
    assert (response.status_code, response.json()["active"]) == (201, True)
    decision = await pay(trusting, "p-1", amount="5.00")
    assert rules_hit(decision) == {"small-payment"}
    gone = await li.publish(2, new=None)
    assert gone.json()["notices"] == ["small-payment is gone; retire it first"]
    assert rules_hit(await pay(trusting, "p-2", amount="5.00")) == set()


async def test_of_two_who_approve_at_once_one_is_told(api: Api, li: Person, wang: Person) -> None:
    """Both are heard, one put it in force."""
    chen = await person(api, "Chen")
    assert (await li.publish(1, new=NEW)).status_code == 201
    answers = await asyncio.gather(wang.review(2), chen.review(2))
    assert sorted(answer.status_code for answer in answers) == [200, 409], [answer.text for answer in answers]
    assert await in_force(li) == 2
    assert len([deed for deed in await trail(api, "rules.activate") if deed[2] == "release-2"]) == 1


async def test_of_two_who_publish_at_once_one_decides(trusting: Api) -> None:
    """Both made from release 1: one is in force, the other author learns whose; nothing is half done."""
    people = [await person(trusting, owner) for owner in ("Li", "Wang", "Chen")]
    answers = await asyncio.gather(*(who.publish(1, new=rule(f"by-{n}")) for n, who in enumerate(people)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409], [answer.text for answer in answers]
    (number,) = [answer.json()["number"] for answer in answers if answer.status_code == 201]
    assert await in_force(people[0]) == number
    items = (await people[0].send("GET", "/v1/rules/releases")).json()["items"]
    assert [item["number"] for item in items if item["active"]] == [number]


async def test_of_two_rollbacks_at_once_no_one_fails(api: Api, li: Person, wang: Person) -> None:
    """Two people pull the same brake: it is pulled once, and nobody meets an internal error."""
    assert (await li.publish(1, new=NEW)).status_code == 201
    assert (await wang.review(2)).json()["active"]
    order = {"to": 1, "note": "harm"}
    answers = await asyncio.gather(*(who.send("POST", "/v1/rules/rollback", json=order) for who in (li, wang)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert await in_force(li) == 1


async def test_rules_are_tried_beside_other_requests_and_two_at_a_time(
    api: Api, li: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While two packs are tried, the process answers, and a third waits its turn."""
    running: list[int] = []
    most: list[int] = []
    go_on = threading.Event()

    def held(files: Mapping[str, str], fields: Sequence[Feature]) -> Pack:
        running.append(1)
        most.append(len(running))
        try:
            assert go_on.wait(30)
            return pack_of(files, fields)
        finally:
            running.pop()

    monkeypatch.setattr(rules, "pack_of", held)

    async def both_run() -> bool:
        assert (await api.http.get("/health/live")).status_code == 200
        return len(running) == services.TRIALS_MAX

    send = li.send("POST", "/v1/rules/check", json={"files": {"new.yaml": NEW}})
    others = [li.send("POST", "/v1/rules/check", json={"files": {"new.yaml": NEW}}) for _ in range(2)]
    checks = asyncio.gather(send, *others)
    await until(both_run, "two packs are being tried")
    assert (await li.send("GET", "/v1/rules")).status_code == 200
    go_on.set()
    assert [answer.json()["faults"] for answer in await checks] == [""] * 3
    assert max(most) == services.TRIALS_MAX


async def test_rules_in_force_are_read_beside_other_requests(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has not read them yet answers others while it does."""
    entered, go_on, read = threading.Event(), threading.Event(), rulebook.read_contents

    def held(sources: Mapping[str, str], fields: Sequence[Feature]) -> Contents:
        entered.set()
        assert go_on.wait(30)
        return read(sources, fields)

    async def loading() -> bool:
        assert (await other.http.get("/health/live")).status_code == 200
        return entered.is_set()

    async with serving(settings) as other:
        monkeypatch.setattr(rulebook, "read_contents", held)
        answer = asyncio.create_task(other.send(Role.SERVICE, "GET", "/v1/rules"))
        await until(loading, "the rules are being read")
        go_on.set()
        assert (await answer).status_code == 200


async def test_published_rules_that_this_build_cannot_read_are_the_operators(api: Api, li: Person) -> None:
    """Not the caller's fault: 503, whatever asks for them, and the reason is in the log alone."""
    book = api.repository.rulebook
    body = '{"own.yaml": "id: from-the-future\\n"}'
    head = await book.head()
    assert head is not None
    policy = await api.repository.document("policy", head.policy_version)

    async def nothing() -> Sequence[Any]:
        return ()

    who: dict[str, Any] = {"author": "x", "via": "files", "note": "", "diff": "", "at": CLOCK.now()}
    number = await book.propose(1, "future", body, head.policy_version, policy, **who)
    now = CLOCK.now()
    await book.activate(number, "x", "", now, approvals_required=0, expected=head.activation, prepare=nothing)
    for method, path, sent in (
        ("GET", "/v1/rules", None),
        ("GET", "/v1/lists", None),
        ("POST", "/v1/rules/check", {"files": {"own.yaml": rule()}}),
    ):
        response = await li.send(method, path, json=sent)
        assert code(response) == (503, "not_set_up")
        assert "from-the-future" not in response.text


async def test_a_note_that_cannot_be_stored_is_refused(api: Api, li: Person, wang: Person) -> None:
    """U+0000 is the sender's to mend, wherever a note goes, and nothing is done."""
    note = "a\u0000b"
    body = {"base": 1, "files": {"new.yaml": NEW}, "note": note}
    assert code(await li.send("POST", "/v1/rules/releases", json=body)) == (422, "bad_field")
    assert (await li.publish(1, new=NEW)).status_code == 201
    for verdict in ("approve", "reject"):
        assert code(await wang.review(2, verdict, note=note)) == (422, "bad_field")
    assert (await wang.review(2)).json()["active"]
    assert code(await li.send("POST", "/v1/rules/rollback", json={"note": note})) == (422, "bad_field")
    assert await in_force(li) == 2

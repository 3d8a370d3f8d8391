"""The console's rules and lists without a browser: whom they serve, what a form may do, who is told what."""

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from api_support import CLOCK, Api
from rulebook_support import FILES, Person, backtests, pay, rule, rules_hit

from fraudguard.accounts import new_password
from fraudguard.api.auth import COOKIE, CSRF_HEADER
from fraudguard.api.console import rules_backtest
from fraudguard.decisions.casebook import CaseFilter, Disposition
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.domain import Role

TEXT = FILES["own.yaml"]
HIGHER = TEXT.replace("40_000", "45_000").replace("version: 1", "version: 2")
DRAFTS = "/console/rule-drafts"


@dataclass(frozen=True, slots=True)
class Window:
    """Somebody's signed-in browser; token: their session's."""

    api: Api
    cookie: str
    token: str

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """A page."""
        return await self.api.http.get(path, headers={"Cookie": self.cookie} | headers)

    async def post(self, path: str, token: str | None = None, **fields: str) -> httpx.Response:
        """A form as htmx sends it."""
        sent = {CSRF_HEADER: self.token if token is None else token, "HX-Request": "true", "Cookie": self.cookie}
        return await self.api.http.post(path, data=fields, headers=sent)

    async def propose(self, text: str, base: int = 1, rule: str = "large-payment") -> httpx.Response:
        """A changed rule."""
        return await self.post(f"{DRAFTS}/propose", rule=rule, base=str(base), text=text, note="try")


async def window(api: Api, name: str, role: Role = Role.RULE_EDITOR) -> Window:
    """An account, signed in."""
    password, hashed = new_password()
    await api.repository.people.create(name, role, hashed, "test", CLOCK.now())
    answer = await api.http.post("/v1/session", json={"name": name, "password": password})
    assert answer.status_code == httpx.codes.CREATED
    api.http.cookies.clear()
    return Window(api, f"{COOKIE}={answer.cookies[COOKIE]}", answer.json()["csrf_token"])


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR, Role.ADMIN])
async def test_everybody_reads_and_editors_edit(api: Api, role: Role) -> None:
    """The page says so in words, and the server refuses what the page does not offer."""
    someone = await window(api, "someone", role)
    edits, lists = role in {Role.RULE_EDITOR, Role.ADMIN}, role != Role.VIEWER
    page = await someone.get("/console/rules/large-payment")
    assert page.status_code == 200
    assert ("reads rules" in page.text, 'data-act="to_shadow"' in page.text) == (not edits, edits)
    refused = 403 if not edits else 200
    assert (await someone.get("/console/new-rule")).status_code == refused
    assert (await someone.post(f"{DRAFTS}/check", rule="large-payment", text=TEXT)).status_code == refused
    assert (await someone.propose(HIGHER)).status_code == (204 if edits else 403)
    if not edits:
        assert (await someone.post("/console/releases/1/agree")).status_code == 403
        assert (await someone.post(f"{DRAFTS}/backtest", rule="large-payment", text=TEXT)).status_code == 403
    entries = await someone.get("/console/lists/mule_accounts")
    assert ("does not change them" in entries.text) is not lists
    put = await someone.post("/console/lists/mule_accounts/entries", values="c-1", reason="seen", until="90")
    assert put.status_code == (204 if lists else 403)


async def test_a_form_needs_the_sessions_token(api: Api) -> None:
    """None of the deeds is done for a page of somebody else."""
    mei = await window(api, "mei")
    for path in (
        f"{DRAFTS}/check", f"{DRAFTS}/propose", f"{DRAFTS}/backtest", "/console/releases/1/agree",
        "/console/releases/1/refuse", "/console/lists/mule_accounts/entries", "/console/lists/mule_accounts/remove",
    ):  # fmt: skip
        assert (await mei.post(path, token="")).status_code == 403, path
        assert (await mei.post(path, token="x" * 43)).status_code == 403, path


async def test_a_mistake_is_told_with_its_place_and_its_fix(api: Api) -> None:
    """Line, column, the word, what was meant; then the rule's own tests, then what would change."""
    mei = await window(api, "mei")

    async def check(text: str) -> str:
        return (await mei.post(f"{DRAFTS}/check", rule="large-payment", text=text)).text

    wrong = await check(TEXT.replace("amount_base >=", "amount_bose >="))
    assert 'data-line="2" data-column="7" data-length="11"' in wrong
    assert "<mark>amount_bose</mark>" in wrong
    assert 'data-fix="amount_base"' in wrong
    assert "They run once the text reads well" in wrong
    failing = await check(TEXT.replace("40_000", "60_000").replace("version: 1", "version: 2"))
    assert "1 of 2 pass" in failing
    assert "this part does not hold" in failing or "came out otherwise" in failing
    same = await check(TEXT.replace("40_000", "45_000"))
    assert "still version 1" in same
    assert 'data-fix="2"' in same
    fine = await check(HIGHER)
    assert "The text reads well" in fine
    assert "2 of 2 pass" in fine
    assert "+when: amount_base &gt;= 45_000" in fine
    two = await check(HIGHER + "---\n" + TEXT.replace("large-payment", "other"))
    assert "more than one rule" in two
    taken = (await mei.post(f"{DRAFTS}/check", rule="", text=TEXT)).text
    assert "the id large-payment is taken" in taken
    assert "<script" not in await check(TEXT.replace("ops", "<script>alert(1)</script>"))


async def test_a_change_decides_once_somebody_else_has_agreed(api: Api) -> None:
    """The author may not, and reads so; another may; the very next payment is decided by the new rule."""
    assert rules_hit(await pay(api, "p-1", amount="42000.00")) == {"large-payment"}
    mei, sun = await window(api, "mei"), await window(api, "sun", Role.ADMIN)
    done = await mei.propose(HIGHER.replace("\n", "\r\n"))
    assert (done.status_code, done.headers["hx-redirect"]) == (204, "/console/releases/2")
    own = (await mei.get("/console/releases/2")).text
    assert "You proposed it, so somebody else must agree" in own
    assert 'id="verdict-agree"' not in own
    assert (await mei.post("/console/releases/2/agree")).status_code == 409
    assert "waits" in (await mei.get("/console/rules/large-payment")).text
    theirs = (await sun.get("/console/releases/2")).text
    assert 'id="verdict-agree"' in theirs
    assert "large-payment says something else now (version 1 -&gt; 2)" in theirs
    assert (await sun.post("/console/releases/2/agree", note="seen")).status_code == 204
    head = await api.repository.rulebook.head()
    assert head
    assert (head.number, head.actor) == (2, "sun")
    assert rules_hit(await pay(api, "p-2", amount="42000.00")) == set()
    page = (await mei.get("/console/rules/large-payment")).text
    assert "Agreed: sun" in page
    assert "You can withdraw" not in page


async def test_of_two_editors_one_is_told(api: Api, li: Person, wang: Person) -> None:
    """Another release took over meanwhile: who, whether it changed this rule, and the text can go on top of it."""
    mei = await window(api, "mei")
    assert (await li.publish(1, own=TEXT.replace("40_000", "30_000").replace("version: 1", "version: 2"))).is_success
    assert (await wang.review(2)).json()["active"]
    told = await mei.propose(HIGHER)
    assert told.status_code == 409
    assert wang.name in told.text
    assert "It changed this rule" in told.text
    assert "+when: amount_base &gt;= 30_000" in told.text
    assert 'data-rebase="2"' in told.text
    assert len((await api.repository.rulebook.releases()).items) == 2
    again = await mei.propose(HIGHER.replace("version: 2", "version: 3"), base=2)
    assert again.status_code == 204
    for base in ("", "x", "9" * 30):
        bad = await mei.post(f"{DRAFTS}/propose", rule="large-payment", base=base, text=HIGHER, note="try")
        assert bad.status_code == 422, base
    assert (
        await mei.post(f"{DRAFTS}/propose", rule="large-payment", base="2", text=HIGHER, note=" ")
    ).status_code == 422
    assert (await mei.propose(HIGHER, base=2, rule="none")).status_code == 404


async def test_a_refused_text_enters_nothing(api: Api) -> None:
    """A rule that says something else under its old version, one that does not read, and what is in force already."""
    mei = await window(api, "mei")
    for text, said in (
        (TEXT.replace("40_000", "45_000"), "raise it"),
        (TEXT.replace("amount_base >=", "amount_bose >="), "unknown field"),
    ):
        answer = await mei.propose(text)
        assert answer.status_code == 422
        assert said in answer.text
    same = await mei.propose(TEXT)
    assert same.status_code == 409
    assert "what is in force already" in same.text
    assert len((await api.repository.rulebook.releases()).items) == 1


async def test_a_new_rule_goes_into_a_file_of_its_own(api: Api) -> None:
    """Beside the others, in the state its text says; a second one into the same file."""
    mei, sun = await window(api, "mei"), await window(api, "sun")
    for number, name in ((2, "first-new"), (3, "second-new")):
        done = await mei.propose(rule(name, "amount_base >= 30_000", state="draft"), number - 1, rule="")
        assert done.status_code == 204, done.text
        assert (await sun.post(f"/console/releases/{number}/agree")).status_code == 204
    listed = (await mei.get("/console/rules?state=draft")).text
    assert "first-new" in listed
    assert "second-new" in listed
    assert "large-payment" not in listed
    assert (await mei.get("/console/rules/second-new")).status_code == 200


async def test_a_release_is_withdrawn_or_refused_for_a_reason(api: Api) -> None:
    """Then nobody can agree to it."""
    mei, sun = await window(api, "mei"), await window(api, "sun")
    await mei.propose(HIGHER)
    assert (await sun.post("/console/releases/2/refuse", note="")).status_code == 422
    assert (await sun.post("/console/releases/2/refuse", note="too high")).status_code == 204
    page = (await mei.get("/console/releases/2")).text
    assert "sun ended it: too high" in page
    assert (await sun.post("/console/releases/2/agree")).status_code == 409
    assert (await sun.post("/console/releases/9/agree")).status_code == 404


async def test_what_a_rule_did_is_counted(api: Api) -> None:
    """Hits of today, precision of what people judged, the newest hits with their case."""
    mei = await window(api, "mei", Role.ADMIN)
    for n, harmless in enumerate((False, False, True)):
        await pay(api, f"p-{n}", account_id=f"a-{n}")
        (case,) = (await api.repository.cases.list_cases(CaseFilter(account_id=f"a-{n}"))).items
        found = Disposition.FALSE_POSITIVE if harmless else Disposition.CONFIRMED_FRAUD
        await api.repository.cases.dispose(case.case_id, case.version, found, "seen", "test", CLOCK.now())
    since = CLOCK.now() - timedelta(days=2)
    days = await api.repository.rulehits.days(since, "UTC")
    assert [(one.rule, one.state, one.hits) for one in days] == [("large-payment", "live", 3)]
    judged = (await api.repository.rulehits.judged(since))["large-payment"]
    assert (judged.fraud, judged.harmless, judged.precision) == (2, 1, 2 / 3)
    page = (await mei.get("/console/rules/large-payment")).text
    assert "67 %" in page
    assert page.count('href="/console/decisions/') == 3
    assert page.count('href="/console/cases/') == 3
    (trial,) = await api.repository.rulehits.standing("large-payment", since)
    assert (trial.version, trial.state, trial.hits) == (1, "live", 3)


async def test_a_backtest_runs_beside_the_server_and_its_figures_come_back(api: Api) -> None:
    """Progress, then the page; a rule on trial is tried as live; a text with a mistake is not tried."""
    mei = await window(api, "mei")
    for n in range(3):
        await pay(api, f"p-{n}", amount="35000.00")
    text = rule("large-payment", "amount_base >= 30_000", version=2, state="shadow")
    answer = await mei.post(f"{DRAFTS}/backtest", rule="large-payment", text=text)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    *_, last = map(json.loads, answer.text.splitlines())
    html: str = last["html"]
    assert "3 decisions" in html
    assert "as if it were live" in html
    assert "This rule would have hit 3 times" in html
    assert len(re.findall("<figure", html)) == 4
    assert "/console/decisions/" in html
    bad = await mei.post(f"{DRAFTS}/backtest", rule="large-payment", text=TEXT.replace("amount_base >=", "x >="))
    assert bad.status_code == 422


async def test_a_backtest_that_is_left_ends_its_process(api: Api) -> None:
    """Closed in the middle, the child is gone before the close returns."""
    files = {**FILES, "policy.yaml": api.settings.policy_path.read_text()}
    steps = rules_backtest.backtest(api.settings, files, "large-payment")
    first = await anext(steps)
    assert isinstance(first, rules_backtest.Progress)  # a beat: it is still reading the rules
    assert len(backtests()) == 1
    await steps.aclose()
    assert not backtests()


async def test_entries_are_put_on_searched_and_taken_off(api: Api) -> None:
    """Many at once, all or none; who, when and until when; where a list is asked; which lists a value is on."""
    lin = await window(api, "lin", Role.ANALYST)

    async def add(**fields: str) -> httpx.Response:
        return await lin.post("/console/lists/mule_accounts/entries", **({"reason": "told by police"} | fields))

    done = await add(values="c-9\r\n c-10 \n\nc-11", until="30")
    assert (done.status_code, json.loads(done.headers["hx-trigger"])) == (204, {"listChanged": {"added": 3}})
    for fields in (
        {"values": "c-1\nc-1"}, {"values": " "}, {"values": "c-1", "reason": " "}, {"values": "c-1", "until": "soon"},
        {"values": "c-1", "until": "2020-01-01"},
    ):  # fmt: skip
        assert (await add(**fields)).status_code == 422, fields
    page = (await lin.get("/console/lists/mule_accounts")).text
    assert page.count("told by police") == 6  # the text and its tooltip
    assert "29 d left" in page
    assert 'href="/console/rules/listed-payee"' in page
    assert rules_hit(await pay(api, "p-1", amount="9.00")) == {"listed-payee"}
    found = (await lin.get("/console/lists?value=c-9")).text
    assert "mule_accounts?prefix=c-9" in found
    assert "is on no list" in (await lin.get("/console/lists?value=c-99")).text
    assert "c-9<" not in (await lin.get("/console/lists/mule_accounts?prefix=c-1")).text
    gone = await lin.post("/console/lists/mule_accounts/remove", value="c-9", reason="cleared")
    assert gone.status_code == 204
    assert rules_hit(await pay(api, "p-2", amount="9.00")) == set()
    assert (await lin.post("/console/lists/mule_accounts/remove", value="c-9", reason="again")).status_code == 404
    assert (await lin.post("/console/lists/mule_accounts/remove", value="c-10", reason=" ")).status_code == 422
    assert (await lin.get("/console/lists/none")).status_code == 404


async def test_long_lists_come_in_pages(api: Api) -> None:
    """Rows alone, in order, each once."""
    now = CLOCK.now()
    rows = [ListEntry("mule_accounts", f"c-{n:03}", "a feed", "aml", "feed", now) for n in range(120)]
    await api.repository.lists.add_many(rows, "test")
    lin = await window(api, "lin", Role.VIEWER)
    seen: list[Any] = []
    path = "/console/lists/mule_accounts"
    while path:
        text = (await lin.get(path, **{"HX-Request": "true", "HX-Rows": "1"})).text
        assert "<html" not in text
        seen += re.findall(r'data-id="(c-\d+)"', text)
        more = re.search(r'hx-get="([^"]+)"', text)
        path = more[1].replace("&amp;", "&") if more else ""
    assert seen == [row.value for row in rows]

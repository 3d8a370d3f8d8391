"""Rules and lists by keys alone: a rule is edited, tested, tried and published by two people; entries come and go."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import pytest
from console_support import CLOCK, LOOKS, Desk, Site, check
from rulebook_support import backtests
from support import wait_until

from fraudguard.api import examples
from fraudguard.api.console.keys import KEYS
from fraudguard.assembly import load_parts, open_pipeline
from fraudguard.decisions.repository import Repository, connect
from fraudguard.decisions.rulebook import Head
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.domain import DecisionRecord, Received, Transaction

RULE = "amount-without-rate"
TRIAL_MS = 180_000  # of a whole pack, in a process of its own, on a machine that does other things as well
Found = TypeVar("Found")


def ask(site: Site, question: Callable[[Repository], Awaitable[Found]]) -> Found:
    """The store's answer, asked in a thread of its own, for playwright holds this one's event loop."""

    async def run() -> Found:
        async with connect(site.settings.database_url.get_secret_value()) as repository:
            return await question(repository)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result(timeout=60)


def head_of(site: Site) -> Head:
    """What decides."""
    head = ask(site, lambda repository: repository.rulebook.head())
    assert head
    return head


def decide(site: Site, event_id: str) -> DecisionRecord:
    """A payment in a currency that has no rate, decided as a worker does, by what the store says is in force."""

    async def run() -> DecisionRecord:
        parts = load_parts(site.settings)
        at = (CLOCK.now() - timedelta(seconds=5)).isoformat(timespec="milliseconds")
        changes = {"event_id": event_id, "account_id": "a-rule", "event_time": at, "currency": "IRR"}
        event = Transaction.model_validate(examples.TRANSACTION | changes)
        async with (
            open_pipeline(site.settings, parts, CLOCK) as pipeline,
            connect(site.settings.database_url.get_secret_value()) as repository,
        ):
            await pipeline.screen([Received(event, event.event_time)])
            record = await repository.record_of_event(event_id)
        parts.close()
        return record

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result(timeout=120)


def open_rules(desk: Desk, rule: str = RULE) -> str:
    """`g r`, the filter, the only row; the rule's text."""
    with desk.page.expect_navigation():
        desk.press("g", "r")
    desk.press("/")
    with desk.page.expect_response(re.compile(r"rules\?state=active&q=")):
        desk.page.keyboard.type(rule)
    desk.page.wait_for_selector(f"[data-id='{rule}']")
    desk.press("Escape", "j", "Enter")
    desk.page.wait_for_selector("#text")
    return desk.page.locator("#text").input_value()


def write(desk: Desk, text: str) -> None:
    """`e`, everything replaced; then what is said of it has come."""
    desk.press("e", "Control+a")
    with desk.page.expect_response("**/rule-drafts/check"):
        desk.page.keyboard.insert_text(text)
    desk.press("Escape")


def propose(desk: Desk, note: str) -> None:
    """`p`, why, Enter."""
    desk.press("p")
    desk.page.keyboard.type(note)
    desk.press("Enter")


def raised(text: str, outcome: str) -> str:
    """The rule with another outcome, as its next version."""
    return re.sub(r"(?m)^outcome: \w+", f"outcome: {outcome}", re.sub(r"(?m)^version: 1$", "version: 2", text))


def test_a_rule_is_edited_tried_and_published_by_two_people(desk_of: Callable[..., Desk], site: Site) -> None:
    """A mistake is seen where it stands and mended; tests, backtest, propose; another agrees; workers decide by it."""
    before = decide(site, "before")
    assert [(hit.rule, hit.version) for hit in before.hits if hit.rule == RULE] == [(RULE, 1)]
    mei = desk_of("mei")
    text = open_rules(mei)
    good = raised(text, "block")
    write(mei, good.replace("outcome: block", "outcome: blok"))
    mei.page.wait_for_selector(".problems:has-text('blok')")
    line = good[: good.index("outcome:")].count("\n") + 1
    assert mei.page.locator(".gutter .bad").all_inner_texts() == [str(line)]
    assert mei.page.locator(".marks mark").inner_text() == "blok"
    mei.press("!")
    chosen = "(f => f.value.slice(f.selectionStart, f.selectionEnd))(document.getElementById('text'))"
    assert mei.page.evaluate(chosen) == "blok"
    with mei.page.expect_response("**/rule-drafts/check"):
        mei.page.keyboard.insert_text("block")
    mei.page.wait_for_selector("[data-state='fine']")
    assert mei.page.locator(".tests .failed").count() == 0
    assert mei.page.locator(".tests .passed").count() >= 2
    mei.press("Escape", "b")
    mei.page.wait_for_selector("#backtest[data-done]", timeout=TRIAL_MS)
    assert mei.page.locator("#backtest figure").count() == 4
    propose(mei, "gold is not for phones")
    mei.page.wait_for_url("**/console/releases/2", timeout=TRIAL_MS)
    assert "You proposed it, so somebody else must agree" in mei.page.locator(".rule-head").inner_text()
    mei.press("a")
    assert mei.page.locator("#verdict-agree").count() == 0
    assert head_of(site).number == 1

    sun = desk_of("sun")
    with sun.page.expect_navigation():
        sun.press("g", "r")
    sun.press("w")
    sun.page.wait_for_url("**/console/releases/2")
    sun.page.wait_for_selector("#verdict-agree", state="attached")
    sun.press("a")
    sun.page.keyboard.type("agreed with the desk")
    with sun.page.expect_navigation():
        sun.press("Enter")
    sun.page.wait_for_selector(".rule-head:has-text('in force')")
    assert (head_of(site).number, head_of(site).actor) == (2, "sun")
    after = decide(site, "after")
    assert after.decision.rules_version == head_of(site).rules_version != before.decision.rules_version
    assert [(hit.rule, hit.version, hit.outcome) for hit in after.hits if hit.rule == RULE] == [(RULE, 2, "block")]


def test_a_rule_walks_to_shadow_and_two_editors_do_not_overwrite_each_other(
    desk_of: Callable[..., Desk], site: Site
) -> None:
    """`s` changes its state; the second of two is told whose release came between, and goes on top of it."""
    mei, sun = desk_of("mei"), desk_of("sun")
    open_rules(mei)
    theirs = open_rules(sun)
    with mei.page.expect_response("**/rule-drafts/check"):
        mei.press("s")
    assert "state: shadow" in mei.page.locator("#text").input_value()
    mei.page.keyboard.type("watch it first")
    mei.press("Enter")
    mei.page.wait_for_url("**/console/releases/2", timeout=TRIAL_MS)
    lead = desk_of("sun")
    lead.page.goto(f"{lead.url}/console/releases/2")
    lead.press("a", "Enter")
    lead.page.wait_for_selector(".rule-head:has-text('in force')")
    write(sun, raised(theirs, "block"))
    propose(sun, "stronger")
    sun.page.wait_for_selector("#said:has-text('release 2 of sun')")
    assert "It changed this rule" in sun.page.locator("#said").inner_text()
    assert sun.page.locator("#text").input_value() == raised(theirs, "block").rstrip("\n")
    sun.page.locator("[data-rebase]").press("Enter")
    sun.page.wait_for_url("**/console/releases/3", timeout=TRIAL_MS)
    sun.press("r")
    sun.page.keyboard.type("not after all")
    with sun.page.expect_navigation():
        sun.press("Enter")
    sun.page.wait_for_selector(".rule-head:has-text('rejected')")
    assert head_of(site).number == 2


def test_leaving_the_page_ends_a_backtest(desk_of: Callable[..., Desk], site: Site) -> None:
    """Its process is gone soon after, and the next one runs."""
    mei = desk_of("mei")
    open_rules(mei)
    mei.press("b")
    wait_until(lambda: bool(backtests()), "a backtest runs")
    mei.press("g", "q")
    mei.page.wait_for_url("**/console/queue")
    wait_until(lambda: not backtests(), "the backtest has ended")


def test_a_viewer_reads_rules_and_lists(desk_of: Callable[..., Desk], site: Site) -> None:
    """No button, no key does anything, the text cannot be typed into."""
    guo = desk_of("guo")
    text = open_rules(guo)
    guo.press("e", "l", "x", "b", "p", "n")
    guo.page.locator("#text").press("a")
    assert guo.page.locator("#text").input_value() == text
    assert guo.page.locator("[data-act='propose'], [data-act='backtest'], #propose").count() == 0
    assert "reads rules" in guo.page.locator(".rule-head").inner_text()
    guo.page.goto(f"{guo.url}/console/lists/mule_accounts")
    guo.press("n")
    assert guo.page.locator(".verdict").count() == 0


def test_entries_are_put_on_and_taken_off_by_keys(desk_of: Callable[..., Desk], site: Site) -> None:
    """`g l`, a list, `n` and two values at once; `x` takes the chosen one off for a reason; `f` finds the other."""
    lin = desk_of("lin")
    with lin.page.expect_navigation():
        lin.press("g", "l")
    lin.press("j", "j")
    with lin.page.expect_navigation():
        lin.press("Enter")
    assert lin.page.url.endswith("/console/lists/mule_accounts")
    lin.press("n")
    lin.page.keyboard.insert_text("c-71\nc-72")
    lin.press("Tab")
    lin.page.keyboard.type("told by another bank")
    with lin.page.expect_response("**/mule_accounts/entries"):
        lin.press("Enter")
    lin.page.wait_for_selector("[data-id='c-72']")
    assert lin.page.locator("#verdict-add").is_hidden()
    lin.press("j", "j", "k", "x")
    assert lin.page.locator("#verdict-remove [data-value]").inner_text() == "c-71"
    lin.page.keyboard.type("cleared")
    with lin.page.expect_response("**/mule_accounts/remove"):
        lin.press("Enter")
    lin.page.wait_for_selector("[data-id='c-71']", state="detached")
    left = ask(site, lambda repository: repository.lists.page("mule_accounts"))
    assert [(entry.value, entry.owner, entry.reason) for entry in left.items] == [
        ("c-72", "lin", "told by another bank")
    ]
    lin.press("f")
    lin.page.keyboard.type("c-72")
    with lin.page.expect_navigation():
        lin.press("Enter")
    assert lin.page.locator("[data-row]").count() == 1
    assert "mule_accounts" in lin.page.locator("[data-row]").inner_text()


def test_every_key_of_these_pages_presses_a_button_there(desk_of: Callable[..., Desk], site: Site) -> None:
    """What is not one of the rows' own keys; a waiting release for those that ask for one."""
    sun = desk_of("sun")
    open_rules(sun)
    sun.press("s")
    sun.page.wait_for_selector("[data-state='fine']")
    propose(sun, "on trial")
    sun.page.wait_for_url("**/console/releases/2", timeout=TRIAL_MS)
    mei = desk_of("mei")
    known = set(mei.page.evaluate("Object.keys(window.fraudguard.actions)"))
    found = set()
    draft = "/console/rules?state=draft"
    for path in (draft, f"/console/rules/{RULE}", "/console/releases/2", "/console/rules/card-spree"):
        mei.page.goto(mei.url + path)
        found |= set(mei.page.locator("[data-act]").evaluate_all("all => all.map(one => one.dataset.act)"))
    assert {key.action for key in KEYS if key.place == "rules"} - known <= found
    entry = ListEntry("mule_accounts", "c-1", "a feed", "aml", "feed", CLOCK.now())
    ask(site, lambda repository: repository.lists.add(entry, "test"))
    mei.page.goto(f"{mei.url}/console/lists/mule_accounts")
    found = set(mei.page.locator("[data-act]").evaluate_all("all => all.map(one => one.dataset.act)"))
    assert {key.action for key in KEYS if key.place == "lists"} - known <= found


@pytest.mark.parametrize(("language", "theme", "size"), LOOKS)
def test_rules_and_lists_are_accessible(
    desk_of: Callable[..., Desk], site: Site, language: str, theme: str, size: tuple[int, int]
) -> None:
    """Every state of both pages: nothing for axe to find, nothing that overflows."""
    now = CLOCK.now()
    rows = [
        ListEntry("mule_accounts", "c-1", "a feed", "aml", "feed", now - timedelta(days=9), now - timedelta(days=1)),
        ListEntry("mule_accounts", "c-2", "a case", "lin", "console", now, now + timedelta(days=30)),
    ]
    ask(site, lambda repository: repository.lists.add_many(rows, "test"))
    desk = desk_of("mei", language=language, theme=theme, size=size)
    desk.page.set_default_timeout(TRIAL_MS)
    for path in (
        "/console/rules", "/console/rules?q=nothing-like-it", "/console/new-rule", "/console/releases/1",
        "/console/rules/none", "/console/lists", "/console/lists?value=c-2", "/console/lists?value=c-3",
        "/console/lists/bad_ips",
    ):  # fmt: skip
        desk.page.goto(desk.url + path)
        check(desk, path)
    desk.page.goto(f"{desk.url}/console/rules/{RULE}")
    check(desk, "rule")
    write(desk, desk.page.locator("#text").input_value().replace("amount_base is missing", "amount_bose is missing"))
    desk.page.wait_for_selector(".problems")
    check(desk, "mistake")
    desk.page.goto(f"{desk.url}/console/rules/{RULE}")
    desk.press("b")
    desk.page.wait_for_selector("#backtest[data-done]", timeout=TRIAL_MS)
    check(desk, "backtest")
    desk.press("s")
    desk.page.wait_for_selector(".diff")
    check(desk, "changed")
    propose(desk, "on trial")
    desk.page.wait_for_url("**/console/releases/2", timeout=TRIAL_MS)
    desk.press("r")
    check(desk, "release")
    desk.page.goto(f"{desk.url}/console/lists/mule_accounts")
    desk.press("n")
    check(desk, "adding")
    desk.press("Escape", "j", "x")
    check(desk, "removing")

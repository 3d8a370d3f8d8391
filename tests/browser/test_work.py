"""Working cases by keys alone, as a person at a desk does: open, read, dispose, take back, next; two at once; live."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Literal

from console_support import CLOCK, RAW_TEXT_KEY, Desk, Site, ask, case_of, open_first, queue_of

from fraudguard.api import examples
from fraudguard.assembly import load_parts, open_pipeline
from fraudguard.decisions.casebook import Disposition
from fraudguard.decisions.evidence import Evidence
from fraudguard.domain import Contribution, Message, Received, Transaction
from fraudguard.events.masking import seal


def test_a_case_is_cleared_by_keys_alone_and_can_be_taken_back(desk_of: Callable[..., Desk], site: Site) -> None:
    """Sign in, open, walk the lines that moved the score, stop it for the first reason, undo, again, next case."""
    first, second, *_ = queue_of(site)
    desk = desk_of("lin")
    assert open_first(desk) == first.case_id
    desk.press("]")
    assert desk.page.locator(".line.at").count() == 1
    desk.press("b")
    assert desk.page.locator("#verdict-block button").count() == 6
    desk.press("1")
    desk.page.wait_for_url(re.compile(f"cases/{second.case_id}.closed={first.case_id}"))
    closed = case_of(site, first.case_id)
    assert (closed.disposition, closed.reason, closed.closed_by) == (
        Disposition.CONFIRMED_FRAUD,
        "customer_denies",
        "lin",
    )
    desk.press("Control+z")
    desk.page.wait_for_url(f"**/cases/{first.case_id}")
    assert case_of(site, first.case_id).state == "open"
    desk.press("a", "1")
    desk.page.wait_for_url(re.compile(f"cases/{second.case_id}.closed={first.case_id}"))
    assert case_of(site, first.case_id).disposition is Disposition.FALSE_POSITIVE
    desk.press("Escape")
    desk.page.wait_for_url("**/console/queue")
    desk.page.wait_for_selector("[data-row]")
    assert desk.page.locator("[data-row]").first.get_attribute("data-id") == second.case_id


def test_rows_are_chosen_claimed_and_put_to_sleep_by_keys(desk_of: Callable[..., Desk], site: Site) -> None:
    """j and k move, c claims and gives back, z takes the row out of the inbox."""
    cases = queue_of(site)
    desk = desk_of("lin")
    desk.press("j", "j", "k")
    current = desk.page.locator("[data-row].current")
    assert current.get_attribute("data-id") == cases[1].case_id
    with desk.page.expect_response("**/claim"):
        desk.press("c")
    desk.page.wait_for_selector("[data-row].current .holder:has-text('you')")
    assert case_of(site, cases[1].case_id).claimed_by == "lin"
    with desk.page.expect_response("**/release"):
        desk.press("c")
    desk.page.wait_for_selector("[data-row].current .holder:has-text('unclaimed')")
    with desk.page.expect_response("**/snooze"):
        desk.press("z")
    desk.page.wait_for_selector(f"[data-row]:not([data-id='{cases[1].case_id}'])")
    desk.page.wait_for_selector(f"[data-id='{cases[1].case_id}']", state="detached")
    assert desk.page.locator(".tabs a", has_text="Snoozed").locator(".count").inner_text() == "1"


def test_of_two_analysts_one_wins_and_the_other_is_told(desk_of: Callable[..., Desk], site: Site) -> None:
    """Both have the case open; the second verdict changes nothing and says why."""
    one, other = desk_of("lin"), desk_of("wang")
    case_id = open_first(one)
    assert open_first(other) == case_id
    one.press("b", "1")
    one.page.wait_for_url(re.compile(f"closed={case_id}"))
    other.press("a", "1")
    other.page.wait_for_selector("#notice:has-text('lin')")
    stored = case_of(site, case_id)
    assert (stored.disposition, stored.closed_by) == (Disposition.CONFIRMED_FRAUD, "lin")


def test_a_new_alert_appears_in_the_open_queue_by_itself(desk_of: Callable[..., Desk], site: Site) -> None:
    """A scam is screened while an analyst looks at the queue: its row comes, marked, and the chosen row stays."""
    desk = desk_of("lin")
    desk.press("j")
    chosen = desk.page.locator("[data-row].current").get_attribute("data-id")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, _scam(site)).result(timeout=120)
    desk.page.wait_for_selector("[data-row].fresh-row:has-text('a-live')", timeout=5_000)
    assert desk.page.locator("[data-row].current").get_attribute("data-id") == chosen


async def _scam(site: Site, sealed: str | None = None) -> None:
    """A chat and a payment, decided; sealed: the unmasked text that is kept of both."""
    box = None if sealed is None else seal(sealed, RAW_TEXT_KEY)
    parts = load_parts(site.settings)
    now = CLOCK.now()
    told: list[dict[str, Any]] = [dict(examples.MESSAGE), dict(examples.TRANSACTION)]
    events = [
        kind.model_validate(
            one
            | {
                "event_id": f"live-{place}",
                "account_id": "a-live",
                "event_time": (now - timedelta(seconds=9 - place)).isoformat(timespec="milliseconds"),
            }
        )
        for place, (kind, one) in enumerate(zip((Message, Transaction), told, strict=True))
    ]
    async with open_pipeline(site.settings, parts, CLOCK) as pipeline:
        await pipeline.screen([Received(event, now, box) for event in events])
    parts.close()


def test_a_viewer_reads_and_cannot_change(desk_of: Callable[..., Desk], site: Site) -> None:
    """No button, no key, and the server refuses the request itself."""
    desk = desk_of("guo")
    case_id = open_first(desk)
    assert "does not close" in desk.page.locator(".state:not(.changed)").inner_text()
    desk.press("b", "1")
    assert desk.page.locator(".verdict").count() == 0
    sent = """([path, token]) => fetch(path, {method: "POST", body: "reason=customer_denies&seen=1",
        headers: {"X-CSRF-Token": token, "Content-Type": "application/x-www-form-urlencoded"}}).then(r => r.status)"""
    token = desk.page.evaluate('fetch("/v1/session").then(r => r.json()).then(who => who.csrf_token)')
    assert desk.page.evaluate(sent, [f"/console/cases/{case_id}/dispose", token]) == 403
    assert case_of(site, case_id).state == "open"


def test_a_change_without_the_sessions_token_is_refused(desk_of: Callable[..., Desk], site: Site) -> None:
    """The cookie alone changes nothing."""
    desk = desk_of("lin")
    case_id = open_first(desk)
    sent = """path => fetch(path, {method: "POST", body: "seen=1"}).then(r => r.status)"""
    assert desk.page.evaluate(sent, f"/console/cases/{case_id}/claim") == 403
    assert case_of(site, case_id).claimed_by is None


def test_a_filter_is_typed_and_left_by_keys(desk_of: Callable[..., Desk], site: Site) -> None:
    """`/` types an account, enter asks, escape clears; an account without a case says so."""
    account = queue_of(site)[1].account_id
    desk = desk_of("lin")
    desk.press("/")
    desk.page.keyboard.type(account)
    desk.press("Enter")
    desk.page.wait_for_url(f"**account={account}*")
    assert desk.page.locator("[data-row]").count() == 1
    desk.press("/")
    desk.page.keyboard.type("nobody")
    desk.press("Enter")
    desk.page.wait_for_selector(".empty")
    assert desk.page.locator("[data-filter]").input_value() == "nobody"
    desk.press("Escape", "Escape")
    desk.page.wait_for_url("**/console/queue")


def test_a_line_is_unmasked_for_a_reason_and_that_is_logged(desk_of: Callable[..., Desk], site: Site) -> None:
    """`u` asks why; the text stands where the masked one stood, and the trail has who read it and why."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, _scam(site, sealed="请转到 6222021234567890123")).result(timeout=120)
    desk = desk_of("lin")
    desk.page.goto(f"{site.url}/console/queue?account=a-live")
    open_first(desk)
    desk.press("u")
    assert desk.page.locator("#notice").inner_text() != ""
    desk.press("]")
    line = desk.page.locator(".line.at")
    assert "6222021234567890123" not in line.inner_text()
    desk.press("u")
    desk.page.keyboard.type("complaint 4711")
    desk.press("Enter")
    desk.page.wait_for_selector(".line.at .raw:has-text('6222021234567890123')")
    decision_id = line.get_attribute("data-decision")
    deeds = ask(site, lambda repository: repository.cases.history(str(decision_id)))
    assert [(deed.actor, deed.action, dict(deed.detail)) for deed in deeds] == [
        ("lin", "text.read", {"reason": "complaint 4711"})
    ]


def test_what_leaving_out_takes_from_the_risk_leads_to_its_line(desk_of: Callable[..., Desk], site: Site) -> None:
    """Lines and values by their effect, those below a hundredth left out; a line's one goes there."""
    case, alerts = ask(site, lambda repository: repository.cases.get_case(queue_of(site)[0].case_id))
    top = max(alerts, key=lambda alert: (alert.event_type == "transaction", alert.risk or 0))
    effects: tuple[tuple[Literal["line", "feature"], str, float], ...] = (
        ("line", str(top.sequence), 0.31),
        ("feature", "amount_usual", 0.12),
        ("feature", "hour", 0.004),
    )
    found = tuple(Contribution(kind, name, effect) for kind, name, effect in effects)
    made = Evidence(top.decision_id, "m", 0.9, found, CLOCK.now())
    ask(site, lambda repository: repository.evidence.put(made))
    desk = desk_of("lin")
    assert open_first(desk) == case.case_id
    shown = desk.page.locator(".movers li").all_inner_texts()
    assert [text.split()[0] for text in shown] == ["+0.31", "+0.12"]
    assert "amount_usual" in shown[1]
    desk.page.locator(".movers a").first.click()
    assert desk.page.locator(".line.at").get_attribute("id") == f"line-{top.sequence}"


def test_a_case_is_told_in_words_that_lead_to_their_lines(desk_of: Callable[..., Desk], site: Site) -> None:
    """`t`, without a language model: the template tells it, says so, and its first line's number goes there."""
    desk = desk_of("lin")
    open_first(desk)
    desk.press("t")
    desk.page.wait_for_selector("#story .source:has-text('by a template')")
    link = desk.page.locator("#story .told a").first
    link.wait_for()
    assert "<" not in desk.page.locator("#story .told").inner_text()
    line = link.get_attribute("data-line")
    link.click()
    assert desk.page.locator(".line.at").get_attribute("id") == line


def test_next_walks_the_queue_and_begins_again(desk_of: Callable[..., Desk], site: Site) -> None:
    """`n` on each case in turn, without a verdict, comes by every case once and back to the first."""
    ids = [case.case_id for case in queue_of(site)]
    desk = desk_of("lin")
    seen = [open_first(desk)]
    for case_id in [*ids[1:], ids[0]]:
        desk.press("n")
        desk.page.wait_for_url(f"**/cases/{case_id}")
        seen.append(case_id)
    assert seen == [*ids, ids[0]]


def test_evidence_that_is_missing_is_asked_for(desk_of: Callable[..., Desk], site: Site) -> None:
    """Opening a case leaves a wish that a worker reads."""
    open_first(desk_of("lin"))
    assert ask(site, lambda repository: repository.evidence.claim(CLOCK.now()))

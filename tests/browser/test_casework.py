"""What a desk does beside verdicts, by keys: many at once, handing out, second looks, lists, links, files, search."""

import re
from collections.abc import Callable
from pathlib import Path

from console_support import CASE_PAGE, CLOCK, Desk, Site, ask, case_of, open_first, queue_of

from fraudguard.decisions.casebook import UNDO, Disposition


def saved(desk: Desk, *keys: str, to: str) -> None:
    """Keys after which the server answers, and the page shows what it says then."""
    with desk.page.expect_navigation(), desk.page.expect_response(re.compile(to)):
        desk.press(*keys)


def test_a_lead_hands_out_the_chosen_rows_and_is_told_of_the_one_that_was_overtaken(
    desk_of: Callable[..., Desk], site: Site
) -> None:
    """Three rows by x, one of them claimed elsewhere meanwhile: a name is typed, two are lin's, the third is named."""
    cases = queue_of(site)[:3]
    lead = desk_of("zhao")
    lead.press("x", "j", "x", "j", "x")
    assert lead.page.locator("tr.chosen").count() == 3
    other = desk_of("wang")
    with other.page.expect_response("**/claim"):
        other.press("c")
    lead.press("A")
    lead.page.keyboard.type("li")
    lead.page.wait_for_selector(
        "#assign-list button[value=lin]:first-child, #assign-list li:first-child button[value=lin]"
    )
    lead.press("Enter")
    lead.page.wait_for_selector("#done li")
    assert "2 assigned" in lead.page.locator("#done").inner_text()
    assert "wang" in lead.page.locator("#done li").inner_text()
    assert [case_of(site, case.case_id).assigned_to for case in cases] == [None, "lin", "lin"]
    lead.page.wait_for_selector("[data-row] .holder:has-text('lin')")
    assert lead.page.locator("tr.chosen").count() == 0
    lead.press("Escape")
    assert lead.page.locator("#done section").count() == 0


def test_many_are_closed_for_one_reason(desk_of: Callable[..., Desk], site: Site) -> None:
    """Shift-x chooses all, a and a digit close them; an analyst's x does nothing."""
    cases = queue_of(site)
    analyst = desk_of("lin")
    analyst.press("x", "b")
    assert analyst.page.locator("tr.chosen, .verdict:not([hidden])").count() == 0
    lead = desk_of("zhao")
    lead.press("X", "a", "3")
    lead.page.wait_for_selector("#done section")
    lead.page.wait_for_selector(".empty")
    assert {case_of(site, case.case_id).disposition for case in cases} == {Disposition.FALSE_POSITIVE}
    analyst.page.wait_for_selector(".empty")


def test_rows_are_filtered_and_ordered_by_keys(desk_of: Callable[..., Desk], site: Site) -> None:
    """`/` opens the filters, tab walks them, enter asks; `s` takes the next order."""
    cases = queue_of(site)
    desk = desk_of("lin")
    with desk.page.expect_navigation():
        desk.press("s")
    assert "order=loss" in desk.page.url
    losses = sorted(cases, key=lambda case: -case.expected_loss)
    assert desk.page.locator("[data-row]").first.get_attribute("data-id") == losses[0].case_id
    desk.press("/", "Tab", "Tab")
    desk.page.keyboard.type(str(int(losses[0].expected_loss)))
    with desk.page.expect_navigation():
        desk.press("Enter")
    assert desk.page.locator("[data-row]").count() == sum(
        c.expected_loss >= int(losses[0].expected_loss) for c in cases
    )


def test_a_step_up_is_asked_and_the_claim_runs_down(desk_of: Callable[..., Desk], site: Site) -> None:
    """c claims, and says how long; r and a reason ask; shift-c claims anew."""
    desk = desk_of("lin")
    case_id = open_first(desk)
    saved(desk, "c", to="/claim")
    assert re.search(r"1[45] min left", desk.page.locator("#claim").inner_text())
    desk.press("r")
    desk.page.keyboard.type("does she know the payee?")
    saved(desk, "Enter", to="/step-up")
    assert "step-up asked" in desk.page.locator(".case-head").inner_text()
    before = case_of(site, case_id)
    assert before.step_up_at is not None
    saved(desk, "C", to="/claim")
    assert case_of(site, case_id).version == before.version + 1


def test_one_alert_is_judged_apart_and_the_other_side_goes_on_a_list(desk_of: Callable[..., Desk], site: Site) -> None:
    """`v b` needs an alert; `v a` judges it alone; `l` ticks the list, the digit closes the case."""
    desk = desk_of("lin")
    case_id = open_first(desk)
    desk.press("v", "b")
    assert desk.page.locator("#notice").inner_text() != ""
    line = desk.page.locator(".line.alert").first
    line.locator(".score").click()
    desk.press("v", "a")
    assert desk.page.locator("#verdict-approve .about").inner_text() != ""
    saved(desk, "2", to="/dispose")
    _, alerts = ask(site, lambda repository: repository.cases.get_case(case_id))
    assert [alert.disposition for alert in alerts].count(Disposition.FALSE_POSITIVE) == 1
    assert desk.page.locator(".line:has-text('judged:')").count() == 1
    desk.press("l")
    ticked = desk.page.locator(".offer input:checked")
    name, _, value = str(ticked.get_attribute("value")).partition(":")
    desk.press("1")
    desk.page.wait_for_url(re.compile(f"closed={case_id}"))
    entries = ask(site, lambda repository: repository.lists.containing(value))
    assert [(entry.list, entry.owner) for entry in entries] == [(name, "lin")]


def test_a_lead_looks_again_at_what_an_analyst_closed(desk_of: Callable[..., Desk], site: Site) -> None:
    """The case lies in the inbox of reviews; b and the first reason agree."""
    case_id = queue_of(site)[0].case_id
    closed = case_of(site, case_id)
    past = CLOCK.now() - 2 * UNDO
    word = Disposition.CONFIRMED_FRAUD
    ask(site, lambda r: r.cases.dispose(case_id, closed.version, word, "customer_denies", "lin", past))
    desk = desk_of("zhao")
    desk.page.goto(f"{site.url}/console/queue?inbox=review")
    assert open_first(desk) == case_id
    desk.press("b")
    assert "agrees" in desk.page.locator("#verdict-block [data-digit='1']").inner_text()
    saved(desk, "1", to="/review")
    assert (case_of(site, case_id).review, case_of(site, case_id).reviewed_by) == ("agreed", "zhao")


def test_another_case_is_found_and_linked(desk_of: Callable[..., Desk], site: Site) -> None:
    """m, an account, arrow and enter, why, enter; both cases show it, and the trail says who."""
    first, second, *_ = queue_of(site)
    desk = desk_of("lin")
    open_first(desk)
    desk.press("m")
    desk.page.keyboard.type(second.account_id)
    desk.page.wait_for_selector(f"#join-list button[value='{second.case_id}']")
    desk.press("ArrowDown", "Enter")
    desk.page.keyboard.type("the same story")
    saved(desk, "Enter", to="/link")
    assert desk.page.locator(".linked a").get_attribute("href") == f"/console/cases/{second.case_id}"
    desk.press("h")
    desk.page.wait_for_selector(".trail li:has-text('the same story')")
    links = ask(site, lambda repository: repository.cases.folder(second.case_id)).links
    assert [link.case_id for link in links] == [first.case_id]


def test_a_file_is_attached_and_downloaded(desk_of: Callable[..., Desk], site: Site, tmp_path: Path) -> None:
    """f, a file, enter; what it says comes back as a download, and a type that is not taken is told at once."""
    wrong, right = tmp_path / "page.html", tmp_path / "talk.txt"
    wrong.write_text("<p>")
    right.write_text("he said so")
    desk = desk_of("lin")
    case_id = open_first(desk)
    desk.press("f")
    field = desk.page.locator("#attach-file")
    field.set_input_files(wrong)
    desk.page.locator("#verdict-attach button").click()
    desk.page.wait_for_selector("#notice:has-text('Only PDF')")
    field.set_input_files(right)
    with desk.page.expect_navigation():
        desk.page.locator("#verdict-attach button").click()
    with desk.page.expect_download() as download:
        desk.page.locator(".files a").click()
    assert Path(download.value.path()).read_text() == "he said so"
    deeds = ask(site, lambda repository: repository.cases.history(case_id))
    assert [deed.action for deed in deeds] == ["case.attach", "case.read_file"]


def test_somebody_elses_change_is_told_on_the_open_case(desk_of: Callable[..., Desk], site: Site) -> None:
    """The page says that it is no longer what the case is; `.` reads it again."""
    desk = desk_of("lin")
    case_id = open_first(desk)
    desk.page.wait_for_function("document.getElementById('fresh').textContent.length > 0")
    case = case_of(site, case_id)
    ask(site, lambda r: r.cases.note(case_id, case.version, "called: no answer", "wang", CLOCK.now()))
    desk.page.wait_for_selector("#changed:not([hidden])")
    with desk.page.expect_navigation():
        desk.press(".")
    assert "called: no answer" in desk.page.locator(".notes").inner_text()


def test_decisions_are_searched_in_the_language_of_rules(desk_of: Callable[..., Desk], site: Site) -> None:
    """A misspelt field is told while it is typed, with its fix; the condition finds what it should; o looks further."""
    desk = desk_of("guo")
    desk.press("g", "d")
    desk.page.wait_for_url("**/console/decisions")
    desk.press("/")
    desk.page.keyboard.type('outcom == "block"')
    desk.page.wait_for_selector(".where-faults:has-text('unknown field')")
    desk.page.locator("#where").fill("is_new_device and amount_base > 0")
    desk.press("Enter")
    desk.page.wait_for_url("**where=is_new_device*")
    desk.page.wait_for_selector(".more:has-text('Looked at all')")
    found = desk.page.locator("[data-row]").count()
    assert found > 0
    desk.press("Enter")
    desk.page.wait_for_selector(".features")
    assert desk.page.locator(".features tr:has(th:text-is('is_new_device')) td").inner_text() == "yes"


def test_the_picture_of_links_leads_to_what_it_shows(desk_of: Callable[..., Desk], site: Site) -> None:
    """An entity's box asks for the decisions that have it."""
    desk = desk_of("lin")
    open_first(desk)
    assert CASE_PAGE.search(desk.page.url)
    box = desk.page.locator(".graph a").nth(1)
    name = box.locator("title").text_content()
    box.focus()
    desk.press("Enter")
    desk.page.wait_for_url("**/console/decisions?where=*")
    assert f'"{name}"' in desk.page.locator("#where").input_value()
    desk.page.wait_for_selector("[data-row]")

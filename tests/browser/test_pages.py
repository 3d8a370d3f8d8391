"""Every page in both languages, both themes and two sizes: axe finds nothing, nothing overflows, the policy holds."""

from collections.abc import Callable

import pytest
from console_support import LOOKS, Desk, check

from fraudguard.api.console.keys import KEYS

PAGES = {
    "queue": "/console/queue",
    "empty inbox": "/console/queue?account=nobody",
    "decisions": "/console/decisions",
    "no decision": "/console/decisions?account=nobody",
    "bad filter": "/console/decisions?risk=much",
    "missing": "/console/cases/none",
}
WITHOUT_BUTTONS = ("everywhere", "queue", "case", "decisions")  # the keys of other places press buttons of their pages


@pytest.mark.parametrize(("language", "theme", "size"), LOOKS)
def test_every_page_is_accessible(
    desk_of: Callable[..., Desk], language: str, theme: str, size: tuple[int, int]
) -> None:
    """Pages, a case, a decision, the help and an open choice of reasons."""
    desk = desk_of("", language=language, theme=theme, size=size)
    check(desk, "sign in")
    desk = desk_of("lin", language=language, theme=theme, size=size)
    for what, path in PAGES.items():
        desk.page.goto(desk.url + path)
        check(desk, what)
    desk.page.goto(f"{desk.url}/console/queue")
    desk.press("Enter")
    desk.page.wait_for_selector(".line")
    check(desk, "case")
    desk.press("b")
    check(desk, "reasons")
    desk.press("Escape", "?")
    check(desk, "help")
    desk.page.goto(f"{desk.url}/console/decisions?outcome=block")
    desk.press("Enter")
    desk.page.wait_for_selector(".features")
    check(desk, "decision")
    assert desk.page.locator("html").get_attribute("lang") == ("zh-CN" if language == "zh" else "en")


def test_every_key_has_an_action_and_the_help_shows_it(desk_of: Callable[..., Desk]) -> None:
    """The table that `?` draws is the one that the script acts by."""
    desk = desk_of("lin")
    actions = set(desk.page.evaluate("Object.keys(window.fraudguard.actions)"))
    actions |= set(desk.page.locator("[data-go]").evaluate_all("all => all.map(one => one.dataset.go)"))
    assert {key.action for key in KEYS if key.place in WITHOUT_BUTTONS and not key.leads} <= actions
    desk.press("?")
    shown = desk.page.locator("#help [data-action]").evaluate_all("all => all.map(one => one.dataset.action)")
    assert set(shown) == {key.action for key in KEYS if key.place in ("queue", "everywhere") and not key.leads}
    desk.press("Escape")
    assert not desk.page.locator("#help").is_visible()


def test_language_and_theme_are_switched_by_keys_and_kept(desk_of: Callable[..., Desk]) -> None:
    """Shift-l and shift-d; the next page has them too."""
    desk = desk_of("lin")
    with desk.page.expect_navigation():
        desk.press("Shift+L")
    desk.press("Shift+D", "g")
    with desk.page.expect_navigation():
        desk.press("d")
    assert desk.page.locator("html").get_attribute("lang") == "zh-CN"
    assert desk.page.locator("html").get_attribute("data-theme") == "dark"


def test_an_inline_script_does_not_run(desk_of: Callable[..., Desk]) -> None:
    """The policy holds in the browser, not only in a header."""
    desk = desk_of("lin")
    run = """() => {
        const script = document.createElement("script");
        script.textContent = "window.injected = true";
        document.body.append(script);
        return window.injected === true;
    }"""
    assert desk.page.evaluate(run) is False
    assert any("Content Security Policy" in text for text in desk.problems)
    desk.problems.clear()

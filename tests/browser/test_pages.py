"""Every page in both languages, both themes and two sizes: axe finds nothing, nothing overflows, the policy holds."""

from collections.abc import Callable

import pytest
from console_support import CLOCK, LOOKS, Desk, Site, ask, check, serving
from pydantic import SecretStr

from fraudguard.api.auth import COOKIE
from fraudguard.api.console.keys import KEYS
from fraudguard.domain import Role
from fraudguard.embedded.supervisor import free_port

PAGES = {
    "queue": "/console/queue",
    "empty inbox": "/console/queue?account=nobody",
    "nothing to review": "/console/queue?inbox=review",
    "bad amount": "/console/queue?least=much",
    "decisions": "/console/decisions",
    "no decision": "/console/decisions?account=nobody",
    "bad filter": "/console/decisions?risk=much",
    "search": "/console/decisions?where=amount_base+%3E+0",
    "bad search": "/console/decisions?where=amount_bse+%3E+0",
    "missing": "/console/cases/none",
}


@pytest.mark.parametrize(("language", "theme", "size"), LOOKS)
def test_every_page_is_accessible(
    desk_of: Callable[..., Desk], language: str, theme: str, size: tuple[int, int]
) -> None:
    """Pages, a case, a decision, the help and an open choice of reasons."""
    desk = desk_of("", language=language, theme=theme, size=size)
    check(desk, "sign in")
    desk = desk_of("zhao", language=language, theme=theme, size=size)
    for what, path in PAGES.items():
        desk.page.goto(desk.url + path)
        check(desk, what)
    desk.page.goto(f"{desk.url}/console/queue")
    desk.press("x", "j", "x", "A")
    desk.page.wait_for_selector("#assign-list button")
    check(desk, "handing out")
    desk.press("Escape", "b")
    check(desk, "many reasons")
    desk.press("Escape", "Escape", "/")
    check(desk, "filters")
    desk.press("Escape", "Enter")
    desk.page.wait_for_selector(".line")
    check(desk, "case")
    desk.press("b")
    check(desk, "reasons")
    desk.press("Escape", "m")
    desk.page.wait_for_selector("#join-list li")
    check(desk, "joining")
    desk.press("Escape", "f")
    check(desk, "attaching")
    desk.press("Escape", "h")
    desk.page.wait_for_selector(".trail-here > *")
    check(desk, "trail")
    desk.press("?")
    check(desk, "help")
    desk.page.goto(f"{desk.url}/console/decisions?outcome=block")
    desk.press("Enter")
    desk.page.wait_for_selector(".features")
    check(desk, "decision")
    assert desk.page.locator("html").get_attribute("lang") == ("zh-CN" if language == "zh" else "en")


def test_what_is_not_there_now_is_accessible_too(desk_of: Callable[..., Desk], site: Site) -> None:
    """A store that does not answer, a page for other roles, a page that has not heard for forty seconds."""
    key = ask(site, lambda repository: repository.keys.create(Role.SERVICE, "gateway", "test", CLOCK.now()))
    gone = site.settings.model_copy(
        update={"database_url": SecretStr("postgresql://nobody@127.0.0.1:1/none"), "api_port": free_port()}
    )
    for theme in ("light", "dark"):
        desk = desk_of("", theme=theme)
        with serving(gone) as away:
            cookie = {"name": COOKIE, "value": "x", "url": away.url}
            desk.page.context.add_cookies([cookie])  # type: ignore[list-item]  # a cookie of its kind
            desk.page.goto(f"{away.url}/console/queue")
            assert desk.page.locator(".status").inner_text() == "503"
            check(desk, "no store")
        desk.page.context.set_extra_http_headers({"X-API-Key": key})
        desk.page.goto(f"{site.url}/console/queue")
        assert desk.page.locator(".status").inner_text() == "403"
        check(desk, "forbidden")
        desk = desk_of("guo", theme=theme)
        desk.page.clock.install()
        desk.page.goto(f"{site.url}/console/queue")
        desk.page.wait_for_selector("[data-row]")
        desk.page.context.set_offline(True)
        desk.page.clock.fast_forward(40_000)
        desk.page.wait_for_selector("#fresh.stale:has-text('reconnecting')")
        check(desk, "stale")
        # htmx logs what it could not fetch while there was no network.
        desk.problems[:] = [one for one in desk.problems if not one.startswith("htmx:")]


def test_every_key_has_an_action_and_the_help_shows_it(desk_of: Callable[..., Desk]) -> None:
    """The table that `?` draws is the one that the script acts by."""
    desk = desk_of("lin")
    keys_of = "() => [...document.querySelectorAll('#help [data-action]')].map((one) => one.dataset.action)"
    links = "[...document.querySelectorAll('[data-go]')].map((one) => one.dataset.go)"
    known = f"() => [...Object.keys(fraudguard.actions), ...{links}]"
    for place, path in (("queue", "/console/queue"), ("decisions", "/console/decisions"), ("case", "")):
        if path:
            desk.page.goto(desk.url + path)
        else:
            desk.page.goto(f"{desk.url}/console/queue")
            desk.press("Enter")
            desk.page.wait_for_selector(".line")
        shown = set(desk.page.evaluate(keys_of))
        assert shown == {key.action for key in KEYS if key.place in (place, "everywhere") and not key.leads}
        assert shown <= set(desk.page.evaluate(known))
    desk.press("?")
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

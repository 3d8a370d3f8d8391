"""Signing in with an OpenID provider in a real browser: another site, so that its rules for cookies count."""

from collections.abc import Callable, Iterator

import pytest
from console_support import NOBODY, Desk, Site, check, serving
from oidc_support import IdProvider, provider
from support import settings_for

from fraudguard.domain import Role
from fraudguard.embedded.supervisor import free_port


@pytest.fixture
def idp() -> Iterator[IdProvider]:
    """At localhost, while the console is at 127.0.0.1."""
    with provider() as running:
        running.knows("sub-1", preferred_username="Wang.Wei", groups=["fraud-analysts"])
        running.knows("sub-2", preferred_username="li.na", groups=["all"])
        yield running


@pytest.fixture
def site(database_of: Callable[..., object], filled_template: str, idp: IdProvider) -> Iterator[Site]:
    """A console over stories of its own, whose people may come from that provider."""
    with database_of(filled_template) as url:  # type: ignore[attr-defined]  # a context of the conftest's
        port = free_port()
        plain = settings_for(NOBODY, url, api_port=port)
        roles = {"fraud-analysts": Role.ANALYST.value}
        with serving(idp.settings(plain, f"http://127.0.0.1:{port}", **roles)) as served:
            yield served


def go(desk: Desk, sub: str) -> None:
    """To the provider by keys alone, and back as this person of its own."""
    desk.page.wait_for_selector("text=Bank ID")
    desk.press("Tab", "Tab", "Tab", "Enter")
    desk.page.wait_for_url("http://localhost:*/**")
    desk.page.fill("input[name=sub]", sub)
    desk.press("Enter")


def test_a_person_comes_in_by_the_provider(desk_of: Callable[..., Desk]) -> None:
    """Straight to where they wanted to go, with a session that no redirect loses; without it, and refused, in words."""
    desk = desk_of("", language="zh", theme="dark")
    desk.page.goto(f"{desk.url}/console/decisions?outcome=block")
    check(desk, "sign-in with a provider")
    go(desk, "sub-1")
    desk.page.wait_for_url(f"{desk.url}/console/decisions?outcome=block")
    assert "wang.wei" in desk.page.inner_text("header")

    second = desk_of("", size=(1024, 768))
    go(second, "sub-2")
    assert "no role here" in second.page.inner_text("[role=alert]")
    check(second, "sign-in refused")
    go(second, "sub-1")
    second.page.wait_for_selector("[data-row]")

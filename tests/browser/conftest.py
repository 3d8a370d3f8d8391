"""The console in a real Chromium: a database of screened stories, cloned for each test, and the API that serves it.

Skipped where playwright or Chromium is missing; `make test-browser` installs both.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from console_support import NOBODY, PASSWORD, RAW_TEXT_KEY, Desk, Site, fill, serving
from pydantic import SecretStr
from sqlalchemy import make_url
from support import settings_for

from fraudguard.embedded.supervisor import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run make test-browser")

DatabaseOf = Callable[[str], AbstractContextManager[str]]
# What a refused request logs; a test that provokes one asks for its notice itself.
REFUSED = ("Failed to load resource", "Response Status Error Code")
WAIT_MS = 60_000  # a hang
QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def _chromium() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("Chromium is not installed: run make test-browser, or set CHROMIUM")
    return found


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """One Chromium for all tests."""
    sandbox = () if os.geteuid() else ("--no-sandbox",)  # root has none
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_chromium(), args=["--headless", *sandbox, *QUIET])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def filled_template(database_of: DatabaseOf, migrated_template: str) -> Iterator[str]:
    """The name of a database with decided stories and people, only ever cloned."""
    with database_of(migrated_template) as url:
        with ThreadPoolExecutor(1) as pool:  # a thread of its own, for playwright holds this one's event loop
            pool.submit(asyncio.run, fill(settings_for(NOBODY, url))).result(timeout=300)
        yield str(make_url(url).database)


@pytest.fixture
def site(database_of: DatabaseOf, filled_template: str) -> Iterator[Site]:
    """A console over stories of its own."""
    with database_of(filled_template) as url:
        key = SecretStr(RAW_TEXT_KEY)
        others = {"api_port": free_port(), "raw_text_key": key, "review_percent": 100.0}
        with serving(settings_for(NOBODY, url, **others)) as served:
            yield served


@pytest.fixture
def desk_of(browser: "Browser", site: Site) -> Iterator[Callable[..., Desk]]:
    """Opens a window and signs somebody in by keys alone; what the browser complains of fails the test."""
    contexts: list[BrowserContext] = []
    desks: list[Desk] = []

    def open_desk(
        name: str, *, language: str = "en", theme: str = "light", size: tuple[int, int] = (1280, 800)
    ) -> Desk:
        width, height = size
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,  # type: ignore[arg-type]  # the two words are among its own
            locale="zh-CN" if language == "zh" else "en-US",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        desk = Desk(page, site.url, [])
        desks.append(desk)
        page.on("console", lambda m: desk.problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: desk.problems.append(str(error)))
        page.goto(f"{site.url}/console/queue")
        if name:
            page.keyboard.type(name)
            desk.press("Tab")
            page.keyboard.type(PASSWORD)
            desk.press("Enter")
            page.wait_for_selector("[data-row]")
        return desk

    yield open_desk
    for context in contexts:
        context.close()
    for desk in desks:
        assert [text for text in desk.problems if not text.startswith(REFUSED)] == []

"""What the console's tests share: screened stories in a database, the API that serves them, a person's window."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from cryptography.fernet import Fernet
from support import wait_until

from fraudguard.accounts import new_password
from fraudguard.api.app import create_app
from fraudguard.assembly import load_parts, open_pipeline
from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.decisions.repository import connect
from fraudguard.domain import Received, Role
from fraudguard.stories import generate

if TYPE_CHECKING:
    from playwright.sync_api import Page

CLOCK = SystemClock()
PEOPLE = {
    "lin": Role.ANALYST,
    "wang": Role.ANALYST,
    "guo": Role.VIEWER,
    "mei": Role.RULE_EDITOR,
    "sun": Role.RULE_EDITOR,
}
PASSWORD, PASSWORD_HASH = new_password()
RAW_TEXT_KEY = Fernet.generate_key().decode()
NOBODY = "127.0.0.1:1"  # no Kafka: the console needs none, and readiness is not asked here
AXE = Path(__file__).parent / "browser" / "vendor" / "axe-4.14.1.min.js"
GUIDELINES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}
LOOKS = [
    ("en", "light", (1280, 800)),
    ("zh", "dark", (1280, 800)),
    ("zh", "light", (1024, 768)),
    ("en", "dark", (1024, 768)),
]


@dataclass(frozen=True, slots=True)
class Site:
    """A served console."""

    url: str
    settings: Settings


async def screen_stories(settings: Settings, accounts: int, frauds: int, seed: int) -> None:
    """Decide a cast's last two days with the starter model, as a worker would."""
    parts = load_parts(settings)
    now = CLOCK.now()
    cast = generate(seed, accounts, now - timedelta(days=2), 2, frauds, "heldout")
    events = [told.event for told in cast.events if told.event.event_time <= now]
    async with open_pipeline(settings, parts, CLOCK) as pipeline:
        for first in range(0, len(events), 64):
            await pipeline.screen([Received(event, event.event_time) for event in events[first : first + 64]])
    parts.close()


async def fill(settings: Settings) -> None:
    """Stories and people."""
    await screen_stories(settings, 16, 4, 7)
    async with connect(settings.database_url.get_secret_value()) as repository:
        for name, role in PEOPLE.items():
            await repository.people.create(name, role, PASSWORD_HASH, "test", CLOCK.now())


@contextmanager
def serving(settings: Settings) -> Iterator[Site]:
    """The API in a thread of its own, on its port."""
    config = uvicorn.Config(create_app(settings, CLOCK), port=settings.api_port, log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive(), "the API serves")
    try:
        yield Site(f"http://127.0.0.1:{settings.api_port}", settings)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(30)


@dataclass
class Desk:
    """A browser window of one person. problems: what the browser complained of, a broken policy above all."""

    page: "Page"
    url: str
    problems: list[str]

    def press(self, *keys: str) -> None:
        """One key after the other."""
        for key in keys:
            self.page.keyboard.press(key)


def check(desk: Desk, what: str) -> None:
    """Nothing for axe to find, and nothing that scrolls sideways."""
    # Evaluated by the test's own connection, which the page's policy does not rule.
    desk.page.evaluate(AXE.read_text())
    found: Any = desk.page.evaluate("guidelines => axe.run(document, guidelines)", GUIDELINES)
    said = [(one["id"], one["help"], [node["html"][:160] for node in one["nodes"]]) for one in found["violations"]]
    assert said == [], what
    assert desk.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{what} is wider than the window"

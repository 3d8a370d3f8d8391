"""The model and operations pages: their keys, their refusals, axe in both themes and languages; letters by keys."""

from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta

import pytest
from console_support import CLOCK, LOOKS, PASSWORD, PASSWORD_HASH, Desk, Site, ask, check, serving
from kafka import KafkaProducer
from sealed import metrics_of
from support import settings_for

from fraudguard.decisions.casebook import CaseFilter, Disposition
from fraudguard.decisions.models import Head, Model
from fraudguard.decisions.repository import Repository
from fraudguard.domain import Role
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.embedded.supervisor import free_port
from fraudguard.errors import BadEvent
from fraudguard.events.dead_letter import DeadLetter
from fraudguard.events.topics import DEAD_LETTERS, ensure_topics

ADMIN, LEAD = "qian", "zhao"


async def staff(repository: Repository) -> None:
    """Who may do what leads may not."""
    await repository.people.create(ADMIN, Role.ADMIN, PASSWORD_HASH, "test", CLOCK.now())


async def judge(repository: Repository) -> None:
    """All cases but two, every second one fraud."""
    waiting = await repository.cases.list_cases(CaseFilter(state="unclosed", at=CLOCK.now()))
    for place, case in enumerate(waiting.items[2:]):
        found = Disposition.FALSE_POSITIVE if place % 2 else Disposition.CONFIRMED_FRAUD
        await repository.cases.dispose(case.case_id, case.version, found, "x", "test", CLOCK.now())


def models(*precisions: float) -> Callable[[Repository], Awaitable[None]]:
    """A champion with the first average precision, a challenger with the second."""

    async def register(repository: Repository) -> None:
        book = repository.models
        for step, precision in enumerate(precisions):
            version = f"{step + 1}.0"
            model = Model(f"{step + 1}" * 64, "fraud", version, "", "words-1", "/nowhere")
            await book.add(model, metrics_of(version, {"average_precision": precision}), "cli:ana", CLOCK.now())
            await book.take("shadow" if step else "promote", model, "cli:ana", "", CLOCK.now(), expected=step)

    return register


def champion(site: Site) -> str | None:
    """Who stands."""

    async def read(repository: Repository) -> Head | None:
        return await repository.models.head()

    head = ask(site, read)
    return head.champion.id if head and head.champion else None


@pytest.fixture
def staffed(site: Site) -> Site:
    """With a lead and an administrator, and judged cases."""
    ask(site, staff)
    ask(site, judge)
    return site


@pytest.mark.parametrize(("language", "theme", "size"), LOOKS)
def test_both_pages_are_accessible(
    staffed: Site, desk_of: Callable[..., Desk], language: str, theme: str, size: tuple[int, int]
) -> None:
    """Without and with a challenger, with a question open, and where Kafka is away."""
    desk = desk_of(ADMIN, language=language, theme=theme, size=size)
    desk.page.goto(f"{desk.url}/console/model")
    check(desk, "model")
    ask(staffed, models(0.6, 0.5))
    desk.page.reload()
    desk.press("p")
    check(desk, "model with a challenger")
    assert desk.page.locator(".chart circle").count() >= 2
    desk.page.goto(f"{desk.url}/console/operations")
    desk.page.wait_for_selector("#kafka .problem")
    desk.page.wait_for_selector("#list .problem")
    check(desk, "operations without Kafka")


def test_a_worse_challenger_is_refused_in_words_and_a_better_one_promoted(
    staffed: Site, desk_of: Callable[..., Desk]
) -> None:
    """By keys alone: g m, p, why, Enter; then r takes it back."""
    ask(staffed, models(0.6, 0.5))
    desk = desk_of(ADMIN)
    desk.press("g", "m")
    desk.page.wait_for_selector(".gate li")
    desk.page.wait_for_load_state()
    assert {"promote", "roll_back"} <= set(desk.page.evaluate("Object.keys(window.fraudguard.actions)"))
    desk.press("p")
    desk.page.keyboard.type("the newest labels")
    desk.press("Enter")
    desk.page.locator("#notice", has_text="0.5000").wait_for()
    assert "the champion's is 0.6000" in desk.page.locator("#notice").inner_text()
    assert champion(staffed) == "fraud@1.0"

    async def better(repository: Repository) -> None:
        head = await repository.models.head()
        assert head
        model = Model("3" * 64, "fraud", "3.0", "", "words-1", "/nowhere")
        await repository.models.add(model, metrics_of("3.0", {"average_precision": 0.7}), "cli:ana", CLOCK.now())
        await repository.models.take("shadow", model, "cli:ana", "", CLOCK.now(), expected=head.step)

    ask(staffed, better)
    for key, after in (("p", "fraud@3.0"), ("r", "fraud@1.0")):
        desk.page.goto(f"{desk.url}/console/model")
        desk.press(key)
        desk.page.keyboard.type("as agreed")
        with desk.page.expect_navigation():
            desk.press("Enter")
        assert champion(staffed) == after
        assert desk.page.locator("h1").inner_text() == after


def test_roles_see_what_is_theirs(staffed: Site, desk_of: Callable[..., Desk]) -> None:
    """A viewer has the model without its deeds and no way to operations; a lead has operations without a replay."""
    ask(staffed, models(0.6, 0.7))
    desk = desk_of("guo")
    desk.press("g", "m")
    desk.page.wait_for_selector(".figures")
    desk.press("p")
    assert desk.page.locator(".verdict").count() == 0
    assert desk.page.locator("[data-go=go_operations]").count() == 0
    desk.page.goto(f"{desk.url}/console/operations")
    assert "not for your role" in desk.page.locator("main").inner_text()
    desk = desk_of(LEAD)
    desk.press("g", "o")
    desk.page.wait_for_selector("#list .problem, #list .nothing, #list [data-row]")
    assert desk.page.locator("[data-do=replay]").count() == 0


@pytest.fixture
def with_kafka(kafka: EmbeddedKafka, staffed: Site) -> Iterator[Site]:
    """The same store behind an API that has a Kafka, with a dead letter in it."""
    settings = settings_for(
        kafka.bootstrap,
        staffed.settings.database_url.get_secret_value(),
        api_port=free_port(),
    )
    ensure_topics(settings)
    error = BadEvent("the record is not JSON", code="bad_json", hint="send JSON")
    now = CLOCK.now()
    letter = DeadLetter(
        **{name: getattr(error, name) for name in ("code", "reason", "path", "hint")},
        topic="messages", partition=0, offset=7, key=b"a-1", source_time=now, time=now + timedelta(days=1),
        replays=0, size=9, raw=b"call 13800138000",
    )  # fmt: skip
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    producer.send(DEAD_LETTERS, letter.encode(), letter.key, list(letter.headers), 0)
    producer.close()
    with serving(settings) as served:
        yield served


def test_a_dead_letter_is_sent_again_by_keys(with_kafka: Site, desk_of: Callable[..., Desk]) -> None:
    """r asks, Enter sends, and the row says so; partitions have their lag beside them."""
    desk = desk_of(ADMIN)
    desk.page.context.clear_cookies()
    desk.page.goto(f"{with_kafka.url}/console/sign-in?next=/console/operations")
    desk.page.keyboard.type(ADMIN)
    desk.press("Tab")
    desk.page.keyboard.type(PASSWORD)
    desk.press("Enter")
    row = desk.page.locator("[data-row]").first
    row.wait_for()
    assert "<PHONE>" in row.inner_text()
    desk.page.wait_for_selector(".partitions tbody tr")
    assert desk.page.locator(".partitions tbody tr").count() == with_kafka.settings.topic_partitions
    check(desk, "operations with Kafka")
    desk.press("j", "r")
    assert desk.page.locator("#verdict-replay").is_visible()
    check(desk, "the question")
    desk.press("Enter")
    desk.page.wait_for_selector(".replayed")
    desk.page.locator(".replayed", has_text="1 sent").wait_for(timeout=40_000)
    assert "sent again" in desk.page.locator("[data-row]").first.inner_text()

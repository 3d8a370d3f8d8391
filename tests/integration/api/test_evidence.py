"""Evidence and narratives over HTTP: what is made is read, what is not is wished for, what people wrote stays data."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from api_support import CLOCK, Api, serving, until
from chat_peer import INJECTIONS, Peer, chat_peer, saying
from support import settings_for

from fraudguard.api import examples
from fraudguard.assembly import Parts, load_parts, open_pipeline
from fraudguard.config import Settings
from fraudguard.decisions.repository import connect
from fraudguard.domain import Message, Received, Role, Transaction
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.events.masking import mask_event
from fraudguard.events.topics import ensure_topics
from fraudguard.evidence import making_evidence

GREETING = "m-0"


@pytest.fixture(scope="module")
def scoring() -> Iterator[Parts]:
    """With the starter model."""
    parts = load_parts(settings_for("unused:1", "postgresql://unused", model="starter", precision="int8"))
    yield parts
    parts.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A server of chat completions that repeats what an injection wants."""
    async with chat_peer(saying("He paid [1]. ", *INJECTIONS, " [2][99]")) as peer:
        yield peer


@dataclass(frozen=True, slots=True)
class Desk:
    """An API over a decided story: its message, its payment, its case."""

    api: Api
    message: str
    payment: str
    case: str


@pytest.fixture
async def desk(kafka: EmbeddedKafka, database_url: str, scoring: Parts, peer: Peer) -> AsyncIterator[Desk]:
    """The examples' story with injections in its chat, decided by the starter, with evidence of the alert made."""
    settings = settings_for(kafka.bootstrap, database_url, narrative_url=peer.url, narrative_model="qwen")
    ensure_topics(settings)
    greeting = {**examples.MESSAGE, "event_id": GREETING, "text": "您好"}
    urging = {**examples.MESSAGE, "text": f"{examples.MESSAGE['text']} {' '.join(INJECTIONS[:3])}"}
    events = [*map(Message.model_validate, (greeting, urging)), Transaction.model_validate(examples.TRANSACTION)]
    async with (
        open_pipeline(settings, scoring, CLOCK) as pipeline,
        making_evidence(settings, pipeline, CLOCK) as screen,
    ):
        await screen([Received(mask_event(event), datetime.now(UTC)) for event in events])
        async with serving(settings) as api:
            page = (await api.send(Role.ANALYST, "GET", "/v1/cases")).json()
            message = (await api.repository.record_of_event(GREETING)).decision.decision_id
            yield Desk(api, message, examples.DECISION_ID, page["items"][0]["case_id"])


async def evidence(desk: Desk, decision_id: str) -> dict[str, Any]:
    """The decision's evidence, once it is made."""

    async def made() -> bool:
        return (await desk.api.send(Role.ANALYST, "GET", f"/v1/decisions/{decision_id}/evidence")).status_code == 200

    await until(made, "the evidence is made", timeout_s=300)
    found: dict[str, Any] = (await desk.api.send(Role.ANALYST, "GET", f"/v1/decisions/{decision_id}/evidence")).json()
    return found


async def test_what_needs_a_person_has_evidence_and_the_rest_when_asked(desk: Desk) -> None:
    """Lines with the risk after each and their effects, features with their values, rules with what they read."""
    found = await evidence(desk, desk.payment)
    assert [line["sequence"] for line in found["lines"]] == [1, 2, 3]
    assert all(line["risk"] is not None and line["effect"] is not None for line in found["lines"])
    assert found["lines"][-1]["decision_id"] == desk.payment
    assert abs(found["model_risk"] - found["risk"]) < 0.01
    families = {feature["name"]: feature for feature in found["features"] if feature["kind"] == "feature"}
    assert families["is_new_counterparty"]["values"] == {"is_new_counterparty": True}
    assert families["out_sum"]["values"]["out_sum_1d"] == 50_000.0
    rules = [asked for asked in found["asked"] if asked["source"] == "rule"]
    assert any(test["holds"] and (test["values"] or test["found"]) for rule in rules for test in rule["tests"])
    path = f"/v1/decisions/{desk.message}/evidence"
    first = await desk.api.send(Role.ANALYST, "GET", path)
    if first.status_code == 202:  # else the message was an alert itself
        assert (first.json(), first.headers["retry-after"]) == ({"decision_id": desk.message, "status": "waits"}, "1")
    assert (await evidence(desk, desk.message))["status"] == "made"
    assert (await desk.api.send(Role.SERVICE, "GET", path)).status_code == 403
    assert (await desk.api.send(Role.ANALYST, "GET", "/v1/decisions/none/evidence")).status_code == 404


async def told(desk: Desk, **query: str) -> tuple[list[tuple[str, Any]], str]:
    """The narrative's events, and its text with links as [n]."""
    path = f"/v1/cases/{desk.case}/narrative"
    response = await desk.api.send(Role.ANALYST, "GET", path, params=query)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    events, text = [], ""
    for block in response.text.strip().split("\n\n"):
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        match events[-1]:
            case "discard", _:
                text = ""
            case "text", {"text": more}:
                text += more
            case "link", {"number": number}:
                text += f"[{number}]"
    return events, text


async def test_a_narrative_is_grounded_and_injections_stay_data(desk: Desk, peer: Peer) -> None:
    """Marked as generated, linked to its items alone; the model saw the chat in its frame and was offered no tool."""
    await evidence(desk, desk.payment)
    before = await stored(desk.api)
    events, text = await told(desk, language="en")
    (_, head), (_, source), *_, (last, end) = events
    assert (head["generated"], head["language"], last, end) == (True, "en", "end", {"complete": True})
    assert source == {"by": "model", "model": "qwen", "why": None}
    numbers = {item["number"] for item in head["items"]}
    assert {data["number"] for name, data in events if name == "link"} == {1, 2} <= numbers
    assert text.startswith("He paid [1]. ")
    assert not set(text) & set("<>\"'")
    (asked,) = peer.asked
    assert set(asked) == {"model", "messages", "stream", "max_tokens", "temperature"}
    rules, frame = (message["content"] for message in asked["messages"])
    inside = frame.removeprefix("<evidence>\n").removesuffix("\n</evidence>")
    assert not set(inside) & set("<>")
    assert [json.loads(line)["item"] for line in inside.split("\n")] == sorted(numbers)
    assert "refund(account)" in inside, "the line that moved the risk brings its injections"
    assert "refund" not in rules
    assert examples.ACCOUNT_ID not in json.dumps(asked), "whose account it is, a model need not know"
    assert await stored(desk.api) == before, "a narrative changes nothing"


async def stored(api: Api) -> list[int]:
    """How many rows the tables of decisions, cases and deeds have, and the case as it stands."""
    async with api.repository._open() as connection:
        from sqlalchemy import text

        tables = ("decisions", "alerts", "audit", "labels", "dispositions", "evidence", "outbox")
        return [await connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in tables]


async def test_without_a_server_the_template_tells_it(desk: Desk, settings_without: Settings) -> None:
    """In Chinese unless English is asked for, with links to the same items."""
    await evidence(desk, desk.payment)
    async with serving(settings_without) as api:
        plain = Desk(api, desk.message, desk.payment, desk.case)
        events, text = await told(plain)
        assert events[1] == ("source", {"by": "template", "model": None, "why": "no_server"})
        assert "诈骗风险" in text
        assert "[1]" in text
        assert "The payment of CNY 50,000.00" in (await told(plain, language="en"))[1]
        missing = await api.send(Role.ANALYST, "GET", "/v1/cases/none/narrative")
        assert missing.status_code == 404
        refused = await api.send(Role.SERVICE, "GET", f"/v1/cases/{desk.case}/narrative")
        assert refused.status_code == 403


@pytest.fixture
def settings_without(kafka: EmbeddedKafka, database_url: str) -> Settings:
    """The same database, and no server for narratives."""
    return settings_for(kafka.bootstrap, database_url)


async def test_a_degraded_decision_has_rules_and_no_contributions(api: Api) -> None:
    """The model is off: nothing is wished for, and the answer says why there is nothing."""
    await api.send(Role.ADMIN, "POST", "/v1/screen", json=examples.TRANSACTION)
    found = await api.send(Role.ANALYST, "GET", f"/v1/decisions/{examples.DECISION_ID}/evidence")
    assert (found.status_code, found.json()["status"], found.json()["features"]) == (200, "none", [])
    assert found.json()["explained"]
    async with connect(api.settings.database_url.get_secret_value()) as repository:
        assert await repository.evidence.claim(CLOCK.now()) is None

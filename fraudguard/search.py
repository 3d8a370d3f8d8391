"""Stored decisions that a condition in the rules' own language holds of, the newest first.

Knows conditions, stored inputs and bounds: one search looks at LOOKED_MAX decisions or for LOOK_S, then says how far it
came and where to go on. What a condition reads is what was stored with the decision; lists are as they stand today.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from fraudguard.clock import Clock
from fraudguard.decisions.listing import DecisionFilter, Read, StoredBody
from fraudguard.decisions.pages import encode_cursor
from fraudguard.decisions.records import load_record
from fraudguard.decisions.repository import Repository
from fraudguard.domain import DecisionRecord, Feature, Scalar
from fraudguard.features.timeline import CHAT_SPAN, said
from fraudguard.rulebook import Publishing
from fraudguard.rules.questions import Question
from fraudguard.tenants import HOUSE

LOOKED_MAX: Final = 20_000  # decisions a search
LOOK_S: Final = 3.0
PART: Final = 500  # decisions a statement


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to. looked: at how many decisions; back_to: the event time of the last, None for none.

    next: the cursor to go on from; None where every decision was looked at.
    """

    records: tuple[DecisionRecord, ...]
    looked: int
    back_to: datetime | None
    next: str | None


async def fields_in_force(publishing: Publishing, built_in: Sequence[Feature]) -> Sequence[Feature]:
    """What a condition may name: the built-in features and what the rules in force declare."""
    head = await publishing.head()
    return built_in if head is None else (await publishing.pack(head)).rules.fields


async def search(
    repository: Repository, clock: Clock, question: Question, wanted: DecisionFilter, limit: int, cursor: str | None
) -> Found:
    """The first `limit` of those that the filter lets through and the question holds of. Raises BadInput."""
    deadline = clock.monotonic() + LOOK_S
    found: list[DecisionRecord] = []
    looked, back_to = 0, None
    while looked < LOOKED_MAX and clock.monotonic() < deadline:
        rows = await repository.list_bodies(wanted, PART, cursor)
        holding = await _judge(repository, question, rows)
        for row in rows:
            looked, back_to = looked + 1, row.event_time
            cursor = encode_cursor(row.event_time, row.decision_id)
            if row.decision_id in holding:
                found.append(load_record(row.body, None))
                if len(found) == limit:
                    return Found(tuple(found), looked, back_to, cursor)
        if len(rows) < PART:
            return Found(tuple(found), looked, back_to, None)
    return Found(tuple(found), looked, back_to, cursor)


async def _judge(repository: Repository, question: Question, rows: Sequence[StoredBody]) -> set[str]:
    """The ids of those that it holds of. Off the event loop, which has others to serve."""
    bodies = await asyncio.to_thread(lambda: [orjson.loads(row.body) for row in rows])
    talks: Mapping[str, Sequence[tuple[datetime, str]]] = {}
    if "chat" in question.names:
        reads = [
            Read(
                row.decision_id,
                decision["account_id"],
                body["timeline_start"],
                decision["sequence"],
                row.event_time,
                decision.get("tenant", HOUSE),
            )
            for row, body in zip(rows, bodies, strict=True)
            if (decision := body["decision"])
        ]
        talks = await repository.said_before(reads, CHAT_SPAN)
    entries = await _entries(repository, question, bodies)

    def judge() -> set[str]:
        return {
            row.decision_id
            for row, body in zip(rows, bodies, strict=True)
            if question.holds(_inputs(question, row, body, talks.get(row.decision_id, ()), entries))
        }

    return await asyncio.to_thread(judge)


async def _entries(
    repository: Repository, question: Question, bodies: Sequence[Mapping[str, Any]]
) -> Mapping[tuple[str, str], datetime | None]:
    asked = {
        (watch_list, value)
        for field, watch_list in question.memberships.values()
        for body in bodies
        if isinstance(value := body["features"].get(field), str)
    }
    return await repository.lists.members(asked)


def _inputs(
    question: Question,
    row: StoredBody,
    body: Mapping[str, Any],
    talk: Sequence[tuple[datetime, str]],
    entries: Mapping[tuple[str, str], datetime | None],
) -> dict[str, Scalar]:
    """What the condition may read of one decision."""
    score = body["score"]
    inputs: dict[str, Scalar] = {
        **body["features"],
        "chat": said(talk, row.event_time),
        "risk": score["risk"] if score else None,
        "typology": score["typology"] if score else None,
        "degraded": score is None,
    }
    for name, (field, watch_list) in question.memberships.items():
        value = inputs.get(field)
        if isinstance(value, str):
            until = entries.get((watch_list, value), row.event_time)
            inputs[name] = until is None or row.event_time < until
    return inputs

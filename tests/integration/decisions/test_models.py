"""The model registry's rows: one head, steps that make sense, one winner of a race, all of it audited."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions.models import Action, Head, Model, ModelBook, ShadowScore
from fraudguard.decisions.repository import Changes, Repository, StoredState
from fraudguard.decisions.tables import AUDIT, SHADOW_SCORES
from fraudguard.domain import DecisionRecord, Outcome, Typology
from fraudguard.errors import BadInput, Conflict, NotFound, StateConflict

AT = datetime(2026, 11, 22, 9, tzinfo=UTC)
A, B, C = (Model(letter * 64, "m", version, "", "t", f"/m/{version}") for letter, version in zip("abc", "123"))  # noqa: B905


@pytest.fixture
async def book(repository: Repository) -> ModelBook:
    """With three models in it."""
    for model in (A, B, C):
        await repository.models.add(model, None, "ana", AT)
    return repository.models


async def step(book: ModelBook, action: Action, model: Model | None) -> Head:
    """By ana, seeing what stands."""
    head = await book.head()
    return await book.take(action, model, "ana", "why", AT, expected=head.step if head else 0)


def standing(head: Head | None) -> tuple[Model | None, Model | None]:
    """Champion and challenger."""
    assert head is not None
    return head.champion, head.challenger


async def test_a_challenger_becomes_champion_and_is_taken_back(book: ModelBook) -> None:
    """What stands after each step is what the head says to every worker."""
    assert await book.head() is None
    assert standing(await step(book, "shadow", A)) == (None, A)
    assert standing(await step(book, "promote", A)) == (A, None)
    assert standing(await step(book, "shadow", B)) == (A, B)
    assert standing(await step(book, "shadow", C)) == (A, C)
    assert standing(await step(book, "promote", B)) == (B, C)
    assert standing(await step(book, "rollback", A)) == (A, C)
    assert standing(await step(book, "retire", C)) == (A, None)
    assert standing(await step(book, "rollback", None)) == (None, None)
    assert standing(await book.head()) == (None, None)
    states = {entry.model.id: entry.state for entry in await book.entries()}
    assert states == {"m@1": "retired", "m@2": "retired", "m@3": "retired"}


async def test_rollbacks_go_back_one_champion_after_the_other(book: ModelBook) -> None:
    """What was rolled back from is no former champion: a second rollback must not bring the bad one back."""
    for model in (A, B, C):
        await step(book, "promote", model)
    assert await book.former() == [B, A, None]
    await step(book, "rollback", B)
    assert await book.former() == [A, None]
    states = {entry.model.id: entry.state for entry in await book.entries()}
    assert states == {"m@1": "former", "m@2": "champion", "m@3": "retired"}
    with pytest.raises(Conflict, match=r"m@3 was no champion, or was rolled back from .promote it"):
        await step(book, "rollback", C)
    await step(book, "rollback", None)
    assert await book.former() == []
    await step(book, "promote", C)
    assert await book.former() == [None]


async def test_steps_that_make_no_sense_are_refused(book: ModelBook) -> None:
    """And change nothing."""
    await step(book, "promote", A)
    await step(book, "shadow", B)
    for action, model, message in (
        ("promote", A, "m@1 is the champion already"),
        ("shadow", A, "m@1 is the champion already"),
        ("retire", A, "m@1 is no challenger"),
        ("retire", C, "m@3 is no challenger"),
        ("rollback", B, "m@2 was no champion"),
    ):
        with pytest.raises(Conflict, match=message):
            await step(book, action, model)  # type: ignore[arg-type]  # one of its words
    with pytest.raises(BadInput, match="at most 2000"):
        await book.take("promote", B, "ana", "x" * 2001, AT, expected=2)
    assert standing(await book.head()) == (A, B)


async def test_of_two_who_step_at_once_one_is_told(book: ModelBook, other: Repository) -> None:
    """Both saw the same head; the second one must look again, whatever it wanted."""
    head = await step(book, "promote", A)
    for mine, theirs in ((("promote", B), ("promote", C)), (("rollback", None), ("shadow", A))):
        seen = head.step
        outcomes = await asyncio.gather(
            book.take(*mine, "ana", "", AT, expected=seen),  # type: ignore[arg-type]  # one of its words
            other.models.take(*theirs, "ben", "", AT, expected=seen),  # type: ignore[arg-type]  # likewise
            return_exceptions=True,
        )
        (won,) = [one for one in outcomes if isinstance(one, Head)]
        (lost,) = [one for one in outcomes if isinstance(one, Conflict)]
        assert "the registry is not as it was" in str(lost)
        assert won.actor in str(lost)
        assert standing(await other.models.head()) == standing(won)
        head = won


async def test_a_name_is_one_release(book: ModelBook) -> None:
    """Another one under the same name and version is refused; the same one may move; an ONNX export is one more."""
    with pytest.raises(Conflict, match=r"another release of ana is m@1: aaaaaaaaaaaa in /m/1 .give this one a version"):
        await book.add(replace(A, digest="f" * 64), None, "ben", AT)
    await book.add(replace(A, location="/elsewhere"), None, "ben", AT)
    assert (await book.find("m@1")).location == "/elsewhere"
    await book.add(replace(A, digest="f" * 64, graph="int8"), None, "ben", AT)
    assert (await book.find("m@1+onnx-int8")).digest == "f" * 64


async def test_models_are_found_by_name_or_digest(book: ModelBook) -> None:
    """A digest by its beginning, if that is long enough and one model's alone."""
    await book.add(Model("a" * 60 + "beef", "n", "1", "", "t", "/n"), None, "ana", AT)
    assert await book.find("m@2") == B
    assert await book.find("b" * 8) == B
    assert await book.find("a" * 64) == A
    for which, message in (("b" * 7, "no model"), ("m@9", "no model 'm@9'"), ("a" * 12, "2 models have a digest")):
        with pytest.raises(NotFound, match=message):
            await book.find(which)


async def test_every_step_is_audited(book: ModelBook, engine: AsyncEngine) -> None:
    """Who, what, why, what stood before, and over which objections."""
    await step(book, "shadow", A)
    await book.take("promote", A, "ben", "no time", AT, expected=1, forced=True, objections="worse")
    async with engine.connect() as connection:
        rows = (await connection.execute(select(AUDIT).order_by(AUDIT.c.id))).all()
    assert [(row.actor, row.action, row.subject) for row in rows] == [
        ("ana", "models.add", "m@1"), ("ana", "models.add", "m@2"), ("ana", "models.add", "m@3"),
        ("ana", "models.shadow", "m@1"), ("ben", "models.promote", "m@1"),
    ]  # fmt: skip
    assert rows[-1].detail == {
        "note": "no time", "digest": "a" * 64, "forced_over": "worse",
        "before": {"champion": None, "challenger": "m@1"}, "after": {"champion": "m@1", "challenger": None},
    }  # fmt: skip


@pytest.mark.parametrize("statement", ["UPDATE model_steps SET actor = 'x'", "DELETE FROM model_steps"])
async def test_steps_stay_as_they_were(book: ModelBook, engine: AsyncEngine, statement: str) -> None:
    """The database itself refuses a change."""
    await step(book, "shadow", A)
    with pytest.raises(DBAPIError, match="append-only"):
        async with engine.begin() as connection:
            await connection.execute(text(statement))


def shadow_of(record: DecisionRecord) -> ShadowScore:
    """What a challenger says of it."""
    decision_id, at = record.decision.decision_id, record.event.event_time
    return ShadowScore(A.digest, decision_id, at, "m@1+int8", 0.25, Typology.MULE, Outcome.STEP_UP, AT)


async def test_shadow_scores_are_stored_with_their_decisions_or_not_at_all(
    repository: Repository, other: Repository, engine: AsyncEngine, make: Callable[..., DecisionRecord]
) -> None:
    """A batch that loses its race leaves none; the same score cannot be stored twice."""
    first, second = make("a-1"), make("a-1")
    changes = Changes(records=[first], states={"a-1": StoredState(0, b"s")}, shadow=[shadow_of(first)])
    await repository.commit(changes)
    late = Changes(records=[second], states={"a-1": StoredState(0, b"s")}, shadow=[shadow_of(second)])
    with pytest.raises(StateConflict):
        await other.commit(late)
    with pytest.raises(StateConflict):
        await other.commit(Changes(shadow=[shadow_of(first)]))
    async with engine.connect() as connection:
        (row,) = (await connection.execute(select(SHADOW_SCORES))).all()
    assert row.decision_id == first.decision.decision_id
    (shadowed,) = [one async for one in repository.models.shadowed(A.digest)]
    assert (shadowed.event_time, shadowed.verdict) == (first.event.event_time, None)
    assert (shadowed.model, shadowed.risk) == (first.decision.model, first.decision.risk)
    assert (shadowed.outcome, shadowed.shadow_risk) == (first.decision.outcome, 0.25)

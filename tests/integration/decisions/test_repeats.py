"""Idempotency keys in the store: one claim at a time, kept a day, freed when its process died."""

import asyncio
from datetime import UTC, datetime, timedelta

from fraudguard.decisions.repeats import KEPT, UNANSWERED, Answer, Claim, Refusal
from fraudguard.decisions.repository import Repository

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
ANSWER = Answer(201, {"content-type": "application/json"}, b'{"a": 1}')
TICK = timedelta(microseconds=1)


async def test_of_many_at_once_one_gets_the_claim(repository: Repository, other: Repository) -> None:
    """In one process or in two; the others wait or are told that the key is taken."""
    claims = await asyncio.gather(
        *(store.repeats.claim("bank", "k-1", b"x", NOW) for store in (repository, other) for _ in range(10))
    )
    assert sorted(map(str, claims)).count(str(Claim("bank", "k-1", NOW))) == 1
    assert claims.count(Refusal.IN_PROGRESS) == 19
    assert await other.repeats.claim("bank", "k-1", b"y", NOW) is Refusal.ANOTHER_REQUEST
    assert isinstance(await other.repeats.claim("another", "k-1", b"y", NOW), Claim)


async def test_an_answer_is_kept_for_a_day(repository: Repository) -> None:
    """The same bytes again, until they are forgotten; then the key is new, with or without housekeeping."""
    claim = await repository.repeats.claim("bank", "k-1", b"x", NOW)
    assert isinstance(claim, Claim)
    await repository.repeats.answer(claim, ANSWER)
    assert await repository.repeats.claim("bank", "k-1", b"x", NOW + KEPT - TICK) == ANSWER
    assert await repository.repeats.claim("bank", "k-1", b"y", NOW + KEPT - TICK) is Refusal.ANOTHER_REQUEST
    assert await repository.repeats.prune(NOW + KEPT - TICK) == 0
    assert await repository.repeats.claim("bank", "k-1", b"y", NOW + KEPT) == Claim("bank", "k-1", NOW + KEPT)
    assert await repository.repeats.prune(NOW + 2 * KEPT) == 1


async def test_a_claim_that_nobody_answers_is_given_again(repository: Repository) -> None:
    """After a while, to one; the first one's late answer changes nothing."""
    first = await repository.repeats.claim("bank", "k-1", b"x", NOW)
    later = NOW + UNANSWERED
    assert await repository.repeats.claim("bank", "k-1", b"x", later - TICK) is Refusal.IN_PROGRESS
    second = await repository.repeats.claim("bank", "k-1", b"x", later)
    assert isinstance(first, Claim)
    assert second == Claim("bank", "k-1", later)
    await repository.repeats.answer(first, ANSWER)
    await repository.repeats.release(first)
    assert await repository.repeats.claim("bank", "k-1", b"x", later) is Refusal.IN_PROGRESS
    await repository.repeats.answer(second, ANSWER)
    assert await repository.repeats.claim("bank", "k-1", b"x", later) == ANSWER


async def test_a_released_key_is_free(repository: Repository) -> None:
    """What did nothing may be tried again, differently too."""
    claim = await repository.repeats.claim("bank", "k-1", b"x", NOW)
    assert isinstance(claim, Claim)
    await repository.repeats.release(claim)
    assert isinstance(await repository.repeats.claim("bank", "k-1", b"y", NOW), Claim)

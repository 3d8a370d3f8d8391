"""Stories without end: the same by seed, ids of one run alone, in order, a scam every few minutes to its payment."""

from datetime import UTC, datetime
from itertools import pairwise, takewhile

import pytest
from pydantic import TypeAdapter

from fraudguard.domain import Screenable, Transaction
from fraudguard.stories import Cast, Moment, generate, unfold
from fraudguard.stories.unfolding import FIRST_SCAM_S, LINES, PACE_S, SCAM_EVERY_S

HOUR_S = 3_600.0


@pytest.fixture(scope="module")
def cast() -> Cast:
    """A scripted day that the stories go on after."""
    return generate(7, 120, datetime(2026, 11, 16, 16, tzinfo=UTC), 1, 10, "heldout")


def an_hour(cast: Cast, run: str = "a", seed: int = 7) -> list[Moment]:
    """What is due within the first hour."""
    return list(takewhile(lambda moment: moment.second < HOUR_S, unfold(cast.idle, seed, run, "heldout")))


def test_the_same_seed_unfolds_the_same_way(cast: Cast) -> None:
    """Twice the same to the letter; another seed is another hour."""
    hour = an_hour(cast)
    assert an_hour(cast) == hour
    assert an_hour(cast, seed=8) != hour


def test_ids_are_of_one_run_alone(cast: Cast) -> None:
    """None comes twice, none was in the scripted day, and the next run has its own."""
    ids = [moment.event.event_id for moment in an_hour(cast)]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & {told.event.event_id for told in cast.events}
    assert not set(ids) & {moment.event.event_id for moment in an_hour(cast, run="b")}


def test_something_happens_every_few_seconds_and_in_order(cast: Cast) -> None:
    """Every event could be sent by a user; people who played in the scripted day rest."""
    hour = an_hour(cast)
    adapter: TypeAdapter[Screenable] = TypeAdapter(Screenable)
    for moment in hour[::7]:
        assert adapter.validate_json(moment.event.model_dump_json()) == moment.event
    assert all(0 <= b.second - a.second < 10 for a, b in pairwise(hour))
    assert not {m.event.account_id for m in hour} & {story.account_id for story in cast.stories}


def test_a_scam_builds_up_to_its_payment(cast: Cast) -> None:
    """One every three minutes at a reader's pace, on another account each, in Chinese and English by turns."""
    scams: dict[str, list[Moment]] = {}
    for moment in an_hour(cast):
        if moment.story and moment.story.typology:
            scams.setdefault(moment.story.story_id, []).append(moment)
    told = list(scams.values())[:-1]  # the hour may end in the last one
    assert len(told) >= HOUR_S / SCAM_EVERY_S - 2
    assert FIRST_SCAM_S < told[0][0].second <= FIRST_SCAM_S + PACE_S[1]
    for one, following in pairwise(told):
        assert abs(following[0].second - one[0].second - SCAM_EVERY_S) < PACE_S[1]
    for one in told:
        story = one[0].story
        assert story
        assert LINES[0] <= len(one) <= LINES[1]
        assert all(PACE_S[0] <= b.second - a.second <= PACE_S[1] for a, b in pairwise(one))
        paid = [moment.event for moment in one if moment.event.event_id in story.payment_event_ids]
        assert paid
        assert all(isinstance(event, Transaction) for event in paid)
    assert len({one[0].event.account_id for one in told}) == len(told)
    languages = [next(m.event.language for m in one if m.event.type == "message") for one in told]
    assert all(a != b for a, b in pairwise(languages))


def test_it_goes_on_when_everybody_has_had_a_turn(cast: Cast) -> None:
    """Two victims are enough, and nobody else is talked into anything."""
    hour = list(takewhile(lambda moment: moment.second < HOUR_S, unfold(cast.idle[:4], 7, "a", "heldout")))
    scams = {m.story.story_id: m.story.account_id for m in hour if m.story and m.story.typology}
    assert len(scams) > 10
    assert set(scams.values()) == {person.account_id for person in cast.idle[:4:2]}
    harmless = {m.event.account_id for m in hour if not (m.story and m.story.typology)}
    assert not harmless & set(scams.values())

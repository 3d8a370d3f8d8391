"""A whole cast: determinism, validity, order, splits, coverage, speed, and one golden story a language."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from pydantic import TypeAdapter

from fraudguard import stories
from fraudguard.domain import Message, Screenable, Transaction, Typology
from fraudguard.errors import BadSettings
from fraudguard.stories.bank import Plot, Say, Split, load
from fraudguard.stories.people import make_person
from fraudguard.stories.phrase import parse
from fraudguard.stories.teller import Draft, Teller

START = datetime(2026, 11, 16, 16, tzinfo=UTC)
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def train() -> stories.Cast:
    """A training cast large enough that every plot is played."""
    return stories.generate(7, 1400, START, 3, 500, "train")


@pytest.fixture(scope="module")
def held_out() -> stories.Cast:
    """Its held-out counterpart."""
    return stories.generate(7, 1400, START, 3, 500, "heldout")


def _texts(cast: stories.Cast) -> set[str]:
    return {e.event.text for e in cast.events if isinstance(e.event, Message)}


def test_the_same_seed_gives_the_same_cast() -> None:
    """Twice the same, and another seed or split something else."""
    first = stories.generate(1, 60, START, 1, 12, "train")
    assert stories.generate(1, 60, START, 1, 12, "train") == first
    assert stories.generate(2, 60, START, 1, 12, "train") != first
    assert stories.generate(1, 60, START, 1, 12, "heldout") != first


def test_every_event_is_what_a_user_could_send(train: stories.Cast) -> None:
    """Each survives the wire: JSON and back through domain's own validation."""
    adapter: TypeAdapter[Screenable] = TypeAdapter(Screenable)
    for told in train.events[::7]:
        assert adapter.validate_json(told.event.model_dump_json()) == told.event


def test_events_come_in_order_inside_the_days(train: stories.Cast) -> None:
    """Event-time order over all accounts, unique ids, nothing outside the days asked for."""
    times = [e.event.event_time for e in train.events]
    assert times == sorted(times)
    assert times[0] >= START
    assert times[-1] < START + timedelta(days=3)
    assert len({e.event.event_id for e in train.events}) == len(train.events)


def test_stories_name_their_own_events(train: stories.Cast) -> None:
    """A story's ids are its events in order on its account; fraud only in fraud stories, from one event on."""
    by_id = {e.event.event_id: e for e in train.events}
    for story in train.stories:
        told = [by_id[event_id] for event_id in story.event_ids]
        assert {(e.story_id, e.event.account_id) for e in told} == {(story.story_id, story.account_id)}
        assert [e.event.event_time for e in told] == sorted(e.event.event_time for e in told)
        frauds = [e for e in told if e.fraud]
        assert story.first_fraud_event_id == (frauds[0].event.event_id if frauds else None)
        assert [e.fraud for e in told] == sorted(e.fraud for e in told)
        payments = [e.event.event_id for e in frauds if isinstance(e.event, Transaction)]
        assert list(story.payment_event_ids) == payments
        if story.typology is None:
            assert not frauds
    in_stories = {event_id for story in train.stories for event_id in story.event_ids}
    assert {e.event.event_id for e in train.events if e.story_id} == in_stories
    assert not any(e.fraud for e in train.events if e.story_id is None)


def test_every_plot_is_played_in_both_splits(train: stories.Cast, held_out: stories.Cast) -> None:
    """All typologies, all titles, both languages, and 1.5 hard harmless stories for each fraud."""
    titles = {plot.title for (kind, _), plots in load("train").plots.items() if kind != "everyday" for plot in plots}
    for cast in (train, held_out):
        assert {s.typology for s in cast.stories} == {*Typology, None}
        assert {s.title for s in cast.stories} == titles
        assert sum(s.typology is None for s in cast.stories) == 750
        languages = [e.event.language for e in cast.events if isinstance(e.event, Message)]
        assert 0.15 < languages.count("en") / len(languages) < 0.5


def test_frauds_end_early_lack_chat_or_lack_payments_at_times(train: stories.Cast) -> None:
    """Variety of shape: frauds without a payment, and frauds without a word."""
    kinds = {e.event.event_id: e.event.type for e in train.events}
    frauds = [s for s in train.stories if s.typology]
    unpaid = sum(not s.payment_event_ids for s in frauds) / len(frauds)
    silent = sum(all(kinds[i] == "transaction" for i in s.event_ids) for s in frauds) / len(frauds)
    assert 0.1 < unpaid < 0.6
    assert 0.03 < silent < 0.4


def test_the_splits_share_no_text(train: stories.Cast, held_out: stories.Cast) -> None:
    """No message of twelve characters or more is met in both."""
    shared = {text for text in _texts(train) & _texts(held_out) if len(text) >= 12}
    assert shared == set()


def test_a_speaker_may_say_several_variants_or_go_on_in_one_breath() -> None:
    """`them+` gives one to three different variants; on a call two turns of one speaker may be one line."""
    bank = load("train")
    person = next(p for n in range(100) if (p := make_person(Random(n), bank, "s", n)).language == "zh")
    phrases = tuple(parse(text) for text in ("甲甲", "乙乙", "丙丙", "丁丁"))
    turn = Say("counterparty", None, several=True, optional=False, phrases=phrases)
    plot = Plot("several", "everyday", "zh", "t", "call", {}, (turn,))
    told = [Teller(Random(n), bank, person, plot, "s-0", ()).tell() for n in range(200)]
    said = [sum(text.count(word) for word in ("甲甲", "乙乙", "丙丙", "丁丁")) for text in map(_joined, told)]
    assert set(said) == {1, 2, 3}
    assert {len(drafts) for drafts in told} == {1, 2, 3}
    assert any(len(drafts) < count for drafts, count in zip(told, said, strict=True))


def _joined(drafts: list[Draft]) -> str:
    return "".join(draft.text for draft in drafts)


def test_too_few_accounts_are_refused() -> None:
    """Each story has an account of its own."""
    with pytest.raises(BadSettings, match="need as many accounts"):
        stories.generate(1, 20, START, 1, 10, "train")


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_story_longer_than_the_days_is_pressed_into_them(split: Split) -> None:
    """A romance of a week fits into one demo day, in order."""
    cast = stories.generate(3, 400, START, 1, 150, split)
    assert cast.events[-1].event.event_time < START + timedelta(days=1)
    assert len(cast.stories) == 375


@pytest.mark.parametrize(("language", "name"), [("zh", "kin_zh"), ("en", "kin_en")])
def test_a_story_reads_well(language: str, name: str) -> None:
    """One short story of each language as a reader sees it; FRAUDGUARD_RECORD=1 writes it anew."""
    bank = load("train")
    numbers = (make_person(Random(f"golden {n}"), bank, "g", n) for n in range(100))
    person = next(p for p in numbers if p.language == language)
    plot = next(p for p in bank.plots["scam", language] if p.name == name)
    lines = [f"# {plot.title}"]
    for draft in Teller(Random("golden"), bank, person, plot, "g-0", ["c-ring"]).tell():
        mark = "!" if draft.fraud else " "
        what = f"{draft.sender}: {draft.text}" if draft.pay is None else f"[pays {draft.amount} memo: {draft.memo}]"
        lines.append(f"{mark} +{draft.after:.0f}s {what}")
    told, path = "\n".join(lines) + "\n", GOLDEN / f"{name}.txt"
    if os.environ.get("FRAUDGUARD_RECORD"):
        path.write_text(told, "utf-8")
    assert told == path.read_text("utf-8")

"""The training material: what is held out stays out, labels follow the turns, text is masked."""

from pathlib import Path

from finetune import data
from fraudguard.domain import Message, Typology

SOURCES = ("teleantifraud", "bothbosu", "kdconv_zh", "multidogo_en")


def test_parts_do_not_overlap(data_folder: Path) -> None:
    """Every dialogue of every set is in exactly one part; BothBosu's own test split is never trained on."""
    for source in SOURCES:
        found = data.dialogues(data_folder, source)
        assert len({one.group for one in found}) == len(found) == 60
        assert {one.part for one in found} == {"train", "dev", "test"}
    numbers = {int(one.group.split("-")[1]) for one in data.dialogues(data_folder, "bothbosu") if one.part == "test"}
    assert numbers == set(range(2, 60, 3))


def test_the_gpl_set_is_no_training_material(data_folder: Path) -> None:
    """zh_antifraud_sft is not among the texts."""
    assert not any("会议" in text for text in data.texts(data_folder))


def test_turns_are_read_with_their_speakers(data_folder: Path) -> None:
    """Both notations: the caller is the counterparty, and a colon inside a turn stays."""
    spoken = {source: data.dialogues(data_folder, source)[0] for source in SOURCES}
    assert [sender for sender, _ in spoken["teleantifraud"].turns] == ["counterparty", "customer"] * 2 + [
        "counterparty"
    ]
    assert spoken["bothbosu"].turns[1:] == (("customer", "Who is this?"), ("counterparty", "Pay me now: 5 dollars"))
    assert {sender for sender, _ in spoken["multidogo_en"].turns} == {"customer", "agent"}


def test_windows_for_measuring(data_folder: Path) -> None:
    """Windows without a speaker are left out; easy negatives are marked."""
    windows = list(data.antifraud_windows(data_folder))
    assert [(split, easy) for _, split, easy in windows] == [
        ("eval0819", False),
        ("eval0819", False),
        ("eval0819", True),
    ]


def test_a_scam_is_learned_slowly_from_its_first_turns() -> None:
    """The truth of a scam's turns rises to 1; a harmless dialogue's and ordinary life's are 0."""
    turns = tuple(("counterparty", f"turn {n}") for n in range(6))
    scam = data.Dialogue("teleantifraud", "g", "train", "en", "call", turns, fraud=True)
    harmless = data.Dialogue("kdconv_zh", "g", "train", "zh", "chat", turns, fraud=False)
    for life, fraud in zip(data.dialogue_lives([scam, harmless], "train", 0), (True, False), strict=True):
        own = [told for told in life.events if told.story]
        assert [told.truth for told in own] == ([*data.RAMP, 1.0, 1.0] if fraud else [0.0] * 6)
        assert {told.typology for told in own} == {Typology.SCAM if fraud else None}
        assert all(told.truth == 0 for told in life.events if not told.story)
        times = [told.event.event_time for told in life.events]
        assert times == sorted(times)
        assert {told.event.account_id for told in life.events} == {life.account_id}
        assert len({told.event.event_id for told in life.events}) == len(life.events)


def test_texts_are_masked_as_in_the_service() -> None:
    """What screening masks, training never sees."""
    turns = (("customer", "my card is 4111 1111 1111 1111, call 13812345678"),)
    dialogue = data.Dialogue("x", "g", "test", "en", "chat", turns, fraud=False)
    (life,) = data.dialogue_lives([dialogue], "test", 0, ordinary_events_max=0)
    (told,) = life.events
    assert isinstance(told.event, Message)
    assert "4111" not in told.event.text
    assert "13812345678" not in told.event.text


def test_stories_carry_their_truth() -> None:
    """Fraud events have a typology and belong to a story; the same seed tells the same lives; parts differ."""
    lives = data.story_lives("train", 0, 30, 10)
    told = [event for life in lives for event in life.events]
    assert all(event.typology and event.story for event in told if event.truth)
    assert len({event.typology for event in told if event.truth}) >= 3
    assert lives == data.story_lives("train", 0, 30, 10)
    train_texts = {event.event.text for event in told if isinstance(event.event, Message) and event.truth}
    dev_texts = {
        event.event.text
        for life in data.story_lives("dev", 0, 30, 10)
        for event in life.events
        if isinstance(event.event, Message) and event.truth and len(event.event.text) > 12
    }
    assert dev_texts
    assert not dev_texts & train_texts

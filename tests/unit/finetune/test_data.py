"""The training material: what is held out stays out, labels follow the turns, text is masked."""

from pathlib import Path

from finetune import data
from fraudguard.domain import Message, Typology

SOURCES = ("teleantifraud", "bothbosu", "kdconv_zh", "multidogo_en")


def test_parts_do_not_overlap(data_folder: Path) -> None:
    """Every dialogue is in exactly one part, and so is every speaker that a set names."""
    for source in (*SOURCES, "antifraud_sft"):
        found = data.dialogues(data_folder, source)
        assert len({one.group for one in found}) == len(found) > 30
        assert {one.part for one in found} == {"train", "dev", "test"}
        parts = {(one.speaker, one.part) for one in found if one.speaker is not None}
        assert len(parts) == len({speaker for speaker, _ in parts})
    assert len({one.speaker for one in data.dialogues(data_folder, "teleantifraud")}) == 30


def test_the_official_test_calls_are_never_trained_on(data_folder: Path) -> None:
    """BothBosu's: those that name no personality are in test, those of a training personality nowhere."""
    found = {int(one.group.split("-")[1]): one for one in data.dialogues(data_folder, "bothbosu")}
    official = {number for number in range(60) if number % 3 == 2}
    assert {found[number].part for number in official & found.keys()} == {"test"}
    assert official - found.keys() == {number for number in official if number >= 30}  # trusting and polite ones train
    assert {found[number].speaker for number in found if found[number].part == "test" and number >= 30} == {"greedy"}


def test_single_sentences_are_of_the_training_part(data_folder: Path) -> None:
    """Nothing that dev or test asks is learned sentence by sentence."""
    for source in ("kdconv_zh", "multidogo_en"):
        learned = {text for one in data.sentences(data_folder, source) for _, text in one.turns}
        for one in data.dialogues(data_folder, source):
            assert (one.part == "train") == bool({text for _, text in one.turns} & learned)


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
    windows = [(version, easy) for _, version, easy in data.antifraud_windows(data_folder)]
    assert windows == [*[("eval0819", easy) for easy in (False, False, True, False)], *[("eval0902", False)] * 42]


def test_cases_that_both_versions_have_are_left_out_of_test(data_folder: Path) -> None:
    """A window that shares a line with one of the other version, directly or not, is in that one's part or nowhere."""
    found = {one.group: one for one in data.dialogues(data_folder, "antifraud_sft")}
    assert "w-4" not in found
    assert found["w-5"].speaker == found["w-6"].speaker
    assert found["w-5"].part == found["w-6"].part
    assert {group for group, one in found.items() if one.part == "test"} == {"w-0", "w-1", "w-3"}
    assert found["w-3"].source == "antifraud_meetings"


def test_of_a_fraudulent_window_the_last_turn_alone_is_known(data_folder: Path) -> None:
    """It was labelled as a whole: what was known before its end nobody says; a harmless one is harmless all along."""
    found = {one.group: one for one in data.dialogues(data_folder, "antifraud_sft")}
    for group, truths in (("w-5", [(0.5, 0.0), (0.5, 0.0), (1.0, 1.0)]), ("w-0", [(0.0, 1.0), (0.0, 1.0)])):
        (life,) = data.dialogue_lives([found[group]], "train", 0, ordinary_events_max=0)
        assert [(told.truth, told.weight) for told in life.events] == truths


def test_the_first_turns_of_a_scam_are_learned_and_not_measured() -> None:
    """The truth of a scam's first turns is below 1, then 1; a harmless dialogue's and ordinary life's are 0."""
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
    turns = (("customer", "my card is 4111 1111 1111 1111\x00, call 13812345678"),)
    dialogue = data.Dialogue("x", "g", "test", "en", "chat", turns, fraud=False)
    (life,) = data.dialogue_lives([dialogue], "test", 0, ordinary_events_max=0)
    (told,) = life.events
    assert isinstance(told.event, Message)
    assert "4111" not in told.event.text
    assert "13812345678" not in told.event.text
    assert "\x00" not in told.event.text


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

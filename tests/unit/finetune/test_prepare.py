"""The whole command on a few rows of every kind: splits that share nothing, the same again, and what it refuses."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune import apart, data, dataset, prepare
from finetune.data import Dialogue
from finetune.dataset import SPLITS
from fraudguard.errors import BadInput, BadSettings

STORIES = {split: {"accounts": 24, "frauds": 8} for split in SPLITS}
SETTINGS: dict[str, Any] = {
    "name": "tiny", "seed": 1, "ordinary_weight": 0.25, "stories": STORIES,
    "public": {
        "teleantifraud": {"scams": 20, "harmless": "all"}, "bothbosu": {"scams": "all", "harmless": "all"},
        "kdconv_zh": {"harmless": 12}, "multidogo_en": {"harmless": "all"},
    },
    "sentences": {"kdconv_zh": 5},
}  # fmt: skip
Prepare = Callable[..., Path]


@pytest.fixture
def run(data_folder: Path, tmp_path: Path) -> Prepare:
    """The command with these settings changed; the DATASET."""

    def prepared(name: str = "dataset", **changes: object) -> Path:
        file = tmp_path / "tiny.yaml"
        file.write_text(yaml.safe_dump(SETTINGS | changes))
        prepare.main([str(file), "--data", str(data_folder), "--out", str(tmp_path / name)])
        return tmp_path / name

    return prepared


@pytest.fixture
def refused(run: Prepare, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command says of settings that it does not take."""

    def said(**changes: object) -> str:
        with pytest.raises(SystemExit):
            run(**changes)
        return capsys.readouterr().err

    return said


def _hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_a_dataset_of_every_kind(run: Prepare) -> None:
    """Every source in every split, with its weights and whose word its labels are; nothing shared; the same again."""
    folder = run()
    found = {split: dataset.read(folder, split) for split in SPLITS}
    for timelines in found.values():
        assert {one.source for one in timelines} >= {"story", "teleantifraud", "bothbosu", "multidogo_en"}
        for timeline in timelines:
            for one in timeline.events:
                assert one.weight == (0.25 if one.story is None else 1.0)
                made = timeline.source in data.OWN_SOURCES or one.story is None
                assert one.label_source == ("own" if made else "public")
    assert apart.shared(folder) == {"accounts": [], "stories": []}
    assert _hashes(folder) == _hashes(run("again"))


def test_the_card_counts_what_the_files_hold(run: Prepare) -> None:
    """Events and frauds by group, the files' hashes, licences of every source, readers that know nothing of text."""
    folder = run()
    card = json.loads((folder / "card.json").read_text())
    for split in SPLITS:
        timelines = dataset.read(folder, split)
        events = [one for timeline in timelines for one in timeline.events]
        counts = card["splits"][split]
        assert counts["timelines"] == len(timelines)
        assert counts["frauds"] == sum(one.truth == 1.0 for one in events)
        assert counts["doubtful"] == sum(0 < one.truth < 1 for one in events)
        assert counts["sha256"] == _hashes(folder)[f"{split}.parquet"]
        for group in ("source", "channel", "label_source"):
            assert sum(of[split]["events"] for of in card[f"by_{group}"].values() if split in of) == len(events)
    assert card["leakage"]["shared"] == {"accounts": 0, "stories": 0, "speakers": 0}
    assert card["licences"].keys() == card["by_source"].keys()
    assert card["licences"]["bothbosu"]["licence"] == "MIT"
    assert not card["measuring_only"]
    written = (folder / "card.md").read_text()
    assert "| bothbosu | Synthetic Data for Scam Detection | MIT | BothBosu |" in written
    assert "Shared between splits: accounts 0, stories 0, speakers 0." in written


def test_amounts_and_held_out_sets(run: Prepare) -> None:
    """At most so many of a kind, all of them where it says so; what is held out is in test alone."""
    folder = run(hold_out=["bothbosu"], sentences={})
    stories: dict[str, dict[str, set[str]]] = {}
    for split in SPLITS:
        for timeline in dataset.read(folder, split):
            told = {one.story for one in timeline.events if one.story is not None}
            stories.setdefault(timeline.source, {}).setdefault(split, set()).update(told)
    assert stories["bothbosu"].keys() == {"test"}
    for source, most in (("teleantifraud", 20 + 30), ("kdconv_zh", 12), ("multidogo_en", 60)):
        assert sum(map(len, stories[source].values())) == most


def test_what_is_for_measuring_only_says_so(run: Prepare, refused: Callable[..., str]) -> None:
    """The GPL set enters no dataset that may train what ships; the one it enters carries the warning."""
    windows = {"antifraud_sft": {"scams": "all", "harmless": "all"}}
    assert "antifraud_sft is for measuring only" in refused(public=windows)
    folder = run(public=windows, stories=None, sentences={}, measuring_only=True, ordinary_events_max=0)
    assert json.loads((folder / "card.json").read_text())["measuring_only"]
    assert "may not be shipped" in (folder / "card.md").read_text()
    assert {one.source for one in dataset.read(folder, "test")} == {"antifraud_sft", "antifraud_meetings"}


def test_settings_that_make_no_sense_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    """With the place and a hint."""
    assert "public.bothbosu.scams" in refused(public={"bothbosu": {"scams": "few"}})
    assert "hold_out: other is not among `public`" in refused(hold_out=["other"])
    for text, said in (("{name: [", "is not YAML"), ("{name: a}", "ordinary_weight: Field required")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(BadSettings, match=said):
            prepare.read_settings(tmp_path / "bad.yaml")
    with pytest.raises(BadSettings, match="cannot be read"):
        prepare.read_settings(tmp_path / "missing.yaml")


def test_the_settings_that_ship_are_read() -> None:
    """All three; what ships is never trained on what is for measuring only."""
    shipped, measured, decided = (
        prepare.read_settings(Path(f"finetune/{name}.yaml")) for name in ("prepare", "antifraud", "decisions")
    )
    assert not set(shipped.public) & set(data.MEASURING_ONLY)
    assert measured.measuring_only
    assert decided.decisions is not None
    assert {*shipped.public, *shipped.sentences, *measured.public} <= yaml.safe_load(
        Path("finetune/sources.yaml").read_text()
    ).keys()


def test_without_public_sets_it_says_so(run: Prepare, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Own stories alone are material too; what is missing is not passed over in silence."""
    with caplog.at_level(logging.WARNING):
        drawn = prepare.public_dialogues(prepare.Settings.model_validate(SETTINGS), tmp_path / "nothing")
    assert drawn == []
    assert "has no teleantifraud" in caplog.text


def test_it_fails_where_a_speaker_would_be_in_two_splits(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A loader that lets one through does not get its dataset written."""
    turns = (("counterparty", "你好"), ("customer", "在"))
    shared = [
        Dialogue("kdconv_zh", f"g-{part}", part, "zh", "chat", turns, False, speaker="the same") for part in SPLITS
    ]
    monkeypatch.setattr(data, "dialogues", lambda folder, source: shared)
    settings = prepare.Settings.model_validate(
        SETTINGS | {"public": {"kdconv_zh": {"harmless": "all"}}, "sentences": {}}
    )
    with pytest.raises(BadInput, match="1 speakers are in more than one split, such as kdconv_zh/the same"):
        prepare.prepare(settings, data_folder, tmp_path / "out", None)


def test_a_source_without_a_licence_is_refused(
    monkeypatch: pytest.MonkeyPatch, data_folder: Path, tmp_path: Path
) -> None:
    """Nobody could say what may be done with what is trained on it."""
    turns = (("counterparty", "你好"), ("customer", "在"))
    monkeypatch.setattr(
        data, "dialogues", lambda folder, source: [Dialogue("found", "g", "train", "zh", "chat", turns, False)]
    )
    settings = prepare.Settings.model_validate(SETTINGS | {"public": {"found": {"harmless": "all"}}, "sentences": {}})
    with pytest.raises(BadInput, match="has no licence for found"):
        prepare.prepare(settings, data_folder, tmp_path / "out", None)

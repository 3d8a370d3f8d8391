"""The whole recipe, made tiny: it ends in a release that the engine serves, and does so again bit for bit."""

import hashlib
import logging
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from finetune import data, measure, train_starter
from finetune.adapt import numeric_inputs, read, samples
from finetune.dataset import passages
from finetune.recipe import read_recipe
from fraudguard.domain import Line, ScoreRequest, Timeline
from fraudguard.engine.engine import Engine
from fraudguard.engine.head import load_head
from fraudguard.engine.loader import attach, load_base
from fraudguard.engine.release import open_release
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.features.registry import MODEL_FEATURES

PREFIX = "Watch this account. 急用钱\n"
TOKENIZER = LineTokenizer(open_release("starter").base)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """starter.yaml with everything small."""
    content = yaml.safe_load(Path("finetune/starter.yaml").read_text())
    content["version"] = "0.0.1"
    content["tokenizer"] |= {"vocabulary": 600, "lives_step": 1}
    content["bfloat16"] = False
    content["base"] |= {"hidden_size": 64, "layers": 1, "heads": 1, "intermediate_size": 64}
    content["stories"] |= {part: {"accounts": 24, "frauds": 8} for part in ("train", "dev", "test")}
    content["language_model"] |= {"tokens": 8000, "batch": 4, "block": 64, "candidates": 64}
    content["adapter"] |= {"rank": 4, "epochs": 2, "batch_tokens": 512, "prefix": PREFIX}
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture(scope="module")
def made(recipe: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of it."""
    folders = [tmp_path_factory.mktemp("out") / "release" for _ in range(2)]
    threads = torch.get_num_threads()
    for folder in folders:
        train_starter.main([str(recipe), "--data", str(data_folder), "--out", str(folder)])
    torch.set_num_threads(threads)
    return folders


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_the_recipe_ends_in_a_release(made: list[Path]) -> None:
    """Every part is there, readable by all, and the engine loads and names it."""
    files = _hashes(made[0])
    assert {"release.json", "base/tokenizer.json", "adapter/adapter_model.safetensors", "head/head.json"} <= set(files)
    assert all((made[0] / name).stat().st_mode & 0o444 == 0o444 for name in files)
    assert Engine.load(made[0], "int8-tensor").name == "starter@0.0.1+int8-tensor"


def test_the_recipe_is_deterministic(made: list[Path]) -> None:
    """Two runs give the same files."""
    assert _hashes(made[0]) == _hashes(made[1])


def test_a_release_can_be_measured(
    made: list[Path], recipe: Path, data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tables of the model card come out, the set that was never trained on among them."""
    measure.main([str(recipe), "--data", str(data_folder), "--release", str(made[0])])
    printed = capsys.readouterr().out
    for heading in ("Held-out stories", "Public dialogues", "Harmless talk", "zh_antifraud_sft"):
        assert f"### {heading}" in printed
    assert "| teleantifraud |" in printed


def test_without_public_sets_it_says_so(recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Own stories alone are material too; what is missing is not passed over in silence."""
    with caplog.at_level(logging.WARNING):
        lives = train_starter.gather(read_recipe(recipe), tmp_path, "train")
    assert {life.source for life in lives} <= {"story", "life"}
    assert "none of the public sets" in caplog.text


def test_every_event_is_read_once_where_its_line_ends() -> None:
    """Readings point at the last token of the line that the service would render for that event."""
    lives = data.story_lives("train", 1, 24, 8)
    stretches = passages(train_starter.labelled(lives, TOKENIZER, 96, 0.5), TOKENIZER, 96)
    assert sum(len(passage.readings) for passage in stretches) == sum(len(life.events) for life in lives)
    assert len(stretches) > len(lives)
    end = TOKENIZER.encode("")[-1]
    for passage, sample in zip(stretches, samples(stretches, TOKENIZER), strict=True):
        assert len(sample.ids) <= 96
        assert (sample.ids[sample.ends] == end).all()
        assert [reading.line for reading in passage.readings] == sorted({reading.line for reading in passage.readings})
        assert sample.numbers.shape == (len(passage.readings), len(MODEL_FEATURES))
        weights = [1.0 if reading.label.story else 0.5 for reading in passage.readings]
        assert sample.weight.tolist() == weights


def test_what_is_trained_on_is_what_the_engine_reads(made: list[Path]) -> None:
    """The prefix, the lines and the numbers of every reading: the risks along a passage are the engine's."""
    release = open_release(made[0])
    assert release.adapter is not None
    encoder, head = LineTokenizer(release.base), load_head(release.head)
    timelines = train_starter.labelled(data.story_lives("dev", 3, 12, 4), encoder, 256, 1.0)
    longest = max(passages(timelines, encoder, 256), key=lambda passage: len(passage.readings))
    (sample,) = samples([longest], encoder, release.prefix)
    assert tuple(sample.ids[: sample.ends[0]][: len(encoder.encode_prefix(PREFIX))].tolist()) == encoder.encode_prefix(
        PREFIX
    )
    trained = head.spec.calibration.risk(read(attach(load_base(release.base), release.adapter), head, [sample]))
    at = datetime(2026, 11, 21, tzinfo=UTC)
    lines = [Line("message", at, text) for text in longest.lines]
    requests = [
        ScoreRequest(
            Timeline("a", 1, tuple(lines[: reading.line + 1])),
            dict(zip(MODEL_FEATURES, reading.label.numbers.tolist(), strict=True)),
        )
        for reading in longest.readings
    ]
    scores = Engine.load(made[0], "fp32").score(requests)
    assert len(scores) > 5
    assert [score.risk for score in scores] == pytest.approx(trained.tolist(), abs=1e-5)


def test_bins_follow_the_data() -> None:
    """Ascending edges from the smallest to the largest value; booleans have one bin; constants are left out."""
    rng = np.random.default_rng(0)
    numbers = np.full((200, len(MODEL_FEATURES)), np.nan, dtype=np.float32)
    column = {name: MODEL_FEATURES.index(name) for name in ("amount_base", "is_new_device", "transfers_1d")}
    numbers[:, column["amount_base"]] = rng.lognormal(5, 2, 200)
    numbers[:, column["is_new_device"]] = rng.integers(0, 2, 200)
    numbers[:, column["transfers_1d"]] = 1.0
    amount, device = numeric_inputs(numbers, 8)
    assert (amount.name, device.name) == ("amount_base", "is_new_device")
    assert device.edges == [0.0, 1.0]
    assert amount.edges == sorted(set(amount.edges))
    assert amount.edges[0] == pytest.approx(float(np.nanmin(numbers[:, column["amount_base"]])), rel=1e-4)
    assert amount.edges[-1] == pytest.approx(float(np.nanmax(numbers[:, column["amount_base"]])), rel=1e-4)

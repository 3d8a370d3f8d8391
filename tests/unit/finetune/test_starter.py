"""The way to the starter, made tiny: corpus, base, adapter with lexicon and head, and what the engine then reads."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from finetune import corpus, data, dataset, lora, pretrain
from finetune.adapt import COLUMNS, numeric_inputs, read, samples
from finetune.dataset import passages, requests
from finetune.lexicon import write
from finetune.passages import labelled
from fraudguard.engine.engine import Engine
from fraudguard.engine.head import load_head
from fraudguard.engine.lexicon import FILE
from fraudguard.engine.loader import attach, load_base
from fraudguard.engine.onnx_engine import OnnxEngine
from fraudguard.engine.onnx_export import export
from fraudguard.engine.release import STARTER, open_release
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.features.registry import MODEL_FEATURES

PREFIX = "Watch this account. 急用钱\n"
TOKENIZER = LineTokenizer(STARTER / "base")


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """As many afterwards as before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def release(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every command on the way, with the shipped recipes made small."""
    folder = tmp_path_factory.mktemp("starter")
    for split, accounts in (("train", 40), ("dev", 24)):
        dataset.write(folder / "data", split, labelled(data.story_lives(split, 0, accounts, accounts // 3), 0.3))
    of_base, of_adapter = (yaml.safe_load(Path(f"finetune/{name}.yaml").read_text()) for name in ("base", "starter"))
    of_base |= {"bfloat16": False, "corpus": {"chunks": 200, "lines": 5, "chars_min": 6, "teachers": False}}
    of_base["tokenizer"] |= {"vocabulary": 600}
    of_base["shape"] |= {"hidden_size": 64, "layers": 1, "heads": 1, "intermediate_size": 64}
    of_base["pretrain"] |= {"tokens": 8000, "batch_tokens": 512, "next_positions": 64}
    of_adapter |= {"version": "0.0.1", "bfloat16": False, "ordinary_share": 0.5}
    of_adapter["adapter"] |= {"rank": 4, "batch_tokens": 512, "prefix": PREFIX}
    of_adapter["lexicon"] |= {"buckets": 4096, "folds": 2}
    for name, content in (("base", of_base), ("starter", of_adapter)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    prepared, text, base = (str(folder / name) for name in ("data", "corpus", "base"))
    corpus.main([str(folder / "base.yaml"), "--dataset", prepared, "--data", str(data_folder), "--out", text])
    pretrain.main([str(folder / "base.yaml"), "--corpus", text, "--out", base])
    out = str(folder / "release")
    lora.main([str(folder / "starter.yaml"), "--dataset", prepared, "--base", base, "--out", out])
    return folder / "release"


def test_it_is_what_was_trained_that_the_engine_reads(release: Path) -> None:
    """Prefix, lines, numbers and lexicon of every reading: the risks along the timelines are the engine's."""
    parts = open_release(release)
    assert parts.adapter is not None
    encoder, head = LineTokenizer(parts.base), load_head(parts.head)
    assert head.lexicon is not None
    told = labelled(data.story_lives("dev", 3, 12, 4), 1.0)
    learned = samples(passages(told, encoder, 256), encoder, parts.prefix)
    write(head.lexicon, learned)
    assert tuple(learned[0].ids[: learned[0].prefix].tolist()) == encoder.encode_prefix(PREFIX)
    trained = head.spec.calibration.risk(read(attach(load_base(parts.base), parts.adapter), head, learned))
    scores = Engine.load(release, "fp32").score([asked for _, _, asked in requests(told, encoder, 256)])
    assert len(scores) > 100
    assert [score.risk for score in scores] == pytest.approx(trained.tolist(), abs=1e-5)


def test_the_lexicon_goes_along_into_an_onnx_release(release: Path, tmp_path: Path) -> None:
    """The file and its scores: both engines say the same, and not what they would say without it."""
    export(release, tmp_path / "onnx", "fp32")
    assert (tmp_path / "onnx" / FILE).read_bytes() == (release / "head" / FILE).read_bytes()
    told = labelled(data.story_lives("dev", 3, 12, 4), 1.0)
    asked = [request for _, _, request in requests(told, LineTokenizer(release / "base"), 256)][:200]
    torch_engine = Engine.load(release, "fp32")
    risks = [score.risk for score in torch_engine.score(asked)]
    assert [score.risk for score in OnnxEngine.load(tmp_path / "onnx").score(asked)] == pytest.approx(risks, abs=1e-4)
    head = load_head(release / "head")
    assert head.lexicon is not None
    lexicon = head.lexicon
    lexicon.coefficients[:] = 0
    lexicon.save(release / "head")
    assert [score.risk for score in Engine.load(release, "fp32").score(asked)] != pytest.approx(risks, abs=1e-6)


def test_every_event_is_read_once_where_its_line_ends() -> None:
    """Readings point at the last token of the line that the service would render for that event."""
    lives = data.story_lives("train", 1, 24, 8)
    stretches = passages(labelled(lives, 0.5), TOKENIZER, 96)
    assert sum(len(passage.readings) for passage in stretches) == sum(len(life.events) for life in lives)
    assert len(stretches) > len(lives)
    end = TOKENIZER.encode("")[-1]
    for passage, sample in zip(stretches, samples(stretches, TOKENIZER), strict=True):
        assert len(sample.ids) <= 96
        assert (sample.ids[sample.ends] == end).all()
        assert [reading.line for reading in passage.readings] == sorted({reading.line for reading in passage.readings})
        assert sample.numbers.shape == (len(passage.readings), len(COLUMNS))
        weights = [1.0 if reading.label.story else 0.5 for reading in passage.readings]
        assert sample.weight.tolist() == weights


def test_bins_follow_the_data() -> None:
    """Ascending edges from the smallest to the largest value; booleans have one bin; constants are left out."""
    rng = np.random.default_rng(0)
    numbers = np.full((200, len(COLUMNS)), np.nan, dtype=np.float32)
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

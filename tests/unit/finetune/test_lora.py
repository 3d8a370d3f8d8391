"""The LoRA recipe from a DATASET and a BASE to a release that the engine serves; killed, and what it refuses."""

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from finetune_support import make_base, make_dataset, write_recipe

from finetune import adapt, dataset, lora
from fraudguard.domain import TIMELINE_VERSION
from fraudguard.engine.calibration import Platt
from fraudguard.engine.engine import Engine
from fraudguard.engine.head import load_head
from fraudguard.engine.loader import attach, load_base
from fraudguard.engine.release import open_release, seal, verify
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadModel

KINDS: dict[str, dict[str, bool]] = {
    "lora": {},
    "dora": {"dora": True},
    "qlora": {"four_bit": True},
    "four bits and dora": {"four_bit": True, "dora": True},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DATASET."""
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2.5's shape made small: shared keys, tied embeddings."""
    return make_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def tune(data: Path, base: Path, tmp_path: Path) -> Callable[..., Path]:
    """Runs the recipe, made tiny and changed, and gives the release."""

    def run(*flags: str, on: Path | str = base, of: Path = data, **changes: object) -> Path:
        out = tmp_path / "release"
        recipe = write_recipe(tmp_path / "tiny.yaml", **{"epochs": 1, **changes})
        threads = torch.get_num_threads()
        try:
            lora.main([str(recipe), "--dataset", str(of), "--base", str(on), "--out", str(out), *flags])
        finally:
            torch.set_num_threads(threads)
        return out

    return run


def hashes(folder: Path) -> dict[str, str]:
    """Of every file."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_is_served(tune: Callable[..., Path], data: Path, kind: str) -> None:
    """The engine's risk at every event of dev is that of base, adapter and head as they were trained and calibrated."""
    folder = tune(**KINDS[kind])
    release = open_release(folder)
    assert release.adapter is not None
    encoder, head = LineTokenizer(release.base), load_head(release.head)
    assert head.spec.calibration != Platt(slope=1.0, offset=0.0)
    timelines = dataset.read(data, "dev")
    dev = adapt.samples(dataset.passages(timelines, encoder, head.spec.tokens_max), encoder, release.prefix)
    trained = head.spec.calibration.risk(adapt.read(attach(load_base(release.base), release.adapter), head, dev))
    asked = [request for _, _, request in dataset.requests(timelines, encoder, head.spec.tokens_max)]
    engine = Engine.load(folder, "fp32")
    assert engine.name == "tiny@0.0.1+fp32"
    risks = [score.risk for score in engine.score(asked)]
    assert np.ptp(risks) > 0.1
    assert risks == pytest.approx(trained.tolist(), abs=1e-5)
    assert release.timeline == TIMELINE_VERSION
    assert seal(folder) == verify(folder)
    kept = sorted(file.name for file in folder.with_name("release.run").iterdir())
    assert kept == ["losses.jsonl", "losses.png"]


@pytest.mark.parametrize("shape", ["r1_distill", "starter"])
def test_every_shape_of_base(tune: Callable[..., Path], tmp_path: Path, shape: str) -> None:
    """DeepSeek-R1-Distill-Qwen's and the starter's, whose embeddings may be adapted too."""
    every = ["embed_tokens", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    folder = tune(on=make_base(tmp_path / shape, shape), targets=every)
    assert Engine.load(folder, "int8").name == "tiny@0.0.1+int8"


def test_a_dora_adapter_is_no_tenants(tune: Callable[..., Path]) -> None:
    """It can only be merged, and a release with tenants merges nothing; the message says so."""
    folder = tune(dora=True)
    file = folder / "release.json"
    tenants = {"bank-a": {"adapter": "adapter", "head": "head"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"adapter": None, "tenants": tenants}))
    with pytest.raises(BadModel, match="it can only be merged"):
        Engine.load(folder, "fp32")


KILLED = """
import os, signal, sys
from pathlib import Path
from finetune import lora

replace, left = os.replace, [int(sys.argv[1])]

def killed(new, old):
    if Path(old).name == "checkpoint.pt":
        left[0] -= 1
        if not left[0]:
            os.truncate(new, 1000)  # half a file
            os.kill(os.getpid(), signal.SIGKILL)
    replace(new, old)

os.replace = killed
lora.main(sys.argv[2:])
"""


def test_killed_for_good_and_taken_up(tune: Callable[..., Path], data: Path, base: Path, tmp_path: Path) -> None:
    """kill -9 while a checkpoint is written: --resume ends in the same release, byte for byte."""
    wanted = hashes(tune())
    losses = (tmp_path / "release.run" / "losses.jsonl").read_bytes()
    out = tmp_path / "killed"
    arguments = [str(tmp_path / "tiny.yaml"), "--dataset", str(data), "--base", str(base), "--out", str(out)]
    ended = subprocess.run([sys.executable, "-c", KILLED, "3", *arguments], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert not out.exists()
    assert (tmp_path / "killed.run" / "checkpoint.pt").exists()
    subprocess.run([sys.executable, "-m", "finetune.lora", *arguments, "--resume"], capture_output=True, check=True)
    assert hashes(out) == wanted
    assert (tmp_path / "killed.run" / "losses.jsonl").read_bytes() == losses


def test_a_base_of_the_hub(
    tune: Callable[..., Path], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken from the local hub cache; the release names it by its commit, and is served from there."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--some--qwen"
    base_in_cache = repository / "snapshots" / commit
    base_in_cache.parent.mkdir(parents=True)
    base_in_cache.symlink_to(base)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tune(on="some/qwen@main")
    assert json.loads((folder / "release.json").read_text())["base"] == f"some/qwen@{commit}"
    assert not (folder / "base").exists()
    assert open_release(folder).base == base_in_cache
    assert Engine.load(folder, "fp32").name == "tiny@0.0.1+fp32"


def refused(capsys: pytest.CaptureFixture[str], run: Callable[[], object], *words: str) -> None:
    """It ends with 1 and one line that says all of this."""
    with pytest.raises(SystemExit) as ended:
        run()
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 1
    assert all(word in said for word in words), said


def test_bad_bases(tune: Callable[..., Path], tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No such folder, another architecture, no tokenizer, too few positions."""
    refused(capsys, lambda: tune(on="nowhere"), "nowhere is neither a folder nor a hub id", "owner/name@revision")
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text('{"model_type": "llama"}')
    refused(capsys, lambda: tune(on=tmp_path / "llama"), "tokenizer.json", str(tmp_path / "llama"))
    (tmp_path / "llama" / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    refused(capsys, lambda: tune(on=tmp_path / "llama"), "the base is a 'llama' model", "it must be qwen2")
    refused(capsys, lambda: tune(tokens_max=300), "reads 300 tokens after a prefix of", "the base only 256")


def test_bad_datasets(
    tune: Callable[..., Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, or of other features."""
    refused(capsys, lambda: tune(of=tmp_path / "none"), "train.parquet", "finetune.prepare")
    for split in ("train", "dev"):
        table = pq.read_table(data / f"{split}.parquet").replace_schema_metadata({"features": '["amount"]'})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    refused(capsys, lambda: tune(of=tmp_path), "another version of the features", "prepare it again")


def test_bad_recipes(tune: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The setting and the file are named; so is hardware that is not there."""
    refused(capsys, lambda: tune(rank=0), "tiny.yaml", "adapter.rank", "greater than or equal to 1")
    refused(capsys, lambda: tune(colour="red"), "tiny.yaml", "adapter.colour")
    if not torch.cuda.is_available():
        refused(capsys, lambda: tune(device="cuda"), "there is no GPU")

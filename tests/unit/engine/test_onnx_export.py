"""Making an ONNX release: whole or not at all."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from releases import TENANTS, TEXTS, request_of

from fraudguard.engine.engine import Engine
from fraudguard.engine.onnx_engine import OnnxEngine
from fraudguard.engine.onnx_export import export
from fraudguard.engine.release import sha256
from fraudguard.errors import BadModel


def test_a_release_is_one_folder_with_the_hashes_of_its_files(
    ready_releases: Callable[[str], Path], ready_onnx: Callable[[str], Path]
) -> None:
    """Graph, tokenizer, head.json and release.json; name and version are those of the source."""
    folder = ready_onnx("qwen25")
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: sum_ for sum_, name in (line.split("  ") for line in lines)}
    assert set(sums) == {"fp32.onnx", "tokenizer.json", "head.json", "release.json"}
    assert {path.name for path in folder.iterdir()} == {*sums, "SHA256SUMS"}
    assert all(sha256(folder / name) == sum_ for name, sum_ in sums.items())
    source = json.loads((ready_releases("qwen25") / "release.json").read_text())
    made = json.loads((folder / "release.json").read_text())
    assert [made["name"], made["version"], made["prefix"]] == [source["name"], source["version"], source["prefix"]]


def test_a_folder_that_exists_is_refused(tmp_path: Path) -> None:
    """Nothing is overwritten."""
    with pytest.raises(BadModel, match=r"something already.*not there yet"):
        export("starter", tmp_path, "fp32")


def test_of_a_release_with_tenants_the_own_adapter_is_exported(release_with_tenants: Path, tmp_path: Path) -> None:
    """Merged; whoever a request is for gets its score, under its name."""
    export(release_with_tenants, tmp_path / "made", "fp32")
    engine, twin = OnnxEngine.load(tmp_path / "made", 1), Engine.load(release_with_tenants, "fp32", 1)
    for tenant in (None, *TENANTS):
        (score,) = engine.score([request_of(*TEXTS, tenant=tenant)])
        assert score.risk == pytest.approx(twin.score([request_of(*TEXTS)])[0].risk, abs=1e-4)
        assert score.model == "qwen25@0.0.1+onnx-fp32"


def test_a_graph_that_scores_otherwise_is_refused(
    ready_releases: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder is left that could be taken for a release."""
    monkeypatch.setattr("fraudguard.engine.onnx_export.RISK_MOVED_MAX", {"fp32": -1.0})
    with pytest.raises(BadModel, match="moves a risk by"):
        export(ready_releases("starter"), tmp_path / "made", "fp32")
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_release_is_not_for_torch(ready_onnx: Callable[[str], Path], tmp_path: Path) -> None:
    """Neither exported again nor loaded by the torch engine; the error says what to give."""
    with pytest.raises(BadModel, match=r"fp32\.onnx: this is an ONNX release .give the release"):
        export(ready_onnx("starter"), tmp_path / "made", "fp32")
    with pytest.raises(BadModel, match="this is an ONNX release"):
        Engine.load(ready_onnx("starter"), "fp32")


def test_the_command_says_how_far_risks_moved(ready_releases: Callable[[str], Path], tmp_path: Path) -> None:
    """`fraudguard export-onnx SOURCE FOLDER`, and nothing but that on standard output."""
    command = ["-m", "fraudguard", "export-onnx", str(ready_releases("starter")), str(tmp_path / "made")]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'made'}: risks differ from the torch model's by at most ")
    assert (tmp_path / "made" / "release.json").is_file()

"""quantize, prune and distil made tiny: their first losses, and a release that the engine serves as it was trained."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from finetune_support import make_base

from finetune import dataset, distil, prune, quantize, scored
from finetune.calibrate_activations import calibrate as take_ranges
from fraudguard.engine.engine import Engine
from fraudguard.engine.head_spec import load_spec
from fraudguard.engine.loader import load_base
from fraudguard.engine.precision import Precision
from fraudguard.engine.release import open_release

Main = Callable[[Sequence[str]], None]
MAINS: dict[str, Main] = {
    "quantize": quantize.main, "prune_width": prune.main, "prune_depth": prune.main, "distil": distil.main
}  # fmt: skip
# Of the first five steps: what a change of the mathematics would move.
LOSSES = {
    "quantize": [0.29627, 0.27483, 0.39710, 0.27046, 0.32568],
    "prune_width": [0.64648, 0.75355, 0.75643, 0.50511, 0.77635],
    "prune_depth": [0.62602, 0.57097, 0.63447, 0.51328, 0.60076],
    "distil": [2.67495, 2.54481, 2.64192, 2.46960, 2.55566],
}


@pytest.fixture(scope="module")
def sources(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The release, one with its ranges of activations, and a student."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(tuned, folder / "ranged")
    take_ranges(folder / "ranged")
    return {"plain": tuned, "ranged": folder / "ranged", "student": make_base(folder / "student", "starter")}


def recipe_of(name: str, **changes: Any) -> dict[str, Any]:
    """Its YAML, made tiny. changes: of the whole, or of the recovery."""
    content: dict[str, Any] = yaml.safe_load(Path(f"finetune/{name}.yaml").read_text())
    content |= {
        "device": "cpu",
        "bfloat16": False,
        "save_every": 2,
        "calibrate": {"precisions": ["fp32"], "kind": "platt"},
    }
    content["recovery"] |= {"epochs": 2, "batch_tokens": 512, "rate": 0.003, "rank": 4, "alpha": 8}
    for key, value in changes.items():
        (content if key in content else content["recovery"])[key] = value
    if name == "distil":
        content |= {"tokens_max": 96}
        content["lexicon"] |= {"buckets": 512, "folds": 2}
    return content


@pytest.fixture
def make(sources: dict[str, Path], labelled: Path, tmp_path: Path) -> Callable[..., Path]:
    """Runs a recipe, made tiny and changed, and gives the release."""

    def run(name: str, *flags: str, of: str = "plain", out: str = "made", **changes: Any) -> Path:
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(recipe_of(name, **changes)))
        arguments = [str(file), "--dataset", str(labelled), "--out", str(tmp_path / out)]
        source = str(sources[of])
        teacher = ["--teacher", source, "--base", str(sources["student"])]
        threads = torch.get_num_threads()
        try:
            MAINS[name]([*arguments, *(teacher if name == "distil" else ["--release", source]), *flags])
        finally:
            torch.set_num_threads(threads)
        return tmp_path / out

    return run


def history(folder: Path) -> list[dict[str, Any]]:
    """Of the run that made it."""
    return [json.loads(line) for line in (folder.with_name(folder.name + ".run") / "losses.jsonl").open()]


def logits(release: Path, precision: Precision, data: Path) -> npt.NDArray[np.float64]:
    """The head's own at every event of train."""
    engine = scored.uncalibrated(open_release(release), precision)
    return scored.logits(engine, scored.rows_of(engine, dataset.read(data, "train")))


def hashes(folder: Path) -> dict[str, str]:
    """Of every file."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("name", MAINS)
@pytest.mark.parametrize("trained", ["adapter", "weights"])
def test_a_release_comes_out(make: Callable[..., Path], labelled: Path, name: str, trained: str) -> None:
    """With or without an adapter, calibrated, in every precision; the risks differ between events."""
    folder = make(name, trained=trained)
    release = open_release(folder)
    assert (release.adapter is None) == (trained == "weights")
    assert load_spec(release.head).calibrations.keys() == {"fp32"}
    if trained == "weights" or name.startswith("prune"):
        assert load_base(release.base).dtype == torch.float32
        assert json.loads((release.base / "config.json").read_bytes())["dtype"] == "float16"
    for precision in ("fp32", "int8", "int4"):
        assert np.ptp(logits(folder, precision, labelled)) > 0.01
    assert sorted(file.name for file in (folder.parent / "made.run").iterdir()) == ["losses.jsonl", "losses.png"]
    if trained == "adapter":  # and no path of this machine
        assert not json.loads((folder / "adapter" / "adapter_config.json").read_bytes())["base_model_name_or_path"]


@pytest.mark.parametrize("name", MAINS)
def test_the_first_losses(make: Callable[..., Path], name: str) -> None:
    """Pinned: what moves them changed the mathematics, or the order of the data."""
    losses = [entry["loss"] for entry in history(make(name, epochs=1)) if "loss" in entry][:5]
    assert losses == pytest.approx(LOSSES[name], abs=1e-3)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rounding_costs_less(
    make: Callable[..., Path], sources: dict[str, Path], labelled: Path, precision: Precision
) -> None:
    """In the precision that it was trained for, it says more nearly what the release says in float32."""
    wanted = logits(sources["plain"], "fp32", labelled)
    before = np.abs(logits(sources["plain"], precision, labelled) - wanted).mean()
    folder = make("quantize", precision=precision, trained="weights", epochs=6, rate=5e-5)
    assert np.abs(logits(folder, precision, labelled) - wanted).mean() < 0.8 * before


def test_ranges_stay_those_that_it_was_trained_with(make: Callable[..., Path], sources: dict[str, Path]) -> None:
    """A release for a calibrated precision brings the ranges that its layers were rounded by."""
    folder = make("quantize", of="ranged", precision="int8-tensor-asymmetric", trained="weights", epochs=1)
    assert (folder / "activations.json").read_bytes() == (sources["ranged"] / "activations.json").read_bytes()


def test_a_run_can_be_taken_up(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ended in the middle, --resume ends in the same release byte for byte; with another recipe it is refused."""
    wanted = hashes(make("prune_depth"))
    with monkeypatch.context() as patch:
        patch.setattr("finetune.run_folder.State.judged", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make("prune_depth", out="again")
    with pytest.raises(SystemExit):
        make("prune_depth", "--resume", out="again", shares={"layers": 0, "heads": 0, "intermediate": 0.3, "hidden": 0})
    assert hashes(make("prune_depth", "--resume", out="again")) == wanted


@pytest.mark.parametrize(
    ("name", "of", "changes", "message"),
    [
        ("quantize", "tenants", {}, "the release has tenants"),
        ("prune_width", "tenants", {}, "the release has tenants"),
        ("quantize", "plain", {"precision": "int8-tensor"}, "no ranges of activations"),
        ("quantize", "plain", {"precision": "int3"}, "precision: Input should be"),
        ("distil", "plain", {"tokens_max": 100_000}, "the base only"),
    ],
)
def test_what_cannot_be_done_is_refused(
    make: Callable[..., Path], sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    name: str, of: str, changes: dict[str, Any], message: str,
) -> None:  # fmt: skip
    """Before anything is trained; nothing is left that could be taken for a release."""
    if of == "tenants":
        shutil.copytree(sources["plain"], tmp_path / "tenants")
        file = tmp_path / "tenants" / "release.json"
        tenants = {"bank-a": {"adapter": "adapter", "head": "head"}}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"tenants": tenants}))
        sources = sources | {"tenants": tmp_path / "tenants"}
    source = ["--teacher", str(sources[of]), "--base", str(sources["student"])]
    content = recipe_of(name) | changes
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    arguments = [str(tmp_path / "wrong.yaml"), "--dataset", str(tmp_path), "--out", str(tmp_path / "made")]
    with pytest.raises(SystemExit):
        MAINS[name]([*arguments, *(source if name == "distil" else ["--release", str(sources[of])])])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_what_is_left_has_ranges_of_its_own(make: Callable[..., Path], sources: dict[str, Path]) -> None:
    """Of a release that had them: layers are called otherwise now, and read something else."""
    folder = make("prune_depth", of="ranged", epochs=1)
    before, after = (json.loads((one / "activations.json").read_bytes()) for one in (sources["ranged"], folder))
    assert len(after) == 4 * open_config(folder)["num_hidden_layers"] < len(before)
    assert Engine.load(folder, "int8-tensor", 1).name == "tiny@0.0.1-shallow+int8-tensor"


def open_config(folder: Path) -> dict[str, Any]:
    """Of its base."""
    content: dict[str, Any] = json.loads((folder / "base" / "config.json").read_bytes())
    return content


def test_nothing_is_overwritten(make: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A second run beside the first."""
    make("prune_depth", epochs=1)
    with pytest.raises(SystemExit):
        make("prune_depth", epochs=1)
    assert "something already" in capsys.readouterr().err

"""Ranges of activations: taken from what the layers read, and a part of the release ever after."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from finetune import calibrate_activations
from finetune.calibrate_activations import FILE, main
from fraudguard.engine.engine import Engine
from fraudguard.engine.loader import load
from fraudguard.engine.quantization import Int8Linear
from fraudguard.engine.release import STARTER, open_release


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter without its ranges, and then with those that the command takes."""
    folder = tmp_path_factory.mktemp("starter") / "release"
    shutil.copytree(STARTER, folder, ignore=shutil.ignore_patterns(FILE))
    manifest = json.loads((folder / "release.json").read_text())
    del manifest["activations"]
    (folder / "release.json").write_text(json.dumps(manifest))
    threads = torch.get_num_threads()
    main([str(folder)])
    torch.set_num_threads(threads)
    return folder


def test_the_shipped_ranges_are_what_the_command_takes(calibrated: Path) -> None:
    """Name by name, to what the last digit of a sum may do on another machine; nothing else has changed."""
    made, shipped = (json.loads((folder / FILE).read_text()) for folder in (calibrated, STARTER))
    assert made.keys() == shipped.keys()
    for name, (low, high) in made.items():
        assert (low, high) == pytest.approx(shipped[name], rel=0.05)
        assert low < 0 < high
    manifests = [json.loads((folder / "release.json").read_text()) for folder in (calibrated, STARTER)]
    assert manifests[0] == manifests[1]
    weights = Path("base/model.safetensors")
    assert (calibrated / weights).read_bytes() == (STARTER / weights).read_bytes()


def test_a_range_is_that_of_all_but_the_furthest_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token in a thousand may lie outside; every linear layer is seen, by its name."""
    monkeypatch.setattr(calibrate_activations, "FITTING", 0.5)
    body = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 3)))
    reader = calibrate_activations._Reader(body)
    with torch.no_grad():
        for value in (1.0, 2.0, 3.0):
            body(torch.tensor([[value, -10 * value]]))
    assert set(reader.ranges()) == {"0", "1.0"}
    assert reader.ranges()["0"] == (-20.0, 2.0)


def test_the_release_runs_calibrated(calibrated: Path) -> None:
    """What was taken is what its layers are made with."""
    assert Engine.load(calibrated, "int8-tensor-asymmetric", 1).name.endswith("+int8-tensor-asymmetric")
    low, high = json.loads((calibrated / FILE).read_text())["layers.1.down"]
    layer = load(open_release(calibrated), "int8-tensor-asymmetric").backbone.get_submodule("layers.1.down")
    assert isinstance(layer, Int8Linear)
    assert layer.step == pytest.approx((high - low) / 255)

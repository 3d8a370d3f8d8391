"""Calibrations against scikit-learn's, at the edges, and each where its precision is served."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from releases import TENANTS, TEXTS, request_of
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from vllm_twin import VllmTwin

from fraudguard.engine.calibration import Isotonic, Platt, fit_platt, fit_temperature
from fraudguard.engine.engine import Engine
from fraudguard.engine.head_spec import load_spec
from fraudguard.engine.onnx_engine import OnnxEngine
from fraudguard.engine.onnx_export import export
from fraudguard.engine.release import STARTER
from fraudguard.engine.remote import RemoteEngine
from fraudguard.evaluation import calibration_error

STEPS: dict[str, Any] = {
    "kind": "isotonic",
    "logits": [-2.0, -0.5, -0.25, 1.0, 3.0],
    "risks": [0.1, 0.1, 0.3, 0.3, 0.9],
}
REQUESTS = [request_of(*TEXTS[:lines]) for lines in (1, 2, 3)]


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_is_platts(seed: int) -> None:
    """As scikit-learn's, which follows the same paper."""
    rng = np.random.default_rng(seed)
    truth = rng.random(500) < 0.2
    logits = rng.normal(size=500) * 2 + 3 * truth - 1
    theirs = _SigmoidCalibration().fit(logits, truth)
    ours = fit_platt(logits, truth)
    assert ours.risk(logits) == pytest.approx(theirs.predict(logits), abs=1e-3)


def test_it_repairs_a_wrong_scale() -> None:
    """Logits ten times too sure become risks that hold."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=20_000) * 2 - 2
    truth = rng.random(20_000) < 1 / (1 + np.exp(-logits))
    platt = fit_platt(10 * logits + 3, truth)
    assert calibration_error(truth, platt.risk(10 * logits + 3)) < 0.01
    assert calibration_error(truth, Platt(slope=1.0, offset=0.0).risk(10 * logits + 3)) > 0.1


def test_separable_data_stay_bounded() -> None:
    """Perfect order does not drive the slope to infinity: the smoothed targets hold it."""
    platt = fit_platt([-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1])
    assert 0 < platt.slope < 10
    assert platt.risk([-2.0])[0] < 0.5 < platt.risk([2.0])[0]


def test_far_logits_do_not_overflow() -> None:
    """Risks are 0 and 1 at the ends, without a warning."""
    with np.errstate(all="raise", under="ignore"):
        assert Platt(slope=5.0, offset=0.0).risk([-1e6, 0.0, 1e6]).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("logits", "truth", "message"),
    [([1.0, 2.0], [1, 1], "both frauds and others"), ([2.0, 1.0, 3.0, 0.5], [0, 1, 0, 1], "nothing to calibrate")],
)
def test_what_cannot_be_calibrated_is_refused(logits: list[float], truth: list[int], message: str) -> None:
    """One kind only, or an upside-down score."""
    with pytest.raises(ValueError, match=message):
        fit_platt(logits, truth)


def test_a_temperature_changes_only_how_sure_it_is() -> None:
    """The slope that made the logits too sure, and no offset; where logits mean nothing there is none."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=20_000) * 2 - 2
    truth = rng.random(20_000) < 1 / (1 + np.exp(-logits))
    warm = fit_temperature(10 * logits, truth)
    assert (warm.slope, warm.offset) == (pytest.approx(0.1, rel=0.05), 0.0)
    with pytest.raises(ValueError, match="nothing to calibrate"):
        fit_temperature(-logits, truth)


def test_isotonic_is_scikit_learns() -> None:
    """Between, on and beyond the steps that its fit has."""
    rng = np.random.default_rng(2)
    truth = rng.random(2_000) < 0.2
    logits = rng.normal(size=2_000) * 2 + 3 * truth
    theirs = IsotonicRegression(out_of_bounds="clip").fit(logits, truth)
    ours = Isotonic(logits=theirs.X_thresholds_.tolist(), risks=theirs.y_thresholds_.tolist())
    asked = np.concatenate([logits, theirs.X_thresholds_, rng.uniform(-50, 50, 500)])
    assert ours.risk(asked) == pytest.approx(theirs.predict(asked), abs=1e-12)
    assert 10 < len(ours.logits) < 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": [0.0, 1.0], "risks": [0.5]}, "one risk a logit"),
        ({"logits": [0.0, 0.0], "risks": [0.1, 0.2]}, "do not ascend"),
        ({"logits": [0.0, 1.0], "risks": [0.2, 0.1]}, "the risks fall"),
        ({"logits": [0.0, 1.0], "risks": [0.2, 1.1]}, "less than or equal to 1"),
        ({"logits": [0.0], "risks": [0.2]}, "at least 2"),
    ],
)
def test_steps_that_do_not_rise_are_refused(change: dict[str, list[float]], message: str) -> None:
    """They would turn the order of events round, or mean nothing."""
    with pytest.raises(ValidationError, match=message):
        Isotonic(**change)


def calibrated(source: Path, folder: Path, **changes: Any) -> Path:
    """A copy of the release whose heads, its own and its tenants', have these fields of head.json."""
    shutil.copytree(source, folder)
    for file in folder.rglob("head.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def test_each_precision_has_its_own(release_with_tenants: Path, tmp_path: Path) -> None:
    """The engine's precision chooses, for tenants too; one that has none of its own takes the general calibration."""
    general = {"kind": "platt", "slope": 1.0, "offset": 0.0}
    plain = calibrated(release_with_tenants, tmp_path / "plain", calibration=general)
    mixed = calibrated(plain, tmp_path / "mixed", calibrations={"fp32": STEPS, "int8": general | {"offset": 2.0}})
    for tenant in (None, *TENANTS):
        requests = [request_of(*TEXTS[:lines], tenant=tenant) for lines in (1, 2, 3)]
        for precision, expected in {"fp32": Isotonic(**STEPS), "int8": Platt(slope=1.0, offset=2.0)}.items():
            risks = np.array([score.risk for score in Engine.load(plain, precision, 1).score(requests)])
            found = [score.risk for score in Engine.load(mixed, precision, 1).score(requests)]
            assert found == pytest.approx(expected.risk(np.log(risks / (1 - risks))), abs=1e-5)
        same = [[score.risk for score in Engine.load(one, "bf16", 1).score(requests)] for one in (plain, mixed)]
        assert same[0] == same[1]


def test_a_server_has_the_general_one(ready_releases: Callable[[str], Path], tmp_path: Path) -> None:
    """Its precision is not known here."""
    plain = ready_releases("qwen25")
    mixed = calibrated(plain, tmp_path / "mixed", calibrations={"fp32": STEPS})
    with VllmTwin(mixed).serving() as twin:
        found = RemoteEngine.connect(mixed, twin.url, timeout_s=30).score(REQUESTS)
    expected = Engine.load(plain, "fp32", 1).score(REQUESTS)
    assert [score.risk for score in found] == pytest.approx([score.risk for score in expected], abs=1e-5)


@pytest.mark.parametrize("changes", [{"calibration": STEPS}, {"calibrations": {"fp32": STEPS}}])
def test_steps_are_exported(ready_releases: Callable[[str], Path], tmp_path: Path, changes: dict[str, Any]) -> None:
    """The graph gives the risks of numpy's steps, whether they are general or of its precision."""
    source = calibrated(ready_releases("qwen25"), tmp_path / "source", **changes)
    export(source, tmp_path / "made", "fp32")
    wanted = [score.risk for score in Engine.load(source, "fp32", 1).score(REQUESTS)]
    found = [score.risk for score in OnnxEngine.load(tmp_path / "made", 1).score(REQUESTS)]
    assert found == pytest.approx(wanted, abs=1e-5)
    assert set(found) - set(STEPS["risks"])


def test_a_head_from_before_is_read(tmp_path: Path) -> None:
    """Without calibrations the one that it has holds for every precision."""
    shutil.copytree(STARTER / "head", tmp_path / "head")
    file = tmp_path / "head" / "head.json"
    content = json.loads(file.read_text())
    content.pop("calibrations", None)
    file.write_text(json.dumps(content))
    spec = load_spec(tmp_path / "head")
    assert spec.calibration_of("int8") == spec.calibration_of("fp32") == Platt(**content["calibration"])

"""Calibration: what each kind fits, which one is taken, and a release of it for each precision."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.isotonic import IsotonicRegression

from finetune import calibrate, dataset, scored
from finetune.calibrate import FITS, FitRun, Sample, best, fit_isotonic, fitted
from fraudguard.engine.calibration import Isotonic, Platt, smoothed
from fraudguard.engine.engine import Engine
from fraudguard.engine.head_spec import load_spec
from fraudguard.engine.release import open_release
from fraudguard.errors import BadInput


def drawn(count: int, risk_of: Any, seed: int = 0) -> Sample:
    """Logits around -1, truths by the risk that is told of them; ten events an account."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, count)
    return Sample(logits, rng.random(count) < risk_of(logits), np.arange(count) // 10)


def sigmoid(z: Any) -> Any:
    """1 / (1 + exp(-z))."""
    return 1 / (1 + np.exp(-z))


def test_isotonic_is_pool_adjacent_violators() -> None:
    """scikit-learn's, on the labels themselves, held between Platt's smoothed targets; always rising."""
    sample = drawn(3_000, lambda z: sigmoid(2 * z))
    target = smoothed(sample.fraud)
    ours = fit_isotonic(sample.logits, sample.fraud)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(sample.logits, sample.fraud)
    wanted = np.clip(theirs.predict(sample.logits), target.min(), target.max())
    assert ours.risk(sample.logits) == pytest.approx(wanted, abs=1e-6)
    assert ours.risk([-1e9, 1e9]).tolist() == pytest.approx([target.min(), target.max()])
    assert 0 < target.min() < target.max() < 1


@pytest.mark.parametrize(
    ("risk_of", "kind"),
    [
        (lambda z: sigmoid(0.5 * z), "temperature"),
        (lambda z: sigmoid(0.5 * z - 3), "platt"),
        (lambda z: np.where(z > 0, 0.6, 0.02), "isotonic"),
    ],
)
def test_auto_takes_the_simplest_that_fits(risk_of: Any, kind: str) -> None:
    """A sigmoid without an offset, with one, and steps that no sigmoid follows."""
    run = FitRun(precisions=["fp32"])
    taken, calibration, losses = fitted(drawn(6_000, risk_of), run, 0)
    assert taken == kind
    assert losses.keys() == FITS.keys()
    assert isinstance(calibration, Isotonic if kind == "isotonic" else Platt)


def test_a_difference_within_the_noise_is_none() -> None:
    """The simplest stays unless the best is better by more than a standard error, counted by account."""
    account = np.arange(1_000) // 10
    noise = np.random.default_rng(0).permutation(np.linspace(-1, 1, 100))[account]
    flat = np.full(1_000, 1.0)
    assert best({"temperature": flat + 0.05 + noise, "platt": flat + 0.05, "isotonic": flat}, account) == "temperature"
    assert best({"temperature": flat + 0.3, "platt": flat + 0.1, "isotonic": flat}, account) == "isotonic"


@pytest.mark.parametrize("kind", ["auto", "platt"])
def test_too_few_frauds_are_refused(kind: Any) -> None:
    """The message says what to do."""
    sample = drawn(50, lambda z: np.zeros_like(z))
    with pytest.raises(BadInput, match=r"both frauds and others.*larger dev"):
        fitted(sample, FitRun(precisions=["fp32"], kind=kind), 0)


def run(release: Path, data: Path, out: Path, *flags: str) -> None:
    """The command, by calibrate.yaml."""
    threads = torch.get_num_threads()
    arguments = ["finetune/calibrate.yaml", "--dataset", str(data), "--release", str(release), "--out", str(out)]
    try:
        calibrate.main([*arguments, *flags])
    finally:
        torch.set_num_threads(threads)


def hashes(folder: Path) -> dict[str, str]:
    """Of every file."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_new_release_is_calibrated_as_it_is_served(
    tuned: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each precision has what fits the logits of its own engine; the source stays, and only head.json differs."""
    before = hashes(tuned)
    run(tuned, labelled, tmp_path / "made", "--kind", "platt", "--precisions", "fp32,int8")
    made = hashes(tmp_path / "made")
    assert hashes(tuned) == before
    assert {name for name in before if before[name] != made[name]} == {"head/head.json", "release.json"}
    spec = load_spec(tmp_path / "made" / "head")
    assert spec.calibrations.keys() == {"fp32", "int8"}
    assert spec.calibration == spec.calibrations["fp32"] != spec.calibrations["int8"]
    timelines = dataset.read(labelled, "dev")
    for precision in ("fp32", "int8"):
        plain = scored.uncalibrated(open_release(tuned), precision)
        rows = scored.rows_of(plain, timelines)
        wanted = spec.calibrations[precision].risk(scored.logits(plain, rows))
        engine = Engine.load(tmp_path / "made", precision, 1)
        assert engine.name == f"tiny@0.0.1-calibrated+{precision}"
        risks = [score.risk for score in engine.score([ask for _, _, ask in rows.asked])]
        assert risks == pytest.approx(wanted.tolist(), abs=1e-6)
    printed = capsys.readouterr().out
    assert "| int8 | platt |" in printed
    assert "->" in printed


def test_a_tenants_head_is_calibrated_by_its_own(
    tuned: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its head.json alone changes; a tenant that is not there is named."""
    source = tmp_path / "source"
    with_tenant(tuned, source)
    run(source, labelled, tmp_path / "made", "--kind", "temperature", "--precisions", "fp32", "--tenant", "bank-a")
    before, made = hashes(source), hashes(tmp_path / "made")
    assert {name for name in before if before[name] != made[name]} == {"bank-a/head/head.json", "release.json"}
    assert load_spec(tmp_path / "made" / "bank-a" / "head").calibrations["fp32"].offset == 0.0  # type: ignore[union-attr]
    with pytest.raises(SystemExit):
        run(source, labelled, tmp_path / "again", "--tenant", "bank-b")
    assert "no tenant 'bank-b' (it has ['bank-a'])" in capsys.readouterr().err


def with_tenant(source: Path, folder: Path) -> None:
    """The release with its adapter and head as a tenant's too."""
    import shutil

    shutil.copytree(source, folder)
    for part in ("adapter", "head"):
        shutil.copytree(source / part, folder / "bank-a" / part)
    manifest = json.loads((folder / "release.json").read_text())
    manifest["tenants"] = {"bank-a": {"adapter": "bank-a/adapter", "head": "bank-a/head"}}
    (folder / "release.json").write_text(json.dumps(manifest))


def test_nothing_is_overwritten(tuned: Path, labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A release that is there stays; a word that the recipe does not know is refused with its place."""
    with pytest.raises(SystemExit):
        run(tuned, labelled, tuned, "--precisions", "fp32")
    assert "something already" in capsys.readouterr().err


def test_a_wrong_recipe_names_the_place(
    tuned: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By field."""
    content = yaml.safe_load(Path("finetune/calibrate.yaml").read_text()) | {"folds": 1}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    options = ["--dataset", str(labelled), "--release", str(tuned), "--out", str(tmp_path / "made")]
    with pytest.raises(SystemExit):
        calibrate.main([str(tmp_path / "wrong.yaml"), *options])
    assert "folds" in capsys.readouterr().err

"""Fits how a release's logits become risks, for each precision, and makes a release of it.

    python -m finetune.calibrate finetune/calibrate.yaml --dataset DATASET --release RELEASE --out OUT

Scores the dev split through the engine that serves, in each precision: what rounding does to the logits is part of what
is fitted. Prints the calibration error on the test split before and after.
"""

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field
from sklearn.isotonic import IsotonicRegression

from finetune import dataset, scored
from finetune.dataset import LabelledTimeline
from finetune.derived import derived
from fraudguard.engine.calibration import Calibration, Floats, Isotonic, fit_platt, fit_temperature, smoothed
from fraudguard.engine.head_spec import HeadSpec, load_spec
from fraudguard.engine.precision import Precision
from fraudguard.engine.release import Release, open_release
from fraudguard.evaluation import calibration_error

log = logging.getLogger(__name__)

Kind = Literal["temperature", "platt", "isotonic"]
Truths = npt.NDArray[np.bool_]


class CalibrationRun(BaseModel):
    """calibrate.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suffix: str
    precisions: Annotated[list[Precision], Field(min_length=1)]
    kind: Kind | Literal["auto"]
    folds: Annotated[int, Field(ge=2)]
    seed: int
    threads: int


def fit_isotonic(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Isotonic:
    """The likeliest steps that only rise (pool adjacent violators), between Platt's targets instead of 0 and 1.

    A step without a fraud is thus not said to be impossible. Raises ValueError.
    """
    target = smoothed(labels)
    low, high = float(target.min()), float(target.max())
    fitted = IsotonicRegression(y_min=low, y_max=high).fit(np.asarray(logits, dtype=np.float64), labels)
    if len(fitted.X_thresholds_) < 2:
        raise ValueError("larger logits do not go with fraud: there is nothing to calibrate")
    return Isotonic(logits=fitted.X_thresholds_.tolist(), risks=fitted.y_thresholds_.tolist())


FITS: Final[Mapping[Kind, Callable[[npt.ArrayLike, npt.ArrayLike], Calibration]]] = {
    "temperature": fit_temperature,
    "platt": fit_platt,
    "isotonic": fit_isotonic,
}


def log_losses(risk: Floats, fraud: Truths) -> Floats:
    """-log of what was given to each truth: their mean is the measure that sees both order and size of the risks."""
    given = np.where(fraud, risk, 1 - risk)
    return np.asarray(-np.log(np.clip(given, 1e-12, 1.0)))


def held_out_losses(logits: Floats, dev: scored.Scored, run: CalibrationRun) -> dict[Kind, Floats]:
    """Of each kind, the losses on accounts that the fit has not seen: an account's events are no news to each other."""
    places = np.random.default_rng(run.seed).permutation(dev.account.max() + 1)
    fold = places[dev.account] % run.folds
    risks = {kind: np.empty(len(logits)) for kind in FITS}
    for number in range(run.folds):
        rows = fold == number
        for kind, fit in FITS.items():
            risks[kind][rows] = fit(logits[~rows], dev.fraud[~rows]).risk(logits[rows])
    return {kind: log_losses(risk, dev.fraud) for kind, risk in risks.items()}


def best(losses: Mapping[Kind, Floats], account: npt.NDArray[np.int64]) -> Kind:
    """The simplest kind that is not worse than the best by more than a standard error of their difference.

    Steps make events equal that were not: they must be worth it. Errors are counted by account.
    """
    least = min(losses.values(), key=lambda loss: float(loss.mean()))
    for kind in FITS:  # the simplest first
        differences = np.bincount(account, losses[kind] - least)
        if differences.sum() <= differences.std() * np.sqrt(len(differences)):
            return kind
    raise AssertionError("the best is as good as itself")


def fitted(dev: scored.Scored, run: CalibrationRun) -> tuple[Kind, Calibration, dict[Kind, float]]:
    """The kind asked for, or the best, and its fit; each kind's mean loss if they were compared. Raises ValueError."""
    logits = scored.logits(dev)
    losses = held_out_losses(logits, dev, run) if run.kind == "auto" else {}
    kind = best(losses, dev.account) if run.kind == "auto" else run.kind
    return kind, FITS[kind](logits, dev.fraud), {name: float(loss.mean()) for name, loss in losses.items()}


def calibrate(
    release: Release, splits: Mapping[str, Sequence[LabelledTimeline]], run: CalibrationRun, tenant: str | None
) -> tuple[dict[Precision, Calibration], list[str]]:
    """What fits dev in each precision; and a table of what that does on test."""
    spec = load_spec(_head(release, tenant))
    found: dict[Precision, Calibration] = {}
    table = [
        "| precision | kind | log-loss on held-out accounts of dev | calibration error on test | log-loss on test |",
        "|---|---|---|---|---|",
    ]
    for precision in run.precisions:
        engine = scored.uncalibrated(release, precision)
        kind, found[precision], losses = fitted(scored.score(engine, splits["dev"], tenant), run)
        test = scored.score(engine, splits["test"], tenant)
        logits = scored.logits(test)
        risks = [one.risk(logits) for one in (spec.calibration_of(precision), found[precision])]
        errors = " -> ".join(f"{calibration_error(test.fraud, risk):.4f}" for risk in risks)
        test_losses = " -> ".join(f"{log_losses(risk, test.fraud).mean():.4f}" for risk in risks)
        shown = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        table.append(f"| {precision} | {kind} | {shown} | {errors} | {test_losses} |")
    return found, table


def _head(release: Release, tenant: str | None) -> Path:
    return release.head if tenant is None else release.tenants[tenant].head


def write(source: Path, out: Path, suffix: str, tenant: str | None, found: Mapping[Precision, Calibration]) -> None:
    """The release in `source` with these calibrations, as `out`. Raises BadModel."""
    release = open_release(source)
    part = _head(release, tenant)
    spec: HeadSpec = load_spec(part)
    general = next(iter(found.values()))
    spec = spec.model_copy(update={"calibration": general, "calibrations": {**spec.calibrations, **found}})
    with derived(source, out, suffix) as made:
        file = made / part.relative_to(source.resolve()) / "head.json"
        file.write_text(spec.model_dump_json(indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the new release")
    parser.add_argument("--tenant", help="whose head it is; the release's own without it")
    parser.add_argument("--precisions", help="separated by commas, instead of the recipe's")
    parser.add_argument("--kind", choices=[*get_args(Kind), "auto"], help="instead of the recipe's")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = {"kind": options.kind, "precisions": options.precisions and options.precisions.split(",")}
    content = yaml.safe_load(options.recipe.read_text()) | {name: value for name, value in given.items() if value}
    run = CalibrationRun.model_validate(content)
    torch.set_num_threads(run.threads)
    splits = {split: dataset.read(options.dataset, split) for split in ("dev", "test")}
    found, table = calibrate(open_release(options.release), splits, run, options.tenant)
    write(options.release, options.out, run.suffix, options.tenant, found)
    print(*table, sep="\n")


if __name__ == "__main__":
    main()

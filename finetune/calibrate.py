"""Fits how a release's logits become risks, for each precision, and makes a release of it.

    python -m finetune.calibrate finetune/calibrate.yaml --dataset DATASET --release RELEASE --out OUT

Scores the dev split through the engine that serves, in each precision: what rounding does to the logits is part of what
is fitted. Prints the calibration error on the test split before and after.
"""

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from sklearn.isotonic import IsotonicRegression

from finetune import dataset, scored
from finetune.command import command
from finetune.dataset import LabelledTimeline
from finetune.derived import derived
from finetune.recipe import Settings, read_settings
from fraudguard.engine.calibration import Calibration, Floats, Isotonic, fit_platt, fit_temperature, smoothed
from fraudguard.engine.engine import Engine
from fraudguard.engine.head_spec import HeadSpec, load_spec
from fraudguard.engine.precision import Precision
from fraudguard.engine.release import Release, open_release
from fraudguard.errors import BadInput
from fraudguard.evaluation import calibration_error

log = logging.getLogger(__name__)

Kind = Literal["temperature", "platt", "isotonic"]
Truths = npt.NDArray[np.bool_]


class FitRun(Settings):
    """precisions: the first one's calibration is the general one too. kind: see calibrate.yaml. folds: of "auto"."""

    precisions: Annotated[list[Precision], Field(min_length=1)]
    kind: Kind | Literal["auto"] = "auto"
    folds: Annotated[int, Field(ge=2)] = 5


class CalibrationRun(FitRun):
    """The whole of calibrate.yaml. suffix: of the new release's version."""

    suffix: str
    seed: int
    threads: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True)
class Sample:
    """The head's logits at the events whose truth is known. account: a number each."""

    logits: Floats
    fraud: Truths
    account: npt.NDArray[np.int64]

    @classmethod
    def of(cls, engine: Engine, timelines: Sequence[LabelledTimeline], tenant: str | None) -> "Sample":
        """engine: without its calibration."""
        rows = scored.rows_of(engine, timelines, tenant)
        found = scored.logits(engine, rows)
        _, accounts = np.unique(rows.accounts[rows.measured], return_inverse=True)
        return cls(found[rows.measured], rows.fraud[rows.measured], accounts.astype(np.int64))


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


def held_out_losses(sample: Sample, run: FitRun, seed: int) -> dict[Kind, Floats]:
    """Of each kind, the losses on accounts that the fit has not seen: an account's events are no news to each other."""
    places = np.random.default_rng(seed).permutation(sample.account.max() + 1)
    fold = places[sample.account] % run.folds
    risks = {kind: np.empty(len(fold)) for kind in FITS}
    for number in range(run.folds):
        rows = fold == number
        for kind, fit in FITS.items():
            risks[kind][rows] = fit(sample.logits[~rows], sample.fraud[~rows]).risk(sample.logits[rows])
    return {kind: log_losses(risk, sample.fraud) for kind, risk in risks.items()}


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


def fitted(sample: Sample, run: FitRun, seed: int) -> tuple[Kind, Calibration, dict[Kind, float]]:
    """The kind asked for, or the best, and its fit; each kind's mean loss if they were compared. Raises BadInput."""
    try:
        losses = held_out_losses(sample, run, seed) if run.kind == "auto" else {}
        kind = best(losses, sample.account) if run.kind == "auto" else run.kind
        found = FITS[kind](sample.logits, sample.fraud)
    except ValueError as error:
        raise BadInput(str(error), hint="calibrate on a larger dev split") from error
    return kind, found, {name: float(loss.mean()) for name, loss in losses.items()}


def fit(
    release: Release, dev: Sequence[LabelledTimeline], run: FitRun, seed: int, tenant: str | None = None
) -> dict[Precision, Calibration]:
    """What fits dev in each precision. Raises BadInput."""
    found: dict[Precision, Calibration] = {}
    for precision in run.precisions:
        sample = Sample.of(scored.uncalibrated(release, precision), dev, tenant)
        kind, found[precision], losses = fitted(sample, run, seed)
        compared = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        log.info("%s: %s; log-loss on accounts not fitted to: %s", precision, kind, compared or "not compared")
    return found


def table(
    release: Release,
    test: Sequence[LabelledTimeline],
    before: HeadSpec,
    found: Mapping[Precision, Calibration],
    tenant: str | None,
) -> list[str]:
    """What the new calibrations do to test, beside the ones before."""
    lines = ["| precision | kind | calibration error on test | log-loss on test |", "|---|---|---|---|"]
    for precision, calibration in found.items():
        sample = Sample.of(scored.uncalibrated(release, precision), test, tenant)
        risks = [one.risk(sample.logits) for one in (before.calibration_of(precision), calibration)]
        errors = " -> ".join(f"{calibration_error(sample.fraud, risk):.4f}" for risk in risks)
        losses = " -> ".join(f"{log_losses(risk, sample.fraud).mean():.4f}" for risk in risks)
        lines.append(f"| {precision} | {calibration.kind} | {errors} | {losses} |")
    return lines


def _head(release: Release, tenant: str | None) -> Path:
    if tenant is None:
        return release.head
    if tenant not in release.tenants:
        raise BadInput(f"has no tenant {tenant!r}", path=str(release.folder), hint=f"it has {sorted(release.tenants)}")
    return release.tenants[tenant].head


def write(part: Path, found: Mapping[Precision, Calibration]) -> None:
    """Into the head in this folder; the first one is the general one too."""
    spec = load_spec(part)
    both = {"calibration": next(iter(found.values())), "calibrations": {**spec.calibrations, **found}}
    (part / "head.json").write_text(spec.model_copy(update=both).model_dump_json(indent=1) + "\n")


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
    with command():
        given = {"kind": options.kind, "precisions": options.precisions and options.precisions.split(",")}
        changes = {name: value for name, value in given.items() if value}
        run = read_settings(options.recipe, CalibrationRun).model_copy(update=changes)
        torch.set_num_threads(run.threads)
        dev, test = (dataset.read(options.dataset, split) for split in ("dev", "test"))
        release = open_release(options.release)
        part = _head(release, options.tenant)
        found = fit(release, dev, run, run.seed, options.tenant)
        with derived(release, options.out, run.suffix) as made:
            write(made / part.relative_to(release.folder), found)
        print(*table(release, test, load_spec(part), found, options.tenant), sep="\n")


if __name__ == "__main__":
    main()

"""Releases for the registry's tests: copies of the starter that differ in version, calibration and measures."""

import json
import shutil
from pathlib import Path
from typing import Any

from fraudguard.engine.release import STARTER, seal

# Of metrics.json, as finetune/evaluate.py writes it.
MEASURES: dict[str, float] = {
    "average_precision": 0.6, "roc_auc": 0.9, "recall_at_0.1%_fpr": 0.3, "recall_at_1%_fpr": 0.5,
    "precision_at_k": 0.7, "k": 100, "calibration_error": 0.03, "early_share": 0.4,
}  # fmt: skip


def metrics_of(version: str, measures: dict[str, float], digest: str = "d" * 64) -> dict[str, Any]:
    """A whole metrics.json."""
    dataset = {"name": "fixed", "digest": digest}
    parts: dict[str, dict[str, float]] = {"scam": {"average_precision": 0.6, "recall_at_1%_fpr": 0.5}}
    return {
        "format": 1, "model": f"starter@{version}+int8", "dataset": dataset, "events": 1000, "frauds": 40,
        "measures": MEASURES | measures, "by_typology": parts, "by_language": {}, "by_channel": {}, "by_source": {},
    }  # fmt: skip


def sealed(
    folder: Path, version: str, *, offset: float = 0.0, metrics: dict[str, Any] | None = None, **manifest: object
) -> Path:
    """The starter under another version, sealed. offset: added to its calibration's. manifest: more of release.json."""
    shutil.copytree(STARTER, folder)
    head = folder / "head" / "head.json"
    spec = json.loads(head.read_text())
    spec["calibration"]["offset"] += offset
    head.write_text(json.dumps(spec))
    (folder / "metrics.json").unlink(missing_ok=True)  # the starter's own are not of this version
    changes: dict[str, object] = {"version": version, "metrics": None, **manifest}
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
        changes["metrics"] = "metrics.json"
    file = folder / "release.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    seal(folder)
    return folder

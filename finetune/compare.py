"""Releases and precisions side by side: size, speed and quality through the serving engine, one row each.

    python -m finetune.compare finetune/compare.yaml --dataset DATASET RELEASE+PRECISION RELEASE+PRECISION ...

Speed is CPU time (on a GPU, time) an event, taken by turns in one process and told as a ratio to the first row: such
ratios hold on a busy machine, milliseconds do not.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import safe_open

from finetune import dataset, measures, scored
from finetune.command import command
from finetune.dataset import LabelledTimeline
from finetune.evaluate import engine_model
from finetune.recipe import Settings, read_settings
from finetune.rows import sample
from fraudguard.domain import ScoreRequest
from fraudguard.engine.engine import Engine
from fraudguard.engine.precision import Precision
from fraudguard.engine.release import Release, open_release
from fraudguard.errors import BadInput

_PRECISION: TypeAdapter[Precision] = TypeAdapter(Precision)
# Of a row's quality: their names in measures.overall and in the table.
SHOWN = {
    "average_precision": "AP", "roc_auc": "AUC", "recall_at_1%_fpr": "recall at 1 % FPR",
    "calibration_error": "calibration error",
}  # fmt: skip


class CompareRun(Settings):
    """compare.yaml, which says what each is."""

    seed: int
    threads: Annotated[int, Field(ge=1)]
    test_events_max: Annotated[int, Field(ge=0)]
    speed_events: Annotated[int, Field(ge=1)]
    speed_batch: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True)
class Row:
    """One release in one precision. parameters: of base and head. disk, memory: bytes; memory: of the weights."""

    name: str
    parameters: int
    disk: int
    memory: int
    ms: float
    quality: dict[str, float]


def split_name(text: str) -> tuple[str, Precision]:
    """RELEASE+PRECISION, or a release alone, which is int8. Raises BadInput."""
    source, plus, precision = text.rpartition("+")
    if not plus:
        return text, "int8"
    try:
        return source, _PRECISION.validate_python(precision)
    except ValidationError as error:
        raise BadInput(f"{precision!r} is no precision", path=text, hint="RELEASE+int8, RELEASE+fp32, ...") from error


def parameters(release: Release) -> int:
    """Numbers in the base's body and the head, as their files have them; a merged adapter adds none."""
    count = 0
    for file in (*release.base.glob("*.safetensors"), release.head / "head.safetensors"):
        with safe_open(file, framework="np") as tensors:
            names = [name for name in tensors.keys() if not name.startswith("lm_head.")]  # noqa: SIM118  no mapping
            count += sum(int(np.prod(tensors.get_slice(name).get_shape())) for name in names)
    return count


def bytes_on_disk(release: Release) -> int:
    """Of every part, wherever it is."""
    parts = {release.base, release.head, *([release.adapter] if release.adapter else [])}
    return sum(file.stat().st_size for part in parts for file in part.rglob("*") if file.is_file())


def speeds(engines: Sequence[Engine], timelines: Sequence[LabelledTimeline], run: CompareRun) -> list[float]:
    """Milliseconds an event [engine], each batch scored by all of them, who begins going round."""
    spent = np.zeros(len(engines))
    scripts = [_turns(engine, timelines, run) for engine in engines]
    first = 0
    for calls in zip_longest(*scripts, fillvalue=()):
        for place in (*range(first, len(engines)), *range(first)):
            if calls[place]:
                spent[place] += _seconds(engines[place], calls[place])
        first = (first + 1) % len(engines)
    return [float(1000 * seconds / sum(map(len, script))) for seconds, script in zip(spent, scripts, strict=True)]


def _turns(engine: Engine, timelines: Sequence[LabelledTimeline], run: CompareRun) -> list[tuple[ScoreRequest, ...]]:
    """The accounts' events in turn, as a stream mixes them, in batches."""
    of_account = [
        [ask for _, _, ask in dataset.requests([one], engine.tokenizer, engine.tokens_max)] for one in timelines
    ]
    mixed = [ask for ask in chain.from_iterable(zip_longest(*of_account)) if ask is not None]
    mixed = mixed[: run.speed_events]
    return [tuple(mixed[start : start + run.speed_batch]) for start in range(0, len(mixed), run.speed_batch)]


def _seconds(engine: Engine, requests: Sequence[ScoreRequest]) -> float:
    clock = time.perf_counter if engine.device.type == "cuda" else time.process_time
    began = clock()
    engine.score(requests)
    return clock() - began


def compare(names: Sequence[str], folder: Path, run: CompareRun) -> list[Row]:
    """A row a name, in order. Raises BadInput, BadModel."""
    chosen = [split_name(name) for name in names]
    test = sample(dataset.read(folder, "test"), run.test_events_max, run.seed)
    engines = [Engine.load(source, precision, run.threads, scored.CACHE_BYTES, "auto") for source, precision in chosen]
    spent = speeds(engines, test, run)  # first: what is measured later is kept in their caches
    quality = []
    for engine in engines:
        rows = scored.rows_of(engine, test)
        measures.check(rows, str(folder / "test.parquet"))
        found = measures.overall(rows, engine_model(engine)(rows), 1)
        quality.append({name: found[name] for name in SHOWN})
    releases = [open_release(source) for source, _ in chosen]
    return [
        Row(engine.name, parameters(release), bytes_on_disk(release), engine.weight_bytes, ms, of_it)
        for engine, release, ms, of_it in zip(engines, releases, spent, quality, strict=True)
    ]


def table(rows: Sequence[Row]) -> list[str]:
    """As Markdown; in brackets what differs from the first row."""
    first = rows[0]
    lines = [
        "| release | parameters | on disk | weights in memory | time an event | " + " | ".join(SHOWN.values()) + " |",
        "|---" * (5 + len(SHOWN)) + "|",
    ]
    for row in rows:
        cells = [row.name, f"{row.parameters / 1e6:.2f}M", f"{row.disk / 1e6:.2f} MB", f"{row.memory / 1e6:.2f} MB"]
        cells.append(f"{row.ms / first.ms:.2f}x ({row.ms:.2f} ms)")
        for name in SHOWN:
            apart = "" if row is first else f" ({row.quality[name] - first.quality[name]:+.4f})"
            cells.append(f"{row.quality[name]:.4f}{apart}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("releases", nargs="+", help="RELEASE+PRECISION; int8 without one")
    parser.add_argument("--dataset", type=Path, required=True)
    options = parser.parse_args(arguments)
    with command():
        run = read_settings(options.recipe, CompareRun)
        torch.set_num_threads(run.threads)
        print(*table(compare(options.releases, options.dataset, run)), sep="\n")


if __name__ == "__main__":
    main()

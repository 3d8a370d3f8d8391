"""Takes the ranges that the calibrated int8 precisions need, and makes them a part of the release.

    python -m finetune.calibrate_activations RELEASE

Plays held-out stories of the dev part through the release in fp32 and writes what every linear layer read to RELEASE's
activations.json, which release.json then names. Weights stay as they are. Deterministic for one machine.
"""

import argparse
import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finetune.data import story_lives
from finetune.passages import snapshots
from fraudguard.domain import ScoreRequest
from fraudguard.engine.engine import Engine
from fraudguard.engine.loader import load
from fraudguard.engine.quantization import Range
from fraudguard.engine.release import SUMS, open_release, seal
from fraudguard.features.registry import MODEL_FEATURES

log = logging.getLogger(__name__)

FILE = "activations.json"
SEED, ACCOUNTS, FRAUDS = 0, 40, 15
BATCH = 64
CACHE_BYTES = 1 << 30  # all of the accounts' timelines, so that each of their tokens is read, and counted, once
# Of a layer's tokens, those that fit whole: one with a value far beyond all others is cut, or the rest has few levels.
FITTING = 0.999


class _Reader:
    """Per layer, the lowest and the highest value of each token that it reads."""

    def __init__(self, body: nn.Module) -> None:
        self._seen: dict[str, list[Tensor]] = defaultdict(list)
        for name, layer in body.named_modules():
            if isinstance(layer, nn.Linear):
                # A layer with adapters beside it is one deeper.
                layer.register_forward_pre_hook(self._hook(name.removesuffix(".base")))

    def _hook(self, name: str) -> Any:
        def take(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2)
            self._seen[name].append(torch.stack((rows.amin(1), rows.amax(1))))

        return take

    def ranges(self) -> dict[str, Range]:
        """low and high of each layer, to four digits."""
        found = {}
        for name, parts in self._seen.items():
            lows, highs = torch.cat(parts, dim=1)
            low, high = lows.quantile(1 - FITTING).item(), highs.quantile(FITTING).item()
            found[name] = float(f"{low:.4g}"), float(f"{high:.4g}")
        return found


def calibrate(folder: Path) -> None:
    """Take the ranges of the release in `folder`, write them, name them in its release.json.

    One that was sealed is sealed anew. Raises BadModel.
    """
    loaded = load(open_release(folder), "fp32")
    reader = _Reader(loaded.backbone)
    engine = Engine("calibration", loaded, CACHE_BYTES)
    lives = story_lives("dev", SEED, ACCOUNTS, FRAUDS)
    requests = [
        ScoreRequest(snapshot.timeline, {name: snapshot.features[name] for name in MODEL_FEATURES})
        for _, _, snapshot in snapshots(lives, engine.tokenizer, engine.tokens_max)
    ]
    for start in range(0, len(requests), BATCH):
        engine.score(requests[start : start + BATCH])
    ranges = reader.ranges()
    (folder / FILE).write_text(json.dumps(ranges, indent=1) + "\n")
    manifest = folder / "release.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"activations": FILE}, indent=1) + "\n")
    if (folder / SUMS).is_file():
        seal(folder)
    log.info("%s: the ranges of %d layers, from %d events", folder / FILE, len(ranges), len(requests))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    calibrate(options.release)


if __name__ == "__main__":
    main()

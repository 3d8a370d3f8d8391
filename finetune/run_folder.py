"""A training run on disk: its last checkpoint, its losses and their picture; killed anywhere, it can go on.

    RUN/checkpoint.pt    replaced whole, every so many steps; gone when the run has ended
    RUN/losses.jsonl     a line a step: step, loss, rate; a line a reading of dev: step, dev, mean
    RUN/losses.png       the same as a picture

Knows files and what a run's state consists of, not what the steps do.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from fraudguard.errors import BadInput


@dataclass(slots=True)
class State:
    """Where a run is. trained: the parameters themselves. best, kept: of the best reading of dev, and its weights.

    stale: readings of dev since then. history: what losses.jsonl will hold.
    """

    trained: Mapping[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    step: int = 0
    best: float = -1.0
    stale: int = 0
    kept: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def learned(self, loss: float, rate: float) -> None:
        """One step more."""
        self.step += 1
        self.history.append({"step": self.step, "loss": loss, "rate": rate})

    def judged(self, precision: dict[str, float]) -> None:
        """dev was read: the average precision of each source."""
        mean = float(np.mean(list(precision.values())))
        self.history.append({"step": self.step, "dev": precision, "mean": mean})
        self.stale += 1
        if mean > self.best:
            self.best, self.stale = mean, 0
            self.kept = {name: one.detach().clone() for name, one in self.trained.items()}

    @torch.no_grad()
    def take_best(self) -> None:
        """Give the parameters the kept weights."""
        self._take(self.kept)

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            self.trained[name].copy_(weight)

    def dump(self) -> dict[str, Any]:
        """Everything, as torch.save stores it."""
        return {
            "step": self.step, "best": self.best, "stale": self.stale, "kept": self.kept, "history": self.history,
            "trained": {name: one.detach() for name, one in self.trained.items()},
            "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip

    @torch.no_grad()
    def load(self, stored: Mapping[str, Any]) -> None:
        """Be where `dump` was."""
        self.step, self.best, self.stale = stored["step"], stored["best"], stored["stale"]
        self.kept, self.history = stored["kept"], stored["history"]
        self._take(stored["trained"])
        self.optimizer.load_state_dict(stored["optimizer"])


class RunFolder:
    """Stores a run in a folder."""

    def __init__(self, folder: Path, save_every: int, *, resume: bool = False) -> None:
        """save_every: steps. resume: go on from the folder's checkpoint. Raises BadInput where one is in the way."""
        self._folder, self._save_every, self._resume, self._key = folder, save_every, resume, ""
        self._checkpoint = folder / "checkpoint.pt"
        if self._checkpoint.exists() and not resume:
            hint = "--resume goes on with it; delete the folder to begin anew"
            raise BadInput("an unfinished run is here", path=str(folder), hint=hint)

    def resume(self, state: State, key: str) -> None:
        """Bring the state to where the folder's run was, if there is one. key: names the run. Raises BadInput."""
        self._key = key
        if not self._resume or not self._checkpoint.exists():
            return
        try:
            stored = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # torch and pickle raise kinds of their own
            raise BadInput(f"cannot be read: {error}", path=str(self._checkpoint)) from error
        if stored["key"] != key:
            hint = "take the same recipe, base and dataset, or delete the folder to begin anew"
            raise BadInput("was begun with other settings, weights or data", path=str(self._checkpoint), hint=hint)
        state.load(stored)

    def keep(self, state: State, *, done: bool = False) -> None:
        """Called after every step; stores the run when it is time to. done: it is, at the training's end."""
        if state.step % self._save_every and not done:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with _replaced(self._checkpoint) as file:
            torch.save({"key": self._key} | state.dump(), file)
        with _replaced(self._folder / "losses.jsonl") as file:
            file.writelines(json.dumps(entry).encode() + b"\n" for entry in state.history)
        if done:
            draw(state.history, self._folder / "losses.png")

    def finish(self) -> None:
        """What was trained is stored elsewhere: the losses stay, the checkpoint goes."""
        self._checkpoint.unlink(missing_ok=True)


@contextmanager
def progress(steps: int, step: int) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal; what it yields is called with each step's loss."""
    console = Console(stderr=True)
    columns = (
        TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=steps, completed=step, loss=float("nan"))
        yield lambda loss: bar.update(task, advance=1, loss=loss)


@contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when it is whole and on the disk."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def draw(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Losses, with their running mean, and the average precision on dev over the steps."""
    from matplotlib.figure import Figure

    learned = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    read = [entry for entry in history if "dev" in entry]
    steps, losses = zip(*learned, strict=True)
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, losses, color="0.8", linewidth=0.8)
    width = max(len(losses) // 50, 1)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    left.plot(steps[width - 1 :], smooth, label=f"mean of {width} steps")
    left.set(xlabel="step", ylabel="loss")
    left.legend()
    for source in sorted({name for entry in read for name in entry["dev"]}):
        points = [(entry["step"], entry["dev"][source]) for entry in read if source in entry["dev"]]
        right.plot(*zip(*points, strict=True), marker=".", label=source)
    right.set(xlabel="step", ylabel="average precision on dev", ylim=(0, 1))
    right.legend()
    figure.savefig(path)

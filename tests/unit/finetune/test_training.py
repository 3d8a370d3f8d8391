"""A training run, made tiny: its losses, its rows, its end, and how it goes on after it was killed."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from finetune_support import lora_settings, make_base, make_timelines
from peft import PeftModel

from finetune import adapt
from finetune.adapt import Learner, Sample, new_adapter, new_head, samples, train
from finetune.dataset import passages
from finetune.lora import calibrate_on
from finetune.objective import Objective
from finetune.packing import plan
from finetune.recipe import LoraRecipe
from finetune.run_folder import RunFolder, State
from fraudguard.engine.head import FusionHead
from fraudguard.engine.loader import load_base
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadInput

# On another CPU sums may be added up in another order: 1e-7 of a loss, which ten steps make 1e-4.
LOSSES = [0.78915, 0.94372, 0.77304, 0.62602, 0.59912, 0.73888, 0.94881, 0.68633, 0.22667, 1.0559]
# What is dropped is drawn for every feature there is: these losses do not change with the registry.
NOTHING_DROPPED: dict[str, Any] = {
    "dropout": 0.0, "head": {"width": 16, "bins": 4, "rate": 0.01, "dropout": 0.0, "number_dropout": 0.0},
}  # fmt: skip
Data = tuple[list[Sample], list[Sample]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two layers."""
    return make_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def data(base: Path) -> Data:
    """train and dev."""
    tokenizer, run = LineTokenizer(base), recipe().adapter
    train, dev = (
        samples(passages(made, tokenizer, run.tokens_max), tokenizer, run.prefix)
        for made in (make_timelines(30, 1), make_timelines(15, 2))
    )
    return train, dev


def recipe(**changes: Any) -> LoraRecipe:
    """lora.yaml made tiny."""
    return LoraRecipe.model_validate(lora_settings(**changes))


def made(base: Path, data: list[Sample], settings: LoraRecipe) -> tuple[PeftModel, FusionHead]:
    """An adapter and a head at their beginning."""
    torch.manual_seed(settings.seed)
    adapted = new_adapter(load_base(base), settings.adapter)
    return adapted, new_head(data, adapted.config.hidden_size, settings.head, settings.adapter.tokens_max)


def history(folder: Path) -> list[dict[str, Any]]:
    """losses.jsonl."""
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def weights(adapted: PeftModel, head: FusionHead) -> dict[str, torch.Tensor]:
    """What was trained."""
    of_adapter = {name: one for name, one in adapted.named_parameters() if one.requires_grad}
    return of_adapter | dict(head.named_parameters())


def run(base: Path, data: Data, folder: RunFolder, **changes: Any) -> dict[str, torch.Tensor]:
    """Train from the beginning, or from where the folder is, and give the weights."""
    settings = recipe(**changes)
    adapted, head = made(base, data[0], settings)
    train(adapted, head, *data, settings.adapter, settings.head, settings.seed, False, folder)
    return weights(adapted, head)


def test_the_first_losses(base: Path, data: Data, tmp_path: Path) -> None:
    """The numbers of the first ten steps; the rate goes up and then down; dev is read twice; there is a picture."""
    run(base, data, RunFolder(tmp_path, 100), epochs=1, **NOTHING_DROPPED)
    steps = [entry for entry in history(tmp_path) if "loss" in entry]
    assert [entry["loss"] for entry in steps][:10] == pytest.approx(LOSSES, abs=1e-3)
    assert steps[0]["rate"] == 0.01 > steps[-1]["rate"]
    assert [entry["step"] for entry in history(tmp_path) if "dev" in entry] == [len(steps) // 2, len(steps)]
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


class Interrupted(RunFolder):
    """Is gone after so many steps, before these are stored."""

    def __init__(self, folder: Path, save_every: int, steps: int) -> None:
        super().__init__(folder, save_every)
        self._left = steps

    def keep(self, state: State, *, done: bool = False) -> None:
        """Stores, or is gone."""
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt
        super().keep(state, done=done)


@pytest.fixture(scope="module")
def whole(base: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A run in one go: its folder, and the weights."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(base, data, RunFolder(folder, 3))


@pytest.mark.parametrize("steps", [1, 9, 10, 16], ids=["nothing stored", "dev was read", "just stored", "second epoch"])
def test_a_run_that_was_killed_goes_on_bit_for_bit(
    base: Path, data: Data, whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, steps: int
) -> None:
    """Adapter, head, optimizer, rate, dropout and order: losses, dev and weights are those of a run in one go."""
    folder, wanted = whole
    with pytest.raises(KeyboardInterrupt):
        run(base, data, Interrupted(tmp_path, 3, steps))
    found = run(base, data, RunFolder(tmp_path, 3, resume=True))
    assert history(tmp_path) == history(folder)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_another_run_is_not_taken_up(base: Path, data: Data, tmp_path: Path) -> None:
    """Settings, data and base must be those it was begun with; and what is unfinished is not overwritten."""
    with pytest.raises(KeyboardInterrupt):
        run(base, data, Interrupted(tmp_path, 2, 5))
    with pytest.raises(BadInput, match="--resume goes on with it"):
        RunFolder(tmp_path, 2)
    fewer = data[0][1:], data[1]
    other = make_base(tmp_path / "other", "r1_distill")
    for of_base, of_data, changes in ((base, data, {"rate": 0.02}), (base, fewer, {}), (other, data, {})):
        with pytest.raises(BadInput, match="other settings, weights or data"):
            run(of_base, of_data, RunFolder(tmp_path, 2, resume=True), **changes)
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(BadInput, match="cannot be read"):
        run(base, data, RunFolder(tmp_path, 2, resume=True))


def learned(base: Path, data: Data, row_tokens: int, **changes: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the gradients of one step over all of train."""
    settings = recipe(dropout=0.0, row_tokens=row_tokens, **changes)
    adapted, head = made(base, data[0], settings)
    if settings.adapter.gradient_checkpointing:
        adapted.gradient_checkpointing_enable({"use_reentrant": False})
    head.mlp[2].p = 0.0
    # Both of LoRA's factors, so that each has a gradient.
    for one in weights(adapted, head).values():
        torch.nn.init.normal_(one, 0, 0.1, generator=torch.Generator().manual_seed(one.numel()))
    objective = Objective.of(data[0], len(adapt.TYPOLOGIES), 0.5, 0.1, 0.1)
    ((step,),) = [list(plan([len(one.ids) for one in data[0]], 4096, row_tokens, Random(0)))]
    assert (len(step) == 1) == (row_tokens == 4096)
    torch.manual_seed(0)
    loss = Learner(adapted, head, objective, 0.1, bfloat16=False).backward([[data[0][n] for n in row] for row in step])
    return loss, {name: one.grad for name, one in weights(adapted, head).items() if one.grad is not None}


def test_gradients_of_rows_add_up(base: Path, data: Data) -> None:
    """4,096 tokens at once are the same step as twice 2,048, and as with layers worked out again (checkpointing)."""
    wanted_loss, wanted = learned(base, data, 4096)
    for changes in ({"row_tokens": 2048}, {"row_tokens": 4096, "gradient_checkpointing": True}):
        loss, found = learned(base, data, **changes)
        assert loss == pytest.approx(wanted_loss, rel=1e-6)
        for name, gradient in wanted.items():
            assert gradient.abs().max() > 0, name
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def test_it_ends_when_dev_gains_nothing(
    base: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `patience` readings without a gain; the weights are those of the best one."""
    means = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    kept: list[dict[str, torch.Tensor]] = []
    take = State.judged

    def judged(self: State, _: dict[str, float]) -> None:
        kept.append({name: one.detach().clone() for name, one in self.trained.items()})
        take(self, {"calls": next(means)})

    monkeypatch.setattr(State, "judged", judged)
    found = run(base, data, RunFolder(tmp_path, 100), patience=2, epochs=9)
    assert [entry["mean"] for entry in history(tmp_path) if "dev" in entry] == [0.5, 0.7, 0.6, 0.7]
    for name, one in found.items():
        assert torch.equal(one, kept[1].get(name, kept[1].get(f"head.{name}")))


def test_a_loss_that_is_no_number_ends_it(base: Path, data: Data, tmp_path: Path) -> None:
    """With what to change."""
    with pytest.raises(BadInput, match=r"the loss of step \d+ is .*rate"):
        run(base, data, RunFolder(tmp_path, 100), rate=1e30)


def test_a_calibration_needs_both_kinds(base: Path, data: Data) -> None:
    """dev whose every certain reading is a fraud says so."""
    frauds = [replace(sample, truth=torch.ones_like(sample.truth)) for sample in data[1]]
    with pytest.raises(BadInput, match=r"cannot be calibrated on dev: .* both frauds and others"):
        calibrate_on(*made(base, data[0], recipe()), frauds)


def test_dev_needs_frauds(base: Path, data: Data, tmp_path: Path) -> None:
    """There is nothing to choose by."""
    harmless = [sample for sample in data[1] if not sample.truth.any()]
    with pytest.raises(BadInput, match="dev holds no fraud"):
        run(base, (data[0], harmless), RunFolder(tmp_path, 100))

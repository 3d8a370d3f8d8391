"""The head: its encoding against a plain one, its file, and what it refuses."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.engine.calibration import Platt
from fraudguard.engine.head import FusionHead, load_head
from fraudguard.engine.head_spec import HeadSpec, NumericInput
from fraudguard.errors import BadModel

EDGES = {"a": [0.0, 1.0, 10.0], "b": [-5.0, 5.0], "c": [0.0, 1.0]}


def make(hidden_size: int = 8) -> FusionHead:
    """A head with random weights over EDGES."""
    torch.manual_seed(3)
    return FusionHead(
        HeadSpec(
            format=1, hidden_size=hidden_size, width=4, tokens_max=64,
            features=[NumericInput(name=name, edges=edges) for name, edges in EDGES.items()],
            typologies=["scam", "other"], calibration=Platt(slope=2.0, offset=0.25),
        )
    ).eval()  # fmt: skip


def plain_encoding(row: list[float]) -> list[float]:
    """The definition: each bin holds how much of it lies below the value."""
    filled = []
    for value, edges in zip(row, EDGES.values(), strict=True):
        for low, high in pairwise(edges):
            filled.append(0.0 if math.isnan(value) else min(max((value - low) / (high - low), 0.0), 1.0))
    return filled + [float(math.isnan(value)) for value in row]


@settings(max_examples=100, deadline=None)
@given(row=st.lists(st.one_of(st.just(math.nan), st.floats(-100, 100, width=32)), min_size=3, max_size=3))
def test_the_encoding_is_piecewise_linear(row: list[float]) -> None:
    """Against a loop over the bins, missing values included."""
    assert make().encode(torch.tensor([row]))[0].tolist() == pytest.approx(plain_encoding(row), abs=1e-5)


def test_a_saved_head_is_the_same(tmp_path: Path) -> None:
    """Files and back, bit for bit."""
    head = make()
    head.save(tmp_path)
    again = load_head(tmp_path)
    hidden, numbers = torch.randn(5, 8), torch.randn(5, 3)
    assert torch.equal(head(hidden, numbers)[0], again(hidden, numbers)[0])
    assert torch.equal(head(hidden, numbers)[1], again(hidden, numbers)[1])
    assert again.spec == head.spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec["features"][0].update(edges=[0.0, 0.0]), "the edges of a do not ascend"),
        (lambda spec: spec["features"].append(spec["features"][0]), "a feature is named twice"),
        (lambda spec: spec.update(typologies=["phishing"]), "unknown typologies.*phishing"),
        (
            lambda spec: spec["calibration"].update(slope=-1.0),
            "calibration.platt.slope: Input should be greater than 0",
        ),
        (lambda spec: spec.update(width=5), "does not fit head.json"),
        (lambda spec: spec.pop("tokens_max"), "tokens_max: Field required"),
    ],
)
def test_a_bad_specification_is_refused(tmp_path: Path, change: object, message: str) -> None:
    """The error names the file and the place in it."""
    make().save(tmp_path)
    file = tmp_path / "head.json"
    spec = json.loads(file.read_text())
    change(spec)  # type: ignore[operator]  # a lambda from the table
    file.write_text(json.dumps(spec))
    with pytest.raises(BadModel, match=message):
        load_head(tmp_path)


@pytest.mark.parametrize("name", ["head.json", "head.safetensors"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    """The error names the file."""
    make().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BadModel, match=f"no {name}"):
        load_head(tmp_path)

"""A release as one ONNX graph: body, head and calibration, for machines that shall not need torch.

Knows torch's exporter and what an ONNX release is made of; knows no account and no request (engine/onnx_engine.py runs
what is made here). The graph reads one timeline's next tokens after the keys and values of those before, so that an
event costs its own line there too. int8 is onnxruntime's MatMulNBits: a scale for each block of weights and each token.
Its "dynamic quantization" has one scale for all tokens that are read together: what is cached would change the score.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnxruntime
import torch
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from torch import Tensor, nn
from torch.export import Dim

from fraudguard.engine.calibration import Calibration, Isotonic, Platt
from fraudguard.engine.head import FusionHead
from fraudguard.engine.lexicon import FILE as LEXICON
from fraudguard.engine.loader import load
from fraudguard.engine.onnx_engine import INPUTS, OUTPUTS
from fraudguard.engine.precision import Precision
from fraudguard.engine.qwen2 import Qwen2
from fraudguard.engine.release import Release, open_release, seal
from fraudguard.errors import BadModel

# As _moved tells it. fp32: onnxruntime's sigmoid is right to some 1e-7, 1e-4 of the log-odds of a risk of 0.001.
RISK_MOVED_MAX: dict[Precision, float] = {"fp32": 1e-3, "int8": 0.1}


class _Scorer(nn.Module):
    """A timeline's next tokens and its features in; risk [1], typology logits [1, typology], keys and values out."""

    def __init__(self, backbone: Qwen2, head: FusionHead, positions: int, calibration: Calibration) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.calibrated = _sigmoid(calibration) if isinstance(calibration, Platt) else _Steps(calibration)
        # Qwen2.5's table is for 32,768.
        backbone.cosines, backbone.sines = backbone.cosines[:positions].clone(), backbone.sines[:positions].clone()

    def forward(self, ids: Tensor, past: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, new = self.backbone.extend(ids, past)
        logit, typologies = self.head(hidden, numbers)
        return self.calibrated(logit), typologies, new

    def past(self, tokens: int) -> Tensor:
        """Room for the keys and values of so many tokens."""
        return self.backbone.new_pool(tokens)


def _sigmoid(platt: Platt) -> Callable[[Tensor], Tensor]:
    return lambda logit: torch.sigmoid(platt.slope * logit + platt.offset)


class _Steps(nn.Module):
    """An isotonic calibration, logit [1] to risk [1]: the sum of how much of each step lies below the logit."""

    low: Tensor
    width: Tensor
    rise: Tensor

    def __init__(self, isotonic: Isotonic) -> None:
        super().__init__()
        logits, risks = torch.tensor(isotonic.logits), torch.tensor(isotonic.risks)
        self.register_buffer("low", logits[:-1])
        self.register_buffer("width", logits.diff())
        self.register_buffer("rise", risks.diff())
        self.least = isotonic.risks[0]

    def forward(self, logit: Tensor) -> Tensor:
        passed = ((logit[:, None] - self.low) / self.width).clamp(0.0, 1.0)
        return self.least + (passed * self.rise).sum(dim=1)


class _Product(nn.Module):
    """A linear layer with an axis more, which the exporter writes as MatMul, not Gemm: only MatMul is quantized."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x[None])
        return y[0]


def export(source: Path | str, folder: Path, precision: Precision) -> float:
    """Make `folder`, an ONNX release of the release in `source`; gives how far a risk moves from torch's in fp32.

    Raises BadModel: the source is no release for torch, the folder exists, or the graph scores otherwise.
    """
    if folder.exists():
        raise BadModel("there is something already", path=str(folder), hint="name a folder that is not there yet")
    release = replace(open_release(source), tenants={})  # one graph has one adapter, merged: the release's own
    loaded = load(release, "fp32")
    if precision == "int8":
        _to_products(loaded.backbone)
    spec = loaded.head.spec
    positions, calibration = len(loaded.prefix) + spec.tokens_max, spec.calibration_of(precision)
    scorer = _Scorer(loaded.backbone, loaded.head, positions, calibration).eval()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        made = Path(unfinished) / folder.name
        made.mkdir()
        graph = made / f"{precision}.onnx"
        _write(scorer, graph, precision)
        moved = _moved(scorer, graph)
        if not moved <= RISK_MOVED_MAX[precision]:
            raise BadModel(f"the exported graph moves a risk by {moved:.1e}", path=str(source))
        _complete(made, release, graph.name)
        made.rename(folder)
    return moved


def _to_products(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, _Product(child))
        else:
            _to_products(child)


def _write(scorer: _Scorer, graph: Path, precision: Precision) -> None:
    """The graph's file; weights beyond 2 GB, protobuf's limit, go into one beside it."""
    example = (torch.arange(3), scorer.past(2), torch.zeros(1, len(scorer.head.names)))
    axes = ({0: Dim("new")}, {1: Dim("past")}, None)
    program = torch.onnx.export(
        scorer, example, input_names=INPUTS, output_names=OUTPUTS, dynamic_shapes=axes, dynamo=True, verbose=False
    )
    assert program is not None  # noqa: S101  None is for the old exporter
    if precision == "fp32":
        program.save(graph)
        return
    # In blocks of 32 a token's sums are the same bit for bit whatever is read with it; in the default 128 they are not.
    quantizer = MatMulNBitsQuantizer(
        program.model_proto,
        bits=8,
        block_size=32,
        is_symmetric=True,
        accuracy_level=4,  # 4: products of int8
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(graph), quantizer.model.model.ByteSize() >= 2**31)


def _moved(scorer: _Scorer, graph: Path) -> float:
    """The largest difference between the graph's risk and the module's, for random timelines read in two steps.

    Random tokens have risks near 0, where nothing moves; so it is told for a risk of 0.5: a quarter of the log-odds'.
    Where steps make such risks equal, what shows a difference is the typologies' shares, from the same hidden layer.
    """
    session = onnxruntime.InferenceSession(os.fspath(graph), providers=["CPUExecutionProvider"])
    random = torch.Generator().manual_seed(0)
    spec, vocabulary, longest = scorer.head.spec, scorer.backbone.shape.vocabulary, len(scorer.backbone.cosines)
    largest = 0.0
    for total, first in ((longest, longest - 1), (longest, 1), (2, 1)):
        ids = torch.randint(vocabulary, (total,), generator=random)
        numbers = torch.randn(1, len(spec.features), generator=random) * 10
        numbers[torch.rand(numbers.shape, generator=random) < 0.2] = torch.nan
        with torch.inference_mode():
            wanted, kinds, _ = scorer(ids, scorer.past(0), numbers)
        kept = scorer.past(0).numpy()
        for part in (ids[:first], ids[first:]):
            given = zip(INPUTS, (part.numpy(), kept, numbers.numpy()), strict=True)
            risk, found, kept = session.run(OUTPUTS, dict(given))
        odds = torch.logit(torch.cat((wanted, torch.from_numpy(risk))), eps=1e-6)
        shares = torch.cat((kinds, torch.from_numpy(found))).softmax(dim=1)
        largest = max(largest, float(odds.diff().abs()) / 4, float(shares.diff(dim=0).abs().max()))
    return largest


def _complete(folder: Path, release: Release, graph: str) -> None:
    """Everything beside the graph, but the measures: those are of another engine's risks."""
    shutil.copyfile(release.base / "tokenizer.json", folder / "tokenizer.json")
    shutil.copyfile(release.head / "head.json", folder / "head.json")
    if (release.head / LEXICON).is_file():
        shutil.copyfile(release.head / LEXICON, folder / LEXICON)
    manifest = {
        "format": 1, "name": release.name, "version": release.version, "description": "Made by fraudguard export-onnx.",
        "base": ".", "head": ".", "graph": graph, "prefix": release.prefix, "timeline": release.timeline,
    }  # fmt: skip
    if release.licence is not None:
        shutil.copyfile(release.licence, folder / release.licence.name)
        manifest["licence"] = release.licence.name
    (folder / "release.json").write_text(json.dumps(manifest, indent=1) + "\n")
    seal(folder)

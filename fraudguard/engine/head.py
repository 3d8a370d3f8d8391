"""The joint-fusion head: last hidden state and numeric features in, one risk logit and the typologies' logits out.

Knows tensors and head.json; features are looked up by the names written there, so this file knows no registry.
Numbers enter by piecewise-linear encoding (Gorishniy et al., arXiv 2203.05556): a value fills its quantile bins up to
its place. A missing value fills none and has an indicator of its own.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fraudguard.domain import Scalar, Score, Typology
from fraudguard.engine.calibration import Platt
from fraudguard.errors import BadModel

_Strict = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class NumericInput(BaseModel):
    """A feature and the edges of its bins, ascending, in the feature's unit; a boolean has the edges 0 and 1."""

    model_config = _Strict
    name: str
    edges: Annotated[list[float], Field(min_length=2)]

    @model_validator(mode="after")
    def _ascending(self) -> "NumericInput":
        if any(high <= low for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"the edges of {self.name} do not ascend")
        return self


class Calibration(BaseModel):
    """Platt's sigmoid over the risk logit."""

    model_config = _Strict
    kind: Literal["platt"]
    slope: Annotated[float, Field(gt=0)]
    offset: float


class HeadSpec(BaseModel):
    """head.json. tokens_max: the longest timeline it was trained on. width: of the hidden layer."""

    model_config = _Strict
    format: Literal[1]
    hidden_size: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    tokens_max: Annotated[int, Field(ge=1)]
    features: list[NumericInput]
    typologies: Annotated[list[str], Field(min_length=1)]
    calibration: Calibration

    @model_validator(mode="after")
    def _known(self) -> "HeadSpec":
        unknown = sorted(set(self.typologies) - set(Typology))
        if unknown:
            raise ValueError(f"unknown typologies {unknown}")
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError("a feature is named twice")
        return self


def as_numbers(names: Sequence[str], rows: Sequence[Mapping[str, Scalar]]) -> npt.NDArray[np.float32]:
    """The rows' values [row, name]; booleans are 0 and 1, None and what is not finite are NaN.

    Raises BadModel for a name that a row lacks and for text: the head was made for another registry.
    """
    table = np.empty((len(rows), len(names)), dtype=np.float32)
    for i, row in enumerate(rows):
        for j, name in enumerate(names):
            try:
                value = row[name]
            except KeyError:
                raise BadModel(
                    f"the head reads a feature {name!r} that the events do not have",
                    hint="this release was trained for another version of the feature registry",
                ) from None
            if isinstance(value, str):
                raise BadModel(f"the head reads {name!r} as a number, but it is text")
            table[i, j] = value if value is not None and math.isfinite(value) else math.nan
    return table


class FusionHead(nn.Module):
    """[n, hidden_size] and [n, feature] with NaN for missing -> risk logit [n], typology logits [n, typology]."""

    def __init__(self, spec: HeadSpec, dropout: float = 0.0) -> None:
        super().__init__()
        self.spec = spec
        self.names = tuple(feature.name for feature in spec.features)
        bins = [
            (column, low, high - low)
            for column, feature in enumerate(spec.features)
            for low, high in zip(feature.edges, feature.edges[1:], strict=False)
        ]
        self._column = torch.tensor([column for column, _, _ in bins], dtype=torch.long)
        self._low = torch.tensor([low for _, low, _ in bins], dtype=torch.float32)
        self._width = torch.tensor([width for _, _, width in bins], dtype=torch.float32)
        inputs = spec.hidden_size + len(bins) + len(spec.features)
        self.mlp = nn.Sequential(
            nn.Linear(inputs, spec.width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(spec.width, 1 + len(spec.typologies)),
        )

    def encode(self, numbers: Tensor) -> Tensor:
        """Bins filled in [0, 1], then the missing indicators: [n, bins + feature]."""
        missing = numbers.isnan()
        filled = ((numbers[:, self._column] - self._low) / self._width).clamp(0.0, 1.0)
        return torch.cat([filled.nan_to_num(0.0), missing.to(torch.float32)], dim=1)

    def forward(self, hidden: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102 - see the class
        logits = self.mlp(torch.cat([hidden, self.encode(numbers)], dim=1))
        return logits[:, 0], logits[:, 1:]

    @torch.inference_mode()
    def scores(self, hidden: Tensor, rows: Sequence[Mapping[str, Scalar]], model: str) -> list[Score]:
        """A score, signed `model`, for each hidden state [n, hidden_size] with its row of features.

        Raises BadModel when the features are not those it was made for.
        """
        logits, kinds = self(hidden, torch.from_numpy(as_numbers(self.names, rows)))
        risks = self.calibration.risk(logits.numpy())
        typologies = [Typology(self.spec.typologies[kind]) for kind in kinds.argmax(dim=1).tolist()]
        return [Score(float(risk), kind, model) for risk, kind in zip(risks, typologies, strict=True)]

    @property
    def calibration(self) -> Platt:
        """The sigmoid from risk logit to risk."""
        return Platt(self.spec.calibration.slope, self.spec.calibration.offset)

    def save(self, folder: Path) -> None:
        """Write head.json and head.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "head.json").write_text(json.dumps(self.spec.model_dump(), indent=1) + "\n")
        save_file(self.state_dict(), folder / "head.safetensors")


def load_head(folder: Path) -> FusionHead:
    """The head in the folder, ready to score. Raises BadModel."""
    specification, weights = folder / "head.json", folder / "head.safetensors"
    for file in (specification, weights):
        if not file.is_file():
            raise BadModel(f"there is no {file.name}", path=str(folder))
    try:
        head = FusionHead(HeadSpec.model_validate_json(specification.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadModel(f"{where}: {first['msg']}", path=str(specification)) from error
    try:
        head.load_state_dict(load_file(weights))
    except Exception as error:  # safetensors and torch raise kinds of their own
        raise BadModel(f"does not fit head.json: {error}", path=str(weights)) from error
    return head.eval()

"""head.json: which features the head reads, in which bins, and what its logits mean.

Knows numbers and names; features are looked up by the names written there, so this file knows no registry. Knows no
torch: whatever runs the model, with or without it, reads this.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fraudguard.domain import Scalar, Typology
from fraudguard.engine.calibration import Calibration
from fraudguard.engine.precision import Precision
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


class HeadSpec(BaseModel):
    """head.json. tokens_max: the longest timeline it was trained on. width: of the hidden layer.

    calibrations: by precision, where the logits of one mean something else than `calibration` says.
    """

    model_config = _Strict
    format: Literal[1]
    hidden_size: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    tokens_max: Annotated[int, Field(ge=1)]
    features: list[NumericInput]
    typologies: Annotated[list[str], Field(min_length=1)]
    calibration: Calibration
    calibrations: dict[Precision, Calibration] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> "HeadSpec":
        unknown = sorted(set(self.typologies) - set(Typology))
        if unknown:
            raise ValueError(f"unknown typologies {unknown}")
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError("a feature is named twice")
        return self

    def calibration_of(self, precision: str) -> Calibration:
        """That of the precision, or the general one where it has none of its own."""
        return next((own for name, own in self.calibrations.items() if name == precision), self.calibration)


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


def load_spec(folder: Path) -> HeadSpec:
    """The head.json in the folder. Raises BadModel."""
    file = folder / "head.json"
    if not file.is_file():
        raise BadModel("there is no head.json", path=str(folder))
    try:
        return HeadSpec.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadModel(f"{where}: {first['msg']}", path=str(file)) from error

"""metrics.json: how good a release was on a fixed set, through the serving engine.

Knows the file's form alone: finetune/evaluate.py writes it, the promotion gate (promotion.py) reads it. Knows no torch,
no release's folder, and computes nothing.
"""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fraudguard.errors import BadModel

_STARTER: Final = "engine/starter/metrics.json"  # of the release that ships: read as a file, without the engine

_Form = ConfigDict(
    frozen=True, extra="forbid", allow_inf_nan=False, validate_by_name=True, validate_by_alias=True,
    serialize_by_alias=True,
)  # fmt: skip
_Share = Annotated[float, Field(ge=0, le=1)]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Dataset(BaseModel):
    """What was measured on. digest: SHA-256 of its test.parquet."""

    model_config = _Form
    name: str
    digest: _Digest


class Measures(BaseModel):
    """Over all events. k: of precision_at_k. early_share: of the scams caught by half of their turns.

    It is missing where no fraud was part of a conversation.
    """

    model_config = _Form
    average_precision: _Share
    roc_auc: _Share
    recall_at_01_fpr: Annotated[_Share, Field(alias="recall_at_0.1%_fpr")]
    recall_at_1_fpr: Annotated[_Share, Field(alias="recall_at_1%_fpr")]
    precision_at_k: _Share
    k: Annotated[int, Field(ge=1)]
    calibration_error: _Share
    early_share: _Share | None = None


class Part(BaseModel):
    """Over the events of one typology, language, channel or source."""

    model_config = _Form
    average_precision: _Share
    recall_at_1_fpr: Annotated[_Share, Field(alias="recall_at_1%_fpr")]


class Metrics(BaseModel):
    """metrics.json. model: name@version+precision of what was measured."""

    model_config = _Form
    format: Literal[1]
    model: str
    dataset: Dataset
    events: Annotated[int, Field(ge=1)]
    frauds: Annotated[int, Field(ge=1)]
    measures: Measures
    by_typology: dict[str, Part] = Field(default_factory=dict)
    by_language: dict[str, Part] = Field(default_factory=dict)
    by_channel: dict[str, Part] = Field(default_factory=dict)
    by_source: dict[str, Part] = Field(default_factory=dict)


def parse_metrics(content: str | bytes, path: Path | str) -> Metrics:
    """Raises BadModel; path: for its message."""
    try:
        return Metrics.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadModel(
            f"{where}: {first['msg']}", path=str(path), hint="python -m finetune.evaluate writes it"
        ) from error


@cache
def shipped() -> Metrics | None:
    """What the release that ships with this package brings; None where it brings none."""
    file = resources.files("fraudguard").joinpath(_STARTER)
    return parse_metrics(file.read_bytes(), _STARTER) if file.is_file() else None

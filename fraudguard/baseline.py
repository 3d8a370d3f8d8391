"""A population kept in a file, to compare later ones with: how often each variable lay in each bin, by event type.

`baseline.json` stands in a release's folder: the events that its model was trained on (finetune/baseline.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fraudguard.errors import BadInput
from fraudguard.stability import Histogram

BASELINE: Final = "baseline.json"
EventType = Literal["transaction", "message"]


class Baseline(BaseModel):
    """name: of the data, for people. variables: histograms by event type and name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str
    variables: Mapping[EventType, Mapping[str, Histogram]]


def write_baseline(folder: Path, baseline: Baseline) -> Path:
    """FOLDER/baseline.json."""
    path = folder / BASELINE
    path.write_text(baseline.model_dump_json() + "\n", encoding="utf-8")
    return path


def read_baseline(path: Path) -> Baseline:
    """A release's, or the file itself. Raises BadInput."""
    hint = f"name a release folder with a {BASELINE}, as `python -m finetune.publish` writes it"
    try:
        file = path / BASELINE if path.is_dir() else path
        return Baseline.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{where}: {first['msg']}" if where else first["msg"], path=str(file), hint=hint) from error
    except (OSError, ValueError) as error:  # ValueError: NUL in a path
        raise BadInput(f"cannot be read: {error}", path=repr(str(path)), hint=hint) from error

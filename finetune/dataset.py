"""The one format of training data: timelines with a label at every event, in a folder of Parquet files.

    DATASET/train.parquet  dev.parquet  test.parquet     a row an event; COLUMNS says what stands in it
    DATASET/card.json  card.md                           counts, licences, leakage (finetune/prepare.py)

Knows events, numbers and labels; where they came from is prepare.py's. Lines and cuts are those of the service's own
timeline, made for whichever tokenizer reads them, so nothing here depends on a model.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter

from fraudguard.domain import Line, Scalar, ScoreRequest, Screenable, Timeline, Typology
from fraudguard.errors import BadInput
from fraudguard.features.registry import FEATURES, MODEL_FEATURES
from fraudguard.features.timeline import Tail, TokenCounter

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Numbers = npt.NDArray[np.float32]
ROWS_AT_ONCE = 20_000

COLUMNS = pa.schema(
    [
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # of its plot or dialogue: story, bothbosu, decisions, ...
        pa.field("event", pa.string(), nullable=False),  # the wire format's JSON, masked as in screening
        pa.field("numbers", pa.list_(pa.float32()), nullable=False),  # in the order of the metadata's "features"
        pa.field("truth", pa.float32(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("typology", pa.string()),
        pa.field("story", pa.string()),
        pa.field("label_source", pa.string(), nullable=False),
        pa.field("labeled_at", pa.timestamp("us", "UTC")),
    ]
)
_EVENT: TypeAdapter[Screenable] = TypeAdapter(Annotated[Screenable, Field(discriminator="type")])
_BOOLEANS = {feature.name for feature in FEATURES if feature.type == "boolean"}


@dataclass(frozen=True, slots=True)
class LabelledEvent:
    """One masked event as it was taken, with its label.

    numbers: MODEL_FEATURES in order, NaN for missing. truth: P(fraud) to learn, in [0, 1]; 1 is confirmed fraud.
    weight: how much it counts in training; 0 where nobody knows: neither learned nor measured, and truth is 0.5.
    story: the plot, dialogue or case it belongs to; None for ordinary life. labeled_at: None where truth was made up
    with the event; else when the label came, which is never before label_source could have known it.
    """

    event: Screenable
    numbers: Numbers
    truth: float
    weight: float
    typology: Typology | None
    story: str | None
    label_source: str
    labeled_at: datetime | None = None

    @property
    def features(self) -> dict[str, Scalar]:
        """numbers by name, as screening has them: booleans as such, None for missing."""
        return {name: _scalar(name, number) for name, number in zip(MODEL_FEATURES, self.numbers, strict=True)}


def _scalar(name: str, number: float) -> Scalar:
    if np.isnan(number):
        return None
    return bool(number) if name in _BOOLEANS else float(number)


@dataclass(frozen=True, slots=True)
class LabelledTimeline:
    """The events of one account in sequence. source: where its plot or dialogue is from ("life": it has none)."""

    source: str
    account_id: str
    events: tuple[LabelledEvent, ...]


# ------------------------------------------------------------ files


def write(folder: Path, split: Split, timelines: Iterable[LabelledTimeline]) -> None:
    """DATASET/split.parquet, timeline after timeline."""
    with Writer(folder, (split,)) as writer:
        for timeline in timelines:
            writer.add(split, timeline)


class Writer:
    """The files of a DATASET, open side by side. Holds ROWS_AT_ONCE events of each, or its longest timeline."""

    def __init__(self, folder: Path, splits: Sequence[Split] = SPLITS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._schema = COLUMNS.with_metadata({"features": json.dumps(MODEL_FEATURES)})
        self._rows: dict[Split, list[dict[str, Any]]] = {split: [] for split in splits}
        self._files = {
            split: pq.ParquetWriter(_file(folder, split), self._schema, compression="zstd") for split in splits
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for split, file in self._files.items():
            if error is None:
                self._flush(split)
            file.close()

    def add(self, split: Split, timeline: LabelledTimeline) -> None:
        """One more timeline."""
        rows = self._rows[split]
        rows += [_row(timeline, event) for event in timeline.events]
        if len(rows) >= ROWS_AT_ONCE:
            self._flush(split)

    def _flush(self, split: Split) -> None:
        self._files[split].write_table(pa.Table.from_pylist(self._rows[split], self._schema))
        self._rows[split].clear()


def _file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.parquet"


def without(folder: Path, split: Split, timelines: Set[tuple[str, str]]) -> None:
    """Take timelines, named by source and account, out of a split."""
    file, kept = _file(folder, split), _file(folder, split).with_suffix(".kept")
    with pq.ParquetFile(file) as parquet, pq.ParquetWriter(kept, parquet.schema_arrow, compression="zstd") as writer:
        for batch in parquet.iter_batches(ROWS_AT_ONCE):
            names = zip(batch.column("source").to_pylist(), batch.column("account_id").to_pylist(), strict=True)
            writer.write_batch(batch.filter(pa.array([name not in timelines for name in names])))
    kept.replace(file)


def _row(timeline: LabelledTimeline, labelled: LabelledEvent) -> dict[str, Any]:
    return {
        "account_id": timeline.account_id, "source": timeline.source,
        "event": labelled.event.model_dump_json(), "numbers": labelled.numbers,
        "truth": labelled.truth, "weight": labelled.weight, "typology": labelled.typology, "story": labelled.story,
        "label_source": labelled.label_source, "labeled_at": labelled.labeled_at,
    }  # fmt: skip


def read(folder: Path, split: Split) -> list[LabelledTimeline]:
    """The timelines of a split, in the file's order. Raises BadInput."""
    return list(iterate(folder, split))


def iterate(folder: Path, split: Split) -> Iterator[LabelledTimeline]:
    """The same, one after the other, with ROWS_AT_ONCE events in memory. Raises BadInput."""
    with _opened(folder, split) as parquet:
        for (account_id, source), rows in groupby(_rows(parquet), key=lambda row: (row["account_id"], row["source"])):
            yield LabelledTimeline(source, account_id, tuple(map(_labelled, rows)))


def truths(folder: Path, split: Split) -> npt.NDArray[np.float64]:
    """The truth of every event of a split, in the file's order, and nothing else. Raises BadInput."""
    with _opened(folder, split) as parquet:
        return np.asarray(parquet.read(["truth"]).column("truth").to_numpy(), dtype=np.float64)


def _opened(folder: Path, split: Split) -> pq.ParquetFile:
    file = _file(folder, split)
    if not file.is_file():
        raise BadInput("there is no such file", path=str(file), hint="python -m finetune.prepare makes one")
    parquet = pq.ParquetFile(file)
    schema = parquet.schema_arrow
    made_for = json.loads((schema.metadata or {}).get(b"features", b"null"))
    if made_for != list(MODEL_FEATURES) or schema.names != COLUMNS.names:
        parquet.close()
        raise BadInput("was made for another version of the features", path=str(file), hint="prepare it again")
    return parquet


def _rows(parquet: pq.ParquetFile) -> Iterator[dict[str, Any]]:
    for batch in parquet.iter_batches(ROWS_AT_ONCE):
        numbers = batch.column("numbers").flatten().to_numpy(zero_copy_only=False).reshape(-1, len(MODEL_FEATURES))
        for row, its_numbers in zip(batch.drop_columns(["numbers"]).to_pylist(), numbers, strict=True):
            yield row | {"numbers": its_numbers.astype(np.float32)}


def _labelled(row: Mapping[str, Any]) -> LabelledEvent:
    return LabelledEvent(
        event=_EVENT.validate_json(row["event"]),
        numbers=row["numbers"],
        truth=row["truth"],
        weight=row["weight"],
        typology=None if row["typology"] is None else Typology(row["typology"]),
        story=row["story"],
        label_source=row["label_source"],
        labeled_at=row["labeled_at"],
    )


# ------------------------------------------------------------ what a model reads


@dataclass(slots=True)
class Reading:
    """A verdict to learn after line number `line` of its passage."""

    line: int
    label: LabelledEvent


@dataclass(slots=True)
class Passage:
    """Consecutive lines of one timeline between two cuts. source as in LabelledTimeline."""

    source: str
    account_id: str
    lines: tuple[str, ...] = ()
    readings: list[Reading] = field(default_factory=list)


def timelines_at(
    labelled: LabelledTimeline, counter: TokenCounter, tokens_max: int
) -> Iterator[tuple[LabelledEvent, Timeline]]:
    """Each event with the timeline that the service would read at it."""
    tail = Tail(counter, tokens_max)
    for one in labelled.events:
        text, tokens = tail.fit(one.event, one.features)
        tail.append(Line(one.event.type, one.event.event_time, text), tokens)
        yield one, tail.timeline(labelled.account_id)


def passages(labelled: Sequence[LabelledTimeline], counter: TokenCounter, tokens_max: int) -> list[Passage]:
    """The timelines, each cut where the service cuts it, every event read once. One pass over one teaches them all."""
    made: list[Passage] = []
    for timeline in labelled:
        by_start: dict[int, Passage] = {}
        for one, seen in timelines_at(timeline, counter, tokens_max):
            passage = by_start.setdefault(seen.start, Passage(timeline.source, timeline.account_id))
            passage.lines = tuple(line.text for line in seen.lines)
            passage.readings.append(Reading(len(passage.lines) - 1, one))
        made += by_start.values()
    return made


def requests(
    labelled: Iterable[LabelledTimeline], counter: TokenCounter, tokens_max: int
) -> Iterator[tuple[LabelledTimeline, LabelledEvent, ScoreRequest]]:
    """What the engine is asked at every event, in order."""
    for timeline in labelled:
        for one, seen in timelines_at(timeline, counter, tokens_max):
            yield timeline, one, ScoreRequest(seen, one.features)

"""The format of training data: what is written is read, and a model reads from it what the service would show it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from finetune import dataset
from finetune.data import Life, story_lives
from finetune.dataset import LabelledEvent, LabelledTimeline
from finetune.passages import snapshots
from fraudguard.domain import Snapshot
from fraudguard.engine.head_spec import as_numbers
from fraudguard.engine.release import STARTER
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadInput
from fraudguard.features.registry import MODEL_FEATURES

TOKENIZER = LineTokenizer(STARTER / "base")
TOKENS_MAX = 96  # so that timelines are cut


@pytest.fixture(scope="module")
def taken() -> list[tuple[Life, LabelledEvent, Snapshot]]:
    """A small cast as the service takes it."""
    found = []
    for life, told, snapshot in snapshots(story_lives("train", 0, 24, 8), TOKENIZER, TOKENS_MAX):
        numbers = as_numbers(MODEL_FEATURES, [snapshot.features])[0]
        found.append(
            (
                life,
                LabelledEvent(told.event, numbers, told.truth, 1.0, told.typology, told.story, "generator"),
                snapshot,
            )
        )
    return found


@pytest.fixture(scope="module")
def timelines(taken: list[tuple[Life, LabelledEvent, Snapshot]]) -> list[LabelledTimeline]:
    """It as labelled timelines."""
    by_account: dict[str, tuple[str, list[LabelledEvent]]] = {}
    for life, labelled, _ in taken:
        by_account.setdefault(life.account_id, (life.source, []))[1].append(labelled)
    return [LabelledTimeline(source, account, tuple(events)) for account, (source, events) in by_account.items()]


def test_what_is_written_is_read(timelines: list[LabelledTimeline], tmp_path: Path) -> None:
    """Every event, number (missing ones too) and label comes back, accounts in their order."""
    first, *others = timelines
    late = datetime(2026, 3, 9, 1, 2, 3, 4, tzinfo=UTC)
    timelines = [replace(first, events=(replace(first.events[0], labeled_at=late), *first.events[1:])), *others]
    dataset.write(tmp_path, "dev", timelines)
    for wrote, found in zip(timelines, dataset.read(tmp_path, "dev"), strict=True):
        assert (wrote.source, wrote.account_id) == (found.source, found.account_id)
        for one, other in zip(wrote.events, found.events, strict=True):
            np.testing.assert_array_equal(one.numbers, other.numbers)
            assert replace(one, numbers=other.numbers, truth=other.truth) == other
            assert one.truth == pytest.approx(other.truth)


def test_the_model_reads_what_the_service_shows(
    taken: list[tuple[Life, LabelledEvent, Snapshot]], timelines: list[LabelledTimeline]
) -> None:
    """Timelines and features at every event are those of screening, cuts included."""
    shown = {snapshot.timeline.account_id + str(snapshot.sequence): snapshot for _, _, snapshot in taken}
    cuts = 0
    for timeline in timelines:
        for number, (_, one, request) in enumerate(dataset.requests([timeline], TOKENIZER, TOKENS_MAX), 1):
            snapshot = shown[timeline.account_id + str(number)]
            assert request.timeline == snapshot.timeline
            cuts += request.timeline.start > 1
            for name in MODEL_FEATURES:
                value = snapshot.features[name]
                assert request.features[name] == (None if value is None else pytest.approx(value, rel=1e-6)), name
            assert one.event.event_id == timeline.events[number - 1].event.event_id
    assert cuts > 50


def test_a_passage_reads_every_event_once(timelines: list[LabelledTimeline]) -> None:
    """The passages of an account have as many readings as it has events, each at its own line."""
    for timeline in timelines:
        made = dataset.passages([timeline], TOKENIZER, TOKENS_MAX)
        read = [reading.label.event.event_id for passage in made for reading in passage.readings]
        assert read == [one.event.event_id for one in timeline.events]
        for passage in made:
            assert sum(TOKENIZER.count(line) for line in passage.lines) <= TOKENS_MAX
            assert [reading.line for reading in passage.readings] == sorted({r.line for r in passage.readings})


def test_another_version_of_the_features_is_refused(timelines: list[LabelledTimeline], tmp_path: Path) -> None:
    """Numbers would mean something else: the message says what to do."""
    dataset.write(tmp_path, "train", timelines[:1])
    table = pq.read_table(tmp_path / "train.parquet")
    pq.write_table(table.replace_schema_metadata({"features": '["amount"]'}), tmp_path / "train.parquet")
    with pytest.raises(BadInput, match="prepare it again"):
        dataset.read(tmp_path, "train")
    with pytest.raises(BadInput, match=r"finetune\.prepare"):
        dataset.read(tmp_path, "dev")

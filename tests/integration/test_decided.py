"""From screened events, closed cases and chargebacks to a DATASET: the whole command on a real PostgreSQL."""

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import yaml
from packs import NOON, files_of, label, message, opened, payment, ready, received, records, rule
from support import settings_for

from finetune import dataset, prepare
from finetune.dataset import LabelledEvent, LabelledTimeline, timelines_at
from fraudguard.assembly import load_parts
from fraudguard.decisions.casebook import CaseFilter, Disposition
from fraudguard.decisions.repository import Repository, connect
from fraudguard.domain import DecisionRecord, Screenable
from fraudguard.engine.head_spec import as_numbers
from fraudguard.events.masking import mask_event
from fraudguard.features.registry import MODEL_FEATURES

ALERTS = files_of([rule("large", "amount_base > 100", "{amount_base: 101}")])
RUN = {"label_delay_days": 15, "test_days": 40, "dev_days": 30, "unlabelled_share": 1.0}
LARGE = Decimal("500.00")
DAY = 24 * 60


def _talk(name: str, account: str, day: float, text: str) -> Screenable:
    return message(name, text, account, day * DAY, conversation_id=f"k-{account}", language="zh")


def _paid(name: str, account: str, day: float, amount: Decimal = Decimal("20.00")) -> Screenable:
    return payment(name, account, day * DAY, amount=amount, counterparty_id=f"c-{name}", memo="货款 急用😭")


# By account: its events in the order they arrive; days before and after noon.
EVENTS: dict[str, Sequence[Screenable]] = {
    "confirmed": (
        _talk("co-1", "confirmed", -100, "你好，我是客服，您的卡号 6222 0212 3456 7890 128 有异常"),
        _paid("co-2", "confirmed", -99.9, LARGE),
        _paid("co-late", "confirmed", -101),  # beyond the lateness bound
        _paid("co-3", "confirmed", -60),  # another split's time
    ),
    "positive": (_paid("po-1", "positive", -51), _paid("po-2", "positive", -50, LARGE)),
    "charged": (_paid("ch-1", "charged", -60), _paid("ch-2", "charged", -30), _paid("ch-3", "charged", -29)),
    "overruled": (_paid("ov-1", "overruled", -30, LARGE),),
    "doubted": (_paid("do-1", "doubted", -90, LARGE),),
    "open": (_paid("op-1", "open", -95), _paid("op-2", "open", -90, LARGE), _paid("op-3", "open", -89)),
    "young": (_paid("yo-1", "young", -30), _paid("yo-2", "young", -10), _paid("yo-3", "young", -9)),
    "silent": (
        _talk("si-1", "silent", -100, "妈，下午去接我"),
        _paid("si-2", "silent", -50),
        _paid("si-3", "silent", -20),
    ),
}
DISPOSED = {
    "confirmed": (Disposition.CONFIRMED_FRAUD, -95.0),
    "positive": (Disposition.FALSE_POSITIVE, -48.0),
    "overruled": (Disposition.FALSE_POSITIVE, -28.0),
    "doubted": (Disposition.SUSPICIOUS, -88.0),
}
CHARGEBACKS = (
    label("l-1", "ch-2", "charged", day=-5),
    label("l-2", "ov-1", "overruled", day=-5),
    label("l-3", "yo-2", "young", day=3),
)


async def _live(url: str) -> dict[str, DecisionRecord]:
    """Everything is decided, delivered twice; cases are closed and their labels come back; chargebacks come."""
    parts = load_parts(settings_for("unused:1", url, model="off"))
    stored: dict[str, DecisionRecord] = {}
    try:
        async with opened(url, parts, ready(ALERTS)) as pipeline, connect(url) as repository:
            for events in EVENTS.values():
                for event in (*events, *events):
                    for record in records(await pipeline.screen(received(mask_event(event)))):
                        assert stored.setdefault(record.event.event_id, record) == record
            await _dispose(repository)
            sent = await repository.outbox.waiting(100)
            assert len(sent) == 3  # a suspicious case sends none
            for _ in range(2):
                await pipeline.screen(received(*sent, *CHARGEBACKS))
    finally:
        parts.close()
    return stored


async def _dispose(repository: Repository) -> None:
    cases = {case.account_id: case for case in (await repository.cases.list_cases(CaseFilter())).items}
    assert set(cases) == {*DISPOSED, "open"}
    for account, (disposition, day) in DISPOSED.items():
        case, at = cases[account], NOON + timedelta(days=day)
        await repository.cases.dispose(case.case_id, case.version, disposition, "called", "ana", at)


def _prepared(url: str, folder: Path, until: datetime, **others: int) -> dict[str, tuple[str, LabelledTimeline]]:
    """The command's DATASET, by account."""
    folder.mkdir()
    content = {"name": "bank", "ordinary_weight": 0.25, "decisions": RUN | {"labels_until": until.isoformat()} | others}
    (folder / "bank.yaml").write_text(yaml.safe_dump(content))
    out = folder / "dataset"
    prepare.main([str(folder / "bank.yaml"), "--data", str(folder), "--out", str(out), "--database", url])
    return {one.account_id: (split, one) for split in dataset.SPLITS for one in dataset.read(out, split)}


@pytest.fixture
def stored(database_url: str) -> dict[str, DecisionRecord]:
    """Every decision by its event."""
    return asyncio.run(_live(database_url))


def _said(one: LabelledEvent) -> tuple[str, float, float, str]:
    return one.event.event_id, one.truth, one.weight, one.label_source


def test_from_decisions_to_a_dataset(database_url: str, stored: dict[str, DecisionRecord], tmp_path: Path) -> None:
    """Each account in one split with what was known at noon; event, numbers and line as they were decided."""
    found = _prepared(database_url, tmp_path / "noon", NOON)
    asked = {account: (split, [_said(one) for one in made.events]) for account, (split, made) in found.items()}
    unknown = (0.5, 0.0, "not_asked")
    assert asked.pop("confirmed") == (
        "train",
        [
            ("co-1", 0.0, 0.25, "none"),  # in a conversation of its own, before the alert
            ("co-2", 1.0, 1.0, "disposition"),
            ("co-late", 0.0, 0.25, "none"),
        ],
    )
    assert asked.pop("positive") == ("dev", [("po-1", 0.0, 0.25, "none"), ("po-2", 0.0, 1.0, "disposition")])
    assert asked.pop("charged") == (
        "test", [("ch-1", *unknown), ("ch-2", 1.0, 1.0, "chargeback"), ("ch-3", 0.0, 0.25, "none")]
    )  # fmt: skip
    assert asked.pop("overruled") == ("test", [("ov-1", 1.0, 1.0, "chargeback")])
    assert asked.pop("doubted") == ("train", [("do-1", 0.5, 0.5, "disposition")])
    for account, ids in (("open", ("op-1", "op-3")), ("young", ("yo-1",)), ("silent", ("si-1", "si-2", "si-3"))):
        _, events = asked.pop(account, ("", []))  # the split is by its name, and may hold nothing of its own
        assert {event[0] for event in events if event[2]} <= set(ids)
        assert all(event[1:] in (unknown, (0.0, 0.25, "none")) for event in events)
    assert not asked
    for split, made in found.values():
        for one in made.events:
            record = stored[one.event.event_id]
            assert one.event == record.event
            wanted = as_numbers(MODEL_FEATURES, [{name: record.features[name] for name in MODEL_FEATURES}])[0]
            np.testing.assert_array_equal(one.numbers, wanted)
        for one, seen in timelines_at(made, _Characters(), 10_000):
            assert seen.lines[-1].text == stored[one.event.event_id].line, split
    assert found["confirmed"][1].events[1].labeled_at == NOON - timedelta(days=95)
    assert found["overruled"][1].events[0].labeled_at == NOON - timedelta(days=5)
    card = json.loads((tmp_path / "noon" / "dataset" / "card.json").read_text())
    assert card["leakage"]["shared"] == {"accounts": 0, "stories": 0, "speakers": 0}
    assert card["label_delay_days"]["chargeback"] == {"labels": 2, "median": 25.0, "p90": 25.0}
    assert card["licences"].keys() == {"decisions"}


def test_a_label_that_comes_later_changes_what_was_not_asked(
    database_url: str, stored: dict[str, DecisionRecord], tmp_path: Path
) -> None:
    """At noon nobody can know of the young payments; three days later a chargeback says so of one, of the rest nobody.

    Of each account no more events are read than is said.
    """
    early = _prepared(database_url, tmp_path / "a", NOON, events_max=1)
    assert [made.events[0].event.event_id for _, made in early.values() if len(made.events) == 1]
    assert not [made for _, made in early.values() if len(made.events) > 1 or made.account_id == "young"]
    late = _prepared(database_url, tmp_path / "b", NOON + timedelta(days=4))
    split, made = late["young"]
    assert split == "test"
    assert [_said(one) for one in made.events] == [("yo-1", 0.0, 0.25, "none"), ("yo-2", 1.0, 1.0, "chargeback")]
    assert made.events[1].labeled_at == NOON + timedelta(days=3)
    assert len(stored) == sum(map(len, EVENTS.values()))


def test_a_database_and_its_settings_come_together(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One without the other is refused; so is a database without decisions."""
    without = tmp_path / "without.yaml"
    without.write_text("{name: a, ordinary_weight: 0.3}")
    of_bank = tmp_path / "of_bank.yaml"
    of_bank.write_text(yaml.safe_dump({"name": "a", "ordinary_weight": 0.3, "decisions": RUN}))
    for settings, others, said in (
        (without, ["--database", database_url], "give both or neither"),
        (of_bank, [], "give both or neither"),
        (of_bank, ["--database", database_url], "holds no decisions"),
    ):
        with pytest.raises(SystemExit):
            prepare.main([str(settings), "--data", str(tmp_path), "--out", str(tmp_path / "out"), *others])
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class _Characters:
    id = "characters"

    def count(self, line: str) -> int:
        return len(line)

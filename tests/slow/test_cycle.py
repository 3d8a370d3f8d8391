"""A month in which a new scam appears, and one turn of continual learning over it: the whole command, on real parts."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
import yaml
from support import settings_for

from finetune import cycle, prepare
from finetune.recipe import read_settings
from fraudguard.assembly import load_parts, open_pipeline
from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.decisions.models import Head
from fraudguard.decisions.repository import connect
from fraudguard.domain import Event, Label, Message, Received, Transaction
from fraudguard.engine.release import STARTER, seal, verify
from fraudguard.events.masking import mask_event
from fraudguard.measures import Metrics

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

START = datetime(2026, 10, 1, 9, tzinfo=UTC)
DAYS = 30
ACCOUNTS = 150

# A pet's "adoption": nothing like it is in the starter's stories.
SCAM = (
    (("counterparty", ("你好，看到你想领养小猫", "你是要领养布偶猫吗", "小狗还在，想领养吗")),),
    (("customer", ("是的，还在吗", "对，怎么领养", "嗯 想要那只白的")),),
    (("counterparty", ("免费领养，只付托运的笼具押金", "不要钱的，先交个航空箱押金", "猫送你，笼子钱押一下就行")),),
    (("customer", ("押金多少", "押金能退吗", "多少钱啊")),),
    (("counterparty", ("到货笼具押金原路退你", "签收后押金全退，放心", "{n}块，落地就退")),),
    (("pay", ()),),
    (
        (
            "counterparty",
            (
                "机场说还要检疫保证金",
                "再补个疫苗检疫保证金马上放行",
                "司机到半路了，不交保证金只能丢下车",
            ),
        ),
    ),
    (("pay", ()),),
)
HARMLESS = (
    (("counterparty", ("小猫可以来店里看", "周末过来看狗狗吧", "领养要先家访哦")),),
    (("customer", ("好的，地址发我", "周六下午可以吗", "要带什么证件")),),
    (("counterparty", ("签个领养协议就行，不收费", "带身份证来签协议", "疫苗本到时候一起给你")),),
    (("customer", ("太好了谢谢", "嗯嗯到时见", "猫粮吃哪个牌子")),),
    (("counterparty", ("它爱吃这个牌子的猫粮", "记得按时驱虫", "有问题随时问我")),),
    (("pay", ()),),
)


def told(account: int, rng: Random) -> Iterator[Event]:
    """One account's month: groceries, a talk about a pet, and where it is a scam, its chargeback days later."""
    scam = account % 3 == 0
    account_id = f"a-{account}"
    at = START + timedelta(days=DAYS * account / ACCOUNTS, minutes=rng.randrange(600))
    for number in range(3):
        yield payment(
            account_id, f"g-{number}", at - timedelta(hours=5 * (3 - number)), 20 + rng.randrange(80), "m-shop"
        )
    for number, turn in enumerate(SCAM if scam else HARMLESS):
        sender, ways = turn[0]
        at += timedelta(seconds=rng.randrange(20, 200))
        event_id = f"{account_id}-{number}"
        if sender == "pay":
            amount = rng.randrange(300, 1500) if scam else rng.randrange(30, 200)
            yield payment(account_id, str(number), at, amount, f"c-{account_id}")
        else:
            text = rng.choice(ways).format(n=rng.randrange(300, 900))
            yield Message.model_validate(
                {
                    "type": "message", "version": 1, "event_id": event_id, "account_id": account_id, "event_time": at,
                    "conversation_id": f"k-{account_id}", "channel": "chat", "sender": sender, "language": "zh",
                    "text": text,
                }
            )  # fmt: skip
        if scam and number >= 2:
            yield Label.model_validate(
                {
                    "type": "label", "version": 1, "event_id": f"l-{event_id}", "account_id": account_id,
                    "event_time": at + timedelta(days=2), "target_event_id": event_id, "source": "chargeback",
                    "verdict": "fraud", "typology": "scam",
                }
            )  # fmt: skip


def payment(account_id: str, name: str, at: datetime, amount: int, counterparty: str) -> Transaction:
    """Out of the account."""
    return Transaction.model_validate(
        {
            "type": "transaction", "version": 1, "event_id": f"{account_id}-{name}", "account_id": account_id,
            "event_time": at, "direction": "debit", "kind": "transfer", "channel": "app", "amount": f"{amount}.00",
            "currency": "CNY", "counterparty_id": counterparty, "merchant_id": None, "device_id": f"d-{account_id}",
            "ip": None, "country": "CN", "memo": None, "attributes": {},
        }
    )  # fmt: skip


async def live(settings: Settings) -> None:
    """The month, decided by the champion; every label after what it is about."""
    rng = Random(5)
    events = [event for account in range(ACCOUNTS) for event in told(account, rng)]
    events.sort(key=lambda event: (event.event_time, event.event_id))
    parts = load_parts(settings)
    try:
        async with open_pipeline(settings, parts, SystemClock()) as pipeline:
            for start in range(0, len(events), 64):
                batch = [Received(mask_event(event), event.event_time) for event in events[start : start + 64]]
                await pipeline.screen(batch)
    finally:
        parts.close()


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the old: own stories alone."""
    folder = tmp_path_factory.mktemp("rehearsal")
    sizes = {"train": (160, 60), "dev": (60, 24), "test": (90, 34)}
    recipe = folder / "prepare.yaml"
    stories = {split: {"accounts": accounts, "frauds": frauds} for split, (accounts, frauds) in sizes.items()}
    recipe.write_text(yaml.safe_dump({"name": "old", "seed": 3, "ordinary_weight": 0.3, "stories": stories}))
    prepare.main([str(recipe), "--data", str(folder), "--out", str(folder / "dataset")])
    return folder / "dataset"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cycle.yaml, small."""
    content = yaml.safe_load(Path("finetune/cycle.yaml").read_text())
    content |= {"rehearsal_timelines": 120, "threads": 1, "evaluate": str(Path("finetune/evaluate.yaml").absolute())}
    content["decisions"] |= {"label_delay_days": 4, "dev_days": 5, "test_days": 10, "unlabelled_share": 1.0}
    file = tmp_path_factory.mktemp("cycle") / "cycle.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture(scope="module")
def champion(rehearsal: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter, measured on the old and sealed."""
    folder = tmp_path_factory.mktemp("champion") / "release"
    shutil.copytree(STARTER, folder)
    found = cycle.measured(read_settings(recipe, cycle.CycleRecipe), folder, rehearsal)
    (folder / "metrics.json").write_text(found.model_dump_json(exclude_none=True))
    manifest = json.loads((folder / "release.json").read_text()) | {"metrics": "metrics.json"}
    (folder / "release.json").write_text(json.dumps(manifest))
    seal(folder)
    return folder


def test_a_new_scam_is_learned_and_the_old_is_kept(
    champion: Path,
    rehearsal: Path,
    recipe: Path,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A month of a scam that the champion does not know becomes a challenger in shadow that knows it, and the old."""
    asyncio.run(live(settings_for("unused:1", database_url, model=str(champion))))
    monkeypatch.setenv("FRAUDGUARD_MODEL", str(champion))
    out = tmp_path / "cycle"
    cycle.main(
        [str(recipe), "--database", database_url, "--rehearsal", str(rehearsal), "--out", str(out), "--version", "9.1"]
    )
    challenger = out / "release"
    head = asyncio.run(registered(database_url))
    assert head is not None
    assert head.challenger is not None
    assert (head.challenger.id, head.champion) == ("starter@9.1", None)
    assert head.challenger.digest == verify(challenger)

    settings = read_settings(recipe, cycle.CycleRecipe)
    before, after = (cycle.measured(settings, folder, out / "new").measures for folder in (champion, challenger))
    assert after.recall_at_1_fpr > before.recall_at_1_fpr + 0.2
    fixed = Metrics.model_validate_json((challenger / "metrics.json").read_text())
    old = Metrics.model_validate_json((champion / "metrics.json").read_text())
    assert fixed.dataset == old.dataset
    # Of a fixed set this small, a hundredth is what rounding moves.
    assert fixed.measures.average_precision > old.measures.average_precision - 0.01
    assert fixed.measures.recall_at_1_fpr > old.measures.recall_at_1_fpr - 0.02
    written = (out / "cycle.md").read_text()
    assert "## Newest decisions" in written
    assert (
        f"| average_precision | {old.measures.average_precision:.4f} | {fixed.measures.average_precision:.4f} |"
        in written
    )


async def registered(url: str) -> Head | None:
    """The registry's head."""
    async with connect(url) as repository:
        return await repository.models.head()

"""Splits kept apart: whatever is written, no split shares an account, a story or a near-duplicate afterwards."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import apart, dataset
from finetune.dataset import SPLITS, LabelledEvent, LabelledTimeline, Split, iterate
from finetune.twins import ALIKE, likeness, shingles
from fraudguard.domain import Message
from fraudguard.features.registry import MODEL_FEATURES

AT = datetime(2026, 3, 2, tzinfo=UTC)
OPENINGS = (
    "您好，我是{a}的客服，您上次在我们这里买的{b}有质量问题，",
    "喂，老同学，我是{a}，我在{b}出差，手头有点紧，",
)
ENDINGS = (
    "我们给您办理三倍赔付，请您添加我们的理赔专员，按他的指引打开屏幕共享，再把验证码告诉他就可以收到退款了。",
    "能不能先借我两万块钱周转一下，最晚下个星期三一定还给你，卡号我马上发过来，千万别跟我老婆讲这件事情啊。",
    "不用担心，这只是一次普通的回访，您不需要付款也不需要提供任何信息，有问题请拨打包装上的电话联系我们。",
)
NAMES = ("小王", "李雷", "苏宁", "京东", "阿强", "老张")


def talk(rng: Random) -> list[str]:
    """A conversation of two lines, of which there are few scripts and several names."""
    return [rng.choice(OPENINGS).format(a=rng.choice(NAMES), b=rng.choice(NAMES)), rng.choice(ENDINGS)]


def made(source: str, account: str, talks: Sequence[tuple[str, Sequence[str]]]) -> LabelledTimeline:
    """An account with these conversations, each a story of its own."""
    events = []
    for story, lines in talks:
        for text in lines:
            event = Message.model_validate(
                {
                    "type": "message", "version": 1, "event_id": f"{account}-{len(events)}", "account_id": account,
                    "event_time": AT + timedelta(minutes=len(events)), "conversation_id": f"{account}-{story}",
                    "channel": "chat", "sender": "counterparty", "text": text,
                }
            )  # fmt: skip
            numbers = np.full(len(MODEL_FEATURES), np.nan, dtype=np.float32)
            events.append(LabelledEvent(event, numbers, 0.0, 1.0, None, f"{account}/{story}", "public"))
    return LabelledTimeline(source, account, tuple(events))


def written(folder: Path, timelines: Mapping[Split, Sequence[LabelledTimeline]]) -> None:
    """A DATASET of them."""
    for split in SPLITS:
        dataset.write(folder, split, timelines.get(split, ()))


def left(folder: Path) -> dict[Split, list[LabelledTimeline]]:
    """What is in it."""
    return {split: list(iterate(folder, split)) for split in SPLITS}


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_no_split_shares_anything(seed: int) -> None:
    """Every pair of conversations of two splits, compared shingle by shingle: none is a twin; accounts and stories
    are found by `shared`."""
    rng = Random(seed)
    timelines: dict[Split, list[LabelledTimeline]] = {split: [] for split in SPLITS}
    for number in range(18):
        source = rng.choice(("bothbosu", apart.DECISIONS))
        talks = [(f"s{turn}", talk(rng)) for turn in range(rng.randint(1, 2))]
        timelines[rng.choice(SPLITS)].append(made(source, f"a-{number}", talks))
    with TemporaryDirectory() as name:
        folder = Path(name)
        written(folder, timelines)
        removed = apart.remove_twins(folder)
        kept = left(folder)
        assert apart.shared(folder) == {"accounts": [], "stories": []}
    for split in SPLITS:
        names = [(one.source, one.account_id) for one in timelines[split]]
        assert [(one.source, one.account_id) for one in kept[split]] == [
            name for name in names if name not in removed.timelines[split]
        ]
    for one, other in combinations(SPLITS, 2):
        for first in kept[one]:
            for second in kept[other]:
                for (_, text), (_, said) in (
                    (a, b) for a in apart.conversations(first) for b in apart.conversations(second)
                ):
                    mine, theirs = shingles(text), shingles(said)
                    assert mine is not None
                    assert theirs is not None
                    # Just above the threshold MinHash may miss one in 270.
                    assert likeness(mine, theirs) < ALIKE + 0.1


def test_the_earlier_split_loses_public_talk_and_the_later_one_accounts(tmp_path: Path) -> None:
    """A script of a public set leaves train; a script that came back to other customers stays learned."""
    script = talk(Random(1))
    written(
        tmp_path,
        {
            "train": [made("bothbosu", "a-1", [("s", script)]), made(apart.DECISIONS, "a-2", [("s", script)])],
            "dev": [made("bothbosu", "a-3", [("s", script)])],
            "test": [made(apart.DECISIONS, "a-4", [("s", script)])],
        },
    )
    removed = apart.remove_twins(tmp_path)
    assert {split: names for split, names in removed.timelines.items() if names} == {
        "train": {("bothbosu", "a-1"), (apart.DECISIONS, "a-2")},
        "dev": {("bothbosu", "a-3")},
        "test": {(apart.DECISIONS, "a-4")},
    }
    assert removed.pairs == {"dev-test": 1, "train-dev": 2, "train-test": 2}
    assert removed.by_source("train") == {"bothbosu": 1, "decisions": 1}


def test_what_is_shared_is_named(tmp_path: Path) -> None:
    """An account of made data and one of the operator's are two, even under one name."""
    one, other = talk(Random(1)), talk(Random(2))
    written(
        tmp_path,
        {
            "train": [made("bothbosu", "a-1", [("s", one)]), made(apart.DECISIONS, "a-2", [("s", one)])],
            "test": [made("story", "a-1", [("s", other)]), made("story", "a-2", [("t", other)])],
        },
    )
    assert apart.shared(tmp_path) == {"accounts": ["made/a-1"], "stories": ["made/a-1/s"]}


def test_what_a_system_says_is_nobodys_twin() -> None:
    """A bank's notices are the same for all customers; of public talk only plots and dialogues are compared."""
    timeline = made("bothbosu", "a-1", [("s", talk(Random(1)))])
    of_system = tuple(
        LabelledEvent(
            one.event.model_copy(update={"sender": "system"}), one.numbers, 0.0, 1.0, None, one.story, "public"
        )
        for one in timeline.events
    )
    assert list(apart.conversations(LabelledTimeline("bothbosu", "a-1", of_system))) == []
    assert [name for name, _ in apart.conversations(timeline)] == ["a-1/s"]

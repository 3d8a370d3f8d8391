"""A --data folder of a few rows in the public sets' own columns, a small DATASET, and a release made of it."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from finetune_support import make_base, make_timelines, write_recipe

from finetune import dataset, lora


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty dialogues of each kind."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("zh_teleantifraud", "en_bothbosu_calls", "harmless", "zh_antifraud_sft"):
        (folder / name).mkdir()
    pd.DataFrame(
        {
            "dialog_id": [f"run/{n}" for n in range(60)],
            "text": [
                f"A: 您好，{'这里是公安局，您涉嫌洗钱' if n % 2 else '欢迎订餐'}{n}\nB: 好的\nA: "
                f"{'请把钱转到安全账户' if n % 2 else '请问送到哪里'}\nB: 嗯\nA: 谢谢{n}"
                for n in range(60)
            ],
            "label": [n % 2 for n in range(60)],
            "user_age": [20 + n // 2 for n in range(60)],
            "user_awareness": ["高"] * 60,
            "occupation": ["教师"] * 60,
        }
    ).to_parquet(folder / "zh_teleantifraud" / "dialogues.parquet")
    pd.DataFrame(
        {
            "set": ["single"] * 30 + ["multi"] * 30,
            "personality": [None] * 30 + ["greedy", "polite", "trusting"] * 10,
            "split": ["train", "train", "test"] * 20,
            "text": [
                f"Suspect: Hello, call {n}.  Innocent: Who is this? Suspect: Pay me now: 5 dollars" for n in range(60)
            ],
            "label": [n // 3 % 2 for n in range(60)],
        }
    ).to_parquet(folder / "en_bothbosu_calls" / "dialogues.parquet")
    for name, speakers in (("kdconv_zh", ("A", "B")), ("multidogo_en", ("customer", "agent"))):
        rows = [
            {"dialogue_id": f"d-{n}", "speaker": speakers[turn % 2], "text": f"{name} {n} {turn}", "kind": "dialogue"}
            for n in range(60)
            for turn in range(4)
        ]
        pd.DataFrame(rows).to_parquet(folder / "harmless" / f"{name}.parquet")
    windows = [
        ("eval0819", "S1: 你好\nS2: 在吗", 0, 0),
        ("eval0819", "S1: 转账\nS3: 好", 1, 0),
        ("eval0819", "no speaker", 1, 0),
        ("eval0819", "S2: 会议", 0, 1),
        ("eval0819", "S1: 老师说的这只股票明天一定涨停\nS2: 真的吗", 1, 0),
        ("eval0902", "S2: 嗯\nS1: 老师说的这只股票明天一定涨停！\nS1: 快把钱转进平台来跟着一起操作吧", 1, 0),
        ("eval0902", "S1: 快把钱转进平台来，跟着一起操作吧", 1, 0),
        *(("eval0902", f"S1: 第{n}场\nS2: 好", n % 2, 0) for n in range(40)),
    ]
    pd.DataFrame(windows, columns=["split", "text_masked", "label", "source_meeting"]).to_parquet(
        folder / "zh_antifraud_sft" / "windows.parquet"
    )
    return folder


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DATASET with all three parts."""
    folder = tmp_path_factory.mktemp("labelled")
    for split, count, seed in (("train", 30, 1), ("dev", 30, 2), ("test", 20, 3)):
        dataset.write(folder, split, make_timelines(count, seed))
    return folder


@pytest.fixture(scope="session")
def tuned(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that finetune.lora made of it, with a prefix."""
    folder = tmp_path_factory.mktemp("tuned")
    recipe = write_recipe(folder / "tiny.yaml", rate=0.02)
    threads = torch.get_num_threads()
    base = make_base(folder / "base")
    lora.main([str(recipe), "--dataset", str(labelled), "--base", str(base), "--out", str(folder / "release")])
    torch.set_num_threads(threads)
    return folder / "release"

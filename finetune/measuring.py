"""Sets that nobody here trains on, and what a release makes of them: transfer, nothing of the target seen.

    zh_antifraud_sft/windows.parquet       golfxiao/anti_fraud_sft, GPL-3.0: measuring only (data.py keeps it out)
    en_other_calls/dialogues.parquet       set, dialogue_id, text, label: English calls other than BothBosu's, in their
                                           notation (`Suspect: ...`, `Innocent: ...`); its README names the sources

Knows these files and which rows are compared; each dialogue is a life of its own, without an ordinary day around it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetune import data
from finetune.baselines import Model
from finetune.data import Dialogue
from finetune.measures import early
from finetune.passages import labelled
from finetune.rows import Mask, Rows
from fraudguard.domain import TEXT_CHARS_MAX
from fraudguard.evaluation import difference_interval, roc_auc
from fraudguard.features.timeline import TokenCounter

ANTIFRAUD, OTHER_CALLS = "zh_antifraud_sft", "en_other_calls"
_SPEAKERS = {"Suspect": "counterparty", "Innocent": "customer"}


@dataclass(frozen=True, slots=True)
class Unseen:
    """Dialogues of one set. parts: name -> which of them. cases: those of one case are drawn together."""

    name: str
    dialogues: Sequence[Dialogue]
    parts: Mapping[str, Mask]
    cases: npt.NDArray[np.str_]

    @property
    def fraud(self) -> Mask:
        """Which of them are scams."""
        return np.array([one.fraud for one in self.dialogues], dtype=bool)


def unseen(folder: Path) -> list[Unseen]:
    """Those of the sets that are in the folder."""
    found = []
    if (folder / ANTIFRAUD).is_dir():
        found.append(_antifraud(folder))
    if (folder / OTHER_CALLS).is_dir():
        found.append(_other_calls(folder / OTHER_CALLS / "dialogues.parquet"))
    return found


def _antifraud(folder: Path) -> Unseen:
    """Windows by version, with and without meetings, which are easy; a case is the windows with the same speakers."""
    windows = list(data.antifraud_windows(folder))
    texts = pd.read_parquet(folder / ANTIFRAUD / "windows.parquet", columns=["text"])["text"]
    numbers = [int(dialogue.group.removeprefix("w-")) for dialogue, _, _ in windows]
    speakers = [" ".join(sorted(set(re.findall(r"^([^:\n]{1,12}):", texts[n], re.MULTILINE)))) for n in numbers]
    version = np.array([version for _, version, _ in windows])
    meeting = np.array([easy for _, _, easy in windows], dtype=bool)
    parts: dict[str, Mask] = {}
    for name in sorted(set(version.tolist())):
        parts[name] = version == name
        parts[f"{name}, without meetings"] = (version == name) & ~meeting
    return Unseen(ANTIFRAUD, [dialogue for dialogue, _, _ in windows], parts, np.array(speakers))


def _other_calls(file: Path) -> Unseen:
    """Calls by set."""
    frame = pd.read_parquet(file)
    dialogues, sets = [], []
    for row in frame.itertuples():
        said = (line.partition(":") for line in row.text.splitlines())
        turns = [
            (_SPEAKERS[who], what.strip()[:TEXT_CHARS_MAX])
            for who, _, what in said
            if who in _SPEAKERS and what.strip()
        ]
        if turns:
            name = row.dialogue_id
            dialogues.append(Dialogue(OTHER_CALLS, name, "test", "en", "call", tuple(turns), bool(row.label)))
            sets.append(row.set)
    column = np.array(sets)
    cases = np.array([one.group for one in dialogues])
    return Unseen(OTHER_CALLS, dialogues, {name: column == name for name in sorted(set(sets))}, cases)


@dataclass(frozen=True, slots=True)
class Transfer:
    """What two models make of a part of a set. auc: at the last turn, of ours and theirs; NaN with one kind alone.

    difference: the 95 % interval of ours less theirs. by_half, ever, false_alarms: of ours at its threshold.
    """

    part: str
    scams: int
    harmless: int
    ours: float
    theirs: float
    difference: tuple[float, float]
    by_half: float
    ever: float
    false_alarms: float


def transfer(
    one: Unseen, counter: TokenCounter, tokens_max: int, ours: Model, theirs: Model, threshold: float, rounds: int
) -> list[Transfer]:
    """Each part of the set. threshold: of ours, chosen elsewhere."""
    lives = data.dialogue_lives(one.dialogues, "test", 0, ordinary_events_max=0)
    timelines = labelled(lives, 1.0)
    rows = Rows.of(timelines, counter, tokens_max)
    risk, other = ours(rows), theirs(rows)
    ends = np.cumsum([len(timeline.events) for timeline in timelines])
    fraud, last, last_other = one.fraud, risk[ends - 1], other[ends - 1]
    spans = np.split(np.arange(len(rows)), ends[:-1])
    found = []
    for name, part in one.parts.items():
        truth = fraud[part]
        both = truth.any() and not truth.all()
        none = float("nan")
        seen = early([risk[span] for span, kept in zip(spans, part, strict=True) if kept], truth, threshold)
        found.append(
            Transfer(
                name, int(truth.sum()), int((~truth).sum()),
                roc_auc(truth, last[part]) if both else none, roc_auc(truth, last_other[part]) if both else none,
                difference_interval(roc_auc, truth, last[part], last_other[part], groups=one.cases[part], rounds=rounds)
                if both else (none, none),
                seen.by_half, seen.ever, seen.false_alarms,
            )
        )  # fmt: skip
    return found

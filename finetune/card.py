"""The data card of a DATASET: card.json for programs, card.md for people.

Knows the files of a DATASET and finetune/sources.yaml; what leakage.py and apart.py found is given. Every count is of
the files as they are.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from finetune.dataset import SPLITS, LabelledEvent, LabelledTimeline, Split, iterate
from fraudguard.domain import Message
from fraudguard.errors import BadInput

SOURCES = Path(__file__).with_name("sources.yaml")
GROUPS = ("source", "language", "channel", "typology", "label_source")
_Counts = dict[str, dict[str, dict[str, int]]]  # group's value, split, what is counted


def counted(folder: Path) -> dict[str, Any]:
    """splits, by_source, by_language, by_channel, by_typology, by_label_source, label_delay_days."""
    groups: dict[str, dict[str, dict[str, Counter[str]]]] = {
        group: defaultdict(lambda: defaultdict(Counter)) for group in GROUPS
    }
    splits: dict[str, dict[str, Any]] = {}
    delays: dict[str, list[float]] = defaultdict(list)
    for split in SPLITS:
        whole: Counter[str] = Counter()
        for timeline in iterate(folder, split):
            _add(groups, whole, split, timeline)
            for one in timeline.events:
                if one.labeled_at is not None:
                    delay = (one.labeled_at - one.event.event_time) / timedelta(days=1)
                    delays[one.label_source].append(delay)
        splits[split] = dict(whole) | {"sha256": hashlib.sha256((folder / f"{split}.parquet").read_bytes()).hexdigest()}
    found: dict[str, Any] = {"splits": splits}
    for group, of_group in groups.items():
        found[f"by_{group}"] = {
            value: {split: dict(counts) for split, counts in by_split.items()}
            for value, by_split in sorted(of_group.items())
        }
    found["label_delay_days"] = {source: _spread(of_source) for source, of_source in sorted(delays.items())}
    return found


def _add(
    groups: Mapping[str, dict[str, dict[str, Counter[str]]]],
    whole: Counter[str],
    split: Split,
    timeline: LabelledTimeline,
) -> None:
    counted = Counter(timelines=1) + sum((_of(one) for one in timeline.events), Counter())
    whole.update(counted)
    groups["source"][timeline.source][split].update(counted)
    for one in timeline.events:
        of_one = _of(one)
        groups["channel"][one.event.channel][split].update(of_one)
        groups["label_source"][one.label_source][split].update(of_one)
        if isinstance(one.event, Message):
            language = (one.event.language or "unknown").partition("-")[0].lower()
            groups["language"][language][split].update(of_one)
        if one.truth == 1.0:
            groups["typology"][one.typology or "unknown"][split].update(of_one)


def _of(one: LabelledEvent) -> Counter[str]:
    """frauds: confirmed. doubtful: a truth in between. not_asked: of weight 0."""
    kinds = {"events": True, "frauds": one.truth == 1.0, "doubtful": 0 < one.truth < 1 and one.weight > 0}
    return Counter([kind for kind, held in (kinds | {"not_asked": one.weight == 0}).items() if held])


def _spread(delays: Sequence[float]) -> dict[str, float]:
    median, late = np.quantile(delays, (0.5, 0.9))
    return {"labels": len(delays), "median": round(float(median), 2), "p90": round(float(late), 2)}


def licences(sources: Sequence[str]) -> dict[str, dict[str, str]]:
    """Title, licence and attribution of each. Raises BadInput for one that sources.yaml lacks."""
    known: dict[str, dict[str, str]] = yaml.safe_load(SOURCES.read_text())
    missing = sorted(set(sources) - known.keys())
    if missing:
        raise BadInput(f"has no licence for {', '.join(missing)}", path=str(SOURCES), hint="say where it is from")
    return {source: known[source] for source in sources}


def write(folder: Path, card: Mapping[str, Any]) -> None:
    """card.json and card.md."""
    (folder / "card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    (folder / "card.md").write_text("\n".join(_markdown(card)) + "\n")


def _markdown(card: Mapping[str, Any]) -> list[str]:
    lines = [f"# Data card: {card['name']}", ""]
    if card["measuring_only"]:
        lines += ["**For measuring only: weights trained on this dataset may not be shipped** (GPL-3.0 parts).", ""]
    lines += [
        "Timelines with a label at every event; the format is described in finetune/dataset.py. Made by",
        "`python -m finetune.prepare`; the settings are in card.json.", "",
        *_table("split", ("timelines", "events", "frauds", "doubtful", "not_asked"), card["splits"]),
        "frauds: events of confirmed fraud. doubtful: openings of scams and suspicious cases, learned as a doubt.",
        "not asked: context of which nobody knows, or of another split's time.", "",
        *(f"- `{split}.parquet` sha256 `{of['sha256']}`" for split, of in card["splits"].items()), "",
    ]  # fmt: skip
    for group in GROUPS:
        lines += [f"## By {group.replace('_', ' ')}", "", *_grouped(card[f"by_{group}"])]
    if card["label_delay_days"]:
        lines += ["## Label delay, days", "", *_table("source", ("labels", "median", "p90"), card["label_delay_days"])]
    lines += ["## Leakage", "", *_leakage(card["leakage"])]
    lines += ["## Sources", "", *_table("name", ("title", "licence", "attribution"), card["licences"])]
    return lines


def _table(first: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    body = [
        f"| {name} | " + " | ".join(str(of.get(column, 0)) for column in columns) + " |" for name, of in rows.items()
    ]
    return [f"| {first} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|", *body, ""]


def _grouped(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """Events, and frauds among them, of every split side by side."""
    rows = {
        value: {split: f"{of.get('events', 0)} / {of.get('frauds', 0)}" for split, of in by_split.items()}
        for value, by_split in counts.items()
    }
    return _table("events / frauds", SPLITS, rows)


def _leakage(found: Mapping[str, Any]) -> list[str]:
    pairs = ", ".join(f"{count} {splits}" for splits, count in found["twins"]["pairs"].items()) or "none"
    removed = "; ".join(
        f"{split}: " + ", ".join(f"{count} {source}" for source, count in of.items())
        for split, of in found["twins"]["removed"].items()
        if of
    )
    talks = "; ".join(
        f"{split} {of['frauds']} of {of['frauds'] + of['harmless']}" for split, of in found["talks"].items()
    )
    lines = [
        f"Frauds among the plots, dialogues and cases: {talks}.", "",
        "Shared between splits: " + ", ".join(f"{kind} {count}" for kind, count in found["shared"].items()) + ".",
        f"Near-duplicate pairs of conversations across splits, before their removal: {pairs}. Timelines removed: "
        f"{removed or 'none'}.", "",
        "AUC of trivial readers of whole plots, dialogues and cases, trained on train, asked on test (`all`, and",
        "within a source). Where length, channel or source alone does well, a model's number says little.", "",
        *_aucs("reader", found["readers"]),
    ]  # fmt: skip
    if found["across"]:
        lines += ["TF-IDF trained on one source (row), asked on another (column):", "", *_aucs("from", found["across"])]
    return lines


def _aucs(first: str, rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    columns = list(dict.fromkeys(column for of in rows.values() for column in of))
    shown = {name: {c: f"{of[c]:.3f}" if c in of else "-" for c in columns} for name, of in rows.items()}
    return _table(first, columns, shown)

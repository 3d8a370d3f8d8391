"""The report of an evaluation as Markdown and pictures. Knows measures and how to show them; measures nothing anew."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from finetune.measures import CURVE, Attacked, Early, Measured, along, by_group, early, sizes
from finetune.measuring import Transfer, Unseen
from finetune.rows import Rows
from fraudguard.evaluation import Floats, card_precision_at_k, reliability, roc_auc

BIN_EVENTS = 100  # of the picture's bins: with fewer bins all fraud is in the last one
MEASURES = {
    "average_precision": "AP", "roc_auc": "AUC", "recall_at_0.1%_fpr": "recall at 0.1 % FPR",
    "recall_at_1%_fpr": "recall at 1 % FPR", "precision_at_k": "precision@{k}",
    "calibration_error": "calibration error",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a report shows. risks: of each model on the test rows, the release's first.

    taught: how many events of train the baselines learned from, and how many there are.
    uncalibrated: models whose scores promise no probability. beside: the model that groups are shown beside.
    by_set: of the release and that one, each set at a threshold of its own.
    beyond: sets that nobody trained on.
    """

    model: str
    dataset: dict[str, str]
    capacity: int
    false_alarms: float
    taught: tuple[int, int]
    test: Rows
    dev: Rows
    risks: dict[str, Floats]
    table: Sequence[Measured]
    attacks: Sequence[Attacked]
    reach: Sequence[float]
    reach_sources: Sequence[str]
    uncalibrated: Sequence[str]
    beside: str
    by_set: Mapping[str, Mapping[str, Early]]
    beyond: Sequence[tuple[Unseen, Sequence[Transfer]]] = ()


def render(found: Findings) -> str:
    """report.md."""
    parts = [
        f"# {found.model} on {found.dataset['name']}", *_what(found),
        "## Beside its baselines", *_models(found),
        "![precision and recall](pr.png)", "![what a risk promises and what came true](reliability.png)",
        "## How early", *_early(found), "![scams caught by the share of their turns](early.png)",
        "## Events by group", *_groups(found), "## Conversations by group", *_conversations(found),
        "## What reaches a risk", *_reach(found), "## Under attack", *_attacks(found),
    ]  # fmt: skip
    if found.beyond:
        parts += ["## Sets that nobody trained on", *_beyond(found)]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _what(found: Findings) -> list[str]:
    rows, soft = found.test, int((~found.test.measured).sum())
    scams = sum(one.fraud for one in rows.conversations)
    return [
        f"{int(rows.measured.sum())} events of the test part, {int(rows.fraud.sum())} of them fraud; {scams} scam "
        f"conversations and {len(rows.conversations) - scams} harmless ones. test.parquet: sha256 "
        f"`{found.dataset['digest'][:16]}`.",
        f"Events are measured at truth 1 against truth 0: {soft} with a truth in between, a scam's first turns, are "
        "left out. A conversation (a story, dialogue or case) is a scam, of whatever typology, if any of its truths is "
        "1, and left out if none is but they are not all 0.",
    ]


def _models(found: Findings) -> list[str]:
    perfect = _perfect(found)
    head = ["model", "events", *(title.format(k=found.capacity) for title in MEASURES.values())]
    rows = []
    for one in found.table:
        values = {name: _number(one.measures[name]) for name in MEASURES}
        if one.name in found.uncalibrated:
            values["calibration_error"] = "-"
        rows.append([one.name, str(one.events), *values.values()])
    return [
        _table(head, rows),
        f"precision@{found.capacity}: of the {found.capacity} accounts with a day's highest scores, the share with "
        f"fraud that day, mean over days, accounts once found left out; a perfect scorer gets {perfect:.3f} here. "
        "Recall at a false-positive rate is a point of the test's own ROC curve. Calibration error: 15 equally filled "
        f"bins. The baselines learned from {found.taught[0]} of the {found.taught[1]} events of the dataset's train "
        "part, the zero-shot base from no label.",
    ]


def _perfect(found: Findings) -> float:
    rows = found.test
    kept = rows.measured
    truth = rows.fraud[kept]
    return card_precision_at_k(rows.days[kept], rows.accounts[kept], truth, truth.astype(float), found.capacity)


def _early(found: Findings) -> list[str]:
    chosen = sum(not one.fraud for one in found.dev.conversations)
    rows = []
    for one in found.table:
        if one.early is not None:
            rows.append([one.name, *_caught(one.early)])
    own = [[name, model, str(seen.scams), str(seen.harmless), *_caught(seen)] for name, model, seen in _by_set(found)]
    return [
        f"An alarm is a score at the threshold or above at any turn. Thresholds: at most {found.false_alarms:.1%} of "
        f"the {chosen} harmless conversations of **dev** alarm; what that gives on test's is the last column. By half: "
        "the alarm came when at most half of the scam's messages and payments were over.",
        _table(["model", "scams caught by half", "ever", "harmless alarmed"], rows),
        "Each set by itself, at a threshold that its own harmless conversations of dev give:",
        _table(["set", "model", "scams", "harmless", "scams caught by half", "ever", "harmless alarmed"], own),
    ]


def _caught(seen: Early) -> list[str]:
    return [_share(seen.by_half), _share(seen.ever), _share(seen.false_alarms)]


def _by_set(found: Findings) -> Iterator[tuple[str, str, Early]]:
    for name in found.by_set[found.model]:
        for model, sets in found.by_set.items():
            yield name, model, sets[name]


def _groups(found: Findings) -> list[str]:
    ours, theirs = (by_group(found.test, found.risks[name]) for name in (found.model, found.beside))
    rows = []
    for kind, values in sizes(found.test).items():
        for value, (frauds, others) in values.items():
            cells = [kind.removeprefix("by_"), value, str(frauds), str(others)]
            if not frauds and kind == "by_source":
                continue  # harmless sets are in the next table
            for group in (ours, theirs):
                measured = group[kind].get(value, {})
                cells.append(_number(measured.get("average_precision", math.nan)))
                cells.append(_number(measured.get("recall_at_1%_fpr", math.nan)))
            rows.append(cells)
    short = found.beside.partition(" ")[0]
    head = ["by", "group", "frauds", "others", "AP", "recall at 1 % FPR", f"{short} AP", f"{short} recall"]
    return [
        _table(head, rows),
        "A typology: its frauds against every harmless event. The others: the events of the group alone; AP depends on "
        "the share of fraud in it. Language is a message's.",
    ]


def _conversations(found: Findings) -> list[str]:
    """By set, and the scams by typology: harmless conversations have none."""
    rows = found.test
    scores = along(rows, found.risks[found.model])
    limit = next(one.early.threshold for one in found.table if one.early is not None)
    names = [[one.source for one in rows.conversations], [one.typology for one in rows.conversations]]
    lines = []
    for kind, column in zip(("set", "typology"), names, strict=True):
        for name in sorted(set(column) - {""}):
            part = [n for n, its_name in enumerate(column) if its_name == name]
            truth = [rows.conversations[n].fraud for n in part]
            seen = early([scores[n] for n in part], truth, limit)
            auc = roc_auc(truth, [scores[n][-1] for n in part]) if seen.scams and seen.harmless else math.nan
            lines.append(
                [kind, name, str(seen.scams), str(seen.harmless), _number(auc), _share(seen.by_half), _share(seen.ever),
                 _share(seen.false_alarms)]
            )  # fmt: skip
    head = ["by", "group", "scams", "harmless", "AUC, last turn", "caught by half", "ever", "harmless alarmed"]
    return [_table(head, lines), f"{found.model} at its threshold of dev, {limit:.3f}."]


def _reach(found: Findings) -> list[str]:
    rows, risk = found.test, found.risks[found.model]
    kept = rows.measured
    inside = kept & np.isin(rows.source, list(found.reach_sources))
    if inside.any():
        kept = inside
    lines = []
    for reach in found.reach:
        cells = [f"{reach:g}"]
        for payment in (True, False):
            for fraud in (False, True):
                part = risk[kept & (rows.payment == payment) & (rows.fraud == fraud)]
                cells.append(f"{np.mean(part >= reach):.2%}" if len(part) else "-")
        lines.append(cells)
    of = "sources " + ", ".join(sorted(set(rows.source[kept].tolist()))) if inside.any() else "all sources"
    head = ["risk", "harmless payments", "fraudulent", "harmless messages", "fraudulent"]
    return [_table(head, lines), f"Events of {of}: what the policy's thresholds are chosen from."]


def _attacks(found: Findings) -> list[str]:
    rows = [
        [one.attack, one.model, _share(one.changed), _number(one.average_precision), _number(one.roc_auc),
         _number(one.recall), _share(one.ever)]
        for one in found.attacks
    ]  # fmt: skip
    return [
        "The counterparty's messages of scams rewritten (finetune/attacks.py), cleaned and cut as in serving; against "
        "every harmless event of timelines without fraud, as it was.",
        _table(["attack", "model", "lines changed", "AP", "AUC", "recall at 1 % FPR", "scams ever caught"], rows),
    ]


def _beyond(found: Findings) -> list[str]:
    short = found.beside.partition(" ")[0]
    lines = []
    for one, parts in found.beyond:
        for part in parts:
            low, high = part.difference
            lines.append(
                [one.name, part.part, str(part.scams), str(part.harmless), _number(part.ours), _number(part.theirs),
                 "-" if math.isnan(low) else f"{part.ours - part.theirs:+.3f} [{low:+.3f}, {high:+.3f}]",
                 _share(part.by_half), _share(part.ever), _share(part.false_alarms)]
            )  # fmt: skip
    head = ["set", "part", "scams", "harmless", "AUC", f"{short} AUC", "difference", "caught by half", "ever",
            "harmless alarmed"]  # fmt: skip
    return [
        _table(head, lines),
        f"AUC at the last turn, each dialogue alone in its account. {found.beside} learned from the dataset's train "
        "part. Difference: 95 % bootstrap interval, windows of one case (the same speakers) drawn together. Alarms of "
        f"{found.model} at its threshold of dev.",
    ]


# ------------------------------------------------------------ pictures


def draw(found: Findings, out: Path) -> None:
    """pr.png, reliability.png, early.png."""
    rows = found.test
    kept, truth = rows.measured, rows.fraud[rows.measured]
    figure, axes = _figure("recall", "precision")
    for name, risk in found.risks.items():
        precision, recall, _ = precision_recall_curve(truth, risk[kept])
        axes.step(recall, precision, where="post", label=name)
    _save(figure, axes, out / "pr.png")
    figure, axes = _figure("mean risk of a bin", "share of fraud in it")
    axes.plot([0, 1], [0, 1], color="lightgrey")
    for name, risk in found.risks.items():
        if name not in found.uncalibrated:
            bins = reliability(truth, risk[kept], max(len(truth) // BIN_EVENTS, 15))
            axes.plot(bins.risk, bins.share, marker="o", markersize=3, linewidth=0.7, label=name)
    _save(figure, axes, out / "reliability.png")
    figure, axes = _figure("share of its turns that are over", "share of scams caught")
    for one in found.table:
        if one.early is not None and one.early.scams:
            label = f"{one.name} ({_share(one.early.false_alarms)} false alarms)"
            axes.plot(CURVE, one.early.caught, marker=".", label=label)
    axes.axvline(0.5, color="lightgrey")
    _save(figure, axes, out / "early.png")


def _figure(x: str, y: str):  # type: ignore[no-untyped-def]  # matplotlib has no types
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
    return figure, axes


def _save(figure: Figure, axes, file: Path) -> None:  # type: ignore[no-untyped-def]  # likewise
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    figure.savefig(file, dpi=110)

"""What each line and each feature does to a decision's risk: the decision's own inputs with one of them left out.

Knows what the engine is asked and reads its answers; asks nothing itself. A line is left out whole, its line end
included, and the others stay as they are: what the engine reads is the timeline as if the line had never come. Features
are not counted anew without it. A feature is left out by being missing, all windows of one value together, because
the others would speak for the one that is gone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fraudguard.domain import Contribution, DecisionRecord, Score, ScoreRequest, Timeline
from fraudguard.features.registry import MODEL_FEATURES, families
from fraudguard.inputs import score_request

NEWEST_LINES: Final = 16  # are left out in turn, whatever they say
TELLING_LINES: Final = 8  # of the older ones: those at which the risk rose most
# No account: what the engine keeps of an account's timeline must not be pushed out by timelines that never were.
NOBODY: Final = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What the engine is asked, and what of it is left out: (kind, name), None for nothing."""

    without: tuple[str, str] | None
    request: ScoreRequest


def questions(record: DecisionRecord, timeline: Timeline, risks: Mapping[int, float | None]) -> list[Question]:
    """First everything, then without each feature family, each group of families and each line.

    timeline: of the record. risks: after the lines, by sequence number. At most NEWEST_LINES + TELLING_LINES lines and
    the families and groups of the model's features; requests with the same timeline stand together.
    """
    asked = Timeline(NOBODY, timeline.start, timeline.lines)
    whole = score_request(record.event, asked, record.features)
    return [
        Question(None, whole),
        *(
            Question(without, replace(whole, features={**whole.features, **dict.fromkeys(names)}))
            for without, names in _left_out(record).items()
        ),
        *(
            Question(("line", str(sequence)), replace(whole, timeline=_without(asked, sequence)))
            for sequence in telling(timeline, risks)
        ),
    ]


def _left_out(record: DecisionRecord) -> dict[tuple[str, str], tuple[str, ...]]:
    """The names that go together, by (kind, name); what is missing anyway cannot be left out."""
    known = families([name for name in MODEL_FEATURES if record.features.get(name) is not None])
    found: dict[tuple[str, str], tuple[str, ...]] = {("feature", name): names for (_, name), names in known.items()}
    for group in dict.fromkeys(group for group, _ in known):
        parts = [names for (of, _), names in known.items() if of == group]
        if len(parts) > 1:
            found["group", group] = tuple(name for names in parts for name in names)
    return found


def telling(timeline: Timeline, risks: Mapping[int, float | None]) -> list[int]:
    """The sequence numbers of the lines to leave out, the newest first, then those at which the risk rose most.

    None where there is one line only: without it nothing is left to read.
    """
    if len(timeline.lines) < 2:
        return []
    sequences = range(timeline.start, timeline.start + len(timeline.lines))
    newest, older = sequences[-NEWEST_LINES:], sequences[:-NEWEST_LINES]
    rises, before = {}, 0.0
    for sequence in older:
        risk = risks.get(sequence)
        rises[sequence] = 0.0 if risk is None else risk - before
        before = before if risk is None else risk
    most = sorted(older, key=lambda sequence: (-rises[sequence], -sequence))[:TELLING_LINES]
    return [*reversed(newest), *most]


def _without(timeline: Timeline, sequence: int) -> Timeline:
    """The timeline as if the line had never come."""
    place = sequence - timeline.start
    return replace(timeline, lines=timeline.lines[:place] + timeline.lines[place + 1 :])


def contributions(asked: Sequence[Question], scores: Sequence[Score]) -> tuple[Contribution, ...]:
    """The effects, the greatest first, as the scores of the questions tell them."""
    whole = scores[0].risk
    found = [
        Contribution(question.without[0], question.without[1], whole - score.risk)  # type: ignore[arg-type]  # its kind
        for question, score in zip(asked, scores, strict=True)
        if question.without is not None
    ]
    return tuple(sorted(found, key=lambda one: (-abs(one.effect), one.kind, one.name)))

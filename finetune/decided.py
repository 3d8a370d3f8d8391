"""Labelled timelines from this installation's own decisions: chargebacks, analysts' labels and closed cases.

Knows what a label is worth and when it can have come; the numbers are the stored ones, never computed anew. Reads
through fraudguard.decisions and knows no SQL.

An event's truth is the newest label of the event itself, else its case's disposition, else harmless, once the label
delay is over. Where nobody can know yet it is not asked (weight 0): too young, in an open case, or unlabelled beside
fraud (in the same conversation, or between two frauds of one case). Time parts train, dev and test; an account is in
one of them alone: where its newest fraud is, or else its newest harmless verdict; a silent one anywhere (data.part_of).
"""

import hashlib
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from finetune.data import part_of
from finetune.dataset import LabelledEvent, LabelledTimeline, Split, Writer
from fraudguard.decisions.casebook import Disposition
from fraudguard.decisions.labelled import LabelledDecision
from fraudguard.decisions.repository import connect
from fraudguard.domain import Message, Typology
from fraudguard.engine.head_spec import as_numbers
from fraudguard.errors import BadInput
from fraudguard.features.registry import MODEL_FEATURES

log = logging.getLogger(__name__)

SOURCE = "decisions"
DISPOSITION, NONE, NOT_ASKED = "disposition", "none", "not_asked"
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
Share = Annotated[float, Field(ge=0, le=1)]


class Doubt(BaseModel):
    """What is learned of a case that stayed suspicious."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    truth: Share = 0.5
    weight: Share = 0.5


class DecisionsRun(BaseModel):
    """Which decisions, and what their labels are worth.

    since: earlier events are not read. labels_until: what came later is not known; None: all that is stored.
    label_delay_days: an event without a label is harmless when it is this old. dev_days, test_days: of the time up to
    labels_until the last test_days are test, the dev_days before are dev. unlabelled_share: of the accounts of which
    nothing was ever said, how many are taken. events_max: of an account, its newest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    since: AwareDatetime = _BEGINNING
    labels_until: AwareDatetime | None = None
    label_delay_days: Annotated[float, Field(gt=0)]
    dev_days: Annotated[float, Field(gt=0)]
    test_days: Annotated[float, Field(gt=0)]
    unlabelled_share: Share
    suspicious: Doubt = Doubt()
    events_max: Annotated[int, Field(ge=1)] = 2_000

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.test_days <= self.label_delay_days:
            raise ValueError("test_days must be more than label_delay_days, or nothing in test is known to be harmless")
        return self


@dataclass(frozen=True, slots=True)
class Periods:
    """dev_from, test_from: the first moments of dev and of test."""

    dev_from: datetime
    test_from: datetime

    def of(self, time: datetime) -> Split:
        """The split whose time it is."""
        return "test" if time >= self.test_from else "dev" if time >= self.dev_from else "train"


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of one event; see LabelledEvent."""

    truth: float
    weight: float
    source: str
    typology: Typology | None = None
    story: str | None = None
    at: datetime | None = None


UNKNOWN = Truth(0.5, 0.0, NOT_ASKED)


def truth_of(one: LabelledDecision, run: DecisionsRun, ordinary_weight: float, until: datetime) -> Truth:
    """What is known of an event by itself, and of its case."""
    case = one.case
    if one.labels:
        newest = one.labels[-1]
        fraud = newest.verdict == "fraud"
        typology = newest.typology or (case.typology if case else None)
        talk = one.event.conversation_id if isinstance(one.event, Message) else one.event.event_id
        of = case.case_id if case else f"{one.account_id}/{talk}"
        return Truth(float(fraud), 1.0, newest.source, typology if fraud else None, of, newest.event_time)
    if case is not None:
        match case.disposition:
            case Disposition.CONFIRMED_FRAUD:
                return Truth(1.0, 1.0, DISPOSITION, case.typology, case.case_id, case.at)
            case Disposition.FALSE_POSITIVE:
                return Truth(0.0, 1.0, DISPOSITION, None, case.case_id, case.at)
            case Disposition.SUSPICIOUS:
                return Truth(run.suspicious.truth, run.suspicious.weight, DISPOSITION, None, case.case_id, case.at)
        return UNKNOWN
    if until - one.event.event_time < timedelta(days=run.label_delay_days):
        return UNKNOWN
    # Alarms are counted on conversations, the harmless ones too.
    conversation = f"{one.account_id}/{one.event.conversation_id}" if isinstance(one.event, Message) else None
    return Truth(0.0, ordinary_weight, NONE, story=conversation)


def truths(
    events: Sequence[LabelledDecision], run: DecisionsRun, ordinary_weight: float, until: datetime
) -> list[Truth]:
    """What is known of each event of an account, given in sequence."""
    found = [truth_of(one, run, ordinary_weight, until) for one in events]
    talks: set[str] = set()
    spans: dict[str, list[int]] = {}
    for at, (one, truth) in enumerate(zip(events, found, strict=True)):
        if truth.truth == 1.0:
            spans.setdefault(truth.story or "", []).append(at)
            if isinstance(one.event, Message):
                talks.add(one.event.conversation_id)
    beside = {at for of_story in spans.values() for at in range(of_story[0], of_story[-1])}
    return [
        UNKNOWN
        if truth.source == NONE
        and (at in beside or (isinstance(one.event, Message) and one.event.conversation_id in talks))
        else truth
        for at, (one, truth) in enumerate(zip(events, found, strict=True))
    ]


def timeline(
    events: Sequence[LabelledDecision], run: DecisionsRun, ordinary_weight: float, until: datetime
) -> tuple[Split, LabelledTimeline] | None:
    """An account's events, given in sequence, as far as its split may see them. None where it teaches nothing."""
    account_id = events[0].account_id
    known = truths(events, run, ordinary_weight, until)
    test_from = until - timedelta(days=run.test_days)
    periods = Periods(test_from - timedelta(days=run.dev_days), test_from)
    judged = [
        (truth.truth == 1.0, one.event.event_time)
        for one, truth in zip(events, known, strict=True)
        if truth.source not in (NONE, NOT_ASKED)
    ]
    if not judged and not _taken(account_id, run.unlabelled_share):
        return None
    split = periods.of(max(judged)[1]) if judged else part_of(account_id)
    order: tuple[Split, ...] = ("train", "dev", "test")
    kept: list[LabelledEvent] = []
    for one, truth in zip(events, known, strict=True):
        period = periods.of(one.event.event_time)
        if order.index(period) <= order.index(split):
            kept.append(_labelled(one, truth if period == split else UNKNOWN))
    while kept and kept[-1].weight == 0:
        kept.pop()
    return (split, LabelledTimeline(SOURCE, account_id, tuple(kept))) if kept else None


def _taken(account_id: str, share: float) -> bool:
    """By the account's name alone, so that it is taken every time or never; not as part_of reads it."""
    return int.from_bytes(hashlib.sha256(f"taken {account_id}".encode()).digest()[:4]) < share * 2**32


def _labelled(one: LabelledDecision, truth: Truth) -> LabelledEvent:
    # A feature that the build of that time did not have is missing.
    numbers = as_numbers(MODEL_FEATURES, [{name: one.features.get(name) for name in MODEL_FEATURES}])[0]
    return LabelledEvent(
        one.event, numbers, truth.truth, truth.weight, truth.typology, truth.story, truth.source, truth.at
    )


async def write(writer: Writer, run: DecisionsRun, ordinary_weight: float, database: str) -> None:
    """Add every account to its split, one in memory at a time. Raises StoreUnavailable, BadSettings, BadInput."""
    async with connect(database) as repository:
        until = run.labels_until or await repository.newest()
        if until is None:
            raise BadInput("holds no decisions", path="--database", hint="`fraudguard worker` writes them")
        accounts: dict[Split, int] = dict.fromkeys(("train", "dev", "test"), 0)
        events: deque[LabelledDecision] = deque(maxlen=run.events_max)

        def finish() -> None:
            made = timeline(events, run, ordinary_weight, until) if events else None
            if made is not None:
                writer.add(*made)
                accounts[made[0]] += 1
            events.clear()

        async with aclosing(repository.labelled_decisions(run.since, until)) as found:
            async for one in found:
                if events and events[0].account_id != one.account_id:
                    finish()
                events.append(one)
        finish()
    log.info("decisions until %s: accounts %s", until.isoformat(), accounts)

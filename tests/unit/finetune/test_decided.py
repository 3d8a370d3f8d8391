"""What a label is worth: whose word wins, what nobody can know yet, and which split may see it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune import decided
from finetune.decided import DISPOSITION, NONE, NOT_ASKED, DecisionsRun, Truth, timeline, truths
from fraudguard.decisions.casebook import Disposition
from fraudguard.decisions.labelled import CaseOutcome, LabelledDecision
from fraudguard.domain import Label, Message, Typology
from fraudguard.features.registry import MODEL_FEATURES

UNTIL = datetime(2026, 6, 30, tzinfo=UTC)
RUN = DecisionsRun(label_delay_days=30, dev_days=30, test_days=45, unlabelled_share=1.0)
ORDINARY = 0.3
OLD = 60  # days before UNTIL: its label would have come


def said(source: str, verdict: str, day: float, typology: str | None = None) -> Label:
    """A label of `day` days before UNTIL."""
    return Label.model_validate(
        {
            "type": "label", "version": 1, "event_id": f"l-{source}-{day}", "account_id": "a-1",
            "event_time": UNTIL - timedelta(days=day), "target_event_id": "e", "source": source, "verdict": verdict,
            "typology": typology,
        }
    )  # fmt: skip


def case(disposition: Disposition | None, case_id: str = "case-1") -> CaseOutcome:
    """Closed a day before UNTIL, or open."""
    return CaseOutcome(case_id, Typology.SCAM, disposition, UNTIL - timedelta(days=1) if disposition else None)


def event(
    sequence: int,
    day: float = OLD,
    labels: Sequence[Label] = (),
    of: CaseOutcome | None = None,
    account: str = "a-1",
    **others: Any,
) -> LabelledDecision:
    """A message of `day` days before UNTIL, in a conversation of its own unless told."""
    fields: dict[str, Any] = {
        "type": "message", "version": 1, "event_id": f"{account}-{sequence}", "account_id": account,
        "event_time": UNTIL - timedelta(days=day), "conversation_id": f"k-{sequence}", "channel": "chat",
        "sender": "counterparty", "text": "急用钱",
    }  # fmt: skip
    made = Message.model_validate({**fields, **others})
    return LabelledDecision(account, sequence, made, {"messages_1h": sequence}, tuple(labels), of)


def known(*events: LabelledDecision, run: DecisionsRun = RUN) -> list[Truth]:
    """What is known of each."""
    return truths(events, run, ORDINARY, UNTIL)


def test_a_case_says_what_its_alerts_are() -> None:
    """Confirmed fraud, a false positive, a doubt as configured; each since the case was closed."""
    run = RUN.model_copy(update={"suspicious": decided.Doubt(truth=0.6, weight=0.25)})
    at = UNTIL - timedelta(days=1)
    assert known(
        event(1, of=case(Disposition.CONFIRMED_FRAUD, "c-1")),
        event(2, of=case(Disposition.FALSE_POSITIVE, "c-2")),
        event(3, of=case(Disposition.SUSPICIOUS, "c-3")),
        run=run,
    ) == [
        Truth(1.0, 1.0, DISPOSITION, Typology.SCAM, "c-1", at),
        Truth(0.0, 1.0, DISPOSITION, None, "c-2", at),
        Truth(0.6, 0.25, DISPOSITION, None, "c-3", at),
    ]


def test_a_label_of_the_event_wins_over_its_case_and_the_newest_over_older_ones() -> None:
    """A chargeback of a "false positive" is fraud; what the customer took back is not."""
    (charged,) = known(event(1, labels=[said("chargeback", "fraud", 5, "mule")], of=case(Disposition.FALSE_POSITIVE)))
    assert charged == Truth(1.0, 1.0, "chargeback", Typology.MULE, "case-1", UNTIL - timedelta(days=5))
    labels = [said("customer", "fraud", 9), said("customer", "legitimate", 3)]
    (taken_back,) = known(event(1, labels=labels, of=case(Disposition.CONFIRMED_FRAUD)))
    assert (taken_back.truth, taken_back.source, taken_back.typology) == (0.0, "customer", None)
    (unnamed,) = known(event(1, labels=[said("chargeback", "fraud", 5)]))
    assert (unnamed.truth, unnamed.typology, unnamed.story) == (1.0, None, "a-1/k-1")


def test_silence_is_harmless_only_once_the_label_delay_is_over() -> None:
    """A younger event and one of an open case are not asked; a young one that was labelled is."""
    old, young, opened, told = known(
        event(1, day=30),
        event(2, day=29.9),
        event(3, of=case(None)),
        event(4, day=1, labels=[said("analyst", "fraud", 0)]),
    )
    assert (old.truth, old.weight, old.source) == (0.0, ORDINARY, NONE)
    assert (young.weight, young.source) == (0.0, NOT_ASKED)
    assert (opened.weight, opened.source) == (0.0, NOT_ASKED)
    assert (told.truth, told.weight) == (1.0, 1.0)


def test_what_lies_beside_fraud_is_not_taken_for_harmless() -> None:
    """The rest of a scam's conversation, and what lies between two frauds of a case; a false positive's word counts."""
    fraud = case(Disposition.CONFIRMED_FRAUD)
    found = known(
        event(1, conversation_id="k-scam"),
        event(2, of=fraud, conversation_id="k-scam"),
        event(3),
        event(4, of=case(Disposition.FALSE_POSITIVE, "case-0")),
        event(5, of=fraud),
        event(6),
    )
    assert [truth.source for truth in found] == [NOT_ASKED, DISPOSITION, NOT_ASKED, DISPOSITION, DISPOSITION, NONE]
    assert [truth.truth for truth in found if truth.weight] == [1.0, 0.0, 1.0, 0.0]


def test_a_defrauded_account_is_where_its_newest_fraud_is() -> None:
    """It sees nothing later than its split's time, is not asked of what was before, and ends with what is known."""
    charged = [said("chargeback", "fraud", 2)]
    for day, split, asked in ((100, "train", [3]), (60, "dev", [2, 3]), (20, "test", [1, 3])):
        made = timeline(
            [event(1, day=44), event(2, day=70), event(3, day=day, labels=charged), event(4, day=10)],
            RUN, ORDINARY, UNTIL,
        )  # fmt: skip
        assert made is not None
        assert made[0] == split
        events = made[1].events
        numbers = [int(one.event.event_id.removeprefix("a-1-")) for one in events]
        assert [number for number, one in zip(numbers, events, strict=True) if one.weight] == asked
        assert numbers == {"train": [3], "dev": [2, 3], "test": [1, 2, 3]}[split]
        assert all(one.truth == 0.5 for one in events if not one.weight)


def test_numbers_are_the_stored_ones() -> None:
    """In the registry's order; what that time's build did not know is missing."""
    made = timeline([event(7, labels=[said("analyst", "legitimate", 1)])], RUN, ORDINARY, UNTIL)
    assert made is not None
    (one,) = made[1].events
    place = MODEL_FEATURES.index("messages_1h")
    assert one.numbers[place] == 7
    assert np.isnan(np.delete(one.numbers, place)).all()
    assert (one.label_source, one.labeled_at) == ("analyst", UNTIL - timedelta(days=1))


def test_an_account_found_harmless_is_where_that_was_found() -> None:
    """False positives are the hard negatives: those of the newest days are all measured on. Fraud comes first."""
    harmless = [said("analyst", "legitimate", 1)]
    for day, split in ((100, "train"), (60, "dev"), (20, "test")):
        for account in ("a-1", "a-2", "a-3"):
            made = timeline([event(1, day=day, labels=harmless, account=account)], RUN, ORDINARY, UNTIL)
            assert made is not None
            assert made[0] == split
    fraud = event(1, day=60, labels=[said("chargeback", "fraud", 1)])
    made = timeline([fraud, event(2, day=20, labels=harmless)], RUN, ORDINARY, UNTIL)
    assert made is not None
    assert made[0] == "dev"


def test_of_silent_accounts_a_share_is_taken() -> None:
    """By name, the same ones every time, in every split; accounts of which something was said are all taken."""
    share = RUN.model_copy(update={"unlabelled_share": 0.25})
    made = {
        account: timeline(
            [event(n, day=day, account=account) for n, day in enumerate((100, 60, 35))], share, ORDINARY, UNTIL
        )
        for account in (f"a-{n}" for n in range(400))
    }
    taken = [of for of in made.values() if of is not None]
    assert 70 < len(taken) < 130
    assert {split for split, _ in taken} == {"train", "dev", "test"}
    none = RUN.model_copy(update={"unlabelled_share": 0.0})
    assert timeline([event(1, day=100)], none, ORDINARY, UNTIL) is None
    assert timeline([event(1, day=100, labels=[said("analyst", "legitimate", 1)])], none, ORDINARY, UNTIL) is not None


@given(
    st.lists(
        st.tuples(st.floats(0, 150), st.sampled_from([None, "fraud", "legitimate"]), st.integers(0, 3)),
        min_size=1, max_size=12,
    ),
    st.integers(0, 50),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_no_split_sees_another_ones_time(said_of: list[tuple[float, str | None, int]], number: int) -> None:
    """Nothing later than its split's time is in a timeline; what is asked is of its time; fraud is never harmless."""
    account = f"a-{number}"
    labels = {verdict: [said("chargeback", verdict, 0)] for verdict in ("fraud", "legitimate")}
    events = [
        event(n, day, labels.get(verdict or "", ()), account=account, conversation_id=f"k-{talk}")
        for n, (day, verdict, talk) in enumerate(said_of)
    ]
    made = timeline(events, RUN, ORDINARY, UNTIL)
    if made is None:
        return
    split, found = made
    test_from, dev_from = UNTIL - timedelta(days=45), UNTIL - timedelta(days=75)
    first, before = {
        "train": (datetime.min.replace(tzinfo=UTC), dev_from), "dev": (dev_from, test_from),
        "test": (test_from, datetime.max.replace(tzinfo=UTC)),
    }[split]  # fmt: skip
    by_id = {one.event.event_id: verdict for one, (_, verdict, _) in zip(events, said_of, strict=True)}
    assert found.events[-1].weight > 0
    for one in found.events:
        assert one.event.event_time < before
        if one.weight:
            assert one.event.event_time >= first
            assert (by_id[one.event.event_id] == "fraud") == (one.truth == 1.0)
            if one.label_source == NONE:
                assert UNTIL - one.event.event_time >= timedelta(days=30)


def test_a_test_period_shorter_than_the_delay_is_refused() -> None:
    """Nothing in it could be known to be harmless."""
    with pytest.raises(ValidationError, match="test_days must be more than label_delay_days"):
        DecisionsRun(label_delay_days=30, dev_days=30, test_days=30, unlabelled_share=1.0)

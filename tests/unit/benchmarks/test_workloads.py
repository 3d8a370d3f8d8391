"""The benchmarks' token streams are what their tables say, and parity fails when it should."""

import numpy as np
import pytest
import torch

from benchmarks.workloads import NEW_MAX, NEW_MIN, Parity, cold, conversation, parity, slope, warm


def test_warm_timelines_grow_by_their_event_alone() -> None:
    """Each continues what `before` or the account's last event showed, by 8 to 64 tokens, unless it was cut to half."""
    known: dict[str, tuple[int, ...]] = {}
    cuts = 0
    for batch in warm(seed=1, accounts=5, batches=60, size=4, vocabulary=100, length_max=512):
        known |= {event.account: event.ids for event in batch.before}
        for event in batch.events:
            held = known[event.account]
            if len(event.ids) > len(held):
                assert event.ids[: len(held)] == held
                assert NEW_MIN <= len(event.ids) - len(held) <= NEW_MAX
            else:
                cuts += 1
                assert 512 // 2 - NEW_MAX <= len(event.ids) <= 512 // 2
            assert len(event.ids) <= 512
            known[event.account] = event.ids
    assert cuts > 0


def test_a_request_reads_as_its_ids() -> None:
    """The lines' texts are the ids in decimal, so that every engine gets the same tokens."""
    [batch] = cold(seed=2, batches=1, size=50, vocabulary=100, length_max=2_048)
    for event in batch.events:
        assert tuple(int(word) for line in event.request.timeline.lines for word in line.text.split()) == event.ids
    assert len({event.account for event in batch.events}) == 50
    lengths = [len(event.ids) for event in batch.events]
    assert 64 <= min(lengths) <= np.median(lengths) <= max(lengths) <= 2_048


def test_a_conversation_grows_evenly() -> None:
    """Every turn adds a line as long as the others, up to the longest timeline."""
    assert [len(event.ids) for event in conversation(3, turns=8, vocabulary=9, length_max=80)] == list(
        range(10, 90, 10)
    )


def test_slope_is_the_cost_of_a_turn() -> None:
    """What does not grow adds nothing."""
    assert slope([1, 2, 3], [5.0, 7.0, 9.0]) == pytest.approx(2.0)
    assert slope([1, 2, 3], [5.0, 5.0, 5.0]) == pytest.approx(0.0)


def test_parity_finds_the_worst_event() -> None:
    """One event that points elsewhere is enough; full precision is also held to the digits."""
    reference = torch.eye(3)
    near = parity(reference + 1e-2 * torch.ones(3, 3), reference)
    assert near.holds(exact=False)
    assert not near.holds(exact=True)
    turned = reference.clone()
    turned[1] = torch.tensor([1.0, 0.0, 0.0])
    assert parity(turned, reference) == Parity(1.0, 0.0)
    assert not parity(turned, reference).holds(exact=False)
    assert parity(reference, reference).holds(exact=True)


def test_what_is_not_a_number_has_no_parity() -> None:
    """An engine that overflows does not pass."""
    assert not parity(torch.full((1, 2), torch.nan), torch.ones(1, 2)).holds(exact=False)

"""One account's state: atomic, deterministic, bounded, the same after dump and restore."""

from decimal import Decimal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from views import NOTHING_SHARED

from fraudguard.errors import BadSettings
from fraudguard.features.facts import Facts
from fraudguard.features.money import AMOUNT_CENTS_MAX, Rates
from fraudguard.features.velocity import BUCKET_COUNTERPARTIES_MAX, Velocity

DAY = 86_400

steps = st.lists(
    st.tuples(
        st.integers(0, 20 * DAY) | st.integers(0, 7200),
        st.sampled_from(["debit", "credit", "message"]),
        st.integers(1, 10**8),
        st.sampled_from([None, "x", "y", "z"]),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=40),
    ),
    max_size=40,
)


@pytest.fixture(scope="session")
def event_of(payment, message):
    """event_of(step): the event that a drawn step stands for."""

    def make(step):
        at, what, amount, who, text = step
        at += amount % 1000 / 1000
        if what == "message":
            return message(at, text=text, sender="counterparty" if who else "customer")
        return payment(at, direction=what, amount=amount, counterparty_id=who, device_id=who, memo=text, country="CN")

    return make


@settings(max_examples=80, deadline=None)
@given(steps=steps, stops=st.sets(st.integers(0, 40)))
def test_dump_and_restore_change_nothing(account, event_of, steps, stops):
    """The same events give the same snapshots and bytes, wherever the state went through the store."""
    straight, broken = account(), account()
    for number, step in enumerate(steps):
        if number in stops:
            body = broken.dump()
            broken = account()
            broken.restore(body)
            assert broken.dump() == body
        event = event_of(step)
        assert straight.take(event, *NOTHING_SHARED) == broken.take(event, *NOTHING_SHARED)
    assert straight.dump() == broken.dump()


def test_sequence_counts_every_event(account, payment, message):
    """1, 2, 3, for late ones too, and over a restart."""
    state = account()
    events = (payment(DAY), message(0), payment(DAY))
    assert [state.take(event, *NOTHING_SHARED).sequence for event in events] == [1, 2, 3]
    again = account()
    again.restore(state.dump())
    snapshot = again.take(message(DAY), *NOTHING_SHARED)
    assert (snapshot.sequence, snapshot.timeline.start, len(snapshot.timeline.lines)) == (4, 1, 4)


@pytest.mark.parametrize(("behind_s", "late"), [(3600, False), (3601, True), (0, False)])
def test_lateness_bound_is_inclusive(account, payment, behind_s, late):
    """Exactly the bound behind the latest event is still on time."""
    state = account()
    state.take(payment(DAY), *NOTHING_SHARED)
    snapshot = state.take(payment(DAY - behind_s), *NOTHING_SHARED)
    assert (snapshot.late, snapshot.features["late"]) == (late, late)


def test_late_event_changes_the_timeline_alone(account, payment):
    """Windows and profile are byte for byte what they were."""
    state = account()
    state.take(payment(DAY, counterparty_id="c"), *NOTHING_SHARED)
    before = orjson.loads(state.dump())
    snapshot = state.take(payment(0, counterparty_id="d", amount=7), *NOTHING_SHARED)
    after = orjson.loads(state.dump())
    assert (before["velocity"], before["profile"]) == (after["velocity"], after["profile"])
    assert snapshot.timeline.lines[-1].text == "[pay out CNY 7 transfer new payee]"
    assert snapshot.features["out_count_1d"] == 1


class Broken:
    """A counter, and a feedback, that fail."""

    id = "words-1"

    def count(self, line):
        """Fails on the word."""
        if "boom" in line:
            raise RuntimeError("counter")
        return len(line.split()) + 1

    def shares(self, event):
        """Always fails."""
        raise RuntimeError("feedback")


def test_take_is_all_or_nothing(account, payment, message):
    """If a take raises, the state is unchanged and goes on as if it had not been asked."""
    state = account(counter=Broken())
    state.take(payment(0, counterparty_id="c"), *NOTHING_SHARED)
    before = state.dump()
    with pytest.raises(RuntimeError, match="counter"):
        state.take(message(1, text="boom"), *NOTHING_SHARED)
    with pytest.raises(RuntimeError, match="feedback"):
        state.take(payment(1, counterparty_id="d"), Broken(), NOTHING_SHARED[1])
    assert state.dump() == before
    assert state.take(message(1), *NOTHING_SHARED).sequence == 2


def test_snapshot_is_not_changed_by_later_events(account, payment):
    """A snapshot is a value: it does not move with the state."""
    state = account()
    first = state.take(payment(0), *NOTHING_SHARED)
    hash_before, count = first.timeline.hash, first.features["out_count_1h"]
    state.take(payment(1), *NOTHING_SHARED)
    assert (first.timeline.hash, first.features["out_count_1h"], len(first.timeline.lines)) == (hash_before, count, 1)


class Doubled:
    """A counter of another tokenizer: twice the words."""

    id = "doubled-1"

    def count(self, line):
        """Two tokens a word and a line end."""
        return 2 * len(line.split()) + 1


def test_another_tokenizer_counts_again(account, payment, message):
    """Token counts of a state written under another tokenizer are those of this one, and the cut goes by them."""
    old = account(tokens_max=64)
    for n in range(8):
        old.take(message(n, text="a b c d e"), *NOTHING_SHARED)
    assert len(old.take(message(9), *NOTHING_SHARED).timeline.lines) == 9
    new = account(tokens_max=64, counter=Doubled())
    new.restore(old.dump())
    assert len(new.take(message(10), *NOTHING_SHARED).timeline.lines) < 9
    stored = orjson.loads(new.dump())["tail"]
    assert stored[0] == "doubled-1"
    assert stored[4] == [Doubled().count(text) for text in stored[5]]


def test_foreign_state_is_refused_unchanged(account, payment):
    """Another version or base currency is a setting to mend, not numbers to mix."""
    state = account()
    state.take(payment(), *NOTHING_SHARED)
    body = state.dump()
    dollars = account(rates=Rates("USD", {"USD": Decimal(1), "CNY": Decimal("0.14")}))
    empty = dollars.dump()
    with pytest.raises(BadSettings, match="CNY"):
        dollars.restore(body)
    assert dollars.dump() == empty
    with pytest.raises(BadSettings, match="version 2"):
        state.restore(body.replace(b'"v":1', b'"v":2'))
    assert state.dump() == body


def flood(until_s):
    """Windows of an account that pays and receives as much as fits, new people only, in every bucket there is."""
    velocity, person = Velocity(), 0
    for age_s, step_s in ((31 * DAY, 43_200), (8 * DAY, 10_800), (2 * DAY, 1_800), (7_200, 60)):
        for at in range(until_s - age_s, until_s + 1, step_s):
            for _ in range(BUCKET_COUNTERPARTIES_MAX):
                person += 7
                for flow in ("out", "in"):
                    facts = Facts(flow, at * 1_000_000, AMOUNT_CENTS_MAX, transfer=True, counterparty=person)
                    velocity.add(facts, (max(at, until_s - 7_200) - 3_600) * 1_000_000)
    return velocity


def test_hostile_account_stays_bounded(account, payment):
    """With every bucket full, every known entity new and a memo on every line, a state stays under 128 KiB."""
    state = account()
    half_past_midnight = 14.5 * 3600  # so that the lateness bound reaches back into another bucket of every window
    now = int(payment(half_past_midnight).event_time.timestamp())
    stored = orjson.loads(state.dump())
    stored["velocity"] = flood(now).dump()
    state.restore(orjson.dumps(stored))
    for n in range(600):
        fields = {"amount": "9" * 18, "memo": "😀" * 1000, "counterparty_id": f"{n}", "device_id": f"{n}"}
        state.take(
            payment(
                half_past_midnight + n / 20,
                direction=("debit", "credit")[n % 2],
                country=f"A{chr(65 + n % 26)}",
                **fields,
            ),
            *NOTHING_SHARED,
        )
    stored = orjson.loads(state.dump())
    assert [len(window[0]) for window in stored["velocity"]] == [120, 50, 57, 61]
    assert 64 * 1024 < len(state.dump()) < 128 * 1024

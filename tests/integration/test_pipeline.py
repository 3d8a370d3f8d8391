"""The pipeline in one process on the real PostgreSQL: effects once, order, labels, conflicts, replay."""

import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support import assert_same_features, settings_for

from fraudguard.assembly import Parts, load_parts, open_pipeline
from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.decisions.repository import Changes, connect
from fraudguard.domain import (
    DecisionRecord,
    Event,
    Hit,
    Label,
    Outcome,
    Received,
    Scalar,
    Score,
    ScoreRequest,
    Transaction,
)
from fraudguard.engine.loader import load_base
from fraudguard.engine.release import STARTER
from fraudguard.errors import EngineUnavailable, NotFound
from fraudguard.explain import Explainer, explain_one
from fraudguard.features.registry import features_in
from fraudguard.pipeline import BUGS_IN_A_ROW_MAX, Answer, Decided, Labelled, Pipeline, Refused
from fraudguard.replay import Replayer
from fraudguard.rules.registry import RuleSet
from fraudguard.stories import generate

NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
FEATURES_IN_CNY = features_in("CNY")
RISK_TOLERANCE = 2e-3  # int8 on batches of another shape: docs/model-card.md


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    """Rules and policy, no model."""
    parts = load_parts(settings_for("unused:1", "postgresql://unused", model="off"))
    yield parts
    parts.close()


@pytest.fixture(scope="module")
def scoring() -> Iterator[Parts]:
    """With the starter model."""
    parts = load_parts(settings_for("unused:1", "postgresql://unused", model="starter", precision="int8"))
    yield parts
    parts.close()


@asynccontextmanager
async def opened(url: str, parts: Parts, **others: object) -> AsyncIterator[Pipeline]:
    """A pipeline of its own on the database."""
    async with open_pipeline(settings_for("unused:1", url, **others), parts, SystemClock()) as pipeline:
        yield pipeline


def transfer(event_id: str, account: str = "a-1", minute: float = 0, **others: object) -> Transaction:
    """A small transfer, `minute` minutes after noon."""
    fields: dict[str, Any] = {
        "type": "transaction", "version": 1, "event_id": event_id, "account_id": account,
        "event_time": NOON + timedelta(minutes=minute), "direction": "debit", "kind": "transfer", "channel": "app",
        "amount": Decimal("20.00"), "currency": "CNY", "counterparty_id": "c-1",
    }  # fmt: skip
    return Transaction.model_validate({**fields, **others})


def label(event_id: str, target: str, account: str = "a-1", verdict: str = "fraud", day: float = 1) -> Label:
    """A chargeback, `day` days after noon."""
    return Label.model_validate(
        {
            "type": "label", "version": 1, "event_id": event_id, "account_id": account,
            "event_time": NOON + timedelta(days=day), "target_event_id": target, "source": "chargeback",
            "verdict": verdict,
        }
    )  # fmt: skip


def received(*events: Event) -> list[Received]:
    """As the door hands them over."""
    return [Received(event, datetime.now(UTC)) for event in events]


def records(answers: Sequence[Answer]) -> list[DecisionRecord]:
    """The decisions among the answers."""
    return [answer.record for answer in answers if isinstance(answer, Decided)]


async def frauds(url: str) -> list[tuple[int, int]]:
    """(transactions, frauds) a day of counterparty c-1, as stored."""
    async with connect(url) as repository:
        counts = await repository.entity_counts([("counterparty", "c-1")], 0)
    return sorted((count.transactions, count.frauds) for count in counts)


async def test_how_events_are_batched_changes_nothing(
    database_url: str, second_database_url: str, scoring: Parts
) -> None:
    """One by one or in batches of any size: the same features, timelines, risks and outcomes."""
    cast = generate(21, 40, datetime(2026, 10, 1, tzinfo=UTC), 2, 6, "train")
    events = [item.event for item in cast.events][:260]
    rng = random.Random(2)
    async with opened(database_url, scoring) as one, opened(second_database_url, scoring) as many:
        singles = [record for event in events for record in records(await one.screen(received(event)))]
        batched: list[DecisionRecord] = []
        while len(batched) < len(events):
            size = rng.randint(1, 80)
            batched += records(await many.screen(received(*events[len(batched) : len(batched) + size])))
    for a, b in zip(singles, batched, strict=True):
        assert_same_features(a, b, RISK_TOLERANCE)
        assert (a.line, a.timeline_start, a.timeline_hash) == (b.line, b.timeline_start, b.timeline_hash)
        assert a.decision.sequence == b.decision.sequence
        assert a.score is not None
        assert b.score is not None
        assert abs(a.score.risk - b.score.risk) < RISK_TOLERANCE


async def test_a_repeat_is_answered_with_the_first_decision(database_url: str, parts: Parts) -> None:
    """Within a batch, in a later one, and by another process: first write wins and nothing is counted again."""
    first, other = transfer("t-1"), transfer("t-1", amount=Decimal("99.00"))
    async with opened(database_url, parts) as pipeline:
        answers = await pipeline.screen(received(first, other, transfer("t-2", minute=1)))
        again = await pipeline.screen(received(first))
    async with opened(database_url, parts) as restarted:
        once_more = await restarted.screen(received(first, transfer("t-3", minute=2)))
    kept = records(answers)
    assert [answer.fresh for answer in answers if isinstance(answer, Decided)] == [True, False, True]
    assert kept[0] == kept[1] == records(again)[0] == records(once_more)[0]
    assert kept[0].features["amount"] == 20.0
    assert records(once_more)[1].features["transfers_1d"] == 3
    assert await frauds(database_url) == [(3, 0)]


async def test_an_event_id_of_another_account_is_refused(database_url: str, parts: Parts) -> None:
    """Never answered with somebody else's decision; the rest of the batch is decided."""
    async with opened(database_url, parts) as pipeline:
        await pipeline.screen(received(transfer("t-1", "a-1")))
        stolen, fine = await pipeline.screen(received(transfer("t-1", "a-2"), transfer("t-2", "a-2", minute=1)))
    assert isinstance(stolen, Refused)
    assert stolen.error.code == "duplicate_event_id"
    assert isinstance(fine, Decided)


@pytest.mark.parametrize("first", ["target", "label", "together"])
async def test_a_label_counts_once_whether_it_comes_before_or_after_its_event(
    database_url: str, parts: Parts, first: str
) -> None:
    """The topics are not ordered between each other: the counters end alike."""
    event, told = transfer("t-1"), label("l-1", "t-1")
    async with opened(database_url, parts) as pipeline:
        if first == "together":
            await pipeline.screen(received(told, event, told))
        else:
            for item in (event, told) if first == "target" else (told, event):
                await pipeline.screen(received(item))
        await pipeline.screen(received(told, event))
    assert await frauds(database_url) == [(1, 1)]


async def test_the_newest_label_decides(database_url: str, parts: Parts) -> None:
    """A withdrawn fraud is taken off again; an older label that comes late changes nothing."""
    async with opened(database_url, parts) as pipeline:
        await pipeline.screen(received(transfer("t-1"), label("l-1", "t-1", day=1)))
        assert await frauds(database_url) == [(1, 1)]
        await pipeline.screen(received(label("l-2", "t-1", verdict="legitimate", day=3)))
        assert await frauds(database_url) == [(1, 0)]
        await pipeline.screen(received(label("l-3", "t-1", day=2)))
        assert await frauds(database_url) == [(1, 0)]


async def test_labels_that_do_not_fit_are_refused(database_url: str, parts: Parts) -> None:
    """Another account's event, and a label id used for another target."""
    async with opened(database_url, parts) as pipeline:
        await pipeline.screen(received(transfer("t-1"), transfer("t-2", minute=1), label("l-1", "t-1")))
        foreign, reused, repeated = await pipeline.screen(
            received(label("l-2", "t-1", account="a-9"), label("l-1", "t-2"), label("l-1", "t-1"))
        )
    assert isinstance(foreign, Refused)
    assert foreign.error.code == "foreign_target"
    assert isinstance(reused, Refused)
    assert reused.error.code == "duplicate_event_id"
    assert isinstance(repeated, Labelled)
    assert await frauds(database_url) == [(2, 1)]


async def test_a_late_event_is_decided_and_changes_no_window(database_url: str, parts: Parts) -> None:
    """More than an hour behind the account: its own reason code, a line, no count."""
    async with opened(database_url, parts) as pipeline:
        await pipeline.screen(received(transfer("t-1", minute=200)))
        (late,) = records(await pipeline.screen(received(transfer("t-2", minute=0))))
        (after,) = records(await pipeline.screen(received(transfer("t-3", minute=201))))
    assert late.late
    assert "LATE_EVENT" in late.decision.reasons
    assert (late.decision.sequence, after.decision.sequence) == (2, 3)
    assert after.features["transfers_1d"] == 2
    assert await frauds(database_url) == [(2, 0)]


async def test_two_workers_on_one_account_lose_nothing(database_url: str, parts: Parts) -> None:
    """Each holds a stale state in turn; the version check makes it read again."""
    async with opened(database_url, parts) as one, opened(database_url, parts) as two:
        for n in range(8):
            pipeline = one if n % 2 == 0 else two
            (record,) = records(await pipeline.screen(received(transfer(f"t-{n}", minute=n))))
            assert record.decision.sequence == n + 1
            assert record.features["transfers_1d"] == n + 1


async def test_after_a_crash_between_commit_and_publish_the_decision_is_the_same(
    database_url: str, parts: Parts
) -> None:
    """What a new process publishes for a redelivered batch is what the dead one had committed."""
    batch = [transfer(f"t-{n}", f"a-{n % 3}", n) for n in range(9)]
    async with opened(database_url, parts) as dying:
        committed = records(await dying.screen(received(*batch)))
    async with opened(database_url, parts) as successor:
        again = await successor.screen(received(*batch))
    assert records(again) == committed
    assert not any(answer.fresh for answer in again if isinstance(answer, Decided))


@pytest.fixture
def a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event whose memo is `boom` makes the rules fail as a bug would."""
    evaluate = RuleSet.evaluate

    def faulty(rules: RuleSet, inputs: Mapping[str, Scalar]) -> list[Hit]:
        if inputs["memo"] == "boom":
            raise ZeroDivisionError("a bug")
        return evaluate(rules, inputs)

    monkeypatch.setattr(RuleSet, "evaluate", faulty)


@pytest.mark.usefixtures("a_bug")
async def test_a_bug_met_by_one_event_refuses_that_event_alone(database_url: str, parts: Parts) -> None:
    """The others of its batch are decided, in order, and its account goes on without it."""
    batch = [transfer("t-1"), transfer("t-2", minute=1, memo="boom"), transfer("t-3", minute=2)]
    async with opened(database_url, parts) as pipeline:
        answers = await pipeline.screen(received(*batch))
    assert [type(answer) for answer in answers] == [Decided, Refused, Decided]
    assert [record.decision.sequence for record in records(answers)] == [1, 2]


@pytest.mark.usefixtures("a_bug")
async def test_a_bug_met_by_every_event_stops_the_worker(database_url: str, parts: Parts) -> None:
    """Payments must not drain into the dead letters unseen."""
    async with opened(database_url, parts) as pipeline:
        with pytest.raises(ZeroDivisionError):
            await pipeline.screen(received(*(transfer(f"t-{n}", memo="boom") for n in range(BUGS_IN_A_ROW_MAX + 5))))


class DeadEngine:
    """An engine that never answers."""

    name = "dead@0+fp32"

    async def score(
        self, requests: Sequence[ScoreRequest], patience_s: Sequence[float] | None = None
    ) -> list[Score | None]:
        """Fail."""
        raise EngineUnavailable("no GPU today")

    def close(self) -> None:
        """Nothing to free."""


async def test_without_the_model_rules_and_policy_decide(database_url: str, parts: Parts) -> None:
    """Degraded, with the reason and the policy's floor; the windows count as ever."""
    dead = replace(parts, scorer=DeadEngine())  # type: ignore[arg-type]  # a fault to be injected
    async with opened(database_url, dead) as pipeline:
        (record,) = records(await pipeline.screen(received(transfer("t-1"))))
    assert record.decision.degraded
    assert record.decision.risk is None
    assert record.decision.reasons == ("ENGINE_UNAVAILABLE",)
    assert record.decision.outcome == Outcome.STEP_UP


async def test_what_has_waited_too_long_is_decided_without_the_model(database_url: str, scoring: Parts) -> None:
    """Of one batch the old event is degraded, the fresh one scored; both count."""
    settings = settings_for("unused:1", database_url, deadline_ms=60_000)
    async with open_pipeline(settings, scoring, SystemClock()) as pipeline:
        old, fresh = received(transfer("t-1"), transfer("t-2", minute=1))
        old = replace(old, received_at=old.received_at - timedelta(minutes=2))
        overloaded, scored = records(await pipeline.screen([old, fresh]))
    assert overloaded.decision.reasons == ("OVERLOAD",)
    assert scored.decision.risk is not None
    assert scored.features["transfers_1d"] == 2


async def test_replay_proves_a_decision_and_finds_a_forged_one(database_url: str, scoring: Parts) -> None:
    """Identical for what the pipeline made, rescored within the tolerance; a changed outcome or feature shows."""
    events = [item.event for item in generate(5, 12, datetime(2026, 10, 1, tzinfo=UTC), 2, 3, "train").events][:80]
    async with opened(database_url, scoring) as pipeline:
        made = records(await pipeline.screen(received(*events)))
    genuine = max(made, key=lambda record: record.decision.sequence)
    account = genuine.decision.account_id
    forged_decision = genuine.decision.model_copy(
        update={
            "decision_id": "forged", "event_id": "forged", "sequence": genuine.decision.sequence + 1,
            "outcome": Outcome.BLOCK, "severity": "critical",
        }
    )  # fmt: skip
    forged_event = genuine.event.model_copy(update={"event_id": "forged"})
    forged = replace(genuine, decision=forged_decision, event=forged_event)
    async with connect(database_url) as repository:
        version = (await repository.states([account]))[account]
        head = await repository.rulebook.head()
        assert head is not None
        changes = Changes(records=[forged], states={account: version}, activation=head.activation)
        await repository.commit(changes)
        replayer = Replayer(repository, FEATURES_IN_CNY, scoring.scorer)
        try:
            for record in made:
                proof = await replayer.replay(record.decision.decision_id)
                assert proof.differences == ()
                assert proof.rescored is not None
            proof = await replayer.replay("forged")
        finally:
            replayer.close()
    assert {difference.split(":")[0] for difference in proof.differences} >= {"outcome", "severity", "timeline"}


async def test_a_decision_from_before_severities_replays(database_url: str, parts: Parts) -> None:
    """A stored decision without a severity is not held against the policy that gives one."""
    async with opened(database_url, parts) as pipeline:
        burst = [transfer(f"t-{n}", minute=n, memo="急用钱") for n in range(12)]
        made = records(await pipeline.screen(received(*burst, transfer("t-20", minute=20, amount=Decimal("30000.00")))))
    asked = next(record for record in made if record.decision.severity)
    account = asked.decision.account_id
    older = asked.decision.model_copy(
        update={"decision_id": "older", "event_id": "older", "sequence": len(made) + 1, "severity": None}
    )
    copy = replace(asked, decision=older, event=asked.event.model_copy(update={"event_id": "older"}))
    async with connect(database_url) as repository:
        version = (await repository.states([account]))[account]
        head = await repository.rulebook.head()
        assert head is not None
        await repository.commit(Changes(records=[copy], states={account: version}, activation=head.activation))
        replayer = Replayer(repository, FEATURES_IN_CNY)
        try:
            proof = await replayer.replay("older")
        finally:
            replayer.close()
    assert not any(difference.startswith("severity") for difference in proof.differences)


async def test_explain_agrees_with_what_is_stored(database_url: str, scoring: Parts) -> None:
    """Every stored decision is explained as it came out, all its reasons told; each change told does what it says."""
    told = generate(5, 12, datetime(2026, 10, 1, tzinfo=UTC), 2, 3, "train").events
    events = [item.event for item in told if item.story_id][:80]  # ordinary life asks for no alarm
    async with opened(database_url, scoring) as pipeline:
        made = records(await pipeline.screen(received(*events)))
    assert any(record.decision.reasons for record in made)
    explained = []
    async with connect(database_url) as repository:
        for record in made:
            timeline = await repository.timeline(record)
            explainer = Explainer(record, timeline, scoring.pack.rules, scoring.pack.policy, FEATURES_IN_CNY)
            explanation = explainer.explain()
            explained.append(explanation)
            assert explanation.agrees
            assert explanation.severity == record.decision.severity
            asked = {a.ask.reason for a in explanation.asked if not a.ask.taken_back}
            assert asked == {reason for reason in record.decision.reasons if reason != "LATE_EVENT"}
            assert all(a.condition.holds for a in explanation.asked if a.condition)
            for near in explanation.near_misses:
                assert not near.part.holds
                assert near.rule not in {hit.rule for hit in record.hits}
                for turn in near.needs:
                    then = explainer.simulate({turn.change.name: turn.change.to})
                    assert (near.rule in then.rules, then.outcome) == (True, turn.outcome)
    assert any(explanation.near_misses for explanation in explained)
    settings = settings_for("unused:1", database_url)
    one = next(explanation for explanation in explained if explanation.reasons)
    assert await explain_one(settings, one.decision_id) == one
    simulated = (await explain_one(settings, one.decision_id, {"risk": "1", "typology": "scam"})).simulated
    assert simulated is not None
    assert simulated.outcome is Outcome.BLOCK
    with pytest.raises(NotFound):
        await explain_one(settings, "nothing")


@pytest.fixture(scope="module")
def bank_of_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """The starter with two tenants: one has its adapter and head, the other a random adapter and its head."""
    folder = tmp_path_factory.mktemp("tenants")
    parts = {name: str(STARTER / name) for name in ("base", "adapter", "head")}
    base = load_base(STARTER / "base")
    torch.manual_seed(3)
    lora = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(folder / "random")
    tenants = {"alpha": {**parts, "adapter": str(folder / "random")}, "beta": parts}
    manifest = json.loads((STARTER / "release.json").read_text()) | parts
    manifest["tenants"] = {name: {"adapter": of["adapter"], "head": of["head"]} for name, of in tenants.items()}
    (folder / "release.json").write_text(json.dumps(manifest))
    loaded = load_parts(settings_for("unused:1", "postgresql://unused", model=str(folder), precision="int8"))
    yield loaded
    loaded.close()


async def test_an_events_tenant_names_its_adapter(database_url: str, bank_of_two: Parts) -> None:
    """In one batch each decision is its own tenant's and says so; replay and rescore agree with all of them."""
    names = ["alpha", "beta", "nobody", 7, None]
    batch = [
        transfer(
            f"t-{n}", f"a-{n}", amount=Decimal("9000.00"), memo="急用钱", attributes={"tenant": name} if name else {}
        )
        for n, name in enumerate(names)
    ]
    async with opened(database_url, bank_of_two) as pipeline:
        made = records(await pipeline.screen(received(*batch)))
    async with connect(database_url) as repository:
        replayer = Replayer(repository, FEATURES_IN_CNY, bank_of_two.scorer)
        try:
            proofs = [await replayer.replay(record.decision.decision_id) for record in made]
        finally:
            replayer.close()
    assert bank_of_two.scorer is not None
    release, precision = bank_of_two.scorer.name.split("+")
    own = bank_of_two.scorer.name
    signed = [f"{release}/alpha+{precision}", f"{release}/beta+{precision}", own, own, own]
    assert [record.decision.model for record in made] == signed
    risks = [record.score.risk for record in made if record.score]
    assert len(risks) == 5
    assert abs(risks[0] - risks[1]) > RISK_TOLERANCE
    assert risks[1:] == pytest.approx([risks[1]] * 4, abs=RISK_TOLERANCE)  # the same weights, as own and as beta's
    assert [proof.differences for proof in proofs] == [()] * 5
    assert [proof.rescored for proof in proofs] == pytest.approx(risks, abs=RISK_TOLERANCE)


def test_settings_reach_a_child_process_whole() -> None:
    """What differs from the defaults comes out of the environment as it went in."""
    settings = settings_for("host:1", "postgresql://u:p@h/d", model="off", deadline_ms=7)
    environment = settings.environment()
    assert environment["FRAUDGUARD_DATABASE_URL"] == "postgresql://u:p@h/d"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        assert Settings() == settings

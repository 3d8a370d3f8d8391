"""Which model scores: taken over between batches, on a thread, or not at all; and the challenger beside it in time."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pytest
from support import settings_for

from fraudguard import metrics
from fraudguard.decisions.models import Head, Model
from fraudguard.domain import (
    Decision,
    DecisionRecord,
    Line,
    Outcome,
    Score,
    ScoreRequest,
    Timeline,
    Transaction,
    Typology,
)
from fraudguard.engine.batcher import Batcher
from fraudguard.engine.guard import GuardedEngine
from fraudguard.errors import BadModel
from fraudguard.serving import Serving

AT = datetime(2026, 11, 21, 10, tzinfo=UTC)


@dataclass
class Fake:
    """An engine that scores when its gate is open."""

    name: str
    tokenizer: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(id="words"))
    gate: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    fault: Exception | None = None

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Wait for the gate."""
        self.started.set()
        assert self.gate.wait(30)
        if self.fault:
            raise self.fault
        return [Score(0.9, Typology.SCAM, self.name) for _ in requests]

    def new_tokens(self, request: ScoreRequest) -> int:
        """One each."""
        return 1


def open_gate(engine: Fake) -> Fake:
    """The same engine, free to score."""
    engine.gate.set()
    return engine


def model(version: str) -> Model:
    """A registered release."""
    return Model(version.rjust(64, "0"), "m", version, "", "words", f"/models/{version}")


def head(champion: str | None = None, challenger: str | None = None) -> Head:
    """What the registry says."""
    return Head(1, champion and model(champion), challenger and model(challenger), "ana", AT)  # type: ignore[arg-type]  # "" is None here


class Shelf:
    """What can be opened, by version ("" is the configured model); an exception is raised."""

    def __init__(self) -> None:
        self.engines: dict[str, Fake | Exception] = {"": open_gate(Fake("configured"))}
        self.opened: list[str] = []

    def open(self, wanted: Model | None) -> Fake:
        """As assembly.open_model."""
        self.opened.append(wanted.version if wanted else "")
        found = self.engines[self.opened[-1]]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def shelf() -> Shelf:
    """With the configured model."""
    return Shelf()


@pytest.fixture
def served(shelf: Shelf) -> Iterator[Serving]:
    """Scoring with the configured model; shadow scores in 200 ms."""
    settings = settings_for("unused:1", "postgresql://unused", shadow_ms=200)
    live = GuardedEngine(Batcher(shelf.open(None), pass_s=0.1, queue_max=10), timeout_s=5, failures_max=5, retry_s=5)
    shelf.opened.clear()
    served = Serving(live, None, shelf.open, "words", settings)
    yield served
    served.close()
    live.close()


async def follow(served: Serving, now: Head) -> None:
    """Look at the registry, and let what is loaded be loaded."""
    served.follow(now)
    loading = [place._loading for place in (served._champion, served._challenger) if place._loading]
    if loading:
        await asyncio.wait(loading)


def decided(*risks: float | None) -> list[tuple[ScoreRequest, DecisionRecord]]:
    """Decisions of one payment each, scored so or degraded."""
    return [_decided(number, risk) for number, risk in enumerate(risks)]


def _decided(number: int, risk: float | None) -> tuple[ScoreRequest, DecisionRecord]:
    event = Transaction(
        type="transaction", version=1, event_id=f"e-{number}", account_id="a", event_time=AT, direction="debit",
        kind="transfer", channel="app", amount=Decimal(5), currency="CNY",
    )  # fmt: skip
    score = None if risk is None else Score(risk, Typology.OTHER, "configured")
    decision = Decision(
        decision_id=f"d-{number}", event_id=event.event_id, event_type="transaction", account_id="a", sequence=1,
        outcome=Outcome.APPROVE, risk=risk, typology=None, reasons=(), hits=(), degraded=risk is None,
        model="configured", rules_version="r", decided_at=AT, latency_ms=0,
    )  # fmt: skip
    record = DecisionRecord(decision, event, AT, False, "line", 1, "h", {}, score, (), "p")
    return ScoreRequest(Timeline("a", 1, (Line("transaction", AT, "line"),)), {}), record


def blocks(request: ScoreRequest, record: DecisionRecord, score: Score) -> Outcome:
    """A policy."""
    return Outcome.BLOCK if score.risk > 0.5 else Outcome.APPROVE


def count(fate: str) -> float:
    """Of shadow decisions so far."""
    value: float = metrics.SHADOW.labels(fate)._value.get()
    return value


async def test_a_new_champion_scores_from_the_next_turn_on(served: Serving, shelf: Shelf) -> None:
    """Loaded while the old one scores; in the middle of a batch nothing changes."""
    shelf.engines["2"] = Fake("m@2+fp32")
    await follow(served, head("2"))
    assert served.live.name == "configured"
    served.turn()
    assert served.live.name == "m@2+fp32"
    for _ in range(3):
        await follow(served, head("2"))
        served.turn()
    assert shelf.opened == ["2"]
    await follow(served, head())
    served.turn()
    assert (served.live.name, shelf.opened) == ("configured", ["2", ""])


async def test_what_was_overtaken_while_it_was_loaded_is_not_used(served: Serving, shelf: Shelf) -> None:
    """A rollback before the turn: the loaded model never scores."""
    shelf.engines["2"] = shelf.engines["3"] = Fake("bad")
    await follow(served, head("2"))
    served.follow(head())
    served.turn()
    assert served.live.name == "configured"
    await follow(served, head("3"))
    shelf.engines["4"] = Fake("good")
    await follow(served, head("4"))
    served.turn()
    assert served.live.name == "good"


@pytest.mark.parametrize("fault", [BadModel("no weights"), MemoryError("full"), RuntimeError("no GPU")])
async def test_what_cannot_be_loaded_changes_nothing_and_is_tried_again(
    served: Serving, shelf: Shelf, fault: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged with who goes on, counted, tried again when its time has come, and used when it is mended."""
    refusals = metrics.MODEL_REFUSALS.labels("champion")._value
    before, shelf.engines["2"] = refusals.get(), fault
    await follow(served, head("2"))
    served.turn()
    assert served.live.name == "configured"
    assert refusals.get() == before + 1
    assert f"still scoring with configured: cannot load m@2: {fault}" in caplog.text
    shelf.engines["2"] = Fake("m@2+fp32")
    await follow(served, head("2"))
    assert shelf.opened == ["2"]  # not with every batch
    served._champion._again_at = 0.0
    await follow(served, head("2"))
    served.turn()
    assert served.live.name == "m@2+fp32"


async def test_another_tokenizer_needs_a_restart(
    served: Serving, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """The timelines of this process are cut in the tokens of its first model; a challenger may differ."""
    shelf.engines["2"] = open_gate(Fake("m@2+fp32", SimpleNamespace(id="letters")))
    await follow(served, head("2"))
    served.turn()
    assert served.live.name == "configured"
    assert "m@2+fp32 has another tokenizer (restart the workers" in caplog.text
    await follow(served, head(None, "2"))
    served.turn()
    assert [score.model for score in await served.shadow(decided(0.1), 5, blocks, AT)] == ["m@2+fp32"]


async def test_a_reload_opens_the_same_model_again(served: Serving, shelf: Shelf) -> None:
    """SIGHUP: what the settings name may be another release by now; twice in a row is twice."""
    for name in ("newer", "newest"):
        shelf.engines[""] = Fake(name)
        served.reload()
        await follow(served, head())
    served.turn()
    assert (served.live.name, shelf.opened) == ("newest", ["", ""])


async def test_the_challenger_scores_what_the_champion_scored(served: Serving, shelf: Shelf) -> None:
    """A score and the outcome that the policy would give, for each decision that is not degraded."""
    shelf.engines["2"] = open_gate(Fake("m@2+fp32"))
    assert await served.shadow(decided(0.1), 5, blocks, AT) == []
    await follow(served, head(None, "2"))
    assert await served.shadow(decided(0.1), 5, blocks, AT) == []  # before its turn
    served.turn()
    before = count("scored"), count("degraded")
    found = await served.shadow(decided(0.1, None, 0.2), 5, blocks, AT)
    assert [(s.decision_id, s.digest, s.risk, s.outcome) for s in found] == [
        (f"d-{number}", model("2").digest, 0.9, Outcome.BLOCK) for number in (0, 2)
    ]
    assert (count("scored"), count("degraded")) == (before[0] + 2, before[1] + 1)
    assert served.live.name == "configured"
    await follow(served, head())
    served.turn()
    assert served.challenger is None
    assert await served.shadow(decided(0.1), 5, blocks, AT) == []


async def test_a_slow_challenger_costs_its_bound_and_no_more(served: Serving, shelf: Shelf) -> None:
    """Late once, busy while the pass that nobody waits for runs, and back when it is over."""
    slow = shelf.engines["2"] = Fake("m@2+fp32")
    await follow(served, head(None, "2"))
    served.turn()
    before = count("late"), count("busy")
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await served.shadow(decided(0.1, 0.2), 0.05, blocks, AT) == []
    assert loop.time() - began < 5  # the gate is closed for 30 s
    assert slow.started.is_set()
    assert await served.shadow(decided(0.1), 30, blocks, AT) == []
    assert (count("late"), count("busy")) == (before[0] + 2, before[1] + 1)
    slow.gate.set()
    assert served._shadow is not None
    running = served._shadow.batcher._running
    assert running is not None
    await asyncio.wait([running])
    assert len(await served.shadow(decided(0.1), 5, blocks, AT)) == 1


async def test_no_time_left_asks_nobody(served: Serving, shelf: Shelf) -> None:
    """A batch that is late already waits for no challenger; time that runs out while outcomes are worked out counts."""
    engine = shelf.engines["2"] = open_gate(Fake("m@2+fp32"))
    await follow(served, head(None, "2"))
    served.turn()
    assert await served.shadow(decided(0.1), -1, blocks, AT) == []
    assert not engine.started.is_set()

    clock = asyncio.get_running_loop()
    ends = clock.time() + 4

    def slowly(request: ScoreRequest, record: DecisionRecord, score: Score) -> Outcome:
        while clock.time() <= ends:  # blocks as rules do
            pass
        return Outcome.APPROVE

    before = count("late")
    assert len(await served.shadow(decided(0.1, 0.2, 0.3), 3, slowly, AT)) == 1
    assert count("late") == before + 2


async def test_a_broken_challenger_is_counted_and_let_be(
    served: Serving, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """Its faults reach the log and the count, and after some in a row it is not asked for a while."""
    engine = shelf.engines["2"] = open_gate(Fake("m@2+fp32", fault=RuntimeError("NaN")))
    await follow(served, head(None, "2"))
    served.turn()
    before = count("failed")
    for _ in range(7):
        assert await served.shadow(decided(0.1), 5, blocks, AT) == []
    assert count("failed") == before + 7
    assert "no scores of the challenger m@2+fp32: RuntimeError: NaN" in caplog.text
    engine.started.clear()
    assert await served.shadow(decided(0.1), 5, blocks, AT) == []
    assert not engine.started.is_set()


async def test_the_models_in_use_are_shown(served: Serving, shelf: Shelf) -> None:
    """One series a role, of the model that scores there now."""
    shelf.engines |= {"2": Fake("m@2+fp32"), "3": Fake("m@3+fp32")}
    await follow(served, head("2", "3"))
    served.turn()
    shown = {tuple(sample.labels.values()) for of in metrics.MODEL.collect() for sample in of.samples}
    assert shown == {("champion", "m@2+fp32"), ("challenger", "m@3+fp32")}
    served.follow(head("2"))
    served.turn()
    shown = {tuple(sample.labels.values()) for of in metrics.MODEL.collect() for sample in of.samples}
    assert shown == {("champion", "m@2+fp32")}

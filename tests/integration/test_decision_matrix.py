"""One decision matrix, written by hand: live, replay, backtest and shadow say the same of every event in it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid5

import pytest
from packs import (
    FIELDS,
    NOON,
    POLICY,
    checked,
    files_of,
    message,
    opened,
    payment,
    received,
    records,
    rule,
    watch_list,
    window,
    write,
)
from support import settings_for

from fraudguard.assembly import Parts, load_parts
from fraudguard.backtest import Evaluation, Source, read_file, run
from fraudguard.config import Settings
from fraudguard.decisions.repository import connect
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.domain import DecisionHit, DecisionRecord, Hit, Outcome, Screenable
from fraudguard.replay import Replayer
from fraudguard.rulebook import Pack
from fraudguard.rules.registry import RuleSet
from fraudguard.tenants import NAMESPACE

WINDOWS = (
    window("small_out_2h", "account", "count", "2h", where="amount_base < 10"),
    window("device_accounts_1d", "device", "distinct", "1d", of="account_id"),
)
LISTS = (watch_list("mules", "block", "counterparty"), watch_list("payroll", "allow", "counterparty"))
# id, when, inputs that hit, outcome, more lines
RULES = (
    ("on-mule-list", "counterparty in @mules", "{counterparty in @mules: true}", "block", ""),
    ("paid-by-payroll", "counterparty in @payroll", "{counterparty in @payroll: true}", "approve", ""),
    ("third-transfer", "transfers_1d >= 3", "{transfers_1d: 3}", "step_up", ""),
    ("testing-the-card", "small_out_2h >= 2", "{small_out_2h: 2}", "review", ""),
    ("shared-device", "device_accounts_1d > 2", "{device_accounts_1d: 3}", "review", ""),
    ("urgent", 'chat mentions ["急用钱", "urgent money"]', '{chat: "急-用-钱"}', "review", ""),
    ("usdt-memo", 'memo contains "usdt 兑换"', '{memo: "ＵＳＤＴ 兑换"}', "block", ""),
    ("half-way", "amount_base between 700 and 799", "{amount_base: 700}", "block", "rollout: 30\n"),
    ("no-rate", "amount_base is missing and amount is known", "{amount: 5}", "review", ""),
    ("likely-scam", 'risk >= 0.1 and typology = "scam"', "{risk: 0.6, typology: scam}", "block", ""),
    ("unread", "degraded and amount_base > 1_000", "{degraded: true, amount_base: 1001}", "review", ""),
)
NO_HITS = {"no-rate": "{amount: 5, amount_base: 5}", "half-way": "{amount_base: 800}"}
# A scam is held at risks at which anything else passes; the starter is far surer of one row than of the others.
SCORED_POLICY = POLICY.replace(
    "block: 0.80}", "block: 0.80, by_typology: {scam: {step_up: 0.02, review: 0.1}}}"
).replace("block: 0.90}", "block: 0.90, by_typology: {scam: {step_up: 0.01}}}")


@dataclass(frozen=True)
class Row:
    """An event, and what must come of it. hits: rules in order; one in brackets is outside of its rollout.

    waited: it was received long ago, and is decided without the model.
    """

    event: Screenable
    outcome: str
    reasons: tuple[str, ...]
    hits: tuple[str, ...]
    waited: bool = False


def _row(event: Screenable, outcome: str, reasons: str = "", hits: str = "", *, waited: bool = False) -> Row:
    return Row(event, outcome, tuple(reasons.split()), tuple(hits.split()), waited)


OFF = (
    _row(payment("plain"), "approve", "ENGINE_OFF"),
    _row(payment("mule", "b-1", counterparty_id="m-1"), "block", "ON_MULE_LIST ENGINE_OFF", "on-mule-list"),
    _row(payment("mule-expired", "b-2", 61, counterparty_id="m-2"), "approve", "ENGINE_OFF"),
    _row(payment("mule-still", "b-2", 59, counterparty_id="m-2"), "block", "ON_MULE_LIST ENGINE_OFF", "on-mule-list"),
    _row(payment("second", minute=1), "approve", "ENGINE_OFF"),
    _row(payment("third", minute=2), "step_up", "THIRD_TRANSFER ENGINE_OFF", "third-transfer"),
    # The allow list takes back a step-up, and no more than that.
    _row(
        payment("fourth-allowed", minute=3, counterparty_id="p-1"),
        "approve", "PAID_BY_PAYROLL ENGINE_OFF", "third-transfer paid-by-payroll",
    ),
    _row(
        payment("fifth-allowed", minute=4, counterparty_id="p-1", memo="usdt 兑换"),
        "block", "USDT_MEMO PAID_BY_PAYROLL ENGINE_OFF", "usdt-memo third-transfer paid-by-payroll",
    ),
    _row(payment("small-1", "c-1", amount=Decimal("9.99")), "approve", "ENGINE_OFF"),
    _row(
        payment("small-2", "c-1", 100, kind="card", amount=Decimal("9.99")),
        "review", "TESTING_THE_CARD ENGINE_OFF", "testing-the-card",
    ),
    _row(payment("small-gone", "c-1", 123, kind="card"), "approve", "ENGINE_OFF"),
    _row(payment("device-1", "d-1", device_id="phone"), "approve", "ENGINE_OFF"),
    _row(payment("device-2", "d-2", 1, device_id="phone"), "approve", "ENGINE_OFF"),
    _row(payment("device-3", "d-3", 2, device_id="phone"), "review", "SHARED_DEVICE ENGINE_OFF", "shared-device"),
    _row(message("said", "我急-用-钱！", "e-1"), "review", "URGENT ENGINE_OFF", "urgent"),
    _row(payment("paid-after", "e-1", 1), "review", "URGENT ENGINE_OFF", "urgent"),
    _row(payment("paid-next-day", "e-1", 1441), "approve", "ENGINE_OFF"),
    _row(payment("wide", "f-1", memo="ＵＳＤＴ　兑-换"), "block", "USDT_MEMO ENGINE_OFF", "usdt-memo"),
    _row(payment("rolled-in", "a-in", amount=Decimal(750)), "block", "HALF_WAY ENGINE_OFF", "half-way"),
    _row(payment("rolled-out", "a-out", amount=Decimal(750)), "approve", "ENGINE_OFF", "(half-way)"),
    _row(payment("gold", "g-1", currency="XAU", amount=Decimal(3)), "review", "NO_RATE ENGINE_OFF", "no-rate"),
    _row(payment("nobody", "g-2", counterparty_id=None), "approve", "ENGINE_OFF"),
    _row(payment("now", "h-1", 200), "approve", "ENGINE_OFF"),
    _row(payment("late", "h-1", 100), "approve", "ENGINE_OFF LATE_EVENT"),
    _row(
        payment("late-mule", "h-1", 100, counterparty_id="m-1", amount=Decimal(1)),
        "block", "ON_MULE_LIST ENGINE_OFF LATE_EVENT", "on-mule-list",
    ),
)  # fmt: skip


SCORED = (
    _row(message("hello", "妈，晚上回家吃饭吗", "a-1", sender="customer"), "approve"),
    _row(
        message("police", "我是公安局的，你涉嫌洗钱，马上把钱转到安全账户，不要告诉任何人", "s-1"),
        "step_up", "MODEL_RISK_STEP_UP",
    ),
    _row(
        payment("protected", "s-1", 5, amount=Decimal(48000), counterparty_id="x-1"),
        "block", "LIKELY_SCAM MODEL_RISK_REVIEW", "likely-scam",
    ),
    _row(payment("groceries", "g-1", 5, kind="card", channel="card_present", counterparty_id=None), "approve"),
    _row(payment("overload", "o-1", 5), "step_up", "OVERLOAD", waited=True),
    _row(
        payment("overload-large", "o-1", 6, amount=Decimal(5000)),
        "review", "UNREAD OVERLOAD", "unread", waited=True,
    ),
    _row(message("overload-said", "在吗", "o-1", 7), "approve", "OVERLOAD", waited=True),
    _row(payment("scored-mule", "g-1", 6, counterparty_id="m-1"), "block", "ON_MULE_LIST", "on-mule-list"),
    _row(payment("scored-late", "g-1", -60), "approve", "LATE_EVENT"),
)  # fmt: skip


def pack_files(state: str, policy: str) -> dict[str, str]:
    """The pack with every rule in this state."""
    rules = [
        rule(id, when, hit, no_hit=NO_HITS.get(id, "{}"), outcome=outcome, state=state, others=others)
        for id, when, hit, outcome, others in RULES
    ]
    return files_of(rules, WINDOWS, LISTS, policy)


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    """No model."""
    parts = load_parts(settings_for("unused:1", "postgresql://unused", model="off"))
    yield parts
    parts.close()


@pytest.fixture(scope="module")
def scoring() -> Iterator[Parts]:
    """With the starter model."""
    parts = load_parts(settings_for("unused:1", "postgresql://unused", model="starter", precision="int8"))
    yield parts
    parts.close()


async def fill_lists(url: str) -> None:
    """m-1 on the list of mules, m-2 for the hour after noon, p-1 pays salaries."""
    before = NOON - timedelta(days=1)
    entries = [
        ListEntry("mules", "m-1", "police", "tests", "bulletin", before),
        ListEntry("mules", "m-2", "police", "tests", "bulletin", before, NOON + timedelta(hours=1)),
        ListEntry("payroll", "p-1", "employer", "tests", "contract", before),
    ]
    async with connect(url) as repository:
        await repository.lists.add_many(entries, "tests")


async def screen(url: str, parts: Parts, pack: Pack, rows: Sequence[Row]) -> list[DecisionRecord]:
    """The matrix through a pipeline, in batches of seven."""
    await fill_lists(url)
    batch = [
        replace(item, received_at=item.received_at - timedelta(minutes=2)) if row.waited else item
        for row, item in zip(rows, received(*(row.event for row in rows)), strict=True)
    ]
    made: list[DecisionRecord] = []
    async with opened(url, parts, pack, deadline_ms=60_000) as pipeline:
        for start in range(0, len(batch), 7):
            made += records(await pipeline.screen(batch[start : start + 7]))
    return made


def seen(row: Row, outcome: Outcome, reasons: Sequence[str], hits: Sequence[Hit]) -> Row:
    """What came of the row's event, as a row."""
    named = tuple(hit.rule if hit.state == "live" else f"({hit.rule})" for hit in hits)
    return replace(row, outcome=outcome.value, reasons=tuple(reasons), hits=named)


async def backtested(
    pack: Pack, settings: Settings, saved: Path, rows: Sequence[Row], deciding: Mapping[str, RuleSet]
) -> list[Row]:
    """What a backtest of the pack makes of the decisions in a database, which it saves, and reads again."""
    await run(settings, Source(since=NOON - timedelta(days=1), save=saved), None, lambda: None)
    evaluation, found = Evaluation(pack, deciding), {}
    for past in read_file(saved, pack.policy.degraded_reasons):
        hits = evaluation.hits(past)
        verdict = evaluation.verdict(past, hits)
        found[past.decision_id] = (verdict.outcome, verdict.reasons, hits)
    ids = [str(uuid5(NAMESPACE, row.event.event_id)) for row in rows]
    assert found.keys() == set(ids)
    return [seen(row, *found[id]) for row, id in zip(rows, ids, strict=True)]


@pytest.mark.parametrize("scored", [False, True], ids=["rules alone", "with the starter"])
async def test_the_matrix_holds_live_in_replay_in_backtest_and_in_shadow(
    database_url: str, second_database_url: str, parts: Parts, scoring: Parts, tmp_path: Path, scored: bool
) -> None:
    """Outcome, reasons and hits; in shadow the same hits, none of which acts, and a backtest of them live."""
    rows, using = (list(SCORED), scoring) if scored else (list(OFF), parts)
    policy = SCORED_POLICY if scored else POLICY
    live_files = pack_files("live", policy)
    live, shadow = checked(live_files), checked(pack_files("shadow", policy))
    named = write(live_files, tmp_path / "rules")

    made = await screen(database_url, using, live, rows)
    assert [
        seen(row, r.decision.outcome, r.decision.reasons, r.hits) for row, r in zip(rows, made, strict=True)
    ] == rows
    for record in made:
        acted = tuple(DecisionHit(rule=h.rule, version=1, outcome=h.outcome) for h in record.hits if h.state == "live")
        assert record.decision.hits == acted

    async with connect(database_url) as repository:
        replayer = Replayer(repository, FIELDS, using.scorer)
        proofs = [await replayer.replay(record.decision.decision_id) for record in made]
        replayer.close()
    assert [proof.differences for proof in proofs] == [()] * len(rows)

    settings = settings_for("unused:1", database_url, **named)
    assert await backtested(live, settings, tmp_path / "saved", rows, {}) == rows
    stored = {live.rules.version: live.rules}  # every rule stands in it, so that no rule is evaluated again
    assert await backtested(live, settings, tmp_path / "saved", rows, stored) == rows

    shadowed = await screen(second_database_url, using, shadow, rows)
    for row, record in zip(rows, shadowed, strict=True):
        assert [hit.state for hit in record.hits] == ["shadow"] * len(row.hits)
        assert [f"({hit.rule})" for hit in record.hits] == [f"({name.strip('()')})" for name in row.hits]
        assert record.decision.hits == ()
        rules_reasons = {id.upper().replace("-", "_") for id, *_ in RULES}
        assert not rules_reasons & set(record.decision.reasons)
    settings = settings_for("unused:1", second_database_url, **named)
    assert await backtested(live, settings, tmp_path / "shadowed", rows, {}) == rows
    stored = {shadow.rules.version: shadow.rules}
    assert await backtested(live, settings, tmp_path / "shadowed", rows, stored) == rows

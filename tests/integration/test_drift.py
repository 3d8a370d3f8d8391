"""Drift over decisions in the real PostgreSQL: what moved and nothing else, alerts, labels and weeks counted once."""

import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from packs import NOON, files_of, label, message, opened, payment, ready, received, records, rule
from support import settings_for

from fraudguard import drift as drift_room
from fraudguard.assembly import Parts, load_parts
from fraudguard.baseline import Baseline, write_baseline
from fraudguard.decisions import weekly
from fraudguard.decisions.casebook import CaseFilter, Disposition
from fraudguard.decisions.repository import Changes, connect
from fraudguard.domain import Decision, DecisionRecord, Outcome, Scalar, Score, Screenable, Typology
from fraudguard.drift import EVENT_TYPES, VARIABLES, Asked, Drift, run
from fraudguard.drift_report import render, summary, title
from fraudguard.errors import BadInput
from fraudguard.features.registry import FEATURES, MODEL_FEATURES
from fraudguard.stability import Histogram, Level

MONDAY = datetime(2026, 8, 31, tzinfo=UTC)  # of 2026-W36
BOOLEANS = {feature.name for feature in FEATURES if feature.type == "boolean"}
numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def small_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many fetches even of few rows."""
    monkeypatch.setattr(weekly, "ROWS_A_FETCH", 100)


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    """No model."""
    parts = load_parts(settings_for("unused:1", "postgresql://unused", model="off"))
    yield parts
    parts.close()


def decided(
    event: Screenable,
    features: dict[str, Scalar],
    risk: float | None,
    *,
    outcome: Outcome = Outcome.APPROVE,
    typology: Typology = Typology.OTHER,
    model: str = "starter@1+fp32",
) -> DecisionRecord:
    """A decision as the pipeline stores it."""
    number = next(numbers)
    return DecisionRecord(
        decision=Decision(
            decision_id=f"d-{number}", event_id=event.event_id, event_type=event.type, account_id=event.account_id,
            sequence=number, outcome=outcome, risk=risk, typology=None if risk is None else typology, reasons=(),
            hits=(), degraded=risk is None, model=model, rules_version="r-1", decided_at=event.event_time,
            latency_ms=1.0,
        ),
        event=event, received_at=event.event_time, late=False, line="[line]", timeline_start=1, timeline_hash="0" * 64,
        features=features, score=None if risk is None else Score(risk, typology, model), hits=(),
        policy_version="p-1",
    )  # fmt: skip


def drawn(rng: Random) -> dict[str, Scalar]:
    """One value of each input: counts, mostly 0; booleans; amounts; a tenth of the feedback missing."""
    values: dict[str, Scalar] = {}
    for name in MODEL_FEATURES:
        if name in BOOLEANS:
            values[name] = rng.random() < 0.2
        elif "fraud_share" in name:
            values[name] = None if rng.random() < 0.1 else rng.choice((0.0, 0.0, 0.5))
        elif "sum" in name or "amount" in name or "max" in name:
            values[name] = round(rng.lognormvariate(5, 1), 2)
        else:
            values[name] = max(0, int(rng.gauss(-1, 2)))
    return values


def eight_weeks() -> list[DecisionRecord]:
    """Payments and messages; in the sixth week payments triple, most devices' past is gone and risk rises."""
    rng = Random(8)
    made = []
    for week, n in itertools.product(range(8), range(500)):
        at = MONDAY + timedelta(weeks=week, minutes=n * 20)
        features, risk = drawn(rng), rng.betavariate(1, 20)
        told = n % 5 == 0
        event = message(f"m-{week}-{n}", "你好", f"a-{n % 40}") if told else payment(f"t-{week}-{n}", f"a-{n % 40}")
        if week == 5 and not told:
            features["amount_base"] = 3 * float(features["amount_base"] or 0)
            if rng.random() < 0.6:
                features["device_fraud_share_30d"] = None
            risk = rng.betavariate(3, 20)
        typology = rng.choice(list(Typology))
        outcome = Outcome.REVIEW if risk > 0.2 else Outcome.APPROVE
        moved = event.model_copy(update={"event_time": at})
        made.append(
            decided(moved, features, risk, outcome=outcome, typology=typology, model=f"starter@{1 + week // 6}")
        )
    return made


async def store(url: str, made: list[DecisionRecord]) -> None:
    """Commit decisions, the reviewed ones as alerts."""
    async with connect(url) as repository:
        for start in range(0, len(made), 500):
            part = made[start : start + 500]
            alerts = [record for record in part if record.decision.outcome is Outcome.REVIEW]
            await repository.commit(Changes(records=part, alerts=alerts))


async def counted(url: str, asked: Asked | None = None, **settings: object) -> Drift:
    """The count in UTC."""
    return await run(settings_for("unused:1", url, **{"time_zone": "UTC"} | settings), asked or Asked(), lambda _: None)


def moved(drift: Drift) -> dict[str, set[tuple[str, str]]]:
    """What moved, by week."""
    found = {week.name: drift.shifts(week) for week in drift.weeks}
    return {name: {(s.event_type, s.variable) for s in shifts if s.level.moved} for name, shifts in found.items()}


async def test_exactly_what_moved_is_found(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its week, whether the bins come from all decisions, from a sample of them or from a baseline; whatever else
    is compared stays steady."""
    made = eight_weeks()
    await store(database_url, made)
    steps: list[int] = []
    drift = await run(settings_for("unused:1", database_url, time_zone="UTC"), Asked(), steps.append)
    assert sum(steps) == len(made) == 4_000
    assert [week.name for week in drift.weeks] == [f"2026-W{n}" for n in range(36, 44)]
    assert drift.reference
    assert drift.reference.name == "2026-W36 to 2026-W39"
    wanted = {("transaction", name) for name in ("amount_base", "device_fraud_share_30d", "risk")}
    nothing: dict[str, set[tuple[str, str]]] = {week.name: set() for week in drift.weeks}
    assert moved(drift) == nothing | {"2026-W41": wanted}
    shifts = {shift.variable: shift for shift in drift.shifts(drift.weeks[5]) if shift.event_type == "transaction"}
    assert shifts["amount_base"].level is Level.LARGE
    assert len(drift.shifts(drift.weeks[5])) == 2 * len(VARIABLES)
    page = render(drift)
    assert "amount_base` of transactions (2026-W41)" in summary(drift)  # steady again in the newest week
    assert "New model in these weeks: starter@2 since 2026-W42." in page
    assert page.index("| amount_base ") < page.index("| out_sum_1d ")

    for week, kind in itertools.product(drift.weeks, EVENT_TYPES):
        of = [r for r in made if r.event.type == kind and week.first <= r.event.event_time < week.before]
        counts = drift.of(week, kind)
        assert counts.outcomes == Counter(r.decision.outcome for r in of)
        assert counts.alerts.total() == sum(r.decision.outcome is Outcome.REVIEW for r in of)
        assert {sum(count) for count in counts.counts.values()} == {len(of)}

    monkeypatch.setattr(drift_room, "SAMPLE_DECISIONS", 400)
    sampled = await counted(database_url)
    assert sampled == await counted(database_url)
    assert sampled.reference
    assert sampled.reference.size("transaction") == drift.reference.size("transaction") == 1_600
    assert moved(sampled) == nothing | {"2026-W41": wanted}

    inputs = {
        kind: {name: h for name, h in of.items() if name in MODEL_FEATURES}
        for kind, of in drift.reference.histograms.items()
    }
    write_baseline(tmp_path, Baseline(name="训练集", variables=inputs))
    beside = await counted(database_url, Asked(since=date(2026, 10, 5), until=date(2026, 10, 12), baseline=tmp_path))
    assert moved(beside) == {"2026-W41": wanted - {("transaction", "risk")}}
    assert "against the baseline 训练集" in summary(beside)
    assert "lacks `risk`, `typology`" in summary(beside)


async def test_a_chosen_reference_need_not_lie_among_the_weeks_shown(database_url: str) -> None:
    """Days are rounded to whole weeks; the week that moved as the reference makes every other one move."""
    await store(database_url, eight_weeks())
    asked = Asked(date(2026, 10, 1), date(2026, 10, 20), date(2026, 10, 7), date(2026, 10, 8))
    drift = await counted(database_url, asked)
    assert [week.name for week in drift.weeks] == ["2026-W40", "2026-W41", "2026-W42", "2026-W43"]
    assert drift.reference
    assert [week.name for week in drift.reference.weeks] == ["2026-W41"]
    wanted = {("transaction", name) for name in ("amount_base", "device_fraud_share_30d", "risk")}
    assert moved(drift) == dict.fromkeys(("2026-W40", "2026-W42", "2026-W43"), wanted) | {"2026-W41": set()}
    assert "in 2026-W42, against 2026-W41" in summary(drift)
    assert ", since 2026-W40. " in summary(drift)
    alone = await counted(database_url, Asked(date(2026, 10, 14), None, date(2026, 10, 7), date(2026, 10, 8)))
    assert moved(alone) == {"2026-W42": wanted, "2026-W43": wanted}
    assert alone.reference == drift.reference
    assert drift.reference.size("transaction") == 400


async def test_alerts_and_labels_are_counted_once_in_the_week_of_their_decision(
    database_url: str, parts: Parts
) -> None:
    """A case's disposition for each of its alerts; the newest label of a decision, however late or often it came."""
    pack = ready(files_of([rule("large", "amount_base > 100", "{amount_base: 101}")]))
    week = 7 * 24 * 60
    events = [payment(f"t-{n}-{k}", f"a-{k}", n * week + k, amount="500") for n in range(4) for k in range(8)]
    told = [
        label("l-1", "t-0-0", "a-0", day=3), label("l-1", "t-0-0", "a-0", day=3),  # delivered twice
        label("l-2", "t-0-0", "a-0", day=5),  # and told again by somebody else
        label("l-3", "t-0-1", "a-1", day=2), label("l-4", "t-0-1", "a-1", verdict="legitimate", day=20),  # withdrawn
        label("l-5", "t-1-2", "a-2", day=25),  # long after its week
        label("l-6", "t-9-9", "a-9", day=1),  # of an event nobody sent
        label("l-7", "t-3-0", "a-0", day=21.5),
    ]  # fmt: skip
    approved = payment("t-ok", "a-0", 60, amount="5")
    async with opened(database_url, parts, pack) as pipeline:
        made = records(await pipeline.screen(received(*events, approved)))
        for one in (*told, *told, label("l-8", "t-ok", "a-0", day=4)):
            await pipeline.screen(received(one))
    assert Counter(record.decision.outcome for record in made) == {Outcome.REVIEW: 32, Outcome.APPROVE: 1}
    async with connect(database_url) as repository:
        cases = {c.account_id: c for c in (await repository.cases.list_cases(CaseFilter())).items}
        for account, disposition in (
            ("a-0", Disposition.CONFIRMED_FRAUD), ("a-1", Disposition.FALSE_POSITIVE),
            ("a-2", Disposition.FALSE_POSITIVE), ("a-3", Disposition.SUSPICIOUS),
        ):  # fmt: skip
            case, at = cases[account], NOON + timedelta(days=30)
            await repository.cases.dispose(case.case_id, case.version, disposition, "told", "ana", at)
    drift = await counted(database_url)
    first, second, third, last = (drift.of(week, "transaction") for week in drift.weeks)
    for of in (first, second, third, last):
        assert of.alerts == {"confirmed_fraud": 1, "false_positive": 2, "suspicious": 1, None: 4}
        assert of.precision == pytest.approx(1 / 3)
    assert first.labels == {
        ("chargeback", "fraud", "review"): 1, ("chargeback", "legitimate", "review"): 1,
        ("chargeback", "fraud", "approve"): 1,
    }  # fmt: skip
    assert (first.labelled("fraud"), first.labelled("fraud", stopped=True)) == (2, 1)
    assert second.labels == {("chargeback", "fraud", "review"): 1}
    assert not third.labels
    assert last.labels == {("chargeback", "fraud", "review"): 1}
    assert [drift.labels_due(week) for week in drift.weeks] == [True, True, False, False]
    page = render(drift)
    weeks = {line.split("|")[1].split()[0]: line for line in page.splitlines() if line.startswith("| 2026-W")}
    assert [line.split("|")[-3].strip() for line in weeks.values()] == ["2", "1", "not due yet", "1 so far"]
    assert "33.3% of 3 transactions in" in page
    assert "no decision" not in page


async def test_weeks_begin_on_mondays_of_the_time_zone(database_url: str) -> None:
    """Summer time ends and begins, years of 53 weeks end: a decision lies in the week of its local day."""
    zone = ZoneInfo("Europe/Berlin")
    rng = Random(5)
    edges = [datetime(2026, 10, 25, 23, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC)]
    edges += [datetime(2027, 1, 3, 23, tzinfo=UTC), datetime(2026, 10, 25, 0, 59, tzinfo=UTC)]
    times = {edge + timedelta(microseconds=shift) for edge in edges for shift in (-1, 0)}
    times |= {datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=rng.random() * 26e6) for _ in range(150)}
    made = [
        decided(payment(f"t-{n}").model_copy(update={"event_time": at}), drawn(rng), 0.1)
        for n, at in enumerate(sorted(times))
    ]
    await store(database_url, made)
    drift = await counted(database_url, Asked(since=date(2026, 2, 25)), time_zone="Europe/Berlin")
    wanted = Counter("{}-W{:02}".format(*at.astimezone(zone).isocalendar()[:2]) for at in times)
    assert {week.name: n for week in drift.weeks if (n := drift.of(week, "transaction").total)} == wanted
    assert drift.weeks[0].first == datetime(2026, 2, 22, 23, tzinfo=UTC)
    assert [week.name for week in drift.weeks[-2:]] == ["2026-W53", "2027-W01"]
    hours = {week.name: (week.before - week.first) / timedelta(hours=1) for week in drift.weeks}
    assert {name: length for name, length in hours.items() if length != 168} == {"2026-W13": 167, "2026-W43": 169}


async def test_nothing_one_week_and_weeks_without_decisions(database_url: str) -> None:
    """An honest sentence for each, and a refusal where an option asks for what is not there."""
    empty = await counted(database_url)
    assert title(empty) == "Drift: no decision is stored"
    assert "Nothing to report" in render(empty)
    with pytest.raises(BadInput, match="cannot be read"):
        await counted(database_url, Asked(baseline=Path("a\0b")))

    rng = Random(1)
    made = [decided(payment(f"t-{n}", minute=n), drawn(rng), None if n == 3 else 0.1) for n in range(20)]
    await store(database_url, made)
    one = await counted(database_url)
    assert one.reference is None
    assert "There is one week only" in summary(one)
    assert "5.0% in 2026-W43 so far" in summary(one)
    assert "may take 7 days" in summary(one)
    assert "PSI" not in render(one).split("## How")[0]

    before = await counted(database_url, Asked(until=date(2020, 1, 1)))
    assert title(before) == "Drift: no decision lies in these weeks"
    assert "2026-10-20" in summary(before)
    assert "Nothing was decided" in summary(await counted(database_url, Asked(date(2020, 1, 1), date(2020, 2, 1))))
    own = Asked(reference_from=date(2026, 10, 19), reference_to=date(2026, 10, 26))
    assert "Every week with decisions is part of the reference" in summary(await counted(database_url, own))
    for asked, said in (
        (Asked(reference_from=date(2020, 1, 1), reference_to=date(2020, 1, 9)), "nothing was decided in the reference"),
        (Asked(since=date(2027, 1, 1)), "newest is of 2026-10-20"),
        (Asked(since=date(1990, 1, 1)), "at most 520"),
    ):
        with pytest.raises(BadInput, match=said):
            await counted(database_url, asked)


async def test_a_type_that_the_reference_lacks_is_said_not_compared(database_url: str) -> None:
    """Messages begin after it; payments are few."""
    rng = Random(2)
    made = [decided(payment(f"t-{n}", minute=n * 200), drawn(rng), 0.1) for n in range(100)]
    made += [decided(message(f"m-{n}", "hi", minute=20_160 + n), drawn(rng), 0.1) for n in range(5)]
    await store(database_url, made)
    drift = await counted(database_url)
    assert drift.current
    assert {shift.event_type for shift in drift.shifts(drift.current)} == {"transaction"}
    assert "the reference has next to no messages" in summary(drift)
    assert "Cannot tell of transactions (" in summary(drift)
    assert "windows and the counts of earlier events were still filling up" in summary(drift)


async def test_a_feature_that_appears_or_takes_new_values_is_seen(database_url: str) -> None:
    """Constant or always missing in the reference, then something else."""
    constant: dict[str, Scalar] = dict.fromkeys(MODEL_FEATURES, 0)
    made = []
    for week in range(2):
        values = constant | {"hour": None, "late": False} if week == 0 else constant | {"transfers_1h": 5, "hour": 3}
        made += [decided(payment(f"t-{week}-{n}", minute=week * 10_080 + n), values, 0.1) for n in range(200)]
    await store(database_url, made)
    drift = await counted(database_url)
    assert moved(drift)["2026-W44"] == {("transaction", "transfers_1h"), ("transaction", "hour")}
    assert "`hour` of transactions: large shift, PSI" in summary(drift)
    assert "missing: 100.0% → 0.0%" in summary(drift)


def test_a_histogram_of_a_baseline_may_name_what_no_version_knows() -> None:
    """It is left aside."""
    assert Baseline(name="x", variables={"message": {"gone": Histogram((), (1, 0))}}).variables["message"]

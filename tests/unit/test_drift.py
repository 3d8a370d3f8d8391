"""What is said of a drift count: the whole page, its bins in words, the picture, JSON and Prometheus's text; weeks."""

import json
import math
import os
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fraudguard.drift import Asked, Drift, Population, Reference
from fraudguard.drift_export import as_json, write_textfile
from fraudguard.drift_picture import can_draw, draw
from fraudguard.drift_report import bin_names, render, summary
from fraudguard.errors import BadInput
from fraudguard.features.registry import MODEL_FEATURES
from fraudguard.markdown import table
from fraudguard.stability import Histogram, bin_of, cuts_of
from fraudguard.weeks import WEEKS_MAX, weeks_of

GOLDEN = Path(__file__).parent / "golden" / "drift.md"
SHANGHAI = ZoneInfo("Asia/Shanghai")
WEEKS = weeks_of(date(2026, 9, 28), date(2026, 10, 26), SHANGHAI)
AMOUNT = (12.5, 200.0, 1_250.0)
ALONE = (math.nextafter(0.0, -1), 0.0, 3.0)
TYPOLOGY = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)


def population(size: int, amount: list[int], device: list[int], stopped: int, model: str) -> Population:
    """Payments: bins of an amount, of new devices, and always the same typologies."""
    return Population(
        outcomes=Counter(approve=size - stopped, review=stopped - 3, block=3),
        degraded=size // 100,
        alerts=Counter({None: stopped}),
        models=Counter({model: size}),
        rules=Counter({"3fa9c2|规则": size}),
        counts={
            "amount_base": amount,
            "is_new_device": device,
            "transfers_1h": [0, size * 95 // 100, size * 4 // 100, size // 100, 0],
            "risk": [size - size // 100, size // 100],
            "typology": [size // 2, 0, 0, 0, 0, size // 2, 0, 0],
        },
    )


def example() -> Drift:
    """Five weeks, the first two the reference: amounts rise in the third and fourth, devices go in the fourth."""
    usual, high = [100, 500, 300, 100, 0], [10, 300, 300, 390, 0]
    known, gone = [0, 800, 200, 0], [0, 300, 50, 650]
    rows = [
        (usual, known, 12, "starter@1"), (usual, known, 14, "starter@1"), (high, known, 60, "starter@1"),
        (high, gone, 90, "starter@2/招商"), ([5, 20, 14, 1, 0], [0, 30, 10, 0], 4, "starter@2/招商"),
    ]  # fmt: skip
    populations = {
        (week, "transaction"): population(sum(amount), amount, device, stopped, model)
        for week, (amount, device, stopped, model) in zip(WEEKS, rows, strict=True)
    }
    known_of = {"confirmed_fraud": 6, "false_positive": 4, "suspicious": 2}
    populations[WEEKS[0], "transaction"].alerts = Counter(known_of)
    populations[WEEKS[3], "transaction"].alerts = Counter({"confirmed_fraud": 5, "false_positive": 15, None: 70})
    populations[WEEKS[1], "transaction"].labels.update({
        ("chargeback", "fraud", "review"): 3, ("analyst", "fraud", "block"): 2, ("chargeback", "fraud", "approve"): 5,
        ("analyst", "legitimate", "review"): 4,
    })  # fmt: skip
    populations[WEEKS[3], "transaction"].labels.update({("analyst", "fraud", "review"): 5})
    populations[WEEKS[3], "message"] = Population(Counter(approve=30), models=Counter({"starter@2/招商": 30}))
    histograms = {
        "amount_base": Histogram(AMOUNT, (200, 1_000, 600, 200, 0)),
        "is_new_device": Histogram(ALONE[:2], (0, 1_600, 400, 0)),
        "transfers_1h": Histogram(ALONE, (0, 1_900, 80, 20, 0)),
        "typology": Histogram(TYPOLOGY, (1_000, 0, 0, 0, 0, 1_000, 0, 0)),
    }
    return Drift(
        zone="Asia/Shanghai",
        oldest=datetime(2026, 1, 5, tzinfo=UTC),
        newest=WEEKS[4].first + timedelta(hours=5),
        weeks=WEEKS,
        reference=Reference("2026-W40 to 2026-W41", WEEKS[:2], {"transaction": histograms}),
        populations=populations,
        label_delay_days=7,
    )  # type: ignore[arg-type]  # event types as literals


def test_the_page_is_the_golden_one() -> None:
    """What a risk manager reads, whole; FRAUDGUARD_RECORD=1 writes it anew, to be reviewed."""
    page = render(example(), "drift.png")
    if os.environ.get("FRAUDGUARD_RECORD"):
        GOLDEN.write_text(page, encoding="utf-8")
    assert page == GOLDEN.read_text(encoding="utf-8")


def test_what_moved_is_said_with_since_when_and_where_to() -> None:
    """The newest whole week, what moved most first; amounts had moved a week earlier."""
    text = summary(example())
    device, amount = (text.index(f"`{name}` of transactions: large shift") for name in ("is_new_device", "amount_base"))
    assert device < amount
    assert "missing: 0.0% → 65.0%" in text
    assert ", since 2026-W42. over 1,250: 10.0% → 39.0%" in text
    assert "Precision of disposed alerts: 25.0% of 20 transactions in 2026-W43 (0 suspicious, 70 not" in text


def test_a_steady_week_says_so_and_what_moved_before() -> None:
    """The same without the fourth week."""
    drift = example()
    calm = {key: value for key, value in drift.populations.items() if key[0] != WEEKS[3]}
    calm[WEEKS[3], "transaction"] = drift.of(WEEKS[1], "transaction")
    text = summary(replace(drift, populations=calm))
    assert "None of 4 inputs and scores moved in 2026-W43" in text
    assert "Moved in an earlier week and steady in 2026-W43: `amount_base` of transactions (2026-W42)." in text


def test_what_is_one_to_a_reader_is_one_line() -> None:
    """What went missing together, windows of one measure; what only grows stands apart, below."""
    drift = example()
    steady, more, gone = [500, 400, 100, 0], [100, 400, 500, 0], [250, 200, 50, 500]
    rows = {"is_new_device": gone, "device_transactions_7d": gone, "out_sum_1d": more, "out_sum_7d": more}
    rows |= {"account_events": more, "risk": steady}
    week = replace(drift.of(WEEKS[3], "transaction"), counts=rows)
    histograms = {name: Histogram((1.0, 2.0), tuple(10 * count for count in steady)) for name in rows}
    changed = replace(
        drift,
        reference=Reference("then", (), {"transaction": histograms}),
        populations={(WEEKS[3], "transaction"): week},
    )
    lines = [line.removeprefix("  - ") for line in summary(changed).splitlines() if line.startswith("  - ")]
    together = [set(line.split(" of transactions")[0].split(", ")) for line in lines[:2]]
    assert together == [{"`is_new_device`", "`device_transactions_7d`"}, {"`out_sum_1d`", "`out_sum_7d`"}]
    assert lines[2:] == ["`account_events`: these grow while accounts grow older, whatever happens."]


def test_labels_that_may_still_come_are_not_called_none() -> None:
    """A number once they are due; before, what there is so far, or that they are not due."""
    rows = [line.split("|")[-3].strip() for line in render(example()).splitlines() if line.startswith("| 2026-W")]
    assert rows[:5] == ["0", "10", "0", "5 so far", "not due yet"]
    assert "0 of 1,000 transactions fraud in 2026-W42, the newest" in summary(example())


@pytest.mark.parametrize(
    ("variable", "cuts", "names"),
    [
        ("amount_base", AMOUNT, ["to 12.5", "over 12.5 to 200", "over 200 to 1,250", "over 1,250"]),
        ("transfers_1h", ALONE, ["below 0", "0", "over 0 to 3", "over 3"]),
        ("transfers_1h", (2.0, math.nextafter(5, 0), 5.0), ["to 2", "over 2 below 5", "5", "over 5"]),
        ("transfers_1h", (), ["any value"]),
        ("amount_base", (1_250.1, 1_250.4), ["to 1,250", "over 1,250 to 1,250", "over 1,250"]),
        ("is_new_device", cuts_of([0.0] * 50), ["below 0", "no", "yes"]),
        ("is_new_device", cuts_of([0.0] * 40 + [1.0] * 10), ["below 0", "no", "over 0 below 1", "yes", "over 1"]),
        ("is_new_device", (), ["any value"]),
        (
            "typology",
            TYPOLOGY,
            ["scam", "account_takeover", "money_laundering", "cash_out", "mule", "other", "another"],
        ),
    ],
)
def test_bins_have_names(variable: str, cuts: tuple[float, ...], names: list[str]) -> None:
    """One for each, and missing at the end."""
    assert bin_names(variable, cuts) == [*names, "missing"]


@given(values=st.lists(st.sampled_from((0.0, 1.0, 2.5, 7.0, 1e6)) | st.floats(-1e3, 1e3), max_size=60))
def test_a_bin_of_any_value_has_a_name(values: list[float]) -> None:
    """As many names as places."""
    cuts = cuts_of(values)
    names = bin_names("amount_base", cuts)
    assert len(names) == len(cuts) + 2 == bin_of(cuts, None) + 1


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    """A PNG with more than one colour in it; also where nothing can be compared."""
    from matplotlib.image import imread

    for name, drift in (("moved", example()), ("alone", replace(example(), reference=None))):
        path = tmp_path / f"{name}.png"
        draw(drift, path)
        picture = imread(path)
        assert len({tuple(pixel) for pixel in picture[::3, ::3, :3].reshape(-1, 3).tolist()}) > 20


def test_without_matplotlib_there_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API image has none."""
    assert can_draw()
    for name in [module for module in sys.modules if module.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not can_draw()


def test_json_holds_every_count() -> None:
    """It can be read back, and shares in it are those of the page."""
    data = json.loads(json.dumps(as_json(example())))
    assert (data["format"], data["current_week"], data["reference"]["weeks"]) == (
        1, "2026-W43", ["2026-W40", "2026-W41"],
    )  # fmt: skip
    week = data["weeks"][3]["transaction"]
    assert (week["decisions"], week["precision"], week["alerts"]["not_yet"]) == (1_000, 0.25, 70)
    assert data["weeks"][1]["transaction"]["labels"][0] == {
        "source": "analyst", "verdict": "fraud", "outcome": "block", "decisions": 2,
    }  # fmt: skip
    device = data["variables"]["transaction"]["is_new_device"]
    assert device["shifts"]["2026-W43"]["level"] == "large shift"
    assert device["weeks"]["2026-W43"] == [0, 300, 50, 650]
    assert data["variables"]["message"] == {}


def test_the_textfile_is_what_prometheus_reads(tmp_path: Path) -> None:
    """Every gauge, of this count alone; and no fraud of weeks whose labels may still come."""
    path = tmp_path / "drift.prom"
    write_textfile(example(), path)
    write_textfile(example(), path)
    found = {
        (family.name.removeprefix("fraudguard_drift_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(path.read_text(encoding="utf-8"))
        for sample in family.samples
    }
    assert found["newest_event_seconds",] == example().newest.timestamp()  # type: ignore[union-attr]  # it has one
    assert found["psi", "transaction", "is_new_device"] > 0.25 > found["psi_usual", "transaction", "is_new_device"]
    assert found["psi", "transaction", "typology"] == 0
    assert {key[2] for key in found if key[0] == "psi"} == {"amount_base", "is_new_device", "transfers_1h", "typology"}
    rows = {
        ("decisions", "transaction", "approve", "2026-W43"): 910, ("alerts", "not_yet", "transaction", "2026-W43"): 70,
        ("precision", "transaction", "2026-W43"): 0.25, ("stopped_share", "transaction", "2026-W43"): 0.09,
        ("degraded_share", "transaction", "2026-W43"): 0.01, ("frauds", "transaction", "2026-W41"): 10,
        ("frauds_stopped", "transaction", "2026-W41"): 5,
    }  # fmt: skip
    by_name = {(key[0], frozenset(key[1:])): value for key, value in found.items()}
    assert {key: by_name[key[0], frozenset(key[1:])] for key in rows} == rows
    assert {key for key in by_name if key[0] == "frauds" and "2026-W43" in key[1]} == set()
    assert [file.name for file in tmp_path.iterdir()] == ["drift.prom"]

    write_textfile(replace(example(), newest=None, weeks=(), populations={}, reference=None), path)
    assert "2026-W43" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["drift.txt", "没有/drift.prom", "a\0.prom"])
def test_a_textfile_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    """A name the collector leaves aside, no such folder, no such name."""
    with pytest.raises(BadInput, match=r"read by the collector|cannot be written"):
        write_textfile(example(), tmp_path / name)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(reference_from=date(2026, 1, 1)), "need each other"),
        (Asked(reference_to=date(2026, 1, 1)), "need each other"),
        (Asked(None, None, date(2026, 1, 1), date(2026, 2, 1), Path("x")), "a reference already"),
        (Asked(date(2026, 1, 2), date(2026, 1, 2)), "is not before"),
        (Asked(None, None, date(2026, 1, 2), date(2026, 1, 1)), "is not before"),
        (Asked(since=date.min), "outside of the calendar"),
        (Asked(until=date.max), "outside of the calendar"),
    ],
)
def test_options_that_contradict_each_other_are_refused(asked: Asked, said: str) -> None:
    """Before anything is read."""
    with pytest.raises(BadInput, match=said):
        asked.check()


@given(first=st.dates(date(1900, 1, 1), date(9000, 1, 1)), days=st.integers(0, 7 * WEEKS_MAX - 8))
def test_weeks_follow_each_other(first: date, days: int) -> None:
    """They hold both days, begin on Mondays at midnight and leave no gap."""
    last = first + timedelta(days=days)
    weeks = weeks_of(first, last, SHANGHAI)
    assert weeks[0].monday <= first < weeks[0].monday + timedelta(days=7)
    assert weeks[-1].monday <= last < weeks[-1].monday + timedelta(days=7)
    assert all(one.before == other.first for one, other in pairwise(weeks))
    assert {week.first.astimezone(SHANGHAI).isoweekday() for week in weeks} == {1}


def test_weeks_beyond_the_calendar_are_refused() -> None:
    """And more of them than one page can hold."""
    for first, last in ((date.min, date.min), (date.max, date.max), (date(2000, 1, 1), date(2026, 1, 1))):
        with pytest.raises(BadInput, match=r"outside of the calendar|at most 520"):
            weeks_of(first, last, SHANGHAI)


def test_a_table_is_aligned_for_wide_letters_too() -> None:
    """Chinese takes two columns a letter; what would end a cell or a row is written so that it does not."""
    assert table([("a|b", "c"), ("模型", "x\ny")]).splitlines() == [
        "| a\\|b | c   |",
        "|------|-----|",
        "| 模型 | x y |",
    ]


def test_every_input_of_the_model_is_watched() -> None:
    """With the score; `--baseline` may hold the inputs alone."""
    from fraudguard.drift import VARIABLES

    assert (*MODEL_FEATURES, "risk", "typology") == VARIABLES

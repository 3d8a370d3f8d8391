"""`python -m benchmarks.rules`: live rules through durable_rules beside other engines, same events, parity in each row.

Events are the story generator's, played through the features room: real windows, profiles and conversations; the risk
is drawn (there is no model here), by whether the event is fraud. Rules are generated in the service's own language: a
mixture of velocity, profile, risk, text and feedback conditions whose limits are quantiles of the events' own values.
One that no event hits is not taken, nor one that more than one in twenty do. The set goes through the whole of
`RuleSet.from_sources`, publish gate included.

Engines read the same events turn by turn, in parts of a hundred, so that a noisy machine is noisy for all. Decisions/s
are by CPU time of all the process's threads, p50 and p99 by the clock on the wall; a ratio is the median over parts.
Parity: the hits of every event are the reference's, and a row with another answer is void. Peers need
`pip install fraudguard[peers]`; what they are given for nothing is in rule_peers.py.

`--memory`: events without end through one set, and the set loaded anew again and again; fails if the process grows.
"""

import argparse
import ctypes
import gc
import math
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import psutil
import yaml
from prometheus_client import REGISTRY

from benchmarks.rule_peers import PEERS, Judge, Slots
from finetune.data import story_lives
from finetune.passages import snapshots
from fraudguard.domain import Scalar, Score, Typology
from fraudguard.features.registry import FEATURES
from fraudguard.inputs import rule_inputs
from fraudguard.rules.expression import Node, parse
from fraudguard.rules.gate import slots_of
from fraudguard.rules.reference import holds
from fraudguard.rules.registry import RuleSet
from fraudguard.rules.values import Values, read_values

COLUMNS: Final = (
    "engine",
    "rules",
    "decisions/s of one core",
    "p50 us",
    "p99 us",
    "durable_rules is x times as fast",
    "parity",
)
PART: Final = 100  # events an engine reads before the next one's turn
HIT_SHARE_MAX: Final = 0.05
FILE_RULES: Final = 50
TOKENS_MAX: Final = 512
GROWTH_MIB_MAX: Final = (4.0, 0.5)  # of the process, of the C heap, after the first tenth

Inputs = dict[str, Scalar]

PHRASES: Final = (
    "急用钱", "借我", "转账", "汇款", "保证金", "手续费", "解冻", "验证码", "安全账户", "公安局", "涉案", "刷单",
    "返利", "佣金", "投资", "收益", "老师带单", "客服", "退款", "贷款", "额度", "征信", "注销", "屏幕共享", "远程",
    "会议软件", "中奖", "礼品卡", "点卡", "比特币", "押金", "房租", "医院", "住院", "出事", "律师", "保密",
    "不要告诉", "链接", "下载", "urgent money", "gift card", "transfer", "verification code", "safe account",
    "warrant", "police", "refund", "commission", "investment", "guaranteed", "profit", "bitcoin", "wallet", "remote",
    "anydesk", "screen", "loan", "fee", "deposit", "hospital", "accident", "lawyer", "secret", "do not tell", "link",
    "download", "bank", "account", "rent", "invoice", "love", "package", "customs",
)  # fmt: skip
PATTERNS: Final = (
    "(验证码|动态码).{0,12}(发|告诉|给)", "(转|汇|打).{0,20}(账户|账号|卡)", "(不要|别).{0,8}(告诉|说)",
    "(马上|立刻|赶紧).{0,12}(转|汇|付)", "(code|otp|pin).{0,30}(send|tell|read)",
    "(move|transfer|send).{0,40}(account|wallet)", r"\d{4,}", "(never|not|n't).{0,40}(share|tell)",
    "(先|需要).{0,10}(交|付|充)", "(click|open|tap).{0,30}(link|here)",
)  # fmt: skip


def story_inputs(count: int, seed: int) -> list[Inputs]:
    """What rules would see of `count` events, from the middle of a cast's life on, when windows are full."""
    rng = random.Random(seed)
    lives = story_lives("train", seed, accounts=max(60, count // 25), frauds=max(20, count // 100))
    told = list(snapshots(lives, _Characters(), TOKENS_MAX))
    events = []
    for _, event, snapshot in told[len(told) // 3 :][:count]:
        risk = rng.betavariate(4, 3) if event.truth == 1.0 else rng.betavariate(1, 12)
        score = Score(risk, rng.choice(tuple(Typology)), "drawn")
        events.append(rule_inputs(snapshot.features, snapshot.timeline, score))
    return events


class _Characters:
    """Counts characters, four a token."""

    id = "characters/4"

    def count(self, line: str) -> int:
        """Characters of the line over four."""
        return len(line) // 4


class _Writer:
    """Writes random conditions whose limits are quantiles of the events' own values."""

    def __init__(self, events: Sequence[Inputs], rng: random.Random) -> None:
        self._rng = rng
        self._values: dict[str, list[float]] = {}
        for feature in FEATURES:
            if feature.type == "number":
                known = [event[feature.name] for event in events if event.get(feature.name) is not None]
                self._values[feature.name] = sorted(float(value) for value in known)  # type: ignore[arg-type]  # numbers

    def condition(self) -> str:
        """One rule's `when`."""
        kinds = (self._velocity, self._profile, self._risk, self._text, self._feedback)
        return self._rng.choices(kinds, weights=(40, 20, 15, 15, 10))[0]()

    def _limit(self, name: str, low: float, high: float) -> str:
        values = self._values[name]
        at = values[min(len(values) - 1, int(self._rng.uniform(low, high) * len(values)))] if values else 1.0
        return f"{float(f'{at:.2g}'):.10g}" if at < 1e15 else "1000000"

    def _above(self, names: Sequence[str], low: float = 0.6, high: float = 0.97) -> str:
        name = self._rng.choice(names)
        return f"{name} {self._rng.choice(('>', '>='))} {self._limit(name, low, high)}"

    def _window(self, *stems: str) -> str:
        return self._above([f"{stem}_{window}" for stem in stems for window in ("1h", "1d", "7d", "30d")])

    def _context(self) -> str:
        return self._rng.choice(
            (
                'direction == "debit"', 'direction == "credit"', 'kind == "transfer"', 'channel in ["app", "web"]',
                'kind not in ["bill", "refund"]', "hour between 0 and 7", "hour not between 8 and 20", "not late",
                "country is missing", "counterparty_id is known", 'event_type == "transaction"',
            )
        )  # fmt: skip

    def _velocity(self) -> str:
        parts = [
            self._context(),
            self._window("transfers", "out_count", "in_count", "messages"),
            self._window("out_sum", "in_sum", "out_max"),
        ]
        if self._rng.random() < 0.3:
            parts.append(
                self._rng.choice(
                    ("out_sum_1d > in_sum_1d * 0.9", "out_max_7d * 2 < out_sum_7d", "amount_base >= out_sum_30d / 4")
                )
            )
        if self._rng.random() < 0.3:
            parts.append(f"({self._window('out_counterparties')} or {self._window('in_counterparties')})")
        return " and ".join(parts)

    def _profile(self) -> str:
        odd = self._rng.choice(
            (
                "is_new_counterparty",
                "is_new_device",
                "hour_share < 0.05",
                "account_age_days < 20",
                "not is_new_counterparty",
            )
        )
        amount = self._above(("amount_ratio", "amount_z", "amount_base", "hours_since_last"))
        return f"{odd} and {amount} and {self._window('out_sum', 'in_sum')}"

    def _risk(self) -> str:
        risk = (
            f"risk >= {self._rng.randint(2, 12) * 5 / 100}" if self._rng.random() < 0.7 else "risk between 0.2 and 0.6"
        )
        more = self._rng.choice(
            (self._context(), f'typology == "{self._rng.choice(tuple(Typology))}"', self._window("out_sum", "messages"))
        )
        habit = self._above(("amount_base", "messages_since_payment", "account_events"), 0.3, 0.9)
        return f"{risk} and {more} and {habit}"

    def _text(self) -> str:
        said = ", ".join(f'"{phrase}"' for phrase in self._rng.sample(PHRASES, self._rng.randint(2, 8)))
        field = self._rng.choice(("chat", "chat", "chat", "memo", "text"))
        test = (
            f"{field} mentions [{said}]"
            if self._rng.random() < 0.7
            else f'{field} matches "{self._rng.choice(PATTERNS)}"'
        )
        parts = [self._context(), self._window("transfers", "out_sum", "messages"), test]
        if self._rng.random() < 0.4:
            parts.append(f'not {field} matches "{self._rng.choice(PATTERNS)}"')
        return " and ".join(parts)

    def _feedback(self) -> str:
        kind = self._rng.choice(("counterparty", "device"))
        days = self._rng.choice((7, 30))
        share = f"{kind}_fraud_share_{days}d >= {self._rng.randint(1, 6) / 10}"
        return f"{self._context()} and {kind}_transactions_{days}d >= {self._rng.randint(1, 3)} and {share}"


def write_rules(count: int, events: Sequence[Inputs], seed: int) -> dict[str, str]:
    """Rule files with `count` live rules, each hit by some event and by few; the first is the seed's own."""
    rng = random.Random(seed)
    writer = _Writer(events, rng)
    slots = [(feature.name, feature.type) for feature in FEATURES]
    sample = [(event, read_values(slots, event)) for event in events[:: max(1, len(events) // 1_000)]]
    documents: dict[str, dict[str, Any]] = {}
    when = 'transfers_1d > 10 and chat mentions ["急用钱", "urgent money"]'
    given: list[dict[str, Scalar]] = [{"transfers_1d": 11, "chat": "急 用 钱"}, {"transfers_1d": 10, "chat": "急用钱"}]
    while len(documents) < count:
        if documents:
            when = writer.condition()
            cases = None if when in documents else _cases(parse(when), sample)
            if cases is None:
                continue
            given = cases
        documents[when] = _document(len(documents), when, given, rng)
    every = list(documents.values())
    return {
        f"rules-{start // FILE_RULES:02}.yaml": yaml.safe_dump_all(
            every[start : start + FILE_RULES], allow_unicode=True, sort_keys=False
        )
        for start in range(0, count, FILE_RULES)
    }


def _document(number: int, when: str, given: Sequence[Mapping[str, Scalar]], rng: random.Random) -> dict[str, Any]:
    return {
        "id": f"benchmark-{number}",
        "version": 1,
        "owner": "benchmarks",
        "description": "A generated rule.",
        "state": "live",
        "when": when,
        "outcome": rng.choice(("step_up", "review", "block")),
        "reason": f"BENCHMARK_{number}",
        "severity": rng.choice(("low", "medium", "high", "critical")),
        "cases": [{"given": dict(one), "expect": expect} for one, expect in zip(given, ("hit", "no_hit"), strict=True)],
    }


def _cases(condition: Node, sample: Sequence[tuple[Inputs, Values]]) -> list[dict[str, Scalar]] | None:
    """What an event that hits has of the condition's fields, and one that does not; None where too few or many hit."""
    held = [holds(condition, values) for _, values in sample]
    if not 0 < sum(held) <= HIT_SHARE_MAX * len(sample):
        return None
    names = [name for name, _ in slots_of([condition], FEATURES)]
    return [
        {name: inputs[name] for name in names} for inputs in (sample[held.index(True)][0], sample[held.index(False)][0])
    ]


class Durable:
    """`RuleSet.evaluate`, as the pipeline calls it."""

    def __init__(self, rules: RuleSet, order: Mapping[str, int]) -> None:
        """order: the number of each rule's condition, by id."""
        self._rules, self._order = rules, order

    def shape(self, inputs: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
        """As it is."""
        return inputs

    def hits(self, shaped: Mapping[str, Scalar]) -> list[int]:
        """With the hits put into the conditions' order."""
        return sorted(self._order[hit.rule] for hit in self._rules.evaluate(shaped))


@dataclass(slots=True)
class Row:
    """One engine: what its evaluations took, and whether its hits were the reference's."""

    name: str
    judge: Judge
    wall: list[int] = field(default_factory=list)  # nanoseconds, by event
    cpu: list[int] = field(default_factory=list)  # nanoseconds of all threads, by part
    wrong: int = 0

    def read(self, events: Sequence[Inputs], truth: Sequence[Sequence[int]]) -> None:
        """Evaluate a part, timed one by one; compare after."""
        shaped = [self.judge.shape(event) for event in events]
        found = []
        part_began = time.process_time_ns()
        for event in shaped:
            began = time.perf_counter_ns()
            hits = self.judge.hits(event)
            self.wall.append(time.perf_counter_ns() - began)
            found.append(hits)
        self.cpu.append(time.process_time_ns() - part_began)
        self.wrong += sum(list(hits) != list(true) for hits, true in zip(found, truth, strict=True))

    def cells(self, rules: int, first: "Row") -> tuple[object, ...]:
        """The table's line; void where an answer was wrong."""
        if self.wrong:
            return (
                self.name,
                rules,
                "void",
                "void",
                "void",
                "void",
                f"{self.wrong} of {len(self.wall)} events differ",
            )
        took, durable = np.array(self.cpu), np.array(first.cpu)
        p50, p99 = np.percentile(self.wall, (50, 99)) / 1_000
        rate = len(self.wall) / (took.sum() / 1e9)
        return (
            self.name,
            rules,
            f"{rate:,.0f}",
            f"{p50:,.0f}",
            f"{p99:,.0f}",
            f"{np.median(took / durable):.2f}",
            "equal",
        )


def prepare(count: int, events: Sequence[Inputs], seed: int) -> tuple[RuleSet, list[Node], Slots]:
    """The set, its conditions in the order of its rules, and the fields they name."""
    rules = RuleSet.from_sources(write_rules(count, events, seed), FEATURES)
    conditions = [rule.condition for rule in rules.rules]
    return rules, conditions, slots_of(conditions, FEATURES)


def compare(
    count: int, events: Sequence[Inputs], only: Sequence[str], seed: int
) -> tuple[list[tuple[object, ...]], str]:
    """Every engine on the same rules and events: the lines of the table, and a remark on the hits."""
    rules, conditions, slots = prepare(count, events, seed)
    lacking = frozenset(name for name, _ in slots if any(event.get(name) is None for event in events))
    order = {rule.id: number for number, rule in enumerate(rules.rules)}
    rows = [Row("durable_rules (RuleSet.evaluate)", Durable(rules, order))]
    rows += [Row(name, make(conditions, slots, lacking)) for name, make in PEERS.items() if not only or name in only]
    values = [read_values(slots, event) for event in events]
    truth = [[n for n, condition in enumerate(conditions) if holds(condition, value)] for value in values]
    for row in rows:  # caches fill, and the allocator; wrong answers are counted again below
        row.read(events[:PART], truth[:PART])
        row.wall, row.cpu, row.wrong = [], [], 0
    for start in range(0, len(events) - PART + 1, PART):
        part = slice(start, start + PART)
        for row in rows:
            row.read(events[part], truth[part])
    rules.close()
    if fallbacks():
        raise SystemExit(
            "the rules core faulted, and the reference answered in its place: the row is not durable_rules'"
        )
    mean, some = sum(map(len, truth)) / len(truth), sum(map(bool, truth)) / len(truth)
    return [row.cells(count, rows[0]) for row in rows], f"{count} rules: {mean:.2f} hits an event, {some:.0%} have one"


def fallbacks() -> float:
    """How often the reference evaluator has answered for durable_rules in this process."""
    return REGISTRY.get_sample_value("fraudguard_rules_fallbacks_total") or 0.0


def varied(events: Sequence[Inputs], count: int) -> Iterator[Inputs]:
    """The events over and over, each time with another amount and a further line of chat, so that none comes twice."""
    for number in range(count):
        event = events[number % len(events)]
        amount, said = event["amount_base"], event["chat"]
        yield event | {
            "amount_base": None if amount is None else float(amount) + number % 9_973 / 100,
            "chat": f"{said or ''}\n{number}",
        }


class _MallocInfo(ctypes.Structure):
    """glibc's mallinfo2, in bytes; uordblks and hblkhd together are what is in use."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def heap_mib() -> float:
    """What C code has allocated and not freed; NaN without glibc 2.33.

    A leak shows here even where memory that was free already hides it from the process's size.
    """
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return math.nan
    ask.restype = _MallocInfo
    info = ask()
    return float(info.uordblks + info.hblkhd) / 2**20


def memory(count: int, events: Sequence[Inputs], total: int, reloads: int, seed: int) -> bool:
    """Print sizes as evaluations and reloads go on; whether they stayed flat after the first step of each."""
    process = psutil.Process()

    def watch(what: str, step: Callable[[], None]) -> bool:
        sizes = []
        for number in range(1, 11):
            step()
            gc.collect()
            sizes.append((process.memory_info().rss / 2**20, heap_mib()))
            resident, heap = sizes[-1]
            print(
                f"| {what} | {number} of 10 | {resident:.1f} | {heap:.3f} | {sys.getallocatedblocks():,} |", flush=True
            )
        grown = (last - first for first, last in zip(sizes[0], sizes[-1], strict=True))
        return not any(more > most for more, most in zip(grown, GROWTH_MIB_MAX, strict=True))

    rules, _, _ = prepare(count, events, seed)
    stream = varied(events, total)

    def evaluate() -> None:
        for _ in range(total // 10):
            rules.evaluate(next(stream))

    def reload() -> None:
        for _ in range(reloads // 10):
            other = RuleSet.from_published(rules.sources, FEATURES)
            other.evaluate(events[0])
            other.close()

    print(f"| {count} rules | part | resident, MiB | C heap in use, MiB | Python blocks |\n|---|---|---|---|---|")
    flat = watch(f"{total:,} events", evaluate)
    return watch(f"{reloads} reloads", reload) and flat and not fallbacks()


def main() -> None:
    """Run, print Markdown; exit code 1 where a row is void or memory grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, nargs="*", default=[50, 200, 1_000])
    parser.add_argument("--events", type=int, help="2,000; with --memory 1,000,000")
    parser.add_argument("--only", nargs="*", default=[], choices=list(PEERS), help="these peers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--memory", action="store_true", help="resident size instead of speed, with the first of --rules"
    )
    parser.add_argument("--reloads", type=int, default=200)
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {vars(options)}\n", flush=True)
    if options.memory:
        events = story_inputs(5_000, options.seed)
        sys.exit(
            0 if memory(options.rules[0], events, options.events or 1_000_000, options.reloads, options.seed) else 1
        )
    events = story_inputs(options.events or 2_000, options.seed)
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    void, remarks = False, []
    for count in options.rules:
        lines, remark = compare(count, events, options.only, options.seed)
        remarks.append(remark)
        for cells in lines:
            void |= cells[-1] != "equal"
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print(f"\n{'; '.join(remarks)}")
    sys.exit(1 if void else 0)


if __name__ == "__main__":
    main()

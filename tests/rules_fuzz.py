"""Random rule files, valid and broken, and random events: what the rules must survive, made from a seed.

A file either loads or is refused with BadRule; the rules that loaded are then compared, many to a set, between
durable_rules and the reference evaluator.
"""

import random
from collections import Counter
from collections.abc import Callable

from fraudguard.domain import Feature, Scalar
from fraudguard.errors import BadRule
from fraudguard.rules.expression import Node
from fraudguard.rules.gate import compare, probes, slots_of
from fraudguard.rules.registry import RuleSet

FIELDS = (
    *(Feature(name, "number", "count", "1d", "", "velocity") for name in ("transfers_1d", "messages_1h")),
    *(Feature(name, "number", "CNY", "", "", "event") for name in ("amount_base", "out_sum_1d")),
    *(Feature(name, "text", "", "", "", "event") for name in ("memo", "text", "country", "currency", "account_id")),
    *(Feature(name, "text", "", "", "", "event") for name in ("kind", "event_type", "counterparty_id", "device_id")),
    *(Feature(name, "boolean", "", "", "", "profile") for name in ("is_new_device", "degraded")),
    Feature("amount", "number", "event's currency", "", "", "event"),
    Feature("local_time", "number", "hour of day", "", "", "event"),
    Feature("risk", "number", "probability", "", "", "score"),
    Feature("chat", "text", "", "1d", "", "conversation"),
)
DECLARED = (
    Feature("cards_1h", "number", "count", "1h", "", "declared"),
    Feature("counterparty_id in @mules", "boolean", "", "", "", "declared"),
)
NUMBERS = ("transfers_1d", "messages_1h", "amount_base", "out_sum_1d", "risk", "amount", "local_time", "attributes.n")
TEXTS = ("memo", "text", "chat", "country", 'attributes."退款 原因"', "counterparty_id")
FLAGS = ("is_new_device", "degraded", "not degraded")
WORDS = (
    "急用钱", "急-用 錢", "urgent money", "u-r-g-e-n-t", "urgеnt", "pin", "shopping", "é", "ß", "Ａ", "0", "İ",
    "a.b*c[", "x" * 70, "y" * 256, "安全账户", "돈", "نقد", "💰", "ﬁ", "\u200b急", "z\u0301", "'", "CN",
)  # fmt: skip
PATTERNS = (r"急.?用", r"\bpin\b", "[一-龥]{3}", "(?s)a.b", r"^\w+$", "ß", "錢|money", r"(a|b)*c", r"\p{Han}+", "[а-я]")
DIGITS = (
    "0",
    "1",
    "10",
    "0.5",
    "50_000",
    "50k",
    "5万",
    "0.30000000000000004",
    "9007199254740993",
    "1" + "0" * 30,
    ".1",
)
LISTS = "- {name: mules, kind: block, entity: counterparty, owner: me, description: passed money on}\n"
WINDOWS = """\
- name: cards_1h
  owner: cards-team
  meaning: small card payments
  entity: device
  aggregate: count
  where: kind == "card" and memo mentions ["急用钱", "pin"]
  window: 1h
"""
RULE = """\
id: r{n}
version: {version}
owner: fraud-operations
description: 一条规则 of a fuzz target.
state: {state}
{extra}when: {when}
outcome: {outcome}
reason: A_REASON
severity: {severity}
cases:
  - given: {{transfers_1d: 11, chat: "我急-用-钱"}}
    expect: hit
  - name: 没有
    given: {{transfers_1d: null, attributes.n: 3}}
    expect: no_hit
"""
NASTY = (
    "\x00", "\x07", "\x85", "\u2028", "\ufeff", "\ud800", "\U0010ffff", "\t", "\r", "\n", "\\", '"', "'", "`", "@",
    "%", "&a ", "*a", "!!int x", "!!python/object:os.system", "<<: *a", "- ", ": ", "? ", "---\n", "...\n", "{", "}",
    "[", "]", ",", "#", '"\\U00110000"', '"\\x', "|9", ">-", "0x", "1e999", ".inf", "22:30", "25:99", "@mules", "５",
    "＞", "$5", "5 USD", "null", "~", "急", "𠀀", "(" * 70, "not " * 70, "[" * 300, "- " * 300, "a" * 5_000,
)  # fmt: skip


def quoted(rng: random.Random, text: str) -> str:
    """The text as the language writes it, in either quote."""
    quote = rng.choice("\"'")
    return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote


def number(rng: random.Random, depth: int = 1) -> str:
    """A number: a field, a constant or arithmetic."""
    roll = rng.random()
    if depth and roll < 0.2:
        return f"({number(rng, depth - 1)} {rng.choice('+-*/')} {number(rng, depth - 1)})"
    if roll < 0.65:
        return rng.choice(NUMBERS)
    return rng.choice(("", "", "-")) + rng.choice(DIGITS)


def leaf(rng: random.Random, declared: bool) -> str:
    """One test; one in fifty of a kind that does not fit."""
    sign = rng.choice(("==", "!=", "<", "<=", ">", ">=", "="))
    listed = "[" + ", ".join(quoted(rng, rng.choice(WORDS)) for _ in range(rng.randint(1, 4))) + "]"
    tests: list[Callable[[], str]] = [
        lambda: f"{rng.choice(NUMBERS)} {sign} {number(rng)}",
        lambda: f"{number(rng)} {sign} {rng.choice(NUMBERS)}",
        lambda: f"{rng.choice(NUMBERS)}{rng.choice((' not', ''))} between {rng.choice(DIGITS[:3])} and 60k",
        lambda: f"local_time{rng.choice((' not', ''))} between 22:00 and {rng.choice(('06:00', '23:59'))}",
        lambda: f"amount {sign} {rng.choice(DIGITS[:6])} {rng.choice(('USD', 'CNY', 'JPY'))}",
        lambda: f"out_sum_1d {sign} {rng.choice(DIGITS[:6])} CNY",
        lambda: f"{rng.choice(TEXTS)} {rng.choice(('==', '!='))} {quoted(rng, rng.choice(WORDS))}",
        lambda: f"{rng.choice(TEXTS)} {rng.choice(('in', 'not in'))} {listed}",
        lambda: f"{rng.choice(TEXTS)} {rng.choice(('mentions', 'contains', 'starts with', 'ends with'))} {listed}",
        lambda: f"{rng.choice(TEXTS)} matches {quoted(rng, rng.choice(PATTERNS))}",
        lambda: f"{rng.choice(NUMBERS + TEXTS)} is {rng.choice(('known', 'missing', 'not missing'))}",
        lambda: rng.choice(FLAGS),
        lambda: f"{rng.choice(FLAGS[:2])} {rng.choice(('==', '!='))} {rng.choice(('true', 'false'))}",
    ]
    if declared:
        tests += [
            lambda: f"cards_1h {sign} {rng.choice(DIGITS)}",
            lambda: f"counterparty {rng.choice(('in', 'not in'))} @mules",
        ]
    if rng.random() < 0.02:
        return f"{rng.choice(TEXTS + NUMBERS + FLAGS)} {sign} {rng.choice((listed, '@mules', '22:61', '5 XXY', 'x'))}"
    return rng.choice(tests)()


def expression(rng: random.Random, declared: bool, depth: int = 3) -> str:
    """A condition as text."""
    if depth == 0 or rng.random() < 0.35:
        return leaf(rng, declared)
    parts = [expression(rng, declared, depth - 1) for _ in range(rng.choice((2, 2, 3, 6)))]
    joined = f" {rng.choice(('and', 'or', 'AND'))} ".join(parts)
    return f"{rng.choice(('', '', 'not '))}({joined})"


def rule(rng: random.Random, n: int, declared: bool) -> str:
    """One rule document."""
    when = expression(rng, declared)
    written = rng.choice((f"|\n  {when}", f">-\n  {when}", "'" + when.replace("'", "''") + "'"))
    extra = rng.choice(("", "", "event: transaction\n", "rollout: 25\ngaps: none known\n"))
    state = rng.choice(("live", "live", "shadow", "draft"))
    return RULE.format(
        n=n, when=written, extra=extra, version=rng.randint(1, 9), state=state,
        outcome=rng.choice(("approve", "step_up", "review", "block")), severity=rng.choice(("low", "critical")),
    )  # fmt: skip


def shuffled(rng: random.Random, text: str, _at: int, _length: int) -> str:
    """The lines in another order."""
    lines = text.split("\n")
    return "\n".join(rng.sample(lines, len(lines)))


ACCIDENTS: tuple[Callable[[random.Random, str, int, int], str], ...] = (
    lambda rng, text, at, length: text[:at] + text[at + length :],
    lambda rng, text, at, length: text[:at] + rng.choice(NASTY) + text[at:],
    lambda rng, text, at, length: text[:at] + rng.choice(NASTY) + text[at + length :],
    lambda rng, text, at, length: text[:at] + chr(rng.randrange(0x110000)) + text[at + 1 :],
    lambda rng, text, at, length: text[:at] + text[at : at + length] * 3 + text[at + length :],
    lambda rng, text, at, length: text[:at] + text[at:].replace("\n", "\n ", 1),
    lambda rng, text, at, length: text[:at],
    shuffled,
)
HUGE = ("x: " + "y" * 1_100_000, "[" * 20_000, "- " * 20_000, "", "\x00", "{a: " * 3_000)


def broken(rng: random.Random, text: str) -> str:
    """The text after some accidents."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        text = rng.choice(ACCIDENTS)(rng, text, rng.randrange(len(text) + 1), rng.randrange(1, 30))
    return text


def pack(rng: random.Random, n: int) -> dict[str, str]:
    """The files of a pack of one to three rules, of which most are as they should be."""
    if rng.random() < 0.0005:
        return {"a.yaml": rng.choice(HUGE)}
    declared = rng.random() < 0.2
    text = "---\n".join(rule(rng, n * 10 + i, declared) for i in range(rng.choice((1, 1, 1, 3))))
    files = {"a.yaml": text} | ({"features.yaml": WINDOWS, "lists.yaml": LISTS} if declared else {})
    if rng.random() < 0.5:
        name = rng.choice(sorted(files))
        files[name] = broken(rng, files[name])
    return files


def wild(rng: random.Random, names: list[str]) -> dict[str, Scalar]:
    """Inputs of every type for every name: not a number, endless, too large, Chinese, missing."""
    values: tuple[Callable[[], Scalar], ...] = (
        lambda: None,
        lambda: rng.choice((float("nan"), float("inf"), -float("inf"), -0.0, 5e-324, 1.7e308, 2**53 + 1, 10**400)),
        lambda: rng.choice((0.0, 1.0, 10.0, 0.5, 23.99, 50_000.0)) + rng.choice((0, 1e-9, -1)),
        lambda: rng.random() < 0.5,
        lambda: rng.choice(WORDS) + rng.choice(("", "\n", " ")) + rng.choice(WORDS),
        lambda: "".join(chr(rng.randrange(0x20, 0x3000)) for _ in range(rng.randrange(12))),
    )
    return {name: rng.choice(values)() for name in names}


def run(seed: int, files: int, events: int) -> Counter[str]:
    """Read so many packs and evaluate so many events; what was seen. Raises AssertionError at the first fault."""
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    waiting: list[Node] = []
    sets: list[list[Node]] = []
    size = 1
    for n in range(files):
        sources = pack(rng, n)
        seen["files"] += len(sources)
        try:
            rules = RuleSet.from_published(sources, FIELDS)
        except BadRule as error:
            seen["refused" if str(error) else "refused without a word"] += 1
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error} on {sources!r}") from error
        else:
            seen["loaded"] += 1
            seen["rules"] += len(rules.rules)
            waiting += [only.condition for only in rules.rules]
            rules.close()
        if len(waiting) >= size:
            sets.append(waiting)
            waiting, size = [], rng.choice((1, 8, 16, 40))
    assert sets, "nothing loaded"
    each = -(-events // len(sets))
    for conditions in sets:
        slots = slots_of(conditions, (*FIELDS, *DECLARED))
        trials = [*probes(conditions, slots, each // 2, seed=rng.randrange(2**32))]
        trials += (wild(rng, [name for name, _ in slots]) for _ in range(each - each // 2))
        fault = compare(conditions, slots, trials)
        assert not fault, (fault, conditions)
        seen["events"] += len(trials)
        seen["sets"] += 1
    assert not seen["refused without a word"]
    return seen

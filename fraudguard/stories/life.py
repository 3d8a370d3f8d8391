"""Ordinary days: an account's habits of earning, paying and chatting, from its profile.

Knows the habits in bank/profiles.yaml. Knows nothing of fraud or of hard harmless stories.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from random import Random

from fraudguard.stories import voice
from fraudguard.stories.bank import Bank, Plot
from fraudguard.stories.people import Person


@dataclass(frozen=True, slots=True)
class Habit:
    """One everyday payment. second: of the owner's day; shop: counterparty names a merchant."""

    second: float
    way: str
    kind: str
    channel: str
    amount: Decimal
    counterparty: str | None
    shop: bool
    memo: str | None


def _poisson(rng: Random, mean: float) -> int:
    """Knuth's method; the means here are small."""
    limit, count, product = math.exp(-mean), 0, rng.random()
    while product > limit:
        count, product = count + 1, product * rng.random()
    return count


def _second(rng: Random, hours: str) -> float:
    """A second of the day near one of the hours, inside it."""
    hour = float(rng.choice(hours.split()))
    return min(max(rng.gauss(hour, 1.3), 0.02), 23.95) * 3600


def payments(rng: Random, bank: Bank, person: Person, day: date) -> Iterator[Habit]:
    """The payments of one day of the owner's calendar, in no order."""
    for habit in bank.profiles[person.profile]["habits"]:
        if "on" in habit:
            due = (habit["on"] == "payday" and day.day == person.payday) or habit["on"] == str(day.day)
            count = 1 if due else 0
        else:
            weekend = float(habit.get("weekend", 1)) if day.weekday() >= 5 else 1.0
            count = _poisson(rng, float(habit["rate"]) * weekend)
        for _ in range(count):
            yield _payment(rng, bank, person, habit)


def _payment(rng: Random, bank: Bank, person: Person, habit: Mapping[str, str]) -> Habit:
    to = habit.get("to", "shop")
    value = float(habit["amount"]) * person.wealth * rng.lognormvariate(0, float(habit.get("spread", 0.5)))
    value /= voice.rate("zh", person.currency)
    # People send round sums to people; shops and companies charge cents.
    value = float(max(round(value), 1)) if to in ("payee", "one") else value
    memos = bank.slots[person.language, habit["memo"]] if "memo" in habit else ()
    return Habit(
        second=_second(rng, habit.get("hours", "9 12 15 18 20")),
        way=habit.get("way", "debit"),
        kind=habit.get("kind", "card"),
        channel=habit.get("channel", "card_present"),
        amount=person.amount(value),
        counterparty=_counterparty(rng, person, to),
        shop=to == "shop",
        memo=rng.choice(memos) if memos and rng.random() < 0.7 else None,
    )


def _counterparty(rng: Random, person: Person, to: str) -> str | None:
    match to:
        case "shop":
            return rng.choice(person.shops) if rng.random() < 0.75 else f"s-{rng.randrange(800):03d}"
        case "payee":
            return rng.choice(person.payees) if rng.random() < 0.93 else f"c-once-{rng.randrange(10**9)}"
        case "one":
            return person.payees[0]
        case "stranger":
            return f"c-once-{rng.randrange(10**9)}"
        case "none":
            return None
    return f"c-company-{to}-{person.number % 40}"


def chats(rng: Random, bank: Bank, person: Person) -> Iterator[tuple[float, Plot]]:
    """The conversations of one day: second of the day and plot."""
    plots = bank.plots["everyday", person.language]
    for _ in range(_poisson(rng, float(bank.profiles[person.profile]["chats"]))):
        yield _second(rng, "8 10 12 14 18 20 21"), rng.choice(plots)

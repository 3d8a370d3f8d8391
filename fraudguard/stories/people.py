"""The account holders: who they are, what they use and whom they know.

Knows profiles (bank/profiles.yaml) and makes one Person from a seed. Knows nothing of what happens to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from random import Random
from typing import Any

from fraudguard.stories.bank import Bank

# Blocks reserved for documentation (RFC 5737), so that no address belongs to anybody.
_HOME_NETS, _AWAY_NET = ("192.0.2", "198.51.100"), "203.0.113"


@dataclass(slots=True)
class Person:
    """One account and its owner.

    utc_offset: hours between UTC and the owner's clock. wealth: multiplier of the profile's amounts.
    device and ip change when the owner moves to a new phone.
    """

    account_id: str
    number: int
    language: str
    profile: str
    currency: str
    country: str
    utc_offset: int
    wealth: float
    sloppiness: float
    payees: tuple[str, ...]
    shops: tuple[str, ...]
    payday: int
    device: str
    ip: str

    def amount(self, value: float) -> Decimal:
        """Money of the account's currency, at least one minor unit."""
        return max(Decimal(value).quantize(Decimal("0.01"), ROUND_HALF_UP), Decimal("0.01"))


def address(rng: Random, abroad: bool = False) -> str:
    """An IP address nobody owns."""
    net = _AWAY_NET if abroad else rng.choice(_HOME_NETS)
    return f"{net}.{rng.randrange(1, 255)}"


def make_person(rng: Random, bank: Bank, prefix: str, number: int) -> Person:
    """The owner of account `number`; prefix makes ids unique to a seed and split."""
    profiles: Mapping[str, Any] = bank.profiles
    names = sorted(profiles)
    profile = rng.choices(names, [float(profiles[name]["weight"]) for name in names])[0]
    language = profiles[profile].get("lang") or rng.choices(("zh", "en"), (4, 1))[0]
    if language == "zh":
        currency, country, offset = rng.choices(("CNY", "HKD", "USD"), (94, 4, 2))[0], "CN", 8
    else:
        currency = rng.choices(("CNY", "USD", "EUR", "HKD"), (35, 40, 15, 10))[0]
        country, offset = {"CNY": ("CN", 8), "USD": ("US", -5), "EUR": ("DE", 1), "HKD": ("HK", 8)}[currency]
    return Person(
        account_id=f"a-{prefix}{number:05d}",
        number=number,
        language=language,
        profile=profile,
        currency=currency,
        country=country,
        utc_offset=offset,
        wealth=rng.lognormvariate(0, 0.45),
        sloppiness=rng.random() ** 1.5,
        payees=tuple(f"c-{prefix}{number:05d}-{i}" for i in range(int(profiles[profile]["payees"]))),
        # A shared high street: shops are visited by many accounts, a few of them often.
        shops=tuple(f"s-{int(rng.paretovariate(0.6)) % 800:03d}" for _ in range(6)),
        payday=rng.choice((1, 5, 8, 10, 10, 15, 15, 20, 25, 28)),
        device=f"d-{prefix}{number:05d}-0",
        ip=address(rng),
    )

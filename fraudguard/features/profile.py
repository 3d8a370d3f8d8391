"""What is usual for one account: amounts, hours, counterparties, devices, countries, and its recent conversation.

Knows the on-time events in the order they were taken; windows of event time are velocity.py. Everything is bounded:
known entities are a fixed number of those last seen, hours are small counters that are halved together.
"""

from math import exp, log, sqrt
from typing import Any, Final, Self, TypeVar

from fraudguard.domain import Scalar
from fraudguard.features.facts import DAY_US, HOUR_US, Facts

COUNTERPARTIES_MAX: Final = 256  # payees, and as many payers
DEVICES_MAX: Final = 32
COUNTRIES_MAX: Final = 32
HOUR_EVENTS_MAX: Final = 512  # at this total all 24 counters are halved, so old habits fade
PAYMENTS_USUAL: Final = 32  # a payment moves the usual amount by 1/32, by 1/n as long as there are fewer
PAYMENTS_FOR_Z: Final = 3  # fewer give no deviation
DEVIATION_MIN: Final = 0.25  # of the natural log: who always pays the same is not alarmed by 1 % more

_Key = TypeVar("_Key", int, str)


def _remember(known: dict[_Key, int], key: _Key, entries_max: int) -> None:
    """Count key once more and make it the last seen; the one seen longest ago leaves."""
    known[key] = known.pop(key, 0) + 1
    if len(known) > entries_max:
        del known[next(iter(known))]


def _is_new(known: dict[_Key, int], key: _Key | None) -> bool | None:
    return None if key is None or not known else key not in known


class Profile:
    """The running profile of one account. `features` reads, `update` writes; neither raises."""

    __slots__ = (
        "_counterparty_messages", "_countries", "_devices", "_events", "_first_us", "_hours", "_log_mean",
        "_log_variance", "_message_us", "_messages", "_payees", "_payers", "_payments", "latest_us",
    )  # fmt: skip

    def __init__(self) -> None:
        self.latest_us: int | None = None  # latest event time in microseconds; None before the first event
        self._first_us: int | None = None
        self._events = 0
        self._hours = [0] * 24
        self._payments = 0
        self._log_mean = self._log_variance = 0.0
        self._payees: dict[int, int] = {}
        self._payers: dict[int, int] = {}
        self._devices: dict[int, int] = {}
        self._countries: dict[str, int] = {}
        self._messages = self._counterparty_messages = 0  # since the last outgoing transaction
        self._message_us: int | None = None

    def features(self, facts: Facts) -> dict[str, Scalar]:
        """Every profile feature of an event that is not part of the profile yet."""
        hours = sum(self._hours)
        us = facts.us
        messages, written = self._messages, self._counterparty_messages
        if facts.flow == "message":
            messages, written = messages + 1, written + facts.by_counterparty
        known = self._payers if facts.flow == "in" else self._payees
        counterparty = facts.counterparty
        return {
            **self._amount_features(facts),
            "hour_share": self._hours[us % DAY_US // HOUR_US] / hours if hours else None,
            "hours_since_last": None if self.latest_us is None else max(0, us - self.latest_us) / HOUR_US,
            "account_events": self._events,
            "account_age_days": 0.0 if self._first_us is None else max(0, us - self._first_us) / DAY_US,
            "is_new_counterparty": None if counterparty is None else counterparty not in known,
            "counterparty_payments": None if counterparty is None else self._payees.get(counterparty, 0),
            "is_new_device": _is_new(self._devices, facts.device),
            "is_new_country": _is_new(self._countries, facts.country),
            "messages_since_payment": messages,
            "counterparty_message_share": written / messages if messages else None,
            "hours_since_message": None if self._message_us is None else max(0, us - self._message_us) / HOUR_US,
        }

    def _amount_features(self, facts: Facts) -> dict[str, Scalar]:
        usual = exp(self._log_mean) if self._payments else None  # in hundredths
        ratio = z = None
        if facts.flow == "out" and facts.cents is not None and usual is not None:
            ratio = facts.cents / usual
            if self._payments >= PAYMENTS_FOR_Z:
                deviation = max(sqrt(self._log_variance), DEVIATION_MIN)
                z = (log(max(facts.cents, 1)) - self._log_mean) / deviation
        return {"amount_usual": None if usual is None else usual / 100, "amount_ratio": ratio, "amount_z": z}

    def update(self, facts: Facts) -> None:
        """Enter an on-time event."""
        us = facts.us
        self.latest_us = us if self.latest_us is None else max(self.latest_us, us)
        self._first_us = us if self._first_us is None else min(self._first_us, us)
        self._events += 1
        self._hours[us % DAY_US // HOUR_US] += 1
        if sum(self._hours) >= HOUR_EVENTS_MAX:
            self._hours = [count // 2 for count in self._hours]
        if facts.flow == "message":
            self._messages += 1
            self._counterparty_messages += facts.by_counterparty
            self._message_us = us if self._message_us is None else max(self._message_us, us)
            return
        if facts.flow == "out":
            self._messages = self._counterparty_messages = 0
            if facts.cents is not None:
                self._enter_payment(log(max(facts.cents, 1)))
        if facts.counterparty is not None:
            _remember(self._payees if facts.flow == "out" else self._payers, facts.counterparty, COUNTERPARTIES_MAX)
        if facts.device is not None:
            _remember(self._devices, facts.device, DEVICES_MAX)
        if facts.country is not None:
            _remember(self._countries, facts.country, COUNTRIES_MAX)

    def _enter_payment(self, log_cents: float) -> None:
        # West's incremental mean and variance with a floor under the weight (Communications of the ACM 22(9), 1979).
        self._payments += 1
        weight = 1 / min(self._payments, PAYMENTS_USUAL)
        delta = log_cents - self._log_mean
        self._log_mean += weight * delta
        self._log_variance = (1 - weight) * (self._log_variance + weight * delta * delta)

    def dump(self) -> list[Any]:
        """Everything as plain values; known entities as pairs, the last seen last."""
        return [
            self._events, self._first_us, self.latest_us, self._hours, self._payments, self._log_mean,
            self._log_variance, list(self._payees.items()), list(self._payers.items()), list(self._devices.items()),
            list(self._countries.items()), self._messages, self._counterparty_messages, self._message_us,
        ]  # fmt: skip

    @classmethod
    def load(cls, stored: list[Any]) -> Self:
        """The inverse of `dump`; takes the lists over."""
        profile = cls()
        (
            profile._events, profile._first_us, profile.latest_us, profile._hours, profile._payments,
            profile._log_mean, profile._log_variance, payees, payers, devices,
            countries, profile._messages, profile._counterparty_messages, profile._message_us,
        ) = stored  # fmt: skip
        profile._payees, profile._payers = dict(payees), dict(payers)
        profile._devices, profile._countries = dict(devices), dict(countries)
        return profile

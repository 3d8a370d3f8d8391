"""Builders of events and states for the features' tests; session-scoped so that property tests may use them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fraudguard.domain import Message, Transaction
from fraudguard.features.money import load_rates
from fraudguard.features.state import AccountState

START = datetime(2026, 11, 21, 10, tzinfo=UTC)


class Words:
    """A token counter of words and a line end, deterministic and quick."""

    id = "words-1"

    def count(self, line: str) -> int:
        """Blank-separated words and 1."""
        return len(line.split()) + 1


@pytest.fixture(scope="session")
def payment() -> Callable[..., Transaction]:
    """payment(at seconds after START, **fields): a debit transfer of CNY 100 unless said otherwise."""

    def make(at: float = 0, **fields: Any) -> Transaction:
        values: dict[str, Any] = {
            "type": "transaction", "version": 1, "event_id": f"t-{at}", "account_id": "a-1", "direction": "debit",
            "kind": "transfer", "channel": "app", "amount": "100", "currency": "CNY",
        }  # fmt: skip
        values |= {"event_time": START + timedelta(seconds=at)} | fields
        values["amount"] = Decimal(values["amount"])
        return Transaction(**values)

    return make


@pytest.fixture(scope="session")
def message() -> Callable[..., Message]:
    """message(at seconds after START, **fields): the customer says hello in the chat unless said otherwise."""

    def make(at: float = 0, **fields: Any) -> Message:
        values: dict[str, Any] = {
            "type": "message", "version": 1, "event_id": f"m-{at}", "account_id": "a-1", "conversation_id": "k-1",
            "channel": "chat", "sender": "customer", "text": "hello",
        }  # fmt: skip
        return Message(**(values | {"event_time": START + timedelta(seconds=at)} | fields))

    return make


@pytest.fixture(scope="session")
def account() -> Callable[..., AccountState]:
    """account(**arguments): an empty state; shipped rates, 256 tokens, an hour's lateness, Shanghai, no windows."""
    usual = {
        "rates": load_rates("CNY"), "tokens_max": 256, "lateness_s": 3600, "zone": ZoneInfo("Asia/Shanghai"),
        "windows": (),
    }  # fmt: skip

    def make(**arguments: Any) -> AccountState:
        counter = arguments.pop("counter", Words())
        return AccountState("a-1", counter, **(usual | arguments))

    return make

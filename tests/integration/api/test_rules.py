"""The rules in force are those that the newest decision names."""

from api_support import Api, serving

from fraudguard.api import examples
from fraudguard.assembly import Parts
from fraudguard.config import Settings
from fraudguard.domain import Role
from fraudguard.events.topics import DECISIONS
from fraudguard.stream.agents import Outgoing, Publisher


async def test_before_the_first_decision_no_rules_are_in_force(settings: Settings) -> None:
    """404 says so, rather than an empty list that would look like no rules at all."""
    async with serving(settings) as api:
        response = await api.send(Role.RISK_MANAGER, "GET", "/v1/rules")
    assert (response.status_code, response.json()["code"]) == (404, "rules_unknown")


async def test_foreign_records_among_the_decisions_are_passed_over(api: Api, parts: Parts) -> None:
    """The listener survives what is no decision."""
    values = [b"{", b"[]", b"null", b'{"event_id": "t-1", "decided_at": 7}', b"\xff"]
    async with Publisher(api.settings) as publisher:
        await publisher.publish([Outgoing(DECISIONS, b"a-1", value) for value in values])
    # Heard in order on a-1's partition: when this is answered, the listener has passed them all.
    answer = await api.send(Role.SERVICE, "POST", "/v1/screen", json=examples.TRANSACTION | {"event_id": "t-2"})
    assert answer.status_code == 200
    assert (await api.send(Role.RISK_MANAGER, "GET", "/v1/rules")).json()["rules_version"] == parts.rules.version


async def test_the_rules_are_those_of_the_newest_decision(api: Api, parts: Parts) -> None:
    """As heard on Kafka, and as found in the store by an API that has heard nothing yet."""
    decision = (await api.send(Role.SERVICE, "POST", "/v1/screen", json=examples.TRANSACTION)).json()
    heard = (await api.send(Role.RISK_MANAGER, "GET", "/v1/rules")).json()
    async with serving(api.settings) as other:
        stored = (await other.send(Role.SERVICE, "GET", "/v1/rules")).json()
    assert heard == stored
    assert heard["rules_version"] == decision["rules_version"] == parts.rules.version
    assert heard["seen_at"] == decision["decided_at"]
    expected = {rule.id: rule for rule in parts.rules.rules if rule.state in ("live", "shadow")}
    assert {rule["id"] for rule in heard["rules"]} == set(expected)
    urgent = next(rule for rule in heard["rules"] if rule["id"] == "urgent-money-burst")
    for field in ("version", "state", "outcome", "reason", "owner", "description", "when"):
        assert urgent[field] == getattr(expected["urgent-money-burst"], field)

"""The rules in force, as the workers say: a decision names its rule set, and the store keeps every set's source.

The API's own rules directory plays no part: it may be older or newer than what the workers run.
"""

import asyncio
import json
from functools import lru_cache

from fastapi import APIRouter, Depends

from fraudguard.api import examples
from fraudguard.api.auth import Serves
from fraudguard.api.kafka import RulesSeen
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.problems import ProblemError, unavailable
from fraudguard.api.schemas import RuleBrief, RulesInForce
from fraudguard.api.services import Use
from fraudguard.decisions.listing import DecisionFilter
from fraudguard.domain import Role
from fraudguard.features.registry import FEATURES
from fraudguard.rules.schema import read_rules

router = APIRouter(tags=["rules"])


@router.get(
    "/v1/rules",
    summary="The rules in force",
    responses=shown(examples.RULES) | refusals(401, 403, 404, 503),
    dependencies=[Depends(Serves(Role.SERVICE, Role.ANALYST, Role.RISK_MANAGER))],
)
async def rules_in_force(services: Use) -> RulesInForce:
    """The live and shadow rules of the set that the newest decision was made with; 404 before the first decision.

    Newest heard on Kafka by this process; until it has heard one, newest by event time in the store.
    """
    seen = services.listener.rules_seen
    if seen is None:
        page = await services.repository.list_decisions(DecisionFilter(), 1)
        if not page.items:
            hint = "start a worker and screen one event"
            raise ProblemError(404, "rules_unknown", "no decision was made yet, so no rule set is in force", hint=hint)
        newest = page.items[0].decision
        seen = RulesSeen(newest.rules_version, newest.decided_at)
    source = await services.repository.document("rules", seen.version)
    rules = await asyncio.to_thread(_read, source)
    return RulesInForce(rules_version=seen.version, seen_at=seen.at, rules=rules)


@lru_cache(maxsize=4)  # a set of rules takes half a second to read, and is asked for again and again
def _read(source: str) -> tuple[RuleBrief, ...]:
    rules, problems = read_rules(json.loads(source), FEATURES)
    if problems:  # the workers' build accepted what this one cannot read
        raise unavailable("rules_unreadable", "the rules in force need another version of this API", "upgrade the API")
    in_force = [rule for rule in rules if rule.state in {"live", "shadow"}]
    return tuple(map(RuleBrief.model_validate, in_force))

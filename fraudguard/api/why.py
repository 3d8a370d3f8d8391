"""Why a decision came out as it did, explained from its stored rules and policy, off the event loop."""

import asyncio
import logging

from fraudguard.api.services import Services
from fraudguard.decisions.connection import on_behalf_of
from fraudguard.domain import DecisionRecord
from fraudguard.errors import BadSettings, NotFound
from fraudguard.explain import Explainer, Explanation
from fraudguard.features.registry import features_in
from fraudguard.tenants import HOUSE

log = logging.getLogger(__name__)


async def explanation(services: Services, record: DecisionRecord) -> Explanation | None:
    """The explanation; None where the rules that decided are no longer stored, or are a newer build's."""
    timeline = await services.repository.timeline(record)
    try:
        with on_behalf_of(HOUSE):  # rules are the house's: what a decision rests on is told, not shown
            pack = await services.publishing.pack_of(record.decision.rules_version, record.policy_version)
    except (NotFound, BadSettings) as error:
        log.warning("decision %s cannot be explained: %s", record.decision.decision_id, error)
        return None
    fields = features_in(services.settings.base_currency)
    return await asyncio.to_thread(Explainer(record, timeline, pack.rules, pack.policy, fields).explain)

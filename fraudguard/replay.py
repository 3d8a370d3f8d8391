"""Proves a stored decision: the same inputs, rules and policy give the same hits, outcome and reasons, bit for bit.

Reads what the decision's row holds and the documents it names; the live rule set and policy play no part.
`rescore` asks the model of the decision for the score again, which must agree within a tolerance.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fraudguard.assembly import open_scorer_of
from fraudguard.config import Settings
from fraudguard.decisions.policy import Policy
from fraudguard.decisions.repository import Repository, connect
from fraudguard.domain import DecisionRecord, Feature, Score, ScoreRequest, Timeline
from fraudguard.features.registry import features_in
from fraudguard.inputs import rule_inputs, score_request
from fraudguard.pipeline import wire_hits
from fraudguard.rules.registry import RuleSet

# int8 kernels differ between processors; see docs/model-card.md for the measured drift.
RISK_TOLERANCE = 0.02


class Scorer(Protocol):
    """What is asked to score again (see engine/guard.py)."""

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score | None]:
        """One score a request, in order. Raises EngineUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Replay:
    """differences: what came out otherwise; empty when proven.

    rescored: the risk that its model gives today, if asked and not degraded.
    """

    record: DecisionRecord
    timeline: Timeline
    differences: tuple[str, ...]
    rescored: float | None


class Replayer:
    """Replays decisions; compiles each rule set and policy once."""

    def __init__(self, repository: Repository, fields: Sequence[Feature], scorer: Scorer | None = None) -> None:
        self._repository, self._fields, self._scorer = repository, fields, scorer
        self._rules: dict[str, RuleSet] = {}
        self._policies: dict[str, Policy] = {}

    async def replay(self, decision_id: str) -> Replay:
        """Raises NotFound for an unknown id or a document that is no longer stored."""
        record = await self._repository.record(decision_id)
        decision = record.decision
        timeline = await self._repository.timeline(record)
        rules = await self._rules_of(decision.rules_version)
        policy = await self._policy_of(record.policy_version)
        hits = tuple(rules.evaluate(rule_inputs(record.features, timeline, record.score)))
        reason = (
            next((r for r in decision.reasons if r in policy.degraded_reasons), None) if decision.degraded else None
        )
        verdict = policy.decide(decision.event_type, record.score, hits, reason, record.late)
        rescored = None
        if self._scorer and record.score:
            (score,) = await self._scorer.score([score_request(record.event, timeline, record.features)])
            rescored = score.risk if score else None
        compared = {
            "timeline": (record.timeline_hash, timeline.hash),
            "line": (record.line, timeline.lines[-1].text if timeline.lines else None),
            "hits": (record.hits, hits),
            "wire hits": (decision.hits, wire_hits(hits)),
            "outcome": (decision.outcome, verdict.outcome),
            "reasons": (decision.reasons, verdict.reasons),
            # Decisions from before there was one have none.
            "severity": (decision.severity, verdict.severity if decision.severity else None),
        }
        differences = [f"{name}: stored {a!r}, replayed {b!r}" for name, (a, b) in compared.items() if a != b]
        if rescored is not None and record.score and abs(rescored - record.score.risk) > RISK_TOLERANCE:
            differences.append(f"risk: stored {record.score.risk}, rescored {rescored}, tolerance {RISK_TOLERANCE}")
        return Replay(record, timeline, tuple(differences), rescored)

    async def _rules_of(self, version: str) -> RuleSet:
        if version not in self._rules:
            body = await self._repository.document("rules", version)
            self._rules[version] = RuleSet.from_published(json.loads(body), self._fields)
        return self._rules[version]

    async def _policy_of(self, version: str) -> Policy:
        if version not in self._policies:
            self._policies[version] = Policy.from_source(await self._repository.document("policy", version))
        return self._policies[version]

    def close(self) -> None:
        """Free the compiled rule sets."""
        for rules in self._rules.values():
            rules.close()


async def replay_one(settings: Settings, decision_id: str, *, rescore: bool) -> Replay:
    """Replay one decision of the configured database; `rescore` loads the model that scored it.

    Raises NotFound, and BadModel where that model is not to be had.
    """
    async with connect(settings.database_url.get_secret_value()) as repository:
        scorer = None
        if rescore and (score := (await repository.record(decision_id)).score):
            scorer = await open_scorer_of(settings, repository, score.model)
        replayer = Replayer(repository, features_in(settings.base_currency), scorer)
        try:
            return await replayer.replay(decision_id)
        finally:
            replayer.close()
            if scorer:
                scorer.close()

"""New alerts as a worker writes them: batches through the repository, a case opened or joined by each account's.

Remembers which batch wrote which alert: a case's version is one for each batch that touched it, and one for each deed.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

from fraudguard.decisions.repository import Changes, Repository
from fraudguard.domain import Decision, DecisionRecord, Outcome, Transaction, Typology


class Alarm:
    """Writes batches of alerts, of new accounts and of known ones."""

    def __init__(self, repository: Repository, chance: random.Random) -> None:
        self._repository, self._chance = repository, chance
        self._sequences: list[int] = []
        self.batch_of: dict[str, int] = {}
        self.batches = 0

    async def ring(self, new: int, known: int) -> None:
        """One batch: a first alert for `new` accounts, another one for `known` that have some."""
        accounts = list(range(len(self._sequences), len(self._sequences) + new))
        accounts += self._chance.sample(range(len(self._sequences)), min(known, len(self._sequences)))
        self._sequences += [0] * new
        records = [self._alert(number) for number in accounts]
        self.batches += 1
        self.batch_of |= {record.decision.decision_id: self.batches for record in records}
        await self._repository.commit(Changes(records=records, alerts=records))

    def versions(self, decisions_of: dict[str, Sequence[str]]) -> dict[str, int]:
        """By case, the version that its alerts alone gave it. decisions_of: the alerts of each case."""
        return {case: len({self.batch_of[one] for one in own}) for case, own in decisions_of.items()}

    def _alert(self, account: int) -> DecisionRecord:
        self._sequences[account] += 1
        sequence, chance, now = self._sequences[account], self._chance, datetime.now(UTC)
        amount, risk = Decimal(chance.randint(100, 90_000)), round(chance.uniform(0.5, 0.99), 4)
        outcome = Outcome.BLOCK if risk > 0.8 else Outcome.REVIEW
        event = Transaction(
            type="transaction", version=1, event_id=f"t-{account}-{sequence}", account_id=f"a-{account:06}",
            event_time=now, direction="debit", kind="transfer", channel="app", amount=amount, currency="CNY",
            counterparty_id=f"c-{account % 50}", device_id=f"d-{account}",
        )  # fmt: skip
        decision = Decision(
            decision_id=str(uuid4()), event_id=event.event_id, event_type="transaction", account_id=event.account_id,
            sequence=sequence, outcome=outcome, risk=risk, typology=chance.choice(list(Typology)),
            reasons=("MODEL_RISK",), hits=(), degraded=False, model="none", rules_version="none", decided_at=now,
            latency_ms=1.0, severity="high",
        )  # fmt: skip
        return DecisionRecord(
            decision=decision, event=event, received_at=now, late=False, line=f"[pay out CNY {amount}]",
            timeline_start=sequence, timeline_hash="", features={"amount_base": float(amount)}, score=None, hits=(),
            policy_version="none",
        )  # fmt: skip

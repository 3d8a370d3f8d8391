"""What people did with dead letters, in the audit trail: letters are in Kafka, what became of a replay is not.

Knows the trail alone. A replay writes two rows: before the first letter is sent, and when it has ended.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select

from fraudguard.decisions import audit
from fraudguard.decisions.connection import Open
from fraudguard.decisions.tables import AUDIT

SUBJECT: Final = "dead_letters"
BEGUN, ENDED = "dead_letters.replay", "dead_letters.replayed"


@dataclass(frozen=True, slots=True)
class ReplayNote:
    """The newest thing known of a replay. sent, before, refused: None while it runs, and where it failed.

    problem: what ended it. which: PARTITION/OFFSET, a reason code, or `all`.
    """

    actor: str
    at: datetime
    which: str
    sent: int | None = None
    before: int | None = None
    refused: int | None = None
    problem: str | None = None

    @property
    def runs(self) -> bool:
        """Whether it has not ended, as far as is written down."""
        return self.sent is None and self.problem is None


class LetterTrail:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, open_: Open) -> None:
        """open_: gives the transaction to work in."""
        self._open = open_

    async def note(self, note: ReplayNote) -> None:
        """Write down that a replay begins, or how it ended."""
        detail = {
            "which": note.which,
            "sent": note.sent,
            "before": note.before,
            "refused": note.refused,
            "problem": note.problem,
        }
        async with self._open() as connection:
            action = BEGUN if note.runs else ENDED
            await audit.append(connection, note.at, note.actor, action, SUBJECT, detail)

    async def last(self) -> ReplayNote | None:
        """What was written last; None before the first replay."""
        c = AUDIT.c
        newest = select(c.at, c.actor, c.detail).where(c.subject == SUBJECT).order_by(c.id.desc()).limit(1)
        async with self._open() as connection:
            row = (await connection.execute(newest)).one_or_none()
        return ReplayNote(row.actor, row.at, **row.detail) if row else None

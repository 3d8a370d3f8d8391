"""How people hand cases around: claim, release, assign, escalate, snooze. Each is one transaction with its audit row.

Every deed names the version of the case that its actor saw: of two people at once one wins, and the other is told who
it was. What a case is found to be is in verdicts.py.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fraudguard.decisions import audit
from fraudguard.decisions.case_types import Case, case_of, checked
from fraudguard.decisions.cases import CHANNEL
from fraudguard.decisions.connection import any_of, transaction
from fraudguard.decisions.tables import CASES
from fraudguard.errors import BadInput, Conflict, NotFound, Overtaken

CLAIM: Final = timedelta(minutes=15)  # how long a claim holds unless it is renewed
SNOOZE_MAX: Final = timedelta(days=30)
NAME_CHARACTERS_MAX = 128


@dataclass(frozen=True, slots=True)
class Change:
    """A transaction that holds cases locked, as the actor saw the first of them. others: by id."""

    connection: AsyncConnection
    case: Case
    others: dict[str, Case]
    actor: str
    at: datetime

    def merged_into(self, case_id: str) -> list[Case]:
        """The cases that are judged with this one; whoever changes that holds this one locked."""
        return [case for case in self.others.values() if case.merged_into == case_id]

    def must_be_unclosed(self) -> None:
        """Raises Conflict."""
        refuse_closed(self.case)

    def must_be_free(self, other: str | None = None) -> None:
        """Raises Conflict where it, or another one of the locked cases, is closed, or another person's just now."""
        case = self.case if other is None else self.others[other]
        refuse_closed(case)
        holder = case.holder(self.at)
        if holder not in (None, self.actor):
            raise Conflict(
                f"case {case.case_id} is claimed by {holder} until {case.claimed_until:%H:%M:%S} UTC",
                path="case_id",
                hint="wait, or ask a lead to release it",
            )

    def must_be_of_one_tenant(self, other: str) -> None:
        """Raises BadInput: what one tenant's case holds, another one's people must not see."""
        if self.others[other].tenant != self.case.tenant:
            raise BadInput("is another tenant's case", path="case_id", hint="name one of the same tenant")

    async def save(self, action: str, detail: audit.Detail, **values: Any) -> Case:
        """Write the case with its next version, tell whoever listens, and audit the deed: the last thing to do."""
        case = await self.write(self.case.case_id, **values)
        about = {"version": case.version, **detail}
        await audit.append(self.connection, self.at, self.actor, action, case.case_id, about, case.tenant)
        return case

    async def write(self, case_id: str, **values: Any) -> Case:
        """Write one of the locked cases with its next version and tell whoever listens."""
        values |= {"version": CASES.c.version + 1, "changed_by": self.actor, "updated_at": self.at}
        notified = func.pg_notify(CHANNEL, CASES.c.case_id).label("notified")
        changed = update(CASES).where(CASES.c.case_id == case_id).values(values).returning(CASES, notified)
        return case_of((await self.connection.execute(changed)).one())


def _refuse_overtaken(case: Case, seen: int) -> None:
    if case.version != seen:
        by = f"{case.changed_by} changed it" if case.changed_by else "a new alert joined it"
        raise Overtaken(
            f"case {case.case_id} is version {case.version}, not {seen}: {by} at {case.updated_at:%H:%M:%S} UTC",
            path="If-Match",
            hint="read it again, then decide whether to repeat the request",
        )


def refuse_closed(case: Case) -> None:
    """Raises Conflict."""
    if case.state != "closed":
        return
    if case.merged_into is not None:
        raise Conflict(f"case {case.case_id} was merged into {case.merged_into}", path="case_id", hint="work that one")
    found = f"closed as {case.disposition} by {case.closed_by}"
    raise Conflict(f"case {case.case_id} was {found}", path="case_id")


class Casework:
    """Every method raises NotFound, Overtaken, Conflict, BadInput or StoreUnavailable, and then has changed nothing.

    seen: the version that the actor saw. at: when it is done.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """engine: see connection.open_engine."""
        self._engine = engine

    @asynccontextmanager
    async def changing(
        self,
        case_id: str,
        seen: int,
        actor: str,
        at: datetime,
        *others: str,
        others_seen: Mapping[str, int] | None = None,
    ) -> AsyncIterator[Change]:
        """One transaction with the case locked as it was seen, other cases, and those merged into any of them."""
        async with transaction(self._engine) as connection:
            # In the order in which a batch of alerts locks them, so that neither waits for the other for good.
            named = any_of({case_id, *others})
            locked = select(CASES).where(or_(CASES.c.case_id == named, CASES.c.merged_into == named))
            locked = locked.order_by(CASES.c.account_id, CASES.c.case_id).with_for_update()
            found = {row.case_id: case_of(row) for row in await connection.execute(locked)}
            for wanted in (case_id, *others):
                if wanted not in found:
                    raise NotFound(f"no case {wanted!r}")
            for one, version in {**(others_seen or {}), case_id: seen}.items():
                _refuse_overtaken(found[one], version)
            yield Change(connection, found.pop(case_id), found, actor, at)

    async def claim(self, case_id: str, seen: int, actor: str, at: datetime) -> Case:
        """Take a case, or keep it longer, for CLAIM; it wakes if it was snoozed. Not one assigned to somebody else."""
        async with self.changing(case_id, seen, actor, at) as change:
            change.must_be_free()
            assigned = change.case.assigned_to
            if assigned not in (None, actor):
                raise Conflict(f"case {case_id} is assigned to {assigned}", path="case_id", hint="ask a lead")
            return await change.save(
                "case.claim",
                {},
                state="investigating",
                claimed_by=actor,
                claimed_until=at + CLAIM,
                snoozed_until=None,
            )

    async def release(self, case_id: str, seen: int, actor: str, at: datetime, *, anyones: bool = False) -> Case:
        """Give a claimed case back. anyones: another person's too."""
        async with self.changing(case_id, seen, actor, at) as change:
            change.must_be_unclosed()
            if change.case.claimed_by is None:
                raise Conflict(f"case {case_id} is not claimed", path="case_id")
            if not anyones:
                change.must_be_free()
            return await change.save("case.release", {"held_by": change.case.claimed_by}, **UNCLAIMED)

    async def assign(
        self, case_id: str, seen: int, assignee: str | None, team: str | None, actor: str, at: datetime
    ) -> Case:
        """Say whose work it is and in which inbox it lies; None: anybody's, the inbox of its typology.

        A claim of another person than the assignee ends.
        """
        for path, name in (("assignee", assignee), ("team", team)):
            if name is not None:
                check_name(name, path)
        async with self.changing(case_id, seen, actor, at) as change:
            change.must_be_unclosed()
            keeps = assignee is None or change.case.claimed_by in (None, assignee)
            detail = {"assignee": assignee, "team": team}
            return await change.save(
                "case.assign", detail, assigned_to=assignee, team=team, **({} if keeps else UNCLAIMED)
            )

    async def escalate(self, case_id: str, seen: int, reason: str, actor: str, at: datetime) -> Case:
        """Ask the leads to look: it is marked, and nobody's until one takes it."""
        reason = checked(reason)
        async with self.changing(case_id, seen, actor, at) as change:
            change.must_be_free()
            values = {"escalated_at": at, "assigned_to": None, "snoozed_until": None}
            return await change.save("case.escalate", {"reason": reason}, **values, **UNCLAIMED)

    async def snooze(self, case_id: str, seen: int, until: datetime | None, actor: str, at: datetime) -> Case:
        """Let it sleep until then, SNOOZE_MAX at most, or until a new alert; None wakes it. Its due time stays."""
        if until is not None and not at < until <= at + SNOOZE_MAX:
            raise BadInput(f"must lie ahead, within {SNOOZE_MAX.days} days", path="until")
        async with self.changing(case_id, seen, actor, at) as change:
            change.must_be_free()
            detail = {"until": until.isoformat() if until else None}
            return await change.save("case.snooze", detail, snoozed_until=until, **({} if until is None else UNCLAIMED))


UNCLAIMED: Final = {"state": "open", "claimed_by": None, "claimed_until": None}


def check_name(name: str, path: str) -> None:
    """Raises BadInput unless it is printable and bounded."""
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or not name.isprintable() or name != name.strip():
        raise BadInput(f"must be 1 to {NAME_CHARACTERS_MAX} printable characters", path=path)

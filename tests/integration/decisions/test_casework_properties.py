"""Whatever two people do to cases, in any order and at once, while alerts come in: what must hold, holds."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import audit
from fraudguard.decisions.case_types import case_of
from fraudguard.decisions.casebook import Case, CaseBook, Disposition
from fraudguard.decisions.connection import any_of, open_engine, transaction
from fraudguard.decisions.repository import Changes, Repository
from fraudguard.decisions.tables import CASES
from fraudguard.domain import DecisionRecord
from fraudguard.errors import BadInput, NotFound

Make = Callable[..., DecisionRecord]
Deed = tuple[
    int, int, int, int
]  # place of its verb among those likely, place of its case, of another case or a disposition, how many versions behind
START = datetime(2026, 11, 22, 9, tzinfo=UTC)
VERBS = (
    "claim",
    "release",
    "assign",
    "escalate",
    "snooze",
    "note",
    "attach",
    "link",
    "merge",
    "unmerge",
    "dispose",
    "dispose_alerts",
    "reopen",
    "review",
)
ACTORS = ("ana", "bo")
_rounds = itertools.count(1)

deeds = st.tuples(st.integers(0, 16), st.sampled_from((0, 0, 1, 2)), st.integers(0, 3), st.sampled_from((0, 0, 0, 1)))
pairs = st.tuples(deeds, deeds)
# An alert for one of the accounts, or what each of the two does at the same time; and how much time passes first.
steps = st.lists(
    st.tuples(st.sampled_from((0, 1, 5, 12)), st.one_of(pairs, pairs, pairs, st.integers(0, 2))),
    min_size=4,
    max_size=16,
)


def likely(case: Case) -> tuple[str, ...]:
    """Every verb, those that are apt to be done to such a case more than once."""
    if case.state == "closed":
        return ("reopen", "reopen", "review", *VERBS)
    return ("dispose", "release" if case.claimed_by else "claim", *VERBS)


@dataclass
class World:
    """Three accounts of this round, and what is known of their cases."""

    engine: AsyncEngine
    make: Make
    accounts: list[str]
    now: datetime = START
    alerts: int = 0
    known: dict[str, Case] = field(default_factory=dict)

    async def alert(self, place: int) -> None:
        """One more alert."""
        record = self.make(self.accounts[place])
        await Repository(self.engine).commit(Changes(records=[record], alerts=[record]))
        self.alerts += 1

    async def both(self, pair: tuple[Deed, Deed]) -> None:
        """Both at once: of two deeds on the same version of a case at most one is done, as its next version."""
        wanted = list(self.known.values())
        if not wanted:
            return
        made = []
        for actor, (choice, place, more, behind) in zip(ACTORS, pair, strict=True):
            case = wanted[place % len(wanted)]
            verb = likely(case)[choice % len(likely(case))]
            made.append((case, case.version - behind, self.deed(verb, actor, case, wanted[more % len(wanted)], behind)))
        done = await asyncio.gather(*(deed for _, _, deed in made), return_exceptions=True)
        won: dict[tuple[str, int], int] = {}
        for (case, seen, _), what in zip(made, done, strict=True):
            assert isinstance(what, Case | BadInput | NotFound), what
            if isinstance(what, Case):
                assert (what.case_id, what.version) == (case.case_id, seen + 1)
                won[case.case_id, seen] = won.get((case.case_id, seen), 0) + 1
            if seen < case.version:
                assert not isinstance(what, Case)
        assert all(count == 1 for count in won.values())

    async def deed(self, verb: str, actor: str, case: Case, other: Case, behind: int) -> Case:
        """Do it."""
        book = CaseBook(self.engine, review_percent=50)
        disposition = list(Disposition)[other.version % 3]
        words: dict[str, tuple[Any, ...]] = {
            "assign": (actor, "payments"),
            "escalate": ("look",),
            "snooze": (self.now + timedelta(hours=1),),
            "note": ("called",),
            "attach": ("a.txt", "text/plain", f"{case.version}".encode()),
            "link": (other.case_id, "the same payee"),
            "merge": (other.case_id, other.version, "one ring"),
            "unmerge": (other.case_id, "not of that ring"),
            "dispose": (disposition, "told"),
            "review": (disposition, "heard the call"),
        }
        if verb == "dispose_alerts":
            _, alerts = await book.get_case(case.case_id)
            words[verb] = ([alerts[0].decision_id], disposition, "seen")
        method: Callable[..., Awaitable[Any]] = getattr(book, verb)
        done = await method(case.case_id, case.version - behind, *words.get(verb, ()), actor=actor, at=self.now)
        return done[0] if isinstance(done, tuple) else done  # type: ignore[no-any-return]  # attach gives a file too

    async def look(self) -> None:
        """Read all cases: what must hold, holds."""
        async with transaction(self.engine) as connection:
            rows = await connection.execute(
                select(CASES).where(CASES.c.account_id == any_of(self.accounts)).order_by(CASES.c.case_id)
            )
            found = {row.case_id: case_of(row) for row in rows}
        unclosed = [case.account_id for case in found.values() if case.state != "closed"]
        assert len(unclosed) == len(set(unclosed))
        for case_id, before in self.known.items():
            assert found[case_id].version > before.version or found[case_id] == before
        for case in found.values():
            assert (case.state == "investigating") == (case.claimed_by is not None) or case.state == "closed"
            if case.merged_into is not None:
                root = found[case.merged_into]
                assert root.merged_into is None
                assert case.disposition is root.disposition
        for case_id, (alerts, loss, risk) in (await self.sums()).items():
            root = found[case_id]
            assert (root.alerts, root.expected_loss, root.top_risk) == (alerts, pytest.approx(loss), risk)
        assert sum(case.alerts for case in found.values() if case.merged_into is None) == self.alerts
        self.known = found

    async def sums(self) -> dict[str, tuple[int, float, float]]:
        """What the alerts of each case that was not merged, and of those merged into it, add up to."""
        adding = """
            SELECT coalesce(c.merged_into, c.case_id) AS root, count(*) AS alerts, max(a.risk) AS risk,
                   sum(coalesce(a.risk, 1) * coalesce(a.amount_base, 0)) AS loss
            FROM cases c JOIN alerts a USING (case_id) WHERE c.account_id = ANY (:accounts) GROUP BY 1
        """
        async with transaction(self.engine) as connection:
            rows = await connection.execute(text(adding), {"accounts": self.accounts})
            return {row.root: (row.alerts, row.loss, row.risk) for row in rows}

    async def labels(self) -> None:
        """Once their time has come: one an alert at most, of cases that are closed with a certain verdict."""
        roots = [case for case in self.known.values() if case.merged_into is None]
        async with transaction(self.engine) as connection:
            query = text("SELECT case_id, count(*) FROM outbox WHERE case_id = ANY (:cases) GROUP BY case_id")
            rows = await connection.execute(query, {"cases": list(self.known)})
            waiting = {row.case_id: row.count for row in rows}
        for case in roots:
            first_and_second = 2 if case.review == "disagreed" else 1
            assert waiting.pop(case.case_id, 0) <= case.alerts * first_and_second * (case.state == "closed")
        assert waiting == {}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=steps)
def test_whatever_two_people_do(database_url: str, make: Make, plan: list[tuple[int, Any]]) -> None:
    """Versions rise with every change, an account has one open case, one of two wins, money and labels stay right."""

    async def play() -> None:
        engine = open_engine(database_url)
        number = next(_rounds)
        world = World(engine, make, [f"{number}-{n}" for n in range(3)])
        try:
            for place in (0, 1, 2):
                await world.alert(place)
            await world.look()
            for seconds, step in plan:
                world.now += timedelta(seconds=seconds)
                await (world.alert(step) if isinstance(step, int) else world.both(step))
                await world.look()
            await world.labels()
            assert (await audit.verify(engine)).broken is None
        finally:
            await engine.dispose()

    asyncio.run(play())


@pytest.mark.parametrize("rounds", [30])
async def test_merging_crosswise_never_deadlocks_with_alerts(
    repository: Repository, other: Repository, make: Make, rounds: int
) -> None:
    """Cases are locked in the order in which a batch of alerts locks them, whoever merges which into which."""
    for n in range(rounds):
        first = [make(f"{n}-{place}") for place in range(3)]
        await repository.commit(Changes(records=first, alerts=first))
        async with transaction(repository.cases._engine) as connection:
            rows = await connection.execute(select(CASES).where(CASES.c.account_id.like(f"{n}-%")))
            a, b, c = (case_of(row) for row in rows)
        batch = [make(case.account_id) for case in (c, b, a)]
        done = await asyncio.gather(
            repository.cases.link(a.case_id, 1, b.case_id, "ring", "ana", START),
            other.cases.link(b.case_id, 1, a.case_id, "ring", "bo", START),
            other.cases.merge(c.case_id, 1, a.case_id, 1, "ring", "bo", START),
            repository.commit(Changes(records=batch, alerts=batch)),
            return_exceptions=True,
        )
        assert done[3] is None
        assert all(isinstance(what, Case | BadInput) for what in done[:3])

"""What people do with cases: who has one, what is in it, who came first. Dispositions are in test_verdicts.py."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import case_files
from fraudguard.decisions.case_bulk import each
from fraudguard.decisions.casebook import Case, CaseFilter, Disposition, Inbox, listing
from fraudguard.decisions.casework import CLAIM, SNOOZE_MAX
from fraudguard.decisions.repository import Changes, Repository
from fraudguard.domain import DecisionRecord, Outcome, Typology
from fraudguard.errors import BadInput, Conflict, NotFound, Overtaken

Make = Callable[..., DecisionRecord]
NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n" + b"picture"


async def opened(repository: Repository, make: Make, account: str = "a-1", **others: object) -> Case:
    """The case of a new alert of this account."""
    record = make(account, **others)
    await repository.commit(Changes(records=[record], alerts=[record]))
    (case,) = (await repository.cases.list_cases(CaseFilter(account_id=account, state="open"))).items
    return case


async def test_a_case_knows_its_money_its_line_and_when_it_is_due(repository: Repository, make: Make) -> None:
    """Held money is that of stopped payments; the line is the newest riskiest one's; the first alert due counts."""
    first = make("a-1", outcome=Outcome.REVIEW, risk=0.9, amount_base=100.0)
    message = make("a-1", text="转到安全账户", outcome=Outcome.REVIEW, risk=0.9)
    passed = make("a-1", outcome=Outcome.STEP_UP, risk=0.8, amount_base=1_000.0)
    case = None
    for record in (first, message, passed):
        await repository.commit(Changes(records=[record], alerts=[record]))
        (case,) = (await repository.cases.list_cases(CaseFilter())).items
    assert case is not None
    assert (case.version, case.changed_by, case.inbox) == (3, "", "scam")
    assert (case.money_held, case.top_line) == (100.0, message.line)
    assert case.due_at == first.decision.decided_at + timedelta(hours=4)
    blocked = make("a-1", outcome=Outcome.BLOCK, risk=0.1, amount_base=7.0)
    urgent = {outcome: timedelta(minutes=1) for outcome in Outcome}
    await repository.commit(Changes(records=[blocked], alerts=[blocked], due=urgent))
    (case,) = (await repository.cases.list_cases(CaseFilter())).items
    assert (case.money_held, case.top_line) == (107.0, message.line)
    assert case.due_at == blocked.decision.decided_at + timedelta(minutes=1)


async def test_the_queue_weighs_loss_against_the_time_left(repository: Repository, make: Make) -> None:
    """An hour nearer to its due time counts as twice the loss, so that nothing waits for ever."""
    order = [("a-1", 1_000.0, 4), ("a-2", 100.0, 0), ("a-3", 3_000.0, 6), ("a-4", 1_100.0, 4)]
    for account, loss, hours in order:
        record = make(account, risk=1.0, amount_base=loss)
        due = dict.fromkeys(Outcome, timedelta(hours=hours))
        await repository.commit(Changes(records=[record], alerts=[record], due=due))
    queue = (await repository.cases.list_cases(CaseFilter(state="open"))).items
    assert [case.account_id for case in queue] == ["a-2", "a-4", "a-1", "a-3"]


async def test_an_index_gives_every_queue_in_its_order(engine: AsyncEngine) -> None:
    """Among many cases, open and closed, no list that people work from is sorted, or read beyond its page."""
    many = """
    INSERT INTO cases (case_id, account_id, state, opened_at, updated_at, expected_loss, top_risk, typology, outcome,
                       alerts, due_at, disposition, reason, closed_at, closed_by, review)
    SELECT n, n, CASE WHEN n % 3 = 0 THEN 'open' ELSE 'closed' END, at, at, n * 7919 % 10000, 0.9,
           CASE WHEN n % 300 = 0 THEN 'mule' ELSE 'scam' END, 'block', 1, at, CASE WHEN n % 3 > 0 THEN 'suspicious' END,
           CASE WHEN n % 3 > 0 THEN 'told' END, CASE WHEN n % 3 > 0 THEN at END, CASE WHEN n % 3 > 0 THEN 'ana' END,
           CASE WHEN n % 30 = 1 THEN 'waiting' END
    FROM (SELECT n, timestamptz '2026-11-01Z' + n * interval '1 minute' AS at FROM generate_series(1, 30000) n)
    """
    async with engine.begin() as connection:
        await connection.execute(text(many))
    async with engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("ANALYZE cases"))
        for wanted, index in (
            (CaseFilter(state="unclosed"), "ix_cases_queue"),
            (CaseFilter(state="open", snoozed=False, at=NOW), "ix_cases_queue"),
            (CaseFilter(state="unclosed", inbox="mule"), "ix_cases_inbox"),
            (CaseFilter(state="closed"), "ix_cases_closed"),
            (CaseFilter(review="waiting"), "ix_cases_review"),
            (CaseFilter(), "ix_cases_priority"),
            (CaseFilter(typology=Typology.SCAM), "ix_cases_priority"),
        ):
            query = listing(wanted, 51, None).compile(engine, compile_kwargs={"literal_binds": True})
            plan = "\n".join(await connection.scalars(text(f"EXPLAIN {query}")))
            assert f"Index Scan using {index}" in plan, plan
            assert "Sort" not in plan, plan


async def test_inboxes_are_counted_once_for_all_who_wait(
    engine: AsyncEngine, repository: Repository, make: Make
) -> None:
    """Many who ask at once cost one count or two, and everybody's counts what was there when they asked."""
    await opened(repository, make, "a-1")
    counts: list[str] = []

    def hear(*about: Any) -> None:
        counts.extend([about[2]] if "AS waiting" in about[2] else [])

    event.listen(engine.sync_engine, "before_cursor_execute", hear)
    asked = [asyncio.create_task(repository.casefile.inboxes("ana", NOW)) for _ in range(20)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    await opened(repository, make, "a-2", typology=Typology.MULE)
    (later,) = await asyncio.gather(repository.casefile.inboxes("ana", NOW))
    before = await asyncio.gather(*asked)
    assert all({size.name: size.awake for size in sizes}["scam"] == 1 for sizes in before)
    assert {size.name: size.awake for size in later} == {"scam": 1, "mule": 1}
    assert len(counts) <= 3


async def test_a_claim_holds_until_it_runs_out(repository: Repository, make: Make) -> None:
    """Meanwhile the case is the claimer's alone; afterwards anybody's; claiming again renews it."""
    case, cases = await opened(repository, make), repository.cases
    mine = await cases.claim(case.case_id, 1, "ana", NOW)
    assert (mine.state, mine.claimed_by, mine.claimed_until) == ("investigating", "ana", NOW + CLAIM)
    assert (mine.version, mine.changed_by, mine.holder(NOW)) == (2, "ana", "ana")
    with pytest.raises(Conflict, match="claimed by ana until 09:15:00 UTC"):
        await cases.claim(case.case_id, 2, "bo", NOW)
    with pytest.raises(Conflict, match="claimed by ana"):
        await cases.release(case.case_id, 2, "bo", NOW)
    renewed = await cases.claim(case.case_id, 2, "ana", NOW + timedelta(minutes=10))
    with pytest.raises(Conflict, match="claimed by ana"):
        await cases.escalate(case.case_id, 3, "look", "bo", NOW + CLAIM)
    assert renewed.claimed_until is not None
    taken = await cases.claim(case.case_id, 3, "bo", renewed.claimed_until)
    assert taken.claimed_by == "bo"
    free = await cases.release(case.case_id, 4, "lee", NOW, anyones=True)
    assert (free.state, free.claimed_by, free.claimed_until, free.version) == ("open", None, None, 5)
    with pytest.raises(Conflict, match="not claimed"):
        await cases.release(case.case_id, 5, "bo", NOW)


async def test_of_two_people_one_wins_and_the_other_is_told_by_whom(
    repository: Repository, other: Repository, make: Make
) -> None:
    """Twenty races for a claim: each has one winner, and the loser hears the winner's name."""
    for n in range(20):
        case = await opened(repository, make, f"a-{n}")
        both = await asyncio.gather(
            repository.cases.claim(case.case_id, 1, "ana", NOW),
            other.cases.claim(case.case_id, 1, "bo", NOW),
            return_exceptions=True,
        )
        (winner,) = [one for one in both if isinstance(one, Case)]
        (loser,) = [one for one in both if isinstance(one, Overtaken)]
        assert f"version 2, not 1: {winner.claimed_by} changed it at 09:00:00 UTC" in loser.reason
    late = make("a-0")
    await repository.commit(Changes(records=[late], alerts=[late]))
    (case,) = (await repository.cases.list_cases(CaseFilter(account_id="a-0"))).items
    with pytest.raises(Overtaken, match="a new alert joined it"):
        await repository.cases.note(case.case_id, 2, "called", "ana", NOW)


async def test_assigned_cases_lie_in_their_inbox_and_are_their_assignees(repository: Repository, make: Make) -> None:
    """A team is an inbox; another's claim ends; only the assignee may claim; inboxes, mine and asleep can be listed."""
    case, cases = await opened(repository, make), repository.cases
    await opened(repository, make, "a-2", typology=Typology.MULE)
    await opened(repository, make, "a-3", risk=None)
    await cases.claim(case.case_id, 1, "ana", NOW)
    given = await cases.assign(case.case_id, 2, "bo", "payments", "lee", NOW)
    assert (given.assigned_to, given.team, given.inbox, given.claimed_by) == ("bo", "payments", "payments", None)
    with pytest.raises(Conflict, match="assigned to bo"):
        await cases.claim(case.case_id, 3, "ana", NOW)

    async def accounts(**wanted: object) -> list[str]:
        page = await cases.list_cases(CaseFilter(**wanted))  # type: ignore[arg-type]  # by name
        return sorted(found.account_id for found in page.items)

    assert await accounts(inbox="payments") == ["a-1"]
    assert await accounts(inbox="scam") == []
    assert await accounts(inbox="mule") == ["a-2"]
    assert await accounts(inbox="unscored") == ["a-3"]
    assert await accounts(mine="bo", at=NOW) == ["a-1"]
    assert await accounts(mine="ana", at=NOW) == []
    await cases.claim(case.case_id, 3, "bo", NOW)
    kept = await cases.assign(case.case_id, 4, "bo", None, "lee", NOW)
    assert (kept.claimed_by, kept.inbox) == ("bo", "scam")
    for bad in ("", " x", "x" * 129, "a\nb"):
        with pytest.raises(BadInput, match="assignee"):
            await cases.assign(case.case_id, 5, bad, None, "lee", NOW)
    with pytest.raises(BadInput, match="at"):
        await accounts(mine="bo")


async def test_inboxes_are_counted(repository: Repository, make: Make) -> None:
    """By whose the cases are and whether they are awake; a claim that ran out is nobody's, a closed case nowhere."""
    cases = repository.cases
    ids = [(await opened(repository, make, f"a-{n}")).case_id for n in range(6)]
    await cases.claim(ids[0], 1, "ana", NOW)
    await cases.claim(ids[1], 1, "bo", NOW)
    await cases.assign(ids[2], 1, "ana", None, "lee", NOW)
    await cases.snooze(ids[3], 1, NOW + timedelta(hours=1), "ana", NOW)
    await cases.escalate(ids[4], 1, "look", "ana", NOW)
    await cases.dispose(ids[5], 1, Disposition.SUSPICIOUS, "told", "ana", NOW)
    await opened(repository, make, "m-1", typology=Typology.MULE)
    inboxes = repository.casefile.inboxes
    assert await inboxes("ana", NOW) == [Inbox("mule", 1, 1, 0, 0, 0, 0), Inbox("scam", 4, 1, 2, 1, 1, 0)]
    assert await inboxes("bo", NOW + timedelta(hours=1)) == [
        Inbox("mule", 1, 1, 0, 0, 0, 0),
        Inbox("scam", 5, 4, 0, 1, 0, 0),
    ]
    await cases.snooze(ids[2], 2, NOW + timedelta(hours=1), "ana", NOW)
    assert await inboxes("ana", NOW) == [Inbox("mule", 1, 1, 0, 0, 0, 0), Inbox("scam", 3, 1, 1, 1, 2, 1)]


async def test_a_snoozed_case_sleeps_until_its_time_or_a_new_alert(repository: Repository, make: Make) -> None:
    """It is nobody's meanwhile; claiming it or null wakes it; too far or past is refused."""
    case, cases = await opened(repository, make), repository.cases
    until = NOW + timedelta(hours=2)
    await cases.claim(case.case_id, 1, "ana", NOW)
    asleep = await cases.snooze(case.case_id, 2, until, "ana", NOW)
    assert (asleep.snoozed_until, asleep.claimed_by, asleep.due_at) == (until, None, case.due_at)
    for at, snoozed, count in ((NOW, True, 1), (NOW, False, 0), (until, True, 0), (until, False, 1)):
        page = await cases.list_cases(CaseFilter(snoozed=snoozed, at=at))
        assert len(page.items) == count
    record = make("a-1")
    await repository.commit(Changes(records=[record], alerts=[record]))
    (awake,) = (await cases.list_cases(CaseFilter())).items
    assert (awake.snoozed_until, awake.version) == (None, 4)
    await cases.snooze(case.case_id, 4, until, "ana", NOW)
    assert (await cases.snooze(case.case_id, 5, None, "ana", NOW)).snoozed_until is None
    for wrong in (NOW, NOW + SNOOZE_MAX + timedelta(seconds=1)):
        with pytest.raises(BadInput, match="until"):
            await cases.snooze(case.case_id, 6, wrong, "ana", NOW)


async def test_an_escalated_case_waits_for_the_leads(repository: Repository, make: Make) -> None:
    """It is marked and nobody's, with the reason in its history."""
    case, cases = await opened(repository, make), repository.cases
    await cases.claim(case.case_id, 1, "ana", NOW)
    up = await cases.escalate(case.case_id, 2, " the payee again ", "ana", NOW)
    assert (up.escalated_at, up.claimed_by, up.state) == (NOW, None, "open")
    assert [c.case_id for c in (await cases.list_cases(CaseFilter(escalated=True))).items] == [case.case_id]
    assert (await cases.list_cases(CaseFilter(escalated=False))).items == ()
    told = [(deed.actor, deed.action, deed.detail) for deed in await cases.history(case.case_id)]
    assert told == [
        ("ana", "case.claim", {"version": 2}),
        ("ana", "case.escalate", {"version": 3, "reason": "the payee again"}),
    ]


async def test_notes_and_files_stay_in_the_case(repository: Repository, make: Make) -> None:
    """In order, with who and when; a file comes back byte for byte, and that it was read is in the trail."""
    case, cases = await opened(repository, make), repository.cases
    await cases.note(case.case_id, 1, " called: no answer ", "ana", NOW)
    await cases.note(case.case_id, 2, "called: it was not him", "bo", NOW)
    after, file = await cases.attach(case.case_id, 3, "证据.png", "image/png", PNG, "ana", NOW)
    assert after.version == 4
    folder = await cases.folder(case.case_id)
    assert [(note.body, note.actor) for note in folder.notes] == [
        ("called: no answer", "ana"),
        ("called: it was not him", "bo"),
    ]
    assert folder.files == (file,)
    assert (file.bytes, file.media_type, len(file.sha256)) == (len(PNG), "image/png", 64)
    assert await cases.read_file(case.case_id, file.sha256, "bo", NOW) == (file, PNG)
    assert (await cases.history(case.case_id))[-1].detail == {"sha256": file.sha256}
    with pytest.raises(Conflict, match="this file already"):
        await cases.attach(case.case_id, 4, "again.png", "image/png", PNG, "ana", NOW)
    with pytest.raises(NotFound):
        await cases.read_file("other", file.sha256, "bo", NOW)


@pytest.mark.parametrize(
    ("name", "kind", "body", "wrong"),
    [
        ("a.png", "image/png", b"<script>", "is not image/png"),
        ("a.txt", "text/plain", b"\xff\xfe", "is not text/plain"),
        ("a.txt", "text/plain", b"a\x00b", "is not text/plain"),
        ("a.html", "text/html", b"<p>", "Content-Type"),
        ("a.svg", "image/svg+xml", b"<svg/>", "Content-Type"),
        ("", "image/png", PNG, "name"),
        ("../a.png", "image/png", PNG, "name"),
        ('a".png', "image/png", PNG, "name"),
        ("a.png", "image/png", b"", "1 to"),
        ("a.png", "image/png", PNG + b"x" * case_files.FILE_BYTES_MAX, "1 to"),
    ],
)
async def test_what_is_no_evidence_is_refused(
    repository: Repository, make: Make, name: str, kind: str, body: bytes, wrong: str
) -> None:
    """Types that browsers run, files that are not what they say, paths, nothing and too much: the case is untouched."""
    case = await opened(repository, make)
    with pytest.raises(BadInput, match=wrong):
        await repository.cases.attach(case.case_id, 1, name, kind, body, "ana", NOW)
    assert (await repository.cases.get_case(case.case_id))[0] == case


async def test_a_case_takes_so_many_files(repository: Repository, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is full."""
    monkeypatch.setattr(case_files, "FILES_A_CASE_MAX", 2)
    case = await opened(repository, make)
    for n in (1, 2):
        await repository.cases.attach(case.case_id, n, "a.txt", "text/plain", b"%d" % n, "ana", NOW)
    with pytest.raises(Conflict, match="2 files already"):
        await repository.cases.attach(case.case_id, 3, "a.txt", "text/plain", b"3", "ana", NOW)


async def test_a_link_shows_on_both_cases(repository: Repository, make: Make) -> None:
    """Once, with its reason; both have a new version and a row in the trail."""
    one, two = await opened(repository, make), await opened(repository, make, "a-2")
    await repository.cases.link(two.case_id, 1, one.case_id, "the same payee", "ana", NOW)
    for case, far in ((one, two), (two, one)):
        (link,) = (await repository.cases.folder(case.case_id)).links
        assert (link.case_id, link.account_id, link.state) == (far.case_id, far.account_id, "open")
        assert (link.reason, link.actor, link.at) == ("the same payee", "ana", NOW)
        assert (await repository.cases.get_case(case.case_id))[0].version == 2
        assert [deed.action for deed in await repository.cases.history(case.case_id)] == ["case.link"]
    with pytest.raises(Conflict, match="linked already"):
        await repository.cases.link(one.case_id, 2, two.case_id, "again", "ana", NOW)
    with pytest.raises(BadInput, match="itself"):
        await repository.cases.link(one.case_id, 2, one.case_id, "self", "ana", NOW)
    with pytest.raises(NotFound):
        await repository.cases.link(one.case_id, 2, "none", "nothing", "ana", NOW)


async def test_many_at_once_each_by_itself(repository: Repository, make: Make) -> None:
    """One that was overtaken, one unknown: told apart from those that were done."""
    one, two = await opened(repository, make), await opened(repository, make, "a-2")
    await repository.cases.note(two.case_id, 1, "mine", "bo", NOW)
    seen = {one.case_id: 1, two.case_id: 1, "none": 1}
    done = await each(seen, lambda case_id, version: repository.cases.claim(case_id, version, "ana", NOW))
    assert [type(what).__name__ for what in done.values()] == ["Case", "Overtaken", "NotFound"]
    for wrong in ({}, {str(n): 1 for n in range(201)}):
        with pytest.raises(BadInput, match="cases"):
            await each(wrong, lambda case_id, version: repository.cases.claim(case_id, version, "ana", NOW))

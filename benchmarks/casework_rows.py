"""What is asked of a large queue, row by row, and what the answer must be: by plain Python over what was put in.

Knows paths and ids; what a request is sent with, and how long it takes, is casework.py's.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import asyncpg
import httpx

from benchmarks.casework_data import person
from fraudguard.decisions.pages import encode_cursor

ME: Final = person(1)
ROWS: Final = 50
DEEP: Final = 2 / 3  # of a list: how far down a deep page lies
ALERTS_MAX, LINES_MAX, BEFORE = 1_000, 120, 12
_ROW_ID: Final = re.compile(r'<tr data-id="([^"]+)"')
_LINE: Final = re.compile(r'id="line-\d+" data-decision="([^"]+)"')
_TABS: Final = re.compile(r'<nav id="tabs".*?</nav>', re.DOTALL)
_TAB: Final = re.compile(r'inbox=([\w-]+)[^>]*>[^<]*<span class="count">(\d+)</span>')

Check = Callable[[httpx.Response], bool]
Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """A request and whether an answer is right. fragment: asked as htmx does."""

    path: str
    right: Check
    fragment: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Questions of one kind, asked in turn."""

    name: str
    questions: Sequence[Question]


def rest_ids(name: str, wanted: Iterable[str]) -> Check:
    """Exactly these items, in this order."""
    ids = list(wanted)
    return lambda answer: answer.status_code == 200 and [item[name] for item in answer.json()["items"]] == ids


def _holds(wanted: Record) -> Check:
    return lambda answer: wanted.items() <= answer.json().items()


def _names(decision_id: str) -> Check:
    return lambda answer: decision_id in answer.text


def _sizes(page: str) -> dict[str, int]:
    """What the tabs say."""
    shown = _TABS.search(page)
    return {name: int(cases) for name, cases in _TAB.findall(shown[0])} if shown else {}


def page_ids(wanted: Iterable[str]) -> Check:
    """Exactly these rows of a page of the console, in this order."""
    ids = list(wanted)
    return lambda answer: answer.status_code == 200 and _ROW_ID.findall(answer.text) == ids


class Queue:
    """The cases as they were put in, sorted and filtered by Python."""

    def __init__(self, cases: Sequence[Record], now: datetime) -> None:
        """cases: every row of the table."""
        self.now = now
        self.all = sorted(cases, key=lambda c: (-c["priority"], c["case_id"]))
        self.unclosed = [case for case in self.all if case["state"] != "closed"]
        done = [case for case in cases if case["state"] == "closed"]
        self.closed = sorted(done, key=lambda c: (-c["closed_at"].timestamp(), c["case_id"]))

    def asleep(self, case: Record) -> bool:
        """Whether it is snoozed."""
        return case["snoozed_until"] is not None and case["snoozed_until"] > self.now

    def mine(self, case: Record) -> bool:
        """Whether I have claimed it, or it is assigned to me."""
        return ME in (case["claimed_by"], case["assigned_to"])

    def rows(self) -> list[Row]:
        """The REST API's lists, then the console's."""
        return [*self._lists(), self._inboxes(), *self._pages()]

    def _lists(self) -> list[Row]:
        quiet = next(case["account_id"] for case in self.unclosed[len(self.unclosed) // 2 :])
        filters: dict[str, tuple[Sequence[Record], dict[str, str], Callable[[Record], bool]]] = {
            "unclosed": (self.unclosed, {"state": "unclosed"}, lambda c: True),
            "open": (self.unclosed, {"state": "open"}, lambda c: c["state"] == "open"),
            "investigating": (self.unclosed, {"state": "investigating"}, lambda c: c["state"] == "investigating"),
            "closed": (self.closed, {"state": "closed"}, lambda c: True),
            "of any state": (self.all, {}, lambda c: True),
            "awake": (self.unclosed, {"state": "unclosed", "snoozed": "false"}, lambda c: not self.asleep(c)),
            "snoozed": (self.unclosed, {"state": "unclosed", "snoozed": "true"}, self.asleep),
            "mine": (self.unclosed, {"mine": "true"}, self.mine),
            "escalated": (self.unclosed, {"state": "unclosed", "escalated": "true"}, lambda c: c["escalated_at"]),
            "escalated, of any state": (self.all, {"escalated": "true"}, lambda c: c["escalated_at"]),
            "that wait for a review": (self.closed, {"review": "waiting"}, lambda c: c["review"] == "waiting"),
            "with an agreed review": (self.all, {"review": "agreed"}, lambda c: c["review"] == "agreed"),
            "of an account": (self.all, {"account_id": quiet}, lambda c: c["account_id"] == quiet),
            "of one nobody has": (self.all, {"account_id": "nobody"}, lambda c: False),
            "blocked": (self.unclosed, {"state": "unclosed", "outcome": "block"}, lambda c: c["outcome"] == "block"),
            "approved (none)": (self.all, {"outcome": "approve"}, lambda c: False),
            "scam, of any state": (self.all, {"typology": "scam"}, lambda c: c["typology"] == "scam"),
            "other (rare), unclosed": (
                self.unclosed, {"state": "unclosed", "typology": "other"}, lambda c: c["typology"] == "other"
            ),
        }  # fmt: skip
        made = []
        for name, (cases, asked, holds) in filters.items():
            found = [case for case in cases if holds(case)]
            made.append(self._list(f"GET /v1/cases: {name}", asked, found, 0))
        for name, cases, asked in (
            ("unclosed", self.unclosed, {"state": "unclosed"}),
            ("closed", self.closed, {"state": "closed"}),
            ("of any state", self.all, {}),
        ):
            made.append(self._paged(f"GET /v1/cases: {name}, pages 2 to 6", asked, cases))
            made.append(self._list(f"GET /v1/cases: {name}, a deep page", asked, cases, int(DEEP * len(cases))))
        return made

    def _list(self, name: str, asked: dict[str, str], found: Sequence[Record], first: int) -> Row:
        path, ids = self._asked("/v1/cases", asked, found, first)
        return Row(name, [Question(path, rest_ids("case_id", ids))])

    def _paged(self, name: str, asked: dict[str, str], found: Sequence[Record]) -> Row:
        pages = [self._asked("/v1/cases", asked, found, ROWS * page) for page in range(1, 6)]
        return Row(name, [Question(path, rest_ids("case_id", ids)) for path, ids in pages])

    def _asked(self, path: str, asked: dict[str, str], found: Sequence[Record], first: int) -> tuple[str, list[str]]:
        if first:
            last = found[first - 1]
            key = last["closed_at"] if asked.get("state") == "closed" else last["priority"]
            asked = asked | {"cursor": encode_cursor(key, last["case_id"])}
        return f"{path}?{urlencode(asked)}", [case["case_id"] for case in islice(found, first, first + ROWS)]

    def _inboxes(self) -> Row:
        counts: dict[str, list[int]] = {}
        for case in self.unclosed:
            own = counts.setdefault(case["inbox"], [0, 0, 0, 0, 0])
            if self.asleep(case):
                own[4] += 1
                continue
            own[0] += 1
            own[1] += case["claimed_by"] is None and case["assigned_to"] is None
            own[2] += self.mine(case)
            own[3] += case["escalated_at"] is not None
        wanted = {name: tuple(own) for name, own in counts.items()}
        fields = ("awake", "waiting", "mine", "escalated", "snoozed")

        def right(answer: httpx.Response) -> bool:
            return {item["name"]: tuple(item[f] for f in fields) for item in answer.json()["items"]} == wanted

        return Row("GET /v1/inboxes", [Question("/v1/inboxes", right)])

    def _pages(self) -> list[Row]:
        awake = [case for case in self.unclosed if not self.asleep(case)]
        inboxes: dict[str, list[Record]] = {"all": awake}
        for case in awake:
            inboxes.setdefault(case["inbox"], []).append(case)
        tabs = {name: len(cases) for name, cases in inboxes.items()}
        inboxes["mine"] = [case for case in self.unclosed if self.mine(case)]
        inboxes["snoozed"] = [case for case in self.unclosed if self.asleep(case)]
        tabs |= {name: len(inboxes[name]) for name in ("mine", "snoozed")}

        def right(cases: Sequence[Record]) -> Check:
            ids = page_ids(case["case_id"] for case in cases[:ROWS])
            return lambda answer: ids(answer) and _sizes(answer.text) == tabs

        made = [Row("console: the queue", [Question("/console/queue", right(awake))])]
        for name in sorted(inboxes):
            path = f"/console/queue?inbox={name}"
            made.append(Row(f"console: inbox {name}, refreshed", [Question(path, right(inboxes[name]), True)]))
        account = awake[len(awake) // 3]["account_id"]
        own = [case for case in self.unclosed if case["account_id"] == account]
        path = f"/console/queue?account={account}"
        made.append(Row("console: the queue of an account", [Question(path, right(own), True)]))
        deep, ids = self._asked("/console/queue", {}, awake, int(DEEP * len(awake)))
        made.append(Row("console: the queue, a deep page", [Question(deep, page_ids(ids), True)]))
        return made


class Files:
    """Cases and decisions to open, and what was put into them."""

    def __init__(self, connection: asyncpg.Connection, queue: Queue, chance: random.Random, count: int) -> None:
        """count: of the questions of a row."""
        self._connection, self._queue, self._chance, self._count = connection, queue, chance, count

    async def rows(self) -> list[Row]:
        """One case, by what it is; one decision."""
        queue, count = self._queue, self._count
        some = self._chance.sample(queue.unclosed, min(count, len(queue.unclosed)))
        top = queue.unclosed[: min(count, 50)]
        busiest = sorted(queue.unclosed, key=lambda case: -case["alerts"])[:5]
        longest = await self._of_longest_accounts()
        closed = self._chance.sample(queue.closed, min(count, len(queue.closed)))
        made = []
        for name, cases in (
            ("any unclosed one", some),
            ("one of the queue's top", top),
            ("of the most alerts", busiest),
            ("of the longest accounts", longest),
            ("a closed one", closed),
        ):
            wanted = [await self._put_in(case) for case in cases]
            pairs = list(zip(cases, wanted, strict=True))
            made.append(Row(f"GET /v1/cases/ID: {name}", [self._rest(case, *put) for case, put in pairs]))
            made.append(Row(f"console: case, {name}", [self._console(case, *put) for case, put in pairs]))
        made.append(Row("GET /v1/cases/ID/history: a closed one", [self._history(case) for case in closed]))
        made.append(Row("console: the case after one", [self._next(case) for case in some]))
        return [*made, *await self._decisions()]

    async def _of_longest_accounts(self) -> list[Record]:
        rows = await self._connection.fetch(
            """SELECT c.case_id FROM filled.cases c JOIN filled.accounts a ON a.n = c.account
               WHERE c.open ORDER BY a.size DESC LIMIT 5"""
        )
        by_id = {case["case_id"]: case for case in self._queue.unclosed}
        return [by_id[row["case_id"]] for row in rows]

    async def _put_in(self, case: Record) -> tuple[list[Record], list[Record]]:
        """The case's alerts and the account's lines, in sequence."""
        alerts = await self._connection.fetch(
            """SELECT a.* FROM filled.alerts a JOIN filled.cases c USING (account, era)
               WHERE c.case_id = $1 ORDER BY a.sequence""",
            case["case_id"],
        )
        lines = await self._connection.fetch(
            "SELECT sequence, decision_id FROM filled.lines WHERE account_id = $1 ORDER BY sequence",
            case["account_id"],
        )
        return alerts, lines

    def _rest(self, case: Record, alerts: Sequence[Record], _: Sequence[Record]) -> Question:
        wanted = [(a["decision_id"], a["outcome"], a["line"]) for a in alerts[-ALERTS_MAX:]]

        def right(answer: httpx.Response) -> bool:
            got = [(a["decision_id"], a["outcome"], a["line"]) for a in answer.json()["alerts"]]
            return answer.headers["etag"] == f'"{case["version"]}"' and got == wanted

        return Question(f"/v1/cases/{case['case_id']}", right)

    def _console(self, case: Record, alerts: Sequence[Record], lines: Sequence[Record]) -> Question:
        newest = lines[-1]["sequence"]
        first = max(1, alerts[0]["sequence"] - BEFORE, newest - LINES_MAX + 1)
        wanted = [line["decision_id"] for line in lines if line["sequence"] >= first]
        right: Check = lambda answer: answer.status_code == 200 and _LINE.findall(answer.text) == wanted  # noqa: E731
        return Question(f"/console/cases/{case['case_id']}", right)

    def _history(self, case: Record) -> Question:
        wanted = [("case.claim", case["closed_by"]), ("case.dispose", case["closed_by"])]

        def right(answer: httpx.Response) -> bool:
            return [(deed["action"], deed["actor"]) for deed in answer.json()["items"]] == wanted

        return Question(f"/v1/cases/{case['case_id']}/history", right)

    def _next(self, case: Record) -> Question:
        """Behind it in the queue's first page, else the first that is free."""
        queue = self._queue
        waiting = [one for one in queue.unclosed if not queue.asleep(one)][:ROWS]
        ids = [one["case_id"] for one in waiting]
        after = ids.index(case["case_id"]) + 1 if case["case_id"] in ids else 0
        free = (
            one["case_id"]
            for one in (*waiting[after:], *waiting[:after])
            if {one["claimed_by"], one["assigned_to"]} <= {None, ME} and one["case_id"] != case["case_id"]
        )
        to = f"/console/cases/{next(free)}"
        return Question(
            f"/console/cases/{case['case_id']}/next",
            lambda answer: answer.status_code == 303 and answer.headers["location"] == to,
        )

    async def _decisions(self) -> list[Row]:
        rows = await self._connection.fetch(
            """SELECT l.decision_id, l.event_id, p.risk, p.outcome FROM filled.lines l
               JOIN filled.patterns p ON p.id = l.pattern
               WHERE l.sequence = 5 AND hashint8(l.account) % 997 = 0 ORDER BY l.decision_id LIMIT $1""",
            self._count,
        )
        rest, console = [], []
        for row in rows:
            wanted = {name: row[name] for name in ("decision_id", "event_id", "risk", "outcome")}
            rest.append(Question(f"/v1/decisions/{row['decision_id']}", _holds(wanted)))
            console.append(Question(f"/console/decisions/{row['decision_id']}", _names(row["decision_id"])))
        return [Row("GET /v1/decisions/ID", rest), Row("console: a decision", console)]


class Explorer:
    """The decisions as they were put in, filtered and sorted anew for each question."""

    def __init__(self, connection: asyncpg.Connection, now: datetime, zone: ZoneInfo) -> None:
        self._connection, self._now, self._zone = connection, now, zone

    async def rows(self) -> list[Row]:
        """Every filter, some together, some that find little or nothing; pages."""
        longest = await self._connection.fetchval(
            "SELECT account_id FROM filled.lines WHERE account = 1 AND sequence = 1"
        )
        short = await self._connection.fetchval(
            """SELECT account_id FROM filled.lines WHERE sequence = 1
               AND account = (SELECT max(n) / 2 FROM filled.accounts)"""
        )
        reasons = await self._connection.fetch(
            "SELECT reason, count(*) FROM filled.patterns, unnest(reasons) reason GROUP BY 1 ORDER BY 2, 1"
        )
        rare, common = reasons[0]["reason"], reasons[-1]["reason"]
        day, month = self._now - timedelta(days=1), self._now - timedelta(days=60)
        filters: dict[str, dict[str, Any]] = {
            "no filter": {},
            "of the longest account": {"account_id": longest},
            "of a short account": {"account_id": short},
            "of one nobody has": {"account_id": "nobody"},
            "blocked": {"outcome": "block"},
            "step-ups": {"outcome": "step_up"},
            "messages": {"event_type": "message"},
            "blocked messages (rare)": {"event_type": "message", "outcome": "block"},
            "typology scam": {"typology": "scam"},
            "typology other (rare)": {"typology": "other"},
            "typology cash_out": {"typology": "cash_out"},
            "typology money_laundering": {"typology": "money_laundering"},
            "risk from 0.5": {"min_risk": "0.5"},
            "risk from 0.95": {"min_risk": "0.95"},
            "risk from 1 (none)": {"min_risk": "1"},
            f"the most usual reason, {common}": {"reason": common},
            f"the rarest reason, {rare}": {"reason": rare},
            "a reason nobody gave": {"reason": "NO_SUCH_REASON"},
            "the newest day": {"from": day},
            "before two months ago": {"to": month},
            "a day, blocked, transactions": {
                "from": month - timedelta(days=1), "to": month, "outcome": "block", "event_type": "transaction"
            },
            "scam with risk from 0.9, blocked": {"typology": "scam", "min_risk": "0.9", "outcome": "block"},
            "approved with risk from 0.9 (none)": {"min_risk": "0.9", "outcome": "approve"},
            "years ago (none)": {"to": datetime(2019, 1, 1, tzinfo=UTC)},
        }  # fmt: skip
        made = []
        for name, asked in filters.items():
            ids = await self._found(asked, ROWS)
            path = f"/v1/decisions?{urlencode({k: _text(v) for k, v in asked.items()})}"
            made.append(Row(f"GET /v1/decisions: {name}", [Question(path, self._right(ids))]))
        made += [
            await self._paged("no filter", {}),
            await self._paged("blocked", {"outcome": "block"}),
            await self._paged("of the longest account", {"account_id": longest}),
            await self._deep("no filter", {}, month),
            await self._deep("typology scam", {"typology": "scam"}, month),
        ]
        return [*made, *await self._console(longest)]

    async def _found(self, asked: Mapping[str, Any], rows: int, before: tuple[datetime, str] | None = None) -> Any:
        tests, values = ["true"], list[Any]()

        def test(sql: str, *given: Any) -> None:
            values.extend(given)
            numbers = range(len(values) - len(given) + 1, len(values) + 1)
            tests.append(sql.format(*(f"${number}" for number in numbers)))

        for name, sql in (
            ("account_id", "l.account_id = {}"),
            ("outcome", "p.outcome = {}"),
            ("event_type", "p.event_type = {}"),
            ("typology", "p.typology = {}"),
            ("min_risk", "p.risk >= CAST(CAST({} AS text) AS double precision)"),
            ("reason", "{} = ANY (p.reasons)"),
            ("from", "l.at >= {}"),
            ("to", "l.at < {}"),
        ):
            if name in asked:
                test(sql, asked[name])
        if before is not None:
            test("(l.at, l.decision_id) < ({}, {})", *before)
        return await self._connection.fetch(
            f"""SELECT l.at, l.decision_id FROM filled.lines l JOIN filled.patterns p ON p.id = l.pattern
                WHERE {" AND ".join(tests)} ORDER BY l.at DESC, l.decision_id DESC LIMIT {rows}""",
            *values,
            timeout=120,
        )

    def _right(self, found: Sequence[Record]) -> Check:
        return rest_ids("decision_id", [row["decision_id"] for row in found])

    async def _paged(self, name: str, asked: dict[str, Any]) -> Row:
        found = await self._found(asked, ROWS * 6)
        questions = []
        for page in range(1, 6):
            last = found[ROWS * page - 1]
            given = asked | {"cursor": encode_cursor(last["at"], last["decision_id"])}
            questions.append(
                Question(f"/v1/decisions?{urlencode(given)}", self._right(found[ROWS * page : ROWS * (page + 1)]))
            )
        return Row(f"GET /v1/decisions: {name}, pages 2 to 6", questions)

    async def _deep(self, name: str, asked: dict[str, Any], at: datetime) -> Row:
        found = await self._found(asked, ROWS, (at, ""))
        path = f"/v1/decisions?{urlencode(asked | {'cursor': encode_cursor(at, '')})}"
        return Row(f"GET /v1/decisions: {name}, a deep page", [Question(path, self._right(found))])

    async def _console(self, longest: str) -> list[Row]:
        day = (self._now - timedelta(days=1)).astimezone(self._zone).replace(second=0, microsecond=0)
        local = day.strftime("%Y-%m-%dT%H:%M")
        made = []
        for name, asked, put in (
            ("the explorer", {}, {}),
            ("explorer, blocked scams", {"outcome": "block", "typology": "scam"}, None),
            (
                "explorer, an account since yesterday",
                {"account": longest, "from": local},
                {"account_id": longest, "from": day},
            ),
            ("explorer, risk from 0.95", {"risk": "0.95"}, {"min_risk": "0.95"}),
        ):  # fmt: skip
            found = await self._found(asked if put is None else put, ROWS)
            right = page_ids(row["decision_id"] for row in found)
            made.append(Row(f"console: {name}", [Question(f"/console/decisions?{urlencode(asked)}", right)]))
        return made


def _text(value: Any) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)

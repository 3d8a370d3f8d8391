"""A database as a bank's is after a quarter: decisions, cases open and closed, labels, evidence, a chained audit trail.

Stories that the starter and the shipped rules really decided are the patterns; SQL multiplies them over accounts of one
to thousands of decisions. What was put in stays beside it in the schema `filled`, for whoever checks answers. Indexes
are built after the rows, so they are denser than grown ones. There are no account states: nothing here reads them.
"""

import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import numpy as np
import orjson

from fraudguard.accounts import hash_of
from fraudguard.assembly import load_parts, open_pipeline
from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.decisions.audit import START, Deed, digest
from fraudguard.decisions.policy import due_of
from fraudguard.decisions.repository import connect
from fraudguard.domain import Received, Role
from fraudguard.stories import generate

DAYS: Final = 90
PASSWORD: Final = "three months of cases"
PEOPLE: Final = 200
TEAMS: Final = ("cards", "night", "payouts", "premium")
BATCH: Final = 64
MINUTES: Final = {outcome.value: wait.total_seconds() / 60 for outcome, wait in due_of().items()}
# How often a decision follows a pattern of each kind; a bank has fewer alerts, but 100,000 open cases take these.
SHARES: Final = {
    ("message", "approve"): 0.40,
    ("transaction", "approve"): 0.505,
    ("message", "step_up"): 0.01,
    ("transaction", "step_up"): 0.015,
    ("message", "review"): 0.02,
    ("transaction", "review"): 0.03,
    ("transaction", "block"): 0.02,
}


@dataclass(frozen=True, slots=True)
class Size:
    """How much to put in. open_cases: of that many accounts."""

    decisions: int
    open_cases: int

    @property
    def accounts(self) -> int:
        """Ten decisions each, on average."""
        return max(200, self.decisions // 10)


def person(number: int) -> str:
    """The name of an analyst, from 1 to PEOPLE."""
    return f"analyst-{number:03}"


async def tell_stories(settings: Settings) -> None:
    """Decide a cast's last two days as a worker would: the patterns, with the rules' and the policy's documents."""
    settings = settings.model_copy(update={"engine_timeout_ms": 60_000})  # a pattern is no slow model's
    clock, parts = SystemClock(), load_parts(settings)
    now = clock.now()
    cast = generate(7, 120, now - timedelta(days=2), 2, 40, "heldout")
    events = [told.event for told in cast.events if told.event.event_time <= now]
    async with open_pipeline(settings, parts, clock) as pipeline:
        for first in range(0, len(events), BATCH):
            await pipeline.screen([Received(event, event.event_time) for event in events[first : first + BATCH]])
    parts.close()


async def create_people(url: str) -> None:
    """PEOPLE analysts with one password, hashed once."""
    hashed, now = hash_of(PASSWORD), datetime.now(UTC)
    async with connect(url) as repository:
        for number in range(1, PEOPLE + 1):
            await repository.people.create(person(number), Role.ANALYST, hashed, "benchmark", now)


async def fill(settings: Settings, size: Size, say: Callable[[str], None]) -> None:
    """Everything, into a migrated, empty database."""
    began = time.monotonic()
    url = settings.database_url.get_secret_value()

    def step(what: str) -> None:
        say(f"{time.monotonic() - began:6.0f} s  {what}")

    await tell_stories(settings)
    connection = await asyncpg.connect(url)
    try:
        # No triggers: append-only tables are emptied of the stories, and nobody is told of what was long ago.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SET maintenance_work_mem = '512MB'; SET work_mem = '256MB'; SET jit = off")
        await _patterns(connection)
        step("patterns")
        await _lines(connection, size)
        step(f"{size.decisions:,} lines of {size.accounts:,} accounts")
        await _decisions(connection, step)
        await _event_ids(connection)
        step("event ids")
        await _cases(connection, size)
        step("cases and alerts")
        await _around(connection)
        step("notes, links, labels, evidence, counts")
    finally:
        await connection.close()
    await create_people(url)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        await _audit(connection)
        step("audit trail")
        await connection.execute("VACUUM ANALYZE")
        step("vacuumed and analysed")
    finally:
        await connection.close()


async def _patterns(connection: asyncpg.Connection) -> None:
    """The stories' decisions with places for ids and times in their bodies; then the stories go."""
    rows = await connection.fetch(
        """SELECT event_type, outcome, risk, typology, reasons, degraded, CAST(body AS text) AS body
           FROM decisions ORDER BY event_time, decision_id"""
    )
    places: dict[tuple[str, str], int] = {}
    patterns = []
    for row in rows:
        kind = (row["event_type"], row["outcome"])
        if kind in SHARES:
            places[kind] = places.get(kind, 0) + 1
            patterns.append(_pattern(len(patterns) + 1, places[kind], row))
    if missing := SHARES.keys() - places.keys():
        raise SystemExit(f"no story ended in {missing}: tell more of them")
    await connection.execute(
        """DROP SCHEMA IF EXISTS filled CASCADE;
           CREATE SCHEMA filled;
           CREATE TABLE filled.patterns (
               id integer PRIMARY KEY, place integer, event_type text, outcome text, risk double precision,
               typology text, reasons text[], degraded boolean, amount double precision, line text,
               counterparty text, device text, ip text, merchant text, body text);
           TRUNCATE decisions, event_ids, alerts, cases, labels, account_state, entity_counts, window_counts,
               dispositions, alert_dispositions, case_notes, case_files, case_links, outbox, evidence,
               evidence_wishes, audit, shadow_scores CASCADE;
           UPDATE audit_chain SET rows = 0, hash = repeat('0', 64)"""
    )
    await connection.copy_records_to_table("patterns", schema_name="filled", records=patterns)


def _pattern(number: int, place: int, row: asyncpg.Record) -> tuple[Any, ...]:
    body = json.loads(row["body"])
    event, features = body["event"], body["features"]
    return (
        number,
        place,
        row["event_type"],
        row["outcome"],
        row["risk"],
        row["typology"],
        row["reasons"],
        row["degraded"],
        features["amount_base"] if row["event_type"] == "transaction" else None,
        body["line"],
        event.get("counterparty_id"),
        event.get("device_id"),
        event.get("ip"),
        event.get("merchant_id"),
        _with_places(row["body"]),
    )


def _with_places(body: str) -> str:
    """For SQL's format(): 1 event id, 2 account, 3 decision, 4 the event's time, 5 the decision's, 6 sequence, 7 the
    timeline's start."""
    body = body.replace("%", "%%")
    for field, place in (
        ("event_id", 1), ("account_id", 2), ("decision_id", 3), ("event_time", 4), ("received_at", 4), ("decided_at", 5)
    ):  # fmt: skip
        body = re.sub(rf'"{field}":"[^"]*"', f'"{field}":"%{place}$s"', body)
    body = re.sub(r'"sequence":\d+', '"sequence":%6$s', body)
    return re.sub(r'"timeline_start":\d+', '"timeline_start":%7$s', body)


def _sizes(size: Size) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Decisions of each account: by the square root of its rank, a fifth with a single one, as many as asked in all."""
    ranks = np.arange(1, size.accounts + 1)
    few = ranks > 0.8 * size.accounts
    scale = (size.decisions - few.sum()) / (1 / np.sqrt(ranks[~few])).sum()
    sizes = np.where(few, 1, np.maximum(1, np.floor(scale / np.sqrt(ranks)))).astype(np.int64)
    rest = size.decisions - int(sizes.sum())
    sizes[: abs(rest)] += np.sign(rest)
    return sizes


# Hashes stand for chance, so that the same size gives the same rows but for their times.
_LINES: Final = """
CREATE TABLE filled.lines AS
SELECT n AS account, k AS sequence, substr(md5('a' || n), 1, 12) AS account_id,
       md5('d' || n || '-' || k)::uuid::text AS decision_id, 'e-' || n || '-' || k AS event_id,
       date_trunc('milliseconds', CAST($1 AS timestamptz) - make_interval(days => {days})
           * ((size - k + 0.999 * ((hashint8extended(n * 8191 + k, 1) & 65535) / 65536.0)) / size)) AS at,
       p.id AS pattern
FROM filled.accounts, generate_series(1, size) k,
     LATERAL (SELECT (hashint8extended(n * 8191 + k, 2) & 1048575) / 1048576.0 AS u,
                     hashint8extended(n * 8191 + k, 3) & 1048575 AS h) c,
     filled.kinds s, filled.patterns p
WHERE u >= low AND u < high AND p.event_type || '/' || p.outcome = s.kind AND p.place = 1 + h % s.patterns
"""


async def _lines(connection: asyncpg.Connection, size: Size) -> None:
    """Which account has which decision when, by which pattern."""
    await connection.execute("CREATE TABLE filled.accounts (n bigint, size bigint)")
    sizes = [(number, int(own)) for number, own in enumerate(_sizes(size), start=1)]
    await connection.copy_records_to_table("accounts", schema_name="filled", records=sizes)
    await connection.execute(
        "CREATE TABLE filled.kinds (kind text, low double precision, high double precision, patterns integer)"
    )
    low, kinds = 0.0, []
    for event_type, outcome in SHARES:
        high = low + SHARES[event_type, outcome] / sum(SHARES.values())
        count = await connection.fetchval(
            "SELECT count(*) FROM filled.patterns WHERE event_type = $1 AND outcome = $2", event_type, outcome
        )
        kinds.append((f"{event_type}/{outcome}", low, high, count))
        low = high
    kinds[-1] = (*kinds[-1][:2], 2.0, kinds[-1][3])
    await connection.copy_records_to_table("kinds", schema_name="filled", records=kinds)
    await connection.execute("ANALYZE filled.kinds; ANALYZE filled.patterns; ANALYZE filled.accounts")
    await connection.execute(
        _LINES.format(days=DAYS).replace("$1", f"'{datetime.now(UTC).isoformat()}'"), timeout=1_200
    )
    await connection.execute(
        "CREATE INDEX ON filled.lines (account_id, sequence); CREATE INDEX ON filled.lines (at); ANALYZE filled.lines"
    )


# As decisions_ensure_month makes a partition, but with its rows before its indexes.
_MONTH: Final = """
CREATE TABLE {name} (LIKE decisions INCLUDING DEFAULTS INCLUDING CONSTRAINTS) WITH (toast_tuple_target = 4080);
INSERT INTO {name} (event_time, decision_id, event_id, account_id, sequence, event_type, outcome, risk, typology,
                    reasons, degraded, decided_at, body)
SELECT l.at, l.decision_id, l.event_id, l.account_id, l.sequence, p.event_type, p.outcome, p.risk, p.typology,
       p.reasons, p.degraded, l.at + interval '40 ms',
       format(p.body, l.event_id, l.account_id, l.decision_id,
              to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
              to_char(l.at AT TIME ZONE 'UTC' + interval '40 ms', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
              l.sequence, greatest(1, l.sequence - 7))::json
FROM filled.lines l JOIN filled.patterns p ON p.id = l.pattern
WHERE l.at >= '{first}' AND l.at < '{after}' ORDER BY l.at;
ALTER TABLE decisions ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{after}');
"""


async def _decisions(connection: asyncpg.Connection, step: Callable[[str], None]) -> None:
    """In the order of their time, month by month."""
    for row in await connection.fetch(
        "SELECT DISTINCT date_trunc('month', at AT TIME ZONE 'UTC') AS month FROM filled.lines ORDER BY 1"
    ):
        first = row["month"].replace(tzinfo=UTC)
        after = (first + timedelta(days=32)).replace(day=1)
        name = f"decisions_{first:%Y_%m}"
        await connection.execute(f"DROP TABLE IF EXISTS {name}")
        await connection.execute(_MONTH.format(name=name, first=first, after=after), timeout=3_600)
        step(name)


async def _event_ids(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch(
        """SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint
           WHERE conrelid = 'event_ids'::regclass AND contype IN ('p', 'u')"""
    )
    for row in rows:
        await connection.execute(f"ALTER TABLE event_ids DROP CONSTRAINT {row['conname']}")
    await connection.execute(
        """INSERT INTO event_ids (event_id, account_id, sequence, event_time, decision_id)
           SELECT event_id, account_id, sequence, at, decision_id FROM filled.lines ORDER BY at""",
        timeout=1_200,
    )
    for row in rows:
        await connection.execute(
            f"ALTER TABLE event_ids ADD CONSTRAINT {row['conname']} {row['definition']}", timeout=1_200
        )


# An account's alerts of thirty days are one case. The newest one of so many accounts is not closed yet.
_CASES: Final = """
CREATE TABLE filled.alerts AS
SELECT l.account, l.account_id, l.decision_id, l.event_id, l.sequence, l.at, p.event_type, p.outcome, p.risk,
       p.typology, p.amount, p.line, floor(extract(epoch FROM l.at) / 2592000)::bigint AS era
FROM filled.lines l JOIN filled.patterns p ON p.id = l.pattern WHERE p.outcome IN ('review', 'block');
CREATE TABLE filled.cases AS
SELECT account, account_id, era, md5('c' || account || '-' || era)::uuid::text AS case_id, count(*)::integer AS alerts,
       min(at) AS opened_at, max(at) AS last_at, sum(risk * coalesce(amount, 0)) AS loss,
       sum(CASE WHEN event_type = 'transaction' THEN coalesce(amount, 0) ELSE 0 END) AS held, max(risk) AS top_risk,
       (array_agg(typology ORDER BY risk DESC, sequence DESC))[1] AS typology,
       (array_agg(line ORDER BY risk DESC, sequence DESC))[1] AS line,
       CASE WHEN bool_or(outcome = 'block') THEN 'block' ELSE 'review' END AS outcome,
       min(at + make_interval(mins => CASE outcome WHEN 'block' THEN {block} ELSE {review} END)) AS due_at,
       false AS open, hashint8extended(account, 11) & 1048575 AS h
FROM filled.alerts GROUP BY account, account_id, era;
UPDATE filled.cases c SET open = true
FROM (SELECT account, max(era) AS era FROM filled.cases GROUP BY account
      ORDER BY hashint8extended(account, 7), account LIMIT {open}) n
WHERE c.account = n.account AND c.era = n.era;
"""

# Of an unclosed case: in a hundred 8 are claimed, 5 assigned, 7 asleep, 3 escalated, 6 with a team. The rest are free.
_OPEN: Final = """
INSERT INTO cases (case_id, account_id, state, opened_at, updated_at, expected_loss, top_risk, typology, outcome,
                   alerts, claimed_by, version, claimed_until, assigned_to, team, due_at, snoozed_until, escalated_at,
                   money_held, top_line)
SELECT case_id, account_id, CASE WHEN claimed THEN 'investigating' ELSE 'open' END, opened_at, last_at, loss, top_risk,
       typology, outcome, alerts, CASE WHEN claimed THEN who END, alerts + claimed::integer,
       CASE WHEN claimed THEN now() + interval '7 days' END, CASE WHEN h % 100 BETWEEN 8 AND 12 THEN who END,
       CASE WHEN h % 100 BETWEEN 90 AND 95 THEN (CAST($1 AS text[]))[1 + h / 100 % {teams}] END, due_at,
       CASE WHEN h % 100 BETWEEN 20 AND 26 THEN now() + interval '7 days' END,
       CASE WHEN h % 100 BETWEEN 30 AND 32 THEN last_at END, held, left(line, 200)
FROM (SELECT *, h % 100 < 8 AS claimed, 'analyst-' || lpad((1 + h / 100 % {people})::text, 3, '0') AS who
      FROM filled.cases WHERE open) c ORDER BY opened_at
"""

_CLOSED: Final = """
INSERT INTO cases (case_id, account_id, state, opened_at, updated_at, expected_loss, top_risk, typology, outcome,
                   alerts, disposition, reason, closed_at, closed_by, version, changed_by, due_at, money_held,
                   top_line, review)
SELECT case_id, account_id, 'closed', opened_at, last_at + interval '3 hours', loss, top_risk, typology, outcome,
       alerts, found, 'seen', last_at + interval '3 hours', who, alerts + 2, who, due_at, held, left(line, 200),
       CASE WHEN h % 100 < 2 THEN 'waiting' WHEN h % 100 < 5 THEN 'agreed' END
FROM (SELECT *, 'analyst-' || lpad((1 + h / 100 % {people})::text, 3, '0') AS who,
             CASE h % 4 WHEN 0 THEN 'confirmed_fraud' WHEN 1 THEN 'suspicious' ELSE 'false_positive' END AS found
      FROM filled.cases WHERE NOT open) c ORDER BY last_at;
INSERT INTO dispositions (case_id, disposition, reason, actor, at)
SELECT case_id, disposition, reason, closed_by, closed_at FROM cases WHERE state = 'closed' ORDER BY closed_at;
INSERT INTO alerts (decision_id, case_id, event_id, account_id, event_type, event_time, sequence, outcome, risk,
                    typology, amount_base)
SELECT a.decision_id, c.case_id, a.event_id, a.account_id, a.event_type, a.at, a.sequence, a.outcome, a.risk,
       a.typology, a.amount
FROM filled.alerts a JOIN filled.cases c USING (account, era) ORDER BY a.at;
ANALYZE cases; ANALYZE alerts;
"""


async def _cases(connection: asyncpg.Connection, size: Size) -> None:
    numbers = {name: round(minutes) for name, minutes in MINUTES.items()}
    await connection.execute(_CASES.format(open=size.open_cases, **numbers), timeout=1_200)
    await connection.execute(_OPEN.format(teams=len(TEAMS), people=PEOPLE), list(TEAMS), timeout=1_200)
    await connection.execute(_CLOSED.format(people=PEOPLE), timeout=1_200)
    found = await connection.fetchval("SELECT count(*) FROM cases WHERE state <> 'closed'")
    if found != size.open_cases:
        raise SystemExit(f"only {found:,} accounts have an alert: ask for more decisions")


_AROUND: Final = """
INSERT INTO case_notes (case_id, body, actor, at)
SELECT case_id, 'Called the customer, ' || k || ' times so far.', 'analyst-001', opened_at + make_interval(hours => k)
FROM filled.cases, generate_series(1, (h % 4)::integer) k WHERE h % 10 < 4 ORDER BY opened_at;
INSERT INTO case_links (a, b, reason, actor, at)
SELECT least(c.case_id, n), greatest(c.case_id, n), 'the same payee', 'analyst-001', opened_at
FROM (SELECT case_id, opened_at, h, lead(case_id) OVER (ORDER BY account) AS n FROM filled.cases WHERE open) c
WHERE h % 20 = 0 AND n IS NOT NULL;
INSERT INTO labels (event_id, account_id, event_time, target_event_id, source, verdict, typology)
SELECT 'analyst:' || a.event_id, a.account_id, c.closed_at, a.event_id, 'analyst',
       CASE c.disposition WHEN 'confirmed_fraud' THEN 'fraud' ELSE 'legitimate' END,
       CASE c.disposition WHEN 'confirmed_fraud' THEN a.typology END
FROM alerts a JOIN cases c USING (case_id) WHERE c.disposition <> 'suspicious' ORDER BY c.closed_at;
INSERT INTO evidence (decision_id, model, risk, body, made_at)
SELECT a.decision_id, 'starter', a.risk,
       json_build_array(json_build_array('line', a.sequence::text, 0.31), json_build_array('line', '1', 0.12),
                        json_build_array('feature', 'out_sum', 0.08), json_build_array('feature', 'amount', 0.05)),
       a.event_time + interval '2 s'
FROM alerts a JOIN cases c USING (case_id) WHERE c.state <> 'closed' AND a.risk IS NOT NULL ORDER BY a.event_time;
INSERT INTO entity_counts (kind, entity_id, day, transactions, frauds)
SELECT kind, entity, floor(extract(epoch FROM l.at) / 86400)::integer, count(*), count(*) FILTER (WHERE l.account < 9)
FROM filled.lines l JOIN filled.patterns p ON p.id = l.pattern,
     LATERAL (VALUES ('counterparty', p.counterparty), ('device', p.device), ('merchant', p.merchant)) e (kind, entity)
WHERE entity IS NOT NULL GROUP BY 1, 2, 3;
INSERT INTO entity_counts (kind, entity_id, day, transactions, frauds)
SELECT 'counterparty', md5('x' || n), 20000 + n % 90, 1 + n % 7, 0
FROM generate_series(1, (SELECT count(*) / 5 FROM filled.lines)) n;
ANALYZE filled.cases; CREATE INDEX ON filled.cases (case_id); CREATE INDEX ON filled.alerts (account, era);
"""


async def _around(connection: asyncpg.Connection) -> None:
    await connection.execute(_AROUND, timeout=1_200)


async def _audit(connection: asyncpg.Connection) -> None:
    """A claim and a verdict of each closed case, the claims that hold, hashed as decisions/audit.py does."""
    before = await connection.fetchrow("SELECT rows, hash FROM audit_chain")
    rows = await connection.fetch(
        """SELECT case_id, closed_by AS who, closed_at - interval '10 minutes' AS at, 'case.claim' AS action,
                  alerts + 1 AS version, NULL AS disposition FROM cases WHERE state = 'closed'
           UNION ALL
           SELECT case_id, closed_by, closed_at, 'case.dispose', alerts + 2, disposition FROM cases
           WHERE state = 'closed'
           UNION ALL
           SELECT case_id, claimed_by, updated_at, 'case.claim', version, NULL FROM cases WHERE state = 'investigating'
           ORDER BY 3, 1""",
        timeout=600,
    )
    last = before["hash"] if before["rows"] else START

    async def chained() -> AsyncIterator[tuple[Any, ...]]:
        nonlocal last
        for row in rows:
            detail: dict[str, Any] = {"version": row["version"]}
            if row["disposition"]:
                detail |= {"disposition": row["disposition"], "reason": "seen"}
            deed = Deed(row["at"], row["who"], row["action"], row["case_id"], detail)
            prev, last = last, digest(deed, last)
            yield (
                *(row[name] for name in ("at", "who", "action", "case_id")),
                orjson.dumps(detail).decode(),
                prev,
                last,
            )

    columns = ["at", "actor", "action", "subject", "detail", "prev_hash", "hash"]
    await connection.copy_records_to_table("audit", records=chained(), columns=columns, timeout=1_200)
    await connection.execute("UPDATE audit_chain SET rows = $1, hash = $2", before["rows"] + len(rows), last)

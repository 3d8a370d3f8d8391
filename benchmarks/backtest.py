"""`python -m benchmarks.backtest`: decisions a second that a backtest judges, from PostgreSQL and from a saved file.

Generated stories go through the pipeline with the model off, on an embedded PostgreSQL; their decisions and labels are
then repeated under other accounts until there are enough. Rows: the condition of one rule of the shipped pack changed
(where the others held is stored), and that of every rule (all are evaluated). Decisions/s are of `backtest.run`, as the
command calls it, less the time to check the rule files: by the clock, and by this process's CPU time; PostgreSQL works
on another core. `first` is how long the first decision took to arrive.
"""

import argparse
import asyncio
import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from pydantic import SecretStr

from fraudguard.assembly import load_parts, open_pipeline
from fraudguard.backtest import Source, run
from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.decisions.migrate import upgrade
from fraudguard.domain import Received
from fraudguard.embedded.postgres import EmbeddedPostgres, temporary_directory
from fraudguard.features.registry import features_in
from fraudguard.rulebook import read_pack
from fraudguard.stories import generate

START = datetime(2026, 10, 1, tzinfo=UTC)
BATCH = 64
CHANGED = "urgent-money-burst"

# The ids of an event, its account and its decision stand in the body as JSON strings of their own.
COPY = """
INSERT INTO {table} ({columns})
SELECT {values} FROM {table} CROSS JOIN generate_series($1::int, $2::int) AS copy
"""


async def fill(settings: Settings, lives: int, decisions: int) -> int:
    """Decide `lives` generated accounts, then repeat what is stored up to this many decisions. How many there are."""
    parts = load_parts(settings)
    events = [item.event for item in generate(5, lives, START, 20, 20, "train").events]
    async with open_pipeline(settings, parts, SystemClock()) as pipeline:
        for start in range(0, len(events), BATCH):
            now = datetime.now(UTC)
            await pipeline.screen([Received(event, now) for event in events[start : start + BATCH]])
    parts.close()
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        made: int = await connection.fetchval("SELECT count(*) FROM decisions")
        for table in ("decisions", "event_ids", "labels"):
            await copy(connection, table, max(0, decisions // made - 1))
        await connection.execute("ANALYZE")
        total: int = await connection.fetchval("SELECT count(*) FROM decisions")
        return total
    finally:
        await connection.close()


async def copy(connection: asyncpg.Connection, table: str, copies: int) -> None:
    """Repeat a table's rows so many times under other ids."""
    columns = [
        row["column_name"]
        for row in await connection.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position", table
        )
    ]
    ids = ("event_id", "decision_id", "account_id", "target_event_id")
    values = [f"{name} || '~' || copy" if name in ids else name for name in columns]
    if "body" in columns:
        body = "body::text"
        for name in ("event_id", "decision_id", "account_id"):
            body = f"""replace({body}, '"' || {name} || '"', '"' || {name} || '~' || copy || '"')"""
        values[columns.index("body")] = f"({body})::json"
    statement = COPY.format(table=table, columns=", ".join(columns), values=", ".join(values))
    if copies:
        await connection.execute(statement, 1, copies)


def changed(rules: Path, directory: Path, pattern: str) -> Path:
    """A copy of the rule files in which every rule that the pattern finds has another condition of the same meaning."""
    shutil.copytree(rules, directory)
    for path in directory.glob("*.yaml"):
        parts = re.split(r"(?m)^---\n", path.read_text(encoding="utf-8"))
        for i, part in enumerate(parts):
            if re.search(rf"(?m)^id: (?:{pattern})$", part):
                parts[i] = re.sub(r"(?m)^when: \|\n", "when: |\n  not amount < 0 and\n", part)
        path.write_text("---\n".join(parts), encoding="utf-8")
    return directory


async def measure(settings: Settings, source: Source) -> tuple[int, str]:
    """How many decisions one backtest judged, and the row of what it took."""
    began, cpu = time.perf_counter(), time.process_time()
    read_pack(settings.rules_dir, settings.policy_path, features_in(settings.base_currency)).close()
    checking, checking_cpu = time.perf_counter() - began, time.process_time() - cpu
    first: list[float] = []

    def advance() -> None:
        if not first:
            first.append(time.perf_counter())

    began, cpu = time.perf_counter(), time.process_time()
    count = await run(settings, source, None, advance)
    ended, cpu = time.perf_counter(), time.process_time() - cpu - checking_cpu
    total, wall = count.total.all, ended - began - checking
    waited = first[0] - began - checking
    return total, f"{total / wall:>12,.0f} | {total / cpu:>12,.0f} | {waited:>7.1f}"


async def report(settings: Settings, directory: Path) -> None:
    """The table."""
    saved = directory / "saved.jsonl"
    print("| decisions from | changed | decisions/s | decisions/s of CPU | first, s |")
    print("|---|---|---|---|---|")
    for name, pattern in (("one rule", re.escape(CHANGED)), ("every rule", r"\S+")):
        rules = directory / name.replace(" ", "-")
        changed(settings.rules_dir, rules, pattern)
        own = settings.model_copy(update={"rules_dir": rules})
        for origin, source in (
            ("PostgreSQL", Source(since=START)),
            ("PostgreSQL, saving", Source(since=START, save=saved)),
            ("file", Source(file=saved)),
        ):
            _, row = await measure(own, source)
            print(f"| {origin:<18} | {name:<10} | {row} |", flush=True)


def main() -> None:
    """Fill a database, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=100_000)
    parser.add_argument("--lives", type=int, default=120, help="generated accounts that are decided in full")
    options = parser.parse_args()
    with temporary_directory() as directory, EmbeddedPostgres(directory / "postgres") as database:
        upgrade(database.url)
        settings = Settings(database_url=SecretStr(database.url), model="off")
        began = time.perf_counter()
        total = asyncio.run(fill(settings, options.lives, options.decisions))
        print(f"{total:,} decisions stored in {time.perf_counter() - began:.0f} s\n")
        asyncio.run(report(settings, directory))


if __name__ == "__main__":
    main()

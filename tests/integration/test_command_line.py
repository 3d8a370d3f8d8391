"""The commands as a person types them."""

import asyncio
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import asyncpg
from cryptography.fernet import Fernet
from pydantic import SecretStr
from support import ROOT, fresh_topics, reading, send_raw, settings_for, wait_until

from fraudguard.config import Settings
from fraudguard.domain import Decision
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.errors import BadEvent
from fraudguard.events.dead_letter import DeadLetter
from fraudguard.events.schema import encode
from fraudguard.events.topics import DEAD_LETTERS, TRANSACTIONS
from fraudguard.stories import generate


def fraudguard(*words: str, settings: Settings | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    environment = os.environ | (settings.environment() if settings else {})
    line = [sys.executable, "-m", "fraudguard", *words]
    return subprocess.run(line, env=environment, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


def test_a_file_is_screened_and_its_decisions_can_be_proven(database_url: str, tmp_path: Path) -> None:
    """`screen` decides every good line in order and names the bad ones; `replay` proves a decision; again: the same."""
    settings = settings_for("unused:1", database_url)
    events = [item.event for item in generate(8, 10, datetime(2026, 10, 1, tzinfo=UTC), 1, 2, "train").events][:60]
    lines = [encode(event) for event in events]
    lines.insert(3, b"not json")
    lines.insert(7, b"")
    file, out, rejects = tmp_path / "events.jsonl", tmp_path / "decisions.jsonl", tmp_path / "rejects.jsonl"
    file.write_bytes(b"\n".join(lines))
    words = ("screen", str(file), "--out", str(out), "--rejects", str(rejects), "--keep")
    done = fraudguard(*words, settings=settings)
    assert done.returncode == 0, done.stderr
    decisions = [Decision.model_validate_json(line) for line in out.read_bytes().splitlines()]
    assert [decision.event_id for decision in decisions] == [event.event_id for event in events]
    assert [json.loads(line)["line"] for line in rejects.read_text().splitlines()] == [4]
    proof = fraudguard("replay", decisions[-1].decision_id, "--rescore", settings=settings)
    assert proof.returncode == 0, proof.stdout + proof.stderr
    assert "identical" in proof.stdout
    assert fraudguard(*words, settings=settings).returncode == 0
    assert [Decision.model_validate_json(line) for line in out.read_bytes().splitlines()] == decisions


def test_an_unknown_decision_is_an_error_for_people(database_url: str) -> None:
    """One line, no traceback, exit code 1."""
    done = fraudguard("replay", "no-such-id", settings=settings_for("unused:1", database_url))
    assert done.returncode == 1
    assert "no decision 'no-such-id'" in done.stderr
    assert "Traceback" not in done.stderr


def test_dead_letters_are_listed_and_sent_again_once(kafka: EmbeddedKafka, database_url: str) -> None:
    """`list` shows the reason and masks; `replay` puts the bytes back on their topic, and a second one does not."""
    settings = settings_for(kafka.bootstrap, database_url)
    fresh_topics(settings)
    raw = b'{"memo": "call 13812345678"'
    record = SimpleNamespace(
        topic=TRANSACTIONS, partition=0, offset=5, key=b"a-1", value=raw, timestamp=1_760_000_000.0, headers=()
    )
    error = BadEvent("the record is not JSON", code="bad_json", hint="send JSON")
    letter = DeadLetter.of(record, error, datetime.now(UTC))
    send_raw(settings, [(DEAD_LETTERS, b"a-1", letter.encode())])
    listed = fraudguard("dead-letters", "list", settings=settings)
    assert "bad_json" in listed.stdout, listed.stderr
    assert "<PHONE>" in listed.stdout
    assert "13812345678" not in listed.stdout
    assert "sent 1," in fraudguard("dead-letters", "replay", settings=settings).stdout
    assert "sent 0, sent before and left 1" in fraudguard("dead-letters", "replay", settings=settings).stdout
    values: list[bytes] = []
    with reading(settings, TRANSACTIONS) as consumer:

        def arrived() -> bool:
            values.extend(r.value for batch in consumer.poll(timeout_ms=100).values() for r in batch)
            return bool(values)

        wait_until(arrived, "the bytes are back on their topic")
    assert values == [raw]


def test_rules_check_names_the_place(tmp_path: Path) -> None:
    """A misspelt field is refused with file, line and column, and the nearest name."""
    (tmp_path / "mine.yaml").write_text(
        "id: mine\nversion: 1\nowner: me\ndescription: mine\nstate: live\nwhen: amont > 5\n"
        "outcome: review\nreason: MINE\nseverity: low\ncases: []\n",
        encoding="utf-8",
    )
    done = fraudguard("rules", "check", str(tmp_path))
    assert done.returncode == 1
    assert "mine.yaml:6:7" in done.stderr
    assert "amount" in done.stderr


def test_keys_are_shown_once_and_can_be_revoked(database_url: str) -> None:
    """The list has the id, never the secret."""
    settings = settings_for("unused:1", database_url)
    key = fraudguard("keys", "create", "analyst", "Lin Wei", settings=settings).stdout.strip()
    key_id = key.split("_")[1]
    listed = fraudguard("keys", "list", settings=settings).stdout
    assert key_id in listed
    assert key not in listed
    assert fraudguard("keys", "revoke", key_id, settings=settings).returncode == 0
    assert "revoked" in fraudguard("keys", "list", settings=settings).stdout


def test_the_audit_trail_is_verified(database_url: str) -> None:
    """Whole, with a hash to keep; at that hash; broken, with the row; and a hash that is nowhere."""
    settings = settings_for("unused:1", database_url)
    for owner in ("test", "bank"):
        fraudguard("keys", "create", "admin", owner, settings=settings)
    whole = fraudguard("audit", "verify", settings=settings)
    assert (whole.returncode, whole.stdout.splitlines()[0]) == (0, "whole: 2 rows")
    anchor = whole.stdout.splitlines()[1]
    assert fraudguard("audit", "verify", "--anchor", anchor, settings=settings).returncode == 0
    forged = fraudguard("audit", "verify", "--anchor", "0" * 63 + "1", settings=settings)
    assert (forged.returncode, "BROKEN at the end: no row has" in forged.stdout) == (1, True)

    async def harm() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("UPDATE audit SET actor = 'somebody else' WHERE id = 1")
        await connection.close()

    asyncio.run(harm())
    broken = fraudguard("audit", "verify", settings=settings)
    assert broken.returncode == 1
    assert broken.stdout.splitlines()[0] == "BROKEN at row 1: is not what was written"


def test_people_are_invited_changed_and_sent_away(database_url: str) -> None:
    """Passwords and codes are shown once, by the command that makes them; what cannot be done says why."""
    key = Fernet.generate_key().decode()
    settings = settings_for("unused:1", database_url, secrets_key=SecretStr(key))

    def users(*words: str) -> str:
        done = fraudguard("users", *words, settings=settings)
        return done.stdout if done.returncode == 0 else done.stderr

    first, second = users("create", "wang.wei", "analyst").strip(), users("reset", "wang.wei").strip()
    assert len({first, second}) == 2
    assert min(len(first), len(second)) >= 20
    assert "there is a user 'wang.wei' already" in users("create", "wang.wei", "analyst")
    assert "is no name" in users("create", "Wang Wei", "analyst")
    assert "is for machines" in users("create", "bank", "service")
    assert users("totp", "wang.wei").startswith("otpauth://totp/fraudguard:wang.wei?secret=")
    users("role", "wang.wei", "lead")
    listed = users("list")
    assert re.fullmatch(r"wang.wei +lead +\S+ \S+  one-time codes\n", listed)
    users("totp", "wang.wei", "--off")
    users("disable", "wang.wei")
    assert re.fullmatch(r"wang.wei +lead +\S+ \S+  disabled \S+ \S+\n", users("list"))
    assert "no user 'li.na'" in users("disable", "li.na")


def test_drift_is_printed_written_and_exposed(database_url: str, tmp_path: Path) -> None:
    """Stories of three weeks as a summary, page, picture, JSON and gauges; a contradiction is an error for people."""
    settings = settings_for("unused:1", database_url, model="off")
    told = generate(8, 6, datetime(2026, 10, 1, tzinfo=UTC), 15, 2, "train").events
    file, folder, gauges = tmp_path / "events.jsonl", tmp_path / "报告", tmp_path / "drift.prom"
    file.write_bytes(b"\n".join(encode(item.event) for item in told))
    assert fraudguard("screen", str(file), "--out", "/dev/null", "--keep", settings=settings).returncode == 0

    words = ("drift", "--format", "json", "--out", str(folder), "--textfile", str(gauges))
    done = fraudguard(*words, settings=settings)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data == json.loads((folder / "drift.json").read_text(encoding="utf-8"))
    assert [week["week"] for week in data["weeks"]][:3] == ["2026-W40", "2026-W41", "2026-W42"]
    decisions = sum(week[kind]["decisions"] for week in data["weeks"] for kind in ("transaction", "message"))
    assert decisions == len(told)
    assert (folder / "drift.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "fraudguard_drift_decisions{" in gauges.read_text(encoding="utf-8")

    page = (folder / "drift.md").read_text(encoding="utf-8")
    summary = fraudguard("drift", settings=settings).stdout.strip().splitlines()
    assert summary[0].startswith(f"Drift: {len(told):,} decisions")
    assert summary[2:] == page.splitlines()[2 : len(summary)]

    refused = fraudguard("drift", "--reference-from", "2026-10-01", settings=settings)
    assert refused.returncode == 1
    assert "need each other" in refused.stderr
    assert "Traceback" not in refused.stderr

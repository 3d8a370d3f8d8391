"""Small rule packs for tests: files as texts, packs of them, pipelines that start with them, and plain events."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from support import ROOT, settings_for

from fraudguard.assembly import Parts, open_pipeline
from fraudguard.clock import SystemClock
from fraudguard.domain import DecisionRecord, Event, Label, Message, Received, Transaction
from fraudguard.features.registry import features_in
from fraudguard.pipeline import Answer, Decided, Pipeline
from fraudguard.rulebook import POLICY_FILE, Pack, pack_of
from fraudguard.rules.registry import RuleSet

NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
FIELDS = features_in("CNY")
POLICY = (ROOT / "rules/policy.yaml").read_text(encoding="utf-8")


def rule(
    id: str,
    when: str,
    hit: str,
    *,
    no_hit: str = "{}",
    outcome: str = "review",
    state: str = "live",
    version: int = 1,
    others: str = "",
) -> str:
    """One rule; hit and no_hit are its two cases. others: more lines."""
    reason = id.upper().replace("-", "_")
    return (
        f"id: {id}\nversion: {version}\nowner: tests\ndescription: a test\nstate: {state}\nwhen: |\n  {when}\n"
        f"outcome: {outcome}\nreason: {reason}\nseverity: high\n{others}"
        f"cases:\n  - given: {hit}\n    expect: hit\n  - given: {no_hit}\n    expect: no_hit\n"
    )


def window(name: str, entity: str, aggregate: str, length: str, of: str = "", where: str = "") -> str:
    """One entry of features.yaml."""
    text = f"- name: {name}\n  owner: tests\n  meaning: a test\n  entity: {entity}\n  aggregate: {aggregate}\n"
    return text + f"  window: {length}\n" + (f"  of: {of}\n" if of else "") + (f"  where: {where}\n" if where else "")


def watch_list(name: str, kind: str, entity: str) -> str:
    """One entry of lists.yaml."""
    return f"- name: {name}\n  kind: {kind}\n  entity: {entity}\n  owner: tests\n  description: a test\n"


def files_of(
    rules: Sequence[str], windows: Sequence[str] = (), lists: Sequence[str] = (), policy: str = POLICY
) -> dict[str, str]:
    """The files of a pack by name."""
    files = {"rules.yaml": "---\n".join(rules), POLICY_FILE: policy}
    if windows:
        files["features.yaml"] = "".join(windows)
    if lists:
        files["lists.yaml"] = "".join(lists)
    return files


def checked(files: Mapping[str, str]) -> Pack:
    """The files as publishing takes them: tested and judged."""
    return pack_of(files, FIELDS)


def ready(files: Mapping[str, str]) -> Pack:
    """The same without the throw-away process, for packs that it would only slow down."""
    from fraudguard.decisions.policy import Policy

    sources = dict(files)
    policy = Policy.from_source(sources.pop(POLICY_FILE))
    return Pack(RuleSet.from_published(sources, FIELDS), policy)


def write(files: Mapping[str, str], directory: Path) -> dict[str, Path]:
    """Write the files; the settings that name them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    return {"rules_dir": directory, "policy_path": directory / POLICY_FILE}


@asynccontextmanager
async def opened(url: str, parts: Parts, pack: Pack | None = None, **others: object) -> AsyncIterator[Pipeline]:
    """A pipeline of its own on the database; the pack is put in force if nothing is."""
    settings = settings_for("unused:1", url, **others)
    async with open_pipeline(settings, replace(parts, pack=pack or parts.pack), SystemClock()) as pipeline:
        yield pipeline


def payment(event_id: str, account: str = "a-1", minute: float = 0, **others: object) -> Transaction:
    """A small transfer, `minute` minutes after noon."""
    fields: dict[str, Any] = {
        "type": "transaction", "version": 1, "event_id": event_id, "account_id": account,
        "event_time": NOON + timedelta(minutes=minute), "direction": "debit", "kind": "transfer", "channel": "app",
        "amount": Decimal("20.00"), "currency": "CNY", "counterparty_id": "c-1",
    }  # fmt: skip
    return Transaction.model_validate({**fields, **others})


def message(event_id: str, text: str, account: str = "a-1", minute: float = 0, **others: object) -> Message:
    """What the other side writes in a chat, `minute` minutes after noon."""
    fields: dict[str, Any] = {
        "type": "message", "version": 1, "event_id": event_id, "account_id": account,
        "event_time": NOON + timedelta(minutes=minute), "conversation_id": "k-1", "channel": "chat",
        "sender": "counterparty", "text": text,
    }  # fmt: skip
    return Message.model_validate({**fields, **others})


def label(event_id: str, target: str, account: str = "a-1", verdict: str = "fraud", day: float = 1) -> Label:
    """A chargeback, `day` days after noon."""
    return Label.model_validate(
        {
            "type": "label", "version": 1, "event_id": event_id, "account_id": account,
            "event_time": NOON + timedelta(days=day), "target_event_id": target, "source": "chargeback",
            "verdict": verdict,
        }
    )  # fmt: skip


def received(*events: Event) -> list[Received]:
    """As the door hands them over."""
    return [Received(event, datetime.now(UTC)) for event in events]


def records(answers: Sequence[Answer]) -> list[DecisionRecord]:
    """The decisions among the answers."""
    return [answer.record for answer in answers if isinstance(answer, Decided)]

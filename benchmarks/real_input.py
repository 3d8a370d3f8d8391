"""`python -m benchmarks.real_input --data DIRECTORY`: public data through Kafka to decisions, and how good they are.

DIRECTORY holds handbook/raw.parquet (card transactions), zh_teleantifraud/ and en_bothbosu_calls/ (calls, turn by
turn); finetune/README.md says where they come from. Conversion:
- a card transaction: customer -> account_id, terminal -> merchant_id, amount in EUR, its own time (UTC);
- a turn of a call: a message of channel `call` to an account of that call alone, 8 s after the turn before it. Only
  calls that the starter model was not trained on are used.
Prints how many decisions of each outcome, and the ROC AUC of the risk: at every card transaction, at each call's end.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from sklearn.metrics import roc_auc_score

from benchmarks.stream import Listener, send
from finetune.data import Dialogue, dialogues
from fraudguard import local
from fraudguard.config import Settings
from fraudguard.domain import Decision, Message, Screenable, Transaction
from fraudguard.embedded.postgres import temporary_directory

CALLS_FROM = datetime(2026, 10, 1, 9, tzinfo=UTC)
SETS = ("teleantifraud", "bothbosu")
AHEAD_MAX = 2_000  # events sent and not yet decided


def cards(data: Path, rows: int) -> Iterator[tuple[Transaction, bool]]:
    """The first rows of the chapter 3 training week (2018-07-25 on), with their truth."""
    frame = pd.read_parquet(data / "handbook" / "raw.parquet")
    frame = frame[frame["TX_DATETIME"] >= "2018-07-25"].head(rows)
    for row in frame.itertuples():
        event = {
            "type": "transaction", "version": 1, "event_id": f"card-{row.TRANSACTION_ID}",
            "account_id": f"customer-{row.CUSTOMER_ID}", "event_time": f"{row.TX_DATETIME.isoformat()}Z",
            "direction": "debit", "kind": "card", "channel": "card_present", "amount": f"{row.TX_AMOUNT:.2f}",
            "currency": "EUR", "merchant_id": f"terminal-{row.TERMINAL_ID}",
        }  # fmt: skip
        if row.TX_AMOUNT >= 0.01:  # the simulator makes some payments of nothing
            yield Transaction.model_validate(event), bool(row.TX_FRAUD)


def calls(data: Path, count: int) -> Iterator[tuple[list[Message], Dialogue]]:
    """Held-out calls of both sets, as messages."""
    held_out = [one for source in SETS for one in dialogues(data, source) if one.part == "test" and one.turns]
    for number, dialogue in enumerate(held_out[:count]):
        began = CALLS_FROM + timedelta(seconds=number)
        yield [
            Message.model_validate(
                {
                    "type": "message", "version": 1, "event_id": f"call-{number}-{turn}",
                    "account_id": f"call-{number}",
                    "event_time": began + timedelta(seconds=8 * turn), "conversation_id": f"k-{number}",
                    "channel": "call", "sender": sender, "language": dialogue.language, "text": text,
                }
            )
            for turn, (sender, text) in enumerate(dialogue.turns)
        ], dialogue  # fmt: skip


def auc(truth: list[bool], risk: list[float]) -> float | None:
    """ROC AUC; None where only one class is there."""
    return round(float(roc_auc_score(truth, risk)), 4) if len(set(truth)) == 2 else None


def main() -> None:
    """Convert, send, wait, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cards", type=int, default=50_000)
    parser.add_argument("--calls", type=int, default=2_000)
    options = parser.parse_args()
    transactions = list(cards(options.data, options.cards))
    conversations = list(calls(options.data, options.calls))
    events: list[Screenable] = [event for event, _ in transactions]
    events += sorted((m for messages, _ in conversations for m in messages), key=lambda m: m.event_time)
    with temporary_directory() as directory, local.services(Settings(), directory) as (settings, _, _):
        worker = local.start("worker", settings, directory / "worker.log")
        listener = Listener(settings.kafka_bootstrap)
        began = time.monotonic()
        try:
            for start in range(0, len(events), AHEAD_MAX):
                part = events[start : start + AHEAD_MAX]
                send(settings, part)
                listener.await_all(part)
            seconds = time.monotonic() - began
        finally:
            listener.close()
            local.stop(worker)
    decisions = listener.decisions
    print(json.dumps(summary(decisions, transactions, conversations) | {"seconds": round(seconds, 1)}, indent=2))


def summary(
    decisions: dict[str, Decision],
    transactions: list[tuple[Transaction, bool]],
    conversations: list[tuple[list[Message], Dialogue]],
) -> dict[str, object]:
    """Counts by outcome and AUC, by set."""
    rows: dict[str, object] = {
        "handbook": {
            "events": len(transactions),
            "frauds": sum(truth for _, truth in transactions),
            "outcomes": Counter(decisions[event.event_id].outcome.value for event, _ in transactions),
            "auc": auc([t for _, t in transactions], [decisions[e.event_id].risk or 0.0 for e, _ in transactions]),
        }
    }
    for source in SETS:
        mine = [(messages, dialogue) for messages, dialogue in conversations if dialogue.source == source]
        ends = [decisions[messages[-1].event_id].risk or 0.0 for messages, _ in mine]
        worst = [
            max((decisions[m.event_id].outcome for m in messages), key=lambda o: o.severity) for messages, _ in mine
        ]
        rows[source] = {
            "calls": len(mine),
            "messages": sum(len(messages) for messages, _ in mine),
            "frauds": sum(dialogue.fraud for _, dialogue in mine),
            "outcomes": Counter(decisions[m.event_id].outcome.value for messages, _ in mine for m in messages),
            "worst_outcome_of_frauds": Counter(w.value for w, (_, d) in zip(worst, mine, strict=True) if d.fraud),
            "worst_outcome_of_harmless": Counter(w.value for w, (_, d) in zip(worst, mine, strict=True) if not d.fraud),
            "auc_at_the_end": auc([dialogue.fraud for _, dialogue in mine], ends),
        }
    return rows


if __name__ == "__main__":
    main()

"""`python -m benchmarks.stream`: events/s and latency through Kafka, with and without the model, and where time goes.

Starts the embedded Kafka and PostgreSQL and one worker for each model setting, in turn, on the same events:
1. capacity: a backlog is worked off; events/s from the first to the last decision.
2. latency: events are sent at a fixed rate (open loop) below capacity; a latency runs from the moment an event was
   due to be sent to the moment its decision was read by a consumer.
3. stages: the worker's own clock per stage of a batch, as a share of the backlog's wall time.
Parity: both settings must decide every event, and number each account's events 1, 2, 3...
"""

import argparse
import json
import os
import platform
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from fraudguard import local
from fraudguard.config import Settings
from fraudguard.domain import Decision, Screenable
from fraudguard.embedded.postgres import temporary_directory
from fraudguard.embedded.supervisor import free_port
from fraudguard.events.schema import encode
from fraudguard.events.topics import DECISIONS, MESSAGES, TRANSACTIONS
from fraudguard.stories import generate

STALL_S = 120.0


class Listener:
    """Reads the decisions topic on a thread; notes when each event's decision arrived."""

    def __init__(self, bootstrap: str) -> None:
        self.arrived: dict[str, float] = {}
        self.decisions: dict[str, Decision] = {}
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap, auto_offset_reset="latest", enable_auto_commit=False, fetch_max_wait_ms=20
        )
        partitions = [TopicPartition(DECISIONS, p) for p in self._consumer.partitions_for_topic(DECISIONS)]
        self._consumer.assign(partitions)
        self._consumer.seek_to_end(*partitions)
        for partition in partitions:
            self._consumer.position(partition)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            for records in self._consumer.poll(timeout_ms=50).values():
                now = time.monotonic()
                for record in records:
                    decision = Decision.model_validate_json(record.value)
                    self.arrived.setdefault(decision.event_id, now)
                    self.decisions[decision.event_id] = decision

    def await_all(self, events: Sequence[Screenable]) -> None:
        """Until each event has a decision; an error when nothing arrives for STALL_S."""
        wanted = {event.event_id for event in events}
        seen, since = -1, time.monotonic()
        while not wanted <= self.arrived.keys():
            if len(self.arrived) != seen:
                seen, since = len(self.arrived), time.monotonic()
            if time.monotonic() - since > STALL_S:
                raise SystemExit(f"{len(wanted - self.arrived.keys())} events were never decided")
            time.sleep(0.02)

    def close(self) -> None:
        """Stop listening."""
        self._stopped.set()
        self._thread.join()
        self._consumer.close()


def send(settings: Settings, events: Sequence[Screenable], rate: float | None = None) -> dict[str, float]:
    """Send in order, all at once or `rate` a second; when each event was due."""
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all", linger_ms=0 if rate else 5)
    due: dict[str, float] = {}
    began = time.monotonic()
    for number, event in enumerate(events):
        due[event.event_id] = began + number / rate if rate else began
        while rate and (wait := due[event.event_id] - time.monotonic()) > 0:
            time.sleep(wait)
        topic = TRANSACTIONS if event.type == "transaction" else MESSAGES
        producer.send(topic, key=event.account_id.encode(), value=encode(event))
    producer.close()
    return due


def stages(port: int) -> dict[str, float]:
    """Seconds the worker has spent in each stage so far."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    return {
        sample.labels["stage"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "fraudguard_stage_seconds_sum"
    }


def measure(
    settings: Settings, model: str, events: Sequence[Screenable], rates: Sequence[float], log: Path
) -> dict[str, object]:
    """One model setting's figures. `events` are split: warm-up, backlog, then one part a rate."""
    settings = settings.model_copy(
        update={"model": model, "metrics_port": free_port(), "consumer_group": f"bench-{model}"}
    )
    warm, backlog = events[:200], events[200 : len(events) - 2000]
    worker = local.start("worker", settings, log)
    listener = Listener(settings.kafka_bootstrap)
    try:
        send(settings, warm)
        listener.await_all(warm)
        before = stages(settings.metrics_port)
        due = send(settings, backlog)
        listener.await_all(backlog)
        arrived = [listener.arrived[event.event_id] for event in backlog]
        seconds = max(arrived) - min(due.values())
        spent = stages(settings.metrics_port)
        figures: dict[str, object] = {
            "model": model,
            "events": len(backlog),
            "events_per_s": round(len(backlog) / seconds, 1),
            "stage_share": {name: round((spent[name] - before.get(name, 0)) / seconds, 3) for name in spent},
        }
        rest = list(events[len(events) - 2000 :])
        for rate in rates:
            part, rest = rest[: int(rate * 8)], rest[int(rate * 8) :]
            due = send(settings, part, rate)
            listener.await_all(part)
            waits = [listener.arrived[e.event_id] - due[e.event_id] for e in part]
            ranks = (50, 95, 99)
            shares = zip(ranks, np.percentile(waits, ranks), strict=True)
            figures[f"latency_ms_at_{rate:g}_per_s"] = {f"p{rank}": round(1000 * wait, 1) for rank, wait in shares}
        sequences: dict[str, list[int]] = {}
        for decision in listener.decisions.values():
            sequences.setdefault(decision.account_id, []).append(decision.sequence)
        figures["parity"] = all(sorted(given) == list(range(1, len(given) + 1)) for given in sequences.values())
        return figures
    finally:
        listener.close()
        local.stop(worker)


def main() -> None:
    """Run, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=8_000, help="in the backlog")
    parser.add_argument("--rates", type=float, nargs="*", default=[50, 150], help="events/s of the latency runs")
    parser.add_argument("--models", nargs="*", default=["starter", "off"])
    options = parser.parse_args()
    total = options.events + 2200
    cast = generate(3, max(300, total // 12), datetime(2026, 10, 1, tzinfo=UTC), 3, max(10, total // 250), "train")
    events = [item.event for item in cast.events[:total]]
    rows = []
    for model in options.models:
        # A database and topics of its own for each: the same events must be new to both.
        with temporary_directory() as directory, local.services(Settings(), directory) as (settings, _, _):
            rows.append(measure(settings, model, events, options.rates, directory / "worker.log"))
    print(json.dumps({"machine": platform.platform(), "cpus": os.cpu_count(), "rows": rows}, indent=2))
    if not all(row["parity"] for row in rows):
        raise SystemExit("void: an account's events were not numbered 1, 2, 3...")


if __name__ == "__main__":
    main()

"""The Kafka topics by name, and how they are made.

Knows what each topic needs so that nothing is lost; knows no records. Making them is idempotent and changes nothing
that exists: what an operator made otherwise is told, never mended.
"""

import logging
from collections.abc import Mapping
from typing import Any

import kafka.errors
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from fraudguard.config import Settings
from fraudguard.errors import BadSettings, BrokerUnavailable

log = logging.getLogger(__name__)

TRANSACTIONS = "transactions"
MESSAGES = "messages"
LABELS = "labels"
DECISIONS = "decisions"
DEAD_LETTERS = "dead_letters"

# One partition number means one account's worker on all three, so their counts must agree.
INPUTS = (TRANSACTIONS, MESSAGES, LABELS)

# A dead letter carries the whole record in base64 (see dead_letter.RAW_BYTES_MAX), so its topic takes larger records.
DEAD_LETTER_BYTES_MAX = 16 << 20
DEAD_LETTER_DAYS = 30
_TIMEOUT_MS = 30_000
CONNECT_MS = 10_000
_APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}


def ensure_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing and return their names.

    Raises BadSettings when an input topic exists with another partition count than the settings say (nothing is created
    then), BrokerUnavailable when Kafka does not answer or refuses.
    """
    try:
        with KafkaAdminClient(
            bootstrap_servers=settings.kafka_bootstrap, request_timeout_ms=_TIMEOUT_MS, bootstrap_timeout_ms=CONNECT_MS
        ) as admin:
            existing = _partitions(admin)
            _check(existing, settings)
            missing = [name for name in _wanted(settings) if name not in existing]
            if missing:
                _create(admin, {name: _wanted(settings)[name] for name in missing})
                _check(_partitions(admin), settings)  # somebody else may have been first
            _warn_of_client_time(admin)
            return missing
    except kafka.errors.KafkaError as error:
        raise BrokerUnavailable(f"cannot make the topics at {settings.kafka_bootstrap}: {error}") from error


def _wanted(settings: Settings) -> dict[str, dict[str, Any]]:
    """Every topic as kafka-python's create_topics takes it."""
    replication = settings.topic_replication
    # One replica may be away without stopping the writers, and an acknowledged record is on all others.
    durable = {"min.insync.replicas": str(max(1, replication - 1)), "unclean.leader.election.enable": "false"}
    letters = {
        "max.message.bytes": str(DEAD_LETTER_BYTES_MAX),
        "retention.ms": str(DEAD_LETTER_DAYS * 86_400_000),
        "compression.type": "gzip",
    }
    configs = dict.fromkeys((*INPUTS, DECISIONS), durable | _APPEND_TIME)
    configs[DEAD_LETTERS] = durable | _APPEND_TIME | letters
    return {
        name: {
            "num_partitions": settings.topic_partitions,
            "replication_factor": replication,
            "configs": config,
        }
        for name, config in configs.items()
    }


def _partitions(admin: KafkaAdminClient) -> dict[str, int]:
    """Partition counts of all topics, by name."""
    return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}


def _check(existing: Mapping[str, int], settings: Settings) -> None:
    counts = {name: existing[name] for name in INPUTS if name in existing}
    if any(count != settings.topic_partitions for count in counts.values()):
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        alike = set(counts.values())
        fix = (
            f"set FRAUDGUARD_TOPIC_PARTITIONS={alike.pop()}"
            if len(alike) == 1
            else "give transactions, messages and labels the same count: an account must have one number on all three"
        )
        raise BadSettings(
            f"is {settings.topic_partitions}, but Kafka has {found} partitions", path="topic_partitions", hint=fix
        )


def _create(admin: KafkaAdminClient, topics: Mapping[str, Mapping[str, Any]]) -> None:
    answer = admin.create_topics(dict(topics), timeout_ms=_TIMEOUT_MS, raise_errors=False)
    for topic in answer["topics"]:
        problem = kafka.errors.for_code(topic["error_code"])
        if problem not in (kafka.errors.NoError, kafka.errors.TopicAlreadyExistsError):
            detail = topic.get("error_message") or problem.__name__
            raise BrokerUnavailable(f"Kafka refused to create the topic {topic['name']}: {detail}")
    admin.wait_for_topics(list(topics), timeout_ms=_TIMEOUT_MS)


def _warn_of_client_time(admin: KafkaAdminClient) -> None:
    """The lead an event may have is measured against the broker's clock; a topic with client time trusts the sender."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, _APPEND_TIME) for name in INPUTS]
    for topics in admin.describe_configs(resources, config_filter="all").values():
        for name, config in topics.items():
            if config["message.timestamp.type"]["value"] != "LogAppendTime":
                log.warning("topic %s uses its clients' time; set message.timestamp.type=LogAppendTime on it", name)

"""Making the topics on a real Kafka."""

import logging

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from fraudguard.config import Settings
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.errors import BadSettings, BrokerUnavailable
from fraudguard.events import topics


@pytest.fixture
def admin(kafka: EmbeddedKafka):
    """An admin client on a Kafka without our topics, before and after."""
    with KafkaAdminClient(bootstrap_servers=kafka.bootstrap) as client:
        _remove(client)
        yield client
        _remove(client)


def _ours(admin: KafkaAdminClient) -> dict[str, int]:
    names = {*topics.INPUTS, topics.DECISIONS, topics.DEAD_LETTERS}
    return {t["name"]: len(t["partitions"]) for t in admin.describe_topics() if t["name"] in names}


def _remove(admin: KafkaAdminClient) -> None:
    if existing := _ours(admin):
        admin.delete_topics(list(existing))
        while _ours(admin):  # bounded by the test's timeout
            pass


def test_topics_are_made_once(kafka, admin):
    """The first call makes all five, the second none, with the partitions and bounds that losing nothing needs."""
    settings = Settings(kafka_bootstrap=kafka.bootstrap, topic_partitions=3)
    assert sorted(topics.ensure_topics(settings)) == sorted(
        ["transactions", "messages", "labels", "decisions", "dead_letters"]
    )
    assert topics.ensure_topics(settings) == []
    assert set(_ours(admin).values()) == {3}
    resource = ConfigResource(ConfigResourceType.TOPIC, topics.DEAD_LETTERS)
    (described,) = admin.describe_configs([resource], config_filter="all").values()
    config = {name: entry["value"] for name, entry in described[topics.DEAD_LETTERS].items()}
    assert config["max.message.bytes"] == str(topics.DEAD_LETTER_BYTES_MAX)
    assert config["message.timestamp.type"] == "LogAppendTime"
    assert config["min.insync.replicas"] == "1"


def test_other_partition_counts_are_refused_and_nothing_is_made(kafka, admin):
    """An input topic with another partition count is a settings error that says the fix."""
    admin.create_topics({topics.MESSAGES: {"num_partitions": 5, "replication_factor": 1}}, wait_for_metadata=True)
    with pytest.raises(BadSettings, match=r"topic_partitions: is 3, but Kafka has messages 5 partitions") as raised:
        topics.ensure_topics(Settings(kafka_bootstrap=kafka.bootstrap, topic_partitions=3))
    assert raised.value.hint == "set FRAUDGUARD_TOPIC_PARTITIONS=5"
    assert _ours(admin) == {topics.MESSAGES: 5}


def test_unequal_partition_counts_are_refused(kafka, admin):
    """Inputs that differ among themselves cannot be mended by a setting, and the hint says so."""
    admin.create_topics(
        {
            topics.MESSAGES: {"num_partitions": 5, "replication_factor": 1},
            topics.LABELS: {"num_partitions": 3, "replication_factor": 1},
        },
        wait_for_metadata=True,
    )
    with pytest.raises(BadSettings) as raised:
        topics.ensure_topics(Settings(kafka_bootstrap=kafka.bootstrap, topic_partitions=3))
    assert "the same count" in raised.value.hint


def test_client_time_is_told(kafka, admin, caplog):
    """A topic that somebody made with its clients' time is used, with a warning that names it."""
    admin.create_topics({topics.LABELS: {"num_partitions": 3, "replication_factor": 1}}, wait_for_metadata=True)
    with caplog.at_level(logging.WARNING):
        topics.ensure_topics(Settings(kafka_bootstrap=kafka.bootstrap, topic_partitions=3))
    assert [r.getMessage() for r in caplog.records if "clients' time" in r.getMessage()] == [
        "topic labels uses its clients' time; set message.timestamp.type=LogAppendTime on it"
    ]


def test_too_much_replication_is_told(kafka, admin):
    """What Kafka refuses is passed on in its own words."""
    with pytest.raises(BrokerUnavailable, match="refused to create the topic"):
        topics.ensure_topics(Settings(kafka_bootstrap=kafka.bootstrap, topic_replication=3))

"""The parts of the embedded Kafka that need no broker: the lock file, the probe, the directory."""

import socket
import struct
import threading
from pathlib import Path

import pytest

from fraudguard.embedded import kafka
from fraudguard.embedded.kafka import EmbeddedKafka, Jar
from fraudguard.embedded.supervisor import free_port
from fraudguard.errors import ServiceFailed


def answer_once(reply):
    """A server on loopback that answers its first request with these bytes and closes; its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        with server, server.accept()[0] as client:
            client.recv(1024)
            client.sendall(reply)

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def metadata(brokers, cluster):
    """A Metadata response, version 5, as the protocol's description lays it out."""
    body = struct.pack(">iii", 1, 0, len(brokers))
    for node, host, rack in brokers:
        body += struct.pack(">ih", node, len(host)) + host + struct.pack(">i", 9092)
        body += struct.pack(">h", -1) if rack is None else struct.pack(">h", len(rack)) + rack
    body += struct.pack(">h", len(cluster)) + cluster + struct.pack(">ii", 1, 0)
    return struct.pack(">i", len(body)) + body


@pytest.mark.parametrize(
    "brokers",
    [[(1, b"127.0.0.1", None)], [(1, b"a", b"rack-1"), (2, b"broker.example", None)], [(1, b"", b"")]],
)
def test_probe_reads_the_cluster_id_behind_any_brokers(brokers):
    """Host and rack of any length are stepped over."""
    assert kafka.cluster_at(answer_once(metadata(brokers, b"the-cluster"))) == "the-cluster"


def test_broker_that_has_not_registered_is_not_ready():
    """An answer without brokers comes from a node that still starts."""
    assert kafka.cluster_at(answer_once(metadata([], b"the-cluster"))) is None


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\0\0",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack(">i", 100) + b"short",
        struct.pack(">i", -1),
        struct.pack(">i", 16) + b"\xff" * 16,
        metadata([(1, b"h", None)], b"\xff\xfe"),
    ],
)
def test_probe_survives_strangers(reply):
    """Whatever else listens there is not a broker, and is no exception either."""
    assert kafka.cluster_at(answer_once(reply)) is None


def test_probe_of_a_port_where_nobody_listens():
    """Nobody there is None."""
    assert kafka.cluster_at(free_port()) is None


def test_lock_file_names_one_version_of_each_jar():
    """Coordinates are unique, hashes are SHA-256, and every Kafka jar is of one release."""
    jars = kafka.locked_jars()
    assert len(jars) == 46
    assert len({(jar.group, jar.artifact) for jar in jars}) == len(jars)
    assert all(len(jar.sha256) == 64 and int(jar.sha256, 16) for jar in jars)
    assert {jar.version for jar in jars if jar.group == "org.apache.kafka"} == {"4.3.1"}


def test_jar_lies_where_maven_puts_it():
    """The cache is an ordinary Maven layout."""
    jar = Jar("org.apache.kafka", "kafka-clients", "4.3.1", "0" * 64)
    assert jar.path == Path("org/apache/kafka/kafka-clients/4.3.1/kafka-clients-4.3.1.jar")


def test_cache_may_be_put_elsewhere(monkeypatch, tmp_path):
    """FRAUDGUARD_KAFKA_CACHE wins over the home directory."""
    monkeypatch.setenv("FRAUDGUARD_KAFKA_CACHE", str(tmp_path))
    assert kafka.cache_dir() == tmp_path
    monkeypatch.delenv("FRAUDGUARD_KAFKA_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert kafka.cache_dir() == Path("/home/somebody/.cache/fraudguard/kafka")


def test_directory_that_kafka_cannot_name_is_refused(tmp_path):
    """A comma would make two directories of one in Kafka's configuration."""
    with pytest.raises(ServiceFailed, match="no comma"):
        EmbeddedKafka(tmp_path / "one,two")


def test_cache_that_cannot_be_written_is_explained(tmp_path):
    """A home that is a file, say, is a clear error of `prepare` with the way out."""
    (tmp_path / "home").touch()
    with pytest.raises(ServiceFailed, match="set FRAUDGUARD_KAFKA_CACHE"):
        kafka.prepare(tmp_path / "home/cache")

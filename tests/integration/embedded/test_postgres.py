"""The real PostgreSQL through restarts, crashes, taken ports and several users of one directory."""

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import asyncpg
import psutil
import pytest

from fraudguard.embedded import postgres as module
from fraudguard.embedded.postgres import EmbeddedPostgres
from fraudguard.embedded.supervisor import free_port
from fraudguard.errors import ServiceFailed


def query(url, statement):
    """The statement's first value, over a connection of its own."""

    async def run():
        connection = await asyncpg.connect(url, timeout=10)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def answers(url):
    """Whether a query goes through now."""
    try:
        return query(url, "SELECT 1") == 1
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False


def test_restart_keeps_data_port_and_password(room):
    """A second start on the directory finds the rows, on the same URL."""
    service = EmbeddedPostgres(room / "pg")
    with service:
        url = service.url
        query(url, "CREATE TABLE kept AS SELECT 42 AS value")
    assert not answers(url)
    with service:
        assert service.url == url
        assert query(url, "SELECT value FROM kept") == 42


def test_it_is_durable_private_and_loopback_only(room):
    """fsync is on, a wrong password is refused, files are closed to others, and only 127.0.0.1 listens."""
    with EmbeddedPostgres(room / "pg") as service:
        settings = query(
            service.url,
            "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN"
            " ('fsync', 'synchronous_commit', 'full_page_writes', 'max_connections', 'listen_addresses')",
        )
        assert settings == (
            "fsync=on full_page_writes=on listen_addresses=127.0.0.1 max_connections=100 synchronous_commit=on"
        )
        with pytest.raises(asyncpg.InvalidPasswordError):
            query(f"postgresql://fraudguard:wrong@127.0.0.1:{service.port}/fraudguard", "SELECT 1")
        server = psutil.Process(service.pid)
        listening = {c.laddr for c in server.net_connections("all") if c.status == psutil.CONN_LISTEN}
        assert listening == {("127.0.0.1", service.port)}
        assert server.uids().real != 0
        assert stat.S_IMODE((room / "pg/password").stat().st_mode) == 0o600
        assert stat.S_IMODE((room / "pg/pg").stat().st_mode) == 0o700


def test_what_people_wrote_never_reaches_the_log(room):
    """A failing statement and the row it failed on leave no trace of their values."""
    with EmbeddedPostgres(room / "pg") as service:
        query(service.url, "CREATE TABLE once (words text PRIMARY KEY)")
        query(service.url, "INSERT INTO once VALUES ('my secret words')")
        with pytest.raises(asyncpg.UniqueViolationError):
            query(service.url, "INSERT INTO once VALUES ('my secret words')")
        log = (room / "pg/server.log").read_text()
    assert "duplicate key" in log
    assert "secret" not in log


def test_killed_server_is_restarted_with_its_data(room, wait_for):
    """kill -9 of the postmaster: it is back on the same URL with every committed row."""
    with EmbeddedPostgres(room / "pg") as service:
        url = service.url
        query(url, "CREATE TABLE kept AS SELECT 42 AS value")
        killed = service.pid
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: service.restarts == 1 and answers(url), 15)
        assert service.pid != killed
        assert service.url == url
        assert query(url, "SELECT value FROM kept") == 42


def test_server_that_keeps_dying_fails_for_good(room, wait_for):
    """When the data is beyond repair the restarts end, and the error shows PostgreSQL's own words."""
    with EmbeddedPostgres(room / "pg") as service:
        (room / "pg/pg/global/pg_control").write_bytes(b"\0" * 8192)
        os.kill(service.pid, signal.SIGKILL)
        wait_for(lambda: not service._thread.is_alive(), 30)
        with pytest.raises(ServiceFailed, match=r"died 6 times(.|\n)*database files are incompatible"):
            _ = service.url


def test_stop_may_come_in_the_middle_of_a_restart(room):
    """Killed and stopped at once, again and again: nothing is left running and nothing stays locked."""
    service = EmbeddedPostgres(room / "pg")
    for pause_s in (0, 0.05, 0.1, 0.15, 0.2, 0.3):
        with service:
            os.kill(service.pid, signal.SIGKILL)
            threading.Event().wait(pause_s)
        data = str(room / "pg/pg")
        assert not [p for p in psutil.process_iter(["cmdline"]) if data in (p.info["cmdline"] or [])]


def test_server_dies_with_its_owner_and_the_next_one_recovers(room, owners, wait_for):
    """kill -9 of the owning process: its server ends within a bound; the next owner finds every row."""
    owner = owners("postgres", room / "pg")
    url = f"postgresql://fraudguard:{(room / 'pg/password').read_text()}@127.0.0.1:{owner.port}/fraudguard"
    query(url, "CREATE TABLE kept AS SELECT 42 AS value")
    owner.kill()
    wait_for(lambda: not owner.server.is_running(), 10)
    with EmbeddedPostgres(room / "pg") as service:
        assert service.owner
        assert service.url == url
        assert query(url, "SELECT value FROM kept") == 42


def test_owner_and_server_killed_together(room, owners):
    """kill -9 of both leaves a stale postmaster.pid and shared memory; the next start does not mind."""
    owner = owners("postgres", room / "pg")
    owner.process.kill()
    owner.server.kill()
    owner.process.wait()
    with EmbeddedPostgres(room / "pg") as service:
        assert query(service.url, "SELECT 1") == 1


def test_pid_of_a_dead_server_may_belong_to_another_program_now(room):
    """A postmaster.pid that names a living stranger does not keep the server from starting."""
    service = EmbeddedPostgres(room / "pg")
    with service:
        os.kill(service.pid, signal.SIGSTOP)
        stale = (room / "pg/pg/postmaster.pid").read_text().split("\n", 1)[1]
        os.kill(service.pid, signal.SIGCONT)
    owner = (room / "pg/pg").stat()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    # Of the same account: PostgreSQL itself only doubts processes that it could signal.
    same = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    command = ["sleep", "60"] if same else command
    with subprocess.Popen(command, cwd="/", **same) as stranger:
        try:
            (room / "pg/pg/postmaster.pid").write_text(f"{stranger.pid}\n{stale}")
            with service:
                assert query(service.url, "SELECT 1") == 1
        finally:
            stranger.kill()


def test_second_process_is_a_guest_and_takes_over(room, owners, wait_for):
    """A second user of the directory gets the same URL; when the owner dies, the guest runs the server there."""
    owner = owners("postgres", room / "pg")
    with EmbeddedPostgres(room / "pg") as guest:
        url = guest.url
        assert not guest.owner
        assert (guest.port, guest.pid) == (owner.port, owner.server.pid)
        assert "supervised by another process" in guest.describe()
        query(url, "CREATE TABLE kept AS SELECT 42 AS value")
        owner.kill()
        wait_for(lambda: guest.owner and answers(url), 20)
        assert guest.url == url
        assert query(url, "SELECT value FROM kept") == 42
        assert "supervised by this process" in guest.describe()


def test_guest_leaves_the_server_running(room, owners):
    """A guest's end does not touch the owner's server."""
    owner = owners("postgres", room / "pg")
    with EmbeddedPostgres(room / "pg") as guest:
        url = guest.url
    assert owner.server.is_running()
    assert query(url, "SELECT 1") == 1


def test_taken_port(room):
    """A port that was asked for must be free; the one remembered from last time need not be."""
    with EmbeddedPostgres(room / "pg") as service:
        remembered = service.port
    with socket.create_server(("127.0.0.1", remembered)):
        with pytest.raises(ServiceFailed, match=f"port {remembered} is taken"):
            EmbeddedPostgres(room / "pg", port=remembered).start()
        with EmbeddedPostgres(room / "pg") as service:
            assert service.port != remembered
            assert query(service.url, "SELECT 1") == 1


def test_given_port(room):
    """A port that is given and free is used."""
    port = free_port()
    with EmbeddedPostgres(room / "pg", port=port) as service:
        assert service.port == port
        assert query(service.url, "SELECT 1") == 1


def test_half_made_cluster_is_never_found(room):
    """What an initdb that was killed left behind is removed, and the directory starts."""
    (room / "pg/init-dead/pg").mkdir(parents=True)
    (room / "pg").chmod(0o711)
    with EmbeddedPostgres(room / "pg") as service:
        assert query(service.url, "SELECT 1") == 1
    assert not list((room / "pg").glob("init-*"))


def test_places_that_only_their_owner_can_reach(room, root, monkeypatch):
    """Binaries and directory below a 0700 directory: root's server uses the system's place."""
    closed = room / "closed"
    closed.mkdir(mode=0o700)
    wheel = module.wheel_binaries()
    for part in (wheel, wheel.parents[1] / f"{wheel.parent.name}.libs"):
        shutil.copytree(part, closed / part.relative_to(wheel.parents[1]), symlinks=True)
    system = room / "system"
    monkeypatch.setattr(module, "wheel_binaries", lambda: closed / wheel.relative_to(wheel.parents[1]))
    monkeypatch.setattr(module, "SYSTEM_DIR", system)
    umask = os.umask(0o077)
    service = EmbeddedPostgres(closed / "pg")
    try:
        for _ in range(2):  # made, then found again
            with service:
                assert query(service.url, "SELECT 1") == 1
                assert Path(psutil.Process(service.pid).exe()).is_relative_to(system if root else closed)
                assert (closed / "pg/pg").is_symlink() == root
                assert (closed / "pg/pg").resolve().is_relative_to(system if root else closed)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_describe_names_what_runs(room):
    """Product, version, pid, address and data directory are in one line."""
    with EmbeddedPostgres(room / "pg") as service:
        line = service.describe()
        assert line.startswith(f"PostgreSQL 18.4, pid {service.pid}")
        assert f"127.0.0.1:{service.port}, data in {room}/pg/pg" in line

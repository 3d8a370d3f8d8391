"""The doctor finds what is missing, says how to get it, and never breaks on a poor machine."""

import importlib.metadata
import socket
from pathlib import Path

import pytest

from fraudguard import doctor
from fraudguard.config import Settings
from fraudguard.embedded.supervisor import free_port


@pytest.fixture
def plain(monkeypatch, tmp_path):
    """Settings of somebody who has set nothing but a place."""
    for name in ("DATABASE_URL", "FRAUDGUARD_DATABASE_URL", "FRAUDGUARD_KAFKA_BOOTSTRAP"):
        monkeypatch.delenv(name, raising=False)
    return Settings(state_dir=tmp_path)


def test_this_machine_can_run_everything(plain):
    """Where the tests run, all that this suite uses is found."""
    findings = {finding.name: finding for finding in doctor.examine(plain)}
    for name in ("Python", "platform", "loopback", "packages for the worker", "JRE for Kafka", "PostgreSQL binaries"):
        assert findings[name].ok, findings[name]
    assert findings["PostgreSQL binaries"].found == "postgres (PostgreSQL) 18.4"
    assert findings["JRE for Kafka"].found.startswith("openjdk 25.")
    assert {"Kafka", "PostgreSQL"}.isdisjoint(findings)  # nothing external is configured


@pytest.mark.parametrize(("url", "needed"), [(None, "the model"), ("http://gpu-1:8000", "the model on a server")])
def test_the_packages_follow_where_the_model_is(plain, url, needed):
    """A worker beside a model's server is not asked for transformers."""
    findings = doctor.examine(plain.model_copy(update={"engine_url": url}))
    models = [finding for finding in findings if finding.name.startswith("packages for the model")]
    assert [finding.name for finding in models if finding.needed] == [f"packages for {needed}"]


def test_every_finding_that_is_not_ok_has_a_fix(plain, monkeypatch, tmp_path):
    """On a machine without jars, packages, compiler, memory or space each finding still says what to do."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("FRAUDGUARD_KAFKA_CACHE", str(tmp_path / "nothing"))
    monkeypatch.setattr(doctor, "MEMORY_BYTES_MIN", 2**60)
    monkeypatch.setattr(doctor, "DISK_BYTES_MIN", 2**60)
    monkeypatch.setattr(doctor, "_installed", lambda package: False)
    bad = [finding for finding in doctor.examine(plain) if not finding.ok]
    assert {finding.name for finding in bad} >= {
        "C compiler and Python headers",
        "memory",
        "disk",
        "packages for fraudguard itself",
        "packages for the model",
        "Kafka's jars",
    }
    assert all(finding.fix and finding.found for finding in bad)


def test_an_onnx_release_needs_no_torch(plain, tmp_path):
    """Its own packages are needed then, and those only."""

    def needed(model):
        findings = {finding.name: finding for finding in doctor.examine(plain.model_copy(update={"model": model}))}
        return [findings[f"packages for {purpose}"].needed for purpose in ("the model", "an ONNX model")]

    (tmp_path / "fp32.onnx").touch()
    assert needed(str(tmp_path)) == [False, True]
    assert needed("starter") == [True, False]
    assert needed("off") == [False, False]


@pytest.mark.parametrize(("version", "ok"), [((3, 10), False), ((3, 11), True), ((3, 14), True), ((3, 15), False)])
def test_python(version, ok):
    """The versions that pyproject.toml admits."""
    assert doctor.python(version).ok is ok


@pytest.mark.parametrize(
    ("system", "processor", "ok"),
    [("Linux", "x86_64", True), ("Linux", "aarch64", True), ("Linux", "riscv64", False), ("Darwin", "arm64", False)],
)
def test_machine(system, processor, ok):
    """The platforms that both wheels and the supervisor know."""
    assert doctor.machine(system, processor).ok is ok


def test_headers_that_are_missing_are_named_with_their_package(monkeypatch, tmp_path):
    """Debian's package name is in the fix."""
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    finding = doctor.compiler()
    assert not finding.ok
    assert finding.found.endswith("-dev")
    assert "-dev" in finding.fix


def test_packages_are_those_of_the_extra(monkeypatch):
    """Each extra is looked up by itself, by the names in fraudguard's own metadata."""
    lines = ["orjson>=3", 'faust-streaming==0.15.3; extra == "stream"', 'no-such-package>=1; extra == "stream"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert doctor.packages("", "base").found == "1 present"
    finding = doctor.packages("stream", "the worker", needed=False)
    assert (finding.ok, finding.found, finding.needed) == (False, "missing: no-such-package", False)
    assert "fraudguard[stream]" in finding.fix


def test_taken_port_is_found():
    """A port that something listens on, a free one, and one that is chosen later."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = doctor.port("API port", server.getsockname()[1], "FRAUDGUARD_API_PORT")
    assert not taken.ok
    assert "FRAUDGUARD_API_PORT" in taken.fix
    assert doctor.port("API port", free_port(), "FRAUDGUARD_API_PORT").ok
    assert doctor.port("API port", 0, "FRAUDGUARD_API_PORT").ok


def test_data_directory_that_cannot_be_made(tmp_path):
    """A file in the way is found before anything starts."""
    (tmp_path / "file").touch()
    assert not doctor.writable(tmp_path / "file/var").ok
    assert doctor.writable(tmp_path / "new/var").ok
    assert not (tmp_path / "new").exists()


def test_model_that_is_not_there(plain, tmp_path):
    """A release folder without a release is found, whatever the starter is."""
    assert not doctor.model(plain.model_copy(update={"model": str(tmp_path)})).ok
    (tmp_path / "release.json").touch()
    assert doctor.model(plain.model_copy(update={"model": str(tmp_path)})).ok


def test_configured_servers_that_do_not_answer(tmp_path):
    """Both are named with their address, the password is not shown, and our own are not needed then."""
    closed = free_port()
    settings = Settings(
        state_dir=tmp_path,
        kafka_bootstrap=f"127.0.0.1:{closed}",
        database_url=f"postgresql://somebody:secret@127.0.0.1:{closed}/fraud",
    )
    findings = {finding.name: finding for finding in doctor.examine(settings)}
    assert not findings["Kafka"].ok
    assert not findings["PostgreSQL"].ok
    assert findings["PostgreSQL"].found.startswith(f"127.0.0.1:{closed}/fraud: ")
    assert "secret" not in repr(findings)
    assert not findings["Kafka's jars"].needed
    assert not findings["PostgreSQL binaries"].needed


def test_looking_writes_nothing(plain, monkeypatch, tmp_path):
    """Neither the data directory nor the cache is made."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("FRAUDGUARD_KAFKA_CACHE", str(cache))
    doctor.examine(plain.model_copy(update={"state_dir": tmp_path / "var"}))
    assert list(Path(tmp_path).iterdir()) == []

"""What is said before pip starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from fraudguard import preflight


def test_a_machine_without_a_compiler_is_told_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cc and no gcc on PATH: Debian's names come back."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert {"gcc", "libc6-dev"} <= set(preflight.missing_packages())
    assert preflight.apt_command() is None


def test_what_cannot_be_installed_is_named_and_stops_the_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without apt the command to type is printed, and make stops."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert preflight.main() == 1
    assert "sudo apt-get install gcc" in capsys.readouterr().out


def test_it_needs_the_standard_library_alone() -> None:
    """It runs before anything is installed: isolated, without site-packages."""
    root = Path(preflight.__file__).parents[1]
    line = f"import sys; sys.path.insert(0, {str(root)!r}); import fraudguard.preflight as p; sys.exit(p.main())"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

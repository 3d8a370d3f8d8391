"""`python3 -m fraudguard.preflight`: what must be there before pip can install; standard library only.

durable_rules is built from source, which takes a C compiler and Python's headers; the environment takes Python's venv
module, which Debian packages apart. Missing ones are installed with apt where that needs no password; otherwise the
command to type is printed.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

PYTHON_MIN = (3, 11)


def missing_packages() -> list[str]:
    """Debian's names of what is not here."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    missing = []
    if not shutil.which(os.environ.get("CC", "cc")) and not shutil.which("gcc"):
        missing += ["gcc", "libc6-dev"]
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        missing.append(f"{python}-dev")
    if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        missing.append(f"{python}-venv")
    return missing


def apt_command() -> list[str] | None:
    """How apt-get runs here without asking for a password, or None."""
    if not shutil.which("apt-get"):
        return None
    if os.geteuid() == 0:
        return ["apt-get"]
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:  # noqa: S607  sudo is found on PATH on purpose
        return ["sudo", "-n", "apt-get"]
    return None


def main() -> int:
    """0 when pip can start."""
    if sys.version_info < PYTHON_MIN:
        print(f"fraudguard needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}.")
        print("Name another one: make PYTHON=/path/to/python3.11 demo")
        return 1
    missing = missing_packages()
    if not missing:
        return 0
    apt = apt_command()
    if apt:
        print(f"installing {' '.join(missing)} with apt-get")
        subprocess.run([*apt, "update", "-qq"], check=False)  # noqa: S603  fixed words
        subprocess.run([*apt, "install", "-y", "-qq", *missing], check=False)  # noqa: S603  fixed words
        missing = missing_packages()
    if missing:
        print(f"Missing: {', '.join(missing)}. Install them, for example: sudo apt-get install {' '.join(missing)}")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())

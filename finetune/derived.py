"""A release made of another one: a copy to change, which appears under its own name whole or not at all.

A release that exists is never changed: decisions name it.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fraudguard.errors import BadModel

MANIFEST = "release.json"
# Of the release that it was made from, and no longer true.
_STALE = ("metrics",)


@contextmanager
def derived(source: Path, out: Path, suffix: str, **changes: Any) -> Iterator[Path]:
    """A copy of the release in `source` to work on; when the block ends without an error it is renamed to `out`.

    suffix: makes its version, "1.0.0" -> "1.0.0-suffix". changes: to release.json; None takes a field out. Raises
    BadModel where `out` exists.
    """
    if out.exists():
        raise BadModel("there is something already", path=str(out), hint="name a folder that is not there yet")
    staging = out.with_name(out.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(source, staging)
    try:
        content: dict[str, Any] = json.loads((staging / MANIFEST).read_bytes())
        for name in _STALE:
            if name in content:
                (staging / content.pop(name)).unlink(missing_ok=True)
        content |= {"version": f"{content['version']}-{suffix}"} | changes
        kept = {name: value for name, value in content.items() if value is not None}
        (staging / MANIFEST).write_text(json.dumps(kept, indent=1) + "\n")
        yield staging
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for file in out.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes files that only their owner reads

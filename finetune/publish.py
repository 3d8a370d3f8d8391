"""A release's folder: made beside its place, then put there whole.

Knows files and release.json; what the parts hold is their makers' business.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `out` when all has gone well; until then `out` stays as it is."""
    staging = out.with_name(out.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    yield staging
    shutil.rmtree(out, ignore_errors=True)
    staging.rename(out)
    for file in out.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes files that only their owner reads


def write_manifest(
    folder: Path, *, name: str, version: str, description: str, prefix: str, base: str = "base",
    adapter: str | None = "adapter",
) -> None:  # fmt: skip
    """release.json, last of all: without it the folder is no release. base: its folder, or a hub id with its commit."""
    manifest = {
        "format": 1, "name": name, "version": version, "description": description,
        "base": base, "adapter": adapter, "head": "head", "prefix": prefix,
    }  # fmt: skip
    (folder / "release.json").write_text(json.dumps(manifest, indent=1) + "\n")

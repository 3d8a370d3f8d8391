"""A release made of another one: a copy to change, which appears under its own name whole or not at all.

A release that exists is never changed: decisions name it. The copy is not sealed: measure it first.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune.publish import staged
from fraudguard.engine.release import SUMS, Release
from fraudguard.errors import BadInput, BadModel

MANIFEST = "release.json"


@contextmanager
def derived(source: Release, out: Path, suffix: str, made: tuple[str, ...] = (), **changes: Any) -> Iterator[Path]:
    """A copy of the release to work on; when the block ends without an error it stands under `out`.

    suffix: makes its version, "1.0.0" -> "1.0.0-suffix". made: folders that are not copied, because the block makes
    them. changes: to release.json; None takes a field out. Raises BadModel where `out` exists.
    """
    if out.exists():
        raise BadModel("there is something already", path=str(out), hint="name a folder that is not there yet")
    content: dict[str, Any] = json.loads((source.folder / MANIFEST).read_bytes())
    stale = {SUMS, MANIFEST, content.pop("metrics", None), *made}  # its measures were of the other one
    content |= {"version": f"{content['version']}-{suffix}"} | changes
    with staged(out) as folder:
        shutil.copytree(
            source.folder, folder, dirs_exist_ok=True,
            ignore=lambda place, names: stale & set(names) if Path(place) == source.folder else set(),
        )  # fmt: skip
        kept = {name: value for name, value in content.items() if value is not None}
        (folder / MANIFEST).write_text(json.dumps(kept, indent=1) + "\n")
        yield folder


def alone(release: Release) -> Release:
    """The release, which must have no tenants. Raises BadInput."""
    if release.tenants:
        hint = "their adapters are of its base: make a release of one tenant, without the others"
        raise BadInput("the release has tenants", path=str(release.folder), hint=hint)
    return release

"""A release's folder: made beside its place, then put there whole.

Knows files and release.json; what the parts hold is their makers' business.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from fraudguard.domain import TIMELINE_VERSION


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


def write_papers(folder: Path, dataset: Path, base: str) -> dict[str, str]:
    """What says of the release where it is from, as far as DATASET has a card; by the name in release.json.

    data.json and data.md are the card; LICENCE.md names the base and everything that was learned from.
    """
    if not (dataset / "card.json").is_file():
        return {}
    card = json.loads((dataset / "card.json").read_bytes())
    shutil.copyfile(dataset / "card.json", folder / "data.json")
    shutil.copyfile(dataset / "card.md", folder / "data.md")
    lines = [
        "# Licence and attribution",
        "",
        f"The base, {base}, has a licence of its own. Adapter and head were trained on",
    ]
    lines += ["the sets below; none of their texts is in this folder.", ""]
    if card["measuring_only"]:
        lines += ["**For measuring only: one of them forbids to pass on what was trained on it.**", ""]
    lines += ["| set | licence | attribution |", "|---|---|---|"]
    lines += [f"| {of['title']} | {of['licence']} | {of['attribution']} |" for of in card["licences"].values()]
    (folder / "LICENCE.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"data": "data.json", "licence": "LICENCE.md"}


def write_manifest(
    folder: Path, *, name: str, version: str, description: str, prefix: str, base: str = "base",
    adapter: str | None = "adapter", papers: Mapping[str, str] = MappingProxyType({}),
) -> None:  # fmt: skip
    """release.json, last of all: without it the folder is no release.

    base: its folder, or a hub id with its commit. papers: of write_papers.
    """
    manifest = {
        "format": 1, "name": name, "version": version, "description": description,
        "base": base, "adapter": adapter, "head": "head", "prefix": prefix, "timeline": TIMELINE_VERSION, **papers,
    }  # fmt: skip
    (folder / "release.json").write_text(json.dumps(manifest, indent=1) + "\n")

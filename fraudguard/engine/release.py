"""A release: the folder whose release.json names a base checkpoint, a LoRA adapter and a head.

Knows where the parts are, fetches those given by hub id, and seals a folder: SHA256SUMS names every file in it, and its
hash names the whole. Reads no weights and imports no torch, so a process that only counts tokens can open it too.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from huggingface_hub import snapshot_download
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fraudguard.domain import TIMELINE_VERSION
from fraudguard.errors import BadModel

STARTER = Path(__file__).parent / "starter"
SUMS: Final = "SHA256SUMS"  # of every other file in the folder, as sha256sum writes and checks it
_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w.-]+))?")
# No pickles and no Python: a checkpoint brings numbers, never code.
_FETCHED = ("*.json", "*.safetensors", "*.txt")
_COMMIT = re.compile(r"[0-9a-f]{40}")

_Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


class TenantManifest(BaseModel):
    """One of release.json's tenants. adapter: trained from the release's base. head: with the same tokens_max."""

    model_config = _STRICT

    adapter: str
    head: str


class Manifest(BaseModel):
    """release.json. base, adapter and head: a folder beside it, an absolute path, or a hub id `owner/name[@revision]`.

    base: a Qwen2 checkpoint with its tokenizer.json. adapter: a peft LoRA adapter, merged on loading; null for none.
    activations: a file beside it, made by finetune/calibrate_activations.py: the ranges for the calibrated precisions.
    graph: PRECISION.onnx beside it: this is an ONNX release (engine/onnx_export.py), whose parts are all in its folder.
    prefix: text that the model reads before every timeline, such as an instruct checkpoint's system prompt.
    tenants: those with an adapter and a head of their own; with any, no adapter is merged.
    timeline: the version of the lines that it was trained on (domain.TIMELINE_VERSION); null: nobody said.
    data, metrics, licence: files beside it: the data set's card, measures (engine/release_metrics.py), licence and
    attribution.
    """

    model_config = _STRICT

    format: Literal[1]
    name: _Word
    version: _Word
    description: str = ""
    base: str
    adapter: str | None = None
    head: str
    activations: str | None = None
    graph: str | None = None
    prefix: str = ""
    tenants: dict[_Word, TenantManifest] = Field(default_factory=dict)
    timeline: int | None = None
    data: str | None = None
    metrics: str | None = None
    licence: str | None = None

    @property
    def parts(self) -> dict[str, str]:
        """References to base, adapters and heads, by role."""
        own = {"base": self.base, "head": self.head} | ({} if self.adapter is None else {"adapter": self.adapter})
        for name, tenant in self.tenants.items():
            own |= {f"tenants.{name}.adapter": tenant.adapter, f"tenants.{name}.head": tenant.head}
        return own

    @property
    def files(self) -> dict[str, str]:
        """The files beside it that it names, by role."""
        named = {
            "activations": self.activations,
            "graph": self.graph,
            "data": self.data,
            "metrics": self.metrics,
            "licence": self.licence,
        }
        return {role: name for role, name in named.items() if name is not None}


@dataclass(frozen=True, slots=True)
class TenantParts:
    """A tenant's own parts, folders of this machine."""

    adapter: Path
    head: Path


@dataclass(frozen=True, slots=True)
class Release:
    """A release whose parts are folders of this machine. tenants: by name."""

    name: str
    version: str
    folder: Path
    base: Path
    adapter: Path | None
    head: Path
    graph: Path | None = None
    activations: Path | None = None
    metrics: Path | None = None
    licence: Path | None = None
    timeline: int | None = None
    prefix: str = ""
    tenants: Mapping[str, TenantParts] = field(default_factory=dict)


def open_release(source: Path | str) -> Release:
    """The release in folder `source`, or the one that ships with the package for "starter". Raises BadModel.

    Parts named by hub id are fetched unless they are in the local hub cache.
    """
    # Resolved: a link may point elsewhere by the time its tokenizer is asked for.
    folder = STARTER if source == "starter" else Path(source).resolve()
    manifest = _manifest(folder)
    if manifest.timeline not in (None, TIMELINE_VERSION):
        raise BadModel(
            f"was trained on timelines of version {manifest.timeline}, this build writes version {TIMELINE_VERSION}",
            path=str(folder),
            hint="train it again on timelines of this build, or run the build that it was made for",
        )
    return Release(
        manifest.name,
        manifest.version,
        folder,
        base=_part(folder, "base", manifest.base),
        adapter=None if manifest.adapter is None else _part(folder, "adapter", manifest.adapter),
        head=_part(folder, "head", manifest.head),
        graph=None if manifest.graph is None else folder / manifest.graph,
        prefix=manifest.prefix,
        tenants={
            name: TenantParts(
                adapter=_part(folder, f"tenants.{name}.adapter", tenant.adapter),
                head=_part(folder, f"tenants.{name}.head", tenant.head),
            )
            for name, tenant in manifest.tenants.items()
        },
        activations=None if manifest.activations is None else folder / manifest.activations,
        metrics=None if manifest.metrics is None else folder / manifest.metrics,
        licence=None if manifest.licence is None else folder / manifest.licence,
        timeline=manifest.timeline,
    )


def seal(folder: Path) -> str:
    """Write SHA256SUMS over every other file of a release's folder; its digest. From now on nothing in it may change.

    Raises BadModel where the folder is not the whole release: a part or a file that release.json names is elsewhere.
    """
    names = _whole(folder)
    lines = [f"{sha256(folder / name)}  {name}\n" for name in sorted(names)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    return sha256(folder / SUMS)


def verify(folder: Path) -> str:
    """The digest of a sealed release: the SHA-256 of its SHA256SUMS, in hexadecimal digits.

    Raises BadModel unless the folder is the whole release and holds exactly the files that SHA256SUMS names, unchanged.
    """
    hint = "copy the folder again"
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        seals = "fraudguard model seal FOLDER writes it once the release is complete"
        raise BadModel(f"there is no readable {SUMS}", path=str(folder), hint=seals) from error
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    present = _whole(folder)
    if missing := sorted(sums.keys() - present):
        raise BadModel(f"there is no {missing[0]}", path=str(folder), hint=hint)
    if stray := sorted(present - sums.keys()):
        raise BadModel(f"{SUMS} does not name {stray[0]}", path=str(folder), hint="remove it, or copy the folder again")
    for name, digest in sums.items():
        if sha256(folder / name) != digest:
            raise BadModel(f"is not the file that {SUMS} names", path=str(folder / name), hint=hint)
    return sha256(folder / SUMS)


def sha256(path: Path) -> str:
    """The hash of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(folder: Path) -> Manifest:
    file = folder / "release.json"
    if not file.is_file():
        raise BadModel("there is no release.json", path=str(folder), hint='give a release folder, or "starter"')
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadModel(f"{where}: {first['msg']}", path=str(file)) from error


def _whole(folder: Path) -> set[str]:
    """The names of all files but SHA256SUMS. Raises BadModel where something that makes the release is not in there."""
    manifest, path = _manifest(folder), str(folder / "release.json")
    for role, reference in manifest.parts.items():
        hub = _HUB_ID.fullmatch(reference)
        pinned = hub is not None and _COMMIT.fullmatch(hub["revision"] or "")
        if not (folder / reference).is_dir() and pinned:
            continue  # a commit names its content
        if not (folder / reference).is_dir() or not (folder / reference).resolve().is_relative_to(folder.resolve()):
            hint = "copy it into the folder, or name a hub id with its commit: owner/name@40 digits"
            raise BadModel(f"{role}: {reference} is not in the folder", path=path, hint=hint)
    names: set[str] = set()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if (Path(place) / name).is_symlink():
                raise BadModel("is a link, whose target may change", path=str(Path(place) / name), hint="copy the file")
        names |= {(Path(place) / name).relative_to(folder).as_posix() for name in files}
    for role, name in manifest.files.items():
        if name not in names:
            raise BadModel(f"{role}: there is no {name}", path=path)
    return names - {SUMS}


def _part(folder: Path, role: str, reference: str) -> Path:
    local = folder / reference  # an absolute reference replaces the folder
    if local.is_dir():
        return local
    if _HUB_ID.fullmatch(reference) is None:
        raise BadModel(f"{role}: there is no folder {local}", path=str(folder / "release.json"))
    try:
        return fetch(reference)
    except BadModel as error:
        reason = f"{role}: neither a folder {local} nor a repository to be had: {error.reason}"
        raise BadModel(reason, path=str(folder / "release.json"), hint=error.hint) from error


def fetch(reference: str) -> Path:
    """The checkpoint with the hub id `owner/name[@revision]`, unless the local hub cache has it. Raises BadModel.

    The folder is called after its commit.
    """
    hub = _HUB_ID.fullmatch(reference)
    if hub is None:
        raise BadModel(f"{reference} is neither a folder nor a hub id", hint="a hub id is owner/name@revision")
    try:
        return Path(
            snapshot_download(hub["repository"], revision=hub["revision"], allow_patterns=list(_FETCHED)).rstrip("/")
        )
    except Exception as error:  # the hub client raises many kinds, from OSError to HTTP errors
        raise BadModel(
            f"{reference}: {error}", hint="without a network, fetch it beforehand or give its folder"
        ) from error

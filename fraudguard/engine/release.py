"""A release: the folder whose release.json names a base checkpoint, a LoRA adapter and a head.

Knows where the parts are and fetches those given by hub id; reads no weights and imports no torch, so a process that
only counts tokens can open it too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from huggingface_hub import snapshot_download
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fraudguard.errors import BadModel

STARTER = Path(__file__).parent / "starter"
_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w.-]+))?")
# No pickles and no Python: a checkpoint brings numbers, never code.
_FETCHED = ("*.json", "*.safetensors", "*.txt")

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
    base: Path
    adapter: Path | None
    head: Path
    graph: Path | None = None
    activations: Path | None = None
    prefix: str = ""
    tenants: Mapping[str, TenantParts] = field(default_factory=dict)


def open_release(source: Path | str) -> Release:
    """The release in folder `source`, or the one that ships with the package for "starter". Raises BadModel.

    Parts named by hub id are fetched unless they are in the local hub cache.
    """
    # Resolved: a link may point elsewhere by the time its tokenizer is asked for.
    folder = STARTER if source == "starter" else Path(source).resolve()
    file = folder / "release.json"
    if not file.is_file():
        raise BadModel("there is no release.json", path=str(folder), hint='give a release folder, or "starter"')
    try:
        manifest = Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadModel(f"{where}: {first['msg']}", path=str(file)) from error
    return Release(
        manifest.name,
        manifest.version,
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
    )


def _part(folder: Path, role: str, reference: str) -> Path:
    local = folder / reference  # an absolute reference replaces the folder
    if local.is_dir():
        return local
    if _HUB_ID.fullmatch(reference) is None:
        raise BadModel(f"{role}: there is no folder {local}", path=str(folder / "release.json"))
    try:
        return fetch(reference)
    except BadModel as error:
        reason = f"{role}: there is no folder {local}, and {error.reason}"
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
            f"{reference} cannot be had: {error}", hint="without a network, fetch it beforehand or give its folder"
        ) from error

"""release.json: parts beside it, by absolute path, or from the hub's cache."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fraudguard.engine.release import STARTER, open_release
from fraudguard.errors import BadModel


def _edit(folder: Path, **changes: object) -> None:
    file = folder / "release.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_starter_is_the_packaged_release() -> None:
    """The word and the folder mean the same."""
    assert open_release("starter") == open_release(STARTER)


def test_the_starter_is_small() -> None:
    """All files of the shipped release together stay under 25 MB."""
    assert sum(file.stat().st_size for file in STARTER.rglob("*") if file.is_file()) < 25e6


def test_parts_may_lie_elsewhere(make_release: Callable[..., Path], tmp_path: Path) -> None:
    """An absolute path names a folder anywhere."""
    folder = make_release()
    shutil.move(folder / "base", tmp_path / "elsewhere")
    _edit(folder, base=str(tmp_path / "elsewhere"))
    assert open_release(folder).base == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "nowhere"}, r"base: there is no folder .*nowhere"),
        ({"head": "/no/such/folder"}, r"head: there is no folder /no/such/folder"),
        ({"format": 2}, r"format: Input should be 1"),
        ({"version": "1 0"}, r"version: String should match"),
        ({"tenants": {"bank": {"adapter": "adapter"}}}, r"tenants\.bank\.head: Field required"),
        (
            {"tenants": {"bank": {"adapter": "none", "head": "head"}}},
            r"tenants\.bank\.adapter: there is no folder .*none",
        ),
        ({"tenants": {"a/b": {"adapter": "adapter", "head": "head"}}}, r"tenants\.a/b.*: String should match"),
        ({"prefix": None}, r"prefix: Input should be a valid string"),
        ({"bass": "base"}, r"bass: Extra inputs are not permitted"),
    ],
)
def test_a_bad_manifest_is_refused(make_release: Callable[..., Path], changes: dict[str, object], message: str) -> None:
    """The error names the file and what is wrong in it."""
    folder = make_release()
    _edit(folder, **changes)
    with pytest.raises(BadModel, match=message) as refused:
        open_release(folder)
    assert "release.json" in refused.value.path


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    """The error says what to give instead."""
    with pytest.raises(BadModel, match=r"no release\.json.*starter"):
        open_release(tmp_path)


def _hub(cache: Path, repository: str, part: Path) -> None:
    """Store a folder in a hub cache the way the hub's client does."""
    place = cache / f"models--{repository.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    shutil.copytree(part, place / "snapshots" / commit)


def test_parts_come_from_the_hub_cache_without_a_network(make_release: Callable[..., Path], tmp_path: Path) -> None:
    """A base, adapter and head named by hub id load offline and score as the same folders do."""
    folder = make_release()
    for part in ("base", "adapter", "head"):
        _hub(tmp_path / "hub", f"someone/{part}", folder / part)
    remote = tmp_path / "remote"
    remote.mkdir()
    shutil.copy(folder / "release.json", remote)
    _edit(remote, base="someone/base@main", adapter="someone/adapter", head="someone/head")
    code = (
        "import sys; from pathlib import Path; from fraudguard.engine.release import open_release;"
        "from fraudguard.engine.loader import load;"
        "a, b = (load(open_release(Path(p)), 'fp32').backbone.state_dict() for p in sys.argv[1:]);"
        "assert all((a[k] == b[k]).all() for k in a) and len(a) == len(b) > 10"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(remote)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_hub_id_that_cannot_be_had_is_refused(
    make_release: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline and not in the cache: the error says so, and how to mend it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = make_release()
    _edit(folder, base="someone/missing")
    with pytest.raises(BadModel, match=r"base: neither a folder .* nor a repository .*fetch it beforehand"):
        open_release(folder)

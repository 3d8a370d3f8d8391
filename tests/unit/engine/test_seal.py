"""A sealed release: whole, unchanged, and named by one digest; and the measures that it brings."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sealed import MEASURES, metrics_of, sealed

from fraudguard.engine.engine import Engine
from fraudguard.engine.release import STARTER, SUMS, open_release, seal, sha256, verify
from fraudguard.engine.release_metrics import read_metrics
from fraudguard.errors import BadModel
from fraudguard.measures import Metrics


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed release that the test may damage."""
    return sealed(tmp_path / "release", "1.0.0")


def _edit(folder: Path, **changes: object) -> None:
    file = folder / "release.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_the_starter_is_sealed_and_brings_its_licence() -> None:
    """Whoever changes a file of it seals it again: `fraudguard model seal fraudguard/engine/starter`."""
    assert verify(STARTER) == sha256(STARTER / SUMS)
    licence = open_release("starter").licence
    assert licence is not None
    assert "Apache License 2.0" in licence.read_text(encoding="utf-8")


def test_sha256sum_checks_a_seal(folder: Path) -> None:
    """The file is in coreutils' own form and names everything."""
    done = subprocess.run(["sha256sum", "-c", "--strict", SUMS], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {SUMS}
    assert {line.partition(": ")[0] for line in done.stdout.splitlines()} == files


def test_a_digest_names_the_content_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    """A copy has it too, sealing again does not change it, another version has another."""
    digest = verify(folder)
    assert seal(folder) == digest
    assert verify(Path(shutil.copytree(folder, tmp_path / "copy"))) == digest
    assert verify(sealed(tmp_path / "other", "1.0.1")) != digest


def test_every_way_to_be_another_folder_is_found(folder: Path) -> None:
    """A changed file, one more, one less, no seal: each by its name, with what to do."""
    weights = folder / "head" / "head.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BadModel, match=r"head\.safetensors: is not the file that SHA256SUMS names .copy the folder"):
        verify(folder)
    weights.write_bytes(content)
    (folder / "base" / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(BadModel, match=r"SHA256SUMS does not name base/model\.safetensors\.index\.json .remove it"):
        verify(folder)
    (folder / "base" / "model.safetensors.index.json").unlink()
    verify(folder)
    weights.unlink()
    with pytest.raises(BadModel, match=r"there is no head/head\.safetensors"):
        verify(folder)
    (folder / SUMS).unlink()
    with pytest.raises(BadModel, match=r"no readable SHA256SUMS .fraudguard model seal"):
        verify(folder)


@pytest.mark.parametrize("part", ["base", "adapter", "head"])
def test_what_is_elsewhere_cannot_be_sealed(folder: Path, tmp_path: Path, part: str) -> None:
    """An absolute path, a way out of the folder, a hub id that may change; its commit names its content."""
    shutil.move(folder / part, tmp_path / "elsewhere")
    for reference in (str(tmp_path / "elsewhere"), "../elsewhere", "someone/base", "someone/base@main"):
        _edit(folder, **{part: reference})
        with pytest.raises(BadModel, match=rf"{part}: {reference} is not in the folder .*40 digits"):
            seal(folder)
    _edit(folder, **{part: "someone/base@" + "0" * 40})
    assert seal(folder) == verify(folder)


def test_links_cannot_be_sealed(folder: Path, tmp_path: Path) -> None:
    """What they point to may change without a trace here."""
    shutil.move(folder / "head", tmp_path / "head")
    (folder / "head").symlink_to(tmp_path / "head")
    with pytest.raises(BadModel, match="head is not in the folder"):
        seal(folder)
    (folder / "head").unlink()
    shutil.move(tmp_path / "head", folder / "head")
    (folder / "notes.md").symlink_to(tmp_path / "notes.md")
    with pytest.raises(BadModel, match=r"notes\.md: is a link"):
        seal(folder)


@pytest.mark.parametrize("role", ["activations", "data", "metrics", "licence"])
def test_a_named_file_must_be_there(folder: Path, role: str) -> None:
    """A release without the licence or measures that it names is not finished."""
    _edit(folder, **{role: "missing.json"})
    with pytest.raises(BadModel, match=rf"release\.json: {role}: there is no missing\.json"):
        seal(folder)


def test_a_release_of_other_timelines_is_refused(folder: Path) -> None:
    """It would read lines that it was not trained on; one that does not say is taken as before."""
    _edit(folder, timeline=2)
    with pytest.raises(BadModel, match=r"timelines of version 2, this build writes version 1 .train it again"):
        Engine.load(folder, "fp32")
    _edit(folder, timeline=None)
    assert open_release(folder).timeline is None


def test_measures_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Under the names of the file, which hold characters that no field may have."""
    written = metrics_of("2.0.0", {"recall_at_0.1%_fpr": 0.25})
    metrics = read_metrics(open_release(sealed(tmp_path / "release", "2.0.0", metrics=written)))
    assert metrics is not None
    assert metrics.measures.recall_at_01_fpr == 0.25
    assert metrics.model_dump(mode="json") == written
    assert Metrics.model_validate(metrics.model_dump(mode="json")) == metrics
    assert read_metrics(open_release(sealed(tmp_path / "without", "2.0.0"))) is None


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (metrics_of("1.9.0", {}), r"these are the measures of starter@1\.9\.0\+int8, not of starter@2\.0\.0"),
        (metrics_of("2.0.0", {"average_precision": 1.2}), r"measures\.average_precision: .*less than or equal to 1"),
        (metrics_of("2.0.0", {}, digest="none"), r"dataset\.digest: String should match"),
        (metrics_of("2.0.0", {"new_measure": 0.1}), r"measures\.new_measure: Extra inputs are not permitted"),
        (
            metrics_of("2.0.0", {}) | {"measures": {k: v for k, v in MEASURES.items() if k != "k"}},
            r"measures\.k: Field",
        ),
    ],
)
def test_bad_measures_are_refused(tmp_path: Path, metrics: dict[str, object], message: str) -> None:
    """Another model's, out of range, incomplete: by field, with what writes them."""
    release = open_release(sealed(tmp_path / "release", "2.0.0", metrics=metrics))
    with pytest.raises(BadModel, match=message):
        read_metrics(release)


def test_an_onnx_release_is_sealed_the_same_way(ready_onnx: Callable[[str], Path]) -> None:
    """It brings the licence of the weights that it was made of, and their timeline's version."""
    folder = ready_onnx("shipped")
    assert len(verify(folder)) == 64
    release = open_release(folder)
    assert (release.timeline, release.licence) == (1, folder / "LICENCE.md")

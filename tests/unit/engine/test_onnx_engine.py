"""The ONNX engine against the torch engine in fp32: the same scores, whatever is cached, without torch."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from releases import PREFIX

from fraudguard.domain import ScoreRequest
from fraudguard.engine.engine import Engine
from fraudguard.engine.onnx_engine import OnnxEngine
from fraudguard.engine.precision import Precision
from fraudguard.engine.release import seal
from fraudguard.errors import BadModel
from fraudguard.features.registry import MODEL_FEATURES

torch.set_num_threads(1)
# How far a risk may move with what is cached; fp32: also from torch's. int8: the rounding of a sum may push an
# activation over the edge between two of its levels.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "int8": 2e-3}
Ask = Callable[..., ScoreRequest]
Ready = Callable[..., Path]


def numbers_of(step: int) -> dict[str, float | None]:
    """Every model feature: missing, or one of a few sizes."""
    return {name: None if (i + step) % 3 == 0 else 10.0 ** ((i * step) % 5) for i, name in enumerate(MODEL_FEATURES)}


def of_account(request: ScoreRequest, account: str) -> ScoreRequest:
    """The request, as another account's."""
    return replace(request, timeline=replace(request.timeline, account_id=account))


@pytest.mark.parametrize("shape", ["shipped", "starter", "qwen25", "r1_distill"])
def test_onnx_scores_as_torch_does(
    ready_releases: Ready, ready_onnx: Ready, ask: Ask, texts: list[str], shape: str
) -> None:
    """One line to a timeline that is longer than tokens_max, with and without missing features."""
    engine = OnnxEngine.load(ready_onnx(shape), 1)
    twin = Engine.load("starter" if shape == "shipped" else ready_releases(shape), "fp32")
    requests = [
        ask(*(f"{texts[k % 3]} {k}" for k in range(count)), features=numbers_of(count)) for count in range(1, 41)
    ]
    assert sum(engine.tokenizer.count(line.text) for line in requests[-1].timeline.lines) > engine.tokens_max
    assert engine.tokens_max == twin.tokens_max
    assert engine.name == twin.name.replace("fp32", "onnx-fp32")
    ours, theirs = engine.score(requests), twin.score(requests)
    assert [score.risk for score in ours] == pytest.approx([score.risk for score in theirs], abs=TOLERANCE["fp32"])
    assert [score.typology for score in ours] == [score.typology for score in theirs]
    assert len({score.risk for score in ours}) > 10


def test_int8_is_close_to_full_precision(ready_onnx: Ready, ask: Ask, texts: list[str]) -> None:
    """It moves the starter's risks by at most 0.05, and by less than 0.01 on average, as the torch engine's int8."""
    exact, engine = OnnxEngine.load(ready_onnx("shipped"), 1), OnnxEngine.load(ready_onnx("shipped", "int8"), 1)
    requests = [ask(f"{texts[k % 3]} {k}", texts[(k + 1) % 3], features=numbers_of(k)) for k in range(60)]
    moved = [abs(a.risk - b.risk) for a, b in zip(engine.score(requests), exact.score(requests), strict=True)]
    assert 0 < max(moved) <= 0.05
    assert sum(moved) / len(moved) < 0.01
    assert engine.name.endswith("+onnx-int8")


STEPS = st.lists(
    st.lists(st.tuples(st.sampled_from("abc"), st.text("急用钱 code", max_size=20)), min_size=1, max_size=5),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("precision", TOLERANCE)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, cache_bytes=st.sampled_from([0, 1 << 18, 1 << 24]), order=st.randoms(use_true_random=False))
def test_a_cache_changes_no_score(
    ready_releases: Ready,
    ready_onnx: Ready,
    ask: Ask,
    precision: Precision,
    steps: list[list[tuple[str, str]]],
    cache_bytes: int,
    order: object,
) -> None:
    """Any interleaving of growing and cut timelines, with whatever was evicted, scores as from scratch.

    fp32: as torch does from scratch.
    """
    folder = ready_onnx("starter", precision)
    engine = OnnxEngine.load(folder, 1, cache_bytes)
    lines: dict[str, list[str]] = {}
    for step in steps:
        batch = []
        for account, text in step:
            lines.setdefault(account, []).append(text)
            if len(lines[account]) > 6:
                del lines[account][:3]
            batch.append(of_account(ask(*lines[account]), account))
        order.shuffle(batch)  # type: ignore[attr-defined]  # hypothesis's Random
        twin = Engine.load(ready_releases("starter"), "fp32") if precision == "fp32" else OnnxEngine.load(folder, 1)
        risks, scratch = ([score.risk for score in one.score(batch)] for one in (engine, twin))
        assert risks == pytest.approx(scratch, abs=TOLERANCE[precision])


def test_an_event_costs_its_own_tokens(
    ready_onnx: Ready, ask: Ask, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the new line is run, within a batch too; a timeline that is asked for again, by its last token."""
    engine = OnnxEngine.load(ready_onnx("starter"), 1)
    engine.score([ask(texts[0])])
    counted: list[int] = []
    session = engine._session

    class Counting:
        def run(self, outputs: object, inputs: dict[str, object]) -> object:
            counted.append(len(inputs["ids"]))  # type: ignore[arg-type]  # an array
            return session.run(outputs, inputs)

    monkeypatch.setattr(engine, "_session", Counting())
    engine.score([ask(*texts[:3]), ask(*texts[:2])])
    engine.score([ask(*texts[:3])])
    assert counted == [engine.tokenizer.count(texts[1]), engine.tokenizer.count(texts[2]), 1]


def test_a_prefix_is_read_once(ready_onnx: Ready, ask: Ask, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time the engine is made; an account's first event costs its own line, and sees it."""
    engine, without = (OnnxEngine.load(ready_onnx("qwen25", prefix=prefix), 1) for prefix in (PREFIX, ""))
    counted: list[tuple[int, int]] = []
    run = engine._session.run

    class Counting:
        def run(self, outputs: object, inputs: dict[str, np.ndarray]) -> object:
            counted.append((len(inputs["ids"]), inputs["past"].shape[1]))
            return run(outputs, inputs)

    monkeypatch.setattr(engine, "_session", Counting())
    cost = engine.tokenizer.count(texts[0])
    for account in "ab":
        first = of_account(ask(texts[0]), account)
        assert engine.new_tokens(first) == cost
        assert engine.score([first])[0].risk != pytest.approx(without.score([first])[0].risk, abs=1e-4)
    assert counted == [(cost, len(engine.tokenizer.encode_prefix(PREFIX)))] * 2


def test_a_failed_run_loses_no_room(
    ready_onnx: Ready, ask: Ask, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After errors the whole pool can be used again, and nothing that was half filled."""
    engine = OnnxEngine.load(ready_onnx("starter"), 1)
    long = ask(*(f"{k} {texts[0]}" for k in range(30)))
    before = engine.score([long])
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_session", None)
        for account in "abcdefgh":
            with pytest.raises(AttributeError):
                engine.score([of_account(long, account)])
    assert engine.score([of_account(long, "z"), long])[1].risk == pytest.approx(before[0].risk, abs=1e-6)


def test_no_requests_no_scores(ready_onnx: Ready) -> None:
    """An empty batch is fine."""
    assert OnnxEngine.load(ready_onnx("starter"), 1).score([]) == []


def test_missing_features_are_refused(ready_onnx: Ready, ask: Ask) -> None:
    """A head made for another registry says which feature it wants."""
    with pytest.raises(BadModel, match="reads a feature 'amount_base'"):
        OnnxEngine.load(ready_onnx("starter"), 1).score([ask("a", features={})])


def test_a_release_for_torch_is_refused(ready_releases: Ready) -> None:
    """The error says how to make one."""
    with pytest.raises(BadModel, match=r"no ONNX release .make one: fraudguard export-onnx"):
        OnnxEngine.load(ready_releases("starter"))


@pytest.mark.parametrize("name", ["fp32.onnx", "head.json", "tokenizer.json"])
def test_a_damaged_folder_is_refused(ready_onnx: Ready, tmp_path: Path, name: str) -> None:
    """A changed file, then a missing one, by its name."""
    folder = shutil.copytree(ready_onnx("starter"), tmp_path / "copy")
    with (folder / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(BadModel, match=f"{name}: is not the file that SHA256SUMS names .copy the folder again"):
        OnnxEngine.load(folder)
    (folder / name).unlink()
    with pytest.raises(BadModel, match=f"there is no {name}"):
        OnnxEngine.load(folder)


def test_a_folder_without_hashes_is_refused(ready_onnx: Ready, tmp_path: Path) -> None:
    """An unchecked graph is not run."""
    folder = shutil.copytree(ready_onnx("starter"), tmp_path / "copy")
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(BadModel, match="copy: there is no readable SHA256SUMS"):
        OnnxEngine.load(folder)


def test_a_graph_that_onnxruntime_cannot_read_is_refused(ready_onnx: Ready, tmp_path: Path) -> None:
    """Also when its hash is right."""
    folder = shutil.copytree(ready_onnx("starter"), tmp_path / "copy")
    (folder / "fp32.onnx").write_bytes(b"no graph")
    seal(folder)
    with pytest.raises(BadModel, match=r"fp32\.onnx: cannot be loaded"):
        OnnxEngine.load(folder)


def test_the_service_scores_without_torch(ready_onnx: Ready) -> None:
    """FRAUDGUARD_MODEL names the folder: the configured engine scores, and no torch is imported."""
    code = (
        "import asyncio, datetime, sys; from fraudguard.assembly import load_engine;"
        "from fraudguard.config import Settings; from fraudguard.domain import Line, ScoreRequest, Timeline;"
        "from fraudguard.features.registry import MODEL_FEATURES;"
        "line = Line('message', datetime.datetime.now(datetime.UTC), 'customer: 急用钱');"
        "request = ScoreRequest(Timeline('a', 1, (line,)), dict.fromkeys(MODEL_FEATURES));"
        "engine = load_engine(Settings(model=sys.argv[1]));"
        "score, = asyncio.run(engine.score([request])); engine.close();"
        "assert score.model.endswith('+onnx-fp32') and 0 < score.risk < 1;"
        "assert not {'torch', 'transformers', 'peft', 'onnx', 'onnxscript'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ready_onnx("shipped"))], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr

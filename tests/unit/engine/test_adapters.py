"""Adapters beside the base: every mix of them in one pass gives each row what its own adapter, merged, would."""

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from releases import FEATURES, PREFIX, SHAPES, TENANTS, TEXTS, make_release, merged_release, request_of
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fraudguard.domain import Score, ScoreRequest
from fraudguard.engine.adapters import Adapted, LowRank, Mix
from fraudguard.engine.attention import Span
from fraudguard.engine.batcher import Batcher
from fraudguard.engine.engine import Engine
from fraudguard.engine.loader import attach, load, load_base
from fraudguard.engine.precision import Precision
from fraudguard.engine.qwen2 import ROWS_FED, Qwen2
from fraudguard.engine.release import STARTER, open_release
from fraudguard.errors import BadModel

torch.set_num_threads(1)
NAMES = (None, *TENANTS)  # by adapter's number; None is the release's own
LONGEST = 40
# How far a risk may move with the batch it is in (fp32: the rounding of sums; int8: an activation between two levels).
TOLERANCE: dict[Precision, float] = {"fp32": 1e-5, "int8": 2e-3}


@pytest.fixture(scope="module", name="folders")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str | None, Path]]:
    """Of a shape: the release with all tenants, under "all", and for each a release where its adapter is merged."""

    @cache
    def made(shape: str) -> dict[str | None, Path]:
        folder = tmp_path_factory.mktemp(shape)
        prefix = PREFIX if shape == "r1_distill" else ""
        everything = make_release(folder / "all", shape, prefix=prefix, tenants=TENANTS)
        merged = {tenant: merged_release(folder / tenant, everything, tenant) for tenant in TENANTS}
        own = json.loads((everything / "release.json").read_text()) | {"tenants": {}}
        own |= {part: str(everything / part) for part in ("base", "adapter", "head")}
        (folder / "own").mkdir()
        (folder / "own" / "release.json").write_text(json.dumps(own))
        return {"all": everything, None: folder / "own", **merged}

    return made


# ---------------------------------------------------------------- one layer


@st.composite
def layers(draw: st.DrawFn) -> tuple[nn.Linear, list[int], list[list[LowRank | None]], list[int]]:
    """A layer of some projections, adapters of other ranks for some of them, and the adapter of each row."""
    torch.manual_seed(draw(st.integers(0, 1_000)))
    widths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    rank = st.none() | st.integers(1, 4)
    ranks = draw(st.lists(st.tuples(*[rank] * len(widths)), min_size=1, max_size=4).filter(lambda r: any(map(any, r))))
    adapters = [
        [LowRank(torch.randn(r, 5), torch.randn(width, r)) if r else None for r, width in zip(of, widths, strict=True)]
        for of in ranks
    ]
    rows = draw(st.lists(st.integers(0, len(adapters) - 1), min_size=1, max_size=20))
    return nn.Linear(5, sum(widths)), widths, adapters, rows


@settings(max_examples=150, deadline=None)
@given(layers())
@torch.inference_mode()
def test_each_row_gets_what_its_adapter_adds(
    layer: tuple[nn.Linear, list[int], list[list[LowRank | None]], list[int]],
) -> None:
    """By runs and masked, for any projections, ranks, gaps and order of rows, and for any part of the rows."""
    base, widths, adapters, rows = layer
    adapted, numbers = Adapted(base, widths, adapters), torch.tensor(rows)
    x = torch.randn(len(rows), 5)
    added = [
        torch.cat(
            [part.up @ part.down @ row if part else torch.zeros(width) for part, width in zip(of, widths, strict=True)]
        )
        for row, of in zip(x, (adapters[number] for number in rows), strict=True)
    ]
    expected = base(x) + torch.stack(added)
    for masked in (False, True):
        mix = Mix.of(numbers, len(adapters), masked=masked)
        torch.testing.assert_close(adapted(x, mix), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(adapted(x[1:], mix[1:]), expected[1:], atol=1e-4, rtol=1e-4)
        order = torch.arange(len(rows) - 1, -1, -1)
        torch.testing.assert_close(adapted(x[order], mix[order]), expected[order], atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- one pass


def read(backbone: Qwen2, timelines: Sequence[tuple[int, list[int]]]) -> Tensor:
    """Timelines (adapter, ids) in one pass: the final states of all their tokens, one after the other."""
    slots = np.arange(LONGEST * len(timelines)).reshape(len(timelines), LONGEST)
    spans = [
        Span(0, room[: len(ids)], range(len(ids)), adapter)
        for room, (adapter, ids) in zip(slots, timelines, strict=True)
    ]
    ids = torch.tensor([token for _, ids in timelines for token in ids])
    return backbone(ids, spans, backbone.new_pool(slots.size))


TIMELINES = st.lists(
    st.tuples(st.integers(0, len(TENANTS)), st.lists(st.integers(0, 299), min_size=1, max_size=LONGEST)),
    min_size=1,
    max_size=10,
)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_mix_reads_as_merged(folders: Callable[[str], dict[Any, Path]], shape: str) -> None:
    """fp32, 1e-4: each token of each timeline, with the adapters' rows together or interleaved."""
    releases = folders(shape)
    together = load(open_release(releases["all"]), "fp32").backbone
    merged = [load(open_release(releases[name]), "fp32").backbone for name in NAMES]

    @settings(max_examples=25, deadline=None)
    @given(TIMELINES)
    @torch.inference_mode()
    def each(timelines: list[tuple[int, list[int]]]) -> None:
        states = read(together, timelines).split([len(ids) for _, ids in timelines])
        for state, (number, ids) in zip(states, timelines, strict=True):
            torch.testing.assert_close(state, read(merged[number], [(0, ids)]), atol=1e-4, rtol=1e-4)

    each()
    assert together.adapters == 4
    bare = load_base(open_release(releases["all"]).base)
    assert all(
        (read(one, [(0, [1, 2, 3])]) - read(Qwen2.of(bare.model), [(0, [1, 2, 3])])).abs().max() > 0.05
        for one in merged
    )


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_a_pass_reads_as_peft_does(
    folders: Callable[[str], dict[Any, Path]], shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp32, 1e-4, beside peft's own unmerged forward pass: by runs, and masked as on a GPU."""
    release = open_release(folders(shape)["all"])
    assert release.adapter is not None
    adapters = [release.adapter, *(tenant.adapter for tenant in release.tenants.values())]
    ids = [torch.randint(300, (20 + number,)).tolist() for number in range(len(adapters))]
    repeats = 13  # more rows than the feed-forward half takes at once
    timelines = [*enumerate(ids)] * repeats
    assert sum(len(of_timeline) for _, of_timeline in timelines) > 2 * ROWS_FED
    backbone = load(release, "fp32").backbone
    expected = []
    for folder, of_adapter in zip(adapters, ids, strict=True):
        beside = attach(load_base(release.base), folder).eval().base_model.model.model
        expected.append(beside(input_ids=torch.tensor([of_adapter])).last_hidden_state[0])
    torch.testing.assert_close(read(backbone, timelines), torch.cat(expected * repeats), atol=1e-4, rtol=1e-4)
    of = Mix.of
    monkeypatch.setattr(Mix, "of", lambda adapters, count, masked: of(adapters, count, masked=not masked))
    torch.testing.assert_close(read(backbone, timelines), torch.cat(expected * repeats), atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- the engine


LINES = st.lists(st.sampled_from([*TEXTS, "agent: how can I help?", ""]), min_size=1, max_size=4)
REQUESTS = st.lists(
    st.builds(
        lambda tenant, account, lines, number: request_of(
            *lines, account_id=account, features=FEATURES | {"amount_base": number}, tenant=tenant
        ),
        st.sampled_from([*NAMES, "nobody"]),
        st.sampled_from("ab"),
        LINES,
        st.sampled_from([0.0, 1.0, None]),
    ),
    min_size=1,
    max_size=8,
)


def own(request: ScoreRequest) -> str | None:
    """The tenant whose adapter it is read with."""
    return request.tenant if request.tenant in TENANTS else None


@pytest.mark.parametrize("shape", SHAPES)
def test_every_batch_scores_as_each_tenants_own_engine(folders: Callable[[str], dict[Any, Path]], shape: str) -> None:
    """fp32, 1e-4: whoever shares batch, accounts and lines, and whatever is cached; signed with the tenant."""
    releases = folders(shape)
    together = Engine.load(releases["all"], "fp32", 1, 1 << 24)
    alone = {name: Engine.load(releases[name], "fp32", 1) for name in NAMES}

    @settings(max_examples=30, deadline=None)
    @given(REQUESTS)
    def each(requests: list[ScoreRequest]) -> None:
        for request, score in zip(requests, together.score(requests), strict=True):
            tenant = own(request)
            (expected,) = alone[tenant].score([request])
            assert score.risk == pytest.approx(expected.risk, abs=1e-4)
            assert score.typology == expected.typology
            assert score.model == (f"{shape}@0.0.1/{tenant}+fp32" if tenant else f"{shape}@0.0.1+fp32")

    each()
    risks = [score.risk for score in together.score([request_of(TEXTS[0], tenant=name) for name in NAMES])]
    assert min(abs(a - b) for n, a in enumerate(risks) for b in risks[:n]) > 1e-3


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_cache_mixes_no_tenants(folders: Callable[[str], dict[Any, Path]], precision: Precision) -> None:
    """The same account and lines at several tenants, after a prefix and in any batch, score as from scratch."""
    loaded = load(open_release(folders("r1_distill")["all"]), precision)

    @settings(max_examples=20, deadline=None)
    @given(
        st.lists(REQUESTS, min_size=1, max_size=4),
        st.sampled_from([0, 1 << 19, 1 << 24]),
        st.sampled_from([0, 1 << 20]),
    )
    def each(batches: list[list[ScoreRequest]], cache_bytes: int, host_cache_bytes: int) -> None:
        caching = Engine("caching", loaded, cache_bytes, host_cache_bytes)
        for batch in batches:
            risks = [score.risk for score in caching.score(batch)]
            scratch = [Engine("scratch", loaded).score([one])[0].risk for one in batch]
            assert risks == pytest.approx(scratch, abs=TOLERANCE[precision])

    each()


def test_what_is_kept_is_the_tenants(folders: Callable[[str], dict[Any, Path]]) -> None:
    """Another tenant's event of the account costs its whole timeline; forgetting the account forgets all of it."""
    engine = Engine.load(folders("qwen25")["all"], "fp32", 1, 1 << 24)
    first, second = (request_of(*TEXTS, tenant=name) for name in ("attention", "by_layer"))
    whole = engine.new_tokens(first)
    engine.score([first])
    assert (engine.new_tokens(first), engine.new_tokens(second)) == (1, whole)
    engine.score([second, request_of(*TEXTS)])
    engine.forget("a-1")
    assert [engine.new_tokens(request_of(*TEXTS, tenant=name)) for name in NAMES] == [whole] * 4


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_less_precision_is_close_to_full(folders: Callable[[str], dict[Any, Path]], precision: Precision) -> None:
    """Of the base alone: adapters keep the activations' precision. By at most 0.05, by less than 0.01 on average."""
    folder = folders("qwen25")["all"]
    requests = [request_of(f"{n} {TEXTS[n % 3]}", TEXTS[(n + 1) % 3], tenant=NAMES[n % 4]) for n in range(60)]
    full, less = (Engine.load(folder, kind, 1).score(requests) for kind in ("fp32", precision))
    moved = [abs(a.risk - b.risk) for a, b in zip(full, less, strict=True)]
    assert max(moved) <= 0.05
    assert sum(moved) / len(moved) < 0.01


def test_the_starter_takes_tenants(tmp_path: Path) -> None:
    """Its adapter, embedding included, unmerged and as a tenant's, scores as it does merged."""
    parts = {"adapter": str(STARTER / "adapter"), "head": str(STARTER / "head")}
    manifest = json.loads((STARTER / "release.json").read_text()) | {"base": str(STARTER / "base"), **parts}
    (tmp_path / "release.json").write_text(json.dumps(manifest | {"tenants": {"bank": parts}}))
    features: dict[str, Any] = dict.fromkeys(
        feature.name for feature in load(open_release("starter"), "fp32").head.spec.features
    )

    def scores(source: Path | str, tenant: str | None) -> list[Score]:
        requests = [request_of(*TEXTS[: n % 3 + 1], str(n), features=features, tenant=tenant) for n in range(9)]
        return Engine.load(source, "fp32", 1).score(requests)

    merged = [score.risk for score in scores("starter", None)]
    for tenant in (None, "bank", "nobody"):
        assert [score.risk for score in scores(tmp_path, tenant)] == pytest.approx(merged, abs=1e-5)
    assert len(set(merged)) > 5


async def test_adapters_and_heads_are_swapped_under_load(
    folders: Callable[[str], dict[Any, Path]], tmp_path: Path
) -> None:
    """No request fails or mixes releases: each score is the old release's of its tenant or the new one's."""
    first = folders("qwen25")["all"]
    manifest = json.loads((first / "release.json").read_text())
    tenants = manifest["tenants"]
    # One tenant has another's adapter, one another's head, one is gone and one has come.
    second = {
        "attention": {"adapter": tenants["by_layer"]["adapter"], "head": tenants["attention"]["head"]},
        "by_layer": {"adapter": tenants["by_layer"]["adapter"], "head": tenants["attention"]["head"]},
        "new": tenants["embedding"],
    }
    absolute = {name: {part: str(first / path) for part, path in of.items()} for name, of in second.items()}
    parts = {part: str(first / part) for part in ("base", "adapter", "head")}
    (tmp_path / "release.json").write_text(json.dumps(manifest | parts | {"version": "0.0.2", "tenants": absolute}))
    engines = [Engine.load(folder, "fp32", 1, 1 << 24) for folder in (first, tmp_path)]
    requests = [
        request_of(*TEXTS[: n % 3 + 1], account_id=f"a-{n % 5}", tenant=[*NAMES, "new"][n % 5]) for n in range(15)
    ]
    expected = [dict(zip(range(15), engine.score(requests), strict=True)) for engine in engines]
    batcher = Batcher(engines[0], pass_s=0.01, queue_max=1_000)

    def is_of(release: int, number: int, score: Score | None) -> bool:
        assert score is not None
        want = expected[release][number]
        return score.model == want.model and score.risk == pytest.approx(want.risk, abs=1e-5)

    try:
        waves = [asyncio.ensure_future(batcher.score(requests)) for _ in range(4)]
        await asyncio.wait(waves, return_when=asyncio.FIRST_COMPLETED)
        batcher.swap(engines[1])
        waves += [asyncio.ensure_future(batcher.score(requests)) for _ in range(2)]
        waves_scores = await asyncio.gather(*waves)
    finally:
        batcher.close()
    for scores in waves_scores:
        assert all(is_of(0, n, score) or is_of(1, n, score) for n, score in enumerate(scores))
    assert all(is_of(0, n, score) for n, score in enumerate(waves_scores[0]))
    assert all(is_of(1, n, score) for n, score in enumerate(waves_scores[-1]))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"bias": "all"}, r"\.bias"),
        ({"lora_bias": True}, r"lora_B\.bias"),
        ({"modules_to_save": ["norm"]}, r"norm\.weight"),
        ({"trainable_token_indices": {"embed_tokens": [1]}}, "embed_tokens"),
        ({"alora_invocation_tokens": [1, 2]}, "layers.0.self_attn.q_proj"),
        ({"layer_replication": [[0, 1], [0, 2]]}, "layer_replication"),
    ],
)  # fmt: skip
def test_what_cannot_stay_beside_the_base_is_refused(tmp_path: Path, lora: dict[str, Any], message: str) -> None:
    """More than a product added to a product would be read wrongly; the error says what it is."""
    everything: dict[str, Any] = {"r": 2, "target_modules": ["q_proj"], **lora}
    folder = make_release(tmp_path / "release", tenants={"bank": everything})
    with pytest.raises(BadModel, match=rf"more than LoRA .*{message}.*only be merged"):
        load(open_release(folder), "fp32")


def test_a_base_in_the_adapters_file_is_refused(tmp_path: Path) -> None:
    """peft may save the embedding beside its adapter, and would put it into the base that all share."""
    folder = make_release(tmp_path / "release", tenants={"bank": TENANTS["embedding"]})
    file = folder / "bank" / "adapter" / "adapter_model.safetensors"
    embedding = load_file(folder / "base" / "model.safetensors")["model.embed_tokens.weight"]
    save_file(load_file(file) | {"base_model.model.model.embed_tokens.base_layer.weight": embedding}, file)
    with pytest.raises(BadModel, match=r"embed_tokens\.base_layer\.weight"):
        load(open_release(folder), "fp32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens_max": 100}, "tokens_max is 100, and 128 in the release's own"),
        ({"hidden_size": 40}, "head.safetensors"),
    ],
)
def test_a_tenants_head_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    """All of a release read the same tokens and the same hidden states; the error names the head."""
    folder = make_release(tmp_path / "release", tenants={"bank": {"r": 2, "target_modules": ["q_proj"]}})
    file = folder / "bank" / "head" / "head.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(BadModel, match=message) as refused:
        load(open_release(folder), "fp32")
    assert str(folder / "bank" / "head") in refused.value.path


def test_a_tenants_head_of_another_base_is_refused(tmp_path: Path) -> None:
    """A whole head that reads other hidden states."""
    folder = make_release(tmp_path / "release", tenants={"bank": {"r": 2, "target_modules": ["q_proj"]}})
    other = make_release(tmp_path / "other", hidden=96)
    manifest = json.loads((folder / "release.json").read_text())
    manifest["tenants"]["bank"]["head"] = str(other / "head")
    (folder / "release.json").write_text(json.dumps(manifest))
    with pytest.raises(BadModel, match="hidden_size is 96, and 48"):
        load(open_release(folder), "fp32")

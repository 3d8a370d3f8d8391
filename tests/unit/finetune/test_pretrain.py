"""The starter's base: from a corpus of lines to a checkpoint, with and without teachers, step by step the same."""

from pathlib import Path

import pytest
import torch
import yaml
from finetune_support import make_dataset
from torch.nn import functional as F

from finetune import corpus, pretrain
from finetune.data import part_of
from finetune.language_model import new_base
from finetune.pretrain import Pupil, Talk, _batches
from finetune.recipe import BaseRecipe, BaseShape, CorpusRun, PretrainRun, read_settings
from fraudguard.engine.loader import load_base
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadInput

SHAPE = BaseShape(hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=48, positions=256)
RUN = PretrainRun(
    bag_tokens=4000, bag_batch_tokens=512, bag_rate=0.01, tokens=6000, batch_tokens=512, rate=0.003,
    next_positions=64, next_weight=0.1,
)  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DATASET."""
    return make_dataset(tmp_path_factory.mktemp("told"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base.yaml, tiny, without teachers."""
    content = yaml.safe_load(Path("finetune/base.yaml").read_text())
    content |= {"bfloat16": False, "shape": SHAPE.model_dump(), "pretrain": RUN.model_dump()}
    content["tokenizer"] |= {"vocabulary": 500}
    content["corpus"] |= {"chunks": 150, "teachers": False}
    file = tmp_path_factory.mktemp("recipe") / "base.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture(scope="module")
def lines(told: Path, recipe: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its CORPUS."""
    out = tmp_path_factory.mktemp("corpus")
    corpus.main([str(recipe), "--dataset", str(told), "--data", str(data_folder), "--out", str(out)])
    return out


def taught(count: int = 60) -> tuple[dict[str, Talk], int]:
    """Chunks of random tokens with teachers of 8 and 12 dimensions, and the vocabulary."""
    random = torch.Generator().manual_seed(0)
    talks = {}
    for language, size in (("zh", 8), ("en", 12)):
        lengths = torch.randint(3, 60, (count,), generator=random).tolist()
        ids = [torch.randint(1, 200, (length,), generator=random).tolist() for length in lengths]
        talks[language] = Talk(ids, F.normalize(torch.randn(count, size, generator=random), dim=1))
    return talks, 200


def test_a_corpus_becomes_a_checkpoint(lines: Path, recipe: Path, tmp_path: Path) -> None:
    """The command ends in a tokenizer and a Qwen2 that the engine's loader takes, the same bytes again."""
    for name in ("one", "two"):
        pretrain.main([str(recipe), "--corpus", str(lines), "--out", str(tmp_path / name)])
    encoder = LineTokenizer(tmp_path / "one")
    assert load_base(tmp_path / "one").config.vocab_size == encoder.vocabulary <= 500
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()


def test_losses_without_teachers(lines: Path, recipe: Path) -> None:
    """The next token alone: the loss of the last steps, as it was when this was written."""
    torch.manual_seed(0)
    run = read_settings(recipe, BaseRecipe)
    pretrain.save_tokenizer(pretrain.train_tokenizer(pretrain.lines_of(lines), run.tokenizer), lines)
    encoder = LineTokenizer(lines)
    model = new_base(SHAPE, encoder.vocabulary)
    found = pretrain.pretrain(model, pretrain.read_corpus(lines, encoder), RUN, 0, bfloat16=False)
    assert found == {"next": pytest.approx(4.823, abs=0.02)}


def test_losses_with_teachers() -> None:
    """A bag of words first, then all of it: the losses of the last steps, as they were when this was written."""
    talks, vocabulary = taught()
    torch.manual_seed(0)
    found = pretrain.pretrain(new_base(SHAPE, vocabulary), talks, RUN, 0, bfloat16=False)
    assert found == pytest.approx({"bag": 0.8023, "mean": 0.6619, "last": 0.8492, "next": 5.3169}, abs=0.02)


def test_the_whole_model_starts_where_the_bag_of_words_ended() -> None:
    """With layers that add nothing, the mean hidden state is the mean embedding's."""
    talks, vocabulary = taught()
    torch.manual_seed(0)
    model = new_base(SHAPE, vocabulary)
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    pupil = Pupil(model, talks)
    for batch in (pretrain.Batch("zh", *some) for some in (padded(talks["zh"], [0, 1, 2]),)):
        torch.testing.assert_close(pupil.distances(batch, pupil(batch))["mean"], pupil.bag(batch))


def padded(talk: Talk, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """ids, which of them are real, and the rows."""
    ids, real = torch.zeros(len(rows), 64, dtype=torch.long), torch.zeros(len(rows), 64, dtype=torch.bool)
    for row, index in enumerate(rows):
        ids[row, : len(talk.ids[index])] = torch.tensor(talk.ids[index])
        real[row, : len(talk.ids[index])] = True
    return ids, real, rows


def test_every_chunk_is_in_one_batch_of_an_epoch() -> None:
    """Each once, in shapes of whole 32 tokens and no more than asked for."""
    from random import Random

    talks, _ = taught()
    made = list(_batches("en", talks["en"], 256, Random(0)))
    assert sorted(row for batch in made for row in batch.rows) == list(range(60))
    for batch in made:
        assert batch.ids.shape[1] % 32 == 0
        assert batch.ids.numel() <= 256
        for row, index in enumerate(batch.rows):
            assert batch.ids[row][batch.real[row]].tolist() == talks["en"].ids[index]


def test_what_is_held_out_is_not_read(data_folder: Path) -> None:
    """No line of a harmless dialogue that belongs to dev or test; every line of one that belongs to train."""
    run = CorpusRun(chunks=10_000, lines=3, chars_min=1, teachers=False)
    said = "\n".join(chunk.said for chunk in corpus.chunks(corpus.harmless(data_folder), run, 0))
    for number in range(60):
        wanted = part_of(f"d-{number}") == "train"
        assert (f"kdconv_zh {number} 0" in said.split("\n")) == wanted
    assert "kdconv" in said


def test_chunks_are_of_one_language_each(told: Path) -> None:
    """What was said decides; lines without words belong to the chunk around them."""
    run = CorpusRun(chunks=10_000, lines=4, chars_min=4, teachers=False)
    made = corpus.chunks(corpus.told(told), run, 0)
    assert {chunk.language for chunk in made} == {"zh", "en"}
    assert all(1 <= len(chunk.lines) <= 4 and len(chunk.said) >= 4 for chunk in made)
    assert any(line.startswith("[") for chunk in made for line in chunk.lines)
    assert not any(line.startswith("[") for chunk in made for line in chunk.said.split("\n"))


def test_without_a_corpus_it_says_what_makes_one(tmp_path: Path) -> None:
    """The message names the command."""
    with pytest.raises(BadInput, match=r"finetune\.corpus"):
        pretrain.read_corpus(tmp_path, LineTokenizer(Path("fraudguard/engine/starter/base")))

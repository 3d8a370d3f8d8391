"""Baselines: each against its own definition, on a few conversations."""

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_data import RULE, life, lives, write
from releases import make_release
from transformers import AutoModelForCausalLM

from finetune import baselines, dataset
from finetune.baselines import BoostingRun, Lesson, TfIdfRun, ZeroShotRun
from finetune.passages import labelled
from finetune.rows import Rows
from fraudguard.engine.release import STARTER, open_release
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadInput
from fraudguard.evaluation import roc_auc

TOKENIZER = LineTokenizer(STARTER / "base")


def rows_of(split: str, count: int) -> Rows:
    """Conversations, two in five of them scams."""
    return Rows.of(labelled(lives(split, count), 0.3), TOKENIZER, 256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with a train part."""
    return write(tmp_path_factory.mktemp("baselines"), [("train", 40)])


def lesson(folder: Path, rows_max: int = 400) -> Lesson:
    """What is drawn of it."""
    return baselines.lesson(folder, TOKENIZER, 256, rows_max, 0)


def test_what_is_drawn(folder: Path) -> None:
    """At most so many of all the timelines, never doubtful ones, half of them fraud; weights add up to those of all."""
    every = lesson(folder, 10_000)
    whole = Rows.of(dataset.read(folder, "train"), TOKENIZER, 256)
    assert every.of == len(whole)
    kept = np.flatnonzero(whole.measured)
    assert [one[2] for one in every.rows.asked] == [whole.asked[row][2] for row in kept]
    np.testing.assert_array_equal(every.weights, whole.weight[kept])
    some = lesson(folder, 60)
    assert (len(some.rows), some.rows.fraud.sum(), some.of) == (60, 30, len(whole))
    assert some.rows.measured.all()
    assert len(set(some.rows.accounts.tolist())) > 20
    for kind in (True, False):
        expected = every.weights[every.rows.fraud == kind].sum()
        assert some.weights[some.rows.fraud == kind].sum() == pytest.approx(expected, rel=0.2)


def test_nothing_to_learn(tmp_path: Path) -> None:
    """A train part without fraud is refused with its file."""
    dataset.write(tmp_path, "train", labelled([life("train", 1, False)], 1.0))
    with pytest.raises(BadInput, match=r"train\.parquet: there is no fraud"):
        lesson(tmp_path)


def test_tf_idf_tells_written_scams_apart(folder: Path) -> None:
    """The words suffice here; a score depends on its own row alone."""
    dev, test = rows_of("dev", 20), rows_of("test", 20)
    model = baselines.tf_idf(lesson(folder), dev, TfIdfRun(ngrams=(1, 2), features_max=500, penalties=(1.0,)))
    scores = model(test)
    assert roc_auc(test.fraud[test.measured], scores[test.measured]) > 0.95
    np.testing.assert_allclose(model(Rows(test.asked[3:9])), scores[3:9])
    assert ((scores >= 0) & (scores <= 1)).all()


def test_boosting_reads_numbers_alone(folder: Path) -> None:
    """Better than chance on payments that differ, and blind to words."""
    test = rows_of("test", 20)
    model = baselines.boosting(lesson(folder), BoostingRun(rounds=30, rate=0.1), 0)
    kept = test.measured & test.payment
    assert roc_auc(test.fraud[kept], model(test)[kept]) > 0.8
    same = [(timeline, labelled, test.asked[0][2]) for timeline, labelled, _ in test.asked]
    np.testing.assert_array_equal(model(Rows(same)), model(test))


def test_keyword_rules_read_text_and_no_risk(tmp_path: Path) -> None:
    """One rule of three counts: its outcome, from the line on which the words are said."""
    (tmp_path / "rules.yaml").write_text(RULE)
    test = rows_of("test", 20)
    scores = baselines.keyword_rules(tmp_path)(test)
    said = np.array(["安全账户" in text or "safe account" in text for text in test.texts])
    np.testing.assert_allclose(scores, said * (2 + 1 / baselines.HITS_MAX) / 4)  # review, one hit
    assert 0 < said.sum() < len(said)


def test_the_shipped_pack_has_text_rules() -> None:
    """The repository's own rules: some read text, most of the pack's payment rules do not."""
    scores = baselines.keyword_rules(Path(baselines.__file__).parents[1] / "rules")(rows_of("test", 10))
    assert 0 < (scores > 0).sum() < len(scores)


@pytest.mark.parametrize(("shape", "prefix"), [("qwen25", ""), ("r1_distill", "You watch payments.\n")])
def test_zero_shot_as_transformers(tmp_path: Path, shape: str, prefix: str) -> None:
    """P(yes) of the two answers, from the log-probabilities of each token, one timeline at a time without padding."""
    release = open_release(make_release(tmp_path, shape, prefix=prefix))
    tokenizer = LineTokenizer(release.base)
    rows = Rows.of(labelled(lives("test", 3), 1.0), tokenizer, 128)
    run = ZeroShotRun(question="Scam? 是吗", fraud=" yes 是", harmless=" no", batch=5)
    found = baselines.zero_shot(release, 128, run)(rows)
    model = AutoModelForCausalLM.from_pretrained(release.base, dtype=torch.float32)
    for (_, _, request), score in zip(rows.asked, found, strict=True):
        before = [*tokenizer.encode_prefix(prefix), *tokenizer.encode_timeline(request.timeline, 128)]
        likelihoods = []
        for answer in (run.fraud, run.harmless):
            ids = [*before, *tokenizer.encode(run.question + answer)[:-1]]
            with torch.inference_mode():
                said = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            question = len(tokenizer.encode(run.question)) - 1
            assert ids[len(before) : len(before) + question] == list(tokenizer.encode(run.question)[:-1])
            start = len(before) + question
            likelihoods.append(sum(said[at - 1, ids[at]].item() for at in range(start, len(ids))))
        shared = likelihoods[0] - likelihoods[1]  # what both answers begin with takes nothing from the difference
        assert score == pytest.approx(1 / (1 + np.exp(-shared)), abs=1e-4)

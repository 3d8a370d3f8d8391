"""A teacher's lessons: each for its own event, and nothing to learn for who knows it all."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from finetune_support import make_base, make_timelines

from finetune import scored
from finetune.adapt import Sample, samples, states_at, verdicts
from finetune.dataset import passages
from finetune.lessons import LessonsRun, TaughtSample, TeachersLesson, teach
from fraudguard.engine.engine import Engine
from fraudguard.engine.head import load_head
from fraudguard.engine.loader import load_merged
from fraudguard.engine.release import open_release
from fraudguard.engine.tokenizer import LineTokenizer

CPU = torch.device("cpu")
TIMELINES = make_timelines(6, 5)
ALL = LessonsRun(labels=0.0, logits=1.0, hidden=1.0)


@pytest.fixture(scope="module")
def taught(tuned: Path) -> list[TaughtSample]:
    """By the release, of its own samples."""
    release = open_release(tuned)
    tokenizer, head = LineTokenizer(release.base), load_head(release.head)
    own = samples(passages(TIMELINES, tokenizer, head.spec.tokens_max), tokenizer, release.prefix)
    return teach(release, TIMELINES, own, CPU)


def test_a_lesson_is_what_the_engine_says_of_the_event(tuned: Path, taught: list[TaughtSample]) -> None:
    """Reading by reading, in the order of the events."""
    engine: Engine = scored.uncalibrated(open_release(tuned), "fp32")
    wanted = scored.logits(engine, scored.rows_of(engine, TIMELINES))
    assert torch.cat([one.logits for one in taught]).tolist() == pytest.approx(wanted.tolist(), abs=1e-4)


def test_another_tokenizer_and_other_cuts_get_the_same_lessons(
    tuned: Path, taught: list[TaughtSample], tmp_path: Path
) -> None:
    """The student's passages are cut where its own tokens are too many; each event keeps its lesson."""
    tokenizer = LineTokenizer(make_base(tmp_path / "base", "starter"))
    own = samples(passages(TIMELINES, tokenizer, 64), tokenizer)
    others = teach(open_release(tuned), TIMELINES, own, CPU)
    assert len(others) > len(taught)
    for name in ("logits", "kinds", "states", "truth"):
        ours, theirs = (torch.cat([getattr(one, name) for one in part]) for part in (others, taught))
        torch.testing.assert_close(ours, theirs)
    for sample, given in zip(others, own, strict=True):
        assert all(getattr(sample, one.name) is getattr(given, one.name) for one in fields(Sample))


def test_who_knows_it_all_has_nothing_to_learn(tuned: Path, taught: list[TaughtSample]) -> None:
    """Of the teacher itself: no gradient from hidden states or verdicts, and the labels weigh nothing."""
    release = open_release(tuned)
    model, head = load_merged(release).eval(), load_head(release.head)
    states = states_at(model, taught)
    logits, kinds = verdicts(head, states, taught)
    logits.retain_grad()
    kinds.retain_grad()
    lesson = TeachersLesson(ALL, taught, head.spec.hidden_size, 0.1, "")
    total = sum(float(one.weight.sum()) for one in taught)
    lesson(torch.tensor(7.0), taught, states, logits, kinds, total).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert kinds.grad is not None
    assert logits.grad.abs().max() < 1e-5
    assert kinds.grad.abs().max() < 1e-5
    of_hidden = TeachersLesson(ALL.model_copy(update={"logits": 0.0}), taught, head.spec.hidden_size, 0.1, "")
    assert of_hidden(torch.tensor(7.0), taught, states, logits, kinds, total).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_rows_add_up_to_their_step(taught: list[TaughtSample], temperature: float) -> None:
    """Whatever rows the step's passages come in; a student of another size has a projection."""
    torch.manual_seed(0)
    run = LessonsRun(labels=0.5, logits=1.0, hidden=1.0, temperature=temperature)
    lesson = TeachersLesson(run, taught, 10, 0.1, "")
    total = sum(float(one.weight.sum()) for one in taught)
    counts = [len(one.ends) for one in taught]
    made = [(torch.randn(count, 10), torch.randn(count), torch.randn(count, 6)) for count in counts]
    whole = [torch.cat(parts) for parts in zip(*made, strict=True)]
    nothing = torch.zeros(())
    apart = [lesson(nothing, [one], *of, total) for one, of in zip(taught, made, strict=True)]
    together = lesson(nothing, taught, *whole, total)
    torch.testing.assert_close(torch.stack(apart).sum(), together)
    torch.testing.assert_close(lesson(torch.tensor(2.0), taught, *whole, total), together + 1)

"""The lexicon's fit: scikit-learn's, on n-grams of token ids, and never on the account that learns from it."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from finetune.adapt import COLUMNS, Sample
from finetune.lexicon import fit, give_lexicon
from finetune.recipe import LexiconRun
from fraudguard.engine.lexicon import FEATURE

RUN = LexiconRun(buckets=1 << 22, folds=3, readings=10_000, inverse_penalty=1.0, iterations=500)
PREFIX = [7, 8]


def sample(account: int, ids: Sequence[int], truths: Sequence[float]) -> Sample:
    """A reading at every third token, after a prefix."""
    ends = torch.tensor([len(PREFIX) + 3 * number + 2 for number in range(len(truths))])
    return Sample(
        source="story", account_id=f"a-{account}", prefix=len(PREFIX), ids=torch.tensor([*PREFIX, *ids]), ends=ends,
        numbers=torch.full((len(truths), len(COLUMNS)), torch.nan), truth=torch.tensor(truths),
        typology=torch.full((len(truths),), -1), weight=torch.ones(len(truths)),
    )  # fmt: skip


def samples(count: int = 60, seed: int = 0) -> list[Sample]:
    """Accounts whose tokens from 100 on are fraud's, every one with an account of its own."""
    rng = Random(seed)
    made = []
    for account in range(count):
        fraud = account % 2 == 0
        ids = [rng.choice((rng.randrange(10, 40), rng.randrange(100, 120) if fraud else 50)) for _ in range(12)]
        made.append(sample(account, ids, [0.0, float(fraud), float(fraud), float(fraud)]))
    return made


def n_grams(ids: Sequence[int]) -> list[tuple[int, ...]]:
    """One to three in a row."""
    return [tuple(ids[at : at + order]) for order in (1, 2, 3) for at in range(len(ids) - order + 1)]


def test_the_fit_is_scikit_learns() -> None:
    """The same table by TfidfVectorizer, the same regression: the same log-odds, to half precision."""
    made = samples()
    texts = [one.own_ids[: end + 1] for one in made for end in one.own_ends]
    truth = [value for one in made for value in one.truth.tolist()]
    vectorizer = TfidfVectorizer(analyzer=n_grams, sublinear_tf=True)
    model = LogisticRegression(C=1.0, max_iter=500).fit(vectorizer.fit_transform(texts), truth)
    wanted = model.decision_function(vectorizer.transform(texts))
    lexicon = fit(made, RUN, 0)
    assert [lexicon.score(ids) for ids in texts] == pytest.approx(wanted.tolist(), abs=0.02)


def test_doubts_teach_nothing() -> None:
    """Readings of an uncertain truth or of no weight leave the fit as it is."""
    made = samples()
    doubtful = sample(99, [500] * 12, [0.35] * 4)
    ignored = sample(98, [501] * 12, [1.0] * 4)
    ignored.weight[:] = 0
    with_them = fit([*made, doubtful, ignored], RUN, 0)
    assert with_them.score([11, 12]) == fit(made, RUN, 0).score([11, 12])


def test_no_account_teaches_the_scores_that_it_learns_from() -> None:
    """Turning one account's labels around changes other accounts' scores, and not its own."""
    scores = []
    for turned in (False, True):
        made = samples()
        if turned:
            made[0].truth[:] = 1 - made[0].truth
        give_lexicon(made, [], RUN, 0)
        scores.append(np.stack([one.numbers[:, COLUMNS.index(FEATURE)].numpy() for one in made]))
    assert not np.isnan(scores).any()
    assert (scores[0][0] == scores[1][0]).all()
    assert (scores[0] != scores[1]).any()


def test_others_get_the_scores_that_serving_gives() -> None:
    """dev's numbers are the lexicon's own, after the prefix."""
    made, others = samples(), samples(4, seed=1)
    lexicon = give_lexicon(made, others, RUN, 0)
    for one in others:
        wanted = [lexicon.score(one.own_ids[: end + 1]) for end in one.own_ends]
        assert one.numbers[:, COLUMNS.index(FEATURE)].tolist() == pytest.approx(wanted)
        assert torch.isnan(one.numbers[:, : len(COLUMNS) - 1]).all()

"""What the pipeline relies on from an engine, one suite for every backend; a subclass brings the fixture `engine`."""

from typing import ClassVar

import pytest
from releases import FEATURES, TENANTS, TEXTS, request_of

from fraudguard.domain import Scalar, ScoreRequest
from fraudguard.engine.engine import Engine
from fraudguard.engine.remote import RemoteEngine
from fraudguard.errors import BadModel

Backend = Engine | RemoteEngine


def growing(account_id: str, lines: int) -> list[ScoreRequest]:
    """The timelines of an account after each of its lines."""
    texts = [f"{account_id}: {number} {TEXTS[number % len(TEXTS)]}" for number in range(lines)]
    return [request_of(*texts[: number + 1], account_id=account_id) for number in range(lines)]


class EngineContract:
    """The release is one of tests/releases.py. tolerance: how far a risk may move with its batch and what is cached."""

    tolerance: ClassVar[float] = 1e-5

    def close(self, risk: float) -> object:
        """Equal to this within the tolerance."""
        return pytest.approx(risk, abs=self.tolerance)

    def test_packed_is_one_by_one_in_order(self, engine: Backend) -> None:
        """A batch of many lengths and accounts gives each request, in its place, the score it gets alone."""
        requests = [
            request_of(*TEXTS[: n % 3 + 1], str(n) * n, account_id=f"a-{n}", features=FEATURES | {"transfers_1d": n})
            for n in range(12)
        ]
        alone = [engine.score([one])[0] for one in requests]
        for packed, single in zip(engine.score(requests), alone, strict=True):
            assert packed.risk == self.close(single.risk)
            assert packed.typology == single.typology
        backwards = engine.score(requests[::-1])
        assert [score.risk for score in backwards] == self.close([score.risk for score in alone[::-1]])
        assert len({score.risk for score in alone}) == len(requests)

    def test_a_growing_timeline_scores_the_same_line_by_line_and_at_once(self, engine: Backend) -> None:
        """One account's events, each after the other or several in one batch, and again when all is cached."""
        requests = growing("a-grows", 6)
        one_by_one = [engine.score([one])[0].risk for one in requests]
        assert [score.risk for score in engine.score(requests)] == self.close(one_by_one)
        assert [engine.score([one])[0].risk for one in requests] == self.close(one_by_one)
        assert len(set(one_by_one)) == len(requests)

    def test_accounts_that_grow_together_do_not_mix(self, engine: Backend) -> None:
        """Batches of several accounts' next lines give what each account gets alone."""
        lives = [growing(f"a-{number}", 5) for number in range(4)]
        together = [[score.risk for score in engine.score(batch)] for batch in zip(*lives, strict=True)]
        for number, life in enumerate(lives):
            alone = [engine.score([one])[0].risk for one in life]
            assert [batch[number] for batch in together] == self.close(alone)

    def test_no_requests_no_scores(self, engine: Backend) -> None:
        """An empty batch is fine."""
        assert engine.score([]) == []

    def test_a_longer_timeline_is_read_from_its_end(self, engine: Backend) -> None:
        """Of more than tokens_max tokens the last are read, and the others of the batch are not harmed."""
        tail = [f"customer: {n} {TEXTS[0]}" for n in range(20)]
        assert sum(map(engine.tokenizer.count, tail)) > engine.tokens_max
        short = request_of(TEXTS[1])
        first, second, beside = engine.score(
            [request_of("customer: a", *tail), request_of("agent: quite another beginning", *tail), short]
        )
        assert first.risk == self.close(second.risk)
        assert beside.risk == self.close(engine.score([short])[0].risk)

    def test_the_longest_timeline_is_read_whole(self, engine: Backend) -> None:
        """Of exactly tokens_max tokens the first one counts."""
        end = [""] * (engine.tokens_max - 2)  # an empty line is one token
        first, second = (request_of(beginning, *end) for beginning in ("a", "b"))
        assert len(engine.tokenizer.encode_timeline(first.timeline, 10_000)) == engine.tokens_max
        risks = [score.risk for score in engine.score([first, second])]
        assert risks[0] != self.close(risks[1])

    def test_every_score_is_signed_and_in_range(self, engine: Backend) -> None:
        """The engine's name, a typology of the head, a probability."""
        for score in engine.score(growing("a-signed", 4)):
            assert score.model == engine.name
            assert score.typology in ("scam", "mule")
            assert 0 <= score.risk <= 1
        assert engine.name.startswith("qwen25@0.0.1+")

    @pytest.mark.parametrize("change", [{"amount_base": 40.0}, {"is_new_counterparty": False}, {"amount_base": None}])
    def test_a_feature_counts(self, engine: Backend, change: dict[str, Scalar]) -> None:
        """The risk moves with a number, with a boolean, and when a value is missing: by more than batching moves it."""
        before, same, after = engine.score(
            [request_of("a"), request_of("a"), request_of("a", features=FEATURES | change)]
        )
        assert before.risk == pytest.approx(same.risk, abs=1e-5)  # the same text, read once or twice in the same batch
        assert before.risk != pytest.approx(after.risk, abs=1e-5)

    def test_missing_features_are_refused(self, engine: Backend) -> None:
        """A head made for another registry says which feature it wants, and the next batch is scored."""
        with pytest.raises(BadModel, match="reads a feature 'amount_base'"):
            engine.score([request_of("a", features={"is_new_counterparty": True, "transfers_1d": 1})])
        assert len(engine.score([request_of("a")])) == 1


class TenantsContract(EngineContract):
    """The same of a release with the tenants of tests/releases.py, whose own adapter is unmerged too."""

    def test_tenants_that_share_a_batch_do_not_mix(self, engine: Backend) -> None:
        """In any order each request gets what it gets alone; nobody's tenant gets the release's own."""
        names = [None, *TENANTS, "nobody"]
        requests = [request_of(*TEXTS[: n % 3 + 1], account_id=f"a-{n % 4}", tenant=names[n % 5]) for n in range(30)]
        alone = [engine.score([one])[0].risk for one in requests]
        assert [score.risk for score in engine.score(requests)] == self.close(alone)
        assert [score.risk for score in engine.score(requests[::-1])] == self.close(alone[::-1])
        of_names = engine.score([request_of(TEXTS[0], tenant=name) for name in names])
        assert of_names[0] == of_names[-1]
        assert len({score.risk for score in of_names}) == len(names) - 1

    def test_one_account_at_several_tenants_grows_apart(self, engine: Backend) -> None:
        """The same lines under the same account, interleaved, score as under accounts of their own."""
        texts = [f"{number} {TEXTS[number % len(TEXTS)]}" for number in range(5)]

        def grown(tenant: str, account: str) -> list[ScoreRequest]:
            return [request_of(*texts[: n + 1], account_id=account, tenant=tenant) for n in range(len(texts))]

        apart = {tenant: [engine.score([one])[0].risk for one in grown(tenant, f"a-{tenant}")] for tenant in TENANTS}
        batches = zip(*(grown(tenant, "a-shared") for tenant in TENANTS), strict=True)
        together = [[score.risk for score in engine.score(batch)] for batch in batches]
        for place, tenant in enumerate(TENANTS):
            assert [risks[place] for risks in together] == self.close(apart[tenant])

    def test_a_tenants_score_is_signed_with_it(self, engine: Backend) -> None:
        """Between the release's version and the precision."""
        release, precision = engine.name.split("+")
        for tenant in TENANTS:
            (score,) = engine.score([request_of("a", tenant=tenant)])
            assert score.model == f"{release}/{tenant}+{precision}"

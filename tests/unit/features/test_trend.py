"""How risk and typology moved, against the definition."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from views import NOTHING_SHARED

NAMES = ["risk_previous", "risk_change", "risk_max_5", "risk_mean_5", "typology_previous", "typology_changes_5"]


def test_nothing_scored_is_missing(account, payment):
    """Also where events were taken but none had a score."""
    state = account()
    state.take(payment(), *NOTHING_SHARED)
    assert state.trend() == dict.fromkeys(NAMES)


@given(
    scores=st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["scam", "mule", "other"])), min_size=1, max_size=12),
    stops=st.sets(st.integers(0, 11)),
)
def test_trend_is_its_definition(account, scores, stops):
    """Over the last five scores, wherever the state went through the store."""
    state = account()
    for number, (risk, typology) in enumerate(scores):
        state.scored(risk, typology)
        if number in stops:
            body = state.dump()
            state = account()
            state.restore(body)
        last = scores[max(0, number - 4) : number + 1]
        risks, typologies = [entry[0] for entry in last], [entry[1] for entry in last]
        trend = state.trend()
        assert abs(Fraction(trend.pop("risk_mean_5")) - sum(map(Fraction, risks)) / len(risks)) < Fraction(1, 10**15)
        assert trend == {
            "risk_previous": risk,
            "risk_change": risk - risks[0],
            "risk_max_5": max(risks),
            "typology_previous": typology,
            "typology_changes_5": sum(typologies[i] != typologies[i - 1] for i in range(1, len(last))),
        }

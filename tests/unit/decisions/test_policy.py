"""The policy: its decision table, its laws, and the errors people meet in its file."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.decisions.policy import Policy, load_policy
from fraudguard.domain import Hit, Outcome, Score, Typology
from fraudguard.errors import BadPolicy

SOURCE = """\
version: 1
model:
  transaction: {step_up: 0.5, review: 0.8, block: 0.97}
  message: {review: 0.85}
degraded:
  ENGINE_UNAVAILABLE: {transaction: step_up, message: approve}
  OVERLOAD: {transaction: review, message: approve}
  ENGINE_OFF: {transaction: approve, message: approve}
cases:
  transaction: [review, block]
  message: [block]
"""
POLICY = Policy.from_source(SOURCE)
A, S, R, B = Outcome.APPROVE, Outcome.STEP_UP, Outcome.REVIEW, Outcome.BLOCK


def score(risk: float) -> Score:
    """A model's answer."""
    return Score(risk, Typology.SCAM, "m")


def hit(reason: str, outcome: Outcome, state: str = "live") -> Hit:
    """A rule that held."""
    return Hit("rule", 1, outcome, reason, state)  # type: ignore[arg-type] - "live" or "shadow"


@pytest.mark.parametrize(
    ("event_type", "risk", "hits", "degraded", "late", "outcome", "reasons"),
    [
        ("transaction", 0.1, [], None, False, A, ()),
        ("transaction", 0.4999999999999999, [], None, False, A, ()),
        ("transaction", 0.5, [], None, False, S, ("MODEL_RISK_STEP_UP",)),
        ("transaction", 0.8, [], None, False, R, ("MODEL_RISK_REVIEW",)),
        ("transaction", 1.0, [], None, False, B, ("MODEL_RISK_BLOCK",)),
        ("message", 0.84, [], None, False, A, ()),
        ("message", 1.0, [], None, False, R, ("MODEL_RISK_REVIEW",)),
        ("transaction", 0.1, [hit("URGENT", B)], None, False, B, ("URGENT",)),
        ("transaction", 0.1, [hit("URGENT", B, "shadow")], None, False, A, ()),
        ("transaction", 0.8, [hit("URGENT", B)], None, False, B, ("URGENT", "MODEL_RISK_REVIEW")),
        ("transaction", 0.8, [hit("NEW", R)], None, False, R, ("MODEL_RISK_REVIEW", "NEW")),
        ("transaction", 0.8, [hit("KNOWN_PAYEE", A)], None, False, R, ("MODEL_RISK_REVIEW", "KNOWN_PAYEE")),
        ("transaction", 0.1, [hit("B", R), hit("A", R), hit("B", B)], None, False, B, ("B", "A")),
        ("transaction", None, [], "ENGINE_UNAVAILABLE", False, S, ("ENGINE_UNAVAILABLE",)),
        ("message", None, [], "ENGINE_UNAVAILABLE", False, A, ("ENGINE_UNAVAILABLE",)),
        ("transaction", None, [hit("URGENT", B)], "OVERLOAD", False, B, ("URGENT", "OVERLOAD")),
        ("transaction", None, [hit("NEW", S)], "OVERLOAD", True, R, ("OVERLOAD", "NEW", "LATE_EVENT")),
        ("transaction", None, [], "ENGINE_OFF", True, A, ("ENGINE_OFF", "LATE_EVENT")),
        ("transaction", 0.1, [], None, True, A, ("LATE_EVENT",)),
    ],
)
def test_decision_table(
    event_type: str,
    risk: float | None,
    hits: list[Hit],
    degraded: str | None,
    late: bool,
    outcome: Outcome,
    reasons: tuple[str, ...],
) -> None:
    """Each row gives exactly this outcome with these reasons in this order."""
    given_score = None if risk is None else score(risk)
    assert POLICY.decide(event_type, given_score, hits, degraded, late) == (outcome, reasons)  # type: ignore[arg-type]


hits_of = st.lists(
    st.builds(
        Hit,
        rule=st.sampled_from("abc"),
        version=st.just(1),
        outcome=st.sampled_from(Outcome),
        reason=st.sampled_from(["X", "Y", "Z"]),
        state=st.sampled_from(["live", "shadow"]),
    ),
    max_size=6,
)
types = st.sampled_from(["transaction", "message"])
scores = st.none() | st.floats(0, 1).map(score)
causes = st.none() | st.sampled_from(sorted(POLICY.degraded_reasons))


@settings(max_examples=200, deadline=None)
@given(types, scores, hits_of, causes, st.booleans(), st.randoms())
def test_laws(event_type, scored, hits, cause, late, random) -> None:  # type: ignore[no-untyped-def] - drawn
    """Order of hits, shadow hits and lateness never change the outcome; nothing live is undercut; no repeats."""
    outcome, reasons = POLICY.decide(event_type, scored, hits, cause, late)
    shuffled = random.sample(hits, len(hits))
    assert POLICY.decide(event_type, scored, shuffled, cause, late) == (outcome, reasons)
    live = [h for h in hits if h.state == "live"]
    assert POLICY.decide(event_type, scored, live, cause, late) == (outcome, reasons)
    assert POLICY.decide(event_type, scored, hits, cause, not late)[0] is outcome
    floors = [POLICY.floors[cause][event_type]] if cause else []
    alone = POLICY.decide(event_type, scored, [], None, False)[0]
    assert outcome.severity == max(o.severity for o in [A, alone, *floors, *(h.outcome for h in live)])
    assert len(set(reasons)) == len(reasons)
    assert set(reasons) >= {h.reason for h in live} | ({cause} if cause else set())


def test_cases_by_type() -> None:
    """Which outcomes open a case is the policy's word for each event type."""
    assert [POLICY.opens_case("transaction", o) for o in (A, S, R, B)] == [False, False, True, True]
    assert [POLICY.opens_case("message", o) for o in (A, S, R, B)] == [False, False, False, True]


def test_an_unnamed_degraded_reason_is_a_bug() -> None:
    """A reason without a floor fails loudly instead of approving."""
    with pytest.raises(KeyError):
        POLICY.decide("transaction", None, [], "NEW_REASON", False)


def test_the_version_is_the_content() -> None:
    """Another text is another version; the same text, wherever it lies, is the same."""
    assert len(POLICY.version) == 12
    assert int(POLICY.version, 16) >= 0
    assert Policy.from_source(SOURCE, "elsewhere").version == POLICY.version
    assert Policy.from_source(SOURCE + "# note\n").version != POLICY.version
    assert Policy.from_source(POLICY.source) == POLICY


def test_the_shipped_policy_loads() -> None:
    """rules/policy.yaml is valid and sends blocked payments and messages to a person."""
    policy = load_policy(Path(__file__).parents[3] / "rules" / "policy.yaml")
    assert policy.opens_case("transaction", B)
    assert policy.opens_case("message", B)
    assert policy.degraded_reasons == {"ENGINE_UNAVAILABLE", "OVERLOAD", "ENGINE_OFF"}


def test_the_document_shows_a_valid_policy() -> None:
    """The file printed in docs/policy.md is the shipped one."""
    root = Path(__file__).parents[3]
    assert (root / "rules" / "policy.yaml").read_text() in (root / "docs" / "policy.md").read_text()


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("version: 1", "version: 2", "p.yaml:1:1: version: Input should be 1 (docs/policy.md shows the whole file)"),
        ("version: 1\n", "", "p.yaml:1:1: version: is missing (add 'version'; docs/policy.md shows the whole file)"),
        ("block: 0.97", "blok: 0.97", "p.yaml:3:44: model.transaction.blok: unknown field (did you mean 'block'?)"),
        (
            "0.97",
            "1.5",
            "p.yaml:3:44: model.transaction.block: Input should be less than or equal to 1"
            " (docs/policy.md shows the whole file)",
        ),
        (
            "0.97",
            "0.8",
            "p.yaml:3:3: model.transaction: a more severe outcome must need a higher risk: step_up < review < block"
            " (docs/policy.md shows the whole file)",
        ),
        (
            "0.97",
            "'0.97'",
            "p.yaml:3:44: model.transaction.block: Input should be a valid number"
            " (docs/policy.md shows the whole file)",
        ),
        (
            "[block]",
            "[block, blocked]",
            "p.yaml:11:20: cases.message.1: Input should be 'approve', 'step_up', 'review' or 'block'"
            " (docs/policy.md shows the whole file)",
        ),
        (
            "  OVERLOAD: {transaction: review, message: approve}\n",
            "",
            "p.yaml:5:1: degraded.OVERLOAD: is missing (add 'OVERLOAD'; docs/policy.md shows the whole file)",
        ),
        ("step_up: 0.5", "step_up: 0.5, step_up: 0.6", "p.yaml:3:31: 'step_up' stands twice (mend the YAML)"),
        ("cases:\n", "cases: [\n", "p.yaml:11:3: expected ',' or ']', but got '<scalar>' (mend the YAML)"),
        ("cases:\n", "? [a]\n: 1\ncases:\n", "p.yaml:9:3: a key must be a word (mend the YAML)"),
        (SOURCE, "", "p.yaml:1:1: must be a mapping (docs/policy.md shows the whole file)"),
    ],
)
def test_errors_name_their_place(old: str, new: str, error: str) -> None:
    """A refused file says file:line:column, what is wrong and what to do."""
    assert old in SOURCE
    with pytest.raises(BadPolicy) as caught:
        Policy.from_source(SOURCE.replace(old, new), "p.yaml")
    assert str(caught.value) == error


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=80)
    | st.integers(0, len(SOURCE)).flatmap(lambda n: st.text(max_size=3).map(lambda t: SOURCE[:n] + t + SOURCE[n + 1 :]))
)
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    """Whatever stands in the file, it loads or raises BadPolicy."""
    try:
        policy = Policy.from_source(text)
    except BadPolicy:
        return
    assert policy.decide("transaction", score(1.0), [], None, False)[0] in Outcome


@pytest.mark.parametrize("text", ["[" * 60_000, "x" * 70_000, "a: !!int x", "a: &a [*a]", "a: \x01"])
def test_hostile_files_are_refused(text: str) -> None:
    """Depth, length, tags, cycles and control characters end in BadPolicy."""
    with pytest.raises(BadPolicy):
        Policy.from_source(text)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    """A missing file and one that is not UTF-8 are named."""
    (tmp_path / "latin.yaml").write_bytes(b"\xff")
    for name in ("none.yaml", "latin.yaml"):
        with pytest.raises(BadPolicy, match=name):
            load_policy(tmp_path / name)

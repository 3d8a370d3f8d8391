"""The policy: its decision table, its laws, and the errors people meet in its file."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.decisions.policy import Policy, due_of, json_schema, load_policy
from fraudguard.domain import SEVERITIES, Hit, Outcome, Score, Severity, Typology
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
POLICY = Policy.from_source(SOURCE)  # without the keys that came later: stored policies are read for ever
FULL_SOURCE = (
    SOURCE.replace(
        "block: 0.97}", "block: 0.97, by_typology: {scam: {review: 0.6}, mule: {step_up: 0.7, block: null}}}"
    )
    + "severity: {step_up: low, review: medium, block: high}\n"
    + "allow:\n  takes_back: {transaction: step_up, message: review}\n"
)
FULL = Policy.from_source(FULL_SOURCE)
A, S, R, B = Outcome.APPROVE, Outcome.STEP_UP, Outcome.REVIEW, Outcome.BLOCK


def score(risk: float, typology: Typology = Typology.SCAM) -> Score:
    """A model's answer."""
    return Score(risk, typology, "m")


def hit(reason: str, outcome: Outcome, state: str = "live", severity: Severity = "medium") -> Hit:
    """A rule that held."""
    return Hit("rule", 1, outcome, reason, state, severity)  # type: ignore[arg-type] - "live" or "shadow"


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
    verdict = POLICY.decide(event_type, given_score, hits, degraded, late)  # type: ignore[arg-type]
    assert (verdict.outcome, verdict.reasons) == (outcome, reasons)


@pytest.mark.parametrize(
    ("typology", "thresholds"),
    [
        ("scam", ((B, 0.97), (R, 0.6), (S, 0.5))),
        ("mule", ((R, 0.8), (S, 0.7))),
        ("cash_out", ((B, 0.97), (R, 0.8), (S, 0.5))),
    ],
)
def test_thresholds_of_a_typology(typology: str, thresholds: tuple[tuple[Outcome, float], ...]) -> None:
    """What a typology states replaces the general threshold of that outcome, null takes it away, the rest stays."""
    assert FULL.thresholds["transaction"][Typology(typology)] == thresholds
    assert FULL.thresholds["message"][Typology(typology)] == ((R, 0.85),)
    for outcome, least in thresholds:
        assert FULL.decide("transaction", score(least, Typology(typology)), [], None, False).outcome is outcome


@pytest.mark.parametrize(
    ("event_type", "risk", "hits", "degraded", "outcome", "severity", "reasons", "taken"),
    [
        ("transaction", 0.1, [], None, A, None, (), ()),
        ("transaction", 0.5, [], None, S, "low", ("MODEL_RISK_STEP_UP",), ()),
        ("transaction", 0.97, [hit("X", B, severity="critical")], None, B, "critical", ("MODEL_RISK_BLOCK", "X"), ()),
        ("transaction", 0.97, [hit("X", R, severity="critical")], None, B, "high", ("MODEL_RISK_BLOCK", "X"), ()),
        ("transaction", 0.97, [hit("X", B, "shadow", "critical")], None, B, "high", ("MODEL_RISK_BLOCK",), ()),
        ("transaction", 0.1, [hit("OK", A, severity="low")], None, A, "low", ("OK",), ()),
        ("transaction", 0.5, [hit("OK", A)], None, A, "medium", ("OK",), ("MODEL_RISK_STEP_UP",)),
        ("transaction", 0.5, [hit("OK", A, "shadow")], None, S, "low", ("MODEL_RISK_STEP_UP",), ()),
        ("transaction", 0.6, [hit("OK", A), hit("X", S)], None, R, "medium", ("MODEL_RISK_REVIEW", "OK"), ("X",)),
        ("transaction", 0.5, [hit("OK", A), hit("X", S)], None, A, "medium", ("OK",), ("MODEL_RISK_STEP_UP", "X")),
        ("message", 0.9, [hit("OK", A), hit("X", B)], None, B, "medium", ("X", "OK"), ("MODEL_RISK_REVIEW",)),
        ("transaction", None, [hit("OK", A)], "ENGINE_UNAVAILABLE", S, "low", ("ENGINE_UNAVAILABLE", "OK"), ()),
        ("transaction", None, [hit("OK", A), hit("X", S)], "OVERLOAD", R, "medium", ("OVERLOAD", "OK"), ("X",)),
        ("message", None, [hit("OK", A), hit("X", S)], "OVERLOAD", A, "medium", ("OK", "OVERLOAD"), ("X",)),
    ],
)
def test_severity_and_allow_rules(
    event_type: str,
    risk: float | None,
    hits: list[Hit],
    degraded: str | None,
    outcome: Outcome,
    severity: str | None,
    reasons: tuple[str, ...],
    taken: tuple[str, ...],
) -> None:
    """Each row gives this outcome, severity and reasons, and these reasons were taken back."""
    verdict = FULL.decide(event_type, None if risk is None else score(risk), hits, degraded, False)  # type: ignore[arg-type]
    assert (verdict.outcome, verdict.severity, verdict.reasons) == (outcome, severity, reasons)
    assert tuple(ask.reason for ask in verdict.asked if ask.taken_back) == taken


def test_a_policy_without_the_newer_keys_says_so() -> None:
    """Nothing is taken back and the model brings no severity; a rule's own still counts."""
    assert POLICY.decide("transaction", score(0.5), [hit("OK", A)], None, False).reasons == ("MODEL_RISK_STEP_UP", "OK")
    assert POLICY.decide("transaction", score(0.5), [], None, False).severity is None
    assert POLICY.decide("transaction", score(0.5), [hit("X", S)], None, False).severity == "medium"


def test_the_example_of_the_document() -> None:
    """docs/policy.md, `An example`, comes out as written there, under the shipped policy."""
    policy = load_policy(Path(__file__).parents[3] / "rules" / "policy.yaml")
    hits = [
        Hit("burst", 1, S, "BURST", "live", "medium"),
        Hit("known-payee", 1, A, "KNOWN_PAYEE", "live", "low"),
    ]
    verdict = policy.decide("transaction", score(0.62), hits, None, False)
    assert [(ask.rule, ask.outcome, ask.severity, ask.taken_back) for ask in verdict.asked] == [
        ("", R, "medium", False),
        ("known-payee", A, "low", False),
        ("burst", S, "medium", True),
    ]
    assert (verdict.outcome, verdict.severity) == (R, "medium")
    assert verdict.reasons == ("MODEL_RISK_REVIEW", "KNOWN_PAYEE")
    assert policy.opens_case("transaction", verdict.outcome)
    lower = policy.decide("transaction", score(0.45), hits, None, False)
    assert (lower.outcome, lower.reasons) == (A, ("KNOWN_PAYEE",))
    down = policy.decide("transaction", None, hits, "ENGINE_UNAVAILABLE", False)
    assert (down.outcome, down.reasons) == (S, ("ENGINE_UNAVAILABLE", "KNOWN_PAYEE"))


hits_of = st.lists(
    st.builds(
        Hit,
        rule=st.sampled_from("abcdef"),
        version=st.just(1),
        outcome=st.sampled_from(Outcome),
        reason=st.sampled_from(["X", "Y", "Z"]),
        state=st.sampled_from(["live", "shadow"]),
        severity=st.sampled_from(SEVERITIES),
    ),
    # Ids are unique in a rule set.
    unique_by=lambda h: h.rule,
    max_size=6,
)
types = st.sampled_from(["transaction", "message"])
scores = st.none() | st.floats(0, 1).map(score)
causes = st.none() | st.sampled_from(sorted(POLICY.degraded_reasons))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([POLICY, FULL]), types, scores, hits_of, causes, st.booleans(), st.randoms())
def test_laws(policy, event_type, scored, hits, cause, late, random) -> None:  # type: ignore[no-untyped-def] - drawn
    """Order of hits and shadow hits change nothing, lateness only adds its reason; nothing repeats or is undercut."""
    verdict = policy.decide(event_type, scored, hits, cause, late)
    assert policy.decide(event_type, scored, random.sample(hits, len(hits)), cause, late) == verdict
    live = [h for h in hits if h.state == "live"]
    assert policy.decide(event_type, scored, live, cause, late) == verdict
    assert replace(policy.decide(event_type, scored, hits, cause, not late), reasons=()) == replace(verdict, reasons=())
    floors = [policy.floors[cause][event_type]] if cause else []
    alone = policy.decide(event_type, scored, [], None, False).outcome
    allowed = policy.takes_back[event_type] if any(h.outcome is A for h in live) else A
    asked = [alone, *(h.outcome for h in live)]
    left = [o for o in asked if o.severity > allowed.severity]
    assert verdict.outcome.severity == max(o.severity for o in [A, *floors, *left])
    assert len(set(verdict.reasons)) == len(verdict.reasons)
    standing = [ask for ask in verdict.asked if not ask.taken_back]
    assert set(verdict.reasons) == {ask.reason for ask in standing} | ({"LATE_EVENT"} if late else set())
    assert {ask.reason for ask in verdict.asked} >= {h.reason for h in live} | ({cause} if cause else set())
    assert {ask.rule for ask in verdict.asked if ask.rule} == {h.rule for h in live}
    assert all(ask.source != "floor" for ask in verdict.asked if ask.taken_back)
    if verdict.outcome is not A:
        assert verdict.reasons[0] == next(ask.reason for ask in verdict.asked if ask.outcome is verdict.outcome)
        own = [h.severity for h in live if h.outcome is verdict.outcome and h.outcome.severity > allowed.severity]
        assert SEVERITIES.index(verdict.severity or "low") >= max(map(SEVERITIES.index, own), default=0)


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


def test_alerts_are_due_by_their_outcome() -> None:
    """As stated, an approved event that opens a case as a step-up; without a statement as in older policies."""
    stated = Policy.from_source(SOURCE + "due: {step_up: 60, review: 10, block: 1}\n").due
    assert {outcome.value: due.seconds // 60 for outcome, due in stated.items()} == {
        "approve": 60,
        "step_up": 60,
        "review": 10,
        "block": 1,
    }
    assert Policy.from_source(SOURCE).due == due_of()
    for wrong in ("due: {step_up: 60, review: 10}", "due: {step_up: 60, review: 0, block: 1}", "due:", "due: soon"):
        with pytest.raises(BadPolicy, match="due"):
            Policy.from_source(f"{SOURCE}{wrong}\n")


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
        (
            "block: 0.97}",
            "block: 0.97, by_typology: {scamm: {review: 0.4}}}",
            "p.yaml:3:71: model.transaction.by_typology.scamm: unknown field (did you mean 'scam'?)",
        ),
        (
            "block: 0.97}",
            "block: 0.97, by_typology: {scam: {review: 0.4}}}",
            "p.yaml:3:71: model.transaction.by_typology.scam: with the general thresholds this is step_up 0.5, "
            "review 0.4, block 0.97; a more severe outcome must need a higher risk"
            " (state the others here too; null is never)",
        ),
        (
            "block: 0.97}",
            "block: 0.97, by_typology: {scam: {review: 2}}}",
            "p.yaml:3:78: model.transaction.by_typology.scam.review: Input should be less than or equal to 1"
            " (docs/policy.md shows the whole file)",
        ),
        (
            "block: 0.97}",
            "block: 0.97, by_typology: {scam:}}",
            "p.yaml:3:71: model.transaction.by_typology.scam: must be a mapping (docs/policy.md shows the whole file)",
        ),
        (
            "cases:",
            "severity: {step_up: low, review: medium}\ncases:",
            "p.yaml:9:1: severity.block: is missing (add 'block'; docs/policy.md shows the whole file)",
        ),
        (
            "cases:",
            "severity: {step_up: low, review: medium, block: hihg}\ncases:",
            "p.yaml:9:42: severity.block: Input should be 'low', 'medium', 'high' or 'critical'"
            " (docs/policy.md shows the whole file)",
        ),
        (
            "cases:",
            "severity:\ncases:",
            "p.yaml:9:1: severity: must be a mapping (docs/policy.md shows the whole file)",
        ),
        ("cases:", "alow: {}\ncases:", "p.yaml:9:1: alow: unknown field (did you mean 'allow'?)"),
        (
            "cases:",
            "allow: {takes_back: {transaction: step_up}}\ncases:",
            "p.yaml:9:9: allow.takes_back.message: is missing (add 'message'; docs/policy.md shows the whole file)",
        ),
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
    | st.integers(0, len(FULL_SOURCE)).flatmap(
        lambda n: st.text(max_size=3).map(lambda t: FULL_SOURCE[:n] + t + FULL_SOURCE[n + 1 :])
    )
)
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    """Whatever stands in the file, it loads or raises BadPolicy."""
    try:
        policy = Policy.from_source(text)
    except BadPolicy:
        return
    assert policy.decide("transaction", score(1.0), [], None, False).outcome in Outcome


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


def test_the_editors_schema_is_current_and_takes_the_shipped_policy() -> None:
    """docs/schemas/policy.json is what the reader's models say; `fraudguard schemas` writes it."""
    root = Path(__file__).parents[3]
    stored = json.loads((root / "docs/schemas/policy.json").read_text(encoding="utf-8"))
    assert stored == json_schema()
    jsonschema.validate(yaml.safe_load((root / "rules/policy.yaml").read_text(encoding="utf-8")), stored)

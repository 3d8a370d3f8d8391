"""A short run of the fuzz target that tests/slow runs at length."""

from rules_fuzz import run


def test_some_random_rules_load_or_are_refused_and_mean_what_the_reference_says() -> None:
    """200 packs and 4,000 events: no exception but BadRule, no difference from the reference, no fallback."""
    seen = run(seed=1, files=200, events=4_000)
    assert seen["loaded"] + seen["refused"] == 200
    assert min(seen["loaded"], seen["refused"]) > 20
    assert seen["events"] >= 4_000

"""The benchmark of many analysts, small: what it checks at its end holds on a real API process."""

from pathlib import Path

from benchmarks.analysts import Plan, play


def test_a_short_shift_loses_nothing(database_url: str, tmp_path: Path) -> None:
    """Analysts in each other's way, alerts that keep coming, subscribers: no error, no lost update, one trail."""
    plan = Plan(analysts=8, subscribers=6, screens=2, minutes=0.05, cases=20, batches_s=10, think_s=0.1, deeds_min=40)
    figures = play(database_url, tmp_path, plan)
    assert figures["wrong"] == []
    assert figures["errors"] == {}
    assert sum(figures["deeds"].values()) >= plan.deeds_min
    assert figures["events_heard"] > plan.subscribers
    assert figures["whole_queues_read"] >= plan.subscribers

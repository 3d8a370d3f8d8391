"""What an approver is told of a release, what is refused, and the files that remember which release they are."""

from pathlib import Path

import pytest
from packs import NOON, POLICY, files_of, ready, rule, write

from fraudguard.decisions.rulebook import Release
from fraudguard.errors import Conflict
from fraudguard.rulebook import diff, notices, objections, read_base, write_base, write_files
from fraudguard.rules.schema import Rule

SMALL = rule("small", "amount_base < 1", "{amount_base: 0.5}")


def rules_of(*texts: str) -> tuple[Rule, ...]:
    """The rules as read."""
    return ready(files_of(texts)).rules.rules


def large(version: int = 1, limit: int = 100, **others: str) -> str:
    """One rule, by what may change."""
    return rule("large", f"amount_base > {limit}", f"{{amount_base: {limit + 1}}}", version=version, **others)


def release(number: int, parent: int) -> Release:
    """One in force."""
    return Release(number, parent, "r", "p", "ana", "files", "", "", NOON, (), NOON, True)


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        (large(), large(), False),
        (large(), large(limit=99), True),
        (large(), large(outcome="block"), True),
        (large(3), large(2, limit=99), True),
        (large(), large(2, limit=99), False),
        (large(), large(state="shadow"), False),
        (large(), large(others="rollout: 5\n"), False),
        (large(), large(others="gaps: none known\n"), False),
    ],
    ids=["same", "condition", "outcome", "older version", "raised", "state", "rollout", "words"],
)
def test_a_rule_may_not_say_something_else_under_a_version_that_was_published(
    before: str, after: str, refused: bool
) -> None:
    """What it does counts, and so does going back; its state, rollout and words are free."""
    faults = objections(rules_of(before), rules_of(after))
    assert bool(faults) is refused
    assert all("large changed but is still version" in fault and "rules.yaml:1" in fault for fault in faults)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ([large()], [large()], []),
        ([large()], [large(2, limit=50)], ["large says something else now (version 1 -> 2)"]),
        ([large(state="shadow")], [large()], ["large goes from shadow to live"]),
        (
            [large(state="draft")],
            [large()],
            ["large goes from draft to live", "large goes live without having been in shadow"],
        ),
        ([large()], [large(others="rollout: 20\n")], ["large acts for 20 % of accounts (was 100 %)"]),
        (
            [large(), rule("small", "amount_base < 1", "{amount_base: 0.5}")],
            [large()],
            ["small is gone; retire it first"],
        ),
        (
            [large()],
            [large(), SMALL],
            ["small is new, live", "small goes live without having been in shadow"],
        ),
    ],
    ids=["nothing", "says otherwise", "from shadow", "from draft", "rollout", "gone", "new"],
)
def test_an_approver_is_told_what_becomes_of_each_rule(before: list[str], after: list[str], said: list[str]) -> None:
    """One line a fact."""
    assert notices(rules_of(*before), rules_of(*after)) == said


def test_a_difference_names_files_and_lines() -> None:
    """A file that is new or gone counts as one that was or is empty."""
    told = diff({"a.yaml": "x\ny\n", "gone.yaml": "z\n"}, {"a.yaml": "x\nw\n", "new.yaml": "v\n"})
    lines = told.splitlines()
    assert [line for line in lines if line[0] in "+-" and line[:3] not in {"+++", "---"}] == ["-y", "+w", "-z", "+v"]
    assert "--- in force/a.yaml" in lines
    assert diff({"a.yaml": "x\n"}, {"a.yaml": "x\n"}) == ""


def test_files_remember_the_release_they_were_edited_from(tmp_path: Path) -> None:
    """Without the note they are the first release's, or nobody knows."""
    assert read_base(tmp_path, None) == 0
    assert read_base(tmp_path, release(3, parent=0)) == 3
    with pytest.raises(Conflict, match="do not say which release"):
        read_base(tmp_path, release(4, parent=3))
    write_base(tmp_path, 3)
    assert read_base(tmp_path, release(4, parent=3)) == 3
    (tmp_path / "RELEASE").write_text("three")
    with pytest.raises(Conflict, match="must hold the number"):
        read_base(tmp_path, release(4, parent=3))


def test_writing_a_release_leaves_exactly_its_files(tmp_path: Path) -> None:
    """Rule files of before are gone, other files stay; what is read back is the release, to the byte."""
    files = files_of([large()])
    write({"old.yaml": "x", "older.yml": "y", "notes.txt": "keep", "policy.yaml": "z"}, tmp_path / "rules")
    write_files(tmp_path / "rules", tmp_path / "rules/policy.yaml", files)
    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "rules").iterdir()} == {
        **files,
        "notes.txt": "keep",
    }
    elsewhere = tmp_path / "policy.yaml"
    write_files(tmp_path / "rules", elsewhere, files)
    assert elsewhere.read_text(encoding="utf-8") == POLICY

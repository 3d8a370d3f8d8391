"""Keeps the splits of a DATASET apart: finds what they share, and takes near-duplicates out of one side.

Knows the files of a DATASET. Of two near-duplicates (twins.py) the one in the earlier split goes, so that dev and test
stay as they are; between two accounts of this installation the later one goes, so that a script that came back is
learned, and measured on accounts that it is not written to.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from finetune.dataset import SPLITS, LabelledTimeline, Split, iterate, without
from finetune.twins import Twins, shingles
from fraudguard.domain import Message

DECISIONS = "decisions"
Name = tuple[str, str]  # source and account


@dataclass(slots=True)
class Removed:
    """Timelines taken out for a near-duplicate. pairs: of conversations, by the two splits, `train-test` and so on."""

    pairs: Counter[str] = field(default_factory=Counter)
    timelines: dict[Split, set[Name]] = field(default_factory=lambda: {split: set() for split in SPLITS})

    def by_source(self, split: Split) -> dict[str, int]:
        """How many of each source."""
        return dict(sorted(Counter(source for source, _ in self.timelines[split]).items()))


def conversations(timeline: LabelledTimeline) -> Iterator[tuple[str, str]]:
    """The texts that may be another's twin, by name: plots and dialogues, and of decisions every conversation.

    What a system says is not counted: it says the same to everybody.
    """
    said: dict[str, list[str]] = {}
    for one in timeline.events:
        if isinstance(one.event, Message) and one.event.sender != "system":
            of = one.event.conversation_id if timeline.source == DECISIONS else one.story
            if of is not None:
                said.setdefault(of, []).append(one.event.text)
    for name, texts in said.items():
        yield name, "\n".join(texts)


def remove_twins(folder: Path) -> Removed:
    """Take out every timeline that has a near-duplicate in another split."""
    removed = Removed()
    later: list[tuple[Split, Twins[tuple[Name, str]]]] = []
    for split in reversed(SPLITS):
        own: Twins[tuple[Name, str]] = Twins()
        for timeline in iterate(folder, split):
            name = timeline.source, timeline.account_id
            for conversation, text in conversations(timeline):
                made = shingles(text)
                if made is None:
                    continue
                if split != "train":
                    own.add((name, conversation), made)
                for other_split, twins in later:
                    for other, _ in twins.of(made):
                        removed.pairs[f"{split}-{other_split}"] += 1
                        both_decided = name[0] == other[0] == DECISIONS
                        removed.timelines[other_split if both_decided else split].add(other if both_decided else name)
        later.append((split, own))
    for split, names in removed.timelines.items():
        if names:
            without(folder, split, names)
    return removed


def shared(folder: Path) -> dict[str, list[str]]:
    """Accounts and stories that are in more than one split, by name."""
    accounts: Counter[str] = Counter()
    stories: Counter[str] = Counter()
    for split in SPLITS:
        of_accounts: set[str] = set()
        of_stories: set[str] = set()
        for timeline in iterate(folder, split):
            family = DECISIONS if timeline.source == DECISIONS else "made"
            of_accounts.add(f"{family}/{timeline.account_id}")
            of_stories.update(f"{family}/{one.story}" for one in timeline.events if one.story is not None)
        accounts.update(of_accounts)
        stories.update(of_stories)
    return {
        "accounts": sorted(name for name, splits in accounts.items() if splits > 1),
        "stories": sorted(name for name, splits in stories.items() if splits > 1),
    }

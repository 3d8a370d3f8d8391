"""Who changed a rule and when, read from releases: texts by release, versions of one rule, releases that wait.

Knows texts by their rule's id and compiles none. Reads the newest releases alone, which the page says.
"""

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from fraudguard.api.console import rules_texts
from fraudguard.decisions.repository import Repository
from fraudguard.decisions.rulebook import Head, Release

RELEASES_READ: Final = 40
TEXTS_MAX: Final = 48  # rule sets whose texts are kept


class TextShelf:
    """The texts of rule sets by the version of the set; the newest few stay read."""

    def __init__(self) -> None:
        self._read: OrderedDict[str, dict[str, str]] = OrderedDict()

    async def texts(self, repository: Repository, version: str) -> dict[str, str]:
        """Each rule's document by its id. Raises NotFound."""
        if version not in self._read:
            self._read[version] = rules_texts.documents(json.loads(await repository.document("rules", version)))
            if len(self._read) > TEXTS_MAX:
                self._read.popitem(last=False)
        return self._read[version]


@dataclass(frozen=True, slots=True)
class Version:
    """A release that changed the rule. diff: against the one it follows; empty for the rule's first."""

    release: Release
    text: str
    diff: tuple[str, ...]

    @property
    def approved_by(self) -> tuple[str, ...]:
        """Who agreed."""
        return tuple(review.actor for review in self.release.reviews if review.verdict == "approve")


async def versions(repository: Repository, shelf: TextShelf, rule: str) -> list[Version]:
    """Releases that were in force and changed this rule, the newest first."""
    page = await repository.rulebook.releases(RELEASES_READ)
    releases = {release.number: release for release in page.items}
    found = []
    for release in page.items:
        if release.activated_at is None:
            continue
        text = (await shelf.texts(repository, release.rules_version)).get(rule, "")
        before = ""
        if release.parent:
            parent = releases.get(release.parent) or await repository.rulebook.release(release.parent)
            before = (await shelf.texts(repository, parent.rules_version)).get(rule, "")
        if text != before:
            diff = rules_texts.difference(before, text) if before else []
            found.append(Version(release, text, tuple(diff)))
    return found


@dataclass(frozen=True, slots=True)
class Waiting:
    """A release that nobody has rejected and that may still follow the one in force. rules: those that it changes."""

    release: Release
    rules: tuple[str, ...]


async def waiting(repository: Repository, shelf: TextShelf, head: Head) -> list[Waiting]:
    """What waits for an approval, the oldest first."""
    page = await repository.rulebook.releases(RELEASES_READ)
    own = await shelf.texts(repository, head.rules_version)
    return [
        Waiting(release, await _changed(repository, shelf, own, release))
        for release in reversed(page.items)
        if is_waiting(release, head)
    ]


def is_waiting(release: Release, head: Head) -> bool:
    """Whether it may still be agreed to."""
    rejected = any(review.verdict == "reject" for review in release.reviews)
    return release.activated_at is None and release.parent == head.number and not rejected


async def _changed(repository: Repository, shelf: TextShelf, own: dict[str, str], release: Release) -> tuple[str, ...]:
    theirs = await shelf.texts(repository, release.rules_version)
    return tuple(sorted(id for id in own.keys() | theirs.keys() if own.get(id) != theirs.get(id)))

"""The rule book: files become a release, a second person approves it, its activation makes every worker decide by it.

Knows the rooms rules, decisions and features, and what must hold between them when a release takes over: it was judged
in a throw-away process, its author did not approve it, and windows over shared entities that it declares anew were
counted over the stored history before its first decision. Knows no stream, no model and no HTTP.
"""

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import unified_diff
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from fraudguard.config import Settings
from fraudguard.decisions.history import PastEvent
from fraudguard.decisions.pages import PAGE_MAX
from fraudguard.decisions.policy import Policy, load_policy
from fraudguard.decisions.repository import Repository
from fraudguard.decisions.rulebook import Head, Release, Via
from fraudguard.domain import Feature, WatchList, WindowCount
from fraudguard.errors import BadPolicy, BadRule, BadSettings, Conflict
from fraudguard.features.event import event_features
from fraudguard.features.facts import facts_of
from fraudguard.features.money import Rates, load_rates
from fraudguard.features.registry import features_in
from fraudguard.features.shared import SharedWindows
from fraudguard.rules.registry import RuleSet, load_rules
from fraudguard.rules.schema import Contents, Rule, read_contents

log = logging.getLogger(__name__)

# No decision is committed later than this after it was made: statements and batches time out long before.
COMMIT_SPAN: Final = timedelta(minutes=10)
PACKS_MAX: Final = 4  # compiled ones that are kept
RELEASE_FILE: Final = "RELEASE"  # beside the rule files: the number of the release that they are, or were edited from
POLICY_FILE: Final = "policy.yaml"


@dataclass(frozen=True, slots=True)
class Pack:
    """Rules and policy that were checked: what a release is made of."""

    rules: RuleSet
    policy: Policy

    def close(self) -> None:
        """Free the compiled rules."""
        self.rules.close()

    @property
    def files(self) -> dict[str, str]:
        """Every file by name."""
        return {**self.rules.sources, POLICY_FILE: self.policy.source}


@dataclass(frozen=True, slots=True)
class Book:
    """What decides: a pack, and the activation that put it in force."""

    activation: int
    pack: Pack


def read_pack(rules_dir: Path, policy_path: Path, fields: Sequence[Feature]) -> Pack:
    """Check, test, try and load the files. Raises BadRule, BadPolicy."""
    return Pack(load_rules(rules_dir, fields), load_policy(policy_path))


def pack_of(files: Mapping[str, str], fields: Sequence[Feature]) -> Pack:
    """The same of files that are texts. Raises BadRule, BadPolicy."""
    sources = dict(files)
    policy = Policy.from_source(sources.pop(POLICY_FILE, ""))
    return Pack(RuleSet.from_sources(sources, fields), policy)


async def open_pack(repository: Repository, rules_version: str, policy_version: str, fields: Sequence[Feature]) -> Pack:
    """A stored pack, judged when it was published. Raises NotFound, and BadSettings if this build cannot read it."""
    sources = json.loads(await repository.document("rules", rules_version))
    policy_source = await repository.document("policy", policy_version)
    try:
        policy = Policy.from_source(policy_source)
        return Pack(await asyncio.to_thread(RuleSet.from_published, sources, fields), policy)
    except (BadRule, BadPolicy) as error:
        raise _unreadable(rules_version, error) from error


def _unreadable(rules_version: str, why: object) -> BadSettings:
    hint = "run the same version of fraudguard everywhere"
    return BadSettings(f"published rules {rules_version} cannot be read here: {why}", hint=hint)


async def open_book(repository: Repository, head: Head, fields: Sequence[Feature]) -> Book:
    """What the head decides by."""
    pack = await open_pack(repository, head.rules_version, head.policy_version, fields)
    return Book(head.activation, pack)


def diff(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """What changes from old to new files, as a unified diff; empty if nothing."""
    lines: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, ""), new.get(name, "")
        lines += unified_diff(before.splitlines(), after.splitlines(), f"in force/{name}", f"new/{name}", lineterm="")
    return "\n".join(lines)


def objections(old: Sequence[Rule], new: Sequence[Rule]) -> list[str]:
    """Rules that say something else under a version that was published; such a pack is refused."""
    known = {rule.id: rule for rule in old}
    return [
        f"{rule.file}:{rule.line}: {rule.id} changed but is still version {rule.version}: raise it"
        for rule in new
        if (before := known.get(rule.id)) and before.version >= rule.version and _saying(before) != _saying(rule)
    ]


def _saying(rule: Rule) -> tuple[object, ...]:
    return rule.condition, rule.outcome, rule.reason, rule.severity


def notices(old: Sequence[Rule], new: Sequence[Rule]) -> list[str]:
    """What an approver should know: rules by what becomes of them."""
    before = {rule.id: rule for rule in old}
    after = {rule.id: rule for rule in new}
    said = [f"{id} is gone; retire it first" for id in sorted(before.keys() - after.keys())]
    for id, rule in sorted(after.items()):
        was = before.get(id)
        if was is None:
            said.append(f"{id} is new, {rule.state}")
        elif was.state != rule.state:
            said.append(f"{id} goes from {was.state} to {rule.state}")
        elif _saying(was) != _saying(rule):
            said.append(f"{id} says something else now (version {was.version} -> {rule.version})")
        elif was.rollout != rule.rollout:
            said.append(f"{id} acts for {rule.rollout} % of accounts (was {was.rollout} %)")
        if rule.state == "live" and (was is None or was.state != "live") and (was is None or was.state != "shadow"):
            said.append(f"{id} goes live without having been in shadow")
    return said


@dataclass(frozen=True, slots=True)
class Proposed:
    """A release that was entered. active: it is in force already; otherwise it waits for an approval."""

    number: int
    active: bool
    notices: tuple[str, ...]


class Publishing:
    """Publishing, approving, rolling back. The same for files and for the API."""

    def __init__(
        self,
        repository: Repository,
        fields: Sequence[Feature],
        rates: Rates,
        *,
        zone: ZoneInfo,
        approvals: int,
        lateness: timedelta,
    ) -> None:
        """approvals: how many people besides the author must agree. lateness: of events that still count."""
        self._repository, self._fields, self._rates, self._zone = repository, fields, rates, zone
        self._approvals, self._lateness = approvals, lateness
        self._packs: OrderedDict[tuple[str, str], Pack] = OrderedDict()
        self._contents: OrderedDict[str, Contents] = OrderedDict()

    async def head(self) -> Head | None:
        """What is in force; None before the first release."""
        return await self._repository.rulebook.head()

    async def base(self, rules_dir: Path) -> int:
        """The release that the files were edited from, for `publish`; see `read_base`.

        Files of a release that still waits are edited from what that one follows.
        """
        head = await self.head()
        number = read_base(rules_dir, await self._repository.rulebook.release(head.number) if head else None)
        if head is not None and number not in {0, head.number}:
            release = await self._repository.rulebook.release(number)
            if release.activated_at is None and release.parent == head.number:
                return head.number
        return number

    async def rules(self, stored: Head | Release) -> tuple[Rule, ...]:
        """The rules of a release as written."""
        return (await self.contents(stored.rules_version)).rules

    async def contents(self, rules_version: str) -> Contents:
        """What the files of a rules version say, read and not compiled. Raises NotFound, BadSettings."""
        if rules_version not in self._contents:
            sources = json.loads(await self._repository.document("rules", rules_version))
            found = await asyncio.to_thread(read_contents, sources, self._fields)
            if found.problems:
                raise _unreadable(rules_version, found.problems[0])
            self._contents[rules_version] = found
            if len(self._contents) > PACKS_MAX:
                self._contents.popitem(last=False)
        return self._contents[rules_version]

    async def notices(self, pack: Pack) -> tuple[str, ...]:
        """What would become of the rules in force; raises BadRule as `publish` would."""
        head = await self.head()
        before = await self.rules(head) if head else ()
        if faults := objections(before, pack.rules.rules):
            raise BadRule("\n".join(faults))
        return tuple(notices(before, pack.rules.rules))

    async def lists(self) -> dict[str, WatchList]:
        """The lists that the rules in force declare, by name."""
        head = await self.head()
        if head is None:
            return {}
        return {known.name: known for known in (await self.contents(head.rules_version)).lists}

    async def files(self, number: int) -> dict[str, str]:
        """Every file of a release by name. Raises NotFound."""
        release = await self._repository.rulebook.release(number)
        rules: dict[str, str] = json.loads(await self._repository.document("rules", release.rules_version))
        return {**rules, POLICY_FILE: await self._repository.document("policy", release.policy_version)}

    async def start(self, pack: Pack | BadRule | BadPolicy, now: datetime) -> None:
        """Put the pack in force if nothing is yet; says so in the log if what is in force is something else.

        pack: or why the files are none, which is raised only where they are needed: files that were broken since must
        not stop a worker that decides by the store.
        """
        head = await self.head()
        if head is None:
            if not isinstance(pack, Pack):
                raise pack
            try:
                number = await self._propose(pack, 0, "first start", "files", "the files of the first worker", "", now)
                await self._activate(number, "first start", "", now, approvals=0)
            except Conflict:  # another worker was first
                await self.start(pack, now)
        elif not isinstance(pack, Pack):
            log.warning("release %d is in force and decides; the rule files here are refused: %s", head.number, pack)
        elif (head.rules_version, head.policy_version) != (pack.rules.version, pack.policy.version):
            log.warning(
                "the rule files here are not release %d, which is in force and decides: see `fraudguard rules diff`",
                head.number,
            )

    async def publish(self, pack: Pack, *, base: int, author: str, via: Via, note: str, now: datetime) -> Proposed:
        """Enter the pack as a release that follows `base`; in force at once where no approval is asked for.

        Raises Conflict if another release than `base` is in force, or the pack is the one in force; BadRule for a rule
        that changed under its old version.
        """
        head = await self.head()
        old = await self.files(head.number) if head else {}
        if old == pack.files:
            raise Conflict("this is what is in force already")
        said = await self.notices(pack)
        difference = await asyncio.to_thread(diff, old, pack.files)  # of long files it can take seconds
        number = await self._propose(pack, base, author, via, note, difference, now)
        if self._approvals == 0:
            await self.activate(number, author, note, now)
        return Proposed(number, self._approvals == 0, said)

    async def approve(self, number: int, actor: str, note: str, now: datetime) -> bool:
        """Agree to a release; with enough approvals it is in force, which is what is returned.

        Whoever agreed before may ask again, for then it was not put in force. Raises Conflict, also for a release that
        was in force once: agreeing late must not bring back what was taken back.
        """
        release = await self._repository.rulebook.release(number)
        if release.activated_at is not None:
            hint = "it needs no approval; roll back to it if it shall be in force again"
            raise Conflict(f"release {number} was put in force before", path="number", hint=hint)
        if not any((review.actor, review.verdict) == (actor, "approve") for review in release.reviews):
            await self._repository.rulebook.review(number, actor, "approve", note, now)
            release = await self._repository.rulebook.release(number)
        if sum(review.verdict == "approve" for review in release.reviews) < self._approvals:
            return False
        await self.activate(number, actor, note, now)
        return True

    async def reject(self, number: int, actor: str, note: str, now: datetime) -> None:
        """End a release that is not in force. Raises Conflict."""
        await self._repository.rulebook.review(number, actor, "reject", note, now)

    async def rollback(self, number: int | None, actor: str, note: str, now: datetime) -> int:
        """Put an earlier release in force again: this one, or the one that was before. Its number. Raises Conflict."""
        if number is None:
            page = await self._repository.rulebook.releases(PAGE_MAX)
            earlier = [(r.activated_at, r.number) for r in page.items if r.activated_at is not None and not r.active]
            if not earlier:
                raise Conflict("no other release was in force before")
            _, number = max(earlier)
        await self.activate(number, actor, note, now)
        return number

    async def activate(self, number: int, actor: str, note: str, now: datetime) -> None:
        """Make every worker decide by a release from its next batch on. Raises Conflict."""
        await self._activate(number, actor, note, now, approvals=self._approvals)

    async def _activate(self, number: int, actor: str, note: str, now: datetime, approvals: int) -> None:
        head = await self.head()
        release = await self._repository.rulebook.release(number)
        new = await self.pack(release)
        try:
            old = (await self.pack(head)).rules.windows if head else ()
        except BadSettings:  # a newer build's: its workers are in trouble, and what it counted is counted anew
            old = ()
        counted = {window.key for window in old if window.entity != "account"}
        declared = [window for window in new.rules.windows if window.entity != "account"]
        fresh = [window for window in declared if window.key not in counted]
        history = History(self._repository, SharedWindows(fresh, ()), self._rates, self._zone)
        if fresh:
            span = max(timedelta(seconds=window.seconds) for window in fresh) + self._lateness
            await history.read(span, now)
        await self._repository.rulebook.activate(
            number,
            actor,
            note,
            now,
            approvals_required=approvals,
            expected=head.activation if head else 0,
            prepare=history.settle,
            forget=(counted - {window.key for window in declared}) | {window.key for window in fresh},
        )

    async def pack(self, stored: Head | Release) -> Pack:
        """The rules and policy of a release. Raises NotFound."""
        return await self.pack_of(stored.rules_version, stored.policy_version)

    async def pack_of(self, rules_version: str, policy_version: str) -> Pack:
        """The rules and policy of these versions. Raises NotFound, BadSettings."""
        versions = rules_version, policy_version
        if versions not in self._packs:
            self._packs[versions] = await open_pack(self._repository, *versions, self._fields)
            if len(self._packs) > PACKS_MAX:
                self._packs.popitem(last=False)
        return self._packs[versions]

    async def _propose(
        self, pack: Pack, base: int, author: str, via: Via, note: str, difference: str, now: datetime
    ) -> int:
        return await self._repository.rulebook.propose(
            base,
            pack.rules.version,
            json.dumps(dict(pack.rules.sources)),
            pack.policy.version,
            pack.policy.source,
            author=author,
            via=via,
            note=note,
            diff=difference,
            at=now,
        )


class History:
    """Counts windows over the stored decisions: most of them at leisure, the last ones while no worker can commit."""

    def __init__(self, repository: Repository, windows: SharedWindows, rates: Rates, zone: ZoneInfo) -> None:
        self._repository, self._windows, self._rates, self._zone = repository, windows, rates, zone
        self._since = self._unsettled_from = datetime.min.replace(tzinfo=UTC)
        self._seen: set[str] = set()

    async def read(self, span: timedelta, now: datetime) -> None:
        """Count what is stored, back to `span` before the newest event."""
        newest = await self._repository.newest_event_time()
        if newest is not None:
            self._since = newest - span
        self._unsettled_from = now - COMMIT_SPAN
        async for past in self._repository.history(self._since):
            self._count(past)
            if past.decided_at >= self._unsettled_from:
                self._seen.add(past.event.event_id)

    async def settle(self) -> Sequence[WindowCount]:
        """Count what was committed meanwhile, and everything counted."""
        async for past in self._repository.history(self._since, decided_since=self._unsettled_from):
            if past.event.event_id not in self._seen:
                self._count(past)
        return self._windows.increments()

    def _count(self, past: PastEvent) -> None:
        if not past.late:
            facts = facts_of(past.event, self._rates)
            self._windows.count_only(past.event, event_features(past.event, facts, self._zone, late=False))


def open_publishing(settings: Settings, repository: Repository) -> Publishing:
    """Publishing as settings say. Raises BadSettings."""
    return Publishing(
        repository,
        features_in(settings.base_currency),
        load_rates(settings.base_currency, settings.rates_path),
        zone=ZoneInfo(settings.time_zone),
        approvals=settings.rules_approvals,
        lateness=timedelta(seconds=settings.lateness_s),
    )


def read_base(rules_dir: Path, head: Release | None) -> int:
    """The release that the files were edited from; 0 if there is none yet. Raises Conflict if nobody knows.

    head: the release in force.
    """
    path = rules_dir / RELEASE_FILE
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        if head is None or head.parent == 0:  # made of files that knew of no release
            return head.number if head else 0
        hint = f"`fraudguard rules pull` writes it, or write the number of the release you edited into {path}"
        raise Conflict(
            "these files do not say which release they were edited from", path=str(path), hint=hint
        ) from None
    except ValueError as error:
        raise Conflict("must hold the number of a release", path=str(path), hint="fraudguard rules pull") from error


def write_base(rules_dir: Path, number: int) -> None:
    """Remember which release the files are."""
    (rules_dir / RELEASE_FILE).write_text(f"{number}\n", encoding="ascii")


def write_files(rules_dir: Path, policy_path: Path, files: Mapping[str, str]) -> None:
    """Make the rule files and the policy what a release says; rule files that it does not have are removed."""
    for path in (*rules_dir.glob("*.yaml"), *rules_dir.glob("*.yml")):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        path = policy_path if name == POLICY_FILE else rules_dir / name
        path.write_text(text, encoding="utf-8", newline="\n")

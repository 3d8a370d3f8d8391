"""`fraudguard rules` and `fraudguard lists`: reads options, calls, prints for people. Holds no logic of its own."""

import asyncio
import csv
import os
import pwd
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.errors import BadInput, Conflict, NotFound

if TYPE_CHECKING:  # at run time inside the commands: see __main__
    from fraudguard.decisions.repository import Repository
    from fraudguard.decisions.rulebook import Head, Release
    from fraudguard.decisions.watchlists import ListEntry
    from fraudguard.domain import WatchList
    from fraudguard.rulebook import Pack, Publishing

rules_app = typer.Typer(no_args_is_help=True, help="Check, test, backtest, publish and roll back the rules.")
lists_app = typer.Typer(no_args_is_help=True, help="Entries of the watch lists that rules ask about.")

_T = TypeVar("_T")
_Note = Annotated[str, typer.Option(help="Why; goes to the audit trail.")]


def operator() -> str:
    """How the audit trail names whoever sits at this terminal: the account's name, whatever the environment says."""
    return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"


def _with_store(work: "Callable[[Settings, Repository, Publishing], Awaitable[_T]]") -> _T:
    from fraudguard.decisions.repository import connect
    from fraudguard.rulebook import open_publishing

    async def run() -> _T:
        settings = Settings()
        async with connect(settings.database_url.get_secret_value()) as repository:
            return await work(settings, repository, open_publishing(settings, repository))

    return asyncio.run(run())


def _pack(settings: Settings) -> "Pack":
    from fraudguard.features.registry import features_in
    from fraudguard.rulebook import read_pack

    return read_pack(settings.rules_dir, settings.policy_path, features_in(settings.base_currency))


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


@rules_app.command("check")
def check(directory: Annotated[Path | None, typer.Argument()] = None) -> None:
    """Read, type-check, test and compile every rule file; prints each problem with its place.

    Without a directory of its own it also reads the policy.
    """
    from fraudguard.decisions.policy import load_policy
    from fraudguard.features.registry import features_in
    from fraudguard.rules.registry import load_rules

    settings = Settings()
    rules = load_rules(directory or settings.rules_dir, features_in(settings.base_currency))
    states = [
        f"{sum(rule.state == state for rule in rules.rules)} {state}"
        for state in ("live", "shadow", "draft", "retired")
    ]
    parts = (_counted(len(rules.windows), "window"), _counted(len(rules.lists), "list"), f"version {rules.version}")
    print(f"{_counted(len(rules.rules), 'rule')} ({', '.join(states)}), {', '.join(parts)}")
    rules.close()
    if directory is None:
        print(f"policy {load_policy(settings.policy_path).version}")


@rules_app.command("test")
def run_cases(directory: Annotated[Path | None, typer.Argument()] = None) -> None:
    """Run every rule's own cases; exits with 1 if one fails."""
    from fraudguard.features.registry import features_in
    from fraudguard.rules.registry import test_directory

    settings = Settings()
    outcomes = test_directory(directory or settings.rules_dir, features_in(settings.base_currency))
    failed = [outcome for outcome in outcomes if outcome.problem]
    for outcome in failed:
        print(outcome.problem)
    print(f"{len(outcomes) - len(failed)} cases passed, {len(failed)} failed")
    raise typer.Exit(bool(failed))


@rules_app.command("list")
def show(
    files: Annotated[bool, typer.Option("--files", help="Those of the files, not those in force.")] = False,
) -> None:
    """The rules in force."""

    from fraudguard.features.registry import features_in
    from fraudguard.rulebook import open_pack

    async def work(settings: Settings, repository: "Repository", book: "Publishing") -> "Pack":
        head = await book.head()
        if head is None:
            raise NotFound("no rules are in force yet; --files shows those of the files")
        return await open_pack(repository, head.rules_version, head.policy_version, features_in(settings.base_currency))

    pack = _pack(Settings()) if files else _with_store(work)
    for rule in pack.rules.rules:
        state = rule.state + ("" if rule.rollout == 100 else f" {rule.rollout}%")
        print(f"{f'{rule.id} v{rule.version}':<40} {state:<9} {rule.outcome:<8} {rule.reason:<38} {rule.owner}")
    pack.close()


@rules_app.command("status")
def status() -> None:
    """What is in force, what waits for approval, and whether the files here are the same."""

    async def work(settings: Settings, repository: "Repository", book: "Publishing") -> None:
        head = await book.head()
        if head is None:
            print("in force: nothing yet")
        else:
            print(f"in force: release {head.number} (rules {head.rules_version}, policy {head.policy_version})")
            print(f"          since {head.at:%Y-%m-%d %H:%M} by {head.actor}")
        for release in (await repository.rulebook.releases(10)).items:
            standing = f"{_standing(release, head):<18} {release.at:%Y-%m-%d %H:%M}"
            print(f"release {release.number:<4} {standing} {release.author}: {release.note}")
        pack = _pack(settings)
        same = head and (head.rules_version, head.policy_version) == (pack.rules.version, pack.policy.version)
        base = await book.base(settings.rules_dir)
        other = f"other than in force, edited from release {base}: see `fraudguard rules diff`"
        print(f"files:    {'as in force' if same else other}")
        pack.close()

    _with_store(work)


def _standing(release: "Release", head: "Head | None") -> str:
    if release.active:
        return "in force"
    if release.activated_at is not None:
        return "was in force"
    if any(review.verdict == "reject" for review in release.reviews):
        return "rejected"
    return "waits for approval" if head and release.parent == head.number else "overtaken"


@rules_app.command("diff")
def show_diff(
    number: Annotated[
        int | None, typer.Argument(help="A release, against what it follows; none: the files here.")
    ] = None,
) -> None:
    """What a release, or publishing the files here, changes."""

    from fraudguard.rulebook import diff

    async def work(settings: Settings, repository: "Repository", book: "Publishing") -> str:
        if number is not None:
            return (await repository.rulebook.release(number)).diff
        head = await book.head()
        pack = _pack(settings)
        try:
            return diff(await book.files(head.number) if head else {}, pack.files)
        finally:
            pack.close()

    print(_with_store(work) or "no difference")


@rules_app.command("publish")
def publish(note: _Note) -> None:
    """Enter the files here as a release. It decides once somebody else has approved it."""

    from fraudguard.rulebook import write_base

    async def work(settings: Settings, repository: "Repository", book: "Publishing") -> None:
        pack = _pack(settings)
        try:
            base = await book.base(settings.rules_dir)
            now = SystemClock().now()
            done = await book.publish(pack, base=base, author=operator(), via="files", note=note, now=now)
        finally:
            pack.close()
        write_base(settings.rules_dir, done.number)
        for notice in done.notices:
            print(notice)
        waits = f"waits for approval by somebody else: fraudguard rules approve {done.number}"
        print(f"release {done.number} {'is in force' if done.active else waits}")

    _with_store(work)


@rules_app.command("approve")
def approve(number: int, note: _Note = "") -> None:
    """Agree to a release of somebody else; with enough approvals it is in force."""
    active = _with_store(lambda _s, _r, book: book.approve(number, operator(), note, SystemClock().now()))
    print(f"release {number} {'is in force' if active else 'waits for more approvals'}")


@rules_app.command("reject")
def reject(number: int, note: _Note) -> None:
    """End a release that waits for approval."""
    _with_store(lambda _s, _r, book: book.reject(number, operator(), note, SystemClock().now()))
    print(f"release {number} is rejected")


@rules_app.command("rollback")
def rollback(
    number: Annotated[int | None, typer.Argument(help="An earlier release; none: the one before.")] = None,
    note: _Note = "",
) -> None:
    """Put an earlier release in force again, at once, on all workers."""
    number = _with_store(lambda _s, _r, book: book.rollback(number, operator(), note, SystemClock().now()))
    print(f"release {number} is in force again; `fraudguard rules pull` brings its files here")


@rules_app.command("pull")
def pull(force: Annotated[bool, typer.Option(help="Overwrite files that were edited here.")] = False) -> None:
    """Write the files of the release in force here, to be committed."""

    from fraudguard.rulebook import write_base, write_files

    async def work(settings: Settings, repository: "Repository", book: "Publishing") -> int:
        head = await book.head()
        if head is None:
            raise NotFound("no rules are in force yet")
        base = await book.base(settings.rules_dir)
        if not force and base:
            pack = _pack(settings)
            edited = pack.files != await book.files(base)
            pack.close()
            if edited:
                raise Conflict(f"the files here were edited since release {base}", hint="commit them, then --force")
        write_files(settings.rules_dir, settings.policy_path, await book.files(head.number))
        write_base(settings.rules_dir, head.number)
        return head.number

    print(f"the files are those of release {_with_store(work)}")


@rules_app.command("explain")
def explain(
    decision_id: str,
    changes: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE: what if it had been so.")] = None,
) -> None:
    """Why a decision came out as it did, and what would have changed it."""
    from fraudguard.explain import explain_one, render

    given = dict(_split(change) for change in changes or ())
    print(render(asyncio.run(explain_one(Settings(), decision_id, given))))


def _split(change: str) -> tuple[str, str]:
    name, sign, value = change.partition("=")
    if not sign:
        raise typer.BadParameter(f"{change!r} is not NAME=VALUE, like amount_base=100")
    return name.strip(), value.strip()


@rules_app.command("backtest")
def backtest(
    since: Annotated[
        datetime | None, typer.Option(help="First event time, UTC; 30 days before --until by default.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Event times before this; the newest by default.")] = None,
    release: Annotated[int | None, typer.Option(help="Try this release; the files here by default.")] = None,
    file: Annotated[
        Path | None, typer.Option(exists=True, help="Decisions that --save wrote, instead of stored ones.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Also write the decisions here, for --file.")] = None,
    out_file: Annotated[Path, typer.Option("--out", help="Writes this with .md and .png.")] = Path("backtest"),
) -> None:
    """What the rules would have caught, and what that would have cost, on decisions of the past."""
    from fraudguard.backtest import Source, run
    from fraudguard.backtest_report import draw, render

    settings = Settings()
    source = Source(since and since.replace(tzinfo=UTC), until and until.replace(tzinfo=UTC), file, save)
    with Progress(
        *Progress.get_default_columns()[:1], MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("decisions", total=None)
        count = asyncio.run(run(settings, source, release, lambda: bar.advance(task)))
    page = render(count, settings.base_currency)
    print(page)
    out_file.with_suffix(".md").write_text(page, encoding="utf-8")
    if count.total.all:
        draw(count, out_file.with_suffix(".png"))
        print(f"written: {out_file.with_suffix('.md')}, {out_file.with_suffix('.png')}")


async def _declared(settings: Settings, book: "Publishing", name: str) -> "WatchList":
    """The list of this name of the rules in force."""
    lists = await book.lists()
    if name not in lists:
        known = ", ".join(sorted(lists)) or "none"
        hint = f"declared are {known}; declare it in {settings.rules_dir / 'lists.yaml'} and publish"
        raise BadInput(f"no list {name}", hint=hint)
    return lists[name]


@lists_app.command("list")
def lists_list() -> None:
    """Every list with how many entries it has."""

    async def work(_: Settings, repository: "Repository", book: "Publishing") -> None:
        counts = await repository.lists.counts(SystemClock().now())
        for watch_list in sorted((await book.lists()).values(), key=lambda known: known.name):
            facts = f"{watch_list.kind:<6} {watch_list.entity:<13} {counts.get(watch_list.name, 0):>8,}"
            print(f"{watch_list.name:<28} {facts}  {watch_list.description}")

    _with_store(work)


@lists_app.command("show")
def lists_show(name: str, limit: Annotated[int, typer.Option(min=1, max=1000)] = 50) -> None:
    """The entries of a list."""

    async def work(settings: Settings, repository: "Repository", book: "Publishing") -> None:
        await _declared(settings, book, name)
        page = await repository.lists.page(name, limit)
        for entry in page.items:
            _print_entry(entry)
        if page.next:
            print(f"... more; --limit {limit * 2}")

    _with_store(work)


@lists_app.command("find")
def lists_find(value: str) -> None:
    """The lists that an account, counterparty, device, merchant or address is on."""
    for entry in _with_store(lambda _s, repository, _b: repository.lists.containing(value)):
        _print_entry(entry)


def _print_entry(entry: "ListEntry") -> None:
    until = f"until {entry.expires_at:%Y-%m-%d %H:%M}" if entry.expires_at else "for good"
    print(f"{entry.list:<28} {entry.value:<32} {until:<22} {entry.owner} ({entry.source}): {entry.reason}")


@lists_app.command("add")
def lists_add(
    name: str,
    value: str,
    reason: Annotated[str, typer.Option(help="Why it is on the list.")],
    days: Annotated[float | None, typer.Option(min=0, help="How long; for good by default.")] = None,
    source: Annotated[str, typer.Option(help="Where it comes from, like a case or a bulletin.")] = "cli",
) -> None:
    """Put an entry on a list, or change it; rules see it from the next event on."""

    from fraudguard.decisions.watchlists import ListEntry

    async def work(settings: Settings, repository: "Repository", book: "Publishing") -> None:
        await _declared(settings, book, name)
        now = SystemClock().now()
        until = now + timedelta(days=days) if days is not None else None
        await repository.lists.add(ListEntry(name, value, reason, operator(), source, now, until), operator())

    _with_store(work)
    print(f"{value} is on {name}")


@lists_app.command("import")
def lists_import(
    name: str,
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV with a column `value`; reason, expires_at.")
    ],
    reason: Annotated[str, typer.Option(help="Of the rows that have none.")] = "",
) -> None:
    """Put the rows of a CSV file on a list: all of them, or none if one is wrong."""

    async def work(settings: Settings, repository: "Repository", book: "Publishing") -> tuple[int, int]:
        await _declared(settings, book, name)
        entries = list(_rows(file, name, reason, SystemClock().now()))
        return len(entries), await repository.lists.add_many(entries, operator())

    rows, changed = _with_store(work)
    print(f"{rows:,} rows, of which {changed:,} are new or changed on {name}")


def _rows(file: Path, name: str, reason: str, now: datetime) -> "Iterator[ListEntry]":
    from fraudguard.decisions.watchlists import ListEntry

    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        if "value" not in (rows.fieldnames or ()):
            raise BadInput("has no column `value`", path=str(file), hint="the first line names the columns")
        for number, row in enumerate(rows, 2):
            try:
                until = datetime.fromisoformat(row["expires_at"]) if row.get("expires_at") else None
            except ValueError as error:
                raise BadInput(
                    str(error), path=f"{file}:{number}: expires_at", hint="like 2026-12-31T00:00:00Z"
                ) from error
            if until is not None and until.tzinfo is None:
                until = until.replace(tzinfo=UTC)
            yield ListEntry(name, row["value"].strip(), row.get("reason") or reason, operator(), file.name, now, until)


@lists_app.command("remove")
def lists_remove(
    name: str, value: str, reason: Annotated[str, typer.Option(help="Why; goes to the audit trail.")]
) -> None:
    """Take an entry off a list."""
    _with_store(
        lambda _s, repository, _b: repository.lists.remove(name, value, reason, operator(), SystemClock().now())
    )
    print(f"{value} is off {name}")

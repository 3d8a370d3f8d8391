"""`fraudguard model`: reads options, calls, prints for people. Holds no logic of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.rules_commands import operator

if TYPE_CHECKING:  # at run time inside the commands: see __main__
    from fraudguard.decisions.models import Entry
    from fraudguard.decisions.repository import Repository
    from fraudguard.models import Releasing

models_app = typer.Typer(no_args_is_help=True, help="Seal, shadow, compare, promote and roll back models.")

_T = TypeVar("_T")
_Note = Annotated[str, typer.Option(help="Why; goes to the audit trail.")]
_Which = Annotated[str, typer.Argument(help="NAME@VERSION as listed, or a digest or its beginning.")]
_RESTART = "it has another tokenizer than the champion: running workers refuse it, restart them after the promotion"


def _with_store(work: "Callable[[Releasing, Repository], Awaitable[_T]]") -> _T:
    from fraudguard.decisions.repository import connect
    from fraudguard.models import Releasing

    async def run() -> _T:
        settings = Settings()
        async with connect(settings.database_url.get_secret_value()) as repository:
            return await work(Releasing(settings, repository), repository)

    return asyncio.run(run())


@models_app.command("seal")
def seal(folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)]) -> None:
    """Write SHA256SUMS over a finished release's files; nothing in the folder may change after that."""
    from fraudguard.engine import release

    print(f"sealed {folder}: {release.seal(folder)}")


@models_app.command("list")
def show() -> None:
    """Every registered model: what it is, its digest, and its measures on the fixed set."""

    async def work(_: "Releasing", repository: "Repository") -> "tuple[bool, list[Entry]]":
        head = await repository.models.head()
        return head is not None and head.champion is not None, await repository.models.entries()

    named, entries = _with_store(work)
    if not named:
        print(f"champion: FRAUDGUARD_MODEL={Settings().model}, for the registry names none")
    table = Table("model", "is", "digest", "AP", "recall 1% FPR", "calibration", "set", "since", "by", box=None)
    for entry in entries:
        table.add_row(*_cells(entry))
    if entries:
        Console(width=160, highlight=False).print(table)


def _cells(entry: "Entry") -> tuple[str, ...]:
    measures, since = ["-"] * 4, (entry.added_at, entry.added_by)
    if entry.metrics:
        found, fixed = entry.metrics["measures"], entry.metrics["dataset"]
        names = ("average_precision", "recall_at_1%_fpr", "calibration_error")
        measures = [*(f"{found[name]:.4f}" for name in names), f"{fixed['name']} {fixed['digest'][:8]}"]
    if entry.steps:
        since = entry.steps[-1].at, entry.steps[-1].actor
    return (entry.model.id, entry.state, entry.model.digest[:12], *measures, f"{since[0]:%Y-%m-%d %H:%M}", since[1])


@models_app.command("shadow")
def shadow(folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)], note: _Note = "") -> None:
    """Register a sealed release and score with it beside the champion; nobody acts on its scores."""
    done = _with_store(lambda releasing, _: releasing.shadow(folder, operator(), note, SystemClock().now()))
    print(f"{done.model.id} is in shadow: digest {done.model.digest[:12]}, a sample payment's risk {done.risk:.4f}")
    if done.restart:
        print(_RESTART)


@models_app.command("retire")
def retire(which: _Which, note: _Note = "") -> None:
    """End a challenger's shadow."""
    model = _with_store(lambda releasing, _: releasing.retire(which, operator(), note, SystemClock().now()))
    print(f"{model.id} is in shadow no more")


@models_app.command("promote")
def promote(
    which: _Which,
    force: Annotated[bool, typer.Option("--force", help="Also if the gate refuses it.")] = False,
    reason: Annotated[str, typer.Option(help="Why; goes to the audit trail. --force needs it.")] = "",
) -> None:
    """Make a model champion, unless it is worse on the fixed set; running workers take it over."""
    done = _with_store(
        lambda releasing, _: releasing.promote(which, operator(), reason, SystemClock().now(), force=force)
    )
    for objection in done.objections:
        print(f"forced over: {objection}")
    print(f"{done.model.id} is champion; workers score with it once they have loaded it")
    if done.restart:
        print(_RESTART)


@models_app.command("rollback")
def rollback(
    which: Annotated[str | None, typer.Argument(help="An earlier champion; none: the one before.")] = None,
    note: _Note = "",
) -> None:
    """Back to the champion before, on all workers."""
    model = _with_store(lambda releasing, _: releasing.rollback(which, operator(), note, SystemClock().now()))
    print(f"{model.id if model else 'the model that FRAUDGUARD_MODEL names'} is champion again")


@models_app.command("compare")
def compare(
    which: Annotated[str | None, typer.Argument(help="NAME@VERSION or a digest; none: the challenger.")] = None,
) -> None:
    """A challenger against the champion, over the decisions that both scored."""
    from fraudguard.comparison import compare, render

    async def work(releasing: "Releasing", repository: "Repository") -> str:
        model = await releasing.named(which)
        return render(model, await compare(Settings(), repository, model))

    print(_with_store(work))

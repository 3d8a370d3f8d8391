"""`fraudguard audit`: reads options, calls, prints for people. Holds no logic of its own."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from fraudguard.config import Settings

if TYPE_CHECKING:  # at run time inside the commands: see __main__
    from fraudguard.decisions.audit import Verified

audit_app = typer.Typer(no_args_is_help=True, help="The audit trail.")


@audit_app.callback()
def _audit() -> None:
    """Keeps `audit verify` a command of its own while there is only one."""


@audit_app.command("verify")
def verify(
    anchor: Annotated[str | None, typer.Option(help="A hash that an earlier `audit verify` ended with.")] = None,
) -> None:
    """Walk the whole trail; exits with 1 at the first row that was changed, or does not follow from those before it."""
    found = asyncio.run(_verify(anchor))
    if found.broken is None:
        print(f"whole: {found.rows:,} rows\n{found.hash}")
        return
    where = "the end" if found.broken.id is None else f"row {found.broken.id}"
    print(f"BROKEN at {where}: {found.broken.what}\n{found.rows:,} rows before it are whole\n{found.hash}")
    raise typer.Exit(1)


async def _verify(anchor: str | None) -> "Verified":
    from fraudguard.decisions import audit
    from fraudguard.decisions.connection import open_engine

    engine = open_engine(Settings().database_url.get_secret_value(), pool_size=1)
    try:
        return await audit.verify(engine, anchor)
    finally:
        await engine.dispose()

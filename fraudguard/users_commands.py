"""`fraudguard users`: reads options, calls, prints for people. Holds no logic of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.domain import Role
from fraudguard.rules_commands import operator

if TYPE_CHECKING:  # at run time inside the commands: see __main__
    from fraudguard.decisions.repository import Repository

users_app = typer.Typer(no_args_is_help=True, help="People's accounts and their roles.")

_T = TypeVar("_T")
_Name = Annotated[str, typer.Argument(help="As they sign in, and as the audit trail names them.")]


def _with_store(work: "Callable[[Repository], Awaitable[_T]]") -> _T:
    from fraudguard.decisions.repository import connect

    async def run() -> _T:
        async with connect(Settings().database_url.get_secret_value()) as repository:
            return await work(repository)

    return asyncio.run(run())


@users_app.command("create")
def create(
    name: _Name,
    role: Role,
    tenant: Annotated[str, typer.Option(help="Whose decisions and cases they see; everybody's without.")] = "",
) -> None:
    """A new account; its password is shown this once."""
    from fraudguard.accounts import new_password

    password, hashed = new_password()
    _with_store(lambda store: store.people.create(name, role, hashed, operator(), SystemClock().now(), tenant))
    print(password)


@users_app.command("list")
def show() -> None:
    """Everybody, with their role and what keeps them from signing in."""
    now = SystemClock().now()
    for person in _with_store(lambda store: store.people.list()):
        codes = "  one-time codes" if person.codes else ""
        locked = person.locked_until and person.locked_until > now and f"  locked until {person.locked_until:%H:%M} UTC"
        disabled = person.disabled_at and f"  disabled {person.disabled_at:%Y-%m-%d %H:%M}"
        tenant = f"  of {person.tenant}" if person.tenant else ""
        vouched = person.issuer and f"  by {person.issuer}"
        state = f"{tenant}{codes}{vouched or ''}{disabled or locked or ''}"
        print(f"{person.name:<24} {person.role:<12} {person.created_at:%Y-%m-%d %H:%M}{state}")


@users_app.command("role")
def role(name: _Name, role: Role) -> None:
    """Give somebody another role, from their next request on."""
    _with_store(lambda store: store.people.set_role(name, role, operator(), SystemClock().now()))


@users_app.command("reset")
def reset(name: _Name) -> None:
    """A new password, shown this once; unlocks the account and ends its sessions."""
    from fraudguard.accounts import new_password

    password, hashed = new_password()
    _with_store(lambda store: store.people.set_password(name, hashed, operator(), SystemClock().now()))
    print(password)


@users_app.command("disable")
def disable(name: _Name) -> None:
    """End an account for good, and its sessions at once."""
    _with_store(lambda store: store.people.disable(name, operator(), SystemClock().now()))


@users_app.command("totp")
def totp(name: _Name, off: Annotated[bool, typer.Option("--off", help="Ask for no codes any more.")] = False) -> None:
    """Ask for a one-time code beside the password; prints the address that an authenticator app takes, this once."""
    from fraudguard.accounts import Accounts
    from fraudguard.sealing import Seal

    now, seal = SystemClock().now(), Seal(Settings().secrets_key)
    if off:
        _with_store(lambda store: store.people.set_secret(name, None, operator(), now))
        return
    print(_with_store(lambda store: Accounts(store, seal).ask_for_codes(name, operator(), now)))

"""The command line: reads options, calls one function, prints for people. Holds no logic of its own.

Imports are inside the commands: `fraudguard doctor` must work where half the packages are missing, and only the
commands that score may load torch.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fraudguard import __version__
from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.errors import FraudguardError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Real-time fraud screening.", rich_markup_mode=None)
rules_app = typer.Typer(no_args_is_help=True, help="Check, test and list the rules.")
letters_app = typer.Typer(no_args_is_help=True, help="Events that could not be used.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys and their roles.")
app.add_typer(rules_app, name="rules")
app.add_typer(letters_app, name="dead-letters")
app.add_typer(keys_app, name="keys")

out, err = Console(), Console(stderr=True)


def main() -> None:
    """Entry point; what a person can mend is printed without a traceback and exits with 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("kafka").setLevel(logging.WARNING)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    try:
        app()
    except FraudguardError as error:
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from error


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)

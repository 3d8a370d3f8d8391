"""What every recipe's command line does alike: log lines with the time, and errors that a person can mend."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fraudguard.errors import FraudguardError


@contextmanager
def command() -> Iterator[None]:
    """What a person can mend is printed without a traceback and exits with 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        yield
    except FraudguardError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from error

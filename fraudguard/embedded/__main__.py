"""`python -m fraudguard.embedded prepare`: every download of the embedded services, once, at install time."""

import argparse
import sys

from fraudguard.embedded import kafka, postgres
from fraudguard.errors import ServiceFailed


def main() -> int:
    """0 when both services are ready to start offline; 1, with the reason, when not."""
    parser = argparse.ArgumentParser(prog="python -m fraudguard.embedded", description=__doc__)
    parser.add_argument("command", choices=["prepare"])
    parser.parse_args()
    try:
        kafka.prepare(say=print)
        postgres.prepare(say=print)
    except ServiceFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

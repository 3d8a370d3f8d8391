"""Amounts in one base currency, as whole hundredths, at reference rates.

Knows a table of rates that an operator may replace; does not know where amounts are added up.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Final

import yaml

from fraudguard.errors import BadSettings

# One amount counts at most this much (10^13 base units), so that sums stay exact 64-bit integers.
AMOUNT_CENTS_MAX: Final = 10**15

# Enough for 18 digits times a quotient of two rates; not the thread's context, which others may change.
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_ONE = Decimal(1)


class Rates:
    """Converts amounts to hundredths of `base`."""

    def __init__(self, base: str, rates: Mapping[str, Decimal]) -> None:
        """rates: worth of one unit of each currency in one reference. Raises BadSettings without a rate for base."""
        if base not in rates:
            raise BadSettings(
                f"no reference rate for the base currency {base}", path="base_currency", hint="add it to the rates file"
            )
        self.base = base
        self._factors = {code: _EXACT.divide(rate * 100, rates[base]) for code, rate in rates.items()}

    def cents(self, amount: Decimal, currency: str) -> int | None:
        """Hundredths of the base currency, rounded half to even, at most AMOUNT_CENTS_MAX; None without a rate."""
        factor = self._factors.get(currency)
        if factor is None:
            return None
        return min(int(_EXACT.quantize(_EXACT.multiply(amount, factor), _ONE)), AMOUNT_CENTS_MAX)


def load_rates(base: str, path: Path | None = None) -> Rates:
    """Rates from a YAML file, or the approximate ones that ship. Raises BadSettings if the file cannot be used."""
    source = path or files("fraudguard.features") / "rates.yaml"
    try:
        table = yaml.safe_load(source.read_text(encoding="utf-8"))
        rates = {str(code): Decimal(str(rate)) for code, rate in table["rates"].items()}
        if not all(rate.is_finite() and rate > 0 for rate in rates.values()):
            raise ValueError("every rate must be a number above 0")
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, InvalidOperation) as error:
        raise BadSettings(
            f"cannot read reference rates: {error}", path=str(source), hint='write rates: {USD: "7.1", ...}'
        ) from error
    return Rates(base, rates)

"""Amounts in hundredths of the base currency."""

from decimal import Decimal
from importlib.resources import files

import iso4217
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fraudguard.errors import BadSettings
from fraudguard.features.money import AMOUNT_CENTS_MAX, Rates, load_rates


@given(st.decimals("0.01", "99999999999.99", places=2))
def test_base_amounts_are_exact(amount):
    """Without a conversion no hundredth is lost."""
    assert load_rates("CNY").cents(amount, "CNY") == amount * 100


def test_conversion_rounds_half_to_even():
    """A rate of 0.5 shows both directions of the rounding."""
    rates = Rates("CNY", {"CNY": Decimal(1), "USD": Decimal("0.5")})
    assert [rates.cents(Decimal(a), "USD") for a in ("0.01", "0.03", "0.05", "10")] == [0, 2, 2, 500]


def test_another_base_divides_by_its_rate():
    """CNY 71 are USD 10 at 7.1."""
    rates = Rates("USD", {"CNY": Decimal(1), "USD": Decimal("7.1")})
    assert rates.cents(Decimal(71), "CNY") == 1000


def test_currency_without_rate_has_no_base_amount():
    """XTS is a test code that nobody trades."""
    assert load_rates("CNY").cents(Decimal(5), "XTS") is None


def test_absurd_amounts_saturate():
    """18 digits of Kuwaiti dinars still fit the sums."""
    assert load_rates("CNY").cents(Decimal("9" * 18), "KWD") == AMOUNT_CENTS_MAX


def test_shipped_rates_are_iso_currencies():
    """Every shipped code is an ISO 4217 currency, written as a string so that YAML reads no float (and no `NO`)."""
    table = yaml.safe_load((files("fraudguard.features") / "rates.yaml").read_text(encoding="utf-8"))
    assert len(table["rates"]) >= 50
    for code, rate in table["rates"].items():
        assert iso4217.Currency(code).code == code
        assert isinstance(rate, str)


@pytest.mark.parametrize(
    "text",
    ["", "rates: 3", "rates: {USD: x}", "rates: {USD: '-1'}", "rates: {USD: .nan}", "rates: {USD: '7'}", "{", "- 1"],
)
def test_bad_rates_are_refused_with_their_file(tmp_path, text):
    """An unusable table is a setting to mend, whatever is wrong with it."""
    path = tmp_path / "rates.yaml"
    path.write_text(text)
    with pytest.raises(BadSettings):
        load_rates("CNY", path)


def test_missing_rates_file_is_refused(tmp_path):
    """A wrong path is a bad setting, not a crash."""
    with pytest.raises(BadSettings, match="nowhere"):
        load_rates("CNY", tmp_path / "nowhere.yaml")

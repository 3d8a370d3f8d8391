"""The database URLs that platforms hand out."""

import pytest

from fraudguard.decisions.connection import driver_url
from fraudguard.errors import BadSettings


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql://u@127.0.0.1:5432/d", "postgresql+asyncpg://u@127.0.0.1:5432/d"),
        ("postgres://u:p%40@h/d", "postgresql+asyncpg://u:p%40@h/d"),
        ("postgresql+asyncpg://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgresql://u@h/d?sslmode=require", "postgresql+asyncpg://u@h/d?ssl=require"),
        ("postgresql://u@/d?host=/run/pg", "postgresql+asyncpg://u@/d?host=%2Frun%2Fpg"),
    ],
)
def test_driver_url(url: str, driver: str) -> None:
    """A libpq URL becomes the driver's, with everything it says."""
    assert driver_url(url).render_as_string(hide_password=False) == driver


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u@h/d", "sqlite://", "postgresql://u@h:port/d"])
def test_other_urls_are_refused(url: str) -> None:
    """What is no PostgreSQL URL names the setting, and does not repeat a password."""
    with pytest.raises(BadSettings, match="database_url"):
        driver_url(url)

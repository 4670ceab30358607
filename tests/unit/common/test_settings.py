"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from uhm_common.settings import CommonSettings, database_url


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("UHM_STATE_DIR", "UHM_DATABASE_URL", "UHM_NATS_URL", "UHM_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_is_read_and_what_it_has_beside_is_ignored(monkeypatch):
    monkeypatch.setenv("UHM_STATE_DIR", "/srv/uhm")
    monkeypatch.setenv("UHM_SOMETHING_ELSE", "1")

    settings = CommonSettings()

    assert settings.state_dir == Path("/srv/uhm")
    assert settings.artifacts_dir == Path("/srv/uhm/artifacts")


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        CommonSettings().log_level = "debug"


def test_secrets_are_not_shown():
    settings = CommonSettings(nats_url="nats://user:secret@host", database_url="postgresql://user:secret@host/db")
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("address", ["127.0.0.1:50061", "auth:1", "[::1]:65535", "0.0.0.0:0"])
def test_addresses(address):
    assert CommonSettings(auth_address=address).auth_address == address


@pytest.mark.parametrize("address", ["", "host", ":50061", "host:", "host:port", "host:65536", "host:-1"])
def test_what_is_not_an_address(address):
    with pytest.raises(ValidationError, match="is not HOST:PORT"):
        CommonSettings(auth_address=address)


def test_a_log_level_that_does_not_exist():
    with pytest.raises(ValidationError):
        CommonSettings(log_level="loud")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("", "sqlite+aiosqlite:////srv/uhm/auth.db"),
        ("postgresql://u@h/db", "postgresql+asyncpg://u@h/db"),
        ("postgres://u@h/db", "postgresql+asyncpg://u@h/db"),
        ("postgresql+asyncpg://u@h/db", "postgresql+asyncpg://u@h/db"),
    ],
)
def test_the_database(given, used):
    settings = CommonSettings(state_dir=Path("/srv/uhm"), database_url=given)
    assert database_url(settings, service="auth") == used


@pytest.mark.parametrize("directory", ["/srv/with space", "/srv/what?now", "/srv/100%", "/srv/a#b", "relative"])
def test_a_state_directory_with_any_name(directory):
    url = database_url(CommonSettings(state_dir=Path(directory)), service="auth")
    assert make_url(url).database == f"{directory}/auth.db"

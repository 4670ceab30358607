"""Settings of the auth service."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from uhm_auth.settings import AuthSettings


def test_defaults(monkeypatch):
    for name in ("UHM_STATE_DIR", "UHM_LISTEN", "UHM_AUTH_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    settings = AuthSettings()
    assert settings.listen_address == "127.0.0.1:50061"
    assert settings.key_path("auth") == Path("/var/lib/uhmalguhm/keys/auth.key")
    assert (settings.access_token_seconds, settings.refresh_token_seconds) == (900, 30 * 86400)
    assert settings.told_seconds > settings.access_token_seconds + settings.token_leeway_seconds
    assert (settings.bcrypt_cost, settings.password_min_length) == (12, 1)


def test_from_the_environment(monkeypatch):
    monkeypatch.setenv("UHM_LISTEN", "0.0.0.0:7000")
    monkeypatch.setenv("UHM_KEY_FILE", "/run/secrets/auth.key")
    monkeypatch.setenv("UHM_ROTATE_REFRESH_TOKENS", "true")
    settings = AuthSettings()
    assert settings.listen_address == "0.0.0.0:7000"
    assert settings.key_path("auth") == Path("/run/secrets/auth.key")
    assert settings.rotate_refresh_tokens


@pytest.mark.parametrize(
    "wrong",
    [
        {"access_token_seconds": 0},
        {"refresh_token_seconds": -1},
        {"refresh_grace_seconds": -1},
        {"longest_session_seconds": 0},
        {"signing_key_seconds": -1},
        {"token_leeway_seconds": 61},
        {"password_min_length": 0},
        {"sessions_per_user": 0},
        {"bcrypt_cost": 3},
        {"bcrypt_cost": 32},
        {"bcrypt_threads": 0},
        {"listen": "nowhere"},
    ],
)
def test_what_does_not_fit(wrong):
    with pytest.raises(ValidationError):
        AuthSettings(**wrong)

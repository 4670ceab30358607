"""What `uhm login` saves, per server: `~/.config/uhmalguhm/credentials.json`, readable by its owner only."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CredentialStore", "Credentials", "expires_within"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A session on one server."""

    username: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CredentialStore:
    """The file, a JSON object of sessions by server URL."""

    path: Path

    @classmethod
    def default(cls) -> CredentialStore:
        """Where the XDG base directory specification wants it."""
        config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return cls(Path(config) / "uhmalguhm" / "credentials.json")

    def load(self, url: str) -> Credentials | None:
        """The session on a server, or None."""
        entry = self._read().get(url)
        return Credentials(**entry) if entry is not None else None

    def save(self, url: str, credentials: Credentials | None) -> None:
        """Keeps the session on a server, or with None forgets it; the caller holds the lock."""
        sessions = self._read()
        if credentials is None:
            sessions.pop(url, None)
        else:
            sessions[url] = asdict(credentials)
        self._write(sessions)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a refresh token is used: one that rotates may be used once, whoever comes second finds the new."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            sessions: dict[str, dict[str, str]] = json.loads(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return sessions

    def _write(self, sessions: dict[str, dict[str, str]]) -> None:
        staged = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(sessions, file, indent=2)
        staged.rename(self.path)


def expires_within(token: str, *, seconds: float) -> bool:
    """Whether a JSON Web Token ends soon. One that cannot be read does not: the server says what is wrong with it."""
    try:
        payload = token.split(".")[1]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"]) - time.time() < seconds
    except (IndexError, KeyError, ValueError, TypeError):
        return False

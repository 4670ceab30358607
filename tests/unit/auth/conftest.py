"""The parts of the auth service, on SQLite, with cheap password hashes and a clock that is set by hand."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from uhm_auth.app import MIGRATIONS
from uhm_auth.keys import KeyRing, SigningKey
from uhm_auth.models import VERSION_TABLE, Base
from uhm_auth.passwords import PasswordHasher
from uhm_auth.service import AuthService
from uhm_auth.sessions import Sessions
from uhm_auth.store import AuthStore
from uhm_auth.tokens import Tokens
from uhm_common.database import Database


@dataclass
class Clock:
    """Now, and what the test has put it forward by."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
async def database(tmp_path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'auth.db'}")
    await database.migrate(migrations=MIGRATIONS, metadata=Base.metadata, version_table=VERSION_TABLE)
    yield database
    await database.close()


@pytest.fixture
def store(database) -> AuthStore:
    return AuthStore(database)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys() -> KeyRing:
    return KeyRing(SigningKey.of(Ed25519PrivateKey.generate()))


@pytest.fixture
def tokens(keys) -> Tokens:
    return Tokens(keys, issuer="issuer", audience="audience", access_seconds=900, refresh_seconds=86400)


@pytest.fixture
def sessions(store, tokens, clock) -> Sessions:
    return Sessions(store, tokens, clock=clock)


@pytest.fixture
def hasher():
    with PasswordHasher(cost=4, threads=2, waiting=8) as hasher:
        yield hasher


@pytest.fixture
def service(store, sessions, hasher) -> AuthService:
    return AuthService(store, sessions, passwords=hasher, password_min_length=1, always_rotate=False)

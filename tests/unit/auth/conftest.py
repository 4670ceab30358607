"""The parts of the auth service, on SQLite, with cheap password hashes and a clock that is set by hand."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from uhm_auth.api_keys import ApiKeys
from uhm_auth.app import MIGRATIONS
from uhm_auth.audit import AuditLog
from uhm_auth.credentials import Credentials
from uhm_auth.keys import SigningKeys
from uhm_auth.logins import Logins
from uhm_auth.models import VERSION_TABLE, AuditEventRow, Base
from uhm_auth.passwords import PasswordHasher
from uhm_auth.revocation_feed import RevocationFeed
from uhm_auth.sessions import Lifetimes, Sessions
from uhm_auth.stores.api_keys import ApiKeyStore
from uhm_auth.stores.failures import FailureStore
from uhm_auth.stores.revocations import RevocationStore
from uhm_auth.stores.sessions import SessionStore
from uhm_auth.stores.signing_keys import SigningKeyStore
from uhm_auth.stores.users import UserStore
from uhm_auth.throttle import Limits, Throttle
from uhm_auth.tokens import Tokens
from uhm_common.callers.revocations import Revocations
from uhm_common.callers.verifier import TokenVerifier
from uhm_common.database import Database
from uhm_common.paging import PageTokens
from uhm_common.vault import Vault

ACCESS_SECONDS, REFRESH_SECONDS = 900, 86400


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
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vault() -> Vault:
    return Vault(b"k" * 32)


@pytest.fixture
def audit(database) -> AuditLog:
    return AuditLog(database)


@pytest.fixture
def logged(database):
    """Answers what the audit log has, as pairs of event and username."""

    async def read() -> list[tuple[str, str]]:
        async with database.read() as transaction:
            rows = await transaction.scalars(select(AuditEventRow).order_by(AuditEventRow.number))
            return [(row.event, row.username) for row in rows]

    return read


@pytest.fixture
def users(database) -> UserStore:
    return UserStore(database)


@pytest.fixture
def add_user(users):
    """Registers a user and answers them."""

    async def add(username="ann", *, password_hash="hash", role="user"):
        async with users.changing() as transaction:
            await users.add(transaction, username, password_hash=password_hash, role=role, now=100)
        return await users.user(username)

    return add


@pytest.fixture
async def ann(add_user):
    return await add_user("ann")


@pytest.fixture
def feed(database, clock) -> RevocationFeed:
    return RevocationFeed(RevocationStore(database), Revocations(clock=clock), clock=clock)


@pytest.fixture
def make_keys(database, vault, clock):
    """Makes what replicas have each: the keys of one database."""

    def make(**changes) -> SigningKeys:
        settings = {"signing_seconds": 0, "token_seconds": REFRESH_SECONDS, "clock": clock} | changes
        return SigningKeys(SigningKeyStore(database), vault, **settings)

    return make


@pytest.fixture
async def keys(make_keys) -> SigningKeys:
    keys = make_keys()
    await keys.open()
    return keys


@pytest.fixture
def api_keys(database, audit, feed, vault) -> ApiKeys:
    return ApiKeys(ApiKeyStore(database), audit, feed=feed, pages=PageTokens(vault), most=5)


@pytest.fixture
def verifier(keys, feed, api_keys) -> TokenVerifier:
    return TokenVerifier(
        keys.verifying, issuer="issuer", audience="audience", revocations=feed.revocations, api_keys=api_keys
    )


@pytest.fixture
def tokens(keys, verifier) -> Tokens:
    return Tokens(keys, verifier, issuer="issuer", audience="audience", access_seconds=ACCESS_SECONDS)


@pytest.fixture
def session_store(database) -> SessionStore:
    return SessionStore(database, told_seconds=ACCESS_SECONDS + 60, most=5)


@pytest.fixture
def make_sessions(session_store, tokens, feed, vault, clock):
    """Makes what each start of the service has, with the settings of that time."""

    def make(**changes) -> Sessions:
        lifetimes = Lifetimes(refresh=REFRESH_SECONDS, longest=7 * REFRESH_SECONDS, grace=10)
        settings = {"lifetimes": lifetimes, "page_tokens": PageTokens(vault), "clock": clock} | changes
        return Sessions(session_store, tokens, feed, **settings)

    return make


@pytest.fixture
def sessions(make_sessions) -> Sessions:
    return make_sessions()


@pytest.fixture
def demanding_sessions(make_sessions) -> Sessions:
    """Of a service that demands rotation of all."""
    return make_sessions(always_rotate=True)


@pytest.fixture
def hasher():
    with PasswordHasher(cost=4, threads=2, waiting=8) as hasher:
        yield hasher


@pytest.fixture
def throttle(database, audit) -> Throttle:
    return Throttle(FailureStore(database), audit, limits=Limits(hold_seconds=0), key=b"k" * 32)


@pytest.fixture
def credentials(users, hasher, throttle, audit) -> Credentials:
    return Credentials(users, passwords=hasher, throttle=throttle, audit=audit)


@pytest.fixture
def logins(credentials, sessions, tokens, api_keys) -> Logins:
    return Logins(credentials, sessions, tokens, api_keys)

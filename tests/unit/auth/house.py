"""The accounts of an auth service, wired as in production, with cheap hashes and a clock that only the test moves."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from sqlalchemy import select

from uhm_auth.accounts import Accounts
from uhm_auth.api_keys import ApiKeys
from uhm_auth.app import MIGRATIONS
from uhm_auth.audit import AuditLog
from uhm_auth.credentials import Credentials
from uhm_auth.grants import Grants
from uhm_auth.invitations import Invitations
from uhm_auth.keys import SigningKeys
from uhm_auth.models import OUTBOX, VERSION_TABLE, AuditEventRow, Base
from uhm_auth.password_changes import PasswordChanges
from uhm_auth.passwords import PasswordHasher
from uhm_auth.policy import Policy
from uhm_auth.registrar import Registrar
from uhm_auth.revocations import RevocationFeed
from uhm_auth.sessions import Lifetimes, Sessions
from uhm_auth.stores.api_keys import ApiKeyStore
from uhm_auth.stores.failures import FailureStore
from uhm_auth.stores.invitations import InvitationStore
from uhm_auth.stores.password_resets import PasswordResetStore
from uhm_auth.stores.revocations import RevocationStore
from uhm_auth.stores.sessions import SessionStore
from uhm_auth.stores.signing_keys import SigningKeyStore
from uhm_auth.stores.users import UserStore
from uhm_auth.throttle import Limits, Throttle
from uhm_auth.tokens import Tokens
from uhm_common.database import Database
from uhm_common.events import EventBus
from uhm_common.identity import Identity
from uhm_common.outbox import Outbox
from uhm_common.paging import PageTokens
from uhm_common.revocations import Revocations
from uhm_common.vault import Vault
from uhm_common.verifier import TokenVerifier

KEY = b"k" * 32
ISSUED_BY = {"issuer": "issuer", "audience": "audience"}
LIFETIMES = Lifetimes(refresh=10**6, longest=10**7, grace=10)


class Hand:
    """A clock that only the test moves; it begins with now, because tokens are checked by the real time."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


@dataclass(kw_only=True)
class House:
    """The parts."""

    clock: Hand
    database: Database
    hasher: PasswordHasher
    users: UserStore
    keys: SigningKeys
    tokens: Tokens
    verifier: TokenVerifier
    sessions: Sessions
    api_keys: ApiKeys
    credentials: Credentials
    registrar: Registrar
    accounts: Accounts
    invitations: Invitations
    password_changes: PasswordChanges

    async def log_in(self, username: str, password: str = "test", *, rotates: bool = False) -> tuple[Identity, str]:
        """Whom the access token of a new session makes the bearer, and its refresh token."""
        user = await self.credentials.check(username, password)
        issued = await self.sessions.begin(user, rotates=rotates)
        return await self.bearer(issued.access), issued.refresh or ""

    async def bearer(self, token: str) -> Identity:
        """Who comes with that token."""
        return await self.verifier.identity({"authorization": f"Bearer {token}"})

    async def events(self) -> list[tuple[str, str, str, dict[str, str]]]:
        """What the audit log has: event, actor, whom it concerns, details."""
        query = select(AuditEventRow).order_by(AuditEventRow.number)
        async with self.database.read() as transaction:
            return [
                (row.event, row.actor, row.username, json.loads(row.details))
                for row in await transaction.scalars(query)
            ]

    async def told(self) -> list[tuple[str, dict[str, str]]]:
        """The events that wait to be sent to other services."""
        async with self.database.read() as transaction:
            waiting = await transaction.execute(select(OUTBOX).order_by(OUTBOX.c.number))
            return [(row.subject, row.payload) for row in waiting]


@asynccontextmanager
async def open_house(url: str, *, policy: Policy | None = None, bootstrap_code: str = "", free_guesses: int = 5):
    """A house on that database, which is made; so many guesses at a time are not slowed."""
    database = Database(url)
    try:
        await database.migrate(migrations=MIGRATIONS, metadata=Base.metadata, version_table=VERSION_TABLE)
        with PasswordHasher(cost=4, threads=2, waiting=100, policy=policy or Policy()) as hasher:
            limits = Limits(pair=replace(Limits().pair, free=free_guesses), hold_seconds=0)
            house = _house(
                database, hasher=hasher, policy=policy or Policy(), bootstrap_code=bootstrap_code, limits=limits
            )
            await house.keys.open()
            yield house
    finally:
        await database.close()


def _house(database: Database, *, hasher: PasswordHasher, policy: Policy, bootstrap_code: str, limits: Limits) -> House:
    clock, vault, audit = Hand(), Vault(KEY), AuditLog(database)
    page_tokens = PageTokens(vault)
    feed = RevocationFeed(RevocationStore(database), Revocations(clock=clock), clock=clock)
    keys = SigningKeys(SigningKeyStore(database), vault, signing_seconds=0, token_seconds=10**6, clock=clock)
    api_keys = ApiKeys(ApiKeyStore(database), audit, feed=feed, pages=page_tokens, most=10, clock=clock)
    verifier = TokenVerifier(keys.verifying, **ISSUED_BY, revocations=feed.revocations, api_keys=api_keys, clock=clock)
    tokens = Tokens(keys, verifier, **ISSUED_BY, access_seconds=900)
    session_store = SessionStore(database, told_seconds=1000, most=100)
    sessions = Sessions(session_store, tokens, feed, lifetimes=LIFETIMES, page_tokens=page_tokens, clock=clock)
    users, invitations, resets = UserStore(database), InvitationStore(database), PasswordResetStore(database)
    throttle = Throttle(FailureStore(database), audit, limits=limits, key=KEY, clock=clock)
    credentials = Credentials(users, passwords=hasher, throttle=throttle, audit=audit)
    grants = Grants(session_store, invitations, resets, feed=feed)
    outbox = Outbox(OUTBOX, database=database, events=EventBus("nats://127.0.0.1:1", name="test"))
    return House(
        clock=clock,
        database=database,
        hasher=hasher,
        users=users,
        keys=keys,
        tokens=tokens,
        verifier=verifier,
        sessions=sessions,
        api_keys=api_keys,
        credentials=credentials,
        registrar=Registrar(
            users,
            invitations,
            policy=policy,
            passwords=hasher,
            audit=audit,
            bootstrap_code=bootstrap_code,
            clock=clock,
        ),
        accounts=Accounts(users, grants, credentials=credentials, outbox=outbox, page_tokens=page_tokens, clock=clock),
        invitations=Invitations(invitations, policy=policy, page_tokens=page_tokens, clock=clock),
        password_changes=PasswordChanges(
            users,
            resets,
            grants=grants,
            sessions=sessions,
            credentials=credentials,
            passwords=hasher,
            throttle=throttle,
            audit=audit,
            clock=clock,
        ),
    )

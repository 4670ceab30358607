"""The accounts of an auth service, wired as in production, with cheap hashes and a clock that only the test moves."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from pydantic import SecretStr
from sqlalchemy import select

from uhm_auth.accounts import Accounts
from uhm_auth.api_keys import ApiKeys
from uhm_auth.app import MIGRATIONS, make_core, make_domain
from uhm_auth.credentials import Credentials
from uhm_auth.invitations import Invitations
from uhm_auth.keys import SigningKeys
from uhm_auth.models import OUTBOX, VERSION_TABLE, AuditEventRow, Base
from uhm_auth.password_changes import PasswordChanges
from uhm_auth.passwords import PasswordHasher
from uhm_auth.policy import Policy
from uhm_auth.registrar import Registrar
from uhm_auth.sessions import Sessions
from uhm_auth.settings import AuthSettings
from uhm_auth.stores.users import UserStore
from uhm_auth.throttle import Limits
from uhm_auth.tokens import Tokens
from uhm_common.callers.identity import Identity
from uhm_common.callers.verifier import TokenVerifier
from uhm_common.database import Database
from uhm_common.events import EventBus
from uhm_common.vault import Vault

KEY = b"k" * 32


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
    policy = policy or Policy()
    settings = AuthSettings(
        registration=policy.registration,
        password_min_length=policy.password_min_length,
        password_min_score=policy.password_min_score,
        bootstrap_invitation=SecretStr(bootstrap_code),
        refresh_token_seconds=10**6,
        longest_session_seconds=10**7,
        signing_key_seconds=0,
        api_keys_per_user=10,
        sessions_per_user=100,
    )
    assert settings.policy == policy
    database = Database(url)
    try:
        await database.migrate(migrations=MIGRATIONS, metadata=Base.metadata, version_table=VERSION_TABLE)
        with PasswordHasher(cost=4, threads=2, waiting=100, policy=policy) as hasher:
            limits = Limits(pair=replace(Limits().pair, free=free_guesses), hold_seconds=0)
            house = _house(settings, database=database, hasher=hasher, limits=limits)
            await house.keys.open()
            yield house
    finally:
        await database.close()


def _house(settings: AuthSettings, *, database: Database, hasher: PasswordHasher, limits: Limits) -> House:
    clock, events = Hand(), EventBus("nats://127.0.0.1:1", name="test")
    core = make_core(settings, database=database, vault=Vault(KEY), clock=clock)
    domain = make_domain(settings, core, hasher=hasher, events=events, limits=limits, clock=clock)
    users = UserStore(database)
    return House(
        clock=clock,
        database=database,
        hasher=hasher,
        users=users,
        keys=core.keys,
        tokens=core.tokens,
        verifier=core.verifier,
        sessions=core.sessions,
        api_keys=core.api_keys,
        credentials=Credentials(users, passwords=hasher, throttle=domain.throttle, audit=core.audit),
        registrar=domain.registrar,
        accounts=domain.accounts,
        invitations=domain.invitations,
        password_changes=domain.password_changes,
    )

"""The wiring of the auth service: the only place that knows all its parts."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uhm_auth.accounts import Accounts
from uhm_auth.api_keys import ApiKeys
from uhm_auth.audit import AuditLog
from uhm_auth.credentials import Credentials
from uhm_auth.grants import Grants
from uhm_auth.invitations import Invitations
from uhm_auth.keys import SigningKeys
from uhm_auth.logins import Logins
from uhm_auth.models import OUTBOX, VERSION_TABLE, Base
from uhm_auth.password_changes import PasswordChanges
from uhm_auth.passwords import PasswordHasher
from uhm_auth.registrar import Registrar
from uhm_auth.revocation_feed import RevocationFeed
from uhm_auth.servicers.api_keys import SERVICE_NAME as API_KEY_SERVICE
from uhm_auth.servicers.api_keys import ApiKeyServicer
from uhm_auth.servicers.audit import SERVICE_NAME as AUDIT_SERVICE
from uhm_auth.servicers.audit import AuditServicer
from uhm_auth.servicers.auth import SERVICE_NAME, AuthServicer
from uhm_auth.servicers.users import SERVICE_NAME as USER_SERVICE
from uhm_auth.servicers.users import UserServicer
from uhm_auth.servicers.verification import SERVICE_NAME as VERIFICATION_SERVICE
from uhm_auth.servicers.verification import VerificationServicer
from uhm_auth.sessions import Lifetimes, Sessions
from uhm_auth.stores.api_keys import ApiKeyStore
from uhm_auth.stores.audit import AuditStore
from uhm_auth.stores.failures import FailureStore
from uhm_auth.stores.invitations import InvitationStore
from uhm_auth.stores.password_resets import PasswordResetStore
from uhm_auth.stores.revocations import RevocationStore
from uhm_auth.stores.sessions import SessionStore
from uhm_auth.stores.signing_keys import SigningKeyStore
from uhm_auth.stores.users import UserStore
from uhm_auth.throttle import Throttle
from uhm_auth.tokens import Tokens
from uhm_common.bootstrap import Server
from uhm_common.callers.boundary import Boundary
from uhm_common.callers.revocations import Revocations
from uhm_common.callers.verifier import TokenVerifier
from uhm_common.database import Database
from uhm_common.events import EventBus
from uhm_common.logs import get_logger
from uhm_common.outbox import Outbox
from uhm_common.paging import PageTokens
from uhm_common.repeating import repeat
from uhm_common.settings import database_url
from uhm_common.vault import open_vault
from uhmalguhm.auth.v1 import (
    api_key_pb2_grpc,
    audit_pb2_grpc,
    auth_pb2_grpc,
    user_pb2_grpc,
    verification_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import grpc

    from uhm_auth.settings import AuthSettings
    from uhm_auth.throttle import Limits
    from uhm_common.vault import Vault

__all__ = ["MIGRATIONS", "Core", "Domain", "make_core", "make_domain", "make_server", "open_core", "run"]

log = get_logger()

MIGRATIONS = Path(__file__).parent / "migrations"
FORGET_EVERY_SECONDS = 3600


async def run(settings: AuthSettings) -> None:
    """Serves until told to stop. Raises SigningKeyUnusable, or UhmError where the address is taken."""
    async with make_server(settings) as server:
        await server.serve()


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """What tokens are made of and verified with."""

    database: Database
    vault: Vault
    page_tokens: PageTokens
    audit: AuditLog
    keys: SigningKeys
    feed: RevocationFeed
    api_keys: ApiKeys
    verifier: TokenVerifier
    tokens: Tokens
    session_store: SessionStore
    sessions: Sessions


@asynccontextmanager
async def open_core(settings: AuthSettings) -> AsyncIterator[Core]:
    """Opens the database and reads the keys. Raises SigningKeyUnusable."""
    vault = open_vault(settings.key_path("auth"))
    database = Database(database_url(settings, service="auth"))
    try:
        await database.migrate(migrations=MIGRATIONS, metadata=Base.metadata, version_table=VERSION_TABLE)
        core = make_core(settings, database=database, vault=vault)
        await core.keys.open()
        _leave_key_files(settings)
        await core.feed.refresh()
        yield core
    finally:
        await database.close()


def _leave_key_files(settings: AuthSettings) -> None:
    """Deletes the key that earlier versions kept in the clear: those that sign are in the database, encrypted."""
    former = settings.state_dir / "auth" / "keys" / "signing.pem"
    try:
        former.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("signing_key_file.not_deleted", path=str(former), error=repr(error))
    else:
        log.info("signing_key_file.deleted", path=str(former))
    if settings.signing_key_file is not None:
        log.warning("signing_key_file.not_used", path=str(settings.signing_key_file), setting="UHM_SIGNING_KEY_FILE")


def make_core(
    settings: AuthSettings, *, database: Database, vault: Vault, clock: Callable[[], float] = time.time
) -> Core:
    """Wires what a database and a vault are enough for."""
    lifetimes = Lifetimes(
        refresh=settings.refresh_token_seconds,
        longest=settings.longest_session_seconds,
        grace=settings.refresh_grace_seconds,
    )
    page_tokens = PageTokens(vault)
    session_store = SessionStore(database, told_seconds=settings.told_seconds, most=settings.sessions_per_user)
    audit = AuditLog(database)
    feed = RevocationFeed(RevocationStore(database), Revocations(clock=clock), clock=clock)
    api_keys = ApiKeys(
        ApiKeyStore(database), audit, feed=feed, pages=page_tokens, most=settings.api_keys_per_user, clock=clock
    )
    keys = SigningKeys(
        SigningKeyStore(database),
        vault,
        signing_seconds=settings.signing_key_seconds,
        token_seconds=max(settings.refresh_token_seconds, settings.access_token_seconds),
        clock=clock,
    )
    verifier = TokenVerifier(
        keys.verifying,
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        leeway_seconds=settings.token_leeway_seconds,
        revocations=feed.revocations,
        api_keys=api_keys,
        clock=clock,
    )
    tokens = Tokens(
        keys,
        verifier,
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        access_seconds=settings.access_token_seconds,
    )
    sessions = Sessions(
        session_store,
        tokens,
        feed,
        lifetimes=lifetimes,
        page_tokens=page_tokens,
        always_rotate=settings.rotate_refresh_tokens,
        clock=clock,
    )
    return Core(
        database=database,
        vault=vault,
        page_tokens=page_tokens,
        audit=audit,
        keys=keys,
        feed=feed,
        api_keys=api_keys,
        verifier=verifier,
        tokens=tokens,
        session_store=session_store,
        sessions=sessions,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Users and what they do with passwords."""

    throttle: Throttle
    outbox: Outbox
    logins: Logins
    registrar: Registrar
    accounts: Accounts
    invitations: Invitations
    password_changes: PasswordChanges


def make_domain(
    settings: AuthSettings,
    core: Core,
    *,
    hasher: PasswordHasher,
    events: EventBus,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.time,
) -> Domain:
    """Wires the rest; `limits` are those of the settings unless they are given."""
    users = UserStore(core.database)
    invitations, resets = InvitationStore(core.database), PasswordResetStore(core.database)
    throttle = Throttle(
        FailureStore(core.database),
        core.audit,
        limits=limits or settings.throttle_limits,
        key=core.vault.derive("throttle"),
        clock=clock,
    )
    credentials = Credentials(users, passwords=hasher, throttle=throttle, audit=core.audit)
    grants = Grants(core.session_store, invitations, resets, feed=core.feed)
    outbox = Outbox(OUTBOX, database=core.database, events=events)
    return Domain(
        throttle=throttle,
        outbox=outbox,
        logins=Logins(credentials, core.sessions, core.tokens, core.api_keys),
        registrar=Registrar(
            users,
            invitations,
            policy=settings.policy,
            passwords=hasher,
            audit=core.audit,
            bootstrap_code=settings.bootstrap_invitation.get_secret_value(),
            clock=clock,
        ),
        accounts=Accounts(
            users, grants, credentials=credentials, outbox=outbox, page_tokens=core.page_tokens, clock=clock
        ),
        invitations=Invitations(invitations, users, policy=settings.policy, page_tokens=core.page_tokens, clock=clock),
        password_changes=PasswordChanges(
            users,
            resets,
            grants=grants,
            sessions=core.sessions,
            credentials=credentials,
            passwords=hasher,
            throttle=throttle,
            audit=core.audit,
            clock=clock,
        ),
    )


@asynccontextmanager
async def make_server(settings: AuthSettings) -> AsyncIterator[Server]:
    """A server with everything it needs, which ends with the block."""
    hasher = PasswordHasher(
        cost=settings.bcrypt_cost,
        threads=settings.bcrypt_threads,
        waiting=settings.bcrypt_waiting,
        policy=settings.policy,
    )
    events = EventBus(settings.nats_url, name="auth")
    async with open_core(settings) as core:
        with hasher:
            domain = make_domain(settings, core, hasher=hasher, events=events)
            await domain.registrar.announce()

            def add(server: grpc.aio.Server) -> None:
                _add_servicers(server, core, domain)

            async def forget() -> None:
                await repeat(lambda: _forget(core, domain), seconds=FORGET_EVERY_SECONDS, failed="nothing.forgotten")

            yield Server(
                listen=settings.listen_address,
                tls=settings.server_tls,
                services=[SERVICE_NAME, USER_SERVICE, API_KEY_SERVICE, AUDIT_SERVICE, VERIFICATION_SERVICE],
                add=add,
                interceptors=[Boundary(verifier=core.verifier, on_denied=core.audit.write_denied)],
                background=[
                    events.run,
                    domain.outbox.run,
                    domain.throttle.sweep,
                    core.keys.run,
                    core.feed.run,
                    forget,
                ],
                ending=core.feed.end,
            )


def _add_servicers(server: grpc.aio.Server, core: Core, domain: Domain) -> None:
    auth_pb2_grpc.add_AuthServiceServicer_to_server(
        AuthServicer(
            domain.logins,
            core.keys,
            sessions=core.sessions,
            registrar=domain.registrar,
            accounts=domain.accounts,
            password_changes=domain.password_changes,
        ),
        server,
    )
    users = UserServicer(domain.accounts, domain.invitations, domain.password_changes)
    user_pb2_grpc.add_UserServiceServicer_to_server(users, server)
    api_key_pb2_grpc.add_ApiKeyServiceServicer_to_server(ApiKeyServicer(core.api_keys), server)
    audit = AuditServicer(AuditStore(core.database), pages=core.page_tokens)
    audit_pb2_grpc.add_AuditServiceServicer_to_server(audit, server)
    verification = VerificationServicer(core.feed, core.api_keys)
    verification_pb2_grpc.add_VerificationServiceServicer_to_server(verification, server)


async def _forget(core: Core, domain: Domain) -> None:
    """Deletes what nothing refers to any more."""
    await core.keys.forget_expired()
    await core.feed.forget_expired()
    await core.api_keys.forget_ended()
    await domain.invitations.forget_expired()
    await domain.password_changes.forget_expired()
    if forgotten := await core.sessions.forget_expired():
        log.info("sessions.forgotten", count=forgotten)

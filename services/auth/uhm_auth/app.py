"""The wiring of the auth service."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uhm_auth.keys import load_keys
from uhm_auth.models import VERSION_TABLE, Base
from uhm_auth.passwords import PasswordHasher
from uhm_auth.service import AuthService
from uhm_auth.servicer import PUBLIC_METHODS, SERVICE_NAME, AuthServicer
from uhm_auth.sessions import Sessions
from uhm_auth.store import AuthStore
from uhm_auth.tokens import Tokens
from uhm_common.bootstrap import Server
from uhm_common.boundary import Boundary
from uhm_common.database import Database
from uhm_common.logs import get_logger
from uhm_common.settings import database_url
from uhmalguhm.auth.v1 import auth_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from uhm_auth.settings import AuthSettings

__all__ = ["MIGRATIONS", "make_server", "run"]

log = get_logger()

MIGRATIONS = Path(__file__).parent / "migrations"
FORGET_EVERY_SECONDS = 3600


async def run(settings: AuthSettings) -> None:
    """Serves until told to stop. Raises SigningKeyUnusable, or UhmError where the address is taken."""
    async with make_server(settings) as server:
        await server.serve()


@asynccontextmanager
async def make_server(settings: AuthSettings) -> AsyncIterator[Server]:
    """A server with everything it needs, which ends with the block."""
    keys = load_keys(settings.signing_key_path, generate=settings.signing_key_file is None)
    tokens = Tokens(
        keys,
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        access_seconds=settings.access_token_seconds,
        refresh_seconds=settings.refresh_token_seconds,
    )
    hasher = PasswordHasher(cost=settings.bcrypt_cost, threads=settings.bcrypt_threads, waiting=settings.bcrypt_waiting)
    database = Database(database_url(settings, service="auth"))
    try:
        await database.migrate(migrations=MIGRATIONS, metadata=Base.metadata, version_table=VERSION_TABLE)
        store = AuthStore(database)
        sessions = Sessions(store, tokens)
        with hasher:
            service = AuthService(
                store,
                sessions,
                passwords=hasher,
                password_min_length=settings.password_min_length,
                always_rotate=settings.rotate_refresh_tokens,
            )
            yield Server(
                listen=settings.listen_address,
                services=[SERVICE_NAME],
                add=partial(auth_pb2_grpc.add_AuthServiceServicer_to_server, AuthServicer(service, keys)),
                interceptors=[Boundary(verifier=tokens.verifier, public=PUBLIC_METHODS)],
                background=[partial(_forget_expired, sessions)],
            )
    finally:
        await database.close()


async def _forget_expired(sessions: Sessions) -> None:
    """Deletes expired sessions now and then, until cancelled."""
    while True:
        if forgotten := await sessions.forget_expired():
            log.info("sessions.forgotten", count=forgotten)
        await asyncio.sleep(FORGET_EVERY_SECONDS)

"""The registries that users have added: credentials and certificates for their own builds.

Secrets are in the database encrypted, bound to their owner and host, and never answered. Where a user has added a
registry, the operator's credentials for it are not used for that user: what the user trusts must not get to see them.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select

from uhm_builder.errors import InvalidReference, InvalidRegistry, NoSuchRegistry, TooManyRegistries
from uhm_builder.models import RegistryRow
from uhm_builder.sources.challenge import Credentials
from uhm_builder.sources.connections import trust
from uhm_builder.sources.reference import DEFAULT_REGISTRY, parse_reference
from uhm_builder.sources.registry import Account
from uhm_builder.threads import in_thread
from uhm_common.idempotency import current_claim
from uhm_common.paging import Listing, page_size

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from uhm_builder.sources.clients import RegistryClients
    from uhm_common.database import Database
    from uhm_common.paging import PageTokens
    from uhm_common.vault import Vault

__all__ = ["Registries", "Registry", "RegistryPage", "RegistryWish"]

PER_OWNER_MAX = 100
USERNAME_MAX = 255
SECRET_MAX = 16 << 10
"""Characters of a password or token; those of clouds have up to 4,000."""
CERTIFICATES_MAX = 256 << 10
HUB_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")
"""All of them are Docker Hub."""

_SCHEME = re.compile(r"https?://", re.IGNORECASE)
_API = re.compile(r"(?:/v[12])?/?")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A registry as its owner sees it."""

    number: int
    host: str
    username: str
    ca_certificate: str
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryWish:
    """A registry to add, as it was asked for."""

    host: str
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    ca_certificate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryPage:
    """A page of a list; the token is empty on the last one."""

    registries: list[Registry]
    next_token: str


class Registries:
    """The registries of all users; each method acts for one of them, and what others have does not exist for it."""

    def __init__(self, *, database: Database, vault: Vault, page_tokens: PageTokens) -> None:
        self._database = database
        self._vault = vault
        self._page_tokens = page_tokens

    async def add(self, wish: RegistryWish, *, owner: str, clients: RegistryClients | None) -> Registry:
        """Adds a registry, or replaces what was known of it, after showing it the credentials through `clients`.

        Raises InvalidRegistry, TooManyRegistries, and what logging in raises.
        """
        host = _host(wish.host)
        claim = current_claim()
        if claim.resource:
            return await self.get(host, owner=owner)
        account = await _account(wish)
        if clients is not None:
            await clients.log_in(host, account)
        secret = json.dumps([wish.password, wish.identity_token]).encode()
        row = {
            "owner": owner,
            "host": host,
            "username": wish.username,
            "secret": self._vault.seal(secret, purpose=_purpose(owner, host)),
            "ca_certificate": wish.ca_certificate,
            "created_at": time.time_ns(),
        }
        async with self._database.write() as session:
            await self._database.serialise(session, f"registries/{owner}")
            await session.execute(delete(RegistryRow).where(*_of(owner, host)))
            count = select(func.count()).select_from(RegistryRow).where(RegistryRow.owner == owner)
            if (await session.scalars(count)).one() >= PER_OWNER_MAX:
                raise TooManyRegistries(
                    f"You have added {PER_OWNER_MAX} registries, which is the most.",
                    hint="`uhm registry logout` forgets one.",
                )
            await session.execute(insert(RegistryRow).values(row))
            await claim.made(session, host)
        return await self.get(host, owner=owner)

    async def get(self, host: str, *, owner: str) -> Registry:
        """One registry. Raises InvalidRegistry, NoSuchRegistry."""
        host = _host(host)
        row = await self._row(host, owner=owner)
        if row is None:
            raise _missing(host)
        return _registry(row)

    async def page(self, *, size: int, token: str, owner: str) -> RegistryPage:
        """A page of the owner's registries, the newest first. Raises InvalidPageToken."""
        size = page_size(size)
        conditions: list[ColumnElement[bool]] = [RegistryRow.owner == owner]
        listing = Listing(name="registries", owner=owner)
        if (before := self._page_tokens.read_number(token, of=listing)) is not None:
            conditions.append(RegistryRow.number < before)
        query = select(RegistryRow).where(*conditions).order_by(RegistryRow.number.desc()).limit(size + 1)
        async with self._database.read() as session:
            found = [_registry(row) for row in (await session.scalars(query)).all()]
        registries, more = self._page_tokens.cut(found, size=size, of=listing, position=lambda last: last.number)
        return RegistryPage(registries=registries, next_token=more)

    async def delete(self, host: str, *, owner: str) -> None:
        """Forgets a registry. Raises InvalidRegistry, NoSuchRegistry."""
        host = _host(host)
        async with self._database.write() as session:
            forgotten = delete(RegistryRow).where(*_of(owner, host)).returning(RegistryRow.number)
            if (await session.scalars(forgotten)).one_or_none() is None:
                raise _missing(host)

    async def delete_all(self, *, owner: str, before: int) -> None:
        """Forgets all that an owner added before that time."""
        theirs = (RegistryRow.owner == owner, RegistryRow.created_at < before)
        async with self._database.write() as session:
            await session.execute(delete(RegistryRow).where(*theirs))

    async def account(self, host: str, *, owner: str) -> Account | None:
        """What the owner's builds need to know of a registry; None where it was not added."""
        row = await self._row(host.lower(), owner=owner)
        if row is None:
            return None
        password, identity_token = json.loads(self._vault.open(row.secret, purpose=_purpose(owner, row.host)))
        credentials = Credentials(row.username, password, identity_token) if password or identity_token else None
        return Account(credentials=credentials, ca_certificate=row.ca_certificate)

    async def _row(self, host: str, *, owner: str) -> RegistryRow | None:
        async with self._database.read() as session:
            return (await session.scalars(select(RegistryRow).where(*_of(owner, host)))).one_or_none()


def _of(owner: str, host: str) -> tuple[ColumnElement[bool], ...]:
    return RegistryRow.owner == owner, RegistryRow.host == host


def _purpose(owner: str, host: str) -> str:
    """Hosts have no slash, so no two owners and hosts are told apart by where it is."""
    return f"registry/{host}/{owner}"


def _registry(row: RegistryRow) -> Registry:
    return Registry(
        number=row.number,
        host=row.host,
        username=row.username,
        ca_certificate=row.ca_certificate,
        created_at=row.created_at,
    )


def _missing(host: str) -> NoSuchRegistry:
    return NoSuchRegistry(f"You have not added the registry {host}.", hint="`uhm registry ls` lists yours.")


def _host(text: str) -> str:
    """A registry's host as references name it, in lower case. Raises InvalidRegistry."""
    scheme = _SCHEME.match(text)
    host, slash, rest = text[scheme.end() if scheme else 0 :].lower().partition("/")
    if _API.fullmatch(slash + rest):
        if host in HUB_HOSTS:
            return DEFAULT_REGISTRY
        with suppress(InvalidReference):
            if parse_reference(f"{host}/name").registry == host:
                return host
    raise InvalidRegistry(
        f"{text[:80]!r} is not the host of a registry.",
        hint="Give it as references do, such as registry.example.com:5000; docker.io is Docker Hub.",
    )


async def _account(wish: RegistryWish) -> Account:
    """What a wish comes to. Raises InvalidRegistry."""
    secrets = [secret for secret in (wish.password, wish.identity_token) if secret]
    if len(secrets) > 1:
        raise InvalidRegistry("Both a password and an identity token were given.", hint="Give one of them.")
    if (wish.username and not secrets) or (wish.password and not wish.username):
        raise InvalidRegistry("A user name and a password go together.", hint="Give both.")
    if not secrets and not wish.ca_certificate:
        raise InvalidRegistry(
            "Neither credentials nor certificates were given.", hint="Give a user name and a password."
        )
    if len(wish.username) > USERNAME_MAX or ":" in wish.username or _UNPRINTABLE.search(wish.username):
        raise InvalidRegistry(
            f"{wish.username[:80]!r} is not a registry's user name.", hint="It has no colon and no control characters."
        )
    if any(len(secret) > SECRET_MAX or _UNPRINTABLE.search(secret) for secret in secrets):
        raise InvalidRegistry(
            f"The password or token has control characters, or more than {SECRET_MAX} characters.",
            hint="Was a whole file given, with the end of its line?",
        )
    await in_thread(lambda: _check_certificates(wish.ca_certificate))
    credentials = Credentials(wish.username, wish.password, wish.identity_token) if secrets else None
    return Account(credentials=credentials, ca_certificate=wish.ca_certificate)


def _check_certificates(pem: str) -> None:
    if len(pem) > CERTIFICATES_MAX:
        raise InvalidRegistry(
            f"The certificates have more than {CERTIFICATES_MAX} bytes.", hint="Give the authority's only."
        )
    if "PRIVATE KEY" in pem:
        raise InvalidRegistry(
            "There is a private key among the certificates.", hint="Keep that to yourself; give certificates."
        )
    try:
        trust(pem)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidRegistry(
            "The certificates cannot be read.", hint="They are PEM: -----BEGIN CERTIFICATE----- and so on."
        ) from error

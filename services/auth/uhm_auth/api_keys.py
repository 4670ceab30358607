"""API keys: what machines are let in with, as `authorization: Bearer uhm_<id>_<secret>`.

The id, 64 random bits in hexadecimal, finds the key; the secret, 256 random bits in base64url, proves it. A SHA-256 of
the secret is kept, unsalted and fast: nobody can try all secrets, and services ask often.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from uhm_auth.audit import Event, entry
from uhm_auth.codes import DAY_SECONDS, hash_code, lifetime
from uhm_auth.errors import ApiKeyNotFound, ApiKeyRefused, InvalidApiKey
from uhm_auth.scopes import all_scopes
from uhm_auth.stores.api_keys import ApiKey
from uhm_common.callers.api_keys import KEY, VerifiedKey
from uhm_common.callers.identity import ADMIN
from uhm_common.paging import Listing, pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uhm_auth.audit import AuditLog
    from uhm_auth.revocation_feed import RevocationFeed
    from uhm_auth.stores.api_keys import ApiKeyStore
    from uhm_common.callers.identity import Identity
    from uhm_common.paging import PageTokens

__all__ = ["ApiKeys", "NewKey"]

ID = re.compile(r"[0-9a-f]{16}")
ID_BYTES, SECRET_BYTES = 8, 32
NAME_LENGTH = 64
LONGEST_SECONDS = 3650 * DAY_SECONDS
KEPT_SECONDS = 30 * DAY_SECONDS
NOBODYS = hash_code(secrets.token_urlsafe(SECRET_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key and its text, which is told once."""

    key: ApiKey
    text: str = field(repr=False)


class ApiKeys:
    """Makes, lists, deletes and verifies keys; a user has at most `most` that are good."""

    def __init__(
        self,
        store: ApiKeyStore,
        audit: AuditLog,
        *,
        feed: RevocationFeed,
        pages: PageTokens,
        most: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._audit = audit
        self._feed = feed
        self._pages = pages
        self._most = most
        self._clock = clock

    async def create(self, owner: Identity, *, name: str, scopes: Sequence[str], ttl: int | None) -> NewKey:
        """Makes a key that is good for `ttl` seconds; None: until it is deleted.

        Raises InvalidApiKey, InvalidTtl or TooManyApiKeys.
        """
        _check_name(name)
        _check_scopes(scopes, owner)
        now = int(self._clock())
        secret = secrets.token_urlsafe(SECRET_BYTES)
        key = ApiKey(
            id=secrets.token_hex(ID_BYTES),
            name=name,
            scopes=tuple(sorted(set(scopes))),
            secret_hash=hash_code(secret),
            created_at=now,
            expires_at=None if ttl is None else now + lifetime(ttl, default=ttl, longest=LONGEST_SECONDS),
        )
        made = entry(
            Event.API_KEY_CREATED,
            username=owner.username,
            actor=owner.username,
            key=key.id,
            name=name,
            scopes=" ".join(key.scopes),
        )
        await self._store.add(key, username=owner.username, most=self._most, entry=made)
        return NewKey(key=key, text=f"uhm_{key.id}_{secret}")

    async def page(self, owner: Identity, *, size: int, token: str) -> tuple[list[ApiKey], str]:
        """Some of the caller's keys, the newest first, and the token of the next page. Raises InvalidPageToken."""
        listing = Listing(name="api_keys", owner=owner.username)
        before = self._pages.read_pair(token, of=listing)
        keys = await self._store.page(owner.username, before=before, limit=size + 1)
        return self._pages.cut(keys, size=size, of=listing, position=lambda last: pair(last.created_at, last.id))

    async def delete(self, owner: Identity, key_id: str) -> None:
        """Ends one of the caller's keys: every service refuses it within seconds. Raises ApiKeyNotFound."""
        if not ID.fullmatch(key_id):
            # It may be the key itself, and is not repeated.
            raise ApiKeyNotFound("That is not the id of an API key.", hint="Look at the list.")
        deleted = entry(Event.API_KEY_DELETED, username=owner.username, actor=owner.username, key=key_id)
        await self._store.revoke(key_id, username=owner.username, now=int(self._clock()), entry=deleted)
        await self._feed.refresh()

    async def verify(self, key: str) -> VerifiedKey:
        """Whose a key is. Raises ApiKeyRefused, whatever is wrong with it; the audit log is told what."""
        match = KEY.fullmatch(key)
        if match is None:
            await self._refuse("form")
        key_id, secret = match.groups()
        found = await self._store.find(key_id)
        right = hmac.compare_digest(hash_code(secret), found[0].secret_hash if found else NOBODYS)
        if found is None:
            await self._refuse("unknown")
        kept, owner = found
        now = int(self._clock())
        if reason := _fault(kept, right=right, gone=owner.gone, now=now):
            await self._refuse(reason, username=owner.username, key=key_id)
        await self._store.note_use(kept, now=now)
        return VerifiedKey(
            id=kept.id,
            username=owner.username,
            role=owner.role,
            scopes=frozenset(kept.scopes),
            expires_at=kept.expires_at,
        )

    async def forget_ended(self) -> int:
        """Forgets keys that ended a month ago; answers how many."""
        return await self._store.forget(before=int(self._clock()) - KEPT_SECONDS)

    async def _refuse(self, reason: str, *, username: str = "", **fields: str) -> NoReturn:
        refused = entry(Event.API_KEY_REFUSED, username=username, reason=reason, **fields)
        await self._audit.write_seldom(refused, about=f"{reason} {username}")
        raise ApiKeyRefused("The API key is not good.", hint="Make another with POST /api/v1/api_keys.")


def _fault(key: ApiKey, *, right: bool, gone: bool, now: int) -> str:
    """What is wrong with a key that exists; empty for nothing."""
    if not right:
        return "secret"
    if key.revoked_at is not None:
        return "deleted"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return "user" if gone else ""


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= NAME_LENGTH or not name.isprintable():
        raise InvalidApiKey(
            f"{name[:80]!r} cannot be the name of an API key.", hint=f"It has 1 to {NAME_LENGTH} printable characters."
        )


def _check_scopes(scopes: Sequence[str], owner: Identity) -> None:
    """Raises InvalidApiKey for none, for one that does not exist, and for an administrators' one of somebody else."""
    offered = [name for name, admins_only in all_scopes().items() if owner.role == ADMIN or not admins_only]
    hint = f"There are: {', '.join(offered)}."
    if not scopes:
        raise InvalidApiKey("An API key needs at least one scope.", hint=hint)
    for scope in scopes:
        if scope not in offered:
            raise InvalidApiKey(f"There is no scope {scope[:80]!r} for you.", hint=hint)

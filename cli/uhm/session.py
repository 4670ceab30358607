"""Whose token a request carries, and where the next one comes from when it has expired."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import click

from uhm.credentials import Credentials, CredentialStore, expires_within

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FixedToken", "NoToken", "SavedSession", "TokenSource", "saved_session", "token_source"]

SOON_SECONDS = 30.0


class TokenSource(Protocol):
    """Access tokens for one server."""

    def token(self) -> str:
        """The access token to send; empty for none."""

    def renewed(self, refused: str) -> str:
        """Another access token after the server has refused one; empty where there is none."""

    def replace(self, access: str, refresh: str) -> None:
        """Takes the tokens of the session that has followed this one."""


class NoToken:
    """Nobody is logged in."""

    def token(self) -> str:
        """No token."""
        return ""

    def renewed(self, refused: str) -> str:
        """None either."""
        del refused
        return ""

    def replace(self, access: str, refresh: str) -> None:
        """There is nothing to keep them in."""


class FixedToken(NoToken):
    """The access token or API key of `UHM_TOKEN`."""

    def __init__(self, token: str) -> None:
        self._token = token

    def token(self) -> str:
        """Always the same."""
        return self._token


class SavedSession:
    """What `uhm login` saved. `refresh` exchanges a refresh token for (access token, new refresh token or empty)."""

    def __init__(self, store: CredentialStore, *, url: str, refresh: Callable[[str], tuple[str, str]]) -> None:
        self._store = store
        self._url = url
        self._refresh = refresh
        self._credentials: Credentials | None = store.load(url)

    def token(self) -> str:
        """The saved access token, renewed where it ends soon."""
        saved = self._credentials
        if saved is None:
            return ""
        if expires_within(saved.access_token, seconds=SOON_SECONDS):
            return self.renewed(saved.access_token) or saved.access_token
        return saved.access_token

    def renewed(self, refused: str) -> str:
        """A new access token: the one that another command has fetched meanwhile, else fetched now."""
        with self._store.lock():
            saved = self._credentials = self._store.load(self._url)
            if saved is None or saved.access_token != refused:
                return saved.access_token if saved else ""
            access, refresh = self._refresh(saved.refresh_token)
            if not access:
                return ""
            saved = self._credentials = replace(
                saved, access_token=access, refresh_token=refresh or saved.refresh_token
            )
            self._store.save(self._url, saved)
            return saved.access_token

    def replace(self, access: str, refresh: str) -> None:
        """Saves them."""
        with self._store.lock():
            saved = self._credentials or self._store.load(self._url)
            if saved is not None:
                saved = self._credentials = replace(saved, access_token=access, refresh_token=refresh)
                self._store.save(self._url, saved)


def saved_session(url: str, *, refresh: Callable[[str], tuple[str, str]]) -> SavedSession:
    """The session that `uhm login` saved, which may be none."""
    return SavedSession(CredentialStore.default(), url=url, refresh=refresh)


def token_source(url: str, *, refresh: Callable[[str], tuple[str, str]]) -> TokenSource:
    """`UHM_TOKEN`, an access token or an API key, where it is set, else the saved session.

    Raises UsageError for what can be no token, without showing it.
    """
    fixed = os.environ.get("UHM_TOKEN", "").strip()
    if not fixed:
        return saved_session(url, refresh=refresh)
    if not (fixed.isascii() and fixed.isprintable()):
        raise click.UsageError("UHM_TOKEN holds characters that are in no token.")
    return FixedToken(fixed)

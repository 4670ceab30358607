"""Getting past a registry's 401: basic authentication, or a bearer token from where the challenge says.

Specifications: RFC 9110 section 11 (challenges), RFC 7617 (basic), distribution's token authentication
(distribution.github.io/distribution/spec/auth/token, and /oauth for identity tokens). The operator's credentials are in
the form of docker's config.json, `auths`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from uhm_builder.errors import RegistryDenied, RegistryUnreachable, UnsupportedImage
from uhm_builder.sources.responses import HINT, read

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Authorizer", "Challenge", "Credentials", "load_credentials", "parse_challenge"]

HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
TOKEN_SECONDS = 60.0
"""How long a token is good where the answer does not say (the specification's default)."""
EARLY_SECONDS = 10.0
CLIENT_ID = "uhmalguhm"
ANSWER_MAX = 1 << 20
ANSWER_SECONDS = 30.0
"""Most that is read of an answer with a token, and how long it may take."""

_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of a registry. An identity token (an OAuth2 refresh token) stands in the place of a password."""

    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of a basic authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What a WWW-Authenticate header asks for; `scheme` is lower-case."""

    scheme: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Token:
    header: str = field(repr=False)
    until: float


def load_credentials(path: Path | None) -> dict[str, Credentials]:
    """The credentials of a file like docker's config.json, by registry. Raises OSError, ValueError."""
    if path is None:
        return {}
    found: dict[str, Credentials] = {}
    for key, entry in (json.loads(path.read_text()).get("auths") or {}).items():
        if encoded := entry.get("auth"):
            username, _, password = base64.b64decode(encoded).decode().partition(":")
        else:
            username, password = entry.get("username", ""), entry.get("password", "")
        identity_token = entry.get("identitytoken", "")
        registry = "docker.io" if key in HUB_KEYS else urlsplit(key if "//" in key else f"//{key}").netloc
        if username or identity_token:
            found[registry] = Credentials(username, password, identity_token)
    return found


def parse_challenge(header: str) -> Challenge:
    """Read the first challenge of a WWW-Authenticate header."""
    scheme, _, rest = header.strip().partition(" ")
    parameters = {match[1].lower(): match[2] or match[3] or "" for match in _PARAMETER.finditer(rest)}
    return Challenge(scheme=scheme.lower(), parameters=parameters)


class Authorizer:
    """Authorization headers for one registry. Tokens are kept while they are good; many requests get one together."""

    def __init__(self, client: httpx.AsyncClient, *, credentials: Credentials | None) -> None:
        self.client = client
        self._credentials = credentials
        self._tokens: dict[str, _Token] = {}
        self._lock = asyncio.Lock()

    def header(self, scope: str) -> dict[str, str]:
        """What is known to be good for a scope; empty before the first challenge."""
        token = self._tokens.get(scope)
        return {"Authorization": token.header} if token and token.until > time.monotonic() else {}

    async def answer(self, response: httpx.Response, *, scope: str) -> dict[str, str]:
        """The header that answers a 401. Raises RegistryDenied, RegistryUnreachable."""
        sent = response.request.headers.get("Authorization")
        async with self._lock:
            known = self.header(scope)
            if known and known["Authorization"] != sent:
                return known
            challenge = parse_challenge(response.headers.get("WWW-Authenticate", ""))
            if challenge.scheme == "bearer":
                self._tokens[scope] = await self._token(challenge, scope, secure=response.request.url.scheme == "https")
            elif challenge.scheme == "basic" and self._credentials and self._credentials.password and sent is None:
                self._tokens[scope] = _Token(self._credentials.basic, float("inf"))
            else:
                raise RegistryDenied(
                    f"The registry {response.request.url.host} wants credentials"
                    + (" other than those there are for it." if self._credentials else ", and there are none for it."),
                    hint=HINT,
                )
            return self.header(scope)

    async def _token(self, challenge: Challenge, scope: str, *, secure: bool) -> _Token:
        realm = challenge.parameters.get("realm", "")
        if not realm.startswith("https://" if secure else ("https://", "http://")):
            raise RegistryUnreachable(f"The registry's challenge names no address that gives tokens, but {realm!r}.")
        query = {"service": challenge.parameters.get("service", ""), "scope": challenge.parameters.get("scope", scope)}
        where = realm.partition("//")[2].partition("/")[0]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response, body = await self._ask(realm, {name: value for name, value in query.items() if value})
        except UnsupportedImage as error:
            raise RegistryUnreachable(f"{where}, which gives tokens, answers too much: {error.message}") from error
        except (httpx.RequestError, httpx.InvalidURL, TimeoutError) as error:
            raise RegistryUnreachable(f"{where}, which gives tokens, does not answer.") from error
        if response.status_code in (400, 401, 403):
            wanted = f" for {scope}" if scope else ""
            raise RegistryDenied(
                f"{where} gave no token{wanted}.",
                hint=f"The name may be wrong, or the registry wants (other) credentials: {HINT}",
            )
        return _read_token(response, body)

    async def _ask(self, realm: str, query: dict[str, str]) -> tuple[httpx.Response, bytes]:
        """The answer, as it was sent. Raises UnsupportedImage for one without end."""
        method, headers = "GET", {"Accept-Encoding": "identity"}
        parameters: dict[str, Any] = {"params": query}
        if self._credentials and self._credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self._credentials.identity_token,
                "client_id": CLIENT_ID,
            }
            method, parameters = "POST", {"data": query | form}
        elif self._credentials:
            headers["Authorization"] = self._credentials.basic
        async with self.client.stream(method, realm, headers=headers, **parameters) as response:
            return response, await read(response, at_most=ANSWER_MAX)


def _read_token(response: httpx.Response, body: bytes) -> _Token:
    try:
        response.raise_for_status()
        answer: dict[str, Any] = json.loads(body)
        text = str(answer.get("token") or answer["access_token"])
        seconds = float(answer.get("expires_in") or TOKEN_SECONDS)
    except (
        httpx.HTTPStatusError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise RegistryUnreachable(f"{response.request.url.host} answered without a token.") from error
    return _Token(f"Bearer {text}", time.monotonic() + max(seconds - EARLY_SECONDS, seconds / 2))

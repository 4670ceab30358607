"""The server's REST API: requests with a token, its errors as exceptions, its streams as iterators.

JSON is as protobuf's mapping has it: field names as in the protos, int64 as strings, bytes in base64. Server streams
are lines of `{"result": …}`, and may end with `{"error": {"code", "message"}}`.
"""

from __future__ import annotations

import json
import os
import ssl
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from uhm.errors import ApiError, CommandError, ConnectionLost, PartLost, PartUnavailable, ServerUnreachable
from uhm.output import Output
from uhm.session import NoToken, TokenSource, saved_session, token_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["DEFAULT_URL", "Client", "connect", "connect_saved", "segment", "server_url"]

DEFAULT_URL = "http://127.0.0.1:5000"
ABORTED = 10
UNAVAILABLE = 14
UNAUTHENTICATED = 16
CONNECT_SECONDS = 5.0
# Starting a machine and waiting for it may take minutes where nothing accelerates it.
ANSWER_SECONDS = 600.0

METADATA_PREFIX = "grpc-metadata-"
RETRY_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further attempt at what can be sent again: a service that has died is back within them."""
REFRESH_PAUSES = (0.2, 0.5, 1.0, 2.0)
"""All of these within the ten seconds for which a replaced refresh token is not taken for a stolen one."""
PERHAPS_DONE = "It may have been carried out: look before you try again."

Answer = TypeVar("Answer")
JsonObject = dict[str, Any]
Metadata = dict[str, list[str]]
"""What the gateway tells beside a body, each name with all its values."""


def server_url() -> str:
    """`UHM_URL` or this machine's. Raises CommandError for what is no URL."""
    url = (os.environ.get("UHM_URL") or DEFAULT_URL).rstrip("/")
    if urlsplit(url).scheme not in {"http", "https"}:
        raise CommandError(f"UHM_URL is {url!r}, which is no http:// or https:// URL.")
    return url


def connect() -> Client:
    """A client of the server that the environment names, with the token of whoever is logged in."""
    client = Client(server_url(), note=Output().note)
    client.tokens = token_source(client.url, refresh=client.refresh)
    return client


def connect_saved() -> Client:
    """The same with the session that `uhm login` saved, whatever token the environment has."""
    client = Client(server_url(), note=Output().note)
    client.tokens = saved_session(client.url, refresh=client.refresh)
    return client


def segment(name: str) -> str:
    """A name as one segment of a path: references hold slashes and colons."""
    return quote(name, safe="")


class Client:
    """A connection to one server; threads may share it. `note` is told why something takes long, in a sentence.

    `transport` is where tests come in.
    """

    def __init__(
        self,
        url: str,
        *,
        tokens: TokenSource | None = None,
        note: Callable[[str], None] = lambda _text: None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url
        self._note = note
        self.tokens: TokenSource = tokens or NoToken()
        # The certificate authorities take longer to read than most calls take: only where they are needed.
        verify: ssl.SSLContext | bool = url.startswith("https:") or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.Client(
            base_url=url,
            verify=verify,
            transport=transport,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=url.startswith("https:"),
        )

    def get(self, path: str, /, **parameters: Any) -> JsonObject:
        """GET; the answer's JSON object."""
        return self._call("GET", path, parameters=parameters)

    def post(self, path: str, body: JsonObject | None = None) -> JsonObject:
        """POST with a JSON object."""
        return self._call("POST", path, body=body or {})

    def create(self, path: str, body: JsonObject | None = None) -> JsonObject:
        """POST that makes something, with an idempotency key: sent again where its answer was lost, it is made once."""
        headers = {"idempotency-key": str(uuid.uuid4())}
        return self._call("POST", path, body=body or {}, headers=headers, pauses=RETRY_PAUSES)

    def patch(self, path: str, body: JsonObject) -> JsonObject:
        """PATCH with the fields to change."""
        return self._call("PATCH", path, body=body)

    def delete(self, path: str, **parameters: Any) -> JsonObject:
        """DELETE; the answer's JSON object."""
        return self._call("DELETE", path, parameters=parameters)

    def pages(self, path: str, /, *, field: str, at_most: int | None = None, **parameters: Any) -> list[JsonObject]:
        """All entries of a list that comes in pages, or the first ones."""
        entries: list[JsonObject] = []
        token = ""
        while True:
            size = 1000 if at_most is None else min(at_most - len(entries), 1000)
            page = self.get(path, **{"page_size": size, **parameters}, page_token=token)
            entries += page.get(field, [])
            token = page.get("next_page_token", "")
            if not token or len(entries) == at_most:
                return entries

    def upload(
        self, path: str, content: Callable[[], Iterable[bytes]], *, content_type: str, **parameters: Any
    ) -> JsonObject:
        """POST of a body that is made while it is sent; `content` is called again where the token has to be renewed."""

        def send(headers: dict[str, str]) -> httpx.Response:
            return self._http.post(
                path,
                content=content(),
                params=_parameters(parameters),
                headers=headers | {"content-type": content_type},
            )

        return _json_object(self._authorized(send))

    @contextmanager
    def stream(self, path: str, /, **parameters: Any) -> Iterator[Iterator[JsonObject]]:
        """A server stream: inside the block, an iterator over its messages, which may raise ApiError."""
        response = self._opened(path, parameters)
        try:
            yield self._messages(response)
        finally:
            response.close()

    @contextmanager
    def download(self, path: str, /, **parameters: Any) -> Iterator[Iterator[bytes]]:
        """A body as it is: inside the block, an iterator over its pieces."""
        response = self._opened(path, parameters)
        try:
            yield self._pieces(response)
        finally:
            response.close()

    @contextmanager
    def order(self, path: str, body: JsonObject) -> Iterator[tuple[Metadata, Iterator[bytes]]]:
        """POST that is answered with a body as it is: inside the block, what is said of it, and its pieces."""
        response = self._opened(path, {}, body=body)
        told = [(name.lower(), value) for name, value in response.headers.multi_items()]
        metadata: Metadata = {}
        for name, value in told:
            if name.startswith(METADATA_PREFIX):
                metadata.setdefault(name.removeprefix(METADATA_PREFIX), []).append(value)
        try:
            yield metadata, self._pieces(response)
        finally:
            response.close()

    def _opened(self, path: str, parameters: JsonObject, *, body: JsonObject | None = None) -> httpx.Response:
        """The answer to a GET, or with a body to a POST, its own body not read yet."""

        def send(headers: dict[str, str]) -> httpx.Response:
            request = self._http.build_request(
                "GET" if body is None else "POST",
                path,
                params=_parameters(parameters),
                json=body,
                headers=headers,
                timeout=httpx.Timeout(None, connect=5),
            )
            response = self._http.send(request, stream=True)
            if response.is_error:
                response.read()
                response.close()
            return response

        return self._authorized(send)

    def login(self, username: str, password: str) -> tuple[str, str]:
        """An access token and a refresh token that changes with every use."""
        body = {"username": username, "password": password, "rotate": True}
        answer = self._call("POST", "/api/v1/token/issue", body=body, authorize=False)
        return answer["access_token"], answer["refresh_token"]

    def refresh(self, refresh_token: str) -> tuple[str, str]:
        """A new access token, and a new refresh token or nothing; two times nothing where the session has ended.

        Where the answer is lost, the same token is sent again: for some seconds it gets the same successor.
        """

        def send() -> httpx.Response:
            url, headers = "/api/v1/token/refresh", _bearer(refresh_token)
            return self._checked(lambda headers: self._http.post(url, json={}, headers=headers), headers)

        try:
            answer = _json_object(self._retried(send, pauses=iter(REFRESH_PAUSES)))
        except ApiError as error:
            if error.code == UNAUTHENTICATED:
                return "", ""
            raise
        return answer["access_token"], answer.get("refresh_token", "")

    def _call(
        self,
        method: str,
        path: str,
        *,
        parameters: JsonObject | None = None,
        body: JsonObject | None = None,
        headers: dict[str, str] | None = None,
        pauses: tuple[float, ...] = (),
        authorize: bool = True,
    ) -> JsonObject:
        own = headers or {}

        def send(headers: dict[str, str]) -> httpx.Response:
            query = _parameters(parameters or {})
            return self._http.request(method, path, params=query, json=body, headers=own | headers)

        if not authorize:
            return _json_object(self._checked(send, {}))
        return _json_object(self._authorized(send, pauses=pauses, changes=method != "GET"))

    def _authorized(
        self,
        send: Callable[[dict[str, str]], httpx.Response],
        *,
        pauses: tuple[float, ...] = (),
        changes: bool = False,
    ) -> httpx.Response:
        """Sends with the token, and once more with a new one where the server has refused it; both share the pauses.

        `changes`: whether it matters if something was carried out whose answer was lost.
        """

        def attempt(token: str) -> httpx.Response:
            try:
                return self._checked(send, _bearer(token))
            except ConnectionLost as error:
                if changes:
                    error.hint = PERHAPS_DONE
                raise

        token, left = self.tokens.token(), iter(pauses)
        try:
            return self._retried(lambda: attempt(token), pauses=left)
        except ApiError as error:
            if error.code != UNAUTHENTICATED or not token:
                raise
            renewed = self.tokens.renewed(token)
            if not renewed:
                raise
        return self._retried(lambda: attempt(renewed), pauses=left)

    def _retried(self, send: Callable[[], Answer], *, pauses: Iterator[float]) -> Answer:
        """What `send` answers in the end, which may be sent once more after each pause."""
        sent = False
        for pause in pauses:
            try:
                return send()
            except CommandError as error:
                if not _may_pass(error, sent=sent):
                    raise
                if not sent:
                    self._note(f"{error.message} Asking again for a while.")
            sent = True
            time.sleep(pause)
        return send()

    def _checked(self, send: Callable[[dict[str, str]], httpx.Response], headers: dict[str, str]) -> httpx.Response:
        try:
            response = send(headers)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise _api_error(response)
        return response

    def _pieces(self, response: httpx.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise ServerUnreachable("The connection to the server broke off.", hint="Try again.") from error

    def _messages(self, response: httpx.Response) -> Iterator[JsonObject]:
        try:
            for line in response.iter_lines():
                if not line.strip():
                    continue
                message = json.loads(line)
                if failure := message.get("error"):
                    raise _refusal(failure.get("message", "The stream broke off."), failure.get("code", 2), status=200)
                yield message["result"]
        except httpx.TransportError as error:
            raise ServerUnreachable("The connection to the server broke off.", hint="Try again.") from error

    def _unreachable(self, error: httpx.TransportError) -> CommandError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ServerUnreachable(
                f"Nothing answers at {self.url}.", hint="Start it with `uhm up`, or set UHM_URL to where it runs."
            )
        if isinstance(error, httpx.TimeoutException):
            return ServerUnreachable(f"{self.url} took too long to answer.", hint="`uhm doctor` says how it is.")
        if isinstance(error, httpx.LocalProtocolError):  # whose text may show a token
            return CommandError("The request was not sent, because HTTP has no way to say it.")
        reason = str(error).rstrip(".") or type(error).__name__
        return ConnectionLost(f"The connection to {self.url} broke off: {reason}.")


def _may_pass(error: CommandError, *, sent: bool) -> bool:
    """Whether the same request may be answered in a while; `sent` says whether it has reached the server before."""
    if isinstance(error, ApiError) and not isinstance(error, PartLost):
        return error.code == ABORTED  # the first one is still being carried out
    return isinstance(error, ConnectionLost) or (sent and isinstance(error, ServerUnreachable))


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def _parameters(parameters: JsonObject) -> dict[str, str]:
    """Query parameters: absent and empty ones are left out, booleans as JSON has them."""
    told = {name: value for name, value in parameters.items() if not (value is None or value is False or value == "")}
    return {name: "true" if value is True else str(value) for name, value in told.items()}


def _json_object(response: httpx.Response) -> JsonObject:
    try:
        answer = response.json()
    except ValueError as error:
        raise _not_ours(response) from error
    if not isinstance(answer, dict):
        raise _not_ours(response)
    return answer


def _not_ours(response: httpx.Response) -> CommandError:
    return CommandError(
        f"{response.url} answered what is no JSON object.", hint="Does UHM_URL name a uhmalguhm server?"
    )


def _api_error(response: httpx.Response) -> CommandError:
    """The server's own sentence, where it gave one."""
    try:
        answer = response.json()
        message, code, details = str(answer["message"]), int(answer["code"]), answer.get("details")
    except (ValueError, KeyError, TypeError):
        return CommandError(f"{response.url} answered {response.status_code} {response.reason_phrase}.")
    if code == UNAVAILABLE and not details:  # a service that refuses says why
        return PartLost(message, code=code, status=response.status_code)
    return _refusal(message, code, status=response.status_code)


def _refusal(message: str, code: int, *, status: int) -> ApiError:
    kind = PartUnavailable if code == UNAVAILABLE else ApiError
    return kind(message, code=code, status=status)

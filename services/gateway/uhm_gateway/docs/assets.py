"""Documents that are made once and served to everybody: named by an ETag, and compressed beforehand."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from starlette.responses import Response

from uhm_gateway.http.compress import wants_gzip
from uhm_gateway.http.conditional import etag_of, is_known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

__all__ = ["Asset"]


class Asset:
    """One document. Clients may keep it, but ask each time whether it is still the one."""

    def __init__(self, content: bytes, *, media_type: str, headers: Mapping[str, str] | None = None) -> None:
        self._content = content
        self._compressed = gzip.compress(content, mtime=0)
        self._media_type = media_type
        self._headers = {
            "etag": etag_of(content),
            "cache-control": "no-cache",
            "vary": "accept, accept-encoding",
            "x-content-type-options": "nosniff",
            **(headers or {}),
        }

    def response(self, request: Request) -> Response:
        """The document, compressed where the client takes that; 304 where the client has it (RFC 9110, 13.1.2)."""
        headers = dict(self._headers)
        if is_known(self._headers["etag"], request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        is_compressed = wants_gzip(request.headers.get("accept-encoding", ""))
        if is_compressed:
            headers["content-encoding"] = "gzip"
        body = self._compressed if is_compressed else self._content
        return Response(body, media_type=self._media_type, headers=headers)

"""How a stream of messages is written into an HTTP answer: lines of JSON, server-sent events, or bytes as they are.

Lines are grpc-gateway's form: `{"result":…}` for each message, `{"error":…}` for an error that comes after the head.
Events (https://html.spec.whatwg.org/multipage/server-sent-events.html) carry the same JSON as their data; an error's
event is of the type `error`. A comment now and then keeps proxies from closing a quiet stream. Raw bytes have no place
for an error: they are cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from uhm_gateway.http.compress import quality
from uhm_gateway.mapping.render import BINARY, NDJSON

__all__ = ["EVENTS", "LINES", "RAW", "Framing", "framing_for"]

EVENT_STREAM = b"text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """What goes around each message, and around an error; `pulse` is what says nothing, but is something."""

    content_type: bytes
    before: bytes = b""
    after: bytes = b""
    before_error: bytes = b""
    pulse: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def message(self, body: bytes) -> bytes:
        """One message, whose body was rendered by itself."""
        return self.before + body + self.after

    def error(self, status: bytes) -> bytes:
        """An error, from its status as JSON, which ends the stream."""
        return self.before_error + status + self.after if self.before_error else b""


_VARY = ((b"vary", b"accept"),)
RAW = Framing(content_type=BINARY)
LINES = Framing(content_type=NDJSON, before=b'{"result":', after=b"}\n", before_error=b'{"error":', headers=_VARY)
EVENTS = Framing(
    content_type=EVENT_STREAM,
    before=b'data: {"result":',
    after=b"}\n\n",
    before_error=b'event: error\ndata: {"error":',
    pulse=b": still here\n\n",
    # nginx buffers what it passes on unless told otherwise.
    headers=(*_VARY, (b"x-accel-buffering", b"no")),
)


def framing_for(accept: str, *, is_raw: bool) -> Framing:
    """The framing that the Accept header asks for: events only where they are named, and not less wanted than lines."""
    if is_raw:
        return RAW
    events = quality(accept, EVENT_STREAM.decode()) if accept else 0.0
    return EVENTS if events > 0 and events >= quality(accept, NDJSON.decode()) else LINES

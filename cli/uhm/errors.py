"""What can go wrong in a command, as one tree; `__main__` turns each into a sentence and an exit code.

    CommandError             exit code 1
    ├── ApiError             the server refused: its code and its sentence
    ├── ServerUnreachable    nothing answers at the URL; trying again may help
    │   ├── ConnectionLost   … or it broke off, and nobody knows how far the server came
    │   └── PartUnavailable  … or the gateway answers, and a service behind it does not (also an ApiError)
    │       └── PartLost     … not even to say so (also a ConnectionLost)
    └── SystemFailed         `uhm up`, `uhm down`: a part did not come up or go down

Wrong usage is click's UsageError, exit code 2.
"""

from __future__ import annotations

__all__ = [
    "ApiError",
    "CommandError",
    "ConnectionLost",
    "PartLost",
    "PartUnavailable",
    "ServerUnreachable",
    "SystemFailed",
]


class CommandError(Exception):
    """A command failed; the message is a sentence for the user, the hint says what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def document(self) -> dict[str, object]:
        """The error as `--json` prints it."""
        return {"error": {"message": str(self)}}


class ApiError(CommandError):
    """The server answered with an error; `code` is the gRPC status code, `status` the HTTP one."""

    def __init__(self, message: str, *, code: int, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.status = status

    def document(self) -> dict[str, object]:
        """The error as `--json` prints it: what the server answered."""
        return {"error": {"code": self.code, "message": str(self)}}


class ServerUnreachable(CommandError):
    """Nothing answers at the URL, or the connection broke."""


class ConnectionLost(ServerUnreachable):
    """The connection broke off after a request was sent: it may have been carried out."""


class PartUnavailable(ApiError, ServerUnreachable):
    """The server says that a part of it is not there now."""


class PartLost(PartUnavailable, ConnectionLost):
    """The gateway does not reach a service, or has lost it in the middle of a call."""


class SystemFailed(CommandError):
    """The system on this machine did not come up, or could not be taken down."""

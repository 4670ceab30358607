"""`uhm sessions`: where you are logged in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from uhm.each import for_each
from uhm.output import Output, with_output

__all__ = ["sessions"]


@click.group()
def sessions() -> None:
    """Your sessions: each login is one, until it is ended or expires."""


@sessions.command("ls")
@with_output
def list_sessions(output: Output) -> None:
    """List your sessions, the newest first; a star is on the one that asks."""
    from uhm.client import connect  # noqa: PLC0415 - heavy
    from uhm.render.accounts import sessions_table  # noqa: PLC0415

    found = connect().pages("/api/v1/sessions", field="sessions")
    output.say(sessions_table(found, now=datetime.now(UTC)))
    output.document({"sessions": found})


@sessions.command("rm")
@click.argument("session", nargs=-1, required=True)
@with_output
def remove(output: Output, *, session: tuple[str, ...]) -> None:
    """End sessions; every service refuses their tokens within seconds."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    client = connect()

    def end(one: str) -> dict[str, Any]:
        client.delete(f"/api/v1/sessions/{segment(one)}")
        output.say(f"Ended {one}")
        return {"id": one}

    output.document({"sessions": for_each(session, end)})

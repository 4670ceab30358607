"""`uhm audit`: what happened that matters to security, for administrators."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from uhm.output import Output, with_output
from uhm.values import seconds

__all__ = ["audit"]

AGE = re.compile(r"(?:\d+[smhdw])+")
DEFAULT_LIMIT = 50


@click.command()
@click.option("--user", "-u", default="", help="Only what this user did, or what was done to them.")
@click.option("--event", "-e", default="", help="Only events of a kind, such as login.failed.")
@click.option(
    "--since", metavar="TIME", help="Only what happened since: an age such as 2h or 7d, or a time (RFC 3339)."
)
@click.option(
    "--limit", "-n", type=click.IntRange(1), default=DEFAULT_LIMIT, show_default=True, help="At most so many."
)
@with_output
def audit(output: Output, *, user: str, event: str, since: str | None, limit: int) -> None:
    """List security events, the newest first."""
    from uhm.client import connect  # noqa: PLC0415 - heavy
    from uhm.render.accounts import events_table  # noqa: PLC0415

    filters = {"username": user, "event": event, "start_time": _moment(since)}
    found = connect().pages("/api/v1/audit/events", field="events", at_most=limit, **filters)
    output.say(events_table(found))
    output.document({"events": found})


def _moment(since: str | None) -> str | None:
    """A time as protobuf's JSON has it."""
    if since is None:
        return None
    try:
        if AGE.fullmatch(since):
            then = datetime.now(UTC) - timedelta(seconds=seconds(since))
        else:
            then = datetime.fromisoformat(since).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{since!r} is neither an age such as 2h nor a time such as 2026-01-31T12:00Z."
        ) from error
    return f"{then.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"

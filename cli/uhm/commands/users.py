"""`uhm users`, `invitations`, `signing-keys`: for administrators."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import click

from uhm.each import for_each
from uhm.errors import CommandError
from uhm.output import Output, with_output
from uhm.values import seconds

__all__ = ["invitations", "signing_keys", "users"]


@click.group()
def users() -> None:
    """Users of the server, for administrators; the first who registers is one."""


@users.command("ls")
@with_output
def list_users(output: Output) -> None:
    """List users by name."""
    from uhm.client import connect  # noqa: PLC0415 - heavy
    from uhm.render.accounts import users_table  # noqa: PLC0415

    found = connect().pages("/api/v1/users", field="users")
    output.say(users_table(found, now=datetime.now(UTC)))
    output.document({"users": found})


@users.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["user", "admin"]), help="What the user may do.")
@click.option("--disable/--enable", "disabled", default=None, help="Whether the user is kept out.")
@with_output
def update(output: Output, *, name: str, role: str | None, disabled: bool | None) -> None:
    """Change a user's role, or disable or enable a user. It ends all of the user's sessions."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    changes = {"role": role, "disabled": disabled}
    wanted = {field: value for field, value in changes.items() if value is not None}
    if not wanted:
        raise click.UsageError("Nothing is to be changed: give --role, --disable or --enable.")
    answer = connect().patch(f"/api/v1/users/{segment(name)}", wanted)
    state = "disabled" if answer.get("disabled") else "enabled"
    output.say(f"{answer['username']}: {answer['role']}, {state}")
    output.document(answer)


@users.command("rm")
@click.argument("name", nargs=-1, required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@with_output
def remove_users(output: Output, *, name: tuple[str, ...], yes: bool) -> None:
    """Delete users with all that they have: machines, images, credentials. Their names stay taken."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    if not yes:
        _confirm(f"Delete {', '.join(name)} with all machines and images?")
    client = connect()

    def delete(one: str) -> dict[str, Any]:
        client.delete(f"/api/v1/users/{segment(one)}")
        output.say(f"Deleted {one}")
        return {"username": one}

    output.document({"users": for_each(name, delete)})


@users.command()
@click.argument("name")
@click.option("--ttl", metavar="TIME", help="How long the code is good, such as 2h, up to 30d.  [default: 1d]")
@with_output
def reset_password(output: Output, *, name: str, ttl: str | None) -> None:
    """Print a code with which a user who has forgotten the password sets a new one, once."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    answer = connect().post(f"/api/v1/users/{segment(name)}:createPasswordReset", _ttl(ttl))
    output.note(f"Hand it to {name}: `uhm passwd {name} --code …` sets the new password.")
    output.say(answer["code"])
    output.document(answer)


@click.group()
def invitations() -> None:
    """Invitations, each of which lets one user register, for administrators."""


@invitations.command()
@click.option("--role", type=click.Choice(["user", "admin"]), default="user", show_default=True)
@click.option("--ttl", metavar="TIME", help="How long it is good, such as 12h, up to 90d.  [default: 7d]")
@with_output
def create(output: Output, *, role: str, ttl: str | None) -> None:
    """Make an invitation and print its code; it is shown this once."""
    from uhm.client import connect  # noqa: PLC0415 - heavy

    answer = connect().post("/api/v1/invitations", {"role": role} | _ttl(ttl))
    output.note("`uhm register NAME --invitation CODE` registers one user with it.")
    output.say(answer["code"])
    output.document(answer)


@invitations.command("ls")
@with_output
def list_invitations(output: Output) -> None:
    """List invitations that can still be used, the newest first."""
    from uhm.client import connect  # noqa: PLC0415 - heavy
    from uhm.render.accounts import invitations_table  # noqa: PLC0415

    found = connect().pages("/api/v1/invitations", field="invitations")
    output.say(invitations_table(found, now=datetime.now(UTC)))
    output.document({"invitations": found})


@invitations.command("rm")
@click.argument("invitation", nargs=-1, required=True)
@with_output
def remove_invitations(output: Output, *, invitation: tuple[str, ...]) -> None:
    """Withdraw invitations by id."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    client = connect()

    def withdraw(one: str) -> dict[str, Any]:
        client.delete(f"/api/v1/invitations/{segment(one)}")
        output.say(f"Withdrew {one}")
        return {"id": one}

    output.document({"invitations": for_each(invitation, withdraw)})


@click.group()
def signing_keys() -> None:
    """The keys that tokens are signed with, for administrators."""


@signing_keys.command()
@with_output
def rotate(output: Output) -> None:
    """Sign with another key from now on; tokens that were signed before stay good until they expire."""
    from uhm.client import connect  # noqa: PLC0415 - heavy

    answer = connect().post("/api/v1/signing_keys:rotate")
    output.say(f"Tokens are signed with {answer['kid']} now.")
    output.document(answer)


def _confirm(question: str) -> None:
    """Asks. Raises UsageError where nobody can be asked, CommandError for a no."""
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody is there to be asked: give --yes.")
    if not click.confirm(question, err=True):
        raise CommandError("Nothing was deleted.")


def _ttl(text: str | None) -> dict[str, Any]:
    return {} if text is None else {"ttl": f"{seconds(text)}s"}

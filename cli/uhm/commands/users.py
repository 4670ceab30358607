"""`uhm register`, `login`, `logout`, `whoami`."""

from __future__ import annotations

import sys

import click

from uhm.credentials import Credentials, CredentialStore
from uhm.errors import CommandError
from uhm.output import Output, with_output

__all__ = ["login", "logout", "register", "whoami"]


def _password(given: str | None, *, confirm: bool = False) -> str:
    """The one given, else asked for on a terminal, else a line of standard input."""
    if given is not None:
        return given
    if sys.stdin.isatty():
        answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True)
        return answer
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise click.UsageError("No password was given: as an argument, at the prompt or on standard input.")
    return line


@click.command()
@click.argument("name")
@click.argument("password", required=False)
@with_output
def register(output: Output, *, name: str, password: str | None) -> None:
    """Register a user. Asks for the password where it is not given."""
    from uhm.client import Client, server_url  # noqa: PLC0415 - heavy

    body = {"username": name, "password": _password(password, confirm=True)}
    answer = Client(server_url()).post("/api/v1/user/create", body)
    output.say(f"Registered {answer['username']}; `uhm login {answer['username']}` logs in.")
    output.document(answer)


@click.command()
@click.argument("name")
@click.option("--password", "-p", help="Asked for, or read from standard input, where it is not given.")
@with_output
def login(output: Output, *, name: str, password: str | None) -> None:
    """Log in; later commands use the session until `uhm logout`."""
    from uhm.client import Client, server_url  # noqa: PLC0415 - heavy

    client = Client(server_url())
    access, refresh = client.login(name, _password(password))
    store = CredentialStore.default()
    with store.lock():
        store.save(client.url, Credentials(username=name, access_token=access, refresh_token=refresh))
    output.say(f"Logged in as {name} on {client.url}.")
    output.document({"username": name, "url": client.url})


@click.command()
@with_output
def logout(output: Output) -> None:
    """End the session here and on the server."""
    from uhm.client import connect, server_url  # noqa: PLC0415 - heavy

    url = server_url()
    store = CredentialStore.default()
    saved = store.load(url)
    if saved is not None:
        try:
            connect().post("/api/v1/token/revoke")
        except CommandError as error:
            output.note(f"Forgotten here, but the server was not told: {error}")
        with store.lock():
            store.save(url, None)
    output.say(f"Logged out of {url}." if saved else f"Nobody was logged in on {url}.")
    output.document({"url": url, "logged_out": saved is not None})


@click.command()
@with_output
def whoami(output: Output) -> None:
    """Say who is logged in."""
    from uhm.client import connect  # noqa: PLC0415 - heavy

    answer = connect().get("/api/v1/user")
    output.say(answer["username"])
    output.document(answer)

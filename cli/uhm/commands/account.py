"""`uhm register`, `login`, `logout`, `whoami`, `passwd`, `unregister`: whoever sits here."""

from __future__ import annotations

import sys

import click

from uhm.credentials import Credentials, CredentialStore
from uhm.errors import CommandError
from uhm.output import Output, with_output

__all__ = ["login", "logout", "passwd", "register", "unregister", "whoami"]


def _password(given: str | None, *, what: str = "Password", confirm: bool = False) -> str:
    """The one given, else asked for on a terminal, else a line of standard input."""
    if given is not None:
        return given
    if sys.stdin.isatty():
        answer: str = click.prompt(what, hide_input=True, confirmation_prompt=confirm, err=True)
        return answer
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise click.UsageError(f"{what} is not given: as an argument, at the prompt or on standard input.")
    return line


@click.command()
@click.argument("name")
@click.argument("password", required=False)
@click.option("--invitation", metavar="CODE", default="", help="The code of an invitation, where one is needed.")
@with_output
def register(output: Output, *, name: str, password: str | None, invitation: str) -> None:
    """Register a user. Asks for the password where it is not given."""
    from uhm.client import Client, server_url  # noqa: PLC0415 - heavy

    body = {"username": name, "password": _password(password, confirm=True)}
    if invitation:
        body["invitation"] = invitation
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
    _save(client.url, Credentials(username=name, access_token=access, refresh_token=refresh))
    output.say(f"Logged in as {name} on {client.url}.")
    output.document({"username": name, "url": client.url})


@click.command()
@click.option("--everywhere", is_flag=True, help="End all of your sessions, not only this one.")
@with_output
def logout(output: Output, *, everywhere: bool) -> None:
    """End the session that `uhm login` has saved, here and on the server.

    With --everywhere where none is saved: those of the user whose token UHM_TOKEN is.
    """
    from uhm.client import connect, connect_saved, server_url  # noqa: PLC0415 - heavy

    url = server_url()
    is_saved = CredentialStore.default().load(url) is not None
    if not (is_saved or everywhere):
        output.say(f"Nobody was logged in on {url}.")
        output.document({"url": url, "logged_out": False})
        return
    client = connect_saved() if is_saved else connect()
    try:
        client.post("/api/v1/token/revoke", {"everywhere": True} if everywhere else None)
    except CommandError as error:
        if everywhere:  # the other sessions go on, so that this one may still be needed to end them
            raise
        output.note(f"Forgotten here, but the server was not told: {error}")
    _save(url, None)
    output.say(f"Logged out of {url}, everywhere." if everywhere else f"Logged out of {url}.")
    output.document({"url": url, "logged_out": True})


@click.command()
@with_output
def whoami(output: Output) -> None:
    """Say who is logged in."""
    from uhm.client import connect  # noqa: PLC0415 - heavy

    answer = connect().get("/api/v1/user")
    output.say(answer["username"])
    output.document(answer)


@click.command()
@click.argument("name", required=False)
@click.option("--code", help="The code that an administrator handed out to NAME, whose password was forgotten.")
@click.option("--current-password", help="Asked for, or read from standard input, where it is not given.")
@click.option("--new-password", help="The same; on standard input it is the second line.")
@with_output
def passwd(
    output: Output, *, name: str | None, code: str | None, current_password: str | None, new_password: str | None
) -> None:
    """Change your password, which ends all of your other sessions; or with --code set NAME's."""
    if (name is None) != (code is None):
        raise click.UsageError("NAME and --code go together.")
    if name is None:
        _change_password(output, current=current_password, new=new_password)
        return
    from uhm.client import Client, server_url  # noqa: PLC0415 - heavy

    new = _password(new_password, what="New password", confirm=True)
    Client(server_url()).post("/api/v1/user:resetPassword", {"username": name, "code": code, "new_password": new})
    output.say(f"The password of {name} is set; `uhm login {name}` logs in.")
    output.document({"username": name})


@click.command()
@click.option("--password", "-p", help="Asked for, or read from standard input, where it is not given.")
@with_output
def unregister(output: Output, *, password: str | None) -> None:
    """Delete your account with all machines, images and credentials. The name stays taken."""
    from uhm.client import connect  # noqa: PLC0415 - heavy

    client = connect()
    username = client.get("/api/v1/user")["username"]
    secret = _password(password, what=f"Password of {username}, who is deleted with all machines and images")
    client.post("/api/v1/user:delete", {"password": secret})
    saved = CredentialStore.default().load(client.url)
    if saved is not None and saved.username == username:
        _save(client.url, None)
    output.say(f"Deleted {username}.")
    output.document({"username": username})


def _change_password(output: Output, *, current: str | None, new: str | None) -> None:
    from uhm.client import connect  # noqa: PLC0415 - heavy

    client = connect()
    username = client.get("/api/v1/user")["username"]
    body = {
        "current_password": _password(current, what="Current password"),
        "new_password": _password(new, what="New password", confirm=True),
    }
    answer = client.post("/api/v1/user:changePassword", body)
    client.tokens.replace(answer["access_token"], answer["refresh_token"])
    output.say(f"The password of {username} is changed, and all other sessions have ended.")
    output.document({"username": username})


def _save(url: str, credentials: Credentials | None) -> None:
    store = CredentialStore.default()
    with store.lock():
        store.save(url, credentials)

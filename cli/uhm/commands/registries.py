"""`uhm registry login`, `ls`, `logout`: credentials for the registries that images are pulled from."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from uhm.output import Output, with_output

__all__ = ["registry"]

DEFAULT_HOST = "docker.io"


@click.group()
def registry() -> None:
    """Private registries: their credentials are kept encrypted by the server, for your images only."""


@registry.command()
@click.argument("host", default=DEFAULT_HOST)
@click.option("--username", "-u", default="", help="Asked for where it is not given.")
@click.option("--password", "-p", help="Asked for where it is not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password, or the token, from standard input.")
@click.option("--identity-token", is_flag=True, help="What is given is an OAuth2 refresh token, not a password.")
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of PEM certificates to trust for this registry.",
)
@click.option("--skip-test", is_flag=True, help="Do not show the credentials to the registry now.")
@with_output
def login(
    output: Output,
    *,
    host: str,
    username: str,
    password: str | None,
    password_stdin: bool,
    identity_token: bool,
    ca: Path | None,
    skip_test: bool,
) -> None:
    """Log in to a registry; without HOST, to Docker Hub. Logging in again replaces what was known of it.

    With --ca alone nothing is asked for: images are pulled without credentials, and the certificates are trusted.
    """
    from uhm.client import connect  # noqa: PLC0415 - heavy

    wanted: dict[str, Any] = {"host": host, "ca_certificate": ca.read_text() if ca else ""}
    if ca is None or username or password is not None or password_stdin or identity_token:
        wanted["username"] = username if username or identity_token else _asked("Username")
        wanted["identity_token" if identity_token else "password"] = _secret(password, stdin=password_stdin)
    added = connect().create(f"/api/v1/registries{'?skip_test=true' if skip_test else ''}", wanted)
    output.say(f"Logged in to {added['host']}.")
    output.document(added)


@registry.command("ls")
@with_output
def list_registries(output: Output) -> None:
    """List the registries that you have logged in to."""
    from uhm.client import connect  # noqa: PLC0415 - heavy
    from uhm.render.tables import registries_table  # noqa: PLC0415

    found = connect().pages("/api/v1/registries", field="registries")
    output.say(registries_table(found, now=datetime.now(UTC)))
    output.document({"registries": found})


@registry.command()
@click.argument("host", default=DEFAULT_HOST)
@with_output
def logout(output: Output, *, host: str) -> None:
    """Forget a registry; without HOST, Docker Hub."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    connect().delete(f"/api/v1/registries/{segment(host)}")
    output.say(f"Logged out of {host}.")
    output.document({"host": host})


def _secret(given: str | None, *, stdin: bool) -> str:
    if given is not None and stdin:
        raise click.UsageError("--password and --password-stdin exclude each other.")
    if given is not None:
        return given
    if stdin or not sys.stdin.isatty():
        if secret := sys.stdin.read().rstrip("\r\n"):
            return secret
        raise click.UsageError("Standard input has no password.")
    return _asked("Password", hide=True)


def _asked(what: str, *, hide: bool = False) -> str:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what} is not given.")
    answer: str = click.prompt(what, hide_input=hide, err=True)
    return answer

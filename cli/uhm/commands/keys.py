"""`uhm keys`: API keys, with which scripts and other services call."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from uhm.each import for_each
from uhm.output import Output, with_output
from uhm.values import seconds

__all__ = ["SCOPES", "keys"]

SCOPES = (
    *("account.read", "audit.read", "images.read", "images.write", "machines.read", "machines.write"),
    *("registries.read", "registries.write", "storage.read", "storage.write", "users.read"),
)
"""All that there are; which of them a user may give is for the server to say."""


@click.group()
def keys() -> None:
    """API keys for machines: UHM_TOKEN takes one, as does `authorization: Bearer`."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "-s",
    "scopes",
    multiple=True,
    required=True,
    help=f"What it may be used for; repeatable. One of {', '.join(SCOPES)}; who may write may read.",
)
@click.option("--ttl", metavar="TIME", help="How long it is good, such as 12h, 30d.  [default: until it is deleted]")
@with_output
def create(output: Output, *, name: str, scopes: tuple[str, ...], ttl: str | None) -> None:
    """Make a key NAME and print it; it is shown this once.

    Creating machines takes images.read beside machines.write: the image is asked for with the same key.
    audit.read and users.read are for administrators.
    """
    from uhm.client import connect  # noqa: PLC0415 - heavy

    request: dict[str, Any] = {"name": name, "scopes": list(scopes)}
    if ttl is not None:
        request["ttl"] = f"{seconds(ttl)}s"
    answer = connect().post("/api/v1/api_keys", request)
    output.note(f"The key {answer['api_key']['id']} is shown this once: keep it.")
    output.say(answer["key"])
    output.document(answer)


@keys.command("ls")
@with_output
def list_keys(output: Output) -> None:
    """List your keys, the newest first."""
    from uhm.client import connect  # noqa: PLC0415 - heavy
    from uhm.render.accounts import keys_table  # noqa: PLC0415

    found = connect().pages("/api/v1/api_keys", field="api_keys")
    output.say(keys_table(found, now=datetime.now(UTC)))
    output.document({"api_keys": found})


@keys.command("rm")
@click.argument("key", nargs=-1, required=True)
@with_output
def remove(output: Output, *, key: tuple[str, ...]) -> None:
    """Delete keys by id; every service refuses them within seconds."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    client = connect()

    def delete(one: str) -> dict[str, Any]:
        client.delete(f"/api/v1/api_keys/{segment(one)}")
        output.say(f"Deleted {one}")
        return {"id": one}

    output.document({"api_keys": for_each(key, delete)})

"""`uhm inspect`: everything about one machine or image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from uhm.errors import ApiError, CommandError
from uhm.output import Output, with_output

if TYPE_CHECKING:
    from uhm.client import Client

__all__ = ["inspect"]

NOT_FOUND = 5


@click.command()
@click.argument("name")
@click.option("--type", "kind", type=click.Choice(["machine", "image"]), help="Where both have the name.")
@click.option("--build-output", is_flag=True, help="What the Docker Engine said while it built the image, instead.")
@with_output
def inspect(output: Output, *, name: str, kind: str | None, build_output: bool) -> None:
    """Show a machine or an image, as a JSON document."""
    from uhm.client import connect  # noqa: PLC0415 - heavy

    if build_output:
        _tell_output(output, connect(), name)
        return
    kinds = (kind,) if kind else ("machine", "image")
    found = next((found for each in kinds if (found := _find(connect(), each, name)) is not None), None)
    if found is None:
        raise CommandError(
            f"There is no {' or '.join(kinds)} {name!r}.", hint="`uhm ps -a` and `uhm images` list them."
        )
    output.say(json.dumps(found, indent=2, ensure_ascii=False))
    output.document(found)


def _tell_output(output: Output, client: Client, name: str) -> None:
    """What is kept of a build's output; of one that runs, what it says from now on."""
    from uhm.client import segment  # noqa: PLC0415 - heavy

    lines = []
    with client.stream(f"/api/v1/images/{segment(name)}:watch") as messages:
        for message in messages:
            if "output" in message:
                lines.append(message["output"])
                output.say(message["output"])
    output.document({"output": lines})


def _find(client: Client, kind: str, name: str) -> dict[str, Any] | None:
    from uhm.client import segment  # noqa: PLC0415 - heavy

    try:
        return client.get(f"/api/v1/{kind}s/{segment(name)}")
    except ApiError as error:
        # A name such as `ghcr.io/owner/name` can only be an image's: the machines service says that it is no name.
        if error.code == NOT_FOUND or (kind == "machine" and error.status == 400):
            return None
        raise

"""`uhm build`: an image from a Dockerfile."""

from __future__ import annotations

import os
from pathlib import Path

import click

from uhm.commands.images import show_made
from uhm.output import Output, with_output

__all__ = ["build"]


@click.command()
@click.option("--tag", "-t", "name", required=True, metavar="NAME[:TAG]", help="The new image's name.")
@click.option("--file", "-f", "dockerfile", default="", help="The Dockerfile.  [default: PATH/Dockerfile]")
@click.option("--build-arg", multiple=True, metavar="NAME[=VALUE]", help="An argument of the Dockerfile.")
@click.option("--target", default="", help="The stage to stop at.")
@click.option("--no-cache", is_flag=True, help="Do every step anew.")
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@with_output
def build(
    output: Output,
    *,
    name: str,
    dockerfile: str,
    build_arg: tuple[str, ...],
    target: str,
    no_cache: bool,
    path: Path,
) -> None:
    """Make an image from the Dockerfile in a directory.

    What `.dockerignore` names is not sent.
    """
    from uhm.builds import make_image  # noqa: PLC0415 - heavy
    from uhm.client import connect  # noqa: PLC0415
    from uhm.context import open_context  # noqa: PLC0415
    from uhm.values import parse_environment  # noqa: PLC0415

    context = open_context(path, dockerfile=dockerfile)
    arguments = dict(entry.split("=", 1) for entry in parse_environment(build_arg, own=os.environ))
    client = connect()
    uploaded = client.upload("/api/v1/contexts", context.tar, content_type="application/x-tar")
    build_context = {
        "id": uploaded["id"],
        "dockerfile": context.dockerfile,
        "build_args": arguments,
        "target": target,
        "no_cache": no_cache,
    }
    show_made(output, make_image(client, output, request={"image": name, "context": build_context}))

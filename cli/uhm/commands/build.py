"""`uhm build`: an image from a Dockerfile."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uhm.commands.images import show_made
from uhm.output import Output, with_output

if TYPE_CHECKING:
    from uhm.context import BuildContext, PackedContext

__all__ = ["build"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What the command line says."""

    name: str | None
    dockerfile: str
    build_arg: tuple[str, ...]
    secret: tuple[str, ...]
    target: str
    platform: str
    no_cache: bool
    publish: tuple[str, ...]
    progress: str


@click.command()
@click.option("--tag", "-t", "name", metavar="NAME[:TAG]", help="The new image's name.  [default: the directory's]")
@click.option("--file", "-f", "dockerfile", default="", help="The Dockerfile.  [default: PATH/Dockerfile]")
@click.option("--build-arg", multiple=True, metavar="NAME[=VALUE]", help="An argument of the Dockerfile.")
@click.option(
    "--secret",
    multiple=True,
    metavar="id=ID[,src=FILE|,env=NAME]",
    help="A file, or a variable, that RUN --mount=type=secret sees; it is never stored.",
)
@click.option("--target", default="", help="The stage to stop at.")
@click.option("--platform", default="", help="What to build for.  [default: what machines run]")
@click.option("--no-cache", is_flag=True, help="Do every step anew.")
@click.option("--publish", multiple=True, metavar="LOCATION", help="Publish it to a storage location, too.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain"]),
    default="auto",
    help="Bars that move on a terminal, or lines only.  [default: auto]",
)
@click.argument("path")
@with_output
def build(output: Output, /, *, path: str, **options: Any) -> None:
    """Make an image from the Dockerfile in the directory PATH, or in a tar archive on standard input (-).

    What `.dockerignore` names is not sent, and what the server has already is not sent again.
    """
    from uhm.build_secrets import parse_secrets  # noqa: PLC0415 - heavy
    from uhm.builds import make_image  # noqa: PLC0415
    from uhm.client import connect  # noqa: PLC0415
    from uhm.render.progress import PlainProgress  # noqa: PLC0415
    from uhm.uploads import upload  # noqa: PLC0415
    from uhm.values import parse_environment  # noqa: PLC0415

    wanted = BuildOptions(**options)
    name = wanted.name or _name_of(path)
    arguments = dict(entry.split("=", 1) for entry in parse_environment(wanted.build_arg, own=os.environ))
    secrets = parse_secrets(wanted.secret, own=os.environ)
    client = connect()
    with _opened(path, dockerfile=wanted.dockerfile) as context:
        uploaded = upload(client, context.tar)
    request = {
        "image": name,
        "platform": wanted.platform,
        "publish": wanted.publish,
        "context": {
            "id": uploaded["id"],
            "dockerfile": context.dockerfile,
            "build_args": arguments,
            "target": wanted.target,
            "no_cache": wanted.no_cache,
            "secrets": secrets,
        },
    }
    shown = PlainProgress(output) if wanted.progress == "plain" else None
    image = make_image(client, output, request=request, progress=shown)
    show_made(output, image, client=client, publish=bool(wanted.publish))


def _name_of(path: str) -> str:
    """What an image is called without -t: as its directory, in the letters that names have."""
    name = "" if path == "-" else re.sub(r"[^a-z0-9]+", "-", Path(path).resolve().name.lower()).strip("-")
    if not name:
        raise click.UsageError(f"The image needs a name: uhm build -t NAME {path}")
    return name


def _opened(path: str, *, dockerfile: str) -> BuildContext | PackedContext:
    from uhm.context import open_context, packed_context  # noqa: PLC0415 - heavy

    if path == "-":
        return packed_context(sys.stdin.buffer, dockerfile=dockerfile)
    if not Path(path).is_dir():
        raise click.BadParameter(f"{path!r} is not a directory.", param_hint="PATH")
    return open_context(Path(path), dockerfile=dockerfile)

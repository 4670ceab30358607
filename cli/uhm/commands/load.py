"""`uhm load`: an image from an archive."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uhm.commands.images import show_made
from uhm.errors import CommandError
from uhm.output import Output, with_output

if TYPE_CHECKING:
    from uhm.context import BuildContext, PackedContext

__all__ = ["load"]


@click.command()
@click.option(
    "--input",
    "-i",
    "archive",
    type=click.Path(exists=True, path_type=Path),
    help="The archive, or the directory of an OCI image layout.  [default: standard input]",
)
@click.option(
    "--tag", "-t", "name", default="", metavar="NAME[:TAG]", help="The image's name.  [default: the archive's]"
)
@click.option("--image", default="", metavar="NAME", help="Which image to take, where the archive has several.")
@click.option("--platform", default="", help="What the image must be made for.  [default: what machines run]")
@click.option("--publish", multiple=True, metavar="LOCATION", help="Publish it to a storage location, too.")
@with_output
def load(
    output: Output, *, archive: Path | None, name: str, image: str, platform: str, publish: tuple[str, ...]
) -> None:
    """Make an image from an archive, as `docker save` writes it or in OCI layout.

    The archive may be compressed with gzip or zstd. What the server has of it already is not sent again.
    """
    from uhm.builds import make_image  # noqa: PLC0415 - heavy
    from uhm.client import connect  # noqa: PLC0415
    from uhm.uploads import upload  # noqa: PLC0415

    client = connect()
    with _opened(archive) as content:
        uploaded = upload(client, content.tar)
    request = {
        "image": name,
        "platform": platform,
        "publish": publish,
        "archive": {"id": uploaded["id"], "name": image},
    }
    show_made(output, make_image(client, output, request=request), client=client, publish=bool(publish))


def _opened(archive: Path | None) -> BuildContext | PackedContext:
    """What is sent. Raises CommandError for what is no archive."""
    from uhm.context import BuildContext, PackedContext  # noqa: PLC0415 - heavy
    from uhm.ignore import IgnoreRules  # noqa: PLC0415

    if archive is None:
        if sys.stdin.isatty():
            raise CommandError("Standard input is a terminal.", hint="Name the archive with -i, or pipe it in.")
        file = tempfile.TemporaryFile()  # noqa: SIM115 - PackedContext closes it
        shutil.copyfileobj(sys.stdin.buffer, file)
        return PackedContext(file, dockerfile="")
    if not archive.is_dir():
        return PackedContext(archive.open("rb"), dockerfile="")
    if not (archive / "index.json").is_file():
        raise CommandError(f"{archive} is not the directory of an OCI image layout: it has no index.json.")
    return BuildContext(archive, IgnoreRules([]), "")

"""`uhm customize`: a new image that is an old one with something on top."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uhm.commands.images import show_made
from uhm.output import Output, with_output

if TYPE_CHECKING:
    from uhm.client import Client

__all__ = ["customize"]


@click.command()
@click.argument("image")
@click.option("--tag", "-t", "name", required=True, metavar="NAME[:TAG]", help="The new image's name.")
@click.option("--copy-in", multiple=True, metavar="PATH:DIR", help="Copy a file or directory into a directory.")
@click.option("--write", multiple=True, metavar="FILE:CONTENT", help="Write a file.")
@click.option("--chmod", multiple=True, metavar="MODE:FILE", help="Permissions of a file that --write writes.")
@click.option("--chown", multiple=True, metavar="USER[:GROUP]:FILE", help="Owner of a file that --write writes.")
@click.option(
    "--ssh-key",
    "--ssh-inject",
    multiple=True,
    metavar="[USER:]file:PATH|[USER:]string:KEY",
    help="Let a key log in.  [default user: root]",
)
@click.option("--hostname", default="", help="The machines' host name, unless they are given another.")
@click.option(
    "--user",
    multiple=True,
    metavar="NAME[:KEY=VALUE,…]",
    help="Add a user: uid, groups (a+b), shell, home, password_hash (which comes last).",
)
@click.option(
    "--run-first-boot",
    "--firstboot",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A script to run once, as root, before a disk's first start.",
)
@click.option("--publish", multiple=True, metavar="LOCATION", help="Publish it to a storage location, too.")
@with_output
def customize(output: Output, /, *, image: str, name: str, publish: tuple[str, ...], **options: Any) -> None:
    """Make a new image out of IMAGE and what is put on top of it, offline: nothing of it is run.

    The options are those of virt-customize where it has the same thing.
    """
    from uhm.builds import make_image  # noqa: PLC0415 - heavy
    from uhm.client import connect  # noqa: PLC0415
    from uhm.customizations import parse_keys, parse_users, parse_writes  # noqa: PLC0415

    customization = {
        "image": image,
        "write": parse_writes(options["write"], chmod=options["chmod"], chown=options["chown"]),
        "ssh_keys": parse_keys(options["ssh_key"]),
        "hostname": options["hostname"],
        "users": parse_users(options["user"]),
        "run_first_boot": [script.read_text() for script in options["run_first_boot"]],
    }
    client = connect()
    customization["copy_in"] = [_copied_in(client, each) for each in options["copy_in"]]
    request = {"image": name, "publish": publish, "customization": customization}
    show_made(output, make_image(client, output, request=request), client=client, publish=bool(publish))


def _copied_in(client: Client, text: str) -> dict[str, str]:
    """Uploads what `PATH:DIR` names."""
    from uhm.customizations import open_copy  # noqa: PLC0415 - heavy
    from uhm.uploads import upload  # noqa: PLC0415

    with open_copy(text) as (content, directory):
        return {"context": upload(client, content.tar)["id"], "directory": directory}

"""`uhm pull`, `images`, `rmi`, `cancel`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from uhm.output import Output, with_output
from uhm.render.tables import images_table
from uhm.render.units import short_id, size
from uhm.render.waterfall import waterfall

if TYPE_CHECKING:
    from uhm.client import Client

__all__ = ["cancel", "images", "pull", "rmi", "show_made"]


def show_made(output: Output, image: dict[str, Any], *, client: Client | None = None, publish: bool = False) -> None:
    """The end of a build: its stages as a waterfall, then the image in a line, and how it is published if it is."""
    layers = image.get("layers", [])
    reused = sum(1 for layer in layers if layer.get("reused"))
    for line in waterfall(image.get("stages", [])):
        output.say(line)
    output.say(
        f"{image['reference']} is ready: {short_id(image['id'])}, {len(layers)} layers"
        f"{f' ({reused} reused)' if reused else ''}, {size(image.get('size_bytes'))}"
    )
    if client is not None and publish:
        from uhm.publishing import publications_of, watch_publication  # noqa: PLC0415 - heavy

        published = [watch_publication(client, output, each) for each in publications_of(client, image)]
        image = image | {"publications": published}
    output.document(image)


@click.command()
@click.argument("reference")
@click.option("--platform", default="", help="As in linux/amd64; without it, what machines here run.")
@click.option("--publish", multiple=True, metavar="LOCATION", help="Publish it to a storage location, too.")
@with_output
def pull(output: Output, *, reference: str, platform: str, publish: tuple[str, ...]) -> None:
    """Make an image from a registry reference, from docker-daemon:NAME, or from storage:LOCATION/NAME.

    Ctrl-C leaves the build running; `uhm cancel` ends it.
    """
    from uhm.builds import make_image  # noqa: PLC0415 - heavy
    from uhm.client import connect  # noqa: PLC0415

    client = connect()
    request = {"image": reference, "platform": platform, "publish": publish}
    show_made(output, make_image(client, output, request=request), client=client, publish=bool(publish))


@click.command()
@click.argument("reference", required=False)
@click.option("--quiet", "-q", is_flag=True, help="Only ids.")
@with_output
def images(output: Output, *, reference: str | None, quiet: bool) -> None:
    """List images, the newest first."""
    from uhm.client import connect  # noqa: PLC0415 - heavy

    found = connect().pages("/api/v1/images", field="images", reference=reference)
    if quiet:
        for image in found:
            output.say(short_id(image["id"]))
    else:
        output.say(images_table(found, now=datetime.now(UTC)))
    output.document({"images": found})


@click.command()
@click.argument("image", nargs=-1, required=True)
@with_output
def rmi(output: Output, *, image: tuple[str, ...]) -> None:
    """Delete images, and after a while the layers that no other image uses; `uhm gc` deletes these at once."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy
    from uhm.each import for_each  # noqa: PLC0415

    client: Client = connect()

    def delete(name: str) -> dict[str, Any]:
        freed = client.delete(f"/api/v1/images/{segment(name)}").get("freed_bytes", 0)
        output.say(f"Deleted {name}, {size(freed)} will be freed")
        return {"image": name, "freed_bytes": int(freed)}

    output.document({"images": for_each(image, delete)})


@click.command()
@click.argument("image")
@with_output
def cancel(output: Output, *, image: str) -> None:
    """Cancel the build of an image."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    answer = connect().post(f"/api/v1/images/{segment(image)}:cancel")
    output.say(f"{answer.get('reference', image)} is {answer.get('status', 'cancelled')}.")
    output.document(answer)

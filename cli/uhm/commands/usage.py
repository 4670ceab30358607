"""`uhm df` and `uhm gc`: what images take up, and giving back what none needs."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from uhm.output import Output, with_output
from uhm.render.units import short_id, size
from uhm.render.usage import counted, quota_line, shares_table, usage_table

__all__ = ["df", "gc"]


@click.command()
@click.option("--verbose", "-v", is_flag=True, help="Every image, and what it shares with your others.")
@with_output
def df(output: Output, *, verbose: bool) -> None:
    """Show what your images take up, and the whole store."""
    from uhm.client import connect  # noqa: PLC0415 - heavy

    client = connect()
    usage = client.get("/api/v1/usage")
    output.say(usage_table(usage))
    output.say(f"{size(usage.get('free_bytes'))} are free on the store's file system.")
    if line := quota_line(usage):
        output.say(line)
    if not verbose:
        output.document(usage)
        return
    images = [image for image in client.pages("/api/v1/images", field="images") if image.get("status") == "ready"]
    output.say("")
    output.say(shares_table(images, now=datetime.now(UTC)))
    output.document(usage | {"ready": images})


@click.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would be deleted.")
@click.option("--untagged", is_flag=True, help="Delete your images that lost their tag to a newer one, too.")
@click.option(
    "--older-than", metavar="AGE", help="With --untagged: only those that lost it so long ago, such as 12h, 7d."
)
@with_output
def gc(output: Output, *, dry_run: bool, untagged: bool, older_than: str | None) -> None:
    """Delete at once the layers and disks that no image needs.

    They would be deleted by themselves after a grace period. What images and machines use is never deleted.
    """
    from uhm.client import connect  # noqa: PLC0415 - heavy
    from uhm.values import seconds  # noqa: PLC0415

    if older_than is not None and not untagged:
        raise click.UsageError("--older-than is about images without a tag: give --untagged, too.")
    request: dict[str, object] = {"dry_run": dry_run, "untagged": untagged}
    if older_than is not None:
        request["older_than"] = f"{seconds(older_than)}s"
    answer = connect().post("/api/v1/usage:collect", request)
    verb = "Would delete" if dry_run else "Deleted"
    for image in answer.get("images", []):
        output.say(f"{verb} the image {short_id(image)}")
    layers, disks = counted(answer.get("layers", 0), "layer"), counted(answer.get("disks", 0), "disk")
    output.say(f"{verb} {layers} and {disks}: {size(answer.get('freed_bytes'))}")
    output.document(answer)

"""`uhm storage …` and `uhm publish`: where images are published to, and publishing them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import click

from uhm.output import Output, with_output

__all__ = ["publish", "storage"]

FORMATS = ("qcow2", "raw", "vmdk", "vhdx", "vpc", "vdi", "ova")


@click.group()
def storage() -> None:
    """Storage locations: directories, buckets, registries and WebDAV servers that images are published to.

    An image that lies at one is pulled with `uhm pull storage:LOCATION/NAME[:TAG]`.
    """


@storage.command()
@click.argument("name")
@click.argument("kind", type=click.Choice(["dir", "s3", "registry", "webdav"]))
@click.argument("address")
@click.option("--username", "-u", default="", help="Of a registry or a WebDAV server; of S3, the access key's id.")
@click.option("--password", "-p", help="Of that user; of S3, the secret access key. Asked for where it is not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--endpoint", default="", metavar="URL", help="Of an S3 server.  [default: Amazon S3]")
@click.option("--region", default="", help="Of an S3 server.")
@with_output
def add(output: Output, /, *, name: str, kind: str, address: str, **options: Any) -> None:
    """Add a location NAME, once something could be written, read and deleted there.

    ADDRESS is a path on the server's host (dir), BUCKET[/PREFIX] (s3), REGISTRY/PATH (registry) or a URL (webdav). The
    password is stored encrypted and never shown.
    """
    from uhm.client import connect  # noqa: PLC0415 - heavy

    added = connect().create("/api/v1/storage", {"name": name} | _place(kind, address, **options))
    output.say(f"{added['name']} works: {_where(added)}")
    output.document(added)


@storage.command("ls")
@with_output
def list_storage(output: Output) -> None:
    """List storage locations."""
    from uhm.client import connect  # noqa: PLC0415 - heavy
    from uhm.render.storage import storage_table  # noqa: PLC0415

    found = connect().pages("/api/v1/storage", field="storage")
    output.say(storage_table(found, now=datetime.now(UTC)))
    output.document({"storage": found})


@storage.command("rm")
@click.argument("name", nargs=-1, required=True)
@with_output
def remove(output: Output, *, name: tuple[str, ...]) -> None:
    """Forget storage locations; what lies there stays."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy
    from uhm.each import for_each  # noqa: PLC0415

    client = connect()

    def forget(one: str) -> dict[str, Any]:
        client.delete(f"/api/v1/storage/{segment(one)}")
        output.say(f"Forgot {one}")
        return {"storage": one}

    output.document({"storage": for_each(name, forget)})


@storage.command()
@click.argument("name")
@with_output
def test(output: Output, *, name: str) -> None:
    """Try a location: something is written, read and deleted there."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    answer = connect().post(f"/api/v1/storage/{segment(name)}:test")
    output.say(f"{name} works.")
    output.document(answer)


@storage.command("images")
@click.argument("name")
@with_output
def list_images(output: Output, *, name: str) -> None:
    """List what is published at a location."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy
    from uhm.render.storage import published_table  # noqa: PLC0415

    found = connect().get(f"/api/v1/storage/{segment(name)}/images").get("images", [])
    output.say(published_table(found, now=datetime.now(UTC)))
    output.document({"images": found})


@storage.command()
@with_output
def publications(output: Output) -> None:
    """List publications, the newest first."""
    from uhm.client import connect  # noqa: PLC0415 - heavy
    from uhm.render.storage import publications_table  # noqa: PLC0415

    found = connect().pages("/api/v1/publications", field="publications")
    output.say(publications_table(found, now=datetime.now(UTC)))
    output.document({"publications": found})


@storage.command()
@click.argument("publication")
@with_output
def cancel(output: Output, *, publication: str) -> None:
    """Cancel a publication."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    answer = connect().post(f"/api/v1/publications/{segment(publication)}:cancel")
    output.say(f"{answer.get('reference', publication)} is {answer.get('status', 'cancelled')}.")
    output.document(answer)


@click.command()
@click.argument("image")
@click.argument("location")
@click.option("--format", "-f", "disk_format", type=click.Choice(FORMATS), default="qcow2", help="[default: qcow2]")
@click.option("--detach", "-d", is_flag=True, help="Do not wait until it is there.")
@with_output
def publish(output: Output, *, image: str, location: str, disk_format: str, detach: bool) -> None:
    """Publish an image to a storage location: as a disk that boots by itself, and as layers for another uhm.

    Ctrl-C leaves it running; `uhm storage cancel` ends it.
    """
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy
    from uhm.publishing import watch_publication  # noqa: PLC0415

    client = connect()
    request = {"storage": location, "format": disk_format}
    publication = client.create(f"/api/v1/images/{segment(image)}:publish", request)
    if detach:
        output.say(publication["id"])
    else:
        publication = watch_publication(client, output, publication)
    output.document(publication)


def _place(
    kind: str,
    address: str,
    *,
    username: str,
    password: str | None,
    password_stdin: bool,
    endpoint: str,
    region: str,
) -> dict[str, Any]:
    """Where the location is, as the API has it; a password that is needed and not given is asked for."""
    if kind != "s3" and (endpoint or region):
        raise click.UsageError("--endpoint and --region are for s3.")
    if kind == "dir":
        if username or password or password_stdin:
            raise click.UsageError("A directory has no user.")
        return {"directory": {"path": address}}
    if kind == "s3" and not username:
        raise click.UsageError("S3 needs an access key: --username KEY_ID.")
    secret = ""
    if password_stdin:
        secret = sys.stdin.readline().rstrip("\r\n")
    elif password is not None:
        secret = password
    elif username:
        secret = click.prompt("Password", hide_input=True, err=True)
    if kind == "registry":
        return {"registry": {"repository": address, "username": username, "password": secret}}
    if kind == "webdav":
        return {"webdav": {"url": address, "username": username, "password": secret}}
    bucket, _, prefix = address.partition("/")
    key = {"access_key_id": username, "secret_access_key": secret}
    return {"s3": {"endpoint": endpoint, "bucket": bucket, "prefix": prefix, "region": region} | key}


def _where(location: dict[str, Any]) -> str:
    from uhm.render.storage import where  # noqa: PLC0415 - heavy

    return where(location)

"""`uhm files`, `cat`, `diff`, `sbom`: what is inside of images."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Any

import click

from uhm.output import Output, with_output

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cat", "diff", "files", "sbom"]

LETTERS = {"directory": "d", "symlink": "l", "fifo": "p", "socket": "s", "block": "b", "char": "c", "file": "-"}
RIGHTS = "rwxrwxrwx"
SPECIAL = ((0o4000, 2, "s"), (0o2000, 5, "s"), (0o1000, 8, "t"))
CHANGES = {"added": "A", "changed": "C", "deleted": "D"}
PAGE = 10_000


@click.command()
@click.argument("image")
@click.argument("path", default="/")
@click.option("--recursive", "-R", is_flag=True, help="List what is below, too.")
@with_output
def files(output: Output, *, image: str, path: str, recursive: bool) -> None:
    """List a directory of an image, or the file at PATH, as a machine would see it."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    address = f"/api/v1/images/{segment(image)}/files"
    found = connect().pages(address, field="files", page_size=PAGE, path=path, recursive=recursive)
    for line in _listing(found):
        output.say(line)
    output.document({"files": found})


@click.command()
@click.argument("image")
@click.argument("path")
@with_output
def cat(output: Output, *, image: str, path: str) -> None:
    """Print a file of an image; with --json, in base64."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    with connect().download(f"/api/v1/images/{segment(image)}/files:read", path=path) as pieces:
        if output.is_json:
            output.document({"path": path, "content": base64.b64encode(b"".join(pieces)).decode()})
            return
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


@click.command()
@click.argument("image")
@click.argument("other")
@with_output
def diff(output: Output, *, image: str, other: str) -> None:
    """Tell which paths were added (A), changed (C) or deleted (D) from IMAGE to OTHER."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    changes = connect().get(f"/api/v1/images/{segment(image)}:diff", other=other).get("changes", [])
    for change in changes:
        output.say(f"{CHANGES[change['kind']]} {_printable(change['path'])}")
    output.document({"changes": changes})


@click.command()
@click.argument("image")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["cyclonedx", "spdx"]),
    default="cyclonedx",
    help="CycloneDX 1.6 or SPDX 2.3, as JSON.  [default: cyclonedx]",
)
@with_output
def sbom(output: Output, *, image: str, kind: str) -> None:
    """Print an image's bill of materials: the packages that are installed in it."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    del output  # what is printed is a JSON document anyway
    with connect().download(f"/api/v1/images/{segment(image)}/sbom", format=kind) as pieces:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _listing(found: Sequence[dict[str, Any]]) -> list[str]:
    """Lines as `ls -ln` has them, without times: an image's files have none."""
    rows = [
        (
            _rights(file),
            f"{file.get('uid', 0)}:{file.get('gid', 0)}",
            str(file.get("size_bytes", 0)),
            _printable(file["path"] + (f" -> {file['target']}" if file.get("target") else "")),
        )
        for file in found
    ]
    owners = max((len(row[1]) for row in rows), default=0)
    sizes = max((len(row[2]) for row in rows), default=0)
    return [f"{rights} {owner.ljust(owners)} {size.rjust(sizes)} {path}" for rights, owner, size, path in rows]


def _rights(file: dict[str, Any]) -> str:
    """`drwxr-xr-x`; question marks for what the server could not look at."""
    if not file.get("type"):
        return "?" * 10
    mode = int(file.get("mode", "0"), 8)
    letters = [letter if mode & (1 << (8 - at)) else "-" for at, letter in enumerate(RIGHTS)]
    for bit, at, letter in SPECIAL:
        if mode & bit:
            letters[at] = letter if letters[at] == "x" else letter.upper()
    return LETTERS.get(file["type"], "?") + "".join(letters)


def _printable(text: str) -> str:
    """A name in one line, and without what would steer a terminal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)

"""`uhm export`: an image as a disk that boots by itself."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uhm.errors import CommandError
from uhm.output import Output, with_output
from uhm.render.units import size as shown_size
from uhm.render.waterfall import waterfall
from uhm.values import size_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uhm.client import Metadata
    from uhm.exports import Target

__all__ = ["export"]

FORMATS = ("qcow2", "raw", "vmdk", "vhdx", "vpc", "vdi", "ova")
BY_SUFFIX = {f".{name}": name for name in FORMATS} | {".img": "raw", ".vhd": "vpc"}
STANDARD_OUTPUT = "-"


@click.command()
@click.argument("image")
@click.option(
    "--output", "-o", "file", required=True, metavar="FILE|-", help="Where to write it; - is standard output."
)
@click.option(
    "--format", "-f", "disk_format", type=click.Choice(FORMATS), help="[default: what FILE ends with, or qcow2]"
)
@click.option("--compress", type=click.Choice(["zstd", "zlib", "none"]), help="zstd: qcow2; zlib: qcow2, vmdk, ova.")
@click.option("--size", metavar="SIZE", help="Of the whole disk, as in 20G.  [default: what the image needs]")
@click.option("--seal", is_flag=True, help="Have the guest verify all that it only reads (dm-verity).")
@click.option("--verify", is_flag=True, help="Look at the disk with libguestfs before it is handed out.")
@with_output
def export(
    output: Output,
    *,
    image: str,
    file: str,
    disk_format: str | None,
    compress: str | None,
    size: str | None,
    seal: bool,
    verify: bool,
) -> None:
    """Write an image as one disk that boots by itself, on BIOS and UEFI, under any hypervisor.

    The same image gives the same bytes.
    """
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy
    from uhm.exports import target_of  # noqa: PLC0415

    if file == STANDARD_OUTPUT and output.is_json:
        raise click.UsageError("The disk and a JSON document cannot both go to standard output.")
    if file == STANDARD_OUTPUT and sys.stdout.isatty():
        raise click.UsageError("A disk is not written to a terminal; give a FILE, or redirect standard output.")
    request = {
        "format": disk_format or BY_SUFFIX.get(Path(file).suffix.lower(), "qcow2"),
        "compression": compress or "",
        "seal": seal,
        "verify": verify,
        "size_bytes": size_bytes(size) if size else 0,
    }
    began = time.monotonic()
    with connect().order(f"/api/v1/images/{segment(image)}:export", request) as (metadata, pieces):
        answered = time.monotonic()
        with target_of(None if file == STANDARD_OUTPUT else Path(file)) as target:
            _transfer(pieces, target, metadata)
        done = time.monotonic()
    phases = _phases(metadata, answered_ms=(answered - began) * 1000, done_ms=(done - began) * 1000)
    _show(output, file, metadata, phases)


def _transfer(pieces: Iterator[bytes], target: Target, metadata: Metadata) -> None:
    """Raises CommandError where not all of it came."""
    for piece in pieces:
        target.write(piece)
    expected = _only(metadata, "uhm-digest")
    if target.digest() != expected:
        raise CommandError(
            f"The disk did not come whole: {target.size} of {_only(metadata, 'uhm-size')} bytes, with another digest.",
            hint="Export it again; `uhm doctor` says how the server is.",
        )


def _phases(metadata: Metadata, *, answered_ms: float, done_ms: float) -> list[dict[str, Any]]:
    """The server's phases, which ended when it answered, and the transfer."""
    phases: list[dict[str, Any]] = json.loads(_only(metadata, "uhm-phases") or "[]")
    made_ms = max((phase["start_ms"] + phase["duration_ms"] for phase in phases), default=0.0)
    for phase in phases:
        phase["start_ms"] += max(answered_ms - made_ms, 0.0)
    return [*phases, {"name": "transfer", "start_ms": answered_ms, "duration_ms": done_ms - answered_ms}]


def _show(output: Output, file: str, metadata: Metadata, phases: list[dict[str, Any]]) -> None:
    findings = metadata.get("uhm-findings", [])
    digest, length = _only(metadata, "uhm-digest"), int(_only(metadata, "uhm-size"))
    say = output.note if file == STANDARD_OUTPUT else output.say
    for line in [*waterfall(phases), *(f"  {finding}" for finding in findings)]:
        say(line)
    name = "The disk" if file == STANDARD_OUTPUT else file
    say(f"{name} is whole: {shown_size(length)}, {digest}")
    output.document({"file": file, "digest": digest, "size_bytes": length, "phases": phases, "findings": findings})


def _only(metadata: Metadata, name: str) -> str:
    """The value of what is told once. Raises CommandError where it is not told at all."""
    values = metadata.get(name)
    if not values:
        raise CommandError(
            "The server answered what is no exported disk.", hint="Does UHM_URL name a uhmalguhm server?"
        )
    return values[0]

"""Images made into self-contained disks, a bounded number at once, each gone when its taker has it."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.appliance import Interruption
from uhm_builder.base import load_base
from uhm_builder.disk import load_disk
from uhm_builder.errors import NoSpace
from uhm_builder.export.convert import convert, inner_format
from uhm_builder.export.inspection import inspect
from uhm_builder.export.options import SUFFIXES, DiskFormat
from uhm_builder.export.ova import write_ova
from uhm_builder.export.portable import compose_portable
from uhm_builder.export.sparse import digest_of
from uhm_builder.mkfs import space_checked
from uhm_builder.threads import entered, in_thread
from uhm_common.logs import get_logger
from uhm_common.phases import Stopwatch
from uhm_common.process import ProcessFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from uhm_builder.export.options import ExportOptions
    from uhm_builder.export.portable import Portable
    from uhm_builder.images import Image
    from uhm_common.artifacts import ArtifactStore
    from uhm_common.phases import Phase

__all__ = ["ExportedDisk", "Exporter"]

log = get_logger()

_AS_LARGE_AS_THE_DISK = frozenset({DiskFormat.RAW, DiskFormat.VPC})
_NAME = re.compile(r"[^a-z0-9._-]+")
_NAME_LENGTH = 64
"""The most of a name: with a suffix it must fit into the 100 bytes of a ustar header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedDisk:
    """A finished file, for as long as the export lasts."""

    path: Path
    size: int
    """Of the file, in bytes."""
    digest: str
    format: DiskFormat
    filename: str
    """What to call it."""
    findings: tuple[str, ...]
    """What libguestfs found, one line each; empty where it was not asked."""
    phases: tuple[Phase, ...]


class Exporter:
    """Makes disks in the store's staging. `kvm` is whether KVM really runs guests here, for libguestfs."""

    def __init__(self, *, artifacts: ArtifactStore, kvm: bool, parallel: int) -> None:
        self._artifacts = artifacts
        self._kvm = kvm
        self._slots = asyncio.Semaphore(parallel)

    @asynccontextmanager
    async def exported(self, image: Image, options: ExportOptions) -> AsyncIterator[ExportedDisk]:
        """The disk of a ready image, deleted at the end of the block. Waits where as many exports as may are under way.

        Raises InvalidExport, StaleImage, UnsupportedImage, UnfitDisk, NoSpace, NotFound where the image is deleted
        meanwhile, and ProcessFailed. When cancelled, whatever works on it is killed.
        """
        async with self._slots, entered(self._artifacts.stage()) as directory:
            with space_checked(directory):
                disk = await self._make(image, options, directory)
            log.info(
                "export.made",
                image_id=image.id,
                format=disk.format,
                bytes=disk.size,
                ms={phase.name: round(phase.duration_ms) for phase in disk.phases},
            )
            yield disk

    async def _make(self, image: Image, options: ExportOptions, directory: Path) -> ExportedDisk:
        watch = Stopwatch()
        name = _file_name(image.reference)
        with watch.phase("compose"):
            composed = await in_thread(partial(self._compose, image, options, directory))
        path = directory / "disk"
        with watch.phase("convert") as converting:
            await self._convert(composed, options, path)
            converting.bytes = path.stat().st_size
        findings: tuple[str, ...] = ()
        if options.verify:
            with watch.phase("verify"):
                findings = await self._inspect(path, composed, disk_format=inner_format(options.format))
        if options.format is DiskFormat.OVA:
            with watch.phase("pack"):
                inner, path = path, directory / "appliance"
                pack = partial(write_ova, path, inner, name=name, seed=composed.seed, virtual_size=composed.size)
                await in_thread(pack)
                inner.unlink()
        with watch.phase("digest"):
            digest = await _digest(path)
        return ExportedDisk(
            path=path,
            size=path.stat().st_size,
            digest=digest,
            format=options.format,
            filename=f"{name}.{SUFFIXES[options.format]}",
            findings=findings,
            phases=tuple(watch.phases),
        )

    def _compose(self, image: Image, options: ExportOptions, directory: Path) -> Portable:
        disk = load_disk(self._artifacts, image.disk_digest)
        return compose_portable(
            self._artifacts,
            load_base(self._artifacts, disk.base),
            disk.layers,
            image.config,
            directory=directory,
            seal=options.seal,
            size=options.size_bytes,
            compact=options.format in _AS_LARGE_AS_THE_DISK,
        )

    async def _inspect(self, path: Path, composed: Portable, *, disk_format: DiskFormat) -> tuple[str, ...]:
        interruption = Interruption()
        look = partial(inspect, path, composed, disk_format=disk_format, kvm=self._kvm, interruption=interruption)
        return await in_thread(look, interrupt=interruption)

    async def _convert(self, composed: Portable, options: ExportOptions, path: Path) -> None:
        assert options.compression is not None  # the options' own default
        try:
            await convert(composed, path, disk_format=inner_format(options.format), compression=options.compression)
        except ProcessFailed as error:
            if os.strerror(errno.ENOSPC) in error.message or os.strerror(errno.EDQUOT) in error.message:
                raise NoSpace(
                    "There is no space left to make the disk.", hint="Delete images that are not needed, or make room."
                ) from error
            raise


async def _digest(path: Path) -> str:
    stopped = threading.Event()
    return await in_thread(lambda: digest_of(path, goes_on=lambda: not stopped.is_set()), interrupt=stopped.set)


def _file_name(reference: str) -> str:
    """`ghcr.io/owner/shop:1.2` as `shop-1.2`; the tag `latest` says nothing."""
    last = reference.rpartition("/")[2].partition("@")[0].removesuffix(":latest")
    return _NAME.sub("-", last.lower()).strip("-.")[:_NAME_LENGTH].rstrip("-.") or "disk"

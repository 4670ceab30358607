"""A new layer as a tar archive, written from front to back.

In a merged tree the topmost directory's attributes count. So a directory that the image has goes into the layer with
the attributes that it has there, as overlayfs copies it up when something below it is written. Times are 0: what is put
in alone decides about the bytes.

What it has written it can read back, as later parts of a customization add to files of earlier ones.
"""

from __future__ import annotations

import io
import tarfile
from typing import IO, TYPE_CHECKING

from uhm_builder.errors import CustomizationFailed, LayerTooLarge, TooMuchInside
from uhm_builder.inside.entries import Entry, EntryKind, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uhm_builder.inside.ground import Ground

__all__ = ["LayerWriter"]

XATTR = "SCHILY.xattr."
MAX_ENTRIES = 1_000_000
WHITEOUT = ".wh."
KINDS = {
    tarfile.DIRTYPE: EntryKind.DIRECTORY,
    tarfile.SYMTYPE: EntryKind.SYMLINK,
    tarfile.FIFOTYPE: EntryKind.FIFO,
    tarfile.CHRTYPE: EntryKind.CHAR,
    tarfile.BLKTYPE: EntryKind.BLOCK,
}


class LayerWriter:
    """Writes entries at resolved paths; directories above them come by themselves. `close` ends the archive."""

    def __init__(
        self, output: IO[bytes], ground: Ground, *, attributes: Callable[[str], Mapping[str, bytes]], max_bytes: int
    ) -> None:
        """`output` can be read back; `attributes` answers the extended attributes of a path of the image."""
        self._output = output
        self._tar = tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._ground = ground
        self._attributes = attributes
        self._max_bytes = max_bytes
        self._written: dict[str, bytes] = {}
        """Types of the entries that the archive has."""
        self._contents: dict[str, tuple[int, int]] = {}
        """Of its files and hard links: where in the archive, and how many bytes."""

    @property
    def empty(self) -> bool:
        """Whether nothing was written."""
        return not self._written

    def directory(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """A directory; one that is there already stays as it is. Raises CustomizationFailed where something else is."""
        found = self._ground.find(path)
        if found is None:
            self.add(_header(path, tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid))
        elif not found.is_directory:
            raise CustomizationFailed(f"{shown(path)} is a {found.kind} in the image, not a directory.")

    def file(self, path: str, content: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """A file, in place of one that is there. Raises CustomizationFailed where a directory is."""
        header = _header(path, tarfile.REGTYPE, mode=mode, uid=uid, gid=gid)
        header.size = len(content)
        self.add(header, io.BytesIO(content))

    def has_file(self, path: str) -> bool:
        """Whether this layer has a regular file there, which a hard link may name."""
        return self._written.get(path) == tarfile.REGTYPE

    def read(self, path: str, *, limit: int) -> bytes | None:
        """The file that this layer has at a resolved path; None where it has none. Raises TooMuchInside."""
        if path not in self._contents:
            return None
        start, size = self._contents[path]
        if size > limit:
            raise TooMuchInside(f"{shown(path)} has {size} bytes; {limit} are taken.")
        self._output.seek(start)
        content = self._output.read(size)
        self._output.seek(self._tar.offset)
        return content

    def add(self, header: tarfile.TarInfo, content: IO[bytes] | None = None) -> None:
        """Any entry; its name is a resolved path. Raises CustomizationFailed, LayerTooLarge."""
        path = header.name
        if path.rpartition("/")[2].startswith(WHITEOUT):
            raise CustomizationFailed(
                f"{shown(path)} would delete something from the image: names like {WHITEOUT}* do."
            )
        found = self._ground.find(path)
        if found is not None and found.is_directory and not header.isdir():
            raise CustomizationFailed(f"{shown(path)} is a directory in the image; a file does not replace it.")
        self._directories_above(path)
        self._write(header, content)
        kind = KINDS.get(header.type, EntryKind.FILE)
        self._ground.plan(
            Entry(path=path, kind=kind, mode=header.mode, uid=header.uid, gid=header.gid, target=header.linkname)
        )

    def close(self) -> None:
        """Ends the archive."""
        self._tar.close()

    def _directories_above(self, path: str) -> None:
        """Writes those that the archive does not have yet, the topmost first."""
        parts = path.split("/")[:-1]
        for depth in range(len(parts)):
            above = "/".join(parts[: depth + 1]) or "/"
            if above in self._written:
                continue
            found = self._ground.find(above)
            if found is None:
                self._write(_header(above, tarfile.DIRTYPE, mode=0o755, uid=0, gid=0))
                self._ground.plan(Entry(path=above, kind=EntryKind.DIRECTORY, mode=0o755))
            else:
                header = _header(above, tarfile.DIRTYPE, mode=found.mode, uid=found.uid, gid=found.gid)
                header.pax_headers = {
                    f"{XATTR}{name}": value.decode(errors="surrogateescape")
                    for name, value in self._attributes(above).items()
                }
                self._write(header)

    def _write(self, header: tarfile.TarInfo, content: IO[bytes] | None = None) -> None:
        path = header.name
        self._written[path] = header.type
        if self._tar.offset + header.size > self._max_bytes:
            raise LayerTooLarge(
                f"What is put in has more than {self._max_bytes} bytes.", hint="UHM_MAX_LAYER_BYTES is the bound."
            )
        if len(self._written) > MAX_ENTRIES:
            raise LayerTooLarge(f"What is put in has more than {MAX_ENTRIES} entries.")
        header.name = f".{path}"
        self._tar.addfile(header, content)
        self._tar.members.clear()  # type: ignore[attr-defined] # else it keeps every header
        header.name = path
        if header.isreg():
            padded = header.size + -header.size % tarfile.BLOCKSIZE
            self._contents[path] = self._tar.offset - padded, header.size
        elif header.islnk():
            self._contents[path] = self._contents[header.linkname.removeprefix(".")]
        else:
            self._contents.pop(path, None)


def _header(path: str, kind: bytes, *, mode: int, uid: int, gid: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.type, header.mode, header.uid, header.gid = kind, mode, uid, gid
    return header

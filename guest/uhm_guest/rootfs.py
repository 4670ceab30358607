"""The base root file system: what a container image may lack, at the bottom of the overlay.

Written as a tar that mkfs.erofs turns into the partition `uhm-base`; the same tree gives the same bytes.
Where an image has the same file, the image's wins.
"""

from __future__ import annotations

import io
import tarfile

__all__ = ["base_tar"]

_DIRECTORIES: tuple[tuple[str, int], ...] = (
    ("", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/tmp", 0o1777),
)

_FILES: tuple[tuple[str, str], ...] = (
    ("etc/group", "root:x:0:\nnobody:x:65534:\n"),
    # Mount points: the guest binds a file of its own over each.
    ("etc/hostname", ""),
    ("etc/hosts", ""),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"),
    ("etc/resolv.conf", ""),
)


def base_tar() -> bytes:
    """Build the tree as an uncompressed tar (ustar), all owned by root, with all times at zero."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, mode in _DIRECTORIES:
            archive.addfile(_member(f"./{name}", mode, kind=tarfile.DIRTYPE))
        for name, text in _FILES:
            content = text.encode()
            archive.addfile(_member(f"./{name}", 0o644, size=len(content)), io.BytesIO(content))
    return buffer.getvalue()


def _member(name: str, mode: int, *, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode, member.size, member.type = mode, size, kind
    member.uname = member.gname = "root"
    return member

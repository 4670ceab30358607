"""Archives for tests."""

from __future__ import annotations

import io
import tarfile

__all__ = ["tar_of"]


def tar_of(files: dict[str, bytes], *, mode: str = "w") -> bytes:
    """A tar archive of names and contents; `mode` as tarfile has it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
